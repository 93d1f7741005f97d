//! VRRP: raw sockets of protocol 112 on one interface, both families.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::own::{index, scope, sources, unshared};
use super::packets::{self, GROUP4, GROUP6, PROTOCOL, TTL};
use super::{Counters, LARGEST_DATAGRAM, Looked, Received};
use crate::config::VrrpLink;
use crate::takeover::Mac;
use crate::wire::vrrp::Envelope;

/// Open sockets of a VRRP link.
pub(super) struct Vrrp {
    index: u32,
    v4: Socket,
    /// None: this kernel has no IPv6.
    v6: Option<Socket>,
    /// For frames from a virtual MAC.
    frames: Socket,
    /// Not the virtual ones: a router that owns such an address sends its adverts from it.
    own: Vec<IpAddr>,
    source4: Option<Ipv4Addr>,
    source6: Option<Ipv6Addr>,
}

/// What became of a packet.
enum Heard {
    /// It is for us.
    Taken(Received),
    /// This node's own.
    Own,
    /// It came through a router, or from nobody that is a peer.
    Refused,
}

impl Vrrp {
    pub(super) fn open(settings: &VrrpLink, virtual_ones: &[IpAddr]) -> io::Result<Self> {
        let index = index(&settings.interface)?;
        let is_unicast = !settings.peers.is_empty();
        let protocol = Some(Protocol::from(i32::from(PROTOCOL)));

        let v4 = Socket::new(Domain::IPV4, Type::RAW, protocol)?;
        v4.set_nonblocking(true)?;
        v4.bind_device(Some(settings.interface.as_bytes()))?;
        v4.set_ttl_v4(u32::from(TTL))?;
        // Only what this socket itself has joined.
        v4.set_multicast_all_v4(false)?;
        v4.set_tos_v4(0xc0)?;
        if !is_unicast {
            let interface = socket2::InterfaceIndexOrAddress::Index(index);
            v4.join_multicast_v4_n(&GROUP4, &interface)?;
            v4.set_multicast_ttl_v4(u32::from(TTL))?;
            v4.set_multicast_loop_v4(false)?;
        }

        let v6 = match Socket::new(Domain::IPV6, Type::RAW, protocol) {
            Ok(v6) => {
                v6.set_nonblocking(true)?;
                v6.bind_device(Some(settings.interface.as_bytes()))?;
                v6.set_unicast_hops_v6(u32::from(TTL))?;
                v6.set_tclass_v6(0xc0)?;
                v6.set_recv_hoplimit_v6(true)?;
                setsockopt(&v6, sockopt::Ipv6RecvPacketInfo, &true)?;
                if !is_unicast {
                    v6.set_multicast_if_v6(index)?;
                    v6.set_multicast_hops_v6(u32::from(TTL))?;
                    v6.set_multicast_loop_v6(false)?;
                    v6.join_multicast_v6(&GROUP6, index)?;
                }
                Some(v6)
            }
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            Err(error) => return Err(error),
        };
        // Protocol 0: it only sends.
        let frames = Socket::new(Domain::PACKET, Type::RAW, None)?;
        frames.set_nonblocking(true)?;
        let mut open = Self {
            index,
            v4,
            v6,
            frames,
            own: Vec::new(),
            source4: None,
            source6: None,
        };
        open.readdress(settings, virtual_ones)?;
        Ok(open)
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(&self.v4).chain(&self.v6).map(AsFd::as_fd)
    }

    /// What adverts are sent from.
    pub(super) fn sources(&self) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        (self.source4, self.source6)
    }

    /// Looks anew which addresses the interface has.
    pub(super) fn readdress(
        &mut self,
        settings: &VrrpLink,
        virtual_ones: &[IpAddr],
    ) -> io::Result<()> {
        self.own = unshared(&settings.interface, virtual_ones)?;
        (self.source4, self.source6) = sources(&self.own);
        Ok(())
    }

    /// The ways an advert of a family goes: from where, and to whom. None while the interface has no address.
    pub(super) fn envelopes(&self, settings: &VrrpLink, is_ipv6: bool) -> Vec<Envelope> {
        let (from, group) = if is_ipv6 {
            (self.source6.map(IpAddr::V6), IpAddr::V6(GROUP6))
        } else {
            (self.source4.map(IpAddr::V4), IpAddr::V4(GROUP4))
        };
        let Some(from) = from else {
            return Vec::new();
        };
        if settings.peers.is_empty() {
            return vec![Envelope { from, to: group }];
        }
        let peers = settings.peers.iter().copied();
        let peers = peers.filter(|peer| peer.is_ipv6() == is_ipv6);
        peers.map(|to| Envelope { from, to }).collect()
    }

    /// Sends an advert, from a virtual MAC if there is one.
    pub(super) fn send(
        &self,
        envelope: Envelope,
        mac: Option<Mac>,
        advert: &[u8],
    ) -> io::Result<()> {
        let mac = mac.filter(|_| envelope.to.is_multicast());
        if let Some(mac) = mac
            && let Some(frame) = packets::frame(envelope.from, envelope.to, mac, advert)
        {
            return crate::takeover::send_frame(&self.frames, self.index, &frame);
        }
        let (from, to) = (envelope.from, envelope.to);
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let from = libc::in_pktinfo {
                    ipi_ifindex: self.index as libc::c_int,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from_ne_bytes(from.octets()),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
                sendmsg(
                    self.v4.as_raw_fd(),
                    &[IoSlice::new(advert)],
                    &[ControlMessage::Ipv4PacketInfo(&from)],
                    MsgFlags::MSG_DONTWAIT,
                    Some(&to),
                )?;
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let Some(socket) = &self.v6 else {
                    return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
                };
                let from = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: from.octets(),
                    },
                    ipi6_ifindex: self.index,
                };
                let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, scope(to, self.index)));
                sendmsg(
                    socket.as_raw_fd(),
                    &[IoSlice::new(advert)],
                    &[ControlMessage::Ipv6PacketInfo(&from)],
                    MsgFlags::MSG_DONTWAIT,
                    Some(&to),
                )?;
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        Ok(())
    }

    /// Looks at the next packet. Counted are those that came through a router, or from strangers, and this node's own.
    pub(super) fn receive(
        &self,
        settings: &VrrpLink,
        counters: &mut Counters,
    ) -> io::Result<Looked> {
        let heard = match self.receive4(settings)? {
            Some(heard) => heard,
            None => match self.receive6(settings)? {
                Some(heard) => heard,
                None => return Ok(Looked::Nothing),
            },
        };
        match heard {
            Heard::Taken(received) => return Ok(Looked::Taken(received)),
            Heard::Own => counters.own += 1,
            Heard::Refused => counters.refused += 1,
        }
        Ok(Looked::Skipped)
    }

    fn receive4(&self, settings: &VrrpLink) -> io::Result<Option<Heard>> {
        let mut buffer = vec![0; LARGEST_DATAGRAM];
        let received =
            nix::sys::socket::recv(self.v4.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT);
        let Some(length) = unless_empty(received)? else {
            return Ok(None);
        };
        let packet = packets::ipv4(buffer.get(..length).unwrap_or_default());
        Ok(Some(packet.map_or(Heard::Refused, |packet| {
            self.judge(
                settings,
                packet.from.into(),
                packet.to.into(),
                Some(packet.ttl),
                packet.payload,
            )
        })))
    }

    fn receive6(&self, settings: &VrrpLink) -> io::Result<Option<Heard>> {
        let Some(socket) = &self.v6 else {
            return Ok(None);
        };
        let mut buffer = vec![0; LARGEST_DATAGRAM];
        let (mut hop_limit, mut to) = (None, None);
        let (length, from) = {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let mut space = nix::cmsg_space!(libc::in6_pktinfo, libc::c_int);
            let received = recvmsg::<SockaddrStorage>(
                socket.as_raw_fd(),
                &mut parts,
                Some(&mut space),
                MsgFlags::MSG_DONTWAIT,
            );
            let Some(received) = unless_empty(received)? else {
                return Ok(None);
            };
            for message in received.cmsgs()? {
                match message {
                    ControlMessageOwned::Ipv6HopLimit(limit) => {
                        hop_limit = u8::try_from(limit).ok();
                    }
                    ControlMessageOwned::Ipv6PacketInfo(info) => {
                        to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr));
                    }
                    _ => {}
                }
            }
            let from = received.address.and_then(|from| {
                from.as_sockaddr_in6()
                    .map(nix::sys::socket::SockaddrIn6::ip)
            });
            (received.bytes, from)
        };
        let (Some(from), Some(to)) = (from, to) else {
            return Ok(Some(Heard::Refused));
        };
        let payload = buffer.get(..length).unwrap_or_default();
        Ok(Some(self.judge(
            settings,
            from.into(),
            to.into(),
            hop_limit,
            payload,
        )))
    }

    /// Whose packet is it? RFC 9568 section 7.1: with another TTL than 255 it came through a router. Unicast peers may
    /// be behind one; there, the packet must be from a peer.
    fn judge(
        &self,
        settings: &VrrpLink,
        from: IpAddr,
        to: IpAddr,
        ttl: Option<u8>,
        payload: &[u8],
    ) -> Heard {
        if self.own.contains(&from) {
            return Heard::Own;
        }
        let is_right = if settings.peers.is_empty() {
            ttl == Some(TTL) && to.is_multicast()
        } else {
            settings.peers.contains(&from)
        };
        if !is_right {
            return Heard::Refused;
        }
        Heard::Taken(Received {
            from: Some(from),
            to: Some(to),
            bytes: payload.to_vec(),
        })
    }
}

fn unless_empty<T>(received: nix::Result<T>) -> io::Result<Option<T>> {
    match received {
        Ok(received) => Ok(Some(received)),
        Err(nix::errno::Errno::EAGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
