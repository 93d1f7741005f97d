//! The kernel's end: netlink sockets.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NLMSG_ERROR, NLMSG_OVERRUN,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use super::decode;
use super::event::Event;
use super::netlink::{DATAGRAM_BYTES, dump, error_code, messages, parse, serialize};

/// Receive buffer of the socket for events, in bytes: some ten thousand of them.
const EVENT_BUFFER_BYTES: usize = 16 << 20;
/// Events handed on at once, so that a storm is not collected for ever.
const BATCH: usize = 4096;
/// How long to wait after a change whose consequences the kernel does not tell (see [`Refresh`]).
const SETTLE: Duration = Duration::from_millis(200);
/// How long such changes may go on before a new dump in spite of them.
const SETTLE_MOST: Duration = Duration::from_secs(2);
/// Neither in libc nor in the decoder; `linux/rtnetlink.h`.
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;

/// Why the network cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// No socket, or not with these settings.
    #[error("cannot open a netlink socket to follow routes and neighbours ({step}): {source}")]
    Socket {
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The socket for events broke.
    #[error("cannot read the kernel's network events: {0}")]
    Read(io::Error),
    /// A dump was refused.
    #[error("cannot read the kernel's {what}: {source}")]
    Dump {
        /// Which table.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel does not want to resolve a neighbour. Others may still be.
    #[error("cannot ask the kernel to resolve {address} on interface {ifindex}: {source}{}", hint(.source))]
    Probe {
        /// Interface it should be reached by.
        ifindex: u32,
        /// Its address.
        address: IpAddr,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => " (the director needs CAP_NET_ADMIN)",
        Some(libc::ENOBUFS) => {
            " (the kernel's neighbour table is full: raise net.ipv4.neigh.default.gc_thresh3)"
        }
        _ => "",
    }
}

/// Follows the network of the network namespace in which it was started.
pub struct Watch {
    events: TokioSocket,
    requests: Socket,
    sequence: AtomicU32,
    /// Links that are switched on, to see when one is switched off.
    up: BTreeSet<u32>,
    refresh: Refresh,
    /// A dump under way. Kept here, so that a caller who drops [`Watch::next`] at each tick of a clock does not begin
    /// it anew each time: with many routes it takes longer than a tick, and would never end.
    dump: Option<Dumping>,
    buffer: Vec<u8>,
}

/// The whole state: what happened to make it, and the links that are switched on.
type Dump = (Vec<Event>, BTreeSet<u32>);
/// A dump under way.
type Dumping = Pin<Box<dyn Future<Output = Result<Dump, WatchError>> + Send>>;

impl Watch {
    /// Subscribes. The first batch of [`Watch::next`] is a dump of everything. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the kernel gives no netlink sockets.
    pub fn start() -> Result<Self, WatchError> {
        let failed = |step| move |source| WatchError::Socket { step, source };
        let mut events: TokioSocket = AsyncSocket::new(NETLINK_ROUTE).map_err(failed("open"))?;
        events.socket_mut().bind_auto().map_err(failed("bind"))?;
        // The forced size ignores net.core.rmem_max but needs CAP_NET_ADMIN; with neither, overruns are only likelier.
        if setsockopt(
            events.socket_ref(),
            sockopt::RcvBufForce,
            &EVENT_BUFFER_BYTES,
        )
        .is_err()
        {
            setsockopt(events.socket_ref(), sockopt::RcvBuf, &EVENT_BUFFER_BYTES)
                .map_err(|errno| failed("receive buffer")(errno.into()))?;
        }
        for group in [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_NEIGH,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV6_IFADDR,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV6_ROUTE,
        ] {
            events
                .socket_ref()
                .add_membership(group)
                .map_err(failed("subscribe"))?;
        }
        // Since Linux 5.3; before there are no next-hop objects to hear of.
        if let Err(error) = events.socket_ref().add_membership(libc::RTNLGRP_NEXTHOP) {
            tracing::debug!(%error, "no events about next-hop objects");
        }
        let requests = Socket::new(NETLINK_ROUTE).map_err(failed("open"))?;
        requests
            .connect(&SocketAddr::new(0, 0))
            .map_err(failed("connect"))?;
        requests
            .set_non_blocking(true)
            .map_err(failed("non-blocking"))?;
        Ok(Self {
            events,
            requests,
            sequence: AtomicU32::new(1),
            up: BTreeSet::new(),
            refresh: Refresh::now(),
            dump: None,
            buffer: Vec::with_capacity(DATAGRAM_BYTES),
        })
    }

    /// The next events, at least one. A batch that begins with [`Event::Resync`] holds the whole state; nothing
    /// between two batches is half done. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the kernel refuses a dump or the socket breaks; a further call tries again.
    pub async fn next(&mut self) -> Result<Vec<Event>, WatchError> {
        loop {
            let deadline = self.refresh.deadline;
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                let dump = self.dump.get_or_insert_with(|| Box::pin(dump_all()));
                let dumped = dump.await;
                self.dump = None;
                let (events, up) = dumped?;
                self.up = up;
                self.refresh = Refresh::default();
                return Ok(events);
            }
            self.buffer.clear();
            let received = tokio::select! {
                received = self.events.recv(&mut self.buffer) => received,
                () = sleep_until(deadline) => continue,
            };
            let mut events = Vec::new();
            let mut received = received.map(|()| true);
            loop {
                match received {
                    Ok(true) => self.take(&mut events),
                    Ok(false) => break,
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                        tracing::warn!(
                            "network events came faster than they were read: reading everything anew"
                        );
                        self.drain();
                        self.refresh = Refresh::now();
                        break;
                    }
                    Err(error) => return Err(WatchError::Read(error)),
                }
                if events.len() >= BATCH {
                    break;
                }
                self.buffer.clear();
                received = match self
                    .events
                    .socket_ref()
                    .recv(&mut self.buffer, libc::MSG_DONTWAIT)
                {
                    Ok(_) => Ok(true),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                    Err(error) => Err(error),
                };
            }
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    /// Asks the kernel to resolve a neighbour, or to make sure of a stale one, as if it had a packet for it
    /// (`NTF_USE`, `neigh_add` in net/core/neighbour.c). The answer comes as an event. Does not wait.
    ///
    /// # Errors
    /// When the kernel refuses: no such interface, the neighbour table is full, no permission.
    pub fn probe(&self, ifindex: u32, address: IpAddr) -> Result<(), WatchError> {
        let failed = |source| WatchError::Probe {
            ifindex,
            address,
            source,
        };
        let mut message = NeighbourMessage::default();
        message.header.family = if address.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        message.header.ifindex = ifindex;
        message.header.state = NeighbourState::None;
        message.header.flags = NeighbourFlags::Use;
        message.header.kind = RouteType::Unicast;
        message
            .attributes
            .push(NeighbourAttribute::Destination(address.into()));
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK;
        let request = serialize(RouteNetlinkMessage::NewNeighbour(message), flags, sequence);
        self.requests.send(&request, 0).map_err(failed)?;
        // The kernel answers within the call to send, so the acknowledgement is there.
        loop {
            let mut answer = Vec::with_capacity(DATAGRAM_BYTES);
            self.requests.recv(&mut answer, 0).map_err(failed)?;
            for (header, payload) in messages(&answer) {
                if header.sequence_number == sequence && header.message_type == NLMSG_ERROR {
                    return error_code(payload).map_or(Ok(()), |source| Err(failed(source)));
                }
            }
        }
    }

    /// Throws away what is queued. After an overrun the kernel drops every event until the queue is empty, without
    /// saying so again; and an event from before the dump would undo a later one that was dropped.
    fn drain(&mut self) {
        loop {
            self.buffer.clear();
            match self
                .events
                .socket_ref()
                .recv(&mut self.buffer, libc::MSG_DONTWAIT)
            {
                Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => return,
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Decodes the datagram in the buffer, and notes what calls for a new dump.
    fn take(&mut self, events: &mut Vec<Event>) {
        let now = Instant::now();
        for (header, payload) in messages(&self.buffer) {
            match header.message_type {
                NLMSG_OVERRUN => self.refresh = Refresh::now(),
                RTM_DELNEXTHOP => self.refresh.ask(now),
                RTM_NEWNEXTHOP if header.flags & NLM_F_REPLACE != 0 => self.refresh.ask(now),
                _ => {
                    let Some(message) = parse(&header, payload) else {
                        continue;
                    };
                    if unsaid(&message, &mut self.up) {
                        self.refresh.ask(now);
                    }
                    events.extend(decode::event(&message, header.flags));
                }
            }
        }
    }
}

/// The whole state, as a batch.
async fn dump_all() -> Result<Dump, WatchError> {
    let mut main = RouteMessage::default();
    main.header.table = RouteHeader::RT_TABLE_MAIN;
    let (mut main4, mut main6) = (main.clone(), main);
    main4.header.address_family = AddressFamily::Inet;
    main6.header.address_family = AddressFamily::Inet6;
    let (mut neighbours4, mut neighbours6) =
        (NeighbourMessage::default(), NeighbourMessage::default());
    neighbours4.header.family = AddressFamily::Inet;
    neighbours6.header.family = AddressFamily::Inet6;
    let requests = [
        (
            "links",
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
        ),
        (
            "addresses",
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        ),
        ("IPv4 routes", RouteNetlinkMessage::GetRoute(main4)),
        ("IPv6 routes", RouteNetlinkMessage::GetRoute(main6)),
        (
            "IPv4 neighbours",
            RouteNetlinkMessage::GetNeighbour(neighbours4),
        ),
        (
            "IPv6 neighbours",
            RouteNetlinkMessage::GetNeighbour(neighbours6),
        ),
    ];
    let mut events = vec![Event::Resync];
    let mut up = BTreeSet::new();
    for (what, request) in requests {
        let dumped = dump(request, |message| note(message, &mut up)).await;
        events.extend(dumped.map_err(|source| WatchError::Dump { what, source })?);
    }
    Ok((events, up))
}

/// Whether to read everything anew. The kernel does not tell of IPv4 routes that go because their interface was
/// switched off or their source address was removed, nor of routes that go with a next-hop object. It drops them
/// just after it told of the cause, so wait until things have settled.
#[derive(Debug, Default)]
struct Refresh {
    deadline: Option<Instant>,
    latest: Option<Instant>,
}

impl Refresh {
    fn now() -> Self {
        Self {
            deadline: Some(Instant::now()),
            latest: None,
        }
    }

    fn ask(&mut self, now: Instant) {
        let latest = *self.latest.get_or_insert(now + SETTLE_MOST);
        // One that is due now stays so.
        let overdue = self.deadline.filter(|deadline| *deadline <= now);
        self.deadline = Some(overdue.unwrap_or((now + SETTLE).min(latest)));
    }
}

/// Whether a change takes routes with it that the kernel does not tell of; keeps `up`.
fn unsaid(message: &RouteNetlinkMessage, up: &mut BTreeSet<u32>) -> bool {
    let before = up.len();
    note(message, up);
    up.len() < before
        || matches!(message, RouteNetlinkMessage::DelAddress(address) if address.header.family == AddressFamily::Inet)
}

/// Keeps the set of links that are switched on.
fn note(message: &RouteNetlinkMessage, up: &mut BTreeSet<u32>) {
    // Bridge ports are told of under the same types.
    let own = |link: &LinkMessage| link.header.interface_family == AddressFamily::Unspec;
    match message {
        RouteNetlinkMessage::NewLink(link)
            if own(link) && link.header.flags.contains(LinkFlags::Up) =>
        {
            up.insert(link.header.index);
        }
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) if own(link) => {
            up.remove(&link.header.index);
        }
        _ => {}
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
