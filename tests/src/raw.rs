//! Packets that are sent as they are, and the ICMP messages that come back. Both by raw sockets, which belong to the
//! network namespace of the thread that opens them.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto,
    socket,
};

use crate::packet::build::Ip;

/// Sends a packet to the next hop that the kernel's routes name.
///
/// # Errors
/// The kernel refuses: not root, no route, larger than the interface takes.
pub fn send(packet: &Ip) -> Result<()> {
    let failed = || format!("sending a packet to {}", packet.destination);
    // With this protocol the socket is given the IP header too (raw(7); net/ipv6/af_inet6.c, inet6_create).
    let open = |family| {
        socket(
            family,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Raw,
        )
    };
    let bytes = packet.bytes();
    let sent = match packet.destination {
        IpAddr::V4(address) => {
            let to = SockaddrIn::from(SocketAddrV4::new(address, 0));
            open(AddressFamily::Inet)
                .and_then(|socket| sendto(socket.as_raw_fd(), &bytes, &to, MsgFlags::empty()))
        }
        IpAddr::V6(address) => {
            let to = SockaddrIn6::from(SocketAddrV6::new(address, 0, 0, 0));
            open(AddressFamily::Inet6)
                .and_then(|socket| sendto(socket.as_raw_fd(), &bytes, &to, MsgFlags::empty()))
        }
    };
    sent.map(drop).with_context(failed)
}

/// An ICMP message that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its sender.
    pub from: IpAddr,
    /// Type and code.
    pub kind: (u8, u8),
    /// The four bytes after the checksum: an MTU, or identifier and sequence number.
    pub rest: u32,
    /// What follows: for an error, the packet it is about.
    pub data: Vec<u8>,
}

/// Hears the ICMP messages of one family that come in from now on.
#[derive(Debug)]
pub struct Listener {
    /// Not UDP at all; but reading with a time limit is the same.
    socket: UdpSocket,
    ipv6: bool,
}

impl Listener {
    /// Opens it.
    ///
    /// # Errors
    /// Not root.
    pub fn open(ipv6: bool) -> Result<Self> {
        let (family, protocol) = if ipv6 {
            (AddressFamily::Inet6, SockProtocol::IcmpV6)
        } else {
            (AddressFamily::Inet, SockProtocol::Icmp)
        };
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .context("opening a raw socket")?;
        Ok(Self {
            socket: socket.into(),
            ipv6,
        })
    }

    /// Waits for a message that `wanted` takes.
    ///
    /// # Errors
    /// None came within `patience`; with those that did.
    pub fn wait(&self, patience: Duration, wanted: impl Fn(&Message) -> bool) -> Result<Message> {
        let deadline = Instant::now() + patience;
        let mut others = Vec::new();
        let mut bytes = vec![0; 65_535];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the ICMP message did not come; these did: {others:?}");
            }
            self.socket.set_read_timeout(Some(left))?;
            let (length, from) = match self.socket.recv_from(&mut bytes) {
                Ok(received) => received,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
                {
                    continue;
                }
                Err(error) => return Err(error).context("waiting for an ICMP message"),
            };
            match message(from.ip(), &bytes[..length], self.ipv6) {
                Some(message) if wanted(&message) => return Ok(message),
                other => others.extend(other),
            }
        }
    }
}

/// Reads what a raw socket gives: for IPv4 with the IP header, for IPv6 without.
fn message(from: IpAddr, bytes: &[u8], ipv6: bool) -> Option<Message> {
    let header = if ipv6 {
        0
    } else {
        usize::from(bytes.first()? & 0xf) * 4
    };
    let (icmp, data) = bytes.get(header..)?.split_first_chunk::<8>()?;
    Some(Message {
        from,
        kind: (icmp[0], icmp[1]),
        rest: u32::from_be_bytes([icmp[4], icmp[5], icmp[6], icmp[7]]),
        data: data.to_vec(),
    })
}
