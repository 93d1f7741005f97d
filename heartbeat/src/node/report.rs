//! What operators are shown of a node.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::fitness::Check;
use crate::link::Counters;
use crate::machine::Status;

/// All that is known of a node at a moment.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Roles, other nodes, history.
    #[serde(flatten)]
    pub status: Status,
    /// What keeps nodes from understanding each other, within the last minute: other keys, names, versions.
    pub warnings: Vec<String>,
    /// The links of this node.
    pub links: Vec<LinkReport>,
    /// What this node's fitness hangs on.
    pub fitness: Vec<Check>,
    /// Where the groups' addresses stand.
    pub takeover: Vec<TakeoverReport>,
    /// Announcements that the kernel did not send.
    pub announcements_unsent: u64,
    /// Priority and memory of the node's thread.
    pub realtime: Vec<String>,
}

/// A link of this node.
#[derive(Clone, Debug, Serialize)]
pub struct LinkReport {
    /// Its name.
    pub link: String,
    /// Why it does not work; none: it does.
    pub fault: Option<String>,
    /// Its numbers.
    #[serde(flatten)]
    pub counters: Counters,
    /// Messages that were not believed, by reason.
    pub not_believed: BTreeMap<String, u64>,
}

/// The addresses of a group on this node.
#[derive(Clone, Debug, Serialize)]
pub struct TakeoverReport {
    /// The group's name.
    pub group: String,
    /// All its addresses are here.
    pub is_held: bool,
    /// Why not, or not all, or why they are still here.
    pub fault: Option<String>,
}
