//! The configuration as it is written in YAML. The comments on the keys are the descriptions in the JSON Schema.
//!
//! Nothing is required here and no value has a meaning yet: [`super::resolve`] finds all mistakes at once.

use schemars::JsonSchema;
use serde::Deserialize;

use super::addresses::{Address, RealServerWord, SourcePrefix4, SourcePrefix6};
use super::kinds::{
    FlagWord, FragmentTimeout, InstanceName, InterfaceName, MethodWord, Number, Port,
    SchedulerWord, ServiceName, SocketPath, TunnelWord, Weight, Word,
};
use super::limits;
use super::model::{Protocol, XdpMode};
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
    /// Port of services.
    pub(super) port: Optional<Value<Port>>,
    /// Protocol of services. Default: tcp.
    pub(super) protocol: Optional<Value<Word<Protocol>>>,
    /// Scheduler of services. Default: wrr.
    pub(super) scheduler: Optional<Value<Word<SchedulerWord>>>,
    /// Flags of those services whose scheduler has them.
    pub(super) flags: Optional<Vec<Value<Word<FlagWord>>>>,
    /// How packets reach real servers. Default: nat.
    pub(super) method: Optional<Value<Word<MethodWord>>>,
    /// Encapsulation of the method tun. Default: ipip.
    pub(super) tunnel: Optional<TunnelChoice>,
    /// Weight of real servers. Default: 1.
    pub(super) weight: Optional<Value<Weight>>,
}

/// A virtual service: an address, port and protocol that clients connect to.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Service", extend("required" = ["address"]))]
pub(super) struct ServiceFile {
    /// Name for operators. Default: like tcp/192.0.2.10:80.
    pub(super) name: Optional<Value<ServiceName>>,
    /// Virtual address.
    pub(super) address: Optional<Value<Address>>,
    /// Virtual port.
    pub(super) port: Optional<Value<Port>>,
    /// Transport protocol.
    pub(super) protocol: Optional<Value<Word<Protocol>>>,
    /// How a real server is chosen for a new connection.
    pub(super) scheduler: Optional<Value<Word<SchedulerWord>>>,
    /// Flags of the scheduler. mh-port: hash the client's port too, not only its address.
    pub(super) flags: Optional<Located<Vec<Value<Word<FlagWord>>>>>,
    /// How packets reach the real servers.
    pub(super) method: Optional<Value<Word<MethodWord>>>,
    /// Encapsulation of the method tun.
    pub(super) tunnel: Optional<TunnelChoice>,
    /// Weight of the real servers.
    pub(super) weight: Optional<Value<Weight>>,
    /// Real servers; none are allowed, clients are then told that nobody is there.
    pub(super) real_servers: Option<Vec<ShortOrLong<RealServerWord, RealServerFile>>>,
}

/// A real server with more than its address.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "RealServer", extend("required" = ["address"]))]
pub(super) struct RealServerFile {
    /// Its address.
    pub(super) address: Optional<Value<Address>>,
    /// Its port; other than the service's only with the method nat. Default: the service's port.
    pub(super) port: Optional<Value<Port>>,
    /// Share of new connections relative to the others; 0: no new connections, old ones stay.
    pub(super) weight: Optional<Value<Weight>>,
    /// How packets reach it. nat: rewritten, replies come back through the director. dr: only the MAC address
    /// is rewritten. tun: encapsulated.
    pub(super) method: Optional<Value<Word<MethodWord>>>,
    /// Encapsulation of the method tun.
    pub(super) tunnel: Optional<TunnelChoice>,
}

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
