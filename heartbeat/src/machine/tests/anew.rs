//! A node that goes on with another configuration, and what the run before it knew of the others.

use super::*;

const FENCE: &str = "fence: { command: [/bin/fence], required: true }";

fn silent(node: &str, is_harmless: bool) -> Silent {
    Silent {
        node: node.to_owned(),
        is_harmless,
    }
}

/// Whom a run before this one knew to be silent is waited for as after standing still, and not for `initdead`.
#[test]
fn who_was_silent_before_is_not_waited_for_as_after_a_boot() {
    let two = "{ lb1: 150, lb2: 100 }";
    let three = "{ lb1: 150, lb2: 100, lb3: 50 }";
    let known = |nodes: &[&str]| nodes.iter().map(|node| silent(node, false)).collect();
    let cases: [(&str, Vec<Silent>, u32); 6] = [
        (two, known(&[]), 1000),
        (two, known(&["lb2"]), 400),
        (two, known(&["lb7"]), 1000),
        (three, known(&["lb2"]), 1000),
        (three, known(&["lb3"]), 1000),
        (three, known(&["lb2", "lb3"]), 400),
    ];
    for (priorities, silent, after) in cases {
        let mut nodes = Nodes::start(Vec::new());
        let machine = Machine::new(config("lb1", priorities, ""), 1, nodes.now);
        nodes.machines.push(machine.knowing(&silent));
        nodes.still.push(false);
        nodes.fit(0, 0, None);
        nodes.pass(after - 1);
        assert_eq!(nodes.roles(), [Role::Listening], "{silent:?}");
        nodes.pass(1);
        assert_eq!(nodes.roles(), [Role::Primary], "{silent:?}");
    }
}

/// It was silent, and is heard now.
#[test]
fn who_is_heard_again_is_reckoned_with() {
    let mut nodes = Nodes::two("");
    nodes.order(1, Command::Takeover);
    nodes.pass(500);
    assert_eq!(nodes.roles(), [Role::Backup, Role::Primary]);
    let config = Arc::clone(&nodes.machines[0].config);
    nodes.machines[0] = Machine::new(config, 2, nodes.now).knowing(&[silent("lb2", true)]);
    nodes.fit(0, 0, None);
    nodes.pass(2000);
    assert_eq!(nodes.roles(), [Role::Backup, Role::Primary]);
    assert!(nodes.machines[0].silent().is_empty());
}

/// A freeze of a node that listens begins its listening anew.
#[test]
fn a_freeze_meanwhile_begins_it_anew() {
    let mut nodes = Nodes::start(Vec::new());
    let machine = Machine::new(config("lb1", "{ lb1: 150, lb2: 100 }", ""), 1, nodes.now);
    nodes
        .machines
        .push(machine.knowing(&[silent("lb2", false)]));
    nodes.still.push(false);
    nodes.fit(0, 0, None);
    nodes.pass(100);
    nodes.still[0] = true;
    nodes.pass(300);
    nodes.still[0] = false;
    nodes.pass(399);
    assert_eq!(nodes.roles(), [Role::Listening]);
    nodes.pass(2);
    assert_eq!(nodes.roles(), [Role::Primary]);
}

/// What a run knows of the others, for the one after it.
#[test]
fn what_a_run_knows_of_the_others() {
    // A boot that has not waited yet knows nothing; one that knew goes on knowing.
    for (known, expected) in [
        (vec![], vec![]),
        (vec![silent("lb2", true)], vec![silent("lb2", true)]),
    ] {
        let mut nodes = Nodes::start(Vec::new());
        let machine = Machine::new(config("lb1", "{ lb1: 150, lb2: 100 }", FENCE), 1, nodes.now);
        nodes.machines.push(machine.knowing(&known));
        nodes.still.push(false);
        nodes.fit(0, 0, None);
        nodes.pass(10);
        assert_eq!(nodes.machines[0].silent(), expected);
    }
    // It waited in vain.
    let mut nodes = Nodes::start(vec![config("lb1", "{ lb1: 150, lb2: 100 }", "")]);
    nodes.pass(1000);
    assert_eq!(nodes.machines[0].silent(), [silent("lb2", false)]);

    let mut nodes = Nodes::two(FENCE);
    assert!(nodes.machines.iter().all(|it| it.silent().is_empty()));
    // Stopped in order: it serves nothing.
    nodes.give(1, Input::Stop);
    nodes.pass(100);
    assert_eq!(nodes.machines[0].silent(), [silent("lb2", true)]);
    // Also while it stops itself.
    nodes.give(0, Input::Stop);
    assert_eq!(nodes.machines[0].silent(), [silent("lb2", true)]);

    // Dead as a backup; dead as primary, and then fenced.
    for (dead, is_harmless) in [(1, true), (0, false)] {
        let mut nodes = Nodes::two(FENCE);
        nodes.still[dead] = true;
        nodes.pass(500);
        let name = ["lb1", "lb2"][dead];
        let other = 1 - dead;
        let known = nodes.machines[other].silent();
        assert_eq!(known, [silent(name, is_harmless)]);
        let (node, result) = (name.to_owned(), FenceResult::Done);
        nodes.give(other, Input::Fenced { node, result });
        assert_eq!(nodes.machines[other].silent(), [silent(name, true)]);
    }
}

/// Where fencing is required, the run after this one need not do again what this one made sure of.
#[test]
fn who_is_known_to_serve_nothing_is_not_fenced_anew() {
    for (is_harmless, fences) in [(true, 0), (false, 1)] {
        let mut nodes = Nodes::start(Vec::new());
        let machine = Machine::new(config("lb1", "{ lb1: 150, lb2: 100 }", FENCE), 1, nodes.now);
        nodes
            .machines
            .push(machine.knowing(&[silent("lb2", is_harmless)]));
        nodes.still.push(false);
        nodes.fit(0, 0, None);
        nodes.pass(400);
        let done = nodes.done.iter();
        let asked = done.filter(|(.., action)| matches!(action, Action::Fence(_)));
        assert_eq!(asked.count(), fences);
        let role = if is_harmless { Primary } else { Backup };
        assert_eq!(nodes.roles(), [role]);
    }
}
