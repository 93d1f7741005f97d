//! VRRP alone: RFC 9568 section 6.4.

use super::split::{split, split_over};
use super::*;

/// One router that hears adverts of 10.0.0.9; this is 10.0.0.5.
fn router(priority: u8, auto_failback: &str) -> Nodes {
    router_with(
        priority,
        auto_failback,
        "links: [{ vrrp: { interface: eth0 } }]",
    )
}

fn router_with(priority: u8, auto_failback: &str, links: &str) -> Nodes {
    let text = format!(
        "
node: lb1
keepalive: 100ms
deadtime: 300ms
auto_failback: {auto_failback}
{links}
groups: [{{ name: web, interface: eth0, addresses: [198.51.100.10/24], priority: {priority}, vrid: 7 }}]"
    );
    let mut nodes = Nodes::start(vec![Arc::new(
        config::parse("test", &text, "host").unwrap(),
    )]);
    let v4 = Some(Ipv4Addr::new(10, 0, 0, 5));
    nodes.give(
        0,
        Input::Addresses {
            link: LinkId(0),
            v4,
            v6: None,
        },
    );
    nodes
}

fn advert(priority: u8, interval_ms: u64) -> Advert {
    Advert {
        version: Version::V3,
        vrid: 7,
        priority,
        interval: Duration::from_millis(interval_ms),
        addresses: Addresses::V4(vec![Ipv4Addr::new(198, 51, 100, 10)]),
        password: None,
    }
}

impl Nodes {
    fn advertise(&mut self, from: u8, priority: u8, interval_ms: u64) {
        let from = IpAddr::from([10, 0, 0, from]);
        let advert = advert(priority, interval_ms);
        self.give(
            0,
            Input::Advert {
                link: LinkId(0),
                from,
                advert,
            },
        );
    }

    /// A foreign primary advertises for so long, every 100 ms.
    fn advertised(&mut self, priority: u8, milliseconds: u32) {
        for _ in 0..milliseconds / 100 {
            self.advertise(9, priority, 100);
            self.pass(100);
        }
    }

    fn priorities_sent(&self, since: Duration) -> Vec<u8> {
        let sent = self.done.iter().filter_map(|(at, _, action)| match action {
            Action::Advertise { advert, .. } if *at >= since => Some(advert.priority),
            _ => None,
        });
        sent.collect()
    }
}

#[test]
fn vrrp_waits_three_intervals_and_the_skew() {
    // Priority, and 300 ms + (256 - priority) / 256 * 100 ms.
    for (priority, expected) in [(100, 360), (200, 321), (254, 300)] {
        let mut nodes = router(priority, "true");
        let since = nodes.now;
        nodes.pass(1000);
        let after = nodes.took_after(0, since);
        assert!(
            (expected..=expected + 2).contains(&after),
            "{priority}: {after}"
        );
    }
    // The owner asks nobody.
    let nodes = router(255, "true");
    assert_eq!(nodes.roles(), [Primary]);
    assert_eq!(nodes.priorities_sent(Duration::ZERO), [255]);
}

#[test]
fn vrrp_follows_the_primarys_interval_and_priority_0() {
    let mut nodes = router(100, "true");
    nodes.advertise(9, 150, 500);
    let since = nodes.now;
    nodes.pass(3000);
    // 3 * 500 ms and 156 / 256 of 500 ms.
    let after = nodes.took_after(0, since);
    assert!((1804..=1806).contains(&after), "{after}");
    assert_eq!(nodes.reason(0), "the VRRP router 10.0.0.9 is silent");

    let mut nodes = router(100, "true");
    nodes.advertised(150, 1000);
    let since = nodes.now;
    nodes.advertise(9, 0, 100);
    nodes.pass(500);
    let after = nodes.took_after(0, since);
    assert!((60..=62).contains(&after), "{after}");
    assert_eq!(nodes.reason(0), "the VRRP router 10.0.0.9 released it");
}

#[test]
fn vrrp_preempts_or_not() {
    for (auto_failback, expected) in [
        ("true", Primary),
        ("false", Backup),
        ("500ms", Primary),
        ("1h", Backup),
    ] {
        let mut nodes = router(100, auto_failback);
        nodes.advertised(90, 2000);
        assert_eq!(nodes.roles(), [expected], "{auto_failback}");
    }
    // Equal is no reason to preempt.
    let mut nodes = router(100, "true");
    nodes.advertised(100, 2000);
    assert_eq!(nodes.roles(), [Backup]);
}

/// Nor does it preempt a router before it has what it needs, or has waited for long enough while that one served.
#[test]
fn vrrp_waits_for_what_it_lacks() {
    let limit = "true\nfailback_limit: 2s";
    let waits = || Filled::Waiting("connections".to_owned());
    // The other router's priority, for how long it advertises, what is told then; who serves after another half second.
    for (priority, milliseconds, told, expected) in [
        (90, 1000, None, Backup),
        (90, 1300, None, Backup),
        (90, 2600, None, Primary),
        (90, 1000, Some(Filled::Done("all".to_owned())), Primary),
        // It serves by right: nothing is waited for, and nothing given up.
        (150, 5000, None, Backup),
    ] {
        let what = format!("{priority} for {milliseconds} ms, then {told:?}");
        let mut nodes = router(100, limit);
        nodes.give(0, Input::Filled(waits()));
        nodes.advertised(priority, milliseconds);
        if let Some(told) = told {
            nodes.give(0, Input::Filled(told));
        }
        nodes.advertised(priority, 500);
        assert_eq!(nodes.roles(), [expected], "{what}");
        let given_up = Alert::MayFailBack(Filled::GivenUp("connections".to_owned()));
        let has_given_up = nodes.alerts(0).contains(&&given_up);
        assert_eq!(has_given_up, milliseconds == 2600, "{what}");
    }
}

/// While its cable was out a router heard nobody. When it is in again it does not take the others for silent; and where
/// something is to be there before it takes a group, that something is missing is told a little later.
#[test]
fn a_router_whose_cable_was_out_listens_first() {
    let done = || Some(Filled::Done("all of them".to_owned()));
    let waits = || Some(Filled::Waiting("connections".to_owned()));
    // `auto_failback`, what it has of what it needs; ms within which it takes the group from one of less priority, if at all.
    let rows = [
        ("true", None, Some(350..=400)),
        ("true", done(), Some(1000..=1400)),
        ("true", waits(), None),
        ("2s", None, Some(2000..=2400)),
        ("500ms", done(), Some(1000..=1400)),
        ("false", None, None),
        ("false", done(), None),
    ];
    for (auto_failback, filled, expected) in rows {
        let what = format!("{auto_failback} {filled:?}");
        let mut nodes = router(100, auto_failback);
        nodes.pass(1000);
        assert_eq!(nodes.roles(), [Primary], "{what}");
        nodes.fit(0, 0, Some("eth0 has no carrier"));
        if let Some(filled) = filled {
            nodes.give(0, Input::Filled(filled));
        }
        nodes.pass(3000);
        nodes.fit(0, 0, None);
        let since = nodes.now;
        nodes.pass(50);
        nodes.advertised(90, 4000);
        match expected {
            Some(expected) => {
                let took = nodes.took_after(0, since);
                assert!(expected.contains(&took), "{what}: after {took} ms");
            }
            None => assert_eq!(nodes.roles(), [Backup], "{what}"),
        }
    }
}

#[test]
fn vrrp_primary_yields_to_priority_then_address() {
    // From 10.0.0.x with this priority; what becomes of a primary with priority 100 and 10.0.0.5.
    for (from, priority, expected) in [
        (9, 101, Backup),
        (1, 101, Backup),
        (9, 100, Backup),
        (1, 100, Primary),
        (9, 99, Primary),
        (9, 0, Primary),
    ] {
        let mut nodes = router(100, "true");
        nodes.pass(1000);
        assert_eq!(nodes.roles(), [Primary]);
        nodes.pass(33);
        let since = nodes.now;
        nodes.advertise(from, priority, 100);
        assert_eq!(nodes.roles(), [expected], "{from} {priority}");
        // One that stays says so at once.
        let sent = nodes.priorities_sent(since);
        assert_eq!(!sent.is_empty(), expected == Primary, "{from} {priority}");
        // And that there was another one, until that has been silent for three intervals.
        let router = format!("10.0.0.{from}");
        let expected = match expected == Primary && priority > 0 {
            true => vec![split(&router, true), split_over(&router)],
            false => Vec::new(),
        };
        nodes.pass(350);
        assert_eq!(nodes.splits(0), expected, "{from} {priority}");
    }
}

/// Two routers that were both ordered to take over answer each other, but not as fast as they can.
#[test]
fn whoever_else_is_primary_is_answered_once_in_an_interval() {
    let mut nodes = router(100, "true");
    nodes.pass(1000);
    nodes.order(0, Command::Takeover);
    nodes.pass(500);
    let since = nodes.now + MILLISECOND;
    for _ in 0..1000 {
        nodes.pass(1);
        nodes.advertise(9, 254, 100);
    }
    // As many as are due in this second, and once more in each interval.
    let sent = nodes.priorities_sent(since).len();
    assert!((10..=21).contains(&sent), "{sent}");
}

#[test]
fn vrrp_says_priority_0_when_it_stops_or_is_not_fit() {
    let mut nodes = router(100, "true");
    nodes.pass(1000);
    let since = nodes.now;
    nodes.give(0, Input::Stop);
    assert_eq!(nodes.priorities_sent(since), [0]);

    let mut nodes = router(100, "true");
    nodes.pass(1000);
    let since = nodes.now;
    nodes.fit(0, 0, Some("no carrier"));
    nodes.pass(500);
    assert_eq!(nodes.priorities_sent(since), [0]);
    nodes.fit(0, 30, None);
    nodes.pass(1000);
    assert_eq!(nodes.roles(), [Primary]);
    assert_eq!(nodes.priorities_sent(since)[1..3], [70, 70]);
    // After standing still it says nothing, and listens.
    let since = nodes.now + MILLISECOND;
    nodes.still[0] = true;
    nodes.pass(1000);
    nodes.still[0] = false;
    nodes.pass(100);
    assert!(nodes.priorities_sent(since).is_empty());
    assert_eq!(nodes.roles(), [Listening]);
}

/// It goes on while nobody else can serve, and any other router goes before.
#[test]
fn vrrp_on_standby_yields_to_anybody() {
    let mut nodes = router(100, "true");
    nodes.pass(1000);
    nodes.order(0, Command::Standby);
    let since = nodes.now + MILLISECOND;
    nodes.pass(500);
    assert_eq!(nodes.roles(), [Primary]);
    let sent = nodes.priorities_sent(since);
    assert!(
        !sent.is_empty() && sent.iter().all(|sent| *sent == 1),
        "{sent:?}"
    );
    nodes.advertised(2, 500);
    assert_eq!(nodes.roles(), [Backup]);
    nodes.order(0, Command::Ready);
    nodes.advertised(2, 1000);
    assert_eq!(nodes.roles(), [Primary]);
}

/// What is believed of a foreign router's interval: 40.95 s, once, would keep nodes from serving for two minutes.
#[test]
fn a_long_interval_is_believed_so_far_only() {
    // Of the foreign router, of this one; after how many milliseconds it takes the group.
    for (foreign, own, expected) in [
        (1_000, 100, 3_609),
        (10_000, 100, 36_094),
        (40_950, 100, 36_094),
        (40_950, 20_000, 72_188),
    ] {
        let link = format!("links: [{{ vrrp: {{ interface: eth0, interval: {own}ms }} }}]");
        let mut nodes = router_with(100, "true", &link);
        nodes.advertise(9, 255, foreign);
        let since = nodes.now;
        nodes.pass(80_000);
        let after = nodes.took_after(0, since);
        assert!(
            (expected..=expected + 2).contains(&after),
            "{foreign} {own}: {after}"
        );
    }
}

/// Whatever a foreign router says, and says again: an operator's order stands until another one comes.
#[test]
fn an_operators_order_wins_over_a_foreign_router() {
    for priority in [90, 150, 255] {
        let mut nodes = router(100, "true");
        nodes.advertised(priority.max(101), 1000);
        nodes.advertise(9, priority, 40_950);
        assert_eq!(nodes.roles(), [Backup], "{priority}");
        nodes.order(0, Command::Takeover);
        assert_eq!(nodes.roles(), [Primary], "{priority}");
        assert_eq!(nodes.reason(0), "an operator ordered takeover");
        let since = nodes.now;
        nodes.advertised(priority, 2000);
        assert_eq!(nodes.roles(), [Primary], "{priority}");
        let sent = nodes.priorities_sent(since);
        let is_most = |sent: &u8| *sent == 254;
        assert!(!sent.is_empty() && sent.iter().all(is_most), "{sent:?}");
        nodes.order(0, Command::Ready);
        nodes.advertised(priority, 2000);
        let expected = if priority > 100 { Backup } else { Primary };
        assert_eq!(nodes.roles(), [expected], "{priority}");
    }
    // A node that is not fit does not obey.
    let mut nodes = router(100, "true");
    nodes.advertised(150, 1000);
    nodes.fit(0, 0, Some("no carrier"));
    nodes.order(0, Command::Takeover);
    nodes.advertised(150, 1000);
    assert_eq!(nodes.roles(), [Unfit]);
}

/// Two nodes with heartbeats of their own, and VRRP beside them; the first serves.
fn two_with_vrrp(key: &str) -> Nodes {
    let with_vrrp = |node| {
        let text = format!(
            "
node: {node}
keepalive: 100ms
deadtime: 300ms
initdead: 1s
{key}
links: [{{ udp: {{ interface: eth0, broadcast: true }} }}, {{ vrrp: {{ interface: eth0 }} }}]
groups: [{{ name: web, interface: eth0, addresses: [198.51.100.10/24], priority: {{ lb1: 150, lb2: 100 }}, vrid: 7 }}]"
        );
        Arc::new(config::parse("test", &text, "host").unwrap())
    };
    let mut nodes = Nodes::start(vec![with_vrrp("lb1"), with_vrrp("lb2")]);
    for (node, last) in [5, 6].into_iter().enumerate() {
        let v4 = Some(Ipv4Addr::new(10, 0, 0, last));
        let (link, v6) = (LinkId(1), None);
        nodes.give(node, Input::Addresses { link, v4, v6 });
    }
    nodes.pass(2000);
    nodes
}

/// Whom a foreign router bars asks nobody to hand over: he could not take it.
#[test]
fn a_group_is_handed_to_nobody_whom_a_foreign_router_bars() {
    let mut nodes = two_with_vrrp("");
    assert_eq!(nodes.roles(), [Primary, Backup]);
    // To the first node alone, which is barred by it for half a minute.
    let (link, from) = (LinkId(1), IpAddr::from([10, 0, 0, 9]));
    let advert = advert(255, 40_950);
    nodes.give(0, Input::Advert { link, from, advert });
    nodes.order(1, Command::Takeover);
    nodes.pass(1000);
    assert_eq!(nodes.roles(), [Backup, Primary]);
    nodes.order(1, Command::Ready);
    for at_ms in 0..5000 {
        nodes.pass(1);
        assert_eq!(nodes.roles(), [Backup, Primary], "after {at_ms} ms");
    }
    // Then the first one takes its group back.
    nodes.pass(40_000);
    assert_eq!(nodes.roles(), [Primary, Backup]);
}

/// Where heartbeats are signed an advert is no sign of a node's life: anybody can send it.
#[test]
fn an_advert_keeps_a_dead_node_alive_only_without_a_key() {
    let key = "key: { id: 1, file: /etc/director/heartbeat.key }";
    for (key, expected) in [("", Backup), (key, Primary)] {
        let mut nodes = two_with_vrrp(key);
        assert_eq!(nodes.roles(), [Primary, Backup]);
        nodes.still[0] = true;
        for _ in 0..20 {
            nodes.pass(100);
            // In lb1's name.
            let (link, from) = (LinkId(1), IpAddr::from([10, 0, 0, 5]));
            let advert = advert(150, 100);
            nodes.give(1, Input::Advert { link, from, advert });
        }
        assert_eq!(nodes.roles()[1], expected, "{key}");
    }
}

/// Anybody can have a split begin and end as often as he likes, but not be told of as often.
#[test]
fn splits_with_foreign_routers_are_told_of_so_often() {
    let mut nodes = router(100, "true");
    nodes.pass(1000);
    for _ in 0..100 {
        nodes.advertise(9, 50, 10);
        nodes.pass(400);
    }
    let splits = nodes.splits(0);
    let told = (0..5).flat_map(|_| [split("10.0.0.9", true), split_over("10.0.0.9")]);
    assert_eq!(splits, told.collect::<Vec<_>>());
    nodes.pass(30_000);
    nodes.advertise(9, 50, 10);
    nodes.pass(400);
    assert_eq!(nodes.splits(0).len(), splits.len() + 2, "a minute later");
}
