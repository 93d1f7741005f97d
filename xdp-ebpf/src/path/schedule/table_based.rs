//! Schedulers that read a table which the director built: `rr`, `wrr`, `mh`, `sh`, `dh`.

use super::{Candidate, slots, takes};
use crate::atomic::fetch_add;
use crate::layout::{Service, limits, scheduler, service, slot};
use crate::path::Ip;
use crate::tables::Tables;
use crate::verifier::repeat;

/// A search for a slot whose destination may get a new connection.
struct Search<'t, T> {
    tables: &'t T,
    first_slot: u32,
    slots: u32,
    /// The slot that `turn` 0 looks at, before the remainder.
    start: u32,
    /// For `rr` and `wrr`: each look moves the cursor on, as in the kernel. 0: none.
    service: u16,
    found: u32,
}

/// Looks at one slot.
extern "C" fn look<T: Tables>(turn: u32, search: *mut Search<'_, T>) -> i64 {
    // SAFETY: `repeat` hands over what it was given.
    let search = unsafe { &mut *search };
    let position = if search.service == 0 {
        search.start.wrapping_add(turn)
    } else {
        match search.tables.cursor(search.service) {
            Some(cursor) => fetch_add(cursor, 1) as u32,
            None => return 1,
        }
    };
    // Zero slots were sorted out before; the verifier wants to see it here.
    let slots = if search.slots == 0 { 1 } else { search.slots };
    let Some(word) = search.tables.slot(search.first_slot + position % slots) else {
        return 1;
    };
    let id = slot::owner(word);
    if search.tables.load(id).is_some_and(takes) {
        search.found = id;
        return 1;
    }
    0
}

/// What of a client decides, for schedulers that hash.
#[inline(always)]
pub(super) fn hash<F: Ip>(candidate: &Candidate<'_, F>) -> u32 {
    let record = candidate.service;
    let port = port_that_counts(record, candidate.source_port);
    match record.scheduler {
        scheduler::CURSOR => 0,
        scheduler::MAGLEV => client_hash(F::folded(candidate.source), port),
        scheduler::SOURCE => ipvs_hash(F::folded(candidate.source), port),
        _ => ipvs_hash(F::folded(candidate.destination), 0),
    }
}

/// Destination id, 0 if none is available.
#[inline(always)]
pub fn choose<T: Tables>(tables: &T, service: u16, hash: u32) -> u32 {
    let Some(record) = tables.service(service) else {
        return 0;
    };
    let (first_slot, slots) = slots(record);
    if slots == 0 {
        return 0;
    }
    let takes_turns = record.scheduler == scheduler::CURSOR;
    let mut search = Search {
        tables,
        first_slot,
        slots,
        start: hash,
        service: if takes_turns { service } else { 0 },
        found: 0,
    };
    let looks = if takes_turns { slots } else { 1 };
    repeat(looks.min(limits::PROBES), &mut search, look::<T>);
    if search.found == 0 && !takes_turns && record.flags & service::FALLBACK != 0 {
        // `ip_vs_sh_get_fallback`: from twice the hash on, slot after slot. A Maglev table has no order to keep to:
        // from the hash on.
        search.start = match record.scheduler {
            scheduler::MAGLEV => hash % slots,
            _ => hash.wrapping_mul(2),
        };
        repeat(slots.min(limits::PROBES), &mut search, look::<T>);
    }
    search.found
}

/// `hash_32` over address and port, both as numbers, to 8 bits: which bucket `sh` and `dh` of the kernel take
/// (`ip_vs_sh_hashkey`, `ip_vs_dh_hashkey`; the multiplier is `GOLDEN_RATIO_32` of `linux/hash.h`).
#[inline(always)]
fn ipvs_hash(folded: u32, port: u16) -> u32 {
    let number = u32::from_be(folded).wrapping_add(u32::from(u16::from_be(port)));
    number.wrapping_mul(0x61c8_8647) >> 24
}

/// The client's port where it counts, else 0.
#[inline(always)]
pub(in crate::path) fn port_that_counts(record: &Service, port: u16) -> u16 {
    if record.flags & service::PORT == 0 {
        0
    } else {
        port
    }
}

/// Hash of a client for `mh`: its folded address ([`crate::family::Family::folded`]) and its port, both as in a packet. The same on every node, so
/// without the table's secret.
#[inline(always)]
#[must_use]
pub fn client_hash(folded: u32, port: u16) -> u32 {
    // Read as little-endian, so that nodes of either byte order agree.
    let word = u64::from(folded.to_le()) | u64::from(port.to_le()) << 32;
    let word = (word ^ 0x6d68_2d64_6972_6563).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((word ^ word >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) as u32
}
