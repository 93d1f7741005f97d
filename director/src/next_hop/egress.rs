//! How frames leave the node: by which interface, from which address, with which VLAN tags.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use xdp_ebpf::layout::NextHop;

use super::event::{LinkKind, VlanProtocol};
use super::network::{Left, Network, Resolution};

/// A way out of the node, without the neighbour's address.
pub(super) struct Egress {
    ifindex: u32,
    slot: u16,
    source: [u8; 6],
    vlan: [u16; 2],
    mtu: u16,
    up: bool,
}

impl Network {
    /// The next hop that a neighbour on an interface comes to.
    pub(super) fn next_hop(&self, ifindex: u32, neighbour: IpAddr) -> Resolution {
        let egress = match self.egress(ifindex) {
            Ok(egress) => egress,
            Err(resolution) => return resolution,
        };
        let mac = self
            .neighbours
            .get(&(ifindex, neighbour))
            .and_then(|known| known.mac);
        match mac {
            Some(destination) if egress.up => Resolution::Ready(NextHop {
                ifindex: egress.ifindex,
                destination,
                source: egress.source,
                vlan: egress.vlan,
                mtu: egress.mtu,
                egress: egress.slot,
            }),
            Some(_) | None => Resolution::Unresolved { ifindex, neighbour },
        }
    }

    /// Whether an interface and all that its frames pass through is up.
    pub(super) fn is_up(&self, ifindex: u32) -> bool {
        self.egress(ifindex).is_ok_and(|egress| egress.up)
    }

    /// How frames of an interface leave the node: by itself, or as a VLAN device by the one below.
    pub(super) fn egress(&self, ifindex: u32) -> Result<Egress, Resolution> {
        /// VLAN devices walked through; more than can be sent, so that too many are told from a foreign interface.
        const DEPTH: usize = 8;
        let not_ours = Resolution::NotOurs { ifindex };
        let top = self.links.get(&ifindex).ok_or(not_ours)?;
        let (mut link, mut up, mut mtu, mut tags) = (top, top.up, top.mtu, Vec::new());
        let slot = loop {
            if let Some(slot) = self.slots.get(&link.ifindex) {
                break *slot;
            }
            let LinkKind::Vlan {
                parent,
                id,
                protocol,
            } = link.kind
            else {
                return Err(not_ours);
            };
            if tags.len() == DEPTH {
                return Err(not_ours);
            }
            tags.push((protocol, id));
            link = self.links.get(&parent).ok_or(not_ours)?;
            up &= link.up;
            mtu = mtu.min(link.mtu);
        };
        // Outermost last. A tag of 0 means none, so VLAN 0 cannot be written.
        let vlan = match tags.as_slice() {
            [] => [0, 0],
            [(VlanProtocol::Dot1q, id @ 1..)] => [0, *id],
            [
                (VlanProtocol::Dot1q, inner @ 1..),
                (VlanProtocol::Dot1ad, outer @ 1..),
            ] => [*outer, *inner],
            _ => return Err(Resolution::Kernel(Left::VlanTags)),
        };
        if top.mac == [0; 6] {
            return Err(Resolution::Kernel(Left::NotEthernet));
        }
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        Ok(Egress {
            ifindex: link.ifindex,
            slot,
            source: top.mac,
            vlan,
            mtu,
            up,
        })
    }
}

/// Prefixes that the main table does not decide about, whatever routes it has.
pub(super) fn scoped() -> [IpNet; 8] {
    let v4 = |address: [u8; 4], length| IpNet::new_assert(Ipv4Addr::from(address).into(), length);
    let v6 = |first, last, length| {
        IpNet::new_assert(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last).into(), length)
    };
    [
        v4([127, 0, 0, 0], 8),
        v4([224, 0, 0, 0], 4),
        v4([255, 255, 255, 255], 32),
        v4([0, 0, 0, 0], 32),
        v6(0xfe80, 0, 10),
        v6(0xff00, 0, 8),
        v6(0, 1, 128),
        v6(0, 0, 128),
    ]
}
