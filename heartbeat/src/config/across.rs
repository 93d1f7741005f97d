//! What is right by itself but not with the rest.

use ipnet::IpNet;

use super::error::Place;
use super::file::File;
use super::limits;
use super::model::{Config, Link, LinkKind, UdpTo};
use super::resolve::Resolver;
use crate::wire::message::{self, NameId};

/// Priority of the owner of the addresses (RFC 9568 section 5.2.4).
const OWNER: u8 = 255;
/// Frames on a serial line are longer than the message by so much at most, in percent.
const FRAMING: u64 = 10;
/// So much of the line's time may be used, in percent: the rest is for what is sent at once when something changes.
const LINE_USED: u64 = 80;

pub(super) fn check(config: &Config, file: &File, to: &mut Resolver) {
    let place_of_group = |index: usize| {
        let groups = file.groups.0.as_ref().map(|groups| &groups.value);
        groups
            .and_then(|groups| groups.get(index))
            .map(|group| group.place)
            .unwrap_or_default()
    };
    let place_of_vrid = |index: usize| {
        let groups = file.groups.0.as_ref().map(|groups| &groups.value);
        let group = groups.and_then(|groups| groups.get(index));
        group.map_or_else(Place::default, |it| it.value.vrid.place_or(it.place))
    };
    let place_of_link = |index: usize| {
        let links = file.links.0.as_ref().map(|links| &links.value);
        links
            .and_then(|links| links.get(index))
            .map(|link| link.place)
            .unwrap_or_default()
    };
    nodes(config, file, to);
    let named = config.groups.iter().enumerate();
    names(
        named.map(|(index, group)| (group.name.as_str(), place_of_group(index))),
        "groups",
        to,
    );
    let has_vrrp = config
        .links
        .iter()
        .any(|link| matches!(link.kind, LinkKind::Vrrp(_)));
    for (index, group) in config.groups.iter().enumerate() {
        to.below(&format!("groups[{index}]"), |to| {
            let place = place_of_group(index);
            if group.vrid.is_some() && !has_vrrp {
                to.below("vrid", |to| {
                    to.wrong(
                        place_of_vrid(index),
                        "there is no VRRP link",
                        "a link with the key vrrp, or no vrid",
                    )
                });
            }
            let earlier = &config.groups[..index];
            if let Some(other) = earlier
                .iter()
                .find(|other| other.vrid.is_some() && other.vrid == group.vrid)
            {
                let message = format!("the group {} has it too", other.name);
                to.below("vrid", |to| {
                    to.wrong(
                        place_of_vrid(index),
                        message,
                        "another number for each group",
                    )
                });
            }
            let is_owner = group.priorities.values().any(|priority| *priority == OWNER);
            if is_owner && (config.has_own_links() || group.vrid.is_none()) {
                let message = "255 stands for the owner of the addresses, which asks nobody";
                to.below("priority", |to| {
                    to.wrong(place, message, "at most 254 where nodes send heartbeats")
                });
            }
            for (position, address) in group.addresses.iter().enumerate() {
                let mut own = group.addresses[..position].iter();
                if own.any(|other| other.addr() == address.addr()) {
                    let message = format!("{} stands here twice", address.addr());
                    to.below("addresses", |to| {
                        to.wrong(place, message, "every address once")
                    });
                }
                if let Some(link) = config.links.iter().find(|link| has_peer(link, address)) {
                    let message = format!(
                        "{} is a node's own: heartbeats of the link {} go there",
                        address.addr(),
                        link.name
                    );
                    to.below("addresses", |to| {
                        to.wrong(place, message, "an address that no node has of itself")
                    });
                }
                let mut others = earlier.iter().flat_map(|other| &other.addresses);
                if others.any(|other| other.addr() == address.addr()) {
                    let message = format!("{} is in another group too", address.addr());
                    to.below("addresses", |to| {
                        to.wrong(place, message, "every address once")
                    });
                }
            }
        });
    }
    for (index, link) in config.links.iter().enumerate() {
        to.below(&format!("links[{index}]"), |to| match &link.kind {
            LinkKind::Vrrp(_) if config.groups.iter().all(|group| group.vrid.is_none()) => {
                to.wrong(
                    place_of_link(index),
                    "no group has a vrid",
                    "a vrid in a group, or no VRRP link",
                );
            }
            LinkKind::Serial(serial) => {
                let longest =
                    message::length(config.groups.len(), config.nodes.len(), message::ADDRESSES)
                        as u64;
                // Ten bits a byte, with start and stop bit.
                let bits = longest * (100 + FRAMING) / 100 * 10;
                let needed = bits * 1000 * 100
                    / LINE_USED
                    / (config.timing.keepalive.as_millis() as u64).max(1);
                if needed > u64::from(serial.baud) {
                    let message = format!(
                        "{} baud are too slow for these heartbeats and keepalive",
                        serial.baud
                    );
                    to.wrong(
                        place_of_link(index),
                        message,
                        format!("at least {needed} baud, or a longer keepalive"),
                    );
                }
            }
            LinkKind::Udp(_) | LinkKind::Vrrp(_) => {}
        });
        // Names have all that two of them need to be told apart: what else differs would have them hear each other.
        if let Some(other) = config.links[..index]
            .iter()
            .find(|other| other.name == link.name)
        {
            let (message, expected) = if other.kind == link.kind {
                ("this link stands here twice".to_owned(), "every link once")
            } else {
                let message = format!("{} is a link already, and would hear this one", other.name);
                (
                    message,
                    "one link for all peers, or another interface, port, device or version",
                )
            };
            to.below(&format!("links[{index}]"), |to| {
                to.wrong(place_of_link(index), message, expected)
            });
        }
    }
}

/// Whether a link sends to this address.
fn has_peer(link: &Link, address: &IpNet) -> bool {
    let peers = match &link.kind {
        LinkKind::Udp(udp) => match &udp.to {
            UdpTo::Unicast(peers) => peers.as_slice(),
            UdpTo::Multicast(_) | UdpTo::Broadcast => &[],
        },
        LinkKind::Vrrp(vrrp) => vrrp.peers.as_slice(),
        LinkKind::Serial(_) => &[],
    };
    peers.contains(&address.addr())
}

fn nodes(config: &Config, file: &File, to: &mut Resolver) {
    let groups = file.groups.0.as_ref();
    let place_of_groups = groups.map(|it| it.place).unwrap_or_default();
    let named = config.nodes.iter();
    names(
        named.map(|name| (name.as_str(), place_of_groups)),
        "nodes",
        to,
    );
    if config.nodes.len() > limits::NODES.maximum {
        let message = format!("{} nodes stand in the priorities", config.nodes.len());
        to.below("groups", |to| {
            to.wrong(
                place_of_groups,
                message,
                format!("at most {}", limits::NODES.maximum),
            )
        });
    }
    if !config.nodes.contains(&config.node) {
        let message = format!("this node, {}, stands in no group's priority", config.node);
        let expected = format!("one of {}, or a priority for it", config.nodes.join(", "));
        let place = file.node.place_or(place_of_groups);
        to.below("node", |to| to.wrong(place, message, expected));
    }
    if config.has_own_links() && config.nodes.len() < 2 {
        let message = "heartbeats are sent, but no other node stands in any group's priority";
        to.below("groups", |to| {
            to.wrong(
                place_of_groups,
                message,
                "a priority for each node, like { lb1: 150, lb2: 100 }",
            )
        });
    }
}

/// Names are told by 32 bits between nodes: two that collide are refused, as are two that are the same.
fn names<'a>(names: impl Iterator<Item = (&'a str, Place)>, what: &str, to: &mut Resolver) {
    let mut seen: Vec<(NameId, &str)> = Vec::new();
    for (name, place) in names {
        let id = NameId::of(name);
        if let Some((_, other)) = seen.iter().find(|(other, _)| *other == id) {
            let message = if *other == name {
                format!("the name {name} stands here twice")
            } else {
                format!("the names {other} and {name} cannot be told apart in heartbeats")
            };
            to.below(what, |to| to.wrong(place, message, "another name for each"));
        }
        seen.push((id, name));
    }
}
