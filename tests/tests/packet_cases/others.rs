//! What is none of the director's business, and what it cannot do: no real server, limits, CPUs without a table.

use std::net::IpAddr;

use director_tests::packet::build::{Ip, Payload, tcp};
use director_tests::packet::fixture::{BOTH, DIRECTOR, Family, ROUTER, port, server_mac, site};
use director_tests::packet::{Case, Place, Step};
use xdp_ebpf::layout::Reason;

use crate::common::{
    Error, KINDS, Kind, answer, client, from_client, from_server, real_end, to_server, virtual_end,
};

pub(crate) fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    link(&mut rows);
    for family in BOTH {
        passes(&mut rows, family);
        frames_for_others(&mut rows, family);
        for kind in KINDS {
            nobody(&mut rows, family, kind);
        }
        limits(&mut rows, family);
    }
    rows
}

fn link(rows: &mut Vec<Case>) {
    for (ether_type, what) in [
        (0x0806_u16, "ARP"),
        (0x88cc, "LLDP"),
        (0x8847, "MPLS"),
        (0x0027, "a length instead of a type"),
    ] {
        let mut frame = vec![0xff; 6];
        frame.extend(ROUTER);
        frame.extend(ether_type.to_be_bytes());
        frame.extend([0; 46]);
        rows.push(Case::new(format!("{what} is left alone"), site(), frame));
    }
    let mut frame = from_client(&Kind::Tcp.request(Family::V4, port::NAT)).bytes();
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    rows.push(Case::new(
        "IPv4 under IPv6's ether type is left alone",
        site(),
        frame,
    ));
    let mut frame = from_client(&Kind::Tcp.request(Family::V6, port::NAT)).bytes();
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    rows.push(Case::new(
        "IPv6 under IPv4's ether type is left alone",
        site(),
        frame,
    ));
}

/// Frames that a switch has flooded, or that a card in promiscuous mode lets in.
fn frames_for_others(rows: &mut Vec<Case>, family: Family) {
    let another_end = [0x02, 0, 0, 0, 0, 0x01];
    let same_end = [0x06, 0, 0, 0, 0, DIRECTOR[5]];
    for (service, what) in [
        (port::NAT, "NAT"),
        (port::DR, "DR"),
        (port::GUE4, "TUN"),
        (port::NONE, "no real server"),
    ] {
        for (mac, whose) in [
            (server_mac(1), "a real server"),
            (another_end, "another host"),
            (
                same_end,
                "another host whose MAC address ends like the director's",
            ),
        ] {
            let mut frame = from_client(&Kind::Tcp.request(family, service));
            frame.destination = mac;
            rows.push(
                Case::new(
                    format!("{family:?} {what}: a frame for {whose} is left alone"),
                    site(),
                    frame.bytes(),
                )
                .leaves(&[]),
            );
        }
    }
    let mut reply = from_server(&Kind::Tcp.data(real_end(family), client(family), b"an answer"));
    reply.destination = ROUTER;
    rows.push(
        Case::new(
            format!("{family:?} NAT: a reply that another router gets is left alone"),
            site(),
            reply.bytes(),
        )
        .after(&from_client(&Kind::Tcp.request(family, port::NAT))),
    );
    let unsure = site().with(|fixture| {
        fixture.own_macs.remove(&u32::from(DIRECTOR[5]));
    });
    let request = Kind::Tcp.request(family, port::DR);
    rows.push(
        Case::new(
            format!("{family:?} DR: of several own MAC addresses that end alike each will do"),
            unsure,
            from_client(&request).bytes(),
        )
        .transmits(
            &to_server(&request),
            Place::In(site().id(family, port::DR, Kind::Tcp.number(), 0)),
        ),
    );
}

fn passes(rows: &mut Vec<Case>, family: Family) {
    let to = virtual_end(family, port::NAT);
    let from = client(family);
    let mut row = |what: &str, packet: &Ip| {
        rows.push(Case::new(
            format!("{family:?}: {what} is left alone"),
            site(),
            from_client(packet).bytes(),
        ));
    };
    let tcp = |to| Ip::tcp(from, to, tcp::SYN, b"");
    row(
        "a packet to another address",
        &tcp((family.stranger(), port::NAT)),
    );
    row("a packet to another port", &tcp((to.0, 22)));
    row(
        "a datagram to a port that is TCP's alone",
        &Ip::udp(from, (to.0, port::RR), b"x"),
    );
    row("a packet through the director as a router", &{
        Ip::tcp(from, (family.server(1), port::REAL), tcp::SYN, b"")
    });
    row("a packet that has used up its TTL on the way elsewhere", &{
        tcp((family.stranger(), 80)).ttl(1)
    });
    for (number, what) in [
        (132, "SCTP"),
        (50, "ESP"),
        (2, "IGMP"),
        (59, "no next header"),
    ] {
        row(
            &format!("{what} to the virtual address"),
            &Ip::new(
                from.0,
                to.0,
                Payload::Raw(number, vec![0, 80, 0, 80, 0, 0, 0, 0]),
            ),
        );
    }
    let (echo, others): (u8, &[(u8, &str)]) = match family {
        Family::V4 => (8, &[(5, "an ICMP redirect"), (13, "an ICMP timestamp")]),
        Family::V6 => (
            128,
            &[
                (133, "a router solicitation"),
                (134, "a router advertisement"),
                (135, "a neighbour solicitation"),
                (136, "a neighbour advertisement"),
                (137, "an ICMPv6 redirect"),
            ],
        ),
    };
    row(
        "a ping to the virtual address",
        &Ip::icmp(from.0, to.0, (echo, 0), 0x0001_0002, &[1; 56]),
    );
    for (kind, what) in others {
        row(
            what,
            &Ip::icmp(from.0, to.0, (*kind, 0), 0, &tcp(to).bytes()),
        );
    }
    rows.push(
        Case::new(
            format!("{family:?}: a CPU without a table leaves packets to the kernel"),
            site().with(|fixture| fixture.settings.cpus = 1),
            from_client(&tcp(to)).bytes(),
        )
        .after_step(Step::Cpu(1)),
    );
    rows.push(Case::new(
        format!("{family:?}: settings that were never written leave packets to the kernel"),
        site().with(|fixture| fixture.settings = Default::default()),
        from_client(&tcp(to)).bytes(),
    ));
}

fn nobody(rows: &mut Vec<Case>, family: Family, kind: Kind) {
    let from = family.virtual_address();
    let request = kind.request(family, port::NONE);
    let unreachable = |ip: &Ip| answer(&from_client(ip), family, from, Error::PortUnreachable);
    rows.push(
        Case::new(
            format!(
                "{family:?} {kind:?}: without a real server the client hears that nobody is there"
            ),
            site(),
            from_client(&request).bytes(),
        )
        .answers(&unreachable(&request), Reason::NoRealServer)
        .leaves(&[]),
    );
    for length in [3, 700, 1300] {
        let long = kind.first(client(family), virtual_end(family, port::NONE));
        let long = long.with(|ip| match &mut ip.payload {
            Payload::Tcp { data, .. } | Payload::Udp { data, .. } => *data = vec![0x5a; length],
            _ => unreachable!("one of both"),
        });
        rows.push(
            Case::new(
                format!(
                    "{family:?} {kind:?}: as much as fits of a packet with {length} bytes is quoted"
                ),
                site(),
                from_client(&long).bytes(),
            )
            .answers(&unreachable(&long), Reason::NoRealServer),
        );
    }
    let frame = from_client(&request).padded(9);
    rows.push(
        Case::new(
            format!("{family:?} {kind:?}: padding of a short frame is not quoted"),
            site(),
            frame.bytes(),
        )
        .answers(&unreachable(&request), Reason::NoRealServer),
    );
}

fn limits(rows: &mut Vec<Case>, family: Family) {
    let request = Kind::Udp.request(family, port::NONE);
    let frame = from_client(&request);
    let rated = |rate: u32| site().with(|fixture| fixture.settings.icmp_per_second = rate);
    rows.push(
        Case::new(
            format!("{family:?}: the answer beyond the rate limit is not sent"),
            rated(2),
            frame.bytes(),
        )
        .after(&frame)
        .after(&frame)
        .drops(Reason::AnswerSuppressed),
    );
    rows.push(
        Case::new(
            format!("{family:?}: the last answer that the rate limit allows is sent"),
            rated(2),
            frame.bytes(),
        )
        .after(&frame)
        .answers(
            &answer(
                &frame,
                family,
                family.virtual_address(),
                Error::PortUnreachable,
            ),
            Reason::NoRealServer,
        ),
    );
    rows.push(
        Case::new(
            format!("{family:?}: a rate of none sends no answers"),
            rated(0),
            frame.bytes(),
        )
        .drops(Reason::AnswerSuppressed),
    );
    // Neither kind is forwarded either: services with a real server pass them as well.
    let ends = |port: u16| virtual_end(family, port);
    let (nobody, group, loopback): (IpAddr, IpAddr, IpAddr) = match family {
        Family::V4 => (
            [0, 0, 0, 0].into(),
            [224, 0, 0, 1].into(),
            [127, 0, 0, 1].into(),
        ),
        Family::V6 => (
            [0_u16; 8].into(),
            [0xff02, 0, 0, 0, 0, 0, 0, 1_u16].into(),
            [0, 0, 0, 0, 0, 0, 0, 1_u16].into(),
        ),
    };
    for (port, service) in [(port::NONE, "an empty service"), (port::DR, "DR")] {
        let request = from_client(&Kind::Udp.request(family, port));
        for (mac, what) in [
            ([0xff; 6], "a broadcast frame"),
            ([0x01, 0, 0x5e, 0, 0, 1], "a multicast frame"),
        ] {
            let mut frame = request.clone();
            frame.destination = mac;
            rows.push(Case::new(
                format!("{family:?}: {what} for {service} is the kernel's"),
                site(),
                frame.bytes(),
            ));
        }
        if port == port::NONE {
            let mut frame = request;
            frame.source = [0x01, 0, 0x5e, 0, 0, 1];
            rows.push(
                Case::new(
                    format!("{family:?}: no answer is sent to a group of hosts"),
                    site(),
                    frame.bytes(),
                )
                .drops(Reason::AnswerSuppressed),
            );
        }
        for (source, what) in [
            (nobody, "nobody"),
            (group, "a group"),
            (loopback, "the loopback address"),
            (family.virtual_address(), "the virtual address itself"),
        ] {
            let packet = Ip::udp((source, 9), ends(port), b"x");
            rows.push(
                Case::new(
                    format!("{family:?}: a packet of {what} for {service} is the kernel's"),
                    site(),
                    from_client(&packet).bytes(),
                )
                .leaves(&[]),
            );
        }
    }
}
