//! The director's life in the middle of transfers: reloads, a crash, an end.
//!
//! A director's start takes the kernel some seconds of verification, so there are few.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use ::director::datapath::View;
use ::director::plan::Write;
use aya::maps::{Array, Map, MapData};
use director_tests::director::{self, Reload, Service};
use director_tests::http::{Connection, Transfer};
use director_tests::lab::{Gateway, Host, Topology};
use director_tests::{PATIENCE, wait_until};
use xdp_ebpf::layout::{maps, settings};

use crate::site::{SERVERS, Site, TIMEOUT, Way, by_name, growth};

/// What a transfer must bring at least to have gone on: more than may have been under way before.
const GOES_ON: usize = 64 << 10;
/// Real servers with weights.
type Weights = &'static [(u8, u32)];
const ALL: Weights = &[(1, 1), (2, 1), (3, 1)];

/// A lab whose client takes little at once, so that a server waits for its reader.
fn site() -> Site {
    let site = Site::up(Topology::TwoInterfaces);
    // Least, default and most bytes of a receive buffer, of both families.
    let little = "4096 16384 16384";
    site.host(Host::Client)
        .apply(&[("ipv4/tcp_rmem", little)])
        .unwrap();
    site
}

fn service(way: Way, real_servers: Weights) -> Service<'static> {
    Service {
        scheduler: "wrr",
        real_servers: Some(real_servers),
        ..way.service("tcp")
    }
}

/// Transfers of one service, one with each of its real servers.
struct Transfers {
    way: Way,
    by_server: BTreeMap<String, Transfer>,
}

impl Transfers {
    fn begin(site: &Site, way: Way, servers: usize) -> Self {
        let mut by_server = BTreeMap::new();
        for _ in 0..servers {
            let connection = site.client(|| Connection::open(way.address(), TIMEOUT));
            let mut connection = connection.unwrap_or_else(|error| panic!("{way}: {error:#}"));
            let who = connection.get("/").unwrap().who();
            let mut transfer = connection.transfer("/transfer").unwrap();
            transfer.read(1000).unwrap();
            by_server.insert(who, transfer);
        }
        assert_eq!(
            by_server.len(),
            servers,
            "{way}: equal weights give each server one"
        );
        Self { way, by_server }
    }

    /// All of them are still under way.
    fn go_on(&mut self, after: &str) {
        for (name, transfer) in &mut self.by_server {
            let went_on = transfer.read(GOES_ON);
            went_on.unwrap_or_else(|error| panic!("{} with {name}, {after}: {error:#}", self.way));
        }
    }

    fn finish(self) {
        for (name, transfer) in self.by_server {
            let finished = transfer.finish();
            finished.unwrap_or_else(|error| panic!("{} with {name}: {error:#}", self.way));
        }
    }
}

#[test]
#[ignore = "needs root, network namespaces and nginx: cargo xtask test runs it"]
fn reloads_break_no_transfer() {
    type Step = (&'static str, Weights, usize, &'static [(u8, usize)]);
    // What changes, to which real servers, requests then, who answers them.
    const STEPS: [Step; 5] = [
        ("a server more", ALL, 3, &[(1, 1), (2, 1), (3, 1)]),
        (
            "other weights",
            &[(1, 1), (2, 3), (3, 0)],
            4,
            &[(1, 1), (2, 3)],
        ),
        (
            "another server less",
            &[(1, 1), (2, 1)],
            2,
            &[(1, 1), (2, 1)],
        ),
        ("a transfer's own server less", &[(2, 1)], 2, &[(2, 2)]),
        ("that one back", &[(1, 1), (2, 1)], 2, &[(1, 1), (2, 1)]),
    ];
    const TWO: Weights = &[(1, 1), (2, 1)];
    let mut site = site();
    let ways = Way::one_of_each();
    let all = |changed: Way, real_servers: Weights| -> Vec<Service<'static>> {
        let of = |&way: &Way| service(way, if way == changed { real_servers } else { TWO });
        ways.iter().map(of).collect()
    };
    site.start(&all(ways[0], TWO));
    for &way in &ways {
        site.lab.set_gateway(way.gateway()).unwrap();
        let mut transfers = Transfers::begin(&site, way, 2);
        for (change, real_servers, requests, expected) in STEPS {
            site.reload(&all(way, real_servers));
            transfers.go_on(change);
            let answered = site.answered(way.address(), requests);
            assert_eq!(answered, by_name(expected), "{way}: {change}");
        }
        // Only this one, then the others too.
        site.reload(&[service(way, TWO)]);
        transfers.go_on("services less");
        site.reload(&all(way, TWO));
        transfers.finish();
    }
    site.lab.set_gateway(Gateway::Director).unwrap();
    check_broken_files(&mut site, ways[0]);
    site.check_end();
}

/// A wrong file changes nothing, and the log and the status say what is wrong with it.
fn check_broken_files(site: &mut Site, way: Way) {
    let good = site.yaml(&[service(way, ALL)]);
    assert_eq!(site.reload_text(&good), Reload::Done);
    let mut transfers = Transfers::begin(site, way, usize::from(SERVERS));
    // What the file becomes, and what is said of it.
    let cases = [
        (
            good.replace("scheduler: wrr", "scheduler: fastest"),
            "found \"fastest\"",
        ),
        (
            good.replace("real_servers:", "real_servrs:"),
            "did you mean \"real_servers\"?",
        ),
        (
            good.replace("eth1", "eth7"),
            "there is no network interface eth7",
        ),
        (String::new(), "there are no interfaces"),
        ("services: [".to_owned(), "director.yaml:1:"),
    ];
    for (broken, said) in cases {
        let before = site.status();
        assert_eq!(site.reload_text(&broken), Reload::Refused, "{said}");
        let after = site.status();
        let error = after.config.reload_error.clone().unwrap();
        assert!(error.contains(said), "{said}: {error}");
        let log = site.log();
        let logged = log.rsplit_once("reload refused").unwrap().1;
        assert!(logged.contains(said), "{said}: {logged}");
        assert_eq!(after.config.loaded_at_s, before.config.loaded_at_s);
        assert_eq!(after.interfaces, before.interfaces);
        for server in growth(&before, &after, "tcp", way.address()) {
            let found = (server.weight, server.removed, server.connections);
            assert_eq!(found, (1, false, 0), "{said}: {server:?}");
        }
        transfers.go_on(said);
        let answered = site.answered(way.address(), 3);
        assert_eq!(answered, by_name(&[(1, 1), (2, 1), (3, 1)]), "{said}");
    }
    assert_eq!(site.reload_text(&good), Reload::Done);
    assert_eq!(site.status().config.reload_error, None);

    // The kernel refuses another mode of an interface: it keeps the one that it has.
    site.add_large_interface();
    let programs = site.programs();
    let with = |interface: &str| good.replace("eth1]", &format!("eth1, {interface}]"));
    let generic = with("{name: large0, mode: generic}");
    assert_eq!(site.reload_text(&generic), Reload::Done, "{}", site.log());
    let before = (site.programs(), site.status().interfaces);
    assert_eq!(before.0.len(), programs.len() + 1);
    assert_eq!(site.reload_text(&with("large0")), Reload::Refused);
    let error = site.status().config.reload_error.unwrap();
    assert!(
        error.contains("interface large0 ") && error.contains("MTU"),
        "{error}"
    );
    assert_eq!((site.programs(), site.status().interfaces), before);
    transfers.go_on("another mode is refused");
    assert_eq!(site.reload_text(&good), Reload::Done);
    assert_eq!(site.programs(), programs);
    transfers.finish();
}

/// Forwarding goes on while there is no director, and the next one takes over what there is.
#[test]
#[ignore = "needs root, network namespaces and nginx: cargo xtask test runs it"]
fn a_killed_director_breaks_nothing_and_the_next_one_adopts() {
    let mut site = site();
    let ways = Way::one_of_each();
    let services = |real_servers| -> Vec<Service<'static>> {
        ways.iter().map(|&way| service(way, real_servers)).collect()
    };
    site.start(&services(ALL));
    // The last one's successor also brings another configuration, which is put into force like a reload's.
    const REST: Weights = &[(2, 1), (3, 1)];
    for (gateway, next) in [(Gateway::Director, ALL), (Gateway::Router, REST)] {
        site.lab.set_gateway(gateway).unwrap();
        let begin = |way: &Way| Transfers::begin(&site, *way, 3);
        let now = ways.iter().filter(|way| way.gateway() == gateway);
        let mut transfers: Vec<Transfers> = now.map(begin).collect();
        let before = site.status();
        site.director().kill().unwrap();
        for transfers in &mut transfers {
            transfers.go_on("nobody runs");
            let answered = site.answered(transfers.way.address(), 3);
            assert_eq!(
                answered,
                by_name(&[(1, 1), (2, 1), (3, 1)]),
                "{}",
                transfers.way
            );
        }

        site.start(&services(next));
        let after = site.status();
        assert!(after.adopted);
        for transfers in &mut transfers {
            let way = transfers.way;
            let grown = growth(&before, &after, "tcp", way.address());
            assert_eq!(grown.len(), 3, "{way}: {grown:?}");
            for server in &grown {
                // The one request that came while nobody ran, and the transfer.
                assert_eq!(server.connections, 1, "{way}: {server:?}");
                assert!(server.in_packets > 4, "{way}: {server:?}");
                let kept = next.iter().any(|&(number, _)| {
                    server.address == crate::site::server(number, way.real_ipv6)
                });
                assert_eq!(server.removed, !kept, "{way}: {server:?}");
            }
            transfers.go_on("the next director adopted");
            let requests = next.len();
            let each: Vec<(u8, usize)> = next.iter().map(|&(number, _)| (number, 1)).collect();
            assert_eq!(
                site.answered(way.address(), requests),
                by_name(&each),
                "{way}"
            );
        }
        // The successor counts connections that are older than it.
        wait_until("the transfers are counted", PATIENCE, || {
            let status = site.status();
            for transfers in &transfers {
                for server in growth(&before, &status, "tcp", transfers.way.address()) {
                    anyhow::ensure!(server.active >= 1, "{}: {server:?}", transfers.way);
                }
            }
            Ok(())
        })
        .unwrap();
        transfers.into_iter().for_each(Transfers::finish);
    }
    site.check_end();
}

/// Empties the lines that packets look into before the hash maps; gives how many were not empty.
fn forget_lines(instance: &str) -> usize {
    let pins = Path::new("/sys/fs/bpf/director").join(instance);
    let mut forgotten = 0;
    for name in [
        maps::SERVICE_LINES4,
        maps::SERVICE_LINES6,
        maps::SERVER_LINES4,
        maps::SERVER_LINES6,
    ] {
        let map = MapData::from_pin(pins.join(name)).unwrap();
        let mut lines: Array<MapData, [u64; 8]> =
            Array::try_from(Map::from_map_data(map).unwrap()).unwrap();
        for line in 0..lines.len() {
            if lines.get(&line, 0).unwrap() != [0; 8] {
                lines.set(line, [0; 8], 0).unwrap();
                forgotten += 1;
            }
        }
    }
    forgotten
}

/// Connections are carried over into larger tables, and into smaller ones, while packets pass.
#[test]
#[ignore = "needs root, network namespaces and nginx: cargo xtask test runs it"]
fn connection_tables_get_another_size() {
    // What the file says, and IPv4 and IPv6 places for it: a place more than two thirds of them are for so many connections.
    const SIZES: [(&str, u64, u64); 3] = [
        ("connections: {ipv4: 20000, ipv6: 10000}\n", 30_000, 15_000),
        (
            "connections: {ipv4: 300000, ipv6: 40000}\n",
            450_000,
            60_000,
        ),
        ("connections: {ipv4: 3000, ipv6: 2000}\n", 4_500, 3_000),
    ];
    let mut site = site();
    let ways = Way::one_of_each();
    let services: Vec<Service<'static>> = ways.iter().map(|&way| service(way, ALL)).collect();
    site.extra = SIZES[0].0;
    site.start(&services);
    let check_places = |site: &Site, (said, ipv4, ipv6): (&str, u64, u64)| {
        let connections = site.status().connections;
        let found = (connections.ipv4.places, connections.ipv6.places);
        // A CPU lacks part of a bucket: no connection takes more memory than is said.
        let fits = |found: u64, wanted: u64| found <= wanted && wanted < found + 64;
        anyhow::ensure!(
            fits(found.0, ipv4) && fits(found.1, ipv6),
            "{said}: {found:?}"
        );
        Ok(())
    };
    check_places(&site, SIZES[0]).unwrap();

    let (gateway, rest) = (ways[0].gateway(), &SIZES[1..]);
    site.lab.set_gateway(gateway).unwrap();
    let begin = |way: &&Way| Transfers::begin(&site, **way, 3);
    let now = ways.iter().filter(|way| way.gateway() == gateway);
    let mut transfers: Vec<Transfers> = now.collect::<Vec<_>>().iter().map(begin).collect();
    for size in rest {
        site.extra = size.0;
        site.reload(&services);
        wait_until("the tables have the other size", PATIENCE, || {
            // They begin in the old tables, in the new ones, or in between.
            site.answered(ways[0].address(), 1);
            check_places(&site, *size)
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", site.log()));
        assert_eq!(site.status().warnings, [""; 0], "{}", site.log());
        for transfers in &mut transfers {
            transfers.go_on(size.0);
        }
        // All of them are where the new tables' upkeep finds them.
        wait_until("the transfers are counted", PATIENCE, || {
            for service in site.status().services {
                let address = SocketAddr::new(service.address, service.port);
                let is_open = transfers.iter().any(|it| it.way.address() == address);
                for server in service.real_servers {
                    anyhow::ensure!(
                        !is_open || server.active >= 1,
                        "{}: {server:?}",
                        service.name
                    );
                }
            }
            Ok(())
        })
        .unwrap();
    }
    // Whoever comes after a crash finds the new tables, of a size that is not even wanted any more. The second crash comes
    // while the next ones are being made.
    site.extra = SIZES[0].0;
    let (bpffs, instance) = (Path::new("/sys/fs/bpf"), site.lab.instance_name());
    for what in ["a crash", "a crash in the middle"] {
        site.director().kill().unwrap();
        // As if it had been in the moment of the exchange.
        let mut view = View::open(bpffs, &instance).unwrap();
        let mut now = view.maps.read().unwrap().settings;
        now.flags |= settings::MOVING;
        view.maps.apply(&Write::Settings(now)).unwrap();
        site.start(&services);
        site.answered(ways[0].address(), 1);
        assert!(site.status().adopted);
        for transfers in &mut transfers {
            transfers.go_on(what);
        }
    }
    wait_until("the tables have their first size", PATIENCE, || {
        check_places(&site, SIZES[0])
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", site.log()));
    let pins = bpffs.join("director").join(&instance);
    assert!(pins.join("tables").is_dir() && !pins.join("next").exists());
    for transfers in &mut transfers {
        transfers.go_on("the next director made tables of another size");
    }
    // Another process finds the new ones too.
    let listed = director::command(&site.lab, &["conns", "--instance", &instance]).unwrap();
    assert!(listed.lines().count() > transfers.len(), "{listed}");
    transfers.into_iter().for_each(Transfers::finish);
    // Killed between a hash map and the lines before it: the next one has them agree again. Whoever only looks does not.
    site.director().kill().unwrap();
    assert!(forget_lines(&instance) > 0);
    drop(View::open(bpffs, &instance).unwrap());
    assert_eq!(forget_lines(&instance), 0, "looking has written");
    site.start(&services);
    site.answered(ways[0].address(), 3);
    site.check_end();
}
