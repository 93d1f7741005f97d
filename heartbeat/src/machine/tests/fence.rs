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
