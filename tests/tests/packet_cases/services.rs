//! What services can be told: ranges of ports, groups, persistence, one packet, thresholds, what happens when nobody is
//! there or a real server has gone.

use std::net::IpAddr;

use director_tests::packet::build::{Frame, Ip, Payload, tcp};
use director_tests::packet::fixture::{
    BOTH, DIRECTOR, Family, Fixture, Real, hop, port, server_mac, site,
};
use director_tests::packet::{Case, Place, Step};
use xdp_ebpf::layout::{
    Reason, destination, method, no_server, removed, scheduler, service, settings,
};
use xdp_ebpf::state::State;
use xdp_ebpf::wire::protocol;

use crate::common::{Error, KINDS, Kind, answer, from_client, from_server, to_client};

/// Another virtual address, of the services here.
fn address(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([192, 0, 2, 100 + number]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 1, u16::from(number)]),
    }
}

fn real(family: Family, number: u8, method: u8, port: u16) -> Real {
    Real {
        method,
        address: family.server(number),
        port,
        next_hop: hop(server_mac(number)),
    }
}

/// A service of its own with two real servers by a method, on port 80; its id, and those of the real servers.
fn two(fixture: &mut Fixture, family: Family, kind: Kind, how: u8) -> (u16, u32, u32) {
    let real_port = if how == method::NAT { port::REAL } else { 0 };
    let reals = [
        real(family, 1, how, real_port),
        real(family, 2, how, real_port),
    ];
    let id = fixture.add(
        address(family, 0),
        80,
        kind.number(),
        scheduler::CURSOR,
        &reals,
    );
    let ids = fixture.destinations_of(id);
    (id, ids[0], ids[1])
}

/// As it goes to a real server by direct routing.
fn direct(frame: &Frame, server: u8) -> Frame {
    Frame::new(DIRECTOR, server_mac(server), frame.ip.clone())
}

/// As it goes to a real server by NAT.
fn translated(frame: &Frame, family: Family, server: u8, port: u16) -> Frame {
    let ip = frame.ip.clone().to(family.server(server), port).hop();
    Frame::new(DIRECTOR, server_mac(server), ip)
}

fn of_client(family: Family, number: u8, source_port: u16) -> (IpAddr, u16) {
    (family.other_client(number), source_port)
}

pub(crate) fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for family in BOTH {
        for kind in KINDS {
            ranges(&mut rows, family, kind);
            groups(&mut rows, family, kind);
            persistence(&mut rows, family, kind);
            gone(&mut rows, family, kind);
            nobody(&mut rows, family, kind);
            thresholds(&mut rows, family, kind);
        }
        one_packet(&mut rows, family);
        sloppy(&mut rows, family);
        resets(&mut rows, family);
        full(&mut rows, family);
        moving(&mut rows, family);
    }
    rows
}

fn ranges(rows: &mut Vec<Case>, family: Family, kind: Kind) {
    let name = format!("range {family:?} {kind:?}");
    let ranged = |how: u8| {
        let mut fixture = site();
        let id = fixture.add(
            address(family, 1),
            8000,
            kind.number(),
            scheduler::CURSOR,
            &[real(family, 1, how, 0)],
        );
        if let Some(endpoint) = fixture.endpoints.get_mut(&id) {
            endpoint.last_port = 8999_u16.to_be_bytes();
        }
        fixture.settings.flags |= settings::RANGES;
        let destination = fixture.destinations_of(id)[0];
        (fixture, destination)
    };
    let to =
        |port: u16| from_client(&kind.first(of_client(family, 9, 700), (address(family, 1), port)));
    let (nat, id) = ranged(method::NAT);
    for port in [8000, 8001, 8191, 8192, 8500, 8999] {
        rows.push(
            Case::new(
                format!("{name}: port {port} stays what it is under NAT"),
                nat.clone(),
                to(port).bytes(),
            )
            .transmits(&translated(&to(port), family, 1, port), Place::In(id)),
        );
    }
    rows.push(
        Case::new(
            format!("{name}: a new connection waits while tables are exchanged"),
            nat.clone()
                .with(|fixture| fixture.settings.flags |= settings::MOVING),
            to(8000).bytes(),
        )
        .drops(Reason::Moving)
        .leaves(&[]),
    );
    for port in [7999, 9000, 80] {
        rows.push(Case::new(
            format!("{name}: port {port} is outside"),
            nat.clone(),
            to(port).bytes(),
        ));
    }
    let reply = |port: u16| {
        let data = kind.data((family.server(1), port), of_client(family, 9, 700), b"yes");
        from_server(&data)
    };
    rows.push(
        Case::new(
            format!("{name}: a reply comes from the port that was asked"),
            nat.clone(),
            reply(8500).bytes(),
        )
        .after(&to(8500))
        .after(&to(8501))
        .transmits(
            &to_client(&reply(8500).ip.clone().from(address(family, 1), 8500).hop()),
            Place::Out(id),
        ),
    );
    rows.push(
        Case::new(
            format!("{name}: a packet from a port that nobody asked is left alone"),
            nat.clone(),
            reply(8502).bytes(),
        )
        .after(&to(8500)),
    );
    let whole = Ip::udp(
        of_client(family, 9, 700),
        (address(family, 1), 8123),
        &[7; 1400],
    );
    if kind == Kind::Udp {
        let (fixture, id) = ranged(method::DR);
        for (index, part) in whole.fragments(600).iter().enumerate() {
            let before = &whole.fragments(600)[..index];
            let case = before.iter().fold(
                Case::new(
                    format!("{name}: fragment {index} follows the first one"),
                    fixture.clone(),
                    from_client(part).bytes(),
                ),
                |case, part| case.after(&from_client(part)),
            );
            rows.push(case.transmits(&direct(&from_client(part), 1), Place::In(id)));
        }
    }
    let quoted = kind.data(
        (address(family, 1), 8500),
        of_client(family, 9, 700),
        b"quoted",
    );
    let ((code_type, code), rest) = Error::PortUnreachable.numbers(family);
    let error = from_client(&Ip::icmp(
        family.stranger(),
        address(family, 1),
        (code_type, code),
        rest,
        &quoted.bytes(),
    ));
    let (fixture, id) = ranged(method::DR);
    rows.push(
        Case::new(
            format!("{name}: an ICMP error finds the real server of its connection"),
            fixture.clone(),
            error.bytes(),
        )
        .after(&to(8500))
        .transmits(&direct(&error, 1), Place::In(id)),
    );
    rows.push(Case::new(
        format!("{name}: an ICMP error about no connection is left alone"),
        fixture.clone(),
        error.bytes(),
    ));
    // One port of the range is another service.
    let mut inside = fixture.clone();
    let other = inside.add(
        address(family, 1),
        8500,
        kind.number(),
        scheduler::CURSOR,
        &[real(family, 3, method::DR, 0)],
    );
    let other = inside.destinations_of(other)[0];
    rows.push(
        Case::new(
            format!("{name}: one port within it can be another service"),
            inside.clone(),
            to(8500).bytes(),
        )
        .transmits(&direct(&to(8500), 3), Place::In(other)),
    );
    rows.push(
        Case::new(
            format!("{name}: and its neighbours are the range's all the same"),
            inside,
            to(8501).bytes(),
        )
        .transmits(&direct(&to(8501), 1), Place::In(id)),
    );
    let mut second = to(8501);
    second.ip = kind.data(
        of_client(family, 9, 700),
        (address(family, 1), 8501),
        b"more",
    );
    let middle = Case::new(
        format!("{name}: a client's connection to one port says nothing of another port"),
        fixture,
        second.bytes(),
    )
    .after(&to(8500));
    rows.push(match kind {
        Kind::Tcp => middle,
        Kind::Udp => middle.transmits(&direct(&second, 1), Place::In(id)),
    });
}

fn groups(rows: &mut Vec<Case>, family: Family, kind: Kind) {
    let name = format!("group {family:?} {kind:?}");
    let mut fixture = site();
    let (id, first, second) = two(&mut fixture, family, kind, method::NAT);
    for real in [first, second] {
        if let Some(record) = fixture.destinations.get_mut(&real) {
            record.port = [0; 2];
        }
    }
    fixture.add_endpoint(id, address(family, 2), (443, 443), kind.number());
    let from = of_client(family, 9, 700);
    let one = from_client(&kind.first(from, (address(family, 0), 80)));
    let other = from_client(&kind.first(from, (address(family, 2), 443)));
    rows.push(
        Case::new(
            format!("{name}: its endpoints share one scheduler, and each its port"),
            fixture.clone(),
            other.bytes(),
        )
        .after(&one)
        .transmits(&translated(&other, family, 2, 443), Place::In(second)),
    );
    for (server, virtual_end, destination) in [
        (1, (address(family, 0), 80), first),
        (2, (address(family, 2), 443), second),
    ] {
        let reply = from_server(&kind.data((family.server(server), virtual_end.1), from, b"yes"));
        rows.push(
            Case::new(
                format!(
                    "{name}: a reply of real server {server} comes from the address that was asked"
                ),
                fixture.clone(),
                reply.bytes(),
            )
            .after(&one)
            .after(&other)
            .transmits(
                &to_client(&reply.ip.clone().from(virtual_end.0, virtual_end.1).hop()),
                Place::Out(destination),
            ),
        );
    }
    rows.push(Case::new(
        format!("{name}: one endpoint's port at another's address is nobody's"),
        fixture,
        from_client(&kind.first(from, (address(family, 0), 443))).bytes(),
    ));
}

fn persistence(rows: &mut Vec<Case>, family: Family, kind: Kind) {
    let name = format!("persistence {family:?} {kind:?}");
    let with = |flags: u16, prefix: usize| {
        let mut fixture = site();
        let (id, first, second) = two(&mut fixture, family, kind, method::DR);
        fixture.add_endpoint(id, address(family, 2), (443, 443), kind.number());
        fixture.change_service(id, |record| {
            record.flags |= service::PERSISTENT | flags;
            record.persistence_mask = [0; 16];
            record.persistence_mask[..prefix].fill(0xff);
        });
        (fixture, first, second)
    };
    let whole = if family == Family::V4 { 4 } else { 16 };
    let syn = |client: u8, source_port: u16| {
        from_client(&kind.first(
            of_client(family, client, source_port),
            (address(family, 0), 80),
        ))
    };
    let (fixture, first, second) = with(0, whole);
    let case = |what: &str, fixture: &Fixture, frame: &Frame| {
        Case::new(format!("{name}: {what}"), fixture.clone(), frame.bytes())
    };
    rows.push(
        case("a client stays", &fixture, &syn(9, 701))
            .after(&syn(9, 700))
            .after(&syn(8, 700))
            .transmits(&direct(&syn(9, 701), 1), Place::In(first)),
    );
    rows.push(
        case("another client has its own", &fixture, &syn(8, 701))
            .after(&syn(9, 700))
            .transmits(&direct(&syn(8, 701), 2), Place::In(second)),
    );
    rows.push(
        case("on another CPU too", &fixture, &syn(9, 701))
            .after(&syn(9, 700))
            .after(&syn(8, 700))
            .after_step(Step::Cpu(1))
            .transmits(&direct(&syn(9, 701), 1), Place::In(first)),
    );
    let (coarse, first, _) = with(0, whole - 1);
    rows.push(
        case("all of a network are one client", &coarse, &syn(8, 701))
            .after(&syn(9, 700))
            .transmits(&direct(&syn(8, 701), 1), Place::In(first)),
    );
    let other_end = from_client(&kind.first(of_client(family, 9, 702), (address(family, 2), 443)));
    rows.push(
        case("across endpoints", &fixture, &other_end)
            .after(&syn(9, 700))
            .transmits(&direct(&other_end, 1), Place::In(first)),
    );
    let (per_port, _, second) = with(service::PERSISTENT_PER_PORT, whole);
    rows.push(
        case("or for each endpoint of its own", &per_port, &other_end)
            .after(&syn(9, 700))
            .transmits(&direct(&other_end, 2), Place::In(second)),
    );
    let quiesced = |flags: u16| {
        let (mut fixture, first, second) = with(flags, whole);
        fixture.weigh(first, 0);
        (fixture, first, second)
    };
    let (after, first, _) = quiesced(0);
    rows.push(
        case(
            "a quiesced real server keeps its clients",
            &fixture,
            &syn(9, 701),
        )
        .after(&syn(9, 700))
        .after_step(Step::Change(Box::new(after)))
        .transmits(&direct(&syn(9, 701), 1), Place::In(first)),
    );
    let (after, _, second) = quiesced(service::EXPIRE_QUIESCENT);
    rows.push(
        case("unless the service says otherwise", &fixture, &syn(9, 701))
            .after(&syn(9, 700))
            .after_step(Step::Change(Box::new(after)))
            .transmits(&direct(&syn(9, 701), 2), Place::In(second)),
    );
    let (mut removed, first, second) = with(0, whole);
    if let Some(record) = removed.destinations.get_mut(&first) {
        record.flags |= destination::RETIRED;
    }
    removed.weigh(first, 0);
    rows.push(
        case("a removed one loses them", &fixture, &syn(9, 701))
            .after(&syn(9, 700))
            .after_step(Step::Change(Box::new(removed)))
            .transmits(&direct(&syn(9, 701), 2), Place::In(second)),
    );
}

fn one_packet(rows: &mut Vec<Case>, family: Family) {
    let mut fixture = site();
    let (id, first, second) = two(&mut fixture, family, Kind::Udp, method::DR);
    fixture.change_service(id, |record| record.flags |= service::ONE_PACKET);
    let datagram = from_client(&Ip::udp(
        of_client(family, 9, 700),
        (address(family, 0), 80),
        b"one",
    ));
    for (before, server, destination) in [(0, 1, first), (1, 2, second), (2, 1, first)] {
        let case = Case::new(
            format!("one packet {family:?}: datagram {before} of a client is scheduled anew"),
            fixture.clone(),
            datagram.bytes(),
        );
        rows.push(
            (0..before)
                .fold(case, |case, _| case.after(&datagram))
                .transmits(&direct(&datagram, server), Place::In(destination))
                .leaves(&[]),
        );
    }
    fixture.settings.flags |= settings::MOVING;
    rows.push(
        Case::new(
            format!("one packet {family:?}: needs no entry, also while tables are exchanged"),
            fixture,
            datagram.bytes(),
        )
        .transmits(&direct(&datagram, 1), Place::In(first))
        .leaves(&[]),
    );
}

fn sloppy(rows: &mut Vec<Case>, family: Family) {
    for (flags, state) in [
        (tcp::ACK, Some(State::SynReceived)),
        (tcp::FIN | tcp::ACK, Some(State::Close)),
        (tcp::RST, None),
    ] {
        let mut fixture = site();
        let (id, first, _) = two(&mut fixture, family, Kind::Tcp, method::DR);
        fixture.change_service(id, |record| record.flags |= service::SLOPPY);
        let segment = from_client(&Ip::tcp(
            of_client(family, 9, 700),
            (address(family, 0), 80),
            flags,
            b"",
        ));
        let case = Case::new(
            format!("sloppy {family:?}: flags {flags:#x} in the middle of a connection"),
            fixture,
            segment.bytes(),
        );
        rows.push(match state {
            Some(state) => case
                .transmits(&direct(&segment, 1), Place::In(first))
                .leaves(&[(0, first, state)]),
            None => case.leaves(&[]),
        });
    }
}

/// Connections of a real server that is gone.
fn gone(rows: &mut Vec<Case>, family: Family, kind: Kind) {
    let name = format!("gone {family:?} {kind:?}");
    let mut fixture = site();
    let (id, first, second) = two(&mut fixture, family, kind, method::DR);
    let from = of_client(family, 9, 700);
    let to = (address(family, 0), 80);
    let opening = from_client(&kind.first(from, to));
    let data = from_client(&kind.data(from, to, b"more"));
    let after = |flag: u8, rule: u8| {
        let mut fixture = fixture.clone();
        if let Some(record) = fixture.destinations.get_mut(&first) {
            record.flags |= destination::RETIRED | flag;
        }
        fixture.weigh(first, 0);
        fixture.change_service(id, |record| record.removed = rule);
        Step::Change(Box::new(fixture))
    };
    let case = |what: &str, frame: &Frame, step: Step| {
        Case::new(format!("{name}: {what}"), fixture.clone(), frame.bytes())
            .after(&opening)
            .after_step(step)
    };
    rows.push(
        case("kept, they go on", &data, after(0, removed::RESCHEDULE))
            .transmits(&direct(&data, 1), Place::In(first)),
    );
    rows.push(
        case(
            "dropped, they are silent",
            &data,
            after(destination::GONE, removed::DROP),
        )
        .drops(Reason::DestinationGone),
    );
    let again = case(
        "rescheduled, a packet is as if there were no connection",
        &data,
        after(destination::GONE, removed::RESCHEDULE),
    );
    rows.push(match kind {
        // In the middle of nothing: the kernel's.
        Kind::Tcp => again,
        Kind::Udp => again
            .transmits(&direct(&data, 2), Place::In(second))
            .leaves(&[(0, second, State::UdpOne)]),
    });
    if kind == Kind::Tcp {
        rows.push(
            case(
                "rescheduled, a new SYN goes to another",
                &opening,
                after(destination::GONE, removed::RESCHEDULE),
            )
            .transmits(&direct(&opening, 2), Place::In(second))
            .leaves(&[(0, second, State::SynReceived)]),
        );
    }
}

/// The reset that a client gets for a segment of a connection that is closed.
pub(crate) fn reset_of(frame: &Frame) -> Frame {
    reset(frame, numbers(frame).1, 0, tcp::RST)
}

/// A reset for a frame, as its receiver would send it.
fn reset(frame: &Frame, sequence: u32, acknowledgement: u32, flags: u8) -> Frame {
    let (source_port, destination_port) = match &frame.ip.payload {
        Payload::Tcp {
            source_port,
            destination_port,
            ..
        } => (*source_port, *destination_port),
        other => panic!("not TCP: {other:?}"),
    };
    let mut ip = Ip::tcp(
        (frame.ip.destination, destination_port),
        (frame.ip.source, source_port),
        flags,
        b"",
    )
    .ttl(64);
    ip.id = 0;
    ip.dont_fragment = true;
    let mut bytes = ip.payload_bytes();
    bytes[4..8].copy_from_slice(&sequence.to_be_bytes());
    bytes[8..12].copy_from_slice(&acknowledgement.to_be_bytes());
    bytes[14..16].fill(0);
    bytes[16..18].fill(0);
    let checksum = tcp_checksum(&ip, &bytes);
    bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
    ip.payload = Payload::Raw(protocol::TCP, bytes);
    Frame {
        destination: frame.source,
        source: frame.destination,
        tags: frame.tags.clone(),
        ip,
        padding: 0,
    }
}

/// By etherparse.
fn tcp_checksum(ip: &Ip, segment: &[u8]) -> u16 {
    let slice = etherparse::TcpSlice::from_slice(segment).expect("a TCP header");
    let sum = match (ip.source, ip.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            slice.calc_checksum_ipv4(source.octets(), destination.octets())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            slice.calc_checksum_ipv6(source.octets(), destination.octets())
        }
        other => panic!("two families: {other:?}"),
    };
    sum.expect("a short segment")
}

/// Sequence and acknowledgement number of a frame's segment.
fn numbers(frame: &Frame) -> (u32, u32) {
    let bytes = frame.ip.payload_bytes();
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    (number(4), number(8))
}

fn nobody(rows: &mut Vec<Case>, family: Family, kind: Kind) {
    let name = format!("nobody {family:?} {kind:?}");
    let to = (address(family, 0), 80);
    let frame = from_client(&kind.first(of_client(family, 9, 700), to));
    for rule in [no_server::ICMP, no_server::RESET, no_server::SILENT] {
        let mut fixture = site();
        let (id, first, second) = two(&mut fixture, family, kind, method::DR);
        fixture.change_service(id, |record| record.no_server = rule);
        fixture.weigh(first, 0);
        fixture.weigh(second, 0);
        let case = Case::new(format!("{name}: rule {rule}"), fixture, frame.bytes());
        rows.push(match (rule, kind) {
            (no_server::SILENT, _) => case.drops(Reason::NoRealServer),
            (no_server::RESET, Kind::Tcp) => {
                let (sequence, _) = numbers(&frame);
                let back = reset(&frame, 0, sequence.wrapping_add(1), tcp::RST | tcp::ACK);
                case.answers(&back, Reason::NoRealServer)
            }
            _ => case.answers(
                &answer(&frame, family, to.0, Error::PortUnreachable),
                Reason::NoRealServer,
            ),
        });
    }
}

/// A drain whose deadline has passed.
fn resets(rows: &mut Vec<Case>, family: Family) {
    let mut fixture = site();
    let (_, first, second) = two(&mut fixture, family, Kind::Tcp, method::NAT);
    let from = of_client(family, 9, 700);
    let to = (address(family, 0), 80);
    let syn = from_client(&Ip::tcp(from, to, tcp::SYN, b""));
    let ack = from_client(&Ip::tcp(from, to, tcp::ACK, b""));
    let data = from_client(&Ip::tcp(from, to, tcp::ACK, b"anybody there?"));
    let reply = from_server(&Ip::tcp(
        (family.server(1), port::REAL),
        from,
        tcp::ACK,
        b"yes",
    ));
    let closed = fixture.clone().with(|fixture| {
        if let Some(record) = fixture.destinations.get_mut(&first) {
            record.flags |= destination::CLOSED;
        }
        fixture.weigh(first, 0);
    });
    let case = |what: &str, frame: &Frame| {
        Case::new(
            format!("closed {family:?}: {what}"),
            fixture.clone(),
            frame.bytes(),
        )
        .after(&syn)
        .after(&ack)
        .after_step(Step::Change(Box::new(closed.clone())))
    };
    let back = |frame: &Frame| reset(frame, numbers(frame).1, 0, tcp::RST);
    rows.push(
        case("the client is reset", &data)
            .answers(&back(&data), Reason::Closed)
            .leaves(&[(0, first, State::Close)]),
    );
    rows.push(case("and so is the real server", &reply).answers(&back(&reply), Reason::Closed));
    let rst = from_client(&Ip::tcp(from, to, tcp::RST, b""));
    rows.push(case("but never a reset", &rst).drops(Reason::Closed));
    rows.push(
        case("a new connection goes to another", &syn)
            .after(&data)
            .transmits(&translated(&syn, family, 2, port::REAL), Place::In(second))
            .leaves(&[(0, second, State::SynReceived)]),
    );
    let tagged = Frame {
        tags: vec![(0x8100, 7)],
        ..data.clone()
    };
    rows.push(case("through its VLAN", &tagged).answers(&back(&tagged), Reason::Closed));
    let padded = data.clone().padded(9);
    rows.push(case("without padding", &padded).answers(&back(&padded), Reason::Closed));
}

fn thresholds(rows: &mut Vec<Case>, family: Family, kind: Kind) {
    let mut fixture = site();
    let (_, first, second) = two(&mut fixture, family, kind, method::DR);
    fixture.limit(first, 1, 2, 0);
    let to = (address(family, 0), 80);
    let frame = |client: u8| from_client(&kind.first(of_client(family, client, 700), to));
    for (before, server, destination) in [
        (0, 1, first),
        (1, 2, second),
        (2, 1, first),
        (3, 2, second),
        (4, 2, second),
        (5, 2, second),
    ] {
        let case = Case::new(
            format!(
                "threshold {family:?} {kind:?}: after {before} connections the next goes to {server}"
            ),
            fixture.clone(),
            frame(99).bytes(),
        );
        rows.push(
            (0..before)
                .fold(case, |case, client| case.after(&frame(client + 1)))
                .transmits(&direct(&frame(99), server), Place::In(destination)),
        );
    }
}

/// A table without a place that a half-open connection could have.
fn full(rows: &mut Vec<Case>, family: Family) {
    let mut fixture = site();
    let (id, ..) = two(&mut fixture, family, Kind::Tcp, method::DR);
    fixture.settings.buckets4 = 2;
    fixture.settings.buckets6 = 2;
    let to = (address(family, 0), 80);
    let segment = |client: u8, flags: u8| {
        from_client(&Ip::tcp(of_client(family, client, 700), to, flags, b""))
    };
    let filled = |case: Case| {
        (1..=8).fold(case, |case, client| {
            case.after(&segment(client, tcp::SYN))
                .after(&segment(client, tcp::ACK))
        })
    };
    let syn = segment(99, tcp::SYN);
    rows.push(
        filled(Case::new(
            format!("full {family:?}: no established connection gives way to a SYN"),
            fixture.clone(),
            syn.bytes(),
        ))
        .drops(Reason::TableFull),
    );
    // Whoever hashes needs no entry.
    let first = fixture.destinations_of(id)[0];
    fixture.schedule(id, &[first]);
    fixture.change_service(id, |record| record.scheduler = scheduler::MAGLEV);
    rows.push(
        filled(Case::new(
            format!("full {family:?}: under mh it is forwarded all the same"),
            fixture,
            syn.bytes(),
        ))
        .transmits(&direct(&syn, 1), Place::In(first)),
    );
}

/// The moment in which tables are exchanged for ones of another size.
fn moving(rows: &mut Vec<Case>, family: Family) {
    let mut fixture = site();
    let (id, first, second) = two(&mut fixture, family, Kind::Tcp, method::DR);
    let calm = fixture.clone();
    fixture.settings.flags |= settings::MOVING;
    let to = (address(family, 0), 80);
    let segment = |flags: u8| from_client(&Ip::tcp(of_client(family, 9, 700), to, flags, b""));
    let begun = |what: &str| {
        Case::new(
            format!("moving {family:?}: {what}"),
            calm.clone(),
            segment(tcp::ACK).bytes(),
        )
        .after(&segment(tcp::SYN))
    };
    let moving = Step::Change(Box::new(fixture.clone()));
    let to_first = |case: Case| case.transmits(&direct(&segment(tcp::ACK), 1), Place::In(first));
    rows.push(
        to_first(begun("a connection that stands goes on").after_step(moving.clone())).leaves(&[(
            0,
            first,
            State::Established,
        )]),
    );
    rows.push(
        to_first(
            begun("so does one of another CPU, without a copy on this one")
                .after_step(moving.clone())
                .after_step(Step::Cpu(1)),
        )
        .leaves(&[(0, first, State::SynReceived)]),
    );
    // By what is there then it is known whether the entry was carried over before or after.
    rows.push(
        begun("a port is not used again")
            .with_input(&segment(tcp::SYN))
            .after(&segment(tcp::RST))
            .after_step(moving)
            .drops(Reason::Moving)
            .leaves(&[(0, first, State::Close)]),
    );
    rows.push(
        begun("and is once it is over")
            .with_input(&segment(tcp::SYN))
            .after(&segment(tcp::RST))
            .transmits(&direct(&segment(tcp::SYN), 2), Place::In(second))
            .leaves(&[(0, second, State::SynReceived)]),
    );
    rows.push(
        Case::new(
            format!("moving {family:?}: a new connection waits"),
            fixture.clone(),
            segment(tcp::SYN).bytes(),
        )
        .drops(Reason::Moving),
    );
    rows.push(Case::new(
        format!(
            "moving {family:?}: the middle of an unknown connection is the kernel's, as always"
        ),
        fixture.clone(),
        segment(tcp::ACK).bytes(),
    ));
    fixture.schedule(id, &[first]);
    fixture.change_service(id, |record| record.scheduler = scheduler::MAGLEV);
    rows.push(
        Case::new(
            format!("moving {family:?}: whoever hashes needs no entry"),
            fixture,
            segment(tcp::SYN).bytes(),
        )
        .transmits(&direct(&segment(tcp::SYN), 1), Place::In(first)),
    );
}
