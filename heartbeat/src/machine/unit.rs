//! What a node remembers of groups that move together: one unit, which has one role.

use std::net::IpAddr;
use std::time::Duration;

use super::losses::Losses;
use super::seldom::Seldom;
use super::types::{Reason, Role};

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
    /// Another one is heard to be primary, and this node does not just listen, without a break since then.
    pub(super) primary_since: Option<Duration>,
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
    pub(super) losses: Losses,
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
            primary_since: None,
            last_primary: Last::Nobody,
            split: None,
            foreign_split: None,
            foreign_splits: Seldom::default(),
            program: None,
            losses: Losses::default(),
        }
    }

    pub(super) fn is_primary(&self) -> bool {
        self.role == Role::Primary
    }
}
