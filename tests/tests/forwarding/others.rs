//! Traffic that is not balanced passes as if there were no director.

use std::net::{IpAddr, SocketAddr};

use director_tests::lab::plan::director_address;
use director_tests::lab::{Host, Topology};
use director_tests::packet::build::Ip;
use director_tests::raw::{self, Listener};
use director_tests::{http, nginx};

use crate::site::{NAT_PORT, Site, TIMEOUT, Way, client, growth, server, virtual_address};

/// A port that no service has.
const OWN_PORT: u16 = 7000;

#[test]
#[ignore = "needs root, network namespaces and nginx: cargo xtask test runs it"]
fn what_is_not_balanced_passes() {
    let topology = Topology::TwoInterfaces;
    let mut site = Site::up(topology);
    let ways = Way::nat();
    let services: Vec<_> = ways.iter().map(|way| way.service("tcp")).collect();
    site.start(&services);
    for way in &ways {
        site.wait_for_answer(way.address());
    }
    let before = site.status();
    for ipv6 in [false, true] {
        let own = director_address(topology, ipv6);
        // The virtual address is the director's own too, but for the services' ports.
        for address in [own, virtual_address(ipv6)] {
            check_echo(&site, address);
            check_tcp_to_the_director(&site, address);
        }
        let real = server(1, ipv6);
        route_through_the_director(&site, real, own);
        check_echo(&site, real);
        // Port 8080 is the one that the service translates to.
        for port in [80, NAT_PORT] {
            let address = SocketAddr::new(real, port);
            for host in [Host::Client, Host::Director] {
                check_whole_transfer(&site, host, address);
            }
        }
    }
    let after = site.status();
    for way in &ways {
        for server in growth(&before, &after, "tcp", way.address()) {
            let counted = (server.connections, server.in_packets, server.out_packets);
            assert_eq!(counted, (0, 0, 0), "{way}: {server:?}");
        }
    }
    assert_eq!(before.reasons, after.reasons);
    // And what is balanced still is.
    for way in &ways {
        site.wait_for_answer(way.address());
    }
}

/// `ping`, once.
fn check_echo(site: &Site, address: IpAddr) {
    let ipv6 = address.is_ipv6();
    let (request, reply) = if ipv6 { (128, 129) } else { (8, 0) };
    site.client(|| {
        let listener = Listener::open(ipv6).unwrap();
        let packet = Ip::icmp(
            client(ipv6),
            address,
            (request, 0),
            0x0bad_0001,
            b"are you there?",
        );
        raw::send(&packet).unwrap();
        let answer = listener
            .wait(TIMEOUT, |it| {
                it.kind == (reply, 0) && it.rest == 0x0bad_0001
            })
            .unwrap();
        assert_eq!(
            (answer.from, answer.data.as_slice()),
            (address, b"are you there?".as_slice())
        );
    });
}

fn check_tcp_to_the_director(site: &Site, address: IpAddr) {
    let address = SocketAddr::new(address, OWN_PORT);
    site.host(Host::Director)
        .run(|| http::serve_in_background(address, "director"))
        .unwrap()
        .unwrap();
    let path = "/bytes/300000";
    let (line, bytes) = site.client(|| {
        (
            http::get(address, "/", TIMEOUT),
            http::get(address, path, TIMEOUT),
        )
    });
    assert_eq!(line.unwrap().who(), "director");
    assert_eq!(bytes.unwrap().body.len(), 300_000);
}

/// Has the router send what is for a real server to the director, and checks that it goes that way.
fn route_through_the_director(site: &Site, real: IpAddr, director: IpAddr) {
    let ipv6 = real.is_ipv6();
    let arguments = [
        "route",
        "add",
        &real.to_string(),
        "via",
        &director.to_string(),
    ];
    site.host(Host::Router).output("ip", &arguments).unwrap();
    let time_exceeded = if ipv6 { (3, 0) } else { (11, 0) };
    site.client(|| {
        let listener = Listener::open(ipv6).unwrap();
        // The router takes one off, the director's kernel the other.
        raw::send(&Ip::udp((client(ipv6), 40_000), (real, NAT_PORT), b"").ttl(2)).unwrap();
        let answer = listener
            .wait(TIMEOUT, |it| it.kind == time_exceeded)
            .unwrap();
        assert_eq!(answer.from, director);
    });
}

fn check_whole_transfer(site: &Site, from: Host, address: SocketAddr) {
    let body = site
        .host(from)
        .run(|| http::get(address, "/transfer", TIMEOUT))
        .unwrap()
        .unwrap_or_else(|error| panic!("{from} to {address}: {error:#}"))
        .body;
    assert_eq!(body.len(), nginx::TRANSFER_BYTES, "{from} to {address}");
    assert_eq!(http::wrong_byte(&body, 0), None, "{from} to {address}");
}
