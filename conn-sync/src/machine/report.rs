//! How a node stands, for operators and for whoever waits until it is filled.

use std::hash::Hash;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::node::Machine;
use super::peers::Peer;
use super::refusals::Refused;
use crate::entry::NodeName;

/// Whether a node has what its peers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// Not yet.
    Waiting,
    /// It has all that the peers have that it hears.
    Synced,
    /// There is nobody to have anything from: nobody has been heard for some time.
    Alone,
    /// It does not, but the configured limit has passed, or nobody who is heard has told in time that he hears this node.
    Limit,
}

/// What a node and a peer do for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Neither has sent anything.
    Idle,
    /// This node sends, the peer is a backup.
    Sender,
    /// The peer sends, this node is a backup.
    Receiver,
    /// Both.
    Both,
}

/// How far this node is with a peer's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum PeerState {
    /// It has not been heard for some seconds.
    Silent,
    /// It is heard, and has not told that it hears this node.
    OneWay,
    /// It serves no bulk resync.
    NoBulk,
    /// A bulk resync is to begin.
    Waiting,
    /// A bulk resync is under way.
    Syncing {
        /// So many records have come.
        received: u64,
        /// Of about so many.
        about: u64,
    },
    /// Updates are missing and asked for.
    Repairing {
        /// So many.
        missing: u64,
    },
    /// This node has all of it.
    Synced,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerReport {
    /// Its name.
    pub node: NodeName,
    /// Which start of it.
    pub incarnation: u64,
    /// Where it is.
    pub address: SocketAddr,
    /// Milliseconds since it was heard.
    pub heard_ms_ago: u64,
    /// Who sends to whom.
    pub role: Role,
    /// How far this node is with the peer's table.
    #[serde(flatten)]
    pub state: PeerState,
    /// The peer, which is heard, says that it has all of this node's table.
    pub has_ours: bool,
    /// Records that this node has sent, or would, and the peer has not; as far as is remembered.
    pub lag_records: u64,
    /// For how many milliseconds the first update that the peer misses has been sent.
    pub lag_ms: u64,
    /// Updates that the peer said it misses.
    pub missing_there: u32,
    /// Records that wait at the peer.
    pub backlog_there: u32,
    /// Updates of the peer that were applied.
    pub applied: u64,
    /// Updates of the peer that did not come in their turn.
    pub missed: u64,
    /// Of these, that came too late.
    pub overtaken: u64,
    /// Of these, that were repaired one by one.
    pub repaired: u64,
    /// Questions for missing updates.
    pub asks: u64,
    /// Bulk resyncs from the peer that came to their end.
    pub bulks: u64,
    /// Bulk resyncs that the peer got.
    pub served: u64,
    /// Milliseconds since the last bulk resync from the peer ended.
    pub last_bulk_ms_ago: Option<u64>,
}

/// A node's report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// This node.
    pub node: NodeName,
    /// Which start of it.
    pub incarnation: u64,
    /// Whether it has what its peers have.
    pub readiness: Readiness,
    /// Updates sent.
    pub updates: u64,
    /// Records in them.
    pub records: u64,
    /// Updates that were repaired.
    pub repairs: u64,
    /// Records that wait to be sent.
    pub backlog: u64,
    /// Records that could not be written down.
    pub unsendable: u64,
    /// Records kept aside until their service is known.
    pub aside: u64,
    /// Records that were kept aside and given up.
    pub aside_given_up: u64,
    /// Updates that came before their sender had told that it hears this node.
    pub early: u64,
    /// Datagrams that were refused; reasons that did not occur are left out.
    pub refused: Vec<Refused>,
    /// The peers that were heard.
    pub peers: Vec<PeerReport>,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl<H: Copy + Eq + Hash> Machine<H> {
    /// Whether this node has what its peers have.
    #[must_use]
    pub fn readiness(&self, now: Duration) -> Readiness {
        // Whoever does not say that he hears this node may be a recording of who did once.
        let peers = || self.peers.all.iter().filter(|peer| !peer.is_doubted(now));
        let is_anybody_heard = peers().any(|peer| peer.is_heard(now));
        // Nobody knows what he who has fallen silent has by now.
        let mut heard = peers().filter(|peer| peer.is_heard(now));
        if is_anybody_heard && heard.all(Peer::is_synced) {
            return Readiness::Synced;
        }
        let mut all = self.peers.all.iter();
        if !is_anybody_heard && all.any(|peer| peer.is_heard(now)) {
            return Readiness::Limit;
        }
        let last_heard = peers().map(|peer| peer.heard_at).max();
        let quiet_since = last_heard.unwrap_or(self.started);
        if !is_anybody_heard && now >= quiet_since + self.config.alone_after {
            return Readiness::Alone;
        }
        let limit = self.config.ready_after;
        if limit.is_some_and(|limit| now >= self.started + limit) {
            return Readiness::Limit;
        }
        Readiness::Waiting
    }

    /// All that operators can ask for.
    #[must_use]
    pub fn report(&self, now: Duration) -> Report {
        let counts = self.sender.counts;
        Report {
            node: self.config.node.clone(),
            incarnation: self.config.incarnation,
            readiness: self.readiness(now),
            updates: counts.updates,
            records: counts.records,
            repairs: counts.repairs,
            backlog: self.sender.backlog,
            unsendable: counts.unsendable,
            aside: self.aside.len() as u64,
            aside_given_up: self.aside.given_up,
            early: self.early,
            refused: self.refusals.report(now),
            peers: self
                .peers
                .all
                .iter()
                .map(|peer| self.peer_report(peer, now))
                .collect(),
        }
    }

    fn peer_report(&self, peer: &Peer, now: Duration) -> PeerReport {
        let counts = peer.stream.counts;
        let of_us = peer.of_us.as_ref();
        let has = of_us.map_or(0, |heard| heard.applied);
        let sent = self.sender.number();
        let sends = peer.status.as_ref().is_some_and(|status| status.sent > 0);
        let first_missing = self
            .sender
            .sent_at(has.saturating_add(1).max(self.sender.oldest()));
        PeerReport {
            node: peer.node.clone(),
            incarnation: peer.incarnation,
            address: peer.address,
            heard_ms_ago: ms(now.saturating_sub(peer.heard_at)),
            role: match (sent > 0, sends) {
                (false, false) => Role::Idle,
                (true, false) => Role::Sender,
                (false, true) => Role::Receiver,
                (true, true) => Role::Both,
            },
            state: peer_state(peer, now),
            // Of who is silent nobody knows what he has by now, or whether he runs.
            has_ours: peer.is_heard(now) && of_us.is_some_and(|heard| heard.is_synced),
            lag_records: self.sender.records_after(has) + self.sender.backlog,
            lag_ms: first_missing.map_or(0, |at| ms(now.saturating_sub(at))),
            missing_there: of_us.map_or(0, |heard| heard.missing),
            backlog_there: peer.status.as_ref().map_or(0, |status| status.backlog),
            applied: counts.applied,
            missed: counts.missed,
            overtaken: counts.overtaken,
            repaired: counts.repaired,
            asks: counts.asks,
            bulks: peer.bulk.done,
            served: peer.served,
            last_bulk_ms_ago: peer.bulk.ended_at.map(|at| ms(now.saturating_sub(at))),
        }
    }
}

fn peer_state(peer: &Peer, now: Duration) -> PeerState {
    if !peer.is_heard(now) {
        return PeerState::Silent;
    }
    if !peer.hears_us {
        return PeerState::OneWay;
    }
    if peer.is_synced() {
        return PeerState::Synced;
    }
    if peer.bulk.is_done() {
        let missing = peer.stream.gaps.count();
        return PeerState::Repairing { missing };
    }
    if peer.bulk_address().is_none() {
        return PeerState::NoBulk;
    }
    match peer.bulk.progress() {
        Some((received, about)) => PeerState::Syncing { received, about },
        None => PeerState::Waiting,
    }
}
