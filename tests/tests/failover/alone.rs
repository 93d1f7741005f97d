//! `heartbeat run` on both nodes, without a director. What becomes of clients is shown beside the crate (`heartbeat/tests`).

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::arranged::TWO_GROUPS;
use crate::pair::{BOTH_CABLES, NODES, ONE_GROUP, Pair, QUICK, Runs, other};
use director_tests::lab::Host;

/// Busy loops, two for each CPU, for as long as this lives.
struct Load(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl Load {
    fn start() -> Self {
        let ends = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let cpus = std::thread::available_parallelism().map_or(1, Into::into);
        for _ in 0..2 * cpus {
            let ended = std::sync::Arc::clone(&ends);
            std::thread::spawn(move || {
                while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::black_box(0);
                }
            });
        }
        Self(ends)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Both nodes run for so long while all CPUs are busy, and nothing happens.
fn check_load(time: Duration) {
    let mut pair = Pair::up(Runs::Heartbeat, &[QUICK, BOTH_CABLES, ONE_GROUP]);
    // Preferred from the start.
    pair.wait_role(Host::Director, "web", "primary");
    pair.wait_role(Host::Backup, "web", "backup");
    let changes = |pair: &Pair| NODES.map(|node| pair.status(node).unwrap()["history"].clone());
    let before = changes(&pair);
    let load = Load::start();
    std::thread::sleep(time);
    drop(load);
    assert_eq!(before, changes(&pair), "{}", pair.logs());
    println!("no takeover in {} s with all CPUs busy", time.as_secs());
}

/// Each serves one group and stands by for the other's; who comes back takes his own back.
#[test]
#[ignore = "needs root and network namespaces: cargo xtask test runs it"]
fn two_nodes_back_each_other_up() {
    let mut pair = Pair::up(Runs::Heartbeat, &[QUICK, BOTH_CABLES, TWO_GROUPS]);
    let own = [(Host::Director, "web"), (Host::Backup, "mail")];
    for (node, group) in own {
        pair.wait_role(node, group, "primary");
        pair.wait_role(other(node), group, "backup");
    }
    for (node, group) in own {
        pair.end(node, Signal::SIGTERM);
        pair.wait_role(other(node), group, "primary");
        pair.start(node);
        pair.wait_role(node, group, "primary");
        pair.wait_role(other(node), group, "backup");
    }
}

#[test]
#[ignore = "needs root and network namespaces: cargo xtask test runs it"]
fn load_does_not_fake_a_death() {
    check_load(Duration::from_secs(20));
}

mod slow {
    use super::*;

    #[test]
    #[ignore = "slow: cargo xtask test --all runs it"]
    fn ten_minutes_of_load_do_not_fake_a_death() {
        check_load(Duration::from_secs(600));
    }
}
