//! The way to a backend: the only place where probes get their sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, UdpSocket};

use super::{Failure, FailureKind};

/// A connection to a backend.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Where a backend is, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reach {
    /// Its address.
    pub address: IpAddr,
    /// Its port; 0 where a check has none (`ping`).
    pub port: u16,
    /// Local address.
    pub source: Option<IpAddr>,
    /// Local interface.
    pub interface: Option<String>,
}

impl Reach {
    /// Address and port.
    #[must_use]
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// A TCP connection. It is reset when it is dropped, not closed: a thousand checks a second would otherwise leave tens
    /// of thousands of sockets in TIME_WAIT, on the director and on the real servers.
    ///
    /// # Errors
    /// [`Failure`]: why there is none.
    pub async fn connect(&self) -> Result<Box<dyn Stream>, Failure> {
        let open = || -> io::Result<TcpSocket> {
            let socket = if self.address.is_ipv6() {
                TcpSocket::new_v6()?
            } else {
                TcpSocket::new_v4()?
            };
            self.bind(&socket)?;
            if let Some(source) = self.source {
                socket.set_reuseaddr(true)?;
                socket.bind(SocketAddr::new(source, 0))?;
            }
            socket.set_nodelay(true)?;
            socket.set_zero_linger()?;
            Ok(socket)
        };
        let socket = open().map_err(|error| self.local(&error))?;
        let stream = socket
            .connect(self.socket_address())
            .await
            .map_err(|error| Failure::io("connecting", &error))?;
        Ok(Box::new(stream))
    }

    /// A UDP socket connected to the backend, so that ICMP errors come back by it.
    ///
    /// # Errors
    /// [`Failure`]: why there is none.
    pub async fn datagrams(&self) -> Result<UdpSocket, Failure> {
        let any: IpAddr = if self.address.is_ipv6() {
            IpAddr::from([0u16; 8])
        } else {
            IpAddr::from([0u8; 4])
        };
        let local = SocketAddr::new(self.source.unwrap_or(any), 0);
        let socket = UdpSocket::bind(local)
            .await
            .map_err(|error| self.local(&error))?;
        self.bind(&socket).map_err(|error| self.local(&error))?;
        socket
            .connect(self.socket_address())
            .await
            .map_err(|error| Failure::io("connecting", &error))?;
        Ok(socket)
    }

    /// Binds a socket to the interface, if there is one.
    pub(super) fn bind(&self, socket: &impl std::os::fd::AsFd) -> io::Result<()> {
        if let Some(interface) = &self.interface {
            setsockopt(socket, sockopt::BindToDevice, &interface.into())?;
        }
        Ok(())
    }

    /// A socket could not be made as asked for: not the backend's fault.
    fn local(&self, error: &io::Error) -> Failure {
        let from = match (&self.source, &self.interface) {
            (Some(source), _) => format!(" from {source}"),
            (None, Some(interface)) => format!(" by {interface}"),
            (None, None) => String::new(),
        };
        Failure::new(
            FailureKind::Local,
            format!("no socket to {}{from}: {error}", self.socket_address()),
        )
    }
}
