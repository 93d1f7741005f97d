//! Packets to be explained: made of addresses and ports, or read from a capture.

use std::net::{IpAddr, SocketAddr};

use xdp_ebpf::native::LONGEST;

/// An Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Why a capture cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PcapError {
    /// Not a classic capture file.
    #[error(
        "it does not begin like a pcap file (pcapng is not read: convert it with `editcap -F pcap`)"
    )]
    Magic,
    /// Other frames than Ethernet's.
    #[error("its packets are of link type {0}, not Ethernet (1)")]
    LinkType(u32),
    /// It ends too early.
    #[error("it ends within packet {0}")]
    Short(usize),
    /// A frame that cannot be run.
    #[error("packet {number} has {bytes} bytes; at most {LONGEST} can be run")]
    Long {
        /// Which one, from 1.
        number: usize,
        /// Its length.
        bytes: usize,
    },
}

/// The packets of a capture file (the classic format, libpcap's `pcap-savefile(5)`), in either byte order.
///
/// # Errors
/// [`PcapError`].
pub fn read_pcap(bytes: &[u8]) -> Result<Vec<Frame>, PcapError> {
    const HEADER: usize = 24;
    const RECORD: usize = 16;
    let word = |at: usize| -> Option<[u8; 4]> { bytes.get(at..at + 4)?.try_into().ok() };
    let magic = word(0).ok_or(PcapError::Magic)?;
    let read: fn([u8; 4]) -> u32 = match u32::from_le_bytes(magic) {
        0xa1b2_c3d4 | 0xa1b2_3c4d => u32::from_le_bytes,
        0xd4c3_b2a1 | 0x4d3c_b2a1 => u32::from_be_bytes,
        _ => return Err(PcapError::Magic),
    };
    let link_type = read(word(20).ok_or(PcapError::Magic)?) & 0xffff;
    if link_type != 1 {
        return Err(PcapError::LinkType(link_type));
    }
    let mut frames = Vec::new();
    let mut at = HEADER;
    while at < bytes.len() {
        let number = frames.len() + 1;
        let length = read(word(at + 8).ok_or(PcapError::Short(number))?) as usize;
        let frame = bytes
            .get(at + RECORD..at + RECORD + length)
            .ok_or(PcapError::Short(number))?;
        if length > LONGEST {
            return Err(PcapError::Long {
                number,
                bytes: length,
            });
        }
        frames.push(Frame {
            bytes: frame.to_vec(),
        });
        at += RECORD + length;
    }
    Ok(frames)
}

impl Frame {
    /// A packet of this kind between two ends: TCP with these flags, or UDP. Both must be of one family.
    #[must_use]
    pub fn between(from: SocketAddr, to: SocketAddr, tcp_flags: Option<u8>) -> Self {
        let mut transport = Vec::new();
        transport.extend(from.port().to_be_bytes());
        transport.extend(to.port().to_be_bytes());
        let protocol = match tcp_flags {
            Some(flags) => {
                transport.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
                6
            }
            None => {
                // No checksum in IPv4, and nobody checks here in IPv6.
                transport.extend([0, 8, 0, 0]);
                17
            }
        };
        let length = transport.len() as u16;
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        match (from.ip(), to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.extend([8, 0, 0x45, 0]);
                bytes.extend((20 + length).to_be_bytes());
                bytes.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
            }
            (source, destination) => {
                let octets = |address: IpAddr| match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                    IpAddr::V6(address) => address.octets(),
                };
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                bytes.extend(length.to_be_bytes());
                bytes.extend([protocol, 64]);
                bytes.extend(octets(source));
                bytes.extend(octets(destination));
            }
        }
        bytes.extend(transport);
        Self { bytes }
    }
}

/// A frame in a few words; whatever it is.
pub(super) fn describe(bytes: &[u8]) -> String {
    let mut at = 12;
    let mut words = String::new();
    let ether_type = loop {
        let Some([high, low]) = bytes.get(at..at + 2) else {
            return format!("a frame of {} bytes", bytes.len());
        };
        let ether_type = u16::from_be_bytes([*high, *low]);
        at += 2;
        if !matches!(ether_type, 0x8100 | 0x88a8) {
            break ether_type;
        }
        words.push_str("tagged ");
        at += 2;
    };
    let mac = bytes[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(":");
    match ether_type {
        0x0800 | 0x86dd => format!("{words}{} to MAC {mac}", packet(&bytes[at..])),
        other => format!("{words}ether type {other:04x} to MAC {mac}"),
    }
}

fn packet(ip: &[u8]) -> String {
    let address = |from: usize, length: usize| -> Option<IpAddr> {
        let bytes = ip.get(from..from + length)?;
        match length {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        }
    };
    let (header, protocol, source, destination) = match ip.first().map(|first| first >> 4) {
        Some(4) => (
            usize::from(ip[0] & 15) * 4,
            ip.get(9).copied(),
            address(12, 4),
            address(16, 4),
        ),
        Some(6) => (40, ip.get(6).copied(), address(8, 16), address(24, 16)),
        _ => return "a packet of no version".to_owned(),
    };
    let (Some(protocol), Some(source), Some(destination)) = (protocol, source, destination) else {
        return "a packet that is cut off".to_owned();
    };
    let inner = ip.get(header..).unwrap_or_default();
    let port = |at: usize| Some(u16::from_be_bytes(inner.get(at..at + 2)?.try_into().ok()?));
    let name = match protocol {
        1 => "ICMP",
        4 => "IP in",
        6 => "TCP",
        17 => "UDP",
        41 => "IPv6 in",
        47 => "GRE",
        58 => "ICMPv6",
        _ => "protocol",
    };
    match (protocol, port(0), port(2)) {
        (6 | 17, Some(from), Some(to)) => format!(
            "{name} {} > {}",
            SocketAddr::new(source, from),
            SocketAddr::new(destination, to)
        ),
        (4 | 41, ..) => format!("{source} > {destination} with {}", packet(inner)),
        _ => format!("{name} {protocol} {source} > {destination}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_and_described() {
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (from, to, flags, expected) in [
            (
                "198.51.100.1:4000",
                "192.0.2.10:80",
                Some(2),
                "TCP 198.51.100.1:4000 > 192.0.2.10:80 to MAC 02:00:00:00:00:01",
            ),
            (
                "[2001:db8::1]:4000",
                "[2001:db8::2]:53",
                None,
                "UDP [2001:db8::1]:4000 > [2001:db8::2]:53 to MAC 02:00:00:00:00:01",
            ),
        ] {
            let frame = Frame::between(end(from), end(to), flags);
            assert_eq!(describe(&frame.bytes), expected);
            // Whatever is cut off is described somehow.
            for length in 0..frame.bytes.len() {
                assert!(!describe(&frame.bytes[..length]).is_empty());
            }
        }
    }

    #[test]
    fn captures() {
        let frame = Frame::between(
            "198.51.100.1:4000".parse().unwrap(),
            "192.0.2.10:80".parse().unwrap(),
            Some(2),
        );
        let capture = |magic: [u8; 4], link_type: u32, big: bool| {
            let word = |number: u32| {
                if big {
                    number.to_be_bytes()
                } else {
                    number.to_le_bytes()
                }
            };
            let mut bytes = magic.to_vec();
            bytes.extend([0; 16]);
            bytes.extend(word(link_type));
            for _ in 0..2 {
                bytes.extend([0; 8]);
                bytes.extend(word(frame.bytes.len() as u32));
                bytes.extend(word(frame.bytes.len() as u32));
                bytes.extend(&frame.bytes);
            }
            bytes
        };
        let little = [0xd4, 0xc3, 0xb2, 0xa1];
        let big = [0xa1, 0xb2, 0xc3, 0xd4];
        let both = vec![frame.clone(), frame.clone()];
        assert_eq!(read_pcap(&capture(little, 1, false)), Ok(both.clone()));
        assert_eq!(read_pcap(&capture(big, 1, true)), Ok(both));
        assert_eq!(
            read_pcap(&capture(little, 113, false)),
            Err(PcapError::LinkType(113))
        );
        assert_eq!(read_pcap(b"\x0a\x0d\x0d\x0a"), Err(PcapError::Magic));
        let mut short = capture(little, 1, false);
        short.pop();
        assert_eq!(read_pcap(&short), Err(PcapError::Short(2)));
    }
}
