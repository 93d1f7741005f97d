//! Fragments: the first decides, the others follow; those that come too early wait.

use director_tests::packet::build::{Frame, Ip, Payload, ipv6};
use director_tests::packet::fixture::{BOTH, Family, port, site};
use director_tests::packet::{Case, Place, Step};
use xdp_ebpf::layout::{Reason, limits, method};

use crate::common::{
    Error, KINDS, Kind, answer, client, from_client, from_server, real_end, to_client, to_server,
    virtual_end, wrapped_of,
};

/// Payload bytes of the fragments.
const SIZE: usize = 800;

/// A packet of three fragments.
fn long(kind: Kind, from: (std::net::IpAddr, u16), to: (std::net::IpAddr, u16)) -> Ip {
    let data: Vec<u8> = (0..1999_u32).map(|byte| byte as u8).collect();
    match kind {
        // What a first fragment of TCP may schedule.
        Kind::Tcp => kind.first(from, to).with(|ip| {
            if let Payload::Tcp { data: old, .. } = &mut ip.payload {
                *old = data;
            }
        }),
        Kind::Udp => kind.data(from, to, &data),
    }
}

fn request(family: Family, kind: Kind, port: u16) -> Ip {
    long(kind, client(family), virtual_end(family, port))
}

pub(crate) fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for family in BOTH {
        for kind in KINDS {
            forward(&mut rows, family, kind);
            order(&mut rows, family, kind);
            replies(&mut rows, family, kind);
            others(&mut rows, family, kind);
        }
        limits(&mut rows, family);
    }
    mixtures(&mut rows);
    rows
}

/// A case for the `index`-th fragment after those before it.
fn nth(what: String, parts: &[Ip], index: usize, from: fn(&Ip) -> Frame) -> Case {
    parts[..index].iter().fold(
        Case::new(what, site(), from(&parts[index]).bytes()),
        |case, part| case.after(&from(part)),
    )
}

fn forward(rows: &mut Vec<Case>, family: Family, kind: Kind) {
    let real = real_end(family);
    let id = |port: u16| Place::In(site().id(family, port, kind.number(), 0));
    let whole = request(family, kind, port::NAT);
    let parts = whole.fragments(SIZE);
    let translated = whole.clone().to(real.0, real.1).hop().fragments(SIZE);
    for (index, translated) in translated.iter().enumerate() {
        let name = format!("NAT {family:?} {kind:?}: fragment {index} is translated");
        rows.push(
            nth(name, &parts, index, from_client).transmits(&to_server(translated), id(port::NAT)),
        );
    }
    let parts = request(family, kind, port::DR).fragments(SIZE);
    for index in 0..parts.len() {
        let name = format!("DR {family:?} {kind:?}: fragment {index} is sent on");
        rows.push(
            nth(name, &parts, index, from_client)
                .transmits(&to_server(&parts[index]), id(port::DR)),
        );
    }
    for (port, tunnel, outer, tunnel_name) in crate::tunnel::TUNNELS {
        let parts = request(family, kind, port).fragments(SIZE);
        for index in 0..parts.len() {
            let name = format!(
                "{tunnel_name} {family:?} {kind:?}: fragment {index} takes the tunnel's way of the first"
            );
            let outer = wrapped_of(client(family), &parts[index], port, tunnel, outer);
            rows.push(
                nth(name, &parts, index, from_client).transmits(&to_server(&outer), id(port)),
            );
        }
    }
}

fn order(rows: &mut Vec<Case>, family: Family, kind: Kind) {
    let name = format!("NAT {family:?} {kind:?}");
    let real = real_end(family);
    let id = Place::In(site().id(family, port::NAT, kind.number(), 0));
    let whole = request(family, kind, port::NAT);
    let parts = whole.fragments(SIZE);
    let translated = whole.clone().to(real.0, real.1).hop().fragments(SIZE);
    let early = |what: &str, index: usize| {
        Case::new(
            format!("{name}: {what}"),
            site(),
            from_client(&parts[index]).bytes(),
        )
    };
    rows.push(early("a fragment before the first waits", 1).is_held());
    rows.push(
        early("a fragment waits with its tags", 2)
            .with_input(&from_client(&parts[2]).double_tagged(3, 4))
            .is_held(),
    );
    rows.push(
        early(
            "a fragment that waited goes on when it is handed in again",
            1,
        )
        .after(&from_client(&parts[1]))
        .after_step(Step::TakeHeld)
        .after(&from_client(&parts[0]))
        .transmits(&to_server(&translated[1]), id),
    );
    rows.push(
        early("the last fragment may come before those between", 1)
            .after(&from_client(&parts[0]))
            .after(&from_client(&parts[2]))
            .transmits(&to_server(&translated[1]), id),
    );
    rows.push(
        early(
            "what the first decided is forgotten when all bytes were seen",
            1,
        )
        .after(&from_client(&parts[0]))
        .after(&from_client(&parts[1]))
        .after(&from_client(&parts[2]))
        .is_held(),
    );
    rows.push(
        early("a fragment of another datagram does not follow", 1)
            .after(&from_client(&parts[0].clone().with(|ip| ip.id += 1)))
            .is_held(),
    );
    rows.push(
        early("fragments come by other CPUs than the first", 1)
            .after(&from_client(&parts[0]))
            .after_step(Step::Cpu(1))
            .transmits(&to_server(&translated[1]), id),
    );
    rows.push(
        early("a first fragment that is expired at once is lost", 0)
            .with_fixture(site().with(|fixture| fixture.settings.fragment_timeout_ms = 0))
            .drops(Reason::FragmentLost),
    );
}

fn replies(rows: &mut Vec<Case>, family: Family, kind: Kind) {
    let (service, real) = (virtual_end(family, port::NAT), real_end(family));
    let id = Place::Out(site().id(family, port::NAT, kind.number(), 0));
    let whole = kind.data(real, client(family), &[0x3c; 1700]);
    let parts = whole.fragments(SIZE);
    let translated = whole
        .clone()
        .from(service.0, service.1)
        .hop()
        .fragments(SIZE);
    let opening = from_client(&kind.request(family, port::NAT)).bytes();
    for (index, translated) in translated.iter().enumerate() {
        let name = format!("NAT {family:?} {kind:?}: fragment {index} of a reply is translated");
        let mut case = nth(name, &parts, index, from_server).transmits(&to_client(translated), id);
        case.before.insert(0, Step::Send(opening.clone()));
        rows.push(case);
        let name = format!(
            "NAT {family:?} {kind:?}: fragment {index} from the real server without a connection is left alone"
        );
        rows.push(nth(name, &parts, index, from_server));
    }
}

fn others(rows: &mut Vec<Case>, family: Family, kind: Kind) {
    for (to, what) in [
        ((family.stranger(), port::NAT), "another address"),
        ((family.virtual_address(), 22), "another port"),
    ] {
        let parts = long(kind, client(family), to).fragments(SIZE);
        for index in 0..parts.len() {
            let name = format!("{family:?} {kind:?}: fragment {index} to {what} is left alone");
            rows.push(nth(name, &parts, index, from_client));
        }
    }
    let parts = long(kind, client(family), (family.stranger(), 80)).fragments(SIZE);
    rows.push(Case::new(
        format!("{family:?} {kind:?}: a fragment to another address does not wait for the first"),
        site(),
        from_client(&parts[1]).bytes(),
    ));
    let parts = request(family, kind, port::NONE).fragments(SIZE);
    let first = from_client(&parts[0]);
    rows.push(
        Case::new(
            format!("{family:?} {kind:?}: a first fragment for nobody is answered"),
            site(),
            first.bytes(),
        )
        .answers(
            &answer(
                &first,
                family,
                family.virtual_address(),
                Error::PortUnreachable,
            ),
            Reason::NoRealServer,
        ),
    );
    let parts = request(family, kind, port::NAT).fragments(SIZE);
    let first = from_client(&parts[0].clone().ttl(1));
    rows.push(
        Case::new(
            format!("NAT {family:?} {kind:?}: a first fragment's TTL of 1 is answered"),
            site(),
            first.bytes(),
        )
        .answers(
            &answer(
                &first,
                family,
                family.virtual_address(),
                Error::TimeExceeded,
            ),
            Reason::TtlExpired,
        ),
    );
    rows.push(
        Case::new(
            format!("NAT {family:?} {kind:?}: a later fragment's TTL of 1 is not"),
            site(),
            from_client(&parts[1].clone().ttl(1)).bytes(),
        )
        .after(&from_client(&parts[0]))
        .drops(Reason::AnswerSuppressed),
    );
    for index in [0, 1] {
        let mut frame = from_client(&parts[index]).bytes();
        frame.truncate(frame.len() - 1);
        rows.push(
            Case::new(
                format!("NAT {family:?} {kind:?}: fragment {index} that is cut off is malformed"),
                site(),
                frame,
            )
            .drops(Reason::Malformed),
        );
    }
}

fn limits(rows: &mut Vec<Case>, family: Family) {
    let kind = match family {
        Family::V4 => (8, 0),
        Family::V6 => (128, 0),
    };
    let ping = Ip::icmp(
        family.client(),
        family.virtual_address(),
        kind,
        1,
        &[1; 2000],
    );
    let parts = ping.fragments(SIZE);
    for index in 0..parts.len() {
        let name = format!("{family:?}: fragment {index} of a ping is left alone");
        rows.push(nth(name, &parts, index, from_client));
    }
    // The frames that can wait have a largest size.
    let longest = limits::HELD_FRAME_BYTES - 14 - family.header_len();
    let longest = match family {
        Family::V4 => longest,
        Family::V6 => longest - 8,
    } & !7;
    for (size, fits) in [(longest, true), (longest + 8, false)] {
        let data = vec![0; size * 3];
        let to = virtual_end(family, port::NAT);
        let parts = Kind::Udp.data(client(family), to, &data).fragments(size);
        let case = Case::new(
            format!("{family:?}: a fragment of {size} bytes before the first"),
            site(),
            from_client(&parts[1]).bytes(),
        );
        rows.push(if fits {
            case.is_held()
        } else {
            case.drops(Reason::FragmentLost)
        });
    }
    let id = site().id(family, port::NAT_UNRESOLVED, Kind::Udp.number(), 0);
    let whole = request(family, Kind::Udp, port::NAT_UNRESOLVED);
    let (parts, real) = (whole.fragments(SIZE), real_end(family));
    let translated = whole.to(real.0, real.1).fragments(SIZE);
    for (index, translated) in translated.iter().enumerate() {
        let name = format!(
            "NAT {family:?}: fragment {index} is left to the kernel, translated, where the next hop is not resolved"
        );
        rows.push(
            nth(name, &parts, index, from_client)
                .passes_as(&from_client(translated), Place::In(id)),
        );
    }
}

fn mixtures(rows: &mut Vec<Case>) {
    // IPv4 tells datagrams of two protocols apart (RFC 791).
    let family = Family::V4;
    let tcp = request(family, Kind::Tcp, port::DR).fragments(SIZE);
    let udp = request(family, Kind::Udp, port::IPIP4).fragments(SIZE);
    let outer = wrapped_of(client(family), &udp[1], port::IPIP4, method::IPIP, family);
    rows.push(
        Case::new(
            "V4: datagrams of two protocols under one identification are told apart",
            site(),
            from_client(&udp[1]).bytes(),
        )
        .after(&from_client(&udp[0]))
        .after(&from_client(&tcp[0]))
        .transmits(
            &to_server(&outer),
            Place::In(site().id(family, port::IPIP4, Kind::Udp.number(), 0)),
        ),
    );
    // Options behind the fragment header belong to the datagram: only the first fragment shows them.
    let family = Family::V6;
    let (to, real) = (virtual_end(family, port::NAT), real_end(family));
    let whole = Kind::Udp.data(client(family), to, &[3; 1000]);
    let options = |ip: &Ip| {
        let bytes = [&[17, 0, 1, 4, 0, 0, 0, 0], ip.payload_bytes().as_slice()].concat();
        ip.clone()
            .with(|ip| ip.payload = Payload::Raw(ipv6::DESTINATION_OPTIONS, bytes))
            .fragments(SIZE)
    };
    let parts = options(&whole);
    let translated = options(&whole.clone().to(real.0, real.1).hop());
    let id = Place::In(site().id(family, port::NAT, Kind::Udp.number(), 0));
    for (index, translated) in translated.iter().enumerate() {
        let name = format!("NAT V6: fragment {index} of a datagram with options of its own");
        rows.push(nth(name, &parts, index, from_client).transmits(&to_server(translated), id));
    }
    rows.push(
        parts[..2]
            .iter()
            .fold(
                Case::new(
                    "NAT V6: a datagram with options of its own is forgotten when all bytes were seen",
                    site(),
                    from_client(&parts[1]).bytes(),
                ),
                |case, part| case.after(&from_client(part)),
            )
            .is_held(),
    );
}
