//! Datagrams larger than a frame: all their fragments reach one real server, in whatever order.

use std::net::UdpSocket;

use director_tests::lab::Host;
use director_tests::lab::plan::client_gateway;
use director_tests::packet::build::Ip;
use director_tests::{http, raw, udp};

use crate::site::{Site, TIMEOUT, Way, client, growth, reasons};

/// Bytes of payload in a fragment of ours.
const PIECE: usize = 1200;
/// What fits into every tunnel here.
const SMALL_MTU: u32 = 1400;

pub(crate) fn check(site: &Site, ways: &[Way]) {
    for way in ways {
        // What a tunnel does not take and may be fragmented the kernel would fragment once more, outside; the real
        // servers' programs here, unlike a kernel's tunnel, do not put that together.
        set_mtu(
            site,
            if way.tunnel.is_some() {
                SMALL_MTU
            } else {
                1500
            },
        );
        for size in [3000, 9000] {
            check_in_order(site, way, size);
        }
        check_reversed(site, way);
    }
    set_mtu(site, 1500);
}

/// Has the client cut packets to this size.
fn set_mtu(site: &Site, mtu: u32) {
    for ipv6 in [false, true] {
        let (gateway, mtu) = (client_gateway(ipv6).to_string(), mtu.to_string());
        let arguments = ["route", "replace", "default", "via", &gateway, "mtu", &mtu];
        site.host(Host::Client).output("ip", &arguments).unwrap();
    }
}

/// As the client's kernel fragments it, there and, by the real server's, back.
fn check_in_order(site: &Site, way: &Way, size: usize) {
    let before = site.status();
    let text: Vec<u8> = (0..size).map(http::pattern).collect();
    let answer = site.client(|| udp::ask(way.address(), &text, TIMEOUT));
    let answer = answer.unwrap_or_else(|error| panic!("{way}, {size} bytes: {error:#}"));
    assert!(
        answer.ends_with(&text) && answer.starts_with(b"s"),
        "{way}, {size} bytes"
    );

    let after = site.status();
    let grown = growth(&before, &after, "udp", way.address());
    let used: Vec<_> = grown.iter().filter(|it| it.in_packets > 0).collect();
    assert_eq!(used.len(), 1, "{way}: {grown:?}");
    let least = size.div_ceil(1500) as u64;
    assert!(
        used[0].in_packets >= least && used[0].connections == 1,
        "{way}: {grown:?}"
    );
    if way.is_nat() {
        assert!(used[0].out_packets >= least, "{way}: {grown:?}");
    }
    // Two CPUs may have turned some round; none is lost.
    let mut dropped = reasons(&before, &after);
    dropped.remove("fragment_held");
    assert!(dropped.is_empty(), "{way}: {dropped:?}");
}

/// Two datagrams at once, the last fragments first.
fn check_reversed(site: &Site, way: &Way) {
    const SIZE: usize = 5000;
    let service = (way.address().ip(), way.address().port());
    let before = site.status();
    let datagrams = [30_001_u16, 30_002].map(|port| {
        let text: Vec<u8> = (0..SIZE)
            .map(|at| http::pattern(at + usize::from(port)))
            .collect();
        let whole = Ip::udp((client(way.ipv6), port), service, &text);
        // A port is used by several ways, an identification by one.
        let id = u32::from(way.port) * 2 + u32::from(port % 2);
        (
            port,
            text,
            whole.with(|ip| ip.id = id & 0xffff).fragments(PIECE),
        )
    });
    let count = datagrams[0].2.len();
    let answers = site.client(|| {
        let sockets: Vec<UdpSocket> = datagrams
            .iter()
            .map(|(port, ..)| udp::bind(*port, way.ipv6).unwrap())
            .collect();
        for index in (0..count).rev() {
            for (.., fragments) in &datagrams {
                raw::send(&fragments[index]).unwrap();
            }
        }
        let receive = |socket: &UdpSocket| {
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
            let mut answer = vec![0; 65_535];
            let length = socket
                .recv(&mut answer)
                .unwrap_or_else(|error| panic!("{way}: {error}"));
            answer.truncate(length);
            answer
        };
        sockets.iter().map(receive).collect::<Vec<_>>()
    });
    for ((port, text, _), answer) in datagrams.iter().zip(&answers) {
        assert!(
            answer.ends_with(text),
            "{way}: port {port} got another answer than its own"
        );
    }
    // `rr`: the second goes to the next server.
    assert_ne!(answers[0][..2], answers[1][..2], "{way}");

    let after = site.status();
    let mut counted: Vec<_> = growth(&before, &after, "udp", way.address())
        .iter()
        .map(|it| (it.connections, it.in_packets as usize))
        .collect();
    counted.sort_unstable();
    assert_eq!(counted, [(0, 0), (1, count), (1, count)], "{way}");
    let dropped = reasons(&before, &after);
    let held = 2 * (count as u64 - 1);
    assert_eq!(
        dropped.into_iter().collect::<Vec<_>>(),
        [("fragment_held".to_owned(), held)],
        "{way}"
    );
}
