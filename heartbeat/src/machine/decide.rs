//! The rule for one group, as a pure function: what a node does, given what it knows of itself and the others.
//!
//! 1. A primary stays primary while nobody else is, it is fit, and nobody who goes before it asks for the group.
//! 2. Of two primaries the one that goes before stays: an operator's order, then those not on standby, then priority,
//!    address, name. But a primary that another primary cannot hear must yield to it, as only it knows of the two.
//! 3. A node asks for the group when it goes before the primary and may fail back; the primary then releases, and only
//!    then the node takes. So a failback never has two primaries. A primary that serves the group less well than configured
//!    it asks whatever `auto_failback` says, but it never asks while it lacks the primary's connections, save for one that an
//!    operator ordered to give the group up.
//! 4. A foreign VRRP router that goes before keeps all nodes from serving, but not one that an operator ordered to.
//! 5. While nobody serves the group, the best of those alive takes it: one that lacks the connections of who served it comes
//!    after one that has them. The others wait for it, but not for ever.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::Duration;

/// Who goes before whom: the greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) is_forced: bool,
    pub(super) is_not_standby: bool,
    pub(super) priority: u8,
    pub(super) address: Option<IpAddr>,
    /// Position in the order of names: the first one goes before.
    pub(super) name: Reverse<usize>,
}

impl Rank {
    /// The rank without operators' takeover orders: for whether a primary is asked to hand over.
    pub(super) fn unforced(self) -> Self {
        Self {
            is_forced: false,
            ..self
        }
    }
}

/// How this node stands to the group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) is_primary: bool,
    /// It does not claim anything yet: it listens.
    pub(super) is_listening: bool,
    /// Its effective priority is the rank's; 0: it cannot serve.
    pub(super) rank: Rank,
    /// It asked for the group in its last message.
    pub(super) has_asked: bool,
    /// It lacks connections that others have.
    pub(super) is_lacking: bool,
}

/// How another node stands to the group. Only those alive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Other {
    /// Position among the peers.
    pub(super) peer: usize,
    pub(super) rank: Rank,
    pub(super) is_primary: bool,
    pub(super) wants: bool,
    /// Primary: it serves the group less well than configured. Not primary: it lacks connections that others have.
    pub(super) is_degraded: bool,
    pub(super) is_starting: bool,
    pub(super) sees_foreign: bool,
    /// It hears this node.
    pub(super) hears_us: bool,
    /// Since when it does not.
    pub(super) unheard_since: Option<Duration>,
}

impl Other {
    pub(super) fn can_serve(&self) -> bool {
        self.rank.priority > 0
    }

    /// It was ordered to give the group up: not because something is wrong with it.
    fn is_ordered_away(&self) -> bool {
        !self.rank.is_not_standby && !self.is_degraded
    }

    /// Of one that is not primary: its place among those that may take the group, without orders to take over.
    pub(super) fn turn(&self) -> Turn {
        turn(self.rank.unforced(), self.is_degraded)
    }
}

/// Who of those that are not primary takes a group: the greater one. Who lacks connections comes after who has them, but
/// orders of operators go before that.
pub(super) type Turn = (bool, bool, bool, Rank);

fn turn(rank: Rank, is_lacking: bool) -> Turn {
    (rank.is_forced, rank.is_not_standby, !is_lacking, rank)
}

/// What else counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    pub(super) now: Duration,
    /// Silence after which one can be sure.
    pub(super) deadtime: Duration,
    /// How long a better node is waited for.
    pub(super) patience: Duration,
    /// Since when nobody serves the group.
    pub(super) vacant_since: Option<Duration>,
    /// Whether this node may take the group from a healthy primary that it goes before, as far as auto_failback is concerned.
    pub(super) may_fail_back: bool,
    /// Whether it has what it needs to take the group from whoever serves it, and has heard the primary for long enough to know.
    pub(super) is_filled: bool,
    /// Another one was seen to serve the group, so that there are connections of it.
    pub(super) was_served: bool,
    /// Whether it may ask, or lose patience, at all: it lost the group too often in a short time.
    pub(super) may_ask: bool,
    /// A foreign VRRP router is, or may be, primary.
    pub(super) foreign: bool,
    /// This node hears a foreign VRRP router itself, so that it needs no others to tell of it.
    pub(super) hears_foreign: bool,
    /// A foreign VRRP router that is primary goes before this node.
    pub(super) foreign_before: Option<IpAddr>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Go on. As primary.
    Stay {
        /// This peer is primary too and has to yield.
        split: Option<usize>,
    },
    /// Become backup.
    Yield(Why),
    /// Become primary.
    Claim {
        /// The better node that did not.
        idle: Option<usize>,
    },
    /// Go on as backup.
    Wait {
        /// Ask the primary to hand over.
        asks: bool,
        /// Nobody serves the group.
        is_vacant: bool,
        /// The primary.
        primary: Option<usize>,
    },
}

/// Why a primary yields. Peers by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Unfit,
    SplitBrain(usize),
    Unheard(usize),
    Foreign(IpAddr),
    HandedOver(usize),
}

/// The rule.
pub(super) fn decide(own: Own, others: &[Other], at: Circumstances) -> Decision {
    if own.is_primary {
        primary(own, others, at)
    } else {
        backup(own, others, at)
    }
}

fn primary(own: Own, others: &[Other], at: Circumstances) -> Decision {
    if own.rank.priority == 0 {
        return Decision::Yield(Why::Unfit);
    }
    let mut split = None;
    for other in others.iter().filter(|other| other.is_primary) {
        if other.rank > own.rank {
            return Decision::Yield(Why::SplitBrain(other.peer));
        }
        // Right after the healing of a partition the first messages say so too: they cross.
        let is_sure = |since| at.now >= since + at.deadtime;
        if !other.hears_us && other.unheard_since.is_some_and(is_sure) {
            return Decision::Yield(Why::Unheard(other.peer));
        }
        split = Some(other.peer);
    }
    if let Some(address) = at.foreign_before
        && !own.rank.is_forced
    {
        return Decision::Yield(Why::Foreign(address));
    }
    let asks = |other: &&Other| other.wants && other.can_serve() && !other.is_primary;
    let heir = others.iter().filter(asks).max_by_key(|other| other.rank);
    if let Some(heir) = heir
        && (heir.rank.is_forced || heir.rank > own.rank)
    {
        return Decision::Yield(Why::HandedOver(heir.peer));
    }
    Decision::Stay { split }
}

fn backup(own: Own, others: &[Other], at: Circumstances) -> Decision {
    let best_primary = others
        .iter()
        .filter(|other| other.is_primary)
        .max_by_key(|other| other.rank);
    let wait = |asks, is_vacant| Decision::Wait {
        asks,
        is_vacant,
        primary: best_primary.map(|other| other.peer),
    };
    let is_able = own.rank.priority > 0 && !own.is_listening;
    if let Some(primary) = best_primary {
        return wait(is_able && asks(own, primary, others, at), false);
    }
    let is_told_of_foreign = !at.hears_foreign && others.iter().any(|other| other.sees_foreign);
    let is_ordered = own.rank.is_forced && is_able;
    if (at.foreign || is_told_of_foreign) && !is_ordered {
        return wait(false, false);
    }
    if !is_able {
        return wait(false, true);
    }
    // Where nobody has served it yet, nobody lacks anything.
    let turn_of = |other: &Other| turn(other.rank, at.was_served && other.is_degraded);
    let own_turn = turn(own.rank, at.was_served && own.is_lacking);
    // One that does not hear this node cannot be told to wait, so it is not made to collide.
    let goes_before =
        |other: &&Other| other.can_serve() && (turn_of(other) > own_turn || !other.hears_us);
    let better = others
        .iter()
        .filter(goes_before)
        .max_by_key(|other| turn_of(other));
    let is_long_vacant = at
        .vacant_since
        .is_some_and(|since| at.now >= since + at.patience);
    let is_out_of_patience = is_long_vacant && at.may_ask;
    match better {
        None => Decision::Claim { idle: None },
        Some(better) if is_out_of_patience => Decision::Claim {
            idle: Some(better.peer),
        },
        // Asked for and released: the request stands until the group is taken, or a third node would take it.
        Some(_) => wait(own.has_asked && own.rank.is_forced, true),
    }
}

/// Whether this node asks the primary to hand over.
fn asks(own: Own, primary: &Other, others: &[Other], at: Circumstances) -> bool {
    // A primary that does not hear this node could not yield to it later either.
    if !primary.hears_us {
        return false;
    }
    if own.rank.is_forced {
        return true;
    }
    // What it were handed it could not take.
    if at.foreign {
        return false;
    }
    if primary.rank.is_forced && primary.rank.is_not_standby {
        return false;
    }
    let is_reason =
        at.may_fail_back || (primary.is_degraded && at.is_filled) || primary.is_ordered_away();
    let own_turn = turn(own.rank, own.is_lacking);
    let is_best = others
        .iter()
        .filter(|other| other.can_serve() && !other.is_primary && !other.is_starting)
        .all(|other| other.turn() < own_turn);
    at.may_ask && is_reason && is_best && own.rank > primary.rank.unforced()
}
