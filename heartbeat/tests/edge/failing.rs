//! A node whose kernel does not take all of its addresses.

use heartbeat::machine::{Command, Role, Scope};
use heartbeat::node::Node;
use nix::net::if_::if_nametoindex;

use crate::namespace::{Namespace, eventually};
use crate::node::{VIRTUAL, answers_again, configuration, role, shown, site, start};

const VIRTUAL6: &str = "2001:db8::100";

/// What keeps the addresses away, and how that is mended; what the node says of it; what it can serve all the same.
struct Fault {
    is_virtual_mac: bool,
    begin: fn(&Namespace),
    end: fn(&Namespace),
    words: &'static str,
    left: Option<&'static str>,
}

const FAULTS: [Fault; 2] = [
    Fault {
        is_virtual_mac: false,
        begin: |node| node.set("ipv6/conf/eth0/disable_ipv6", "1"),
        end: |node| node.set("ipv6/conf/eth0/disable_ipv6", "0"),
        words: "cannot add 2001:db8::100/64 on eth0",
        left: Some(VIRTUAL),
    },
    Fault {
        is_virtual_mac: true,
        begin: |node| drop(node.ip(&format!("link add {} type bridge", macvlan(node)))),
        end: |node| drop(node.ip(&format!("link delete {}", macvlan(node)))),
        words: "another interface has this name",
        left: None,
    },
];

/// The name of the macvlan for IPv4 of virtual router 51.
fn macvlan(node: &Namespace) -> String {
    let index = node.run(|| if_nametoindex("eth0")).unwrap();
    format!("hb4.51.{index:x}")
}

#[test]
#[ignore = "needs root: network namespaces"]
fn the_other_node_takes_what_one_cannot_serve() {
    for fault in &FAULTS {
        println!("{}", fault.words);
        check(fault);
    }
}

fn check(fault: &Fault) {
    let (_switch, spaces, client) = site();
    (fault.begin)(&spaces[0]);
    let one = start(
        &spaces[0],
        configuration(0, fault.is_virtual_mac),
        Vec::new(),
    );
    let other = start(
        &spaces[1],
        configuration(1, fault.is_virtual_mac),
        Vec::new(),
    );
    // The preferred one tries first.
    let has_it = |node: &Node| role(node) == Role::Primary && holds_all(node);
    eventually("the other serves", || has_it(&other));
    eventually("the preferred one is its backup", || {
        role(&one) == Role::Backup
    });
    answers_again(&client, VIRTUAL);
    answers_again(&client, VIRTUAL6);
    let snapshot = one.snapshot().unwrap();
    let history = shown(&snapshot);
    assert!(
        history.contains("handed over to lb2, as this node could not serve all of it")
            && history.contains(fault.words),
        "{history}"
    );
    let failing = snapshot.status.groups[0].failing.clone();
    assert!(failing.is_some_and(|why| why.contains(fault.words)));

    // Alone it serves what it can, and all once that can be.
    other.stop().unwrap();
    assert!(other.join());
    eventually("it serves as the last one", || role(&one) == Role::Primary);
    if let Some(left) = fault.left {
        answers_again(&client, left);
    }
    (fault.end)(&spaces[0]);
    eventually("it has all of its addresses", || holds_all(&one));
    answers_again(&client, VIRTUAL);
    answers_again(&client, VIRTUAL6);
    let other = start(
        &spaces[1],
        configuration(1, fault.is_virtual_mac),
        Vec::new(),
    );
    eventually("the other is backup", || role(&other) == Role::Backup);
    assert_eq!(role(&one), Role::Primary);
    assert_eq!(one.snapshot().unwrap().status.groups[0].failing, None);

    // Where an order has it tried again in vain, the other has it again.
    one.order(Command::Standby, Scope::All).unwrap();
    eventually("the other serves", || has_it(&other));
    eventually("its macvlan is gone", || {
        !spaces[0].ip("-o link show").contains("hb4.")
    });
    (fault.begin)(&spaces[0]);
    one.order(Command::Takeover, Scope::All).unwrap();
    eventually("it tries", || {
        shown(&one.snapshot().unwrap()).matches(fault.words).count() > 1
    });
    eventually("the other serves again", || has_it(&other));
    answers_again(&client, VIRTUAL);
}

fn holds_all(node: &Node) -> bool {
    node.snapshot().unwrap().takeover[0].is_held
}
