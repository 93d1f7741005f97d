//! Packets of checks: whose they are, and what the packet path makes of them.

use std::net::{IpAddr, SocketAddr};

use xdp_ebpf::family::{V4, V6};
use xdp_ebpf::layout::{Destination, Scratch, Settings};
use xdp_ebpf::native::{Frame, LONGEST, NativeTables};
use xdp_ebpf::path::{Verdict, deliver};
use xdp_ebpf::tables::Tables;
use xdp_ebpf::wire::{ethernet, protocol};

use super::Transport;

/// The longest packet that a check's socket sends: what every way takes, tunnel and all (RFC 8200 section 5).
pub(super) const MTU: u16 = 1280;

/// Number of the destination in tables that have but one.
const DESTINATION: u32 = 1;

/// Both ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub(super) transport: Transport,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
}

impl Ends {
    pub(super) fn turned(self) -> Self {
        Self {
            from: self.to,
            to: self.from,
            ..self
        }
    }
}

/// What an IP packet carries: protocol, source, destination and payload. `None`: not whole, a fragment other than the
/// first, or with extension headers, which no answer to a check has.
fn open(packet: &[u8]) -> Option<(u8, IpAddr, IpAddr, &[u8])> {
    match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 0xf) * 4;
            let offset = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?) & 0x1fff;
            if header < 20 || offset != 0 {
                return None;
            }
            let address = |at: usize| -> Option<IpAddr> {
                let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
                Some(bytes.into())
            };
            Some((
                *packet.get(9)?,
                address(12)?,
                address(16)?,
                packet.get(header..)?,
            ))
        }
        6 => {
            let address = |at: usize| -> Option<IpAddr> {
                let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
                Some(bytes.into())
            };
            Some((
                *packet.get(6)?,
                address(8)?,
                address(24)?,
                packet.get(40..)?,
            ))
        }
        _ => None,
    }
}

/// The ends of a TCP segment or UDP datagram.
pub(super) fn ends(packet: &[u8]) -> Option<Ends> {
    let (number, source, destination, payload) = open(packet)?;
    let transport = match number {
        protocol::TCP => Transport::Tcp,
        protocol::UDP => Transport::Udp,
        _ => return None,
    };
    let port = |at: usize| {
        Some(u16::from_be_bytes(
            payload.get(at..at + 2)?.try_into().ok()?,
        ))
    };
    Some(Ends {
        transport,
        from: SocketAddr::new(source, port(0)?),
        to: SocketAddr::new(destination, port(2)?),
    })
}

/// The ends of the packet that an ICMP error is about: unreachable or TTL used up, by whoever it is said.
pub(super) fn quoted(packet: &[u8]) -> Option<Ends> {
    let (number, _, _, message) = open(packet)?;
    let is_error = match (number, packet.first()? >> 4, message.first()?) {
        // RFC 792; RFC 4443 section 3.
        (1, 4, kind) => [3, 11].contains(kind),
        (58, 6, kind) => [1, 3].contains(kind),
        _ => false,
    };
    ends(message.get(8..).filter(|_| is_error)?)
}

/// The packet path over tables of its own, with one destination: nothing is entered or counted anywhere else.
pub(super) struct Path {
    tables: NativeTables,
}

impl Path {
    pub(super) fn new() -> Self {
        let settings = Settings {
            cpus: 1,
            ..Settings::default()
        };
        Self {
            tables: NativeTables::new(settings, DESTINATION + 1),
        }
    }

    /// What becomes of a check's packet for a real server: a frame, and the interface that it leaves by. `None`: it does
    /// not leave.
    pub(super) fn deliver(
        &mut self,
        packet: &[u8],
        destination: &Destination,
    ) -> Option<(u32, Vec<u8>)> {
        if packet.len() + ethernet::LEN > LONGEST || destination.next_hop.ifindex == 0 {
            return None;
        }
        // As if a client's had come in, by whatever MAC addresses: both are written anew.
        let mut frame = vec![0; ethernet::LEN];
        let is_ipv4 = packet.first()? >> 4 == 4;
        let ether_type: u16 = if is_ipv4 {
            ethernet::IPV4
        } else {
            ethernet::IPV6
        };
        frame[12..].copy_from_slice(&ether_type.to_be_bytes());
        frame.extend(packet);
        self.tables.destinations.insert(DESTINATION, *destination);
        let note = Scratch {
            destination: DESTINATION,
            ..Scratch::default()
        };
        // SAFETY: this thread's own tables, and no packet is being handled.
        unsafe { self.tables.scratch()?.write(note) };
        let mut frame = Frame::new(&frame, 0);
        let verdict = if is_ipv4 {
            deliver::stage::<V4, _, _>(&mut frame, &self.tables)
        } else {
            deliver::stage::<V6, _, _>(&mut frame, &self.tables)
        };
        match verdict {
            Verdict::Transmit | Verdict::Redirect(_) => {
                Some((destination.next_hop.ifindex, frame.bytes()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use xdp_ebpf::layout::{NextHop, destination, method};

    use super::*;
    use crate::explain;

    fn packet(from: &str, to: &str, tcp: bool) -> Vec<u8> {
        let flags = tcp.then_some(2);
        let frame = explain::Frame::between(from.parse().unwrap(), to.parse().unwrap(), flags);
        frame.bytes[14..].to_vec()
    }

    #[test]
    fn whose_packets_they_are() {
        let rows = [
            ("10.0.0.1:61000", "192.0.2.10:80", true),
            ("10.0.0.1:61000", "192.0.2.10:53", false),
            ("[2001:db8::1]:61000", "[2001:db8:f::10]:80", true),
            ("[2001:db8::1]:61000", "[2001:db8:f::10]:53", false),
        ];
        for (from, to, tcp) in rows {
            let packet = packet(from, to, tcp);
            let expected = Ends {
                transport: if tcp { Transport::Tcp } else { Transport::Udp },
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
            };
            assert_eq!(ends(&packet), Some(expected));
            assert_eq!(quoted(&packet), None);
            let is_ipv4 = expected.from.is_ipv4();
            // An error about it: an IP header like its own, the message's header, and what is quoted.
            let header = if is_ipv4 { 20 } else { 40 };
            for (kind, counts) in [(1, !is_ipv4), (3, true), (11, is_ipv4), (8, false)] {
                let mut error = packet[..header].to_vec();
                error[if is_ipv4 { 9 } else { 6 }] = if is_ipv4 { 1 } else { 58 };
                error.extend([kind, 3, 0, 0, 0, 0, 0, 0]);
                error.extend(&packet);
                assert_eq!(quoted(&error), counts.then_some(expected), "{kind}");
                assert_eq!(ends(&error), None);
                for length in 0..error.len() {
                    // Cut off anywhere it is somebody's or nobody's, and nothing worse.
                    let found = quoted(&error[..length]);
                    assert!(found.is_none() || found == Some(expected));
                }
            }
            for length in 0..header + 4 {
                assert_eq!(ends(&packet[..length]), None, "{length}");
            }
        }
        let mut later = packet("10.0.0.1:61000", "192.0.2.10:53", false);
        later[7] = 1;
        assert_eq!(ends(&later), None, "a later fragment has no ports");
    }

    #[test]
    fn encapsulated_as_the_packet_path_does() {
        let to = |method: u8, ifindex: u32| {
            let mut address = [0; 16];
            address[..4].copy_from_slice(&[10, 0, 0, 11]);
            Destination {
                method,
                address,
                next_hop: NextHop {
                    ifindex,
                    destination: [2, 0, 0, 0, 2, 1],
                    source: [2, 0, 0, 0, 0, 9],
                    mtu: 1500,
                    ..NextHop::default()
                },
                ..Destination::default()
            }
        };
        let packet = packet("10.0.0.1:61000", "192.0.2.10:80", true);
        let mut path = Path::new();
        let mut deliver = |packet: &[u8], to: &Destination| path.deliver(packet, to);
        let rows = [
            (method::DR, 0, None),
            (method::IPIP, 20, Some(protocol::IPIP)),
            (method::GUE, 20 + 8 + 4, Some(protocol::UDP)),
            (method::GRE, 20 + 4, Some(protocol::GRE)),
        ];
        for (method, shim, outer) in rows {
            let (ifindex, frame) = deliver(&packet, &to(method, 7)).unwrap();
            assert_eq!(ifindex, 7);
            assert_eq!(&frame[..12], [2, 0, 0, 0, 2, 1, 2, 0, 0, 0, 0, 9]);
            assert_eq!(&frame[14 + shim..], packet, "inside it is untouched");
            if let Some(outer) = outer {
                assert_eq!(
                    (frame[23], &frame[30..34]),
                    (outer, [10, 0, 0, 11].as_slice())
                );
            }
            assert_eq!(deliver(&packet, &to(method, 0)), None, "not resolved");
        }
        let out = Destination {
            flags: destination::OUT,
            ..to(method::DR, 7)
        };
        assert!(
            deliver(&packet, &out).is_some(),
            "one that is out of service is asked all the same: how else would it come back"
        );
        assert_eq!(deliver(&packet, &to(0, 7)), None, "released");
        assert_eq!(deliver(&[0x45; 5000], &to(method::DR, 7)), None);
        assert_eq!(deliver(&[], &to(method::DR, 7)), None);
    }
}
