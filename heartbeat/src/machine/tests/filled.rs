//! A node that lacks the connections of the others: from whom it takes a group all the same, and who goes before it.

use super::*;

fn waits() -> Filled {
    Filled::Waiting("connections".to_owned())
}

fn done() -> Filled {
    Filled::Done("all of them".to_owned())
}

/// What is wrong with the node that serves.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    Lowered,
    Failing,
    Standby,
}

impl Nodes {
    fn goes_wrong(&mut self, node: usize, wrong: Wrong) {
        match wrong {
            Wrong::Lowered => self.fit(node, 60, None),
            Wrong::Failing => {
                let why = Some("cannot add 2001:db8::10/64".to_owned());
                self.give(node, Input::Failing { group: 0, why });
            }
            Wrong::Standby => self.order(node, Command::Standby),
        }
    }

    fn fills(&mut self, node: usize, filled: Filled) {
        self.give(node, Input::Filled(filled));
    }
}

/// The second serves, badly; the preferred one comes back without the connections. An operator's order alone is stronger.
#[test]
fn a_primary_that_serves_badly_is_no_reason_to_lose_connections() {
    use Wrong::{Failing, Lowered, Standby};
    let rows = [
        ("true", Lowered, false),
        ("true", Failing, false),
        ("true", Standby, true),
        ("false", Lowered, false),
        ("false", Failing, false),
        ("false", Standby, true),
    ];
    for (auto_failback, wrong, is_at_once) in rows {
        // Whether it gets them, or waits for as long as it is to.
        for gets_them in [true, false] {
            let row = format!("{auto_failback} {wrong:?} {gets_them}");
            let keys = format!("auto_failback: {auto_failback}\nfailback_limit: 5s");
            let mut nodes = Nodes::two(&keys);
            nodes.still[0] = true;
            nodes.pass(400);
            nodes.goes_wrong(1, wrong);
            nodes.still[0] = false;
            nodes.fills(0, waits());
            let since = nodes.now;
            nodes.pass(3000);
            if is_at_once {
                assert_eq!(nodes.roles(), [Primary, Backup], "{row}");
                continue;
            }
            assert_eq!(nodes.roles(), [Backup, Primary], "{row}");
            if gets_them {
                nodes.fills(0, done());
                nodes.pass(10);
            } else {
                nodes.pass(3000);
                // It has listened before.
                let took = nodes.took_after(0, since);
                assert!((5000..=5600).contains(&took), "{row}: after {took} ms");
            }
            assert_eq!(nodes.roles(), [Primary, Backup], "{row}");
        }
    }
}

/// A backup that has all of them does not hesitate.
#[test]
fn who_has_all_connections_takes_from_a_primary_that_serves_badly_at_once() {
    for wrong in [Wrong::Lowered, Wrong::Failing, Wrong::Standby] {
        let mut nodes = Nodes::two("auto_failback: false");
        nodes.fills(1, done());
        nodes.pass(1000);
        nodes.goes_wrong(0, wrong);
        nodes.pass(10);
        assert_eq!(nodes.roles(), [Backup, Primary], "{wrong:?}");
    }
}

/// What it was told before its cable was out need not be true any more.
#[test]
fn a_node_whose_cable_was_out_hears_first_what_it_lacks_of_a_lowered_primary_too() {
    // How it stood while the cable was out; what it is told after 200 ms; ms within which it takes the group, if in 3 s at all.
    let rows = [
        (None, None, Some(0..=200)),
        (Some(done()), None, Some(1000..=1200)),
        (Some(done()), Some(waits()), None),
    ];
    for (filled, later, expected) in rows {
        let row = format!("{filled:?} {later:?}");
        let mut nodes = Nodes::two("auto_failback: false");
        if let Some(filled) = filled {
            nodes.fills(0, filled);
        }
        nodes.cut = vec![(0, 1), (1, 0)];
        nodes.fit(0, 0, Some("eth0 has no carrier"));
        nodes.fit(1, 60, None);
        nodes.pass(5000);
        assert_eq!(nodes.roles(), [Unfit, Primary], "{row}");
        nodes.cut.clear();
        nodes.pass(100);
        nodes.fit(0, 0, None);
        let since = nodes.now;
        nodes.pass(200);
        if let Some(later) = later {
            nodes.fills(0, later);
        }
        nodes.pass(2800);
        match expected {
            Some(expected) => {
                let took = nodes.took_after(0, since);
                assert!(expected.contains(&took), "{row}: after {took} ms");
            }
            None => assert_eq!(nodes.roles(), [Backup, Primary], "{row}"),
        }
    }
}

/// Three nodes, of which the first comes back without connections; then the second dies, which served.
#[test]
fn of_those_that_are_left_the_one_with_the_connections_takes_over() {
    // How the first and the third stand, what else; who serves then.
    type Else = fn(&mut Nodes);
    type Row = (&'static str, Option<Filled>, Option<Filled>, Else, usize);
    let nothing: Else = |_| {};
    let rows: [Row; 6] = [
        ("", Some(waits()), Some(done()), nothing, 2),
        ("", Some(waits()), None, nothing, 2),
        ("neither", Some(waits()), Some(waits()), nothing, 0),
        ("both", Some(done()), Some(done()), nothing, 0),
        (
            "the third cannot",
            Some(waits()),
            Some(done()),
            |nodes| nodes.fit(2, 0, Some("no carrier")),
            0,
        ),
        (
            "the third was ordered not to",
            Some(waits()),
            Some(done()),
            |nodes| nodes.order(2, Command::Standby),
            0,
        ),
    ];
    for (what, first, third, more, expected) in rows {
        let row = format!("{what} {first:?} {third:?}");
        let priorities = "{ lb1: 150, lb2: 100, lb3: 50 }";
        let keys = "auto_failback: 30s";
        let configs = ["lb1", "lb2", "lb3"].map(|node| config(node, priorities, keys));
        let mut nodes = Nodes::start(configs.to_vec());
        nodes.pass(1000);
        nodes.still[0] = true;
        nodes.pass(1000);
        nodes.still[0] = false;
        for (node, filled) in [(0, first), (2, third)] {
            if let Some(filled) = filled {
                nodes.fills(node, filled);
            }
        }
        nodes.pass(1000);
        assert_eq!(nodes.roles(), [Backup, Primary, Backup], "{row}");
        more(&mut nodes);
        nodes.still[1] = true;
        let since = nodes.now;
        nodes.pass(1000);
        let took = nodes.took_after(expected, since);
        assert!(took <= 310, "{row}: after {took} ms");
        let other = nodes.took_after(2 - expected, since);
        assert_eq!(other, u128::MAX, "{row}: the other one took it, too");
    }
}

/// It does not wait for ever for one that has the connections and takes nothing.
#[test]
fn who_lacks_connections_loses_patience() {
    let priorities = "{ lb1: 150, lb2: 100, lb3: 50 }";
    let keys = "fence: { command: [/sbin/fence], required: true }";
    let configs = ["lb1", "lb2", "lb3"].map(|node| config(node, priorities, keys));
    let mut nodes = Nodes::start(configs.to_vec());
    let fenced = |nodes: &mut Nodes, by, node: &str, result| {
        let node = node.to_owned();
        nodes.give(by, Input::Fenced { node, result });
    };
    nodes.pass(1000);
    nodes.still[0] = true;
    nodes.pass(1000);
    fenced(&mut nodes, 1, "lb1", FenceResult::Done);
    assert_eq!(nodes.roles()[1], Primary);
    nodes.still[0] = false;
    nodes.fills(0, waits());
    nodes.pass(1000);
    nodes.still[1] = true;
    nodes.pass(400);
    fenced(&mut nodes, 2, "lb2", FenceResult::Failed);
    nodes.pass(100);
    let begun = |nodes: &Nodes| {
        let fence = Action::Fence("lb2".to_owned());
        let mut done = nodes.done.iter();
        done.any(|(_, by, action)| *by == 0 && *action == fence)
    };
    assert!(!begun(&nodes), "it waits for the third");
    nodes.pass(400);
    assert!(begun(&nodes));
    fenced(&mut nodes, 0, "lb2", FenceResult::Done);
    nodes.pass(10);
    assert_eq!(nodes.roles()[0], Primary);
    assert_eq!(nodes.roles()[2], Backup);
}

/// Where nobody has served the group yet there is nothing to lack.
#[test]
fn at_the_first_start_the_preferred_node_serves() {
    let priorities = "{ lb1: 150, lb2: 100 }";
    let configs = ["lb1", "lb2"].map(|node| config(node, priorities, "auto_failback: false"));
    let mut nodes = Nodes::start(Vec::new());
    for (node, filled) in configs.into_iter().zip([waits(), done()]) {
        nodes.machines.push(Machine::new(node, 1, nodes.now));
        nodes.still.push(false);
        let node = nodes.machines.len() - 1;
        nodes.fills(node, filled);
        nodes.fit(node, 0, None);
    }
    nodes.pass(2000);
    assert_eq!(nodes.roles(), [Primary, Backup]);
}

/// Who would go before it, but may not ask yet, keeps nobody else from taking what is served badly.
#[test]
fn another_one_asks_meanwhile() {
    let priorities = "{ lb1: 150, lb2: 100, lb3: 120 }";
    let configs = ["lb1", "lb2", "lb3"].map(|node| config(node, priorities, ""));
    let mut nodes = Nodes::start(configs.to_vec());
    nodes.pass(1000);
    nodes.still[0] = true;
    nodes.still[2] = true;
    nodes.pass(1000);
    nodes.still[0] = false;
    nodes.still[2] = false;
    nodes.fills(0, waits());
    nodes.pass(2000);
    assert_eq!(nodes.roles(), [Backup, Backup, Primary]);
    nodes.fills(0, done());
    nodes.pass(2000);
    assert_eq!(nodes.roles(), [Primary, Backup, Backup]);
}
