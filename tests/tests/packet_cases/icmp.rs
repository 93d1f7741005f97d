//! ICMP errors about balanced connections, both ways.

use std::net::IpAddr;

use director_tests::packet::build::{Ip, ipv6};
use director_tests::packet::fixture::{BOTH, CLIENT_PORT, Family, port, site};
use director_tests::packet::{Case, Place};
use xdp_ebpf::layout::Reason;

use crate::common::{
    Error, KINDS, Kind, client, from_client, from_server, real_end, to_client, to_server,
    virtual_end, wrapped_of,
};

/// Errors that are passed on.
fn errors(family: Family) -> Vec<((u8, u8), u32)> {
    let mut errors: Vec<_> = [
        Error::TimeExceeded,
        Error::TooBig(1400),
        Error::PortUnreachable,
    ]
    .iter()
    .map(|error| error.numbers(family))
    .collect();
    errors.push(match family {
        Family::V4 => ((12, 0), 0x1400_0000),
        Family::V6 => ((4, 1), 40),
    });
    errors
}

/// How much of a packet is quoted.
#[derive(Clone, Copy, Debug)]
enum Quote {
    All,
    EightBytes,
}

fn cut(ip: &Ip, quote: Quote) -> Vec<u8> {
    let bytes = ip.bytes();
    let headers = bytes.len() - ip.payload_bytes().len();
    match quote {
        Quote::All => bytes,
        Quote::EightBytes => bytes[..headers + 8].to_vec(),
    }
}

/// A router on the client's side.
fn router(family: Family) -> IpAddr {
    family.other_client(99)
}

pub(crate) fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for family in BOTH {
        for kind in KINDS {
            for quote in [Quote::All, Quote::EightBytes] {
                for (error, rest) in errors(family) {
                    translated(&mut rows, family, kind, quote, (error, rest));
                }
                carried(&mut rows, family, kind, quote);
            }
            headers(&mut rows, family, kind);
        }
        left_alone(&mut rows, family);
        limits(&mut rows, family);
    }
    rows
}

fn translated(
    rows: &mut Vec<Case>,
    family: Family,
    kind: Kind,
    quote: Quote,
    (error, rest): ((u8, u8), u32),
) {
    let id = site().id(family, port::NAT, kind.number(), 0);
    let (service, real) = (virtual_end(family, port::NAT), real_end(family));
    let request = kind.request(family, port::NAT);
    let name = format!("ICMP {family:?} {error:?} about {kind:?}, quoting {quote:?}");

    // From the client's side, about a reply that the client's side saw coming from the virtual address.
    let about = kind.data(service, client(family), &[5; 64]);
    let inside = about.clone().from(real.0, real.1);
    let message = |destination: IpAddr, quoted: &Ip| {
        Ip::icmp(
            router(family),
            destination,
            error,
            rest,
            &cut(quoted, quote),
        )
    };
    rows.push(
        Case::new(
            format!("{name}: from a router to the real server"),
            site(),
            from_client(&message(service.0, &about)).bytes(),
        )
        .after(&from_client(&request))
        .transmits(&to_server(&message(real.0, &inside).hop()), Place::In(id)),
    );

    // From the real server's side, about a packet of the client.
    let about = kind.data(client(family), real, &[6; 64]);
    let outside = about.clone().to(service.0, service.1);
    for (source, who) in [
        (real.0, "the real server"),
        (family.server(200), "a router before it"),
    ] {
        let message = |source: IpAddr, quoted: &Ip| {
            Ip::icmp(source, family.client(), error, rest, &cut(quoted, quote))
        };
        rows.push(
            Case::new(
                format!("{name}: from {who} to the client"),
                site(),
                from_server(&message(source, &about)).bytes(),
            )
            .after(&from_client(&request))
            .transmits(
                &to_client(&message(service.0, &outside).hop()),
                Place::Out(id),
            ),
        );
    }
}

/// By DR and tunnels the message goes as it is.
fn carried(rows: &mut Vec<Case>, family: Family, kind: Kind, quote: Quote) {
    let (error, rest) = Error::TooBig(1400).numbers(family);
    let message = |port: u16| {
        let about = kind.data(virtual_end(family, port), client(family), &[5; 64]);
        Ip::icmp(
            router(family),
            family.virtual_address(),
            error,
            rest,
            &cut(&about, quote),
        )
    };
    let id = |port: u16| Place::In(site().id(family, port, kind.number(), 0));
    let case = |port: u16, name: &str| {
        Case::new(
            format!("ICMP {family:?} about {kind:?} by {name}, quoting {quote:?}"),
            site(),
            from_client(&message(port)).bytes(),
        )
        .after(&from_client(&kind.request(family, port)))
    };
    rows.push(case(port::DR, "DR").transmits(&to_server(&message(port::DR)), id(port::DR)));
    for (port, tunnel, outer, name) in crate::tunnel::TUNNELS {
        let outer = wrapped_of(client(family), &message(port), port, tunnel, outer);
        rows.push(case(port, name).transmits(&to_server(&outer), id(port)));
    }
}

fn headers(rows: &mut Vec<Case>, family: Family, kind: Kind) {
    let id = site().id(family, port::NAT, kind.number(), 0);
    let (service, real) = (virtual_end(family, port::NAT), real_end(family));
    let (error, rest) = Error::PortUnreachable.numbers(family);
    let more = |ip: Ip| {
        ip.with(|ip| match family {
            Family::V4 => ip.options = vec![1; 12],
            Family::V6 => ip.extensions = vec![(ipv6::DESTINATION_OPTIONS, vec![1, 4, 0, 0, 0, 0])],
        })
    };
    for (outside, inside, what) in [
        (true, false, "outside"),
        (false, true, "in the quoted packet"),
        (true, true, "in both"),
    ] {
        let build = |destination: IpAddr, from: (IpAddr, u16)| {
            let about = kind.data(from, client(family), &[5; 21]);
            let about = if inside { more(about) } else { about };
            let message = Ip::icmp(router(family), destination, error, rest, &about.bytes());
            if outside { more(message) } else { message }
        };
        rows.push(
            Case::new(
                format!("ICMP {family:?} about {kind:?}: options or extension headers {what}"),
                site(),
                from_client(&build(service.0, service)).bytes(),
            )
            .after(&from_client(&kind.request(family, port::NAT)))
            .transmits(&to_server(&build(real.0, real).hop()), Place::In(id)),
        );
    }
    if kind == Kind::Udp {
        let build = |destination: IpAddr, from: (IpAddr, u16)| {
            let about = kind.data(from, client(family), &[5; 21]).without_checksum();
            Ip::icmp(router(family), destination, error, rest, &about.bytes())
        };
        rows.push(
            Case::new(
                format!("ICMP {family:?} about UDP: no checksum in the quoted packet stays none"),
                site(),
                from_client(&build(service.0, service)).bytes(),
            )
            .after(&from_client(&kind.request(family, port::NAT)))
            .transmits(&to_server(&build(real.0, real).hop()), Place::In(id)),
        );
    }
    // The way to the real server is the kernel's: so is the TTL.
    let service = virtual_end(family, port::NAT_UNRESOLVED);
    let build = |destination: IpAddr, from: (IpAddr, u16)| {
        let about = kind.data(from, client(family), &[5; 21]);
        Ip::icmp(router(family), destination, error, rest, &about.bytes())
    };
    rows.push(
        Case::new(
            format!("ICMP {family:?} about {kind:?}: translated and left to the kernel where the next hop is not resolved"),
            site(),
            from_client(&build(service.0, service)).bytes(),
        )
        .after(&from_client(&kind.request(family, port::NAT_UNRESOLVED)))
        .passes_as(
            &from_client(&build(real.0, real)),
            Place::In(site().id(family, port::NAT_UNRESOLVED, kind.number(), 0)),
        ),
    );
}

fn left_alone(rows: &mut Vec<Case>, family: Family) {
    let service = virtual_end(family, port::NAT);
    let (error, rest) = Error::PortUnreachable.numbers(family);
    let about = Kind::Udp.data(service, client(family), &[5; 21]);
    let request = from_client(&Kind::Udp.request(family, port::NAT));
    let mut row = |what: &str, message: Ip| {
        rows.push(
            Case::new(
                format!("ICMP {family:?} {what} is left alone"),
                site(),
                from_client(&message).bytes(),
            )
            .after(&request),
        );
    };
    let quoting = |ip: &Ip| Ip::icmp(router(family), service.0, error, rest, &ip.bytes());
    row(
        "about a connection that nobody knows",
        quoting(&Kind::Udp.data(service, (family.client(), CLIENT_PORT + 1), b"x")),
    );
    row(
        "about a port of the director's own",
        quoting(&about.clone().from(service.0, 22)),
    );
    row(
        "about another's packet",
        quoting(&about.clone().from(family.stranger(), port::NAT)),
    );
    row("about a later fragment", quoting(&about.fragments(16)[1]));
    row(
        "about an ICMP message",
        quoting(&Ip::icmp(service.0, family.client(), (0, 0), 0, b"ping")),
    );
    let bytes = about.bytes();
    for length in [
        0,
        1,
        family.header_len() - 1,
        family.header_len(),
        family.header_len() + 7,
    ] {
        row(
            &format!("quoting {length} bytes"),
            Ip::icmp(router(family), service.0, error, rest, &bytes[..length]),
        );
    }
    row(
        "about the service, to an address that is not the quoted source",
        Ip::icmp(router(family), family.stranger(), error, rest, &bytes),
    );
}

fn limits(rows: &mut Vec<Case>, family: Family) {
    let service = virtual_end(family, port::NAT);
    let (error, rest) = Error::PortUnreachable.numbers(family);
    let request = from_client(&Kind::Udp.request(family, port::NAT));
    let about = Kind::Udp.data(service, client(family), &[5; 21]);
    let message = Ip::icmp(router(family), service.0, error, rest, &about.bytes()).ttl(1);
    rows.push(
        Case::new(
            format!("ICMP {family:?} to a real server that has used up its TTL is not answered"),
            site(),
            from_client(&message).bytes(),
        )
        .after(&request)
        .drops(Reason::AnswerSuppressed),
    );
    let about = Kind::Udp.data(client(family), real_end(family), &[5; 21]);
    let message = Ip::icmp(
        family.server(1),
        family.client(),
        error,
        rest,
        &about.bytes(),
    )
    .ttl(1);
    rows.push(
        Case::new(
            format!("ICMP {family:?} to a client that has used up its TTL is not answered"),
            site(),
            from_server(&message).bytes(),
        )
        .after(&request)
        .drops(Reason::AnswerSuppressed),
    );
}
