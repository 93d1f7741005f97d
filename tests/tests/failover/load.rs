//! Load on the machine does not fake a death: neither of `heartbeat run`, nor of a director.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use director_tests::lab::Host;

use crate::pair::{BOTH_CABLES, NODES, ONE_GROUP, Pair, QUICK, Runs};

/// Busy loops, two for each CPU, for as long as this lives.
struct Load(Arc<AtomicBool>);

impl Load {
    fn start() -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let cpus = std::thread::available_parallelism().map_or(1, Into::into);
        for _ in 0..2 * cpus {
            let ended = Arc::clone(&ends);
            std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    black_box(0);
                }
            });
        }
        Self(ends)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Both nodes run for so long while all CPUs are busy, and nothing happens.
fn check(runs: Runs, quick: &str, time: Duration) {
    let mut pair = Pair::up(runs, &[quick, BOTH_CABLES, ONE_GROUP]);
    // Preferred from the start.
    pair.wait_role(Host::Director, "web", "primary");
    pair.wait_role(Host::Backup, "web", "backup");
    let changes = |pair: &Pair| NODES.map(|node| pair.status(node).unwrap()["history"].clone());
    let before = changes(&pair);
    let load = Load::start();
    std::thread::sleep(time);
    drop(load);
    assert_eq!(before, changes(&pair), "{}", pair.logs());
    let time = time.as_secs();
    println!("{runs:?}: no takeover in {time} s with all CPUs busy");
}

#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn load_does_not_fake_a_death() {
    // A machine that others share may stand still as a whole for the 300 ms of the long test, and then a death is none that
    // the load has faked.
    let quick = "keepalive: 100ms\ndeadtime: 1s\ninitdead: 2s\n";
    for runs in [Runs::Heartbeat, Runs::Director] {
        check(runs, quick, Duration::from_secs(20));
    }
}

mod slow {
    use super::*;

    #[test]
    #[ignore = "slow: cargo xtask test --all runs it"]
    fn ten_minutes_of_load_do_not_fake_a_death() {
        for runs in [Runs::Heartbeat, Runs::Director] {
            check(runs, QUICK, Duration::from_secs(600));
        }
    }
}
