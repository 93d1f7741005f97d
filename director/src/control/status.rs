//! What `director status` knows. Field names are an interface: they may be added to, not changed.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The whole director at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Name of this director on its node.
    pub instance: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since the process started.
    pub uptime_s: u64,
    /// Whether it took over tables and connections of a director before it.
    pub adopted: bool,
    /// The configuration in force.
    pub config: ConfigStatus,
    /// The interfaces of the configuration.
    pub interfaces: Vec<InterfaceStatus>,
    /// How fast verdicts of health checks reach the packet path.
    #[serde(default)]
    pub verdicts: VerdictsStatus,
    /// The connection tables.
    pub connections: ConnectionsStatus,
    /// Who is in charge; none without a section `heartbeat`.
    #[serde(default)]
    pub heartbeat: Option<HeartbeatStatus>,
    /// The services of the configuration, in its order.
    pub services: Vec<ServiceStatus>,
    /// Packets that were neither passed nor forwarded, by reason.
    pub reasons: Vec<ReasonStatus>,
    /// What an operator should look at.
    pub warnings: Vec<String>,
}

/// The configuration in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The file.
    pub file: String,
    /// When it was loaded, in seconds since 1970.
    pub loaded_at_s: u64,
    /// How long it took to load: from its text until the packet path had it, in milliseconds.
    #[serde(default)]
    pub took_ms: u64,
    /// For how long of that nothing else was done: no verdict written, no question answered. 0 at the start.
    #[serde(default)]
    pub in_loop_ms: u64,
    /// Why the last reload was refused; none if it was not.
    pub reload_error: Option<String>,
}

/// How long it took from a verdict of a health check until the packet path had what follows from it, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictsStatus {
    /// How often verdicts changed the packet path's tables so far.
    pub written: u64,
    /// The last time.
    pub last_us: u64,
    /// The median of the last ones.
    pub median_us: u64,
    /// The longest so far.
    pub worst_us: u64,
}

/// Who is in charge, in short: `director heartbeat` tells all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatStatus {
    /// This node's name.
    pub node: String,
    /// Its groups of virtual addresses.
    pub groups: Vec<GroupStatus>,
    /// Its lease has run out: of addresses that move it hears nothing. So it is while it serves no group.
    pub is_fenced: bool,
    /// Why heartbeat does not run; none: it does.
    pub fault: Option<String>,
}

/// How sharing connections stands: `director sync`.
#[derive(Clone, Debug, Serialize)]
pub struct SyncStatus {
    /// What conn-sync says of itself.
    #[serde(flatten)]
    pub node: conn_sync::node::Status,
    /// How often it was started again because it had ended by itself or could not start.
    pub restarts: u64,
    /// Why it had to be, last.
    pub last_end: Option<String>,
}

/// A group of virtual addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// `listening`, `backup`, `primary`, `unfit`, `stopped`.
    pub role: String,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// `native` or `generic`, as the kernel says; none while nothing is attached.
    pub mode: Option<String>,
    /// Switched on and with a carrier.
    pub up: bool,
}

/// The connection tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionsStatus {
    /// IPv4.
    pub ipv4: TableStatus,
    /// IPv6.
    pub ipv6: TableStatus,
    /// CPUs that have tables.
    pub cpus: u32,
}

/// The tables of one family, all CPUs together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableStatus {
    /// Places taken.
    pub entries: u64,
    /// Places.
    pub places: u64,
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Virtual address of its first endpoint.
    pub address: IpAddr,
    /// Virtual port of its first endpoint; the first one of a range.
    pub port: u16,
    /// `tcp` or `udp`: of its first endpoint.
    pub protocol: String,
    /// All its endpoints, like `tcp/192.0.2.10:80`.
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// The scheduler.
    pub scheduler: String,
    /// Where connections are tracked on change: slots of the table in which they are, because they have changed.
    #[serde(default)]
    pub changing_slots: Option<u64>,
    /// Whether anybody answers its clients.
    #[serde(default)]
    pub up: bool,
    /// Whether its fallback servers do.
    #[serde(default)]
    pub on_fallback: bool,
    /// Whether a service that it depends on is down.
    #[serde(default)]
    pub cut_off: bool,
    /// Its real servers: the configured ones in their order, then its fallback servers, then removed ones that still have
    /// connections.
    pub real_servers: Vec<RealServerStatus>,
}

/// A real server of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealServerStatus {
    /// Its address.
    pub address: IpAddr,
    /// Its port; 0: the one that the client used.
    pub port: u16,
    /// Its weight; 0 for a removed one.
    pub weight: u32,
    /// How packets reach it.
    pub method: String,
    /// What an operator changed, in words.
    #[serde(default, rename = "override")]
    pub said: Option<String>,
    /// Connections, packets and bytes in each second of late.
    #[serde(default)]
    pub rates: RateStatus,
    /// Gets no new connections because its upper threshold was reached.
    #[serde(default)]
    pub overloaded: bool,
    /// Answers only while too few of the others are up.
    #[serde(default)]
    pub fallback: bool,
    /// What health checks find.
    #[serde(default)]
    pub health: ServerHealth,
    /// Removed from the configuration, kept until its last connection ends.
    pub removed: bool,
    /// Where its packets go.
    pub next_hop: Health,
    /// Half-open and established connections.
    pub active: u64,
    /// Closing connections and UDP.
    pub inactive: u64,
    /// Connections scheduled to it so far.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Packets to clients (NAT only).
    pub out_packets: u64,
    /// Bytes to clients (NAT only).
    pub out_bytes: u64,
}

/// What health checks find of a real server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerHealth {
    /// `up`, `down` or `unchecked`; none: it has no checks.
    pub state: Option<String>,
    /// For how many seconds it has been so; none while unchecked.
    pub for_s: Option<u64>,
    /// The words of the check that decided it.
    pub words: String,
    /// Percent of its weight that it gets now: less while it starts slowly or its agent says so.
    pub percent: Option<u32>,
}

/// What comes in each second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateStatus {
    /// New connections.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Packets to clients (NAT only).
    pub out_packets: u64,
    /// Bytes to clients (NAT only).
    pub out_bytes: u64,
}

impl std::ops::AddAssign for RateStatus {
    fn add_assign(&mut self, other: Self) {
        self.connections += other.connections;
        self.in_packets += other.in_packets;
        self.in_bytes += other.in_bytes;
        self.out_packets += other.out_packets;
        self.out_bytes += other.out_bytes;
    }
}

/// Whether packets to a real server can leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Yes, in the packet path.
    Ready,
    /// Its link-layer address is not known; it is being asked for.
    Unresolved,
    /// The kernel has to forward them, or nobody can: why.
    Kernel(String),
}

/// Packets counted under a reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonStatus {
    /// Its name.
    pub name: String,
    /// How many.
    pub packets: u64,
}
