//! Limits of the tables, in one place. The configuration is checked against them before anything is loaded.

/// Virtual services: a service id is 16 bits wide and 0 means none.
pub const SERVICES: u32 = 4096;
/// Real servers counted once for each service they stand in; id 0 means none.
pub const DESTINATIONS: u32 = 65_536;
/// Entries of all scheduling tables together, old and new ones side by side during a switch.
pub const SLOTS: u32 = 1 << 22;
/// Addresses, ports and protocols of all services together; an endpoint id is 16 bits wide and 0 means none.
pub const ENDPOINTS: u32 = 16_384;
/// Endpoints that may share one real server (address, port, protocol) under NAT.
pub const ENDPOINTS_PER_REAL_SERVER: usize = 16;
/// Real servers of a service whose scheduler counts connections: each new connection looks at all of them.
pub const COUNTED: u32 = 1024;
/// Words of a set of them, a bit for each.
pub const LOCALITY_WORDS: usize = COUNTED as usize / 64;
/// Addresses in the cache of `lblc` and `lblcr`.
pub const LOCALITIES: u32 = 16_384;
/// Clients that persistence remembers; beyond, the longest unused give way.
pub const TEMPLATES: u32 = 1 << 18;
/// Slots that a scheduler looks at for a destination that is not out. With so many out that this does not find one, the
/// client tries again.
pub const PROBES: u32 = 8192;
/// Prefixes of all port ranges, for each address family: a range of any length takes at most 30.
pub const RANGES: u32 = 65_536;
/// Network interfaces that a packet may leave by.
pub const INTERFACES: u32 = 64;
/// Routes mirrored from the kernel's main table, for each address family.
pub const ROUTES: u32 = 16_384;
/// Distinct next hops (gateways) of those routes; id 0 means "leave it to the kernel".
pub const NEXT_HOPS: u32 = 4096;
/// Neighbours on directly connected networks, for each address family.
pub const NEIGHBOURS: u32 = 65_536;
/// Addresses of virtual services and of NAT real servers, for each address family.
pub const ADDRESSES: u32 = 131_072;
/// Datagrams whose fragments are being followed, for each address family.
pub const FRAGMENTS: u32 = 16_384;
/// Bytes of the ring in which early fragments wait for their datagram's first one.
pub const HELD_BYTES: u32 = 1 << 20;
/// Largest frame that can be held for its first fragment.
pub const HELD_FRAME_BYTES: usize = 2048;
/// CPUs with a connection table of their own.
pub const CPUS: u32 = 128;
/// IPv6 extension headers walked before a packet is left to the kernel.
pub const IPV6_EXTENSION_HEADERS: usize = 6;
/// Longest lease of a node.
pub const LEASE: core::time::Duration = core::time::Duration::from_secs(600);
/// Peers' connections that are learned in one run of the program: as many as a packet holds (`bpf_prog_test_run_xdp` in
/// `net/bpf/test_run.c`: a page without its head and tail room).
pub const LEARNED_AT_ONCE: usize = 80;
/// Smallest number of buckets of a CPU's connection table.
pub const MIN_BUCKETS: u32 = 64;
