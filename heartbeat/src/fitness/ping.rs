//! Echo requests to a host that must answer (RFC 792, RFC 4443 section 4).

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::PingTracked;

/// Types of messages: request and reply.
const ECHO4: (u8, u8) = (8, 0);
const ECHO6: (u8, u8) = (128, 129);
/// What is sent besides the header.
const PAYLOAD: &[u8; 16] = b"Director's pulse";
/// Of an IPv4 header in front of a message, as raw sockets give it.
const LEAST_HEADER: usize = 20;
/// Most packets looked at in one go: a raw socket gets those of others too.
const AT_ONCE: usize = 64;

/// A host, and what was asked of it.
pub(super) struct Ping {
    settings: PingTracked,
    socket: Option<(UdpSocket, bool)>,
    identifier: u16,
    number: u16,
    /// When the request was sent that no answer has come to.
    asked: Option<Duration>,
    next: Duration,
}

impl Ping {
    pub(super) fn new(settings: PingTracked, nth: usize) -> Self {
        Self {
            settings,
            socket: None,
            // Datagram sockets get theirs from the kernel; on raw ones it tells this run's replies from others'.
            identifier: (std::process::id() as u16).rotate_left(8) ^ nth as u16,
            number: 0,
            asked: None,
            next: Duration::ZERO,
        }
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(|(socket, _)| socket.as_fd())
    }

    pub(super) fn deadline(&self) -> Duration {
        let timeout = self.settings.rhythm.timeout;
        self.asked.map_or(self.next, |asked| asked + timeout)
    }

    /// Asks if it is time to, or gives up waiting.
    pub(super) fn step(&mut self, now: Duration) -> Option<Result<(), String>> {
        let rhythm = self.settings.rhythm;
        let mut result = None;
        if let Some(asked) = self.asked {
            if asked + rhythm.timeout > now {
                return None;
            }
            self.asked = None;
            result = Some(Err(format!(
                "no answer within {} ms",
                rhythm.timeout.as_millis()
            )));
        }
        if self.next <= now {
            self.next = now + rhythm.interval;
            match self.ask() {
                Ok(()) => self.asked = Some(now),
                Err(error) => {
                    // A socket that was bound to what is gone may never work again.
                    self.socket = None;
                    result = Some(Err(format!("it cannot be asked: {error}")));
                }
            }
        }
        result
    }

    /// Whether the answer is among what has come.
    pub(super) fn receive(&mut self) -> Option<Result<(), String>> {
        let (socket, is_raw) = self.socket.as_ref()?;
        let mut buffer = [0; 1500];
        for _ in 0..AT_ONCE {
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    let packet = buffer.get(..length).unwrap_or_default();
                    let is_ipv6 = self.settings.address.is_ipv6();
                    let is_ours = is_reply(packet, is_ipv6, *is_raw, self.identifier, self.number);
                    if is_ours && self.asked.take().is_some() {
                        return Some(Ok(()));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => {
                    // Told of by the way (unreachable): the request will not be answered.
                    self.asked.take()?;
                    return Some(Err(error.to_string()));
                }
            }
        }
        None
    }

    fn ask(&mut self) -> io::Result<()> {
        let address = self.settings.address;
        let (socket, _) = match &mut self.socket {
            Some(open) => open,
            none => none.insert(open(address)?),
        };
        self.number = self.number.wrapping_add(1);
        let request = request(address.is_ipv6(), self.identifier, self.number);
        match socket.send(&request) {
            // An answer to the one before, told now; this one was not sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                socket.send(&request).map(drop)
            }
            sent => sent.map(drop),
        }
    }
}

/// A socket for echo requests to one host: unprivileged, where the system lets this group have them
/// (`net.ipv4.ping_group_range`), else a raw one. Whether it is raw.
fn open(address: IpAddr) -> io::Result<(UdpSocket, bool)> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let (socket, is_raw) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => (socket, false),
        Err(_) => (Socket::new(domain, Type::RAW, Some(protocol))?, true),
    };
    socket.set_nonblocking(true)?;
    socket.connect(&SocketAddr::new(address, 0).into())?;
    // Only reads, writes and waits are asked of it from here on, which are the same for all datagram sockets.
    Ok((socket.into(), is_raw))
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

/// RFC 1071, over an even number of bytes.
fn checksum(message: &[u8]) -> u16 {
    let mut sum: u32 = message
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
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
            let found = is_reply(&packet, is_ipv6, is_raw, 7, 9);
            assert_eq!(found, expected, "{packet:?}");
        }
        assert!(!is_reply(&with_header(&reply), false, true, 8, 9));
        assert!(!is_reply(&reply, false, false, 7, 8));
    }
}
