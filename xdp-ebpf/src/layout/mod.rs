//! The shape of every table that the packet path and userspace share.
//!
//! Plain old data, `repr(C)`, no padding that is not named, sizes asserted below. Addresses, ports and
//! MAC addresses are in network byte order, as they stand in a packet; everything else is in host order.
//! An IPv4 address in a 16-byte field stands in its first 4 bytes, the rest is zero.
//!
//! A change of any layout, map name or meaning here raises [`LAYOUT_VERSION`]: a director does not adopt
//! pinned tables of another version.

/// Version of everything in this file. Part of the pin directory's content (see the director's `datapath`).
pub const LAYOUT_VERSION: u32 = 9;

use core::mem::offset_of;
use core::sync::atomic::AtomicU64;

pub mod limits;
pub mod maps;
mod reason;
mod services;
mod stage;

pub use reason::{REASONS, Reason};
pub use services::{
    Endpoint, Load, Locality, LocalityKey, RANGE_BITS4, RANGE_BITS6, RangeKey4, RangeKey6, Served,
    Service, Template, TemplateKey, load, no_server, removed, scheduler, service, slot,
};
pub use stage::{STAGES, Stage, programs};

/// What the packet path needs to know about the node. Written by the director only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The clock of the connection tables, in seconds. The director advances it once a second; while no director
    /// runs it stands still, so that a director that was down for an hour does not find every connection idle. Unless
    /// nothing came through meanwhile, because its lease had run out: then they were idle.
    pub now_s: u32,
    /// CPUs that have a connection table: CPU `n` uses table `n`, a CPU beyond passes everything to the kernel.
    pub cpus: u32,
    /// Buckets of one CPU's IPv4 table; at least [`limits::MIN_BUCKETS`].
    pub buckets4: u32,
    /// Buckets of one CPU's IPv6 table; at least [`limits::MIN_BUCKETS`].
    pub buckets6: u32,
    /// Secret of the connection tables' hash, so that nobody can aim at a bucket.
    pub seed: u64,
    /// ICMP messages that one CPU may send in a second; also the size of a burst.
    pub icmp_per_second: u32,
    /// How long the fragments of a datagram are followed, in milliseconds.
    pub fragment_timeout_ms: u32,
    /// Bits of a tunnel's outer IPv4 source address that vary with the flow (host order; 0: none do).
    pub spread4_mask: u32,
    /// Flags of [`settings`].
    pub flags: u32,
    /// The node's own IPv4 address: source of ICMP messages to real servers. All zero: none, such messages are dropped.
    pub own4: [u8; 4],
    /// Up to when the clock has been advanced, in seconds since the machine was switched on (`CLOCK_BOOTTIME`); 0: not yet.
    pub advanced_at_s: u32,
    /// The node's own IPv6 address, as `own4`.
    pub own6: [u8; 16],
}

/// Flags of [`Settings`].
pub mod settings {
    /// There are services on ranges of ports: what is nobody's by its exact port is looked up once more.
    pub const RANGES: u32 = 1;
    /// The connection tables are being carried over to ones of another size, and this is the last moment of it: nothing new
    /// is entered. A packet that would begin a connection is dropped, for its sender to send again.
    pub const MOVING: u32 = 2;
}

/// (address, port, protocol) of a virtual service or of a NAT real server, IPv4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint4 {
    /// Address, network order.
    pub address: [u8; 4],
    /// Port, network order.
    pub port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub zero: u8,
}

/// (address, port, protocol) of a virtual service or of a NAT real server, IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint6 {
    /// Address, network order.
    pub address: [u8; 16],
    /// Port, network order.
    pub port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub zero: u8,
}

/// Where a packet goes on the wire: interface and MAC addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface whose program or devmap entry sends it; 0: not resolved.
    pub ifindex: u32,
    /// MAC address of the next hop.
    pub destination: [u8; 6],
    /// MAC address of the interface.
    pub source: [u8; 6],
    /// VLAN tags to send with (host order TCI): outer (802.1ad) then inner (802.1Q); 0: none. One tag stands in `[0, tag]`.
    pub vlan: [u16; 2],
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Slot in the devmap.
    pub egress: u16,
}

impl NextHop {
    /// Both addresses, as they stand in a frame: in words, so that they are moved in three instructions. (An array of bytes is moved
    /// by twos.)
    #[inline(always)]
    #[must_use]
    pub fn macs(&self) -> [u32; 3] {
        const { assert!(offset_of!(Self, destination) == 4 && offset_of!(Self, source) == 10) };
        // SAFETY: twelve bytes of plain data of this record, behind its first word and so aligned as that is.
        unsafe {
            core::ptr::from_ref(self)
                .cast::<u32>()
                .add(1)
                .cast::<[u32; 3]>()
                .read()
        }
    }
}

/// How packets reach a real server.
pub mod method {
    /// Destination address and port rewritten; replies come back through the director.
    pub const NAT: u8 = 1;
    /// Direct routing: only the destination MAC address is rewritten.
    pub const DR: u8 = 2;
    /// Tunnel: IP in IP (RFC 2003, RFC 2473, RFC 4213), in all four mixtures of families.
    pub const IPIP: u8 = 3;
    /// Tunnel: generic UDP encapsulation, version 0.
    pub const GUE: u8 = 4;
    /// Tunnel: generic routing encapsulation (RFC 2784), no options.
    pub const GRE: u8 = 5;
}

/// Flags of a [`Destination`].
pub mod destination {
    /// The real server's address is an IPv6 one.
    pub const IPV6: u8 = 1;
    /// No longer configured: gets no new connection, its record is kept while connections use it.
    pub const RETIRED: u8 = 2;
    /// Its connections are over: each end that sends is answered with a reset (a drain whose deadline has passed).
    pub const CLOSED: u8 = 4;
    /// No longer configured, and its connections do not go on: see [`super::removed`].
    pub const GONE: u8 = 8;
    /// Gets no new connection, by persistence neither (disabled, or being drained).
    pub const OUT: u8 = 16;
    /// It is the director itself: its method is DR, it has no next hop, and packets go to the kernel as they are.
    pub const LOCAL: u8 = 32;
}

/// A real server as one service sees it: exactly one cache line.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// One of [`method`]; 0: the id is not in use.
    pub method: u8,
    /// Flags of [`destination`].
    pub flags: u8,
    /// The real server's port under NAT, network order; 0: the port that the client used.
    pub port: [u8; 2],
    /// The service it stands in.
    pub service: u16,
    /// UDP destination port of GUE, network order.
    pub tunnel_port: [u8; 2],
    /// The real server's address.
    pub address: [u8; 16],
    /// Outer source address of a tunnel; the bits in `Settings::spread4_mask` (IPv6: the last 4 bytes) take the flow's hash.
    pub outer_source: [u8; 16],
    /// Where its packets go.
    pub next_hop: NextHop,
}

/// Traffic of a destination, on one CPU. One cache line.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections scheduled to it.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Bytes of their frames as received.
    pub in_bytes: u64,
    /// Packets to clients (NAT only: other replies are not seen).
    pub out_packets: u64,
    /// Bytes of their frames as received.
    pub out_bytes: u64,
    /// Zero.
    pub reserved: [u64; 3],
}

/// Endpoints that a NAT real server answers with the same address, port and protocol; the list ends with a 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedBy {
    /// Endpoint ids.
    pub endpoints: [u16; limits::ENDPOINTS_PER_REAL_SERVER],
}

/// How long this node may serve addresses that move between directors.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Lease {
    /// The kernel's ticks (`jiffies`) after which it may not; 0: there is no lease, and nothing is fenced.
    pub until: AtomicU64,
    /// Monotonic clock (nanoseconds) when it was renewed.
    pub renewed_ns: AtomicU64,
    /// How long it was renewed for, in nanoseconds.
    pub length_ns: AtomicU64,
}

/// What the program [`programs::LEASE`] is told, and tells: the bytes of the packet that it is run with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseOrder {
    /// One of [`lease_order`].
    pub order: u64,
    /// Ticks from now.
    pub ticks: u64,
    /// The same in nanoseconds, for people.
    pub length_ns: u64,
    /// Told: the kernel's ticks now.
    pub now_ticks: u64,
    /// Told: the monotonic clock now, in nanoseconds.
    pub now_ns: u64,
}

/// What a [`LeaseOrder`] orders.
pub mod lease_order {
    /// Nothing: it asks for the clocks only.
    pub const ASK: u64 = 0;
    /// The lease lasts so many ticks from now.
    pub const RENEW: u64 = 1;
    /// There is no lease any more, and nothing is fenced.
    pub const END: u64 = 2;
}

/// A peer's connection for the program [`programs::LEARN`], which is run with [`limits::LEARNED_AT_ONCE`] of them as the
/// bytes of the packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learn {
    /// [`crate::connection::key4`] in the first word, or [`crate::connection::key6`].
    pub key: [u64; 3],
    /// [`crate::connection::Value`].
    pub value: u64,
    /// Which table: one of [`learn`]. 0: none, this one is left out.
    pub table: u32,
    /// Told: one of [`learned`].
    pub outcome: u32,
}

/// Which table a [`Learn`] is for.
pub mod learn {
    /// For the narrow table.
    pub const NARROW: u32 = 1;
    /// For the wide table.
    pub const WIDE: u32 = 2;
}

/// What became of a [`Learn`].
pub mod learned {
    /// Nobody has looked at it.
    pub const NOTHING: u64 = 0;
    /// It stands in the table.
    pub const TAKEN: u64 = 1;
    /// What stood there is right: a packet here has used it since.
    pub const KNOWN_BETTER: u64 = 2;
    /// The table is full of what is worth more, or takes nothing new.
    pub const REFUSED: u64 = 3;
}

/// Flags of an address.
pub mod address {
    /// A virtual service has it.
    pub const VIRTUAL: u32 = 1;
    /// A NAT real server has it.
    pub const REAL: u32 = 2;
    /// It moves between directors: once this node's lease has run out, nothing that is sent to it is taken.
    pub const LEASED: u32 = 4;
}

/// Which of the MAC addresses with the same last byte are the node's own. One word for all of them makes the packet
/// path's check one look into an array.
pub mod own_mac {
    /// Any may be: several of the node's end so, or nobody has said yet.
    pub const ANY: u64 = 0;
    /// None is.
    pub const NONE: u64 = u64::MAX;
    /// The bits of a word that an address takes.
    pub const MASK: u64 = (1 << 48) - 1;
    /// Number of last bytes.
    pub const ENTRIES: u32 = 256;

    /// The word of the only one that is.
    #[must_use]
    pub const fn only(mac: [u8; 6]) -> u64 {
        u64::from_le_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0, 0])
    }

    /// Where its word stands.
    #[must_use]
    pub const fn index(word: u64) -> u32 {
        (word >> 40) as u32 & 0xff
    }
}

/// A route of the kernel's main table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Next-hop id of the gateway; 0: see `ifindex`.
    pub next_hop: u32,
    /// Without a gateway: interface of the directly connected network; 0: leave the packet to the kernel.
    pub ifindex: u32,
}

/// Key of a directly connected IPv4 host.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neighbour4 {
    /// Its address.
    pub address: [u8; 4],
    /// The interface it is reached by.
    pub ifindex: u32,
}

/// Key of a directly connected IPv6 host.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neighbour6 {
    /// Its address.
    pub address: [u8; 16],
    /// The interface it is reached by.
    pub ifindex: u32,
}

/// A fragmented IPv4 datagram (RFC 791: source, destination, protocol, identification).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey4 {
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
    /// Identification, network order.
    pub id: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub zero: u8,
}

/// A fragmented IPv6 datagram (RFC 8200 section 4.5: source, destination, identification).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey6 {
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
    /// Identification, network order.
    pub id: [u8; 4],
}

/// What the first fragment decided for the others.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Not valid from this time on (monotonic clock, nanoseconds).
    pub expires_ns: u64,
    /// Destination id.
    pub destination: u32,
    /// Hash of the flow, for the outer source of a tunnel.
    pub flow: u32,
    /// Endpoint id.
    pub endpoint: u16,
    /// 1: a reply of a NAT real server to a client.
    pub reply: u8,
    /// Zero.
    pub zero: [u8; 5],
    /// Payload bytes seen so far (atomic).
    pub seen_bytes: u64,
    /// Payload bytes of the whole datagram, known once its last fragment was seen; else 0 (atomic).
    pub total_bytes: u64,
}

/// A fragment that came before its datagram's first one, on its way to userspace, which hands it in again later.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct HeldFrame {
    /// Interface it came in by.
    pub ifindex: u32,
    /// Bytes of the frame.
    pub length: u32,
    /// When it came (monotonic clock, nanoseconds).
    pub at_ns: u64,
    /// The frame; only the first `length` bytes mean anything.
    pub frame: [u8; limits::HELD_FRAME_BYTES],
}

/// Tokens for ICMP messages of the packet path's own.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenBucket {
    /// When tokens were last added (monotonic clock, nanoseconds).
    pub filled_ns: u64,
    /// Tokens left.
    pub tokens: u64,
}

/// What one stage hands to the next.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scratch {
    /// For [`Stage::Answer`]: which message (one of [`answer`]).
    pub answer: u32,
    /// For [`Stage::Answer`]: MTU to tell.
    pub mtu: u32,
    /// For [`Stage::Answer`]: 1 when the packet came from a real server, so that the message needs the node's own address.
    pub from_real_server: u32,
    /// For [`Stage::Schedule`] and [`Stage::Deliver`]: whose packet it is, a [`Served`]'s number.
    pub served: u32,
    /// For [`Stage::Deliver`]: destination id.
    pub destination: u32,
    /// For [`Stage::Schedule`]: 1 when this CPU's table has been looked into, and does not know the connection.
    pub is_new: u32,
}

/// Memory in which the packet path keeps the numbers of a loop: see [`crate::tables::work`].
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Whatever the loop wants.
    pub words: [u64; 22],
    /// Kept from loop to loop, for each of the connection tables: how many newcomers in a row nobody was moved for, in a table that seems full.
    pub futile: [u64; 2],
}

/// Messages that [`Stage::Answer`] sends back to a packet's sender.
pub mod answer {
    /// ICMP time exceeded in transit (RFC 792 type 11; RFC 4443 type 3).
    pub const TIME_EXCEEDED: u32 = 1;
    /// ICMP fragmentation needed (RFC 1191), ICMPv6 packet too big (RFC 4443 type 2).
    pub const TOO_BIG: u32 = 2;
    /// ICMP port unreachable (RFC 792 type 3 code 3; RFC 4443 type 1 code 4): no real server is available.
    pub const PORT_UNREACHABLE: u32 = 3;
    /// TCP reset (RFC 9293 section 3.5.2): no real server is available.
    pub const RESET_NO_SERVER: u32 = 4;
    /// TCP reset: the connection's real server was drained and its deadline has passed.
    pub const RESET_CLOSED: u32 = 5;
}

const _: () = {
    assert!(size_of::<Settings>() == 64);
    assert!(size_of::<Endpoint4>() == 8);
    assert!(size_of::<Endpoint6>() == 20);
    assert!(size_of::<NextHop>() == 24);
    assert!(size_of::<Destination>() == 64);
    assert!(size_of::<Counters>() == 64);
    assert!(size_of::<Neighbour4>() == 8);
    assert!(size_of::<Neighbour6>() == 20);
    assert!(size_of::<FragmentKey4>() == 12);
    assert!(size_of::<FragmentKey6>() == 36);
    assert!(size_of::<Fragment>() == 40);
    assert!(size_of::<Learn>() == 40);
    assert!(size_of::<HeldFrame>() == 16 + limits::HELD_FRAME_BYTES);
};
