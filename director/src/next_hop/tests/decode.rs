//! The kernel's messages, built attribute by attribute.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_MULTIPART, NLM_F_REPLACE};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as Nud,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::super::decode;
use super::*;

fn route_message(
    length: u8,
    attributes: Vec<RouteAttribute>,
    change: fn(&mut RouteMessage),
) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = 254;
    message.header.kind = RouteType::Unicast;
    message.header.destination_prefix_length = length;
    message.attributes = attributes;
    change(&mut message);
    message
}

#[test]
fn routes() {
    let to = |text: &str| RouteAttribute::Destination(ip(text).into());
    let via = |text: &str| RouteAttribute::Gateway(RouteAddress::from(ip(text)));
    let (oif, metric) = (RouteAttribute::Oif, RouteAttribute::Priority);
    let hop = |ifindex, gateway| {
        let mut hop = RouteNextHop::default();
        hop.interface_index = ifindex;
        hop.attributes.push(gateway);
        hop
    };
    let two = RouteAttribute::MultiPath(vec![hop(2, via("10.0.2.1")), hop(3, via("10.0.3.1"))]);
    let same: fn(&mut RouteMessage) = |_| {};
    for (sentence, message, expected) in [
        (
            "default",
            route_message(0, vec![via("10.0.2.1"), oif(2)], same),
            Some("0.0.0.0/0 via 10.0.2.1 dev 2"),
        ),
        (
            "metric",
            route_message(24, vec![to("10.5.0.0"), oif(2), metric(7)], same),
            Some("10.5.0.0/24 dev 2 metric 7"),
        ),
        (
            "IPv4 via IPv6",
            route_message(
                8,
                vec![
                    to("10.0.0.0"),
                    RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap())),
                    oif(2),
                ],
                same,
            ),
            Some("10.0.0.0/8 via fe80::1 dev 2"),
        ),
        (
            "several",
            route_message(0, vec![two], same),
            Some("0.0.0.0/0 nexthop via 10.0.2.1 dev 2 nexthop via 10.0.3.1 dev 3"),
        ),
        (
            "a next-hop object is told with what it holds",
            route_message(
                0,
                vec![RouteAttribute::NhId(4), via("10.0.2.1"), oif(2)],
                same,
            ),
            Some("0.0.0.0/0 via 10.0.2.1 dev 2"),
        ),
        (
            "or without",
            route_message(0, vec![RouteAttribute::NhId(4)], same),
            Some("0.0.0.0/0"),
        ),
        (
            "blackhole",
            route_message(8, vec![to("10.0.0.0")], |message| {
                message.header.kind = RouteType::BlackHole
            }),
            Some("blackhole 10.0.0.0/8"),
        ),
        (
            "TOS",
            route_message(0, vec![oif(2)], |message| message.header.tos = 16),
            Some("0.0.0.0/0 dev 2 tos 16"),
        ),
        (
            "preferred source",
            route_message(
                0,
                vec![oif(2), RouteAttribute::PrefSource(ip("10.0.2.9").into())],
                same,
            ),
            Some("0.0.0.0/0 dev 2 src 10.0.2.9"),
        ),
        (
            "IPv6",
            route_message(0, vec![oif(2)], |message| {
                message.header.address_family = AddressFamily::Inet6
            }),
            Some("::/0 dev 2"),
        ),
        (
            "local table",
            route_message(0, vec![oif(2)], |message| message.header.table = 255),
            None,
        ),
        (
            "a table above 255",
            route_message(0, vec![oif(2), RouteAttribute::Table(1000)], same),
            None,
        ),
        (
            "cache",
            route_message(0, vec![oif(2)], |message| {
                message.header.flags = RouteFlags::Cloned
            }),
            None,
        ),
        (
            "another family",
            route_message(0, vec![oif(2)], |message| {
                message.header.address_family = AddressFamily::Mpls
            }),
            None,
        ),
    ] {
        let expected = expected.map(entry);
        for (flags, placement) in [
            (0, Placement::First),
            (NLM_F_CREATE, Placement::First),
            (NLM_F_MULTIPART, Placement::Last),
            (NLM_F_APPEND, Placement::Last),
            (NLM_F_REPLACE, Placement::Replace),
        ] {
            let event = decode::event(&RouteNetlinkMessage::NewRoute(message.clone()), flags);
            assert_eq!(
                event,
                expected.clone().map(|route| Event::Route(route, placement)),
                "{sentence} {flags:x}"
            );
        }
        let event = decode::event(&RouteNetlinkMessage::DelRoute(message), 0);
        assert_eq!(event, expected.map(Event::RouteGone), "{sentence}");
    }
}

#[test]
fn links() {
    use netlink_packet_route::link::VlanProtocol as Wire;
    let named = |attributes: Vec<LinkAttribute>| {
        let mut message = LinkMessage::default();
        message.header.index = 5;
        message.header.flags = LinkFlags::Up | LinkFlags::Running;
        message.attributes = vec![
            LinkAttribute::IfName("eth5".into()),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Address(mac(5).to_vec()),
        ];
        message.attributes.extend(attributes);
        message
    };
    let tag = |protocol| {
        let data = vec![InfoVlan::Id(7), InfoVlan::Protocol(protocol)];
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vlan),
            LinkInfo::Data(InfoData::Vlan(data)),
        ])
    };
    let on = |protocol| LinkKind::Vlan {
        parent: 2,
        id: 7,
        protocol,
    };
    let parent = LinkAttribute::Link(2);
    let mut stopped = named(vec![]);
    stopped.header.flags = LinkFlags::Up;
    let mut port = named(vec![]);
    port.header.interface_family = AddressFamily::Bridge;
    let mut bare = named(vec![]);
    bare.attributes.truncate(1);
    for (sentence, message, expected) in [
        ("plain", named(vec![]), Some(link(5))),
        (
            "no carrier",
            stopped,
            Some(link_with(5, false, LinkKind::Plain)),
        ),
        (
            "802.1Q",
            named(vec![parent.clone(), tag(Wire::Ieee8021Q)]),
            Some(link_with(5, true, on(VlanProtocol::Dot1q))),
        ),
        (
            "802.1ad",
            named(vec![tag(Wire::Ieee8021Ad), parent.clone()]),
            Some(link_with(5, true, on(VlanProtocol::Dot1ad))),
        ),
        (
            "a parent in another namespace",
            named(vec![
                parent.clone(),
                tag(Wire::Ieee8021Q),
                LinkAttribute::LinkNetNsId(0),
            ]),
            Some(link(5)),
        ),
        (
            "a veth's peer is no parent",
            named(vec![parent]),
            Some(link(5)),
        ),
        ("a bridge port", port.clone(), None),
        ("a wireless event", bare, None),
    ] {
        assert_eq!(
            decode::event(&RouteNetlinkMessage::NewLink(message), 0),
            expected,
            "{sentence}"
        );
    }
    assert_eq!(
        decode::event(&RouteNetlinkMessage::DelLink(port), 0),
        None,
        "taken out of a bridge"
    );
    let gone = decode::event(&RouteNetlinkMessage::DelLink(named(vec![])), 0);
    assert_eq!(gone, Some(Event::LinkGone { ifindex: 5 }));
}

#[test]
fn neighbours() {
    use NeighbourState::{Failed, Incomplete, Permanent, Reachable, Stale};
    let message = |address: &str, last: Option<u8>, state| {
        let mut message = NeighbourMessage::default();
        message.header.family = if ip(address).is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        message.header.ifindex = 2;
        message.header.state = state;
        message
            .attributes
            .push(NeighbourAttribute::Destination(ip(address).into()));
        message
            .attributes
            .extend(last.map(|last| NeighbourAttribute::LinkLayerAddress(mac(last).to_vec())));
        message
    };
    let mut proxy = message("10.0.2.5", None, Nud::Reachable);
    proxy.header.flags = NeighbourFlags::Proxy;
    let mut bridge = message("10.0.2.5", Some(5), Nud::Reachable);
    bridge.header.family = AddressFamily::Bridge;
    for (sentence, message, expected) in [
        (
            "reachable",
            message("10.0.2.5", Some(5), Nud::Reachable),
            Some(neighbour(2, "10.0.2.5", 5, Reachable)),
        ),
        (
            "IPv6",
            message("fe80::5", Some(5), Nud::Stale),
            Some(neighbour(2, "fe80::5", 5, Stale)),
        ),
        (
            "delay",
            message("10.0.2.5", Some(5), Nud::Delay),
            Some(neighbour(2, "10.0.2.5", 5, Stale)),
        ),
        (
            "probe",
            message("10.0.2.5", Some(5), Nud::Probe),
            Some(neighbour(2, "10.0.2.5", 5, Stale)),
        ),
        (
            "static",
            message("10.0.2.5", Some(5), Nud::Permanent),
            Some(neighbour(2, "10.0.2.5", 5, Permanent)),
        ),
        (
            "failed",
            message("10.0.2.5", None, Nud::Failed),
            Some(neighbour(2, "10.0.2.5", 0, Failed)),
        ),
        (
            "incomplete",
            message("10.0.2.5", Some(9), Nud::Incomplete),
            Some(neighbour(2, "10.0.2.5", 0, Incomplete)),
        ),
        (
            "none",
            message("10.0.2.5", None, Nud::None),
            Some(neighbour(2, "10.0.2.5", 0, Incomplete)),
        ),
        ("multicast", message("ff02::1", Some(5), Nud::Noarp), None),
        ("proxy ARP", proxy, None),
        ("a bridge's forwarding table", bridge, None),
    ] {
        assert_eq!(
            decode::event(&RouteNetlinkMessage::NewNeighbour(message), 0),
            expected,
            "{sentence}"
        );
    }
    let gone = decode::event(
        &RouteNetlinkMessage::DelNeighbour(message("10.0.2.5", None, Nud::Failed)),
        0,
    );
    assert_eq!(
        gone,
        Some(Event::NeighbourGone {
            ifindex: 2,
            address: ip("10.0.2.5")
        })
    );
}
