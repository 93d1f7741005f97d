//! Sockets between a node and its peers: datagrams over multicast or to listed addresses, of either family, and the
//! listener for bulk resyncs.
//!
//! All of them are bound to one interface. Datagrams leave from the protocol's port: peers answer there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use crate::config::{self, Config, Peers};

/// Room for what arrives while the table is being walked. The kernel gives at most `net.core.rmem_max` of it.
const BUFFER_BYTES: usize = 8 << 20;
/// Resyncs that wait to be accepted.
const BACKLOG: i32 = 8;

/// What a node talks through.
#[derive(Debug)]
pub struct Link {
    interface: String,
    /// Index of the interface that all of it is bound to.
    index: u32,
    sockets: Vec<UdpSocket>,
    to: Vec<SocketAddr>,
}

/// Sockets are bound to an interface by its index: they neither hear nor say anything any more, and are told of no error, when
/// another one has its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// There is none of that name.
    #[error("it is gone")]
    Gone,
    /// There is another one of that name.
    #[error("it was made anew: its index was {before} and is {now}")]
    MadeAnew {
        /// Index of the one that the sockets are bound to.
        before: u32,
        /// Index of the one that has the name now.
        now: u32,
    },
}

/// What became of an interface, by what its name stands for now. Where that could not be found out nothing is known to have
/// changed.
fn lost(before: u32, now: Result<u32, Errno>) -> Option<Lost> {
    match now {
        Ok(now) if now == before => None,
        Ok(now) => Some(Lost::MadeAnew { before, now }),
        Err(Errno::ENODEV | Errno::ENXIO) => Some(Lost::Gone),
        Err(_) => None,
    }
}

/// Link-local addresses need the interface that they are of.
fn at(address: IpAddr, port: u16, index: u32) -> SocketAddr {
    match address {
        IpAddr::V4(address) => SocketAddr::V4(SocketAddrV4::new(address, port)),
        IpAddr::V6(address) => {
            let is_local = address.is_unicast_link_local() || address.is_multicast();
            let scope = if is_local { index } else { 0 };
            SocketAddr::V6(SocketAddrV6::new(address, port, 0, scope))
        }
    }
}

impl Link {
    /// Opens what the configuration says.
    ///
    /// # Errors
    /// There is no such interface, or the kernel refuses a socket.
    pub fn open(config: &Config) -> io::Result<Self> {
        let index = if_nametoindex(config.interface.as_str()).map_err(io::Error::from)?;
        let to: Vec<SocketAddr> = match &config.peers {
            Peers::Group { address, .. } => vec![at(*address, config.port, index)],
            Peers::Listed(peers) => peers.iter().map(|it| at(*it, config.port, index)).collect(),
        };
        let mut sockets = Vec::new();
        for is_ipv4 in [true, false] {
            if to.iter().any(|it| it.is_ipv4() == is_ipv4) {
                sockets.push(datagrams(config, index, is_ipv4)?);
            }
        }
        Ok(Self {
            interface: config.interface.clone(),
            index,
            sockets,
            to,
        })
    }

    /// Whether the interface is another one than the sockets are bound to. Asks the kernel.
    #[must_use]
    pub fn lost(&self) -> Option<Lost> {
        lost(self.index, if_nametoindex(self.interface.as_str()))
    }

    /// The sockets of both families, as far as there are any.
    #[must_use]
    pub fn sockets(&self) -> &[UdpSocket] {
        &self.sockets
    }

    /// Sends a datagram to everybody; gives the first failure, having tried the others.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub async fn send_all(&self, bytes: &[u8]) -> io::Result<()> {
        let mut sent = Ok(());
        for to in &self.to {
            sent = sent.and(self.send(bytes, *to).await);
        }
        sent
    }

    /// Sends a datagram to one.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub async fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        for socket in &self.sockets {
            if socket.local_addr()?.is_ipv4() == to.is_ipv4() {
                return socket.send_to(bytes, to).await.map(drop);
            }
        }
        Ok(())
    }

    /// Where bulk resyncs are asked for.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn listener(&self, config: &Config) -> io::Result<TcpListener> {
        let has_ipv6 = self.to.iter().any(SocketAddr::is_ipv6);
        let domain = if has_ipv6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        socket.bind_device(Some(config.interface.as_bytes()))?;
        let address = if has_ipv6 {
            // Of both families, whichever a peer comes by.
            socket.set_only_v6(false)?;
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, config.port))
        } else {
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, config.port))
        };
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    }

    /// A socket that a bulk resync is asked for through, not connected yet.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn stream(config: &Config, to: SocketAddr) -> io::Result<tokio::net::TcpSocket> {
        let domain = Domain::for_address(to);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(config.interface.as_bytes()))?;
        Ok(tokio::net::TcpSocket::from_std_stream(socket.into()))
    }
}

fn datagrams(config: &Config, index: u32, is_ipv4: bool) -> io::Result<UdpSocket> {
    let domain = if is_ipv4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Several instances of a node may share the port, each on its interface.
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(config.interface.as_bytes()))?;
    // As much as it gives; less means more repairs, not errors.
    let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    if !is_ipv4 {
        socket.set_only_v6(true)?;
    }
    if let Peers::Group { address, ttl } = &config.peers {
        match address {
            IpAddr::V4(group) => {
                let interface = socket2::InterfaceIndexOrAddress::Index(index);
                socket.join_multicast_v4_n(group, &interface)?;
                socket.set_multicast_ttl_v4(u32::from(*ttl))?;
                socket.set_multicast_loop_v4(false)?;
            }
            IpAddr::V6(group) => {
                socket.join_multicast_v6(group, index)?;
                socket.set_multicast_if_v6(index)?;
                socket.set_multicast_hops_v6(u32::from(*ttl))?;
                socket.set_multicast_loop_v6(false)?;
            }
        }
    }
    socket.bind(&bound(config, index, is_ipv4).into())?;
    UdpSocket::from_std(socket.into())
}

/// What a socket for datagrams is bound to. By the kernel's protocol nobody is ever told anything but through the group: so
/// nothing else is heard either, as its own receivers do (`make_receive_sock` in `net/netfilter/ipvs/ip_vs_sync.c`).
/// Datagrams leave from the interface's address all the same.
fn bound(config: &Config, index: u32, is_ipv4: bool) -> SocketAddr {
    match (&config.protocol, &config.peers) {
        (config::Protocol::Kernel(_), Peers::Group { address, .. }) => {
            at(*address, config.port, index)
        }
        _ if is_ipv4 => (Ipv4Addr::UNSPECIFIED, config.port).into(),
        _ => (Ipv6Addr::UNSPECIFIED, config.port).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::KernelConfig;
    use crate::entry::NodeName;

    #[test]
    fn an_interface_that_was_made_anew_is_another_one() {
        let anew = Lost::MadeAnew { before: 7, now: 9 };
        for (now, expected) in [
            (Ok(7), None),
            (Ok(9), Some(anew)),
            (Err(Errno::ENODEV), Some(Lost::Gone)),
            (Err(Errno::ENXIO), Some(Lost::Gone)),
            // The question could not be asked.
            (Err(Errno::EMFILE), None),
            (Err(Errno::ENFILE), None),
            (Err(Errno::ENOMEM), None),
        ] {
            assert_eq!(lost(7, now), expected, "{now:?}");
        }
        let words = "it was made anew: its index was 7 and is 9";
        assert_eq!(anew.to_string(), words);
        // The kernel says it in this way.
        assert_eq!(lost(7, if_nametoindex("no-such-one")), Some(Lost::Gone));
    }

    /// A kernel's IPVS tells all through the group. What comes to the address of this machine it does not hear, and nor does
    /// who speaks its protocol.
    #[test]
    fn by_the_kernels_protocol_only_the_group_is_heard() {
        let kernel = config::Protocol::Kernel(KernelConfig {
            sync_id: 0,
            longest: 1472,
            refresh_s: 60,
            retries: 0,
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .expect("a runtime");
        for (protocol, hears_unicast) in [(config::Protocol::Own, true), (kernel, false)] {
            let group = Ipv4Addr::from(config::GROUP);
            let config = Config {
                node: NodeName::new("lb1").expect("a name"),
                interface: "lo".to_owned(),
                peers: Peers::Group {
                    address: group.into(),
                    ttl: 1,
                },
                protocol,
                port: 0,
                datagram_bytes: config::DATAGRAM_BYTES,
                records_per_second: 1,
                alone_after: Duration::from_secs(5),
                aside_records: 0,
                aside_for: Duration::ZERO,
            };
            runtime.block_on(async {
                let link = Link::open(&config).expect("a socket");
                let socket = &link.sockets()[0];
                let port = socket.local_addr().expect("it is bound").port();
                let sender = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("another");
                let lo = socket2::SockRef::from(&sender);
                lo.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).expect("lo");
                // The one to the machine first: what is heard of the other comes after it.
                let mut expected = vec![b'g'];
                if hears_unicast {
                    expected.insert(0, b'u');
                }
                for (to, what) in [(Ipv4Addr::LOCALHOST, b"u"), (group, b"g")] {
                    sender.send_to(what, (to, port)).expect("it is sent");
                }
                let mut heard = Vec::new();
                while heard.last() != Some(&b'g') {
                    let mut byte = [0];
                    let received = socket.recv_from(&mut byte);
                    let received = tokio::time::timeout(Duration::from_secs(10), received).await;
                    received.expect("it comes").expect("it is whole");
                    heard.extend(byte);
                }
                assert_eq!(heard, expected, "{:?}", config.protocol);
            });
        }
    }
}
