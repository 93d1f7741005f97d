//! What differs between IPv4 and IPv6, so that each rule of the packet path is written once.

use core::ptr::NonNull;

use crate::checksum::Delta;
use crate::layout::{
    Destination, Endpoint4, Endpoint6, Fragment, FragmentKey4, FragmentKey6, Neighbour4,
    Neighbour6, NextHop, Route, Settings, destination,
};
use crate::packet::Packet;
use crate::parse::{self, Network};
use crate::tables::Tables;
use crate::wire::{ipv4, ipv6, protocol};

/// An address family. Addresses are held as they stand in a packet.
pub trait Family: Copy {
    /// An address.
    type Address: Copy;
    /// Names a fragmented datagram.
    type FragmentKey: Copy;
    /// Whether it is IPv6.
    const IPV6: bool;
    /// Bytes of the header without options.
    const HEADER_LEN: usize;
    /// Protocol number of a packet of this family inside another.
    const AS_PAYLOAD: u8;
    /// Ether type.
    const ETHER_TYPE: u16;
    /// Its ICMP.
    const ICMP: u8;

    /// Whether two addresses are the same.
    fn is_same(one: Self::Address, other: Self::Address) -> bool;
    /// An address that tables hold.
    fn from_table(address: &[u8; 16]) -> Self::Address;
    /// An address as tables hold it.
    fn to_table(address: Self::Address) -> [u8; 16];
    /// What replacing an address does to a checksum.
    fn changed(delta: Delta, old: Self::Address, new: Self::Address) -> Delta;
    /// All of an address in 32 bits, for hashing.
    fn folded(address: Self::Address) -> u32;
    /// Whether it is the address of exactly one host (RFC 1122 section 3.2.2: only those are sent ICMP errors).
    fn is_unicast(address: Self::Address) -> bool;

    /// Flags of an address.
    fn address<T: Tables>(tables: &T, address: Self::Address) -> u32;
    /// Route to an address.
    fn route<T: Tables>(tables: &T, address: Self::Address) -> Option<Route>;
    /// A directly connected host.
    fn neighbour<T: Tables>(tables: &T, address: Self::Address, ifindex: u32) -> Option<&NextHop>;
    /// The kernel's own opinion on where a packet goes (slow).
    fn kernel_next_hop<P: Packet>(
        packet: &P,
        source: Self::Address,
        destination: Self::Address,
    ) -> NextHop;

    /// Reads the header at an address, and walks its extensions.
    fn network<P: Packet>(packet: &P, l3: usize) -> Option<Network<Self>>;
    /// Names the datagram that a fragment is of.
    fn fragment_key(network: &Network<Self>) -> Self::FragmentKey;
    /// What is known of a fragmented datagram.
    fn fragment<T: Tables>(tables: &T, key: &Self::FragmentKey) -> Option<NonNull<Fragment>>;
    /// Remembers a fragmented datagram.
    fn put_fragment<T: Tables>(tables: &T, key: &Self::FragmentKey, fragment: &Fragment) -> bool;
    /// Forgets a fragmented datagram.
    fn remove_fragment<T: Tables>(tables: &T, key: &Self::FragmentKey);

    /// The node's own address; `None` if it has none.
    fn own(settings: &Settings) -> Option<Self::Address>;

    /// Whether a destination's address is of this family.
    #[inline(always)]
    fn is_of(record: &Destination) -> bool {
        (record.flags & destination::IPV6 != 0) == Self::IPV6
    }
}

/// IPv4.
#[derive(Clone, Copy)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy)]
pub struct V6;

#[inline(always)]
pub(crate) const fn endpoint4(address: u32, port: u16, protocol: u8) -> Endpoint4 {
    Endpoint4 {
        address: address.to_ne_bytes(),
        port: port.to_ne_bytes(),
        protocol,
        zero: 0,
    }
}

/// An IPv6 address in bytes.
#[inline(always)]
#[must_use]
pub const fn bytes6(address: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are 16 bytes of plain data.
    unsafe { core::mem::transmute(address) }
}

#[inline(always)]
pub(crate) const fn endpoint6(address: [u32; 4], port: u16, protocol: u8) -> Endpoint6 {
    Endpoint6 {
        address: bytes6(address),
        port: port.to_ne_bytes(),
        protocol,
        zero: 0,
    }
}

impl Family for V4 {
    type Address = u32;
    type FragmentKey = FragmentKey4;
    const IPV6: bool = false;
    const HEADER_LEN: usize = ipv4::LEN;
    const AS_PAYLOAD: u8 = protocol::IPIP;
    const ETHER_TYPE: u16 = crate::wire::ethernet::IPV4;
    const ICMP: u8 = protocol::ICMP;

    #[inline(always)]
    fn is_same(one: u32, other: u32) -> bool {
        one == other
    }

    #[inline(always)]
    fn from_table(address: &[u8; 16]) -> u32 {
        u32::from_ne_bytes([address[0], address[1], address[2], address[3]])
    }

    #[inline(always)]
    fn to_table(address: u32) -> [u8; 16] {
        bytes6([address, 0, 0, 0])
    }

    #[inline(always)]
    fn changed(delta: Delta, old: u32, new: u32) -> Delta {
        delta.long(old, new)
    }

    #[inline(always)]
    fn folded(address: u32) -> u32 {
        address
    }

    #[inline(always)]
    fn is_unicast(address: u32) -> bool {
        let first = address.to_ne_bytes()[0];
        first != 0 && first != 127 && first < 224
    }

    #[inline(always)]
    fn address<T: Tables>(tables: &T, address: u32) -> u32 {
        tables.address4(address.to_ne_bytes())
    }

    #[inline(always)]
    fn route<T: Tables>(tables: &T, address: u32) -> Option<Route> {
        tables.route4(address.to_ne_bytes())
    }

    #[inline(always)]
    fn neighbour<T: Tables>(tables: &T, address: u32, ifindex: u32) -> Option<&NextHop> {
        tables.neighbour4(&Neighbour4 {
            address: address.to_ne_bytes(),
            ifindex,
        })
    }

    #[inline(always)]
    fn kernel_next_hop<P: Packet>(packet: &P, source: u32, destination: u32) -> NextHop {
        packet.kernel_next_hop4(source, destination)
    }

    #[inline(always)]
    fn network<P: Packet>(packet: &P, l3: usize) -> Option<Network<Self>> {
        parse::network4(packet, l3)
    }

    #[inline(always)]
    fn fragment_key(network: &Network<Self>) -> FragmentKey4 {
        FragmentKey4 {
            source: network.source.to_ne_bytes(),
            destination: network.destination.to_ne_bytes(),
            id: (network.id as u16).to_ne_bytes(),
            protocol: network.protocol,
            zero: 0,
        }
    }

    #[inline(always)]
    fn fragment<T: Tables>(tables: &T, key: &FragmentKey4) -> Option<NonNull<Fragment>> {
        tables.fragment4(key)
    }

    #[inline(always)]
    fn put_fragment<T: Tables>(tables: &T, key: &FragmentKey4, fragment: &Fragment) -> bool {
        tables.put_fragment4(key, fragment)
    }

    #[inline(always)]
    fn remove_fragment<T: Tables>(tables: &T, key: &FragmentKey4) {
        tables.remove_fragment4(key);
    }

    #[inline(always)]
    fn own(settings: &Settings) -> Option<u32> {
        let own = u32::from_ne_bytes(settings.own4);
        (own != 0).then_some(own)
    }
}

impl Family for V6 {
    type Address = [u32; 4];
    type FragmentKey = FragmentKey6;
    const IPV6: bool = true;
    const HEADER_LEN: usize = ipv6::LEN;
    const AS_PAYLOAD: u8 = protocol::IPV6;
    const ETHER_TYPE: u16 = crate::wire::ethernet::IPV6;
    const ICMP: u8 = protocol::ICMPV6;

    #[inline(always)]
    fn is_same(one: [u32; 4], other: [u32; 4]) -> bool {
        // Not the arrays' comparison: for BPF that becomes a call that compares byte by byte, each byte a branch.
        (one[0] ^ other[0]) | (one[1] ^ other[1]) | (one[2] ^ other[2]) | (one[3] ^ other[3]) == 0
    }

    #[inline(always)]
    fn from_table(address: &[u8; 16]) -> [u32; 4] {
        // SAFETY: both are 16 bytes of plain data.
        unsafe { core::mem::transmute(*address) }
    }

    #[inline(always)]
    fn to_table(address: [u32; 4]) -> [u8; 16] {
        bytes6(address)
    }

    #[inline(always)]
    fn changed(delta: Delta, old: [u32; 4], new: [u32; 4]) -> Delta {
        delta.address6(old, new)
    }

    #[inline(always)]
    fn folded(address: [u32; 4]) -> u32 {
        address[0] ^ address[1] ^ address[2] ^ address[3]
    }

    #[inline(always)]
    fn is_unicast(address: [u32; 4]) -> bool {
        // Neither `::` nor `::1` (RFC 4291 section 2.5).
        let none_or_loopback =
            address[0] | address[1] | address[2] == 0 && u32::from_be(address[3]) <= 1;
        address[0].to_ne_bytes()[0] != 0xff && !none_or_loopback
    }

    #[inline(always)]
    fn address<T: Tables>(tables: &T, address: [u32; 4]) -> u32 {
        tables.address6(bytes6(address))
    }

    #[inline(always)]
    fn route<T: Tables>(tables: &T, address: [u32; 4]) -> Option<Route> {
        tables.route6(bytes6(address))
    }

    #[inline(always)]
    fn neighbour<T: Tables>(tables: &T, address: [u32; 4], ifindex: u32) -> Option<&NextHop> {
        tables.neighbour6(&Neighbour6 {
            address: bytes6(address),
            ifindex,
        })
    }

    #[inline(always)]
    fn kernel_next_hop<P: Packet>(packet: &P, source: [u32; 4], destination: [u32; 4]) -> NextHop {
        packet.kernel_next_hop6(source, destination)
    }

    #[inline(always)]
    fn network<P: Packet>(packet: &P, l3: usize) -> Option<Network<Self>> {
        parse::network6(packet, l3)
    }

    #[inline(always)]
    fn fragment_key(network: &Network<Self>) -> FragmentKey6 {
        FragmentKey6 {
            source: bytes6(network.source),
            destination: bytes6(network.destination),
            id: network.id.to_ne_bytes(),
        }
    }

    #[inline(always)]
    fn fragment<T: Tables>(tables: &T, key: &FragmentKey6) -> Option<NonNull<Fragment>> {
        tables.fragment6(key)
    }

    #[inline(always)]
    fn put_fragment<T: Tables>(tables: &T, key: &FragmentKey6, fragment: &Fragment) -> bool {
        tables.put_fragment6(key, fragment)
    }

    #[inline(always)]
    fn remove_fragment<T: Tables>(tables: &T, key: &FragmentKey6) {
        tables.remove_fragment6(key);
    }

    #[inline(always)]
    fn own(settings: &Settings) -> Option<[u32; 4]> {
        let own = Self::from_table(&settings.own6);
        (!Self::is_same(own, [0; 4])).then_some(own)
    }
}
