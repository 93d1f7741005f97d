//! Packet sockets on the node: frames out, and a copy of answers to checks.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use xdp_ebpf::wire::{ethernet, protocol};

use super::guard::PORTS;
use super::namespace::HEADER_BYTES;

/// More than any packet, even of several that a NIC has put together.
pub(super) const LARGEST: usize = HEADER_BYTES + ethernet::LEN + 0x1_0000;

/// `struct virtio_net_hdr`: its first byte is flags (linux/virtio_net.h).
const NEEDS_CHECKSUM: u8 = 1;
const IS_CHECKED: u8 = 2;

/// The sockets.
pub(super) struct Wire {
    out: Socket,
    answers: [Socket; 2],
}

impl Wire {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            // Protocol 0: it takes nothing in.
            out: Socket::new(Domain::PACKET, Type::RAW, None)?,
            answers: [
                answers(ethernet::IPV4, &filter4())?,
                answers(ethernet::IPV6, &filter6())?,
            ],
        })
    }

    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.answers[0].as_fd(), self.answers[1].as_fd()]
    }

    /// Sends a frame by an interface.
    pub(super) fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let to = address(0, ifindex);
        // SAFETY: the frame and the address are there for the call, and their lengths are theirs.
        let sent = unsafe {
            libc::sendto(
                self.out.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// The next answer: a header for the tun device and the packet. `None`: no other one.
    pub(super) fn next<'b>(
        &self,
        family: usize,
        buffer: &'b mut [u8],
    ) -> io::Result<Option<&'b [u8]>> {
        use std::io::Read;
        let length = match (&self.answers[family]).read(buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            // An interface went down, which others tell of.
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => return Ok(None),
            Err(error) => return Err(error),
        };
        // The header of the packet moves up to it, over the link header.
        let flags = buffer[0];
        let Some(answer) = buffer.get_mut(ethernet::LEN..length) else {
            return Ok(Some(&[]));
        };
        let Some(header) = answer.first_chunk_mut::<HEADER_BYTES>() else {
            return Ok(Some(&[]));
        };
        // A packet whose checksum a NIC would still have to write has come from this machine, and is as good as checked.
        let is_checked = flags & (NEEDS_CHECKSUM | IS_CHECKED) != 0;
        *header = [0; HEADER_BYTES];
        header[0] = if is_checked { IS_CHECKED } else { 0 };
        Ok(Some(answer))
    }
}

fn address(ether_type: u16, ifindex: u32) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ether_type.to_be(),
        sll_ifindex: ifindex as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

/// A socket for answers in one family. One of a protocol of its own sees packets just where the node's network stack would
/// take them: without VLAN tags, and once, whatever bonds and bridges they came by.
fn answers(ether_type: u16, filter: &[SockFilter]) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    socket.set_nonblocking(true)?;
    // Before it is bound, so that nothing else ever gets in.
    socket.attach_filter(filter)?;
    let on: libc::c_int = 1;
    // SAFETY: the value is an int that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_VNET_HDR,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let at = address(ether_type, 0);
    // SAFETY: the address is there for the call, and its length is its own.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const at).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

/// Instructions of classic BPF (linux/filter.h).
mod code {
    pub(super) const LOAD_WORD: u16 = 0x20;
    pub(super) const LOAD_HALF: u16 = 0x28;
    pub(super) const LOAD_BYTE: u16 = 0x30;
    pub(super) const LOAD_HALF_AFTER: u16 = 0x48;
    pub(super) const LOAD_BYTE_AFTER: u16 = 0x50;
    /// The length of an IPv4 header, for `LOAD_*_AFTER`.
    pub(super) const LOAD_HEADER: u16 = 0xb1;
    pub(super) const IF_EQUAL: u16 = 0x15;
    pub(super) const IF_AT_LEAST: u16 = 0x35;
    pub(super) const IF_ANY_BIT: u16 = 0x45;
    pub(super) const RETURN: u16 = 0x06;
    /// `SKF_AD_OFF + SKF_AD_PKTTYPE`: 0 is for this node.
    pub(super) const PACKET_TYPE: u32 = 0xffff_f004;
}

const ALL: u32 = 0x4_0000;
const L3: u32 = ethernet::LEN as u32;

/// TCP and UDP to a port of checks; ICMP errors.
fn filter4() -> [SockFilter; 16] {
    use code::*;
    let port = u32::from(*PORTS.start());
    let at = SockFilter::new;
    [
        at(LOAD_WORD, 0, 0, PACKET_TYPE),
        at(IF_EQUAL, 0, 12, 0),
        at(LOAD_HALF, 0, 0, L3 + 6),
        at(IF_ANY_BIT, 10, 0, 0x1fff),
        at(LOAD_HEADER, 0, 0, L3),
        at(LOAD_BYTE, 0, 0, L3 + 9),
        at(IF_EQUAL, 5, 0, u32::from(protocol::TCP)),
        at(IF_EQUAL, 4, 0, u32::from(protocol::UDP)),
        at(IF_EQUAL, 0, 5, u32::from(protocol::ICMP)),
        at(LOAD_BYTE_AFTER, 0, 0, L3),
        at(IF_EQUAL, 4, 0, 3),
        at(IF_EQUAL, 3, 2, 11),
        at(LOAD_HALF_AFTER, 0, 0, L3 + 2),
        at(IF_AT_LEAST, 1, 0, port),
        at(RETURN, 0, 0, 0),
        at(RETURN, 0, 0, ALL),
    ]
}

/// The same for IPv6.
fn filter6() -> [SockFilter; 13] {
    use code::*;
    let port = u32::from(*PORTS.start());
    let at = SockFilter::new;
    [
        at(LOAD_WORD, 0, 0, PACKET_TYPE),
        at(IF_EQUAL, 0, 9, 0),
        at(LOAD_BYTE, 0, 0, L3 + 6),
        at(IF_EQUAL, 5, 0, u32::from(protocol::TCP)),
        at(IF_EQUAL, 4, 0, u32::from(protocol::UDP)),
        at(IF_EQUAL, 0, 5, u32::from(protocol::ICMPV6)),
        at(LOAD_BYTE, 0, 0, L3 + 40),
        at(IF_EQUAL, 4, 0, 1),
        at(IF_EQUAL, 3, 2, 3),
        at(LOAD_HALF, 0, 0, L3 + 40 + 2),
        at(IF_AT_LEAST, 1, 0, port),
        at(RETURN, 0, 0, 0),
        at(RETURN, 0, 0, ALL),
    ]
}
