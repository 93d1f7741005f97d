//! Connections from one set of tables into another of a different size.
//!
//! In turns: first all of them, while packets go on through the old tables; then again what changed since, which is less
//! each time; the last turn while nothing new is entered ([`xdp_ebpf::layout::settings::MOVING`]). Nobody else writes the
//! new tables before they are used, so here places are filled, which upkeep does nowhere else. Once they are used,
//! [`carry_states`] brings the states that changed in the very last moment, by compare-and-swap only.

use std::sync::atomic::Ordering;

use xdp_ebpf::atomic::{load, store};
use xdp_ebpf::connection::{Bucket, Value};
use xdp_ebpf::state::State;
use xdp_ebpf::table::candidates;

use super::rules::idle_s;
use super::walk::read;

/// The tables of one family.
#[derive(Debug)]
pub struct Side<'a, B> {
    /// Their memory, CPU after CPU.
    pub table: &'a [B],
    /// CPUs that have one.
    pub cpus: u32,
    /// Buckets of one CPU's.
    pub buckets: u32,
}

/// What became of the entries that were looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// They stand in the new tables.
    pub carried: u64,
    /// Both their buckets there were full.
    pub lost: u64,
}

impl std::ops::AddAssign for Carried {
    fn add_assign(&mut self, other: Self) {
        self.carried += other.carried;
        self.lost += other.lost;
    }
}

/// Which entries are looked at.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    /// All.
    All,
    /// Those written since the table clock had this time: whoever writes an entry writes the time.
    Since {
        /// Then.
        then_s: u32,
        /// Now.
        now_s: u32,
    },
}

impl Which {
    fn takes(self, value: Value) -> bool {
        match self {
            Self::All => true,
            // One more: a packet may have begun its way with the time before.
            Self::Since { then_s, now_s } => {
                u32::from(idle_s(value, now_s)) <= now_s.wrapping_sub(then_s).saturating_add(1)
            }
        }
    }
}

/// Puts entries of the old tables into the new ones, which nobody else uses yet, or brings them up to date there. The
/// secret of the hash is the same in both.
pub fn carry<B: Bucket>(from: &Side<'_, B>, to: &Side<'_, B>, seed: u64, which: Which) -> Carried {
    let mut result = Carried::default();
    for (index, bucket) in from.table.iter().enumerate() {
        for way in 0..B::WAYS {
            let Some((key, value)) = read(bucket, way).filter(|(_, value)| which.takes(*value))
            else {
                continue;
            };
            let cpu = cpu_of(from, index) % to.cpus.max(1);
            let is_shared = to.cpus < from.cpus;
            if put(to, cpu, seed, key, value, is_shared) {
                result.carried += 1;
            } else {
                result.lost += 1;
            }
        }
    }
    result
}

/// For entries whose state changed in the old tables after they were carried over: the new tables' entries, in use by now,
/// get that state, unless they have come as far themselves. How many did.
pub fn carry_states<B: Bucket>(
    from: &Side<'_, B>,
    to: &Side<'_, B>,
    seed: u64,
    which: Which,
) -> u64 {
    let mut changed = 0;
    for (index, bucket) in from.table.iter().enumerate() {
        for way in 0..B::WAYS {
            let Some((key, value)) = read(bucket, way).filter(|(_, value)| which.takes(*value))
            else {
                continue;
            };
            let cpu = cpu_of(from, index) % to.cpus.max(1);
            let Some(place) = find(to, cpu, seed, key) else {
                continue;
            };
            let now = Value(load(place));
            let (Some(old), Some(new)) =
                (State::from_u8(value.state()), State::from_u8(now.state()))
            else {
                continue;
            };
            let is_behind =
                new.is_half_open() && !old.is_half_open() || old.is_closing() && !new.is_closing();
            if now.destination() != value.destination() || !is_behind {
                continue;
            }
            let right = Value::new(now.destination(), now.seen_s(), old, now.flags());
            let swapped =
                place.compare_exchange(now.0, right.0, Ordering::Relaxed, Ordering::Relaxed);
            changed += u64::from(swapped.is_ok());
        }
    }
    changed
}

fn cpu_of<B>(side: &Side<'_, B>, index: usize) -> u32 {
    (index / side.buckets.max(1) as usize) as u32
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
) -> Option<&'a std::sync::atomic::AtomicU64> {
    for bucket in buckets_of(side, cpu, seed, key).into_iter().flatten() {
        for way in (0..B::WAYS).filter(|way| bucket.holds(*way, key)) {
            if load(bucket.value(way)) != 0 {
                return Some(bucket.value(way));
            }
        }
    }
    None
}

/// Puts one entry into the new tables. False: there is no room. `is_shared`: several old CPUs' entries come into one table.
fn put<B: Bucket>(
    to: &Side<'_, B>,
    cpu: u32,
    seed: u64,
    key: B::Key,
    value: Value,
    is_shared: bool,
) -> bool {
    if let Some(place) = find(to, cpu, seed, key) {
        // The same entry in an earlier turn; or another CPU's of the same name, of which an original counts more than a
        // copy.
        let standing = Value(load(place));
        if !is_shared || is_copy(value) <= is_copy(standing) {
            store(place, value.0);
        }
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

fn is_copy(value: Value) -> bool {
    value.flags() & Value::COPY != 0
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fmt::Debug;
    use std::hash::Hash;

    use proptest::prelude::*;
    use xdp_ebpf::connection::{Bucket4, Bucket6, key4, key6};

    use super::*;

    const SEED: u64 = 7;

    struct Memory<B> {
        buckets: Vec<B>,
        cpus: u32,
        each: u32,
    }

    impl<B: Bucket + Default> Memory<B> {
        fn new(cpus: u32, each: u32) -> Self {
            Self {
                buckets: (0..cpus * each).map(|_| B::default()).collect(),
                cpus,
                each,
            }
        }

        fn side(&self) -> Side<'_, B> {
            Side {
                table: &self.buckets,
                cpus: self.cpus,
                buckets: self.each,
            }
        }

        /// Everything in there, by CPU and key.
        fn contents(&self) -> HashMap<(u32, B::Key), Value>
        where
            B::Key: Hash + Eq + Debug,
        {
            let mut contents = HashMap::new();
            for (index, bucket) in self.buckets.iter().enumerate() {
                for way in 0..B::WAYS {
                    if let Some((key, value)) = read(bucket, way) {
                        let cpu = index as u32 / self.each;
                        let twice = contents.insert((cpu, key), value);
                        assert_eq!(twice, None, "{key:?} stands twice");
                    }
                }
            }
            contents
        }
    }

    trait Numbered: Bucket + Default {
        fn numbered(number: u16) -> Self::Key;
    }

    impl Numbered for Bucket4 {
        fn numbered(number: u16) -> u64 {
            key4(u32::from(number), 80, 1)
        }
    }

    impl Numbered for Bucket6 {
        fn numbered(number: u16) -> [u64; 3] {
            key6([1, 2, 3, u32::from(number)], 80, 0, 1)
        }
    }

    fn value(destination: u32, seen_s: u16, state: State) -> Value {
        Value::new(destination, seen_s, state, 0)
    }

    /// Carries `first` over, then changes and adds `later` in the old tables, and carries that: all of it must be there,
    /// and nothing else.
    fn check<B: Numbered>(
        (cpus, each): (u32, u32),
        (new_cpus, new_each): (u32, u32),
        first: &[(u16, u8)],
        later: &[(u16, u8)],
    ) where
        B::Key: Hash + Eq + Debug,
    {
        let old = Memory::<B>::new(cpus, each);
        let new = Memory::<B>::new(new_cpus, new_each);
        let enter = |entries: &[(u16, u8)], now_s: u16| {
            for (number, kind) in entries {
                let (cpu, state) = (u32::from(*kind) % cpus, State::ALL[usize::from(*kind) % 4]);
                let value = value(u32::from(*kind) + 1, now_s, state);
                put(&old.side(), cpu, SEED, B::numbered(*number), value, false);
            }
        };
        enter(first, 100);
        let all = carry(&old.side(), &new.side(), SEED, Which::All);
        enter(later, 110);
        let since = Which::Since {
            then_s: 109,
            now_s: 110,
        };
        let rest = carry(&old.side(), &new.side(), SEED, since);
        assert_eq!((all.lost, rest.lost), (0, 0));
        let (old, new) = (old.contents(), new.contents());
        if new_cpus >= cpus {
            assert_eq!(new, old);
        } else {
            // Where CPUs share a table, one of their entries of the same name stands for them.
            for ((cpu, key), value) in &new {
                let shares = |(of, known): &&(u32, B::Key)| of % new_cpus == *cpu && known == key;
                let mut same = old.iter().filter(|(place, _)| shares(place));
                assert!(same.any(|(_, known)| known == value), "{key:?}");
            }
            for (cpu, key) in old.keys() {
                assert!(new.contains_key(&(cpu % new_cpus, *key)), "{key:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_is_made_up(
            cpus in 1u32..4,
            new_cpus in 1u32..4,
            first in proptest::collection::vec(any::<(u16, u8)>(), 0..200),
            later in proptest::collection::vec(any::<(u16, u8)>(), 0..50),
        ) {
            check::<Bucket4>((cpus, 200), (new_cpus, 400), &first, &later);
            check::<Bucket4>((cpus, 400), (new_cpus, 150), &first, &later);
            check::<Bucket6>((cpus, 200), (new_cpus, 400), &first, &later);
            check::<Bucket6>((cpus, 400), (new_cpus, 150), &first, &later);
        }
    }

    #[test]
    fn only_what_was_written_since_is_looked_at_again() {
        // (last seen, the clock when the turn before began, now, whether it is looked at)
        let cases = [
            (100, 100, 100, true),
            (99, 100, 100, true),
            (98, 100, 100, false),
            (99, 100, 105, true),
            (98, 100, 105, false),
            (105, 100, 105, true),
            // A packet that began its way with the second to come.
            (u16::MAX, 65535, 65536, true),
            (0, 65535, 65536, true),
            (65533, 65535, 65536, false),
        ];
        for (seen_s, then_s, now_s, expected) in cases {
            let which = Which::Since { then_s, now_s };
            let taken = which.takes(value(1, seen_s, State::Established));
            assert_eq!(taken, expected, "{seen_s} {which:?}");
        }
    }

    #[test]
    fn a_state_that_changed_in_the_last_moment_is_brought() {
        use State::{Close, Established, FinWait, SynReceived};
        // (old table's, new table's, what then stands in the new one; destination and state)
        let cases = [
            ((1, Established), (1, SynReceived), (1, Established)),
            ((1, FinWait), (1, Established), (1, FinWait)),
            ((1, Close), (1, SynReceived), (1, Close)),
            // The new table's has come further itself, or is of another connection.
            ((1, SynReceived), (1, Established), (1, Established)),
            ((1, Established), (1, FinWait), (1, FinWait)),
            ((1, FinWait), (2, SynReceived), (2, SynReceived)),
        ];
        for (before, standing, expected) in cases {
            let (old, new) = (
                Memory::<Bucket4>::new(1, 64),
                Memory::<Bucket4>::new(1, 128),
            );
            let key = key4(9, 9, 1);
            for (memory, (destination, state)) in [(&old, before), (&new, standing)] {
                put(
                    &memory.side(),
                    0,
                    SEED,
                    key,
                    value(destination, 5, state),
                    false,
                );
            }
            let which = Which::Since {
                then_s: 5,
                now_s: 5,
            };
            let changed = carry_states(&old.side(), &new.side(), SEED, which);
            assert_eq!(changed, u64::from(standing != expected), "{before:?}");
            let (destination, state) = expected;
            assert_eq!(new.contents()[&(0, key)], value(destination, 5, state));
        }
    }
}
