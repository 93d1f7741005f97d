//! Schedulers that compare live counts: `lc`, `wlc`, `sed`, `nq`, `fo`, `ovf`, `twos`.
//!
//! Each looks at all destinations of the service in their configured order, once for each new connection (`twos` twice).

use core::ptr::NonNull;

use super::{slots, takes};
use crate::atomic::load;
use crate::layout::{Load, limits, scheduler};
use crate::tables::{Tables, work};
use crate::verifier::repeat;

/// What of a destination's connections counts (`ip_vs_dest_conn_overhead`: 256 for an active one, 1 for another).
#[inline(always)]
fn overhead(destination: &Load) -> u64 {
    count(&destination.active)
        .wrapping_mul(256)
        .wrapping_add(count(&destination.inactive))
}

/// Active connections.
#[inline(always)]
pub(super) fn active(destination: &Load) -> u64 {
    count(&destination.active)
}

/// Its weight, of at most 31 bits.
#[inline(always)]
pub(super) fn weight(destination: &Load) -> u32 {
    load(&destination.weight) as u32
}

/// A count, which may be below 0 for a moment.
#[inline(always)]
fn count(word: &core::sync::atomic::AtomicU64) -> u64 {
    let count = load(word);
    // No branch: each one doubles what the verifier walks.
    count & !((count as i64 >> 63) as u64)
}

/// A cost and the weight it is borne by.
#[derive(Clone, Copy)]
pub(super) struct Share {
    pub(super) cost: u64,
    pub(super) weight: u32,
}

impl Share {
    /// Whether this one has more to bear for its weight: cross-multiplied, as the kernel does, and exact for every count
    /// and weight (96 bits in two words).
    #[inline(always)]
    pub(super) fn is_above(self, other: Self) -> bool {
        let (high, low) = product(self.cost, other.weight);
        let (other_high, other_low) = product(other.cost, self.weight);
        high > other_high || high == other_high && low > other_low
    }
}

/// A product as (bits from 16 on, lower 16 bits). Costs have at most 48 bits.
#[inline(always)]
fn product(cost: u64, weight: u32) -> (u64, u64) {
    let low = (cost & 0xffff) * u64::from(weight);
    let high = (cost >> 16) * u64::from(weight);
    (high + (low >> 16), low & 0xffff)
}

/// The load on a destination under `wlc`.
#[inline(always)]
pub(super) fn weighted(destination: &Load) -> Share {
    Share {
        cost: overhead(destination),
        weight: weight(destination),
    }
}

/// A walk over the destinations of a service.
struct Walk<'t, T> {
    tables: &'t T,
    numbers: NonNull<Numbers>,
}

/// What a walk has found so far.
#[derive(Clone, Copy)]
struct Numbers {
    first_slot: u32,
    scheduler: u32,
    /// The best so far, 0: none.
    best: u32,
    share: Share,
    /// `twos`: first the sum of the weights, then what is left until the two that were drawn.
    sum: u64,
    drawn: [i64; 2],
    second: u32,
    second_share: Share,
    /// The last one that was available: where weights fell since they were summed up, a draw reaches none.
    last: u32,
}

/// Looks at one destination.
extern "C" fn look<T: Tables>(turn: u32, walk: *mut Walk<'_, T>) -> i64 {
    // SAFETY: `repeat` hands over what it was given, and the numbers are this CPU's own memory, filled in `choose`.
    let (tables, walk) = unsafe { ((*walk).tables, (*walk).numbers.as_mut()) };
    let Some(id) = tables.slot(walk.first_slot + turn) else {
        return 1;
    };
    let Some(destination) = tables.load(id) else {
        return 1;
    };
    if !takes(destination) {
        return 0;
    }
    let weight = weight(destination);
    let share = match walk.scheduler as u8 {
        scheduler::LC => Share {
            cost: overhead(destination),
            weight: 1,
        },
        scheduler::WLC => weighted(destination),
        scheduler::SED => Share {
            cost: active(destination) + 1,
            weight,
        },
        scheduler::NQ => {
            if active(destination) == 0 {
                walk.best = id;
                return 1;
            }
            Share {
                cost: active(destination) + 1,
                weight,
            }
        }
        // The heaviest: one that has less to bear for its weight if all bear the same.
        scheduler::FO => Share { cost: 1, weight },
        scheduler::OVF => {
            if active(destination) > u64::from(weight) {
                return 0;
            }
            Share { cost: 1, weight }
        }
        _ => {
            walk.sum += u64::from(weight);
            return 0;
        }
    };
    if walk.best == 0 || walk.share.is_above(share) {
        walk.best = id;
        walk.share = share;
    }
    0
}

/// `twos`: finds the two destinations that were drawn.
extern "C" fn draw<T: Tables>(turn: u32, walk: *mut Walk<'_, T>) -> i64 {
    // SAFETY: `repeat` hands over what it was given, and the numbers are this CPU's own memory, filled in `choose`.
    let (tables, walk) = unsafe { ((*walk).tables, (*walk).numbers.as_mut()) };
    let Some(id) = tables.slot(walk.first_slot + turn) else {
        return 1;
    };
    let Some(destination) = tables.load(id) else {
        return 1;
    };
    if !takes(destination) {
        return 0;
    }
    walk.last = id;
    let weight = i64::from(weight(destination));
    walk.drawn[0] -= weight;
    walk.drawn[1] -= weight;
    if walk.drawn[0] <= 0 && walk.best == 0 {
        walk.best = id;
        walk.share = weighted(destination);
    }
    if walk.drawn[1] <= 0 && walk.second == 0 {
        walk.second = id;
        walk.second_share = weighted(destination);
    }
    i64::from(walk.best != 0 && walk.second != 0)
}

/// Destination id, 0 if none is available.
#[inline(always)]
pub fn choose<T: Tables>(tables: &T, service: u16) -> u32 {
    let Some(service) = tables.service(service) else {
        return 0;
    };
    let (first_slot, slots) = slots(service);
    let Some(mut numbers) = work::<Numbers, T>(tables) else {
        return 0;
    };
    // SAFETY: this CPU's own memory (contract of `Tables`).
    unsafe {
        numbers.write(Numbers {
            first_slot,
            scheduler: u32::from(service.scheduler),
            best: 0,
            share: Share { cost: 0, weight: 1 },
            sum: 0,
            drawn: [0; 2],
            second: 0,
            second_share: Share { cost: 0, weight: 1 },
            last: 0,
        });
    }
    let mut walk = Walk { tables, numbers };
    let turns = slots.min(limits::COUNTED);
    repeat(turns, &mut walk, look::<T>);
    // SAFETY: as above; the walk is over.
    let numbers = unsafe { numbers.as_mut() };
    if service.scheduler == scheduler::TWOS && numbers.sum > 0 {
        // From 0 to the sum inclusive, as the kernel draws.
        numbers.drawn = [
            draw_below(tables, numbers.sum),
            draw_below(tables, numbers.sum),
        ];
        repeat(turns, &mut walk, draw::<T>);
        if numbers.second != 0 && numbers.share.is_above(numbers.second_share) {
            return numbers.second;
        }
        if numbers.best == 0 {
            return numbers.last;
        }
    }
    numbers.best
}

/// A random number from 0 to `sum` inclusive (`get_random_u32_below(sum + 1)`; 32 bits of a draw times the range).
#[inline(always)]
fn draw_below<T: Tables>(tables: &T, sum: u64) -> i64 {
    // At most 1,024 weights of 31 bits: the sum has 41, the upper 32 of it are drawn and then the rest.
    let random = u64::from(tables.random());
    let range = sum + 1;
    ((range >> 32) * random + (((range & 0xffff_ffff) * random) >> 32)) as i64
}
