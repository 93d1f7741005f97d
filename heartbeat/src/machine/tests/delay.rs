//! Orders that take no effect at once: operators are told why, and for how long.

use super::*;

impl Nodes {
    fn delay(&mut self, node: usize, command: Command) -> String {
        self.order(node, command);
        let delay = self.machines[node].delay(command, &Scope::All);
        delay.unwrap_or_default()
    }

    /// The group goes from the first to the second and back, by orders, so many times.
    fn moved(&mut self, times: usize) {
        for _ in 0..times {
            self.order(1, Command::Takeover);
            self.pass(100);
            assert_eq!(self.roles(), [Backup, Primary]);
            self.order(0, Command::Takeover);
            self.pass(100);
            assert_eq!(self.roles(), [Primary, Backup]);
        }
    }
}

#[test]
fn an_order_that_is_held_says_so() {
    const HELD: &str =
        " lost it more than once within a minute, and asks for it in 0.5 s at the earliest";
    // How often each lost it before; who is ordered what; what is answered, besides the group.
    let rows = [
        (0, 0, Command::Standby, String::new()),
        (1, 0, Command::Standby, String::new()),
        (2, 0, Command::Standby, format!("lb2{HELD}")),
        // An order to take over waits for nothing of the kind.
        (2, 1, Command::Takeover, String::new()),
        (2, 0, Command::Takeover, String::new()),
        (2, 0, Command::Ready, String::new()),
        (2, 1, Command::Ready, String::new()),
    ];
    for (moves, node, command, expected) in rows {
        let row = format!("{moves} {node} {command:?}");
        let mut nodes = Nodes::two("");
        nodes.moved(moves);
        let expected = match expected.as_str() {
            "" => String::new(),
            words => format!("group web: {words}"),
        };
        assert_eq!(nodes.delay(node, command), expected, "{row}");
        if command == Command::Standby {
            let since = nodes.now;
            nodes.pass(5000);
            assert_eq!(nodes.roles(), [Backup, Primary], "{row}");
            let took = nodes.took_after(1, since);
            assert_eq!(took > 400, !expected.is_empty(), "{row}: {took}");
        }
    }
}

#[test]
fn a_failback_that_is_held_says_so() {
    let mut nodes = Nodes::two("");
    nodes.moved(1);
    nodes.order(0, Command::Standby);
    nodes.pass(50);
    assert_eq!(nodes.roles(), [Backup, Primary]);
    let words = "group web: this node lost it more than once within a minute, and asks for it in ";
    let said = nodes.delay(0, Command::Ready);
    assert!(said.starts_with(words), "{said}");
    nodes.pass(2000);
    assert_eq!(nodes.roles(), [Primary, Backup]);
}

#[test]
fn what_else_an_order_waits_for() {
    // Nobody else is there.
    let mut nodes = Nodes::two("");
    nodes.still[1] = true;
    nodes.pass(1000);
    let expected =
        "group web: no other node can serve the group web; this node goes on until one can";
    assert_eq!(nodes.delay(0, Command::Standby), expected);
    // It was just started.
    let priorities = "{ lb1: 150, lb2: 100 }";
    let mut nodes = Nodes::start(vec![config("lb1", priorities, "")]);
    nodes.pass(500);
    let expected = "group web: this node listens to the others for 0.5 s more";
    assert_eq!(nodes.delay(0, Command::Takeover), expected);
    // Somebody must be fenced.
    let mut nodes = Nodes::two("fence: { command: [/sbin/fence], required: true }");
    nodes.still[0] = true;
    nodes.pass(1000);
    let expected = "group web: fencing of lb1 is under way";
    assert_eq!(nodes.delay(1, Command::Takeover), expected);
    let (node, result) = ("lb1".to_owned(), FenceResult::Failed);
    nodes.give(1, Input::Fenced { node, result });
    let expected = "group web: fencing of lb1 failed, without which nothing is taken over, and is tried again in 30 s";
    assert_eq!(nodes.delay(1, Command::Takeover), expected);
}
