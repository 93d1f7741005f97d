//! The kernel's messages (`rtnetlink(7)`) as [`Event`]s.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_MULTIPART, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as Nud,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::event::{
    AsSource, Event, Hop, Link, LinkKind, NeighbourState, Placement, RouteEntry, RouteKind,
    VlanProtocol,
};

/// The event that a message stands for, if it concerns us. `flags` are those of its netlink header.
pub(super) fn event(message: &RouteNetlinkMessage, flags: u16) -> Option<Event> {
    match message {
        RouteNetlinkMessage::NewLink(message) => link(message),
        // A message of another family says that a bridge port or an IPv6 setting is gone, not the link.
        RouteNetlinkMessage::DelLink(message) => {
            let ifindex = message.header.index;
            (message.header.interface_family == AddressFamily::Unspec)
                .then_some(Event::LinkGone { ifindex })
        }
        RouteNetlinkMessage::NewAddress(message) => {
            let address = own_address(message)?;
            let ifindex = message.header.index;
            let as_source = as_source(message);
            Some(Event::Address {
                ifindex,
                address,
                prefix_len: message.header.prefix_len,
                as_source,
            })
        }
        RouteNetlinkMessage::DelAddress(message) => Some(Event::AddressGone {
            ifindex: message.header.index,
            address: own_address(message)?,
        }),
        RouteNetlinkMessage::NewRoute(message) => {
            let placement = match flags {
                _ if flags & NLM_F_MULTIPART != 0 => Placement::Last,
                _ if flags & NLM_F_REPLACE != 0 => Placement::Replace,
                _ if flags & NLM_F_APPEND != 0 => Placement::Last,
                _ => Placement::First,
            };
            Some(Event::Route(route(message)?, placement))
        }
        RouteNetlinkMessage::DelRoute(message) => Some(Event::RouteGone(route(message)?)),
        RouteNetlinkMessage::NewNeighbour(message) => neighbour(message, false),
        RouteNetlinkMessage::DelNeighbour(message) => neighbour(message, true),
        _ => None,
    }
}

fn link(message: &LinkMessage) -> Option<Event> {
    // Bridge ports and IPv6 settings are told under the same type, without most attributes.
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let (mut name, mut mac, mut mtu, mut parent, mut other_namespace, mut vlan) =
        (None, None, None, None, false, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Address(value) => mac = <[u8; 6]>::try_from(value.as_slice()).ok(),
            LinkAttribute::Mtu(value) => mtu = Some(*value),
            LinkAttribute::Link(value) => parent = Some(*value),
            // The parent's index is one of another network namespace.
            LinkAttribute::LinkNetNsId(_) => other_namespace = true,
            LinkAttribute::LinkInfo(infos) => {
                vlan = infos.iter().find_map(|info| match info {
                    LinkInfo::Data(InfoData::Vlan(infos)) => Some(vlan_tag(infos)),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let kind = match (vlan.flatten(), parent) {
        (Some((id, protocol)), Some(parent)) if !other_namespace => LinkKind::Vlan {
            parent,
            id,
            protocol,
        },
        _ => LinkKind::Plain,
    };
    Some(Event::Link(Link {
        ifindex: message.header.index,
        name: name?,
        mac: mac.unwrap_or_default(),
        // Some wireless events carry nothing but a name.
        mtu: mtu?,
        up: message
            .header
            .flags
            .contains(LinkFlags::Up | LinkFlags::Running),
        kind,
    }))
}

fn vlan_tag(infos: &[InfoVlan]) -> Option<(u16, VlanProtocol)> {
    use netlink_packet_route::link::VlanProtocol as Wire;
    let id = infos.iter().find_map(|info| {
        if let InfoVlan::Id(id) = info {
            Some(*id)
        } else {
            None
        }
    })?;
    let protocol = infos.iter().find_map(|info| match info {
        InfoVlan::Protocol(Wire::Ieee8021Ad) => Some(VlanProtocol::Dot1ad),
        InfoVlan::Protocol(_) => Some(VlanProtocol::Dot1q),
        _ => None,
    });
    Some((id, protocol.unwrap_or(VlanProtocol::Dot1q)))
}

/// On a point-to-point link the address is the peer's and the local one is ours.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let find = |local: bool| {
        message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(address) if local => Some(*address),
                AddressAttribute::Address(address) if !local => Some(*address),
                _ => None,
            })
    };
    find(true).or_else(|| find(false))
}

fn as_source(message: &AddressMessage) -> AsSource {
    let long = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
    let is = |short: AddressHeaderFlags, flag: AddressFlags| {
        message.header.flags.intersects(short) || long.is_some_and(|flags| flags.intersects(flag))
    };
    let unsure = AddressHeaderFlags::Dadfailed | AddressHeaderFlags::Tentative;
    let long_unsure = AddressFlags::Dadfailed | AddressFlags::Tentative;
    if is(unsure, long_unsure) {
        AsSource::Never
    } else if is(AddressHeaderFlags::Deprecated, AddressFlags::Deprecated) {
        AsSource::Deprecated
    } else {
        AsSource::Preferred
    }
}

fn route(message: &RouteMessage) -> Option<RouteEntry> {
    let header = &message.header;
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    // A cached route is the kernel's note about one address (a redirect, a path MTU), not an entry of the table.
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let (mut destination, mut metric, mut source, mut from) = (any, 0, None, None);
    let (mut table, mut encapsulated) = (u32::from(header.table), false);
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(value) => table = *value,
            RouteAttribute::Destination(value) => destination = ip(value)?,
            RouteAttribute::Source(value) => from = ip(value),
            RouteAttribute::PrefSource(value) => source = ip(value),
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) => encapsulated = true,
            RouteAttribute::MultiPath(next_hops) => {
                for next_hop in next_hops {
                    encapsulated |= next_hop.attributes.iter().any(|attribute| {
                        matches!(
                            attribute,
                            RouteAttribute::Encap(_) | RouteAttribute::EncapType(_)
                        )
                    });
                    hops.push(Hop {
                        gateway: gateway(&next_hop.attributes),
                        ifindex: Some(next_hop.interface_index).filter(|ifindex| *ifindex != 0),
                    });
                }
            }
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    if hops.is_empty() {
        let ifindex = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Oif(ifindex) => Some(*ifindex),
                _ => None,
            });
        let gateway = gateway(&message.attributes);
        if ifindex.is_some() || gateway.is_some() {
            hops.push(Hop { gateway, ifindex });
        }
    }
    // The first IPv6 sibling's interface also stands outside the list; an IPv6 refusing route has loopback's.
    let kind = match header.kind {
        _ if header.tos != 0 || header.source_prefix_length != 0 => RouteKind::Selective {
            tos: header.tos,
            from: from.and_then(|from| IpNet::new(from, header.source_prefix_length).ok()),
        },
        RouteType::Unicast if !encapsulated => RouteKind::Unicast,
        _ => RouteKind::Other,
    };
    let destination = IpNet::new(destination, header.destination_prefix_length)
        .ok()?
        .trunc();
    Some(RouteEntry {
        destination,
        metric,
        hops,
        kind,
        source,
    })
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn neighbour(message: &NeighbourMessage, gone: bool) -> Option<Event> {
    let header = &message.header;
    // Bridges tell their forwarding tables under the same type; an entry for proxy ARP says nothing of a neighbour.
    if !matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6)
        || header.flags.contains(NeighbourFlags::Proxy)
    {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(value)) => {
                address = Some(IpAddr::from(*value))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(value)) => {
                address = Some(IpAddr::from(*value))
            }
            NeighbourAttribute::LinkLayerAddress(value) => {
                mac = <[u8; 6]>::try_from(value.as_slice()).ok()
            }
            _ => {}
        }
    }
    let (ifindex, address) = (header.ifindex, address?);
    if address.is_multicast() {
        return None;
    }
    if gone {
        return Some(Event::NeighbourGone { ifindex, address });
    }
    let state = match header.state {
        Nud::Reachable => NeighbourState::Reachable,
        Nud::Stale | Nud::Delay | Nud::Probe => NeighbourState::Stale,
        Nud::Failed => NeighbourState::Failed,
        Nud::Permanent | Nud::Noarp => NeighbourState::Permanent,
        // An address that stands in an unfinished entry is not known to hold.
        _ => NeighbourState::Incomplete,
    };
    let known = !matches!(state, NeighbourState::Incomplete | NeighbourState::Failed);
    let mac = mac.filter(|mac| known && *mac != [0; 6]);
    Some(Event::Neighbour {
        ifindex,
        address,
        mac,
        state,
    })
}
