//! VRRP alone: RFC 9568 section 6.4.

use super::split::{split, split_over};
use super::*;

/// One router that hears adverts of 10.0.0.9; this is 10.0.0.5.
fn router(priority: u8, auto_failback: &str) -> Nodes {
    let text = format!(
        "
node: lb1
keepalive: 100ms
deadtime: 300ms
auto_failback: {auto_failback}
links: [{{ vrrp: {{ interface: eth0 }} }}]
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
