//! Random walks over configurations and networks.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use xdp_ebpf::layout::{Route, Served};

use super::*;
use crate::health::standing::ServiceStanding;
use crate::overrides::Effective;
use proptest::strategy::ValueTree;

fn any_server() -> impl Strategy<Value = RealServer> {
    let method = prop_oneof![
        3 => Just(Method::Nat),
        1 => Just(Method::Dr),
        1 => Just(Method::Tun(Tunnel::Ipip)),
        1 => Just(Method::Tun(Tunnel::Gue { port: 6080 })),
    ];
    (1u8..6, any::<bool>(), 80u16..82, 0u32..4, method).prop_map(
        |(host, ipv6, port, weight, method)| RealServer {
            address: if ipv6 {
                ip(&format!("2001:db8::{host}"))
            } else {
                ip(&format!("10.0.0.{host}"))
            },
            port: Some(port),
            weight,
            upper_threshold: 0,
            lower_threshold: 0,
            method,
            checks: [].into(),
        },
    )
}

fn any_config() -> impl Strategy<Value = Config> {
    let scheduler = prop_oneof![
        Just(RR),
        Just(Scheduler::Wrr),
        Just(Scheduler::Mh {
            port: false,
            fallback: true
        })
    ];
    let any_service = (
        0u8..4,
        any::<bool>(),
        (scheduler, proptest::bool::weighted(0.3)),
        proptest::collection::vec(any_server(), 0..5),
    );
    proptest::collection::vec(any_service, 0..5).prop_map(|services| {
        let mut seen = BTreeSet::new();
        let services = services
            .into_iter()
            .filter(|(host, ipv6, ..)| seen.insert((*host, *ipv6)));
        config(
            services
                .map(|(host, ipv6, (scheduler, on_change), mut servers)| {
                    let mut seen = BTreeSet::new();
                    servers.retain(|server| seen.insert((server.address, server.port)));
                    let address = if ipv6 {
                        format!("2001:db8:1::{host}")
                    } else {
                        format!("192.0.2.{host}")
                    };
                    let mut service = service(&address, 80, scheduler, servers);
                    if on_change && matches!(scheduler, Scheduler::Mh { .. }) {
                        service.track = Track::OnChange { hold_s: 900 };
                        service.real_servers.retain(|it| it.method != Method::Nat);
                    }
                    if host == 3 {
                        let more = Endpoint {
                            ports: Ports {
                                first: 100,
                                last: 200 + u16::from(ipv6),
                            },
                            ..service.endpoints[0]
                        };
                        service.endpoints.push(more);
                        service
                            .real_servers
                            .iter_mut()
                            .for_each(|it| it.port = None);
                        let mut seen = BTreeSet::new();
                        service.real_servers.retain(|it| seen.insert(it.address));
                    }
                    service
                })
                .collect(),
        )
    })
}

fn any_view() -> impl Strategy<Value = NetworkView> {
    let resolution = prop_oneof![
        (7u32..10, any::<u8>()).prop_map(|(ifindex, last)| (Some(ifindex), last)),
        Just((None, 0)),
        Just((None, 1)),
    ];
    let hosts = proptest::collection::vec(resolution, 5);
    let interfaces = proptest::collection::btree_set(7u32..10, 1..3);
    (
        hosts,
        interfaces,
        proptest::collection::btree_map(24u8..28, 0u32..4, 0..3),
    )
        .prop_map(|(hosts, interfaces, routes)| {
            let mut view = NetworkView {
                interfaces: (0..).zip(interfaces).collect(),
                ..NetworkView::default()
            };
            let slot_of = |ifindex: u32| {
                view.interfaces
                    .iter()
                    .find(|(_, it)| **it == ifindex)
                    .map(|(slot, _)| *slot)
            };
            for (host, (ifindex, last)) in (1..).zip(hosts) {
                let resolution =
                    match ifindex.and_then(|ifindex| Some((ifindex, slot_of(ifindex)?))) {
                        Some((ifindex, slot)) => Resolution::Ready(hop(ifindex, slot as u16, last)),
                        None if last == 0 => Resolution::NoRoute,
                        None => Resolution::Unresolved {
                            ifindex: 7,
                            neighbour: ip("10.0.0.1"),
                        },
                    };
                view.resolutions
                    .insert(ip(&format!("10.0.0.{host}")), resolution);
                view.resolutions
                    .insert(ip(&format!("2001:db8::{host}")), resolution);
            }
            for (length, next_hop) in routes {
                view.forwarding.routes4.insert(
                    (length, [10, 0, 0, 0]),
                    Route {
                        next_hop,
                        ifindex: 0,
                    },
                );
                if next_hop != 0 {
                    view.forwarding
                        .next_hops
                        .insert(next_hop, hop(0, 0, next_hop as u8));
                }
            }
            view
        })
}

#[derive(Clone, Debug)]
enum Step {
    Reload(Config),
    Network(NetworkView),
    Release(BTreeSet<u32>),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any_config().prop_map(Step::Reload),
        1 => any_view().prop_map(Step::Network),
        1 => proptest::collection::btree_set(0u32..30, 0..30).prop_map(Step::Release),
    ]
}

/// Slots of interfaces as the director gives them out: never a new meaning for one in use.
fn with_stable_slots(current: &Tables, mut view: NetworkView) -> NetworkView {
    let indexes: Vec<u32> = view.interfaces.values().copied().collect();
    view.interfaces = assign_slots(&current.interfaces, &indexes);
    let slots: BTreeMap<u32, u32> = view
        .interfaces
        .iter()
        .map(|(slot, ifindex)| (*ifindex, *slot))
        .collect();
    for resolution in view.resolutions.values_mut() {
        if let Resolution::Ready(hop) = resolution {
            hop.egress = slots[&hop.ifindex] as u16;
        }
    }
    view
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_write_of_any_walk_leaves_something_dangling(steps in proptest::collection::vec(any_step(), 1..6)) {
        let mut tables = Tables::default();
        let mut current_view = view(&[]);
        for step in steps {
            tables = match step {
                Step::Reload(config) => plan(&tables, &config, &current_view),
                Step::Network(view) => {
                    current_view = with_stable_slots(&tables, view);
                    let mut next = tables.clone();
                    refresh(&mut next, &current_view);
                    prop_assert_eq!(follow(&tables, &current_view), diff(&tables, &next));
                    walk(&tables, &next)
                }
                Step::Release(unused) => {
                    let endpoints = unused.iter().map(|id| *id as u16).collect();
                    walk(&tables, &release(&tables, &unused, &endpoints))
                },
            };
        }
    }

    #[test]
    fn the_same_thing_keeps_its_id(first in any_config(), second in any_config()) {
        let view = view(&[]);
        let before = plan(&Tables::default(), &first, &view);
        let after = plan(&before, &second, &view);
        for (id, record) in &before.destinations {
            let kept = after.destinations[id];
            prop_assert_eq!((kept.service, kept.address, kept.port), (record.service, record.address, record.port));
        }
        for (key, id) in &before.services4 {
            let ids = |served: &Served| (served.endpoint(), served.service());
            prop_assert!(after.services4.get(key).is_none_or(|now| ids(now) == ids(id)));
        }
    }
}

/// A standing of all servers of a service, some of which may not have been checked yet.
fn any_standing(servers: usize) -> impl Strategy<Value = ServiceStanding> {
    let expected = proptest::option::of(known_standing(servers).prop_map(Box::new));
    (known_standing(servers), expected)
        .prop_map(|(known, expected)| ServiceStanding { expected, ..known })
}

fn known_standing(servers: usize) -> impl Strategy<Value = ServiceStanding> {
    let flags = any::<[bool; 3]>();
    let effective = (0u32..3, flags, 0u32..3).prop_map(
        |(weight, [is_out, is_closed, is_gone], maximum_connections)| Effective {
            weight,
            is_out,
            is_closed,
            is_gone,
            maximum_connections,
        },
    );
    (proptest::collection::vec(effective, servers), any::<bool>()).prop_map(
        |(servers, is_on_fallback)| ServiceStanding {
            servers,
            is_on_fallback,
            ..ServiceStanding::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The short way from verdicts and what operators say to the tables leads where the long one does, and every step forwards.
    #[test]
    fn verdicts_go_the_short_way(
        config in any_config(),
        view in any_view(),
        split in 0usize..4,
        seed in any::<[u8; 32]>(),
    ) {
        let mut config = config;
        for service in &mut config.services {
            let at = split.min(service.real_servers.len());
            service.fallback_servers = service.real_servers.split_off(at);
        }
        let mut runner = proptest::test_runner::TestRunner::new_with_rng(
            ProptestConfig::default(),
            proptest::test_runner::TestRng::from_seed(
                proptest::test_runner::RngAlgorithm::ChaCha,
                &seed,
            ),
        );
        let mut any = |service: &VirtualService| {
            let tree = any_standing(service.all_servers().count()).new_tree(&mut runner);
            tree.unwrap().current()
        };
        let mut standings = Standings(config.services.iter().map(&mut any).collect());
        let first = Inputs { standings: &standings, ..inputs(&config, &view) };
        let none = Tables::default();
        let mut tables = walk(&none, &desired(&none, &first).unwrap());
        let places: Vec<usize> = (0..config.services.len()).collect();
        // One after the other, then all at once, and again.
        for at_once in [1, places.len().max(1), 1, places.len().max(1)] {
            for places in places.chunks(at_once) {
                for place in places {
                    standings.0[*place] = any(&config.services[*place]);
                }
                let judged = places.iter().map(|place| {
                    let service = &config.services[*place];
                    let first = &service.endpoints[0];
                    let is_it = |record: &&xdp_ebpf::layout::Endpoint| {
                        (endpoint_address(record), ports(record))
                            == (first.address, (first.ports.first, first.ports.last))
                    };
                    let id = tables.endpoints.values().find(is_it).unwrap().service;
                    (id, (service, &standings.0[*place]))
                });
                let mut short = tables.clone();
                for write in reweigh(&tables, &judged.collect()).unwrap() {
                    short.apply(&write);
                    consistent(&short).unwrap();
                }
                let long = Inputs { standings: &standings, ..inputs(&config, &view) };
                let long = desired(&short, &long).unwrap();
                // Where the same table already stands it stays, so that both are the same to the last slot.
                prop_assert_eq!(&long, &short);
                tables = short;
            }
        }
    }
}
