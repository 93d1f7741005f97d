//! Network address translation: one end's address and port replaced, checksums updated.

use super::send::send;
use super::{Ip, Subject, Verdict, answer};
use crate::checksum::Delta;
use crate::family::{Family, V4, V6};
use crate::layout::{self, NextHop, Reason};
use crate::packet::{Packet, Window};
use crate::tables::Tables;
use crate::wire::{ipv4, ipv6, ports, protocol, tcp, udp};

/// Which end of a packet is replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Source address and port.
    Source,
    /// Destination address and port.
    Destination,
}

/// Replacing an address in a network header.
pub trait Translate: Family {
    /// Replaces an address at `l3`; with `hop`, also takes one from the TTL or hop limit. What it did to the
    /// transport checksum's pseudo-header, or `None` if there is no header.
    fn replace<P: Packet>(
        packet: &P,
        l3: usize,
        end: End,
        new: Self::Address,
        hop: bool,
    ) -> Option<Delta>;
}

impl Translate for V4 {
    #[inline(always)]
    fn replace<P: Packet>(packet: &P, l3: usize, end: End, new: u32, hop: bool) -> Option<Delta> {
        let ip = packet.window::<{ ipv4::LEN }>(l3)?;
        let old = match end {
            End::Source => {
                let old = ip.raw32::<{ ipv4::SOURCE }>();
                ip.set_raw32::<{ ipv4::SOURCE }>(new);
                old
            }
            End::Destination => {
                let old = ip.raw32::<{ ipv4::DESTINATION }>();
                ip.set_raw32::<{ ipv4::DESTINATION }>(new);
                old
            }
        };
        let address = Delta::NONE.long(old, new);
        let mut header = address;
        if hop {
            // TTL and protocol share a 16-bit word of the checksum.
            let word = ip.be16::<{ ipv4::TTL }>();
            let lower = word.wrapping_sub(0x0100);
            ip.set_be16::<{ ipv4::TTL }>(lower);
            header = header.word(word.to_be(), lower.to_be());
        }
        ip.set_raw16::<{ ipv4::CHECKSUM }>(header.apply(ip.raw16::<{ ipv4::CHECKSUM }>()));
        Some(address)
    }
}

impl Translate for V6 {
    #[inline(always)]
    fn replace<P: Packet>(
        packet: &P,
        l3: usize,
        end: End,
        new: [u32; 4],
        hop: bool,
    ) -> Option<Delta> {
        let ip = packet.window::<{ ipv6::LEN }>(l3)?;
        let old = match end {
            End::Source => {
                let old = ip.raw128::<{ ipv6::SOURCE }>();
                ip.set_raw128::<{ ipv6::SOURCE }>(new);
                old
            }
            End::Destination => {
                let old = ip.raw128::<{ ipv6::DESTINATION }>();
                ip.set_raw128::<{ ipv6::DESTINATION }>(new);
                old
            }
        };
        if hop {
            let limit = ip.u8::<{ ipv6::HOP_LIMIT }>();
            ip.set_u8::<{ ipv6::HOP_LIMIT }>(limit.wrapping_sub(1));
        }
        Some(Delta::NONE.address6(old, new))
    }
}

/// Replaces a port at `l4` (by 0: leaves it) and updates the transport checksum, if the header is there. `address` is what replacing the
/// address did to the pseudo-header. `None`: the header is too short.
#[inline(always)]
fn replace_port<P: Packet>(
    packet: &P,
    l4: usize,
    protocol: u8,
    end: End,
    new: u16,
    address: Delta,
) -> Option<()> {
    let delta = address.and(exchange_port(
        packet.window::<{ ports::LEN }>(l4)?,
        end,
        new,
    ));
    if protocol == protocol::TCP {
        let header = packet.window::<{ tcp::CHECKSUM + 2 }>(l4)?;
        header.set_raw16::<{ tcp::CHECKSUM }>(delta.apply(header.raw16::<{ tcp::CHECKSUM }>()));
    } else {
        let header = packet.window::<{ udp::LEN }>(l4)?;
        header.set_raw16::<{ udp::CHECKSUM }>(delta.apply_udp(header.raw16::<{ udp::CHECKSUM }>()));
    }
    Some(())
}

/// Replaces a port, by 0: leaves it. What that did to checksums.
#[inline(always)]
pub(super) fn exchange_port<const N: usize>(header: Window<'_, N>, end: End, new: u16) -> Delta {
    let old = match end {
        End::Source => header.raw16::<{ ports::SOURCE }>(),
        End::Destination => header.raw16::<{ ports::DESTINATION }>(),
    };
    if new == 0 {
        return Delta::NONE;
    }
    match end {
        End::Source => header.set_raw16::<{ ports::SOURCE }>(new),
        End::Destination => header.set_raw16::<{ ports::DESTINATION }>(new),
    }
    Delta::NONE.word(old, new)
}

/// The end that is replaced, and by what.
#[derive(Clone, Copy)]
pub(super) struct New<A> {
    /// Destination on the way to a real server, source on the way back.
    pub(super) end: End,
    /// Address, as in the packet.
    pub(super) address: A,
    /// Port, as in the packet; 0: it stays what it is.
    pub(super) port: u16,
}

/// Translates one end of a packet and sends it on, as a router would: TTL, MTU. `has_ports`: whether this part of the
/// datagram has them.
#[inline(always)]
pub(super) fn translate_and_send<F: Ip, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    subject: &Subject<'_, F>,
    new: New<F::Address>,
    has_ports: bool,
    next_hop: &NextHop,
) -> Verdict {
    let network = &subject.network;
    let from_real_server = new.end == End::Source;
    if network.ttl <= 1 {
        return answer(tables, layout::answer::TIME_EXCEEDED, 0, from_real_server);
    }
    let resolved = next_hop.ifindex != 0;
    let fits = network.length <= u32::from(next_hop.mtu);
    if resolved && !fits && network.dont_fragment {
        let mtu = u32::from(next_hop.mtu);
        return answer(tables, layout::answer::TOO_BIG, mtu, from_real_server);
    }
    // Where the kernel goes on (it resolves the next hop, or fragments), it also takes its one from the TTL.
    let ours = resolved && fits;
    let translated = F::replace(packet, network.l3, new.end, new.address, ours).and_then(|delta| {
        if !has_ports {
            return Some(());
        }
        replace_port(
            packet,
            network.l4,
            network.protocol,
            new.end,
            new.port,
            delta,
        )
    });
    match translated {
        None => Verdict::Drop(Reason::Malformed),
        Some(()) if ours => send(packet, subject.link.len, next_hop, F::ETHER_TYPE),
        Some(()) => Verdict::Pass,
    }
}
