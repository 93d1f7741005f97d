//! What peers have yet to be told: a pass over the tables.
//!
//! Nobody keeps a list of what changed. An entry that changes loses its mark ([`Value::SENT`]), in a word that the packet
//! path writes anyway, and a pass over the tables finds it: a burst can delay it, but cannot lose it.

use xdp_ebpf::atomic::load;
use xdp_ebpf::connection::{Bucket, Value};
use xdp_ebpf::state::State;
use xdp_ebpf::walk::{Named, Place, Walk, age, idle_s, place};

use super::View;
use crate::directory::{Directory, Handle};
use crate::entry::Record;
use crate::machine::Class;

/// Entries of a class that a pass remembers: 6 MB for all of them. What is beyond waits for the next.
const IN_A_PASS: usize = 1 << 18;

/// A place: its bucket, those of the wide tables after those of the narrow ones, and which of the bucket's.
type At = (u32, u8);

/// Passes over the tables.
#[derive(Debug, Default)]
pub struct Scanner {
    refreshed_s: Option<u32>,
    /// What is in use is told again after so many seconds at the latest.
    longest_refresh_s: Option<u16>,
    /// The bucket that the next pass begins with: where this one had to leave the most valuable. So whoever stands far back is
    /// not left for ever while more changes than may be told.
    start: usize,
    /// Memory that is used again: what one pass found, by class.
    found: [Vec<At>; 3],
}

impl Scanner {
    /// What is in use is told again after so many seconds at the latest, whatever its timeout.
    #[must_use]
    pub fn refreshing_within(longest_refresh_s: u16) -> Self {
        Self {
            longest_refresh_s: Some(longest_refresh_s.max(1)),
            ..Self::default()
        }
    }

    /// One pass. Hands over what is to be told, the most valuable first and as much of each class as `budget` gives, and
    /// marks it as told. Gives how many entries had to be left for another pass.
    pub fn pass(
        &mut self,
        view: &View<'_>,
        directory: &Directory,
        mut budget: impl FnMut(Class) -> usize,
        mut tell: impl FnMut(Class, Vec<(Handle, Record)>),
    ) -> usize {
        let elapsed_s = match self.refreshed_s {
            Some(before_s) => view.now_s.wrapping_sub(before_s),
            None => 0,
        };
        self.refreshed_s = Some(view.now_s);
        let mut left = 0;
        let (narrow, wide) = (view.narrow(), view.wide());
        let (narrow_end, end) = (narrow.table.len(), narrow.table.len() + wide.table.len());
        let longest_s = self.longest_refresh_s.unwrap_or(u16::MAX);
        let refresh_s = |endpoint, state| directory.refresh_s(endpoint, state).min(longest_s);
        let start = self.start.min(end);
        for range in [start..end, 0..start] {
            let mut collect = |class: Class, at: At| {
                let places = &mut self.found[class as usize];
                if places.len() < IN_A_PASS {
                    places.push(at);
                } else {
                    left += 1;
                }
            };
            let of_narrow = range.start.min(narrow_end)..range.end.min(narrow_end);
            let of_wide = range.start.max(narrow_end)..range.end.max(narrow_end);
            find(&narrow, of_narrow, 0, refresh_s, elapsed_s, &mut collect);
            find(
                &wide,
                of_wide,
                narrow_end,
                refresh_s,
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
}

/// Looks at every value of these buckets: at nothing else of the many that are marked. `base` is added to their indices.
fn find<B: Named>(
    walk: &Walk<'_, B>,
    range: std::ops::Range<usize>,
    base: usize,
    refresh_s: impl Fn(u16, State) -> u16,
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
                    let period_s = u32::from(refresh_s(endpoint, state));
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
