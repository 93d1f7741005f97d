//! The update stream of this node: numbered datagrams, and their repair.
//!
//! What was in a datagram is remembered by handles, not by bytes. Whoever misses it gets what now stands in the table under
//! those handles, in a new datagram at the end of the stream: so a repair is never older than anything else that was sent.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use super::limits::{
    HANDLES_PER_LOOKUP, HISTORY, LOOKUP_FOR, LOOKUPS, ONE_REFRESH_OF, RANGES_PER_DATAGRAM,
    RECORDS_PER_DATAGRAM, REPAIRS_APART, UPDATES_PER_LOOKUP,
};
use super::pace::Bucket;
use super::types::{Action, Class, Config, Found, Token};
use crate::entry::Record;
use crate::wire::message::{HeardUpTo, Range, Update};

/// An update that was sent.
#[derive(Clone, Debug)]
struct Sent<H> {
    handles: Box<[H]>,
    at: Duration,
    repaired_at: Option<Duration>,
}

/// Updates that are being repaired.
#[derive(Clone, Debug)]
struct Lookup<H> {
    at: Duration,
    updates: Vec<(u64, Vec<H>)>,
}

/// Counts, for operators.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) updates: u64,
    pub(super) records: u64,
    pub(super) repairs: u64,
    pub(super) unsendable: u64,
}

/// An update that is being filled.
struct Filling<H> {
    room: usize,
    update: Update,
    handles: Vec<H>,
    /// How far others were heard: goes with the first record that is theirs.
    heard: Vec<HeardUpTo>,
}

/// What this node sends.
#[derive(Clone, Debug)]
pub(super) struct Sender<H> {
    /// Bytes for records and repairs in a datagram.
    room: usize,
    /// The last update that was sent.
    number: u64,
    /// The last updates, the newest at the end.
    history: VecDeque<Sent<H>>,
    /// The last update, of those in the history, in which each handle was.
    latest: HashMap<H, u64>,
    pace: Bucket,
    /// What of it is for refreshes.
    refresh_pace: Bucket,
    repair_pace: Bucket,
    /// Asked for and not yet looked up.
    wanted: BTreeSet<u64>,
    lookups: BTreeMap<Token, Lookup<H>>,
    next_token: u64,
    /// Records that wait in the table.
    pub(super) backlog: u64,
    pub(super) counts: Counts,
}

impl<H: Copy + Eq + Hash> Sender<H> {
    pub(super) fn new(config: &Config, now: Duration) -> Self {
        Self {
            room: Update::room(config.datagram_bytes, &config.node),
            number: 0,
            history: VecDeque::new(),
            latest: HashMap::new(),
            pace: Bucket::new(config.records_per_second, now),
            refresh_pace: Bucket::new(config.records_per_second / ONE_REFRESH_OF, now),
            repair_pace: Bucket::new(config.records_per_second / 4, now),
            wanted: BTreeSet::new(),
            lookups: BTreeMap::new(),
            next_token: 0,
            backlog: 0,
            counts: Counts::default(),
        }
    }

    /// The last update that was sent.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The oldest update that can be repaired.
    pub(super) fn oldest(&self) -> u64 {
        self.number + 1 - self.history.len() as u64
    }

    fn index(&self, number: u64) -> Option<usize> {
        let index = number.checked_sub(self.oldest())?;
        usize::try_from(index)
            .ok()
            .filter(|index| *index < self.history.len())
    }

    /// When an update was sent.
    pub(super) fn sent_at(&self, number: u64) -> Option<Duration> {
        Some(self.history[self.index(number)?].at)
    }

    /// How many records were sent after an update, as far as is remembered.
    pub(super) fn records_after(&self, number: u64) -> u64 {
        let first = number.saturating_add(1).max(self.oldest());
        let known = self.index(first).unwrap_or(self.history.len());
        let later = self.history.range(known..);
        later.map(|sent| sent.handles.len() as u64).sum()
    }

    /// How many records of a class may be handed over now. Less urgent ones leave room for those that are more; all others leave
    /// their share to refreshes.
    pub(super) fn budget(&mut self, class: Class, now: Duration) -> usize {
        let (level, capacity) = (self.pace.level(now), self.pace.capacity());
        let share = self.refresh_pace.level(now);
        let share = share.min(capacity / u64::from(ONE_REFRESH_OF));
        let room = match class {
            Class::New => level.saturating_sub(share),
            Class::Change => level.saturating_sub(capacity / 4),
            Class::Refresh => level.saturating_sub(capacity / 2).max(share.min(level)),
        };
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Sends records of a class.
    pub(super) fn send(
        &mut self,
        class: Class,
        records: Vec<(H, Record)>,
        now: Duration,
    ) -> Vec<Update> {
        self.pace.level(now);
        self.pace.take(records.len());
        if class == Class::Refresh {
            self.refresh_pace.level(now);
            self.refresh_pace.take(records.len());
        }
        let mut updates = Vec::new();
        let mut filling = self.fill(&[]);
        for (handle, record) in records {
            if !record.is_of_one_family() {
                self.counts.unsendable += 1;
            } else if !filling.add(handle, record, false) {
                let full = std::mem::replace(&mut filling, self.fill(&[]));
                updates.push(self.finish(full, now));
                filling.add(handle, record, false);
            }
        }
        if !filling.is_empty() {
            updates.push(self.finish(filling, now));
        }
        updates
    }

    /// A peer misses these.
    pub(super) fn ask(&mut self, ranges: &[Range], now: Duration) {
        for &(first, last) in ranges {
            for number in first.max(self.oldest())..=last.min(self.number) {
                let Some(index) = self.index(number) else {
                    continue;
                };
                let repaired_at = self.history[index].repaired_at;
                if repaired_at.is_none_or(|at| now >= at + REPAIRS_APART) {
                    self.wanted.insert(number);
                }
            }
        }
    }

    /// When repairs go on.
    pub(super) fn deadline(&self, now: Duration) -> Option<Duration> {
        let lookups = self.lookups.values().map(|lookup| lookup.at + LOOKUP_FOR);
        let lookups = lookups.min();
        if self.wanted.is_empty() || self.lookups.len() >= LOOKUPS {
            return lookups;
        }
        let refilled = now + Duration::from_millis(10);
        Some(lookups.map_or(refilled, |lookups| lookups.min(refilled)))
    }

    /// What is to be looked up for repairs now.
    pub(super) fn repair(&mut self, now: Duration) -> Vec<Action<H>> {
        self.lookups
            .retain(|_, lookup| now < lookup.at + LOOKUP_FOR);
        let mut actions = Vec::new();
        while self.lookups.len() < LOOKUPS && !self.wanted.is_empty() {
            let allowed = self.repair_pace.level(now);
            let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
            let allowed = allowed.min(HANDLES_PER_LOOKUP);
            let (mut updates, mut count) = (Vec::new(), 0);
            // What was sent again since need not be looked up: whoever misses that too asks for it by its number.
            while count < allowed && updates.len() < UPDATES_PER_LOOKUP {
                let Some(number) = self.wanted.pop_first() else {
                    break;
                };
                let Some(index) = self.index(number) else {
                    continue;
                };
                let sent = &mut self.history[index];
                sent.repaired_at = Some(now);
                let handles = sent.handles.iter().copied();
                let handles = handles.filter(|handle| self.latest.get(handle) == Some(&number));
                let handles: Vec<_> = handles.collect();
                count += handles.len();
                updates.push((number, handles));
            }
            if updates.is_empty() {
                break;
            }
            self.repair_pace.take(count);
            self.next_token += 1;
            let token = Token(self.next_token);
            let handles = updates.iter().flat_map(|(_, handles)| handles.iter());
            actions.push(Action::LookUp {
                token,
                handles: handles.copied().collect(),
            });
            self.lookups.insert(token, Lookup { at: now, updates });
        }
        actions
    }

    /// Sends what was looked up; with what came from others, how far they are heard by now. An update is named as repaired in the
    /// datagram with the last of its records: whoever gets that one either has the others or misses them by their own numbers.
    pub(super) fn looked_up(
        &mut self,
        token: Token,
        found: Vec<Found<H>>,
        heard: &[HeardUpTo],
        now: Duration,
    ) -> Vec<Update> {
        let Some(lookup) = self.lookups.remove(&token) else {
            // Given up meanwhile; it is asked for again.
            return Vec::new();
        };
        let found = found.into_iter().map(|found| (found.handle, found));
        let mut found: HashMap<H, Found<H>> = found.collect();
        let mut updates = Vec::new();
        let mut filling = self.fill(heard);
        for (number, handles) in lookup.updates {
            for handle in handles {
                let Some(Found {
                    record, is_learned, ..
                }) = found.remove(&handle)
                else {
                    continue;
                };
                if record.is_of_one_family() && !filling.add(handle, record, is_learned) {
                    let full = std::mem::replace(&mut filling, self.fill(heard));
                    updates.push(self.finish(full, now));
                    filling.add(handle, record, is_learned);
                }
            }
            if !filling.claim(number) {
                let full = std::mem::replace(&mut filling, self.fill(heard));
                updates.push(self.finish(full, now));
                filling.claim(number);
            }
            self.counts.repairs += 1;
        }
        if !filling.is_empty() {
            updates.push(self.finish(filling, now));
        }
        updates
    }

    fn fill(&self, heard: &[HeardUpTo]) -> Filling<H> {
        Filling {
            room: self.room,
            update: Update::default(),
            handles: Vec::new(),
            heard: heard.to_vec(),
        }
    }

    fn forget_oldest(&mut self) {
        let number = self.oldest();
        for handle in self
            .history
            .pop_front()
            .into_iter()
            .flat_map(|sent| sent.handles)
        {
            if self.latest.get(&handle) == Some(&number) {
                self.latest.remove(&handle);
            }
        }
    }

    fn finish(&mut self, filling: Filling<H>, now: Duration) -> Update {
        let mut update = filling.update;
        self.number += 1;
        update.number = self.number;
        self.counts.updates += 1;
        self.counts.records += update.records.len() as u64;
        if self.history.len() >= HISTORY {
            self.forget_oldest();
        }
        let latest = filling.handles.iter().map(|handle| (*handle, self.number));
        self.latest.extend(latest);
        self.history.push_back(Sent {
            handles: filling.handles.into(),
            at: now,
            repaired_at: None,
        });
        update
    }
}

impl<H> Filling<H> {
    fn is_empty(&self) -> bool {
        self.update.records.is_empty() && self.update.repairs.is_empty()
    }

    /// Adds a record; false if there is no room.
    fn add(&mut self, handle: H, record: Record, is_learned: bool) -> bool {
        let mut length = Update::record_length(&record);
        let is_first = is_learned && self.update.heard.is_empty() && !self.heard.is_empty();
        if is_first {
            length += Update::heard_length(&self.heard);
        }
        if length > self.room || self.update.records.len() >= RECORDS_PER_DATAGRAM {
            return false;
        }
        if is_first {
            self.update.heard = std::mem::take(&mut self.heard);
        }
        self.room -= length;
        self.update.records.push((record, is_learned));
        self.handles.push(handle);
        true
    }

    /// Names an update as repaired; false if there is no room. They come in ascending order.
    fn claim(&mut self, number: u64) -> bool {
        if let Some((first, last)) = self.update.repairs.last_mut()
            && *last + 1 == number
            && number - *first <= u64::from(u16::MAX)
        {
            *last = number;
            return true;
        }
        let length = Update::repairs_length(1);
        if length > self.room || self.update.repairs.len() >= RANGES_PER_DATAGRAM {
            return false;
        }
        self.room -= length;
        self.update.repairs.push((number, number));
        true
    }
}
