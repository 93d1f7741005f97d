//! The Internet checksum (RFC 1071) and the pseudo headers under it.

use std::net::IpAddr;

/// IP protocol number of VRRP.
pub(super) const PROTOCOL: u8 = 112;

/// Adds bytes to a sum of 16-bit words. An odd last byte is the high half of a word.
fn add(mut sum: u32, bytes: &[u8]) -> u32 {
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    sum
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded above.
    !(sum as u16)
}

/// The checksum of a packet whose own checksum field is zero, or 0 for one whose field is right.
pub(super) fn plain(packet: &[u8]) -> u16 {
    fold(add(0, packet))
}

/// The same with the pseudo header of IPv4 or IPv6 (RFC 8200 section 8.1).
pub(super) fn with_pseudo_header(packet: &[u8], from: IpAddr, to: IpAddr) -> u16 {
    let mut sum = match from {
        IpAddr::V4(from) => add(0, &from.octets()),
        IpAddr::V6(from) => add(0, &from.octets()),
    };
    sum = match to {
        IpAddr::V4(to) => add(sum, &to.octets()),
        IpAddr::V6(to) => add(sum, &to.octets()),
    };
    // A packet is far shorter than 64 KiB, so that the upper half of the length is zero in IPv6 too.
    sum += u32::from(PROTOCOL) + packet.len() as u32;
    fold(add(sum, packet))
}
