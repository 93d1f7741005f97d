//! VLAN tags: those a frame comes with are taken off, those that the next hop wants are put on.

use director_tests::packet::build::{Frame, Ip, protocol};
use director_tests::packet::fixture::{BOTH, Family, port, site};
use director_tests::packet::{Case, Place};
use xdp_ebpf::layout::{Reason, method};

use crate::common::{
    Error, Kind, answer, from_client, from_server, real_end, to_client, to_server, virtual_end,
    wrapped,
};

/// A frame with so many tags. Going out they are the ones of the fixture's next hops.
fn tagged(frame: Frame, tags: usize, out: bool) -> Frame {
    match (tags, out) {
        (0, _) => frame,
        (1, true) => frame.tagged(100),
        (1, false) => frame.tagged(0x6007),
        (_, true) => frame.double_tagged(200, 100),
        (_, false) => frame.double_tagged(8, 9),
    }
}

pub(crate) fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for family in BOTH {
        let real = real_end(family);
        let nat = |ip: &Ip, _: u16| ip.clone().to(real.0, real.1).hop();
        let dr = |ip: &Ip, _: u16| ip.clone();
        let ipip = |ip: &Ip, port: u16| wrapped(ip, port, method::IPIP, Family::V4);
        type Change<'a> = &'a dyn Fn(&Ip, u16) -> Ip;
        let methods: [(&str, [u16; 3], Change<'_>); 3] = [
            ("NAT", [port::NAT, port::NAT_TAG, port::NAT_TAGS], &nat),
            ("DR", [port::DR, port::DR_TAG, port::DR_TAGS], &dr),
            (
                "IPIP",
                [port::IPIP4, port::IPIP_TAG, port::IPIP_TAGS],
                &ipip,
            ),
        ];
        for (name, ports, change) in methods {
            for tags_in in 0..3 {
                for (tags_out, port) in ports.into_iter().enumerate() {
                    let request = Kind::Tcp.request(family, port);
                    let id = site().id(family, port, protocol::TCP, 0);
                    rows.push(
                        Case::new(
                            format!("{name} {family:?}: {tags_in} tags in, {tags_out} out"),
                            site(),
                            tagged(from_client(&request), tags_in, false).bytes(),
                        )
                        .transmits(
                            &tagged(to_server(&change(&request, port)), tags_out, true),
                            Place::In(id),
                        ),
                    );
                }
            }
        }
        for tags in 1..3 {
            others(&mut rows, family, tags);
        }
        let request = Kind::Tcp.request(family, port::NAT);
        let mut three = tagged(from_client(&request), 2, false);
        three.tags.push((0x8100, 10));
        rows.push(Case::new(
            format!("{family:?}: three tags are more than are looked through"),
            site(),
            three.bytes(),
        ));
    }
    rows
}

fn others(rows: &mut Vec<Case>, family: Family, tags: usize) {
    let real = real_end(family);
    let request = Kind::Tcp.request(family, port::NAT);
    let expired = tagged(from_client(&request.clone().ttl(1)), tags, false);
    rows.push(
        Case::new(
            format!(
                "{family:?}: an answer goes back with the {tags} tags that the packet came with"
            ),
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
    let id = site().id(family, port::NAT, protocol::TCP, 0);
    let client = (
        family.client(),
        director_tests::packet::fixture::CLIENT_PORT,
    );
    let reply = Kind::Tcp.data(real, client, b"an answer");
    let service = virtual_end(family, port::NAT);
    rows.push(
        Case::new(
            format!("NAT {family:?}: a reply with {tags} tags goes to a client without"),
            site(),
            tagged(from_server(&reply), tags, false).bytes(),
        )
        .after(&from_client(&request))
        .transmits(
            &to_client(&reply.clone().from(service.0, service.1).hop()),
            Place::Out(id),
        ),
    );
    let unresolved = Kind::Tcp.request(family, port::NAT_UNRESOLVED);
    rows.push(
        Case::new(
            format!("NAT {family:?}: what is left to the kernel keeps its {tags} tags"),
            site(),
            tagged(from_client(&unresolved), tags, false).bytes(),
        )
        .passes_as(
            &tagged(
                from_client(&unresolved.clone().to(real.0, real.1)),
                tags,
                false,
            ),
            Place::In(site().id(family, port::NAT_UNRESOLVED, protocol::TCP, 0)),
        ),
    );
}
