//! The part of the tables that follows the network: next hops, routes, interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use xdp_ebpf::layout::{Destination, NextHop, limits, own_mac};

use super::diff::diff;
use super::tables::{Tables, Write, destination_address};
use crate::next_hop::{ForwardingTables, Left, Network, Resolution};

/// What the network looks like at one moment.
#[derive(Clone, Debug, Default)]
pub struct NetworkView {
    /// Contents of the forwarding maps.
    pub forwarding: ForwardingTables,
    /// Where packets to each real server go. One that is not here keeps the next hop it has.
    pub resolutions: BTreeMap<IpAddr, Resolution>,
    /// Egress slot → interface index.
    pub interfaces: BTreeMap<u32, u32>,
    /// Contents of `OWN_MACS`.
    pub own_macs: BTreeMap<u32, u64>,
    /// The node's own IPv4 address, or zeroes.
    pub own4: [u8; 4],
    /// The node's own IPv6 address, or zeroes.
    pub own6: [u8; 16],
}

impl NetworkView {
    /// Asks the network for everything that the tables need of it. `interfaces` are the ones it was configured with.
    pub fn of(
        network: &mut Network,
        real_servers: &BTreeSet<IpAddr>,
        interfaces: &BTreeMap<u32, u32>,
    ) -> Self {
        let own4 = match network.own_address(true) {
            Some(IpAddr::V4(address)) => address.octets(),
            _ => [0; 4],
        };
        let own6 = match network.own_address(false) {
            Some(IpAddr::V6(address)) => address.octets(),
            _ => [0; 16],
        };
        Self {
            forwarding: network.tables(),
            resolutions: real_servers
                .iter()
                .map(|address| (*address, network.resolve(*address)))
                .collect(),
            interfaces: interfaces.clone(),
            own_macs: own_macs(network.macs()),
            own4,
            own6,
        }
    }

    /// Whether a real server is this node, by an address of its own.
    #[must_use]
    pub fn is_own(&self, real_server: IpAddr) -> bool {
        self.resolutions.get(&real_server) == Some(&Resolution::Kernel(Left::Own))
    }

    /// All real servers that are.
    #[must_use]
    pub fn own_real_servers(&self) -> BTreeSet<IpAddr> {
        let all = self.resolutions.keys().copied();
        all.filter(|address| self.is_own(*address)).collect()
    }
}

/// The writes that bring the tables in line with the network. All else in them is neither copied nor looked at.
#[must_use]
pub fn follow(current: &Tables, view: &NetworkView) -> Vec<Write> {
    let mut before = Tables {
        settings: current.settings,
        routes4: current.routes4.clone(),
        routes6: current.routes6.clone(),
        next_hops: current.next_hops.clone(),
        neighbours4: current.neighbours4.clone(),
        neighbours6: current.neighbours6.clone(),
        interfaces: current.interfaces.clone(),
        egress: current.egress.clone(),
        own_macs: current.own_macs.clone(),
        ..Tables::default()
    };
    let mut after = before.clone();
    refresh(&mut after, view);
    for (id, record) in &current.destinations {
        let next_hop = next_hop(record, view);
        if next_hop != record.next_hop {
            before.destinations.insert(*id, *record);
            after.destinations.insert(
                *id,
                Destination {
                    next_hop,
                    ..*record
                },
            );
        }
    }
    diff(&before, &after)
}

/// Brings the tables in line with the network, and touches nothing else.
pub fn refresh(tables: &mut Tables, view: &NetworkView) {
    let forwarding = &view.forwarding;
    tables.routes4.clone_from(&forwarding.routes4);
    tables.routes6.clone_from(&forwarding.routes6);
    tables.next_hops.clone_from(&forwarding.next_hops);
    tables.neighbours4.clone_from(&forwarding.neighbours4);
    tables.neighbours6.clone_from(&forwarding.neighbours6);
    tables.interfaces.clone_from(&view.interfaces);
    tables.egress = view
        .interfaces
        .iter()
        .map(|(slot, ifindex)| (*ifindex, *slot))
        .collect();
    tables.own_macs.clone_from(&view.own_macs);
    tables.settings.own4 = view.own4;
    tables.settings.own6 = view.own6;
    for record in tables.destinations.values_mut() {
        record.next_hop = next_hop(record, view);
    }
}

/// What the packet path knows the node's MAC addresses by. Those of all links, not only of the interfaces that it is
/// attached to: frames for a bridge, a bond, a VLAN or a macvlan device (a virtual router's MAC address, RFC 5798) come
/// in by the one below.
fn own_macs(macs: impl Iterator<Item = [u8; 6]>) -> BTreeMap<u32, u64> {
    let mut words: BTreeMap<u32, u64> = (0..own_mac::ENTRIES)
        .map(|last_byte| (last_byte, own_mac::NONE))
        .collect();
    for word in macs.map(own_mac::only) {
        let known = words.entry(own_mac::index(word)).or_default();
        *known = if *known == own_mac::NONE || *known == word {
            word
        } else {
            own_mac::ANY
        };
    }
    words.retain(|_, word| *word != own_mac::ANY);
    words
}

fn next_hop(record: &Destination, view: &NetworkView) -> NextHop {
    match view.resolutions.get(&destination_address(record)) {
        Some(Resolution::Ready(next_hop)) => *next_hop,
        // The neighbour is asked for all the time; until it answers, its last known address is the best guess, and
        // under direct routing the only one: the kernel could not deliver such a packet.
        Some(Resolution::Unresolved { .. }) | None => {
            let known = record.next_hop;
            let still_ours = view.interfaces.get(&u32::from(known.egress)) == Some(&known.ifindex);
            if still_ours {
                known
            } else {
                NextHop::default()
            }
        }
        Some(Resolution::NoRoute | Resolution::NotOurs { .. } | Resolution::Kernel(_)) => {
            NextHop::default()
        }
    }
}

/// Gives each interface an egress slot. One that has a slot keeps it, and slots in use by interfaces that go are
/// given out last: a packet under way may still name them.
///
/// Interfaces beyond [`limits::INTERFACES`] get none; the configuration refuses so many.
#[must_use]
pub fn assign_slots(current: &BTreeMap<u32, u32>, interfaces: &[u32]) -> BTreeMap<u32, u32> {
    let mut slots: BTreeMap<u32, u32> = current
        .iter()
        .filter(|(_, ifindex)| interfaces.contains(ifindex))
        .map(|(slot, ifindex)| (*slot, *ifindex))
        .collect();
    // An interface that stands in two slots keeps the first.
    let mut seen = BTreeSet::new();
    slots.retain(|_, ifindex| seen.insert(*ifindex));
    for ifindex in interfaces {
        if seen.insert(*ifindex) {
            let unused = (0..limits::INTERFACES)
                .find(|slot| !slots.contains_key(slot) && !current.contains_key(slot));
            let slot =
                unused.or_else(|| (0..limits::INTERFACES).find(|slot| !slots.contains_key(slot)));
            if let Some(slot) = slot {
                slots.insert(slot, *ifindex);
            }
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_mac_addresses() {
        let mac = |first: u8, last: u8| [first, 0, 0, 0, 0, last];
        let (one, two) = (own_mac::only(mac(2, 1)), own_mac::only(mac(2, 2)));
        // (addresses, words for the last bytes 0, 1 and 2; `None`: any)
        type Case = (&'static [(u8, u8)], [Option<u64>; 3], &'static str);
        const NONE: Option<u64> = Some(own_mac::NONE);
        let cases: [Case; 6] = [
            (&[], [NONE; 3], "no link"),
            (&[(2, 1)], [NONE, Some(one), NONE], "one"),
            (&[(2, 1), (2, 2)], [NONE, Some(one), Some(two)], "two"),
            (
                &[(2, 1), (2, 1)],
                [NONE, Some(one), NONE],
                "a VLAN device on it",
            ),
            (&[(2, 1), (6, 1)], [NONE, None, NONE], "two that end alike"),
            (
                &[(2, 1), (6, 1), (2, 1)],
                [NONE, None, NONE],
                "and one again",
            ),
        ];
        for (macs, expected, what) in cases {
            let words = own_macs(macs.iter().map(|(first, last)| mac(*first, *last)));
            let found = [0, 1, 2].map(|last_byte| words.get(&last_byte).copied());
            assert_eq!(found, expected, "{what}");
        }
    }

    #[test]
    fn interfaces_keep_their_slots() {
        type Slots = &'static [(u32, u32)];
        // (current slots, interfaces, slots afterwards, what happens)
        let cases: [(Slots, &[u32], Slots, &str); 6] = [
            (&[], &[7, 9], &[(0, 7), (1, 9)], "a first start"),
            (
                &[(0, 7), (1, 9)],
                &[9, 7],
                &[(0, 7), (1, 9)],
                "another order",
            ),
            (&[(0, 7), (1, 9)], &[9], &[(1, 9)], "one goes"),
            (
                &[(0, 7), (1, 9)],
                &[9, 11],
                &[(1, 9), (2, 11)],
                "one goes and another comes",
            ),
            (&[(0, 7), (1, 7)], &[7], &[(0, 7)], "one in two slots"),
            (&[(5, 7)], &[7, 8], &[(0, 8), (5, 7)], "a gap"),
        ];
        for (current, interfaces, expected, what) in cases {
            let slots = assign_slots(&current.iter().copied().collect(), interfaces);
            assert_eq!(slots, expected.iter().copied().collect(), "{what}");
        }
    }
}
