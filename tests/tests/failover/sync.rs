//! Established connections go on at the director that takes over.

use std::time::{Duration, Instant};

use director_tests::http::{Connection, Transfer};
use director_tests::lab::Host;
use nix::sys::signal::Signal;

use crate::pair::{BOTH_CABLES, ONE_GROUP, Pair, QUICK, Runs, other};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);
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
    let client = pair.lab.host(Host::Client).unwrap();
    let begun = client.run(|| {
        (0..count)
            .map(|_| {
                let mut transfer =
                    Connection::open(pair.setup.service, TIMEOUT)?.transfer("/bytes/4000000")?;
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
    for transfer in transfers {
        let ended = client.run(|| transfer.finish()).unwrap();
        broken.extend(ended.err().map(|error| format!("{error:#}")));
    }
    println!(
        "{what}: {} of {count} transfers went on, whole after {} ms",
        count - broken.len(),
        began.elapsed().as_millis()
    );
    assert!(broken.is_empty(), "{what}: {broken:?}\n{}", pair.logs());
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

/// Many, and some that have only just begun when the director dies: those may not be known to the other one yet.
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
    pair.wait_role(other(primary), "web", "primary");
    let (begun, client) = (new.len(), pair.lab.host(Host::Client).unwrap());
    let ended = |transfers: Vec<Transfer>| {
        let whole = transfers
            .into_iter()
            .map(|transfer| client.run(|| transfer.finish()).unwrap());
        whole.filter(|ended| ended.is_ok()).count()
    };
    let (old, new) = (ended(old), ended(new));
    println!(
        "{what}: {old} of {standing} transfers that stood went on over the death of the director in charge; of {begun} begun in the last {} ms, {} were lost",
        BEGUN_WITHIN.as_millis(),
        begun - new
    );
    assert_eq!(old, standing, "{what}\n{}", pair.logs());
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
