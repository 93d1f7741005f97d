//! IPv4 options and IPv6 extension headers.

use director_tests::packet::build::{Ip, ipv6};
use director_tests::packet::fixture::{BOTH, Family, port, site};
use director_tests::packet::{Case, Place};
use xdp_ebpf::layout::{Reason, limits, method};

use crate::common::{
    Error, KINDS, Kind, answer, client, from_client, from_server, real_end, to_client, to_server,
    virtual_end, wrapped,
};

/// Options of an extension header of 8 or, longer, `8 * units` bytes: all padding (RFC 8200 section 4.2).
fn padding(units: usize) -> Vec<u8> {
    let length = units * 8 - 2;
    let mut body = vec![1, (length - 2) as u8];
    body.resize(length, 0);
    body
}

fn extensions(kinds: &[(u8, usize)]) -> Vec<(u8, Vec<u8>)> {
    kinds
        .iter()
        .map(|(kind, units)| {
            let mut body = padding(*units);
            if *kind == ipv6::ROUTING {
                // No segments left: this is the destination.
                body[1] = 0;
            }
            (*kind, body)
        })
        .collect()
}

/// What headers a packet gets, and what that is called.
type Variant = (String, Box<dyn Fn(Ip) -> Ip>);

fn variants(family: Family) -> Vec<Variant> {
    let mut variants: Vec<Variant> = Vec::new();
    match family {
        Family::V4 => {
            for length in (4..=40).step_by(4) {
                variants.push((
                    format!("{length} bytes of options"),
                    Box::new(move |ip| ip.with(|ip| ip.options = vec![1; length])),
                ));
            }
        }
        Family::V6 => {
            let lists: [(&str, &[(u8, usize)]); 7] = [
                ("hop-by-hop options", &[(ipv6::HOP_BY_HOP, 1)]),
                ("a routing header", &[(ipv6::ROUTING, 3)]),
                ("destination options", &[(ipv6::DESTINATION_OPTIONS, 1)]),
                (
                    "three extension headers",
                    &[
                        (ipv6::HOP_BY_HOP, 1),
                        (ipv6::DESTINATION_OPTIONS, 2),
                        (ipv6::ROUTING, 3),
                    ],
                ),
                (
                    "a long extension header",
                    &[(ipv6::DESTINATION_OPTIONS, 32)],
                ),
                (
                    "as many extension headers as are looked through",
                    &[(ipv6::DESTINATION_OPTIONS, 1); limits::IPV6_EXTENSION_HEADERS],
                ),
                (
                    "extension headers of the longest sum",
                    &[
                        (ipv6::DESTINATION_OPTIONS, 31),
                        (ipv6::ROUTING, 31),
                        (ipv6::DESTINATION_OPTIONS, 31),
                        (ipv6::DESTINATION_OPTIONS, 30),
                    ],
                ),
            ];
            for (name, list) in lists {
                let list = extensions(list);
                variants.push((
                    name.to_owned(),
                    Box::new(move |ip| ip.with(|ip| ip.extensions.clone_from(&list))),
                ));
            }
            variants.push((
                "the header of an atomic fragment".to_owned(),
                Box::new(|ip| ip.with(|ip| ip.fragment = Some((0, false)))),
            ));
            variants.push((
                "options and the header of an atomic fragment".to_owned(),
                Box::new(|ip| {
                    ip.with(|ip| {
                        ip.extensions = extensions(&[(ipv6::HOP_BY_HOP, 1)]);
                        ip.fragment = Some((0, false));
                    })
                }),
            ));
        }
    }
    variants
}

pub(crate) fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for family in BOTH {
        for (what, change) in variants(family) {
            for kind in KINDS {
                with_headers(&mut rows, family, kind, &what, &*change);
            }
        }
    }
    let deep = limits::IPV6_EXTENSION_HEADERS + 1;
    for (name, list) in [
        (
            "one extension header more than is looked through",
            vec![(ipv6::DESTINATION_OPTIONS, 1); deep],
        ),
        (
            "extension headers longer than is looked through",
            vec![(ipv6::DESTINATION_OPTIONS, 31); 4],
        ),
    ] {
        let packet = Kind::Tcp
            .request(Family::V6, port::NAT)
            .with(|ip| ip.extensions = extensions(&list));
        rows.push(Case::new(
            format!("V6: {name} is left to the kernel"),
            site(),
            from_client(&packet).bytes(),
        ));
    }
    let fragment = |field: u8| vec![0, field, 0, 0, 0, 7];
    for (name, list, last) in [
        (
            "a routing header with segments left, whose destination is another,",
            vec![(ipv6::ROUTING, vec![0, 1, 0, 0, 0, 0])],
            None,
        ),
        (
            "a fragment inside an atomic one",
            vec![(ipv6::FRAGMENT, fragment(0))],
            Some((0, true)),
        ),
        (
            "an atomic fragment inside another",
            vec![(ipv6::FRAGMENT, fragment(1))],
            Some((0, false)),
        ),
    ] {
        let packet = Kind::Tcp.request(Family::V6, port::NAT).with(|ip| {
            ip.extensions = list;
            ip.fragment = last;
        });
        rows.push(
            Case::new(
                format!("V6: {name} is left to the kernel"),
                site(),
                from_client(&packet).bytes(),
            )
            .leaves(&[]),
        );
    }
    rows
}

fn with_headers(
    rows: &mut Vec<Case>,
    family: Family,
    kind: Kind,
    what: &str,
    change: &dyn Fn(Ip) -> Ip,
) {
    let real = real_end(family);
    let name = |method: &str| format!("{method} {family:?} {kind:?} with {what}");
    let request = change(kind.request(family, port::NAT));
    let id = |port: u16| Place::In(site().id(family, port, kind.number(), 0));
    rows.push(
        Case::new(name("NAT"), site(), from_client(&request).bytes()).transmits(
            &to_server(&request.clone().to(real.0, real.1).hop()),
            id(port::NAT),
        ),
    );
    let reply = change(kind.data(real, client(family), b"an answer"));
    let service = virtual_end(family, port::NAT);
    rows.push(
        Case::new(name("NAT reply"), site(), from_server(&reply).bytes())
            .after(&from_client(&request))
            .transmits(
                &to_client(&reply.clone().from(service.0, service.1).hop()),
                Place::Out(site().id(family, port::NAT, kind.number(), 0)),
            ),
    );
    let expired = from_client(&request.ttl(1));
    rows.push(
        Case::new(name("NAT, expired,"), site(), expired.bytes()).answers(
            &answer(
                &expired,
                family,
                family.virtual_address(),
                Error::TimeExceeded,
            ),
            Reason::TtlExpired,
        ),
    );
    let request = change(kind.request(family, port::DR));
    rows.push(
        Case::new(name("DR"), site(), from_client(&request).bytes())
            .transmits(&to_server(&request), id(port::DR)),
    );
    let request = change(kind.request(family, port::GRE6));
    let mut outer = wrapped(&request, port::GRE6, method::GRE, Family::V6);
    outer.id = 0;
    rows.push(
        Case::new(name("GRE over V6"), site(), from_client(&request).bytes())
            .transmits(&to_server(&outer), id(port::GRE6)),
    );
}
