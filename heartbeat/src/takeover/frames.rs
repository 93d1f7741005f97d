//! Announcements as frames: gratuitous ARP and unsolicited neighbour advertisements.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A MAC address.
pub type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
/// All nodes of the link, RFC 4291 section 2.7.1; its MAC address by RFC 2464 section 7.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Forms of an ARP message, RFC 826.
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
const NEXT_HEADER_ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// RFC 4861 section 4.4: the sender routes; caches are to take the new address in place of the one they have.
const ROUTER: u8 = 0x80;
const OVERRIDE: u8 = 0x20;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;

/// The frames that tell everybody on the link that `address` is at `mac` now.
///
/// For IPv4 both forms of gratuitous ARP: hosts differ in which of them they believe. `is_router`: whether this node
/// forwards IPv6; hosts take a router that says it is none out of their lists (RFC 4861 section 7.2.5).
#[must_use]
pub fn announcement(address: IpAddr, mac: Mac, is_router: bool) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(address) => vec![
            gratuitous_arp(address, mac, REQUEST),
            gratuitous_arp(address, mac, REPLY),
        ],
        IpAddr::V6(address) => vec![neighbour_advertisement(address, mac, is_router)],
    }
}

fn gratuitous_arp(address: Ipv4Addr, mac: Mac, form: u16) -> Vec<u8> {
    // RFC 5227 section 1.1: in the request form the target's hardware address says nothing. RFC 5944 section 4.6: in
    // the reply form it is the one that caches should have.
    let target = if form == REQUEST { [0; 6] } else { mac };
    let mut frame = Vec::with_capacity(42);
    ethernet(&mut frame, BROADCAST, mac, ETHERTYPE_ARP);
    frame.extend(1_u16.to_be_bytes());
    frame.extend(0x0800_u16.to_be_bytes());
    frame.extend([6, 4]);
    frame.extend(form.to_be_bytes());
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend(target);
    frame.extend(address.octets());
    frame
}

/// RFC 4861 sections 4.4 and 7.2.6.
fn neighbour_advertisement(address: Ipv6Addr, mac: Mac, is_router: bool) -> Vec<u8> {
    let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0];
    message.extend([OVERRIDE | if is_router { ROUTER } else { 0 }, 0, 0, 0]);
    message.extend(address.octets());
    message.extend([TARGET_LINK_LAYER_ADDRESS, 1]);
    message.extend(mac);
    let sum = icmpv6_checksum(address, ALL_NODES, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = Vec::with_capacity(14 + 40 + message.len());
    ethernet(&mut frame, ALL_NODES_MAC, mac, ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((message.len() as u16).to_be_bytes());
    // Hop limit 255, or it is not believed (RFC 4861 section 7.1.2).
    frame.extend([NEXT_HEADER_ICMPV6, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

fn ethernet(frame: &mut Vec<u8>, destination: Mac, source: Mac, kind: u16) {
    frame.extend(destination);
    frame.extend(source);
    frame.extend(kind.to_be_bytes());
}

/// RFC 4443 section 2.3.
fn icmpv6_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let mut sum = u32::from(NEXT_HEADER_ICMPV6) + message.len() as u32;
    for part in [&source.octets()[..], &destination.octets()[..], message] {
        for pair in part.chunks(2) {
            let word = [pair[0], pair.get(1).copied().unwrap_or(0)];
            sum += u32::from(u16::from_be_bytes(word));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded to 16 bits above.
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use etherparse::{
        ArpHardwareId, ArpOperation, EtherType, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice,
    };

    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 7];

    #[test]
    fn both_forms_of_gratuitous_arp() {
        let address = Ipv4Addr::new(198, 51, 100, 10);
        let frames = announcement(address.into(), MAC, true);
        assert_eq!(frames.len(), 2);
        let forms = [(ArpOperation::REQUEST, [0; 6]), (ArpOperation::REPLY, MAC)];
        for (frame, (operation, target)) in frames.iter().zip(forms) {
            assert_eq!(frame[..6], BROADCAST);
            assert_eq!(frame[6..12], MAC);
            let packet = SlicedPacket::from_ethernet(frame).unwrap();
            let Some(NetSlice::Arp(arp)) = packet.net else {
                panic!("not ARP: {frame:?}");
            };
            assert_eq!(arp.hw_addr_type(), ArpHardwareId::ETHERNET);
            assert_eq!(arp.proto_addr_type(), EtherType::IPV4);
            assert_eq!(arp.operation(), operation);
            assert_eq!(arp.sender_hw_addr(), MAC);
            assert_eq!(arp.target_hw_addr(), target);
            assert_eq!(arp.sender_protocol_addr(), address.octets());
            assert_eq!(arp.target_protocol_addr(), address.octets());
        }
    }

    #[test]
    fn unsolicited_neighbour_advertisement() {
        let address: Ipv6Addr = "2001:db8::10".parse().unwrap();
        for is_router in [false, true] {
            let frames = announcement(address.into(), MAC, is_router);
            assert_eq!(frames.len(), 1);
            let frame = &frames[0];
            assert_eq!(frame[..6], ALL_NODES_MAC);
            assert_eq!(frame[6..12], MAC);
            let packet = SlicedPacket::from_ethernet(frame).unwrap();
            let Some(NetSlice::Ipv6(ip)) = &packet.net else {
                panic!("not IPv6: {frame:?}");
            };
            assert_eq!(ip.header().hop_limit(), 255);
            assert_eq!(ip.header().source_addr(), address);
            assert_eq!(ip.header().destination_addr(), ALL_NODES);
            let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else {
                panic!("not ICMPv6: {frame:?}");
            };
            assert!(icmp.is_checksum_valid(address.octets(), ALL_NODES.octets()));
            let Icmpv6Type::NeighborAdvertisement(header) = icmp.icmp_type() else {
                panic!("no advertisement: {:?}", icmp.icmp_type());
            };
            assert_eq!(header.router, is_router);
            assert!(header.r#override && !header.solicited);
            let expected = [&address.octets()[..], &[2, 1], &MAC].concat();
            assert_eq!(icmp.payload(), expected);
        }
    }
}
