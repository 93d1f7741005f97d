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

use super::turns::{SLICES, Turn, Turns};
use super::{At, View};
use crate::directory::{Directory, Handle};
use crate::entry::Record;
use crate::machine::Class;
use crate::refresh::Refresh;

/// Entries of a class that a pass remembers: 4 MB for both. What is beyond waits for the next.
const IN_A_PASS: usize = 1 << 18;

/// Passes over the tables.
#[derive(Debug, Default)]
pub struct Scanner {
    refresh: Refresh,
    turns: Turns,
    /// The bucket that the next pass begins with: where this one had to leave the most valuable. So whoever stands far back is
    /// not left for ever while more changes than may be told.
    start: usize,
    /// Memory that is used again: what one pass found that changed, by class.
    found: [Vec<At>; 2],
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
    /// class as `budget` gives, and marks it as told. Gives how many entries had to be left for another pass, as far as it has
    /// looked.
    pub fn pass(
        &mut self,
        view: &View<'_>,
        directory: &Directory,
        passed: Duration,
        mut budget: impl FnMut(Class) -> usize,
        mut tell: impl FnMut(Class, Vec<(Handle, Record)>),
    ) -> usize {
        let mut left = 0;
        let (narrow, wide) = (view.narrow(), view.wide());
        let (narrow_end, end) = (narrow.table.len(), narrow.table.len() + wide.table.len());
        let start = self.start.min(end);
        for part in [start..end, 0..start] {
            let mut collect = |class: Class, at: At| {
                let places = &mut self.found[class as usize];
                if places.len() < IN_A_PASS {
                    places.push(at);
                } else {
                    left += 1;
                }
            };
            let (of_narrow, of_wide) = halves(&part, narrow_end);
            find(&narrow, of_narrow, 0, &mut collect);
            find(&wide, of_wide, narrow_end, &mut collect);
        }
        let mut first_left = None;
        for class in [Class::New, Class::Change] {
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
        self.turns.begin(passed, end);
        left + self.refresh(view, directory, budget, tell)
    }

    /// Tells again what is in use, in the slices whose turn it is.
    fn refresh(
        &mut self,
        view: &View<'_>,
        directory: &Directory,
        mut budget: impl FnMut(Class) -> usize,
        mut tell: impl FnMut(Class, Vec<(Handle, Record)>),
    ) -> usize {
        let (narrow, wide) = (view.narrow(), view.wide());
        let (narrow_end, end) = (narrow.table.len(), narrow.table.len() + wide.table.len());
        let slice = end.div_ceil(SLICES).max(1);
        let rule = self.refresh;
        let period_s = |endpoint, state| {
            let timeouts_s = directory.timeouts_s(endpoint);
            rule.period_s(u32::from(timeouts_s[state as usize]))
        };
        let (mut told, mut room) = (Vec::new(), None);
        let (mut left, mut stopped) = (0, None);
        while stopped.is_none()
            && let Some(turn) = self.turns.due(view.now_s)
        {
            let part = (turn.slice * slice).min(end)..((turn.slice + 1) * slice).min(end);
            let (of_narrow, of_wide) = halves(&part, narrow_end);
            // Of a real server that has no name, or gone this very moment: that takes no room.
            let mut found = |at: At, taken: &mut dyn FnMut() -> Option<(Handle, Record)>| {
                let room = *room.get_or_insert_with(|| budget(Class::Refresh).min(IN_A_PASS));
                if stopped.is_none() && told.len() < room {
                    told.extend(taken());
                } else {
                    left += 1;
                    stopped = stopped.or(Some(at));
                }
            };
            in_use(&narrow, of_narrow, 0, &turn, period_s, |at, index, way| {
                found(at, &mut || {
                    take(
                        &narrow,
                        index,
                        way,
                        Class::Refresh,
                        directory,
                        Handle::Narrow,
                    )
                });
            });
            in_use(
                &wide,
                of_wide,
                narrow_end,
                &turn,
                period_s,
                |at, index, way| {
                    found(at, &mut || {
                        take(&wide, index, way, Class::Refresh, directory, Handle::Wide)
                    });
                },
            );
            match stopped {
                None => self.turns.done(turn),
                Some(at) => self.turns.stopped(turn, at),
            }
        }
        if !told.is_empty() {
            tell(Class::Refresh, told);
        }
        left
    }
}

/// The buckets of a part that are in the narrow tables, and in the wide ones; both counted from the beginning of all.
fn halves(part: &Range<usize>, narrow_end: usize) -> (Range<usize>, Range<usize>) {
    let of_narrow = part.start.min(narrow_end)..part.end.min(narrow_end);
    let of_wide = part.start.max(narrow_end)..part.end.max(narrow_end);
    (of_narrow, of_wide)
}

/// Looks at every value of these buckets: at nothing else of the many that are marked. `base` is added to their indices.
fn find<B: Named>(
    walk: &Walk<'_, B>,
    range: Range<usize>,
    base: usize,
    mut found: impl FnMut(Class, At),
) {
    let begin = range.start - base;
    let buckets = &walk.table[begin..range.end - base];
    for (index, bucket) in (begin..).zip(buckets) {
        for way in 0..B::WAYS {
            let value = Value(load(bucket.value(way)));
            if !value.is_some() || value.flags() & Value::SENT != 0 {
                continue;
            }
            let Some(state) = State::from_u8(value.state()).filter(|it| it.is_told()) else {
                continue;
            };
            let class = if state.is_closing() {
                Class::Change
            } else {
                Class::New
            };
            // Both tables have fewer buckets than fit, and a bucket four places.
            found(class, ((base + index) as u32, way as u8));
        }
    }
}

/// Looks for what is in use and has its turn in these buckets: tells its place, and its index and way in this table.
fn in_use<B: Named>(
    walk: &Walk<'_, B>,
    range: Range<usize>,
    base: usize,
    turn: &Turn,
    period_s: impl Fn(u16, State) -> u32,
    mut found: impl FnMut(At, usize, usize),
) {
    if turn.elapsed_s == 0 {
        return;
    }
    let begin = range.start - base;
    let buckets = &walk.table[begin..range.end - base];
    for (index, bucket) in (begin..).zip(buckets) {
        for way in 0..B::WAYS {
            let at = ((base + index) as u32, way as u8);
            let value = Value(load(bucket.value(way)));
            let flags = value.flags() & (Value::SENT | Value::LEARNED);
            if at < turn.from || !value.is_some() || flags != Value::SENT {
                continue;
            }
            let Some(state) = State::from_u8(value.state()).filter(|it| it.is_told()) else {
                continue;
            };
            let endpoint = B::endpoint(bucket.key(way));
            if is_due(value, index, walk.now_s, turn, period_s(endpoint, state)) {
                found(at, index, way);
            }
        }
    }
}

/// Whether the turn of an entry in this bucket came in the slice's seconds, each bucket's once in a period, and whether a packet
/// has used it since the turn before.
///
/// Nobody remembers when an entry was last told: that would be memory for each of them.
fn is_due(value: Value, bucket: usize, now_s: u32, turn: &Turn, period_s: u32) -> bool {
    let late_s = now_s.wrapping_sub(turn.until_s);
    let since_s = period_s.max(turn.elapsed_s).saturating_add(late_s);
    let is_used = u32::from(idle_s(value, now_s)) <= since_s;
    let is_turn = (bucket as u32).wrapping_add(turn.until_s) % period_s < turn.elapsed_s;
    is_used && is_turn
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
