//! What operators see of a node that speaks the kernel's protocol.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::wire::ipvs::Refusal;

/// What operators see.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct KernelReport {
    /// Messages sent.
    pub messages: u64,
    /// Connections in them.
    pub records: u64,
    /// Connections that the protocol has no way to tell: addresses of several families.
    pub unsendable: u64,
    /// Connections that wait to be sent.
    pub backlog: u64,
    /// Messages heard.
    pub heard: u64,
    /// Connections in them.
    pub heard_records: u64,
    /// Connections of a state, a protocol or a firewall mark that is not shared here.
    pub passed_over: u64,
    /// Connections kept aside until their service is known.
    pub aside: u64,
    /// Why messages, or connections in them, were not taken; reasons that did not occur are left out.
    pub refused: BTreeMap<&'static str, u64>,
    /// Whom messages come from, and how many.
    pub senders: BTreeMap<IpAddr, u64>,
}

/// Why something was not taken, for people.
pub(super) fn word(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Short => "shorter than a header",
        Refusal::Length => "cut off, or longer than they say",
        Refusal::SyncId => "of another sync id",
        Refusal::Malformed => "an entry that is not possible",
        Refusal::Option => "an option that is not possible",
        Refusal::Unknown => "an option that is not known and must be",
        Refusal::Engine => "of a persistence engine that is not known here",
        Refusal::Protocol => "of a protocol that is not balanced",
        Refusal::State => "of a state that its protocol does not have",
    }
}
