//! The section, resolved.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use conn_sync::config::{Config, KernelConfig, Peers, Protocol};
use conn_sync::entry::{NodeName, NodeNameError};
use serde::Serialize;

use crate::config::limits;

/// With whom this director shares its connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sync {
    /// Interface that it talks to the others on.
    pub interface: String,
    /// This node's name among them.
    pub node: String,
    /// The kernel's protocol, and how it is spoken; none: Director's own.
    pub kernel: Option<KernelSync>,
    /// Addresses of the others; empty: all that have joined the group.
    pub peers: Vec<IpAddr>,
    /// Multicast group, where no peers are listed.
    pub group: IpAddr,
    /// How many routers a datagram to the group may pass, plus one.
    pub ttl: u8,
    /// Port, UDP and TCP.
    pub port: u16,
    /// What messages are signed with.
    pub keys: Option<SyncKeys>,
    /// Connections that are told in a second, at most.
    pub records_per_second: u32,
    /// Bytes of the longest datagram.
    pub datagram_bytes: usize,
    /// Without another node for so long after its start, or after the last one was heard, this one has what there is to have.
    pub alone_after: Duration,
}

/// How the kernel's protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct KernelSync {
    /// Messages of other ids are not taken; 0 takes all.
    pub syncid: u8,
    /// Bytes of the longest message that is sent.
    pub sync_maxlen: usize,
    /// What is in use is told again after this time, at the latest.
    pub sync_refresh_period_s: u16,
    /// What was told is told so many times more, an eighth of that time apart.
    pub sync_retries: u8,
}

/// Files of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SyncKeys {
    /// What messages are signed with.
    pub active: KeyFile,
    /// What is accepted besides.
    pub accept: Vec<KeyFile>,
}

/// A key's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyFile {
    /// Its number, which messages name.
    pub id: u8,
    /// Its path.
    pub file: PathBuf,
}

impl Sync {
    /// Whether the others can be asked for all that they have: by the kernel's protocol nobody can.
    #[must_use]
    pub fn has_full_sync(&self) -> bool {
        self.kernel.is_none()
    }

    /// As conn-sync takes it.
    ///
    /// # Errors
    /// The node's name is none: the file's are all checked.
    pub fn for_node(&self) -> Result<Config, NodeNameError> {
        Ok(Config {
            node: NodeName::new(&self.node)?,
            interface: self.interface.clone(),
            peers: if self.peers.is_empty() {
                Peers::Group {
                    address: self.group,
                    ttl: self.ttl,
                }
            } else {
                Peers::Listed(self.peers.clone())
            },
            protocol: match self.kernel {
                None => Protocol::Own,
                Some(kernel) => Protocol::Kernel(KernelConfig {
                    sync_id: kernel.syncid,
                    longest: kernel.sync_maxlen,
                    refresh_s: kernel.sync_refresh_period_s,
                    retries: kernel.sync_retries,
                }),
            },
            port: self.port,
            datagram_bytes: self.datagram_bytes,
            records_per_second: self.records_per_second,
            alone_after: self.alone_after,
            aside_records: limits::SYNC_ASIDE,
            aside_for: limits::SYNC_ASIDE_FOR,
        })
    }
}
