//! Another standing of one service's real servers: the short way from a verdict to the tables.
//!
//! [`super::desired`] looks at everything, which takes long with thousands of services. A verdict changes weights and flags of
//! one service's real servers and its scheduling table: only these are looked at here, and the same [`diff`] puts the writes
//! in order.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use xdp_ebpf::layout::{Destination, Service, limits};

use super::desired::{PlanError, effective, flags, scheduling_table, share};
use super::diff::diff;
use super::slots::Allocator;
use super::tables::{Tables, Write, destination_address};
use crate::config::VirtualService;
use crate::health::standing::ServiceStanding;

/// The writes that make a service's real servers take part as its standing says. `id`: the service's.
///
/// # Errors
/// [`PlanError::Slots`]: no room for its new scheduling table.
pub fn reweigh(
    current: &Tables,
    id: u16,
    service: &VirtualService,
    standing: &ServiceStanding,
) -> Result<Vec<Write>, PlanError> {
    let before = part(current, id);
    let Some(record) = before.services.get(&id).copied() else {
        return Ok(Vec::new());
    };
    let ids: BTreeMap<(IpAddr, u16), u32> = before
        .destinations
        .iter()
        .map(|(id, record)| {
            (
                (destination_address(record), u16::from_be_bytes(record.port)),
                *id,
            )
        })
        .collect();
    let mut after = before.clone();
    let mut destinations = Vec::new();
    for (place, server) in service.all_servers().enumerate() {
        let Some(destination) = ids.get(&(server.address, server.port.unwrap_or(0))) else {
            // Not in the tables: the configuration that has it is not in force yet.
            return Ok(Vec::new());
        };
        let effective = effective(service, standing, place, server);
        destinations.push(*destination);
        after.shares.insert(*destination, share(server, effective));
        if let Some(record) = after.destinations.get_mut(destination) {
            *record = Destination {
                flags: flags(server, effective),
                ..*record
            };
        }
    }
    let table: Arc<[u32]> = scheduling_table(service, standing, &destinations).into();
    let stands_already = before.slots.get(&record.first_slot) == Some(&table);
    if !stands_already || record.slots == 0 {
        after.slots.clear();
        let (first_slot, slots) = free_slots(current, service, &table)?;
        if slots > 0 {
            after.slots.insert(first_slot, table);
        }
        let record = Service {
            first_slot,
            slots,
            ..record
        };
        after.services.insert(id, record);
    }
    Ok(diff(&before, &after))
}

/// What the tables hold of one service, as far as verdicts change it.
fn part(tables: &Tables, id: u16) -> Tables {
    let record = tables.services.get(&id);
    let destinations: BTreeMap<u32, Destination> = tables
        .destinations
        .iter()
        .filter(|(_, record)| record.service == id)
        .map(|(id, record)| (*id, *record))
        .collect();
    let standing = record.filter(|record| record.slots > 0);
    let slots = standing.and_then(|record| tables.slots.get_key_value(&record.first_slot));
    Tables {
        settings: tables.settings,
        services: record.map(|record| (id, *record)).into_iter().collect(),
        slots: slots
            .map(|(first, table)| (*first, Arc::clone(table)))
            .into_iter()
            .collect(),
        shares: destinations
            .keys()
            .filter_map(|id| Some((*id, *tables.shares.get(id)?)))
            .collect(),
        destinations,
        ..Tables::default()
    }
}

/// First slot and number of slots for a table, among those that no service's record points to.
fn free_slots(
    current: &Tables,
    service: &VirtualService,
    table: &[u32],
) -> Result<(u32, u32), PlanError> {
    if table.is_empty() {
        return Ok((0, 0));
    }
    let no_room = || PlanError::Slots {
        name: service.name.clone(),
        slots: table.len(),
    };
    let mut allocator = Allocator::new(limits::SLOTS);
    for (first, table) in &current.slots {
        allocator.take(*first, table.len() as u32);
    }
    let slots = u32::try_from(table.len()).map_err(|_| no_room())?;
    let first = allocator.find(slots).ok_or_else(no_room)?;
    Ok((first, slots))
}
