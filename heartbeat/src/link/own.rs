//! The addresses of an interface of this node.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::net::if_::if_nametoindex;

/// The interface's index.
pub(super) fn index(interface: &str) -> io::Result<u32> {
    if_nametoindex(interface).map_err(|_| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no interface {interface}"),
        )
    })
}

/// All addresses of an interface, in the kernel's order.
fn addresses(interface: &str) -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    for entry in getifaddrs()?.filter(|entry| entry.interface_name == interface) {
        let Some(address) = entry.address else {
            continue;
        };
        if let Some(v4) = address.as_sockaddr_in() {
            found.push(IpAddr::V4(v4.ip()));
        } else if let Some(v6) = address.as_sockaddr_in6() {
            found.push(IpAddr::V6(v6.ip()));
        }
    }
    Ok(found)
}

/// The addresses of an interface that no other node has. A virtual one may be another node's as well: what comes from it is not
/// this node's own, and while two nodes hold it they must hear each other to find that out.
pub(super) fn unshared(interface: &str, virtual_ones: &[IpAddr]) -> io::Result<Vec<IpAddr>> {
    let mut all = addresses(interface)?;
    all.retain(|address| !virtual_ones.contains(address));
    Ok(all)
}

/// What adverts are sent from: the first IPv4 address of these, and the first link-local IPv6 address (RFC 9568 section 5.1.2.1).
pub(super) fn sources(own: &[IpAddr]) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let v4 = own.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    let v6 = own.iter().find_map(|address| match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => Some(*address),
        _ => None,
    });
    (v4, v6)
}

/// For IPv6 multicast and link-local addresses, the index of their interface.
pub(super) fn scope(address: Ipv6Addr, index: u32) -> u32 {
    let needs = address.is_unicast_link_local() || address.is_multicast();
    if needs { index } else { 0 }
}

/// Whether after this error a socket or device is of no more use.
pub(super) fn is_final(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(
            libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::EHOSTDOWN
                | libc::ECONNREFUSED
                | libc::EPERM
                | libc::EACCES
                | libc::ENOBUFS
                | libc::EMSGSIZE
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_adverts() {
        let own: Vec<IpAddr> = [
            "192.0.2.1",
            "192.0.2.2",
            "2001:db8::1",
            "fe80::2",
            "fe80::3",
        ]
        .iter()
        .map(|address| address.parse().unwrap())
        .collect();
        let expected = (
            Some(Ipv4Addr::new(192, 0, 2, 1)),
            Some("fe80::2".parse().unwrap()),
        );
        assert_eq!(sources(&own), expected);
        assert_eq!(sources(&own[2..3]), (None, None));
    }
}
