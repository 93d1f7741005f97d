//! Names of the maps, the same in the object, under the pin directory and in `bpftool map`.

/// One [`super::Settings`].
pub const SETTINGS: &str = "SETTINGS";
/// [`super::Endpoint4`] of a virtual service → [`super::Served`] (`u32`).
pub const SERVICES4: &str = "SERVICES4";
/// [`super::Endpoint6`] of a virtual service → [`super::Served`] (`u32`).
pub const SERVICES6: &str = "SERVICES6";
/// Line of [`SERVICES4`] → [`crate::lines::ServiceLine4`], memory-mapped by userspace: what is looked into first.
pub const SERVICE_LINES4: &str = "SERVICE_LINES4";
/// Line of [`SERVICES6`] → [`crate::lines::ServiceLine6`], as `SERVICE_LINES4`.
pub const SERVICE_LINES6: &str = "SERVICE_LINES6";
/// Prefix of [`super::RangeKey4`] → [`super::Served`] (`u32`): services on ranges of ports.
pub const RANGES4: &str = "RANGES4";
/// Prefix of [`super::RangeKey6`] → [`super::Served`] (`u32`).
pub const RANGES6: &str = "RANGES6";
/// Endpoint id → [`super::Endpoint`].
pub const ENDPOINTS: &str = "ENDPOINTS";
/// Service id → [`super::Service`].
pub const SERVICES: &str = "SERVICES";
/// Service id → position of `rr` and `wrr` (`u64`, raised by the packet path: BPF has atomics of that width only).
pub const CURSORS: &str = "CURSORS";
/// Slot → destination id (`u32`): the scheduling tables of all services.
pub const SLOTS: &str = "SLOTS";
/// Destination id → [`super::Destination`].
pub const DESTINATIONS: &str = "DESTINATIONS";
/// Destination id → [`super::Load`], memory-mapped by userspace.
pub const LOADS: &str = "LOADS";
/// [`super::TemplateKey`] → [`super::Template`] (LRU).
pub const TEMPLATES: &str = "TEMPLATES";
/// [`super::LocalityKey`] → [`super::Locality`] (LRU).
pub const LOCALITIES: &str = "LOCALITIES";
/// Destination id → [`super::Counters`], for each CPU.
pub const COUNTERS: &str = "COUNTERS";
/// [`super::Reason`] → packets (`u64`), for each CPU.
pub const REASONS: &str = "REASONS";
/// [`super::Endpoint4`] of a NAT real server (port 0: of a range of ports, which it keeps) → [`super::SharedBy`].
pub const REAL_SERVERS4: &str = "REAL_SERVERS4";
/// [`super::Endpoint6`] of a NAT real server → [`super::SharedBy`].
pub const REAL_SERVERS6: &str = "REAL_SERVERS6";
/// Line of [`REAL_SERVERS4`] → [`crate::lines::ServerLine4`], as `SERVICE_LINES4`.
pub const SERVER_LINES4: &str = "SERVER_LINES4";
/// Line of [`REAL_SERVERS6`] → [`crate::lines::ServerLine6`], as `SERVICE_LINES4`.
pub const SERVER_LINES6: &str = "SERVER_LINES6";
/// IPv4 address → [`super::address`] flags (`u32`).
pub const ADDRESSES4: &str = "ADDRESSES4";
/// IPv6 address → [`super::address`] flags (`u32`).
pub const ADDRESSES6: &str = "ADDRESSES6";
/// Word → bits of those addresses ([`crate::filter`]), memory-mapped by userspace.
pub const ADDRESS_FILTER: &str = "ADDRESS_FILTER";
/// IPv4 prefix → [`super::Route`].
pub const ROUTES4: &str = "ROUTES4";
/// IPv6 prefix → [`super::Route`].
pub const ROUTES6: &str = "ROUTES6";
/// Next-hop id → [`super::NextHop`] of a gateway.
pub const NEXT_HOPS: &str = "NEXT_HOPS";
/// [`super::Neighbour4`] → [`super::NextHop`] of a directly connected host.
pub const NEIGHBOURS4: &str = "NEIGHBOURS4";
/// [`super::Neighbour6`] → [`super::NextHop`] of a directly connected host.
pub const NEIGHBOURS6: &str = "NEIGHBOURS6";
/// Egress slot → interface index (a devmap).
pub const INTERFACES: &str = "INTERFACES";
/// Interface index (`u32`) → egress slot (`u32`): for next hops that the kernel, not the director, resolved.
pub const EGRESS: &str = "EGRESS";
/// Last byte of a MAC address → [`super::own_mac`] (`u64`): whose frames are taken.
pub const OWN_MACS: &str = "OWN_MACS";
/// Bucket → [`crate::connection::Bucket4`], memory-mapped by userspace. CPU `n` owns those from `n` times the settings' number on.
pub const CONNECTIONS4: &str = "CONNECTIONS4";
/// Bucket → [`crate::connection::Bucket6`], as `CONNECTIONS4`.
pub const CONNECTIONS6: &str = "CONNECTIONS6";
/// [`super::FragmentKey4`] → [`super::Fragment`] (LRU).
pub const FRAGMENTS4: &str = "FRAGMENTS4";
/// [`super::FragmentKey6`] → [`super::Fragment`] (LRU).
pub const FRAGMENTS6: &str = "FRAGMENTS6";
/// Ring of [`super::HeldFrame`]: fragments that came before their datagram's first one.
pub const HELD: &str = "HELD";
/// One [`super::TokenBucket`] for each CPU, for the ICMP messages that the packet path itself sends.
pub const LIMITER: &str = "LIMITER";
/// One [`super::Lease`]. In the object it is [`GLOBALS`].
pub const LEASE: &str = "LEASE";
/// What the object calls the map of its global variables, under whose name no file can be pinned.
pub const GLOBALS: &str = ".bss";
/// One [`super::Scratch`] for each CPU: what one stage hands to the next.
pub const SCRATCH: &str = "SCRATCH";
/// One [`super::Work`] for each CPU.
pub const WORK: &str = "WORK";
/// [`super::Stage`] → program.
pub const STAGES: &str = "STAGES";

/// What the object calls one of [`ALL`].
#[must_use]
pub const fn in_object(pinned: &'static str) -> &'static str {
    // The only name of those that begins so.
    match pinned.as_bytes() {
        b"LEASE" => GLOBALS,
        _ => pinned,
    }
}

/// All of the above: what is pinned, and what a director must find to adopt a running data path.
pub const ALL: [&str; 42] = [
    SETTINGS,
    SERVICES4,
    SERVICES6,
    SERVICE_LINES4,
    SERVICE_LINES6,
    RANGES4,
    RANGES6,
    ENDPOINTS,
    SERVICES,
    CURSORS,
    SLOTS,
    DESTINATIONS,
    LOADS,
    TEMPLATES,
    LOCALITIES,
    COUNTERS,
    REASONS,
    REAL_SERVERS4,
    REAL_SERVERS6,
    SERVER_LINES4,
    SERVER_LINES6,
    ADDRESSES4,
    ADDRESSES6,
    ADDRESS_FILTER,
    ROUTES4,
    ROUTES6,
    NEXT_HOPS,
    NEIGHBOURS4,
    NEIGHBOURS6,
    INTERFACES,
    EGRESS,
    OWN_MACS,
    CONNECTIONS4,
    CONNECTIONS6,
    FRAGMENTS4,
    FRAGMENTS6,
    HELD,
    LIMITER,
    LEASE,
    SCRATCH,
    WORK,
    STAGES,
];
