//! Two directors, and everything that can happen to the one in charge.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aya::maps::{Array, Map, MapData};
use director_tests::lab::Host;
use director_tests::{PATIENCE, wait_until};
use nix::sys::signal::Signal;
use xdp_ebpf::layout::maps;

use crate::pair::{BOTH_CABLES, BOTH_FAMILIES, NODES, ONE_GROUP, Pair, QUICK, Runs, other};

/// What a client may notice of a director that dies: figures are `slow`'s, on an idle machine; this bounds a busy one.
pub(crate) const NOTICED: Duration = Duration::from_secs(6);

/// The MAC address that the router sends to the virtual address by, once it has asked anew.
fn asked_anew(pair: &Pair) -> String {
    pair.ip(Host::Router, &["neigh", "flush", "to", "192.0.2.10"]);
    pair.wait_answered();
    let neighbours = pair.ip(Host::Router, &["neigh", "show", "192.0.2.10"]);
    after(&neighbours, "lladdr")
}

/// The same by a neighbour solicitation, for the virtual address of the other family.
fn solicited_anew(pair: &Pair) -> String {
    const VIRTUAL: &str = "2001:db8:f::10";
    pair.ip(Host::Router, &["neigh", "flush", "to", VIRTUAL]);
    let router = pair.lab.host(Host::Router).unwrap();
    let to = SocketAddr::new(VIRTUAL.parse().unwrap(), 9);
    let sent = router.run(|| {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        socket.send_to(b"who has it?", to)
    });
    sent.unwrap().unwrap();
    let mut mac = String::new();
    let waited = wait_until("a neighbour advertisement came", PATIENCE, || {
        let neighbours = pair.ip(Host::Router, &["neigh", "show", VIRTUAL]);
        mac = after(&neighbours, "lladdr");
        anyhow::ensure!(!mac.is_empty(), "{neighbours}");
        Ok(())
    });
    waited.unwrap_or_else(|error| panic!("{error:#}\n{}", pair.logs()));
    mac
}

/// The word that follows another one.
pub(crate) fn after(text: &str, word: &str) -> String {
    let mut words = text.split_whitespace().skip_while(|it| *it != word);
    words.nth(1).unwrap_or_default().to_owned()
}

pub(crate) fn mac_of(pair: &Pair, node: Host) -> String {
    let link = pair.ip(node, &["link", "show", "eth0"]);
    after(&link, "link/ether")
}

#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn whatever_happens_to_a_director_the_other_serves() {
    let fitness = "fitness: {interfaces: [eth0]}\n";
    let sections = [
        QUICK,
        "auto_failback: false\n",
        BOTH_CABLES,
        BOTH_FAMILIES,
        fitness,
    ];
    let mut pair = Pair::up_with(Runs::Director, &sections, ALERTS);
    killed(&mut pair);
    stopped_in_order(&mut pair);
    without_carrier(&mut pair);
    frozen(&mut pair);
    cut_in_two(&mut pair);
    ordered(&mut pair);
}

/// Both directors tell what happens by a program: it writes to a file of each.
const ALERTS: &str = "\
alerts:
  - name: written
    program: [/bin/sh, -c, 'cat >> DIRECTORY/told-by-$DIRECTOR_INSTANCE']
    group: 0s
";

/// Waits until a director's alerts have told this.
fn wait_told(pair: &Pair, by: Host, words: &[&str]) {
    pair.wait_line(&format!("told-by-{}", pair.lab.instance_on(by)), words);
}

/// Ends the director in charge, starts it again and ends the other one, and so on: the median of how long a client was
/// without an answer.
fn median(pair: &mut Pair, what: &str, signal: Signal, rounds: usize) -> Duration {
    let mut gaps: Vec<Duration> = (0..rounds)
        .map(|_| pair.gap_when_ended_by(signal))
        .collect();
    gaps.sort();
    let median = gaps[rounds / 2];
    println!(
        "{what}, keepalive 100 ms, deadtime 300 ms: a client was without an answer for {} ms, median of {rounds} ({} to \
         {} ms)",
        median.as_millis(),
        gaps[0].as_millis(),
        gaps[rounds - 1].as_millis()
    );
    median
}

mod slow {
    use super::*;

    #[test]
    #[ignore = "slow: cargo xtask test --all runs it"]
    fn twenty_dead_directors() {
        let sections = [QUICK, "auto_failback: false\n", BOTH_CABLES, ONE_GROUP];
        let mut pair = Pair::up(Runs::Director, &sections);
        let killed = median(&mut pair, "SIGKILL", Signal::SIGKILL, 20);
        assert!(killed < Duration::from_millis(500), "{killed:?}");
        let stopped = median(&mut pair, "orderly stop", Signal::SIGTERM, 20);
        assert!(stopped < Duration::from_millis(50), "{stopped:?}");
    }
}

/// Under NAT the real servers' gateway moves along.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn nat_takes_its_gateway_along() {
    const GROUPS: &str = "\
auto_failback: false
groups:
  - {name: web, interface: eth0, addresses: [192.0.2.10/32], priority: {director: 150, backup: 100}}
  - {name: inside, interface: eth0, addresses: [10.0.0.100/24], priority: {director: 150, backup: 100}}
together: [[web, inside]]
";
    let mut pair = Pair::up(Runs::Nat, &[QUICK, BOTH_CABLES, GROUPS]);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let primary = pair.wait_settled("web");
        let (gap, _) = pair.gap(|pair| {
            pair.end(primary, signal);
            for group in ["web", "inside"] {
                pair.wait_role(other(primary), group, "primary");
            }
        });
        println!("NAT, {signal}: {} ms", gap.as_millis());
        assert!(gap < NOTICED, "{gap:?}");
        pair.start(primary);
    }
}

/// Starts a director that was killed: until it may serve, its data path stays silent for the group, also while the kernel
/// verifies the programs of the new one.
fn start_fenced(pair: &mut Pair, node: Host) {
    let pins = Path::new("/sys/fs/bpf/director").join(pair.lab.instance_on(node));
    let map = MapData::from_pin(pins.join(maps::LEASE)).unwrap();
    let lease: Array<MapData, [u64; 3]> =
        Array::try_from(Map::from_map_data(map).unwrap()).unwrap();
    let until = || lease.get(&0, 0).unwrap()[0];
    assert_ne!(until(), 0, "it had a lease, which has run out");
    let is_started = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut looks = 0_u32;
            while !is_started.load(Ordering::Relaxed) {
                assert_ne!(until(), 0, "nothing is fenced any more, at look {looks}");
                looks += 1;
                std::thread::yield_now();
            }
            looks
        });
        pair.start(node);
        is_started.store(true, Ordering::Relaxed);
        assert!(watching.join().unwrap() > 0);
    });
}

fn killed(pair: &mut Pair) {
    let primary = pair.wait_settled("web");
    let (gap, _) = pair.gap(|pair| {
        pair.end(primary, Signal::SIGKILL);
        pair.wait_role(other(primary), "web", "primary");
    });
    println!("SIGKILL: {} ms", gap.as_millis());
    assert!(gap < NOTICED, "{gap:?}");
    let dead = &primary.to_string();
    let reason = &format!("the primary {dead} is dead: silent on all links");
    wait_told(pair, other(primary), &["group web primary since ", reason]);
    wait_told(pair, other(primary), &[dead, " node-down since "]);
    // It had no time to remove its address, and its kernel would answer for it.
    assert!(pair.has_address(primary));
    assert_eq!(asked_anew(pair), mac_of(pair, other(primary)));
    start_fenced(pair, primary);
    assert!(!pair.has_address(primary), "removed by the next one");
    assert_eq!(pair.wait_settled("web"), other(primary), "no failback");
    wait_told(pair, other(primary), &[dead, " node-up since "]);
}

fn stopped_in_order(pair: &mut Pair) {
    let primary = pair.wait_settled("web");
    let (gap, _) = pair.gap(|pair| {
        pair.end(primary, Signal::SIGTERM);
        pair.wait_role(other(primary), "web", "primary");
    });
    println!("SIGTERM: {} ms", gap.as_millis());
    assert!(gap < NOTICED, "{gap:?}");
    assert!(!pair.has_address(primary));
    pair.start(primary);
    pair.wait_settled("web");
}

fn without_carrier(pair: &mut Pair) {
    let primary = pair.wait_settled("web");
    let port = primary.to_string();
    let (gap, _) = pair.gap(|pair| {
        pair.ip(Host::Switch, &["link", "set", &port, "down"]);
        pair.wait_role(other(primary), "web", "primary");
    });
    println!("carrier lost: {} ms", gap.as_millis());
    assert!(gap < NOTICED, "{gap:?}");
    pair.wait_role(primary, "web", "unfit");
    pair.ip(Host::Switch, &["link", "set", &port, "up"]);
    assert_eq!(pair.wait_settled("web"), other(primary));
}

/// Fencing: it cannot release its address, and falls silent all the same.
fn frozen(pair: &mut Pair) {
    let primary = pair.wait_settled("web");
    let (gap, _) = pair.gap(|pair| {
        pair.signal(primary, Signal::SIGSTOP);
        pair.wait_role(other(primary), "web", "primary");
    });
    println!("SIGSTOP: {} ms", gap.as_millis());
    assert!(gap < NOTICED, "{gap:?}");
    assert!(pair.has_address(primary), "who is stopped removes nothing");
    for _ in 0..3 {
        assert_eq!(asked_anew(pair), mac_of(pair, other(primary)));
        assert_eq!(solicited_anew(pair), mac_of(pair, other(primary)));
    }
    let (gap, _) = pair.gap(|pair| {
        pair.signal(primary, Signal::SIGCONT);
        pair.wait_role(primary, "web", "backup");
    });
    assert!(gap < NOTICED, "{gap:?}");
    assert!(!pair.has_address(primary), "it released it when it went on");
    assert_eq!(pair.wait_settled("web"), other(primary));
}

/// One cable is not enough to notice anything; without both each thinks that it is alone, until they hear each other again.
fn cut_in_two(pair: &mut Pair) {
    let primary = pair.wait_settled("web");
    let count = |pair: &Pair| {
        let status = pair.status(primary).unwrap();
        status["history"].as_array().unwrap().len()
    };
    let before = count(pair);
    pair.ip(primary, &["link", "set", "eth1", "down"]);
    wait_until("the link is told to be silent", PATIENCE, || {
        let status = pair.status(other(primary))?;
        let links = status["nodes"][0]["links"].to_string();
        anyhow::ensure!(links.contains("\"silent\""), "{links}");
        Ok(())
    })
    .unwrap();
    assert_eq!(count(pair), before, "one link is left");
    // Frames to a MAC address that nobody has: each is there for everybody but the other.
    let cut = |pair: &Pair, node: Host, verb: &str| {
        let peer = if node == Host::Director {
            "10.0.0.2"
        } else {
            "10.0.0.1"
        };
        let mut words = vec!["neigh", verb, peer, "dev", "eth0"];
        if verb == "replace" {
            words.extend(["lladdr", "02:00:00:00:00:fe", "nud", "permanent"]);
        }
        pair.ip(node, &words);
    };
    for node in NODES {
        cut(pair, node, "replace");
    }
    pair.wait_role(other(primary), "web", "primary");
    pair.wait_role(primary, "web", "primary");
    for node in NODES {
        cut(pair, node, "del");
    }
    pair.ip(primary, &["link", "set", "eth1", "up"]);
    let winner = pair.wait_settled("web");
    assert_eq!(winner, Host::Director, "by priority");
    assert!(pair.has_address(winner) && !pair.has_address(other(winner)));
    assert_eq!(asked_anew(pair), mac_of(pair, winner));
    let loser = other(winner);
    let reason = &format!("{winner} is primary too and goes before");
    wait_told(
        pair,
        loser,
        &["group web split-brain since ", &winner.to_string()],
    );
    wait_told(pair, loser, &["group web backup since ", reason]);
    wait_told(pair, loser, &["group web split-brain-over since "]);
}

/// The program that makes sure that a dead director is dead: what it says decides whether the other one takes over.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn a_dead_director_is_fenced_before_another_one_takes_over() {
    // Longer than the second one takes to start, or the first one would have it fenced.
    let quick = QUICK.replace("initdead: 1s", "initdead: 25s");
    for (succeeds, role) in [(true, "primary"), (false, "backup")] {
        // The node's name is the last argument.
        let fence = format!(
            "fence:
  command: [/bin/sh, -c, 'echo \"$HEARTBEAT_NODE fences $0\" >> DIRECTORY/fenced; {succeeds}']
  timeout: 5s
  required: true
"
        );
        let sections = [
            &quick,
            "auto_failback: false\n",
            BOTH_CABLES,
            ONE_GROUP,
            &fence,
        ];
        let mut pair = Pair::up_with(Runs::Director, &sections, ALERTS);
        let primary = pair.wait_settled("web");
        let heir = other(primary);
        pair.end(primary, Signal::SIGKILL);
        pair.wait_line("fenced", &[&format!("{heir} fences {primary}")]);
        if !succeeds {
            wait_told(&pair, heir, &[&format!("{primary} fencing-failed since ")]);
        }
        pair.wait_role(heir, "web", role);
        let written = pair.lab.directory().join("fenced");
        let fenced = || std::fs::read_to_string(&written).unwrap();
        assert_eq!(fenced().lines().count(), 1, "{}", fenced());
        if !succeeds {
            // One that starts knows of no primary, and takes nothing from it all the same.
            pair.end(heir, Signal::SIGTERM);
            pair.start(heir);
            wait_until("it is fenced again", PATIENCE, || {
                anyhow::ensure!(fenced().lines().count() == 2, "{}", fenced());
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{error:#}\n{}", pair.logs()));
            pair.wait_role(heir, "web", role);
            assert!(!pair.has_address(heir));
        }
    }
}

/// Keys are changed on one director after the other, and nobody gives anything up for that; a reload takes another secret
/// in the same file, too.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn keys_change_while_both_run() {
    let with = |keys: &str| [QUICK, BOTH_CABLES, ONE_GROUP, keys].concat();
    let mut pair = Pair::up_with(Runs::Director, &[&with("")], "");
    let secrets = ["one", "two"].map(|name| pair.secret(name));
    let [one, two] = &secrets;
    // From no key to one, nobody understands the other between the two reloads.
    pair.setup.section = with(&format!("key: {{id: 1, file: {one}}}\n"));
    for node in NODES {
        pair.reload(node);
    }
    let primary = pair.wait_settled("web");
    let history = NODES.map(|node| pair.status(node).unwrap()["history"].clone());
    for keys in [
        format!("key: {{id: 1, file: {one}, accept: [{{id: 2, file: {two}}}]}}\n"),
        format!("key: {{id: 2, file: {two}, accept: [{{id: 1, file: {one}}}]}}\n"),
        format!("key: {{id: 2, file: {two}}}\n"),
    ] {
        pair.setup.section = with(&keys);
        for node in NODES {
            pair.reload(node);
        }
    }
    assert_eq!(pair.wait_settled("web"), primary);
    let after = NODES.map(|node| pair.status(node).unwrap()["history"].clone());
    assert_eq!(after, history, "{}", pair.logs());
    let logs = pair.logs();
    assert_eq!(logs.matches("other keys from now on").count(), 8, "{logs}");
    assert!(!logs.contains("starts anew"), "{logs}");
    std::fs::write(two, "another one in the same file\n").unwrap();
    let backup = other(primary);
    pair.reload(backup);
    let waited = wait_until(
        "what is signed with the old one is not believed",
        PATIENCE,
        || {
            let status = pair.status(backup)?;
            let text = status["links"].to_string();
            anyhow::ensure!(text.contains("the signature is wrong"), "{text}");
            Ok(())
        },
    );
    waited.unwrap_or_else(|error| panic!("{error:#}\n{}", pair.logs()));
}

/// Told to stop, a director waits for what its groups run; told a second time, it does not.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn in_a_hurry() {
    let programs = "    timeout: 2m\n    on_backup: [/bin/sleep, '100']\n";
    let mut pair = Pair::up(Runs::Director, &[QUICK, BOTH_CABLES, ONE_GROUP, programs]);
    pair.wait_role(Host::Director, "web", "primary");
    pair.signal(Host::Director, Signal::SIGTERM);
    let released = wait_until("the address is released", PATIENCE, || {
        anyhow::ensure!(!pair.has_address(Host::Director), "it is there");
        Ok(())
    });
    released.unwrap_or_else(|error| panic!("{error:#}\n{}", pair.logs()));
    let what = "programs that run are not waited for";
    assert!(!pair.logs().contains(what), "{}", pair.logs());
    // It has PATIENCE, less than the program.
    pair.end(Host::Director, Signal::SIGTERM);
}

fn ordered(pair: &mut Pair) {
    let primary = pair.wait_settled("web");
    pair.command(primary, &["standby"]).unwrap();
    pair.wait_role(other(primary), "web", "primary");
    pair.command(primary, &["ready"]).unwrap();
    pair.command(primary, &["takeover", "web"]).unwrap();
    pair.wait_role(primary, "web", "primary");
    let status = pair.command(primary, &["status"]).unwrap();
    assert!(status.contains("takeover ordered"), "{status}");
}
