//! The way to a backend: the only place where probes get their sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::{Failure, FailureKind};
use crate::health::through::{Flow, Through, Transport};

/// A connection to a backend.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Where a backend is, and how it is reached.
#[derive(Clone, Debug)]
pub struct Reach {
    /// Its address.
    pub address: IpAddr,
    /// Its port; 0 where a check has none (`ping`).
    pub port: u16,
    /// Local address.
    pub source: Option<IpAddr>,
    /// Local interface.
    pub interface: Option<String>,
    /// The way of clients' packets to one real server; `address` is the virtual one then. None: as the kernel sends it.
    pub through: Option<Through>,
}

/// A connection by the way of clients' packets. Its socket is dropped first: what that says last is still carried.
struct Carried {
    stream: TcpStream,
    _flow: Flow,
}

impl AsyncRead for Carried {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Carried {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A UDP socket, and what carries its datagrams.
pub struct Datagrams {
    socket: UdpSocket,
    _flow: Option<Flow>,
}

impl Deref for Datagrams {
    type Target = UdpSocket;

    fn deref(&self) -> &UdpSocket {
        &self.socket
    }
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
        if let Some(through) = &self.through {
            return self.connect_through(through).await;
        }
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

    async fn connect_through(&self, through: &Through) -> Result<Box<dyn Stream>, Failure> {
        let to = self.socket_address();
        let (socket, flow) = through.open(Transport::Tcp, to, self.source).await?;
        let socket = TcpSocket::from_std_stream(socket.into());
        let ready = socket
            .set_nodelay(true)
            .and_then(|()| socket.set_zero_linger());
        ready.map_err(|error| self.local(&error))?;
        let stream = socket
            .connect(to)
            .await
            .map_err(|error| Failure::io("connecting", &error))?;
        Ok(Box::new(Carried {
            stream,
            _flow: flow,
        }))
    }

    /// A UDP socket connected to the backend, so that ICMP errors come back by it.
    ///
    /// # Errors
    /// [`Failure`]: why there is none.
    pub async fn datagrams(&self) -> Result<Datagrams, Failure> {
        let (socket, flow) = match &self.through {
            Some(through) => {
                let to = self.socket_address();
                let (socket, flow) = through.open(Transport::Udp, to, self.source).await?;
                let socket = UdpSocket::from_std(socket.into());
                (socket.map_err(|error| self.local(&error))?, Some(flow))
            }
            None => (self.own_datagrams().await?, None),
        };
        socket
            .connect(self.socket_address())
            .await
            .map_err(|error| Failure::io("connecting", &error))?;
        Ok(Datagrams {
            socket,
            _flow: flow,
        })
    }

    async fn own_datagrams(&self) -> Result<UdpSocket, Failure> {
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
            FailureKind::of_beginning(error),
            format!("no socket to {}{from}: {error}", self.socket_address()),
        )
    }
}
