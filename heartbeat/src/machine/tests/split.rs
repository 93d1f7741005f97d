//! Split brain: who yields, and what is told of it.

use super::*;

pub(super) fn split(other: &str, stays: bool) -> Alert {
    Alert::SplitBrain {
        group: "web".to_owned(),
        other: other.to_owned(),
        stays,
    }
}

pub(super) fn split_over(other: &str) -> Alert {
    Alert::SplitBrainOver {
        group: "web".to_owned(),
        other: other.to_owned(),
    }
}

impl Nodes {
    /// Beginnings and ends of splits, in order.
    pub(super) fn splits(&self, node: usize) -> Vec<Alert> {
        let is_split = |alert: &&&Alert| {
            matches!(
                alert,
                Alert::SplitBrain { .. } | Alert::SplitBrainOver { .. }
            )
        };
        let alerts = self.alerts(node);
        alerts.iter().filter(is_split).copied().cloned().collect()
    }
}

#[test]
fn split_brain_is_resolved_at_the_first_message() {
    let mut nodes = Nodes::two("");
    nodes.cut = vec![(0, 1), (1, 0)];
    nodes.pass(1000);
    assert_eq!(nodes.roles(), [Primary, Primary]);
    nodes.cut.clear();
    nodes.pass(101);
    assert_eq!(nodes.roles(), [Primary, Backup]);
    assert_eq!(nodes.reason(1), "lb1 is primary too and goes before");
    nodes.pass(200);
    assert_eq!(nodes.splits(1), [split("lb1", false), split_over("lb1")]);
}

/// The one that stays hears the other first: it tells of the beginning once, of the end, and the network anew.
#[test]
fn both_tell_of_the_beginning_and_the_end_of_a_split() {
    let mut nodes = Nodes::two("");
    nodes.cut = vec![(0, 1), (1, 0)];
    nodes.pass(1000);
    nodes.cut = vec![(0, 1)];
    nodes.pass(250);
    assert_eq!(nodes.roles(), [Primary, Primary]);
    assert_eq!(nodes.splits(0), [split("lb2", true)]);
    let since = nodes.done.len();
    nodes.cut.clear();
    nodes.pass(101);
    assert_eq!(nodes.roles(), [Primary, Backup]);
    let announces = |(_, node, action): &&(Duration, usize, Action)| {
        *node == 0 && *action == Action::Announce(0)
    };
    assert_eq!(nodes.done[since..].iter().filter(announces).count(), 1);
    assert_eq!(nodes.splits(0), [split("lb2", true), split_over("lb2")]);
    assert_eq!(nodes.splits(1), [split("lb1", false), split_over("lb1")]);
}

/// Whatever else ends the role of one that stayed ends the split for it.
#[test]
fn a_split_ends_however_a_primary_ends() {
    type End = fn(&mut Nodes);
    let ends: [(&str, End); 3] = [
        ("stopped", |nodes| nodes.give(0, Input::Stop)),
        ("unfit", |nodes| nodes.fit(0, 0, Some("no carrier"))),
        ("thawed", |nodes| {
            nodes.still[0] = true;
            nodes.pass(1000);
            nodes.still[0] = false;
            nodes.pass(1);
        }),
    ];
    for (what, end) in ends {
        let mut nodes = Nodes::two("");
        nodes.cut = vec![(0, 1), (1, 0)];
        nodes.pass(1000);
        nodes.cut = vec![(0, 1)];
        nodes.pass(250);
        end(&mut nodes);
        let expected = [split("lb2", true), split_over("lb2")];
        assert_eq!(nodes.splits(0), expected, "{what}");
    }
}
