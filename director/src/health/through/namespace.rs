//! A network namespace without the virtual addresses, and the tun device that leads out of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NLMSG_ERROR};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};

use super::packet::MTU;
use crate::next_hop::netlink;

/// Its name, within the namespace.
const NAME: &str = "through";
/// `struct virtio_net_hdr` in front of every packet: what is known of its checksum.
pub(super) const HEADER_BYTES: usize = 10;

/// The namespace's only way out. Whatever is sent there can be read from it.
pub(super) struct Tun {
    file: File,
    ifindex: u32,
    netlink: Socket,
}

impl Tun {
    /// Takes this thread into a new namespace and makes the device there. Both end with what refers to them.
    pub(super) fn in_new_namespace() -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(io::Error::from)
            .map_err(doing("a network namespace (it takes CAP_SYS_ADMIN)"))?;
        let file = open().map_err(doing("a tun device (/dev/net/tun)"))?;
        let mut tun = Self {
            file,
            ifindex: if_nametoindex(NAME)?,
            netlink: Socket::new(NETLINK_ROUTE)?,
        };
        tun.set_up().map_err(doing("setting the tun device up"))?;
        Ok(tun)
    }

    fn set_up(&mut self) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = self.ifindex;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes.push(LinkAttribute::Mtu(u32::from(MTU)));
        self.ask(RouteNetlinkMessage::SetLink(link), 0)?;
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut route = RouteMessage::default();
            route.header.address_family = family;
            route.header.table = RouteHeader::RT_TABLE_MAIN;
            route.header.protocol = RouteProtocol::Static;
            route.header.scope = RouteScope::Link;
            route.header.kind = RouteType::Unicast;
            route.attributes.push(RouteAttribute::Oif(self.ifindex));
            match self.ask(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE) {
                // A kernel without IPv6.
                Err(error) if family == AddressFamily::Inet6 => {
                    tracing::debug!(%error, "no checks through the real path by IPv6");
                }
                done => done?,
            }
        }
        Ok(())
    }

    /// Makes an address the namespace's own, if it is not yet.
    pub(super) fn add_address(&mut self, address: IpAddr) -> io::Result<()> {
        let mut message = AddressMessage::default();
        (message.header.family, message.header.prefix_len) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.header.index = self.ifindex;
        message.header.scope = AddressScope::Universe;
        // There is nobody to ask whether he has it too.
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.push(AddressAttribute::Address(address));
        match self.ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done,
        }
    }

    /// Has the kernel do something, and waits until it is done.
    fn ask(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let bytes = netlink::serialize(request, NLM_F_REQUEST | NLM_F_ACK | flags, 1);
        self.netlink.send(&bytes, 0)?;
        let mut answer = Vec::with_capacity(4096);
        self.netlink.recv(&mut answer, 0)?;
        let answer = netlink::messages(&answer).next();
        match answer {
            Some((header, payload)) if header.message_type == NLMSG_ERROR => {
                netlink::error_code(payload).map_or(Ok(()), Err)
            }
            _ => Err(io::Error::other("the kernel did not answer")),
        }
    }

    /// The next packet that was sent out, after [`HEADER_BYTES`]; `None`: no other one.
    pub(super) fn next<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        match self.file.read(buffer) {
            Ok(length) => Ok(buffer.get(HEADER_BYTES..length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lets a packet in, which stands after [`HEADER_BYTES`].
    pub(super) fn let_in(&mut self, header_and_packet: &[u8]) -> io::Result<()> {
        self.file.write(header_and_packet).map(drop)
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// An error, and what failed by it. It stands behind the new one, where [`FailureKind::of_beginning`] looks for it.
///
/// [`FailureKind::of_beginning`]: crate::health::probe::FailureKind::of_beginning
fn doing(what: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), Undone { what, error })
}

#[derive(Debug, thiserror::Error)]
#[error("{what}: {error}")]
struct Undone {
    what: &'static str,
    #[source]
    error: io::Error,
}

fn open() -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(NAME.bytes()) {
        // ASCII.
        *to = from as libc::c_char;
    }
    let request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            // These flags are below 2^15 (linux/if_tun.h).
            ifru_flags: (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short,
        },
    };
    // SAFETY: the request is an `ifreq` that outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw const request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::probe::FailureKind;

    #[test]
    fn what_failed_is_told_with_its_cause() {
        for (code, expected) in [
            (libc::EMFILE, FailureKind::Shortage),
            (libc::EPERM, FailureKind::Local),
        ] {
            let error = doing("a tun device")(io::Error::from_raw_os_error(code));
            assert_eq!(FailureKind::of_beginning(&error), expected);
            assert!(error.to_string().starts_with("a tun device: "), "{error}");
        }
    }
}
