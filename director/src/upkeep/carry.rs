//! Connections from one set of tables into another of a different size.
//!
//! In turns: first all of them, while packets go on through the old tables; then again what changed since, which is less
//! each time; the last turn while nothing new is entered ([`xdp_ebpf::layout::settings::MOVING`]). Nobody else writes the
//! new tables before they are used, so here places are filled, which upkeep does nowhere else. Once they are used,
//! [`Carrier::carry_states`] brings the states that changed in the very last moment, by compare-and-swap only.
//!
//! What changed is told by a digest of each bucket as it was when it was looked at, not by entries' times: an entry that is
//! moved to its other bucket, to make room, keeps its time, and may move from where a turn has not been yet to where it has
//! been. The last turn meets no such thing, since only a new entry moves another: after it everything that stands in the
//! old tables stands in the new ones, but for what found no room there.
//!
//! What was freed in the old tables between two turns stays in the new ones, until upkeep frees it there for the same
//! reason. So ids must not be given to others meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

use xdp_ebpf::atomic::{load, store};
use xdp_ebpf::connection::{Bucket, EXPENDABLE, Value};
use xdp_ebpf::state::State;
use xdp_ebpf::table::candidates;
use xdp_ebpf::walk::{age, idle_s, read};

/// The tables of one family.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a, B> {
    /// Their memory, CPU after CPU.
    pub table: &'a [B],
    /// CPUs that have one.
    pub cpus: u32,
    /// Buckets of one CPU's.
    pub buckets: u32,
}

/// What a turn found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Entries in the old tables.
    pub entries: u64,
    /// Those of them for which both buckets in the new ones were full.
    pub lost: u64,
}

impl std::ops::AddAssign for Carried {
    fn add_assign(&mut self, other: Self) {
        self.entries += other.entries;
        self.lost += other.lost;
    }
}

/// Carries from the old tables of one family to the new ones, and remembers what it has carried.
#[derive(Debug, Default)]
pub struct Carrier {
    /// Of each old bucket, what stood in it and has been carried. Empty before the first turn.
    digests: Vec<u64>,
}

/// A bucket's entries at one moment.
struct Entries<B: Bucket>([Option<(B::Key, Value)>; 4]);

impl<B: Bucket> Entries<B> {
    fn of(bucket: &B) -> Self {
        const { assert!(B::WAYS <= 4) };
        Self(std::array::from_fn(|way| {
            (way < B::WAYS).then(|| read(bucket, way)).flatten()
        }))
    }

    fn iter(&self) -> impl Iterator<Item = (B::Key, Value)> {
        self.0.iter().flatten().copied()
    }

    /// Of no entries it is 0.
    fn digest(&self, seed: u64) -> u64 {
        self.iter().fold(0, |digest, (key, value)| {
            let with_key = (digest ^ B::hash(key, seed)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let with_value = (with_key ^ value.0).wrapping_mul(0xd6e8_feb8_6659_fd93);
            with_value ^ with_value >> 32
        })
    }
}

impl Carrier {
    /// One turn: puts what changed in the old tables into the new ones, which nobody else uses yet. The secret of the hash
    /// is the same in both.
    pub fn carry<B: Bucket>(
        &mut self,
        from: &Side<'_, B>,
        to: &Side<'_, B>,
        seed: u64,
        now_s: u32,
    ) -> Carried {
        if self.digests.is_empty() && to.table.len() < from.table.len() {
            // What stands has the first choice of what room there is, as it has in the packet path.
            for (index, bucket) in from.table.iter().enumerate() {
                for (key, value) in Entries::of(bucket).iter() {
                    if value.expendability(now_s, 0) < EXPENDABLE {
                        put(to, Origin::of(from, to, index), seed, now_s, key, value);
                    }
                }
            }
        }
        let mut carried = Carried::default();
        for index in 0..from.table.len() {
            carried += self.carry_bucket(from, to, seed, now_s, index);
        }
        carried
    }

    /// One bucket's part of a turn.
    pub(super) fn carry_bucket<B: Bucket>(
        &mut self,
        from: &Side<'_, B>,
        to: &Side<'_, B>,
        seed: u64,
        now_s: u32,
        index: usize,
    ) -> Carried {
        self.digests.resize(from.table.len(), 0);
        let entries = Entries::of(&from.table[index]);
        let mut carried = Carried {
            entries: entries.iter().count() as u64,
            lost: 0,
        };
        let digest = entries.digest(seed);
        if digest == self.digests[index] {
            return carried;
        }
        let origin = Origin::of(from, to, index);
        for (key, value) in entries.iter() {
            carried.lost += u64::from(!put(to, origin, seed, now_s, key, value));
        }
        // What found no room tries again with the next turn: what was in its way may have moved.
        self.digests[index] = if carried.lost == 0 { digest } else { !digest };
        carried
    }

    /// For entries whose state changed in the old tables after the last turn: the new tables' entries, in use by now, get
    /// that state, unless they have come as far themselves. How many did.
    ///
    /// A packet that uses such an entry at this moment may undo it: then the connection has gone on with the state it had.
    pub fn carry_states<B: Bucket>(&self, from: &Side<'_, B>, to: &Side<'_, B>, seed: u64) -> u64 {
        let mut changed = 0;
        for (index, (bucket, known)) in from.table.iter().zip(&self.digests).enumerate() {
            let entries = Entries::of(bucket);
            if entries.digest(seed) == *known {
                continue;
            }
            let cpu = Origin::of(from, to, index).cpu;
            for (key, value) in entries.iter() {
                let place = find(to, cpu, seed, key);
                changed += u64::from(place.is_some_and(|place| bring_state(place, value)));
            }
        }
        changed
    }
}

/// Gives an entry in use the state that another one of the same connection came to before.
fn bring_state(place: &AtomicU64, value: Value) -> bool {
    let present = Value(load(place));
    let (Some(old), Some(new)) = (
        State::from_u8(value.state()),
        State::from_u8(present.state()),
    ) else {
        return false;
    };
    let is_behind =
        new.is_half_open() && !old.is_half_open() || old.is_closing() && !new.is_closing();
    if present.destination() != value.destination() || !is_behind {
        return false;
    }
    let right = Value::new(
        present.destination(),
        present.seen_s(),
        old,
        present.flags(),
    )
    .in_place_of(present);
    place
        .compare_exchange(present.0, right.0, Ordering::Relaxed, Ordering::Relaxed)
        .is_ok()
}

/// Into which CPU's table an old bucket's entries come.
#[derive(Clone, Copy)]
struct Origin {
    cpu: u32,
    /// Other CPUs' come there too.
    is_shared: bool,
}

impl Origin {
    fn of<B>(from: &Side<'_, B>, to: &Side<'_, B>, index: usize) -> Self {
        let cpu = (index / from.buckets.max(1) as usize) as u32;
        Self {
            cpu: cpu % to.cpus.max(1),
            is_shared: to.cpus < from.cpus,
        }
    }
}

/// The buckets that a key may stand in.
fn buckets_of<'a, B: Bucket>(
    side: &Side<'a, B>,
    cpu: u32,
    seed: u64,
    key: B::Key,
) -> [Option<&'a B>; 2] {
    let base = cpu * side.buckets;
    let (first, second) = candidates(B::hash(key, seed), side.buckets, base);
    [first, second].map(|index| side.table.get(index as usize))
}

fn find<'a, B: Bucket>(
    side: &Side<'a, B>,
    cpu: u32,
    seed: u64,
    key: B::Key,
) -> Option<&'a AtomicU64> {
    for bucket in buckets_of(side, cpu, seed, key).into_iter().flatten() {
        for way in (0..B::WAYS).filter(|way| bucket.holds(*way, key)) {
            if load(bucket.value(way)) != 0 {
                return Some(bucket.value(way));
            }
        }
    }
    None
}

/// Puts one entry into the new tables. False: there is no room.
fn put<B: Bucket>(
    to: &Side<'_, B>,
    origin: Origin,
    seed: u64,
    now_s: u32,
    key: B::Key,
    value: Value,
) -> bool {
    let cpu = origin.cpu;
    if let Some(place) = find(to, cpu, seed, key) {
        let value = if origin.is_shared {
            both_in_one(Value(load(place)), value, now_s)
        } else {
            value
        };
        store(place, value.0);
        return true;
    }
    let both = buckets_of(to, cpu, seed, key);
    both.into_iter()
        .flatten()
        .any(|bucket| fill(bucket, key, value))
        || both
            .into_iter()
            .flatten()
            .any(|bucket| put_by_moving(to, cpu, seed, bucket, key, value))
}

/// One entry for two CPUs' of the same name, in one table from now on: the one last used, and an original if either is. Also
/// for the same CPU's of an earlier turn.
pub(super) fn both_in_one(standing: Value, other: Value, now_s: u32) -> Value {
    let is_newer = if standing.destination() == other.destination() {
        age(other, now_s) <= age(standing, now_s)
    } else {
        // Different connections: of one CPU's, the one looked at last.
        idle_s(other, now_s) <= idle_s(standing, now_s)
    };
    let newer = if is_newer { other } else { standing };
    let copy = u64::from(Value::COPY) << 56;
    Value(newer.0 & (!copy | standing.0 & other.0))
}

fn fill<B: Bucket>(bucket: &B, key: B::Key, value: Value) -> bool {
    let free = (0..B::WAYS).find(|way| bucket.is_free(*way) || load(bucket.value(*way)) == 0);
    if let Some(way) = free {
        bucket.fill(way, key, value);
    }
    free.is_some()
}

/// Moves an occupant of a full bucket to its other one, and takes its place.
fn put_by_moving<B: Bucket>(
    to: &Side<'_, B>,
    cpu: u32,
    seed: u64,
    bucket: &B,
    key: B::Key,
    value: Value,
) -> bool {
    for way in 0..B::WAYS {
        let occupant = bucket.key(way);
        let standing = Value(load(bucket.value(way)));
        let moved = buckets_of(to, cpu, seed, occupant)
            .into_iter()
            .flatten()
            .filter(|other| !std::ptr::eq(*other, bucket))
            .any(|other| fill(other, occupant, standing));
        if moved {
            bucket.fill(way, key, value);
            return true;
        }
    }
    false
}
