//! What the packet path's tables hold, and one change of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use xdp_ebpf::layout::{
    Destination, Endpoint, Endpoint4, Endpoint6, Neighbour4, Neighbour6, NextHop, RangeKey4,
    RangeKey6, Route, Served, Service, Settings, SharedBy, destination,
};

use super::ranges::{Prefix, prefixes};

/// Contents of every map that the director writes. Array maps: only the entries in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// `SETTINGS`.
    pub settings: Settings,
    /// `SERVICES4`.
    pub services4: BTreeMap<Endpoint4, Served>,
    /// `SERVICES6`.
    pub services6: BTreeMap<Endpoint6, Served>,
    /// `RANGES4`, by bits of the prefix and key.
    pub ranges4: BTreeMap<(u32, RangeKey4), Served>,
    /// `RANGES6`, by bits of the prefix and key.
    pub ranges6: BTreeMap<(u32, RangeKey6), Served>,
    /// `ENDPOINTS`. As with services, a record that no key points to keeps its id for the connections that have it.
    pub endpoints: BTreeMap<u16, Endpoint>,
    /// `SERVICES`. A record that no key points to is of a removed service whose connections have not all ended: it
    /// keeps the id from being given to another one, and gives it back to the same one.
    pub services: BTreeMap<u16, Service>,
    /// `SLOTS`: the scheduling tables that records point to, by their first slot.
    pub slots: BTreeMap<u32, Arc<[u32]>>,
    /// `DESTINATIONS`.
    pub destinations: BTreeMap<u32, Destination>,
    /// `LOADS`: what of them is the director's.
    pub shares: BTreeMap<u32, Share>,
    /// `REAL_SERVERS4`.
    pub real_servers4: BTreeMap<Endpoint4, SharedBy>,
    /// `REAL_SERVERS6`.
    pub real_servers6: BTreeMap<Endpoint6, SharedBy>,
    /// `ADDRESSES4`.
    pub addresses4: BTreeMap<[u8; 4], u32>,
    /// `ADDRESSES6`.
    pub addresses6: BTreeMap<[u8; 16], u32>,
    /// `ROUTES4`, by (prefix length, address).
    pub routes4: BTreeMap<(u8, [u8; 4]), Route>,
    /// `ROUTES6`, by (prefix length, address).
    pub routes6: BTreeMap<(u8, [u8; 16]), Route>,
    /// `NEXT_HOPS`. One of zeroes is in use but not resolved, as far as `desired` goes; read back it is not there.
    pub next_hops: BTreeMap<u32, NextHop>,
    /// `NEIGHBOURS4`.
    pub neighbours4: BTreeMap<Neighbour4, NextHop>,
    /// `NEIGHBOURS6`.
    pub neighbours6: BTreeMap<Neighbour6, NextHop>,
    /// `INTERFACES`: egress slot → interface index.
    pub interfaces: BTreeMap<u32, u32>,
    /// `EGRESS`: interface index → egress slot.
    pub egress: BTreeMap<u32, u32>,
    /// `OWN_MACS`. One that is not here is [`xdp_ebpf::layout::own_mac::ANY`].
    pub own_macs: BTreeMap<u32, u64>,
}

/// What a destination may take of new connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Weight; 0: no new connections.
    pub weight: u32,
    /// Upper threshold; 0: none.
    pub upper: u32,
    /// Lower threshold; 0: three quarters of the upper one.
    pub lower: u32,
}

/// One change of one map. `None` removes; in array maps, which have no removal, it writes zeroes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// `SETTINGS`.
    Settings(Settings),
    /// `SERVICES4`.
    ServiceKey4(Endpoint4, Option<Served>),
    /// `SERVICES6`.
    ServiceKey6(Endpoint6, Option<Served>),
    /// `RANGES4`.
    Range4((u32, RangeKey4), Option<Served>),
    /// `RANGES6`.
    Range6((u32, RangeKey6), Option<Served>),
    /// `ENDPOINTS`.
    Endpoint(u16, Option<Endpoint>),
    /// `SERVICES`.
    Service(u16, Option<Service>),
    /// `SLOTS`, from the given one on.
    Slots(u32, Arc<[u32]>),
    /// `DESTINATIONS`.
    Destination(u32, Option<Destination>),
    /// `LOADS`, but for the counts.
    Share(u32, Option<Share>),
    /// `COUNTERS` and `LOADS`: back to zero, before the id means another destination.
    ResetCounters(u32),
    /// `REAL_SERVERS4`.
    RealServer4(Endpoint4, Option<SharedBy>),
    /// `REAL_SERVERS6`.
    RealServer6(Endpoint6, Option<SharedBy>),
    /// `ADDRESSES4`.
    Address4([u8; 4], Option<u32>),
    /// `ADDRESSES6`.
    Address6([u8; 16], Option<u32>),
    /// `ROUTES4`.
    Route4((u8, [u8; 4]), Option<Route>),
    /// `ROUTES6`.
    Route6((u8, [u8; 16]), Option<Route>),
    /// `NEXT_HOPS`.
    NextHop(u32, Option<NextHop>),
    /// `NEIGHBOURS4`.
    Neighbour4(Neighbour4, Option<NextHop>),
    /// `NEIGHBOURS6`.
    Neighbour6(Neighbour6, Option<NextHop>),
    /// `INTERFACES`.
    Interface(u32, Option<u32>),
    /// `EGRESS`.
    Egress(u32, Option<u32>),
    /// `OWN_MACS`.
    OwnMac(u32, Option<u64>),
}

impl Tables {
    /// Takes in one write: what the maps hold after it.
    pub fn apply(&mut self, write: &Write) {
        fn put<K: Ord + Copy, V: Copy>(map: &mut BTreeMap<K, V>, key: &K, value: &Option<V>) {
            match value {
                Some(value) => map.insert(*key, *value),
                None => map.remove(key),
            };
        }
        match write {
            Write::Settings(settings) => self.settings = *settings,
            Write::ServiceKey4(key, served) => put(&mut self.services4, key, served),
            Write::ServiceKey6(key, served) => put(&mut self.services6, key, served),
            Write::Range4(key, served) => put(&mut self.ranges4, key, served),
            Write::Range6(key, served) => put(&mut self.ranges6, key, served),
            Write::Endpoint(id, record) => put(&mut self.endpoints, id, record),
            Write::Service(id, record) => {
                let before = self.services.get(id).copied();
                put(&mut self.services, id, record);
                // What the record pointed to before is nobody's any more.
                let now = record
                    .filter(|record| record.slots > 0)
                    .map(|record| record.first_slot);
                if let Some(before) =
                    before.filter(|before| before.slots > 0 && now != Some(before.first_slot))
                {
                    self.slots.remove(&before.first_slot);
                }
            }
            Write::Slots(first, table) => {
                self.slots.insert(*first, Arc::clone(table));
            }
            Write::Destination(id, record) => put(&mut self.destinations, id, record),
            Write::Share(id, share) => put(&mut self.shares, id, share),
            Write::ResetCounters(_) => {}
            Write::RealServer4(key, services) => put(&mut self.real_servers4, key, services),
            Write::RealServer6(key, services) => put(&mut self.real_servers6, key, services),
            Write::Address4(key, flags) => put(&mut self.addresses4, key, flags),
            Write::Address6(key, flags) => put(&mut self.addresses6, key, flags),
            Write::Route4(key, route) => put(&mut self.routes4, key, route),
            Write::Route6(key, route) => put(&mut self.routes6, key, route),
            Write::NextHop(id, hop) => put(&mut self.next_hops, id, hop),
            Write::Neighbour4(key, hop) => put(&mut self.neighbours4, key, hop),
            Write::Neighbour6(key, hop) => put(&mut self.neighbours6, key, hop),
            Write::Interface(slot, ifindex) => put(&mut self.interfaces, slot, ifindex),
            Write::Egress(ifindex, slot) => put(&mut self.egress, ifindex, slot),
            Write::OwnMac(last_byte, word) => put(&mut self.own_macs, last_byte, word),
        }
    }

    /// Whether an endpoint's key is there: it is configured, not only remembered for its connections.
    #[must_use]
    pub fn is_served(&self, id: u16) -> bool {
        let Some(endpoint) = self.endpoints.get(&id) else {
            return false;
        };
        let key = lookups(endpoint).into_iter().next();
        let served = key.and_then(|key| match key {
            Lookup::V4(key) => self.services4.get(&key),
            Lookup::V6(key) => self.services6.get(&key),
            Lookup::Range4(key) => self.ranges4.get(&key),
            Lookup::Range6(key) => self.ranges6.get(&key),
        });
        served.is_some_and(|served| (served.endpoint(), served.service()) == (id, endpoint.service))
    }

    /// Endpoints of a service.
    pub fn endpoints_of(&self, service: u16) -> impl Iterator<Item = (u16, &Endpoint)> {
        self.endpoints
            .iter()
            .filter(move |(_, endpoint)| endpoint.service == service)
            .map(|(id, endpoint)| (*id, endpoint))
    }
}

/// A key under which packets find an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// In `SERVICES4`.
    V4(Endpoint4),
    /// In `SERVICES6`.
    V6(Endpoint6),
    /// In `RANGES4`.
    Range4((u32, RangeKey4)),
    /// In `RANGES6`.
    Range6((u32, RangeKey6)),
}

/// All keys of an endpoint: one, or as many as a range of ports has prefixes.
pub(super) fn lookups(endpoint: &Endpoint) -> Vec<Lookup> {
    let (first, last) = ports(endpoint);
    let virtual_address = endpoint_address(endpoint);
    if first == last {
        return vec![
            match self::endpoint(virtual_address, endpoint.port, endpoint.protocol) {
                Key::V4(key) => Lookup::V4(key),
                Key::V6(key) => Lookup::V6(key),
            },
        ];
    }
    let protocol = endpoint.protocol;
    prefixes(first, last)
        .into_iter()
        .map(|Prefix { bits, port }| match virtual_address {
            IpAddr::V4(address) => Lookup::Range4((
                xdp_ebpf::layout::RANGE_BITS4 + bits,
                RangeKey4 {
                    address: address.octets(),
                    protocol,
                    zero: 0,
                    port: port.to_be_bytes(),
                },
            )),
            IpAddr::V6(address) => Lookup::Range6((
                xdp_ebpf::layout::RANGE_BITS6 + bits,
                RangeKey6 {
                    address: address.octets(),
                    protocol,
                    zero: 0,
                    port: port.to_be_bytes(),
                },
            )),
        })
        .collect()
}

/// First and last port of an endpoint.
#[must_use]
pub fn ports(endpoint: &Endpoint) -> (u16, u16) {
    (
        u16::from_be_bytes(endpoint.port),
        u16::from_be_bytes(endpoint.last_port),
    )
}

/// Key of a virtual service or of a NAT real server in either family's map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// For `SERVICES4` and `REAL_SERVERS4`.
    V4(Endpoint4),
    /// For `SERVICES6` and `REAL_SERVERS6`.
    V6(Endpoint6),
}

/// The key for an address, a port (network order) and a protocol.
#[must_use]
pub fn endpoint(address: IpAddr, port: [u8; 2], protocol: u8) -> Key {
    match address {
        IpAddr::V4(address) => Key::V4(Endpoint4 {
            address: address.octets(),
            port,
            protocol,
            zero: 0,
        }),
        IpAddr::V6(address) => Key::V6(Endpoint6 {
            address: address.octets(),
            port,
            protocol,
            zero: 0,
        }),
    }
}

/// An address as a 16-byte field holds it: an IPv4 one in the first 4 bytes.
pub(super) fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut field = [0; 16];
            field[..4].copy_from_slice(&v4.octets());
            field
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn address(field: [u8; 16], ipv6: bool) -> IpAddr {
    if ipv6 {
        IpAddr::from(field)
    } else {
        IpAddr::from([field[0], field[1], field[2], field[3]])
    }
}

/// The virtual address in an endpoint's record.
#[must_use]
pub fn endpoint_address(endpoint: &Endpoint) -> IpAddr {
    address(endpoint.address, endpoint.family == 6)
}

/// The real server's address in a destination's record.
#[must_use]
pub fn destination_address(record: &Destination) -> IpAddr {
    address(record.address, record.flags & destination::IPV6 != 0)
}
