//! The configuration as it is written in YAML. The comments on the keys are the descriptions in the JSON Schema.
//!
//! Nothing is required here and no value has a meaning yet: [`super::resolve`] finds all mistakes at once.

use schemars::JsonSchema;
use serde::Deserialize;

use super::addresses::{
    Address, EndpointWord, RealServerWord, ServerAddress, SourcePrefix4, SourcePrefix6,
};
use super::alerts::AlertFile;
use super::checks::CheckChoices;
use super::kinds::{
    FlagWord, FragmentTimeout, InstanceName, InterfaceName, MethodWord, Number, PersistenceWord,
    Port, PortRange, ProtocolWord, SchedulerWord, Seconds, ServiceName, SlowStart, SocketPath,
    Switch, TrackWord, TunnelWord, Weight, Word,
};
use super::limits;
use super::model::{NoServer, OnDown, RemovedServers, UntilChecked, XdpMode};
use super::sync::SyncFile;
use super::value::{Located, Optional, ShortOrLong, Value};

/// Configuration of a director.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Director", extend("required" = ["interfaces"]))]
pub(super) struct File {
    /// Name of this director on its node; a directory name. Default: default.
    pub(super) instance: Optional<Value<InstanceName>>,
    /// Network interfaces that packets come in and leave by.
    pub(super) interfaces: Optional<Located<Vec<ShortOrLong<InterfaceName, InterfaceFile>>>>,
    /// Values for every service and real server that has none of its own.
    pub(super) defaults: Option<DefaultsFile>,
    /// Virtual services.
    pub(super) services: Option<Vec<Located<ServiceFile>>>,
    /// Who is told when something is down.
    pub(super) alerts: Optional<Located<Vec<Located<AlertFile>>>>,
    /// Settings of all tunnels.
    pub(super) tunnel: Option<TunnelSettingsFile>,
    /// How many connections the connection tables are made for; the memory is taken at start.
    pub(super) connections: Option<ConnectionsFile>,
    /// ICMP messages that each CPU may send in a second. Default: 100.
    pub(super) icmp_per_second: Optional<Value<Number<0, { limits::ICMP_PER_SECOND }>>>,
    /// How long the fragments of a datagram are followed, with its unit. Default: 1s.
    pub(super) fragment_timeout: Optional<Value<FragmentTimeout>>,
    /// Path of the operator's socket. Default: /run/director/INSTANCE.sock.
    pub(super) control: Optional<Value<SocketPath>>,
    /// Who is in charge of which virtual addresses, where there is more than one director.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub(super) heartbeat: Option<Located<heartbeat::config::File>>,
    /// With whom this director shares its connections, where there is more than one director.
    pub(super) sync: Optional<Located<SyncFile>>,
    /// Whether this file is loaded again when it changes, as after SIGHUP. Default: false.
    pub(super) watch: Optional<Value<Switch>>,
}

/// A network interface with more than its name.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Interface", extend("required" = ["name"]))]
pub(super) struct InterfaceFile {
    /// Its name, as in "ip link".
    pub(super) name: Optional<Value<InterfaceName>>,
    /// native: in the driver. generic: with every driver, but several times slower. Default: native.
    pub(super) mode: Optional<Value<Word<XdpMode>>>,
}

/// Values for every service and real server that has none of its own.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Defaults")]
pub(super) struct DefaultsFile {
    /// Port of services, or a range of ports, or any.
    pub(super) port: Optional<Value<PortRange>>,
    /// Protocol of services: tcp, udp or both. Default: tcp.
    pub(super) protocol: Optional<Value<Word<ProtocolWord>>>,
    /// Scheduler of services. Default: wlc.
    pub(super) scheduler: Optional<Value<Word<SchedulerWord>>>,
    /// Flags of those services whose scheduler has them.
    pub(super) flags: Optional<Vec<Value<Word<FlagWord>>>>,
    /// sh, dh, mh: whether another real server is taken where the mapped one is out. Default: true.
    pub(super) fallback: Optional<Value<Switch>>,
    /// Idle times after which connections are forgotten.
    pub(super) timeouts: Option<TimeoutsFile>,
    /// Whether TCP connections may begin in the middle. Default: false.
    pub(super) sloppy: Optional<Value<Switch>>,
    /// A client's connections go to the same real server: the time for which it is remembered, or off, or a mapping.
    pub(super) persistence: Optional<PersistenceChoice>,
    /// UDP: whether each datagram is scheduled anew. Default: false.
    pub(super) one_packet: Optional<Value<Switch>>,
    /// What a client gets when no real server is available: icmp (port unreachable), reset (TCP) or silent. Default: icmp.
    pub(super) no_server: Optional<Value<Word<NoServer>>>,
    /// What becomes of the connections of a real server that is removed: keep (they go on), reschedule or drop.
    /// Default: keep.
    pub(super) removed_servers: Optional<Value<Word<RemovedServers>>>,
    /// How packets reach real servers. Default: nat.
    pub(super) method: Optional<Value<Word<MethodWord>>>,
    /// Encapsulation of the method tun. Default: ipip.
    pub(super) tunnel: Optional<TunnelChoice>,
    /// Weight of real servers. Default: 1.
    pub(super) weight: Optional<Value<Weight>>,
    /// Connections from which on a real server gets no new ones; 0: no limit. Default: 0.
    pub(super) upper_threshold: Optional<Value<Threshold>>,
    /// Connections below which it gets new ones again; 0: three quarters of the upper one. Default: 0.
    pub(super) lower_threshold: Optional<Value<Threshold>>,
    /// Health check of real servers and fallback servers: its type, or a mapping, or a list of them. Default: none.
    pub(super) check: Optional<CheckChoices>,
    /// What becomes of a real server that is down: remove or quiesce. Default: remove.
    pub(super) on_down: Optional<Value<Word<OnDown>>>,
    /// How real servers take part before their first check: out or in. Default: out.
    pub(super) until_checked: Optional<Value<Word<UntilChecked>>>,
    /// Weight that must be up together, else the fallback servers take over. Default: 1.
    pub(super) quorum: Optional<Value<Quorum>>,
    /// How far from the quorum the weight must come to change that, either way. Default: 0.
    pub(super) hysteresis: Optional<Value<Quorum>>,
    /// Over how long a real server that came up gets its full weight, with its unit. Default: 0s.
    pub(super) slow_start: Optional<Value<SlowStart>>,
}

/// A virtual service: an address, port and protocol that clients connect to, or several of them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(
    rename = "Service",
    extend("oneOf" = [{ "required": ["address"] }, { "required": ["endpoints"] }])
)]
pub(super) struct ServiceFile {
    /// Name for operators. Default: like tcp/192.0.2.10:80.
    pub(super) name: Optional<Value<ServiceName>>,
    /// Virtual address.
    pub(super) address: Optional<Value<Address>>,
    /// Virtual port, or a range of ports, or any.
    pub(super) port: Optional<Value<PortRange>>,
    /// Transport protocol: tcp, udp or both.
    pub(super) protocol: Optional<Value<Word<ProtocolWord>>>,
    /// Instead of an address: several addresses and ports, as one service.
    pub(super) endpoints: Optional<Located<Vec<ShortOrLong<EndpointWord, EndpointFile>>>>,
    /// How a real server is chosen for a new connection.
    pub(super) scheduler: Optional<Value<Word<SchedulerWord>>>,
    /// Flags of the scheduler. sh-port, mh-port: hash the client's port too, not only its address.
    pub(super) flags: Optional<Located<Vec<Value<Word<FlagWord>>>>>,
    /// sh, dh, mh: whether another real server is taken where the mapped one is out.
    pub(super) fallback: Optional<Value<Switch>>,
    /// Idle times after which connections are forgotten.
    pub(super) timeouts: Option<TimeoutsFile>,
    /// mh: which connections are tracked: all, or on-change (those whose real server has changed). Default: all.
    pub(super) track: Optional<Value<Word<TrackWord>>>,
    /// With on-change: how long a change is remembered, with its unit. Default: the idle time of established connections.
    pub(super) hold_time: Optional<Value<Seconds>>,
    /// Whether TCP connections may begin in the middle.
    pub(super) sloppy: Optional<Value<Switch>>,
    /// A client's connections go to the same real server: the time for which it is remembered, or off, or a mapping.
    pub(super) persistence: Optional<PersistenceChoice>,
    /// UDP: whether each datagram is scheduled anew.
    pub(super) one_packet: Optional<Value<Switch>>,
    /// What a client gets when no real server is available: icmp (port unreachable), reset (TCP) or silent.
    pub(super) no_server: Optional<Value<Word<NoServer>>>,
    /// What becomes of the connections of a real server that is removed: keep (they go on), reschedule or drop.
    pub(super) removed_servers: Optional<Value<Word<RemovedServers>>>,
    /// How packets reach the real servers.
    pub(super) method: Optional<Value<Word<MethodWord>>>,
    /// Encapsulation of the method tun.
    pub(super) tunnel: Optional<TunnelChoice>,
    /// Weight of the real servers.
    pub(super) weight: Optional<Value<Weight>>,
    /// Connections from which on a real server gets no new ones; 0: no limit.
    pub(super) upper_threshold: Optional<Value<Threshold>>,
    /// Connections below which it gets new ones again; 0: three quarters of the upper one.
    pub(super) lower_threshold: Optional<Value<Threshold>>,
    /// Health check of the real servers: its type, or a mapping, or a list of them, all of which must succeed.
    pub(super) check: Optional<CheckChoices>,
    /// What becomes of a real server that is down: remove (out, as if it was not in the file) or quiesce (weight 0).
    pub(super) on_down: Optional<Value<Word<OnDown>>>,
    /// How real servers take part before their first check: out or in.
    pub(super) until_checked: Optional<Value<Word<UntilChecked>>>,
    /// Weight that must be up together, else the fallback servers take over.
    pub(super) quorum: Optional<Value<Quorum>>,
    /// How far from the quorum the weight must come to change that, either way.
    pub(super) hysteresis: Optional<Value<Quorum>>,
    /// Over how long a real server that came up gets its full weight, with its unit.
    pub(super) slow_start: Optional<Value<SlowStart>>,
    /// Names of services without which this one is down.
    pub(super) depends_on: Optional<Located<Vec<Value<ServiceName>>>>,
    /// Who answers while too few real servers are up. A loopback address is the director itself.
    pub(super) fallback_servers:
        Optional<Located<Vec<ShortOrLong<RealServerWord, RealServerFile>>>>,
    /// Real servers; none are allowed, clients are then told that nobody is there.
    pub(super) real_servers: Option<Vec<ShortOrLong<RealServerWord, RealServerFile>>>,
}

impl ServiceFile {
    /// Whether any of its servers has an upper threshold of its own.
    pub(super) fn has_upper_threshold_inside(&self) -> bool {
        let fallback = self.fallback_servers.as_ref().map(|it| &it.value);
        let mut servers = self.real_servers.iter().chain(fallback).flatten();
        servers
            .any(|it| matches!(it, ShortOrLong::Long(long) if long.value.upper_threshold.is_some()))
    }
}

/// A real server with more than its address.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "RealServer", extend("required" = ["address"]))]
pub(super) struct RealServerFile {
    /// Its address. A loopback address is the director itself.
    pub(super) address: Optional<Value<ServerAddress>>,
    /// Its port; other than the service's only with the method nat. Default: the service's port, and where it has
    /// several, the one that the client used.
    pub(super) port: Optional<Value<Port>>,
    /// Share of new connections relative to the others; 0: no new connections, old ones stay.
    pub(super) weight: Optional<Value<Weight>>,
    /// Connections from which on a real server gets no new ones; 0: no limit.
    pub(super) upper_threshold: Optional<Value<Threshold>>,
    /// Connections below which it gets new ones again; 0: three quarters of the upper one.
    pub(super) lower_threshold: Optional<Value<Threshold>>,
    /// How packets reach it. nat: rewritten, replies come back through the director. dr: only the MAC address
    /// is rewritten. tun: encapsulated.
    pub(super) method: Optional<Value<Word<MethodWord>>>,
    /// Encapsulation of the method tun.
    pub(super) tunnel: Optional<TunnelChoice>,
    /// Its health check, or a list of them, instead of the service's.
    pub(super) check: Optional<CheckChoices>,
}

/// One of several addresses and ports of a service.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Endpoint", extend("required" = ["address"]))]
pub(super) struct EndpointFile {
    /// Virtual address.
    pub(super) address: Optional<Value<Address>>,
    /// Virtual port, or a range of ports, or any. Default: the service's.
    pub(super) port: Optional<Value<PortRange>>,
    /// Transport protocol: tcp, udp or both. Default: the service's.
    pub(super) protocol: Optional<Value<Word<ProtocolWord>>>,
}

/// Idle times after which connections are forgotten, with their units. Defaults are IPVS's.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Timeouts")]
pub(super) struct TimeoutsFile {
    /// Established TCP connections. Default: 15m.
    pub(super) established: Optional<Value<Seconds>>,
    /// TCP connections of which only the SYN was seen. Default: 1m.
    pub(super) syn_received: Optional<Value<Seconds>>,
    /// The real server has closed; with dr and tun: the client has. Default: 2m.
    pub(super) fin_wait: Optional<Value<Seconds>>,
    /// Both ends have closed. Default: 2m.
    pub(super) time_wait: Optional<Value<Seconds>>,
    /// A reset was seen. Default: 10s.
    pub(super) close: Optional<Value<Seconds>>,
    /// The client has closed (nat). Default: 1m.
    pub(super) close_wait: Optional<Value<Seconds>>,
    /// UDP. Default: 5m.
    pub(super) udp: Optional<Value<Seconds>>,
}

/// Persistence: a time, or off, or a mapping where there is more to say.
pub(super) type PersistenceChoice = ShortOrLong<PersistenceWord, PersistenceFile>;

/// Persistence with more than its time.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Persistence")]
pub(super) struct PersistenceFile {
    /// How long after its last connection a client is remembered. Default: 5m.
    pub(super) timeout: Optional<Value<Seconds>>,
    /// Prefix length: clients with the same prefix are kept together. Default: 32, for IPv6 128.
    pub(super) granularity: Optional<Value<Number<1, 128>>>,
    /// Whether it holds across all addresses and ports of the service. Default: true.
    pub(super) across_ports: Optional<Value<Switch>>,
    /// Whether a real server of weight 0 gets no new connection by it either. Default: false.
    pub(super) expire_quiescent: Optional<Value<Switch>>,
}

/// A weight that must be up.
pub(super) type Quorum = Number<0, { limits::THRESHOLD }>;

/// A threshold.
pub(super) type Threshold = Number<0, { limits::THRESHOLD }>;

/// An encapsulation: a word, or a mapping where there is more to say.
pub(super) type TunnelChoice = ShortOrLong<Word<TunnelWord>, TunnelFile>;

/// An encapsulation with more than its name.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Tunnel", extend("required" = ["type"]))]
pub(super) struct TunnelFile {
    /// ipip: IP in IP. gue: generic UDP encapsulation. gre: generic routing encapsulation.
    #[serde(rename = "type")]
    pub(super) kind: Optional<Value<Word<TunnelWord>>>,
    /// UDP port on which real servers take GUE. Default: 6080.
    pub(super) port: Optional<Value<Port>>,
}

/// Settings of all tunnels.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "TunnelSettings")]
pub(super) struct TunnelSettingsFile {
    /// Outer source addresses towards IPv4 real servers. Default: 198.18.0.0/16.
    pub(super) source_ipv4: Optional<Value<SourcePrefix4>>,
    /// Outer source addresses towards IPv6 real servers. Default: 100::/64.
    pub(super) source_ipv6: Optional<Value<SourcePrefix6>>,
}

/// How many connections the connection tables are made for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Connections")]
pub(super) struct ConnectionsFile {
    /// IPv4 connections. Default: 1000000.
    pub(super) ipv4: Optional<Value<Number<1, { limits::CONNECTIONS }>>>,
    /// IPv6 connections. Default: 250000.
    pub(super) ipv6: Optional<Value<Number<1, { limits::CONNECTIONS }>>>,
}
