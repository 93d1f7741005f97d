//! One entry after the other: what is read of it, and whether it stays and counts.

use std::sync::atomic::Ordering;

use xdp_ebpf::atomic::load;
use xdp_ebpf::connection::{Bucket, Bucket4, Bucket6, Key6, Value, split_key4, split_key6};
use xdp_ebpf::table::candidates;

use super::report::Report;
use super::rules::{Rules, idle_s};

/// How often a place that changes under one's eyes is read.
const READS: usize = 4;

/// A connection's name taken apart.
#[derive(Clone, Copy)]
pub(super) struct Name {
    /// The client's address as tables hold it.
    pub(super) client: [u8; 16],
    /// Its port, as in the packet.
    pub(super) port: u16,
    /// The virtual port if the key has it, as in the packet; else 0.
    pub(super) virtual_port: u16,
}

/// Buckets whose keys name a client.
pub(super) trait Named: Bucket {
    fn name(key: Self::Key) -> Name;
}

impl Named for Bucket4 {
    fn name(key: u64) -> Name {
        let (address, port, _) = split_key4(key);
        let mut client = [0; 16];
        client[..4].copy_from_slice(&address.to_ne_bytes());
        Name {
            client,
            port,
            virtual_port: 0,
        }
    }
}

impl Named for Bucket6 {
    fn name(key: Key6) -> Name {
        let split = split_key6(key);
        Name {
            client: xdp_ebpf::family::bytes6(split.client),
            port: split.port,
            virtual_port: split.virtual_port,
        }
    }
}

/// Key and value that stood in a place together. `None`: it is free, or changes all the time.
///
/// Its owner may fill a place anew at any moment, but writes a value of 0 first, then the key, then the value
/// ([`Bucket::fill`]): a value that is the same before and after the key was read was this key's.
#[inline]
pub(super) fn read<B: Bucket>(bucket: &B, way: usize) -> Option<(B::Key, Value)> {
    let mut value = load(bucket.value(way));
    for _ in 0..READS {
        if value == 0 || bucket.is_free(way) {
            return None;
        }
        let key = bucket.key(way);
        let again = load(bucket.value(way));
        if again == value {
            return Some((key, Value(value)));
        }
        value = again;
    }
    None
}

/// The tables of one family.
pub(super) struct Walk<'a, B> {
    pub(super) table: &'a [B],
    pub(super) cpus: u32,
    /// Of one CPU's table.
    pub(super) buckets: u32,
    pub(super) seed: u64,
    pub(super) now_s: u32,
}

/// A place of a connection and what was read there.
pub(super) struct Place<'a, B: Bucket> {
    pub(super) index: usize,
    bucket: &'a B,
    way: usize,
    pub(super) key: B::Key,
    pub(super) value: Value,
}

impl<B: Bucket> Place<'_, B> {
    pub(super) fn is_copy(&self) -> bool {
        self.value.flags() & Value::COPY != 0
    }

    /// Frees the place, unless the packet path has used it meanwhile. A plain store of the packet path that comes after
    /// undoes it: the connection was just used.
    ///
    /// Nor does this hit another connection that has come to stand here whose time has not passed: with the same value it
    /// is of the same destination, so of the same service and its timeouts, and of the same state and second.
    fn free(&self) -> bool {
        let place = self.bucket.value(self.way);
        place
            .compare_exchange(self.value.0, 0, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Of two used in the same second the one further on is right about the state.
    fn age(&self, now_s: u32) -> (u16, u8) {
        age(self.value, now_s)
    }
}

/// Orders entries of a connection: the one that is right about its state first.
pub(super) fn age(value: Value, now_s: u32) -> (u16, u8) {
    (idle_s(value, now_s), u8::MAX - value.state())
}

/// What becomes of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Freed,
    /// It stays, and another one counts for its connection.
    Kept,
    /// It stays and counts.
    Counted,
}

impl<'a, B: Bucket> Walk<'a, B> {
    /// Entries of a bucket.
    pub(super) fn entries(&self, index: usize) -> impl Iterator<Item = Place<'a, B>> + use<'a, B> {
        let bucket = self.table.get(index);
        let places = bucket.into_iter();
        places.flat_map(move |bucket| (0..B::WAYS).filter_map(move |way| place(index, bucket, way)))
    }

    /// The CPU whose table a bucket is of.
    pub(super) fn cpu(&self, index: usize) -> u32 {
        (index / self.buckets.max(1) as usize) as u32
    }

    /// The entries of the same connection in the other CPUs' tables. One that names another real server is of another
    /// connection, before or after this one.
    #[inline]
    pub(super) fn others(&self, of: &Place<'_, B>, mut look: impl FnMut(Place<'a, B>)) {
        let own = self.cpu(of.index);
        let (first, second) = self.both(of.key);
        for cpu in (0..self.cpus).filter(|cpu| *cpu != own) {
            for bucket in [first, second] {
                self.same_in(cpu, bucket, of, &mut look);
            }
        }
    }

    /// The buckets that a key may stand in, counted from the beginning of a CPU's table: the same in all of them.
    fn both(&self, key: B::Key) -> (usize, usize) {
        let (first, second) = candidates(B::hash(key, self.seed), self.buckets, 0);
        (first as usize, second as usize)
    }

    /// The entries of the same connection in one bucket of a CPU's table.
    #[inline(always)]
    fn same_in(
        &self,
        cpu: u32,
        bucket: usize,
        of: &Place<'_, B>,
        mut look: impl FnMut(Place<'a, B>),
    ) {
        let index = cpu as usize * self.buckets as usize + bucket;
        let Some(bucket) = self.table.get(index) else {
            return;
        };
        // All ways first, without a branch for each: which of them it is cannot be predicted. Of a pass with copies 2 ms
        // of 38.
        let mut ways = 0_u32;
        for way in 0..B::WAYS {
            ways |= u32::from(bucket.holds(way, of.key)) << way;
        }
        while ways != 0 {
            let way = ways.trailing_zeros() as usize;
            ways &= ways - 1;
            if let Some(other) = place(index, bucket, way)
                // By now it may have been filled anew.
                && bucket.holds(way, of.key)
                && other.value.destination() == of.value.destination()
            {
                look(other);
            }
        }
    }

    /// Looks after the same buckets of every CPU's table, counted from their beginning, and tells of the entries that stay.
    /// Gives their number.
    ///
    /// All tables side by side, because entries of one connection are in the same two buckets of each, nine of ten of
    /// them in the first: what a copy is asked about is at hand. What is not is loaded, and looked at in the end, so
    /// that one cache miss does not wait for the other. Measured with a third of 1.25 million entries copies: table by
    /// table 77 ms on 2 CPUs, 1.7 s with the tables of 16, 7 s of 128; side by side 33 ms, 85 ms, 370 ms.
    ///
    /// `thorough`: originals in use are held against their neighbours too, which only finding two of a connection asks for.
    /// `later` is memory that is used again, and empty before and after.
    pub(super) fn visit(
        &self,
        buckets: std::ops::Range<usize>,
        thorough: bool,
        rules: &Rules,
        report: &mut Report,
        later: &mut Vec<(usize, usize)>,
        mut stays: impl FnMut(B::Key, &mut Report),
    ) -> u64 {
        let mut taken = 0;
        let mut settle = |place: &Place<'_, B>, fate: Fate, report: &mut Report| {
            if fate != Fate::Freed {
                taken += 1;
                report.count(place.value, B::endpoint(place.key), fate == Fate::Counted);
                stays(place.key, report);
            }
        };
        let mut fetched = 0;
        for cpu in 0..self.cpus {
            let base = cpu as usize * self.buckets as usize;
            for bucket in buckets.clone() {
                let Some(entries) = self.table.get(base + bucket) else {
                    continue;
                };
                for way in 0..B::WAYS {
                    let Some(place) = place(base + bucket, entries, way) else {
                        continue;
                    };
                    match self.judge_by_itself(&place, bucket, thorough, rules, report) {
                        Some(fate) => settle(&place, fate, report),
                        None => {
                            fetched ^= self.fetch_others(&place);
                            later.push((place.index, place.way));
                        }
                    }
                }
            }
        }
        std::hint::black_box(fetched);
        for (index, way) in later.drain(..) {
            let place = self
                .table
                .get(index)
                .and_then(|bucket| place(index, bucket, way));
            if let Some(place) = place {
                let fate = self.judge(&place, rules, report);
                settle(&place, fate, report);
            }
        }
        taken
    }

    /// Loads what [`Self::judge_with_others`] will look at.
    fn fetch_others(&self, of: &Place<'_, B>) -> u64 {
        let own = self.cpu(of.index);
        let bucket = self.other_bucket(of);
        let mut word = 0;
        for cpu in (0..self.cpus).filter(|cpu| *cpu != own) {
            let index = cpu as usize * self.buckets as usize + bucket;
            if let Some(other) = self.table.get(index) {
                // Both lines of an IPv6 bucket.
                word ^= other.value(0).load(Ordering::Relaxed);
                word ^= other.value(B::WAYS - 1).load(Ordering::Relaxed);
            }
        }
        word
    }

    /// Whether an entry stays, and whether it is the one that counts for its connection.
    ///
    /// Original and copies of a connection live and die together, by the one that was used last: a client's packets
    /// write one of them, its server's another.
    fn judge(&self, place: &Place<'_, B>, rules: &Rules, report: &mut Report) -> Fate {
        let bucket = self.other_bucket(place);
        let by_itself = if place.is_copy() {
            self.judge_by_itself(place, bucket, false, rules, report)
        } else {
            None
        };
        by_itself.unwrap_or_else(|| self.judge_with_others(place, rules, report))
    }

    /// The bucket in which an entry's name may stand too.
    fn other_bucket(&self, of: &Place<'_, B>) -> usize {
        let (first, second) = self.both(of.key);
        if of.index % self.buckets.max(1) as usize == first {
            second
        } else {
            first
        }
    }

    /// As far as the entry itself and its neighbours in the other tables tell. `None`: the others must be looked for.
    ///
    /// An entry in use needs no look at the others' time: should one that was used later have expired, it takes this one
    /// with it when its own place is looked at.
    #[inline]
    fn judge_by_itself(
        &self,
        place: &Place<'_, B>,
        bucket: usize,
        thorough: bool,
        rules: &Rules,
        report: &mut Report,
    ) -> Option<Fate> {
        let endpoint = B::endpoint(place.key);
        if rules.is_dead(place.value, endpoint) {
            let freed = place.free();
            report.removed += u64::from(freed);
            return Some(if freed { Fate::Freed } else { Fate::Counted });
        }
        if rules.is_expired(place.value, endpoint, self.now_s) {
            return None;
        }
        if !place.is_copy() {
            let is_one_of_two = thorough && self.has_original_in(bucket, place);
            return (!is_one_of_two).then_some(Fate::Counted);
        }
        self.has_original_in(bucket, place).then_some(Fate::Kept)
    }

    /// Whether an original of the same connection stands in this bucket of another CPU's table.
    #[inline]
    fn has_original_in(&self, bucket: usize, of: &Place<'_, B>) -> bool {
        let own = self.cpu(of.index);
        for cpu in 0..self.cpus {
            let mut found = false;
            if cpu != own {
                self.same_in(cpu, bucket, of, |other| found |= !other.is_copy());
            }
            if found {
                return true;
            }
        }
        false
    }

    #[inline(never)]
    fn judge_with_others(&self, place: &Place<'_, B>, rules: &Rules, report: &mut Report) -> Fate {
        let idle_of_place_s = idle_s(place.value, self.now_s);
        let mut latest = (place.age(self.now_s), place.value);
        let mut superseded = false;
        let mut first_copy = true;
        self.others(place, |other| {
            // A port used again after the NIC had moved its flow: the original on the other CPU is the connection now.
            // Should packets come to this one yet, they find that one and make a copy. Of another real server's entry
            // nothing is said: its old connection may be the one heard of last.
            superseded |= !other.is_copy() && idle_s(other.value, self.now_s) < idle_of_place_s;
            first_copy &= other.is_copy() && other.index > place.index;
            let age = other.age(self.now_s);
            if age < latest.0 {
                latest = (age, other.value);
            }
        });
        let stays = if !place.is_copy() || first_copy {
            // The first of several copies counts in the place of an original that is lost.
            Fate::Counted
        } else {
            Fate::Kept
        };
        if !place.is_copy() && superseded {
            return self.free(place, report).unwrap_or(stays);
        }
        let (latest_age, latest) = latest;
        if !rules.is_expired(latest, B::endpoint(place.key), self.now_s) {
            return stays;
        }
        let mut used_meanwhile = false;
        self.others(place, |other| {
            used_meanwhile |= other.age(self.now_s) < latest_age;
            if !used_meanwhile {
                self.free(&other, report);
            }
        });
        if used_meanwhile {
            return stays;
        }
        // If it was used this very moment it stays, and the others with it are made anew when they are needed.
        self.free(place, report).unwrap_or(stays)
    }

    /// Frees a place whose time has passed. `None`: it was used meanwhile.
    fn free(&self, place: &Place<'_, B>, report: &mut Report) -> Option<Fate> {
        let freed = place.free();
        report.expired += u64::from(freed);
        freed.then_some(Fate::Freed)
    }
}

#[inline]
fn place<B: Bucket>(index: usize, bucket: &B, way: usize) -> Option<Place<'_, B>> {
    let (key, value) = read(bucket, way)?;
    Some(Place {
        index,
        bucket,
        way,
        key,
        value,
    })
}
