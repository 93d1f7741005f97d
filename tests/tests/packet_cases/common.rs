//! What rows are made of.

use std::net::IpAddr;

use director_tests::packet::build::{Frame, Ip, Payload, protocol, tcp};
use director_tests::packet::fixture::{CLIENT_PORT, DIRECTOR, Family, ROUTER, port, server_mac};
use director_tests::packet::verify::GUE_PORT;
use xdp_ebpf::layout::method;

/// A segment or datagram, where a row exists for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Both.
pub(crate) const KINDS: [Kind; 2] = [Kind::Tcp, Kind::Udp];

impl Kind {
    /// Protocol number.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
        }
    }

    /// The first packet of a connection: from one end to the other.
    pub(crate) fn first(self, from: (IpAddr, u16), to: (IpAddr, u16)) -> Ip {
        match self {
            Self::Tcp => Ip::tcp(from, to, tcp::SYN, b""),
            Self::Udp => Ip::udp(from, to, b"a question"),
        }
    }

    /// A packet of a connection that stands.
    pub(crate) fn data(self, from: (IpAddr, u16), to: (IpAddr, u16), data: &[u8]) -> Ip {
        match self {
            Self::Tcp => Ip::tcp(from, to, tcp::ACK | 0x08, data),
            Self::Udp => Ip::udp(from, to, data),
        }
    }

    /// The first packet of the client to a service.
    pub(crate) fn request(self, family: Family, port: u16) -> Ip {
        self.first(client(family), virtual_end(family, port))
    }
}

/// The client's address and port.
pub(crate) fn client(family: Family) -> (IpAddr, u16) {
    (family.client(), CLIENT_PORT)
}

/// A service's address and port.
pub(crate) fn virtual_end(family: Family, port: u16) -> (IpAddr, u16) {
    (family.virtual_address(), port)
}

/// The first real server's address and port under NAT.
pub(crate) fn real_end(family: Family) -> (IpAddr, u16) {
    (family.server(1), port::REAL)
}

/// As it comes from the client.
pub(crate) fn from_client(ip: &Ip) -> Frame {
    Frame::new(ROUTER, DIRECTOR, ip.clone())
}

/// As it goes to the client.
pub(crate) fn to_client(ip: &Ip) -> Frame {
    Frame::new(DIRECTOR, ROUTER, ip.clone())
}

/// As it comes from a real server.
pub(crate) fn from_server(ip: &Ip) -> Frame {
    Frame::new(server_mac(1), DIRECTOR, ip.clone())
}

/// As it goes to a real server.
pub(crate) fn to_server(ip: &Ip) -> Frame {
    Frame::new(DIRECTOR, server_mac(1), ip.clone())
}

/// ICMP kinds, as each family numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// Time exceeded in transit.
    TimeExceeded,
    /// Too big: the MTU.
    TooBig(u32),
    /// Port unreachable.
    PortUnreachable,
}

impl Error {
    /// Type, code, and what follows the checksum.
    pub(crate) fn numbers(self, family: Family) -> ((u8, u8), u32) {
        match (family, self) {
            (Family::V4, Self::TimeExceeded) => ((11, 0), 0),
            (Family::V4, Self::TooBig(mtu)) => ((3, 4), mtu),
            (Family::V4, Self::PortUnreachable) => ((3, 3), 0),
            (Family::V6, Self::TimeExceeded) => ((3, 0), 0),
            (Family::V6, Self::TooBig(mtu)) => ((2, 0), mtu),
            (Family::V6, Self::PortUnreachable) => ((1, 4), 0),
        }
    }
}

/// The director's own answer to a frame.
pub(crate) fn answer(frame: &Frame, family: Family, from: IpAddr, error: Error) -> Frame {
    let quoted = frame.ip.bytes();
    let most = match family {
        Family::V4 => 576 - 28,
        Family::V6 => 1280 - 48,
    };
    let quoted = &quoted[..quoted.len().min(most) & !3];
    let (kind, rest) = error.numbers(family);
    let message = Ip::icmp(from, frame.ip.source, kind, rest, quoted)
        .ttl(64)
        .with(|ip| ip.id = 0);
    Frame {
        destination: frame.source,
        source: frame.destination,
        tags: frame.tags.clone(),
        ip: message,
        padding: 0,
    }
}

/// The flow's hash that outer headers vary with, written down once more.
pub(crate) fn flow_hash(client: (IpAddr, u16), service_port: u16) -> u32 {
    let word = |bytes: &[u8]| u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let folded = match client.0 {
        IpAddr::V4(address) => word(&address.octets()),
        IpAddr::V6(address) => address.octets().chunks(4).map(word).fold(0, |a, b| a ^ b),
    };
    // Ports as they stand in memory.
    let ports = u32::from(client.1.to_be()) << 16 | u32::from(service_port.to_be());
    let mixed = u64::from(folded ^ ports).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

/// A packet of [`client`] to `service_port`, in a tunnel to the first real server over `outer`.
pub(crate) fn wrapped(inner: &Ip, service_port: u16, tunnel: u8, outer: Family) -> Ip {
    wrapped_of(client_of(inner), inner, service_port, tunnel, outer)
}

fn client_of(inner: &Ip) -> (IpAddr, u16) {
    match inner.payload {
        Payload::Tcp { source_port, .. } | Payload::Udp { source_port, .. } => {
            (inner.source, source_port)
        }
        _ => (inner.source, CLIENT_PORT),
    }
}

/// A packet of some client's connection in a tunnel.
pub(crate) fn wrapped_of(
    client: (IpAddr, u16),
    inner: &Ip,
    service_port: u16,
    tunnel: u8,
    outer: Family,
) -> Ip {
    const SPREAD: u32 = 0x0fff;
    let flow = flow_hash(client, service_port);
    let bytes = inner.bytes();
    let (number, ether_type): (u8, u16) = if inner.is_ipv6() {
        (protocol::IPV6, 0x86dd)
    } else {
        (protocol::IPIP, 0x0800)
    };
    let payload = match tunnel {
        method::GUE => Payload::Udp {
            source_port: 0xc000 | (flow ^ flow >> 16) as u16 & 0x3fff,
            destination_port: GUE_PORT,
            checksum: false,
            data: [&[0, number, 0, 0], bytes.as_slice()].concat(),
        },
        method::GRE => Payload::Raw(
            protocol::GRE,
            [&[0, 0], ether_type.to_be_bytes().as_slice(), &bytes].concat(),
        ),
        _ => Payload::Raw(number, bytes),
    };
    let source = match outer.outer_source() {
        IpAddr::V4(base) => IpAddr::from((u32::from(base) | flow & SPREAD).to_be_bytes()),
        IpAddr::V6(base) => {
            let mut octets = base.octets();
            for (octet, hash) in octets[12..].iter_mut().zip(flow.to_ne_bytes()) {
                *octet ^= hash;
            }
            IpAddr::from(octets)
        }
    };
    Ip::new(source, outer.server(1), payload).with(|ip| {
        ip.ttl = 64;
        ip.tos = inner.tos;
        ip.flow_label = flow & 0xf_ffff;
        ip.dont_fragment = inner.is_ipv6() || inner.dont_fragment;
        let has_id = !inner.is_ipv6();
        ip.id = if has_id { inner.id } else { 0 };
    })
}
