//! Another standing of some services' real servers: the short way from verdicts to the tables.
//!
//! [`super::desired`] looks at everything, which takes long with thousands of services. Verdicts change weights and flags of
//! their services' real servers and these services' scheduling tables: only these are looked at here, and the same [`diff`]
//! puts the writes in order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use xdp_ebpf::layout::{Destination, Service, destination, limits, service as service_flags};

use super::desired::{PlanError, effective, flags, share, slots};
use super::diff::diff;
use super::slots::Allocator;
use super::tables::{Tables, Write, destination_address};
use crate::config::VirtualService;
use crate::health::standing::ServiceStanding;

/// Flags of a service's record that the director has for itself.
const OWN_FLAGS: u16 = service_flags::YOUNG | service_flags::WAS_ON_CHANGE;

/// Services by their ids, and how their real servers take part now.
pub type Judged<'a> = BTreeMap<u16, (&'a VirtualService, &'a ServiceStanding)>;

/// The writes that make some services' real servers take part as their standings say.
///
/// # Errors
/// [`PlanError::Slots`]: no room for a new scheduling table.
pub fn reweigh(current: &Tables, services: &Judged<'_>) -> Result<Vec<Write>, PlanError> {
    let judged = services.keys().copied().collect();
    let before = part(current, &judged);
    let mut ids: BTreeMap<u16, BTreeMap<(IpAddr, u16), u32>> = BTreeMap::new();
    for (id, record) in &before.destinations {
        let server = (destination_address(record), u16::from_be_bytes(record.port));
        ids.entry(record.service).or_default().insert(server, *id);
    }
    let mut after = before.clone();
    let mut free = FreeSlots::of(current);
    for (id, (service, standing)) in services {
        let Some(record) = before.services.get(id).copied() else {
            continue;
        };
        let ids = ids.get(id);
        let destinations: Option<Vec<u32>> = service
            .all_servers()
            .map(|server| {
                let known = ids?.get(&(server.address, server.port.unwrap_or(0)));
                known.copied()
            })
            .collect();
        // Not all in the tables: the configuration that has them is not in force yet.
        let Some(destinations) = destinations else {
            continue;
        };
        for (place, (server, destination)) in service.all_servers().zip(&destinations).enumerate() {
            let effective = effective(service, standing, place, server);
            after
                .shares
                .insert(*destination, share(service, server, effective));
            if let Some(record) = after.destinations.get_mut(destination) {
                record.flags = flags(server, effective) | record.flags & destination::LOCAL;
            }
        }
        let (table, own_flags) = slots(current, *id, service, standing, &destinations);
        let table: Arc<[u32]> = table.into();
        let record = Service {
            flags: record.flags & !OWN_FLAGS | own_flags,
            ..record
        };
        let stands_already = before.slots.get(&record.first_slot) == Some(&table);
        if record.slots > 0 && stands_already {
            after.services.insert(*id, record);
            continue;
        }
        put(&mut after, &mut free, *id, record, &service.name, table)?;
    }
    Ok(diff(&before, &after))
}

/// The writes that give some services other words in their slots ([`super::owners`]): by id, with a name for people. A service
/// without any has no slots.
///
/// # Errors
/// [`PlanError::Slots`]: no room for them beside the old ones.
pub fn rewrite(
    current: &Tables,
    words: BTreeMap<u16, (&str, Vec<u32>)>,
) -> Result<Vec<Write>, PlanError> {
    let ids = words.keys().copied().collect();
    let before = part(current, &ids);
    let mut after = before.clone();
    let mut free = FreeSlots::of(current);
    for (id, (name, words)) in words {
        let Some(record) = before.services.get(&id).copied() else {
            continue;
        };
        put(&mut after, &mut free, id, record, name, words.into())?;
    }
    Ok(diff(&before, &after))
}

/// Gives a service another table.
fn put(
    after: &mut Tables,
    free: &mut FreeSlots<'_>,
    id: u16,
    record: Service,
    name: &str,
    table: Arc<[u32]>,
) -> Result<(), PlanError> {
    let (first_slot, slots) = free.find(name, &table)?;
    if record.slots > 0 {
        after.slots.remove(&record.first_slot);
    }
    if slots > 0 {
        after.slots.insert(first_slot, table);
    }
    let record = Service {
        first_slot,
        slots,
        ..record
    };
    after.services.insert(id, record);
    Ok(())
}

/// What the tables hold of some services, as far as verdicts change it.
fn part(tables: &Tables, services: &BTreeSet<u16>) -> Tables {
    let records: BTreeMap<u16, Service> = services
        .iter()
        .filter_map(|id| Some((*id, *tables.services.get(id)?)))
        .collect();
    let destinations: BTreeMap<u32, Destination> = tables
        .destinations
        .iter()
        .filter(|(_, record)| services.contains(&record.service))
        .map(|(id, record)| (*id, *record))
        .collect();
    let slots = records
        .values()
        .filter(|record| record.slots > 0)
        .filter_map(|record| tables.slots.get_key_value(&record.first_slot));
    Tables {
        settings: tables.settings,
        slots: slots
            .map(|(first, table)| (*first, Arc::clone(table)))
            .collect(),
        shares: destinations
            .keys()
            .filter_map(|id| Some((*id, *tables.shares.get(id)?)))
            .collect(),
        services: records,
        destinations,
        ..Tables::default()
    }
}

/// Slots that no service's record points to. Most verdicts need none, so they are looked for when one does.
struct FreeSlots<'a> {
    current: &'a Tables,
    allocator: Option<Allocator>,
}

impl<'a> FreeSlots<'a> {
    fn of(current: &'a Tables) -> Self {
        Self {
            current,
            allocator: None,
        }
    }

    /// First slot and number of slots for a table.
    fn find(&mut self, name: &str, table: &[u32]) -> Result<(u32, u32), PlanError> {
        if table.is_empty() {
            return Ok((0, 0));
        }
        let no_room = || PlanError::Slots {
            name: name.to_owned(),
            slots: table.len(),
        };
        let allocator = self.allocator.get_or_insert_with(|| {
            let mut allocator = Allocator::new(limits::SLOTS);
            for (first, table) in &self.current.slots {
                allocator.take(*first, table.len() as u32);
            }
            allocator
        });
        let slots = u32::try_from(table.len()).map_err(|_| no_room())?;
        let first = allocator.find(slots).ok_or_else(no_room)?;
        Ok((first, slots))
    }
}
