//! The kernel's main routing table, kept in step by the rules of `fib_table_insert` (net/ipv4/fib_trie.c) and
//! `fib6_add_rt2node` (net/ipv6/ip6_fib.c), as far as their notifications tell.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::event::{Hop, Placement, RouteEntry, RouteKind};
use super::network::Left;

/// Routes by prefix; those of one prefix in the order in which the kernel would take them.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes {
    by_prefix: BTreeMap<IpNet, Vec<RouteEntry>>,
    /// Lengths of prefixes, by family. There may be more than are left in the table: one too many costs a search, and all
    /// 33 or 129 of them for each of thousands of real servers hold up the main loop.
    lengths4: BTreeSet<u8>,
    lengths6: BTreeSet<u8>,
}

/// What the routes of one prefix come to.
pub(super) enum Choice<'a> {
    /// One next hop for every packet.
    Hop(Hop, &'a RouteEntry),
    /// The kernel's business.
    Kernel(Left),
}

impl Routes {
    /// Adds a route. Adding one that is there already moves it, so that a dump may overlap with events.
    pub(super) fn insert(&mut self, route: RouteEntry, placement: Placement) {
        let prefix = route.destination;
        match prefix {
            IpNet::V4(_) => self.lengths4.insert(prefix.prefix_len()),
            IpNet::V6(_) => self.lengths6.insert(prefix.prefix_len()),
        };
        let list = self.by_prefix.entry(route.destination).or_default();
        if placement == Placement::Replace
            && let Some(first) = list.iter_mut().find(|other| rank(other) == rank(&route))
        {
            *first = route.clone();
            let mut seen = false;
            list.retain(|other| *other != route || !std::mem::replace(&mut seen, true));
            return;
        }
        list.retain(|other| *other != route);
        if matches!(route.destination, IpNet::V6(_)) {
            // A new IPv6 next hop joins its siblings, and the kernel tells all of them in one route.
            list.retain(|other| {
                rank(other) != rank(&route)
                    || other.hops.is_empty()
                    || !other.hops.iter().all(|hop| route.hops.contains(hop))
            });
        }
        let position = match placement {
            Placement::Replace | Placement::First => {
                list.partition_point(|other| other.metric < route.metric)
            }
            Placement::Last => list.partition_point(|other| other.metric <= route.metric),
        };
        list.insert(position, route);
    }

    /// Takes a route away, or single next hops of one with several. A route that is not there is no error: the
    /// kernel does not tell of every removal, so ours may have come first.
    pub(super) fn remove(&mut self, route: &RouteEntry) {
        let Some(list) = self.by_prefix.get_mut(&route.destination) else {
            return;
        };
        if let Some(position) = list.iter().position(|other| other == route) {
            list.remove(position);
        } else if let Some(position) = list.iter().position(|other| {
            rank(other) == rank(route)
                && !route.hops.is_empty()
                && route.hops.iter().all(|hop| other.hops.contains(hop))
        }) {
            list[position].hops.retain(|hop| !route.hops.contains(hop));
            if list[position].hops.is_empty() {
                list.remove(position);
            }
        }
        if list.is_empty() {
            self.by_prefix.remove(&route.destination);
        }
    }

    /// Drops every next hop by a link that is gone.
    pub(super) fn remove_link(&mut self, ifindex: u32) {
        self.by_prefix.retain(|_, list| {
            list.retain_mut(|route| {
                let led_somewhere = !route.hops.is_empty();
                route.hops.retain(|hop| hop.ifindex != Some(ifindex));
                !(led_somewhere && route.hops.is_empty())
            });
            !list.is_empty()
        });
    }

    /// The choice of the longest prefix that covers an address.
    pub(super) fn lookup(&self, address: IpAddr) -> Option<Choice<'_>> {
        let lengths = if address.is_ipv4() {
            &self.lengths4
        } else {
            &self.lengths6
        };
        lengths.iter().rev().find_map(|length| {
            let prefix = IpNet::new(address, *length).ok()?.trunc();
            self.by_prefix.get(&prefix).map(|list| choose(list))
        })
    }

    /// Every prefix with its choice.
    pub(super) fn iter(&self) -> impl Iterator<Item = (IpNet, Choice<'_>)> {
        self.by_prefix
            .iter()
            .map(|(prefix, list)| (*prefix, choose(list)))
    }
}

/// What the kernel compares to see whether two routes of a prefix stand in each other's place.
fn rank(route: &RouteEntry) -> (u32, Option<RouteKind>) {
    let selective = matches!(route.kind, RouteKind::Selective { .. }).then_some(route.kind);
    (route.metric, selective)
}

fn choose(list: &[RouteEntry]) -> Choice<'_> {
    if list
        .iter()
        .any(|route| matches!(route.kind, RouteKind::Selective { .. }))
    {
        return Choice::Kernel(Left::Selective);
    }
    let Some(first) = list.first() else {
        return Choice::Kernel(Left::NotUnicast);
    };
    // Of several IPv6 routes with one metric the kernel takes turns, or goes by router preference.
    let rivals = matches!(first.destination, IpNet::V6(_))
        && list.get(1).is_some_and(|next| next.metric == first.metric);
    match (first.kind, first.hops.as_slice()) {
        _ if rivals => Choice::Kernel(Left::SeveralNextHops),
        (RouteKind::Unicast, [hop]) => Choice::Hop(*hop, first),
        (RouteKind::Unicast, [_, _, ..]) => Choice::Kernel(Left::SeveralNextHops),
        (RouteKind::Unicast | RouteKind::Other | RouteKind::Selective { .. }, _) => {
            Choice::Kernel(Left::NotUnicast)
        }
    }
}
