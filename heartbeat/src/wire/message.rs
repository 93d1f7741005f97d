//! Own heartbeats: what a node tells the others, on every link the same.
//!
//! A node tells its own state and what it knows of the others, so that nodes without a link between them learn of each
//! other from those between. What is known of a node is always one of its own messages, named by incarnation and
//! sequence: news cannot circulate, as only the node itself makes the sequence rise.

use std::net::IpAddr;

/// Names a node or a group in messages: the first bytes of its name's SHA-256. The configuration refuses names that collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameId(pub u32);

/// One heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sends it.
    pub node: NameId,
    /// The address that the sender advertises VRRP from, for ties.
    pub address: Option<IpAddr>,
    /// The sender stops in order; others take over at once.
    pub is_leaving: bool,
    /// Groups that all the states below are about, in this order.
    pub groups: Vec<NameId>,
    /// The sender first, then all that it knows of.
    pub nodes: Vec<NodeState>,
}

/// What is known of one node: the state in its newest message that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// Which node.
    pub node: NameId,
    /// Rises with every start of the node.
    pub incarnation: u64,
    /// Rises with every message.
    pub sequence: u64,
    /// The nodes that it holds for alive: bits by position in [`Message::nodes`].
    pub alive: u16,
    /// For each of [`Message::groups`].
    pub groups: Vec<GroupState>,
}

/// How a node stands to a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// Effective priority; 0: it cannot serve the group now.
    pub priority: u8,
    /// It is primary.
    pub is_primary: bool,
    /// It asks the primary to hand over.
    pub wants: bool,
    /// By an operator's order: goes before priorities.
    pub is_forced: bool,
    /// Its priority is lowered.
    pub is_lowered: bool,
    /// On standby: serves only if nobody else can.
    pub is_standby: bool,
    /// It sees a foreign VRRP router as primary.
    pub sees_foreign: bool,
}
