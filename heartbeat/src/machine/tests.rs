//! The rules by examples: what operators expect, each with its reason in the history.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use super::{
    Action, Alert, Command, FenceResult, Filled, Input, LinkId, Machine, Note, PeerState, Role,
    Scope, Silent,
};
use crate::config::{self, Config};
use crate::wire::vrrp::{Addresses, Advert, Version};

mod anew;
mod delay;
mod failing;
mod fence;
mod filled;
mod fresh;
mod programs;
mod split;
mod vrrp;

const MILLISECOND: Duration = Duration::from_millis(1);

/// A configuration of these nodes, of which this is one. `more` are further keys.
fn config(node: &str, priorities: &str, more: &str) -> Arc<Config> {
    let text = format!(
        "
node: {node}
keepalive: 100ms
deadtime: 300ms
initdead: 1s
links: [{{ udp: {{ interface: eth0, broadcast: true }} }}]
groups: [{{ name: web, interface: eth0, addresses: [198.51.100.10/24], priority: {priorities} }}]
{more}"
    );
    match config::parse("test", &text, "host") {
        Ok(config) => Arc::new(config),
        Err(error) => panic!("{error}"),
    }
}

/// Nodes with one link between them, that delivers at once.
struct Nodes {
    now: Duration,
    machines: Vec<Machine>,
    /// Those that do not run.
    still: Vec<bool>,
    /// From, to: nothing is heard.
    cut: Vec<(usize, usize)>,
    /// All that was done: when, by whom.
    done: Vec<(Duration, usize, Action)>,
}

impl Nodes {
    fn start(configs: Vec<Arc<Config>>) -> Self {
        let now = Duration::from_secs(100);
        let machines = configs
            .into_iter()
            .map(|config| Machine::new(config, 1, now));
        let machines: Vec<Machine> = machines.collect();
        let mut nodes = Self {
            now,
            still: vec![false; machines.len()],
            machines,
            cut: Vec::new(),
            done: Vec::new(),
        };
        for node in 0..nodes.machines.len() {
            nodes.fit(node, 0, None);
        }
        nodes
    }

    /// Two nodes, of which the first is preferred.
    fn two(more: &str) -> Self {
        let priorities = "{ lb1: 150, lb2: 100 }";
        let mut nodes = Self::start(vec![
            config("lb1", priorities, more),
            config("lb2", priorities, more),
        ]);
        nodes.pass(1000);
        assert_eq!(nodes.roles(), [Role::Primary, Role::Backup]);
        nodes
    }

    fn give(&mut self, node: usize, input: Input) {
        let mut actions = Vec::new();
        self.machines[node].handle(self.now, input, &mut actions);
        for action in actions {
            self.done.push((self.now, node, action.clone()));
            let Action::Heartbeat(message) = action else {
                continue;
            };
            for to in 0..self.machines.len() {
                if to != node && !self.still[to] && !self.cut.contains(&(node, to)) {
                    let message = message.clone();
                    self.give(
                        to,
                        Input::Heartbeat {
                            link: LinkId(0),
                            message,
                        },
                    );
                }
            }
        }
    }

    fn pass(&mut self, milliseconds: u32) {
        for _ in 0..milliseconds {
            self.now += MILLISECOND;
            for node in 0..self.machines.len() {
                if !self.still[node] && self.machines[node].wake_at() <= self.now {
                    self.give(node, Input::Tick);
                }
            }
        }
    }

    fn fit(&mut self, node: usize, lowers: u16, unfit: Option<&str>) {
        let unfit = unfit.map(str::to_owned);
        self.give(node, Input::Fitness { lowers, unfit });
    }

    fn order(&mut self, node: usize, command: Command) {
        self.give(
            node,
            Input::Operator {
                command,
                scope: Scope::All,
            },
        );
    }

    fn roles(&self) -> Vec<Role> {
        self.machines
            .iter()
            .map(|machine| machine.status().groups[0].role)
            .collect()
    }

    fn reason(&self, node: usize) -> String {
        self.machines[node].status().groups[0].reason.to_string()
    }

    /// Milliseconds from then until a node took the group.
    fn took_after(&self, node: usize, since: Duration) -> u128 {
        let took = |(at, by, action): &&(Duration, usize, Action)| {
            *at >= since && *by == node && *action == Action::Take(0)
        };
        let took = self.done.iter().find(took).map(|(at, ..)| *at - since);
        took.map_or(u128::MAX, |time| time.as_millis())
    }

    fn alerts(&self, node: usize) -> Vec<&Alert> {
        let alerts = self.done.iter().filter_map(|(_, by, action)| match action {
            Action::Note(Note::Alert(alert)) if *by == node => Some(alert),
            _ => None,
        });
        alerts.collect()
    }
}

use Role::{Backup, Listening, Primary, Stopped, Unfit};

#[test]
fn a_dead_primary_is_taken_over_after_deadtime_and_gets_its_group_back() {
    let mut nodes = Nodes::two("");
    nodes.still[0] = true;
    let since = nodes.now;
    nodes.pass(400);
    let after = nodes.took_after(1, since);
    assert!((200..=301).contains(&after), "{after}");
    assert_eq!(
        nodes.reason(1),
        "the primary lb1 is dead: silent on all links"
    );
    assert!(
        nodes
            .alerts(1)
            .contains(&&Alert::NodeLate("lb1".to_owned()))
    );
    // It stood still for longer than its lease: it says at once that it no longer is primary, and listens.
    let before = nodes.done.len();
    nodes.still[0] = false;
    nodes.give(0, Input::Tick);
    let heartbeat = nodes.done[before..]
        .iter()
        .position(|(_, by, action)| *by == 0 && matches!(action, Action::Heartbeat(_)));
    let release = nodes.done[before..]
        .iter()
        .position(|(_, by, action)| *by == 0 && *action == Action::Release(0));
    assert!(release.is_some() && release < heartbeat);
    assert_eq!(nodes.roles(), [Listening, Primary]);
    nodes.pass(1000);
    assert_eq!(nodes.roles(), [Primary, Backup]);
    assert_eq!(nodes.reason(1), "handed over to lb1");
    assert_eq!(nodes.reason(0), "the primary lb2 released it");
}

#[test]
fn auto_failback_off_and_delayed() {
    let mut nodes = Nodes::two("auto_failback: false");
    nodes.still[0] = true;
    nodes.pass(400);
    nodes.still[0] = false;
    nodes.pass(5000);
    assert_eq!(nodes.roles(), [Backup, Primary]);
    // Off says nothing about a primary that is worse than configured.
    nodes.fit(1, 60, None);
    nodes.pass(10);
    assert_eq!(nodes.roles(), [Primary, Backup]);

    let mut nodes = Nodes::two("auto_failback: 2s");
    nodes.still[0] = true;
    nodes.pass(400);
    nodes.still[0] = false;
    nodes.pass(2000);
    assert_eq!(nodes.roles(), [Backup, Primary]);
    nodes.pass(1000);
    assert_eq!(nodes.roles(), [Primary, Backup]);
}

/// What the preferred node that comes back waits for, and when it takes the group back from a node that serves it well; one
/// that is dead it does not wait for.
#[test]
fn a_node_that_is_not_filled_does_not_fail_back() {
    let waits = || Filled::Waiting("connections".to_owned());
    let comes_back = || {
        let mut nodes = Nodes::two("failback_limit: 5s");
        nodes.still[0] = true;
        nodes.pass(400);
        nodes.still[0] = false;
        nodes.give(0, Input::Filled(waits()));
        nodes.pass(2000);
        assert_eq!(nodes.roles(), [Backup, Primary]);
        nodes
    };
    let mut nodes = comes_back();
    let done = Filled::Done("all of them".to_owned());
    nodes.give(0, Input::Filled(done.clone()));
    nodes.pass(1000);
    assert_eq!(nodes.roles(), [Primary, Backup]);
    assert!(nodes.alerts(0).contains(&&Alert::MayFailBack(done)));

    // The limit counts from when it hears the primary, after it has listened.
    let mut nodes = comes_back();
    nodes.pass(2900);
    assert_eq!(nodes.roles(), [Backup, Primary], "not before the limit");
    nodes.pass(1100);
    assert_eq!(nodes.roles(), [Primary, Backup], "the limit has passed");
    let given_up = Filled::GivenUp("connections".to_owned());
    assert!(nodes.alerts(0).contains(&&Alert::MayFailBack(given_up)));
    // Nor does it begin to wait again.
    nodes.give(0, Input::Filled(waits()));
    nodes.pass(100);
    assert_eq!(
        nodes.machines[0].status().may_fail_back,
        Filled::GivenUp("connections".to_owned())
    );

    // Long after its start it lacks something anew. While it serves itself, or the preferred one does, nobody waits, so there
    // is nothing to give up.
    let mut nodes = Nodes::two("failback_limit: 5s");
    nodes.give(0, Input::Filled(Filled::Done("all of them".to_owned())));
    nodes.pass(10_000);
    for node in [0, 1] {
        nodes.give(node, Input::Filled(waits()));
    }
    nodes.pass(10_000);
    for node in [0, 1] {
        assert_eq!(nodes.machines[node].status().may_fail_back, waits());
    }

    let mut nodes = comes_back();
    nodes.still[1] = true;
    nodes.pass(500);
    assert_eq!(nodes.roles()[0], Primary, "nobody else serves");

    let mut nodes = comes_back();
    nodes.order(0, Command::Takeover);
    nodes.pass(500);
    assert_eq!(nodes.roles()[0], Primary, "an operator knows what he does");
}

/// The only cable of the preferred node was out, and it knew that it was of no use meanwhile. When it is in again, the primary is
/// heard at once; that something is missing, it is told later.
#[test]
fn a_node_whose_cable_was_out_hears_first_what_it_lacks() {
    let done = || Some(Filled::Done("all of them".to_owned()));
    let given_up = || Some(Filled::GivenUp("connections".to_owned()));
    let waits = || Some(Filled::Waiting("nobody is heard".to_owned()));
    let lacks = |at_ms| Some((at_ms, Filled::Waiting("connections".to_owned())));
    let has = |at_ms| Some((at_ms, Filled::Done("all of them".to_owned())));
    // Much less than the cable is out.
    let soon = "true\nfailback_limit: 2s";
    // `auto_failback`, how it stood while the cable was out; after so many ms it is told otherwise; ms within which it takes
    // its group back, if in 3 s at all.
    let rows = [
        ("true", None, None, Some(0..=200)),
        ("true", done(), None, Some(1000..=1200)),
        ("true", given_up(), None, Some(1000..=1200)),
        ("true", done(), lacks(200), None),
        ("true", done(), lacks(900), None),
        ("500ms", None, None, Some(500..=700)),
        ("500ms", done(), None, Some(1000..=1200)),
        ("2s", done(), None, Some(2000..=2200)),
        ("2s", done(), lacks(1500), None),
        ("false", done(), None, None),
        (soon, waits(), None, Some(2000..=2200)),
        (soon, waits(), lacks(200), Some(2000..=2200)),
        (soon, waits(), has(1500), Some(1500..=1700)),
        ("true\nfailback_limit: 0s", waits(), None, Some(1000..=1200)),
        ("false\nfailback_limit: 2s", waits(), None, None),
    ];
    for (auto_failback, filled, later, expected) in rows {
        let what = format!("{auto_failback} {filled:?} {later:?}");
        let mut nodes = Nodes::two(&format!("auto_failback: {auto_failback}"));
        if let Some(filled) = filled {
            nodes.give(0, Input::Filled(filled));
        }
        nodes.cut = vec![(0, 1), (1, 0)];
        nodes.fit(0, 0, Some("eth0 has no carrier"));
        nodes.pass(5000);
        assert_eq!(nodes.roles(), [Unfit, Primary], "{what}");
        nodes.cut.clear();
        nodes.pass(100);
        nodes.fit(0, 0, None);
        let since = nodes.now;
        let (told_at, told) = later.map_or((0, None), |(at, told)| (at, Some(told)));
        nodes.pass(told_at);
        if let Some(told) = told {
            nodes.give(0, Input::Filled(told));
        }
        nodes.pass(3000 - told_at);
        match expected {
            Some(expected) => {
                let took = nodes.took_after(0, since);
                assert!(expected.contains(&took), "{what}: after {took} ms");
            }
            None => assert_eq!(nodes.roles(), [Backup, Primary], "{what}"),
        }
    }
}

/// Operators are told what is wrong now, not what was.
#[test]
fn why_a_node_is_not_fit_is_told_as_it_is_now() {
    let mut nodes = Nodes::two("auto_failback: false");
    for why in [
        "its fitness is not known yet",
        "eth9: there is no such interface",
    ] {
        nodes.fit(0, 0, Some(why));
        nodes.pass(2000);
        assert_eq!(nodes.roles()[0], Unfit);
        assert!(nodes.reason(0).contains(why), "{}", nodes.reason(0));
    }
}

/// The kernel tells of a cable that is back before the next heartbeat comes by it.
#[test]
fn a_node_that_becomes_fit_listens_before_it_takes_anybody_for_dead() {
    let waits = || Filled::Waiting("connections".to_owned());
    for (auto_failback, filled) in [
        ("false", None),
        ("true", Some(waits())),
        ("false", Some(waits())),
        ("10s", None),
    ] {
        let what = format!("{auto_failback} {filled:?}");
        let mut nodes = Nodes::two(&format!("auto_failback: {auto_failback}"));
        nodes.cut = vec![(0, 1), (1, 0)];
        nodes.fit(0, 0, Some("eth0 has no carrier"));
        nodes.pass(5000);
        assert_eq!(nodes.roles(), [Unfit, Primary], "{what}");
        if let Some(filled) = filled {
            nodes.give(0, Input::Filled(filled));
        }
        nodes.cut.clear();
        nodes.fit(0, 0, None);
        for at_ms in 0..3000 {
            nodes.pass(1);
            assert_eq!(nodes.roles()[1], Primary, "{what}, after {at_ms} ms");
        }
        assert_eq!(nodes.roles(), [Backup, Primary], "{what}");
    }
    // Where really nobody is there, it serves after it has listened.
    let mut nodes = Nodes::two("auto_failback: false");
    nodes.cut = vec![(0, 1), (1, 0)];
    nodes.fit(0, 0, Some("eth0 has no carrier"));
    nodes.fit(1, 0, Some("eth0 has no carrier"));
    nodes.pass(5000);
    assert_eq!(nodes.roles(), [Unfit, Unfit]);
    nodes.fit(0, 0, None);
    nodes.pass(2000);
    assert_eq!(nodes.roles(), [Primary, Unfit]);
}

/// The machine is woken for that, not only when it has something to tell.
#[test]
fn a_failback_that_becomes_due_is_woken_for() {
    for (auto_failback, delay_ms) in [("true", 1000), ("1510ms", 1510)] {
        let mut nodes = Nodes::two(&format!("auto_failback: {auto_failback}"));
        nodes.give(0, Input::Filled(Filled::Done("all of them".to_owned())));
        nodes.cut = vec![(0, 1), (1, 0)];
        nodes.fit(0, 0, Some("eth0 has no carrier"));
        nodes.pass(5000);
        nodes.cut.clear();
        // Between two of its heartbeats.
        nodes.pass(117);
        nodes.fit(0, 0, None);
        let ready = nodes.machines[0].units[0].ready_since;
        let due = ready.expect("the primary is heard") + MILLISECOND * delay_ms;
        while nodes.now < due {
            let wake_at = nodes.machines[0].wake_at();
            assert!(wake_at <= due, "{auto_failback}: {wake_at:?} {due:?}");
            nodes.pass(1);
        }
        assert_eq!(nodes.roles(), [Primary, Backup], "{auto_failback}");
    }
}

#[test]
fn an_orderly_stop_is_taken_over_under_one_keepalive() {
    let mut nodes = Nodes::two("");
    nodes.pass(37);
    let since = nodes.now;
    nodes.give(0, Input::Stop);
    nodes.pass(200);
    assert_eq!(nodes.took_after(1, since), 0);
    assert_eq!(nodes.roles(), [Stopped, Primary]);
    assert!(
        nodes
            .done
            .iter()
            .any(|(_, node, action)| *node == 0 && *action == Action::Stopped)
    );
    assert!(
        nodes
            .alerts(1)
            .contains(&&Alert::NodeLeft("lb1".to_owned()))
    );
    assert_eq!(
        nodes
            .alerts(1)
            .iter()
            .filter(|alert| matches!(alert, Alert::NodeDead(_)))
            .count(),
        0
    );
    // The first messages are lost.
    let mut nodes = Nodes::two("");
    let since = nodes.now;
    nodes.cut.push((0, 1));
    nodes.give(0, Input::Stop);
    nodes.cut.clear();
    nodes.pass(100);
    assert!(nodes.took_after(1, since) < 100);
}

#[test]
fn operators_orders() {
    let mut nodes = Nodes::two("");
    nodes.order(0, Command::Standby);
    nodes.pass(1);
    assert_eq!(nodes.roles(), [Backup, Primary]);
    nodes.pass(3000);
    assert_eq!(nodes.roles(), [Backup, Primary]);
    // A node on standby serves if nobody else can.
    nodes.fit(1, 0, Some("no carrier"));
    nodes.pass(1);
    assert_eq!(nodes.roles(), [Primary, Unfit]);
    assert_eq!(nodes.reason(1), "the node is not fit: no carrier");
    nodes.fit(1, 0, None);
    nodes.pass(1000);
    assert_eq!(nodes.roles(), [Backup, Primary]);
    nodes.order(0, Command::Ready);
    nodes.pass(5000);
    assert_eq!(nodes.roles(), [Primary, Backup]);
    // A takeover stays, whoever is preferred.
    nodes.order(1, Command::Takeover);
    nodes.pass(5000);
    assert_eq!(nodes.roles(), [Backup, Primary]);
    nodes.order(1, Command::Ready);
    nodes.pass(5000);
    assert_eq!(nodes.roles(), [Primary, Backup]);
    nodes.fit(1, 0, Some("no carrier"));
    nodes.order(1, Command::Takeover);
    nodes.pass(100);
    assert_eq!(nodes.roles(), [Primary, Unfit]);
    let refused = |alert: &&&Alert| matches!(alert, Alert::TakeoverRefused { .. });
    assert_eq!(nodes.alerts(1).iter().filter(refused).count(), 1);
}

#[test]
fn a_primary_that_is_not_heard_yields() {
    let mut nodes = Nodes::two("");
    nodes.cut = vec![(0, 1)];
    nodes.pass(1000);
    // lb2 cannot know of lb1, but lb1 of lb2.
    assert_eq!(nodes.roles(), [Backup, Primary]);
    assert_eq!(
        nodes.reason(0),
        "lb2 is primary too and does not hear this node"
    );
    let moves = nodes.done.len();
    nodes.pass(5000);
    assert!(
        nodes.done[moves..]
            .iter()
            .all(|(.., action)| !matches!(action, Action::Take(_)))
    );
    nodes.cut.clear();
    nodes.pass(1000);
    assert_eq!(nodes.roles(), [Primary, Backup]);
}

#[test]
fn nodes_learn_of_each_other_from_those_between() {
    let priorities = "{ lb1: 150, lb2: 100, lb3: 120 }";
    let configs = ["lb1", "lb2", "lb3"].map(|node| config(node, priorities, ""));
    let mut nodes = Nodes::start(configs.to_vec());
    nodes.cut = vec![(0, 2), (2, 0)];
    nodes.pass(5000);
    assert_eq!(nodes.roles(), [Primary, Backup, Backup]);
    let status = nodes.machines[2].status();
    assert!(status.nodes[0].is_relayed && status.nodes[0].hears_us);
    assert_eq!(status.groups[0].primary.as_deref(), Some("lb1"));
    nodes.still[0] = true;
    nodes.pass(1000);
    assert_eq!(nodes.roles()[1..], [Backup, Primary]);
}

#[test]
fn fencing_comes_before_the_takeover() {
    for (required, result, expected) in [
        (true, FenceResult::Done, Primary),
        (true, FenceResult::Failed, Backup),
        (false, FenceResult::Failed, Primary),
    ] {
        let mut nodes = Nodes::two(&format!(
            "fence: {{ command: [/sbin/fence], required: {required} }}"
        ));
        nodes.still[0] = true;
        nodes.pass(1000);
        assert_eq!(nodes.roles()[1], Backup);
        let fences = nodes
            .done
            .iter()
            .filter(|(.., action)| *action == Action::Fence("lb1".to_owned()));
        assert_eq!(fences.count(), 1);
        nodes.give(
            1,
            Input::Fenced {
                node: "lb1".to_owned(),
                result,
            },
        );
        assert_eq!(nodes.roles()[1], expected, "{required} {result:?}");
    }
}

#[test]
fn a_node_whose_fitness_changes_all_the_time_does_not_move_the_group_each_time() {
    let mut nodes = Nodes::two("");
    let before = nodes.done.len();
    for _ in 0..40 {
        nodes.fit(0, 100, None);
        nodes.pass(250);
        nodes.fit(0, 0, None);
        nodes.pass(250);
    }
    let moves = nodes.done[before..]
        .iter()
        .filter(|(.., action)| matches!(action, Action::Take(_)));
    let moves = moves.count();
    assert!(moves <= 16, "{moves} moves in 80 changes");
}

#[test]
fn a_node_that_starts_waits_for_the_others() {
    let mut nodes = Nodes::start(vec![config("lb1", "{ lb1: 150, lb2: 100 }", "")]);
    let since = nodes.now;
    nodes.pass(2000);
    let after = nodes.took_after(0, since);
    assert!((1000..=1050).contains(&after), "{after}");
}

#[test]
fn no_other_node_means_no_standby() {
    let mut nodes = Nodes::two("");
    nodes.still[1] = true;
    nodes.pass(1000);
    nodes.order(0, Command::Standby);
    nodes.pass(1000);
    assert_eq!(nodes.roles()[0], Primary);
    assert!(
        nodes
            .alerts(0)
            .contains(&&Alert::NobodyElse("web".to_owned()))
    );
    nodes.still[1] = false;
    nodes.pass(2000);
    assert_eq!(nodes.roles(), [Backup, Primary]);
}

/// Where fitness has made priorities equal, the address decides, and where there are none the name.
#[test]
fn equal_priorities_are_decided_by_address_then_name() {
    for (addresses, expected) in [
        ([Some(5), Some(9)], [Backup, Primary]),
        ([Some(9), Some(5)], [Primary, Backup]),
        ([None, None], [Primary, Backup]),
    ] {
        let with_vrrp = |node| {
            let text = format!(
                "
node: {node}
keepalive: 100ms
deadtime: 300ms
initdead: 1s
links: [{{ udp: {{ interface: eth0, broadcast: true }} }}, {{ vrrp: {{ interface: eth0 }} }}]
groups: [{{ name: web, interface: eth0, addresses: [198.51.100.10/24], priority: {{ lb1: 150, lb2: 100 }}, vrid: 7 }}]"
            );
            Arc::new(config::parse("test", &text, "host").unwrap())
        };
        let mut nodes = Nodes::start(vec![with_vrrp("lb1"), with_vrrp("lb2")]);
        for (node, last) in addresses.iter().enumerate() {
            let v4 = last.map(|last| Ipv4Addr::new(10, 0, 0, last));
            let (link, v6) = (LinkId(1), None);
            nodes.give(node, Input::Addresses { link, v4, v6 });
        }
        nodes.pass(2000);
        assert_eq!(nodes.roles(), [Primary, Backup]);
        nodes.fit(0, 50, None);
        nodes.pass(2000);
        assert_eq!(nodes.roles(), expected, "handed over: {addresses:?}");
        nodes.cut = vec![(0, 1), (1, 0)];
        nodes.pass(1000);
        assert_eq!(nodes.roles(), [Primary, Primary]);
        nodes.cut.clear();
        nodes.pass(200);
        assert_eq!(nodes.roles(), expected, "after a split: {addresses:?}");
    }
}

/// Dead is only who is silent on all links: the other ones are enough, whichever it is.
#[test]
fn a_node_is_alive_as_long_as_one_link_is_heard() {
    let links =
        "[{ udp: { interface: eth0, broadcast: true } }, { serial: { device: /dev/ttyS0 } }]";
    for heard in [0, 1] {
        let text = format!(
            "
node: lb2
keepalive: 100ms
deadtime: 300ms
initdead: 1s
links: {links}
groups: [{{ name: web, interface: eth0, addresses: [198.51.100.10/24], priority: {{ lb1: 150, lb2: 100 }} }}]"
        );
        let config = Arc::new(config::parse("test", &text, "host").unwrap());
        let mut nodes = Nodes::two("");
        nodes.machines[1] = Machine::new(config, 2, nodes.now);
        nodes.fit(1, 0, None);
        let since = nodes.done.len();
        let mut told = 0;
        // On both for a second, then on one, then on none.
        for (links, milliseconds) in [(&[0, 1][..], 1000), (&[heard][..], 2000), (&[][..], 1000)] {
            nodes.cut = vec![(0, 1)];
            for _ in 0..milliseconds {
                nodes.pass(1);
                let sent = nodes.done[since + told..].to_vec();
                told += sent.len();
                for (_, node, action) in sent {
                    let (0, Action::Heartbeat(message)) = (node, action) else {
                        continue;
                    };
                    for link in links {
                        let (link, message) = (LinkId(*link), message.clone());
                        nodes.give(1, Input::Heartbeat { link, message });
                    }
                }
            }
            let is_dead = nodes
                .alerts(1)
                .contains(&&Alert::NodeDead("lb1".to_owned()));
            assert_eq!(is_dead, links.is_empty(), "heard on {links:?}");
        }
        let silent = nodes.alerts(1).into_iter().filter_map(|alert| match alert {
            Alert::LinkSilent { link, .. } => Some(link.as_str()),
            _ => None,
        });
        let expected = ["serial /dev/ttyS0", "udp eth0"][heard as usize];
        assert_eq!(silent.collect::<Vec<_>>(), [expected]);
    }
}

/// Gaps add up on the way through another node: what is short on each part is no death at the end of it.
#[test]
fn a_node_behind_another_one_may_be_silent_for_longer() {
    let priorities = "{ lb1: 150, lb2: 100, lb3: 120 }";
    let configs = ["lb1", "lb2", "lb3"].map(|node| config(node, priorities, ""));
    let mut nodes = Nodes::start(configs.to_vec());
    let apart = [(0, 2), (2, 0)];
    nodes.cut = apart.to_vec();
    nodes.pass(3000);
    for _ in 0..50 {
        for part in [(0, 1), (1, 2)] {
            nodes.cut.push(part);
            nodes.pass(180);
            nodes.cut = apart.to_vec();
        }
        nodes.pass(507);
    }
    assert_eq!(nodes.roles(), [Primary, Backup, Backup]);
    for node in 0..3 {
        let is_dead = |alert: &&Alert| matches!(alert, Alert::NodeDead(_));
        assert!(!nodes.alerts(node).into_iter().any(|alert| is_dead(&alert)));
    }
}

/// A node that is late itself, though not for as long as its lease, holds nobody for dead who could not be heard meanwhile.
#[test]
fn that_a_node_is_late_makes_nobody_dead() {
    let mut nodes = Nodes::two("");
    let lease = nodes.machines[1].config.lease();
    // Less than deadtime, by as much as it may still wait.
    nodes.cut = vec![(0, 1)];
    nodes.pass(240);
    nodes.still[1] = true;
    // It was renewed half a keepalive ago, at worst.
    nodes.pass(u32::try_from(lease.as_millis()).unwrap() - 55);
    nodes.still[1] = false;
    nodes.cut.clear();
    // The time comes first, then what stood in the socket.
    nodes.give(1, Input::Tick);
    nodes.pass(1000);
    assert_eq!(nodes.roles(), [Primary, Backup]);
    let alerts = nodes.alerts(1);
    assert!(!alerts.contains(&&Alert::NodeDead("lb1".to_owned())));
    assert!(
        !alerts
            .iter()
            .any(|alert| matches!(alert, Alert::StoodStill(_)))
    );
}

/// Whoever stands in a group's priorities serves it, and nobody else, though nobody else be left.
#[test]
fn a_node_without_a_priority_never_serves() {
    let with_both = |node| {
        let text = format!(
            "
node: {node}
keepalive: 100ms
deadtime: 300ms
initdead: 1s
links: [{{ udp: {{ interface: eth0, broadcast: true }} }}]
groups:
  - {{ name: web, interface: eth0, addresses: [198.51.100.10/24], priority: {{ lb1: 150 }} }}
  - {{ name: mail, interface: eth0, addresses: [198.51.100.11/24], priority: {{ lb1: 150, lb2: 100 }} }}"
        );
        Arc::new(config::parse("test", &text, "host").unwrap())
    };
    let mut nodes = Nodes::start(vec![with_both("lb1"), with_both("lb2")]);
    nodes.pass(1000);
    nodes.still[0] = true;
    nodes.pass(1000);
    nodes.order(1, Command::Takeover);
    nodes.pass(2000);
    let groups = nodes.machines[1].status().groups;
    let roles: Vec<Role> = groups.iter().map(|group| group.role).collect();
    assert_eq!(roles, [Backup, Primary]);
    assert_eq!(nodes.took_after(1, Duration::ZERO), u128::MAX);
}

/// What is required is tried again, but not all the time.
#[test]
fn fencing_that_failed_is_tried_again() {
    let mut nodes = Nodes::two("fence: { command: [/sbin/fence], required: true }");
    let fences = |nodes: &Nodes| {
        let done = nodes.done.iter();
        done.filter(|(.., action)| matches!(action, Action::Fence(_)))
            .count()
    };
    nodes.still[0] = true;
    for (milliseconds, expected) in [(1000, 1), (29_900, 1), (200, 2), (29_900, 2), (200, 3)] {
        nodes.pass(milliseconds);
        assert_eq!(fences(&nodes), expected);
        let (node, result) = ("lb1".to_owned(), FenceResult::Failed);
        if [1000, 200].contains(&milliseconds) {
            nodes.give(1, Input::Fenced { node, result });
        }
    }
    assert_eq!(nodes.roles()[1], Backup);
}

/// A dead node is fenced for what it served when it died, not for what it had handed over before.
#[test]
fn a_node_that_served_nothing_is_not_fenced() {
    let mut nodes = Nodes::two("fence: { command: [/sbin/fence], required: true }");
    nodes.order(0, Command::Standby);
    nodes.pass(100);
    assert_eq!(nodes.roles(), [Backup, Primary]);
    nodes.still[0] = true;
    nodes.pass(1000);
    nodes.fit(1, 0, Some("no carrier"));
    nodes.pass(100);
    nodes.fit(1, 0, None);
    nodes.pass(1000);
    assert_eq!(nodes.roles()[1], Primary);
    let is_fence = |action: &Action| matches!(action, Action::Fence(_));
    assert!(!nodes.done.iter().any(|(.., action)| is_fence(action)));
}

#[test]
fn the_lease_ends_before_anybody_takes_over() {
    let nodes = Nodes::two("");
    let config = config("lb1", "{ lb1: 150, lb2: 100 }", "");
    let timing = config.timing;
    assert!(config.lease() + timing.keepalive < timing.deadtime);
    // And is renewed long before it ends.
    let mut last = None;
    for (at, node, action) in &nodes.done {
        let Action::Lease(until) = action else {
            continue;
        };
        assert_eq!(*node, 0);
        assert_eq!(*until, *at + config.lease());
        if let Some(last) = last {
            assert!(*at + config.lease() / 2 < last, "{at:?}");
        }
        last = Some(*until);
    }
    assert!(last.is_some());
}

/// A node whose interface is gone cannot serve what stands on it, and can what does not.
#[test]
fn only_a_group_that_a_node_cannot_serve_moves() {
    let with_both = |node| {
        let text = format!(
            "
node: {node}
keepalive: 100ms
deadtime: 300ms
initdead: 1s
links: [{{ udp: {{ interface: eth0, broadcast: true }} }}]
groups:
  - {{ name: web, interface: eth1, addresses: [198.51.100.10/24], priority: {{ lb1: 150, lb2: 100 }} }}
  - {{ name: mail, interface: eth2, addresses: [198.51.100.11/24], priority: {{ lb1: 150, lb2: 100 }} }}"
        );
        Arc::new(config::parse("test", &text, "host").unwrap())
    };
    let mut nodes = Nodes::start(vec![with_both("lb1"), with_both("lb2")]);
    nodes.pass(1000);
    let roles = |nodes: &Nodes, node: usize| -> Vec<Role> {
        let groups = nodes.machines[node].status().groups;
        groups.iter().map(|group| group.role).collect()
    };
    assert_eq!(roles(&nodes, 0), [Primary, Primary]);
    let why = Some("there is no interface eth1".to_owned());
    nodes.give(0, Input::Unable { group: 0, why });
    nodes.pass(1);
    assert_eq!(roles(&nodes, 0), [Unfit, Primary]);
    assert_eq!(roles(&nodes, 1), [Primary, Backup]);
    assert_eq!(
        nodes.reason(0),
        "the node is not fit: there is no interface eth1"
    );
    let refused = nodes.machines[0].refusal(Command::Takeover, &Scope::All);
    let words = "the group web is not taken over: this node is not fit: there is no interface eth1";
    assert_eq!(refused.as_deref(), Some(words));
    let mail = Scope::Group("mail".to_owned());
    assert_eq!(nodes.machines[0].refusal(Command::Takeover, &mail), None);
    let why = None;
    nodes.give(0, Input::Unable { group: 0, why });
    nodes.pass(1000);
    assert_eq!(roles(&nodes, 0), [Primary, Primary]);
}
