//! A bulk resync from one peer: whether it is due, under way or done, and what it may bring.

use std::collections::HashMap;
use std::time::Duration;

use super::limits::{BULK_AGAIN_AFTER, BULK_AT_MOST_EVERY, LIVE_NAMES};
use super::types::SessionId;
use crate::entry::{Record, RecordName};

/// Where the connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is to be begun, or gone on with.
    Due {
        /// Not before.
        at: Duration,
    },
    /// A connection was asked for.
    Running {
        session: SessionId,
        /// When something was last heard of it.
        heard_at: Duration,
    },
    /// This node has all of the peer's table.
    Done,
}

/// A walk through the peer's tables that has begun.
#[derive(Clone, Debug, Default)]
struct Walk {
    /// The place after the last records.
    cursor: u64,
    received: u64,
    about: u64,
    /// The last update that had been sent when the last records were read: those and all that follow are at least as new as what
    /// was in it and those before.
    number: u64,
}

/// The bulk resync from one peer.
#[derive(Clone, Debug)]
pub(super) struct Bulk {
    pub(super) phase: Phase,
    walk: Option<Walk>,
    /// What live updates have brought since it began, or was asked for, each with the number of the last one: they are newer
    /// than what it brings.
    live: HashMap<RecordName, u64>,
    /// In a row.
    failures: u32,
    /// How many were done.
    pub(super) done: u64,
    /// When the last of them was, whatever has become of it.
    pub(super) ended_at: Option<Duration>,
}

impl Bulk {
    pub(super) fn due(at: Duration) -> Self {
        Self {
            phase: Phase::Due { at },
            walk: None,
            live: HashMap::new(),
            failures: 0,
            done: 0,
            ended_at: None,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// The session, if there is one.
    pub(super) fn session(&self) -> Option<SessionId> {
        match self.phase {
            Phase::Running { session, .. } => Some(session),
            Phase::Due { .. } | Phase::Done => None,
        }
    }

    /// Missing updates are worth asking for: no walk that is still to begin brings what was in them.
    pub(super) fn needs_gaps(&self) -> bool {
        self.walk.is_some() || !matches!(self.phase, Phase::Due { .. })
    }

    /// The cursor from which to go on.
    pub(super) fn cursor(&self) -> Option<u64> {
        let walk = self.walk.as_ref()?;
        Some(walk.cursor).filter(|cursor| *cursor != 0)
    }

    /// Records so far, and about how many there will be.
    pub(super) fn progress(&self) -> Option<(u64, u64)> {
        self.walk.as_ref().map(|walk| (walk.received, walk.about))
    }

    /// Another one from the beginning is due: at once, unless the last one came to nothing too.
    pub(super) fn restart(&mut self, now: Duration) {
        let was_done = self.is_done();
        self.walk = None;
        self.live = HashMap::new();
        if was_done {
            self.phase = Phase::Due { at: now };
        } else {
            self.lost(now);
        }
    }

    pub(super) fn start(&mut self, session: SessionId, now: Duration) {
        self.phase = Phase::Running {
            session,
            heard_at: now,
        };
    }

    /// The connection is lost. It goes on later from where it was, if the peer still knows the place.
    pub(super) fn lost(&mut self, now: Duration) {
        if self.walk.is_none() {
            // The next one begins later than all that has come.
            self.live = HashMap::new();
        }
        let wait = BULK_AGAIN_AFTER * 2_u32.pow(self.failures.min(8));
        self.failures += 1;
        self.phase = Phase::Due {
            at: now + wait.min(BULK_AT_MOST_EVERY),
        };
    }

    /// Something was heard on the connection.
    pub(super) fn heard(&mut self, now: Duration) {
        if let Phase::Running { heard_at, .. } = &mut self.phase {
            *heard_at = now;
        }
    }

    /// The walk begins; true if from the beginning. What updates up to `number` have brought, it knows too.
    pub(super) fn welcome(&mut self, number: u64, cursor: u64, about: u64) -> bool {
        let goes_on = cursor != 0 && self.cursor() == Some(cursor);
        if goes_on {
            return false;
        }
        self.live.retain(|_, brought| *brought > number);
        self.walk = Some(Walk {
            about,
            number,
            ..Walk::default()
        });
        true
    }

    /// Records came, read after update `number` was sent; gives those that no later update has brought.
    pub(super) fn records(
        &mut self,
        number: u64,
        cursor: u64,
        records: Vec<(Record, bool)>,
    ) -> Vec<(Record, bool)> {
        let Some(walk) = &mut self.walk else {
            return Vec::new();
        };
        self.failures = 0;
        walk.cursor = cursor;
        walk.number = walk.number.max(number);
        walk.received += records.len() as u64;
        let mut records = records;
        records.retain(|(record, _)| {
            let brought = self.live.get(&record.name());
            brought.is_none_or(|brought| *brought <= number)
        });
        records
    }

    /// A live update brought these. False if they are more than can be remembered: the walk is of no use any more.
    pub(super) fn on_live<'a>(
        &mut self,
        number: u64,
        records: impl Iterator<Item = &'a Record>,
    ) -> bool {
        if self.is_done() || !self.needs_gaps() {
            return true;
        }
        self.live
            .extend(records.map(|record| (record.name(), number)));
        if self.live.len() <= LIVE_NAMES {
            return true;
        }
        // What the walk has caught up with need not be remembered. Where that is little it is looked through in vain each time.
        let caught_up = self.walk.as_ref().map_or(0, |walk| walk.number);
        self.live.retain(|_, brought| *brought > caught_up);
        self.live.len() <= LIVE_NAMES / 2
    }

    pub(super) fn end(&mut self, now: Duration) {
        self.walk = None;
        self.live = HashMap::new();
        self.failures = 0;
        self.done += 1;
        self.ended_at = Some(now);
        self.phase = Phase::Done;
    }
}
