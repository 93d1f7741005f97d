//! What the packet path's own forwarding tables should hold: it looks NAT replies to clients up in them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use xdp_ebpf::layout::{self, Neighbour4, Neighbour6, NextHop, Route};

use super::egress::scoped;
use super::event::Hop;
use super::network::{Network, Resolution};
use super::routes::Choice;

/// How much the packet path's tables take, for each address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Routes.
    pub routes: usize,
    /// Gateways; their ids run from 1 to one less than this.
    pub next_hops: u32,
    /// Directly connected hosts.
    pub neighbours: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            routes: layout::limits::ROUTES as usize,
            next_hops: layout::limits::NEXT_HOPS,
            neighbours: layout::limits::NEIGHBOURS as usize,
        }
    }
}

/// What found no room in the tables. Packets for it are left to the kernel: slower, not lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overflow {
    /// IPv4 routes.
    pub routes4: usize,
    /// IPv6 routes.
    pub routes6: usize,
    /// Gateways.
    pub next_hops: usize,
    /// IPv4 neighbours.
    pub neighbours4: usize,
    /// IPv6 neighbours.
    pub neighbours6: usize,
}

impl Overflow {
    /// Whether everything found room.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Contents of the maps `ROUTES4/6`, `NEXT_HOPS` and `NEIGHBOURS4/6`.
///
/// A packet's destination is looked up by longest prefix. No route, a route of zeroes, a next hop without an
/// interface (gateway not resolved) and a missing neighbour all mean: leave the packet to the kernel. Write
/// neighbours and next hops before routes, remove them after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardingTables {
    /// `ROUTES4`, by (prefix length, address).
    pub routes4: BTreeMap<(u8, [u8; 4]), Route>,
    /// `ROUTES6`, by (prefix length, address).
    pub routes6: BTreeMap<(u8, [u8; 16]), Route>,
    /// `NEXT_HOPS`: the gateways that routes name.
    pub next_hops: BTreeMap<u32, NextHop>,
    /// `NEIGHBOURS4`.
    pub neighbours4: BTreeMap<Neighbour4, NextHop>,
    /// `NEIGHBOURS6`.
    pub neighbours6: BTreeMap<Neighbour6, NextHop>,
    /// What found no room: to be told to the operator.
    pub overflow: Overflow,
}

/// Ids of gateways. One keeps its meaning while a route uses it, and is given out again as late as possible, so that
/// a packet which is under way with an old route does not meet a new meaning.
#[derive(Clone, Debug, Default)]
pub(super) struct GatewayIds {
    by_gateway: BTreeMap<(u32, IpAddr), u32>,
    last: u32,
}

impl GatewayIds {
    /// Keeps the ids of gateways still in use, frees the others, gives new ones out. Returns how many got none.
    fn assign(&mut self, used: &BTreeSet<(u32, IpAddr)>, limit: u32) -> usize {
        self.by_gateway.retain(|gateway, _| used.contains(gateway));
        let mut taken: BTreeSet<u32> = self.by_gateway.values().copied().collect();
        let mut without = 0;
        for gateway in used {
            if self.by_gateway.contains_key(gateway) {
                continue;
            }
            // Ids 1..limit, beginning after the one given out last.
            let after = self.last.saturating_add(1)..limit;
            match after.chain(1..limit).find(|id| !taken.contains(id)) {
                Some(id) => {
                    self.by_gateway.insert(*gateway, id);
                    taken.insert(id);
                    self.last = id;
                }
                None => without += 1,
            }
        }
        without
    }
}

impl Network {
    /// What the packet path's tables should hold now. Also forgets neighbours that the kernel forgot and nobody
    /// needs, and settles gateway ids: call it after each batch of events.
    pub fn tables(&mut self) -> ForwardingTables {
        self.prune();
        let mut tables = ForwardingTables::default();
        let used: BTreeSet<_> = self
            .routes
            .iter()
            .filter_map(|(_, choice)| self.gateway(&choice))
            .collect();
        tables.overflow.next_hops = self.gateways.assign(&used, self.limits.next_hops);
        for ((ifindex, gateway), id) in &self.gateways.by_gateway {
            let next_hop = match self.next_hop(*ifindex, *gateway) {
                Resolution::Ready(next_hop) => next_hop,
                _ => NextHop::default(),
            };
            tables.next_hops.insert(*id, next_hop);
        }
        self.fill_routes(&mut tables);
        self.fill_neighbours(&mut tables);
        tables
    }

    /// The gateway of a route by one of our interfaces.
    fn gateway(&self, choice: &Choice<'_>) -> Option<(u32, IpAddr)> {
        match choice {
            Choice::Hop(
                Hop {
                    gateway: Some(gateway),
                    ifindex: Some(ifindex),
                },
                _,
            ) => self
                .egress(*ifindex)
                .is_ok()
                .then_some((*ifindex, *gateway)),
            Choice::Hop(..) | Choice::Kernel(_) => None,
        }
    }

    fn route(&self, choice: &Choice<'_>) -> Route {
        match choice {
            Choice::Hop(
                Hop {
                    gateway: None,
                    ifindex: Some(ifindex),
                },
                _,
            ) if self.egress(*ifindex).is_ok() => Route {
                next_hop: 0,
                ifindex: *ifindex,
            },
            Choice::Hop(..) | Choice::Kernel(_) => {
                let id = self
                    .gateway(choice)
                    .and_then(|gateway| self.gateways.by_gateway.get(&gateway));
                Route {
                    next_hop: id.copied().unwrap_or(0),
                    ifindex: 0,
                }
            }
        }
    }

    fn fill_routes(&self, tables: &mut ForwardingTables) {
        let mut put = |prefix: IpNet, route| match prefix {
            IpNet::V4(net) => tables
                .routes4
                .insert((net.prefix_len(), net.addr().octets()), route),
            IpNet::V6(net) => tables
                .routes6
                .insert((net.prefix_len(), net.addr().octets()), route),
        };
        let scoped = scoped();
        for (prefix, choice) in self.routes.iter() {
            if !scoped.iter().any(|scope| scope.contains(&prefix)) {
                put(prefix, self.route(&choice));
            }
        }
        for prefix in scoped {
            // Prefixes that only matter where a shorter route covers them are cheap enough to always stand.
            put(prefix, Route::default());
        }
        for address in self.own_addresses() {
            if !scoped.iter().any(|scope| scope.contains(&address)) {
                put(address.into(), Route::default());
            }
        }
        tables.overflow.routes4 = trim(&mut tables.routes4, self.limits.routes);
        tables.overflow.routes6 = trim(&mut tables.routes6, self.limits.routes);
    }

    fn fill_neighbours(&self, tables: &mut ForwardingTables) {
        let scoped = scoped();
        for (ifindex, address) in self.neighbours.keys() {
            if scoped.iter().any(|scope| scope.contains(address)) {
                continue;
            }
            let Resolution::Ready(next_hop) = self.next_hop(*ifindex, *address) else {
                continue;
            };
            let ifindex = *ifindex;
            match address {
                IpAddr::V4(_) if tables.neighbours4.len() >= self.limits.neighbours => {
                    tables.overflow.neighbours4 += 1;
                }
                IpAddr::V6(_) if tables.neighbours6.len() >= self.limits.neighbours => {
                    tables.overflow.neighbours6 += 1;
                }
                IpAddr::V4(v4) => {
                    tables.neighbours4.insert(
                        Neighbour4 {
                            address: v4.octets(),
                            ifindex,
                        },
                        next_hop,
                    );
                }
                IpAddr::V6(v6) => {
                    tables.neighbours6.insert(
                        Neighbour6 {
                            address: v6.octets(),
                            ifindex,
                        },
                        next_hop,
                    );
                }
            }
        }
    }
}

/// Takes the longest prefixes out until the rest fits, and returns how many. The prefix that covers one taken out is
/// left to the kernel: its own next hop would be the wrong one for those packets.
fn trim<const N: usize>(routes: &mut BTreeMap<(u8, [u8; N]), Route>, limit: usize) -> usize {
    let Some(first) = routes.keys().nth(limit).copied() else {
        return 0;
    };
    let dropped = routes.split_off(&first);
    for (length, address) in dropped.keys() {
        let cover = (0..*length)
            .rev()
            .map(|shorter| (shorter, masked(*address, shorter)));
        if let Some(key) = cover.into_iter().find(|key| routes.contains_key(key)) {
            routes.insert(key, Route::default());
        }
    }
    dropped.len()
}

/// An address with all but its first `length` bits zero.
pub(super) fn masked<const N: usize>(address: [u8; N], length: u8) -> [u8; N] {
    let mut bits = usize::from(length);
    address.map(|byte| {
        let keep = bits.min(8);
        bits -= keep;
        // Keep is at most 8, so the shift is at most 8 of 16 bits.
        byte & (0xff00_u16 >> keep) as u8
    })
}
