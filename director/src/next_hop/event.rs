//! What the kernel tells about the network, in plain values.

use std::net::IpAddr;

use ipnet::IpNet;

/// One change of the node's network, or one entry of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Forget everything: the whole state follows in the same batch. Link-layer addresses that are in use are kept
    /// until the dump, or a probe, says otherwise.
    Resync,
    /// A link appeared or changed.
    Link(Link),
    /// A link is gone, with everything that hung on it.
    LinkGone {
        /// Interface index.
        ifindex: u32,
    },
    /// One of the node's own addresses appeared or changed.
    Address {
        /// Interface that has it.
        ifindex: u32,
        /// The address.
        address: IpAddr,
        /// Length of its network's prefix, in bits.
        prefix_len: u8,
        /// Whether packets of the node may come from it.
        as_source: AsSource,
    },
    /// One of the node's own addresses is gone.
    AddressGone {
        /// Interface that had it.
        ifindex: u32,
        /// The address.
        address: IpAddr,
    },
    /// A route of the main table appeared.
    Route(RouteEntry, Placement),
    /// A route of the main table is gone. Of a route with several next hops, those named here are taken away.
    RouteGone(RouteEntry),
    /// A neighbour appeared or changed.
    Neighbour {
        /// Interface it is reached by.
        ifindex: u32,
        /// Its address.
        address: IpAddr,
        /// Its link-layer address, where the kernel knows one.
        mac: Option<[u8; 6]>,
        /// How sure the kernel is.
        state: NeighbourState,
    },
    /// The kernel forgot a neighbour.
    NeighbourGone {
        /// Interface it was reached by.
        ifindex: u32,
        /// Its address.
        address: IpAddr,
    },
}

/// Whether an address is fit as a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsSource {
    /// It is.
    Preferred,
    /// Where there is no other: virtual IPv6 addresses are such.
    Deprecated,
    /// Tentative, or found to be a duplicate.
    Never,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub ifindex: u32,
    /// Interface name.
    pub name: String,
    /// Ethernet address; all zero where the link is not an Ethernet one.
    pub mac: [u8; 6],
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Switched on and with a carrier.
    pub up: bool,
    /// Whether its frames leave by another link.
    pub kind: LinkKind,
}

/// Whether a link's frames leave by another link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// They leave by the link itself, as far as the director knows.
    Plain,
    /// They leave by the parent, with a VLAN tag.
    Vlan {
        /// Interface index of the link below.
        parent: u32,
        /// VLAN identifier.
        id: u16,
        /// Kind of tag.
        protocol: VlanProtocol,
    },
}

/// Kind of a VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VlanProtocol {
    /// 802.1Q, EtherType 0x8100.
    Dot1q,
    /// 802.1ad, EtherType 0x88a8.
    Dot1ad,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// Destination prefix, host bits zero.
    pub destination: IpNet,
    /// Metric (the kernel's "priority"): the lowest is used.
    pub metric: u32,
    /// Next hops; several where the kernel spreads over them; none where the route leads nowhere.
    pub hops: Vec<Hop>,
    /// What the route does.
    pub kind: RouteKind,
    /// Preferred source address.
    pub source: Option<IpAddr>,
}

/// One next hop of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Gateway, not necessarily of the destination's family (RFC 5549); none: the destination itself is on the link.
    pub gateway: Option<IpAddr>,
    /// Interface index.
    pub ifindex: Option<u32>,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Forwards every packet for its prefix.
    Unicast,
    /// Forwards only some of the packets for its prefix: by type of service, or (IPv6) by source prefix. The packet
    /// path looks at neither.
    Selective {
        /// Type of service, 0: any.
        tos: u8,
        /// Source prefix.
        from: Option<IpNet>,
    },
    /// Anything else: refuses, swallows, encapsulates.
    Other,
}

/// Where a new route stands among those with the same destination and metric (only IPv4 has several).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// In place of the first one.
    Replace,
    /// Before them (`ip route prepend`, the kernel's default).
    First,
    /// After them (`ip route append`, and the entries of a dump).
    Last,
}

/// How sure the kernel is of a neighbour (the NUD states of `linux/neighbour.h`, those alike to us put together).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Confirmed a moment ago.
    Reachable,
    /// Known but not confirmed lately: STALE, DELAY, PROBE.
    Stale,
    /// Being asked for, or not known: INCOMPLETE, NONE.
    Incomplete,
    /// Did not answer.
    Failed,
    /// Written by the operator, never asked for: PERMANENT, NOARP.
    Permanent,
}
