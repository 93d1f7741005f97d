//! A node that cannot prove that it is in charge falls silent.
//!
//! ```text
//!  heartbeat ── renews ──► LEASE ◄── every packet: has it run out? ──no──► as ever
//!  (hangs, is stopped, is killed: nobody renews)    └─yes─► [Fence] to a leased address, or who asks for its MAC? dropped
//! ```
//!
//! The kernel of such a node still has the addresses, and answers for them: so it must not hear what is sent to them, nor
//! who asks for them. What real servers answer to connections that stood goes on to their clients: it does them good, and
//! whoever is in charge now does nothing about it that could contradict.

use crate::family::{Family, V4, V6};
use crate::layout::{Reason, address};
use crate::packet::Packet;
use crate::parse;
use crate::tables::Tables;
use crate::wire::{arp, ethernet, icmp, ipv4, ipv6, protocol};

use super::Verdict;

/// Whether this node had a lease and it has run out.
///
/// Asked of every packet, for 1 to 2 ns. The clock is the kernel's tick, because the verifier makes of that call a load
/// from memory; any other one costs 4 ns and more.
#[inline(always)]
pub(super) fn is_due<T: Tables>(tables: &T) -> bool {
    let until = tables.lease_until();
    // As the kernel compares ticks (`time_after64`): right also when they wrap around.
    until != 0 && tables.ticks().wrapping_sub(until).cast_signed() > 0
}

/// [`crate::layout::Stage::Fence`]: the lease has run out.
#[inline(always)]
pub fn stage<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    if is_for_leased(packet, tables) {
        return Verdict::Drop(Reason::Fenced);
    }
    super::unfenced(packet, tables)
}

/// Whether a frame is to a leased address, or asks who has it.
#[inline(always)]
fn is_for_leased<P: Packet, T: Tables>(packet: &P, tables: &T) -> bool {
    // Questions come in frames to all hosts, or to many.
    let Some(link) = parse::any_link(packet) else {
        return false;
    };
    let flags = match link.ether_type {
        ethernet::ARP => arp_target(packet, link.l3).map(|it| V4::address(tables, it)),
        ethernet::IPV4 => packet
            .window::<{ ipv4::LEN }>(link.l3)
            .map(|it| V4::address(tables, it.raw32::<{ ipv4::DESTINATION }>())),
        ethernet::IPV6 => packet.window::<{ ipv6::LEN }>(link.l3).map(|it| {
            let destination = it.raw128::<{ ipv6::DESTINATION }>();
            match solicited(packet, link.l3) {
                Some(target) => V6::address(tables, destination) | V6::address(tables, target),
                None => V6::address(tables, destination),
            }
        }),
        _ => None,
    };
    flags.is_some_and(|flags| flags & address::LEASED != 0)
}

/// The address whose MAC an ARP request asks for.
#[inline(always)]
fn arp_target<P: Packet>(packet: &P, l3: usize) -> Option<u32> {
    let message = packet.window::<{ arp::LEN }>(l3)?;
    let is_request = message.be16::<{ arp::OPERATION }>() == arp::REQUEST;
    is_request.then(|| message.raw32::<{ arp::TARGET }>())
}

/// The address whose MAC a neighbour solicitation asks for. It has no extension headers: other stacks do not send any
/// with it, and RFC 6980 forbids the one that could hide it.
#[inline(always)]
fn solicited<P: Packet>(packet: &P, l3: usize) -> Option<[u32; 4]> {
    let message = packet.window::<{ ipv6::LEN + icmp::SOLICITATION_LEN }>(l3)?;
    let is_solicitation = message.u8::<{ ipv6::NEXT_HEADER }>() == protocol::ICMPV6
        && message.u8::<{ ipv6::LEN + icmp::TYPE }>() == icmp::V6_NEIGHBOUR_SOLICITATION;
    is_solicitation.then(|| message.raw128::<{ ipv6::LEN + icmp::LEN }>())
}
