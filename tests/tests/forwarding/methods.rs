//! Every method, in every mixture of families, over one interface and two: TCP with nginx, UDP.

use std::collections::BTreeMap;

use director_tests::lab::{Gateway, Topology};
use director_tests::{http, nginx, udp};

use crate::site::{SERVERS, Site, TIMEOUT, Way, by_name, client, growth, reasons};

/// Requests and datagrams of a row: so many for each real server.
const EACH: usize = 2;
const ALL: usize = EACH * SERVERS as usize;

fn check_topology(topology: Topology) {
    let mut site = Site::up(topology);
    site.without_kernel();
    let (nat, others) = (Way::nat(), Way::past_the_director());
    let ways: Vec<Way> = nat.iter().chain(&others).copied().collect();
    for way in &ways {
        site.start_echo(way);
    }
    let services: Vec<_> = ways
        .iter()
        .flat_map(|way| [way.service("tcp"), way.service("udp")])
        .collect();
    check_nobody_else_answers(&site, &ways);
    site.start(&services);
    for (gateway, ways) in [(Gateway::Director, nat), (Gateway::Router, others)] {
        site.lab.set_gateway(gateway).unwrap();
        for way in &ways {
            site.wait_for_answer(way.address());
            check_tcp(&site, way);
            check_udp(&site, way);
        }
    }
}

/// Without a director nothing gets to a real server under the virtual address.
fn check_nobody_else_answers(site: &Site, ways: &[Way]) {
    for way in ways {
        let refused = site
            .client(|| http::get(way.address(), "/", TIMEOUT))
            .unwrap_err();
        // The host has the address, and nobody there listens.
        assert!(
            format!("{refused:#}").contains("refused"),
            "{way}: {refused:#}"
        );
    }
}

/// Small requests reach all real servers, a large answer comes whole, and the packet path carried it all.
fn check_tcp(site: &Site, way: &Way) {
    let client = client(way.ipv6);
    let before = site.status();
    let answers = site.client(|| {
        let ask = |_| http::get(way.address(), "/", TIMEOUT).unwrap().text();
        (0..ALL).map(ask).collect::<Vec<_>>()
    });
    for number in 1..=SERVERS {
        let seen = way.seen_by(number);
        // nginx writes addresses without brackets.
        let expected = format!(
            "s{number} answered {}:{} for {client}:",
            seen.ip(),
            seen.port()
        );
        let count = answers
            .iter()
            .filter(|answer| answer.starts_with(&expected))
            .count();
        assert_eq!(count, EACH, "{way}: {expected} in {answers:#?}");
    }
    let body = site
        .client(|| http::get(way.address(), "/transfer", TIMEOUT))
        .unwrap()
        .body;
    assert_eq!(body.len(), nginx::TRANSFER_BYTES, "{way}");
    assert_eq!(http::wrong_byte(&body, 0), None, "{way}");

    let after = site.status();
    let grown = growth(&before, &after, "tcp", way.address());
    assert_eq!(grown.len(), usize::from(SERVERS), "{way}");
    for server in &grown {
        let connections = server.connections as usize;
        assert!([EACH, EACH + 1].contains(&connections), "{way}: {server:?}");
        // Of each connection at least SYN, its acknowledgement, the request and FIN.
        assert!(
            server.in_packets >= 4 * server.connections,
            "{way}: {server:?}"
        );
        assert!(
            server.in_bytes >= 4 * 54 * server.connections,
            "{way}: {server:?}"
        );
    }
    let sum =
        |of: fn(&director::control::RealServerStatus) -> u64| grown.iter().map(of).sum::<u64>();
    assert_eq!(sum(|it| it.connections), ALL as u64 + 1, "{way}");
    if way.is_nat() {
        assert!(
            sum(|it| it.out_bytes) > nginx::TRANSFER_BYTES as u64,
            "{way}: {grown:?}"
        );
    } else {
        assert_eq!(sum(|it| it.out_packets), 0, "{way}: {grown:?}");
    }
    assert!(
        reasons(&before, &after).is_empty(),
        "{way}: {:?}",
        reasons(&before, &after)
    );
}

/// Datagrams reach all real servers and are answered; each is counted once.
fn check_udp(site: &Site, way: &Way) {
    let before = site.status();
    let text = b"twenty bytes of text";
    let mut answered = BTreeMap::new();
    site.client(|| {
        for _ in 0..ALL {
            let answer =
                udp::ask(way.address(), text, TIMEOUT).unwrap_or_else(|e| panic!("{way}: {e:#}"));
            let answer = String::from_utf8(answer).unwrap();
            let (who, repeated) = answer.split_once(' ').unwrap();
            assert_eq!(repeated.as_bytes(), text, "{way}");
            *answered.entry(who.to_owned()).or_default() += 1;
        }
    });
    assert_eq!(
        answered,
        by_name(&[(1, EACH), (2, EACH), (3, EACH)]),
        "{way}"
    );

    let after = site.status();
    let headers = 14 + 8 + if way.ipv6 { 40 } else { 20 };
    let each = EACH as u64;
    for server in growth(&before, &after, "udp", way.address()) {
        let found = (server.connections, server.in_packets, server.in_bytes);
        let bytes = headers + text.len() as u64;
        assert_eq!(found, (each, each, each * bytes), "{way}: {server:?}");
        // The answer has the server's name and a space in front.
        let out = if way.is_nat() { each } else { 0 };
        let found = (server.out_packets, server.out_bytes);
        assert_eq!(found, (out, out * (bytes + 3)), "{way}: {server:?}");
    }
    assert!(
        reasons(&before, &after).is_empty(),
        "{way}: {:?}",
        reasons(&before, &after)
    );
}

#[test]
#[ignore = "needs root, network namespaces and nginx: cargo xtask test runs it"]
fn every_method_over_two_interfaces() {
    check_topology(Topology::TwoInterfaces);
}

#[test]
#[ignore = "needs root, network namespaces and nginx: cargo xtask test runs it"]
fn every_method_over_one_interface() {
    check_topology(Topology::OneInterface);
}
