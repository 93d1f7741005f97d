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

use core::ptr::NonNull;

use crate::atomic::{fetch_add, load, store};
use crate::connection::{Bucket, EXPENDABLE, Value};
use crate::layout::{Settings, limits};
use crate::reach::{Key, Shape};
use crate::state::State;
use crate::tables::{Tables, work};
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

/// First and second candidate bucket of a hash in the table of `buckets` that starts at `base`. Never the same one, if
/// there are two.
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

/// A connection that found no room.
#[derive(Clone, Copy)]
struct Crowded<K> {
    key: K,
    value: Value,
    base: u32,
    first: u32,
    second: u32,
    /// The most expendable place so far: how expendable, and which of all places.
    worst: u32,
    worst_place: u32,
}

/// What a look for room is given.
struct Room<'t, S: Shape, T> {
    tables: &'t T,
    crowded: NonNull<Crowded<Key<S>>>,
}

impl<S: Shape, T: Tables> Room<'_, S, T> {
    #[inline(always)]
    fn crowded(&mut self) -> &mut Crowded<Key<S>> {
        // SAFETY: this CPU's own memory (contract of `Tables`), which `make_room` has filled.
        unsafe { self.crowded.as_mut() }
    }
}

/// The bucket and way of the `place`-th of all places in both candidate buckets.
#[inline(always)]
fn place<S: Shape>(crowded: &Crowded<Key<S>>, place: u32) -> (u32, usize) {
    let ways = S::Bucket::WAYS as u32;
    if place < ways {
        (crowded.first, place as usize)
    } else {
        (crowded.second, (place - ways) as usize)
    }
}

/// Moves the occupant of a place to its other bucket, if there is room, and takes its place.
extern "C" fn put_by_moving<S: Shape, T: Tables>(turn: u32, room: *mut Room<'_, S, T>) -> i64 {
    // SAFETY: `repeat` hands over what it was given.
    let room = unsafe { &mut *room };
    let tables = room.tables;
    let crowded = room.crowded();
    let (index, way) = place::<S>(crowded, turn);
    let (Some(bucket), Some(settings)) = (S::bucket(tables, index), tables.settings()) else {
        return 1;
    };
    let occupant = bucket.key(way);
    let value = Value(load(bucket.value(way)));
    let hash = S::Bucket::hash(occupant, settings.seed);
    let (first, second) = candidates(hash, S::buckets(settings), crowded.base);
    let other = if first == index { second } else { first };
    if !put_if_room::<S, T>(tables, other, occupant, value) {
        return 0;
    }
    bucket.fill(way, crowded.key, crowded.value);
    crowded.value = Value::NONE;
    1
}

/// Looks for the most expendable place.
extern "C" fn find_worst<S: Shape, T: Tables>(turn: u32, room: *mut Room<'_, S, T>) -> i64 {
    // SAFETY: `repeat` hands over what it was given.
    let room = unsafe { &mut *room };
    let tables = room.tables;
    let crowded = room.crowded();
    let (index, way) = place::<S>(crowded, turn);
    let (Some(bucket), Some(settings)) = (S::bucket(tables, index), tables.settings()) else {
        return 1;
    };
    let same_endpoint = S::Bucket::endpoint(bucket.key(way)) == S::Bucket::endpoint(crowded.key);
    let value = Value(load(bucket.value(way)));
    let expendability = value.expendability(settings.now_s, same_endpoint);
    if expendability >= crowded.worst {
        crowded.worst = expendability;
        crowded.worst_place = turn;
    }
    0
}

/// Makes room for a connection whose candidate buckets are full: by moving one occupant, else by giving one up. A
/// half-open one gets no room from one that stands.
#[inline(always)]
fn make_room<S: Shape, T: Tables>(tables: &T, crowded: Crowded<Key<S>>) -> bool {
    let Some(memory) = work::<Crowded<Key<S>>, T>(tables) else {
        return false;
    };
    // SAFETY: this CPU's own memory (contract of `Tables`).
    unsafe { memory.write(crowded) };
    let mut room = Room::<S, T> {
        tables,
        crowded: memory,
    };
    let places = 2 * S::Bucket::WAYS as u32;
    repeat(places, &mut room, put_by_moving::<S, T>);
    if !room.crowded().value.is_some() {
        return true;
    }
    repeat(places, &mut room, find_worst::<S, T>);
    let crowded = room.crowded();
    let is_half_open =
        State::from_u8(crowded.value.state()).is_some_and(|state| state.is_half_open());
    if is_half_open && crowded.worst < EXPENDABLE {
        return false;
    }
    let (index, way) = place::<S>(crowded, crowded.worst_place);
    match S::bucket(tables, index) {
        Some(bucket) => {
            uncount(tables, Value(load(bucket.value(way))));
            bucket.fill(way, crowded.key, crowded.value);
            true
        }
        None => false,
    }
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

/// Puts a connection into this CPU's table and counts it; an entry that it has there already, of an earlier connection
/// under the same addresses, gets the new value. False: the table is full of what is worth more, or not there.
#[inline(always)]
pub fn insert<S: Shape, T: Tables>(tables: &T, key: &Key<S>, value: u64) -> bool {
    let Some(settings) = tables.settings() else {
        return false;
    };
    let hash = S::Bucket::hash(*key, settings.seed);
    let base = base::<S>(settings, tables.cpu());
    let (first, second) = candidates(hash, S::buckets(settings), base);
    let mut known = find_in::<S, T>(tables, first, *key);
    if !known.is_some() {
        known = find_in::<S, T>(tables, second, *key);
    }
    let value = Value(value);
    if known.is_some() {
        update::<S, T>(tables, &known, value);
        recount(tables, known.value, value);
        return true;
    }
    let put = put_if_room::<S, T>(tables, first, *key, value)
        || put_if_room::<S, T>(tables, second, *key, value)
        || make_room::<S, T>(
            tables,
            Crowded {
                key: *key,
                value,
                base,
                first,
                second,
                worst: 0,
                worst_place: 0,
            },
        );
    if put {
        count(tables, value);
    }
    put
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use core::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::connection::{Bucket4, Bucket6, key4, key6};
    use crate::native::{NativeTables, SharedTables};
    use crate::reach::{Narrow, Wide};

    const NOW_S: u32 = 50_000;

    fn tables(cpus: u32, buckets: u32) -> NativeTables {
        let settings = Settings {
            now_s: NOW_S,
            cpus,
            buckets4: buckets,
            buckets6: buckets,
            seed: 0x0123_4567_89ab_cdef,
            ..Settings::default()
        };
        NativeTables::new(settings, 0)
    }

    fn established(destination: u32) -> Value {
        Value::new(destination, NOW_S as u16, State::Established, 0)
    }

    /// Inserts so many connections and counts those that are not found afterwards.
    fn lost<S: Shape>(tables: &NativeTables, count: u32, key: impl Fn(u32) -> Key<S>) -> u32 {
        for number in 0..count {
            assert!(insert::<S, _>(
                tables,
                &key(number),
                established(number + 1).0
            ));
        }
        let settings = tables.settings.as_ref().expect("made with settings");
        let missing = (0..count).filter(|number| {
            let found = find::<S, _>(tables, settings, 0, key(*number));
            assert!(
                !found.is_some() || found.value == established(number + 1),
                "connection {number} has another's value"
            );
            !found.is_some()
        });
        missing.count() as u32
    }

    /// A table filled to the capacity that it was made for: 24 bytes for an IPv4 and 48 for an IPv6 connection.
    #[test]
    fn a_table_filled_to_its_capacity_loses_practically_nothing() {
        for capacity in [20_000, 100_001] {
            let buckets = |bytes: u32, bucket: usize| (capacity * bytes).div_ceil(bucket as u32);
            let (four, six) = (
                buckets(24, size_of::<Bucket4>()),
                buckets(48, size_of::<Bucket6>()),
            );
            let cases = [
                (
                    "IPv4, random clients",
                    lost::<Narrow>(&tables(1, four), capacity, |number| {
                        key4(number.wrapping_mul(0x9e37_79b1), number as u16, 1)
                    }),
                ),
                (
                    "IPv4, one network with ports in a row",
                    lost::<Narrow>(&tables(1, four), capacity, |number| {
                        let port = (1024 + number % 60_000) as u16;
                        key4(0x0a00_0000 + number / 60_000, port.to_be(), 1)
                    }),
                ),
                (
                    "IPv6",
                    lost::<Wide>(&tables(1, six), capacity, |number| {
                        key6([0x20, 1, 2, number], number as u16, 0, 1)
                    }),
                ),
            ];
            for (what, lost) in cases {
                assert!(lost <= capacity / 2000, "{what}: {lost} of {capacity} lost");
            }
        }
    }

    /// Two buckets only, so that everything competes for the same eight places; entries with these values, by their
    /// clients' number, and of endpoint 2 where the flag says so.
    fn crowd(values: &[(Value, bool)]) -> NativeTables {
        let tables = tables(1, 2);
        for (number, (value, other)) in values.iter().enumerate() {
            assert!(insert::<Narrow, _>(
                &tables,
                &crowd_key(number, *other),
                value.0
            ));
        }
        tables
    }

    fn crowd_key(number: usize, other: bool) -> u64 {
        key4(number as u32, 1, if other { 2 } else { 1 })
    }

    #[test]
    fn a_full_table_gives_up_what_is_worth_least() {
        let value = |idle_s: u32, state| Value::new(9, (NOW_S - idle_s) as u16, state, 0);
        let full = [
            (value(1, State::Close), false),
            (value(0, State::TimeWait), true),
            (value(7, State::SynReceived), false),
            (value(0, State::UdpOne), false),
            (value(50, State::SynReceived), true),
            (value(800, State::Established), false),
            (value(700, State::Udp), true),
            (value(1, State::Established), false),
        ];
        let tables = crowd(&full);
        let settings = tables.settings.unwrap();
        let finds = |key| find::<Narrow, _>(&tables, &settings, 0, key).is_some();
        for given_up in 0..full.len() {
            let newcomer = 100 + given_up;
            assert!(insert::<Narrow, _>(
                &tables,
                &crowd_key(newcomer, false),
                established(9).0
            ));
            for (number, (value, other)) in full.iter().enumerate() {
                let stands = finds(crowd_key(number, *other));
                assert_eq!(stands, number > given_up, "{number}: {value:?}");
            }
        }
    }

    #[test]
    fn half_open_connections_displace_no_others() {
        let half_open = Value::new(9, NOW_S as u16, State::SynReceived, 0);
        let tables = crowd(&[(established(9), false); 8]);
        let settings = tables.settings.unwrap();
        for newcomer in 100..1000 {
            let key = crowd_key(newcomer, false);
            assert!(!insert::<Narrow, _>(&tables, &key, half_open.0));
        }
        for number in 0..8 {
            let key = crowd_key(number, false);
            assert!(find::<Narrow, _>(&tables, &settings, 0, key).is_some());
        }
        // With one half-open place, a flood of another endpoint takes that, and of its own ones first.
        let mut values = vec![(established(9), false); 6];
        values.extend([(half_open, false), (half_open, true)]);
        let tables = crowd(&values);
        for newcomer in 100..1000 {
            let key = crowd_key(newcomer, true);
            assert!(insert::<Narrow, _>(&tables, &key, half_open.0));
        }
        for number in 0..7 {
            let key = crowd_key(number, false);
            assert!(
                find::<Narrow, _>(&tables, &settings, 0, key).is_some(),
                "{number}"
            );
        }
    }

    #[test]
    fn loads_follow_what_is_inserted_changed_and_given_up() {
        let mut tables = tables(1, 2);
        for id in 1..=3 {
            tables.loads.insert(id, crate::layout::Load::default());
        }
        let counts = |id: u32| {
            let load_of = &tables.loads[&id];
            (load(&load_of.active), load(&load_of.inactive))
        };
        let value = |id, state, flags| Value::new(id, NOW_S as u16, state, flags).0;
        let put = |number, value| insert::<Narrow, _>(&tables, &crowd_key(number, false), value);
        assert!(put(1, value(1, State::Established, 0)));
        assert!(put(2, value(1, State::Close, 0)));
        assert!(put(3, value(1, State::Established, Value::COPY)));
        assert_eq!(counts(1), (1, 1));
        // Another destination, another kind.
        assert!(put(1, value(2, State::Udp, 0)));
        assert_eq!((counts(1), counts(2)), ((0, 1), (0, 1)));
        for number in 4..9 {
            assert!(put(number, value(3, State::Established, 0)));
        }
        assert_eq!((counts(1), counts(3)), ((0, 1), (5, 0)));
        // Full: the closing one gives way.
        assert!(put(9, value(3, State::Established, 0)));
        assert_eq!((counts(1), counts(2), counts(3)), ((0, 0), (0, 1), (6, 0)));
    }

    #[test]
    fn other_cpus_tables_are_searched_and_only_when_asked() {
        let tables = tables(4, 64);
        let settings = tables.settings.unwrap();
        tables.cpu.set(2);
        assert!(insert::<Narrow, _>(
            &tables,
            &key4(1, 2, 3),
            established(9).0
        ));
        tables.cpu.set(0);
        assert!(!find::<Narrow, _>(&tables, &settings, 0, key4(1, 2, 3)).is_some());
        let elsewhere = find_elsewhere::<Narrow, _>(&tables, &key4(1, 2, 3), 0);
        assert_eq!(Value(elsewhere), established(9));
        assert_eq!(find_elsewhere::<Narrow, _>(&tables, &key4(1, 2, 4), 0), 0);
    }

    #[test]
    fn of_several_entries_elsewhere_the_last_used_counts() {
        let tables = tables(4, 64);
        let key = key4(1, 2, 3);
        // (CPU, idle seconds); destinations are the CPUs.
        for cases in [[(1, 50), (2, 3), (3, 9)], [(1, 2), (2, 3), (3, 9)]] {
            for (cpu, idle_s) in cases {
                tables.cpu.set(cpu);
                let value = Value::new(cpu, (NOW_S - idle_s) as u16, State::Established, 0);
                assert!(insert::<Narrow, _>(&tables, &key, value.0));
            }
            tables.cpu.set(0);
            let latest = cases.into_iter().min_by_key(|(_, idle_s)| *idle_s).unwrap();
            let found = Value(find_elsewhere::<Narrow, _>(&tables, &key, 0));
            assert_eq!(found.destination(), latest.0, "{cases:?}");
        }
    }

    #[test]
    fn a_connection_stands_in_a_table_once() {
        fn places(values: impl Iterator<Item = u64>) -> usize {
            values.filter(|value| *value != 0).count()
        }
        let tables = tables(1, 64);
        for destination in 1..=20 {
            let value = established(destination).0;
            assert!(insert::<Narrow, _>(&tables, &key4(1, 2, 3), value));
            assert!(insert::<Wide, _>(
                &tables,
                &key6([1, 2, 3, 4], 5, 0, 6),
                value
            ));
        }
        let settings = tables.settings.unwrap();
        let found = find::<Narrow, _>(&tables, &settings, 0, key4(1, 2, 3));
        assert_eq!(found.value, established(20));
        let found = find::<Wide, _>(&tables, &settings, 0, key6([1, 2, 3, 4], 5, 0, 6));
        assert_eq!(found.value, established(20));
        let four = tables.buckets4().iter().flat_map(|it| &it.values);
        let six = tables.buckets6().iter().flat_map(|it| &it.lines);
        let six = six.flat_map(|it| &it.values);
        assert_eq!(places(four.map(load)), 1);
        assert_eq!(places(six.map(load)), 1);
    }

    /// One CPU fills and moves, another one looks: it must never take a connection's key for another one's value.
    fn look_from_elsewhere<S: Shape>(turns: u32, key: impl Fn(u32) -> Key<S> + Sync) {
        let settings = Settings {
            now_s: NOW_S,
            cpus: 2,
            buckets4: 64,
            buckets6: 64,
            seed: 3,
            ..Settings::default()
        };
        let tables = SharedTables::new(settings, 0);
        // More than there is room for.
        const KEYS: u32 = 400;
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let owner = tables.cpu(0);
                let mut random = 1_u32;
                for _ in 0..turns {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let number = (random >> 16) % KEYS;
                    assert!(insert::<S, _>(
                        &owner,
                        &key(number),
                        established(number + 1).0
                    ));
                }
                is_done.store(true, Ordering::Relaxed);
            });
            let reader = tables.cpu(1);
            let (mut found, mut wrong) = (0_u64, 0_u64);
            while !is_done.load(Ordering::Relaxed) {
                for number in 0..KEYS {
                    let value = Value(find_elsewhere::<S, _>(&reader, &key(number), 1));
                    found += u64::from(value.is_some());
                    wrong += u64::from(value.is_some() && value.destination() != number + 1);
                }
            }
            assert_eq!(wrong, 0, "of {found} found");
        });
    }

    #[test]
    fn another_cpu_finds_the_right_value_or_none() {
        look_from_elsewhere::<Narrow>(1_000_000, |number| key4(number, 1, 1));
        look_from_elsewhere::<Wide>(1_000_000, |number| key6([number, 2, 3, 4], 5, 0, 6));
    }
}
