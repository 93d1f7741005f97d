//! A network as a table of events, questions as rows.

mod decode;
mod model;
mod probe;
mod resolve;

use std::net::IpAddr;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn mac(last: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, last]
}

fn link(ifindex: u32) -> Event {
    link_with(ifindex, true, LinkKind::Plain)
}

fn link_with(ifindex: u32, up: bool, kind: LinkKind) -> Event {
    let last = u8::try_from(ifindex).unwrap();
    Event::Link(Link {
        ifindex,
        name: format!("eth{ifindex}"),
        mac: mac(last),
        mtu: 1500,
        up,
        kind,
    })
}

fn vlan(ifindex: u32, parent: u32, id: u16, protocol: VlanProtocol) -> Event {
    link_with(
        ifindex,
        true,
        LinkKind::Vlan {
            parent,
            id,
            protocol,
        },
    )
}

fn own(ifindex: u32, address: &str) -> Event {
    let net: ipnet::IpNet = address.parse().unwrap();
    Event::Address {
        ifindex,
        address: net.addr(),
        prefix_len: net.prefix_len(),
        as_source: AsSource::Preferred,
    }
}

fn neighbour(ifindex: u32, address: &str, last: u8, state: NeighbourState) -> Event {
    Event::Neighbour {
        ifindex,
        address: ip(address),
        mac: (last != 0).then(|| mac(last)),
        state,
    }
}

/// Written as `ip route` does: a kind, a prefix, then `via ADDRESS`, `dev IFINDEX`, `metric N`, `src ADDRESS`,
/// `tos N`; a further `nexthop` begins another next hop.
fn entry(text: &str) -> RouteEntry {
    let mut words = text.split_whitespace();
    let mut route = RouteEntry {
        destination: "0.0.0.0/0".parse().unwrap(),
        metric: 0,
        hops: Vec::new(),
        kind: RouteKind::Unicast,
        source: None,
    };
    let mut hop = Hop {
        gateway: None,
        ifindex: None,
    };
    while let Some(word) = words.next() {
        match word {
            "blackhole" => route.kind = RouteKind::Other,
            "via" => hop.gateway = Some(ip(words.next().unwrap())),
            "dev" => hop.ifindex = Some(words.next().unwrap().parse().unwrap()),
            "metric" => route.metric = words.next().unwrap().parse().unwrap(),
            "src" => route.source = Some(ip(words.next().unwrap())),
            "tos" => {
                route.kind = RouteKind::Selective {
                    tos: words.next().unwrap().parse().unwrap(),
                    from: None,
                }
            }
            "nexthop" => {
                route.hops.extend(
                    (hop != Hop {
                        gateway: None,
                        ifindex: None,
                    })
                    .then_some(hop),
                );
                hop = Hop {
                    gateway: None,
                    ifindex: None,
                };
            }
            prefix => route.destination = prefix.parse().unwrap(),
        }
    }
    route.hops.extend(
        (hop != Hop {
            gateway: None,
            ifindex: None,
        })
        .then_some(hop),
    );
    route
}

fn route(text: &str) -> Event {
    Event::Route(entry(text), Placement::Last)
}

fn network(events: impl IntoIterator<Item = Event>) -> Network {
    let mut network = Network::new();
    network.configure(&[(2, 0), (3, 7)]);
    events.into_iter().for_each(|event| network.apply(event));
    network
}

/// Two interfaces of ours (2, 3), a foreign one (9), and VLAN devices on 2.
fn node() -> Vec<Event> {
    use NeighbourState::{Failed, Incomplete, Permanent, Reachable, Stale};
    vec![
        link(2),
        link(3),
        link(9),
        vlan(20, 2, 100, VlanProtocol::Dot1q),
        vlan(21, 2, 200, VlanProtocol::Dot1ad),
        vlan(22, 21, 300, VlanProtocol::Dot1q),
        vlan(23, 20, 300, VlanProtocol::Dot1q),
        vlan(24, 9, 100, VlanProtocol::Dot1q),
        vlan(25, 22, 1, VlanProtocol::Dot1q),
        vlan(26, 2, 0, VlanProtocol::Dot1q),
        own(2, "10.0.2.1/24"),
        own(2, "2001:db8:2::1/64"),
        own(3, "10.0.3.1/24"),
        route("10.0.2.0/24 dev 2"),
        route("10.0.3.0/24 dev 3"),
        route("10.0.9.0/24 dev 9"),
        route("2001:db8:2::/64 dev 2 metric 256"),
        route("fe80::/64 dev 2 metric 256"),
        route("10.20.0.0/24 dev 20"),
        route("10.21.0.0/24 dev 21"),
        route("10.22.0.0/24 dev 22"),
        route("10.23.0.0/24 dev 23"),
        route("10.24.0.0/24 dev 24"),
        route("10.25.0.0/24 dev 25"),
        route("10.26.0.0/24 dev 26"),
        route("0.0.0.0/0 via 10.0.3.254 dev 3"),
        route("::/0 via fe80::1 dev 2 metric 1024"),
        route("192.0.2.0/24 via 10.0.2.253 dev 2 metric 5"),
        route("192.0.2.0/24 via 10.0.3.254 dev 3 metric 9"),
        route("198.51.100.0/24 via fe80::1 dev 2"),
        route("blackhole 203.0.113.0/24"),
        route("203.0.113.128/25 via 10.0.9.254 dev 9"),
        route("203.0.114.0/24 nexthop via 10.0.2.253 dev 2 nexthop via 10.0.3.254 dev 3"),
        route("203.0.115.0/24 via 10.0.2.253 dev 2"),
        route("203.0.115.0/24 via 10.0.3.254 dev 3 tos 16"),
        neighbour(2, "10.0.2.10", 10, Reachable),
        neighbour(2, "10.0.2.11", 11, Stale),
        neighbour(2, "10.0.2.12", 0, Failed),
        neighbour(2, "10.0.2.13", 0, Incomplete),
        neighbour(2, "10.0.2.14", 14, Permanent),
        neighbour(2, "2001:db8:2::10", 16, Reachable),
        neighbour(3, "10.0.3.254", 254, Reachable),
        neighbour(2, "10.0.2.253", 253, Reachable),
        neighbour(2, "fe80::1", 61, Reachable),
        neighbour(20, "10.20.0.5", 25, Reachable),
        neighbour(21, "10.21.0.5", 26, Reachable),
        neighbour(22, "10.22.0.5", 27, Reachable),
        neighbour(9, "10.0.9.5", 95, Reachable),
    ]
}
