//! What holds where a configuration says nothing.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};

use super::checks::Check;
use super::kinds::{MethodWord, ProtocolWord, SchedulerWord};
use super::model::{
    ConnectionLimits, NoServer, OnDown, Ports, RemovedServers, Timeouts, Tunnel, UntilChecked,
};
use super::thresholds::Thresholds;

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
/// How long persistence remembers a client (`IP_VS_TEMPLATE_TIMEOUT` of ipvsadm).
pub(super) const PERSISTENCE_S: u32 = 300;

/// UDP port of GUE (IANA).
pub(super) const GUE_PORT: u16 = 6080;

/// What a service or real server takes that says nothing itself.
#[derive(Clone)]
pub(super) struct Defaults {
    pub(super) port: Option<Ports>,
    pub(super) protocol: ProtocolWord,
    pub(super) scheduler: SchedulerWord,
    pub(super) flags: Flags,
    pub(super) fallback: bool,
    pub(super) timeouts: Timeouts,
    pub(super) sloppy: bool,
    pub(super) persistence: Option<PersistenceDefaults>,
    pub(super) one_packet: bool,
    pub(super) no_server: NoServer,
    pub(super) removed_servers: RemovedServers,
    pub(super) method: MethodWord,
    pub(super) tunnel: Tunnel,
    pub(super) weight: u32,
    pub(super) thresholds: Thresholds,
    pub(super) checks: Arc<[Arc<Check>]>,
    pub(super) on_down: OnDown,
    pub(super) until_checked: UntilChecked,
    pub(super) quorum: u32,
    pub(super) hysteresis: u32,
    pub(super) slow_start_s: u16,
}

/// Flags of schedulers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) sh_port: bool,
    pub(super) mh_port: bool,
}

/// Persistence before it is known whose: the whole address has another length in each family.
#[derive(Clone, Copy)]
pub(super) struct PersistenceDefaults {
    pub(super) timeout_s: u32,
    pub(super) prefix: Option<u8>,
    pub(super) across_ports: bool,
    pub(super) expire_quiescent: bool,
}

impl Default for PersistenceDefaults {
    fn default() -> Self {
        Self {
            timeout_s: PERSISTENCE_S,
            prefix: None,
            across_ports: true,
            expire_quiescent: false,
        }
    }
}

impl Default for Defaults {
    /// Defaults of last resort.
    fn default() -> Self {
        Self {
            port: None,
            protocol: ProtocolWord::Tcp,
            // As ipvsadm.
            scheduler: SchedulerWord::Wlc,
            flags: Flags::default(),
            fallback: true,
            timeouts: Timeouts::default(),
            sloppy: false,
            persistence: None,
            one_packet: false,
            no_server: NoServer::default(),
            removed_servers: RemovedServers::default(),
            method: MethodWord::Nat,
            tunnel: Tunnel::Ipip,
            weight: 1,
            thresholds: Thresholds::default(),
            checks: Arc::from([]),
            on_down: OnDown::default(),
            until_checked: UntilChecked::default(),
            quorum: 1,
            hysteresis: 0,
            slow_start_s: 0,
        }
    }
}
