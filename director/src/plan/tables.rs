//! What the packet path's tables hold, and one change of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use xdp_ebpf::layout::{
    Destination, Endpoint4, Endpoint6, Neighbour4, Neighbour6, NextHop, Route, Service, Settings,
    SharedBy, destination,
};

/// Contents of every map that the director writes. Array maps: only the entries in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// `SETTINGS`.
    pub settings: Settings,
    /// `SERVICES4`.
    pub services4: BTreeMap<Endpoint4, u32>,
    /// `SERVICES6`.
    pub services6: BTreeMap<Endpoint6, u32>,
    /// `SERVICES`. A record that no key points to is of a removed service whose connections have not all ended: it
    /// keeps the id from being given to another one, and gives it back to the same one.
    pub services: BTreeMap<u32, Service>,
    /// `SLOTS`: the scheduling tables that records point to, by their first slot.
    pub slots: BTreeMap<u32, Arc<[u32]>>,
    /// `DESTINATIONS`.
    pub destinations: BTreeMap<u32, Destination>,
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
}

/// One change of one map. `None` removes; in array maps, which have no removal, it writes zeroes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// `SETTINGS`.
    Settings(Settings),
    /// `SERVICES4`.
    ServiceKey4(Endpoint4, Option<u32>),
    /// `SERVICES6`.
    ServiceKey6(Endpoint6, Option<u32>),
    /// `SERVICES`.
    Service(u32, Option<Service>),
    /// `SLOTS`, from the given one on.
    Slots(u32, Arc<[u32]>),
    /// `DESTINATIONS`.
    Destination(u32, Option<Destination>),
    /// `COUNTERS`: back to zero, before the id means another destination.
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
            Write::ServiceKey4(key, id) => put(&mut self.services4, key, id),
            Write::ServiceKey6(key, id) => put(&mut self.services6, key, id),
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
        }
    }

    /// Whether a service's key is there: it is configured, not only remembered for its connections.
    #[must_use]
    pub fn is_served(&self, service: &Service) -> bool {
        match endpoint(service_address(service), service.port, service.protocol) {
            Key::V4(key) => self.services4.contains_key(&key),
            Key::V6(key) => self.services6.contains_key(&key),
        }
    }
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

/// The virtual address of a service's record.
#[must_use]
pub fn service_address(service: &Service) -> IpAddr {
    address(service.address, service.family == 6)
}

/// The real server's address in a destination's record.
#[must_use]
pub fn destination_address(record: &Destination) -> IpAddr {
    address(record.address, record.flags & destination::IPV6 != 0)
}
