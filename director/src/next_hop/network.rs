//! The node's view of the network: fed by events, asked where packets go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use xdp_ebpf::layout::NextHop;

use super::egress::scoped;
use super::event::{AsSource, Event, Hop, Link, NeighbourState};
use super::forwarding::{GatewayIds, Limits};
use super::routes::{Choice, Routes};

/// Where packets for an address go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Onto the wire, like this.
    Ready(NextHop),
    /// The route is known, the neighbour's link-layer address is not, or the link is down.
    Unresolved {
        /// Interface of the route (a VLAN device's own, not its parent's).
        ifindex: u32,
        /// Whom to ask for: the address itself or its gateway.
        neighbour: IpAddr,
    },
    /// No route in the main table.
    NoRoute,
    /// By an interface that is not one of the director's.
    NotOurs {
        /// That interface.
        ifindex: u32,
    },
    /// Only the kernel can tell.
    Kernel(Left),
}

/// Why a packet is left to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Left {
    /// The address is one of the node's own.
    Own,
    /// Loopback, link-local, multicast or broadcast: no route of the main table decides about it.
    Scoped,
    /// The route refuses, swallows or encapsulates.
    NotUnicast,
    /// The route has several next hops.
    SeveralNextHops,
    /// Routes to this prefix depend on more than the destination.
    Selective,
    /// The VLAN tags are not one 802.1Q, or an 802.1ad one with an 802.1Q one inside.
    VlanTags,
    /// The link is not an Ethernet one.
    NotEthernet,
}

impl Left {
    /// The reason in words, to follow "left to the kernel: ".
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Left::Own => "the address is one of this node's own",
            Left::Scoped => {
                "loopback, link-local, multicast and broadcast addresses are not forwarded"
            }
            Left::NotUnicast => "the route refuses, swallows or encapsulates packets",
            Left::SeveralNextHops => "the route has several next hops",
            Left::Selective => {
                "routes to this prefix depend on the type of service or the source address"
            }
            Left::VlanTags => {
                "only one 802.1Q tag, or an 802.1ad tag around an 802.1Q one, can be sent"
            }
            Left::NotEthernet => "the interface is not an Ethernet one",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Neighbour {
    /// The last one known. Kept while the neighbour is stale, fails or is asked for anew: a packet under direct
    /// routing cannot be handed to the kernel, so an address that most likely still holds is better than none.
    pub(super) mac: Option<[u8; 6]>,
    pub(super) state: NeighbourState,
    /// The kernel forgot it; kept only while somebody needs it.
    pub(super) gone: bool,
}

#[derive(Clone, Copy, Debug)]
struct OwnAddress {
    ifindex: u32,
    address: IpAddr,
    prefix_len: u8,
    as_source: AsSource,
}

/// The node's view of its links, addresses, neighbours and main routing table.
///
/// Pure: it is fed with [`Event`]s and asked. A neighbour's link-layer address, once known, is kept while the
/// neighbour is stale or fails, until its link goes down or another one is learnt; and for neighbours in use (of
/// wanted addresses, and gateways) even when the kernel forgets them.
#[derive(Clone, Debug, Default)]
pub struct Network {
    pub(super) links: BTreeMap<u32, Link>,
    pub(super) slots: BTreeMap<u32, u16>,
    own: Vec<OwnAddress>,
    pub(super) routes: Routes,
    pub(super) neighbours: BTreeMap<(u32, IpAddr), Neighbour>,
    wanted: BTreeSet<IpAddr>,
    pub(super) gateways: GatewayIds,
    pub(super) limits: Limits,
    /// Neighbours in use; `None` when something they depend on has changed.
    targets: Option<BTreeSet<(u32, IpAddr)>>,
    has_changed: bool,
}

impl Network {
    /// A node that knows nothing yet, with the limits of the packet path's tables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`Network::new`], with other limits.
    #[must_use]
    pub fn with_limits(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Says which interfaces packets may leave by, as (interface index, devmap slot); replaces what was said before.
    pub fn configure(&mut self, interfaces: &[(u32, u16)]) {
        self.slots = interfaces.iter().copied().collect();
        self.targets = None;
    }

    /// Says which addresses packets are sent to (real servers); replaces what was said before. Their neighbours are
    /// probed and kept. Gateways of routes are looked after without being named.
    pub fn want(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.wanted = addresses.into_iter().collect();
        self.targets = None;
    }

    /// Takes in one event. Nothing is refused: what contradicts earlier events wins.
    pub fn apply(&mut self, event: Event) {
        self.has_changed |= self.is_news(&event);
        match event {
            Event::Resync => {
                self.links.clear();
                self.own.clear();
                self.routes = Routes::default();
                self.neighbours
                    .retain(|_, neighbour| neighbour.mac.is_some());
                self.neighbours
                    .values_mut()
                    .for_each(|neighbour| neighbour.gone = true);
                self.targets = None;
            }
            Event::Link(link) => {
                if !link.up {
                    // The other end may be another one when it comes back. Permanent entries outlive a lost carrier.
                    self.neighbours.retain(|(ifindex, _), neighbour| {
                        *ifindex != link.ifindex
                            || (neighbour.state == NeighbourState::Permanent && !neighbour.gone)
                    });
                }
                if self.links.get(&link.ifindex) != Some(&link) {
                    self.targets = None;
                }
                self.links.insert(link.ifindex, link);
            }
            Event::LinkGone { ifindex } => {
                self.links.remove(&ifindex);
                self.own.retain(|own| own.ifindex != ifindex);
                self.neighbours.retain(|(link, _), _| *link != ifindex);
                self.routes.remove_link(ifindex);
                self.targets = None;
            }
            Event::Address {
                ifindex,
                address,
                prefix_len,
                as_source,
            } => {
                let own = OwnAddress {
                    ifindex,
                    address,
                    prefix_len,
                    as_source,
                };
                match self
                    .own
                    .iter_mut()
                    .find(|other| (other.ifindex, other.address) == (ifindex, address))
                {
                    Some(known) => *known = own,
                    None => self.own.push(own),
                }
                self.targets = None;
            }
            Event::AddressGone { ifindex, address } => {
                self.own
                    .retain(|own| (own.ifindex, own.address) != (ifindex, address));
                self.targets = None;
            }
            Event::Route(route, placement) => {
                self.routes.insert(route, placement);
                self.targets = None;
            }
            Event::RouteGone(route) => {
                self.routes.remove(&route);
                self.targets = None;
            }
            Event::Neighbour {
                ifindex,
                address,
                mac,
                state,
            } => {
                let known = self
                    .neighbours
                    .get(&(ifindex, address))
                    .and_then(|neighbour| neighbour.mac);
                self.neighbours.insert(
                    (ifindex, address),
                    Neighbour {
                        mac: mac.or(known),
                        state,
                        gone: false,
                    },
                );
            }
            Event::NeighbourGone { ifindex, address } => {
                if let Some(neighbour) = self.neighbours.get_mut(&(ifindex, address)) {
                    neighbour.gone = true;
                }
            }
        }
    }

    /// Whether an event may change where packets go. Most do not: the kernel tells every few seconds that a neighbour has
    /// been heard of, or not for a while.
    fn is_news(&self, event: &Event) -> bool {
        match event {
            Event::Neighbour {
                ifindex,
                address,
                mac,
                ..
            } => match self.neighbours.get(&(*ifindex, *address)) {
                Some(known) => mac.is_some() && known.mac != *mac,
                None => true,
            },
            Event::NeighbourGone { ifindex, address } => self
                .neighbours
                .get(&(*ifindex, *address))
                .is_some_and(|known| !known.gone),
            _ => true,
        }
    }

    /// Whether there was an event since the last time this was asked, or since [`Network::look_again`], that may change
    /// where packets go.
    pub fn take_change(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// What has changed could not be followed: the next time it is asked, something has.
    pub fn look_again(&mut self) {
        self.has_changed = true;
    }

    /// Where packets for an address go, by the routes of the main table.
    #[must_use]
    pub fn resolve(&self, address: IpAddr) -> Resolution {
        if scoped().into_iter().any(|prefix| prefix.contains(&address)) {
            return Resolution::Kernel(Left::Scoped);
        }
        if self.own.iter().any(|own| own.address == address) {
            return Resolution::Kernel(Left::Own);
        }
        match self.routes.lookup(address) {
            None => Resolution::NoRoute,
            Some(Choice::Kernel(left)) => Resolution::Kernel(left),
            Some(Choice::Hop(Hop { ifindex: None, .. }, _)) => Resolution::Kernel(Left::NotUnicast),
            Some(Choice::Hop(
                Hop {
                    ifindex: Some(ifindex),
                    gateway,
                },
                _,
            )) => self.next_hop(ifindex, gateway.unwrap_or(address)),
        }
    }

    /// The address that packets of the node itself to `address` would come from: the route's preferred source, else
    /// the first address on the route's interface, else [`Network::own_address`]'s choice.
    #[must_use]
    pub fn source_towards(&self, address: IpAddr) -> Option<IpAddr> {
        let by_route = match self.routes.lookup(address) {
            Some(Choice::Hop(hop, route)) => route.source.or_else(|| {
                let (ifindex, ipv4) = (hop.ifindex?, address.is_ipv4());
                self.first_address(ifindex, ipv4, false, AsSource::Preferred)
            }),
            Some(Choice::Kernel(_)) | None => None,
        };
        by_route.or_else(|| self.own_address(address.is_ipv4()))
    }

    /// The node's own address of a family, for messages that the packet path itself sends: the first one on the
    /// configured interfaces (in the order of their slots, then on VLAN devices above them). Host addresses (/32,
    /// /128), which are mostly virtual ones, come after them, and deprecated ones, as virtual IPv6 ones are, last.
    #[must_use]
    pub fn own_address(&self, ipv4: bool) -> Option<IpAddr> {
        let mut configured: Vec<_> = self
            .slots
            .iter()
            .map(|(ifindex, slot)| (*slot, *ifindex))
            .collect();
        configured.sort_unstable();
        let above = self
            .links
            .keys()
            .filter(|ifindex| !self.slots.contains_key(ifindex));
        let above = above
            .copied()
            .filter(|ifindex| self.egress(*ifindex).is_ok());
        let interfaces: Vec<u32> = configured
            .into_iter()
            .map(|(_, ifindex)| ifindex)
            .chain(above)
            .collect();
        let find = |hosts, as_source| {
            interfaces
                .iter()
                .find_map(|ifindex| self.first_address(*ifindex, ipv4, hosts, as_source))
        };
        [AsSource::Preferred, AsSource::Deprecated]
            .into_iter()
            .find_map(|as_source| find(false, as_source).or_else(|| find(true, as_source)))
    }

    /// MAC addresses of all its links.
    pub fn macs(&self) -> impl Iterator<Item = [u8; 6]> {
        self.links
            .values()
            .map(|link| link.mac)
            .filter(|mac| *mac != [0; 6])
    }

    fn first_address(
        &self,
        ifindex: u32,
        ipv4: bool,
        hosts: bool,
        as_source: AsSource,
    ) -> Option<IpAddr> {
        self.own
            .iter()
            .filter(|own| own.ifindex == ifindex && own.address.is_ipv4() == ipv4)
            .filter(|own| own.as_source == as_source)
            .filter(|own| hosts == (own.prefix_len == IpNet::from(own.address).max_prefix_len()))
            .map(|own| own.address)
            .find(|address| !scoped().into_iter().any(|prefix| prefix.contains(address)))
    }

    pub(super) fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.own.iter().map(|own| own.address)
    }

    /// The neighbours in use: those of the wanted addresses, and gateways of routes by our interfaces.
    pub(super) fn targets(&mut self) -> &BTreeSet<(u32, IpAddr)> {
        let targets = self.targets.take().unwrap_or_else(|| {
            let wanted = self
                .wanted
                .iter()
                .filter_map(|address| self.neighbour_of(*address));
            let gateways = self.routes.iter().filter_map(|(_, choice)| match choice {
                Choice::Hop(
                    Hop {
                        gateway: Some(gateway),
                        ifindex: Some(ifindex),
                    },
                    _,
                ) => Some((ifindex, gateway)),
                Choice::Hop(..) | Choice::Kernel(_) => None,
            });
            let mut targets: BTreeSet<_> = wanted.chain(gateways).collect();
            targets.retain(|(ifindex, _)| self.egress(*ifindex).is_ok());
            targets
        });
        self.targets.insert(targets)
    }

    fn neighbour_of(&self, address: IpAddr) -> Option<(u32, IpAddr)> {
        if matches!(self.resolve(address), Resolution::Kernel(_)) {
            return None;
        }
        match self.routes.lookup(address)? {
            Choice::Hop(hop, _) => Some((hop.ifindex?, hop.gateway.unwrap_or(address))),
            Choice::Kernel(_) => None,
        }
    }

    /// Forgets neighbours that the kernel forgot and nobody needs.
    pub(super) fn prune(&mut self) {
        let mut neighbours = std::mem::take(&mut self.neighbours);
        let targets = self.targets();
        neighbours.retain(|key, neighbour| {
            !neighbour.gone || (neighbour.mac.is_some() && targets.contains(key))
        });
        self.neighbours = neighbours;
    }
}
