//! What peers have yet to be told: a pass over the tables.
//!
//! Nobody keeps a list of what changed. An entry that changes loses its mark ([`Value::SENT`]), in a word that the packet
//! path writes anyway, and a pass over the tables finds it: a burst can delay it, but cannot lose it.

use xdp_ebpf::atomic::load;
use xdp_ebpf::connection::{Bucket, Value};
use xdp_ebpf::state::State;
use xdp_ebpf::walk::{Named, Place, Walk, age, place};

use super::View;
use crate::directory::{Directory, Handle};
use crate::entry::Record;
use crate::machine::Class;

/// What a pass found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Entries that had to be left for another pass.
    pub left: usize,
    /// Entries that nothing configured has a name for: told to nobody.
    pub nameless: u64,
}

/// Entries of a class and a table that a pass remembers: 8 MB for all of them. What is beyond waits for the next.
const IN_A_PASS: usize = 1 << 18;

/// A bucket's index and a place in it.
type At = (u32, u8);

/// Passes over the tables.
#[derive(Debug, Default)]
pub struct Scanner {
    refreshed_s: Option<u32>,
    /// What is in use is told again after so many seconds at the latest.
    longest_refresh_s: Option<u16>,
    /// Memory that is used again: what one pass found, by class and table.
    found: [[Vec<At>; 2]; 3],
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
    /// marks it as told.
    pub fn pass(
        &mut self,
        view: &View<'_>,
        directory: &Directory,
        mut budget: impl FnMut(Class) -> usize,
        mut tell: impl FnMut(Class, Vec<(Handle, Record)>),
    ) -> Tally {
        let elapsed_s = match self.refreshed_s {
            Some(before_s) => view.now_s.wrapping_sub(before_s),
            None => 0,
        };
        self.refreshed_s = Some(view.now_s);
        let mut tally = Tally::default();
        let (narrow, wide) = (view.narrow(), view.wide());
        let mut collect = |table: usize, class: Class, at: At| {
            let places = &mut self.found[class as usize][table];
            if places.len() < IN_A_PASS {
                places.push(at);
            } else {
                tally.left += 1;
            }
        };
        let longest_s = self.longest_refresh_s.unwrap_or(u16::MAX);
        let refresh_s = |endpoint, state| directory.refresh_s(endpoint, state).min(longest_s);
        find(&narrow, refresh_s, elapsed_s, |class, at| {
            collect(0, class, at)
        });
        find(&wide, refresh_s, elapsed_s, |class, at| {
            collect(1, class, at)
        });
        for class in [Class::New, Class::Change, Class::Refresh] {
            let [four, six] = &mut self.found[class as usize];
            let found = four.len() + six.len();
            if found == 0 {
                continue;
            }
            let room = budget(class).min(found);
            let mut told = Vec::with_capacity(room);
            let four_taken = four.len().min(room);
            for at in four.drain(..).take(four_taken) {
                let dirty = take(&narrow, at, class, directory, Handle::Narrow, &mut tally);
                told.extend(dirty);
            }
            for at in six.drain(..).take(room - four_taken) {
                let dirty = take(&wide, at, class, directory, Handle::Wide, &mut tally);
                told.extend(dirty);
            }
            tally.left += found - room;
            if !told.is_empty() {
                tell(class, told);
            }
        }
        tally
    }
}

/// Looks at every value of a table: at nothing else of the many that are marked.
fn find<B: Named>(
    walk: &Walk<'_, B>,
    refresh_s: impl Fn(u16, State) -> u16,
    elapsed_s: u32,
    mut found: impl FnMut(Class, At),
) {
    for (index, bucket) in walk.table.iter().enumerate() {
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
            // A table has fewer buckets than fit, and a bucket four places.
            found(class, (index as u32, way as u8));
        }
    }
}

/// Whether the turn of an entry in this bucket came in the last `elapsed_s` seconds, each bucket's once in a period, and
/// whether a packet has used it since the turn before.
///
/// Nobody remembers when an entry was last told: that would be memory for each of them.
fn is_due(value: Value, bucket: usize, now_s: u32, elapsed_s: u32, period_s: u32) -> bool {
    let is_own = value.flags() & Value::LEARNED == 0;
    let is_used = u32::from(value.idle_s(now_s)) <= period_s;
    let is_turn = (bucket as u32).wrapping_add(now_s) % period_s < elapsed_s;
    is_own && is_used && is_turn
}

/// Marks an entry and says what is to be told. `None`: it has changed, or has no name.
fn take<B: Named>(
    walk: &Walk<'_, B>,
    (index, way): At,
    class: Class,
    directory: &Directory,
    handle: impl Fn(B::Key) -> Handle,
    tally: &mut Tally,
) -> Option<(Handle, Record)> {
    let index = index as usize;
    let place = place(index, walk.table.get(index)?, usize::from(way))?;
    if class != Class::Refresh {
        let is_marked = place.value.flags() & Value::SENT != 0;
        // Another one stands there by now, or it has changed this very moment: it is for the next pass.
        if is_marked || !State::from_u8(place.value.state())?.is_told() || !place.mark_sent() {
            return None;
        }
    }
    let handle = handle(place.key);
    let entry = directory.entry(handle, latest(walk, &place), walk.now_s);
    tally.nameless += u64::from(entry.is_none());
    entry.map(|entry| (handle, Record::Entry(entry)))
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
