//! The configuration as it is written in YAML: alone in a file, or as a section of the director's.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::value::{Located, Optional, ShortOrLong, Text};

/// What a node knows of itself, the others and what they serve.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// This node's name. Default: the host's.
    pub(super) node: Optional<Text>,
    /// How often a heartbeat is sent. Default: 1s.
    pub(super) keepalive: Optional<Text>,
    /// Silence after which a warning is given. Default: half of deadtime.
    pub(super) warntime: Optional<Text>,
    /// Silence on all links after which a node is dead. Default: ten keepalives.
    pub(super) deadtime: Optional<Text>,
    /// How long the others are waited for at start. Default: twice deadtime.
    pub(super) initdead: Optional<Text>,
    /// Whether a preferred node takes its groups back: true, false, or a time after which it does. Default: true.
    pub(super) auto_failback: Optional<Text>,
    /// How long after its start a director waits for the others' connections before it takes its groups back. Default: 60s.
    pub(super) failback_limit: Optional<Text>,
    /// What heartbeats are signed with. Default: nothing.
    pub(super) key: Optional<Located<KeysFile>>,
    /// Ways to the other nodes.
    pub(super) links: Optional<Located<Vec<Located<LinkFile>>>>,
    /// Groups of virtual addresses.
    pub(super) groups: Optional<Located<Vec<Located<GroupFile>>>>,
    /// Lists of groups that are always on the same node.
    pub(super) together: Optional<Located<Vec<Located<Vec<Text>>>>>,
    /// What this node needs to be fit.
    pub(super) fitness: Optional<Located<FitnessFile>>,
    /// Program that makes sure that a dead node is dead.
    pub(super) fence: Optional<Located<FenceFile>>,
}

/// Keys.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct KeysFile {
    /// Its number, 1 to 255.
    pub(super) id: Optional<Text>,
    /// Its file.
    pub(super) file: Optional<Text>,
    /// More keys that are accepted.
    pub(super) accept: Optional<Located<Vec<Located<KeyFile>>>>,
}

/// One more key.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct KeyFile {
    pub(super) id: Optional<Text>,
    pub(super) file: Optional<Text>,
}

/// A link: one of the three.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LinkFile {
    pub(super) udp: Optional<Located<UdpFile>>,
    pub(super) serial: Optional<Located<SerialFile>>,
    pub(super) vrrp: Optional<Located<VrrpFile>>,
}

/// Heartbeats over UDP.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct UdpFile {
    pub(super) interface: Optional<Text>,
    /// Default: 694.
    pub(super) port: Optional<Text>,
    /// Unicast to these.
    pub(super) peers: Optional<Located<Vec<Text>>>,
    pub(super) multicast: Optional<Text>,
    pub(super) broadcast: Optional<Text>,
}

/// Heartbeats over a serial line.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SerialFile {
    pub(super) device: Optional<Text>,
    /// Default: 115200.
    pub(super) baud: Optional<Text>,
}

/// VRRP on an interface.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct VrrpFile {
    pub(super) interface: Optional<Text>,
    /// 2 or 3. Default: 3.
    pub(super) version: Optional<Text>,
    /// Default: keepalive; 1s in version 2.
    pub(super) interval: Optional<Text>,
    /// Unicast to these instead of multicast.
    pub(super) peers: Optional<Located<Vec<Text>>>,
    /// Version 3, IPv4: the checksum covers the pseudo header, as keepalived has it. Default: true.
    pub(super) pseudo_header: Optional<Text>,
}

/// Virtual addresses that are served by one node at a time.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GroupFile {
    pub(super) name: Optional<Text>,
    pub(super) interface: Optional<Text>,
    pub(super) addresses: Optional<Located<Vec<Text>>>,
    /// Of each node, or with VRRP alone of this one.
    pub(super) priority: Optional<ShortOrLong<BTreeMap<String, Text>>>,
    pub(super) vrid: Optional<Text>,
    pub(super) virtual_mac: Optional<Text>,
    pub(super) announce: Optional<Located<AnnounceFile>>,
    pub(super) on_primary: Optional<Located<Vec<Text>>>,
    pub(super) on_backup: Optional<Located<Vec<Text>>>,
    /// Of both programs. Default: 10s.
    pub(super) timeout: Optional<Text>,
}

/// How often the network is told where the addresses are.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AnnounceFile {
    /// Default: 5.
    pub(super) count: Optional<Text>,
    /// Default: 200ms.
    pub(super) interval: Optional<Text>,
    /// Default: 0s, never.
    pub(super) refresh: Optional<Text>,
}

/// What this node needs to be fit.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FitnessFile {
    pub(super) interfaces: Optional<Located<Vec<ShortOrLong<InterfaceFile>>>>,
    pub(super) ping: Optional<Located<Vec<ShortOrLong<PingFile>>>>,
    pub(super) programs: Optional<Located<Vec<Located<ProgramFile>>>>,
}

/// An interface that needs a carrier.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct InterfaceFile {
    pub(super) name: Optional<Text>,
    pub(super) lowers: Optional<Text>,
}

/// A host that must answer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PingFile {
    pub(super) address: Optional<Text>,
    pub(super) lowers: Optional<Text>,
    pub(super) interval: Optional<Text>,
    pub(super) timeout: Optional<Text>,
    pub(super) fall: Optional<Text>,
    pub(super) rise: Optional<Text>,
}

/// A program that must succeed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ProgramFile {
    pub(super) command: Optional<Located<Vec<Text>>>,
    pub(super) lowers: Optional<Text>,
    pub(super) interval: Optional<Text>,
    pub(super) timeout: Optional<Text>,
    pub(super) fall: Optional<Text>,
    pub(super) rise: Optional<Text>,
}

/// Program that makes sure that a dead node is dead.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FenceFile {
    pub(super) command: Optional<Located<Vec<Text>>>,
    /// Default: 10s.
    pub(super) timeout: Optional<Text>,
    /// Nothing is taken over without. Default: false.
    pub(super) required: Optional<Text>,
}
