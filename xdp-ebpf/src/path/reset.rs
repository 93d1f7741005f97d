//! A TCP reset to the sender of a segment (RFC 9293 section 3.5.2).
//!
//! Not rate-limited, as the kernel's are not: it is never larger than what it answers, and never answers a reset.

use super::answer::{KeptLink, address_sum, may_answer};
use super::{Ip, Verdict};
use crate::checksum;
use crate::family::{Family, V4, V6};
use crate::layout::{Reason, answer};
use crate::packet::Packet;
use crate::parse::{Link, Network};
use crate::tables::Tables;
use crate::wire::{ipv4, ipv6, ports, protocol, tcp};

/// TTL of resets.
const TTL: u8 = 64;

/// What of a segment its reset is made of.
struct Segment {
    /// Ports with their ends exchanged.
    source_port: u16,
    destination_port: u16,
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
}

/// The headers that differ between the families.
pub(super) trait Write: Family {
    /// Writes the IP header of a reset to the sender of `network` at its place. The sum of its pseudo-header without the
    /// segment (RFC 9293 section 3.1, RFC 8200 section 8.1).
    fn write<P: Packet>(packet: &P, network: &Network<Self>) -> Option<u64>;
}

impl Write for V4 {
    #[inline(always)]
    fn write<P: Packet>(packet: &P, network: &Network<Self>) -> Option<u64> {
        let first = (0x4500_0000 | (ipv4::LEN + tcp::LEN) as u32).to_be();
        // Never fragmented: an identification is not needed (RFC 6864).
        let second = u32::from(ipv4::DF).to_be();
        let third = (u32::from(TTL) << 24 | u32::from(protocol::TCP) << 16).to_be();
        let addresses = u64::from(network.source) + u64::from(network.destination);
        let sum = u64::from(first) + u64::from(second) + u64::from(third) + addresses;
        let ip = packet.window::<{ ipv4::LEN }>(network.l3)?;
        ip.set_raw32::<{ ipv4::VERSION_IHL }>(first);
        ip.set_raw32::<{ ipv4::ID }>(second);
        ip.set_raw32::<{ ipv4::TTL }>(third);
        ip.set_raw16::<{ ipv4::CHECKSUM }>(checksum::finish(sum));
        ip.set_raw32::<{ ipv4::SOURCE }>(network.destination);
        ip.set_raw32::<{ ipv4::DESTINATION }>(network.source);
        Some(addresses)
    }
}

impl Write for V6 {
    #[inline(always)]
    fn write<P: Packet>(packet: &P, network: &Network<Self>) -> Option<u64> {
        let ip = packet.window::<{ ipv6::LEN }>(network.l3)?;
        ip.set_be32::<{ ipv6::VERSION_CLASS_FLOW }>(6 << 28);
        ip.set_be16::<{ ipv6::PAYLOAD_LENGTH }>(tcp::LEN as u16);
        ip.set_u8::<{ ipv6::NEXT_HEADER }>(protocol::TCP);
        ip.set_u8::<{ ipv6::HOP_LIMIT }>(TTL);
        ip.set_raw128::<{ ipv6::SOURCE }>(network.destination);
        ip.set_raw128::<{ ipv6::DESTINATION }>(network.source);
        Some(address_sum(network.source) + address_sum(network.destination))
    }
}

/// Reads what the answer needs.
#[inline(always)]
fn read<F: Ip, P: Packet>(packet: &P, network: &Network<F>) -> Option<Segment> {
    let header = packet.window::<{ tcp::LEN }>(network.l4)?;
    let flags = header.u8::<{ tcp::FLAGS }>();
    let sequence = header.be32::<{ tcp::SEQUENCE }>();
    let (sequence, acknowledgement, answer_flags) = if flags & tcp::ACK != 0 {
        (header.be32::<{ tcp::ACKNOWLEDGEMENT }>(), 0, tcp::RST)
    } else {
        let header_len = u32::from(header.u8::<{ tcp::OFFSET }>() >> 4) * 4;
        let data = network.length.saturating_sub(network.header + header_len);
        let length = data + u32::from(flags & tcp::SYN != 0) + u32::from(flags & tcp::FIN != 0);
        (0, sequence.wrapping_add(length), tcp::RST | tcp::ACK)
    };
    (flags & tcp::RST == 0).then_some(Segment {
        source_port: header.raw16::<{ ports::DESTINATION }>(),
        destination_port: header.raw16::<{ ports::SOURCE }>(),
        sequence,
        acknowledgement,
        flags: answer_flags,
    })
}

/// Sends it back where the segment came from.
#[inline(always)]
pub(super) fn send<F: Ip + Write, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network<F>,
    link: &Link,
    answer: u32,
) -> Verdict {
    let reason = match answer {
        answer::RESET_NO_SERVER => Reason::NoRealServer,
        _ => Reason::Closed,
    };
    if network.protocol != protocol::TCP || !may_answer(packet, network) {
        return Verdict::Drop(Reason::AnswerSuppressed);
    }
    let (Some(segment), Some(kept)) = (read(packet, network), KeptLink::read(packet, link)) else {
        return Verdict::Drop(reason);
    };
    let surplus = (packet.end() - network.l3) as i32 - (F::HEADER_LEN + tcp::LEN) as i32;
    if surplus < 0 || surplus > 0 && !packet.adjust_tail(-surplus) {
        return Verdict::Drop(Reason::NoRoom);
    }
    let l3 = packet.data() + kept.len;
    if kept.write_back(packet).is_none() || write(packet, l3, network, &segment).is_none() {
        return Verdict::Drop(Reason::NoRoom);
    }
    tables.count(reason);
    Verdict::Transmit
}

#[inline(always)]
fn write<F: Ip + Write, P: Packet>(
    packet: &P,
    l3: usize,
    network: &Network<F>,
    segment: &Segment,
) -> Option<()> {
    let pseudo = <F as Write>::write(packet, &Network { l3, ..*network })?;
    let header = packet.window::<{ tcp::LEN }>(l3 + F::HEADER_LEN)?;
    // Header length and flags; no window, no urgent pointer.
    let control = u32::from(segment.flags) << 16 | (tcp::LEN as u32 / 4) << 28;
    let sum = pseudo
        + u64::from(u32::from(protocol::TCP).to_be())
        + u64::from((tcp::LEN as u32).to_be())
        + u64::from(segment.source_port)
        + u64::from(segment.destination_port)
        + u64::from(segment.sequence.to_be())
        + u64::from(segment.acknowledgement.to_be())
        + u64::from(control.to_be());
    header.set_raw16::<{ ports::SOURCE }>(segment.source_port);
    header.set_raw16::<{ ports::DESTINATION }>(segment.destination_port);
    header.set_be32::<{ tcp::SEQUENCE }>(segment.sequence);
    header.set_be32::<{ tcp::ACKNOWLEDGEMENT }>(segment.acknowledgement);
    header.set_be32::<{ tcp::OFFSET }>(control);
    header.set_raw16::<{ tcp::CHECKSUM }>(checksum::finish(sum));
    header.set_raw16::<{ tcp::URGENT }>(0);
    Some(())
}
