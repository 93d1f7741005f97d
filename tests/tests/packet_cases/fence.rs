//! A node whose lease has run out hears nothing that is for the addresses that move.

use std::collections::BTreeSet;
use std::net::IpAddr;

use director_tests::packet::build::{Frame, Ip, protocol};
use director_tests::packet::fixture::{BOTH, DIRECTOR, Family, Fixture, ROUTER, port, site};
use director_tests::packet::{Case, Place, Step};
use xdp_ebpf::layout::Reason;

use crate::common::{
    Kind, client, from_client, from_server, real_end, to_client, to_server, virtual_end,
};

/// A tick that is past on every machine.
const PAST: u64 = 1;
/// One that does not come for a thousand years.
const FUTURE: u64 = 1 << 55;

fn leased(address: IpAddr, until: u64) -> Fixture {
    Fixture {
        lease_until: until,
        leased: BTreeSet::from([address]),
        ..site()
    }
}

pub(crate) fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for family in BOTH {
        for (until, when) in [
            (0, "without a lease"),
            (FUTURE, "with a lease"),
            (PAST, "after its lease"),
        ] {
            of_virtual_address(&mut rows, family, until, when);
            of_other_addresses(&mut rows, family, until, when);
        }
        connections_go_on(&mut rows, family);
    }
    rows
}

/// The first real server of a TCP service.
fn real(family: Family, service: u16) -> u32 {
    site().id(family, service, protocol::TCP, 0)
}

/// Whatever is sent to a leased address, service or none, and who asks for its MAC.
fn of_virtual_address(rows: &mut Vec<Case>, family: Family, until: u64, when: &str) {
    let address = family.virtual_address();
    let fixture = leased(address, until);
    let request = Kind::Tcp.request(family, port::DR);
    let served = Case::new(
        format!("{family:?} {when}: a request"),
        fixture.clone(),
        from_client(&request).bytes(),
    );
    rows.push(if until == PAST {
        served.drops(Reason::Fenced).leaves(&[])
    } else {
        served.transmits(&to_server(&request), Place::In(real(family, port::DR)))
    });

    let mut others = vec![(
        "another port of the address",
        from_client(&Ip::tcp(client(family), virtual_end(family, 9), 2, b"")).bytes(),
    )];
    let ping = Ip::icmp(family.client(), address, echo(family), 7, b"hello");
    others.push(("a ping", from_client(&ping).bytes()));
    others.push((
        "a later fragment",
        from_client(&Kind::Udp.request(family, port::DR).fragments(8)[1]).bytes(),
    ));
    others.push((
        "who asks for its MAC address",
        question(family, address, &[]),
    ));
    others.push((
        "who asks for its MAC address in a VLAN",
        question(family, address, &[(0x8100, 7)]),
    ));
    for (what, frame) in others {
        let case = Case::new(format!("{family:?} {when}: {what}"), fixture.clone(), frame);
        match (until, what) {
            (PAST, _) => rows.push(case.drops(Reason::Fenced).leaves(&[])),
            // Not what this is about.
            (_, "a later fragment") => {}
            _ => rows.push(case),
        }
    }
}

/// Addresses that do not move are heard as ever.
fn of_other_addresses(rows: &mut Vec<Case>, family: Family, until: u64, when: &str) {
    let fixture = leased(family.neighbour(), until);
    let request = Kind::Tcp.request(family, port::DR);
    rows.push(
        Case::new(
            format!("{family:?} {when} of another address: a request"),
            fixture.clone(),
            from_client(&request).bytes(),
        )
        .transmits(&to_server(&request), Place::In(real(family, port::DR))),
    );
    for (what, frame) in [
        (
            "who asks for the MAC address of one that does not move",
            question(family, family.virtual_address(), &[]),
        ),
        (
            "who answers for the one that does",
            answer(family, family.neighbour()),
        ),
    ] {
        rows.push(Case::new(
            format!("{family:?} {when} of another address: {what}"),
            fixture.clone(),
            frame,
        ));
    }
}

/// A real server's answers still reach the client.
fn connections_go_on(rows: &mut Vec<Case>, family: Family) {
    let request = Kind::Tcp.request(family, port::NAT);
    let data = |from, to| Kind::Tcp.data(from, to, b"an answer");
    let fixture = leased(family.virtual_address(), PAST);
    rows.push(
        Case::new(
            format!("{family:?} after its lease: an answer of a connection that stood"),
            site(),
            from_server(&data(real_end(family), client(family))).bytes(),
        )
        .after(&from_client(&request))
        .after_step(Step::Change(Box::new(fixture)))
        .transmits(
            &to_client(&data(virtual_end(family, port::NAT), client(family)).hop()),
            Place::Out(real(family, port::NAT)),
        ),
    );
}

/// Type and code of an echo request.
fn echo(family: Family) -> (u8, u8) {
    match family {
        Family::V4 => (8, 0),
        Family::V6 => (128, 0),
    }
}

/// Who has this address? To all, or to those whose address ends like it.
fn question(family: Family, address: IpAddr, tags: &[(u16, u16)]) -> Vec<u8> {
    match address {
        IpAddr::V4(target) => arp([0xff; 6], 1, family.client(), target.octets(), tags),
        IpAddr::V6(target) => {
            let [.., a, b, c] = target.octets();
            let group = IpAddr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
            let body = [target.octets().as_slice(), &[1, 1], &ROUTER].concat();
            let ip = Ip::icmp(family.client(), group, (135, 0), 0, &body).ttl(255);
            let frame = Frame::new(ROUTER, [0x33, 0x33, 0xff, a, b, c], ip);
            Frame {
                tags: tags.to_vec(),
                ..frame
            }
            .bytes()
        }
    }
}

/// I have this address.
fn answer(family: Family, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(target) => arp(DIRECTOR, 2, address, target.octets(), &[]),
        IpAddr::V6(target) => {
            let body = [target.octets().as_slice(), &[2, 1], &ROUTER].concat();
            let ip = Ip::icmp(address, family.own(), (136, 0), 0x6000_0000, &body).ttl(255);
            Frame::new(ROUTER, DIRECTOR, ip).bytes()
        }
    }
}

fn arp(
    destination: [u8; 6],
    operation: u16,
    sender: IpAddr,
    target: [u8; 4],
    tags: &[(u16, u16)],
) -> Vec<u8> {
    let IpAddr::V4(sender) = sender else {
        unreachable!("ARP is IPv4's");
    };
    let mut frame = [destination, ROUTER].concat();
    for (kind, tci) in tags {
        frame.extend(kind.to_be_bytes());
        frame.extend(tci.to_be_bytes());
    }
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(ROUTER);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target);
    frame.extend([0; 18]);
    frame
}
