//! What follows from the services and destinations, and the end of those that are retired.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use xdp_ebpf::layout::{
    Destination, Endpoint, Endpoint4, Endpoint6, SharedBy, address, destination, method,
};

use super::desired::PlanError;
use super::owners::previous_owners;
use super::tables::{Key, Tables, destination_address, endpoint, endpoint_address};

/// The current tables without those retired destinations and endpoints that nothing uses any more, and without the
/// services that were remembered only for them. Ids of what is not retired are passed over, and so is a destination whose
/// connections may have no entries yet ([`super::owners`]).
///
/// The caller must have seen them unused in two passes over the connection tables: the packet path may put back a
/// connection that it had in its hands during the first.
#[must_use]
pub fn release(current: &Tables, unused: &BTreeSet<u32>, endpoints: &BTreeSet<u16>) -> Tables {
    let mut tables = current.clone();
    let previous = previous_owners(current);
    tables.destinations.retain(|id, record| {
        record.flags & destination::RETIRED == 0 || !unused.contains(id) || previous.contains(id)
    });
    tables
        .shares
        .retain(|id, _| tables.destinations.contains_key(id));
    let in_use: BTreeSet<u16> = tables
        .destinations
        .values()
        .map(|record| record.service)
        .collect();
    tables
        .endpoints
        .retain(|id, _| current.is_served(*id) || !endpoints.contains(id));
    tables.services.retain(|id, _| {
        in_use.contains(id)
            || current
                .endpoints_of(*id)
                .any(|(endpoint, _)| current.is_served(endpoint))
    });
    let services = &tables.services;
    tables
        .endpoints
        .retain(|_, record| services.contains_key(&record.service));
    // Fewer destinations than before cannot exceed a limit that they kept.
    if index(&mut tables, leased(current)).is_err() {
        return current.clone();
    }
    tables
}

/// The addresses that are marked as moving between directors.
fn leased(tables: &Tables) -> impl Iterator<Item = IpAddr> {
    let is = |flags: &u32| flags & address::LEASED != 0;
    let four = tables.addresses4.iter().filter(move |it| is(it.1));
    let six = tables.addresses6.iter().filter(move |it| is(it.1));
    four.map(|it| IpAddr::from(*it.0))
        .chain(six.map(|it| IpAddr::from(*it.0)))
}

/// Whether every virtual address moves between directors.
pub fn is_all_leased(tables: &Tables) -> bool {
    let mut all = tables.addresses4.values().chain(tables.addresses6.values());
    all.all(|flags| flags & address::VIRTUAL == 0 || flags & address::LEASED != 0)
}

/// Fills the tables that follow from the services and destinations: `REAL_SERVERS4/6` and `ADDRESSES4/6`. `leased`:
/// addresses that move between directors.
pub(super) fn index(
    tables: &mut Tables,
    leased: impl Iterator<Item = IpAddr>,
) -> Result<(), PlanError> {
    let mut real_servers4: BTreeMap<Endpoint4, SharedBy> = BTreeMap::new();
    let mut real_servers6: BTreeMap<Endpoint6, SharedBy> = BTreeMap::new();
    let mut addresses4: BTreeMap<[u8; 4], u32> = BTreeMap::new();
    let mut addresses6: BTreeMap<[u8; 16], u32> = BTreeMap::new();
    let mut mark = |address: IpAddr, flag: u32| match address {
        IpAddr::V4(address) => *addresses4.entry(address.octets()).or_default() |= flag,
        IpAddr::V6(address) => *addresses6.entry(address.octets()).or_default() |= flag,
    };
    leased.for_each(|moving| mark(moving, address::LEASED));
    let served: Vec<(u16, &Endpoint)> = tables
        .endpoints
        .iter()
        .filter(|(id, _)| tables.is_served(**id))
        .map(|(id, record)| (*id, record))
        .collect();
    let mut by_service: BTreeMap<u16, Vec<(u16, &Endpoint)>> = BTreeMap::new();
    for (id, record) in served {
        mark(endpoint_address(record), address::VIRTUAL);
        by_service
            .entry(record.service)
            .or_default()
            .push((id, record));
    }

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
        let server = destination_address(record);
        for (id, virtual_end) in by_service.get(&record.service).into_iter().flatten() {
            let is_range = virtual_end.port != virtual_end.last_port;
            let port = match (record.port, is_range) {
                // The port that the client used: of a range, any.
                ([0, 0], false) => virtual_end.port,
                (port, _) => port,
            };
            let key = endpoint(server, port, virtual_end.protocol);
            let shared = match key {
                Key::V4(key) => real_servers4.entry(key).or_default(),
                Key::V6(key) => real_servers6.entry(key).or_default(),
            };
            if add(shared, *id) {
                mark(server, address::REAL);
            } else if !retired(record) {
                return Err(PlanError::Shared {
                    address: server,
                    port: u16::from_be_bytes(port),
                });
            }
        }
    }
    tables.real_servers4 = real_servers4;
    tables.real_servers6 = real_servers6;
    tables.addresses4 = addresses4;
    tables.addresses6 = addresses6;
    Ok(())
}

/// Puts an endpoint into a list unless it is there. False: the list is full.
pub(super) fn add(shared: &mut SharedBy, endpoint: u16) -> bool {
    match shared
        .endpoints
        .iter_mut()
        .find(|place| **place == 0 || **place == endpoint)
    {
        Some(place) => {
            *place = endpoint;
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_virtual_addresses_are_leased_or_not() {
        let (leased, real) = (address::VIRTUAL | address::LEASED, address::REAL);
        // (flags of the addresses, whether all virtual ones are leased)
        let cases: [(&[u32], bool); 5] = [
            (&[], true),
            (&[leased, real, address::LEASED], true),
            (&[address::VIRTUAL], false),
            (&[leased, address::VIRTUAL | real], false),
            (&[leased, leased | real], true),
        ];
        for (flags, expected) in cases {
            for ipv6 in [false, true] {
                let mut tables = Tables::default();
                for (number, flags) in (1..).zip(flags.iter().copied()) {
                    if ipv6 {
                        tables.addresses6.insert([number; 16], flags);
                    } else {
                        tables.addresses4.insert([number; 4], flags);
                    }
                }
                assert_eq!(is_all_leased(&tables), expected, "{flags:?} {ipv6}");
            }
        }
    }
}
