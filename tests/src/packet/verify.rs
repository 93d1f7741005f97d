//! Whether every checksum of a frame is right, as etherparse computes it: headers, tunnels, and what ICMP errors quote.

use anyhow::{Result, bail, ensure};
use etherparse::{
    Icmpv4Header, Icmpv4Slice, Icmpv6Header, Icmpv6Slice, Ipv4HeaderSlice, Ipv6HeaderSlice,
    TcpSlice, UdpSlice,
};
use xdp_ebpf::wire::{icmp, ipv6, protocol};

/// Port on which a UDP datagram holds a GUE header and another packet.
pub const GUE_PORT: u16 = 6080;

/// The addresses of a pseudo-header.
#[derive(Clone, Copy)]
enum Addresses {
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}

/// Checks a whole frame.
///
/// # Errors
/// The first checksum or length that is wrong, and where it stands.
pub fn verify(frame: &[u8]) -> Result<()> {
    let mut at = 12;
    loop {
        ensure!(frame.len() >= at + 2, "the link header is cut off");
        let ether_type = u16::from_be_bytes([frame[at], frame[at + 1]]);
        at += 2;
        match ether_type {
            0x8100 | 0x88a8 => at += 2,
            0x0800 | 0x86dd => return packet(&frame[at..], false),
            other => bail!("ether type {other:04x}"),
        }
    }
}

/// Checks an IP packet. `quoted`: it may be cut off, and then only what is there is looked at.
fn packet(bytes: &[u8], quoted: bool) -> Result<()> {
    match bytes.first().map(|first| first >> 4) {
        Some(4) => {
            let header = Ipv4HeaderSlice::from_slice(bytes)?;
            let right = header.to_header().calc_header_checksum();
            ensure!(
                header.header_checksum() == right,
                "IPv4 header checksum {:04x} instead of {right:04x}",
                header.header_checksum()
            );
            let length = usize::from(header.total_len());
            ensure!(quoted || length <= bytes.len(), "IPv4 length {length}");
            if header.is_fragmenting_payload() || length > bytes.len() {
                return Ok(());
            }
            transport(
                header.protocol().0,
                &bytes[header.slice().len()..length],
                Addresses::V4(header.source(), header.destination()),
            )
        }
        Some(6) => {
            let header = Ipv6HeaderSlice::from_slice(bytes)?;
            let length = 40 + usize::from(header.payload_length());
            ensure!(quoted || length <= bytes.len(), "IPv6 length {length}");
            if length > bytes.len() {
                return Ok(());
            }
            let mut next = header.next_header().0;
            let mut rest = &bytes[40..length];
            loop {
                match next {
                    ipv6::FRAGMENT => {
                        ensure!(rest.len() >= 8, "the fragment header is cut off");
                        let field = u16::from_be_bytes([rest[2], rest[3]]);
                        if field & 0xfff9 != 0 {
                            return Ok(());
                        }
                        next = rest[0];
                        rest = &rest[8..];
                    }
                    ipv6::HOP_BY_HOP | ipv6::ROUTING | ipv6::DESTINATION_OPTIONS => {
                        ensure!(rest.len() >= 8, "an extension header is cut off");
                        let length = (usize::from(rest[1]) + 1) * 8;
                        ensure!(rest.len() >= length, "an extension header is cut off");
                        next = rest[0];
                        rest = &rest[length..];
                    }
                    _ => break,
                }
            }
            transport(
                next,
                rest,
                Addresses::V6(header.source(), header.destination()),
            )
        }
        other => bail!("IP version {other:?}"),
    }
}

fn transport(number: u8, bytes: &[u8], addresses: Addresses) -> Result<()> {
    match number {
        protocol::TCP => {
            let segment = TcpSlice::from_slice(bytes)?;
            let right = match addresses {
                Addresses::V4(source, destination) => {
                    segment.calc_checksum_ipv4(source, destination)?
                }
                Addresses::V6(source, destination) => {
                    segment.calc_checksum_ipv6(source, destination)?
                }
            };
            ensure!(
                segment.checksum() == right,
                "TCP checksum {:04x} instead of {right:04x}",
                segment.checksum()
            );
            Ok(())
        }
        protocol::UDP => {
            let datagram = UdpSlice::from_slice(bytes)?;
            ensure!(
                usize::from(datagram.length()) == bytes.len(),
                "UDP length {} instead of {}",
                datagram.length(),
                bytes.len()
            );
            if datagram.destination_port() == GUE_PORT {
                return packet(&datagram.payload()[4..], false);
            }
            if datagram.checksum() == 0 {
                return Ok(());
            }
            let header = datagram.to_header();
            let right = match addresses {
                Addresses::V4(source, destination) => {
                    header.calc_checksum_ipv4_raw(source, destination, datagram.payload())?
                }
                Addresses::V6(source, destination) => {
                    header.calc_checksum_ipv6_raw(source, destination, datagram.payload())?
                }
            };
            ensure!(
                datagram.checksum() == right,
                "UDP checksum {:04x} instead of {right:04x}",
                datagram.checksum()
            );
            Ok(())
        }
        protocol::ICMP => {
            let message = Icmpv4Slice::from_slice(bytes)?;
            let right =
                Icmpv4Header::with_checksum(unknown4(message.slice()), &message.slice()[8..])
                    .checksum;
            ensure!(
                message.checksum() == right,
                "ICMP checksum {:04x} instead of {right:04x}",
                message.checksum()
            );
            match message.type_u8() {
                icmp::UNREACHABLE
                | icmp::SOURCE_QUENCH
                | icmp::TIME_EXCEEDED
                | icmp::PARAMETER_PROBLEM => packet(&message.slice()[8..], true),
                _ => Ok(()),
            }
        }
        protocol::ICMPV6 => {
            let Addresses::V6(source, destination) = addresses else {
                bail!("ICMPv6 in IPv4");
            };
            let message = Icmpv6Slice::from_slice(bytes)?;
            let data = &message.slice()[8..];
            let right =
                Icmpv6Header::with_checksum(unknown6(message.slice()), source, destination, data)?
                    .checksum;
            ensure!(
                message.checksum() == right,
                "ICMPv6 checksum {:04x} instead of {right:04x}",
                message.checksum()
            );
            if message.type_u8() < icmp::V6_FIRST_INFORMATIONAL {
                return packet(data, true);
            }
            Ok(())
        }
        protocol::IPIP | protocol::IPV6 => packet(bytes, false),
        protocol::GRE => {
            ensure!(bytes.len() > 4, "the GRE header is cut off");
            packet(&bytes[4..], false)
        }
        _ => Ok(()),
    }
}

fn unknown4(message: &[u8]) -> etherparse::Icmpv4Type {
    etherparse::Icmpv4Type::Unknown {
        type_u8: message[0],
        code_u8: message[1],
        bytes5to8: [message[4], message[5], message[6], message[7]],
    }
}

fn unknown6(message: &[u8]) -> etherparse::Icmpv6Type {
    etherparse::Icmpv6Type::Unknown {
        type_u8: message[0],
        code_u8: message[1],
        bytes5to8: [message[4], message[5], message[6], message[7]],
    }
}
