//! What holds where a configuration says nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::kinds::{MethodWord, SchedulerWord};
use super::model::{ConnectionLimits, Protocol, Tunnel};

/// Name of an instance that was given none.
pub(super) const INSTANCE: &str = "default";
/// Outer source of IPv4 tunnels: reserved for benchmarks (RFC 2544), so it is never a real host's address.
pub(super) const SOURCE_IPV4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 16);
/// Outer source of IPv6 tunnels: the discard-only prefix (RFC 6666).
pub(super) const SOURCE_IPV6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64);
/// Connections that the tables are made for.
pub(super) const CONNECTIONS: ConnectionLimits = ConnectionLimits {
    ipv4: 1_000_000,
    ipv6: 250_000,
};
/// ICMP messages in a second from each CPU.
pub(super) const ICMP_PER_SECOND: u32 = 100;
/// How long fragments are followed.
pub(super) const FRAGMENT_TIMEOUT_MS: u32 = 1000;
/// UDP port of GUE (IANA).
pub(super) const GUE_PORT: u16 = 6080;

/// What a service or real server takes that says nothing itself.
#[derive(Clone, Copy)]
pub(super) struct Defaults {
    pub(super) port: Option<u16>,
    pub(super) protocol: Protocol,
    pub(super) scheduler: SchedulerWord,
    pub(super) mh_port: bool,
    pub(super) method: MethodWord,
    pub(super) tunnel: Tunnel,
    pub(super) weight: u32,
}

impl Default for Defaults {
    /// Defaults of last resort.
    fn default() -> Self {
        Self {
            port: None,
            protocol: Protocol::Tcp,
            scheduler: SchedulerWord::Wrr,
            mh_port: false,
            method: MethodWord::Nat,
            tunnel: Tunnel::Ipip,
            weight: 1,
        }
    }
}
