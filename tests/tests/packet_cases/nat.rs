//! NAT: there and back, TTL, MTU, what is left to the kernel.

use director_tests::packet::build::Frame;
use director_tests::packet::build::{Ip, Payload, tcp};
use director_tests::packet::fixture::{
    BOTH, DIRECTOR, Family, NARROW, NARROW6, NEIGHBOUR, UNRESOLVED, port, site, table_address,
};
use director_tests::packet::{Case, Place, Step};
use xdp_ebpf::layout::Reason;

use crate::common::{
    Error, KINDS, Kind, answer, client, from_client, from_server, real_end, to_client, to_server,
    virtual_end,
};

pub(crate) fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for family in BOTH {
        for kind in KINDS {
            both_ways(&mut rows, family, kind);
            hops(&mut rows, family, kind);
        }
        checksums(&mut rows, family);
        ways(&mut rows, family);
        narrow(&mut rows, family);
        shared(&mut rows, family);
    }
    rows
}

/// Two services that share a real server, and a client that uses its port again for the other one.
fn shared(rows: &mut Vec<Case>, family: Family) {
    let (one, other) = (
        virtual_end(family, port::NAT),
        virtual_end(family, port::SHARED),
    );
    let (to_real, from) = (real_end(family), client(family));
    let id = site().id(family, port::SHARED, Kind::Tcp.number(), 0);
    let first = from_client(&Ip::tcp(from, one, tcp::SYN, b""));
    let data = from_client(&Kind::Tcp.data(from, one, b"a question"));
    let fin = from_client(&Ip::tcp(from, one, tcp::FIN | tcp::ACK, b""));
    let reply_to_first = from_server(&Kind::Tcp.data(to_real, from, b"an answer"));
    let second = from_client(&Ip::tcp(from, other, tcp::SYN, b""));
    let accepted = from_server(&Ip::tcp(to_real, from, tcp::SYN | tcp::ACK, b""));
    let at = |now_s: u32| {
        Step::Change(Box::new(
            site().with(|fixture| fixture.settings.now_s = now_s),
        ))
    };
    let send = |frame: &Frame| Step::Send(frame.bytes());
    let histories = [
        (
            "closed a moment ago",
            vec![send(&first), send(&data), send(&fin), send(&second)],
        ),
        (
            "closed, its replies on another CPU",
            vec![
                send(&first),
                send(&data),
                Step::Cpu(1),
                send(&reply_to_first),
                Step::Cpu(0),
                send(&fin),
                send(&second),
                Step::Cpu(1),
            ],
        ),
        (
            "given up without a word",
            vec![send(&first), send(&data), at(1300), send(&second)],
        ),
    ];
    for (what, history) in histories {
        for (flags, answer) in [
            (tcp::SYN | tcp::ACK, "the real server accepts it"),
            (tcp::ACK, "the real server answers it"),
        ] {
            let mut case = Case::new(
                format!(
                    "NAT {family:?} TCP: a port used again at a service that shares its real server, \
                     the connection before {what}: {answer}"
                ),
                site(),
                from_server(&Ip::tcp(to_real, from, flags, b"")).bytes(),
            );
            for step in history.clone() {
                case = case.after_step(step);
            }
            if flags & tcp::SYN == 0 {
                case = case.after(&accepted);
            }
            let reply = Ip::tcp(to_real, from, flags, b"");
            rows.push(case.transmits(
                &to_client(&reply.from(other.0, other.1).hop()),
                Place::Out(id),
            ));
        }
    }
}

fn both_ways(rows: &mut Vec<Case>, family: Family, kind: Kind) {
    let name = format!("NAT {family:?} {kind:?}");
    let id = site().id(family, port::NAT, kind.number(), 0);
    let (to_service, to_real) = (virtual_end(family, port::NAT), real_end(family));
    let request = kind.request(family, port::NAT);
    rows.push(
        Case::new(
            format!("{name}: the first packet goes to the real server's address and port"),
            site(),
            from_client(&request).bytes(),
        )
        .transmits(
            &to_server(&request.clone().to(to_real.0, to_real.1).hop()),
            Place::In(id),
        ),
    );
    for length in [0, 1, 7, 100, 1001] {
        let data = vec![0xa5; length];
        let packet = kind.data(client(family), to_service, &data);
        rows.push(
            Case::new(
                format!("{name}: a later packet with {length} bytes follows the first"),
                site(),
                from_client(&packet).bytes(),
            )
            .after(&from_client(&request))
            .transmits(
                &to_server(&packet.clone().to(to_real.0, to_real.1).hop()),
                Place::In(id),
            ),
        );
        let reply = kind.data(to_real, client(family), &data);
        rows.push(
            Case::new(
                format!("{name}: a reply with {length} bytes comes from the virtual address"),
                site(),
                from_server(&reply).bytes(),
            )
            .after(&from_client(&request))
            .transmits(
                &to_client(&reply.clone().from(to_service.0, to_service.1).hop()),
                Place::Out(id),
            ),
        );
    }
    let reply = kind.data(to_real, client(family), b"an answer");
    rows.push(Case::new(
        format!("{name}: a packet of the real server without a connection is left alone"),
        site(),
        from_server(&reply).bytes(),
    ));
    rows.push(
        Case::new(
            format!("{name}: a packet from another port of the real server is left alone"),
            site(),
            from_server(&reply.clone().from(to_real.0, 22)).bytes(),
        )
        .after(&from_client(&request)),
    );
    rows.push(
        Case::new(
            format!(
                "{name}: a packet of the real server to another port of the client is left alone"
            ),
            site(),
            from_server(&reply.clone().to(family.client(), 7)).bytes(),
        )
        .after(&from_client(&request)),
    );
    rows.push(
        Case::new(
            format!("{name}: padding of a short frame stays behind the packet"),
            site(),
            from_client(&request).padded(12).bytes(),
        )
        .transmits(
            &to_server(&request.clone().to(to_real.0, to_real.1).hop()).padded(12),
            Place::In(id),
        ),
    );
}

fn hops(rows: &mut Vec<Case>, family: Family, kind: Kind) {
    let name = format!("NAT {family:?} {kind:?}");
    let id = site().id(family, port::NAT, kind.number(), 0);
    let (to_service, to_real) = (virtual_end(family, port::NAT), real_end(family));
    let request = kind.request(family, port::NAT);
    rows.push(
        Case::new(
            format!("{name}: a TTL of 2 is enough"),
            site(),
            from_client(&request.clone().ttl(2)).bytes(),
        )
        .transmits(
            &to_server(&request.clone().to(to_real.0, to_real.1).ttl(1)),
            Place::In(id),
        ),
    );
    for ttl in [0, 1] {
        let expired = from_client(&request.clone().ttl(ttl));
        rows.push(
            Case::new(
                format!("{name}: the client hears of a TTL of {ttl} from the virtual address"),
                site(),
                expired.bytes(),
            )
            .answers(
                &answer(
                    &expired,
                    family,
                    family.virtual_address(),
                    Error::TimeExceeded,
                ),
                Reason::TtlExpired,
            ),
        );
    }
    let reply = kind.data(to_real, client(family), &[7; 2000][..900]);
    let expired = from_server(&reply.clone().ttl(1));
    rows.push(
        Case::new(
            format!("{name}: the real server hears of a TTL of 1 from the director's own address"),
            site(),
            expired.bytes(),
        )
        .after(&from_client(&request))
        .answers(
            &answer(&expired, family, family.own(), Error::TimeExceeded),
            Reason::TtlExpired,
        ),
    );
    rows.push(
        Case::new(
            format!("{name}: a director without an own address does not answer the real server"),
            site().with(|fixture| {
                fixture.settings.own4 = [0; 4];
                fixture.settings.own6 = [0; 16];
            }),
            expired.bytes(),
        )
        .after(&from_client(&request))
        .drops(Reason::AnswerSuppressed),
    );
    rows.push(
        Case::new(
            format!("{name}: a reply's TTL of 2 is enough"),
            site(),
            from_server(&reply.clone().ttl(2)).bytes(),
        )
        .after(&from_client(&request))
        .transmits(
            &to_client(&reply.clone().from(to_service.0, to_service.1).ttl(1)),
            Place::Out(id),
        ),
    );
}

fn checksums(rows: &mut Vec<Case>, family: Family) {
    let id = site().id(family, port::NAT, Kind::Udp.number(), 0);
    let (to_service, to_real) = (virtual_end(family, port::NAT), real_end(family));
    let request = Kind::Udp.request(family, port::NAT).without_checksum();
    rows.push(
        Case::new(
            format!("NAT {family:?} UDP: no checksum stays none"),
            site(),
            from_client(&request).bytes(),
        )
        .transmits(
            &to_server(&request.clone().to(to_real.0, to_real.1).hop()),
            Place::In(id),
        ),
    );
    let reply = Kind::Udp
        .data(to_real, client(family), b"x")
        .without_checksum();
    rows.push(
        Case::new(
            format!("NAT {family:?} UDP: no checksum stays none in a reply"),
            site(),
            from_server(&reply).bytes(),
        )
        .after(&from_client(&request))
        .transmits(
            &to_client(&reply.clone().from(to_service.0, to_service.1).hop()),
            Place::Out(id),
        ),
    );
    // A payload under which the translated datagram's checksum is all ones, sent because zero means none.
    let ones = (0..=u16::MAX)
        .map(|word| Ip::udp(client(family), to_service, &word.to_be_bytes()))
        .find(|ip| ip.clone().to(to_real.0, to_real.1).payload_bytes()[6..8] == [0xff; 2])
        .expect("one of all words");
    rows.push(
        Case::new(
            format!("NAT {family:?} UDP: a checksum that comes out as zero is sent as all ones"),
            site(),
            from_client(&ones).bytes(),
        )
        .transmits(
            &to_server(&ones.clone().to(to_real.0, to_real.1).hop()),
            Place::In(id),
        ),
    );
    let id = site().id(family, port::NAT, Kind::Tcp.number(), 0);
    let options = Ip::new(
        family.client(),
        to_service.0,
        Payload::Tcp {
            source_port: client(family).1,
            destination_port: to_service.1,
            flags: tcp::SYN,
            options: vec![2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 7],
            data: Vec::new(),
        },
    );
    rows.push(
        Case::new(
            format!("NAT {family:?} TCP: options are left alone"),
            site(),
            from_client(&options).bytes(),
        )
        .transmits(
            &to_server(&options.clone().to(to_real.0, to_real.1).hop()),
            Place::In(id),
        ),
    );
    for (tos, what) in [(0xb8, "DSCP"), (0x03, "ECN"), (0xff, "both")] {
        let marked = Kind::Tcp.request(family, port::NAT).with(|ip| {
            ip.tos = tos;
            ip.flow_label = 0xa_bcde;
        });
        rows.push(
            Case::new(
                format!("NAT {family:?} TCP: {what} and flow label are left alone"),
                site(),
                from_client(&marked).bytes(),
            )
            .transmits(
                &to_server(&marked.clone().to(to_real.0, to_real.1).hop()),
                Place::In(id),
            ),
        );
    }
}

fn ways(rows: &mut Vec<Case>, family: Family) {
    let (to_service, to_real) = (virtual_end(family, port::NAT), real_end(family));
    let id = site().id(family, port::NAT, Kind::Tcp.number(), 0);
    for (address, mac, what) in [
        (
            family.neighbour(),
            Some(NEIGHBOUR),
            "on a connected network",
        ),
        (family.far_client(), None, "to whom nobody knows a way"),
    ] {
        let end = (address, 5000);
        let request = Kind::Tcp.first(end, to_service);
        let reply = Kind::Tcp.data(to_real, end, b"an answer");
        let translated = reply.clone().from(to_service.0, to_service.1);
        let case = Case::new(
            format!("NAT {family:?} TCP: a reply to a client {what}"),
            site(),
            from_server(&reply).bytes(),
        )
        .after(&from_client(&request));
        rows.push(match mac {
            Some(mac) => {
                case.transmits(&Frame::new(DIRECTOR, mac, translated.hop()), Place::Out(id))
            }
            // The kernel goes on, and takes its one from the TTL.
            None => case.passes_as(&from_server(&translated), Place::Out(id)),
        });
    }
    let reply = Kind::Tcp.data(to_real, client(family), b"an answer");
    rows.push(
        Case::new(
            format!("NAT {family:?} TCP: a reply by a gateway that is not resolved goes on to the kernel"),
            site().with(|fixture| {
                fixture.next_hops.insert(1, UNRESOLVED);
            }),
            from_server(&reply).bytes(),
        )
        .after(&from_client(&Kind::Tcp.request(family, port::NAT)))
        .passes_as(
            &from_server(&reply.clone().from(to_service.0, to_service.1)),
            Place::Out(id),
        ),
    );
    for kind in KINDS {
        let id = site().id(family, port::NAT_UNRESOLVED, kind.number(), 0);
        let request = kind.request(family, port::NAT_UNRESOLVED);
        rows.push(
            Case::new(
                format!("NAT {family:?} {kind:?}: a next hop that is not resolved is left to the kernel, translated"),
                site(),
                from_client(&request).bytes(),
            )
            .passes_as(
                &from_client(&request.clone().to(to_real.0, to_real.1)),
                Place::In(id),
            ),
        );
    }
    let id = site().id(family, port::NAT_OTHER, Kind::Tcp.number(), 0);
    let request = Kind::Tcp.request(family, port::NAT_OTHER);
    rows.push(
        Case::new(
            format!("NAT {family:?} TCP: a real server behind another interface"),
            site(),
            from_client(&request).bytes(),
        )
        .redirects(
            &to_server(&request.clone().to(to_real.0, to_real.1).hop()),
            Place::In(id),
        ),
    );
    // Two services share a real server and its port: the client's port tells them apart.
    let shared = site().id(family, port::SHARED, Kind::Tcp.number(), 0);
    let end = (family.client(), 6000);
    let reply = Kind::Tcp.data(to_real, end, b"an answer");
    rows.push(
        Case::new(
            format!(
                "NAT {family:?} TCP: a reply finds its service among those that share a real server"
            ),
            site(),
            from_server(&reply).bytes(),
        )
        .after(&from_client(&Kind::Tcp.request(family, port::NAT)))
        .after(&from_client(
            &Kind::Tcp.first(end, virtual_end(family, port::SHARED)),
        ))
        .transmits(
            &to_client(
                &reply
                    .clone()
                    .from(family.virtual_address(), port::SHARED)
                    .hop(),
            ),
            Place::Out(shared),
        ),
    );
    let record = table_address(family.server(1));
    rows.push(
        Case::new(
            format!("NAT {family:?} TCP: a real server of the other family cannot be reached"),
            site().with(|fixture| {
                if let Some(destination) = fixture.destinations.get_mut(&shared) {
                    destination.flags ^= xdp_ebpf::layout::destination::IPV6;
                    destination.address = record;
                }
            }),
            from_client(&Kind::Tcp.request(family, port::SHARED)).bytes(),
        )
        .drops(Reason::DestinationGone),
    );
}

fn narrow(rows: &mut Vec<Case>, family: Family) {
    let to_service = virtual_end(family, port::NAT_NARROW);
    let to_real = real_end(family);
    let id = site().id(family, port::NAT_NARROW, Kind::Tcp.number(), 0);
    let mtu = match family {
        Family::V4 => NARROW,
        Family::V6 => NARROW6,
    };
    let room = usize::from(mtu) - family.header_len() - 20;
    let syn = Kind::Tcp.request(family, port::NAT_NARROW);
    let fits = Kind::Tcp
        .data(client(family), to_service, &vec![1; room])
        .df();
    rows.push(
        Case::new(
            format!("NAT {family:?} TCP: a packet as large as the way takes"),
            site(),
            from_client(&fits).bytes(),
        )
        .after(&from_client(&syn))
        .transmits(
            &to_server(&fits.clone().to(to_real.0, to_real.1).hop()),
            Place::In(id),
        ),
    );
    let big = Kind::Tcp
        .data(client(family), to_service, &vec![1; room + 1])
        .df();
    let frame = from_client(&big);
    rows.push(
        Case::new(
            format!("NAT {family:?} TCP: the client hears of a packet that is one byte too big"),
            site(),
            frame.bytes(),
        )
        .after(&from_client(&syn))
        .answers(
            &answer(
                &frame,
                family,
                family.virtual_address(),
                Error::TooBig(u32::from(mtu)),
            ),
            Reason::TooBig,
        ),
    );
    if family == Family::V4 {
        let big = big.with(|ip| ip.dont_fragment = false);
        rows.push(
            Case::new(
                "NAT V4 TCP: a packet that is too big and may be fragmented is left to the kernel, translated",
                site(),
                from_client(&big).bytes(),
            )
            .after(&from_client(&syn))
            .passes_as(
                &from_client(&big.clone().to(to_real.0, to_real.1)),
                Place::In(id),
            ),
        );
    }
    let id = site().id(family, port::NAT, Kind::Tcp.number(), 0);
    let way = |fixture: &mut director_tests::packet::fixture::Fixture| {
        if let Some(gateway) = fixture.next_hops.get_mut(&1) {
            gateway.mtu = mtu;
        }
    };
    let reply = Kind::Tcp
        .data(to_real, client(family), &vec![2; room + 1])
        .df();
    let frame = from_server(&reply);
    rows.push(
        Case::new(
            format!("NAT {family:?} TCP: the real server hears of a reply that is too big"),
            site().with(way),
            frame.bytes(),
        )
        .after(&from_client(&Kind::Tcp.request(family, port::NAT)))
        .answers(
            &answer(&frame, family, family.own(), Error::TooBig(u32::from(mtu))),
            Reason::TooBig,
        ),
    );
    if family == Family::V4 {
        let reply = reply.with(|ip| ip.dont_fragment = false);
        rows.push(
            Case::new(
                "NAT V4 TCP: a reply that is too big and may be fragmented is left to the kernel, translated",
                site().with(way),
                from_server(&reply).bytes(),
            )
            .after(&from_client(&Kind::Tcp.request(family, port::NAT)))
            .passes_as(
                &from_server(&reply.clone().from(family.virtual_address(), port::NAT)),
                Place::Out(id),
            ),
        );
    }
}
