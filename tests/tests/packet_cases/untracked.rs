//! Services that track connections on change only: what needs no entry, and whose a packet is while a slot changes hands.

use std::net::IpAddr;

use director::plan::owners;
use director_tests::packet::build::{Frame, Ip, tcp};
use director_tests::packet::fixture::{
    BOTH, DIRECTOR, Family, Fixture, Real, hop, port, server_mac,
};
use director_tests::packet::{Case, Place, Step};
use xdp_ebpf::layout::{Reason, destination, method, removed, scheduler, service, slot};
use xdp_ebpf::state::State;

use crate::common::{Error, KINDS, Kind, answer, client, from_client, virtual_end};

/// The two real servers, by their ids and by their numbers alike.
const A: u32 = 1;
const B: u32 = 2;
/// A last port, which makes the endpoint a range.
const RANGE_END: u16 = port::DR + 9;

/// A settled slot of A.
const SETTLED: u32 = slot::new(A, 0);
/// B has it now, and A had it.
const FROM_A_TO_B: u32 = slot::new(B, A);
/// B has it, and what is not known is B's.
const MARKED_B: u32 = slot::new(B, B);
/// Nobody has it any more.
const FROM_A_TO_NOBODY: u32 = slot::new(0, A);

/// B has it, and nobody had it.
const FROM_NOBODY_TO_B: u32 = slot::new(B, owners::NOBODY);

/// A service on A and B by DR, all of whose slots say `word`.
fn site(family: Family, kind: Kind, word: u32) -> Fixture {
    let mut fixture = Fixture::empty();
    let reals = [1, 2].map(|number| Real {
        method: method::DR,
        address: family.server(number),
        port: 0,
        next_hop: hop(server_mac(number)),
    });
    let address = family.virtual_address();
    let id = fixture.add(address, port::DR, kind.number(), scheduler::MAGLEV, &reals);
    fixture.change_service(id, |record| {
        record.flags = service::ON_CHANGE | service::PORT;
    });
    fixture.schedule(id, &[word; 7]);
    fixture
}

/// As it goes to a real server by DR.
fn at(frame: &Frame, server: u32) -> Frame {
    Frame::new(DIRECTOR, server_mac(server as u8), frame.ip.clone())
}

fn segment(family: Family, flags: u8) -> Frame {
    let end = virtual_end(family, port::DR);
    from_client(&Ip::tcp(client(family), end, flags, b""))
}

/// What happens before a row's packet.
#[derive(Clone, Copy)]
enum Before {
    /// A segment with these flags.
    Segment(u8),
    /// All slots get this word.
    Slots(u32),
    /// A destination gets these flags.
    Flags(u32, u8),
    /// Packets come by this CPU.
    Cpu(u32),
}
use Before::{Cpu, Flags, Segment, Slots};

/// What a row's segment finds.
#[derive(Clone, Copy)]
enum Then {
    /// It goes to this real server.
    To(u32),
    /// The client is reset.
    Reset,
    /// The client is told that there is nobody.
    Nobody,
}
use Then::{Nobody, Reset, To};

const SYN: u8 = tcp::SYN;
const ACK: u8 = tcp::ACK;
const FIN: u8 = tcp::FIN | tcp::ACK;
const RST: u8 = tcp::RST;

/// What it shows, the slots at first, what happens before, the segment, what becomes of it, and the connections then (CPU,
/// destination, state).
type Row = (
    &'static str,
    u32,
    &'static [Before],
    u8,
    Then,
    &'static [(u32, u32, State)],
);

const TCP: &[Row] = &[
    (
        "settled: a SYN goes to the owner without an entry",
        SETTLED,
        &[],
        SYN,
        To(A),
        &[],
    ),
    (
        "settled: so does what follows",
        SETTLED,
        &[Segment(SYN)],
        ACK,
        To(A),
        &[],
    ),
    (
        "settled: and the end",
        SETTLED,
        &[Segment(SYN), Segment(ACK)],
        FIN,
        To(A),
        &[],
    ),
    ("settled: and a reset", SETTLED, &[], RST, To(A), &[]),
    (
        "settled again: an entry that is left is not asked",
        FROM_A_TO_B,
        &[Segment(ACK), Slots(slot::new(B, 0))],
        ACK,
        To(B),
        &[(0, A, State::SynReceived)],
    ),
    (
        "changed: a new connection goes to the new owner and is entered",
        FROM_A_TO_B,
        &[],
        SYN,
        To(B),
        &[(0, B, State::SynReceived)],
    ),
    (
        "changed: and goes on there",
        FROM_A_TO_B,
        &[Segment(SYN)],
        ACK,
        To(B),
        &[(0, B, State::Established)],
    ),
    (
        "changed: one that began before goes on at the old owner and is entered",
        SETTLED,
        &[Segment(SYN), Segment(ACK), Slots(FROM_A_TO_B)],
        ACK,
        To(A),
        &[(0, A, State::SynReceived)],
    ),
    (
        "changed: also when the slot changes once more",
        SETTLED,
        &[
            Segment(SYN),
            Slots(FROM_A_TO_B),
            Segment(ACK),
            Slots(slot::new(0, A)),
        ],
        ACK,
        To(A),
        &[(0, A, State::Established)],
    ),
    (
        "changed and back: one that began in between stays where it began",
        FROM_A_TO_B,
        &[Segment(SYN), Slots(slot::new(A, A))],
        ACK,
        To(B),
        &[(0, B, State::Established)],
    ),
    (
        "changed: its end is seen",
        FROM_A_TO_B,
        &[Segment(ACK)],
        FIN,
        To(A),
        // DR: the client's is all that is seen. Half-open until then.
        &[(0, A, State::TimeWait)],
    ),
    (
        "changed: then a SYN begins a new one at the new owner",
        FROM_A_TO_B,
        &[Segment(ACK), Segment(FIN)],
        SYN,
        To(B),
        &[(0, B, State::SynReceived)],
    ),
    (
        "changed: a reset of one that is not known goes to the old owner and leaves nothing",
        FROM_A_TO_B,
        &[],
        RST,
        To(A),
        &[],
    ),
    (
        "changed: the NIC moves the flow of a new one to another CPU",
        FROM_A_TO_B,
        &[Segment(SYN), Cpu(1)],
        ACK,
        To(B),
        &[(0, B, State::SynReceived), (1, B, State::Established)],
    ),
    (
        "changed: what is not known goes to the new owner where the old one is gone",
        FROM_A_TO_B,
        &[Flags(A, destination::GONE)],
        ACK,
        To(B),
        &[(0, B, State::SynReceived)],
    ),
    (
        "changed: the old owner is only retired and keeps what it has",
        FROM_A_TO_B,
        &[Flags(A, destination::RETIRED | destination::OUT)],
        ACK,
        To(A),
        &[(0, A, State::SynReceived)],
    ),
    (
        "changed: the old owner's drain has ended, and what it had is reset",
        FROM_A_TO_B,
        &[Flags(A, destination::CLOSED)],
        ACK,
        Reset,
        &[],
    ),
    (
        "changed: a new connection does not care for that",
        FROM_A_TO_B,
        &[Flags(A, destination::CLOSED)],
        SYN,
        To(B),
        &[(0, B, State::SynReceived)],
    ),
    (
        "marked: what is not known is the owner's",
        MARKED_B,
        &[],
        ACK,
        To(B),
        &[(0, B, State::SynReceived)],
    ),
    (
        "marked: what is known stays where it is",
        FROM_A_TO_B,
        &[Segment(ACK), Slots(MARKED_B)],
        ACK,
        To(A),
        &[(0, A, State::Established)],
    ),
    (
        "nobody has it: a new connection is told so",
        FROM_A_TO_NOBODY,
        &[],
        SYN,
        Nobody,
        &[],
    ),
    (
        "nobody has it: what is not known is the old owner's",
        FROM_A_TO_NOBODY,
        &[],
        ACK,
        To(A),
        &[(0, A, State::SynReceived)],
    ),
    (
        "it was nobody's: a new connection is tracked",
        FROM_NOBODY_TO_B,
        &[],
        SYN,
        To(B),
        &[(0, B, State::SynReceived)],
    ),
    (
        "it was nobody's: what is not known is the owner's",
        FROM_NOBODY_TO_B,
        &[],
        ACK,
        To(B),
        &[(0, B, State::SynReceived)],
    ),
    (
        "nobody had it for long: what is known goes on",
        FROM_A_TO_NOBODY,
        &[Segment(ACK), Slots(0)],
        ACK,
        To(A),
        &[(0, A, State::Established)],
    ),
];

pub(crate) fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for family in BOTH {
        for ranged in [false, true] {
            rows.extend(TCP.iter().map(|row| segments(family, ranged, row)));
        }
        drops(&mut rows, family);
        datagrams(&mut rows, family);
        for kind in KINDS {
            errors(&mut rows, family, kind);
            fragments(&mut rows, family, kind);
            sources(&mut rows, family, kind);
        }
    }
    rows
}

fn segments(family: Family, ranged: bool, row: &Row) -> Case {
    let (what, word, before, flags, then, connections) = row;
    let mut fixture = site(family, Kind::Tcp, *word);
    if ranged {
        let last_port = RANGE_END.to_be_bytes();
        fixture.settings.flags |= xdp_ebpf::layout::settings::RANGES;
        fixture
            .endpoints
            .values_mut()
            .for_each(|it| it.last_port = last_port);
    }
    let input = segment(family, *flags);
    let how = if ranged { "of a range" } else { "of a port" };
    let mut case = Case::new(
        format!("on-change {family:?} {how}: {what}"),
        fixture.clone(),
        input.bytes(),
    );
    for step in *before {
        case = match step {
            Segment(flags) => case.after(&segment(family, *flags)),
            Cpu(cpu) => case.after_step(Step::Cpu(*cpu)),
            Slots(word) => {
                fixture.schedule(1, &[*word; 7]);
                case.after_step(Step::Change(Box::new(fixture.clone())))
            }
            Flags(id, flags) => {
                if let Some(record) = fixture.destinations.get_mut(id) {
                    record.flags |= flags;
                }
                case.after_step(Step::Change(Box::new(fixture.clone())))
            }
        };
    }
    let case = match then {
        To(id) => case.transmits(&at(&input, *id), Place::In(*id)),
        Reset => {
            let reply = crate::services::reset_of(&input);
            case.answers(&reply, Reason::Closed)
        }
        Nobody => {
            let from = family.virtual_address();
            let reply = answer(&input, family, from, Error::PortUnreachable);
            case.answers(&reply, Reason::NoRealServer)
        }
    };
    case.leaves(connections)
}

/// Where the connections of servers that are gone are dropped, and where an entry that must be made cannot be.
fn drops(rows: &mut Vec<Case>, family: Family) {
    let input = segment(family, ACK);
    let fixture = site(family, Kind::Tcp, FROM_A_TO_B).with(|fixture| {
        fixture.change_service(1, |record| record.removed = removed::DROP);
        if let Some(record) = fixture.destinations.get_mut(&A) {
            record.flags |= destination::GONE;
        }
    });
    rows.push(
        Case::new(
            format!(
                "on-change {family:?}: what the old owner had is dropped with it, if so configured"
            ),
            fixture,
            input.bytes(),
        )
        .drops(Reason::DestinationGone)
        .leaves(&[]),
    );
    for (flags, then) in [(SYN, None), (ACK, Some(A))] {
        let input = segment(family, flags);
        let fixture = site(family, Kind::Tcp, FROM_A_TO_B)
            .with(|fixture| fixture.settings.flags |= xdp_ebpf::layout::settings::MOVING);
        let case = Case::new(
            format!("on-change {family:?}: flags {flags:#x} where nothing can be entered"),
            fixture,
            input.bytes(),
        );
        rows.push(match then {
            Some(id) => case.transmits(&at(&input, id), Place::In(id)),
            // Its next segment would go to the old owner.
            None => case.drops(Reason::Moving),
        });
    }
}

/// A datagram never says that it begins something.
fn datagrams(rows: &mut Vec<Case>, family: Family) {
    let input = from_client(&Kind::Udp.request(family, port::DR));
    // (what, slots, whether A is in service, A's flags, where it goes, whether it is entered)
    let cases: [(&str, u32, bool, u8, u32, bool); 6] = [
        ("settled: to the owner", SETTLED, true, 0, A, false),
        (
            "it was nobody's: to the owner",
            FROM_NOBODY_TO_B,
            true,
            0,
            B,
            true,
        ),
        (
            "changed: to the old owner, which may know it",
            FROM_A_TO_B,
            true,
            0,
            A,
            true,
        ),
        (
            "changed: not to one that is out of service",
            FROM_A_TO_B,
            false,
            0,
            B,
            true,
        ),
        (
            "changed: nor to one that is gone",
            FROM_A_TO_B,
            true,
            destination::GONE,
            B,
            true,
        ),
        ("marked: to the owner", MARKED_B, true, 0, B, true),
    ];
    for (what, word, serves, flags, to, is_entered) in cases {
        let fixture = site(family, Kind::Udp, word).with(|fixture| {
            fixture.weigh(A, u32::from(serves));
            if let Some(record) = fixture.destinations.get_mut(&A) {
                record.flags |= flags;
            }
        });
        let entered = [(0, to, State::UdpOne)];
        rows.push(
            Case::new(
                format!("on-change {family:?} datagram, {what}"),
                fixture,
                input.bytes(),
            )
            .transmits(&at(&input, to), Place::In(to))
            .leaves(if is_entered { &entered } else { &[] }),
        );
    }
}

/// Messages about what the client's side saw coming from the virtual address.
fn errors(rows: &mut Vec<Case>, family: Family, kind: Kind) {
    let about = kind.data(virtual_end(family, port::DR), client(family), &[5; 64]);
    let ((number, code), rest) = Error::TooBig(1400).numbers(family);
    let message = from_client(&Ip::icmp(
        family.other_client(99),
        family.virtual_address(),
        (number, code),
        rest,
        &about.bytes(),
    ));
    let request = from_client(&kind.request(family, port::DR));
    // (what, slots, whether A is in service, a packet before, to whom)
    let cases = [
        ("settled: to the owner", SETTLED, true, false, Some(A)),
        (
            "changed: not known, to the old owner",
            FROM_A_TO_B,
            true,
            false,
            Some(A),
        ),
        (
            "changed: known, to where it is",
            FROM_A_TO_B,
            false,
            true,
            Some(B),
        ),
        ("nobody has it: to the kernel", 0, true, false, None),
    ];
    for (what, word, serves, known, to) in cases {
        let fixture = site(family, kind, word).with(|fixture| fixture.weigh(A, u32::from(serves)));
        let mut case = Case::new(
            format!("on-change {family:?} {kind:?}, ICMP error, {what}"),
            fixture,
            message.bytes(),
        );
        if known {
            case = case.after(&request);
        }
        rows.push(match to {
            Some(id) => case.transmits(&at(&message, id), Place::In(id)),
            None => case,
        });
    }
}

fn fragments(rows: &mut Vec<Case>, family: Family, kind: Kind) {
    let whole = kind.data(client(family), virtual_end(family, port::DR), &[7; 1999]);
    let parts = whole.fragments(800);
    for (word, connections) in [
        (SETTLED, &[][..]),
        (FROM_A_TO_B, &[(0, A, State::SynReceived)][..]),
    ] {
        for (index, part) in parts.iter().enumerate() {
            let input = from_client(part);
            let case = Case::new(
                format!(
                    "on-change {family:?} {kind:?}, slots {word:#x}: fragment {index} goes to A"
                ),
                site(family, kind, word),
                input.bytes(),
            );
            let case = parts[..index]
                .iter()
                .fold(case, |case, before| case.after(&from_client(before)))
                .transmits(&at(&input, A), Place::In(A));
            rows.push(match kind {
                Kind::Tcp => case.leaves(connections),
                Kind::Udp => case,
            });
        }
    }
}

/// Sources that no client can have. Two real servers that answer whatever they get, each under a virtual address, would answer
/// each other for ever; answers to segments that are out of place are resets, which end it.
fn sources(rows: &mut Vec<Case>, family: Family, kind: Kind) {
    let (nobody, group, loopback): (IpAddr, IpAddr, IpAddr) = match family {
        Family::V4 => (
            [0, 1, 2, 3].into(),
            [224, 0, 0, 1].into(),
            [127, 0, 0, 1].into(),
        ),
        Family::V6 => (
            [0_u16; 8].into(),
            [0xff02, 0, 0, 0, 0, 0, 0, 1_u16].into(),
            [0, 0, 0, 0, 0, 0, 0, 1_u16].into(),
        ),
    };
    let is_udp = kind == Kind::Udp;
    // (the source, what it is, whether its packets are the kernel's in a settled slot; in a marked one all are)
    let cases = [
        (nobody, "nobody", true),
        (group, "a group", true),
        (loopback, "the loopback address", true),
        (family.virtual_address(), "a virtual address", is_udp),
    ];
    for (source, what, is_the_kernels) in cases {
        let data = |bytes: &[u8]| kind.data((source, 9), virtual_end(family, port::DR), bytes);
        let first = data(&[7; 1999]).fragments(800).swap_remove(0);
        for (how, packet) in [("whole", data(&[7; 99])), ("the first part", first)] {
            let input = from_client(&packet);
            for (word, passes) in [(SETTLED, is_the_kernels), (FROM_A_TO_B, true)] {
                let case = Case::new(
                    format!("on-change {family:?} {kind:?}, slots {word:#x}: {how}, of {what}"),
                    site(family, kind, word),
                    input.bytes(),
                );
                rows.push(if passes {
                    case.leaves(&[])
                } else {
                    case.transmits(&at(&input, A), Place::In(A)).leaves(&[])
                });
            }
        }
    }
}
