//! What the machine is told and what it wants done.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::refusals::Warning;
use crate::entry::{Entry, How, NodeName, Record, Template};
use crate::wire::bulk::Resume;

/// What a node is configured to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeName,
    /// Higher with every start: a clock will do.
    pub incarnation: u64,
    /// Bytes of the longest datagram, within [`super::limits::DATAGRAM_BYTES`].
    pub datagram_bytes: usize,
    /// Where peers are heard from; empty: from anywhere.
    pub listed: Vec<IpAddr>,
    /// Records sent in a second, at most. Repairs may take another quarter.
    pub records_per_second: u32,
    /// Where this node serves bulk resyncs; 0: it does not.
    pub bulk_port: u16,
    /// Without a peer for this long after its start a node is ready, alone.
    pub alone_after: Duration,
    /// This long after its start a node is ready, synced or not.
    pub ready_after: Option<Duration>,
    /// Records kept aside until their service is known; 0: none are.
    pub aside_records: usize,
    /// For how long.
    pub aside_for: Duration,
}

/// How urgent records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// New established connections.
    New,
    /// Changes of state or server.
    Change,
    /// Used since they were last sent.
    Refresh,
}

/// To whom a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// The group, or every listed peer.
    Everyone,
    /// The address that a peer's datagrams come from.
    Peer(SocketAddr),
}

/// Names an attempt at a bulk resync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Names a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What stands in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<H> {
    /// Under this handle.
    pub handle: H,
    /// As it is now.
    pub record: Record,
    /// It came from a peer, and no packet of it has passed here since.
    pub is_learned: bool,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<H> {
    /// Send a datagram.
    Send {
        /// To whom.
        to: To,
        /// All of it, signed.
        bytes: Vec<u8>,
    },
    /// Put records into the table, by the rule of [`crate::entry::supersedes`].
    Apply {
        /// Whom they come from.
        from: NodeName,
        /// Connections.
        entries: Vec<Entry>,
        /// Persistence templates.
        templates: Vec<Template>,
        /// How they came.
        how: How,
    },
    /// Read from the table what now stands there and hand it to [`super::Machine::on_looked_up`].
    LookUp {
        /// To be handed back.
        token: Token,
        /// What to look up. What is not there any more is left out.
        handles: Vec<H>,
    },
    /// Connect to a peer for a bulk resync, with a [`crate::wire::bulk::Client`].
    StartBulk {
        /// Names this attempt.
        session: SessionId,
        /// The peer.
        node: NodeName,
        /// Its incarnation, which it must still have.
        incarnation: u64,
        /// Where it serves.
        address: SocketAddr,
        /// Where to go on.
        resume: Option<Resume>,
    },
    /// Tell whoever reads the log.
    Warn(Warning),
    /// Close the connection of this attempt.
    StopBulk {
        /// Which.
        session: SessionId,
    },
}
