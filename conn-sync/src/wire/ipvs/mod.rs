//! The kernel's IPVS synchronisation protocol: version 1 both ways, version 0 received (`net/netfilter/ipvs/ip_vs_sync.c`).
//!
//! ```text
//!  version 1: 0 (1), sync id (1), bytes (2), entries (1), 1 (1), 0 (2), then entries at multiples of four bytes
//!   entry:    family (1), protocol (1), version and bytes (2), flags (4), state (2), ports of client, service and real server
//!             (2 each), mark (4), timeout in seconds (4), addresses of client, service and real server, then options
//!  version 0: entries (1), sync id (1), bytes (2), then entries of 24 bytes, IPv4 only, no timeout
//! ```
//!
//! All numbers are in network order. There is no authentication, no sequence, no answer, and nothing is ever removed: what is
//! not heard of again runs out.

mod decode;
mod encode;
mod named;
mod state;

use std::net::{IpAddr, SocketAddr};

pub use decode::{Outcome, decode};
pub use encode::Encoder;
pub use named::{by_now, kernel_entry, record};
pub use state::{TCP_STATES, state, to_state};

/// The kernel's port (`IP_VS_SYNC_PORT`).
pub const PORT: u16 = 8848;
/// Entries in one message: its count has 8 bits. (The kernel's own sender does not stop there: its count wraps around.)
pub const ENTRIES: usize = 255;
/// Bytes of a message's header, version 1.
const HEADER: usize = 8;
/// Bytes of an entry without options, of either family.
const ENTRY4: usize = 36;
const ENTRY6: usize = 72;

/// Flags of an entry (`include/uapi/linux/ip_vs.h`).
pub mod flags {
    /// How packets reach the real server (`IP_VS_CONN_F_FWD_MASK`): one of those that follow.
    pub const FORWARDING: u32 = 7;
    /// NAT (`IP_VS_CONN_F_MASQ`).
    pub const NAT: u32 = 0;
    /// The director itself.
    pub const LOCAL: u32 = 1;
    /// Tunnel.
    pub const TUNNEL: u32 = 2;
    /// Direct routing.
    pub const DIRECT: u32 = 3;
    /// Replies do not pass the director.
    pub const NO_OUTPUT: u32 = 0x80;
    /// It does not count as active.
    pub const INACTIVE: u32 = 0x100;
    /// Sequence numbers are adjusted: options say by how much.
    pub const SEQUENCE: u32 = 0x600;
    /// A persistence template.
    pub const TEMPLATE: u32 = 0x1000;
    /// What a receiver takes of an entry's flags (`IP_VS_CONN_F_BACKUP_MASK`).
    pub const TAKEN: u32 = 0x1f87;
}

/// A connection or a template, as the kernel tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelEntry {
    /// IP protocol; 0 of templates of a firewall mark.
    pub protocol: u8,
    /// Of [`flags`].
    pub flags: u32,
    /// The protocol's state: [`to_state`].
    pub state: u16,
    /// The client; port 0 of templates.
    pub client: SocketAddr,
    /// What it talks to.
    pub virtual_service: SocketAddr,
    /// The real server and the port that packets are sent to; of the same family.
    pub server: SocketAddr,
    /// Firewall mark of the service, or 0.
    pub mark: u32,
    /// The whole timeout of its state in seconds, not what is left of it. None in version 0.
    pub timeout_s: Option<u32>,
    /// How sequence numbers are adjusted, in and out: first number, change, change before.
    pub sequences: Option<[u32; 6]>,
    /// A persistence engine's name and key.
    pub engine: Option<(Vec<u8>, Vec<u8>)>,
}

impl KernelEntry {
    /// Whether it is a persistence template.
    #[must_use]
    pub fn is_template(&self) -> bool {
        self.flags & flags::TEMPLATE != 0
    }

    /// Whether all its addresses are of one family: others cannot be written down.
    #[must_use]
    pub fn is_of_one_family(&self) -> bool {
        let is_ipv4 = |address: &SocketAddr| address.is_ipv4();
        is_ipv4(&self.client) == is_ipv4(&self.virtual_service)
            && is_ipv4(&self.client) == is_ipv4(&self.server)
    }
}

/// Why something of a message was not taken, as the kernel decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The message is shorter than its header.
    Short,
    /// Its length is not the one that it states: cut off at the receiver's `sync_maxlen`, most likely.
    Length,
    /// It is of another sync id.
    SyncId,
    /// An entry's kind or version is unknown, or its size is not possible: it and those after it are lost.
    Malformed,
    /// An option is not right: the entry and those after it are lost.
    Option,
    /// An option that must be understood is unknown: only its entry is lost.
    Unknown,
    /// A persistence engine that is not known here, or half of one: only its entry is lost.
    Engine,
    /// A protocol that is not balanced here: only its entry is lost.
    Protocol,
    /// A state that its protocol does not have: only its entry is lost.
    State,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Short,
        Self::Length,
        Self::SyncId,
        Self::Malformed,
        Self::Option,
        Self::Unknown,
        Self::Engine,
        Self::Protocol,
        Self::State,
    ];
}

fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.extend(address.octets()),
        IpAddr::V6(address) => out.extend(address.octets()),
    }
}

#[cfg(test)]
mod tests;
