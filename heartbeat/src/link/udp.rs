//! Own heartbeats over UDP: unicast, multicast or broadcast, bound to one interface.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::own::{index, scope, unshared};
use super::{LARGEST_DATAGRAM, Looked, Received};
use crate::config::{UdpLink, UdpTo};

/// Multicast stays on the link.
const MULTICAST_TTL: u32 = 1;

/// Open sockets of a UDP link.
pub(super) struct Udp {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    to: Vec<SocketAddr>,
    /// Broadcasts come back to who sent them. Virtual addresses are not among these: another node may send from them.
    own: Vec<IpAddr>,
}

impl Udp {
    pub(super) fn open(settings: &UdpLink, virtual_ones: &[IpAddr]) -> io::Result<Self> {
        let index = index(&settings.interface)?;
        let port = settings.port;
        let at = |address: IpAddr| match address {
            IpAddr::V4(address) => SocketAddr::V4(SocketAddrV4::new(address, port)),
            IpAddr::V6(address) => {
                SocketAddr::V6(SocketAddrV6::new(address, port, 0, scope(address, index)))
            }
        };
        let to: Vec<SocketAddr> = match &settings.to {
            UdpTo::Unicast(peers) => peers.iter().map(|peer| at(*peer)).collect(),
            UdpTo::Multicast(group) => vec![at(*group)],
            UdpTo::Broadcast => vec![at(Ipv4Addr::BROADCAST.into())],
        };
        let mut open = Self {
            v4: None,
            v6: None,
            own: unshared(&settings.interface, virtual_ones)?,
            to,
        };
        if open.to.iter().any(SocketAddr::is_ipv4) {
            let socket = socket(settings, Domain::IPV4)?;
            match &settings.to {
                UdpTo::Multicast(IpAddr::V4(group)) => {
                    let interface = socket2::InterfaceIndexOrAddress::Index(index);
                    socket.join_multicast_v4_n(group, &interface)?;
                    socket.set_multicast_ttl_v4(MULTICAST_TTL)?;
                    socket.set_multicast_loop_v4(false)?;
                }
                UdpTo::Broadcast => socket.set_broadcast(true)?,
                UdpTo::Multicast(_) | UdpTo::Unicast(_) => {}
            }
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
            open.v4 = Some(socket.into());
        }
        if open.to.iter().any(SocketAddr::is_ipv6) {
            let socket = socket(settings, Domain::IPV6)?;
            socket.set_only_v6(true)?;
            if let UdpTo::Multicast(IpAddr::V6(group)) = &settings.to {
                socket.join_multicast_v6(group, index)?;
                socket.set_multicast_if_v6(index)?;
                socket.set_multicast_hops_v6(MULTICAST_TTL)?;
                socket.set_multicast_loop_v6(false)?;
            }
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
            open.v6 = Some(socket.into());
        }
        Ok(open)
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.v4.iter().chain(&self.v6).map(AsFd::as_fd)
    }

    pub(super) fn readdress(
        &mut self,
        settings: &UdpLink,
        virtual_ones: &[IpAddr],
    ) -> io::Result<()> {
        self.own = unshared(&settings.interface, virtual_ones)?;
        Ok(())
    }

    /// Sends to everybody; gives the first failure, having tried the others.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut failed = Ok(());
        for to in &self.to {
            let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
            let sent = socket
                .iter()
                .try_for_each(|socket| socket.send_to(bytes, to).map(drop));
            failed = failed.and(sent);
        }
        failed
    }

    /// Looks at the next datagram. `own` counts those that are this node's own.
    pub(super) fn receive(&self, own: &mut u64) -> io::Result<Looked> {
        let mut buffer = vec![0; LARGEST_DATAGRAM];
        for socket in self.v4.iter().chain(&self.v6) {
            match socket.recv_from(&mut buffer) {
                Ok((_, from)) if self.own.contains(&from.ip()) => {
                    *own += 1;
                    return Ok(Looked::Skipped);
                }
                Ok((length, from)) => {
                    buffer.truncate(length);
                    return Ok(Looked::Taken(Received {
                        from: Some(from.ip()),
                        to: None,
                        bytes: buffer,
                    }));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Looked::Nothing)
    }
}

fn socket(settings: &UdpLink, domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Several links may have the same port, each on its interface.
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(settings.interface.as_bytes()))?;
    Ok(socket)
}
