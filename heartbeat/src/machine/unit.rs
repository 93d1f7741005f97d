//! What a node remembers of groups that move together: one unit, which has one role.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use super::seldom::Seldom;
use super::types::{Reason, Role};
use crate::config::Timing;

/// Losses of a unit are remembered for so long.
const LOSS_MEMORY: Duration = Duration::from_secs(60);
/// So many losses are remembered.
const LOSSES: usize = 8;

/// One unit.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    /// Positions in the configuration.
    pub(super) groups: Vec<usize>,
    /// Priority of this node; 0: it may not serve it.
    pub(super) base: u8,
    pub(super) role: Role,
    pub(super) reason: Reason,
    pub(super) since: Duration,
    /// An operator ordered standby.
    pub(super) is_standby: bool,
    /// An operator ordered takeover.
    pub(super) is_forced: bool,
    /// It asks the primary to hand over.
    pub(super) asks: bool,
    /// Nobody serves it, since then.
    pub(super) vacant_since: Option<Duration>,
    /// This node goes before the primary, without a break since then.
    pub(super) ready_since: Option<Duration>,
    /// Who was seen as primary last.
    pub(super) last_primary: Last,
    /// This peer is primary too: whom its beginning was told of.
    pub(super) split: Option<usize>,
    /// A foreign router is primary too.
    pub(super) foreign_split: Option<ForeignSplit>,
    /// How often that was told of lately.
    pub(super) foreign_splits: Seldom,
    /// The role that the programs were told last.
    pub(super) program: Option<Role>,
    losses: VecDeque<Duration>,
}

/// A foreign router that is primary beside this node.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForeignSplit {
    pub(super) address: IpAddr,
    /// It is over when nothing is heard until then.
    pub(super) until: Duration,
    /// Its beginning was told of, and so its end will be.
    pub(super) is_told: bool,
}

/// Who was seen as primary last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// Nobody yet.
    Nobody,
    /// A peer, by position, and its incarnation.
    Peer(usize, u64),
    /// A foreign router.
    Foreign(IpAddr),
    /// A foreign router that gave up.
    ForeignReleased(IpAddr),
}

impl Unit {
    pub(super) fn new(groups: Vec<usize>, base: u8, now: Duration) -> Self {
        Self {
            groups,
            base,
            role: Role::Listening,
            reason: Reason::Started,
            since: now,
            is_standby: false,
            is_forced: false,
            asks: false,
            vacant_since: None,
            ready_since: None,
            last_primary: Last::Nobody,
            split: None,
            foreign_split: None,
            foreign_splits: Seldom::default(),
            program: None,
            losses: VecDeque::new(),
        }
    }

    pub(super) fn is_primary(&self) -> bool {
        self.role == Role::Primary
    }

    /// It was primary and no longer is.
    pub(super) fn lost(&mut self, now: Duration) {
        if self.losses.len() == LOSSES {
            self.losses.pop_front();
        }
        self.losses.push_back(now);
    }

    /// Until when it does not ask for the group: each loss within a minute doubles the time, so that a node whose
    /// fitness changes all the time does not move the group each time.
    pub(super) fn held_until(&self, now: Duration, timing: &Timing) -> Duration {
        let recent = self.losses.iter().filter(|at| now < **at + LOSS_MEMORY);
        let count = u32::try_from(recent.count()).unwrap_or(u32::MAX);
        let Some(last) = self.losses.back().filter(|_| count > 1) else {
            return Duration::ZERO;
        };
        let factor = 1_u32.checked_shl(count - 1).unwrap_or(u32::MAX);
        *last
            + timing
                .deadtime
                .saturating_mul(factor)
                .min(timing.longest_hold())
    }
}
