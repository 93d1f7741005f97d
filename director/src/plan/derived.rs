//! What follows from the services and destinations, and the end of those that are retired.

use std::collections::{BTreeMap, BTreeSet};

use xdp_ebpf::layout::{Destination, Endpoint4, Endpoint6, SharedBy, address, destination, method};

use super::desired::PlanError;
use super::tables::{Key, Tables, destination_address, endpoint};

/// The current tables without those retired destinations that nothing uses any more, and without the services that
/// were remembered only for them. Ids of destinations that are not retired are passed over.
///
/// The caller must have seen the destinations unused in two passes over the connection tables: the packet path may
/// put back a connection that it had in its hands during the first.
#[must_use]
pub fn release(current: &Tables, unused: &BTreeSet<u32>) -> Tables {
    let mut tables = current.clone();
    tables
        .destinations
        .retain(|id, record| record.flags & destination::RETIRED == 0 || !unused.contains(id));
    let in_use: BTreeSet<u32> = tables
        .destinations
        .values()
        .map(|record| u32::from(record.service))
        .collect();
    let mut services = std::mem::take(&mut tables.services);
    services.retain(|id, record| in_use.contains(id) || tables.is_served(record));
    tables.services = services;
    // Fewer destinations than before cannot exceed a limit that they kept.
    if index(&mut tables).is_err() {
        return current.clone();
    }
    tables
}

/// Fills the tables that follow from the services and destinations: `REAL_SERVERS4/6` and `ADDRESSES4/6`.
pub(super) fn index(tables: &mut Tables) -> Result<(), PlanError> {
    let mut real_servers4: BTreeMap<Endpoint4, SharedBy> = BTreeMap::new();
    let mut real_servers6: BTreeMap<Endpoint6, SharedBy> = BTreeMap::new();
    let mut addresses4: BTreeMap<[u8; 4], u32> = BTreeMap::new();
    let mut addresses6: BTreeMap<[u8; 16], u32> = BTreeMap::new();
    let mut mark = |endpoint: Key, flag: u32| match endpoint {
        Key::V4(key) => *addresses4.entry(key.address).or_default() |= flag,
        Key::V6(key) => *addresses6.entry(key.address).or_default() |= flag,
    };
    tables
        .services4
        .keys()
        .for_each(|key| mark(Key::V4(*key), address::VIRTUAL));
    tables
        .services6
        .keys()
        .for_each(|key| mark(Key::V6(*key), address::VIRTUAL));

    // Retired ones last: if the list is full, connections of a removed real server lose before those of a present one.
    let retired = |record: &Destination| record.flags & destination::RETIRED != 0;
    let present = tables
        .destinations
        .values()
        .filter(|record| !retired(record));
    let gone = tables
        .destinations
        .values()
        .filter(|record| retired(record));
    for record in present
        .chain(gone)
        .filter(|record| record.method == method::NAT)
    {
        let Some(service) = tables
            .services
            .get(&u32::from(record.service))
            .filter(|it| tables.is_served(it))
        else {
            continue;
        };
        let server = destination_address(record);
        let key = endpoint(server, record.port, service.protocol);
        let shared = match key {
            Key::V4(key) => real_servers4.entry(key).or_default(),
            Key::V6(key) => real_servers6.entry(key).or_default(),
        };
        if add(shared, record.service) {
            mark(key, address::REAL);
        } else if !retired(record) {
            return Err(PlanError::Shared {
                address: server,
                port: u16::from_be_bytes(record.port),
            });
        }
    }
    tables.real_servers4 = real_servers4;
    tables.real_servers6 = real_servers6;
    tables.addresses4 = addresses4;
    tables.addresses6 = addresses6;
    Ok(())
}

/// Puts a service into a list unless it is there. False: the list is full.
pub(super) fn add(shared: &mut SharedBy, service: u16) -> bool {
    match shared
        .services
        .iter_mut()
        .find(|place| **place == 0 || **place == service)
    {
        Some(place) => {
            *place = service;
            true
        }
        None => false,
    }
}
