//! What the packet path does with its tables, and a second opinion on what stands in them.

use std::collections::HashMap;

use xdp_ebpf::atomic::load;
use xdp_ebpf::connection::{Bucket, Value, key4, key6};
use xdp_ebpf::layout::{Load, Settings};
use xdp_ebpf::native::{Cpu, SharedTables};
use xdp_ebpf::reach::{Key, Narrow, Shape, Wide};
use xdp_ebpf::state::State;
use xdp_ebpf::table;

use super::super::{Geometry, Report, Upkeep};

/// A table's keys by number.
pub(super) trait Numbered: Shape {
    fn key(number: u32) -> Key<Self>;
    fn number(key: Key<Self>) -> u32;
    fn table(tables: &SharedTables) -> &[Self::Bucket];
}

impl Numbered for Narrow {
    fn key(number: u32) -> u64 {
        key4(number, 80, 1)
    }

    fn number(key: u64) -> u32 {
        key as u32
    }

    fn table(tables: &SharedTables) -> &[Self::Bucket] {
        tables.buckets4()
    }
}

impl Numbered for Wide {
    fn key(number: u32) -> [u64; 3] {
        key6([number, 2, 3, 4], 80, 0, 1)
    }

    fn number(key: [u64; 3]) -> u32 {
        key[0] as u32
    }

    fn table(tables: &SharedTables) -> &[Self::Bucket] {
        tables.buckets6()
    }
}

pub(super) const START_S: u32 = 70_000;

pub(super) fn settings(cpus: u32, buckets: u32) -> Settings {
    Settings {
        now_s: START_S,
        cpus,
        buckets4: buckets,
        buckets6: buckets,
        seed: 0x5eed,
        ..Settings::default()
    }
}

pub(super) fn upkeep(settings: &Settings) -> Upkeep {
    Upkeep::new(Geometry {
        cpus: settings.cpus,
        buckets4: settings.buckets4,
        buckets6: settings.buckets6,
        seed: settings.seed,
    })
}

/// A whole pass at once.
pub(super) fn pass(upkeep: &mut Upkeep, tables: &SharedTables) -> Report {
    upkeep
        .step(
            tables.buckets4(),
            tables.buckets6(),
            tables.now_s(),
            usize::MAX,
        )
        .unwrap()
}

/// A packet of a connection of this CPU, as `path::forward` treats it: found and updated, or new. The entry as it stands
/// then; `None`: there was no room.
pub(super) fn packet<S: Numbered>(
    cpu: &Cpu<'_>,
    number: u32,
    destination: u32,
    state: State,
) -> Option<Value> {
    let settings = cpu.settings();
    let found = table::find::<S, _>(cpu, settings, own(cpu), S::key(number));
    let now = settings.now_s as u16;
    if found.is_some() {
        let old = found.value;
        let value = Value::new(old.destination(), now, state, old.flags());
        if value != old {
            table::update::<S, _>(cpu, &found, value);
            table::recount(cpu, old, value);
        }
        return Some(value);
    }
    let value = Value::new(destination, now, state, 0);
    table::insert::<S, _>(cpu, &S::key(number), value.0).then_some(value)
}

/// A packet of a connection of another CPU: this one takes a copy. What it found.
pub(super) fn foreign_packet<S: Numbered>(cpu: &Cpu<'_>, number: u32) -> Value {
    let settings = cpu.settings();
    let found = table::find::<S, _>(cpu, settings, own(cpu), S::key(number));
    if found.is_some() {
        return found.value;
    }
    let known = Value(table::find_elsewhere::<S, _>(
        cpu,
        &S::key(number),
        own(cpu),
    ));
    if let Some(state) = State::from_u8(known.state()) {
        let flags = known.flags() | Value::COPY;
        let copy = Value::new(known.destination(), settings.now_s as u16, state, flags);
        table::insert::<S, _>(cpu, &S::key(number), copy.0);
    }
    known
}

pub(super) fn own(cpu: &Cpu<'_>) -> u32 {
    xdp_ebpf::tables::Tables::cpu(cpu)
}

/// All entries: bucket, number, value.
pub(super) fn entries<S: Numbered>(tables: &SharedTables) -> Vec<(usize, u32, Value)> {
    let mut entries = Vec::new();
    for (index, bucket) in S::table(tables).iter().enumerate() {
        for way in (0..S::Bucket::WAYS).filter(|way| !bucket.is_free(*way)) {
            let value = Value(load(bucket.value(way)));
            if value.is_some() {
                entries.push((index, S::number(bucket.key(way)), value));
            }
        }
    }
    entries
}

/// Active and inactive connections of each destination, the plain way: originals, and of copies without one the first.
pub(super) fn counted<S: Numbered>(tables: &SharedTables) -> HashMap<u32, (i64, i64)> {
    let mut connections: HashMap<(u32, u32), Vec<Value>> = HashMap::new();
    for (_, number, value) in entries::<S>(tables) {
        let entries = connections
            .entry((number, value.destination()))
            .or_default();
        entries.push(value);
    }
    let mut counted: HashMap<u32, (i64, i64)> = HashMap::new();
    for ((_, destination), values) in connections {
        let is_copy = |value: &&Value| value.flags() & Value::COPY != 0;
        let originals: Vec<&Value> = values.iter().filter(|value| !is_copy(value)).collect();
        let those = if originals.is_empty() {
            values.iter().take(1).collect()
        } else {
            originals
        };
        let counts = counted.entry(destination).or_default();
        for value in those {
            match State::from_u8(value.state()) {
                Some(state) if state.is_active() => counts.0 += 1,
                _ => counts.1 += 1,
            }
        }
    }
    counted
}

/// Live counts of a destination.
pub(super) fn live(of: &Load) -> (i64, i64) {
    (
        load(&of.active).cast_signed(),
        load(&of.inactive).cast_signed(),
    )
}
