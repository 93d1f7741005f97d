//! Room for a connection whose candidate buckets are full: what moves, and what is given up.

use core::ptr::NonNull;

use super::{candidates, put_if_room, uncount};
use crate::atomic::load;
use crate::connection::{Bucket, CLOSING, EXPENDABLE, OWN, Value};
use crate::layout::Settings;
use crate::reach::{Key, Shape};
use crate::state::State;
use crate::tables::{Tables, work};
use crate::verifier::repeat;

/// After so many newcomers in a row for whom nowhere was room to move an occupant to, the table is taken for full. At the
/// filling that tables are made for, not one look of a hundred finds none.
pub const FUTILE: u64 = 64;
/// Of so many newcomers one still looks, so that the end of it is noticed.
pub const ONE_OF: u64 = 64;

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
    /// The same of other endpoints' half-open ones.
    worst_other: u32,
    worst_other_place: u32,
    /// Half-open ones, of the newcomer's endpoint and of others.
    own: u32,
    others: u32,
    /// The same of the places that the occupants of those could move to.
    worst_beyond: u32,
    worst_place_beyond: u32,
    /// Half-open ones there, of the newcomer's endpoint and of others.
    own_beyond: u32,
    others_beyond: u32,
}

/// What a look for room is given.
struct Room<'t, S: Shape, T> {
    tables: &'t T,
    crowded: NonNull<Crowded<Key<S>>>,
}

impl<S: Shape, T: Tables> Room<'_, S, T> {
    #[inline(always)]
    fn crowded(&mut self) -> &mut Crowded<Key<S>> {
        // SAFETY: this CPU's own memory (contract of `Tables`), which [`make`] has filled.
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
    let other = other_bucket::<S>(settings, crowded.base, index, occupant);
    if !put_if_room::<S, T>(tables, other, occupant, value) {
        return 0;
    }
    bucket.fill(way, crowded.key, crowded.value);
    crowded.value = Value::NONE;
    1
}

/// Looks for the most expendable place of a candidate bucket: of the first one, then of the second one. A turn for a bucket
/// rather than for a place, here and below, is 27 ns of a SYN of a flood.
extern "C" fn find_worst<S: Shape, T: Tables>(turn: u32, room: *mut Room<'_, S, T>) -> i64 {
    // SAFETY: `repeat` hands over what it was given.
    let room = unsafe { &mut *room };
    let tables = room.tables;
    let crowded = room.crowded();
    let ways = S::Bucket::WAYS as u32;
    let (index, _) = place::<S>(crowded, turn * ways);
    let (Some(bucket), Some(settings)) = (S::bucket(tables, index), tables.settings()) else {
        return 1;
    };
    let endpoint = S::Bucket::endpoint(crowded.key);
    let mut way = 0;
    while way < ways {
        let same_endpoint = S::Bucket::endpoint(bucket.key(way as usize)) == endpoint;
        let value = Value(load(bucket.value(way as usize)));
        let expendability = value.expendability(settings.now_s, same_endpoint);
        if expendability >= crowded.worst {
            crowded.worst = expendability;
            crowded.worst_place = turn * ways + way;
        }
        match State::from_u8(value.state()) {
            Some(state) if state.is_half_open() && same_endpoint => crowded.own += 1,
            Some(state) if state.is_half_open() => {
                crowded.others += 1;
                if expendability >= crowded.worst_other {
                    crowded.worst_other = expendability;
                    crowded.worst_other_place = turn * ways + way;
                }
            }
            _ => {}
        }
        way += 1;
    }
    0
}

/// Looks for the most expendable place that an occupant could move to: each turn for one of them, in its other bucket.
extern "C" fn find_worst_beyond<S: Shape, T: Tables>(turn: u32, room: *mut Room<'_, S, T>) -> i64 {
    // SAFETY: `repeat` hands over what it was given.
    let room = unsafe { &mut *room };
    let tables = room.tables;
    let crowded = room.crowded();
    let ways = S::Bucket::WAYS as u32;
    let (index, way) = place::<S>(crowded, turn);
    let (Some(bucket), Some(settings)) = (S::bucket(tables, index), tables.settings()) else {
        return 1;
    };
    let other = other_bucket::<S>(settings, crowded.base, index, bucket.key(way));
    let Some(bucket) = S::bucket(tables, other) else {
        return 1;
    };
    let endpoint = S::Bucket::endpoint(crowded.key);
    let mut way = 0;
    while way < ways {
        let same_endpoint = S::Bucket::endpoint(bucket.key(way as usize)) == endpoint;
        let value = Value(load(bucket.value(way as usize)));
        let expendability = value.expendability(settings.now_s, same_endpoint);
        if expendability >= crowded.worst_beyond {
            crowded.worst_beyond = expendability;
            crowded.worst_place_beyond = turn * ways + way;
        }
        match State::from_u8(value.state()) {
            Some(state) if state.is_half_open() && same_endpoint => crowded.own_beyond += 1,
            Some(state) if state.is_half_open() => crowded.others_beyond += 1,
            _ => {}
        }
        way += 1;
    }
    0
}

/// Gives up the most expendable place beyond, moves the occupant there that could, and takes the occupant's place.
#[inline(always)]
fn put_by_displacing<S: Shape, T: Tables>(tables: &T, crowded: &Crowded<Key<S>>) -> bool {
    let ways = S::Bucket::WAYS as u32;
    let (index, way) = place::<S>(crowded, crowded.worst_place_beyond / ways);
    let (Some(bucket), Some(settings)) = (S::bucket(tables, index), tables.settings()) else {
        return false;
    };
    let occupant = bucket.key(way);
    let value = Value(load(bucket.value(way)));
    let other = other_bucket::<S>(settings, crowded.base, index, occupant);
    let other_way = (crowded.worst_place_beyond % ways) as usize;
    let Some(other) = S::bucket(tables, other) else {
        return false;
    };
    uncount(tables, Value(load(other.value(other_way))));
    other.fill(other_way, occupant, value);
    bucket.fill(way, crowded.key, crowded.value);
    true
}

/// The other candidate bucket of a key that stands in bucket `index`.
#[inline(always)]
fn other_bucket<S: Shape>(settings: &Settings, base: u32, index: u32, key: Key<S>) -> u32 {
    let hash = S::Bucket::hash(key, settings.seed);
    let (first, second) = candidates(hash, S::buckets(settings), base);
    if first == index { second } else { first }
}

/// Makes room for a connection whose candidate buckets are full: by moving one occupant, else by giving one up. Who could
/// be given up himself, half-open or closing, gets no room from one that stands. In a full table few look for room to move to
/// ([`FUTILE`]).
///
/// Whichever endpoint has the most half-open ones around is the flooded one, and gives up its own: a client of another
/// endpoint, which waits for its second packet, is neither displaced by the flood nor by the next client of its own.
/// And as in a flood no place is ever free, an occupant also moves to where something else can be given up:
/// * if all in the candidate buckets stand: a client would not get in otherwise;
/// * if there is only what another endpoint still waits for, and beyond most of what is half-open is of the newcomer's
///   endpoint: that is the flood, and it displaces itself rather than the client of another service.
#[inline(always)]
pub(super) fn make<S: Shape, T: Tables>(
    tables: &T,
    key: Key<S>,
    value: Value,
    base: u32,
    (first, second): (u32, u32),
) -> bool {
    let (Some(memory), Some(kept)) = (work::<Crowded<Key<S>>, T>(tables), tables.work()) else {
        return false;
    };
    let crowded = Crowded {
        key,
        value,
        base,
        first,
        second,
        worst: 0,
        worst_place: 0,
        worst_other: 0,
        worst_other_place: 0,
        own: 0,
        others: 0,
        worst_beyond: 0,
        worst_place_beyond: 0,
        own_beyond: 0,
        others_beyond: 0,
    };
    // SAFETY: this CPU's own memory (contract of `Tables`).
    unsafe { memory.write(crowded) };
    let mut room = Room::<S, T> {
        tables,
        crowded: memory,
    };
    let Some(settings) = tables.settings() else {
        return false;
    };
    let is_expendable = value.expendability(settings.now_s, true) >= EXPENDABLE;
    let places = 2 * S::Bucket::WAYS as u32;
    repeat(2, &mut room, find_worst::<S, T>);
    let crowded = room.crowded();
    if crowded.worst >= OWN && crowded.worst < CLOSING && crowded.others > crowded.own {
        crowded.worst = crowded.worst_other;
        crowded.worst_place = crowded.worst_other_place;
    }
    // In a flood nowhere is room, and each look for it is as many cache lines as there are occupants. Without most of them a SYN
    // of a flood beside a million connections costs 320 ns rather than 474 (`cargo xtask bench connections`). Only for one who
    // has something of his own to displace, as he would after the look.
    let gives_up_own = is_expendable && crowded.worst >= OWN && crowded.worst < CLOSING;
    // SAFETY: this CPU's own memory (contract of `Tables`), beside what `crowded` is in.
    let futile = unsafe { (*kept.as_ptr()).futile };
    let is_tried = !gives_up_own || futile < FUTILE || futile % ONE_OF == 0;
    if is_tried {
        repeat(places, &mut room, put_by_moving::<S, T>);
    }
    let is_moved = !room.crowded().value.is_some();
    // SAFETY: as above.
    unsafe { (*kept.as_ptr()).futile = if is_moved { 0 } else { futile + 1 } };
    if is_moved {
        return true;
    }
    if room.crowded().worst < OWN {
        repeat(places, &mut room, find_worst_beyond::<S, T>);
        let crowded = room.crowded();
        let all_stand = crowded.worst < EXPENDABLE;
        let is_flood = crowded.own_beyond > crowded.others_beyond;
        if all_stand && crowded.worst_beyond >= EXPENDABLE
            || is_flood && crowded.worst_beyond >= OWN
        {
            return put_by_displacing::<S, T>(tables, crowded);
        }
    }
    let crowded = room.crowded();
    if is_expendable && crowded.worst < EXPENDABLE {
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
