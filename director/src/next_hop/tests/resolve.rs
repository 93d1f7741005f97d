//! Where packets for an address go, and how that changes.

use xdp_ebpf::layout::NextHop;

use super::*;

/// What a resolution says, in words: `IFINDEX/SLOT MAC [from MAC] [tags]`.
fn said(resolution: Resolution) -> String {
    match resolution {
        Resolution::Ready(NextHop {
            ifindex,
            destination,
            source,
            vlan,
            mtu,
            egress,
        }) => {
            format!(
                "{ifindex}/{egress} to {} from {} tags {vlan:?} mtu {mtu}",
                destination[5], source[5]
            )
        }
        Resolution::Unresolved { ifindex, neighbour } => format!("ask {neighbour} on {ifindex}"),
        Resolution::NoRoute => "no route".into(),
        Resolution::NotOurs { ifindex } => format!("foreign {ifindex}"),
        Resolution::Kernel(left) => format!("kernel: {left:?}"),
    }
}

#[test]
fn every_kind_of_route_resolves() {
    let network = network(node());
    for (address, expected) in [
        ("10.0.2.10", "2/0 to 10 from 2 tags [0, 0] mtu 1500"),
        ("10.0.2.11", "2/0 to 11 from 2 tags [0, 0] mtu 1500"),
        ("10.0.2.12", "ask 10.0.2.12 on 2"),
        ("10.0.2.13", "ask 10.0.2.13 on 2"),
        ("10.0.2.14", "2/0 to 14 from 2 tags [0, 0] mtu 1500"),
        ("10.0.2.99", "ask 10.0.2.99 on 2"),
        ("10.0.2.1", "kernel: Own"),
        ("10.0.9.5", "foreign 9"),
        ("2001:db8:2::10", "2/0 to 16 from 2 tags [0, 0] mtu 1500"),
        ("2001:db8:2::11", "ask 2001:db8:2::11 on 2"),
        ("2001:db8:9::9", "2/0 to 61 from 2 tags [0, 0] mtu 1500"),
        // The lowest metric, not the first one.
        ("192.0.2.1", "2/0 to 253 from 2 tags [0, 0] mtu 1500"),
        // The default route.
        ("8.8.8.8", "3/7 to 254 from 3 tags [0, 0] mtu 1500"),
        // IPv4 by an IPv6 gateway.
        ("198.51.100.1", "2/0 to 61 from 2 tags [0, 0] mtu 1500"),
        ("203.0.113.1", "kernel: NotUnicast"),
        ("203.0.113.129", "foreign 9"),
        ("203.0.114.1", "kernel: SeveralNextHops"),
        ("203.0.115.1", "kernel: Selective"),
        ("10.20.0.5", "2/0 to 25 from 20 tags [0, 100] mtu 1500"),
        ("10.20.0.6", "ask 10.20.0.6 on 20"),
        ("10.22.0.5", "2/0 to 27 from 22 tags [200, 300] mtu 1500"),
        // One 802.1ad tag, an 802.1Q tag outside, three tags, VLAN 0, on a foreign interface.
        ("10.21.0.5", "kernel: VlanTags"),
        ("10.23.0.5", "kernel: VlanTags"),
        ("10.25.0.5", "kernel: VlanTags"),
        ("10.26.0.5", "kernel: VlanTags"),
        ("10.24.0.5", "foreign 24"),
        ("127.0.0.1", "kernel: Scoped"),
        ("224.0.0.1", "kernel: Scoped"),
        ("255.255.255.255", "kernel: Scoped"),
        ("fe80::1", "kernel: Scoped"),
        ("ff02::1", "kernel: Scoped"),
        ("::1", "kernel: Scoped"),
    ] {
        assert_eq!(said(network.resolve(ip(address))), expected, "{address}");
    }
}

#[test]
fn events_change_where_an_address_goes() {
    use NeighbourState::{Failed, Incomplete, Permanent, Reachable};
    use Placement::{First, Last, Replace};
    let gone = |text| Event::RouteGone(entry(text));
    let add = |text, placement| Event::Route(entry(text), placement);
    let link_mtu = |ifindex, mtu| match link(ifindex) {
        Event::Link(link) => Event::Link(Link { mtu, ..link }),
        other => other,
    };
    let down = |ifindex| link_with(ifindex, false, LinkKind::Plain);
    let via254 = "3/7 to 254 from 3 tags [0, 0] mtu 1500";
    let via253 = "2/0 to 253 from 2 tags [0, 0] mtu 1500";
    for (sentence, events, address, expected) in [
        (
            "a route that goes uncovers the next metric",
            vec![gone("192.0.2.0/24 via 10.0.2.253 dev 2 metric 5")],
            "192.0.2.1",
            via254,
        ),
        (
            "when both are gone the default route is left",
            vec![
                gone("192.0.2.0/24 via 10.0.2.253 dev 2 metric 5"),
                gone("192.0.2.0/24 via 10.0.3.254 dev 3 metric 9"),
            ],
            "192.0.2.1",
            via254,
        ),
        (
            "a default route that goes leaves none",
            vec![gone("0.0.0.0/0 via 10.0.3.254 dev 3")],
            "8.8.8.8",
            "no route",
        ),
        (
            "removing what is not there changes nothing",
            vec![
                gone("192.0.2.0/24 via 10.0.2.77 dev 2 metric 5"),
                gone("1.0.0.0/8 dev 2"),
            ],
            "192.0.2.1",
            via253,
        ),
        (
            "replace takes the place of the same metric",
            vec![add("0.0.0.0/0 via 10.0.2.253 dev 2", Replace)],
            "8.8.8.8",
            via253,
        ),
        (
            "what was replaced is gone",
            vec![
                add("0.0.0.0/0 via 10.0.2.253 dev 2", Replace),
                gone("0.0.0.0/0 via 10.0.2.253 dev 2"),
            ],
            "8.8.8.8",
            "no route",
        ),
        (
            "prepend comes before the same metric",
            vec![add("0.0.0.0/0 via 10.0.2.253 dev 2", First)],
            "8.8.8.8",
            via253,
        ),
        (
            "append comes after it",
            vec![add("0.0.0.0/0 via 10.0.2.253 dev 2", Last)],
            "8.8.8.8",
            via254,
        ),
        (
            "a higher metric is not used however it comes",
            vec![add("0.0.0.0/0 via 10.0.2.253 dev 2 metric 1", First)],
            "8.8.8.8",
            via254,
        ),
        (
            "a route told twice goes at once",
            vec![
                add("0.0.0.0/0 via 10.0.3.254 dev 3", First),
                gone("0.0.0.0/0 via 10.0.3.254 dev 3"),
            ],
            "8.8.8.8",
            "no route",
        ),
        (
            "of several next hops one may go",
            vec![gone("203.0.114.0/24 via 10.0.2.253 dev 2")],
            "203.0.114.1",
            via254,
        ),
        (
            "an IPv6 route with the same metric makes two next hops",
            vec![add("::/0 via fe80::2 dev 3 metric 1024", First)],
            "2001:db8:9::9",
            "kernel: SeveralNextHops",
        ),
        (
            "IPv6 siblings are told together, and one may go",
            vec![
                add(
                    "::/0 nexthop via fe80::1 dev 2 nexthop via fe80::2 dev 3 metric 1024",
                    Last,
                ),
                gone("::/0 via fe80::2 dev 3 metric 1024"),
            ],
            "2001:db8:9::9",
            "2/0 to 61 from 2 tags [0, 0] mtu 1500",
        ),
        (
            "a failed neighbour keeps its address",
            vec![
                neighbour(2, "10.0.2.10", 0, Failed),
                neighbour(2, "10.0.2.10", 0, Incomplete),
            ],
            "10.0.2.10",
            "2/0 to 10 from 2 tags [0, 0] mtu 1500",
        ),
        (
            "and takes a new one",
            vec![
                neighbour(2, "10.0.2.10", 0, Failed),
                neighbour(2, "10.0.2.10", 77, Reachable),
            ],
            "10.0.2.10",
            "2/0 to 77 from 2 tags [0, 0] mtu 1500",
        ),
        (
            "a link that goes down takes neighbours with it",
            vec![down(2), link(2)],
            "10.0.2.10",
            "ask 10.0.2.10 on 2",
        ),
        (
            "but not permanent ones",
            vec![neighbour(2, "10.0.2.10", 10, Permanent), down(2), link(2)],
            "10.0.2.10",
            "2/0 to 10 from 2 tags [0, 0] mtu 1500",
        ),
        (
            "nothing is ready on a link that is down",
            vec![down(2)],
            "10.0.2.14",
            "ask 10.0.2.14 on 2",
        ),
        (
            "nor above it",
            vec![down(2)],
            "10.20.0.5",
            "ask 10.20.0.5 on 20",
        ),
        (
            "a link that is gone takes its routes",
            vec![Event::LinkGone { ifindex: 2 }],
            "192.0.2.1",
            via254,
        ),
        (
            "an MTU changes",
            vec![link_mtu(2, 9000)],
            "10.0.2.10",
            "2/0 to 10 from 2 tags [0, 0] mtu 9000",
        ),
        (
            "a VLAN device cannot exceed its parent",
            vec![link_mtu(2, 1400)],
            "10.20.0.5",
            "2/0 to 25 from 20 tags [0, 100] mtu 1400",
        ),
        (
            "an MTU beyond 16 bits",
            vec![link_mtu(2, 65_536)],
            "10.0.2.10",
            "2/0 to 10 from 2 tags [0, 0] mtu 65535",
        ),
        (
            "an address of the node's own stops being one",
            vec![Event::AddressGone {
                ifindex: 2,
                address: ip("10.0.2.1"),
            }],
            "10.0.2.1",
            "ask 10.0.2.1 on 2",
        ),
        (
            "everything forgotten",
            vec![Event::Resync],
            "10.0.2.10",
            "no route",
        ),
    ] {
        let network = network(node().into_iter().chain(events));
        assert_eq!(said(network.resolve(ip(address))), expected, "{sentence}");
    }
}

#[test]
fn neighbours_in_use_outlive_the_kernels_memory() {
    let forgotten = |address| Event::NeighbourGone {
        ifindex: 2,
        address: ip(address),
    };
    let resync = || {
        let dump = node()
            .into_iter()
            .filter(|event| !matches!(event, Event::Neighbour { .. }));
        std::iter::once(Event::Resync).chain(dump)
    };
    for (sentence, wanted, events, address, known) in [
        (
            "nobody needs it",
            None,
            vec![forgotten("10.0.2.10")],
            "10.0.2.10",
            false,
        ),
        (
            "a wanted address",
            Some("10.0.2.10"),
            vec![forgotten("10.0.2.10")],
            "10.0.2.10",
            true,
        ),
        (
            "a gateway",
            None,
            vec![forgotten("10.0.2.253")],
            "192.0.2.1",
            true,
        ),
        (
            "a dump without it, nobody needs it",
            None,
            resync().collect(),
            "10.0.2.10",
            false,
        ),
        (
            "a dump without it, wanted",
            Some("10.0.2.10"),
            resync().collect(),
            "10.0.2.10",
            true,
        ),
    ] {
        let mut network = network(node());
        network.want(wanted.map(ip));
        events.into_iter().for_each(|event| network.apply(event));
        network.tables();
        let ready = matches!(network.resolve(ip(address)), Resolution::Ready(_));
        assert_eq!(ready, known, "{sentence}");
        // And no longer than it is in use.
        network.want([]);
        node().into_iter().for_each(|event| {
            if let Event::Route(route, _) = event {
                network.apply(Event::RouteGone(route));
            }
        });
        network.tables();
        assert!(
            network.neighbours.values().all(|neighbour| !neighbour.gone),
            "{sentence}"
        );
    }
}

#[test]
fn own_addresses_are_chosen() {
    let plain = || {
        vec![
            link(2),
            link(3),
            link(9),
            vlan(20, 3, 5, VlanProtocol::Dot1q),
        ]
    };
    let own_as = |as_source, address: &str| {
        let net: ipnet::IpNet = address.parse().unwrap();
        Event::Address {
            ifindex: 2,
            address: net.addr(),
            prefix_len: net.prefix_len(),
            as_source,
        }
    };
    let deprecated = |address| own_as(AsSource::Deprecated, address);
    for (sentence, events, ipv4, expected) in [
        ("none", vec![], true, None),
        (
            "the first one",
            vec![own(2, "10.0.2.1/24"), own(2, "10.0.2.2/24")],
            true,
            Some("10.0.2.1"),
        ),
        (
            "by slot",
            vec![own(3, "10.0.3.1/24"), own(2, "10.0.2.1/24")],
            true,
            Some("10.0.2.1"),
        ),
        ("another family", vec![own(3, "10.0.3.1/24")], false, None),
        (
            "not a foreign interface's",
            vec![own(9, "10.0.9.1/24")],
            true,
            None,
        ),
        (
            "not link-local",
            vec![own(2, "fe80::1/64"), own(3, "2001:db8::1/64")],
            false,
            Some("2001:db8::1"),
        ),
        (
            "a virtual one last",
            vec![own(2, "10.9.9.9/32"), own(3, "10.0.3.1/24")],
            true,
            Some("10.0.3.1"),
        ),
        (
            "a virtual one at last",
            vec![own(2, "10.9.9.9/32")],
            true,
            Some("10.9.9.9"),
        ),
        (
            "on a VLAN device",
            vec![own(20, "10.20.0.1/24")],
            true,
            Some("10.20.0.1"),
        ),
        (
            "not a tentative one",
            vec![own_as(AsSource::Never, "10.0.2.1/24")],
            true,
            None,
        ),
        (
            "a deprecated one after virtual ones",
            vec![deprecated("2001:db8:2::1/64"), own(3, "2001:db8:3::1/128")],
            false,
            Some("2001:db8:3::1"),
        ),
        (
            "a deprecated one at last",
            vec![
                deprecated("2001:db8:2::2/128"),
                deprecated("2001:db8:2::1/64"),
            ],
            false,
            Some("2001:db8:2::1"),
        ),
    ] {
        let network = network(plain().into_iter().chain(events));
        assert_eq!(network.own_address(ipv4), expected.map(ip), "{sentence}");
    }
    let network = network(
        node()
            .into_iter()
            .chain([route("10.77.0.0/16 dev 3 src 10.0.9.9")]),
    );
    for (address, expected) in [
        ("10.0.3.5", Some("10.0.3.1")),
        ("10.77.0.1", Some("10.0.9.9")),
        ("10.20.0.1", Some("10.0.2.1")),
        ("203.0.113.1", Some("10.0.2.1")),
        ("2001:db8:9::1", Some("2001:db8:2::1")),
    ] {
        assert_eq!(
            network.source_towards(ip(address)),
            expected.map(ip),
            "{address}"
        );
    }
}

#[test]
fn gateway_ids_keep_their_meaning() {
    let mut network = network(node());
    let default = |tables: &ForwardingTables| tables.routes4[&(0, [0; 4])].next_hop;
    let first = network.tables();
    let id = default(&first);
    assert_ne!(id, 0);
    assert_eq!(first.next_hops[&id].destination, mac(254));
    // Others come, sorting before it, and go.
    network.apply(route("1.0.0.0/8 via 10.0.2.2 dev 2"));
    let second = network.tables();
    assert_eq!(default(&second), id);
    let new = second.routes4[&(8, [1, 0, 0, 0])].next_hop;
    assert!(!first.next_hops.contains_key(&new));
    assert_eq!(
        second.next_hops[&new],
        NextHop::default(),
        "not resolved: the kernel's"
    );
    network.apply(Event::RouteGone(entry("1.0.0.0/8 via 10.0.2.2 dev 2")));
    assert_eq!(network.tables(), first);
    // An id that became free is not given out at once.
    network.apply(route("2.0.0.0/8 via 10.0.2.3 dev 2"));
    assert_ne!(network.tables().routes4[&(8, [2, 0, 0, 0])].next_hop, new);
}
