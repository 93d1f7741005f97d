//! What a node is told about its peers.

use std::net::IpAddr;
use std::time::Duration;

use crate::entry::NodeName;

/// Port of Director's own protocol, UDP and TCP. The kernel's is 8848.
pub const PORT: u16 = 8849;
/// The kernel's group (`IP_VS_SYNC_GROUP`).
pub const GROUP: [u8; 4] = [224, 0, 0, 81];
/// Records told in a second.
pub const RECORDS_PER_SECOND: u32 = 200_000;
/// Bytes of a datagram: an Ethernet frame less the headers of IPv4 and UDP.
pub const DATAGRAM_BYTES: usize = 1472;

/// Who is told, and heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    /// All that have joined this group.
    Group {
        /// Its address.
        address: IpAddr,
        /// How many routers a datagram may pass, plus one.
        ttl: u8,
    },
    /// These.
    Listed(Vec<IpAddr>),
}

/// Which protocol a node speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Director's own.
    #[default]
    Own,
    /// The kernel's IPVS synchronisation protocol.
    Kernel(KernelConfig),
}

/// How a node speaks the kernel's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelConfig {
    /// Messages of other ids are not taken; 0 takes all.
    pub sync_id: u8,
    /// `sync_maxlen`: bytes of the longest message that is sent. All are heard that the kernel can send.
    pub longest: usize,
    /// `sync_refresh_period`: what is in use is told again after so many seconds, at the latest.
    pub refresh_s: u16,
    /// `sync_retries`: what was told is told so many times more, an eighth of that time apart.
    pub retries: u8,
}

/// What a node is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its name among its peers.
    pub node: NodeName,
    /// The interface that it talks to them on.
    pub interface: String,
    /// Who they are.
    pub peers: Peers,
    /// What is spoken.
    pub protocol: Protocol,
    /// Port of the protocol, UDP and TCP.
    pub port: u16,
    /// Bytes of the longest datagram.
    pub datagram_bytes: usize,
    /// Records told in a second, at most.
    pub records_per_second: u32,
    /// Without a peer for so long after its start a node has what there is to have.
    pub alone_after: Duration,
    /// Records kept aside until their service is known.
    pub aside_records: usize,
    /// For how long.
    pub aside_for: Duration,
}
