//! More services, and more real servers under NAT, than there is room for in one line of what the packet path looks into first:
//! the others are found in the kernel's hash maps.

use std::net::IpAddr;

use director_tests::packet::Case;
use director_tests::packet::Place;
use director_tests::packet::build::Frame;
use director_tests::packet::fixture::{BOTH, DIRECTOR, Family, Real, hop, server_mac, site};
use xdp_ebpf::layout::{Endpoint4, Endpoint6, method, scheduler};
use xdp_ebpf::lines::{Line, ServerLine4, ServerLine6, ServiceLine4, ServiceLine6};

use crate::common::{Kind, from_client, from_server, to_client};

/// Twice as many as a line of IPv4 services has.
const NUMBER: usize = 6;

/// Which line of services, and which of real servers, an address and port are in.
fn lines(address: IpAddr, port: u16, protocol: u8) -> (u32, u32) {
    let port = port.to_be_bytes();
    match address {
        IpAddr::V4(address) => {
            let key = Endpoint4 {
                address: address.octets(),
                port,
                protocol,
                zero: 0,
            };
            (ServiceLine4::index(&key), ServerLine4::index(&key))
        }
        IpAddr::V6(address) => {
            let key = Endpoint6 {
                address: address.octets(),
                port,
                protocol,
                zero: 0,
            };
            (ServiceLine6::index(&key), ServerLine6::index(&key))
        }
    }
}

/// Addresses of a network and ports whose lines are all the same.
fn of_one_line(
    network: impl Fn(u8) -> IpAddr,
    line: impl Fn(IpAddr, u16) -> u32,
) -> Vec<(IpAddr, u16)> {
    let all = || (1..=254_u8).flat_map(|host| (1000..9000_u16).map(move |port| (host, port)));
    let ends = || all().map(|(host, port)| (network(host), port));
    let wanted = ends().next().map(|(address, port)| line(address, port));
    ends()
        .filter(|(address, port)| Some(line(*address, *port)) == wanted)
        .take(NUMBER)
        .collect()
}

fn virtual_addresses(family: Family) -> impl Fn(u8) -> IpAddr {
    move |host| match family {
        Family::V4 => IpAddr::from([192, 0, 2, host]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 7, u16::from(host)]),
    }
}

pub(crate) fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for family in BOTH {
        let kind = Kind::Tcp;
        let services = of_one_line(virtual_addresses(family), |address, port| {
            lines(address, port, kind.number()).0
        });
        let server = family.server(1);
        let reals = of_one_line(
            |_| server,
            |address, port| lines(address, port, kind.number()).1,
        );
        assert_eq!((services.len(), reals.len()), (NUMBER, NUMBER));
        let mut fixture = site();
        let ids: Vec<u32> = services
            .iter()
            .zip(&reals)
            .map(|((address, port), (_, real_port))| {
                let real = Real {
                    method: method::NAT,
                    address: server,
                    port: *real_port,
                    next_hop: hop(server_mac(1)),
                };
                let id = fixture.add(*address, *port, kind.number(), scheduler::CURSOR, &[real]);
                fixture.destinations_of(id)[0]
            })
            .collect();
        let client = (family.other_client(9), 700);
        for (number, virtual_end) in services.iter().enumerate() {
            let real_end = reals[number];
            let request = from_client(&kind.first(client, *virtual_end));
            let ip = request.ip.clone().to(real_end.0, real_end.1).hop();
            let name = format!("lines {family:?}: service {number} of one line");
            rows.push(
                Case::new(format!("{name} is found"), fixture.clone(), request.bytes()).transmits(
                    &Frame::new(DIRECTOR, server_mac(1), ip),
                    Place::In(ids[number]),
                ),
            );
            let reply = from_server(&kind.data(real_end, client, b"yes"));
            let ip = reply.ip.clone().from(virtual_end.0, virtual_end.1).hop();
            rows.push(
                Case::new(
                    format!("{name} and its real server, whose reply is found"),
                    fixture.clone(),
                    reply.bytes(),
                )
                .after(&request)
                .transmits(&to_client(&ip), Place::Out(ids[number])),
            );
        }
        // One more of the same line that nobody serves: the line cannot say so, but the hash map can.
        let mut without = site();
        for (address, port) in &services[1..] {
            let real = Real {
                method: method::NAT,
                address: server,
                port: 80,
                next_hop: hop(server_mac(1)),
            };
            without.add(*address, *port, kind.number(), scheduler::CURSOR, &[real]);
        }
        rows.push(Case::new(
            format!("lines {family:?}: nobody's, in a full line"),
            without,
            from_client(&kind.first(client, services[0])).bytes(),
        ));
    }
    rows
}
