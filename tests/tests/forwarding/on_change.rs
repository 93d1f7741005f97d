//! Services that track connections on change: transfers go on while real servers come and go, and only then are tracked.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use director_tests::director::{self, Reload, Service};
use director_tests::http::{Connection, Transfer};
use director_tests::lab::{Gateway, Host, Topology};
use director_tests::{PATIENCE, wait_until};

use crate::site::{Site, TIMEOUT, Way};

/// What a transfer must bring at least to have gone on.
const GOES_ON: usize = 64 << 10;
/// Transfers of each service: with two real servers each has some but once in thousands of runs.
const TRANSFERS: usize = 12;
/// Short, so that slots settle before long; a transfer's reader never pauses for as long.
const MORE: &str = "track: on-change\nhold_time: 20s\ntimeouts: {established: 5m, fin_wait: 1s, time_wait: 1s, close: 1s, \
                    syn_received: 10s}";
const MH_PORT: &[&str] = &["mh-port"];

type Weights = &'static [(u8, u32)];
const TWO: Weights = &[(1, 1), (2, 1)];
const ALL: Weights = &[(1, 1), (2, 1), (3, 1)];
const QUIESCED: Weights = &[(1, 0), (2, 1), (3, 1)];
const REST: Weights = &[(2, 1), (3, 1)];

fn services(ways: &[Way], real_servers: Weights) -> Vec<Service<'static>> {
    services_with(ways, real_servers, MH_PORT, MORE)
}

fn services_with(
    ways: &[Way],
    real_servers: Weights,
    flags: &'static [&'static str],
    more: &'static str,
) -> Vec<Service<'static>> {
    ways.iter()
        .map(|way| Service {
            scheduler: "mh",
            flags,
            more,
            real_servers: Some(real_servers),
            ..way.service("tcp")
        })
        .collect()
}

/// A transfer and who sends it.
struct Open {
    address: SocketAddr,
    who: String,
    transfer: Transfer,
}

fn begin(site: &Site, address: SocketAddr) -> Open {
    let connection = site.client(|| Connection::open(address, TIMEOUT));
    let mut connection = connection.unwrap_or_else(|error| panic!("{address}: {error:#}"));
    let who = connection.get("/").unwrap().who();
    let mut transfer = connection.transfer("/transfer").unwrap();
    transfer.read(1000).unwrap();
    Open {
        address,
        who,
        transfer,
    }
}

fn go_on(open: &mut [Open], after: &str) {
    for Open {
        address,
        who,
        transfer,
    } in open
    {
        let went_on = transfer.read(GOES_ON);
        went_on.unwrap_or_else(|error| panic!("{address} with {who}, {after}: {error:#}"));
    }
}

/// Connections that are tracked.
fn tracked(site: &Site) -> usize {
    let instance = site.lab.instance_name();
    let count = director::command(&site.lab, &["conns", "--count", "--instance", &instance]);
    let count = count.unwrap();
    count.trim().parse().unwrap()
}

/// Waits until no slot changes hands any more.
fn wait_settled(site: &Site) {
    wait_until("all slots are settled", PATIENCE, || {
        for service in site.status().services {
            let changing = service.changing_slots;
            anyhow::ensure!(changing == Some(0), "{}: {changing:?}", service.name);
        }
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", site.log()));
}

#[test]
#[ignore = "needs root, network namespaces and nginx: cargo xtask test runs it"]
fn transfers_go_on_and_are_tracked_only_where_something_changed() {
    let mut site = Site::up(Topology::TwoInterfaces);
    // What a client takes at once, so that a server waits for its reader.
    site.host(Host::Client)
        .apply(&[("ipv4/tcp_rmem", "4096 16384 16384")])
        .unwrap();
    let ways: Vec<Way> = Way::one_of_each()
        .into_iter()
        .filter(|way| !way.is_nat())
        .collect();
    site.lab.set_gateway(Gateway::Router).unwrap();
    site.start(&services(&ways, TWO));
    for way in &ways {
        site.wait_for_answer(way.address());
    }
    wait_settled(&site);
    let before = tracked(&site);
    let mut open: Vec<Open> = ways
        .iter()
        .flat_map(|way| (0..TRANSFERS).map(|_| way.address()))
        .map(|address| begin(&site, address))
        .collect();
    let all = open.len();
    go_on(&mut open, "nothing has changed");
    assert!(tracked(&site) <= before, "nothing has changed");

    // It would send nearly all of them elsewhere.
    let hashed_otherwise = site.yaml(&services_with(&ways, TWO, &[], MORE));
    assert_eq!(site.reload_text(&hashed_otherwise), Reload::Refused);
    assert!(site.log().contains("mh-port"), "{}", site.log());
    go_on(&mut open, "a reload is refused");

    site.reload(&services(&ways, ALL));
    go_on(&mut open, "a real server more");
    let now = tracked(&site);
    assert!((1..all).contains(&now), "{now} of {all} are tracked");

    site.reload(&services(&ways, QUIESCED));
    go_on(&mut open, "one is quiesced");
    let new: BTreeSet<String> = ways
        .iter()
        .flat_map(|way| site.answered(way.address(), 10).into_keys())
        .collect();
    assert!(!new.contains("s1"), "{new:?}");

    site.director().kill().unwrap();
    go_on(&mut open, "nobody runs");
    site.start(&services(&ways, QUIESCED));
    assert!(site.status().adopted);
    go_on(&mut open, "the next director adopted");

    site.reload(&services(&ways, REST));
    go_on(&mut open, "that one is removed");
    let back = site.status().services.iter().all(|service| {
        let removed = service.real_servers.iter().filter(|it| it.removed);
        removed.count() == 1
    });
    assert!(back, "it is remembered");
    let senders: BTreeSet<&str> = open.iter().map(|it| it.who.as_str()).collect();
    assert_eq!(senders, BTreeSet::from(["s1", "s2"]));
    for Open {
        address,
        who,
        transfer,
    } in open
    {
        let finished = transfer.finish();
        finished.unwrap_or_else(|error| panic!("{address} with {who}: {error:#}"));
    }
    wait_settled(&site);
    wait_until("the removed one is forgotten", PATIENCE, || {
        for service in site.status().services {
            let remembered = service.real_servers.iter().any(|it| it.removed);
            anyhow::ensure!(!remembered, "{}", service.name);
        }
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", site.log()));

    // To tracking all connections and back.
    let mut open: Vec<Open> = ways
        .iter()
        .flat_map(|way| (0..TRANSFERS).map(|_| way.address()))
        .map(|address| begin(&site, address))
        .collect();
    site.reload(&services_with(&ways, REST, MH_PORT, ""));
    go_on(&mut open, "all are tracked");
    site.reload(&services(&ways, REST));
    go_on(&mut open, "they are tracked on change again");
    drop(open);
    site.check_end();
}
