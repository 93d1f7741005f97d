//! What the packet path answers itself, as a client sees it: too big, time exceeded, port unreachable. Then fragments,
//! with the same director.

use std::io::ErrorKind;
use std::net::SocketAddr;

use director_tests::director::Service;
use director_tests::lab::plan::client_gateway;
use director_tests::lab::{Gateway, Host, Topology};
use director_tests::packet::build::Ip;
use director_tests::raw::{self, Listener, Message};
use director_tests::{http, udp};

use crate::fragments;
use crate::site::{NAT_PORT, Site, TIMEOUT, Way, client, growth, reasons, virtual_address};

/// Ports of services without a real server: all of weight 0, none at all.
const QUIET: [(u16, &[(u8, u32)]); 2] = [(9100, &[(1, 0), (2, 0)]), (9101, &[])];

const UPLOAD_BYTES: usize = 1 << 20;
/// The links' MTU.
const MTU: u32 = 1500;

/// The tunnels, at ports of their own where the built-in HTTP server listens.
fn uploads() -> Vec<Way> {
    let moved = |way: Way| Way {
        port: way.port + 100,
        ..way
    };
    Way::tunnels().into_iter().map(moved).collect()
}

#[test]
#[ignore = "needs root and network namespaces: cargo xtask test runs it"]
fn icmp_messages_and_fragments() {
    let mut site = Site::up(Topology::TwoInterfaces);
    // Every upload sends ten segments before it hears that they are too big.
    site.extra = "icmp_per_second: 1000\n";
    let all: Vec<Way> = [Way::nat(), Way::past_the_director()].concat();
    let mut services: Vec<Service<'_>> = all.iter().map(|way| way.service("udp")).collect();
    services.extend(Way::nat().iter().map(|way| way.service("tcp")));
    services.extend(uploads().iter().map(|way| way.service("tcp")));
    for (port, real_servers) in QUIET {
        for ipv6 in [false, true] {
            for protocol in ["tcp", "udp"] {
                services.push(Service {
                    protocol,
                    real_port: NAT_PORT,
                    real_servers: Some(real_servers),
                    ..Service::rr(virtual_address(ipv6), port)
                });
            }
        }
    }
    for way in &all {
        site.start_echo(way);
    }
    for way in uploads() {
        site.start_http(&way);
    }
    site.start(&services);
    for way in Way::nat() {
        site.wait_for_answer(way.address());
        check_time_exceeded(&site, &way);
    }
    check_unavailable(&site);
    fragments::check(&site, &Way::nat());
    site.lab.set_gateway(Gateway::Router).unwrap();
    fragments::check(&site, &Way::past_the_director());
    for way in uploads() {
        check_too_big(&site, &way);
    }
}

/// What a message says it is about: destination address and port.
fn about(message: &Message) -> Option<SocketAddr> {
    let bytes = |range: std::ops::Range<usize>| message.data.get(range);
    let ipv6 = message.from.is_ipv6();
    let (address, port) = if ipv6 {
        (24..40, 42..44)
    } else {
        (16..20, 22..24)
    };
    let address = bytes(address)?;
    let address = match ipv6 {
        true => <[u8; 16]>::try_from(address).ok()?.into(),
        false => <[u8; 4]>::try_from(address).ok()?.into(),
    };
    let port = bytes(port)?.try_into().ok()?;
    Some(SocketAddr::new(address, u16::from_be_bytes(port)))
}

/// The route to a service as `traceroute` sees it: the router, the service itself, then the answer.
fn check_time_exceeded(site: &Site, way: &Way) {
    let kind = if way.ipv6 { (3, 0) } else { (11, 0) };
    let service = (way.address().ip(), way.address().port());
    let before = site.status();
    site.client(|| {
        let from = (client(way.ipv6), 33_434);
        let socket = udp::bind(from.1, way.ipv6).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        let listener = Listener::open(way.ipv6).unwrap();
        let datagram = Ip::udp(from, service, b"where?");
        let segment = Ip::tcp(from, service, 0x02, b"");
        let steps = [
            (&datagram, 1, client_gateway(way.ipv6)),
            (&datagram, 2, way.address().ip()),
            (&segment, 2, way.address().ip()),
        ];
        for (packet, ttl, expected) in steps {
            raw::send(&packet.clone().ttl(ttl)).unwrap();
            let message = listener.wait(TIMEOUT, |it| it.kind == kind).unwrap();
            assert_eq!(
                (message.from, about(&message)),
                (expected, Some(way.address())),
                "{way}, TTL {ttl}"
            );
        }
        raw::send(&datagram.ttl(3)).unwrap();
        let mut answer = [0; 100];
        let (length, from) = socket.recv_from(&mut answer).unwrap();
        assert_eq!(from, way.address(), "{way}");
        assert!(answer[..length].ends_with(b" where?"), "{way}");
    });
    let dropped = reasons(&before, &site.status());
    assert_eq!(
        dropped.into_iter().collect::<Vec<_>>(),
        [("ttl_expired".to_owned(), 2)],
        "{way}"
    );
}

/// A service without a real server refuses at once, as a host does where nobody listens.
fn check_unavailable(site: &Site) {
    for ipv6 in [false, true] {
        let kind = if ipv6 { (1, 4) } else { (3, 3) };
        for (port, real_servers) in QUIET {
            let service = SocketAddr::new(virtual_address(ipv6), port);
            for protocol in ["tcp", "udp"] {
                let row = format!("{protocol} {service}, {real_servers:?}");
                let before = site.status();
                site.client(|| {
                    let listener = Listener::open(ipv6).unwrap();
                    let refused = match protocol {
                        "tcp" => http::get(service, "/", TIMEOUT).map(drop),
                        _ => udp::ask(service, b"hello", TIMEOUT).map(drop),
                    };
                    let refused = refused.unwrap_err();
                    let code = refused
                        .downcast_ref::<std::io::Error>()
                        .map(std::io::Error::kind);
                    assert_eq!(
                        code,
                        Some(ErrorKind::ConnectionRefused),
                        "{row}: {refused:#}"
                    );
                    let message = listener.wait(TIMEOUT, |it| it.kind == kind).unwrap();
                    assert_eq!(
                        (message.from, about(&message)),
                        (service.ip(), Some(service)),
                        "{row}"
                    );
                });
                // A message that comes while the client's own kernel still holds the socket is noted only, and its SYN
                // sent once more (net/ipv4/tcp_ipv4.c, tcp_v4_err).
                let most = if protocol == "tcp" { 2 } else { 1 };
                let mut dropped = reasons(&before, &site.status());
                let refused = dropped.remove("no_real_server").unwrap_or_default();
                assert!((1..=most).contains(&refused), "{row}: {refused} refused");
                assert!(dropped.is_empty(), "{row}: {dropped:?}");
            }
        }
    }
}

/// A client learns how much a tunnel takes, and goes on with less.
fn check_too_big(site: &Site, way: &Way) {
    let outer = if way.real_ipv6 { 40 } else { 20 };
    let shim = match way.tunnel {
        Some("gue") => 8 + 4,
        Some("gre") => 4,
        _ => 0,
    };
    let kind = if way.ipv6 { (2, 0) } else { (3, 4) };
    forget_path_mtu(site);
    let before = site.status();
    let response = site.client(|| {
        let listener = Listener::open(way.ipv6).unwrap();
        let response = http::put(way.address(), "/", UPLOAD_BYTES, TIMEOUT);
        let message = listener
            .wait(TIMEOUT, |it| it.kind == kind)
            .unwrap_or_else(|e| panic!("{way}: {e:#}"));
        let from = (message.from, about(&message));
        assert_eq!(from, (way.address().ip(), Some(way.address())), "{way}");
        assert_eq!(message.rest, MTU - outer - shim, "{way}");
        response
    });
    let response = response.unwrap_or_else(|error| panic!("{way}: {error:#}"));
    assert_eq!(response.status, 200, "{way}: {}", response.text());
    assert!(
        response
            .text()
            .ends_with(&format!("received {UPLOAD_BYTES} bytes")),
        "{way}: {}",
        response.text()
    );
    let after = site.status();
    let grown = growth(&before, &after, "tcp", way.address());
    let sent: u64 = grown.iter().map(|it| it.in_bytes).sum();
    assert!(sent > UPLOAD_BYTES as u64, "{way}: {grown:?}");
    let dropped = reasons(&before, &after);
    assert_eq!(
        dropped.keys().collect::<Vec<_>>(),
        ["too_big"],
        "{way}: {dropped:?}"
    );
}

/// Has the client forget what it learned of the way to the services.
pub(crate) fn forget_path_mtu(site: &Site) {
    for family in ["-4", "-6"] {
        site.host(Host::Client)
            .output("ip", &[family, "route", "flush", "cache"])
            .unwrap();
    }
}
