//! A primary that cannot add all addresses.

use super::*;

const WHY: &str = "cannot add 2001:db8::10/64";

impl Nodes {
    fn fails(&mut self, node: usize) {
        let why = Some(WHY.to_owned());
        self.give(node, Input::Failing { group: 0, why });
        self.pass(1);
    }

    fn failures_told(&self, node: usize) -> usize {
        let is_it = |alert: &&&Alert| matches!(alert, Alert::Failing { .. });
        self.alerts(node).iter().filter(is_it).count()
    }

    fn failing(&self, node: usize) -> Option<String> {
        self.machines[node].status().groups[0].failing.clone()
    }
}

#[test]
fn another_node_takes_what_a_primary_cannot_serve() {
    for auto_failback in ["true", "false", "1h"] {
        let mut nodes = Nodes::two(&format!("auto_failback: {auto_failback}"));
        nodes.fails(0);
        assert_eq!(nodes.roles(), [Backup, Primary], "{auto_failback}");
        let why = format!("handed over to lb2, as this node could not serve all of it: {WHY}");
        assert_eq!(nodes.reason(0), why);
        assert_eq!(nodes.failures_told(0), 1);
        // It is not tried again by itself.
        nodes.pass(100_000);
        assert_eq!(nodes.roles(), [Backup, Primary], "{auto_failback}");
        assert_eq!(nodes.failing(0).as_deref(), Some(WHY));
    }
}

/// Part of the addresses is better than none.
#[test]
fn it_goes_on_where_nobody_else_can() {
    let mut nodes = Nodes::two("");
    nodes.still[1] = true;
    nodes.pass(1000);
    for _ in 0..3 {
        nodes.fails(0);
        nodes.pass(1000);
        assert_eq!(nodes.roles()[0], Primary);
    }
    assert_eq!(nodes.failures_told(0), 1, "told once");
    nodes.still[1] = false;
    nodes.pass(2000);
    assert_eq!(nodes.roles(), [Backup, Primary]);
    // And takes it again where it is the last one.
    nodes.still[1] = true;
    nodes.pass(1000);
    assert_eq!(nodes.roles()[0], Primary);
    // All could be added, after all.
    let why = None;
    nodes.give(0, Input::Failing { group: 0, why });
    nodes.still[1] = false;
    nodes.pass(2000);
    assert_eq!(nodes.roles(), [Primary, Backup]);
    assert_eq!(nodes.failing(0), None);
}

/// What an operator has mended is tried again when he says so.
#[test]
fn orders_have_it_tried_anew() {
    for (command, expected) in [
        (Command::Ready, [Primary, Backup]),
        (Command::Takeover, [Primary, Backup]),
        (Command::Standby, [Backup, Primary]),
    ] {
        let mut nodes = Nodes::two("");
        nodes.fails(0);
        nodes.order(0, command);
        nodes.pass(5000);
        assert_eq!(nodes.roles(), expected, "{command:?}");
        // In vain.
        if expected == [Primary, Backup] {
            nodes.fails(0);
            assert_eq!(nodes.roles(), [Backup, Primary], "{command:?}");
            assert_eq!(nodes.failures_told(0), 2);
            nodes.pass(100_000);
            assert_eq!(nodes.roles(), [Backup, Primary], "{command:?}");
        }
    }
}

/// Where none can serve all of it, it does not go to and fro.
#[test]
fn two_that_fail_do_not_take_turns() {
    let mut nodes = Nodes::two("");
    nodes.fails(0);
    nodes.fails(1);
    nodes.pass(1000);
    let since = nodes.done.len();
    for _ in 0..20 {
        for node in 0..2 {
            if nodes.roles()[node] == Primary {
                nodes.fails(node);
            }
        }
        nodes.pass(1000);
    }
    let moves = nodes.done[since..].iter();
    let moves = moves.filter(|(.., action)| matches!(action, Action::Take(_)));
    assert!(moves.count() <= 1);
    assert_eq!(nodes.roles(), [Primary, Backup], "the preferred one");
}
