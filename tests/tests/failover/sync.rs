//! Established connections go on at the director that takes over.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use director_tests::director::{command_on, sync_status_on};
use director_tests::http::{self, Connection, Transfer};
use director_tests::lab::Host;
use director_tests::{PATIENCE, wait_until};
use nix::sys::signal::Signal;

use crate::pair::{BOTH_CABLES, NODES, ONE_GROUP, Pair, QUICK, Runs, other};

pub(crate) const TIMEOUT: Duration = PATIENCE;
/// Whichever is free.
const ANY_PORT: u16 = 0;
const SHARED: &str = "sync: {interface: eth1}\n";
/// The moving gateway of the real servers moves along.
const WITH_GATEWAY: &str = "\
groups:
  - {name: web, interface: eth0, addresses: [192.0.2.10/32], priority: {director: 150, backup: 100}}
  - {name: inside, interface: eth0, addresses: [10.0.0.100/24], priority: {director: 150, backup: 100}}
together: [[web, inside]]
";

/// Transfers of one client, begun and read a little way.
pub(crate) fn begin(pair: &Pair, count: usize) -> Vec<Transfer> {
    begin_at(pair, pair.setup.service, count)
}

/// The same of a service.
pub(crate) fn begin_at(pair: &Pair, service: SocketAddr, count: usize) -> Vec<Transfer> {
    begin_from(pair, service, std::iter::repeat_n(ANY_PORT, count))
}

/// The same from these ports of the client.
fn begin_from(
    pair: &Pair,
    service: SocketAddr,
    ports: impl Iterator<Item = u16> + Send,
) -> Vec<Transfer> {
    let client = pair.lab.host(Host::Client).unwrap();
    let begun = client.run(|| {
        ports
            .map(|port| {
                let connection = Connection::open_from(port, service, TIMEOUT)?;
                let mut transfer = connection.transfer("/bytes/4000000")?;
                transfer.read(1000)?;
                Ok(transfer)
            })
            .collect::<anyhow::Result<Vec<_>>>()
    });
    begun
        .unwrap()
        .unwrap_or_else(|error| panic!("{error:#}\n{}", pair.logs()))
}

/// Reads transfers to their end: all of them are whole.
pub(crate) fn finish(pair: &Pair, transfers: Vec<Transfer>, what: &str) {
    let (count, began) = (transfers.len(), Instant::now());
    let client = pair.lab.host(Host::Client).unwrap();
    let mut broken = Vec::new();
    let mut scene = None;
    for transfer in transfers {
        let who = transfer.client();
        let ended = client.run(|| transfer.finish()).unwrap();
        if let Err(error) = ended {
            broken.push(format!("{who:?}: {error:#}"));
            scene.get_or_insert_with(|| pair.scene());
        }
    }
    println!(
        "{what}: {} of {count} transfers went on, whole after {} ms",
        count - broken.len(),
        began.elapsed().as_millis()
    );
    let scene = scene.unwrap_or_default();
    assert!(broken.is_empty(), "{what}: {broken:?}\n{scene}");
}

/// Has both nodes take in only what this rule leaves; none: everything.
pub(crate) fn filter(pair: &Pair, rule: &str) {
    let rules = format!(
        "flush ruleset
        table inet sharing {{
            chain input {{
                type filter hook input priority 0;
                {rule}
            }}
        }}\n"
    );
    let file = pair.lab.directory().join("sharing.nft");
    fs::write(&file, rules).unwrap();
    for node in NODES {
        let host = pair.lab.host(node).unwrap();
        host.output("nft", &["-f", file.to_str().unwrap()]).unwrap();
    }
}

/// Kills the director in charge in the middle of transfers, which all end whole, and starts it again.
pub(crate) fn survive(pair: &mut Pair, count: usize, what: &str) {
    let primary = pair.wait_settled("web");
    pair.wait_shared(primary);
    let transfers = begin(pair, count);
    pair.wait_shared(primary);
    pair.end(primary, Signal::SIGKILL);
    pair.wait_role(other(primary), "web", "primary");
    finish(pair, transfers, what);
    pair.start(primary);
}

#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn transfers_go_on_at_the_other_director() {
    let once = "auto_failback: false\n";
    for (runs, groups, what) in [
        (Runs::Nat, WITH_GATEWAY, "NAT"),
        (Runs::Director, ONE_GROUP, "DR"),
        (Runs::Tunnel, ONE_GROUP, "TUN"),
    ] {
        let mut pair = Pair::up_with(runs, &[QUICK, once, BOTH_CABLES, groups], SHARED);
        // There and back: who was killed has all of them again when its turn comes.
        for _ in 0..2 {
            survive(&mut pair, 20, what);
        }
    }
}

/// A client uses its port again while the director that knew it is away: what that one has of the connection before is
/// neither taken for the new one when it comes back, nor told to the one that has the new one.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn ports_used_again_while_a_director_was_away() {
    const PORTS: std::ops::Range<u16> = 40_000..40_010;
    let once = "auto_failback: false\n";
    let sections = [QUICK, once, BOTH_CABLES, WITH_GATEWAY];
    let mut pair = Pair::up_with(Runs::Nat, &sections, SHARED);
    let service = pair.setup.service;
    let mut primary = pair.wait_settled("web");
    pair.wait_shared(primary);
    let mut away = None;
    for (what, last) in [
        ("first", "s2"),
        ("second", "s1"),
        ("third", "s2"),
        ("fourth", "s1"),
    ] {
        // Each port comes to another real server than the last time, whoever's turn it was here.
        ask_until(&pair, last);
        // Who was away has just come back, and knows the connections of the last time.
        if let Some(away) = away {
            pair.start(away);
        }
        let transfers = begin_from(&pair, service, PORTS);
        pair.wait_shared(primary);
        pair.end(primary, Signal::SIGKILL);
        away = Some(primary);
        primary = other(primary);
        pair.wait_role(primary, "web", "primary");
        finish(&pair, transfers, what);
    }
}

/// Asks until this real server has answered: the next connection comes to the other one.
fn ask_until(pair: &Pair, server: &str) {
    let client = pair.lab.host(Host::Client).unwrap();
    let service = pair.setup.service;
    let asked = wait_until(&format!("{server} answers"), PATIENCE, || {
        let who = client.run(|| http::get(service, "/", TIMEOUT))??.who();
        ensure!(who == server, "{who} did");
        Ok(())
    });
    asked.unwrap_or_else(|error| panic!("{error:#}\n{}", pair.logs()));
}

/// Who comes back takes its group back, but not before it has what the other one has: connections go there and back.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn who_comes_back_has_all_connections_first() {
    let mut pair = Pair::up_with(Runs::Director, &[QUICK, BOTH_CABLES, ONE_GROUP], SHARED);
    pair.wait_role(Host::Director, "web", "primary");
    pair.wait_role(Host::Backup, "web", "backup");
    pair.wait_shared(Host::Director);
    let transfers = begin(&pair, 20);
    pair.wait_shared(Host::Director);
    pair.end(Host::Director, Signal::SIGKILL);
    pair.wait_role(Host::Backup, "web", "primary");
    pair.start(Host::Director);
    pair.wait_role(Host::Director, "web", "primary");
    pair.wait_role(Host::Backup, "web", "backup");
    let client = pair.lab.host(Host::Client).unwrap();
    for transfer in transfers {
        let ended = client.run(|| transfer.finish()).unwrap();
        ended.unwrap_or_else(|error| panic!("{error:#}\n{}", pair.logs()));
    }
    let status = pair.status(Host::Director).unwrap();
    let filled = &status["may_fail_back"];
    assert_eq!(filled["filled"], "done", "{status}");
    assert_eq!(
        filled["words"],
        "this node has all connections of the others"
    );
    println!(
        "20 transfers went on over the death of the preferred director and over its coming back"
    );
}

/// The same where only its cable was out: what was begun at the other one meanwhile is there before clients are.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn whose_cable_was_out_has_all_connections_first() {
    let fitness = "fitness: {interfaces: [eth0]}\n";
    let sections = [QUICK, BOTH_CABLES, ONE_GROUP, fitness];
    let mut pair = Pair::up_with(Runs::Director, &sections, SHARED);
    pair.wait_role(Host::Director, "web", "primary");
    pair.wait_role(Host::Backup, "web", "backup");
    pair.wait_shared(Host::Director);
    let before = begin(&pair, 20);
    pair.wait_shared(Host::Director);
    pair.ip(Host::Switch, &["link", "set", "director", "down"]);
    pair.wait_role(Host::Backup, "web", "primary");
    pair.wait_answered();
    let meanwhile = begin(&pair, 20);
    // At once: whatever of them is still on its way is waited for by the director that comes back.
    pair.ip(Host::Switch, &["link", "set", "director", "up"]);
    pair.wait_role(Host::Director, "web", "primary");
    pair.wait_role(Host::Backup, "web", "backup");
    finish(&pair, before, "cable out, begun before");
    finish(&pair, meanwhile, "cable out, begun meanwhile");
}

/// Who comes back hears the other one's heartbeat, and nothing of his connections.
fn comes_back_deaf(limit: &str, what: &str) -> (Pair, Vec<Transfer>, Instant) {
    let limit = format!("failback_limit: {limit}\n");
    let mut pair = Pair::up_with(
        Runs::Director,
        &[QUICK, &limit, BOTH_CABLES, ONE_GROUP],
        "sync: {interface: eth1, alone_after: 500ms}\n",
    );
    pair.wait_role(Host::Director, "web", "primary");
    pair.wait_role(Host::Backup, "web", "backup");
    pair.wait_shared(Host::Director);
    let transfers = begin(&pair, 10);
    pair.wait_shared(Host::Director);
    pair.end(Host::Director, Signal::SIGKILL);
    pair.wait_role(Host::Backup, "web", "primary");
    filter(&pair, "meta l4proto { tcp, udp } th dport 8849 drop");
    let began = Instant::now();
    pair.start(Host::Director);
    wait_until("it hears nobody's connections", PATIENCE, || {
        let status = sync_status_on(&pair.lab, Host::Director)?;
        ensure!(status["readiness"] == "alone", "{status}");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{what}: {error:#}\n{}", pair.logs()));
    (pair, transfers, began)
}

/// It takes its group back with the connections as soon as they are to be had; where they are not, after `failback_limit`, and
/// says so.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn who_hears_of_no_connections_waits_for_them() {
    const LIMIT: Duration = Duration::from_secs(6);
    let (mut pair, transfers, _) = comes_back_deaf("60s", "heard later");
    let status = pair.status(Host::Director).unwrap();
    assert_eq!(status["may_fail_back"]["filled"], "waiting", "{status}");
    filter(&pair, "");
    pair.wait_role(Host::Director, "web", "primary");
    pair.wait_role(Host::Backup, "web", "backup");
    let status = pair.status(Host::Director).unwrap();
    assert_eq!(status["may_fail_back"]["filled"], "done", "{status}");
    finish(
        &pair,
        transfers,
        "with the preferred director, which was deaf at first,",
    );
    drop(pair);

    let limit = format!("{}s", LIMIT.as_secs());
    let (mut pair, _, began) = comes_back_deaf(&limit, "never heard");
    pair.wait_role(Host::Director, "web", "primary");
    let took = began.elapsed();
    assert!(took >= LIMIT, "{took:?}\n{}", pair.logs());
    let status = pair.status(Host::Director).unwrap();
    assert_eq!(status["may_fail_back"]["filled"], "given_up", "{status}");
}

/// The clients whose connections stand in a node's tables.
fn clients_at(pair: &Pair, node: Host) -> BTreeSet<SocketAddr> {
    let instance = pair.lab.instance_on(node);
    let words = [
        "conns",
        "--json",
        "--state",
        "established",
        "--instance",
        &instance,
    ];
    let lines = command_on(&pair.lab, node, &words).unwrap();
    let client = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line)?;
        let client = line["client"].as_str().context("no client")?;
        Ok::<SocketAddr, anyhow::Error>(client.parse()?)
    };
    lines.lines().map(|line| client(line).unwrap()).collect()
}

/// Many, and some that have only just begun when the director dies: those may not be known to the other one yet, and only they
/// may end with it.
fn many(runs: Runs, groups: &str, what: &str, standing: usize) {
    const BEGUN_WITHIN: Duration = Duration::from_millis(250);
    let once = "auto_failback: false\n";
    let mut pair = Pair::up_with(runs, &[QUICK, once, BOTH_CABLES, groups], SHARED);
    let primary = pair.wait_settled("web");
    pair.wait_shared(primary);
    let old = begin(&pair, standing);
    pair.wait_shared(primary);
    let began = Instant::now();
    let mut new = Vec::new();
    while began.elapsed() < BEGUN_WITHIN {
        new.extend(begin(&pair, 1));
    }
    pair.end(primary, Signal::SIGKILL);
    // Nobody tells it any more: what it has it was told before.
    let told = clients_at(&pair, other(primary));
    pair.wait_role(other(primary), "web", "primary");
    let client = pair.lab.host(Host::Client).unwrap();
    // How many, how many of them the other one had not been told of, and the clients of those that broke.
    let ended = |transfers: Vec<Transfer>| {
        let (mut untold, mut broken) = (0, Vec::new());
        for transfer in transfers {
            let at = transfer.client().unwrap();
            untold += usize::from(!told.contains(&at));
            if client.run(|| transfer.finish()).unwrap().is_err() {
                broken.push(at);
            }
        }
        (untold, broken)
    };
    let begun = new.len();
    let ((_, old), (untold, new)) = (ended(old), ended(new));
    println!(
        "{what}: {} of {standing} transfers that stood went on over the death of the director in charge; of {begun} begun in the last {} ms, {untold} were not told of yet, and {} were lost",
        standing - old.len(),
        BEGUN_WITHIN.as_millis(),
        new.len(),
    );
    assert!(old.is_empty(), "{what}: {old:?}\n{}", pair.logs());
    let told_and_lost: Vec<_> = new.iter().filter(|it| told.contains(it)).collect();
    assert!(
        told_and_lost.is_empty(),
        "{what}: {told_and_lost:?}\n{}",
        pair.logs()
    );
}

#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn of_the_newest_only_the_untold_are_lost() {
    many(Runs::Director, ONE_GROUP, "DR", 50);
}

mod slow {
    use super::*;

    #[test]
    #[ignore = "slow: cargo xtask test --all runs it"]
    fn a_thousand_transfers_go_on() {
        for (runs, groups, what) in [
            (Runs::Nat, WITH_GATEWAY, "NAT"),
            (Runs::Director, ONE_GROUP, "DR"),
            (Runs::Tunnel, ONE_GROUP, "TUN"),
        ] {
            many(runs, groups, what, 1000);
        }
    }
}
