//! Whatever stands between two directors, and whatever is done to them: connections are shared, or they say why not.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use director_tests::director::{status_on, sync_status_on, wait_shared};
use director_tests::http::Connection;
use director_tests::lab::Host;
use director_tests::lab::plan::VIRTUAL6;
use director_tests::{PATIENCE, udp, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::pair::{
    BOTH_CABLES, BOTH_FAMILIES, NODES, ONE_GROUP, Pair, QUICK, Runs, SERVICE, Setup, other,
};
use crate::sync::{TIMEOUT, begin, filter, finish, survive};

const ONCE: &str = "auto_failback: false\n";
/// Whoever hears nobody says so soon.
const SHARED: &str = "sync: {interface: eth1, alone_after: 1s}\n";

fn setup(sync: &str) -> Setup {
    Setup {
        more: sync.to_owned(),
        ..Setup::new(Runs::Director, &[QUICK, ONCE, BOTH_CABLES, ONE_GROUP])
    }
}

/// Has both directors go on with another section.
fn go_on_with(pair: &mut Pair, sync: &str) {
    sync.clone_into(&mut pair.setup.more);
    for node in NODES {
        pair.reload(node);
    }
}

/// Waits until what a director says of sharing is so.
fn wait_said(pair: &Pair, node: Host, what: &str, is_so: impl Fn(&Value) -> bool) {
    wait_until(what, PATIENCE, || {
        let status = sync_status_on(&pair.lab, node)?;
        ensure!(is_so(&status), "{status}");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", pair.logs()));
}

/// Has both directors lose so many of a hundred datagrams of each other.
fn lose(pair: &Pair, of_a_hundred: u32) {
    filter(
        pair,
        &format!("udp dport 8849 numgen random mod 100 < {of_a_hundred} counter drop"),
    );
}

#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn over_whatever_they_talk() {
    let mut pair = Pair::up_as(setup(SHARED));
    pair.wait_settled("web");
    let secret = pair.secret("secret");
    let rows = [
        ("an IPv6 group", "group: \"ff02::81\"".to_owned(), 0),
        // The same file for both: a node's own address is nobody else's.
        ("listed peers", "peers: [10.0.1.1, 10.0.1.2]".to_owned(), 0),
        (
            "listed peers, IPv6, another port, long datagrams",
            "peers: [\"2001:db8:1e::1\", \"2001:db8:1e::2\"], port: 9000, datagram: 1280"
                .to_owned(),
            0,
        ),
        ("signed", format!("key: {{id: 3, file: {secret}}}"), 0),
        ("a quarter lost", "rate: 200000".to_owned(), 25),
    ];
    for (what, sync, lost_of_a_hundred) in rows {
        go_on_with(
            &mut pair,
            &format!("sync: {{interface: eth1, alone_after: 1s, {sync}}}\n"),
        );
        if lost_of_a_hundred > 0 {
            lose(&pair, lost_of_a_hundred);
        }
        survive(&mut pair, 10, what);
    }
    // The last row loses some indeed: of the few that there were by now perhaps none by chance, but they go on.
    wait_until("datagrams are lost on their way", PATIENCE, || {
        for node in NODES {
            let rules = pair.lab.host(node)?.output("nft", &["list", "ruleset"])?;
            let count = rules.split("counter packets ").nth(1);
            let count = count.and_then(|rest| rest.split_whitespace().next());
            let count: u32 = count.context("no counter")?.parse()?;
            ensure!(count > 0, "{node} has lost none");
        }
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", pair.logs()));
}

/// The cable between them is out for a while, and the tables get another size: both find together again.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn whatever_happens_meanwhile() {
    let mut pair = Pair::up_as(setup(SHARED));
    let primary = pair.wait_settled("web");
    pair.wait_shared(primary);
    let mut transfers = begin(&pair, 5);
    pair.wait_shared(primary);
    // What begins while the cable is out is told when it is back.
    pair.ip(primary, &["link", "set", "eth1", "down"]);
    for node in NODES {
        wait_said(&pair, node, "the other one is silent", |it| {
            it["peers"][0]["state"] == "silent"
        });
    }
    transfers.extend(begin(&pair, 5));
    pair.ip(primary, &["link", "set", "eth1", "up"]);
    pair.wait_shared(primary);
    // Tables of another size, first of the one that hears, then of the one that tells.
    pair.setup.more += "connections: {ipv4: 50000, ipv6: 1000}\n";
    for node in [other(primary), primary] {
        pair.reload(node);
        transfers.extend(begin(&pair, 5));
        wait_until("the tables have another size", PATIENCE, || {
            let found = status_on(&pair.lab, node)?.connections.ipv4.places;
            // A place more than two thirds of them are for so many connections.
            ensure!(found == 75_000, "{found}");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", pair.logs()));
        transfers.extend(begin(&pair, 5));
        pair.wait_shared(primary);
    }
    pair.end(primary, Signal::SIGKILL);
    pair.wait_role(other(primary), "web", "primary");
    finish(&pair, transfers, "a cable out and tables of another size");
}

/// Handed over in order and taken back, twice, as before and after work on a node.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn handed_over_in_order() {
    let mut pair = Pair::up_as(setup(SHARED));
    let primary = pair.wait_settled("web");
    pair.wait_shared(primary);
    let mut transfers = begin(&pair, 10);
    for _ in 0..2 {
        pair.wait_shared(primary);
        pair.command(primary, &["standby"]).unwrap();
        pair.wait_role(other(primary), "web", "primary");
        transfers.extend(begin(&pair, 5));
        pair.wait_shared(other(primary));
        pair.command(primary, &["ready"]).unwrap();
        pair.command(primary, &["takeover", "web"]).unwrap();
        pair.wait_role(primary, "web", "primary");
        transfers.extend(begin(&pair, 5));
    }
    finish(
        &pair,
        transfers,
        "handed over in order, there and back, twice",
    );
}

/// Directors with different secrets learn nothing of each other and say so; nobody waits for ever for the other's connections.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn secrets_that_differ() {
    let mut pair = Pair::up_as(setup(SHARED));
    pair.wait_settled("web");
    // An interface that is not there is said, and takes nothing else along.
    pair.setup.more = "sync: {interface: eth9}\n".to_owned();
    pair.reload(Host::Backup);
    let socket = director_tests::director::control_socket_on(&pair.lab, Host::Backup);
    let words = ["sync", "--socket", socket.to_str().unwrap()];
    let refused = director_tests::director::command_on(&pair.lab, Host::Backup, &words);
    let said = format!("{:#}", refused.unwrap_err());
    assert!(said.contains("could not start"), "{said}");
    let secrets = ["one", "other"].map(|name| pair.secret(name));
    for (node, secret) in NODES.iter().zip(&secrets) {
        pair.setup.more =
            format!("sync: {{interface: eth1, alone_after: 1s, key: {{id: 1, file: {secret}}}}}\n");
        pair.reload(*node);
    }
    for node in NODES {
        wait_said(&pair, node, "it refuses the other one's messages", |it| {
            let refused = it["refused"].as_array().into_iter().flatten();
            let mut signatures = refused.filter(|it| it["reason"] == "signature");
            it["readiness"] == "alone" && signatures.any(|it| it["datagrams"].as_u64() > Some(3))
        });
        let socket = director_tests::director::control_socket_on(&pair.lab, node);
        let words = ["sync", "--socket", socket.to_str().unwrap()];
        let said = director_tests::director::command_on(&pair.lab, node, &words).unwrap();
        assert!(
            said.contains("refused") && said.contains("signature"),
            "{said}"
        );
    }
    // The right secret in the same file: a reload is enough.
    fs::copy(&secrets[0], &secrets[1]).unwrap();
    pair.reload(Host::Backup);
    for node in NODES {
        wait_shared(&pair.lab, node).unwrap_or_else(|error| panic!("{error:#}\n{}", pair.logs()));
    }
    pair.secret("other");
    // The other secret is accepted while all get the new one: one node after the other, and nobody goes unheard.
    let [one, other_one] = secrets;
    pair.setup.more = format!(
        "sync: {{interface: eth1, key: {{id: 2, file: {other_one}, accept: [{{id: 1, file: {one}}}]}}}}\n"
    );
    pair.reload(Host::Backup);
    pair.setup.more = format!(
        "sync: {{interface: eth1, key: {{id: 1, file: {one}, accept: [{{id: 2, file: {other_one}}}]}}}}\n"
    );
    pair.reload(Host::Director);
    for node in NODES {
        wait_shared(&pair.lab, node).unwrap_or_else(|error| panic!("{error:#}\n{}", pair.logs()));
    }
}

/// Which real servers answer clients at these places of a row, in this order.
fn answers<T>(pair: &Pair, order: &[usize], ask: impl Fn(usize) -> Result<T> + Sync) -> Vec<T>
where
    T: Send,
{
    let client = pair.lab.host(Host::Client).unwrap();
    let answered = client.run(|| order.iter().map(|&at| ask(at)).collect::<Result<Vec<_>>>());
    answered
        .unwrap()
        .unwrap_or_else(|error| panic!("{error:#}\n{}", pair.logs()))
}

/// Clients who ask one after the other alternate between the servers under `rr`; this is another order, in which servers that
/// are chosen anew would not be the ones before.
const IN_TURN: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
const OTHERWISE: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// Which real server each client has is the same before and after the death of the director in charge.
fn same_servers<T: PartialEq + std::fmt::Debug + Send>(
    mut pair: Pair,
    what: &str,
    ask: impl Fn(usize) -> Result<T> + Sync,
) {
    let primary = pair.wait_settled("web");
    pair.wait_shared(primary);
    let before = answers(&pair, &IN_TURN, &ask);
    assert!(
        before.windows(2).all(|two| two[0] != two[1]),
        "{what}: {before:?}"
    );
    pair.wait_shared(primary);
    pair.end(primary, Signal::SIGKILL);
    pair.wait_role(other(primary), "web", "primary");
    let after = answers(&pair, &OTHERWISE, &ask);
    for (at, server) in OTHERWISE.into_iter().zip(&after) {
        assert_eq!(
            before[at],
            *server,
            "{what}: {before:?} {after:?}\n{}",
            pair.logs()
        );
    }
    println!("{what}: 8 of 8 are where they were before");
}

#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn clients_stay_with_their_servers_by_persistence() {
    let pair = Pair::up_as(Setup {
        service_more: "persistence: 5m".to_owned(),
        ..setup(SHARED)
    });
    // Each client asks from an address of its own, and every time anew.
    let client = pair.lab.host(Host::Client).unwrap();
    let addresses = IN_TURN.map(|at| format!("198.51.100.{}", 128 + at));
    for address in &addresses {
        let address = format!("{address}/24");
        client
            .output("ip", &["address", "add", &address, "dev", "eth0"])
            .unwrap();
    }
    same_servers(pair, "persistence", |at| {
        let from: IpAddr = addresses[at].parse()?;
        let connection = Connection::open_at(SocketAddr::new(from, 0), SERVICE, TIMEOUT)?;
        Ok(connection.get_last("/")?.who())
    });
}

#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn conversations_over_udp_stay_where_they_are() {
    let pair = Pair::up_as(Setup {
        protocol: "udp",
        ..setup(SHARED)
    });
    for number in pair.lab.servers() {
        let server = pair.lab.host(Host::Server(number)).unwrap();
        let started = server.run(|| udp::echo_in_background(SERVICE, &format!("s{number}")));
        started.unwrap().unwrap();
    }
    let client = pair.lab.host(Host::Client).unwrap();
    let sockets = client.run(|| {
        IN_TURN.map(|_| {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
            socket.connect(SERVICE).unwrap();
            socket
        })
    });
    let sockets = sockets.unwrap();
    same_servers(pair, "UDP", |at| {
        let mut answer = [0; 64];
        // Two: a single datagram without an answer is no conversation yet.
        let mut length = 0;
        for _ in 0..2 {
            sockets[at].send(b"here")?;
            length = sockets[at].recv(&mut answer).context("no answer")?;
        }
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    });
}

#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn connections_over_ipv6_go_on() {
    let service = SocketAddr::new(VIRTUAL6[0].into(), 80);
    let mut pair = Pair::up_as(Setup {
        service,
        more: SHARED.to_owned(),
        ..Setup::new(Runs::Director, &[QUICK, ONCE, BOTH_CABLES, BOTH_FAMILIES])
    });
    for _ in 0..2 {
        survive(&mut pair, 10, "IPv6, DR");
    }
}
