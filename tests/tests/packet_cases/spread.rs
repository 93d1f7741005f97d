//! How connections and flows are spread: what no single packet shows.

use std::collections::{BTreeMap, BTreeSet};

use director_tests::packet::build::{Ip, tcp};
use director_tests::packet::fixture::{BOTH, Family, port, site};
use director_tests::packet::native::Native;
use director_tests::packet::{Action, Machine};

use crate::common::{from_client, virtual_end};

/// Clients that are tried.
const CLIENTS: u8 = 40;
/// Ports of each.
const PORTS: u16 = 5;

/// The real server that each (client, port) gets.
fn chosen(machine: &mut dyn Machine, family: Family, service: u16) -> BTreeMap<(u8, u16), u8> {
    machine.load(&site()).expect("the tables take the fixture");
    let mut chosen = BTreeMap::new();
    for client in 1..=CLIENTS {
        for port in 2000..2000 + PORTS {
            let from = (family.other_client(client), port);
            let syn = Ip::tcp(from, virtual_end(family, service), tcp::SYN, b"");
            let outcome = machine.run(&from_client(&syn).bytes()).expect("a verdict");
            assert_eq!(outcome.action, Action::Transmit);
            // The last byte of the MAC address is the real server's number.
            chosen.insert((client, port), outcome.frame[5]);
        }
    }
    chosen
}

fn check(machine: &mut dyn Machine) -> Vec<BTreeMap<(u8, u16), u8>> {
    let mut all = Vec::new();
    for family in BOTH {
        let name = format!("{family:?}, {}", machine.name());
        let by_address = chosen(machine, family, port::MH);
        for client in 1..=CLIENTS {
            let servers: BTreeSet<u8> = (2000..2000 + PORTS)
                .map(|port| by_address[&(client, port)])
                .collect();
            assert_eq!(servers.len(), 1, "{name}: client {client} got several");
        }
        let by_port = chosen(machine, family, port::MH_PORT);
        assert!(
            (1..=CLIENTS).any(|client| by_port[&(client, 2000)] != by_port[&(client, 2001)]),
            "{name}: the port makes no difference"
        );
        for chosen in [by_address, by_port] {
            for server in 1..=3 {
                let share = chosen.values().filter(|it| **it == server).count();
                let fair = chosen.len() / 3;
                assert!(
                    share > fair / 3,
                    "{name}: real server {server} got {share} of {}",
                    chosen.len()
                );
            }
            all.push(chosen);
        }
    }
    all
}

#[test]
fn mh_knows_its_clients_natively() {
    let first = check(&mut Native::new(&site()));
    // Another node has other secrets and the same answers.
    let mut other = Native::new(&site());
    let other_site = site().with(|fixture| fixture.settings.seed = 99);
    for (index, (family, service)) in [
        (Family::V4, port::MH),
        (Family::V4, port::MH_PORT),
        (Family::V6, port::MH),
        (Family::V6, port::MH_PORT),
    ]
    .into_iter()
    .enumerate()
    {
        other.load(&other_site).expect("the tables take it");
        assert_eq!(chosen(&mut other, family, service), first[index]);
    }
}

#[test]
#[ignore = "needs root and the BPF object: cargo xtask test runs it"]
fn mh_knows_its_clients_in_the_kernel() {
    let natively = check(&mut Native::new(&site()));
    assert_eq!(check(&mut crate::kernel()), natively);
}

#[test]
fn outer_sources_spread_with_the_flows() {
    let mut machine = Native::new(&site());
    for (service, source) in [(port::IPIP4, 26..30), (port::IPIP6, 22..38)] {
        // Room for all the flows.
        let roomy = site().with(|fixture| fixture.settings.buckets4 = 1024);
        machine.load(&roomy).expect("the tables take the fixture");
        let mut sources = BTreeSet::new();
        for port in 1000..1256 {
            let from = (Family::V4.client(), port);
            let packet = Ip::udp(from, virtual_end(Family::V4, service), b"x");
            let mut again = BTreeSet::new();
            for _ in 0..2 {
                let outcome = machine
                    .run(&from_client(&packet).bytes())
                    .expect("a verdict");
                again.insert(outcome.frame[source.clone()].to_vec());
            }
            assert_eq!(again.len(), 1, "a flow keeps its outer source");
            sources.extend(again);
        }
        assert!(
            sources.len() > 200,
            "256 flows have {} outer sources",
            sources.len()
        );
        if service == port::IPIP4 {
            for source in &sources {
                assert_eq!(source[..2], [172, 16], "only the free bits vary");
                assert!(source[2] < 16, "only the free bits vary");
            }
        }
    }
}
