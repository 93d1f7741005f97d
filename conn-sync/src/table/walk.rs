//! Everything that stands in the tables, a piece at a time, and one entry by its name.

use xdp_ebpf::atomic::load;
use xdp_ebpf::connection::{Bucket, Bucket4, Bucket6, Value};
use xdp_ebpf::state::State;
use xdp_ebpf::table::candidates;
use xdp_ebpf::walk::{Named, Walk, age, read};

use super::View;
use super::scan::latest;
use crate::directory::{Directory, Handle};
use crate::entry::Entry;

/// How far a walk over all tables is: buckets done, those of the narrow tables first.
pub type Cursor = u64;

/// A piece of the tables.
#[derive(Debug, Default)]
pub struct Piece {
    /// What stands in it, and whether this node has itself only heard of it.
    pub entries: Vec<(Entry, bool)>,
    /// Where the next piece begins. `None`: this was the last.
    pub next: Option<Cursor>,
}

/// At least the next `wanted` entries, if there are so many; at most those of so many buckets. Each connection once, where
/// its original stands.
///
/// An entry that is moved to its other bucket meanwhile may be left out or come twice: peers are told of it again when it
/// is refreshed.
#[must_use]
pub fn piece(
    view: &View<'_>,
    directory: &Directory,
    from: Cursor,
    wanted: usize,
    buckets: usize,
) -> Piece {
    let mut entries = Vec::new();
    let narrow = view.table4.len() as u64;
    let all = narrow + view.table6.len() as u64;
    let end = from.saturating_add(buckets as u64).min(all);
    let mut at = from.min(end);
    while at < end && entries.len() < wanted {
        // Indices of memory that is there.
        if at < narrow {
            bucket(
                &view.narrow(),
                at as usize,
                directory,
                Handle::Narrow,
                &mut entries,
            );
        } else {
            bucket(
                &view.wide(),
                (at - narrow) as usize,
                directory,
                Handle::Wide,
                &mut entries,
            );
        }
        at += 1;
    }
    Piece {
        entries,
        next: (at < all).then_some(at),
    }
}

fn bucket<B: Named>(
    walk: &Walk<'_, B>,
    index: usize,
    directory: &Directory,
    handle: impl Fn(B::Key) -> Handle,
    entries: &mut Vec<(Entry, bool)>,
) {
    for place in walk.entries(index) {
        if !State::from_u8(place.value.state()).is_some_and(State::is_told) {
            continue;
        }
        let mut is_told_elsewhere = false;
        let mut is_learned = place.value.flags() & Value::LEARNED != 0;
        if walk.cpus > 1 {
            walk.others(&place, |other| {
                is_told_elsewhere |=
                    place.is_copy() && (!other.is_copy() || other.index < place.index);
                is_learned &= other.value.flags() & Value::LEARNED != 0;
            });
        }
        if is_told_elsewhere {
            continue;
        }
        let value = latest(walk, &place);
        entries.extend(
            directory
                .entry(handle(place.key), value, walk.now_s)
                .map(|entry| (entry, is_learned)),
        );
    }
}

/// About so many connections that peers are told of stand in the tables.
#[must_use]
pub fn count(view: &View<'_>) -> usize {
    fn of<B: Bucket>(table: &[B]) -> usize {
        let counts = |bucket: &B| {
            let ways = 0..B::WAYS;
            ways.filter(|way| {
                let value = Value(load(bucket.value(*way)));
                let is_told = State::from_u8(value.state()).is_some_and(State::is_told);
                value.is_some() && is_told && value.flags() & Value::COPY == 0
            })
            .count()
        };
        table.iter().map(counts).sum()
    }
    of(view.table4) + of(view.table6)
}

/// What stands under a handle now, and whether it is a peer's of which no packet has come here. `None`: nothing that peers
/// are told of.
#[must_use]
pub fn look_up(view: &View<'_>, directory: &Directory, handle: Handle) -> Option<(Entry, bool)> {
    let (value, is_learned) = match handle {
        Handle::Narrow(key) => find::<Bucket4>(&view.narrow(), key),
        Handle::Wide(key) => find::<Bucket6>(&view.wide(), key),
        Handle::Template(_) => None,
    }?;
    let entry = directory.entry(handle, value, view.now_s)?;
    Some((entry, is_learned))
}

/// What the CPUs together know of a connection.
fn find<B: Bucket>(walk: &Walk<'_, B>, key: B::Key) -> Option<(Value, bool)> {
    let is_told = |value: &Value| State::from_u8(value.state()).is_some_and(State::is_told);
    let values = || all(walk, key).map(|(_, value)| value).filter(is_told);
    let latest = values().min_by_key(|value| age(*value, walk.now_s))?;
    let is_learned = values().all(|value| value.flags() & Value::LEARNED != 0);
    Some((latest, is_learned))
}

/// Every entry of a connection: the CPU whose table it stands in, and its value.
pub(super) fn all<'w, B: Bucket>(
    walk: &'w Walk<'_, B>,
    key: B::Key,
) -> impl Iterator<Item = (u32, Value)> + 'w {
    let (first, second) = candidates(B::hash(key, walk.seed), walk.buckets, 0);
    (0..walk.cpus).flat_map(move |cpu| {
        [first, second].into_iter().flat_map(move |bucket| {
            let index = cpu as usize * walk.buckets as usize + bucket as usize;
            let bucket = walk.table.get(index);
            bucket.into_iter().flat_map(move |bucket| {
                (0..B::WAYS)
                    .filter(move |way| bucket.holds(*way, key))
                    .filter_map(move |way| read(bucket, way))
                    .filter(move |(_, value)| value.is_some())
                    .map(move |(_, value)| (cpu, value))
            })
        })
    })
}
