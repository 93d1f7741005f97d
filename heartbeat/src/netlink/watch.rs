//! What the kernel tells of links and addresses, as it happens.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::NLMSG_OVERRUN;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::libc;

use super::conversation::{Conversation, DATAGRAM_BYTES, messages, parse};

/// Receive buffer of the socket for events, in bytes. An overrun is noticed and made good.
const EVENT_BUFFER_BYTES: libc::c_int = 1 << 20;
/// Most datagrams read in one go, so that a storm of events does not keep the loop from its heartbeats.
const AT_ONCE: usize = 64;

/// An interface, as far as failover looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkState {
    /// Interface index.
    pub(crate) index: u32,
    /// Its name.
    pub(crate) name: String,
    /// Switched on and with a carrier.
    pub(crate) is_up: bool,
}

/// Something happened to the network of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// These are all links; what was known before is void.
    All(Vec<LinkState>),
    /// A link appeared or changed.
    Link(LinkState),
    /// A link is gone.
    LinkGone {
        /// Its index.
        index: u32,
    },
    /// An address was added or changed.
    AddressNew {
        /// The interface that has it.
        index: u32,
    },
    /// An address of this node's is gone.
    AddressGone {
        /// The interface that had it.
        index: u32,
        /// The address.
        address: IpAddr,
    },
}

/// Follows links and addresses of the network namespace in which it was started.
pub(crate) struct Watch {
    socket: Socket,
    /// Everything must be read anew.
    is_stale: bool,
}

impl Watch {
    /// Subscribes. The first [`Watch::read`] gives all links.
    pub(crate) fn start() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        socket.set_rx_buf_sz(EVENT_BUFFER_BYTES)?;
        for group in [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV6_IFADDR,
        ] {
            socket.add_membership(group)?;
        }
        Ok(Self {
            socket,
            is_stale: true,
        })
    }

    /// For waiting until there is something to read.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether [`Watch::read`] has something whatever the descriptor says.
    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// What happened since the last call. Does not wait.
    pub(crate) fn read(&mut self) -> io::Result<Vec<Change>> {
        let mut changes = Vec::new();
        let mut buffer = Vec::with_capacity(DATAGRAM_BYTES);
        for _ in 0..AT_ONCE {
            buffer.clear();
            match self.socket.recv(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(_) => self.take(&buffer, &mut changes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.is_stale = true,
                Err(error) => return Err(error),
            }
        }
        if self.is_stale {
            changes.push(Change::All(links()?));
            self.is_stale = false;
        }
        Ok(changes)
    }

    fn take(&mut self, datagram: &[u8], changes: &mut Vec<Change>) {
        for (header, payload) in messages(datagram) {
            if header.message_type == NLMSG_OVERRUN {
                self.is_stale = true;
                continue;
            }
            changes.extend(parse(&header, payload).and_then(|message| understood(&message)));
        }
    }
}

fn links() -> io::Result<Vec<LinkState>> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let all = Conversation::open()?.dump(&request)?;
    Ok(all
        .iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(message) => link(message),
            _ => None,
        })
        .collect())
}

fn understood(message: &RouteNetlinkMessage) -> Option<Change> {
    match message {
        RouteNetlinkMessage::NewLink(message) => link(message).map(Change::Link),
        // A message of another family says that a bridge port or an IPv6 setting is gone, not the link.
        RouteNetlinkMessage::DelLink(message) => {
            (message.header.interface_family == AddressFamily::Unspec).then_some(Change::LinkGone {
                index: message.header.index,
            })
        }
        RouteNetlinkMessage::NewAddress(message) => Some(Change::AddressNew {
            index: message.header.index,
        }),
        RouteNetlinkMessage::DelAddress(message) => Some(Change::AddressGone {
            index: message.header.index,
            address: address(message)?,
        }),
        _ => None,
    }
}

fn link(message: &LinkMessage) -> Option<LinkState> {
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let name = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })?;
    Some(LinkState {
        index: message.header.index,
        name,
        is_up: is_up(message),
    })
}

/// Switched on, and with a carrier down to the wire.
fn is_up(message: &LinkMessage) -> bool {
    message
        .header
        .flags
        .contains(LinkFlags::Up | LinkFlags::Running | LinkFlags::LowerUp)
}

/// The address a message is about: for IPv4 `IFA_LOCAL` is the node's own, and `IFA_ADDRESS` may be a peer's.
pub(crate) fn address(message: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => return Some(*address),
            AddressAttribute::Address(address) => found = Some(*address),
            _ => {}
        }
    }
    found
}
