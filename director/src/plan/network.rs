//! The part of the tables that follows the network: next hops, routes, interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use xdp_ebpf::layout::{Destination, NextHop, limits};

use super::tables::{Tables, destination_address};
use crate::next_hop::{ForwardingTables, Network, Resolution};

/// What the network looks like at one moment.
#[derive(Clone, Debug, Default)]
pub struct NetworkView {
    /// Contents of the forwarding maps.
    pub forwarding: ForwardingTables,
    /// Where packets to each real server go. One that is not here keeps the next hop it has.
    pub resolutions: BTreeMap<IpAddr, Resolution>,
    /// Egress slot → interface index.
    pub interfaces: BTreeMap<u32, u32>,
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
            own4,
            own6,
        }
    }
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
    tables.settings.own4 = view.own4;
    tables.settings.own6 = view.own6;
    for record in tables.destinations.values_mut() {
        record.next_hop = next_hop(record, view);
    }
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
