//! `heartbeat run` on both nodes, without a director. What becomes of clients is shown beside the crate (`heartbeat/tests`).

use nix::sys::signal::Signal;

use crate::arranged::TWO_GROUPS;
use crate::pair::{BOTH_CABLES, Pair, QUICK, Runs, other};
use director_tests::lab::Host;

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
