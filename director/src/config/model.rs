//! The resolved configuration: what the rest of the director works with.
//!
//! Every default is applied and every value checked; [`super::parse`] and [`super::load`] are the only
//! makers outside tests.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;
use xdp_ebpf::connection::{Bucket4, Bucket6};
use xdp_ebpf::layout::limits;
use xdp_ebpf::state::{STATES, State, TIMEOUTS_S};

use super::alerts::AlertTarget;
use super::checks::Check;
use super::sync::Sync;

/// Everything that one configuration file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Name of this director on its node: a directory name, so that two directors can stand side by side.
    pub instance: String,
    /// Network interfaces that the packet path is attached to, in the order of the file. At least one.
    pub interfaces: Vec<Interface>,
    /// Virtual services, in the order of the file.
    pub services: Vec<VirtualService>,
    /// Who is told when something is down.
    pub alerts: Vec<Arc<AlertTarget>>,
    /// Settings of all tunnels.
    pub tunnel: TunnelSettings,
    /// How many connections the connection tables are made for.
    pub connections: ConnectionLimits,
    /// ICMP messages that each CPU may send in a second.
    pub icmp_per_second: u32,
    /// How long the fragments of a datagram are followed, in milliseconds.
    pub fragment_timeout_ms: u32,
    /// Path of the operator's socket.
    pub control_socket: PathBuf,
    /// Whether the file is loaded again when it changes.
    pub watch: bool,
    /// Who is in charge of which addresses, where there is more than one director.
    pub heartbeat: Option<Arc<heartbeat::config::Config>>,
    /// With whom this director shares its connections.
    pub sync: Option<Arc<Sync>>,
}

impl Config {
    /// Addresses that move between directors: this one serves them only while it can prove that it is in charge.
    pub fn leased(&self) -> impl Iterator<Item = IpAddr> {
        let groups = self.heartbeat.iter().flat_map(|it| &it.groups);
        groups
            .flat_map(|group| &group.addresses)
            .map(ipnet::IpNet::addr)
    }
}

/// A network interface that the packet path is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Interface {
    /// Its name, as in `ip link`.
    pub name: String,
    /// How the program is attached.
    pub mode: XdpMode,
}

/// How an XDP program is attached to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver, before the kernel allocates anything.
    #[default]
    Native,
    /// In the kernel's generic receive path: works with every driver, several times slower.
    Generic,
}

/// Addresses, ports and protocols that clients connect to, and who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VirtualService {
    /// Name for operators; by default derived, like `tcp/192.0.2.10:80`.
    pub name: String,
    /// Where clients connect to: at least one, all of one address family.
    pub endpoints: Vec<Endpoint>,
    /// How a real server is chosen for a new connection.
    pub scheduler: Scheduler,
    /// UDP: each datagram is scheduled anew.
    pub one_packet: bool,
    /// Which connections are tracked.
    pub track: Track,
    /// TCP connections may begin in the middle.
    pub sloppy: bool,
    /// Idle times after which connections are forgotten.
    pub timeouts: Timeouts,
    /// Whether and how a client's connections go to the same real server.
    pub persistence: Option<Persistence>,
    /// What a client gets when no real server is available.
    pub no_server: NoServer,
    /// What becomes of the connections of a real server that is removed.
    pub removed_servers: RemovedServers,
    /// Real servers in the order of the file; may be empty.
    pub real_servers: Vec<RealServer>,
    /// Who answers while too few of the real servers are up.
    pub fallback_servers: Vec<RealServer>,
    /// What follows from health checks.
    pub health: Health,
}

/// Which connections of a service are tracked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Track {
    /// All of them.
    #[default]
    All,
    /// `mh`: those that the table has another real server for than they began at.
    OnChange {
        /// For how long, in seconds, a packet of an unknown connection is taken for one of the real server before.
        hold_s: u16,
    },
}

impl Track {
    /// Whether only those are tracked that a change concerns.
    #[must_use]
    pub const fn is_on_change(self) -> bool {
        matches!(self, Self::OnChange { .. })
    }
}

/// What follows from the health checks of a service's real servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// What becomes of a real server that is down.
    pub on_down: OnDown,
    /// How a real server takes part that has not been checked yet.
    pub until_checked: UntilChecked,
    /// Weight that must be up together, else the fallback servers take over.
    pub quorum: u32,
    /// How far above the quorum the weight must come before the real servers take over again, and how far below it may
    /// fall before they hand over.
    pub hysteresis: u32,
    /// Over how long a real server that came up gets its full weight; 0: at once.
    pub slow_start_s: u16,
    /// Names of services without which this one is down.
    pub depends_on: Vec<String>,
}

/// What becomes of a real server that is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDown {
    /// It gets no new connections; its old ones are treated as those of a removed real server.
    #[default]
    Remove,
    /// Weight 0: new connections only of clients that persistence keeps there; its old ones go on.
    Quiesce,
}

/// How a real server takes part that has not been checked yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UntilChecked {
    /// As if it was down.
    #[default]
    Out,
    /// As if it was up.
    In,
}

/// An address, port or range of ports, and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Endpoint {
    /// Virtual address.
    pub address: IpAddr,
    /// Virtual ports.
    pub ports: Ports,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// One port or several in a row, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Ports {
    /// The first one.
    pub first: u16,
    /// The last one; the same if there is only one.
    pub last: u16,
}

/// Idle seconds after which a connection in a state is forgotten. Defaults are IPVS's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Timeouts {
    /// Established TCP connections.
    pub established_s: u16,
    /// TCP connections of which only the SYN was seen.
    pub syn_received_s: u16,
    /// One end has closed.
    pub fin_wait_s: u16,
    /// Both ends have closed.
    pub time_wait_s: u16,
    /// A reset was seen.
    pub close_s: u16,
    /// NAT: the client has closed.
    pub close_wait_s: u16,
    /// UDP.
    pub udp_s: u16,
}

/// How a client's connections are kept at the same real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Persistence {
    /// How long after its last connection a client is remembered.
    pub timeout_s: u32,
    /// Bits of the client's address that count: clients with the same ones are kept together.
    pub prefix: u8,
    /// Whether it holds across all endpoints and ports of the service.
    pub across_ports: bool,
    /// Whether a real server of weight 0 gets no new connection by it either.
    pub expire_quiescent: bool,
}

/// What a client gets when no real server is available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NoServer {
    /// ICMP port unreachable, as IPVS.
    #[default]
    Icmp,
    /// A TCP reset; for UDP ICMP.
    Reset,
    /// Nothing.
    Silent,
}

/// What becomes of the connections of a real server that is removed from the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RemovedServers {
    /// They go on until they end.
    #[default]
    Keep,
    /// Their next packet is one of a new connection (IPVS: `expire_nodest_conn` 1).
    Reschedule,
    /// Their packets are dropped (IPVS: `expire_nodest_conn` 0).
    Drop,
}

/// Transport protocol of a virtual service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// How a real server is chosen for a new connection. Names and meanings are those of IPVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheduler {
    /// Round robin: one after the other, weights (other than 0) ignored.
    Rr,
    /// Weighted round robin, interleaved.
    Wrr,
    /// Fewest connections.
    Lc,
    /// Fewest connections for its weight.
    Wlc,
    /// By virtual address, the less loaded one when it is overloaded.
    Lblc,
    /// By virtual address a set of real servers.
    Lblcr,
    /// Hashing of the virtual address.
    Dh {
        /// Another one if the mapped one is out.
        fallback: bool,
    },
    /// Hashing of the client's address.
    Sh {
        /// Hash the client's port too (the flag `sh-port`).
        port: bool,
        /// Another one if the mapped one is out.
        fallback: bool,
    },
    /// Weighted Maglev hashing: the same client goes to the same real server, on every node.
    Mh {
        /// Hash the client's port too, not only its address (the flag `mh-port`).
        port: bool,
        /// Another one if the mapped one is out.
        fallback: bool,
    },
    /// Shortest expected delay.
    Sed,
    /// Never queue: an idle one, else the shortest expected delay.
    Nq,
    /// Weighted failover: the heaviest.
    Fo,
    /// Weighted overflow: the heaviest that has no more active connections than its weight.
    Ovf,
    /// The less loaded of two drawn by weight.
    Twos,
}

/// A server that answers a virtual service's connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RealServer {
    /// Its address.
    pub address: IpAddr,
    /// Its port, never 0; none: the one that the client used. Differs from the service's only under NAT.
    pub port: Option<u16>,
    /// Share of new connections relative to the others; 0: no new connections, old ones stay (quiesced).
    pub weight: u32,
    /// Connections from which on it gets no new ones; 0: none.
    pub upper_threshold: u32,
    /// Connections below which it gets new ones again; 0: three quarters of the upper threshold.
    pub lower_threshold: u32,
    /// How packets reach it.
    pub method: Method,
    /// Its health checks, all of which must succeed; none: it is always up.
    pub checks: Arc<[Arc<Check>]>,
}

/// How packets reach a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Destination address and port are rewritten; replies come back through the director.
    Nat,
    /// Direct routing: only the destination MAC address is rewritten; replies go straight to the client.
    Dr,
    /// Encapsulated; replies go straight to the client.
    Tun(Tunnel),
    /// It is the director itself: packets go to its own network stack as they are.
    Local,
}

/// Encapsulation of the method TUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tunnel {
    /// IP in IP, in all four mixtures of families.
    Ipip,
    /// Generic UDP encapsulation, version 0.
    Gue {
        /// UDP port on which the real server takes the tunnel.
        port: u16,
    },
    /// Generic routing encapsulation, without options.
    Gre,
}

/// Outer source addresses of tunnels. The host bits vary with the flow, so that a real server's NIC spreads
/// tunnelled packets over its queues (RSS) although all come from one director.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct TunnelSettings {
    /// For tunnels to IPv4 real servers; host bits are zero. A /32 means one fixed source.
    pub source_ipv4: Ipv4Net,
    /// For tunnels to IPv6 real servers; host bits are zero, and the last 32 bits are always among them.
    pub source_ipv6: Ipv6Net,
}

/// How many connections the connection tables are made for, on the whole node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ConnectionLimits {
    /// IPv4 connections.
    pub ipv4: u32,
    /// IPv6 connections.
    pub ipv6: u32,
}

impl ConnectionLimits {
    /// Bytes of the table for each IPv4 connection: two thirds of the places are taken when it is full to its capacity,
    /// up to which two candidate buckets and one move lose practically no connection.
    const BYTES4: u64 = 24;
    /// As [`Self::BYTES4`], for each IPv6 connection.
    const BYTES6: u64 = 48;

    /// Buckets of one CPU's IPv4 table.
    #[must_use]
    pub fn buckets_per_cpu4(&self, cpus: u32) -> u32 {
        Self::buckets(self.ipv4, Self::BYTES4, size_of::<Bucket4>(), cpus)
    }

    /// Buckets of one CPU's IPv6 table.
    #[must_use]
    pub fn buckets_per_cpu6(&self, cpus: u32) -> u32 {
        Self::buckets(self.ipv6, Self::BYTES6, size_of::<Bucket6>(), cpus)
    }

    fn buckets(connections: u32, bytes: u64, bucket: usize, cpus: u32) -> u32 {
        let all = u64::from(connections) * bytes;
        // Rounded down: a connection takes no more than it is said to. At most 2^32 * 48 / 128.
        let share = all / (bucket as u64 * u64::from(cpus.max(1)));
        (share as u32).max(limits::MIN_BUCKETS)
    }
}

impl VirtualService {
    /// Its real servers, then its fallback servers.
    pub fn all_servers(&self) -> impl Iterator<Item = &RealServer> {
        self.real_servers.iter().chain(&self.fallback_servers)
    }

    /// Whether its virtual addresses are IPv6 ones.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.endpoints
            .first()
            .is_some_and(|endpoint| endpoint.address.is_ipv6())
    }
}

impl Ports {
    /// All ports.
    pub const ANY: Self = Self {
        first: 1,
        last: u16::MAX,
    };

    /// One port.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// The only one of them, if there is only one.
    #[must_use]
    pub fn only(self) -> Option<u16> {
        (self.first == self.last).then_some(self.first)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.only(), *self) {
            (Some(port), _) => write!(f, "{port}"),
            (None, Self::ANY) => f.write_str("any"),
            (None, Self { first, last }) => write!(f, "{first}-{last}"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{}/{address}:{}", self.protocol, self.ports),
            IpAddr::V6(address) => write!(f, "{}/[{address}]:{}", self.protocol, self.ports),
        }
    }
}

impl RealServer {
    /// Address, and port if it has one of its own.
    #[must_use]
    pub fn shown(&self) -> String {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).to_string(),
            None => self.address.to_string(),
        }
    }
}

impl Timeouts {
    /// By the number of a [`State`].
    #[must_use]
    pub fn by_state(&self) -> [u16; STATES] {
        let mut all = [0; STATES];
        for state in State::ALL {
            all[state as usize] = match state {
                State::SynReceived => self.syn_received_s,
                State::Established => self.established_s,
                State::FinWait => self.fin_wait_s,
                State::CloseWait => self.close_wait_s,
                State::TimeWait => self.time_wait_s,
                State::Close => self.close_s,
                State::UdpOne | State::Udp => self.udp_s,
            };
        }
        all
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let by_state = |state: State| TIMEOUTS_S[state as usize];
        Self {
            established_s: by_state(State::Established),
            syn_received_s: by_state(State::SynReceived),
            fin_wait_s: by_state(State::FinWait),
            time_wait_s: by_state(State::TimeWait),
            close_s: by_state(State::Close),
            close_wait_s: by_state(State::CloseWait),
            udp_s: by_state(State::Udp),
        }
    }
}

impl Protocol {
    /// IP protocol number (IANA).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
        })
    }
}

impl Scheduler {
    /// Whether shares go by weight at every moment: a lower weight means fewer new connections at once, for all clients
    /// alike.
    #[must_use]
    pub const fn follows_weights(self) -> bool {
        matches!(
            self,
            Scheduler::Wlc | Scheduler::Wrr | Scheduler::Sed | Scheduler::Nq | Scheduler::Twos
        )
    }

    /// IPVS's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Scheduler::Rr => "rr",
            Scheduler::Wrr => "wrr",
            Scheduler::Lc => "lc",
            Scheduler::Wlc => "wlc",
            Scheduler::Lblc => "lblc",
            Scheduler::Lblcr => "lblcr",
            Scheduler::Dh { .. } => "dh",
            Scheduler::Sh { .. } => "sh",
            Scheduler::Mh { .. } => "mh",
            Scheduler::Sed => "sed",
            Scheduler::Nq => "nq",
            Scheduler::Fo => "fo",
            Scheduler::Ovf => "ovf",
            Scheduler::Twos => "twos",
        }
    }

    /// Whether each new connection looks at all real servers.
    #[must_use]
    pub const fn counts(self) -> bool {
        !matches!(
            self,
            Scheduler::Rr
                | Scheduler::Wrr
                | Scheduler::Dh { .. }
                | Scheduler::Sh { .. }
                | Scheduler::Mh { .. }
        )
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.name().to_owned();
        let (port, fallback) = match *self {
            Scheduler::Dh { fallback } => (false, fallback),
            Scheduler::Sh { port, fallback } | Scheduler::Mh { port, fallback } => (port, fallback),
            _ => (false, true),
        };
        if port {
            text = format!("{text} ({text}-port)");
        }
        if !fallback {
            text.push_str(" without fallback");
        }
        f.pad(&text)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Method::Nat => "nat",
            Method::Dr => "dr",
            Method::Tun(Tunnel::Ipip) => "tun (ipip)",
            Method::Tun(Tunnel::Gue { .. }) => "tun (gue)",
            Method::Tun(Tunnel::Gre) => "tun (gre)",
            Method::Local => "local",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_takes_the_bytes_that_are_promised() {
        // (connections, CPUs, IPv4 buckets per CPU, IPv6 buckets per CPU)
        for (connections, cpus, buckets4, buckets6) in [
            (1, 1, limits::MIN_BUCKETS, limits::MIN_BUCKETS),
            (1_000_000, 1, 375_000, 375_000),
            (1_000_000, 2, 187_500, 187_500),
            (1_000_000, 3, 125_000, 125_000),
            (1_000_000, 128, 2929, 2929),
            // 0 CPUs is nonsense but must not divide by zero.
            (1_000_000, 0, 375_000, 375_000),
            (u32::MAX, 1, 1_610_612_735, 1_610_612_735),
        ] {
            let limits = ConnectionLimits {
                ipv4: connections,
                ipv6: connections,
            };
            let found = (limits.buckets_per_cpu4(cpus), limits.buckets_per_cpu6(cpus));
            assert_eq!(
                found,
                (buckets4, buckets6),
                "{connections} connections, {cpus} CPUs"
            );
        }
    }
}
