//! The update stream of one peer, as it arrives: what is applied, what is missing.

use std::time::Duration;

use super::gaps::Gaps;
use super::limits::{ASK_AFTER, ASKS_APART, TOLD_FOR};
use crate::wire::message::{Range, Update};

/// What is done with an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its records are news.
    Applied,
    /// A later one has come before: its records may be older than what is known, and are asked for anew.
    Overtaken,
    /// It has come before, or was repaired, or is older than this node's interest.
    Known,
}

/// Counts, for operators.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) applied: u64,
    pub(super) missed: u64,
    pub(super) overtaken: u64,
    pub(super) repaired: u64,
    pub(super) asks: u64,
}

/// What arrived of a peer's updates.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    /// All up to this one were applied, or are missing.
    pub(super) newest: u64,
    pub(super) gaps: Gaps,
    /// The peer says that it sent this one; and when it said so.
    told: Option<(u64, Duration)>,
    /// Questions are not asked before.
    quiet_until: Duration,
    pub(super) counts: Counts,
}

impl Stream {
    /// This and all before are of no interest.
    pub(super) fn skip_to(&mut self, number: u64) {
        self.newest = self.newest.max(number);
        self.gaps.remove(1, number);
    }

    /// This one was sent, and those not here come too late to be applied.
    pub(super) fn overtake(&mut self, number: u64, now: Duration) {
        if number > self.newest {
            self.counts.missed += number - self.newest;
            self.gaps.add(self.newest + 1, number, now + ASK_AFTER);
            self.newest = number;
        }
    }

    /// An update has come.
    pub(super) fn on_update(&mut self, update: &Update, now: Duration) -> Fate {
        let number = update.number;
        if number <= self.newest {
            if !self.gaps.contains(number) {
                return Fate::Known;
            }
            self.counts.overtaken += 1;
            return Fate::Overtaken;
        }
        self.overtake(number - 1, now);
        self.newest = number;
        self.counts.applied += 1;
        for (first, last) in &update.repairs {
            self.counts.repaired += self.gaps.remove(*first, *last);
        }
        Fate::Applied
    }

    /// The peer says that it has sent up to this one.
    pub(super) fn on_told(&mut self, sent: u64, now: Duration) {
        self.check_told(now);
        if sent > self.newest && self.told.is_none() {
            self.told = Some((sent, now));
        }
    }

    /// What the peer said long enough ago and is not here is missing.
    pub(super) fn check_told(&mut self, now: Duration) {
        let Some((number, at)) = self.told else {
            return;
        };
        if number <= self.newest {
            self.told = None;
        } else if now >= at + TOLD_FOR {
            self.told = None;
            self.overtake(number, now);
        }
    }

    /// Nothing is missing that is known of.
    pub(super) fn is_whole(&self) -> bool {
        let is_told_more = self.told.is_some_and(|(number, _)| number > self.newest);
        self.gaps.is_empty() && !is_told_more
    }

    /// The last update before the first missing one.
    pub(super) fn applied(&self) -> u64 {
        self.gaps.first().map_or(self.newest, |first| first - 1)
    }

    /// When to look again.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let told = self.told.filter(|(number, _)| *number > self.newest);
        let told = told.map(|(_, at)| at + TOLD_FOR);
        let due = self.gaps.due().map(|due| due.max(self.quiet_until));
        told.into_iter().chain(due).min()
    }

    /// What to ask for now.
    pub(super) fn ask(&mut self, now: Duration) -> Option<Vec<Range>> {
        if now < self.quiet_until || self.gaps.due()? > now {
            return None;
        }
        self.quiet_until = now + ASKS_APART;
        self.counts.asks += 1;
        Some(self.gaps.ask(now))
    }
}
