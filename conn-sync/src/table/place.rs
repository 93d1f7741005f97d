//! Into which CPU's table a peer's connection is put, and what is in its way.

use std::sync::atomic::Ordering;

use xdp_ebpf::connection::{Bucket, Value};
use xdp_ebpf::layout::{Learn, learn};
use xdp_ebpf::state::State;
use xdp_ebpf::table::candidates;
use xdp_ebpf::walk::{Walk, idle_s, read};

use super::View;
use super::walk::all;
use crate::directory::{Handle, Numbered};
use crate::entry::{Held, How, supersedes};

/// A connection that a peer told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What it is here.
    pub numbered: Numbered,
    /// Its state.
    pub state: State,
    /// Seconds since a packet of it was seen.
    pub idle_s: u16,
    /// How it came here.
    pub how: How,
}

/// What is to be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is to be learned by this CPU.
    On(u32, Learn),
    /// This node knows better: a packet of it was here later.
    KnownBetter,
}

/// Decides that, and frees what of the connection stands in other CPUs' tables and is older: packets that come there shall
/// find the one that is right.
///
/// Where the connection stands already, it stays; else the hash of its name says where. Which CPU its packets will come to
/// nobody knows: they find it wherever it is.
#[must_use]
pub fn place(view: &View<'_>, wish: &Wish) -> Placed {
    match wish.numbered.handle {
        Handle::Narrow(key) => on(&view.narrow(), key, wish, [key, 0, 0], learn::NARROW),
        Handle::Wide(key) => on(&view.wide(), key, wish, key, learn::WIDE),
        // Templates stand in a map of all CPUs.
        Handle::Template(_) => Placed::KnownBetter,
    }
}

/// Frees what was learned of a connection that has gone on at a real server that is not known here: after a failover its
/// packets would go to the one before.
pub fn forget(view: &View<'_>, handle: Handle, incoming_s: u16, how: How) {
    fn of<B: Bucket>(walk: &Walk<'_, B>, key: B::Key, incoming_s: u16, how: How) {
        free(walk, key, |_, value| {
            let held = Held {
                is_learned: value.flags() & Value::LEARNED != 0,
                idle_s: u32::from(idle_s(value, walk.now_s)),
            };
            supersedes(held, u32::from(incoming_s), how)
        });
    }
    match handle {
        Handle::Narrow(key) => of(&view.narrow(), key, incoming_s, how),
        Handle::Wide(key) => of(&view.wide(), key, incoming_s, how),
        Handle::Template(_) => {}
    }
}

fn on<B: Bucket>(
    walk: &Walk<'_, B>,
    key: B::Key,
    wish: &Wish,
    words: [u64; 3],
    table: u32,
) -> Placed {
    let mut home = None;
    let mut entries = 0;
    let mut idle_of_it_s = wish.idle_s;
    for (cpu, value) in all(walk, key) {
        let held_idle_s = idle_s(value, walk.now_s);
        let held = Held {
            is_learned: value.flags() & Value::LEARNED != 0,
            idle_s: u32::from(held_idle_s),
        };
        if !supersedes(held, u32::from(wish.idle_s), wish.how) {
            return Placed::KnownBetter;
        }
        if value.destination() == wish.numbered.destination {
            idle_of_it_s = idle_of_it_s.min(held_idle_s);
        }
        // An original rather than a copy.
        let is_copy = value.flags() & Value::COPY != 0;
        if home.is_none_or(|(_, was_copy)| was_copy && !is_copy) {
            home = Some((cpu, is_copy));
        }
        entries += 1;
    }
    let cpu = match home {
        Some((cpu, _)) => cpu,
        // Not the hash that chooses a bucket.
        None => (B::hash(key, !walk.seed) % u64::from(walk.cpus.max(1))) as u32,
    };
    if entries > 1 {
        free(walk, key, |of, _| of != cpu);
    }
    let seen_s = (walk.now_s as u16).wrapping_sub(idle_of_it_s);
    let flags = Value::LEARNED | Value::SENT;
    let order = Learn {
        key: words,
        value: Value::new(wish.numbered.destination, seen_s, wish.state, flags).0,
        table,
        outcome: 0,
    };
    Placed::On(cpu, order)
}

/// Frees a connection's entries of which this is wanted, by the CPU and the value. Upkeep corrects the counts.
fn free<B: Bucket>(walk: &Walk<'_, B>, key: B::Key, wanted: impl Fn(u32, Value) -> bool) {
    let (first, second) = candidates(B::hash(key, walk.seed), walk.buckets, 0);
    for cpu in 0..walk.cpus {
        for bucket in [first, second] {
            let index = cpu as usize * walk.buckets as usize + bucket as usize;
            let Some(bucket) = walk.table.get(index) else {
                continue;
            };
            for way in (0..B::WAYS).filter(|way| bucket.holds(*way, key)) {
                let Some((_, value)) = read(bucket, way).filter(|(_, it)| wanted(cpu, *it)) else {
                    continue;
                };
                let place = bucket.value(way);
                // If it was used meanwhile it stays; the next telling finds it.
                let _ = place.compare_exchange(value.0, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }
}
