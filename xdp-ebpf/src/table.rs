//! The connection table of one CPU: two candidate buckets for each connection, one move to make room, and an order in
//! which something is given up when even that fails.
//!
//! ```text
//!   hash ──low half──► bucket a: ▢▢▢▢   a hit looks here first (88–96 % of connections)
//!        └─high half─► bucket b: ▢▢▢▢   then here
//! ```
//!
//! Simulated share of live connections lost to full buckets at a filling of 50 / 62 / 75 / 87 %: one bucket 3.7 / 6.8 /
//! 10.7 / 15 %; two buckets 0.4 / 1.3 / 3.3 / 6.6 %; two buckets and one move 0.000 / 0.001 / 0.02 / 0.5 %.

pub mod learn;
mod room;

pub use room::{ASKED, FUTILE, ONE_OF};

use crate::atomic::{fetch_add, load, store};
use crate::connection::{Bucket, Value};
use crate::layout::{self, Settings, limits};
use crate::reach::{Key, Shape};
use crate::state::State;
use crate::tables::Tables;
use crate::verifier::repeat;

/// Where a connection stands, and its value when it was looked for: [`Value::NONE`] if it was not found.
///
/// Not an `Option`: the compiler would leave its fields undefined when there is nothing, and move them about all the
/// same, which the verifier does not allow.
#[derive(Clone, Copy)]
pub struct Found {
    /// Index of its bucket.
    pub bucket: u32,
    /// Its place in the bucket.
    pub way: u32,
    /// Its value.
    pub value: Value,
}

impl Found {
    /// No connection.
    pub const NOTHING: Self = Self {
        bucket: 0,
        way: 0,
        value: Value::NONE,
    };

    /// Whether there is a connection.
    #[inline(always)]
    #[must_use]
    pub const fn is_some(&self) -> bool {
        self.value.is_some()
    }
}

// The second candidate of a table with a single bucket would be another CPU's. Nothing here looks for that on each packet.
const _: () = assert!(limits::MIN_BUCKETS >= 2);

/// First and second candidate bucket of a hash in the table of `buckets`, at least two, that starts at `base`. Never the same
/// one.
#[inline(always)]
pub fn candidates(hash: u64, buckets: u32, base: u32) -> (u32, u32) {
    // A share of the range rather than a remainder: any number of buckets at the price of a mask, so that a table
    // takes the memory that was asked for and not up to twice of it.
    let first = ((u64::from(hash as u32) * u64::from(buckets)) >> 32) as u32;
    let second = (((hash >> 32) * u64::from(buckets)) >> 32) as u32;
    let second = if second != first {
        second
    } else if first == 0 {
        1
    } else {
        first - 1
    };
    (base + first, base + second)
}

/// First bucket of a CPU's table.
#[inline(always)]
fn base<S: Shape>(settings: &Settings, cpu: u32) -> u32 {
    cpu * S::buckets(settings)
}

#[inline(always)]
fn find_in<S: Shape, T: Tables>(tables: &T, index: u32, key: Key<S>) -> Found {
    let Some(bucket) = S::bucket(tables, index) else {
        return Found::NOTHING;
    };
    let mut way = 0;
    while way < S::Bucket::WAYS {
        if bucket.holds(way, key) {
            let value = Value(load(bucket.value(way)));
            if value.is_some() {
                return Found {
                    bucket: index,
                    way: way as u32,
                    value,
                };
            }
        }
        way += 1;
    }
    Found::NOTHING
}

/// Finds a connection in a CPU's table.
#[inline(always)]
pub fn find<S: Shape, T: Tables>(tables: &T, settings: &Settings, cpu: u32, key: Key<S>) -> Found {
    let hash = S::Bucket::hash(key, settings.seed);
    let (first, second) = candidates(hash, S::buckets(settings), base::<S>(settings, cpu));
    let found = find_in::<S, T>(tables, first, key);
    if found.is_some() {
        return found;
    }
    find_in::<S, T>(tables, second, key)
}

/// Finds a connection in another CPU's table, which that CPU may be changing: [`Value::NONE`] if it is not there, and for
/// the moment in which it is moved.
#[inline(always)]
pub fn find_foreign<S: Shape, T: Tables>(
    tables: &T,
    settings: &Settings,
    cpu: u32,
    key: Key<S>,
) -> Value {
    let found = find::<S, T>(tables, settings, cpu, key);
    // The place may have been filled anew between the look at its key and the look at its value. The key is written before
    // the value ([`Bucket::fill`]): where it is still the same, so it was when the value was read.
    match S::bucket(tables, found.bucket) {
        Some(bucket) if found.is_some() && bucket.holds(found.way as usize, key) => found.value,
        _ => Value::NONE,
    }
}

/// A search of all tables under way.
struct Search<'t, S: Shape, T> {
    tables: &'t T,
    settings: &'t Settings,
    key: Key<S>,
    but: u32,
    value: Value,
}

/// For [`find_elsewhere`]: no table is left out.
pub const EVERYWHERE: u32 = u32::MAX;

/// Looks into one CPU's table. All of them: where a port was used again after the NIC had moved its flow, an older
/// entry names another real server.
extern "C" fn search<S: Shape, T: Tables>(cpu: u32, search: *mut Search<'_, S, T>) -> i64 {
    // SAFETY: `repeat` hands over what it was given.
    let search = unsafe { &mut *search };
    if cpu == search.but {
        return 0;
    }
    let value = find_foreign::<S, T>(search.tables, search.settings, cpu, search.key);
    let now_s = search.settings.now_s;
    if value.is_some()
        && (!search.value.is_some() || value.idle_s(now_s) < search.value.idle_s(now_s))
    {
        search.value = value;
    }
    0
}

/// Finds a connection in all CPUs' tables but one, the entry last used: for packets of a flow that the NIC moved. Never
/// called on a hit. [`Value::NONE`]'s word if there is none.
#[inline(always)]
pub fn find_elsewhere<S: Shape, T: Tables>(tables: &T, key: &Key<S>, but: u32) -> u64 {
    let Some(settings) = tables.settings() else {
        return 0;
    };
    let mut state = Search::<S, T> {
        tables,
        settings,
        key: *key,
        but,
        value: Value::NONE,
    };
    repeat(settings.cpus.min(limits::CPUS), &mut state, search::<S, T>);
    state.value.0
}

/// Stores a new value of a connection that was found in this CPU's own table.
#[inline(always)]
pub fn update<S: Shape, T: Tables>(tables: &T, found: &Found, value: Value) {
    if let Some(bucket) = S::bucket(tables, found.bucket) {
        store(bucket.value(found.way as usize), value.0);
    }
}

/// A place without a connection in a bucket.
#[inline(always)]
fn free_way<B: Bucket>(bucket: &B) -> Option<usize> {
    let mut way = 0;
    while way < B::WAYS {
        if bucket.is_free(way) || load(bucket.value(way)) == 0 {
            return Some(way);
        }
        way += 1;
    }
    None
}

#[inline(always)]
fn put_if_room<S: Shape, T: Tables>(tables: &T, index: u32, key: Key<S>, value: Value) -> bool {
    let Some(bucket) = S::bucket(tables, index) else {
        return false;
    };
    let Some(way) = free_way(bucket) else {
        return false;
    };
    bucket.fill(way, key, value);
    true
}

/// Counts a connection in its destination's load.
#[inline(always)]
pub fn count<T: Tables>(tables: &T, value: Value) {
    change::<T>(tables, value, 1);
}

/// Takes a connection that is given up, or is another one from now on, out of its destination's load.
#[inline(always)]
pub fn uncount<T: Tables>(tables: &T, value: Value) {
    change::<T>(tables, value, u64::MAX);
}

/// A copy does not count: its original does.
#[inline(always)]
fn change<T: Tables>(tables: &T, value: Value, by: u64) {
    if value.flags() & Value::COPY != 0 {
        return;
    }
    let (Some(state), Some(load)) = (
        State::from_u8(value.state()),
        tables.load(value.destination()),
    ) else {
        return;
    };
    let counter = if state.is_active() {
        &load.active
    } else {
        &load.inactive
    };
    fetch_add(counter, by);
}

/// A connection's value in this CPU's own table changes: so does its destination's load, if it changed its kind or its
/// destination.
#[inline(always)]
pub fn recount<T: Tables>(tables: &T, old: Value, new: Value) {
    let kind = |value: Value| State::from_u8(value.state()).is_some_and(|state| state.is_active());
    if kind(old) != kind(new) || old.destination() != new.destination() {
        uncount(tables, old);
        count(tables, new);
    }
}

/// What came of a connection that was to be put into a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The table is full of what is worth more, or takes nothing new ([`layout::settings::MOVING`]), or is not there.
    Refused,
    /// It is in.
    In,
    /// There is no room in its candidate buckets: [`put_beyond`] wants this number.
    Crowded(u64),
}

impl Put {
    /// As one number, for the kernel's functions.
    #[inline(always)]
    #[must_use]
    pub const fn to_number(self) -> u64 {
        match self {
            Self::Refused => 0,
            Self::In => 1,
            Self::Crowded(number) => 2 + number,
        }
    }

    /// What a number stands for.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        match number {
            0 => Self::Refused,
            1 => Self::In,
            _ => Self::Crowded(number - 2),
        }
    }
}

/// Puts a connection into this CPU's table and counts it; an entry that it has there already, of an earlier connection
/// under the same addresses, gets the new value. Whether it is in.
#[inline(always)]
pub fn insert<S: Shape, T: Tables>(tables: &T, key: &Key<S>, value: u64) -> bool {
    match put::<S, T>(tables, key, value, false) {
        Put::Refused => false,
        Put::In => true,
        Put::Crowded(number) => put_beyond::<S, T>(tables, key, value, number),
    }
}

/// The first half of [`insert`]. `is_new`: there is no such entry, the table has been looked into.
#[inline(always)]
pub fn put<S: Shape, T: Tables>(tables: &T, key: &Key<S>, value: u64, is_new: bool) -> Put {
    let Some(settings) = tables.settings() else {
        return Put::Refused;
    };
    let hash = S::Bucket::hash(*key, settings.seed);
    let base = base::<S>(settings, tables.cpu());
    let (first, second) = candidates(hash, S::buckets(settings), base);
    let value = Value(value);
    if !is_new {
        let mut known = find_in::<S, T>(tables, first, *key);
        if !known.is_some() {
            known = find_in::<S, T>(tables, second, *key);
        }
        if known.is_some() {
            update::<S, T>(tables, &known, value);
            recount(tables, known.value, value);
            return Put::In;
        }
    }
    if settings.flags & layout::settings::MOVING != 0 {
        return Put::Refused;
    }
    let is_put = put_if_room::<S, T>(tables, first, *key, value)
        || put_if_room::<S, T>(tables, second, *key, value);
    let put = if is_put {
        Put::In
    } else {
        room::near::<S, T>(tables, settings, *key, value, (first, second))
    };
    if put == Put::In {
        count(tables, value);
    }
    put
}

/// The second half of [`insert`], for [`Put::Crowded`]. Whether the connection is in.
#[inline(always)]
pub fn put_beyond<S: Shape, T: Tables>(tables: &T, key: &Key<S>, value: u64, number: u64) -> bool {
    let value = Value(value);
    let is_put = room::beyond::<S, T>(tables, *key, value, number);
    if is_put {
        count(tables, value);
    }
    is_put
}

#[cfg(all(test, feature = "native"))]
mod tests;
