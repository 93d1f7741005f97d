//! Virtual services: what clients connect to, and how a destination is chosen.

use core::sync::atomic::AtomicU64;

/// Whose packet it is, as the maps of endpoints say it in 32 bits: endpoint id (low half) and service id.
///
/// A service has one or more endpoints; a connection is of an endpoint, a destination of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Served(pub u32);

impl Served {
    /// Of an endpoint of a service.
    #[inline(always)]
    #[must_use]
    pub const fn new(endpoint: u16, service: u16) -> Self {
        Self(endpoint as u32 | (service as u32) << 16)
    }

    /// Endpoint id.
    #[inline(always)]
    #[must_use]
    pub const fn endpoint(self) -> u16 {
        self.0 as u16
    }

    /// Service id.
    #[inline(always)]
    #[must_use]
    pub const fn service(self) -> u16 {
        (self.0 >> 16) as u16 & !Self::ON_CHANGE
    }

    /// Of a service that tracks connections on change only ([`service::ON_CHANGE`]).
    #[inline(always)]
    #[must_use]
    pub const fn tracking_on_change(self) -> Self {
        Self(self.0 | (Self::ON_CHANGE as u32) << 16)
    }

    /// Whether the service tracks connections on change only. It stands here, in the one word that every packet of a service
    /// reads anyway, so that a hit of another service need not ask the service's record.
    #[inline(always)]
    #[must_use]
    pub const fn tracks_on_change(self) -> bool {
        (self.0 >> 16) as u16 & Self::ON_CHANGE != 0
    }

    /// The highest bit of the service id, which no id has.
    const ON_CHANGE: u16 = 1 << 15;
}

/// An address, port (or range of ports) and protocol that clients connect to. Looked at for NAT replies only.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Virtual address.
    pub address: [u8; 16],
    /// Virtual port, network order; the first one of a range.
    pub port: [u8; 2],
    /// The last port of a range, network order; else the same as `port`.
    pub last_port: [u8; 2],
    /// The service it is of; 0: the id is not in use.
    pub service: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
}

/// A prefix of ports of an address and a protocol, IPv4: key of a longest-prefix map, the port's bits last.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RangeKey4 {
    /// Virtual address.
    pub address: [u8; 4],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub zero: u8,
    /// Virtual port, network order.
    pub port: [u8; 2],
}

/// A prefix of ports of an address and a protocol, IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RangeKey6 {
    /// Virtual address.
    pub address: [u8; 16],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub zero: u8,
    /// Virtual port, network order.
    pub port: [u8; 2],
}

/// Bits of a [`RangeKey4`] before those of the port.
pub const RANGE_BITS4: u32 = 48;
/// Bits of a [`RangeKey6`] before those of the port.
pub const RANGE_BITS6: u32 = 144;

/// How a service chooses a destination for a new connection: IPVS's schedulers.
pub mod scheduler {
    /// Slots are taken in turn (`rr`, and `wrr` over an interleaved table).
    pub const CURSOR: u8 = 0;
    /// The slot is the hash of the client (`mh`); slots are a Maglev table.
    pub const MAGLEV: u8 = 1;
    /// The slot is the hash of the client as IPVS computes it (`sh`); there are [`HASH_SLOTS`].
    pub const SOURCE: u8 = 2;
    /// The slot is the hash of the virtual address as IPVS computes it (`dh`); there are [`HASH_SLOTS`].
    pub const DESTINATION: u8 = 3;
    /// From here on slots are the destinations in their configured order, and live counts decide.
    pub const FIRST_COUNTING: u8 = 4;
    /// Fewest connections (`lc`).
    pub const LC: u8 = 4;
    /// Fewest connections for its weight (`wlc`).
    pub const WLC: u8 = 5;
    /// Shortest expected delay (`sed`).
    pub const SED: u8 = 6;
    /// Never queue (`nq`).
    pub const NQ: u8 = 7;
    /// Weighted failover (`fo`).
    pub const FO: u8 = 8;
    /// Weighted overflow (`ovf`).
    pub const OVF: u8 = 9;
    /// The better of two drawn by weight (`twos`).
    pub const TWOS: u8 = 10;
    /// Locality-based (`lblc`).
    pub const LBLC: u8 = 11;
    /// Locality-based with replication (`lblcr`).
    pub const LBLCR: u8 = 12;

    /// Slots of `sh` and `dh` (`IP_VS_SH_TAB_SIZE`, `IP_VS_DH_TAB_SIZE`).
    pub const HASH_SLOTS: u32 = 256;
}

/// A slot of a scheduling table, 32 bits: who gets its new connections (low half), and (high half) who had it before.
///
/// Only tables of services that track on change ([`service::ON_CHANGE`]) have anything in the high half. A slot with
/// something there is *marked*: its connections are tracked, and one that is not known belongs to the destination that stands
/// there. That is the owner itself where everybody else's connections are known by now.
pub mod slot {
    /// A slot's word.
    #[inline(always)]
    #[must_use]
    pub const fn new(owner: u32, previous: u32) -> u32 {
        owner & 0xffff | previous << 16
    }

    /// Destination id of its new connections; 0: nobody's.
    #[inline(always)]
    #[must_use]
    pub const fn owner(slot: u32) -> u32 {
        slot & 0xffff
    }

    /// Destination id of those that are not known; 0: the slot is not marked.
    #[inline(always)]
    #[must_use]
    pub const fn previous(slot: u32) -> u32 {
        slot >> 16
    }
}

/// Flags of a [`Service`].
pub mod service {
    /// Hashing schedulers: the client's port counts too (`sh-port`, `mh-port`).
    pub const PORT: u16 = 1;
    /// Hashing schedulers: where the mapped destination is out, another one is taken (`sh-fallback`, `mh-fallback`).
    pub const FALLBACK: u16 = 2;
    /// UDP: each datagram is scheduled anew, no connection is kept.
    pub const ONE_PACKET: u16 = 4;
    /// TCP connections may begin in the middle.
    pub const SLOPPY: u16 = 8;
    /// A client's connections go to the same destination: see [`super::Template`].
    pub const PERSISTENT: u16 = 16;
    /// Persistence holds for each endpoint and port of its own.
    pub const PERSISTENT_PER_PORT: u16 = 32;
    /// A destination of weight 0 gets no new connection by persistence either (`expire_quiescent_template`).
    pub const EXPIRE_QUIESCENT: u16 = 64;
    /// `mh`: connections are tracked in those slots only whose destination has changed; everywhere else a packet goes where
    /// the table says. Keys of its endpoints say so too: [`super::Served::tracks_on_change`].
    pub const ON_CHANGE: u16 = 128;
    /// The director's own, which the packet path does not look at: a service that tracks on change and whose slots have never
    /// settled, because not everybody in them has been checked yet. It stands here so that the next director finds it.
    pub const YOUNG: u16 = 256;
    /// The director's own: connections were tracked on change before, so that some may have no entry and go by the table that
    /// they began with.
    pub const WAS_ON_CHANGE: u16 = 512;
}

/// What a client gets when no destination is available.
pub mod no_server {
    /// ICMP port unreachable, as IPVS.
    pub const ICMP: u8 = 0;
    /// A TCP reset; for UDP as [`ICMP`].
    pub const RESET: u8 = 1;
    /// Nothing.
    pub const SILENT: u8 = 2;
}

/// What becomes of a packet of a connection whose destination is [`super::destination::GONE`].
pub mod removed {
    /// As if there were no connection (IPVS: `expire_nodest_conn` 1).
    pub const RESCHEDULE: u8 = 0;
    /// It is dropped (IPVS: `expire_nodest_conn` 0).
    pub const DROP: u8 = 1;
}

/// A virtual service. Looked at for new connections only, never on a hit.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// First slot of the scheduling table. With `slots` one aligned 8-byte word: a new table is switched in with one store.
    pub first_slot: u32,
    /// Number of slots; 0: no destination is available.
    pub slots: u32,
    /// One of [`scheduler`].
    pub scheduler: u8,
    /// 4 or 6; 0: the id is not in use.
    pub family: u8,
    /// One of [`no_server`].
    pub no_server: u8,
    /// One of [`removed`].
    pub removed: u8,
    /// Flags of [`service`].
    pub flags: u16,
    /// Zero.
    pub zero: u16,
    /// Bits of a client's address that persistence goes by.
    pub persistence_mask: [u8; 16],
}

/// Flags of a [`Load`].
pub mod load {
    /// Its upper threshold was reached and its lower one not yet again: it gets no new connections.
    pub const OVERLOADED: u64 = 1;
}

/// What a destination has to do, for schedulers that count and for thresholds. Memory-mapped by userspace.
///
/// `active` and `inactive` are raised and lowered atomically by the packet path; the director adds what a pass over the
/// connection tables found missing. `flags` is written by both, by plain stores: the packet path sets
/// [`load::OVERLOADED`], the director clears it. The rest is the director's.
#[repr(C, align(8))]
#[derive(Debug, Default)]
pub struct Load {
    /// Connections that IPVS calls active. Two's complement: it may be below 0 for a moment.
    pub active: AtomicU64,
    /// The others.
    pub inactive: AtomicU64,
    /// Share of new connections; 0: none.
    pub weight: AtomicU64,
    /// Connections from which on it is overloaded; 0: never.
    pub upper: AtomicU64,
    /// Connections below which it is not any more; 0: three quarters of `upper`.
    pub lower: AtomicU64,
    /// Flags of [`load`].
    pub flags: AtomicU64,
}

/// Names a client that persistence keeps at a destination.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TemplateKey {
    /// The client's address under [`Service::persistence_mask`].
    pub client: [u8; 16],
    /// Service id.
    pub service: u16,
    /// Endpoint id with [`service::PERSISTENT_PER_PORT`], else 0.
    pub endpoint: u16,
    /// Virtual port (network order) with [`service::PERSISTENT_PER_PORT`], else 0.
    pub port: [u8; 2],
    /// Zero.
    pub zero: u16,
}

/// Where persistence sends a client (IPVS: a connection template).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// Destination id.
    pub destination: u32,
    /// Table clock when it was last used for a new connection, or seen to have one.
    pub seen_s: u32,
}

/// Names a destination address in the cache of `lblc` and `lblcr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalityKey {
    /// The address.
    pub address: [u8; 16],
    /// First slot of the service's table: with another table the cache begins anew.
    pub first_slot: u32,
    /// Service id.
    pub service: u16,
    /// Zero.
    pub zero: u16,
}

/// Which destinations serve an address. All CPUs write it, by plain stores of whole words: what is lost in a race is
/// decided again by the next connection.
#[repr(C, align(8))]
#[derive(Debug, Default)]
pub struct Locality {
    /// `lblcr`: the set, a bit for each slot of the service's table.
    pub members: [AtomicU64; super::limits::LOCALITY_WORDS],
    /// `lblc`: destination id. `lblcr`: when the set last grew or shrank, by the table clock.
    pub word: AtomicU64,
    /// Table clock when it was last used.
    pub seen_s: AtomicU64,
}

const _: () = {
    // Ids leave room for what stands beside them in a word.
    assert!(super::limits::SERVICES <= 1 << 15);
    assert!(super::limits::DESTINATIONS <= 1 << 16);
    assert!(size_of::<Endpoint>() == 24);
    assert!(size_of::<RangeKey4>() == 8);
    assert!(size_of::<RangeKey6>() == 20);
    assert!(size_of::<Service>() == 32);
    assert!(size_of::<Load>() == 48);
    assert!(size_of::<TemplateKey>() == 24);
    assert!(size_of::<Template>() == 8);
    assert!(size_of::<LocalityKey>() == 24);
};
