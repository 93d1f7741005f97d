//! Direct routing: nothing but the MAC addresses changes.

use director_tests::packet::build::protocol;
use director_tests::packet::fixture::{BOTH, Family, NARROW, NARROW6, port, site};
use director_tests::packet::{Case, Place};
use xdp_ebpf::layout::Reason;

use crate::common::{
    Error, KINDS, Kind, answer, client, from_client, from_server, to_server, virtual_end,
};

pub(crate) fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for family in BOTH {
        for kind in KINDS {
            let name = format!("DR {family:?} {kind:?}");
            let id = site().id(family, port::DR, kind.number(), 0);
            let request = kind.request(family, port::DR);
            rows.push(
                Case::new(
                    format!("{name}: the first packet goes to the real server untouched"),
                    site(),
                    from_client(&request).bytes(),
                )
                .transmits(&to_server(&request), Place::In(id)),
            );
            let data = kind.data(client(family), virtual_end(family, port::DR), &[3; 333]);
            rows.push(
                Case::new(
                    format!("{name}: a later packet follows the first"),
                    site(),
                    from_client(&data).bytes(),
                )
                .after(&from_client(&request))
                .transmits(&to_server(&data), Place::In(id)),
            );
            rows.push(
                Case::new(
                    format!("{name}: the last hop's TTL is not the director's business"),
                    site(),
                    from_client(&request.clone().ttl(1)).bytes(),
                )
                .transmits(&to_server(&request.clone().ttl(1)), Place::In(id)),
            );
            // The real server's replies carry the virtual address and go to the client directly; one that comes by
            // here anyway is the kernel's.
            let reply = kind.data(virtual_end(family, port::DR), client(family), b"an answer");
            rows.push(
                Case::new(
                    format!("{name}: a reply that comes by here is left alone"),
                    site(),
                    from_server(&reply).bytes(),
                )
                .after(&from_client(&request)),
            );
        }
        single(&mut rows, family);
    }
    rows
}

fn single(rows: &mut Vec<Case>, family: Family) {
    let tcp = |port: u16| Kind::Tcp.request(family, port);
    let id = |port: u16| site().id(family, port, protocol::TCP, 0);
    rows.push(
        Case::new(
            format!("DR {family:?}: a next hop that is not resolved loses the packet, for the kernel would reset the connection"),
            site(),
            from_client(&tcp(port::DR_UNRESOLVED)).bytes(),
        )
        .drops(Reason::NextHopUnresolved),
    );
    rows.push(
        Case::new(
            format!("DR {family:?}: a real server behind another interface"),
            site(),
            from_client(&tcp(port::DR_OTHER)).bytes(),
        )
        .redirects(
            &to_server(&tcp(port::DR_OTHER)),
            Place::In(id(port::DR_OTHER)),
        ),
    );
    let mtu = match family {
        Family::V4 => NARROW,
        Family::V6 => NARROW6,
    };
    let room = usize::from(mtu) - family.header_len() - 20;
    let to = virtual_end(family, port::DR_NARROW);
    let fits = Kind::Tcp.data(client(family), to, &vec![1; room]).df();
    rows.push(
        Case::new(
            format!("DR {family:?}: a packet as large as the way takes"),
            site(),
            from_client(&fits).bytes(),
        )
        .after(&from_client(&tcp(port::DR_NARROW)))
        .transmits(&to_server(&fits), Place::In(id(port::DR_NARROW))),
    );
    let big = Kind::Tcp.data(client(family), to, &vec![1; room + 1]).df();
    let frame = from_client(&big);
    rows.push(
        Case::new(
            format!("DR {family:?}: the client hears of a packet that is one byte too big"),
            site(),
            frame.bytes(),
        )
        .after(&from_client(&tcp(port::DR_NARROW)))
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
        rows.push(
            Case::new(
                "DR V4: a packet that is too big and may be fragmented is lost, for the kernel would take it for its own",
                site(),
                from_client(&big.with(|ip| ip.dont_fragment = false)).bytes(),
            )
            .after(&from_client(&tcp(port::DR_NARROW)))
            .drops(Reason::TooBig),
        );
    }
}
