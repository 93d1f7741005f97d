//! The configuration as the rest works with it: every default applied, every value checked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use crate::machine::LinkId;

/// All that a node knows of itself, the others and what they serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// This node's name.
    pub node: String,
    /// All nodes that stand in the priorities of any group, this one too, in the order of their names.
    pub nodes: Vec<String>,
    /// When somebody is late, and when dead.
    pub timing: Timing,
    /// Whether a preferred node takes its groups back.
    pub auto_failback: AutoFailback,
    /// How long a node waits for what it needs to take groups back, while another one serves them.
    pub failback_limit: Duration,
    /// What own heartbeats are signed with; none: they are only protected from damage.
    pub keys: Option<KeyFiles>,
    /// Links, in the order of their ids.
    pub links: Vec<Link>,
    /// Groups of virtual addresses.
    pub groups: Vec<Group>,
    /// Indexes of groups that are always on the same node. Every group stands in exactly one of these lists.
    pub units: Vec<Vec<usize>>,
    /// What this node itself needs to be fit.
    pub fitness: Fitness,
    /// What makes sure that a dead node is dead.
    pub fence: Option<Fence>,
}

/// When somebody is late, and when dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Timing {
    /// How often a heartbeat is sent.
    pub keepalive: Duration,
    /// Silence after which a warning is given.
    pub warntime: Duration,
    /// Silence on all links after which a node is dead.
    pub deadtime: Duration,
    /// How long the others are waited for at start.
    pub initdead: Duration,
}

/// Whether a preferred node takes its groups back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AutoFailback {
    /// At once. In VRRP: preempt.
    On,
    /// Not while another node serves them. In VRRP: nopreempt.
    Off,
    /// When it has been ready for so long. In VRRP: preempt, with a delay.
    After(Duration),
}

/// Where the keys are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyFiles {
    /// The key to sign with.
    pub active: KeyFile,
    /// More keys that are accepted, for a rolling change.
    pub accept: Vec<KeyFile>,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyFile {
    /// Its number in the messages, from 1 on.
    pub id: u8,
    /// Its file.
    pub file: PathBuf,
}

/// A way to the other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Name for operators, like `udp eth0`.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
}

/// Kinds of links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// Own heartbeats over UDP.
    Udp(UdpLink),
    /// Own heartbeats over a serial line.
    Serial(SerialLink),
    /// VRRP. Only the groups with a number are on it.
    Vrrp(VrrpLink),
}

/// Own heartbeats over UDP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UdpLink {
    /// The interface that it is bound to.
    pub interface: String,
    /// The port, here and there.
    pub port: u16,
    /// Who gets them.
    pub to: UdpTo,
}

/// Who gets the heartbeats of a UDP link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UdpTo {
    /// These addresses, one after the other.
    Unicast(Vec<IpAddr>),
    /// All that listen to this multicast address.
    Multicast(IpAddr),
    /// All on the interface's IPv4 network.
    Broadcast,
}

/// Own heartbeats over a serial line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SerialLink {
    /// Like `/dev/ttyS0`.
    pub device: PathBuf,
    /// Bits in a second.
    pub baud: u32,
}

/// VRRP on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VrrpLink {
    /// The interface.
    pub interface: String,
    /// 2 or 3. IPv6 addresses are always advertised with version 3.
    pub version: u8,
    /// How often the primary advertises a group.
    pub interval: Duration,
    /// Unicast to these instead of multicast, if there are any.
    pub peers: Vec<IpAddr>,
    /// Version 3, IPv4: the checksum covers a pseudo header. RFC 9568 leaves it out, keepalived puts it in.
    pub pseudo_header: bool,
}

/// Virtual addresses that are served by one node at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Name for operators, and between the nodes.
    pub name: String,
    /// The interface that gets the addresses.
    pub interface: String,
    /// The virtual addresses.
    pub addresses: Vec<IpNet>,
    /// Priority of each node that may serve the group, 1 to 255. The highest is the preferred node.
    pub priorities: BTreeMap<String, u8>,
    /// Its number in VRRP.
    pub vrid: Option<u8>,
    /// The addresses have the MAC address of VRRP.
    pub virtual_mac: bool,
    /// How the network is told.
    pub announce: Announce,
    /// Program that is run when this node becomes primary: path, then arguments.
    pub on_primary: Option<Program>,
    /// Program that is run when it no longer is.
    pub on_backup: Option<Program>,
}

/// How often the network is told where the addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Announce {
    /// So many times.
    pub count: u8,
    /// With so much time between.
    pub interval: Duration,
    /// And again so often while primary; 0: never.
    pub refresh: Duration,
}

/// A program with its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Program {
    /// Absolute path, then arguments.
    pub command: Vec<String>,
    /// It is ended after this time.
    pub timeout: Duration,
}

/// What this node itself needs to be fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fitness {
    /// Interfaces that need a carrier.
    pub interfaces: Vec<InterfaceTracked>,
    /// Hosts that must answer to echo requests.
    pub ping: Vec<PingTracked>,
    /// Programs that must succeed.
    pub programs: Vec<ProgramTracked>,
}

/// What a failure does: lowers the priority by so much, or without a number makes unfit.
pub type Lowers = Option<u8>;

/// An interface that needs a carrier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceTracked {
    /// Its name.
    pub name: String,
    /// What its loss does.
    pub lowers: Lowers,
}

/// A host that must answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PingTracked {
    /// Its address.
    pub address: IpAddr,
    /// How often it is asked, how long it may take, how many answers or silences count.
    pub rhythm: Rhythm,
    /// What its silence does.
    pub lowers: Lowers,
}

/// A program that must succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramTracked {
    /// Absolute path, then arguments.
    pub command: Vec<String>,
    /// How often it is run, how long it may take, how many successes or failures count.
    pub rhythm: Rhythm,
    /// What its failure does.
    pub lowers: Lowers,
}

/// How something is tried again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rhythm {
    /// So often.
    pub interval: Duration,
    /// It may take so long.
    pub timeout: Duration,
    /// So many failures in a row count.
    pub fall: u8,
    /// So many successes in a row count.
    pub rise: u8,
}

/// What makes sure that a dead node is dead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fence {
    /// The program. The node's name is its last argument.
    pub program: Program,
    /// Nothing is taken over from a node that could not be fenced. Else it is, with an alert.
    pub required: bool,
}

impl Config {
    /// A link's name.
    #[must_use]
    pub fn link_name(&self, link: LinkId) -> &str {
        self.links
            .get(usize::from(link.0))
            .map_or("unknown link", |link| link.name.as_str())
    }

    /// Whether any link carries own heartbeats.
    #[must_use]
    pub fn has_own_links(&self) -> bool {
        self.links
            .iter()
            .any(|link| !matches!(link.kind, LinkKind::Vrrp(_)))
    }
}
