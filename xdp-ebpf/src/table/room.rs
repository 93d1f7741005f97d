//! Room for a connection whose candidate buckets are full: what moves, and what is given up.

use core::ptr::NonNull;

use super::{Put, base, candidates, put_if_room, uncount};
use crate::atomic::load;
use crate::connection::{Bucket, CLOSING, EXPENDABLE, OWN, Value};
use crate::layout::Settings;
use crate::reach::{Key, Shape};
use crate::tables::{Tables, work};
use crate::verifier::{one_after_the_other, opaque, repeat};

/// After so many newcomers in a row for whom nobody was moved, the table is taken for full. At the filling that tables are
/// made for, not one look of a hundred finds no room.
pub const FUTILE: u64 = 64;
/// Of so many newcomers one still looks, so that the end of it is noticed.
pub const ONE_OF: u64 = 64;
/// So many of the occupants of its candidate buckets are asked whether they can move: where there is room, most can.
pub const ASKED: u32 = 2;

/// What of some places is the first to be given up, and how many wait there for their second packet.
#[derive(Clone, Copy)]
struct Seen {
    /// The most expendable place.
    worst: Rank,
    /// Half-open ones: of the newcomer's endpoint in the lower half, of others in the upper one.
    waiting: u64,
}

/// A place and how expendable its occupant is, as one number that is the larger the more expendable; of equals the later
/// place has the larger one.
#[derive(Clone, Copy)]
struct Rank(u64);

/// Places that a [`Rank`] tells apart.
const PLACES: u64 = 32;

impl Rank {
    const LEAST: Self = Self(0);

    #[inline(always)]
    const fn new(expendability: u32, place: u64) -> Self {
        Self((expendability as u64 * PLACES) | place)
    }

    #[inline(always)]
    const fn expendability(self) -> u32 {
        (self.0 / PLACES) as u32
    }

    #[inline(always)]
    const fn place(self) -> u32 {
        (self.0 % PLACES) as u32
    }

    /// The larger one. By a mask: as a branch it is guessed wrong for some of eight places.
    #[inline(always)]
    fn or_more(self, other: Self) -> Self {
        let difference = other.0.wrapping_sub(self.0);
        let is_less = opaque((difference as i64 >> 63) as usize) as u64;
        Self(self.0.wrapping_add(difference & !is_less))
    }
}

/// 1 if both are the same, or else 0.
#[inline(always)]
fn is_same(one: u16, other: u16) -> u64 {
    let difference = opaque(usize::from(one ^ other)) as u64;
    difference.wrapping_sub(1) >> 63
}

impl Seen {
    const NOTHING: Self = Self {
        worst: Rank::LEAST,
        waiting: 0,
    };

    /// Half-open ones of the newcomer's endpoint.
    #[inline(always)]
    const fn own(&self) -> u32 {
        self.waiting as u32
    }

    /// Half-open ones of other endpoints.
    #[inline(always)]
    const fn others(&self) -> u32 {
        (self.waiting >> 32) as u32
    }

    /// Looks at all places of a bucket, which are numbered from `first_place` on. Straight on: branches are guessed wrong for some of
    /// eight places. With what else made a SYN in a full table cheaper by then, 351 ns became 223, side by side
    /// (`cargo xtask bench connections`).
    #[inline(always)]
    fn look_at<B: Bucket>(&mut self, bucket: &B, first_place: u64, endpoint: u16, now_s: u32) {
        let mut way = 0;
        while way < B::WAYS {
            let value = Value(load(bucket.value(way)));
            let same_endpoint = is_same(B::endpoint(bucket.key(way)), endpoint);
            let expendability = value.expendability(now_s, same_endpoint);
            self.worst = self
                .worst
                .or_more(Rank::new(expendability, first_place + way as u64));
            let waiting = value.is_half_open() << (32 * (same_endpoint ^ 1));
            self.waiting = one_after_the_other(self.waiting + waiting);
            way += 1;
        }
    }
}

/// The most expendable one of other endpoints' half-open ones in a bucket.
#[inline(always)]
fn worst_other<B: Bucket>(bucket: &B, first_place: u64, endpoint: u16, now_s: u32) -> Rank {
    let mut worst = Rank::LEAST;
    let mut way = 0;
    while way < B::WAYS {
        let value = Value(load(bucket.value(way)));
        let same_endpoint = is_same(B::endpoint(bucket.key(way)), endpoint);
        let rank = Rank::new(value.expendability(now_s, 0), first_place + way as u64);
        let is_other = value.is_half_open() & (same_endpoint ^ 1);
        worst = Rank(one_after_the_other(
            worst.or_more(Rank(rank.0 * is_other)).0,
        ));
        way += 1;
    }
    worst
}

/// A connection that found no room, and what the loops beyond its candidate buckets come to.
#[derive(Clone, Copy)]
struct Crowded<K> {
    key: K,
    value: Value,
    base: u32,
    first: u32,
    second: u32,
    /// What stands where the occupants of the candidate buckets could move to: each of those has [`Bucket::WAYS`] places.
    beyond: Seen,
    /// From which [`Value::expendability`] on a look there ends.
    enough: u32,
}

/// What a look for room is given.
struct Room<'t, S: Shape, T> {
    tables: &'t T,
    crowded: NonNull<Crowded<Key<S>>>,
}

impl<S: Shape, T: Tables> Room<'_, S, T> {
    #[inline(always)]
    fn crowded(&mut self) -> &mut Crowded<Key<S>> {
        // SAFETY: this CPU's own memory (contract of `Tables`), which [`beyond`] has filled.
        unsafe { self.crowded.as_mut() }
    }
}

/// The bucket and way of the `place`-th of all places in both candidate buckets.
#[inline(always)]
fn place<S: Shape>((first, second): (u32, u32), place: u32) -> (u32, usize) {
    let ways = S::Bucket::WAYS as u32;
    if place < ways {
        (first, place as usize)
    } else {
        (second, (place - ways) as usize)
    }
}

/// Moves the occupant of a place to its other bucket, if there is room, and takes its place.
extern "C" fn put_by_moving<S: Shape, T: Tables>(turn: u32, room: *mut Room<'_, S, T>) -> i64 {
    // SAFETY: `repeat` hands over what it was given.
    let room = unsafe { &mut *room };
    let tables = room.tables;
    let crowded = room.crowded();
    let (index, way) = place::<S>((crowded.first, crowded.second), turn);
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

/// Looks at the places that an occupant could move to: each turn for one of them, in its other bucket.
extern "C" fn look_beyond<S: Shape, T: Tables>(turn: u32, room: *mut Room<'_, S, T>) -> i64 {
    // SAFETY: `repeat` hands over what it was given.
    let room = unsafe { &mut *room };
    let tables = room.tables;
    let crowded = room.crowded();
    let (index, way) = place::<S>((crowded.first, crowded.second), turn);
    let (Some(bucket), Some(settings)) = (S::bucket(tables, index), tables.settings()) else {
        return 1;
    };
    let other = other_bucket::<S>(settings, crowded.base, index, bucket.key(way));
    let Some(bucket) = S::bucket(tables, other) else {
        return 1;
    };
    let first_place = u64::from(turn) * S::Bucket::WAYS as u64;
    let endpoint = S::Bucket::endpoint(crowded.key);
    let seen = &mut crowded.beyond;
    seen.look_at(bucket, first_place, endpoint, settings.now_s);
    i64::from(seen.worst.expendability() >= crowded.enough)
}

/// Gives up the most expendable place beyond, moves the occupant there that could, and takes the occupant's place.
#[inline(always)]
fn put_by_displacing<S: Shape, T: Tables>(tables: &T, crowded: &Crowded<Key<S>>) -> bool {
    let ways = S::Bucket::WAYS as u32;
    let beyond = crowded.beyond.worst.place();
    let (index, way) = place::<S>((crowded.first, crowded.second), beyond / ways);
    let (Some(bucket), Some(settings)) = (S::bucket(tables, index), tables.settings()) else {
        return false;
    };
    let occupant = bucket.key(way);
    let value = Value(load(bucket.value(way)));
    let other = other_bucket::<S>(settings, crowded.base, index, occupant);
    let other_way = (beyond % ways) as usize;
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
///
/// This is the first half, what a flood mostly comes to: something of the newcomer's own is given up near. [`Put::Crowded`]: the
/// second half is [`beyond`], in a function of its own, because both together want more of the stack than some programs have left.
#[inline(always)]
pub(super) fn near<S: Shape, T: Tables>(
    tables: &T,
    settings: &Settings,
    key: Key<S>,
    value: Value,
    (first, second): (u32, u32),
) -> Put {
    let (endpoint, ways) = (S::Bucket::endpoint(key), S::Bucket::WAYS as u64);
    let now_s = settings.now_s;
    let mut near = Seen::NOTHING;
    let (Some(bucket), Some(other)) = (S::bucket(tables, first), S::bucket(tables, second)) else {
        return Put::Refused;
    };
    near.look_at(bucket, 0, endpoint, now_s);
    near.look_at(other, ways, endpoint, now_s);
    let mut worst = near.worst;
    if is_own(worst) && near.others() > near.own() {
        worst = worst_other(bucket, 0, endpoint, now_s);
        worst = worst.or_more(worst_other(other, ways, endpoint, now_s));
    }
    let Some(kept) = tables.work() else {
        return Put::Refused;
    };
    // In a flood nowhere is room, and each look for it is as many cache lines as there are occupants: without most of them a SYN
    // of a flood beside a million connections cost 320 ns rather than 474, when this was new (`cargo xtask bench connections`).
    // Only for one who has something of his own to displace, as he would after the look.
    let is_content = is_expendable(settings, value) && is_own(worst);
    // SAFETY: this CPU's own memory (contract of `Tables`), beside what the loops use.
    let futile = unsafe { &mut (*kept.as_ptr()).futile[S::NUMBER] };
    if !is_content || !seems_full(*futile) {
        return Put::Crowded(worst.0);
    }
    *futile += 1;
    give_up::<S, T>(tables, key, value, (first, second), worst);
    Put::In
}

/// Whether a newcomer could be given up himself.
#[inline(always)]
fn is_expendable(settings: &Settings, value: Value) -> bool {
    value.expendability(settings.now_s, 1) >= EXPENDABLE
}

/// Whether a place is a half-open one's of the newcomer's endpoint.
#[inline(always)]
fn is_own(rank: Rank) -> bool {
    (OWN..CLOSING).contains(&rank.expendability())
}

/// Whether this newcomer takes the table for full.
#[inline(always)]
const fn seems_full(futile: u64) -> bool {
    futile >= FUTILE && !futile.is_multiple_of(ONE_OF)
}

/// Gives up the occupant of a place for the newcomer.
#[inline(always)]
fn give_up<S: Shape, T: Tables>(
    tables: &T,
    key: Key<S>,
    value: Value,
    both: (u32, u32),
    worst: Rank,
) {
    let (index, way) = place::<S>(both, worst.place());
    if let Some(bucket) = S::bucket(tables, index) {
        uncount(tables, Value(load(bucket.value(way))));
        bucket.fill(way, key, value);
    }
}

/// The second half of [`near`], with the number that it gave: what can be moved, or given up beyond, and if there is nothing,
/// what can be given up near. Whether the newcomer is in.
#[inline(always)]
pub(super) fn beyond<S: Shape, T: Tables>(
    tables: &T,
    key: Key<S>,
    value: Value,
    worst: u64,
) -> bool {
    let (Some(crowded), Some(kept)) = (work::<Crowded<Key<S>>, T>(tables), tables.work()) else {
        return false;
    };
    let Some(settings) = tables.settings() else {
        return false;
    };
    let worst = Rank(worst);
    let base = base::<S>(settings, tables.cpu());
    let hash = S::Bucket::hash(key, settings.seed);
    let (first, second) = candidates(hash, S::buckets(settings), base);
    // SAFETY: this CPU's own memory (contract of `Tables`), beside what the loops use.
    let futile = unsafe { &mut (*kept.as_ptr()).futile[S::NUMBER] };
    let is_expendable = is_expendable(settings, value);
    let all_stand = worst.expendability() < EXPENDABLE;
    let is_hurried = seems_full(*futile);
    let newcomer = Crowded {
        key,
        value,
        base,
        first,
        second,
        beyond: Seen::NOTHING,
        enough: if all_stand && is_hurried {
            OWN
        } else {
            u32::MAX
        },
    };
    // SAFETY: this CPU's own memory (contract of `Tables`).
    unsafe { crowded.write(newcomer) };
    let mut room = Room::<S, T> { tables, crowded };
    let occupants = 2 * S::Bucket::WAYS as u32;
    // A look at what is to be given up finds a place where nobody is, too.
    if !(all_stand && is_hurried) {
        let asked = if is_expendable && is_own(worst) && *futile >= FUTILE {
            ASKED
        } else {
            occupants
        };
        repeat(asked, &mut room, put_by_moving::<S, T>);
        if !room.crowded().value.is_some() {
            *futile = 0;
            return true;
        }
    }
    *futile += 1;
    if worst.expendability() < OWN {
        repeat(occupants, &mut room, look_beyond::<S, T>);
        let crowded = room.crowded();
        let beyond = crowded.beyond;
        let is_flood = beyond.own() > beyond.others();
        if all_stand && beyond.worst.expendability() >= EXPENDABLE
            || is_flood && beyond.worst.expendability() >= OWN
        {
            return put_by_displacing::<S, T>(tables, crowded);
        }
    }
    if is_expendable && all_stand {
        return false;
    }
    give_up::<S, T>(tables, key, value, (first, second), worst);
    true
}
