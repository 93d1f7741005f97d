//! Services that track connections on change: they go on at the other director although nobody has told it of any.

use director_tests::director::{command_on, status_on};
use director_tests::lab::Host;
use director_tests::{PATIENCE, wait_until};
use nix::sys::signal::Signal;

use crate::pair::{BOTH_CABLES, NODES, ONE_GROUP, Pair, QUICK, Runs, Setup, other};
use crate::sync::{begin, finish};

/// Whoever starts knows nothing of real servers until their checks say so, one after the other.
const CHECKED: &str =
    "flags: [mh-port]\ntrack: on-change\ncheck: {type: connect, interval: 1s, spread: 1s}";
const TRANSFERS: usize = 20;

/// Waits until no slot changes hands on a node.
fn wait_stable(pair: &Pair, node: Host) {
    wait_until("all slots are settled", PATIENCE, || {
        let status = status_on(&pair.lab, node)?;
        let changing: Vec<_> = status.services.iter().map(|it| it.changing_slots).collect();
        anyhow::ensure!(changing == [Some(0)], "{changing:?}");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{node}: {error:#}\n{}", pair.logs()));
}

fn tracked(pair: &Pair, node: Host) -> String {
    let instance = pair.lab.instance_on(node);
    let count = command_on(
        &pair.lab,
        node,
        &["conns", "--count", "--instance", &instance],
    );
    count.unwrap().trim().to_owned()
}

/// There and back: the one that takes over the second time has been started only just before.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn transfers_go_on_with_nothing_shared() {
    let once = "auto_failback: false\n";
    for (runs, what) in [(Runs::Director, "DR"), (Runs::Tunnel, "TUN")] {
        let mut pair = Pair::up_as(Setup {
            scheduler: "mh",
            service_more: CHECKED.to_owned(),
            ..Setup::new(runs, &[QUICK, once, BOTH_CABLES, ONE_GROUP])
        });
        let mut primary = pair.wait_settled("web");
        for node in NODES {
            wait_stable(&pair, node);
        }
        let mut transfers = begin(&pair, TRANSFERS);
        assert_eq!(tracked(&pair, primary), "0", "nothing has changed");
        for _ in 0..2 {
            pair.end(primary, Signal::SIGKILL);
            pair.wait_role(other(primary), "web", "primary");
            // Nobody who begins is sent to a real server that has not been checked; who has begun is.
            pair.wait_answered();
            transfers.extend(begin(&pair, TRANSFERS));
            pair.start(primary);
            // Once more, as an orderly end leaves nothing that could be adopted.
            pair.end(primary, Signal::SIGTERM);
            pair.start(primary);
            primary = pair.wait_settled("web");
        }
        finish(&pair, transfers, what);
    }
}
