//! ICMP messages of the packet path's own, back to a packet's sender: time exceeded, too big, port unreachable. Resets go
//! this way too: [`super::reset`].
//!
//! ```text
//!  before: link │ IP header │ payload …
//!  after:  link │ IP header │ ICMP │ IP header │ payload (as much as the RFCs want quoted)
//! ```
//!
//! To a client they come from the address it talked to; to a real server from the node's own.

use super::{Ip, Verdict, reset, subject};
use crate::checksum;
use crate::family::{Family, V4, V6};
use crate::layout::{Reason, Scratch, TokenBucket, answer};
use crate::packet::Packet;
use crate::parse::{self, Link, Network, Part};
use crate::tables::Tables;
use crate::wire::{ethernet, icmp, ipv4, ipv6, protocol};

/// Bytes quoted of an IPv4 packet: the message stays within 576 (RFC 1812 section 4.3.2.3).
const QUOTE4: u32 = 576 - ipv4::LEN as u32 - icmp::LEN as u32;
/// Bytes quoted of an IPv6 packet: the message stays within 1280 (RFC 4443 section 2.4 (c)).
const QUOTE6: u32 = 1280 - ipv6::LEN as u32 - icmp::LEN as u32;
/// Smallest MTU that an IPv6 link can have (RFC 8200 section 5).
const MIN_MTU6: u32 = 1280;
/// TTL of the messages.
const TTL: u8 = 64;
/// Second in nanoseconds.
const SECOND_NS: u64 = 1_000_000_000;

/// The message to send.
struct Message<A> {
    from: A,
    to: A,
    kind: u8,
    code: u8,
    rest: u32,
    quote: u32,
}

/// [`crate::layout::Stage::Answer`].
#[inline(always)]
pub fn stage<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let Some(scratch) = tables.scratch() else {
        return Verdict::Drop(Reason::AnswerSuppressed);
    };
    // SAFETY: this CPU's own memory (contract of `Tables`).
    let scratch = unsafe { scratch.read() };
    let Some(link) = parse::link(packet) else {
        return Verdict::Pass;
    };
    match link.ether_type {
        ethernet::IPV4 => ip::<V4, P, T>(packet, tables, link, scratch),
        ethernet::IPV6 => ip::<V6, P, T>(packet, tables, link, scratch),
        _ => Verdict::Pass,
    }
}

#[inline(always)]
fn ip<F: Ip + Write + reset::Write, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    link: Link,
    scratch: Scratch,
) -> Verdict {
    let Some(network) = F::network(packet, link.l3) else {
        return Verdict::Pass;
    };
    let Some(subject) = subject(packet, tables, link, network) else {
        return Verdict::Pass;
    };
    if matches!(
        scratch.answer,
        answer::RESET_NO_SERVER | answer::RESET_CLOSED
    ) {
        return reset::send(packet, tables, &network, &link, scratch.answer);
    }
    let reason = match scratch.answer {
        answer::TIME_EXCEEDED => Reason::TtlExpired,
        answer::TOO_BIG => Reason::TooBig,
        _ => Reason::NoRealServer,
    };
    let from = if scratch.from_real_server == 0 {
        Some(network.destination)
    } else {
        F::own(subject.settings)
    };
    let Some(from) = from else {
        return Verdict::Drop(Reason::AnswerSuppressed);
    };
    if !may_answer(packet, &network)
        || !take_token(tables, u64::from(subject.settings.icmp_per_second))
    {
        return Verdict::Drop(Reason::AnswerSuppressed);
    }
    let in_frame = (packet.end() - link.l3) as u32;
    let most = if F::IPV6 { QUOTE6 } else { QUOTE4 };
    let quote = network.length.min(in_frame).min(most) & !3;
    let (kind, code, rest) = F::what(scratch.answer, scratch.mtu);
    let message = Message {
        from,
        to: network.source,
        kind,
        code,
        rest,
        quote,
    };
    let Some(kept) = KeptLink::read(packet, &link) else {
        return Verdict::Drop(Reason::NoRoom);
    };
    let room = F::HEADER_LEN + icmp::LEN;
    if !packet.adjust_tail(quote as i32 - in_frame as i32) || !packet.adjust_head(-(room as i32)) {
        return Verdict::Drop(Reason::NoRoom);
    }
    if kept.write_back(packet).is_none()
        || <F as Write>::write(packet, packet.data() + kept.len, &message).is_none()
    {
        return Verdict::Drop(Reason::NoRoom);
    }
    tables.count(reason);
    Verdict::Transmit
}

/// RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e): no error about an ICMP error, a later fragment, a broadcast or
/// multicast, or a packet whose source is not one host.
#[inline(always)]
pub(super) fn may_answer<F: Ip, P: Packet>(packet: &P, network: &Network<F>) -> bool {
    // The answer goes back to where the frame says that it came from.
    let between_hosts = packet
        .window::<{ ethernet::LEN }>(packet.data())
        .is_some_and(|header| {
            (header.u8::<{ ethernet::DESTINATION }>() | header.u8::<{ ethernet::SOURCE }>()) & 1
                == 0
        });
    between_hosts
        && network.part != Part::Later
        && !parse::is_icmp_error(packet, network)
        && F::is_unicast(network.source)
        && F::is_unicast(network.destination)
}

/// Takes one of this CPU's tokens: so many a second, and no more than so many saved up.
#[inline(always)]
fn take_token<T: Tables>(tables: &T, per_second: u64) -> bool {
    let Some(bucket) = tables.limiter() else {
        return false;
    };
    if per_second == 0 {
        return false;
    }
    let now_ns = tables.now_ns();
    // SAFETY: this CPU's own memory (contract of `Tables`).
    let TokenBucket { filled_ns, tokens } = unsafe { bucket.read() };
    let elapsed_ns = now_ns.saturating_sub(filled_ns);
    let (tokens, filled_ns) = if elapsed_ns >= SECOND_NS || filled_ns == 0 {
        (per_second, now_ns)
    } else {
        let earned = elapsed_ns * per_second / SECOND_NS;
        // Only what was turned into tokens is spent, so that slow rates fill too.
        (
            (tokens + earned).min(per_second),
            filled_ns + earned * SECOND_NS / per_second,
        )
    };
    let left = tokens.saturating_sub(1);
    // SAFETY: as above.
    unsafe {
        bucket.write(TokenBucket {
            filled_ns,
            tokens: left,
        });
    }
    tokens > 0
}

/// A frame's link header with its ends exchanged.
pub(super) struct KeptLink {
    destination: [u16; 3],
    source: [u16; 3],
    ether_type: u16,
    tags: [u32; 2],
    pub(super) len: usize,
}

impl KeptLink {
    #[inline(always)]
    pub(super) fn read<P: Packet>(packet: &P, link: &Link) -> Option<Self> {
        let data = packet.data();
        let header = packet.window::<{ ethernet::LEN }>(data)?;
        let mut tags = [0; 2];
        let mut len = ethernet::LEN;
        if link.len as usize > len {
            tags[0] = packet.window::<4>(data + len)?.raw32::<0>();
            len += ethernet::TAG_LEN;
        }
        if link.len as usize > len {
            tags[1] = packet.window::<4>(data + len)?.raw32::<0>();
            len += ethernet::TAG_LEN;
        }
        Some(Self {
            destination: header.mac::<{ ethernet::SOURCE }>(),
            source: header.mac::<{ ethernet::DESTINATION }>(),
            ether_type: header.raw16::<{ ethernet::TYPE }>(),
            tags,
            len,
        })
    }

    #[inline(always)]
    pub(super) fn write_back<P: Packet>(&self, packet: &P) -> Option<()> {
        let data = packet.data();
        let header = packet.window::<{ ethernet::LEN }>(data)?;
        header.set_mac::<{ ethernet::DESTINATION }>(self.destination);
        header.set_mac::<{ ethernet::SOURCE }>(self.source);
        header.set_raw16::<{ ethernet::TYPE }>(self.ether_type);
        if self.len > ethernet::LEN {
            packet
                .window::<4>(data + ethernet::LEN)?
                .set_raw32::<0>(self.tags[0]);
        }
        if self.len > ethernet::LEN + ethernet::TAG_LEN {
            packet
                .window::<4>(data + ethernet::LEN + ethernet::TAG_LEN)?
                .set_raw32::<0>(self.tags[1]);
        }
        Some(())
    }
}

/// Sum of the `bytes` (a multiple of 4, at most `MOST`) from `at` on.
#[inline(always)]
fn sum<const MOST: u32, P: Packet>(packet: &P, at: usize, bytes: u32) -> Option<u64> {
    let mut sum = 0;
    let mut done = 0;
    while done < MOST {
        if done >= bytes {
            break;
        }
        sum += u64::from(packet.window::<4>(at + done as usize)?.raw32::<0>());
        done += 4;
    }
    Some(sum)
}

/// What differs between the families' messages.
trait Write: Family {
    /// Type, code and the four bytes after the checksum.
    fn what(answer: u32, mtu: u32) -> (u8, u8, u32);
    /// Writes IP and ICMP headers at `l3`, in front of the quoted packet.
    fn write<P: Packet>(packet: &P, l3: usize, message: &Message<Self::Address>) -> Option<()>;
}

impl Write for V4 {
    #[inline(always)]
    fn what(answer: u32, mtu: u32) -> (u8, u8, u32) {
        match answer {
            answer::TIME_EXCEEDED => (icmp::TIME_EXCEEDED, 0, 0),
            // RFC 1191 section 4: the MTU in the low 16 bits.
            answer::TOO_BIG => (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED, mtu & 0xffff),
            _ => (icmp::UNREACHABLE, icmp::PORT_UNREACHABLE, 0),
        }
    }

    #[inline(always)]
    fn write<P: Packet>(packet: &P, l3: usize, message: &Message<u32>) -> Option<()> {
        let length = (ipv4::LEN + icmp::LEN) as u32 + message.quote;
        let first = (0x4500_0000 | length).to_be();
        let third = (u32::from(TTL) << 24 | u32::from(protocol::ICMP) << 16).to_be();
        let header =
            u64::from(first) + u64::from(third) + u64::from(message.from) + u64::from(message.to);
        let ip = packet.window::<{ ipv4::LEN }>(l3)?;
        ip.set_raw32::<{ ipv4::VERSION_IHL }>(first);
        // Small enough never to be fragmented: an identification is not needed (RFC 6864).
        ip.set_raw32::<{ ipv4::ID }>(0);
        ip.set_raw32::<{ ipv4::TTL }>(third);
        ip.set_raw16::<{ ipv4::CHECKSUM }>(checksum::finish(header));
        ip.set_raw32::<{ ipv4::SOURCE }>(message.from);
        ip.set_raw32::<{ ipv4::DESTINATION }>(message.to);
        write_message::<QUOTE4, P, u32>(packet, l3 + ipv4::LEN, message, 0)
    }
}

impl Write for V6 {
    #[inline(always)]
    fn what(answer: u32, mtu: u32) -> (u8, u8, u32) {
        match answer {
            answer::TIME_EXCEEDED => (icmp::V6_TIME_EXCEEDED, 0, 0),
            answer::TOO_BIG => (icmp::V6_TOO_BIG, 0, mtu.max(MIN_MTU6)),
            _ => (icmp::V6_UNREACHABLE, icmp::V6_PORT_UNREACHABLE, 0),
        }
    }

    #[inline(always)]
    fn write<P: Packet>(packet: &P, l3: usize, message: &Message<[u32; 4]>) -> Option<()> {
        let payload = icmp::LEN as u32 + message.quote;
        let ip = packet.window::<{ ipv6::LEN }>(l3)?;
        ip.set_be32::<{ ipv6::VERSION_CLASS_FLOW }>(6 << 28);
        ip.set_be16::<{ ipv6::PAYLOAD_LENGTH }>(payload as u16);
        ip.set_u8::<{ ipv6::NEXT_HEADER }>(protocol::ICMPV6);
        ip.set_u8::<{ ipv6::HOP_LIMIT }>(TTL);
        ip.set_raw128::<{ ipv6::SOURCE }>(message.from);
        ip.set_raw128::<{ ipv6::DESTINATION }>(message.to);
        // Pseudo-header (RFC 8200 section 8.1).
        let pseudo = address_sum(message.from)
            + address_sum(message.to)
            + u64::from(payload.to_be())
            + u64::from(u32::from(protocol::ICMPV6).to_be());
        write_message::<QUOTE6, P, [u32; 4]>(packet, l3 + ipv6::LEN, message, pseudo)
    }
}

#[inline(always)]
pub(super) fn address_sum(address: [u32; 4]) -> u64 {
    u64::from(address[0]) + u64::from(address[1]) + u64::from(address[2]) + u64::from(address[3])
}

/// Writes the ICMP header, whose checksum covers the quoted packet and, in IPv6, the pseudo-header.
#[inline(always)]
fn write_message<const MOST: u32, P: Packet, A>(
    packet: &P,
    l4: usize,
    message: &Message<A>,
    pseudo: u64,
) -> Option<()> {
    let quoted = sum::<MOST, P>(packet, l4 + icmp::LEN, message.quote)?;
    let kind = u16::from_ne_bytes([message.kind, message.code]);
    let total = pseudo + quoted + u64::from(kind) + u64::from(message.rest.to_be());
    let header = packet.window::<{ icmp::LEN }>(l4)?;
    header.set_raw16::<{ icmp::TYPE }>(kind);
    header.set_raw16::<{ icmp::CHECKSUM }>(checksum::finish(total));
    header.set_be32::<{ icmp::REST }>(message.rest);
    Some(())
}
