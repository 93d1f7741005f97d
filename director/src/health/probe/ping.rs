//! An ICMP echo request and its reply (RFC 792, RFC 4443 section 4).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::{Failure, FailureKind, Good, Reach};

/// Types of messages: request and reply.
const ECHO4: (u8, u8) = (8, 0);
const ECHO6: (u8, u8) = (128, 129);
/// What is sent besides the header.
const PAYLOAD: &[u8; 16] = b"director's check";
/// Of an IPv4 header in front of a message, as raw sockets give it.
const LEAST_HEADER: usize = 20;

pub(super) async fn probe(reach: &Reach) -> Result<Good, Failure> {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let (socket, is_raw) = open(reach).map_err(|error| no_socket(reach.address, &error))?;
    let is_ipv6 = reach.address.is_ipv6();
    // Datagram sockets get their own identifier from the kernel; on raw ones it tells this run's replies from others'.
    let identifier = (std::process::id() as u16).rotate_left(8) ^ number;
    let request = request(is_ipv6, identifier, number);
    socket
        .send(&request)
        .await
        .map_err(|error| Failure::io("sending the echo request", &error))?;
    let mut buffer = [0; 1500];
    loop {
        let length = socket
            .recv(&mut buffer)
            .await
            .map_err(|error| Failure::io("waiting for the echo reply", &error))?;
        let packet = buffer.get(..length).unwrap_or_default();
        if is_reply(packet, is_ipv6, is_raw, identifier, number) {
            return Ok(Good::new("echo reply"));
        }
    }
}

/// A socket for echo requests to one host: unprivileged, where the system lets this group have them
/// (`net.ipv4.ping_group_range`), else a raw one. Whether it is raw.
fn open(reach: &Reach) -> io::Result<(UdpSocket, bool)> {
    let (domain, protocol) = match reach.address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let (socket, is_raw) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => (socket, false),
        Err(_) => (Socket::new(domain, Type::RAW, Some(protocol))?, true),
    };
    socket.set_nonblocking(true)?;
    reach.bind(&socket)?;
    if let Some(source) = reach.source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect(&SocketAddr::new(reach.address, 0).into())?;
    // Only reads, writes and waits are asked of it from here on, which are the same for all datagram sockets.
    UdpSocket::from_std(socket.into()).map(|socket| (socket, is_raw))
}

/// The kernel looks for a way already when the socket is connected: without one it is no fault of this machine's.
fn no_socket(address: IpAddr, error: &io::Error) -> Failure {
    match Failure::io("", error).kind {
        FailureKind::Unreachable => Failure::new(
            FailureKind::Unreachable,
            format!("no way to {address}: {error}"),
        ),
        _ => {
            let words = format!("no socket for echo requests to {address}: {error}");
            Failure::new(FailureKind::of_beginning(error), words)
        }
    }
}

fn request(is_ipv6: bool, identifier: u16, number: u16) -> Vec<u8> {
    let kind = if is_ipv6 { ECHO6.0 } else { ECHO4.0 };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend(number.to_be_bytes());
    message.extend(PAYLOAD);
    if !is_ipv6 {
        // The kernel makes ICMPv6's, which takes in the addresses (RFC 3542 section 3.1).
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// RFC 1071.
fn checksum(message: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in message.chunks(2) {
        let word = [pair[0], pair.get(1).copied().unwrap_or(0)];
        sum += u32::from(u16::from_be_bytes(word));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded to 16 bits above.
    !(sum as u16)
}

/// Whether a packet is the reply to a request.
fn is_reply(packet: &[u8], is_ipv6: bool, is_raw: bool, identifier: u16, number: u16) -> bool {
    let header = if is_raw && !is_ipv6 {
        let words = packet.first().map_or(0, |byte| usize::from(byte & 0xf));
        (words * 4).max(LEAST_HEADER)
    } else {
        0
    };
    let Some(message) = packet.get(header..header + 8) else {
        return false;
    };
    let kind = if is_ipv6 { ECHO6.1 } else { ECHO4.1 };
    let word = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    message[0] == kind && message[1] == 0 && (!is_raw || word(4) == identifier) && word(6) == number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_cannot_be_had() {
        let cases = [
            (io::ErrorKind::HostUnreachable, FailureKind::Unreachable),
            (io::ErrorKind::NetworkUnreachable, FailureKind::Unreachable),
            (io::ErrorKind::PermissionDenied, FailureKind::Local),
        ];
        for (kind, expected) in cases {
            let failure = no_socket(IpAddr::from([192, 0, 2, 1]), &kind.into());
            assert_eq!(failure.kind, expected);
            assert!(failure.words.contains("192.0.2.1"), "{failure:?}");
        }
    }

    #[test]
    fn replies_and_others() {
        let mut reply = request(false, 7, 9);
        assert_eq!(
            checksum(&reply),
            0,
            "a message with its checksum sums up to nothing"
        );
        reply[0] = ECHO4.1;
        let with_header = |message: &[u8]| [&[0x45; 20], message].concat();
        // (packet, IPv6, raw, whether it is the reply to identifier 7, number 9)
        let cases = [
            (reply.clone(), false, false, true),
            (with_header(&reply), false, true, true),
            (request(false, 7, 9), false, false, false),
            (reply[..7].to_vec(), false, false, false),
            (with_header(&reply[..7]), false, true, false),
            (vec![0x4f], false, true, false),
            (Vec::new(), true, true, false),
        ];
        for (packet, is_ipv6, is_raw, expected) in cases {
            assert_eq!(
                is_reply(&packet, is_ipv6, is_raw, 7, 9),
                expected,
                "{packet:?}"
            );
        }
        assert!(!is_reply(&with_header(&reply), false, true, 8, 9));
        assert!(!is_reply(&reply, false, false, 7, 8));
    }
}
