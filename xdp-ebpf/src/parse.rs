//! From bytes to what the rules need: link, network and transport headers, each checked once.
//!
//! Whatever cannot be read here is none of ours and goes to the kernel untouched.

use crate::family::{Family, V4, V6};
use crate::layout::limits;
use crate::packet::Packet;
use crate::verifier::forget;
use crate::wire::{ethernet, icmp, ipv4, ipv6, ports, protocol, tcp, udp};

/// The link header.
#[derive(Clone, Copy)]
pub struct Link {
    /// Ether type of what follows the tags.
    pub ether_type: u16,
    /// Bytes of the header with its tags.
    pub len: u32,
    /// Address of the network header.
    pub l3: usize,
}

/// Reads the Ethernet header and at most two tags. `None`: too short, or for a group of hosts: no unicast packet is
/// forwarded out of such a frame (RFC 1122 section 3.3.6; IPVS takes `PACKET_HOST` only), or every director that the
/// group reaches would forward it.
#[inline(always)]
pub fn link<P: Packet>(packet: &P) -> Option<Link> {
    let header = packet.window::<{ ethernet::LEN }>(packet.data())?;
    if header.u8::<{ ethernet::DESTINATION }>() & 1 != 0 {
        return None;
    }
    any_link(packet)
}

/// The same of any frame, whomever it is for.
#[inline(always)]
pub fn any_link<P: Packet>(packet: &P) -> Option<Link> {
    let data = packet.data();
    let header = packet.window::<{ ethernet::LEN }>(data)?;
    let mut ether_type = header.be16::<{ ethernet::TYPE }>();
    let mut len = ethernet::LEN;
    if is_tag(ether_type) {
        let tag = packet.window::<{ ethernet::TAG_LEN }>(data + ethernet::LEN)?;
        ether_type = tag.be16::<2>();
        len += ethernet::TAG_LEN;
        if is_tag(ether_type) {
            let tag =
                packet.window::<{ ethernet::TAG_LEN }>(data + ethernet::LEN + ethernet::TAG_LEN)?;
            ether_type = tag.be16::<2>();
            len += ethernet::TAG_LEN;
        }
    }
    Some(Link {
        ether_type,
        len: len as u32,
        l3: data + len,
    })
}

#[inline(always)]
const fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, ethernet::VLAN | ethernet::SERVICE_VLAN)
}

/// How a packet stands to fragmentation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Not a fragment.
    Whole,
    /// The first fragment: it has the ports.
    First,
    /// Another fragment.
    Later,
}

/// The network header.
#[derive(Clone, Copy)]
pub struct Network<F: Family> {
    /// Address of the network header.
    pub l3: usize,
    /// Address of what follows it and its extensions.
    pub l4: usize,
    /// Source address, as in the packet.
    pub source: F::Address,
    /// Destination address, as in the packet.
    pub destination: F::Address,
    /// Bytes of header and payload, as the header says.
    pub length: u32,
    /// Bytes from `l3` to `l4`.
    pub header: u32,
    /// Bytes from `l3` to where a fragmented datagram's payload begins: in IPv6 the first fragment may have extension
    /// headers in there.
    pub unfragmentable: u32,
    /// Protocol at `l4`.
    pub protocol: u8,
    /// Time to live, hop limit.
    pub ttl: u8,
    /// Type of service, traffic class.
    pub tos: u8,
    /// Whether routers must not fragment it. Always so in IPv6.
    pub dont_fragment: bool,
    /// Fragment or whole.
    pub part: Part,
    /// Whether more fragments follow.
    pub more: bool,
    /// Bytes of the datagram's payload before this fragment's.
    pub offset: u32,
    /// Identification, as in the packet: IPv4's 16 bits or the fragment header's 32.
    pub id: u32,
}

impl<F: Family> Network<F> {
    /// Whether the lengths agree with each other and with the frame, given the bytes needed at `l4`.
    #[inline(always)]
    pub fn is_consistent<P: Packet>(&self, packet: &P, needed: u32) -> bool {
        let available = (packet.end() - self.l3) as u32;
        self.length <= available && self.length >= self.header + needed
    }
}

/// Reads an IPv4 header. `None`: not one.
#[inline(always)]
pub fn network4<P: Packet>(packet: &P, l3: usize) -> Option<Network<V4>> {
    let ip = packet.window::<{ ipv4::LEN }>(l3)?;
    let version_ihl = ip.u8::<{ ipv4::VERSION_IHL }>();
    if version_ihl >> 4 != 4 || version_ihl & 0xf < 5 {
        return None;
    }
    let header = usize::from(version_ihl & 0xf) * 4;
    let fragment = ip.be16::<{ ipv4::FRAGMENT }>();
    let offset = fragment & ipv4::OFFSET;
    let more = fragment & ipv4::MF != 0;
    Some(Network {
        l3,
        l4: l3 + header,
        source: ip.raw32::<{ ipv4::SOURCE }>(),
        destination: ip.raw32::<{ ipv4::DESTINATION }>(),
        length: u32::from(ip.be16::<{ ipv4::TOTAL_LENGTH }>()),
        header: header as u32,
        unfragmentable: header as u32,
        protocol: ip.u8::<{ ipv4::PROTOCOL }>(),
        ttl: ip.u8::<{ ipv4::TTL }>(),
        tos: ip.u8::<{ ipv4::TOS }>(),
        dont_fragment: fragment & ipv4::DF != 0,
        part: match (offset, more) {
            (0, false) => Part::Whole,
            (0, true) => Part::First,
            _ => Part::Later,
        },
        more,
        offset: u32::from(offset) * 8,
        id: u32::from(ip.raw16::<{ ipv4::ID }>()),
    })
}

/// Reads an IPv6 header and walks its extension headers, a bounded number of them. `None`: not one, or too deep.
#[inline(always)]
pub fn network6<P: Packet>(packet: &P, l3: usize) -> Option<Network<V6>> {
    let ip = packet.window::<{ ipv6::LEN }>(l3)?;
    let first = ip.be32::<{ ipv6::VERSION_CLASS_FLOW }>();
    if first >> 28 != 6 {
        return None;
    }
    let mut network = Network {
        l3,
        l4: l3 + ipv6::LEN,
        source: ip.raw128::<{ ipv6::SOURCE }>(),
        destination: ip.raw128::<{ ipv6::DESTINATION }>(),
        length: u32::from(ip.be16::<{ ipv6::PAYLOAD_LENGTH }>()) + ipv6::LEN as u32,
        header: ipv6::LEN as u32,
        unfragmentable: ipv6::LEN as u32,
        protocol: ip.u8::<{ ipv6::NEXT_HEADER }>(),
        ttl: ip.u8::<{ ipv6::HOP_LIMIT }>(),
        tos: (first >> 20) as u8,
        dont_fragment: true,
        part: Part::Whole,
        more: false,
        offset: 0,
        id: 0,
    };
    if is_extension(network.protocol) {
        let odd = walk(packet, &mut network)?;
        // One state for the verifier, however many headers there were.
        let header = forget(network.header as u16);
        if header > MAX_HEADER6 || forget(odd as u16) != 0 {
            return None;
        }
        network.header = u32::from(header);
        network.unfragmentable = u32::from(forget(network.unfragmentable as u16));
        network.l4 = l3 + usize::from(header);
    }
    Some(network)
}

/// Most bytes of an IPv6 header with its extensions that are walked over.
const MAX_HEADER6: u16 = 1024;

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        ipv6::HOP_BY_HOP | ipv6::ROUTING | ipv6::DESTINATION_OPTIONS | ipv6::FRAGMENT
    )
}

/// Walks extension headers, a bounded number of them. `None`: too deep, or cut off. Not 0: no host sends it so, a fragment
/// of a fragment, or a packet whose destination is not the one in its header but the last of a routing header.
#[inline(always)]
fn walk<P: Packet>(packet: &P, network: &mut Network<V6>) -> Option<u32> {
    let mut walked = 0;
    // Collected without a branch: every one in this loop doubles the verifier's work.
    let mut odd = 0;
    while walked < limits::IPV6_EXTENSION_HEADERS {
        let length = if network.protocol == ipv6::FRAGMENT {
            let extension = packet.window::<{ ipv6::FRAGMENT_LEN }>(network.l4)?;
            odd |= network.unfragmentable ^ ipv6::LEN as u32;
            let field = extension.be16::<2>();
            network.protocol = extension.u8::<0>();
            network.more = field & ipv6::FRAGMENT_MORE != 0;
            network.offset = u32::from(field & ipv6::FRAGMENT_OFFSET);
            network.id = extension.raw32::<4>();
            network.unfragmentable = network.header + ipv6::FRAGMENT_LEN as u32;
            network.part = match (network.offset, network.more) {
                // An atomic fragment is a whole datagram (RFC 6946).
                (0, false) => Part::Whole,
                (0, true) => Part::First,
                _ => Part::Later,
            };
            ipv6::FRAGMENT_LEN
        } else {
            let extension = packet.window::<4>(network.l4)?;
            // Of the headers that can be here, the routing header's number is the only odd one.
            let is_routing = u32::from(network.protocol & 1);
            odd |= is_routing * u32::from(extension.u8::<{ ipv6::SEGMENTS_LEFT }>());
            network.protocol = extension.u8::<0>();
            (usize::from(extension.u8::<1>()) + 1) * 8
        };
        network.l4 += length;
        network.header += length as u32;
        if network.part == Part::Later || !is_extension(network.protocol) {
            return Some(odd);
        }
        walked += 1;
    }
    None
}

/// The transport header.
#[derive(Clone, Copy)]
pub struct Transport {
    /// Source port, as in the packet.
    pub source_port: u16,
    /// Destination port, as in the packet.
    pub destination_port: u16,
    /// TCP flags; 0 for UDP.
    pub flags: u8,
}

impl Transport {
    /// Whether this is the first segment of a TCP connection.
    #[inline(always)]
    #[must_use]
    pub const fn is_syn(self) -> bool {
        self.flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN
    }
}

/// Reads a TCP or UDP header. `None`: another protocol, or too short.
#[inline(always)]
pub fn transport<P: Packet>(packet: &P, l4: usize, protocol: u8) -> Option<Transport> {
    match protocol {
        protocol::TCP => {
            let header = packet.window::<{ tcp::LEN }>(l4)?;
            Some(Transport {
                source_port: header.raw16::<{ ports::SOURCE }>(),
                destination_port: header.raw16::<{ ports::DESTINATION }>(),
                flags: header.u8::<{ tcp::FLAGS }>(),
            })
        }
        protocol::UDP => {
            let header = packet.window::<{ udp::LEN }>(l4)?;
            Some(Transport {
                source_port: header.raw16::<{ ports::SOURCE }>(),
                destination_port: header.raw16::<{ ports::DESTINATION }>(),
                flags: 0,
            })
        }
        _ => None,
    }
}

/// Bytes that a transport header must have for the packet to be well-formed.
#[inline(always)]
#[must_use]
pub const fn transport_len(protocol: u8) -> u32 {
    if protocol == protocol::TCP {
        tcp::LEN as u32
    } else {
        udp::LEN as u32
    }
}

/// Whether an ICMP message quotes a packet that somebody must hear about.
#[inline(always)]
pub fn is_icmp_error<F: Family, P: Packet>(packet: &P, network: &Network<F>) -> bool {
    if network.protocol != F::ICMP {
        return false;
    }
    let Some(header) = packet.window::<{ icmp::LEN }>(network.l4) else {
        return false;
    };
    let kind = header.u8::<{ icmp::TYPE }>();
    if F::IPV6 {
        (icmp::V6_UNREACHABLE..icmp::V6_FIRST_INFORMATIONAL).contains(&kind)
    } else {
        matches!(
            kind,
            icmp::UNREACHABLE | icmp::SOURCE_QUENCH | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM
        )
    }
}

const _: () = assert!(
    ipv6::ROUTING & 1 == 1 && (ipv6::HOP_BY_HOP | ipv6::DESTINATION_OPTIONS) & 1 == 0,
    "how `walk` tells a routing header"
);
