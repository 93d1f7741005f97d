//! A port of the node that a check answers from in the node's place.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use socket2::{Domain, SockFilter, Socket, Type};

use super::Transport;

/// Ports of checks: those above what the kernel gives away itself (`net.ipv4.ip_local_port_range`: up to 60999). The packet
/// sockets look at answers to these only.
pub(super) const PORTS: RangeInclusive<u16> = 61_000..=65_535;

/// `BPF_RET | BPF_K`: this many bytes are let in.
const RETURN: u16 = 0x06;

/// A socket that holds a port and drops everything that comes to it, before the network stack can say that nobody is there:
/// a TCP reset or an ICMP message to the virtual address would end the check, or reach somebody else.
#[derive(Debug)]
pub(super) struct Guard {
    _socket: Socket,
    pub(super) port: u16,
}

impl Guard {
    /// At the next port that is free, after this one.
    pub(super) fn after(last: u16, transport: Transport, source: IpAddr) -> io::Result<Self> {
        let mut port = last;
        for _ in PORTS {
            port = next(port);
            match hold(transport, SocketAddr::new(source, port)) {
                Ok(socket) => {
                    return Ok(Self {
                        _socket: socket,
                        port,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("all ports from {} on are in use", PORTS.start()),
        ))
    }
}

fn next(port: u16) -> u16 {
    match port.checked_add(1) {
        Some(next) if PORTS.contains(&next) => next,
        _ => *PORTS.start(),
    }
}

fn hold(transport: Transport, at: SocketAddr) -> io::Result<Socket> {
    let kind = match transport {
        Transport::Tcp => Type::STREAM,
        Transport::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(at), kind, None)?;
    // Before it is bound: nothing ever gets in. The filter of a listening socket is asked before a SYN or anything else is
    // looked at (tcp_v4_rcv), so nobody can connect to it either.
    socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
    socket.bind(&at.into())?;
    if transport == Transport::Tcp {
        socket.listen(1)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpStream, UdpSocket};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_guarded_port_is_silent() {
        let here = IpAddr::from([127, 0, 0, 1]);
        let guard = Guard::after(*PORTS.end(), Transport::Tcp, here).unwrap();
        assert!(PORTS.contains(&guard.port));
        let address = SocketAddr::new(here, guard.port);
        let silent = TcpStream::connect_timeout(&address, Duration::from_millis(100)).unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::TimedOut, "{silent}");
        let other = Guard::after(guard.port - 1, Transport::Tcp, here).unwrap();
        assert_ne!(other.port, guard.port);

        let guard = Guard::after(*PORTS.start(), Transport::Udp, here).unwrap();
        let asking = UdpSocket::bind((here, 0)).unwrap();
        asking.connect((here, guard.port)).unwrap();
        for _ in 0..3 {
            // An ICMP message would make the next one fail; on the loopback interface it is there at once.
            asking.send(b"anybody?").unwrap();
        }
        drop(guard);
        asking.send(b"anybody?").unwrap();
        asking.send(b"anybody?").unwrap_err();
    }
}
