//! Recorded messages: a node that starts believes only what was sent after its start.

use super::*;
use crate::wire::message::Message;

const KEY: &str = "key: { id: 1, file: /etc/director/heartbeat.key }";
const PRIORITIES: &str = "{ lb1: 150, lb2: 100 }";

/// Two nodes, started at these times.
fn two(more: &str, incarnations: [u64; 2]) -> Nodes {
    let mut nodes = Nodes::start(Vec::new());
    for (node, incarnation) in ["lb1", "lb2"].into_iter().zip(incarnations) {
        let config = config(node, PRIORITIES, more);
        nodes
            .machines
            .push(Machine::new(config, incarnation, nodes.now));
        nodes.still.push(false);
    }
    for node in 0..2 {
        nodes.fit(node, 0, None);
    }
    nodes.pass(1500);
    assert_eq!(nodes.roles(), [Primary, Backup]);
    nodes
}

impl Nodes {
    fn restart(&mut self, node: usize, incarnation: u64) {
        let config = Arc::clone(&self.machines[node].config);
        self.machines[node] = Machine::new(config, incarnation, self.now);
        self.fit(node, 0, None);
    }

    fn sent_by(&self, node: usize) -> Vec<Message> {
        let sent = self.done.iter().filter_map(|(_, by, action)| match action {
            Action::Heartbeat(message) if *by == node => Some(message.clone()),
            _ => None,
        });
        sent.collect()
    }

    fn doubts(&self, node: usize) -> usize {
        let is_doubt = |alert: &&&Alert| matches!(alert, Alert::Unproven(_));
        self.alerts(node).iter().filter(is_doubt).count()
    }

    /// Whether the node holds the other one for alive, and whether it says that it hears one that it does not believe.
    fn sees_other(&self, node: usize) -> (bool, bool) {
        let other = &self.machines[node].status().nodes[0];
        (other.state == PeerState::Alive, other.is_unproven)
    }
}

/// What stands for a dead primary: with a key nothing does, as everything it sent is older than the node that hears it.
#[test]
fn a_recorded_stream_stands_for_nobody() {
    for (key, expected) in [(KEY, Primary), ("", Backup)] {
        let mut nodes = two(key, [1_000, 2_000]);
        nodes.pass(5_000);
        let recorded = nodes.sent_by(0);
        nodes.still[0] = true;
        nodes.pass(1_000);
        nodes.restart(1, 3_000);
        for message in recorded {
            let link = LinkId(0);
            nodes.give(1, Input::Heartbeat { link, message });
            nodes.pass(100);
        }
        assert_eq!(nodes.roles()[1], expected, "{key}");
        assert_eq!(nodes.sees_other(1), (key.is_empty(), !key.is_empty()));
        assert_eq!(nodes.doubts(1), usize::from(!key.is_empty()), "{key}");
        nodes.pass(1_000);
        assert_eq!(nodes.sees_other(1), (false, false), "{key}");
    }
}

/// Who restarts beside one that lives knows of it at its next message but one.
#[test]
fn proof_costs_one_message() {
    // Which one restarts, with which number: the other one's is 1000 or 2000.
    for (node, incarnation) in [(0, 3_000), (1, 3_000), (0, 1_001), (1, 2_001)] {
        let mut nodes = two(KEY, [1_000, 2_000]);
        nodes.pass(37);
        nodes.restart(node, incarnation);
        nodes.pass(101);
        assert!(nodes.sees_other(node).0, "{node} {incarnation}");
        assert!(nodes.sees_other(1 - node).0, "{node} {incarnation}");
        assert_eq!(nodes.doubts(0) + nodes.doubts(1), 0);
    }
}

/// Only the first hears nothing. Whoever restarts, and with which number: whether the second believes it.
#[test]
fn one_that_does_not_hear_is_believed_if_it_started_later() {
    for (restarts, incarnation, is_believed) in [
        // Both know each other from before.
        (None, 0, true),
        (Some(0), 3_000, true),
        (Some(0), 1_001, true),
        // That the first lives could as well be a recording.
        (Some(1), 3_000, false),
    ] {
        let mut nodes = two(KEY, [1_000, 2_000]);
        nodes.cut = vec![(1, 0)];
        nodes.pass(1_000);
        if let Some(node) = restarts {
            nodes.restart(node, incarnation);
        }
        nodes.pass(5_000);
        let row = format!("{restarts:?} {incarnation}");
        assert_eq!(nodes.sees_other(1), (is_believed, !is_believed), "{row}");
        // Once a minute.
        nodes.pass(115_000);
        assert_eq!(nodes.doubts(1), if is_believed { 0 } else { 2 }, "{row}");
        // As soon as it hears, it is.
        nodes.cut.clear();
        nodes.pass(202);
        assert_eq!(nodes.sees_other(1), (true, false), "{row}");
    }
}

/// A ring in which each hears one other only: that a node was heard goes around it, though nobody believes anybody yet.
#[test]
fn proof_goes_around() {
    let priorities = "{ lb1: 150, lb2: 100, lb3: 120 }";
    let mut nodes = Nodes::start(Vec::new());
    for (node, incarnation) in [("lb1", 1_000), ("lb2", 2_000), ("lb3", 3_000)] {
        let config = config(node, priorities, KEY);
        nodes
            .machines
            .push(Machine::new(config, incarnation, nodes.now));
        nodes.still.push(false);
    }
    nodes.cut = vec![(1, 0), (2, 1), (0, 2)];
    for node in 0..3 {
        nodes.fit(node, 0, None);
    }
    nodes.pass(3_000);
    assert_eq!(nodes.roles(), [Primary, Backup, Backup]);
}

/// Times that differ are told of once a minute, and shown until they are the same.
#[test]
fn times_that_differ_are_told() {
    let mut nodes = two("", [1, 1]);
    let text = "
node: lb2
keepalive: 200ms
deadtime: 700ms
initdead: 1s
links: [{ udp: { interface: eth0, broadcast: true } }]
groups: [{ name: web, interface: eth0, addresses: [198.51.100.10/24], priority: { lb1: 150, lb2: 100 } }]";
    let before = Arc::clone(&nodes.machines[1].config);
    let other = Arc::new(config::parse("test", text, "host").unwrap());
    let seen = |nodes: &Nodes| nodes.machines[0].status().nodes[0].other_times_ms;
    nodes.machines[1] = Machine::new(other, 2, nodes.now);
    nodes.fit(1, 0, None);
    nodes.pass(130_000);
    assert_eq!(seen(&nodes), Some([200, 700]));
    for (node, expected) in [
        (
            0,
            "node lb2 has a keepalive of 200 ms and a deadtime of 700 ms, this node of 100 ms and 300 ms: give all nodes the same",
        ),
        (
            1,
            "node lb1 has a keepalive of 100 ms and a deadtime of 300 ms, this node of 200 ms and 700 ms: give all nodes the same",
        ),
    ] {
        let told = nodes.alerts(node).into_iter().map(ToString::to_string);
        let told: Vec<String> = told.filter(|told| told.contains("keepalive")).collect();
        assert_eq!(told, vec![expected; 3]);
    }
    nodes.machines[1] = Machine::new(before, 3, nodes.now);
    nodes.fit(1, 0, None);
    nodes.pass(1_000);
    assert_eq!(seen(&nodes), None);
}
