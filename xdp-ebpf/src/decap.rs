//! Takes tunnels off on a real server: IPIP in all four mixtures, GUE version 0, GRE. What was inside goes on to the
//! kernel as if it had arrived like that. For kernels that ship without those modules.

use crate::family::{Family, V4, V6};
use crate::packet::Packet;
use crate::parse::{self, Network, Part};
use crate::wire::{ethernet, gre, gue, ipv4, ipv6, ports, protocol, udp};

/// What the program is told.
pub trait Endpoint {
    /// Whether tunnels end at this IPv4 address (as in the packet).
    fn ends_here4(&self, address: u32) -> bool;
    /// Whether tunnels end at this IPv6 address (as in the packet).
    fn ends_here6(&self, address: [u32; 4]) -> bool;
    /// UDP port of GUE.
    fn gue_port(&self) -> u16;
}

/// Takes one tunnel off, if the packet is one for this host. False: untouched. In both cases it goes on to the kernel;
/// `None` only if the frame could not be changed, which must then be dropped.
#[inline(always)]
pub fn decapsulate<P: Packet, E: Endpoint>(packet: &mut P, endpoint: &E) -> Option<bool> {
    let Some(link) = parse::link(packet) else {
        return Some(false);
    };
    // A frame with VLAN tags is for the kernel, which takes those off and knows which device then sees the tunnel.
    if link.len as usize != ethernet::LEN {
        return Some(false);
    }
    let inner = match link.ether_type {
        ethernet::IPV4 => V4::network(packet, link.l3)
            .filter(|network| endpoint.ends_here4(network.destination))
            .and_then(|network| inner(packet, &network, endpoint)),
        ethernet::IPV6 => V6::network(packet, link.l3)
            .filter(|network| endpoint.ends_here6(network.destination))
            .and_then(|network| inner(packet, &network, endpoint)),
        _ => None,
    };
    let Some((at, ether_type)) = inner else {
        return Some(false);
    };
    strip(packet, at, ether_type).map(|()| true)
}

/// Where the packet inside begins, and its ether type. `None`: no tunnel we know.
#[inline(always)]
fn inner<F: Family, P: Packet, E: Endpoint>(
    packet: &P,
    network: &Network<F>,
    endpoint: &E,
) -> Option<(usize, u16)> {
    if network.part != Part::Whole {
        return None;
    }
    let (at, payload) = match network.protocol {
        protocol::GRE => {
            let header = packet.window::<{ gre::LEN }>(network.l4)?;
            // Checksum, key and sequence number are not sent by our directors; version 0.
            if header.be16::<0>() != 0 {
                return None;
            }
            let payload = match header.be16::<{ gre::TYPE }>() {
                ethernet::IPV4 => protocol::IPIP,
                ethernet::IPV6 => protocol::IPV6,
                _ => return None,
            };
            (network.l4 + gre::LEN, payload)
        }
        protocol::UDP => {
            let header = packet.window::<{ udp::LEN + gue::LEN }>(network.l4)?;
            if header.be16::<{ ports::DESTINATION }>() != endpoint.gue_port() {
                return None;
            }
            let first = header.u8::<{ udp::LEN }>();
            // Version 0, a data message; the low five bits count 32-bit words of optional fields.
            if first >> 5 != 0 {
                return None;
            }
            let options = usize::from(first & 0x1f) * 4;
            (
                network.l4 + udp::LEN + gue::LEN + options,
                header.u8::<{ udp::LEN + gue::PROTOCOL }>(),
            )
        }
        other => (network.l4, other),
    };
    match payload {
        protocol::IPIP => {
            let ip = packet.window::<{ ipv4::LEN }>(at)?;
            (ip.u8::<0>() >> 4 == 4).then_some((at, ethernet::IPV4))
        }
        protocol::IPV6 => {
            let ip = packet.window::<{ ipv6::LEN }>(at)?;
            (ip.u8::<0>() >> 4 == 6).then_some((at, ethernet::IPV6))
        }
        _ => None,
    }
}

/// Removes what stands between link header and the packet inside.
#[inline(always)]
fn strip<P: Packet>(packet: &mut P, at: usize, ether_type: u16) -> Option<()> {
    let data = packet.data();
    let header = packet.window::<{ ethernet::LEN }>(data)?;
    let destination = header.mac::<{ ethernet::DESTINATION }>();
    let source = header.mac::<{ ethernet::SOURCE }>();
    let stripped = (at - data) as i32 - ethernet::LEN as i32;
    if !packet.adjust_head(stripped) {
        return None;
    }
    let header = packet.window::<{ ethernet::LEN }>(packet.data())?;
    header.set_mac::<{ ethernet::DESTINATION }>(destination);
    header.set_mac::<{ ethernet::SOURCE }>(source);
    header.set_be16::<{ ethernet::TYPE }>(ether_type);
    Some(())
}
