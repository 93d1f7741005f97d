//! One packet of every kind that the packet path looks into: what truncations and mutations start from.

use super::build::{Frame, Ip, Payload, icmp, ipv6, tcp};
use super::fixture::{BOTH, CLIENT_PORT, DIRECTOR, Family, ROUTER, port, server_mac};

/// A frame that the director of [`super::fixture::site`] does something with, and the frames before it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What it is.
    pub name: String,
    /// What came before.
    pub before: Vec<Frame>,
    /// The frame.
    pub frame: Frame,
}

/// One of every kind.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for family in BOTH {
        for is_tcp in [true, false] {
            connection(&mut samples, family, is_tcp);
            messages(&mut samples, family, is_tcp);
            fragments(&mut samples, family, is_tcp);
        }
    }
    samples
}

fn first(family: Family, is_tcp: bool, port: u16) -> Ip {
    let from = (family.client(), CLIENT_PORT);
    let to = (family.virtual_address(), port);
    if is_tcp {
        Ip::tcp(from, to, tcp::SYN, b"")
    } else {
        Ip::udp(from, to, b"a question")
    }
}

fn reply(family: Family, is_tcp: bool, data: &[u8]) -> Ip {
    let from = (family.server(1), port::REAL);
    let to = (family.client(), CLIENT_PORT);
    if is_tcp {
        Ip::tcp(from, to, tcp::ACK, data)
    } else {
        Ip::udp(from, to, data)
    }
}

fn from_client(ip: Ip) -> Frame {
    Frame::new(ROUTER, DIRECTOR, ip)
}

fn from_server(ip: Ip) -> Frame {
    Frame::new(server_mac(1), DIRECTOR, ip)
}

/// Options of IPv4, or extension headers of IPv6.
fn with_headers(ip: Ip) -> Ip {
    ip.with(|ip| {
        if ip.is_ipv6() {
            ip.extensions = vec![
                (ipv6::HOP_BY_HOP, vec![1, 4, 0, 0, 0, 0]),
                (ipv6::DESTINATION_OPTIONS, {
                    vec![1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
                }),
            ];
        } else {
            ip.options = vec![1; 8];
        }
    })
}

fn connection(samples: &mut Vec<Sample>, family: Family, is_tcp: bool) {
    let name = if is_tcp { "TCP" } else { "UDP" };
    let mut add = |what: &str, before: Vec<Frame>, frame: Frame| {
        samples.push(Sample {
            name: format!("{family:?} {name}, {what}"),
            before,
            frame,
        });
    };
    for (port, what) in [
        (port::NAT, "NAT"),
        (port::DR, "DR"),
        (port::IPIP4, "IPIP over V4"),
        (port::GUE6, "GUE over V6"),
        (port::NONE, "no real server"),
        (port::NAT_UNRESOLVED, "NAT, not resolved"),
    ] {
        let frame = from_client(first(family, is_tcp, port));
        add(what, vec![], frame.clone());
        add(&format!("{what}, known"), vec![frame.clone()], frame);
    }
    let request = from_client(first(family, is_tcp, port::NAT));
    add("NAT with a tag", vec![], request.clone().tagged(7));
    add(
        "NAT with two tags",
        vec![],
        request.clone().double_tagged(8, 7),
    );
    add(
        "NAT with more headers",
        vec![],
        from_client(with_headers(request.ip.clone())),
    );
    add(
        "NAT, expired",
        vec![],
        from_client(request.ip.clone().ttl(1)),
    );
    let reply = reply(family, is_tcp, b"an answer");
    add("reply", vec![request.clone()], from_server(reply.clone()));
    add(
        "reply with more headers",
        vec![request.clone()],
        from_server(with_headers(reply.clone())),
    );
    add(
        "reply, expired",
        vec![request],
        from_server(reply.clone().ttl(1)),
    );
    add("no reply", vec![], from_server(reply));
}

fn messages(samples: &mut Vec<Sample>, family: Family, is_tcp: bool) {
    let kind = match family {
        Family::V4 => (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED),
        Family::V6 => (icmp::V6_TOO_BIG, 0),
    };
    let name = if is_tcp { "TCP" } else { "UDP" };
    for port in [port::NAT, port::DR, port::GRE6] {
        let before = vec![from_client(first(family, is_tcp, port))];
        let about = reply(family, is_tcp, b"much too long").from(family.virtual_address(), port);
        for (about, what) in [
            (about.clone(), "ICMP about"),
            (with_headers(about), "ICMP about more headers and"),
        ] {
            let message = Ip::icmp(
                family.other_client(9),
                family.virtual_address(),
                kind,
                1400,
                &about.bytes(),
            );
            samples.push(Sample {
                name: format!("{family:?}, {what} {name} of port {port}"),
                before: before.clone(),
                frame: from_client(message),
            });
        }
    }
    let about = first(family, is_tcp, port::NAT).to(family.server(1), port::REAL);
    let message = Ip::icmp(
        family.server(1),
        family.client(),
        kind,
        1400,
        &about.bytes(),
    );
    samples.push(Sample {
        name: format!("{family:?}, ICMP of the real server about {name}"),
        before: vec![from_client(first(family, is_tcp, port::NAT))],
        frame: from_server(message),
    });
}

fn fragments(samples: &mut Vec<Sample>, family: Family, is_tcp: bool) {
    let name = if is_tcp { "TCP" } else { "UDP" };
    for port in [port::NAT, port::DR, port::IPIP6] {
        let whole = first(family, is_tcp, port).with(|ip| match &mut ip.payload {
            Payload::Tcp { data, .. } | Payload::Udp { data, .. } => *data = vec![7; 60],
            _ => unreachable!("one of both"),
        });
        let parts: Vec<Frame> = whole.fragments(32).into_iter().map(from_client).collect();
        for (index, part) in parts.iter().enumerate() {
            samples.push(Sample {
                name: format!("{family:?} {name} of port {port}, fragment {index}"),
                before: parts[..index].to_vec(),
                frame: part.clone(),
            });
        }
        samples.push(Sample {
            name: format!("{family:?} {name} of port {port}, a fragment too early"),
            before: vec![],
            frame: parts[1].clone(),
        });
    }
    let request = from_client(first(family, is_tcp, port::NAT));
    let parts = reply(family, is_tcp, &[9; 60]).fragments(32);
    samples.push(Sample {
        name: format!("{family:?} {name}, first fragment of a reply"),
        before: vec![request.clone()],
        frame: from_server(parts[0].clone()),
    });
    samples.push(Sample {
        name: format!("{family:?} {name}, later fragment of a reply"),
        before: vec![request, from_server(parts[0].clone())],
        frame: from_server(parts[1].clone()),
    });
}
