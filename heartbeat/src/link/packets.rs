//! VRRP packets with their headers, without sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// VRRP's number among the protocols over IP.
pub const PROTOCOL: u8 = 112;
/// Sent, and required of what is received: it has not come through a router (RFC 9568 sections 5.1.1.3, 5.1.2.3).
pub const TTL: u8 = 255;
/// Where adverts go (RFC 9568 sections 5.1.1.2, 5.1.2.2).
pub const GROUP4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// Like [`GROUP4`].
pub const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Internetwork control: precedence 6 (RFC 4594 section 3.1), as keepalived sets it.
const TRAFFIC_CLASS: u8 = 0xc0;

/// An IPv4 packet as a raw socket gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Packet<'a> {
    /// Time to live.
    pub ttl: u8,
    /// Source.
    pub from: Ipv4Addr,
    /// Destination.
    pub to: Ipv4Addr,
    /// What is in it.
    pub payload: &'a [u8],
}

/// Takes the header off.
#[must_use]
pub fn ipv4(packet: &[u8]) -> Option<Ipv4Packet<'_>> {
    let header = packet.first_chunk::<20>()?;
    if header[0] >> 4 != 4 || header[9] != PROTOCOL {
        return None;
    }
    let length = usize::from(header[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let word =
        |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    Some(Ipv4Packet {
        ttl: header[8],
        from: word(12),
        to: word(16),
        payload: packet.get(length.max(20)..total)?,
    })
}

/// A multicast advert as a frame, for sending it from a virtual MAC: the switch learns where that is (RFC 9568
/// section 7.2). None: the addresses are not of one family.
#[must_use]
pub fn frame(from: IpAddr, to: IpAddr, mac: [u8; 6], advert: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(advert.len()).ok()?;
    let mut frame = Vec::with_capacity(14 + 40 + advert.len());
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let [_, b, c, d] = to.octets();
            // RFC 1112 section 6.4.
            frame.extend([1, 0, 0x5e, b & 0x7f, c, d]);
            frame.extend(mac);
            frame.extend(ETHERTYPE_IPV4.to_be_bytes());
            let mut header = [0; 20];
            header[0] = 0x45;
            header[1] = TRAFFIC_CLASS;
            header[2..4].copy_from_slice(&length.checked_add(20)?.to_be_bytes());
            header[8] = TTL;
            header[9] = PROTOCOL;
            header[12..16].copy_from_slice(&from.octets());
            header[16..].copy_from_slice(&to.octets());
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend(header);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let [.., a, b, c, d] = to.octets();
            // RFC 2464 section 7.
            frame.extend([0x33, 0x33, a, b, c, d]);
            frame.extend(mac);
            frame.extend(ETHERTYPE_IPV6.to_be_bytes());
            frame.extend([0x60 | TRAFFIC_CLASS >> 4, (TRAFFIC_CLASS & 0xf) << 4, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([PROTOCOL, TTL]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        _ => return None,
    }
    frame.extend(advert);
    Some(frame)
}

/// RFC 1071, over an even number of bytes.
fn checksum(header: &[u8]) -> u16 {
    let mut sum: u32 = header
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded to 16 bits above.
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use etherparse::{IpNumber, NetSlice, SlicedPacket};

    use super::*;

    const MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 51];
    const ADVERT: &[u8] = &[0x31, 51, 100, 1, 0, 100, 0, 0, 198, 51, 100, 10];

    #[test]
    fn frames_from_a_virtual_mac() {
        let from = Ipv4Addr::new(192, 0, 2, 1);
        let made = frame(from.into(), GROUP4.into(), MAC, ADVERT).unwrap();
        assert_eq!(made[..12], [1, 0, 0x5e, 0, 0, 18, 0, 0, 0x5e, 0, 1, 51]);
        let packet = SlicedPacket::from_ethernet(&made).unwrap();
        let Some(NetSlice::Ipv4(ip)) = packet.net else {
            panic!("not IPv4: {made:?}");
        };
        let header = ip.header();
        assert_eq!(
            header.header_checksum(),
            header.to_header().calc_header_checksum()
        );
        assert_eq!((header.ttl(), header.protocol()), (255, IpNumber(112)));
        assert_eq!(
            (header.source_addr(), header.destination_addr()),
            (from, GROUP4)
        );
        assert_eq!(ip.payload().payload, ADVERT);

        let from: Ipv6Addr = "fe80::1".parse().unwrap();
        let made = frame(from.into(), GROUP6.into(), MAC, ADVERT).unwrap();
        assert_eq!(made[..6], [0x33, 0x33, 0, 0, 0, 0x12]);
        let packet = SlicedPacket::from_ethernet(&made).unwrap();
        let Some(NetSlice::Ipv6(ip)) = packet.net else {
            panic!("not IPv6: {made:?}");
        };
        let header = ip.header();
        assert_eq!(
            (header.hop_limit(), header.next_header()),
            (255, IpNumber(112))
        );
        assert_eq!(
            (header.source_addr(), header.destination_addr()),
            (from, GROUP6)
        );
        assert_eq!(header.traffic_class(), TRAFFIC_CLASS);
        assert_eq!(ip.payload().payload, ADVERT);

        assert_eq!(frame(from.into(), GROUP4.into(), MAC, ADVERT), None);
    }

    #[test]
    fn headers_are_taken_off() {
        let from = Ipv4Addr::new(192, 0, 2, 1);
        let made = frame(from.into(), GROUP4.into(), MAC, ADVERT).unwrap();
        let packet = &made[14..];
        let expected = Ipv4Packet {
            ttl: 255,
            from,
            to: GROUP4,
            payload: ADVERT,
        };
        assert_eq!(ipv4(packet), Some(expected));
        for length in 0..packet.len() {
            assert_eq!(ipv4(&packet[..length]), None, "{length}");
        }
        // A header with an option, and bytes behind the packet.
        let mut with_option = packet.to_vec();
        with_option[0] = 0x46;
        with_option[3] += 4;
        with_option.splice(20..20, [1, 1, 1, 1]);
        with_option.extend([0; 6]);
        assert_eq!(ipv4(&with_option), Some(expected));
        for (at, value) in [(0, 0x65), (9, 17), (0, 0x4f)] {
            let mut wrong = packet.to_vec();
            wrong[at] = value;
            assert_eq!(ipv4(&wrong), None, "{at}");
        }
    }
}
