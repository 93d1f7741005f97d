//! What peers have yet to be told: a pass over the tables.
//!
//! Nobody keeps a list of what changed. An entry that changes loses its mark ([`Value::SENT`]), in a word that the packet
//! path writes anyway, and a pass over the tables finds it: a burst can delay it, but cannot lose it.

use std::ops::Range;
use std::time::Duration;

use xdp_ebpf::atomic::load;
use xdp_ebpf::connection::{Bucket, Value};
use xdp_ebpf::state::State;
use xdp_ebpf::walk::{Named, Place, Walk, age, idle_s, place};

use super::View;
use crate::directory::{Directory, Handle};
use crate::entry::Record;
use crate::machine::Class;
use crate::refresh::Refresh;

/// Entries of a class that a pass remembers: 6 MB for all of them. What is beyond waits for the next.
const IN_A_PASS: usize = 1 << 18;

/// A place: its bucket, those of the wide tables after those of the narrow ones, and which of the bucket's.
type At = (u32, u8);

/// What is in use is looked for in one part of the tables after the other, all of them within a second: that takes several
/// times as long for an entry as to see that it has its mark.
const SLICES: usize = 32;
/// See [`SLICES`].
const ROUND: Duration = Duration::from_secs(1);

/// Passes over the tables.
#[derive(Debug, Default)]
pub struct Scanner {
    refresh: Refresh,
    /// When, by the tables' clock, each slice was last looked through for what is in use.
    looked_s: [Option<u32>; SLICES],
    /// The slice whose turn is next.
    next_slice: usize,
    /// Time since the slice before had its turn, as far as it has not been used up.
    saved: Duration,
    /// The bucket that the next pass begins with: where this one had to leave the most valuable. So whoever stands far back is
    /// not left for ever while more changes than may be told.
    start: usize,
    /// Memory that is used again: what one pass found, by class.
    found: [Vec<At>; 3],
}

impl Scanner {
    /// One that has what is in use told again by this rule.
    #[must_use]
    pub fn new(refresh: Refresh) -> Self {
        Self {
            refresh,
            ..Self::default()
        }
    }

    /// One pass, `passed` after the one before. Hands over what is to be told, the most valuable first and as much of each
    /// class as `budget` gives, and marks it as told. Gives how many entries had to be left for another pass.
    pub fn pass(
        &mut self,
        view: &View<'_>,
        directory: &Directory,
        passed: Duration,
        mut budget: impl FnMut(Class) -> usize,
        mut tell: impl FnMut(Class, Vec<(Handle, Record)>),
    ) -> usize {
        let elapsed_s = self.turns(view.now_s, passed);
        let mut left = 0;
        let (narrow, wide) = (view.narrow(), view.wide());
        let (narrow_end, end) = (narrow.table.len(), narrow.table.len() + wide.table.len());
        let refresh = self.refresh;
        let period_s = |endpoint, state| {
            let timeouts_s = directory.timeouts_s(endpoint);
            refresh.period_s(u32::from(timeouts_s[state as usize]))
        };
        let slice = end.div_ceil(SLICES).max(1);
        let start = self.start.min(end);
        for part in parts(start, end, slice) {
            let elapsed_s = elapsed_s[part.start / slice];
            let mut collect = |class: Class, at: At| {
                let places = &mut self.found[class as usize];
                if places.len() < IN_A_PASS {
                    places.push(at);
                } else {
                    left += 1;
                }
            };
            let of_narrow = part.start.min(narrow_end)..part.end.min(narrow_end);
            let of_wide = part.start.max(narrow_end)..part.end.max(narrow_end);
            find(&narrow, of_narrow, 0, period_s, elapsed_s, &mut collect);
            find(
                &wide,
                of_wide,
                narrow_end,
                period_s,
                elapsed_s,
                &mut collect,
            );
        }
        let mut first_left = None;
        for class in [Class::New, Class::Change, Class::Refresh] {
            let found = &mut self.found[class as usize];
            if found.is_empty() {
                continue;
            }
            let room = budget(class).min(found.len());
            let told: Vec<(Handle, Record)> = found[..room]
                .iter()
                .filter_map(|(index, way)| {
                    let (index, way) = (*index as usize, usize::from(*way));
                    match index.checked_sub(narrow_end) {
                        None => take(&narrow, index, way, class, directory, Handle::Narrow),
                        Some(index) => take(&wide, index, way, class, directory, Handle::Wide),
                    }
                })
                .collect();
            first_left = first_left.or(found.get(room).map(|at| at.0 as usize));
            left += found.len() - room;
            found.clear();
            if !told.is_empty() {
                tell(class, told);
            }
        }
        self.start = first_left.unwrap_or(0);
        left
    }

    /// For each slice the seconds since what is in use was last looked for in it; 0 for those whose turn it is not.
    fn turns(&mut self, now_s: u32, passed: Duration) -> [u32; SLICES] {
        self.saved = (self.saved + passed).min(ROUND);
        let each = ROUND / SLICES as u32;
        let mut elapsed_s = [0; SLICES];
        while self.saved >= each {
            self.saved -= each;
            let slice = self.next_slice;
            self.next_slice = (slice + 1) % SLICES;
            let before_s = self.looked_s[slice].replace(now_s);
            elapsed_s[slice] = before_s.map_or(0, |before_s| now_s.wrapping_sub(before_s));
        }
        elapsed_s
    }
}

/// All buckets from `start` on and those before it, cut where slices end.
fn parts(start: usize, end: usize, slice: usize) -> impl Iterator<Item = Range<usize>> {
    [start..end, 0..start].into_iter().flat_map(move |range| {
        let mut at = range.start;
        std::iter::from_fn(move || {
            let from = at;
            at = (from / slice + 1).saturating_mul(slice).min(range.end);
            (from < range.end).then_some(from..at)
        })
    })
}

/// Looks at every value of these buckets: at nothing else of the many that are marked, unless some time has passed since what
/// is in use was last looked for. `base` is added to their indices.
fn find<B: Named>(
    walk: &Walk<'_, B>,
    range: Range<usize>,
    base: usize,
    period_s: impl Fn(u16, State) -> u32,
    elapsed_s: u32,
    mut found: impl FnMut(Class, At),
) {
    let begin = range.start - base;
    let buckets = &walk.table[begin..range.end - base];
    for (index, bucket) in (begin..).zip(buckets) {
        for way in 0..B::WAYS {
            let value = Value(load(bucket.value(way)));
            if !value.is_some() {
                continue;
            }
            let is_sent = value.flags() & Value::SENT != 0;
            if is_sent && elapsed_s == 0 {
                continue;
            }
            let Some(state) = State::from_u8(value.state()).filter(|it| it.is_told()) else {
                continue;
            };
            let class = match (is_sent, state.is_closing()) {
                (false, false) => Class::New,
                (false, true) => Class::Change,
                (true, _) => {
                    let endpoint = B::endpoint(bucket.key(way));
                    let period_s = period_s(endpoint, state);
                    if !is_due(value, index, walk.now_s, elapsed_s, period_s) {
                        continue;
                    }
                    Class::Refresh
                }
            };
            // Both tables have fewer buckets than fit, and a bucket four places.
            found(class, ((base + index) as u32, way as u8));
        }
    }
}

/// Whether the turn of an entry in this bucket came in the last `elapsed_s` seconds, each bucket's once in a period, and
/// whether a packet has used it since the turn before.
///
/// Nobody remembers when an entry was last told: that would be memory for each of them.
fn is_due(value: Value, bucket: usize, now_s: u32, elapsed_s: u32, period_s: u32) -> bool {
    let is_own = value.flags() & Value::LEARNED == 0;
    let is_used = u32::from(idle_s(value, now_s)) <= period_s;
    let is_turn = (bucket as u32).wrapping_add(now_s) % period_s < elapsed_s;
    is_own && is_used && is_turn
}

/// Marks an entry and says what is to be told. `None`: it has changed, or nothing configured has a name for it.
fn take<B: Named>(
    walk: &Walk<'_, B>,
    index: usize,
    way: usize,
    class: Class,
    directory: &Directory,
    handle: impl Fn(B::Key) -> Handle,
) -> Option<(Handle, Record)> {
    let place = place(index, walk.table.get(index)?, way)?;
    if class != Class::Refresh {
        let is_marked = place.value.flags() & Value::SENT != 0;
        // Another one stands there by now, or it has changed this very moment: it is for the next pass.
        if is_marked || !State::from_u8(place.value.state())?.is_told() || !place.mark_sent() {
            return None;
        }
    }
    let handle = handle(place.key);
    let entry = directory.entry(handle, latest(walk, &place), walk.now_s)?;
    Some((handle, Record::Entry(entry)))
}

/// What the CPUs together know of a connection: the one that saw it last is right about its state.
pub(super) fn latest<B: Bucket>(walk: &Walk<'_, B>, of: &Place<'_, B>) -> Value {
    let mut latest = of.value;
    if walk.cpus > 1 {
        walk.others(of, |other| {
            let is_told = State::from_u8(other.value.state()).is_some_and(State::is_told);
            if is_told && age(other.value, walk.now_s) < age(latest, walk.now_s) {
                latest = other.value;
            }
        });
    }
    latest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pass has its share of looking for what is in use, and each slice its turn once a second: no pass does much more
    /// than another because the clock's next second has begun.
    #[test]
    fn looking_for_what_is_in_use_is_spread_over_the_second() {
        // (milliseconds between passes, slices that have their turn in one of them at the most)
        for (every_ms, most) in [
            (1, 1),
            (40, 2),
            (77, 3),
            (250, 8),
            (999, 32),
            (1000, 32),
            (5000, 32),
        ] {
            let mut scanner = Scanner::default();
            let mut looked_s = [0_u64; SLICES];
            let mut now_ms = 0;
            while now_ms < 100_000 {
                now_ms += every_ms;
                let first = scanner.next_slice;
                let elapsed_s =
                    scanner.turns((now_ms / 1000) as u32, Duration::from_millis(every_ms));
                let turns = (scanner.next_slice + SLICES - first) % SLICES;
                assert!(turns <= most, "{turns} at once, every {every_ms} ms");
                let looked = elapsed_s.iter().filter(|elapsed_s| **elapsed_s > 0).count();
                assert!(looked <= most, "{looked} at once, every {every_ms} ms");
                for (sum, elapsed_s) in looked_s.iter_mut().zip(elapsed_s) {
                    *sum += u64::from(elapsed_s);
                }
            }
            // No second is left out, none is looked at twice: but for the first and the last round.
            let all_s = now_ms / 1000;
            let least_s = all_s - 2 * (1 + every_ms / 1000);
            assert!(
                looked_s.iter().all(|sum| (least_s..=all_s).contains(sum)),
                "every {every_ms} ms: {looked_s:?} of {all_s} s"
            );
        }
    }

    #[test]
    fn parts_are_all_buckets_once() {
        for (start, end, slice) in [
            (0, 0, 1),
            (0, 64, 2),
            (5, 64, 3),
            (64, 64, 2),
            (63, 65, 3),
            (1, 7, 100),
        ] {
            let parts: Vec<Range<usize>> = parts(start, end, slice).collect();
            let all: Vec<usize> = parts.iter().cloned().flatten().collect();
            let expected: Vec<usize> = (start..end).chain(0..start).collect();
            assert_eq!(all, expected, "{start} {end} {slice}: {parts:?}");
            let is_cut = |part: &Range<usize>| part.start / slice == (part.end - 1) / slice;
            assert!(parts.iter().all(is_cut), "{parts:?}");
        }
    }
}
