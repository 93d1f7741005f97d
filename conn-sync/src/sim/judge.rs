//! Who knows the truth, and what must hold.

use std::collections::{BTreeMap, HashSet};

use super::names::{ONE_DATAGRAM, Slot, Version};
use super::table::{Row, Table, timeout_s};
use super::world::Micros;
use super::world::Node;

/// What a node has sent of a slot.
#[derive(Clone, Copy, Debug)]
struct Sent {
    number: u64,
    version: Version,
    seen_at: Micros,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Judge {
    /// Everything that was ever true.
    issued: HashSet<(Slot, Version)>,
    /// What is true now.
    pub(super) newest: BTreeMap<Slot, Version>,
    /// By node.
    sent: Vec<BTreeMap<Slot, Sent>>,
    /// What is kept aside may be given up in this run.
    pub(super) gives_up_aside: bool,
    pub(super) applied: u64,
    /// Of these, over UDP.
    pub(super) applied_udp: u64,
    pub(super) claims: u64,
    pub(super) converged: u64,
}

/// Seconds by which clocks and the way of a record may make it older.
const AGE_S: u32 = 4;

impl Judge {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            sent: vec![BTreeMap::new(); nodes],
            ..Self::default()
        }
    }

    /// Something became true.
    pub(super) fn on_truth(&mut self, slot: Slot, version: Version) {
        self.issued.insert((slot, version));
        let newest = self.newest.entry(slot).or_insert(version);
        *newest = version.max(*newest);
    }

    pub(super) fn on_sent(&mut self, node: usize, number: u64, slot: Slot, row: &Row) {
        let sent = Sent {
            number,
            version: row.version,
            seen_at: row.seen_at,
        };
        self.sent[node].insert(slot, sent);
    }

    /// A node's own table has lost what its directory does not know any more.
    pub(super) fn on_directory(&mut self, node: usize, table: &Table) {
        self.sent[node].retain(|slot, _| table.rows.contains_key(slot));
    }

    /// What a node had gave way to what it does not tell, a single datagram or what is unknown to it: it is not there to be told
    /// again.
    pub(super) fn on_untold(&mut self, node: usize, slot: Slot) {
        self.sent[node].remove(&slot);
    }

    pub(super) fn on_start(&mut self, node: usize) {
        self.sent[node].clear();
    }

    /// A record from a peer took the place of another.
    pub(super) fn on_applied(
        &mut self,
        slot: Slot,
        version: Version,
        before: Option<Row>,
    ) -> Result<(), String> {
        self.applied += 1;
        self.applied_udp += u64::from(slot.is_udp());
        if !self.issued.contains(&(slot, version)) {
            return Err(format!("{slot:?} {version:?} was never true"));
        }
        match before {
            Some(row) if row.version > version => Err(format!(
                "{slot:?}: {version:?} took the place of the newer {row:?}"
            )),
            _ => Ok(()),
        }
    }

    /// A node says that it has all of a peer's table, and all of its updates up to a number: it must have what was in them.
    pub(super) fn check_claim(
        &mut self,
        node: &Node,
        peer: usize,
        number: u64,
        now: Micros,
    ) -> Result<(), String> {
        let sent = std::mem::take(&mut self.sent[peer]);
        let mut told = sent.iter().filter(|(_, sent)| sent.number <= number);
        let checked = told.try_for_each(|(slot, sent)| {
            self.check_row(node, *slot, sent.version, sent.seen_at, now)
        });
        self.sent[peer] = sent;
        self.claims += 1;
        checked
    }

    /// A bulk resync has ended: the node must have what the peer had when it began.
    pub(super) fn check_bulk(
        &self,
        node: &Node,
        had: &BTreeMap<Slot, Row>,
        now: Micros,
    ) -> Result<(), String> {
        // What is about to go may go on the way.
        let had = || {
            had.iter()
                .filter(|(_, row)| !is_old(row.version, row.seen_at, now))
        };
        let mut own = had().filter(|(_, row)| !row.is_learned);
        own.try_for_each(|(slot, row)| self.check_row(node, *slot, row.version, row.seen_at, now))?;
        let mut learned = had().filter(|(_, row)| row.is_learned);
        // Somebody nearer may have told otherwise within the same seconds.
        let any = Version {
            opening: 0,
            stage: 0,
        };
        learned.try_for_each(|(slot, row)| match node.table.rows.get(slot) {
            Some(_) => self.check_row(node, *slot, any, row.seen_at, now),
            // And what it told may have been over since.
            None if row.version.opening > 1 && is_old(CLOSED, row.seen_at, now) => Ok(()),
            None => self.check_row(node, *slot, row.version, row.seen_at, now),
        })
    }

    fn check_row(
        &self,
        node: &Node,
        slot: Slot,
        version: Version,
        since: Micros,
        now: Micros,
    ) -> Result<(), String> {
        let name = slot.record(version, 0).name();
        let mut machine = node.machine.iter();
        match node.table.rows.get(&slot) {
            Some(row) if row.version >= version => Ok(()),
            None if !node.table.knows(slot, version) || self.gives_up_aside => Ok(()),
            // What was kept aside and given up keeps nothing older away.
            Some(_) if !node.table.knows(slot, version) && self.gives_up_aside => Ok(()),
            // Whether that is newer cannot be told within a few seconds.
            None if machine.any(|machine| machine.is_aside(&name)) => Ok(()),
            // It may have gone through a later version that is not known here, or be gone by now.
            None if self.newest[&slot] > version && !node.table.knows(slot, self.newest[&slot]) => {
                Ok(())
            }
            // Then something older may come back, from who still has it.
            _ if is_old(version, since, now) => Ok(()),
            None if self.newest[&slot] > version && is_old(CLOSED, since, now) => Ok(()),
            found => Err(format!(
                "{slot:?} should have {version:?} of {since}, is {found:?}"
            )),
        }
    }

    /// Faults have ended, some time ago: all have what the node that serves has.
    pub(super) fn check_same(
        &mut self,
        serving: &Table,
        other: &Table,
        group: usize,
        now: Micros,
    ) -> Result<(), String> {
        for (slot, row) in &serving.rows {
            let idle_s = serving.idle_s(row, now) + AGE_S;
            let is_ending = idle_s >= timeout_s(row.version);
            // A single datagram, of which nobody is told, has gone elsewhere since: nobody uses this one any more.
            let newest = self.newest[slot];
            let is_left = newest.stage == ONE_DATAGRAM && newest.opening > row.version.opening;
            let is_of_group = slot.group() == group;
            if !is_of_group || row.is_learned || is_ending || !row.is_told() || is_left {
                continue;
            }
            self.converged += 1;
            match other.rows.get(slot) {
                Some(found) if found.version == row.version => {}
                None if self.gives_up_aside => {}
                // It had the end of the connection, which the node that serves was not told in time, and has forgotten it since.
                // Nobody uses it any more.
                None if newest.stage == CLOSED.stage
                    && newest > row.version
                    && idle_s >= timeout_s(CLOSED) => {}
                found => {
                    return Err(format!(
                        "{slot:?} is {row:?} where it is served, {found:?} elsewhere"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// What goes soonest.
const CLOSED: Version = Version {
    opening: 0,
    stage: 3,
};

/// Records of this version and time may be gone by now. They were idle already when they were sent, at most by what keeps
/// them in the sender's table.
fn is_old(version: Version, since: Micros, now: Micros) -> bool {
    let passed = (now - since) / 1_000_000;
    passed + u64::from(AGE_S) >= u64::from(timeout_s(version))
}
