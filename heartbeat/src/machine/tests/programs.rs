//! Which programs of a group are run: as those of keepalived's users expect, also at the start.

use super::*;

impl Nodes {
    /// Programs of a node's group, by the role that they are told of.
    fn programs(&self, of: usize) -> Vec<Role> {
        let programs = self
            .done
            .iter()
            .filter_map(|(_, node, action)| match action {
                Action::Run(run) if *node == of => Some(run.role),
                _ => None,
            });
        programs.collect()
    }
}

/// Each new role once. At the start nobody knows what a run before left behind: so a node that is backup then has the program
/// of a backup run, though it never was primary, and so has one that takes the group a moment later.
#[test]
fn programs_of_a_node() {
    type Then = fn(&mut Nodes);
    let stops: Then = |nodes| nodes.give(1, Input::Stop);
    let takes_over: Then = |nodes| {
        nodes.still[0] = true;
        nodes.pass(1000);
    };
    let takes_over_for_a_while: Then = |nodes| {
        nodes.still[0] = true;
        nodes.pass(1000);
        nodes.still[0] = false;
        nodes.pass(2000);
    };
    let is_unfit: Then = |nodes| {
        nodes.fit(1, 0, Some("eth0 has no carrier"));
        nodes.pass(1000);
        nodes.fit(1, 0, None);
        nodes.pass(1000);
    };
    let stands_still: Then = |nodes| {
        nodes.still[1] = true;
        nodes.pass(5000);
        nodes.still[1] = false;
        nodes.pass(5000);
    };
    // What becomes of two nodes, what the second one runs.
    let rows: [(&str, Then, &[Role]); 6] = [
        ("starts beside a primary", |_| (), &[Backup]),
        ("stops as a backup", stops, &[Backup]),
        ("takes over", takes_over, &[Backup, Primary]),
        (
            "and gives it back",
            takes_over_for_a_while,
            &[Backup, Primary, Backup],
        ),
        ("is not fit meanwhile", is_unfit, &[Backup]),
        ("stands still meanwhile", stands_still, &[Backup]),
    ];
    for (what, then, expected) in rows {
        let mut nodes = Nodes::two("");
        then(&mut nodes);
        assert_eq!(nodes.programs(1), expected, "{what}");
    }

    // Not before it has heard the others, or knows them to be dead.
    let mut nodes = Nodes::start(vec![config("lb1", "{ lb1: 150, lb2: 100 }", "")]);
    nodes.pass(900);
    assert_eq!(nodes.programs(0), []);
    nodes.pass(200);
    assert_eq!(nodes.programs(0), [Backup, Primary]);
    nodes.give(0, Input::Stop);
    assert_eq!(nodes.programs(0), [Backup, Primary, Backup]);

    // One that is not fit when it starts.
    let mut nodes = Nodes::start(vec![config("lb1", "{ lb1: 150, lb2: 100 }", "")]);
    nodes.fit(0, 0, Some("eth0 has no carrier"));
    nodes.pass(5000);
    assert_eq!(nodes.programs(0), [Backup]);
}
