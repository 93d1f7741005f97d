//! The packet path's lookup in the tables agrees with [`Network::resolve`].

use proptest::prelude::*;
use xdp_ebpf::layout::{Neighbour4, Neighbour6, NextHop, Route};

use super::super::forwarding::masked;
use super::*;

/// As the packet path does it; `None`: left to the kernel.
fn lookup(tables: &ForwardingTables, address: IpAddr) -> Option<NextHop> {
    let route: Option<&Route> = match address {
        IpAddr::V4(v4) => (0..=32)
            .rev()
            .find_map(|length| tables.routes4.get(&(length, masked(v4.octets(), length)))),
        IpAddr::V6(v6) => (0..=128)
            .rev()
            .find_map(|length| tables.routes6.get(&(length, masked(v6.octets(), length)))),
    };
    let next_hop = match (route?, address) {
        (
            Route {
                next_hop: 0,
                ifindex: 0,
            },
            _,
        ) => None,
        (
            Route {
                next_hop: 0,
                ifindex,
            },
            IpAddr::V4(v4),
        ) => tables.neighbours4.get(&Neighbour4 {
            address: v4.octets(),
            ifindex: *ifindex,
        }),
        (
            Route {
                next_hop: 0,
                ifindex,
            },
            IpAddr::V6(v6),
        ) => tables.neighbours6.get(&Neighbour6 {
            address: v6.octets(),
            ifindex: *ifindex,
        }),
        (Route { next_hop, .. }, _) => Some(&tables.next_hops[next_hop]),
    };
    next_hop.copied().filter(|next_hop| next_hop.ifindex != 0)
}

fn ready(resolution: Resolution) -> Option<NextHop> {
    if let Resolution::Ready(next_hop) = resolution {
        Some(next_hop)
    } else {
        None
    }
}

fn address() -> impl Strategy<Value = IpAddr> {
    // Few enough that they meet each other.
    let v4 = (0..4_u8, 0..4_u8).prop_map(|(net, host)| IpAddr::from([10, 0, net, host]));
    let v6 = (0..4_u16, 0..4_u16)
        .prop_map(|(net, host)| IpAddr::from([0x2001, 0xdb8, 0, net, 0, 0, 0, host]));
    let odd = prop::sample::select(vec![
        "fe80::1",
        "224.0.0.1",
        "::1",
        "127.0.0.1",
        "8.8.8.8",
        "2001:db9::1",
    ]);
    prop_oneof![8 => v4, 4 => v6, 1 => odd.prop_map(ip)]
}

fn route_entry() -> impl Strategy<Value = RouteEntry> {
    let hop = || {
        (
            prop::option::of(address()),
            prop::option::weighted(0.95, 1..6_u32),
        )
    };
    let kind = prop_oneof![
        10 => Just(RouteKind::Unicast),
        1 => Just(RouteKind::Other),
        1 => Just(RouteKind::Selective { tos: 16, from: None }),
    ];
    let hops =
        prop_oneof![8 => prop::collection::vec(hop(), 1), 1 => prop::collection::vec(hop(), 0..3)];
    (address(), 0..=4_u8, 0..3_u32, hops, kind).prop_map(|(address, step, metric, hops, kind)| {
        let length = if address.is_ipv4() {
            [0, 8, 24, 30, 32]
        } else {
            [0, 32, 64, 126, 128]
        }[usize::from(step)];
        let destination = ipnet::IpNet::new(address, length).unwrap().trunc();
        let hops = hops
            .into_iter()
            .map(|(gateway, ifindex)| Hop { gateway, ifindex })
            .collect();
        RouteEntry {
            destination,
            metric,
            hops,
            kind,
            source: None,
        }
    })
}

fn event() -> impl Strategy<Value = Event> {
    use NeighbourState::{Failed, Incomplete, Permanent, Reachable, Stale};
    let tag = prop::sample::select(vec![VlanProtocol::Dot1q, VlanProtocol::Dot1ad]);
    let kind = prop_oneof![
        3 => Just(LinkKind::Plain),
        2 => (1..6_u32, 0..3_u16, tag).prop_map(|(parent, id, protocol)| LinkKind::Vlan { parent, id, protocol }),
    ];
    let state = prop::sample::select(vec![Reachable, Stale, Incomplete, Failed, Permanent]);
    let placement =
        prop::sample::select(vec![Placement::First, Placement::Last, Placement::Replace]);
    prop_oneof![
        6 => (1..6_u32, prop::bool::weighted(0.8), kind).prop_map(|(ifindex, up, kind)| link_with(ifindex, up, kind)),
        1 => (1..6_u32).prop_map(|ifindex| Event::LinkGone { ifindex }),
        1 => (1..6_u32, address())
            .prop_map(|(ifindex, address)| Event::Address { ifindex, address, prefix_len: 24, as_source: AsSource::Preferred }),
        1 => (1..6_u32, address()).prop_map(|(ifindex, address)| Event::AddressGone { ifindex, address }),
        9 => (route_entry(), placement).prop_map(|(route, placement)| Event::Route(route, placement)),
        2 => route_entry().prop_map(Event::RouteGone),
        9 => (1..6_u32, address(), 0..9_u8, state).prop_map(|(ifindex, address, last, state)| {
            Event::Neighbour { ifindex, address, mac: (last != 0).then(|| mac(last)), state }
        }),
        2 => (1..6_u32, address()).prop_map(|(ifindex, address)| Event::NeighbourGone { ifindex, address }),
        1 => Just(Event::Resync),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tables_say_what_resolve_says(
        events in prop::collection::vec(event(), 0..60),
        wanted in prop::collection::vec(address(), 0..3),
        questions in prop::collection::vec(address(), 30),
    ) {
        let mut network = Network::new();
        network.configure(&[(1, 0), (2, 1), (3, 2)]);
        network.want(wanted);
        for event in events {
            network.apply(event);
        }
        let tables = network.tables();
        prop_assert!(tables.overflow.is_none());
        for address in questions {
            prop_assert_eq!(lookup(&tables, address), ready(network.resolve(address)), "{}", address);
        }
    }

    /// The tables need only be looked at after events that are told to be news.
    #[test]
    fn what_is_no_news_changes_nothing(
        events in prop::collection::vec(event(), 0..60),
        wanted in prop::collection::vec(address(), 0..3),
    ) {
        let mut network = Network::new();
        network.configure(&[(1, 0), (2, 1), (3, 2)]);
        network.want(wanted);
        let mut before = network.tables();
        for event in events {
            network.apply(event.clone());
            let tables = network.tables();
            if !network.take_change() {
                prop_assert_eq!(&tables, &before, "{:?}", event);
            }
            before = tables;
        }
    }

    /// What finds no room goes to the kernel, never another way; and exactly that much is reported.
    #[test]
    fn overfull_tables_send_nothing_astray(
        events in prop::collection::vec(event(), 0..90),
        routes in 0..12_usize,
        next_hops in 1..4_u32,
        neighbours in 0..6_usize,
        questions in prop::collection::vec(address(), 30),
    ) {
        let configure = |mut network: Network| {
            network.configure(&[(1, 0), (2, 1), (3, 2)]);
            events.iter().for_each(|event| network.apply(event.clone()));
            network
        };
        let mut small = configure(Network::with_limits(Limits { routes, next_hops, neighbours }));
        let small = small.tables();
        let mut network = configure(Network::new());
        let whole = network.tables();
        for address in questions {
            if let Some(next_hop) = lookup(&small, address) {
                prop_assert_eq!(Some(next_hop), ready(network.resolve(address)), "{}", address);
            }
        }
        prop_assert_eq!(small.overflow.routes4, whole.routes4.len().saturating_sub(routes));
        prop_assert_eq!(small.overflow.routes6, whole.routes6.len().saturating_sub(routes));
        prop_assert_eq!(small.overflow.next_hops, whole.next_hops.len().saturating_sub(next_hops as usize - 1));
        prop_assert_eq!(small.overflow.neighbours4, whole.neighbours4.len().saturating_sub(neighbours));
        prop_assert_eq!(small.overflow.neighbours6, whole.neighbours6.len().saturating_sub(neighbours));
        prop_assert!(small.routes4.len() <= routes && small.routes6.len() <= routes);
        prop_assert!(small.next_hops.keys().all(|id| (1..next_hops).contains(id)));
    }
}
