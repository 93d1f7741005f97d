//! Out of the node: link header and interface.

use super::Verdict;
use crate::layout::{NextHop, Reason};
use crate::packet::Packet;
use crate::tables::Tables;
use crate::wire::ethernet;

/// Bytes of the link header that a next hop wants.
#[inline(always)]
pub(super) fn link_len(next_hop: &NextHop) -> u32 {
    let tags = if next_hop.vlan[0] != 0 {
        2
    } else if next_hop.vlan[1] != 0 {
        1
    } else {
        0
    };
    (ethernet::LEN + tags * ethernet::TAG_LEN) as u32
}

/// Writes the link header at the packet's beginning. `None`: no room.
#[inline(always)]
pub(super) fn write_link<P: Packet>(packet: &P, next_hop: &NextHop, ether_type: u16) -> Option<()> {
    let data = packet.data();
    let header = packet.window::<{ ethernet::LEN }>(data)?;
    header.set_macs(next_hop.macs());
    if next_hop.vlan[1] == 0 {
        header.set_be16::<{ ethernet::TYPE }>(ether_type);
    } else if next_hop.vlan[0] == 0 {
        header.set_be16::<{ ethernet::TYPE }>(ethernet::VLAN);
        let tag = packet.window::<4>(data + ethernet::LEN)?;
        tag.set_be16::<0>(next_hop.vlan[1]);
        tag.set_be16::<2>(ether_type);
    } else {
        header.set_be16::<{ ethernet::TYPE }>(ethernet::SERVICE_VLAN);
        let tags = packet.window::<8>(data + ethernet::LEN)?;
        tags.set_be16::<0>(next_hop.vlan[0]);
        tags.set_be16::<2>(ethernet::VLAN);
        tags.set_be16::<4>(next_hop.vlan[1]);
        tags.set_be16::<6>(ether_type);
    }
    Some(())
}

/// By which interface a finished frame leaves.
#[inline(always)]
pub(super) fn by_interface<P: Packet>(packet: &P, next_hop: &NextHop) -> Verdict {
    if next_hop.ifindex == packet.ingress_ifindex() {
        Verdict::Transmit
    } else {
        Verdict::Redirect(u32::from(next_hop.egress))
    }
}

/// Sends a packet whose link header had `link_len` bytes on to a next hop.
#[inline(always)]
pub(super) fn send<P: Packet>(
    packet: &mut P,
    current_len: u32,
    next_hop: &NextHop,
    ether_type: u16,
) -> Verdict {
    let wanted_len = link_len(next_hop);
    if wanted_len != current_len && !packet.adjust_head(current_len as i32 - wanted_len as i32) {
        return Verdict::Drop(Reason::NoRoom);
    }
    match write_link(packet, next_hop, ether_type) {
        Some(()) => by_interface(packet, next_hop),
        None => Verdict::Drop(Reason::NoRoom),
    }
}

/// Which way a counted packet went.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// Client to real server.
    In,
    /// Real server to client.
    Out,
}

/// Counts a forwarded packet in its destination; a dropped one is counted by its reason.
#[inline(always)]
pub(super) fn account<T: Tables>(
    tables: &T,
    destination: u32,
    direction: Direction,
    frame_bytes: u64,
    verdict: Verdict,
) -> Verdict {
    if let Verdict::Drop(_) | Verdict::Continue(_) = verdict {
        return verdict;
    }
    if let Some(counters) = tables.counters(destination) {
        let counters = counters.as_ptr();
        // SAFETY: this CPU's own memory (contract of `Tables`).
        unsafe {
            match direction {
                Direction::In => {
                    (*counters).in_packets += 1;
                    (*counters).in_bytes += frame_bytes;
                }
                Direction::Out => {
                    (*counters).out_packets += 1;
                    (*counters).out_bytes += frame_bytes;
                }
            }
        }
    }
    verdict
}
