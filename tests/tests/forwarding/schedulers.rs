//! Schedulers as clients see them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use director_tests::director::Service;
use director_tests::http::Connection;
use director_tests::lab::Topology;
use director_tests::{PATIENCE, udp, wait_until};

use crate::site::{NAT_PORT, Site, TIMEOUT, Way, by_name, growth, virtual_address};

/// Scheduler, weights, requests, who answers how many.
type Shares = (
    &'static str,
    &'static [(u8, u32)],
    usize,
    &'static [(u8, usize)],
);
const SHARES: [Shares; 6] = [
    (
        "rr",
        &[(1, 1), (2, 1), (3, 1)],
        12,
        &[(1, 4), (2, 4), (3, 4)],
    ),
    (
        "rr",
        &[(1, 9), (2, 1), (3, 1)],
        6,
        &[(1, 2), (2, 2), (3, 2)],
    ),
    ("rr", &[(1, 1), (2, 0), (3, 1)], 6, &[(1, 3), (3, 3)]),
    (
        "wrr",
        &[(1, 3), (2, 2), (3, 1)],
        18,
        &[(1, 9), (2, 6), (3, 3)],
    ),
    ("wrr", &[(1, 30), (2, 0), (3, 10)], 8, &[(1, 6), (3, 2)]),
    ("wrr", &[(2, 5)], 3, &[(2, 3)]),
];
/// Port of the first of them.
const FIRST_PORT: u16 = 8000;
/// Schedulers that count: weights, and how many of six connections that stay open each real server gets.
type Held = (&'static str, &'static [(u8, u32)], &'static [(u8, usize)]);
const HELD: [Held; 9] = [
    ("lc", &[(1, 9), (2, 1), (3, 1)], &[(1, 2), (2, 2), (3, 2)]),
    ("wlc", &[(1, 3), (2, 2), (3, 1)], &[(1, 3), (2, 2), (3, 1)]),
    ("sed", &[(1, 3), (2, 2), (3, 1)], &[(1, 3), (2, 2), (3, 1)]),
    ("nq", &[(1, 8), (2, 1), (3, 1)], &[(1, 4), (2, 1), (3, 1)]),
    ("fo", &[(1, 1), (2, 5), (3, 1)], &[(2, 6)]),
    ("ovf", &[(1, 2), (2, 3), (3, 1)], &[(1, 2), (2, 4)]),
    ("lblc", &[(1, 10), (2, 10), (3, 10)], &[(1, 6)]),
    ("lblcr", &[(1, 10), (2, 10), (3, 10)], &[(1, 6)]),
    ("dh", &[(2, 1)], &[(2, 6)]),
];
const HELD_CONNECTIONS: usize = 6;
/// Port of the first of them.
const FIRST_HELD_PORT: u16 = 8200;
/// Ports of services whose weights change: scheduler and its flags.
const QUIESCED: [(u16, &str, &[&str]); 3] = [
    (8100, "rr", &[]),
    (8101, "wrr", &[]),
    (8102, "mh", &["mh-port"]),
];
/// Ports of `mh` over UDP, with its flags and a client's ports. Others for each, since one real server cannot tell two
/// connections from one port.
const HASHED: [(u16, &[&str], u16); 2] = [(9001, &["mh-port"], 20_000), (9002, &[], 21_000)];
const CLIENT_PORTS: u16 = 30;

fn address(port: u16) -> SocketAddr {
    SocketAddr::new(virtual_address(false), port)
}

/// Those that count, in a configuration of their own: a real server stands in 16 services at most.
fn held_services() -> Vec<Service<'static>> {
    (FIRST_HELD_PORT..)
        .zip(&HELD)
        .map(|(port, (scheduler, weights, _))| Service {
            scheduler,
            real_port: NAT_PORT,
            real_servers: Some(weights),
            ..Service::rr(virtual_address(false), port)
        })
        .collect()
}

/// All others of the above; the last two kinds with these weights.
fn services<'a>(quiesced: &'a [(u8, u32)], hashed: &'a [(u8, u32)]) -> Vec<Service<'a>> {
    let nat = |port, scheduler, flags, real_servers| Service {
        scheduler,
        flags,
        real_port: NAT_PORT,
        real_servers: Some(real_servers),
        ..Service::rr(virtual_address(false), port)
    };
    let shares = (FIRST_PORT..)
        .zip(SHARES)
        .map(|(port, (scheduler, weights, ..))| nat(port, scheduler, &[][..], weights));
    let weights_change =
        QUIESCED.map(|(port, scheduler, flags)| nat(port, scheduler, flags, quiesced));
    let hashing = HASHED.map(|(port, flags, _)| Service {
        protocol: "udp",
        ..nat(port, "mh", flags, hashed)
    });
    shares.chain(weights_change).chain(hashing).collect()
}

#[test]
#[ignore = "needs root, network namespaces and nginx: cargo xtask test runs it"]
fn schedulers_share_hash_and_quiesce() {
    let mut site = Site::up(Topology::TwoInterfaces);
    site.start_echo(&Way::nat()[0]);
    let even = [(1, 1), (2, 1), (3, 1)];
    let hashed = [(1, 1), (2, 1), (3, 2)];
    site.start(&services(&even, &hashed));
    check_shares(&site);
    site.reload(&held_services());
    check_held(&site);
    site.reload(&services(&even, &hashed));
    let owners = owners(&site);
    check_quiescing(&mut site, &hashed);

    // Nothing is kept between two starts, and the order in the file does not matter: the same clients come to the
    // same servers all the same.
    site.check_end();
    site.start(&services(&even, &[(3, 2), (1, 1), (2, 1)]));
    assert!(!site.status().adopted);
    assert_eq!(self::owners(&site), owners);
}

fn check_shares(site: &Site) {
    for (port, (scheduler, weights, requests, expected)) in (FIRST_PORT..).zip(SHARES) {
        let before = site.status();
        let answered = site.answered(address(port), requests);
        assert_eq!(answered, by_name(expected), "{scheduler} {weights:?}");
        let connections: u64 = growth(&before, &site.status(), "tcp", address(port))
            .iter()
            .map(|server| server.connections)
            .sum();
        assert_eq!(connections, requests as u64, "{scheduler} {weights:?}");
    }
}

/// Who gets connections that stay open, and whether they are counted as what they are.
fn check_held(site: &Site) {
    for (port, (scheduler, weights, expected)) in (FIRST_HELD_PORT..).zip(HELD) {
        let mut got = BTreeMap::new();
        let mut open = Vec::new();
        for _ in 0..HELD_CONNECTIONS {
            let mut connection = site
                .client(|| Connection::open(address(port), TIMEOUT))
                .unwrap();
            *got.entry(connection.get("/").unwrap().who()).or_default() += 1;
            open.push(connection);
        }
        let what = format!("{scheduler} {weights:?}");
        assert_eq!(got, by_name(expected), "{what}");
        // Status is as of the last pass over the tables.
        wait_until("all of them are counted as active", PATIENCE, || {
            let status = site.status();
            let active: u64 = status
                .services
                .iter()
                .filter(|service| service.name.ends_with(&format!(":{port}")))
                .flat_map(|service| &service.real_servers)
                .map(|server| server.active)
                .sum();
            anyhow::ensure!(active == HELD_CONNECTIONS as u64, "{active} are");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{what}: {error:#}"));
    }
}

/// Who answers datagrams from each of the client's ports.
fn owners(site: &Site) -> [Vec<String>; 2] {
    let owners = HASHED.map(|(port, _, first)| {
        let ask = |from| {
            let answer = udp::ask_from(from, address(port), b"who", TIMEOUT).unwrap();
            String::from_utf8(answer).unwrap()
        };
        site.client(|| (first..first + CLIENT_PORTS).map(ask).collect::<Vec<_>>())
    });
    let different = owners
        .each_ref()
        .map(|owners| owners.iter().collect::<BTreeSet<_>>().len());
    assert_eq!(
        different,
        [3, 1],
        "by port they spread, by address they do not: {owners:?}"
    );
    owners
}

/// Weight 0: nothing new, and what there is goes on.
fn check_quiescing(site: &mut Site, hashed: &[(u8, u32)]) {
    let mut open: Vec<BTreeMap<String, Connection>> = Vec::new();
    for (port, scheduler, _) in QUIESCED {
        let mut to_each = BTreeMap::new();
        // With `mh` it is by chance who is whose.
        for _ in 0..200 {
            let mut connection = site
                .client(|| Connection::open(address(port), TIMEOUT))
                .unwrap();
            to_each.insert(connection.get("/").unwrap().who(), connection);
            if to_each.len() == 3 {
                break;
            }
        }
        assert_eq!(to_each.len(), 3, "{scheduler}");
        open.push(to_each);
    }
    site.reload(&services(&[(1, 1), (2, 0), (3, 1)], hashed));
    for ((port, scheduler, _), open) in QUIESCED.iter().zip(&mut open) {
        let before = site.status();
        let answered = site.answered(address(*port), 20);
        assert!(!answered.contains_key("s2"), "{scheduler}: {answered:?}");
        for (name, connection) in open {
            assert_eq!(&connection.get("/").unwrap().who(), name, "{scheduler}");
        }
        let quiesced = &growth(&before, &site.status(), "tcp", address(*port))[1];
        assert_eq!(quiesced.connections, 0, "{scheduler}: {quiesced:?}");
        assert!(quiesced.in_packets > 0, "{scheduler}: {quiesced:?}");
    }
    // And back, for the others.
    site.reload(&services(&[(1, 0), (2, 1), (3, 0)], hashed));
    for (port, scheduler, _) in QUIESCED {
        assert_eq!(
            site.answered(address(port), 5),
            by_name(&[(2, 5)]),
            "{scheduler}"
        );
    }
}
