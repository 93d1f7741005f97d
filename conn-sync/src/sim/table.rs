//! A node's table, as a model: what packets and the sender's walk do with flags and ticks.

use std::collections::BTreeMap;

use super::names::{ONE_DATAGRAM, Slot, Version};
use super::world::Micros;
use crate::entry::{Held, How, Record, supersedes};
use crate::machine::{Class, Found};

/// An entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) version: Version,
    /// By the table's clock.
    pub(super) seen_tick: u32,
    /// In true time, about.
    pub(super) seen_at: Micros,
    pub(super) is_sent: bool,
    pub(super) is_learned: bool,
    /// If not sent.
    pub(super) class: Class,
    /// Used since it was last sent.
    pub(super) is_used: bool,
}

/// A node's own clock: when its seconds begin, and how fast it goes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    pub(super) phase: Micros,
    /// Parts of a million that it goes faster, or slower.
    pub(super) drift_ppm: i64,
}

impl Clock {
    /// What it shows. Never goes back, and starts with its phase.
    pub(super) fn shows(self, now: Micros) -> Micros {
        // A run takes minutes: far from any limit.
        let drift = now as i64 * self.drift_ppm / 1_000_000;
        now.saturating_add_signed(drift) + self.phase
    }

    /// The first moment at which it shows this.
    pub(super) fn when(self, shown: Micros) -> Micros {
        let passed = u128::from(shown.saturating_sub(self.phase)) * 1_000_000;
        let rate = 1_000_000_u64.saturating_add_signed(self.drift_ppm);
        let about = u64::try_from(passed / u128::from(rate)).unwrap_or(Micros::MAX);
        // Rounded twice.
        let mut now = about.saturating_sub(2);
        while self.shows(now) < shown {
            now += 1;
        }
        now
    }
}

impl Row {
    /// Peers are told of it.
    pub(super) fn is_told(&self) -> bool {
        self.version.stage != ONE_DATAGRAM
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) rows: BTreeMap<Slot, Row>,
    pub(super) clock: Clock,
    /// Bits of services and of servers (by opening) that are not known.
    pub(super) unknown_services: u8,
    pub(super) unknown_servers: u8,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Taken,
    Kept,
    /// Its service or server is not known.
    Unknown,
}

/// Idle seconds after which an entry is gone.
pub(super) fn timeout_s(version: Version) -> u32 {
    match version.stage {
        1 => 60,
        2 => 30,
        _ => 12,
    }
}

impl Table {
    pub(super) fn tick(&self, now: Micros) -> u32 {
        (self.clock.shows(now) / 1_000_000) as u32
    }

    pub(super) fn knows(&self, slot: Slot, version: Version) -> bool {
        self.unknown_services & 1 << slot.service() == 0
            && self.unknown_servers & 1 << (version.opening % 4) == 0
    }

    pub(super) fn idle_s(&self, row: &Row, now: Micros) -> u32 {
        self.tick(now).saturating_sub(row.seen_tick)
    }

    pub(super) fn expire(&mut self, now: Micros) {
        let tick = self.tick(now);
        let is_live = |row: &Row| tick - row.seen_tick < timeout_s(row.version);
        self.rows.retain(|_, row| is_live(row));
    }

    /// A packet of a connection passes here.
    pub(super) fn pass(&mut self, slot: Slot, version: Version, now: Micros) {
        let tick = self.tick(now);
        let before = self.rows.get(&slot).copied();
        let is_same = before.is_some_and(|row| row.version == version);
        let is_new = before.is_none_or(|row| row.version.opening != version.opening);
        let class = before.filter(|row| !row.is_sent).map(|row| row.class);
        let row = Row {
            version,
            seen_tick: tick,
            seen_at: now,
            is_sent: is_same && before.is_some_and(|row| row.is_sent),
            is_learned: false,
            class: if is_new {
                Class::New
            } else {
                class.unwrap_or(Class::Change)
            },
            is_used: true,
        };
        self.rows.insert(slot, row);
    }

    /// A record from a peer.
    pub(super) fn apply(
        &mut self,
        (slot, version, idle_s): (Slot, Version, u32),
        how: How,
        now: Micros,
    ) -> Outcome {
        let held = self.rows.get(&slot).copied();
        if let Some(row) = &held {
            let held = Held {
                is_learned: row.is_learned,
                idle_s: self.idle_s(row, now),
            };
            if !supersedes(held, idle_s, how) {
                return Outcome::Kept;
            }
        }
        if !self.knows(slot, version) {
            // Whatever stood here is not true any more.
            self.rows.remove(&slot);
            return Outcome::Unknown;
        }
        let mut seen_tick = self.tick(now).saturating_sub(idle_s);
        if let Some(row) = held.filter(|row| row.version.opening == version.opening) {
            seen_tick = seen_tick.max(row.seen_tick);
        }
        let row = Row {
            version,
            seen_tick,
            seen_at: now.saturating_sub(u64::from(self.tick(now) - seen_tick) * 1_000_000),
            is_sent: true,
            is_learned: true,
            class: Class::Refresh,
            is_used: false,
        };
        self.rows.insert(slot, row);
        Outcome::Taken
    }

    pub(super) fn find(&self, slot: Slot, now: Micros) -> Option<Found<Slot>> {
        let row = self.rows.get(&slot).filter(|row| row.is_told())?;
        Some(Found {
            handle: slot,
            record: slot.record(row.version, self.idle_s(row, now)),
            is_learned: row.is_learned,
        })
    }

    /// What waits to be sent in a class, at most so many; marked as sent.
    pub(super) fn take_dirty(
        &mut self,
        class: Class,
        budget: usize,
        now: Micros,
    ) -> Vec<(Slot, Record)> {
        let tick = self.tick(now);
        let rows = self.rows.iter_mut();
        let told = rows.filter(|(_, row)| row.is_told());
        let dirty = told.filter(|(_, row)| match class {
            Class::Refresh => row.is_sent && !row.is_learned && row.is_used,
            Class::New | Class::Change => !row.is_sent && row.class == class,
        });
        let taken = dirty.take(budget).map(|(slot, row)| {
            row.is_sent = true;
            row.is_used = false;
            (
                *slot,
                slot.record(row.version, tick.saturating_sub(row.seen_tick)),
            )
        });
        taken.collect()
    }
}
