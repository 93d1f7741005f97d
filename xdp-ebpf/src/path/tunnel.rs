//! Tunnels: IP in IP (RFC 2003, RFC 2473, RFC 4213), GUE (draft-ietf-intarea-gue, version 0), GRE (RFC 2784), in all
//! four mixtures of families.
//!
//! ```text
//!  Ethernet │ outer IP │ [UDP + GUE │ GRE] │ inner packet, untouched
//! ```

use super::send::{by_interface, link_len, write_link};
use super::{Ip, Subject, Verdict, answer};
use crate::checksum;
use crate::layout::{self, Destination, NextHop, Reason, destination, method};
use crate::packet::Packet;
use crate::tables::Tables;
use crate::wire::{ethernet, gre, gue, ipv4, ipv6, ports, protocol, udp};

/// TTL of an outer header (RFC 2003 section 3.1: enough to reach the end of the tunnel).
const OUTER_TTL: u8 = 64;

/// What the outer header takes over from the packet inside.
struct Outer {
    /// Bytes of the whole outer packet.
    length: u32,
    /// Bytes of the shim between outer IP header and inner packet.
    shim: u32,
    protocol: u8,
    tos: u8,
    dont_fragment: bool,
    id: u16,
    flow: u32,
}

/// Encapsulates a packet and sends it to a destination.
#[inline(always)]
pub(super) fn encapsulate<F: Ip, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    subject: &Subject<'_, F>,
    destination: &Destination,
    flow: u32,
) -> Verdict {
    let network = &subject.network;
    let next_hop = &destination.next_hop;
    let is_ipv6 = destination.flags & destination::IPV6 != 0;
    let (shim, protocol) = match destination.method {
        method::GUE => ((udp::LEN + gue::LEN) as u32, protocol::UDP),
        method::GRE => (gre::LEN as u32, protocol::GRE),
        _ => (0, F::AS_PAYLOAD),
    };
    let ip_len = if is_ipv6 { ipv6::LEN } else { ipv4::LEN } as u32;
    let overhead = ip_len + shim;
    let length = network.length + overhead;
    let resolved = next_hop.ifindex != 0;
    let fits = length <= u32::from(next_hop.mtu);
    if resolved && !fits && (network.dont_fragment || is_ipv6) {
        let mtu = u32::from(next_hop.mtu).saturating_sub(overhead);
        return answer(tables, layout::answer::TOO_BIG, mtu, false);
    }
    if length > 0xffff {
        return Verdict::Drop(Reason::TooBig);
    }
    let outer = Outer {
        length,
        shim,
        protocol,
        tos: network.tos,
        dont_fragment: network.dont_fragment,
        // Unique where the outer packet may be fragmented (RFC 6864 section 4): the inner one's is.
        id: network.id as u16,
        flow,
    };
    // The kernel goes on where the next hop is not resolved, or where the outer packet must be fragmented: then the
    // frame keeps its MAC addresses, which are this node's.
    let ours = resolved && fits;
    let kept = if ours {
        None
    } else {
        match kept_link(packet) {
            Some(kept) => Some(kept),
            None => return Verdict::Drop(Reason::NoRoom),
        }
    };
    let link = kept.as_ref().unwrap_or(next_hop);
    let new_link_len = link_len(link);
    let delta = subject.link.len as i32 - new_link_len as i32 - overhead as i32;
    if !packet.adjust_head(delta) {
        return Verdict::Drop(Reason::NoRoom);
    }
    let l3 = packet.data() + new_link_len as usize;
    let written = if is_ipv6 {
        write_link(packet, link, ethernet::IPV6)
            .and_then(|()| write_ipv6(packet, l3, destination, &outer))
            .and_then(|()| write_shim::<F, P>(packet, l3 + ipv6::LEN, destination, &outer))
    } else {
        let mask = subject.settings.spread4_mask;
        write_link(packet, link, ethernet::IPV4)
            .and_then(|()| write_ipv4(packet, l3, destination, &outer, mask))
            .and_then(|()| write_shim::<F, P>(packet, l3 + ipv4::LEN, destination, &outer))
    };
    match written {
        Some(()) if ours => by_interface(packet, next_hop),
        Some(()) => Verdict::Pass,
        None => Verdict::Drop(Reason::NoRoom),
    }
}

/// The MAC addresses that a frame has, as a next hop without tags: what a frame for the kernel keeps.
#[inline(always)]
fn kept_link<P: Packet>(packet: &P) -> Option<NextHop> {
    let header = packet.window::<{ ethernet::LEN }>(packet.data())?;
    let mac = |words: [u16; 3]| -> [u8; 6] {
        // SAFETY: both are 6 bytes of plain data.
        unsafe { core::mem::transmute(words) }
    };
    Some(NextHop {
        destination: mac(header.mac::<{ ethernet::DESTINATION }>()),
        source: mac(header.mac::<{ ethernet::SOURCE }>()),
        ..NextHop::default()
    })
}

#[inline(always)]
fn write_ipv4<P: Packet>(
    packet: &P,
    l3: usize,
    destination: &Destination,
    outer: &Outer,
    spread_mask: u32,
) -> Option<()> {
    let word = |bytes: &[u8; 16]| u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let source = word(&destination.outer_source) | (outer.flow & spread_mask).to_be();
    let target = word(&destination.address);
    let fragment = if outer.dont_fragment { ipv4::DF } else { 0 };
    let first = (0x4500_0000 | u32::from(outer.tos) << 16 | outer.length).to_be();
    let second = u32::from_ne_bytes({
        let id = outer.id.to_ne_bytes();
        let fragment = fragment.to_be_bytes();
        [id[0], id[1], fragment[0], fragment[1]]
    });
    let third = (u32::from(OUTER_TTL) << 24 | u32::from(outer.protocol) << 16).to_be();
    let sum = u64::from(first)
        + u64::from(second)
        + u64::from(third)
        + u64::from(source)
        + u64::from(target);
    let ip = packet.window::<{ ipv4::LEN }>(l3)?;
    ip.set_raw32::<{ ipv4::VERSION_IHL }>(first);
    ip.set_raw32::<{ ipv4::ID }>(second);
    ip.set_raw32::<{ ipv4::TTL }>(third);
    ip.set_raw16::<{ ipv4::CHECKSUM }>(checksum::finish(sum));
    ip.set_raw32::<{ ipv4::SOURCE }>(source);
    ip.set_raw32::<{ ipv4::DESTINATION }>(target);
    Some(())
}

#[inline(always)]
fn write_ipv6<P: Packet>(
    packet: &P,
    l3: usize,
    destination: &Destination,
    outer: &Outer,
) -> Option<()> {
    let words = |bytes: &[u8; 16]| -> [u32; 4] {
        // SAFETY: both are 16 bytes of plain data.
        unsafe { core::mem::transmute(*bytes) }
    };
    let mut source = words(&destination.outer_source);
    source[3] ^= outer.flow;
    let ip = packet.window::<{ ipv6::LEN }>(l3)?;
    // The flow label carries the flow's hash (RFC 6438), for routers and receivers that spread by it.
    ip.set_be32::<{ ipv6::VERSION_CLASS_FLOW }>(
        6 << 28 | u32::from(outer.tos) << 20 | outer.flow & 0xf_ffff,
    );
    ip.set_be16::<{ ipv6::PAYLOAD_LENGTH }>((outer.length - ipv6::LEN as u32) as u16);
    ip.set_u8::<{ ipv6::NEXT_HEADER }>(outer.protocol);
    ip.set_u8::<{ ipv6::HOP_LIMIT }>(OUTER_TTL);
    ip.set_raw128::<{ ipv6::SOURCE }>(source);
    ip.set_raw128::<{ ipv6::DESTINATION }>(words(&destination.address));
    Some(())
}

/// What stands between the outer IP header and the inner packet.
#[inline(always)]
fn write_shim<F: Ip, P: Packet>(
    packet: &P,
    at: usize,
    destination: &Destination,
    outer: &Outer,
) -> Option<()> {
    match destination.method {
        method::GUE => {
            let ip_len = if destination.flags & destination::IPV6 != 0 {
                ipv6::LEN
            } else {
                ipv4::LEN
            } as u32;
            let header = packet.window::<{ udp::LEN + gue::LEN }>(at)?;
            // Dynamic ports (RFC 6335 section 6), so that receivers spread by the source port.
            header.set_be16::<{ ports::SOURCE }>(
                0xc000 | (outer.flow ^ outer.flow >> 16) as u16 & 0x3fff,
            );
            header.set_raw16::<{ ports::DESTINATION }>(u16::from_ne_bytes(destination.tunnel_port));
            header.set_be16::<{ udp::LENGTH }>((outer.length - ip_len) as u16);
            // No checksum: in IPv4 as ever, in IPv6 for tunnels (RFC 6935).
            header.set_raw16::<{ udp::CHECKSUM }>(0);
            header.set_be32::<{ udp::LEN }>(u32::from(F::AS_PAYLOAD) << 16);
            Some(())
        }
        method::GRE => {
            let header = packet.window::<{ gre::LEN }>(at)?;
            header.set_be32::<0>(u32::from(F::ETHER_TYPE));
            Some(())
        }
        _ => {
            debug_assert!(outer.shim == 0);
            Some(())
        }
    }
}
