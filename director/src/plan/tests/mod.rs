//! A sentence for each rule, and random walks during which no single write may leave something dangling.

use std::collections::{BTreeMap, BTreeSet};

use xdp_ebpf::layout::{NextHop, address, destination, method};

use super::*;
use crate::config::{
    Config, ConnectionLimits, Endpoint, Interface, Method, NoServer, Ports, Protocol, RealServer,
    RemovedServers, Scheduler, Timeouts, Track, Tunnel, TunnelSettings, VirtualService, XdpMode,
};
use crate::health::standing::{self, ServiceStanding, Standings};
use crate::next_hop::{Left, Resolution};
use crate::overrides::{Effective, Override, Overrides};
use crate::plan::desired::share;

mod on_change;
mod support;
mod walks;

use support::*;

const RR: Scheduler = Scheduler::Rr;

/// Ids of the services that keys point to, IPv4 first.
fn served(tables: &Tables) -> Vec<u16> {
    let all = tables.services4.values().chain(tables.services6.values());
    all.map(|served| served.service()).collect()
}

/// A real server that is this node (LOCALNODE) gets packets as they are, by the virtual port; elsewhere it is as configured.
#[test]
fn a_real_server_that_is_this_node() {
    let own = Resolution::Kernel(Left::Own);
    let remote = Resolution::Ready(hop(7, 0, 1));
    // (method, port, where it is, the record's method, whether it is local)
    let cases = [
        (Method::Nat, 80, own, method::DR, true),
        (Method::Dr, 80, own, method::DR, true),
        (Method::Tun(Tunnel::Gre), 80, own, method::DR, true),
        // Its answers would have to be translated back.
        (Method::Nat, 8080, own, method::NAT, false),
        (Method::Nat, 80, remote, method::NAT, false),
        (Method::Dr, 80, remote, method::DR, false),
        (Method::Dr, 80, Resolution::NoRoute, method::DR, false),
        (Method::Tun(Tunnel::Gre), 80, remote, method::GRE, false),
    ];
    let mut tables = Tables::default();
    for (method, port, resolution, expected, is_local) in cases {
        let config = config(vec![service(
            "192.0.2.10",
            80,
            RR,
            vec![server("10.0.0.1", port, 1, method)],
        )]);
        let view = view(&[("10.0.0.1", resolution)]);
        let is_own = resolution == own;
        assert_eq!(view.own_real_servers().len(), usize::from(is_own));
        // From one case to the next, as when addresses move.
        tables = plan(&tables, &config, &view);
        let what = format!("{method:?} {port} {resolution:?}");
        let found = |tables: &Tables| {
            let all = tables.destinations.values();
            let mut live = all.filter(|it| it.flags & destination::RETIRED == 0);
            let record = *live.next().unwrap();
            assert!(live.next().is_none(), "{what}");
            (
                record.method,
                record.flags & destination::LOCAL != 0,
                record.next_hop,
            )
        };
        let next_hop = match resolution {
            Resolution::Ready(next_hop) => next_hop,
            _ => NextHop::default(),
        };
        assert_eq!(found(&tables), (expected, is_local, next_hop), "{what}");
        // Verdicts leave that as it is.
        let standing = ServiceStanding::default();
        let (id, service) = (served(&tables)[0], &config.services[0]);
        let writes = reweigh(&tables, &BTreeMap::from([(id, (service, &standing))])).unwrap();
        assert_eq!(writes, [], "{what}");
    }
}

#[test]
fn a_first_start() {
    let config = config(vec![
        service(
            "192.0.2.10",
            80,
            RR,
            vec![
                server("10.0.0.1", 8080, 1, Method::Nat),
                server("10.0.0.2", 80, 0, Method::Dr),
            ],
        ),
        service(
            "2001:db8::10",
            443,
            Scheduler::Mh {
                port: true,
                fallback: true,
            },
            vec![server(
                "10.0.0.3",
                443,
                1,
                Method::Tun(Tunnel::Gue { port: 6080 }),
            )],
        ),
    ]);
    let view = view(&[
        ("10.0.0.1", Resolution::Ready(hop(7, 0, 1))),
        ("10.0.0.2", Resolution::NoRoute),
    ]);
    let tables = plan(&Tables::default(), &config, &view);

    assert_eq!(tables.settings.seed, 5);
    assert_eq!(
        (
            tables.settings.cpus,
            tables.settings.buckets4,
            tables.settings.buckets6
        ),
        (2, 64, 128)
    );
    assert_eq!(tables.settings.spread4_mask, 0xffff);
    assert_eq!(served(&tables), [1, 2]);
    let nat = tables.destinations[&1];
    assert_eq!(
        (nat.method, nat.port, nat.service, nat.next_hop),
        (method::NAT, [0x1f, 0x90], 1, hop(7, 0, 1))
    );
    let quiesced = tables.destinations[&2];
    assert_eq!((quiesced.flags, quiesced.next_hop), (0, NextHop::default()));
    let tunnel = tables.destinations[&3];
    assert_eq!(
        (tunnel.method, tunnel.tunnel_port),
        (method::GUE, 6080_u16.to_be_bytes())
    );
    assert_eq!(tunnel.outer_source[..4], [172, 16, 0, 0]);
    let table = &tables.slots[&tables.services[&1].first_slot];
    assert_eq!(**table, [1], "weight 0 takes no new connection");
    assert_eq!(tables.real_servers4.len(), 1);
    assert_eq!(tables.addresses4[&[10, 0, 0, 1]], address::REAL);
    assert_eq!(tables.addresses4[&[192, 0, 2, 10]], address::VIRTUAL);
}

#[test]
fn ids_stay_and_only_what_changed_is_written() {
    let one = |weight| {
        config(vec![service(
            "192.0.2.10",
            80,
            Scheduler::Wrr,
            vec![
                server("10.0.0.1", 80, 1, Method::Nat),
                server("10.0.0.2", 80, weight, Method::Nat),
            ],
        )])
    };
    let view = view(&[]);
    let first = plan(&Tables::default(), &one(1), &view);
    let next = desired(&first, &inputs(&one(3), &view)).unwrap();
    let writes = diff(&first, &next);
    assert!(
        matches!(
            writes.as_slice(),
            [
                Write::Share(2, Some(_)),
                Write::Slots(..),
                Write::Service(1, Some(_))
            ]
        ),
        "{writes:?}"
    );
    assert_eq!(
        diff(&first, &desired(&first, &inputs(&one(1), &view)).unwrap()),
        [],
        "nothing changed"
    );
}

#[test]
fn a_removed_real_server_stays_while_it_is_used_and_can_come_back() {
    let with = |servers: &[&str]| {
        config(vec![service(
            "192.0.2.10",
            80,
            RR,
            servers
                .iter()
                .map(|it| server(it, 80, 1, Method::Nat))
                .collect(),
        )])
    };
    let view = view(&[]);
    let both = plan(&Tables::default(), &with(&["10.0.0.1", "10.0.0.2"]), &view);
    let one = plan(&both, &with(&["10.0.0.2"]), &view);
    assert_eq!(one.destinations[&1].flags, destination::RETIRED);
    assert_eq!(
        one.real_servers4.len(),
        2,
        "replies of its connections are still recognised"
    );

    assert_eq!(
        release(&one, &BTreeSet::from([2]), &BTreeSet::new()),
        one,
        "one that is not retired is never released"
    );
    let released = walk(
        &one,
        &release(&one, &BTreeSet::from([1, 2]), &BTreeSet::new()),
    );
    assert_eq!(
        released.destinations.keys().copied().collect::<Vec<_>>(),
        [2]
    );
    assert_eq!(released.real_servers4.len(), 1);

    let back = plan(&one, &with(&["10.0.0.1", "10.0.0.2"]), &view);
    assert_eq!(back, both, "its connections go on under the same id");
}

#[test]
fn a_removed_service_keeps_its_id_while_it_is_used() {
    let all = config(vec![
        service(
            "192.0.2.10",
            80,
            RR,
            vec![server("10.0.0.1", 80, 1, Method::Nat)],
        ),
        service("192.0.2.11", 80, RR, vec![]),
    ]);
    let other = config(vec![service("192.0.2.12", 80, RR, vec![])]);
    let view = view(&[]);
    let before = plan(&Tables::default(), &all, &view);
    let after = plan(&before, &other, &view);
    assert_eq!(
        served(&after),
        [3],
        "neither 1, in use, nor 2, of this moment"
    );
    assert_eq!(after.services.keys().copied().collect::<Vec<_>>(), [1, 3]);
    assert!(after.real_servers4.is_empty());
    assert_eq!(served(&plan(&after, &all, &view)), [1, 2]);

    let released = walk(
        &after,
        &release(&after, &BTreeSet::from([1]), &BTreeSet::from([1])),
    );
    assert_eq!(released.services.keys().copied().collect::<Vec<_>>(), [3]);
}

#[test]
fn next_hops() {
    let one = config(vec![service(
        "192.0.2.10",
        80,
        RR,
        vec![server("10.0.0.1", 80, 1, Method::Dr)],
    )]);
    let known = plan(
        &Tables::default(),
        &one,
        &view(&[("10.0.0.1", Resolution::Ready(hop(7, 0, 1)))]),
    );
    let unresolved = Resolution::Unresolved {
        ifindex: 7,
        neighbour: ip("10.0.0.1"),
    };
    let moved = NetworkView {
        interfaces: BTreeMap::from([(1, 8)]),
        ..view(&[("10.0.0.1", unresolved)])
    };
    let cases = [
        (
            view(&[("10.0.0.1", Resolution::Ready(hop(7, 0, 2)))]),
            hop(7, 0, 2),
            "a new address",
        ),
        (
            view(&[("10.0.0.1", unresolved)]),
            hop(7, 0, 1),
            "unresolved: the last known one",
        ),
        (view(&[]), hop(7, 0, 1), "nothing known: the last known one"),
        (
            moved,
            NextHop::default(),
            "unresolved, and the interface is no longer ours",
        ),
        (
            view(&[("10.0.0.1", Resolution::NoRoute)]),
            NextHop::default(),
            "no route",
        ),
    ];
    for (view, expected, what) in cases {
        let mut tables = known.clone();
        refresh(&mut tables, &view);
        walk(&known, &tables);
        assert_eq!(tables.destinations[&1].next_hop, expected, "{what}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let shared = (0..17).map(|n| {
        service(
            &format!("192.0.2.{n}"),
            80,
            RR,
            vec![server("10.0.0.1", 80, 1, Method::Nat)],
        )
    });
    let shared = config(shared.collect());
    let view = view(&[]);
    let error = desired(&Tables::default(), &inputs(&shared, &view)).unwrap_err();
    assert_eq!(
        error,
        PlanError::Shared {
            address: ip("10.0.0.1"),
            port: 80
        }
    );
}

/// Several addresses and ports as one service: ids stay with them when some come and go.
#[test]
fn endpoints_of_a_group() {
    let end = |address: &str, first: u16, last: u16, protocol: Protocol| Endpoint {
        address: ip(address),
        ports: Ports { first, last },
        protocol,
    };
    let group = |endpoints: Vec<Endpoint>| {
        let mut service = service(
            "192.0.2.10",
            80,
            RR,
            vec![server("10.0.0.1", 80, 1, Method::Nat)],
        );
        service.endpoints = endpoints;
        for server in &mut service.real_servers {
            server.port = None;
        }
        config(vec![service])
    };
    let (http, https, dns, passive) = (
        end("192.0.2.10", 80, 80, Protocol::Tcp),
        end("192.0.2.11", 443, 443, Protocol::Tcp),
        end("192.0.2.10", 53, 53, Protocol::Udp),
        end("192.0.2.10", 8000, 8999, Protocol::Tcp),
    );
    let view = view(&[]);
    let all = plan(
        &Tables::default(),
        &group(vec![http, https, dns, passive]),
        &view,
    );
    assert_eq!(served(&all), [1, 1, 1]);
    assert_eq!(all.ranges4.len(), 6);
    assert_ne!(all.settings.flags & xdp_ebpf::layout::settings::RANGES, 0);
    // Each port the client may use, and any of the range.
    let ports: Vec<u16> = all
        .real_servers4
        .keys()
        .map(|key| u16::from_be_bytes(key.port))
        .collect();
    assert_eq!(ports, [0, 53, 80, 443]);

    let fewer = plan(&all, &group(vec![https, passive]), &view);
    assert_eq!(fewer.services, all.services);
    assert_eq!(fewer.endpoints, all.endpoints, "kept for their connections");
    assert_eq!((served(&fewer), fewer.real_servers4.len()), (vec![1], 2));
    let unused = BTreeSet::from([1, 2, 3, 4]);
    let released = walk(&fewer, &release(&fewer, &BTreeSet::new(), &unused));
    assert_eq!(
        released.endpoints.keys().copied().collect::<Vec<_>>(),
        [2, 4]
    );
    assert_eq!(
        plan(&fewer, &group(vec![http, https, dns, passive]), &view),
        all
    );
}

#[test]
fn connections_of_a_removed_real_server_go_as_the_service_says() {
    for (rule, gone, number) in [
        (
            RemovedServers::Keep,
            0,
            xdp_ebpf::layout::removed::RESCHEDULE,
        ),
        (
            RemovedServers::Reschedule,
            destination::GONE,
            xdp_ebpf::layout::removed::RESCHEDULE,
        ),
        (
            RemovedServers::Drop,
            destination::GONE,
            xdp_ebpf::layout::removed::DROP,
        ),
    ] {
        let with = |servers: Vec<RealServer>| {
            let mut service = service("192.0.2.10", 80, RR, servers);
            service.removed_servers = rule;
            config(vec![service])
        };
        let view = view(&[]);
        let one = server("10.0.0.1", 80, 1, Method::Nat);
        let first = plan(&Tables::default(), &with(vec![one.clone()]), &view);
        let removed = plan(&first, &with(vec![]), &view);
        assert_eq!(
            removed.destinations[&1].flags,
            destination::RETIRED | gone,
            "{rule:?}"
        );
        assert_eq!(removed.services[&1].removed, number, "{rule:?}");
        assert_eq!(removed.shares[&1], Share::default());
        assert_eq!(plan(&removed, &with(vec![one]), &view), first, "{rule:?}");
    }
}

#[test]
fn what_operators_say_counts_before_the_file() {
    let mh = Scheduler::Mh {
        port: false,
        fallback: true,
    };
    for scheduler in [RR, mh] {
        let servers = ["10.0.0.1", "10.0.0.2"].map(|it| server(it, 80, 3, Method::Nat));
        let config = config(vec![service("192.0.2.10", 80, scheduler, servers.to_vec())]);
        let view = view(&[]);
        let as_configured = plan(&Tables::default(), &config, &view);
        let name = &config.services[0].name;
        // (what is said of the first, at which time, its weight, its flags)
        let cases = [
            (Override::Weight(9), 0, 9, 0),
            (Override::Weight(0), 0, 0, 0),
            (Override::Disabled, 0, 0, destination::OUT),
            (
                Override::Draining { until_s: Some(50) },
                49,
                0,
                destination::OUT,
            ),
            (
                Override::Draining { until_s: Some(50) },
                50,
                0,
                destination::OUT | destination::CLOSED,
            ),
        ];
        for (said, now_s, weight, flags) in cases {
            let mut overrides = Overrides::default();
            overrides
                .set(&config, name, "10.0.0.1", Some(said))
                .unwrap();
            let standings = standing::unchecked(&config, &overrides, now_s);
            let changed = Inputs {
                standings: &standings,
                ..inputs(&config, &view)
            };
            let tables = walk(&as_configured, &desired(&as_configured, &changed).unwrap());
            assert_eq!(tables.shares[&1].weight, weight, "{said:?}");
            assert_eq!(tables.destinations[&1].flags, flags, "{said:?}");
            let table = &tables.slots[&tables.services[&1].first_slot];
            let stands_in_it = table.contains(&1);
            assert_eq!(stands_in_it, weight > 0 || scheduler == mh, "{said:?}");
            // And back.
            assert_eq!(plan(&tables, &config, &view), as_configured);
        }
    }
}

#[test]
fn an_agent_asks_for_fewer_connections() {
    // (upper and lower threshold of the configuration, what the agent says, thresholds in the tables)
    let cases = [
        ((0, 0), 0, (0, 0)),
        ((10, 5), 0, (10, 5)),
        ((0, 0), 30, (30, 0)),
        ((10, 5), 30, (10, 5)),
        ((10, 5), 7, (7, 5)),
        ((10, 5), 5, (5, 5)),
        ((10, 5), 4, (4, 0)),
        ((0, 5), 4, (4, 0)),
    ];
    let service = service("192.0.2.1", 80, RR, vec![]);
    for ((upper_threshold, lower_threshold), maximum_connections, (upper, lower)) in cases {
        let server = RealServer {
            upper_threshold,
            lower_threshold,
            ..server("10.0.0.1", 80, 3, Method::Nat)
        };
        let effective = Effective {
            weight: 2,
            maximum_connections,
            ..Effective::default()
        };
        let expected = Share {
            weight: 2,
            upper,
            lower,
        };
        let what = format!("{upper_threshold}, {lower_threshold}: {maximum_connections}");
        assert_eq!(share(&service, &server, effective), expected, "{what}");
        let untracked = VirtualService {
            track: Track::OnChange { hold_s: 1 },
            ..service.clone()
        };
        let expected = Share {
            weight: 2,
            ..Share::default()
        };
        let found = share(&untracked, &server, effective);
        assert_eq!(found, expected, "{what}: nobody counts");
    }
}

mod slow {
    use super::*;

    /// What a large site's start and a reload of it cost. Says something in an optimised build only.
    #[test]
    #[ignore = "slow, and says something in a release build only: cargo xtask test --all runs it"]
    fn speed_of_twenty_thousand_real_servers() {
        let services: Vec<VirtualService> = (0..2000u32)
            .map(|number| {
                let servers = (0..10u32)
                    .map(|server| {
                        let address =
                            std::net::Ipv4Addr::from_bits(0x0a00_0000 + number * 16 + server);
                        self::server(&address.to_string(), 8080, 1, Method::Nat)
                    })
                    .collect();
                let address = std::net::Ipv4Addr::from_bits(0xc000_0000 + number);
                service(&address.to_string(), 80, Scheduler::Wlc, servers)
            })
            .collect();
        let mut config = config(services);
        let view = view(&[]);
        let timed =
            |what: &str, began: std::time::Instant| println!("{what}: {:?}", began.elapsed());
        let began = std::time::Instant::now();
        let first = desired(&Tables::default(), &inputs(&config, &view)).unwrap();
        timed("desired, from nothing", began);
        let began = std::time::Instant::now();
        let writes = diff(&Tables::default(), &first);
        timed("diff, from nothing", began);
        println!("{} writes", writes.len());
        config.services[1000].real_servers[3].weight = 7;
        let began = std::time::Instant::now();
        let second = desired(&first, &inputs(&config, &view)).unwrap();
        timed("desired, one change", began);
        let began = std::time::Instant::now();
        assert!(diff(&first, &second).len() < 4);
        timed("diff, one change", began);
        let id = first.endpoints.values().next().unwrap().service;
        let began = std::time::Instant::now();
        let standing = standing::unchecked(&config, &Overrides::default(), 0);
        timed("judging all", began);
        let began = std::time::Instant::now();
        let judged = [(id, (&config.services[0], &standing.0[0]))].into();
        reweigh(&first, &judged).unwrap();
        timed("one verdict", began);
    }
}
