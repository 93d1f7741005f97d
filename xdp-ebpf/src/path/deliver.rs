//! To the real server, by its method.

use super::forward::flow_hash;
use super::send::{Direction, account, send};
use super::translate::{End, New, translate_and_send};
use super::{Ip, Subject, Verdict, answer, fragment, of_service, tunnel};
use crate::layout::{self, Destination, Reason, Served, destination, method};
use crate::packet::Packet;
use crate::parse::Part;
use crate::tables::Tables;

/// [`crate::layout::Stage::Deliver`] and [`crate::layout::Stage::Deliver6`]: what [`super::schedule`] has found a destination
/// for.
#[inline(always)]
pub fn stage<F: Ip, P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let Some((subject, transport, note)) = of_service::<F, P, T>(packet, tables) else {
        return Verdict::Pass;
    };
    let served = Served(note.served);
    let flow = flow_hash::<F>(subject.network.source, transport);
    if subject.network.part == Part::First {
        let endpoint = served.endpoint();
        return fragment::decide(tables, &subject, note.destination, endpoint, flow, false);
    }
    let Some(destination) = tables.destination(note.destination) else {
        return Verdict::Drop(Reason::DestinationGone);
    };
    if destination.method == 0 {
        // Released between two stages.
        return Verdict::Drop(Reason::DestinationGone);
    }
    deliver(
        packet,
        tables,
        &subject,
        true,
        note.destination,
        destination,
        flow,
    )
}

/// Delivers a packet or a fragment to a destination. `has_ports`: whether it has a transport header.
#[inline(always)]
pub(super) fn deliver<F: Ip, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    subject: &Subject<'_, F>,
    has_ports: bool,
    id: u32,
    destination: &Destination,
    flow: u32,
) -> Verdict {
    let verdict = match destination.method {
        method::NAT => nat(packet, tables, subject, has_ports, destination),
        method::DR => direct(packet, tables, subject, destination),
        _ => tunnel::encapsulate(packet, tables, subject, destination, flow),
    };
    account(tables, id, Direction::In, subject.frame_bytes, verdict)
}

/// NAT: destination address and port rewritten.
#[inline(always)]
fn nat<F: Ip, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    subject: &Subject<'_, F>,
    has_ports: bool,
    destination: &Destination,
) -> Verdict {
    if !F::is_of(destination) {
        return Verdict::Drop(Reason::DestinationGone);
    }
    let new = New {
        end: End::Destination,
        address: F::from_table(&destination.address),
        port: u16::from_ne_bytes(destination.port),
    };
    translate_and_send(
        packet,
        tables,
        subject,
        new,
        has_ports,
        &destination.next_hop,
    )
}

/// Direct routing: only the MAC address.
#[inline(always)]
fn direct<F: Ip, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    subject: &Subject<'_, F>,
    destination: &Destination,
) -> Verdict {
    let next_hop = &destination.next_hop;
    if next_hop.ifindex == 0 {
        if destination.flags & destination::LOCAL != 0 {
            // The kernel takes it for itself, by the virtual address that this node holds: as meant.
            return Verdict::Pass;
        }
        // The kernel would deliver it to this node itself, which holds the virtual address, and reset the connection.
        return Verdict::Drop(Reason::NextHopUnresolved);
    }
    if subject.network.length > u32::from(next_hop.mtu) {
        if subject.network.dont_fragment {
            return answer(
                tables,
                layout::answer::TOO_BIG,
                u32::from(next_hop.mtu),
                false,
            );
        }
        return Verdict::Drop(Reason::TooBig);
    }
    send(packet, subject.link.len, next_hop, F::ETHER_TYPE)
}
