//! Tunnels: all encapsulations, over both families, of both families.

use director_tests::packet::build::protocol;
use director_tests::packet::fixture::{BOTH, Family, NARROW, NARROW6, port, site};
use director_tests::packet::{Case, Place};
use xdp_ebpf::layout::{Reason, method};

use crate::common::{
    Error, KINDS, Kind, answer, client, from_client, to_server, virtual_end, wrapped,
};

/// Service port, method, family of the outer header, name.
pub(crate) const TUNNELS: [(u16, u8, Family, &str); 6] = [
    (port::IPIP4, method::IPIP, Family::V4, "IPIP over V4"),
    (port::IPIP6, method::IPIP, Family::V6, "IPIP over V6"),
    (port::GUE4, method::GUE, Family::V4, "GUE over V4"),
    (port::GUE6, method::GUE, Family::V6, "GUE over V6"),
    (port::GRE4, method::GRE, Family::V4, "GRE over V4"),
    (port::GRE6, method::GRE, Family::V6, "GRE over V6"),
];

pub(crate) fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for family in BOTH {
        for tunnel in TUNNELS {
            for kind in KINDS {
                forwards(&mut rows, family, kind, tunnel);
            }
        }
        ways(&mut rows, family);
        narrow(&mut rows, family);
    }
    rows
}

fn forwards(
    rows: &mut Vec<Case>,
    family: Family,
    kind: Kind,
    (port, method, outer, name): (u16, u8, Family, &str),
) {
    let name = format!("{name}, {family:?} {kind:?}");
    let id = site().id(family, port, kind.number(), 0);
    let request = kind.request(family, port);
    let mut row = |what: &str, packet: &director_tests::packet::build::Ip| {
        rows.push(
            Case::new(
                format!("{name}: {what}"),
                site(),
                from_client(packet).bytes(),
            )
            .after(&from_client(&request))
            .transmits(
                &to_server(&wrapped(packet, port, method, outer)),
                Place::In(id),
            ),
        );
    };
    row("a packet arrives whole in the tunnel", &request);
    let data = kind.data(client(family), virtual_end(family, port), &[9; 601]);
    row("an odd length", &data);
    row("a TTL of 1 is left alone inside", &request.clone().ttl(1));
    row(
        "type of service and 'do not fragment' are copied outside",
        &data.df().with(|ip| ip.tos = 0xba),
    );
}

fn ways(rows: &mut Vec<Case>, family: Family) {
    let id = |port: u16| site().id(family, port, protocol::TCP, 0);
    let ipip = |port: u16| {
        let request = Kind::Tcp.request(family, port);
        let outer = wrapped(&request, port, method::IPIP, Family::V4);
        (from_client(&request), outer)
    };
    let (input, outer) = ipip(port::IPIP_UNRESOLVED);
    rows.push(
        Case::new(
            format!("IPIP {family:?}: a next hop that is not resolved is left to the kernel, in the tunnel"),
            site(),
            input.bytes(),
        )
        .passes_as(&from_client(&outer), Place::In(id(port::IPIP_UNRESOLVED))),
    );
    let (input, outer) = ipip(port::IPIP_OTHER);
    rows.push(
        Case::new(
            format!("IPIP {family:?}: a real server behind another interface"),
            site(),
            input.bytes(),
        )
        .redirects(&to_server(&outer), Place::In(id(port::IPIP_OTHER))),
    );
    let (input, _) = ipip(port::IPIP4);
    rows.push(
        Case::new(
            format!("IPIP {family:?}: padding of a short frame stays behind the packet"),
            site(),
            input.clone().padded(5).bytes(),
        )
        .transmits(
            &to_server(&wrapped(&input.ip, port::IPIP4, method::IPIP, Family::V4)).padded(5),
            Place::In(id(port::IPIP4)),
        ),
    );
}

fn narrow(rows: &mut Vec<Case>, family: Family) {
    for (port, method, outer, overhead, name) in [
        (
            port::IPIP_NARROW,
            method::IPIP,
            Family::V4,
            20,
            "IPIP over V4",
        ),
        (
            port::GUE6_NARROW,
            method::GUE,
            Family::V6,
            52,
            "GUE over V6",
        ),
    ] {
        let id = site().id(family, port, protocol::TCP, 0);
        let mtu = match family {
            Family::V4 => NARROW,
            Family::V6 => NARROW6,
        };
        let inside = usize::from(mtu) - overhead;
        let room = inside - family.header_len() - 20;
        let to = virtual_end(family, port);
        let syn = Kind::Tcp.request(family, port);
        let fits = Kind::Tcp.data(client(family), to, &vec![1; room]).df();
        rows.push(
            Case::new(
                format!("{name} {family:?}: a packet as large as the tunnel takes"),
                site(),
                from_client(&fits).bytes(),
            )
            .after(&from_client(&syn))
            .transmits(
                &to_server(&wrapped(&fits, port, method, outer)),
                Place::In(id),
            ),
        );
        let big = Kind::Tcp.data(client(family), to, &vec![1; room + 1]).df();
        let frame = from_client(&big);
        // An IPv6 link has at least 1280 (RFC 8200 section 5): less is never told.
        let told = match family {
            Family::V4 => inside as u32,
            Family::V6 => (inside as u32).max(1280),
        };
        rows.push(
            Case::new(
                format!("{name} {family:?}: the client hears of a packet that is one byte too big for the tunnel"),
                site(),
                frame.bytes(),
            )
            .after(&from_client(&syn))
            .answers(
                &answer(&frame, family, family.virtual_address(), Error::TooBig(told)),
                Reason::TooBig,
            ),
        );
        if family == Family::V4 {
            let big = big.with(|ip| ip.dont_fragment = false);
            let case = Case::new(
                format!("{name} V4: a packet that is too big and may be fragmented"),
                site(),
                from_client(&big).bytes(),
            )
            .after(&from_client(&syn));
            rows.push(match outer {
                // The kernel fragments the outer packet.
                Family::V4 => case.passes_as(
                    &from_client(&wrapped(&big, port, method, outer)),
                    Place::In(id),
                ),
                // Nobody fragments an IPv6 packet on its way.
                Family::V6 => case.answers(
                    &answer(
                        &from_client(&big),
                        family,
                        family.virtual_address(),
                        Error::TooBig(told),
                    ),
                    Reason::TooBig,
                ),
            });
        }
    }
}
