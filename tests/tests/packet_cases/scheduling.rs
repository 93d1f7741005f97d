//! Which real server a connection gets, and keeps; states; the tables of several CPUs.

use director_tests::packet::build::{Frame, Ip, tcp};
use director_tests::packet::fixture::{BOTH, DIRECTOR, Family, Fixture, port, server_mac, site};
use director_tests::packet::{Case, Place, Step};
use xdp_ebpf::layout::{Reason, destination, service};
use xdp_ebpf::state::State;

use crate::common::{
    Error, KINDS, Kind, answer, client, from_client, from_server, real_end, to_client, virtual_end,
};

/// A segment of the client's `number`-th connection.
fn segment(family: Family, port: u16, number: u16, flags: u8) -> Frame {
    let from = (family.client(), 1000 + number);
    from_client(&Ip::tcp(from, virtual_end(family, port), flags, b""))
}

/// The frame at one of the real servers of NAT.
fn at(frame: &Frame, family: Family, server: u8) -> Frame {
    let ip = frame.ip.clone().to(family.server(server), port::REAL).hop();
    Frame::new(DIRECTOR, server_mac(server), ip)
}

fn id(family: Family, port: u16, server: u8) -> u32 {
    site().id(family, port, Kind::Tcp.number(), usize::from(server) - 1)
}

pub(crate) fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for family in BOTH {
        turns(&mut rows, family);
        changes(&mut rows, family);
        reuse(&mut rows, family);
        middle(&mut rows, family);
        resets(&mut rows, family);
        states(&mut rows, family);
        left_over(&mut rows, family);
        for kind in KINDS {
            cpus(&mut rows, family, kind);
        }
    }
    rows
}

fn turns(rows: &mut Vec<Case>, family: Family) {
    for (port, name, order) in [
        (port::RR, "rr", [1, 2, 1, 2, 1, 2, 1]),
        (port::WRR, "wrr", [1, 2, 1, 1, 2, 1, 1]),
    ] {
        for (number, server) in (0_u16..).zip(order) {
            let syn = segment(family, port, number, tcp::SYN);
            let case = Case::new(
                format!("{name} {family:?}: connection {number} goes to real server {server}"),
                site(),
                syn.bytes(),
            );
            rows.push(
                (0..number)
                    .fold(case, |case, before| {
                        case.after(&segment(family, port, before, tcp::SYN))
                    })
                    .transmits(
                        &at(&syn, family, server),
                        Place::In(id(family, port, server)),
                    ),
            );
        }
    }
}

fn changes(rows: &mut Vec<Case>, family: Family) {
    let first = id(family, port::RR, 1);
    let second = id(family, port::RR, 2);
    let service = site().service(family, port::RR, Kind::Tcp.number());
    let syn = segment(family, port::RR, 0, tcp::SYN);
    let data = segment(family, port::RR, 0, tcp::ACK);
    let new = segment(family, port::RR, 1, tcp::SYN);
    let change = |change: &dyn Fn(&mut Fixture)| {
        Step::Change(Box::new(site().with(|fixture| change(fixture))))
    };
    let after = |what: &str, step: Step, input: &Frame| {
        Case::new(format!("{family:?}: {what}"), site(), input.bytes())
            .after(&syn)
            .after_step(step)
    };
    let moved = || change(&|fixture| fixture.schedule(service, &[second]));
    rows.push(
        after(
            "a connection keeps its real server when the table changes",
            moved(),
            &data,
        )
        .transmits(&at(&data, family, 1), Place::In(first)),
    );
    rows.push(
        after("so does one whose SYN is sent again", moved(), &syn)
            .transmits(&at(&syn, family, 1), Place::In(first)),
    );
    rows.push(
        after("a new connection goes by the new table", moved(), &new)
            .transmits(&at(&new, family, 2), Place::In(second)),
    );
    let emptied = || change(&|fixture| fixture.schedule(service, &[]));
    rows.push(
        after(
            "a connection stays when no real server is left for new ones",
            emptied(),
            &data,
        )
        .transmits(&at(&data, family, 1), Place::In(first)),
    );
    rows.push(
        after(
            "a new connection is told when no real server is left",
            emptied(),
            &new,
        )
        .answers(
            &answer(
                &new,
                family,
                family.virtual_address(),
                Error::PortUnreachable,
            ),
            Reason::NoRealServer,
        ),
    );
    let retired = change(&|fixture| {
        fixture.schedule(service, &[second]);
        if let Some(record) = fixture.destinations.get_mut(&first) {
            record.flags |= destination::RETIRED;
        }
    });
    rows.push(
        after(
            "a real server that is no longer configured still has its connections",
            retired,
            &data,
        )
        .transmits(&at(&data, family, 1), Place::In(first)),
    );
    let gone = || {
        change(&|fixture| {
            fixture.schedule(service, &[second]);
            fixture.destinations.remove(&first);
        })
    };
    rows.push(after(
        "a connection whose real server is not known any more is reset by the kernel",
        gone(),
        &data,
    ));
    rows.push(
        after("its SYN is scheduled anew", gone(), &syn)
            .transmits(&at(&syn, family, 2), Place::In(second))
            .leaves(&[(0, second, State::SynReceived)]),
    );
    let given = change(&|fixture| {
        fixture.schedule(service, &[second]);
        let other = fixture.service(family, port::WRR, Kind::Tcp.number());
        if let Some(record) = fixture.destinations.get_mut(&first) {
            record.service = other;
        }
    });
    rows.push(
        after(
            "an id that another service has now is not followed",
            given,
            &syn,
        )
        .transmits(&at(&syn, family, 2), Place::In(second)),
    );
    let missing = change(&|fixture| {
        fixture.schedule(service, &[first]);
        fixture.destinations.remove(&first);
    });
    rows.push(
        after(
            "a table that names nobody is as good as none",
            missing,
            &new,
        )
        .answers(
            &answer(
                &new,
                family,
                family.virtual_address(),
                Error::PortUnreachable,
            ),
            Reason::NoRealServer,
        ),
    );
}

fn reuse(rows: &mut Vec<Case>, family: Family) {
    let syn = segment(family, port::RR, 0, tcp::SYN);
    let (first, second) = (id(family, port::RR, 1), id(family, port::RR, 2));
    for (flags, what) in [
        (tcp::RST, "a reset"),
        (tcp::RST | tcp::ACK, "a reset with an acknowledgement"),
    ] {
        rows.push(
            Case::new(
                format!("{family:?}: a SYN after {what} is a new connection"),
                site(),
                syn.bytes(),
            )
            .after(&syn)
            .after(&segment(family, port::RR, 0, tcp::ACK))
            .after(&segment(family, port::RR, 0, flags))
            .transmits(&at(&syn, family, 2), Place::In(second))
            .leaves(&[(0, second, State::SynReceived)]),
        );
    }
    let fin = tcp::FIN | tcp::ACK;
    let real = (family.server(1), port::REAL);
    let reply = from_server(&Ip::tcp(real, (family.client(), 1000), fin, b""));
    let fins = |what: &str, frames: &[&Frame]| {
        let opening = Case::new(format!("{family:?}: {what}"), site(), syn.bytes())
            .after(&syn)
            .after(&segment(family, port::RR, 0, tcp::ACK));
        frames.iter().fold(opening, |case, frame| case.after(frame))
    };
    let client_fin = segment(family, port::RR, 0, fin);
    rows.push(
        fins(
            "a SYN after both FINs is a new connection",
            &[&client_fin, &reply],
        )
        .transmits(&at(&syn, family, 2), Place::In(second))
        .leaves(&[(0, second, State::SynReceived)]),
    );
    // IPVS: conn_reuse_mode 1 reuses only TIME_WAIT and CLOSE where both directions are seen.
    rows.push(
        fins(
            "a SYN after the client's FIN alone stays with its real server",
            &[&client_fin],
        )
        .transmits(&at(&syn, family, 1), Place::In(first))
        .leaves(&[(0, first, State::SynReceived)]),
    );
    let direct = segment(family, port::DR, 0, tcp::SYN);
    let dr = site().id(family, port::DR, Kind::Tcp.number(), 0);
    rows.push(
        Case::new(
            format!("{family:?}: under DR, where only the client is heard, its FIN is enough"),
            site(),
            direct.bytes(),
        )
        .after(&direct)
        .after(&segment(family, port::DR, 0, tcp::ACK))
        .after(&segment(family, port::DR, 0, fin))
        .transmits(
            &Frame::new(DIRECTOR, server_mac(1), direct.ip.clone()),
            Place::In(dr),
        )
        .leaves(&[(0, dr, State::SynReceived)]),
    );
    rows.push(
        Case::new(
            format!("{family:?}: a SYN on a connection that stands is not"),
            site(),
            syn.bytes(),
        )
        .after(&syn)
        .after(&segment(family, port::RR, 0, tcp::ACK))
        .transmits(&at(&syn, family, 1), Place::In(first))
        .leaves(&[(0, first, State::Established)]),
    );
}

fn middle(rows: &mut Vec<Case>, family: Family) {
    for (flags, what, state) in [
        (tcp::ACK, "data", Some(State::SynReceived)),
        (tcp::FIN | tcp::ACK, "a FIN", Some(State::Close)),
        // Whoever still has the connection is told, and nothing begins.
        (tcp::RST, "a reset", None),
        (tcp::RST | tcp::ACK, "a reset that acknowledges", None),
        (tcp::SYN | tcp::RST, "a reset with a SYN", None),
        (tcp::SYN | tcp::ACK, "a SYN-ACK", Some(State::SynReceived)),
    ] {
        let frame = segment(family, port::RR, 0, flags);
        rows.push(
            Case::new(
                format!("{family:?}: {what} of a connection nobody knows is the kernel's under rr"),
                site(),
                frame.bytes(),
            )
            .leaves(&[]),
        );
        for port in [port::MH, port::MH_PORT] {
            let only = id(family, port, 2);
            let frame = segment(family, port, 0, flags);
            rows.push(
                Case::new(
                    format!("{family:?}: {what} of a connection nobody knows is scheduled under mh (port {port})"),
                    site().with(|fixture| {
                        let service = fixture.service(family, port, Kind::Tcp.number());
                        fixture.schedule(service, &[only]);
                    }),
                    frame.bytes(),
                )
                .transmits(&at(&frame, family, 2), Place::In(only))
                .leaves(&state.map_or(vec![], |state| vec![(0, only, state)])),
            );
        }
    }
}

/// A reset of a connection nobody knows leaves nothing behind, under `mh` and persistence.
fn resets(rows: &mut Vec<Case>, family: Family) {
    let number = site().service(family, port::MH, Kind::Tcp.number());
    let (first, second) = (id(family, port::MH, 1), id(family, port::MH, 2));
    let persistent = |servers: &[u32]| {
        site().with(|fixture| {
            fixture.change_service(number, |record| record.flags |= service::PERSISTENT);
            fixture.schedule(number, servers);
        })
    };
    let then = |servers: &[u32]| Step::Change(Box::new(persistent(servers)));
    let reset = segment(family, port::MH, 0, tcp::RST);
    let syn = segment(family, port::MH, 1, tcp::SYN);
    let case = |what: &str, fixture: Fixture, input: &Frame| {
        let what = format!("{family:?}: a reset of a connection nobody knows {what}");
        Case::new(what, fixture, input.bytes())
    };
    rows.push(
        case(
            "goes where persistence sends its client",
            persistent(&[first]),
            &reset,
        )
        .after(&syn)
        .after_step(then(&[second]))
        .transmits(&at(&reset, family, 1), Place::In(first))
        .leaves(&[(0, first, State::SynReceived)]),
    );
    rows.push(
        case(
            "is nothing that persistence remembers",
            persistent(&[first]),
            &syn,
        )
        .after(&reset)
        .after_step(then(&[second]))
        .transmits(&at(&syn, family, 2), Place::In(second))
        .leaves(&[(0, second, State::SynReceived)]),
    );
    rows.push(
        case(
            "is the kernel's where no real server is left",
            persistent(&[]),
            &reset,
        )
        .leaves(&[]),
    );
}

/// Who sends a segment.
#[derive(Clone, Copy, Debug)]
enum End {
    Client,
    Server,
}

fn states(rows: &mut Vec<Case>, family: Family) {
    use End::{Client, Server};
    const SYN: u8 = tcp::SYN;
    const ACK: u8 = tcp::ACK;
    const FIN: u8 = tcp::FIN | tcp::ACK;
    const RST: u8 = tcp::RST;
    let id = id(family, port::NAT, 1);
    let (service, real) = (virtual_end(family, port::NAT), real_end(family));
    type Sequence = (&'static [(End, u8)], State, &'static str);
    let sequences: [Sequence; 11] = [
        (&[(Client, SYN)], State::SynReceived, "a SYN"),
        (
            &[(Client, SYN), (Server, SYN | ACK)],
            State::SynReceived,
            "SYN and SYN-ACK",
        ),
        (
            &[(Client, SYN), (Server, SYN | ACK), (Client, ACK)],
            State::Established,
            "the three-way handshake",
        ),
        (
            &[(Client, SYN), (Client, ACK), (Server, ACK)],
            State::Established,
            "data of the real server",
        ),
        (
            &[(Client, SYN), (Client, ACK), (Client, FIN)],
            State::CloseWait,
            "the client's FIN",
        ),
        (
            &[(Client, SYN), (Client, ACK), (Server, FIN)],
            State::FinWait,
            "the real server's FIN",
        ),
        (
            &[
                (Client, SYN),
                (Client, ACK),
                (Server, FIN),
                (Client, FIN),
                (Server, ACK),
                (Client, ACK),
            ],
            State::TimeWait,
            "both FINs and their acknowledgements",
        ),
        (
            &[(Client, SYN), (Client, RST)],
            State::Close,
            "the client's reset",
        ),
        (
            &[(Client, SYN), (Server, RST | ACK)],
            State::Close,
            "the real server's reset",
        ),
        (
            &[(Client, SYN), (Client, FIN), (Client, RST)],
            State::Close,
            "a reset after a FIN",
        ),
        (
            &[(Client, SYN), (Server, RST), (Client, ACK)],
            State::Close,
            "an acknowledgement after a reset",
        ),
    ];
    let frame = |(end, flags): (End, u8)| match end {
        Client => from_client(&Ip::tcp(client(family), service, flags, b"")),
        Server => from_server(&Ip::tcp(real, client(family), flags, b"")),
    };
    for (sequence, state, what) in sequences {
        let Some((last, before)) = sequence.split_last() else {
            continue;
        };
        let input = frame(*last);
        let case = before.iter().fold(
            Case::new(
                format!("{family:?}: {what} leaves {state:?}"),
                site(),
                input.bytes(),
            ),
            |case, step| case.after(&frame(*step)),
        );
        rows.push(
            match last.0 {
                Client => case.transmits(&at(&input, family, 1), Place::In(id)),
                Server => case.transmits(
                    &to_client(&input.ip.clone().from(service.0, service.1).hop()),
                    Place::Out(id),
                ),
            }
            .leaves(&[(0, id, state)]),
        );
    }
}

fn cpus(rows: &mut Vec<Case>, family: Family, kind: Kind) {
    let id = site().id(family, port::NAT, kind.number(), 0);
    let (service, real) = (virtual_end(family, port::NAT), real_end(family));
    let request = from_client(&kind.request(family, port::NAT));
    let data = from_client(&kind.data(client(family), service, b"more"));
    // A TCP reply that is only data says nothing of the client; a UDP one is an answer.
    let (new, later, copied) = match kind {
        Kind::Tcp => (State::SynReceived, State::Established, State::SynReceived),
        Kind::Udp => (State::UdpOne, State::Udp, State::Udp),
    };
    let name = format!("{family:?} {kind:?}");
    rows.push(
        Case::new(
            format!("{name}: a connection that the NIC moved to another CPU is found there"),
            site(),
            data.bytes(),
        )
        .after(&request)
        .after_step(Step::Cpu(1))
        .transmits(&at(&data, family, 1), Place::In(id))
        .leaves(&[(0, id, new), (1, id, later)]),
    );
    let reply = kind.data(real, client(family), b"an answer");
    rows.push(
        Case::new(
            format!("{name}: a reply by another CPU finds its connection and leaves a copy"),
            site(),
            from_server(&reply).bytes(),
        )
        .after(&request)
        .after_step(Step::Cpu(1))
        .transmits(
            &to_client(&reply.clone().from(service.0, service.1).hop()),
            Place::Out(id),
        )
        .leaves(&[(0, id, new), (1, id, copied)]),
    );
    rows.push(
        Case::new(
            format!("{name}: a second reply by another CPU leaves no second copy"),
            site(),
            from_server(&reply).bytes(),
        )
        .after(&request)
        .after_step(Step::Cpu(1))
        .after(&from_server(&reply))
        .transmits(
            &to_client(&reply.clone().from(service.0, service.1).hop()),
            Place::Out(id),
        )
        .leaves(&[(0, id, new), (1, id, copied)]),
    );
    if kind == Kind::Tcp {
        let other = site().id(family, port::RR, kind.number(), 1);
        let first = site().id(family, port::RR, kind.number(), 0);
        let syn = segment(family, port::RR, 0, tcp::SYN);
        rows.push(
            Case::new(
                format!("{name}: a SYN on another CPU is scheduled anew rather than searched for"),
                site(),
                syn.bytes(),
            )
            .after(&syn)
            .after_step(Step::Cpu(1))
            .transmits(&at(&syn, family, 2), Place::In(other))
            .leaves(&[
                (0, first, State::SynReceived),
                (1, other, State::SynReceived),
            ]),
        );
    }
}

/// What an earlier connection under the same addresses left in the table of a CPU that did not see the SYN of the next one.
fn left_over(rows: &mut Vec<Case>, family: Family) {
    const FIN: u8 = tcp::FIN | tcp::ACK;
    let [first, second] = [1, 2].map(|server| id(family, port::RR, server));
    let later = |seconds| Step::Change(Box::new(site().with(|it| it.settings.now_s += seconds)));
    let [syn, ack, fin] = [tcp::SYN, tcp::ACK, FIN].map(|it| segment(family, port::RR, 0, it));
    let case = |what: &str| Case::new(format!("{family:?} Tcp: {what}"), site(), ack.bytes());
    let used_again = |case: Case| {
        case.after(&syn)
            .after(&fin)
            .after_step(later(5))
            .after_step(Step::Cpu(1))
            .after(&syn)
            .after(&ack)
            .after_step(Step::Cpu(0))
    };
    rows.push(
        used_again(case("a port used again by another CPU is found there"))
            .transmits(&at(&ack, family, 2), Place::In(second))
            .leaves(&[
                (0, second, State::Established),
                (1, second, State::Established),
            ]),
    );
    rows.push(
        used_again(case("and is found here from then on"))
            .after(&ack)
            .transmits(&at(&ack, family, 2), Place::In(second))
            .leaves(&[
                (0, second, State::Established),
                (1, second, State::Established),
            ]),
    );
    rows.push(
        case("what is over and stands nowhere else goes where it went")
            .after(&syn)
            .after(&fin)
            .after_step(later(5))
            .transmits(&at(&ack, family, 1), Place::In(first))
            .leaves(&[(0, first, State::TimeWait)]),
    );
    rows.push(
        case("the CPU that saw a connection's end does not forget it for what another one saw before")
            .after(&syn)
            .after(&ack)
            .after_step(Step::Cpu(1))
            .after(&fin)
            .after_step(later(5))
            .after_step(Step::Cpu(0))
            .after(&ack)
            .after_step(Step::Cpu(1))
            .transmits(&at(&ack, family, 1), Place::In(first))
            .leaves(&[
                (0, first, State::Established),
                (1, first, State::CloseWait),
            ]),
    );
}
