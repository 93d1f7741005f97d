//! Upkeep of one entry after the other: whether it stays, and whether it counts.

use std::ops::Deref;
use std::sync::atomic::Ordering;

use xdp_ebpf::connection::{Bucket, Value};
use xdp_ebpf::walk::{Place, Walk, idle_s, place};

use super::report::Report;
use super::rules::Rules;

/// Walks the tables of one family and looks after them.
pub(super) struct Keeper<'a, B>(pub(super) Walk<'a, B>);

impl<'a, B> Deref for Keeper<'a, B> {
    type Target = Walk<'a, B>;
    fn deref(&self) -> &Walk<'a, B> {
        &self.0
    }
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

impl<B: Bucket> Keeper<'_, B> {
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
        mut stays: impl FnMut(B::Key, Value, &mut Report),
    ) -> u64 {
        let mut taken = 0;
        let mut settle = |place: &Place<'_, B>, fate: Fate, report: &mut Report| {
            if fate != Fate::Freed {
                taken += 1;
                report.count(place.value, B::endpoint(place.key), fate == Fate::Counted);
                stays(place.key, place.value, report);
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
