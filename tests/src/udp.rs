//! A UDP server that says who it is and repeats what it was sent, and a client to ask it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// Answers datagrams to `listen` with `NAME ` and what they held, as long as the program lasts. With DR and TUN,
/// `listen` is the virtual address itself: a reply's source is then right.
///
/// # Errors
/// The address cannot be listened on.
pub fn echo_in_background(listen: SocketAddr, name: &str) -> Result<()> {
    let socket = UdpSocket::bind(listen).with_context(|| format!("listening on {listen}/udp"))?;
    let prefix = format!("{name} ").into_bytes();
    thread::spawn(move || {
        let mut datagram = vec![0; 65_535];
        loop {
            // An error here is an ICMP message about an earlier answer: the next datagram may be fine.
            let Ok((length, client)) = socket.recv_from(&mut datagram) else {
                continue;
            };
            let answer = [&prefix, &datagram[..length]].concat();
            let _ = socket.send_to(&answer, client);
        }
    });
    Ok(())
}

/// Sends `text` from a fresh port and gives what came back.
///
/// # Errors
/// No answer within `timeout`, or an ICMP error.
pub fn ask(server: SocketAddr, text: &[u8], timeout: Duration) -> Result<Vec<u8>> {
    ask_from(0, server, text, timeout)
}

/// [`ask`] from a certain port.
///
/// # Errors
/// As [`ask`]'s, or the port is taken.
pub fn ask_from(port: u16, server: SocketAddr, text: &[u8], timeout: Duration) -> Result<Vec<u8>> {
    let socket = bind(port, server.is_ipv6())?;
    socket
        .connect(server)
        .with_context(|| format!("connecting to {server}/udp"))?;
    socket.set_read_timeout(Some(timeout))?;
    socket
        .send(text)
        .with_context(|| format!("sending to {server}/udp"))?;
    let mut answer = vec![0; 65_535];
    let length = socket
        .recv(&mut answer)
        .with_context(|| format!("waiting for an answer of {server}/udp"))?;
    answer.truncate(length);
    Ok(answer)
}

/// A UDP socket on a certain port of any address, or with 0 on any port.
///
/// # Errors
/// The port is taken.
pub fn bind(port: u16, ipv6: bool) -> Result<UdpSocket> {
    let any = if ipv6 {
        IpAddr::from(Ipv6Addr::UNSPECIFIED)
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    UdpSocket::bind((any, port)).with_context(|| format!("opening UDP port {port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_repeats_with_its_name() {
        // A port that was free a moment ago.
        let address = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        echo_in_background(address, "s1").unwrap();
        let answer = ask(address, b"hello", Duration::from_secs(5)).unwrap();
        assert_eq!(answer, b"s1 hello");
    }
}
