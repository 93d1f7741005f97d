//! Links between two namespaces, and over a pty pair.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV6};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use heartbeat::config::{self, LinkKind, SerialLink, UdpLink, UdpTo, VrrpLink};
use heartbeat::link::{AT_ONCE, Event, Link, REOPEN, Received, framing};
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::namespace::{Namespace, cable};

const ONE: [&str; 2] = ["192.0.2.1/24", "2001:db8::1/64"];
const OTHER: [&str; 2] = ["192.0.2.2/24", "2001:db8::2/64"];
const VIRTUAL: [&str; 3] = ["192.0.2.100", "2001:db8::100", "fe80::100"];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(kind: LinkKind) -> Link {
    let settings = config::Link {
        name: "tried".to_owned(),
        kind,
    };
    Link::new(settings, VIRTUAL.map(address).to_vec())
}

fn udp(to: UdpTo) -> Link {
    link(LinkKind::Udp(UdpLink {
        interface: "eth0".to_owned(),
        port: 694,
        to,
    }))
}

fn vrrp(peers: &[&str]) -> Link {
    link(LinkKind::Vrrp(VrrpLink {
        interface: "eth0".to_owned(),
        version: 3,
        interval: Duration::from_secs(1),
        peers: peers.iter().map(|peer| address(peer)).collect(),
        pseudo_header: false,
    }))
}

fn open(namespace: &Namespace, link: &mut Link) {
    let event = namespace.run(|| link.step(Duration::ZERO));
    assert_eq!(event, Some(Event::Works), "{:?}", link.fault());
}

/// Waits for the next messages.
fn hear(link: &mut Link) -> Vec<Received> {
    let begun = Instant::now();
    loop {
        let (heard, event) = link.receive(Duration::ZERO);
        assert_eq!(event, None);
        if !heard.is_empty() {
            return heard;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "nothing heard");
        let mut waits: Vec<_> = link
            .fds()
            .into_iter()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        poll(&mut waits, PollTimeout::from(100_u16)).unwrap();
    }
}

fn pair() -> (Namespace, Namespace) {
    let (one, other) = (Namespace::new(), Namespace::new());
    cable(&one, &ONE, &other, &OTHER);
    (one, other)
}

#[test]
#[ignore = "needs root: network namespaces"]
fn udp_in_every_way() {
    let (one, other) = pair();
    let unicast = |peer: &str| UdpTo::Unicast(vec![address(peer)]);
    let ways = [
        (unicast("192.0.2.2"), unicast("192.0.2.1"), "192.0.2.2"),
        (
            unicast("2001:db8::2"),
            unicast("2001:db8::1"),
            "2001:db8::2",
        ),
        (
            UdpTo::Multicast(address("239.255.6.94")),
            UdpTo::Multicast(address("239.255.6.94")),
            "192.0.2.2",
        ),
        (
            UdpTo::Multicast(address("ff02::694")),
            UdpTo::Multicast(address("ff02::694")),
            "fe80::",
        ),
        (UdpTo::Broadcast, UdpTo::Broadcast, "192.0.2.2"),
    ];
    for (here, there, from) in ways {
        let shown = format!("{here:?}");
        let (mut here, mut there) = (udp(here), udp(there));
        open(&one, &mut here);
        open(&other, &mut there);
        // Its own do not come back: what is heard first is the other's.
        assert_eq!(here.send(b"mine", Duration::ZERO), None, "{shown}");
        let heard = hear(&mut there);
        assert_eq!(heard[0].bytes, b"mine", "{shown}");
        assert_eq!(there.send(b"yours", Duration::ZERO), None);
        let heard = hear(&mut here);
        assert_eq!(heard.len(), 1, "{shown}");
        assert_eq!(heard[0].bytes, b"yours", "{shown}");
        let source = heard[0].from.unwrap().to_string();
        assert!(source.starts_with(from), "{shown}: {source}");
        let counters = here.counters();
        assert_eq!((counters.sent, counters.heard), (1, 1));
        let came_back = u64::from(shown == "Broadcast");
        assert_eq!(counters.own, came_back, "{shown}");
    }
}

/// Two nodes that both hold the virtual addresses, and whose kernels send from them: who did not listen to that would never
/// learn that there are two.
#[test]
#[ignore = "needs root: network namespaces"]
fn who_sends_from_an_address_that_this_node_holds_too_is_heard() {
    let (one, other) = pair();
    for node in [&one, &other] {
        for held in &VIRTUAL[1..] {
            node.ip(&format!("address add {held}/64 dev eth0 nodad"));
        }
    }
    let mut here = udp(UdpTo::Unicast(vec![address("2001:db8::2")]));
    let mut there = udp(UdpTo::Unicast(vec![address("2001:db8::1")]));
    open(&one, &mut here);
    open(&other, &mut there);
    assert_eq!(here.send(b"a heartbeat", Duration::ZERO), None);
    let heard = hear(&mut there);
    assert_eq!(heard[0].bytes, b"a heartbeat");
    assert_eq!(heard[0].from, Some(address("2001:db8::100")));
    assert_eq!(there.counters().own, 0);

    let mut there = vrrp(&[]);
    open(&other, &mut there);
    let index = one.run(|| if_nametoindex("eth0")).unwrap();
    one.run(|| {
        let protocol = Some(socket2::Protocol::from(112));
        let socket =
            socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::RAW, protocol).unwrap();
        let at = |text: &str| SocketAddrV6::new(text.parse().unwrap(), 0, 0, index);
        socket.bind(&at("fe80::100").into()).unwrap();
        socket.set_multicast_hops_v6(255).unwrap();
        socket
            .send_to(b"an advert", &at("ff02::12").into())
            .unwrap();
    });
    let heard = hear(&mut there);
    assert_eq!(heard[0].bytes, b"an advert");
    assert_eq!(heard[0].from, Some(address("fe80::100")));
}

#[test]
#[ignore = "needs root: network namespaces"]
fn an_interface_that_goes_down_and_one_that_vanishes() {
    let (one, other) = pair();
    let mut here = udp(UdpTo::Unicast(vec![address("192.0.2.2")]));
    let mut there = udp(UdpTo::Unicast(vec![address("192.0.2.1")]));
    open(&one, &mut here);
    open(&other, &mut there);
    one.ip("link set eth0 down");
    let event = here.send(b"1", Duration::ZERO);
    assert!(matches!(event, Some(Event::Broken(_))), "{event:?}");
    assert_eq!(here.send(b"2", Duration::ZERO), None, "told once");
    one.ip("link set eth0 up");
    let begun = Instant::now();
    while here.send(b"3", Duration::ZERO) != Some(Event::Works) {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(hear(&mut there)[0].bytes, b"3");
    assert_eq!(here.counters().opened, 1);

    one.ip("link delete eth0");
    let event = here.send(b"4", Duration::ZERO);
    assert!(matches!(event, Some(Event::Broken(_))), "{event:?}");
    let try_at = |link: &mut Link, now| one.run(|| link.step(now));
    assert_eq!(try_at(&mut here, REOPEN), None);
    assert!(here.fault().unwrap().contains("eth0"), "{:?}", here.fault());
    assert_eq!(here.deadline(), Some(REOPEN * 2), "at a bounded rate");
    cable(&one, &ONE, &other, &OTHER);
    assert_eq!(try_at(&mut here, REOPEN), None, "not due");
    let index = |namespace: &Namespace| namespace.run(|| if_nametoindex("eth0")).unwrap();
    here.interface_changed("eth0", index(&one), REOPEN);
    assert_eq!(try_at(&mut here, REOPEN), Some(Event::Works));
    // One that only listens notices as well, by the number of the interface, and once.
    for opened in [2, 2] {
        there.interface_changed("eth0", index(&other), REOPEN);
        other.run(|| there.step(REOPEN));
        assert_eq!((there.fault(), there.counters().opened), (None, opened));
    }
    here.send(b"5", REOPEN);
    assert_eq!(hear(&mut there)[0].bytes, b"5");
}

#[test]
#[ignore = "needs root: network namespaces"]
fn vrrp_multicast_of_both_families() {
    let (one, other) = pair();
    // A virtual address is not what adverts are sent from, wherever it stands.
    one.ip("address flush dev eth0 scope global");
    for own in ["192.0.2.100/24", ONE[0], ONE[1]] {
        one.ip(&format!("address add {own} dev eth0"));
    }
    let (mut here, mut there) = (vrrp(&[]), vrrp(&[]));
    open(&one, &mut here);
    open(&other, &mut there);
    let (source4, source6) = here.sources();
    assert_eq!(source4, Some(Ipv4Addr::new(192, 0, 2, 1)));
    let source6 = source6.expect("a link-local address");
    for (is_ipv6, from, to) in [
        (false, address("192.0.2.1"), address("224.0.0.18")),
        (true, source6.into(), address("ff02::12")),
    ] {
        for mac in [None, Some([0, 0, 0x5e, 0, 1, 51])] {
            let envelopes = here.envelopes(is_ipv6);
            assert_eq!(envelopes.len(), 1);
            assert_eq!(
                here.advertise(envelopes[0], mac, b"advert", Duration::ZERO),
                None
            );
            let heard = hear(&mut there);
            assert_eq!(
                heard,
                [Received {
                    from: Some(from),
                    to: Some(to),
                    bytes: b"advert".to_vec()
                }],
                "{mac:?}"
            );
        }
    }
    assert_eq!(here.receive(Duration::ZERO).0, [], "its own");
    assert_eq!(there.counters().refused, 0);
}

/// What is not for a link is counted, and looked at as sparingly as what is: a flood of it does not hold up the thread, which
/// has a lease to renew.
#[test]
#[ignore = "needs root: network namespaces"]
fn a_flood_of_what_is_skipped_is_read_in_turns() {
    const ROUNDS: usize = 2;
    let (one, other) = pair();
    let mut own = udp(UdpTo::Broadcast);
    let mut far = vrrp(&[]);
    open(&one, &mut own);
    open(&other, &mut far);
    for _ in 0..AT_ONCE * ROUNDS {
        own.send(b"mine", Duration::ZERO);
        send(&one, 254, "224.0.0.18", b"through a router");
    }
    let skipped: [fn(&Link) -> u64; 2] = [|it| it.counters().own, |it| it.counters().refused];
    for (link, skipped) in [&mut own, &mut far].into_iter().zip(skipped) {
        for round in 1..=ROUNDS {
            assert_eq!(link.receive(Duration::ZERO).0, []);
            assert_eq!(skipped(link), (AT_ONCE * round) as u64);
            assert!(link.has_more());
        }
        link.receive(Duration::ZERO);
        assert!(!link.has_more());
    }
}

/// An advert of this TTL or hop limit.
fn send(from: &Namespace, ttl: u32, to: &str, text: &[u8]) {
    from.run(|| {
        let protocol = Some(socket2::Protocol::from(112));
        let domain = if to.contains(':') {
            socket2::Domain::IPV6
        } else {
            socket2::Domain::IPV4
        };
        let socket = socket2::Socket::new(domain, socket2::Type::RAW, protocol).unwrap();
        socket.bind_device(Some(b"eth0")).unwrap();
        if to.contains(':') {
            socket.set_multicast_hops_v6(ttl).unwrap();
            socket.set_unicast_hops_v6(ttl).unwrap();
        } else {
            socket.set_multicast_ttl_v4(ttl).unwrap();
            socket.set_ttl_v4(ttl).unwrap();
        }
        let to = std::net::SocketAddr::new(address(to), 0);
        socket.send_to(text, &to.into()).unwrap();
    });
}

#[test]
#[ignore = "needs root: network namespaces"]
fn vrrp_through_a_router_and_from_strangers() {
    let (one, other) = pair();
    let mut there = vrrp(&[]);
    open(&other, &mut there);
    let send = |ttl, to: &str, text: &[u8]| send(&one, ttl, to, text);
    for (group, nth) in [("224.0.0.18", 1), ("ff02::12", 2)] {
        send(254, group, b"through a router");
        send(255, group, b"near");
        let heard = hear(&mut there);
        assert_eq!(heard[0].bytes, b"near");
        assert_eq!(there.counters().refused, nth);
    }
    // To a unicast peer it may come from afar, but not from a stranger.
    let (mut near, mut strange) = (vrrp(&["192.0.2.1", "2001:db8::1"]), vrrp(&["192.0.2.7"]));
    open(&other, &mut near);
    open(&other, &mut strange);
    send(64, "192.0.2.2", b"from afar");
    assert_eq!(hear(&mut near)[0].bytes, b"from afar");
    assert_eq!(strange.receive(Duration::ZERO).0, []);
    assert_eq!(strange.counters().refused, 1);
    let mut here = vrrp(&["192.0.2.2", "2001:db8::2"]);
    open(&one, &mut here);
    let envelopes = here.envelopes(false);
    assert_eq!(envelopes.len(), 1);
    here.advertise(envelopes[0], None, b"unicast", Duration::ZERO);
    assert_eq!(hear(&mut near)[0].bytes, b"unicast");
}

/// A pty: what the test holds, and the device that a link opens.
fn pty() -> (File, PathBuf) {
    let ends = nix::pty::openpty(None, None).unwrap();
    let device = nix::unistd::ttyname(ends.slave.as_fd()).unwrap();
    // Raw before anybody opens it: no echo, no translation.
    let mut line = nix::sys::termios::tcgetattr(&ends.slave).unwrap();
    nix::sys::termios::cfmakeraw(&mut line);
    nix::sys::termios::tcsetattr(&ends.slave, nix::sys::termios::SetArg::TCSANOW, &line).unwrap();
    (File::from(ends.master), device)
}

fn serial(device: PathBuf, baud: u32) -> Link {
    link(LinkKind::Serial(SerialLink { device, baud }))
}

#[test]
fn a_serial_line_with_garbage() {
    let (mut far, device) = pty();
    let mut near = serial(device, 115_200);
    assert_eq!(near.step(Duration::ZERO), Some(Event::Works));
    assert_eq!(near.send(b"from here", Duration::ZERO), None);
    let mut decoder = framing::Decoder::default();
    let mut buffer = [0; 256];
    let length = far.read(&mut buffer).unwrap();
    assert_eq!(decoder.feed(&buffer[..length]), [b"from here"]);

    far.write_all(b"login: \r\n\x11\x13\xff").unwrap();
    far.write_all(&framing::frame(b"from there")).unwrap();
    assert_eq!(hear(&mut near)[0].bytes, b"from there");
    assert_eq!(near.counters().garbage, 1);
    // Every byte passes.
    let all: Vec<u8> = (0..=255).collect();
    far.write_all(&framing::frame(&all)).unwrap();
    assert_eq!(hear(&mut near)[0].bytes, all);
}

#[test]
fn a_serial_line_that_takes_nothing_and_one_that_goes() {
    let (mut far, device) = pty();
    let mut near = serial(device.clone(), 115_200);
    near.step(Duration::ZERO);
    // Nobody reads: the queue fills, and nothing waits.
    let begun = Instant::now();
    for nth in 0..2000_u32 {
        let message = [&nth.to_be_bytes()[..], &[7; 200]].concat();
        assert_eq!(near.send(&message, Duration::ZERO), None);
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    let unsent = near.counters().unsent;
    assert!(unsent > 1000, "{unsent}");
    let due = near.deadline().expect("it is tried again");
    assert!(
        due > Duration::ZERO && due < Duration::from_secs(1),
        "{due:?}"
    );
    // Once somebody reads, the newest come, whole.
    let mut decoder = framing::Decoder::default();
    let mut newest = 0;
    let mut now = due;
    while newest != 1999 {
        let mut buffer = [0; 4096];
        let length = far.read(&mut buffer).unwrap();
        for message in decoder.feed(&buffer[..length]) {
            newest = u32::from_be_bytes(*message.first_chunk().unwrap());
        }
        near.step(now);
        now += Duration::from_secs(1);
    }
    assert_eq!(decoder.garbage(), 0);

    drop(far);
    let (_, event) = near.receive(now);
    assert!(matches!(event, Some(Event::Broken(_))), "{event:?}");
    assert!(near.fds().is_empty());
    assert_eq!(near.step(now + REOPEN), None);
    assert!(near.fault().is_some());
}

#[test]
#[ignore = "needs root: network namespaces"]
fn another_primary_with_the_same_virtual_mac_is_heard() {
    use heartbeat::takeover::{Announce, Kernel, MARK, Movable, Takeover};

    let (one, other) = pair();
    let mut takeover = one.run(|| {
        let movable = Movable {
            name: "web".to_owned(),
            interface: "eth0".to_owned(),
            addresses: vec![
                "192.0.2.100/24".parse().unwrap(),
                "2001:db8::100/64".parse().unwrap(),
            ],
            virtual_mac: Some(51),
            announce: Announce::default(),
        };
        Takeover::new(Kernel::open(MARK).unwrap(), [movable])
    });
    one.run(|| takeover.take(0, Duration::ZERO)).unwrap();
    let (mut here, mut there) = (vrrp(&[]), vrrp(&[]));
    open(&one, &mut here);
    open(&other, &mut there);
    for (is_ipv6, family) in [(false, 1), (true, 2)] {
        let mac = Some([0, 0, 0x5e, 0, family, 51]);
        let envelope = there.envelopes(is_ipv6)[0];
        there.advertise(envelope, mac, b"I am primary", Duration::ZERO);
        assert_eq!(hear(&mut here)[0].bytes, b"I am primary");
    }
}
