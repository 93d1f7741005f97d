//! `lblc` and `lblcr`: an address (the virtual one, of services that stand for many) keeps its destination, or its set of
//! destinations, while they are not overloaded.
//!
//! `ip_vs_lblc.c` and `ip_vs_lblcr.c` of the kernel, with its time for a set that did not change ([`SHRINK_S`]). The map
//! gives the longest unused address up when it is full; the director takes away what nobody used for a day.

use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

use super::counting::{Share, active, weight, weighted};
use super::{slots, takes};
use crate::atomic::{load, store};
use crate::layout::{Load, Locality, LocalityKey, limits, scheduler};
use crate::tables::{Tables, work};
use crate::verifier::repeat;

/// After so many seconds without a change a set of more than one loses its most loaded member
/// (`sysctl_lblcr_expiration`).
const SHRINK_S: u32 = 24 * 60 * 60;

/// The best of some destinations, and its slot.
#[derive(Clone, Copy)]
struct Best {
    id: u32,
    slot: u32,
    share: Share,
}

impl Best {
    const NONE: Self = Self {
        id: 0,
        slot: 0,
        share: Share { cost: 0, weight: 1 },
    };
}

/// A walk over the destinations of a service.
struct Walk<'t, T> {
    tables: &'t T,
    /// The set of `lblcr`.
    members: Option<&'t [AtomicU64; limits::LOCALITY_WORDS]>,
    numbers: NonNull<Numbers>,
}

/// What a walk has found so far.
#[derive(Clone, Copy)]
struct Numbers {
    first_slot: u32,
    /// `wlc`'s choice among all.
    best: Best,
    /// The least and the most loaded of the set, and how many it has.
    least: Best,
    most: Best,
    size: u32,
    /// Whether some destination has less than half as many active connections as its weight (`is_overloaded`).
    relief: u32,
}

/// Looks at one destination.
extern "C" fn look<T: Tables>(turn: u32, walk: *mut Walk<'_, T>) -> i64 {
    // SAFETY: `repeat` hands over what it was given, and the numbers are this CPU's own memory, filled in `choose`.
    let (tables, members, walk) =
        unsafe { ((*walk).tables, (*walk).members, (*walk).numbers.as_mut()) };
    let Some(id) = tables.slot(walk.first_slot + turn) else {
        return 1;
    };
    let Some(destination) = tables.load(id) else {
        return 1;
    };
    if active(destination) * 2 < u64::from(weight(destination)) {
        walk.relief = 1;
    }
    let share = weighted(destination);
    let this = Best {
        id,
        slot: turn,
        share,
    };
    let is_member = match members {
        Some(members) => {
            let word = (turn / 64) as usize & (limits::LOCALITY_WORDS - 1);
            load(&members[word]) >> (turn % 64) & 1 != 0
        }
        None => false,
    };
    if is_member {
        walk.size += 1;
        // The most loaded one may be overloaded, but not out (`ip_vs_dest_set_max`).
        if weight(destination) != 0 && (walk.most.id == 0 || share.is_above(walk.most.share)) {
            walk.most = this;
        }
    }
    if !takes(destination) {
        return 0;
    }
    if is_member && (walk.least.id == 0 || walk.least.share.is_above(share)) {
        walk.least = this;
    }
    if walk.best.id == 0 || walk.best.share.is_above(share) {
        walk.best = this;
    }
    0
}

/// Whether a destination has more active connections than its weight, and another one room (`is_overloaded`).
#[inline(always)]
fn is_overloaded(destination: &Load, relief: u32) -> bool {
    active(destination) > u64::from(weight(destination)) && relief != 0
}

/// Destination id, 0 if none is available, for an address as tables hold it.
#[inline(always)]
pub fn choose<T: Tables>(tables: &T, service: u16, address: [u64; 2], now_s: u32) -> u32 {
    let Some(record) = tables.service(service) else {
        return 0;
    };
    let (first_slot, slots) = slots(record);
    let key = &LocalityKey {
        // SAFETY: both are 16 bytes of plain data.
        address: unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(address) },
        first_slot,
        service,
        zero: 0,
    };
    let replicates = record.scheduler == scheduler::LBLCR;
    let known = tables.locality(key);
    let Some(numbers) = work::<Numbers, T>(tables) else {
        return 0;
    };
    // SAFETY: this CPU's own memory (contract of `Tables`).
    unsafe {
        numbers.write(Numbers {
            first_slot,
            best: Best::NONE,
            least: Best::NONE,
            most: Best::NONE,
            size: 0,
            relief: 0,
        });
    }
    let mut walk = Walk {
        tables,
        members: match known {
            Some(known) if replicates => Some(&known.members),
            _ => None,
        },
        numbers,
    };
    repeat(slots.min(limits::COUNTED), &mut walk, look::<T>);
    // SAFETY: as above; the walk is over.
    let walk = unsafe { numbers.as_ref() };
    if let Some(known) = known {
        store(&known.seen_s, u64::from(now_s));
        let cached = if replicates {
            shrink(known, &walk.most, walk.size, now_s);
            walk.least.id
        } else {
            load(&known.word) as u32
        };
        if let Some(destination) = tables.load(cached)
            && cached != 0
            && (replicates || stands(tables, cached, key.service, destination))
            && !is_overloaded(destination, walk.relief)
        {
            return cached;
        }
    }
    if walk.best.id == 0 {
        return 0;
    }
    let known = match known {
        Some(known) => Some(known),
        None => {
            // Refused or lost in a race: the choice stands, and the next connection decides anew.
            tables.add_locality(key);
            tables.locality(key)
        }
    };
    if let Some(known) = known {
        store(&known.seen_s, u64::from(now_s));
        if replicates {
            let word =
                &known.members[(walk.best.slot / 64) as usize & (limits::LOCALITY_WORDS - 1)];
            let with = load(word) | 1 << (walk.best.slot % 64);
            if with != load(word) {
                store(word, with);
                store(&known.word, u64::from(now_s));
            }
        } else {
            store(&known.word, u64::from(walk.best.id));
        }
    }
    walk.best.id
}

/// `lblc`: whether the cached destination is still the service's and not out. The kernel does not ask for its threshold.
#[inline(always)]
fn stands<T: Tables>(tables: &T, id: u32, service: u16, destination: &Load) -> bool {
    weight(destination) != 0
        && tables
            .destination(id)
            .is_some_and(|record| record.method != 0 && record.service == service)
}

/// `lblcr`: a set that has not changed for long loses its most loaded member.
#[inline(always)]
fn shrink(known: &Locality, most: &Best, size: u32, now_s: u32) {
    let changed_s = load(&known.word) as u32;
    if size < 2 || most.id == 0 || now_s.wrapping_sub(changed_s) <= SHRINK_S {
        return;
    }
    let word = &known.members[(most.slot / 64) as usize & (limits::LOCALITY_WORDS - 1)];
    store(word, load(word) & !(1 << (most.slot % 64)));
    store(&known.word, u64::from(now_s));
}
