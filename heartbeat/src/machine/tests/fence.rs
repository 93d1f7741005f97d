//! Who is fenced, and before what.

use super::*;

impl Nodes {
    fn fences(&self, by: usize, since: usize) -> Vec<&str> {
        let fences = self.done[since..]
            .iter()
            .filter_map(|(_, node, action)| match action {
                Action::Fence(name) if *node == by => Some(name.as_str()),
                _ => None,
            });
        fences.collect()
    }

    fn fenced(&mut self, by: usize, node: &str, result: FenceResult) {
        let node = node.to_owned();
        self.give(by, Input::Fenced { node, result });
    }

    /// A new run of a node, that knows nothing.
    fn anew(&mut self, node: usize) {
        let config = Arc::clone(&self.machines[node].config);
        self.machines[node] = Machine::new(config, 2, self.now);
        self.fit(node, 0, None);
    }
}

fn with_fence(required: bool) -> String {
    format!("fence: {{ command: [/sbin/fence], required: {required} }}")
}

/// What an earlier run knew of a primary that hangs is forgotten; that it must be fenced is not.
#[test]
fn who_was_never_heard_is_fenced_before_the_first_takeover() {
    // Required; how the fencing ends; what becomes of the node that started anew.
    for (required, result, expected) in [
        (true, FenceResult::Failed, Backup),
        (true, FenceResult::Done, Primary),
        (false, FenceResult::Failed, Primary),
    ] {
        let row = format!("{required} {result:?}");
        let mut nodes = Nodes::two(&with_fence(required));
        nodes.still[0] = true;
        nodes.pass(1000);
        nodes.fenced(1, "lb1", FenceResult::Failed);
        let since = nodes.done.len();
        nodes.anew(1);
        nodes.pass(900);
        assert!(
            nodes.fences(1, since).is_empty(),
            "{row}: not before initdead"
        );
        nodes.pass(200);
        let asked: &[&str] = if required { &["lb1"] } else { &[] };
        assert_eq!(nodes.fences(1, since), asked, "{row}");
        nodes.fenced(1, "lb1", result);
        nodes.pass(10_000);
        assert_eq!(nodes.roles()[1], expected, "{row}");
        assert_eq!(nodes.fences(1, since), asked, "{row}");
        // Tried again as every fencing that failed.
        nodes.pass(20_100);
        let again = usize::from(required && result == FenceResult::Failed);
        assert_eq!(nodes.fences(1, since).len(), asked.len() + again, "{row}");
    }
}

/// Two that start together fence each other only where they really do not hear each other.
#[test]
fn nodes_that_start_together_do_not_fence_each_other() {
    // What is cut; who asks for fencing.
    let rows = [
        (vec![], [false, false]),
        (vec![(0, 1), (1, 0)], [true, true]),
        // The second hears the first.
        (vec![(1, 0)], [true, false]),
    ];
    for (cut, expected) in rows {
        let priorities = "{ lb1: 150, lb2: 100 }";
        let configs = ["lb1", "lb2"].map(|node| config(node, priorities, &with_fence(true)));
        let mut nodes = Nodes::start(configs.to_vec());
        nodes.cut.clone_from(&cut);
        // What was said at the very start, before anything was cut.
        for node in 0..2 {
            nodes.anew(node);
        }
        let since = nodes.done.len();
        nodes.pass(1500);
        let asked = [0, 1].map(|node| !nodes.fences(node, since).is_empty());
        assert_eq!(asked, expected, "{cut:?}");
    }
}

/// Only those who may serve the group, and each of them.
#[test]
fn all_are_fenced_who_may_serve_and_were_not_heard() {
    let more = with_fence(true);
    let web = "{ lb1: 150, lb2: 100, lb4: 50 }";
    let text = format!(
        "
node: lb1
keepalive: 100ms
deadtime: 300ms
initdead: 1s
links: [{{ udp: {{ interface: eth0, broadcast: true }} }}]
groups:
  - {{ name: web, interface: eth0, addresses: [198.51.100.10/24], priority: {web} }}
  - {{ name: mail, interface: eth0, addresses: [198.51.100.11/24], priority: {{ lb3: 150 }} }}
{more}"
    );
    let config = Arc::new(config::parse("test", &text, "host").unwrap());
    let mut nodes = Nodes::start(vec![config]);
    nodes.pass(1100);
    assert_eq!(nodes.fences(0, 0), ["lb2", "lb4"]);
    nodes.fenced(0, "lb2", FenceResult::Done);
    nodes.pass(100);
    assert_eq!(nodes.roles(), [Backup]);
    nodes.fenced(0, "lb4", FenceResult::Done);
    nodes.pass(100);
    assert_eq!(nodes.roles(), [Primary]);
    assert_eq!(nodes.fences(0, 0).len(), 2);
}

/// A program that ends only after the node was heard again says nothing of its next death.
#[test]
fn who_lives_again_is_fenced_anew() {
    let mut nodes = Nodes::two(&with_fence(true));
    nodes.still[0] = true;
    nodes.pass(1000);
    assert_eq!(nodes.fences(1, 0), ["lb1"]);
    nodes.still[0] = false;
    nodes.pass(2000);
    assert_eq!(nodes.roles(), [Primary, Backup]);
    nodes.fenced(1, "lb1", FenceResult::Done);
    nodes.still[0] = true;
    nodes.pass(1000);
    assert_eq!(nodes.fences(1, 0), ["lb1", "lb1"]);
    assert_eq!(nodes.roles()[1], Backup);
}

/// Three nodes of which the third is switched off. The first starts anew, so that it knows nothing of the third, and goes before
/// the second, which serves and must go on until the first may take the group.
#[test]
fn who_asks_for_a_group_has_fenced_first() {
    // Whether the first is ordered to take over, instead of taking the group back by itself; how its fencing ends.
    for (is_ordered, result) in [
        (false, FenceResult::Done),
        (false, FenceResult::Failed),
        (true, FenceResult::Done),
        (true, FenceResult::Failed),
    ] {
        let row = format!("{is_ordered} {result:?}");
        let priorities = "{ lb1: 150, lb2: 100, lb3: 50 }";
        let keys = format!("auto_failback: {}\n{}", !is_ordered, with_fence(true));
        let configs = ["lb1", "lb2", "lb3"].map(|node| config(node, priorities, &keys));
        let mut nodes = Nodes::start(configs.to_vec());
        nodes.pass(1000);
        nodes.still[2] = true;
        nodes.pass(1000);
        nodes.still[0] = true;
        nodes.pass(1000);
        nodes.fenced(1, "lb1", FenceResult::Done);
        nodes.still[0] = false;
        nodes.anew(0);
        let since = nodes.done.len();
        let serves_on = |nodes: &mut Nodes, milliseconds| {
            for at_ms in 0..milliseconds {
                nodes.pass(1);
                assert_eq!(nodes.roles()[1], Primary, "{row}: after {at_ms} ms");
            }
        };
        serves_on(&mut nodes, 2000);
        if is_ordered {
            assert!(nodes.fences(0, since).is_empty(), "{row}");
            nodes.order(0, Command::Takeover);
            let said = nodes.machines[0].delay(Command::Takeover, &Scope::All);
            let words = "group web: fencing of lb3 is under way";
            assert_eq!(said.as_deref(), Some(words), "{row}");
        }
        serves_on(&mut nodes, 18_000);
        assert_eq!(nodes.fences(0, since), ["lb3"], "{row}");
        nodes.fenced(0, "lb3", result);
        if result == FenceResult::Failed {
            serves_on(&mut nodes, 20_000);
            continue;
        }
        nodes.pass(100);
        assert_eq!(nodes.roles()[..2], [Primary, Backup], "{row}");
    }
}

/// It asked, and must fence who died before it was answered: whoever serves meanwhile does not give it up to a node that cannot
/// take it yet.
#[test]
fn who_must_fence_first_asks_no_more() {
    let mut nodes = Nodes::two(&with_fence(true));
    nodes.cut = vec![(1, 0)];
    nodes.order(1, Command::Takeover);
    let asks = |nodes: &Nodes| nodes.machines[1].units[0].asks;
    assert!(asks(&nodes));
    nodes.still[0] = true;
    nodes.pass(1000);
    assert_eq!(nodes.fences(1, 0), ["lb1"]);
    assert!(!asks(&nodes));
    nodes.fenced(1, "lb1", FenceResult::Done);
    assert_eq!(nodes.roles()[1], Primary);
}

/// Dead twice before the first program has ended: how that one ends says nothing of the second death.
#[test]
fn each_death_has_its_own_fencing() {
    for first in [FenceResult::Done, FenceResult::Failed] {
        let mut nodes = Nodes::two(&with_fence(true));
        nodes.still[0] = true;
        nodes.pass(1000);
        nodes.still[0] = false;
        nodes.pass(2000);
        nodes.still[0] = true;
        nodes.pass(1000);
        assert_eq!(nodes.fences(1, 0), ["lb1", "lb1"]);
        nodes.fenced(1, "lb1", first);
        nodes.pass(100);
        assert_eq!(nodes.roles()[1], Backup, "{first:?}");
        nodes.fenced(1, "lb1", FenceResult::Done);
        assert_eq!(nodes.roles()[1], Primary, "{first:?}");
    }
}
