//! The resolved configuration: what the rest of the director works with.
//!
//! Every default is applied and every value checked; [`super::parse`] and [`super::load`] are the only
//! makers outside tests.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;
use xdp_ebpf::layout::limits;

/// Everything that one configuration file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Name of this director on its node: a directory name, so that two directors can stand side by side.
    pub instance: String,
    /// Network interfaces that the packet path is attached to, in the order of the file. At least one.
    pub interfaces: Vec<Interface>,
    /// Virtual services, in the order of the file.
    pub services: Vec<VirtualService>,
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

/// An address, port and protocol that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VirtualService {
    /// Name for operators; by default derived, like `tcp/192.0.2.10:80`.
    pub name: String,
    /// Virtual address.
    pub address: IpAddr,
    /// Virtual port, never 0.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// How a real server is chosen for a new connection.
    pub scheduler: Scheduler,
    /// Real servers in the order of the file; may be empty.
    pub real_servers: Vec<RealServer>,
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
    /// Weighted Maglev hashing: the same client goes to the same real server, on every node.
    Mh {
        /// Hash the client's port too, not only its address (the flag `mh-port`).
        port: bool,
    },
}

/// A server that answers a virtual service's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct RealServer {
    /// Its address.
    pub address: IpAddr,
    /// Its port, never 0; differs from the service's only under NAT.
    pub port: u16,
    /// Share of new connections relative to the others; 0: no new connections, old ones stay (quiesced).
    pub weight: u32,
    /// How packets reach it.
    pub method: Method,
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
    /// Bytes of a bucket: one cache line.
    const BUCKET_BYTES: u64 = 64;
    /// IPv4 connections in a bucket.
    const PER_BUCKET4: u64 = 4;
    /// IPv6 connections in a bucket.
    const PER_BUCKET6: u64 = 2;
    /// Filling up to which two candidate buckets and one move lose practically no connection.
    const FILLING_PERCENT: u64 = 70;

    /// Buckets of one CPU's IPv4 table: a power of two with room for this CPU's share at 70 % filling.
    #[must_use]
    pub fn buckets_per_cpu4(&self, cpus: u32) -> u32 {
        Self::buckets(self.ipv4, Self::PER_BUCKET4, cpus)
    }

    /// Buckets of one CPU's IPv6 table, as [`Self::buckets_per_cpu4`].
    #[must_use]
    pub fn buckets_per_cpu6(&self, cpus: u32) -> u32 {
        Self::buckets(self.ipv6, Self::PER_BUCKET6, cpus)
    }

    /// Bytes that the connection tables of all CPUs take together, allocated at start.
    #[must_use]
    pub fn memory_bytes(&self, cpus: u32) -> u64 {
        let buckets =
            u64::from(self.buckets_per_cpu4(cpus)) + u64::from(self.buckets_per_cpu6(cpus));
        buckets * u64::from(cpus.max(1)) * Self::BUCKET_BYTES
    }

    fn buckets(connections: u32, per_bucket: u64, cpus: u32) -> u32 {
        let share = u64::from(connections).div_ceil(u64::from(cpus.max(1)));
        let needed = (share * 100).div_ceil(Self::FILLING_PERCENT * per_bucket);
        // At most 2^32 * 100 / 140, so the power of two may be 2^32: one more than fits, hence the bound.
        let buckets = needed.next_power_of_two().min(1 << 31) as u32;
        buckets.max(limits::MIN_BUCKETS)
    }
}

impl VirtualService {
    /// Virtual address and port.
    #[must_use]
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

impl RealServer {
    /// Address and port.
    #[must_use]
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
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

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Scheduler::Rr => "rr",
            Scheduler::Wrr => "wrr",
            Scheduler::Mh { port: false } => "mh",
            Scheduler::Mh { port: true } => "mh (mh-port)",
        })
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
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_sized_for_seventy_percent() {
        // (connections, CPUs, IPv4 buckets per CPU, IPv6 buckets per CPU)
        for (connections, cpus, buckets4, buckets6) in [
            (1, 1, limits::MIN_BUCKETS, limits::MIN_BUCKETS),
            (1_000_000, 1, 1 << 19, 1 << 20),
            (1_000_000, 2, 1 << 18, 1 << 19),
            (1_000_000, 3, 1 << 17, 1 << 18),
            (1_000_000, 128, 1 << 12, 1 << 13),
            // 70 % of 4 * 1024 is 2867.2: one connection more needs the next power of two.
            (2867, 1, 1 << 10, 1 << 11),
            (2868, 1, 1 << 11, 1 << 12),
            // 0 CPUs is nonsense but must not divide by zero.
            (1_000_000, 0, 1 << 19, 1 << 20),
            (u32::MAX, 1, 1 << 31, 1 << 31),
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
            let bytes = u64::from(cpus.max(1)) * 64 * (u64::from(buckets4) + u64::from(buckets6));
            assert_eq!(limits.memory_bytes(cpus), bytes);
        }
    }
}
