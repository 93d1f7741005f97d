//! What the measured director balances: one service for each way, real servers of its own for each.

use xdp_ebpf::layout::{method, scheduler, service};
use xdp_ebpf::wire::protocol;

use crate::packet::build::{Frame, Ip, tcp};
use crate::packet::fixture::{
    CLIENT_PORT, DIRECTOR, Family, Fixture, ROUTER, Real, hop, server_mac,
};

/// Real servers of each service.
pub const SERVERS: u8 = 8;
/// Port of the real servers under NAT.
const REAL_PORT: u16 = 8080;
/// Bytes that each packet carries: no frame may be shorter than what is written anew.
const PAYLOAD: [u8; 40] = [0x5a; 40];

/// A service that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Family of clients and real servers.
    pub family: Family,
    /// Virtual port.
    pub port: u16,
    /// Protocol.
    pub protocol: u8,
    /// How packets reach the real servers.
    pub method: u8,
    /// Scheduler.
    pub scheduler: u8,
    /// Whether connections are tracked on change only.
    pub on_change: bool,
}

const fn way(family: Family, port: u16, protocol: u8, method: u8, scheduler: u8) -> Way {
    Way {
        family,
        port,
        protocol,
        method,
        scheduler,
        on_change: false,
    }
}

/// IPv4 TCP into IP in IP.
pub const TUN: Way = way(
    Family::V4,
    80,
    protocol::TCP,
    method::IPIP,
    scheduler::CURSOR,
);
/// IPv4 TCP under NAT.
pub const NAT: Way = way(
    Family::V4,
    81,
    protocol::TCP,
    method::NAT,
    scheduler::CURSOR,
);
/// IPv4 TCP, direct routing.
pub const DR: Way = way(Family::V4, 82, protocol::TCP, method::DR, scheduler::CURSOR);
/// IPv4 UDP into IP in IP.
pub const UDP: Way = way(
    Family::V4,
    53,
    protocol::UDP,
    method::IPIP,
    scheduler::CURSOR,
);
/// IPv6 TCP into IPv6 in IPv6.
pub const TUN6: Way = way(
    Family::V6,
    80,
    protocol::TCP,
    method::IPIP,
    scheduler::CURSOR,
);
/// IPv4 TCP into IP in IP, real servers chosen by the Maglev table.
pub const MH: Way = way(
    Family::V4,
    83,
    protocol::TCP,
    method::IPIP,
    scheduler::MAGLEV,
);
/// The same by the table alone: connections are tracked on change, and nothing changes.
pub const ON_CHANGE: Way = Way {
    on_change: true,
    ..way(
        Family::V4,
        84,
        protocol::TCP,
        method::IPIP,
        scheduler::MAGLEV,
    )
};

/// All of them.
pub const ALL: [Way; 7] = [TUN, NAT, DR, UDP, TUN6, MH, ON_CHANGE];

/// The director's tables, with so many buckets for each of so many CPUs.
#[must_use]
pub fn fixture(cpus: u32, buckets: u32) -> Fixture {
    let mut fixture = Fixture::empty();
    fixture.settings.cpus = cpus;
    fixture.settings.buckets4 = buckets;
    fixture.settings.buckets6 = buckets;
    for (nth, way) in (0..).zip(ALL) {
        let reals: Vec<Real> = (0..SERVERS)
            .map(|server| nth * SERVERS + server + 1)
            .map(|number| Real {
                method: way.method,
                address: way.family.server(number),
                port: if way.method == method::NAT {
                    REAL_PORT
                } else {
                    0
                },
                next_hop: hop(server_mac(number)),
            })
            .collect();
        let (address, port) = (way.family.virtual_address(), way.port);
        let id = fixture.add(address, port, way.protocol, way.scheduler, &reals);
        if way.scheduler == scheduler::MAGLEV {
            // As long as a director's, its entries in some order: what they are does not matter to the cost.
            let destinations = fixture.destinations_of(id);
            let slots = if way.on_change {
                ON_CHANGE_SLOTS
            } else {
                MAGLEV_SLOTS
            };
            let table: Vec<u32> = (0..slots)
                .map(|slot: usize| {
                    destinations[slot.wrapping_mul(2_654_435_761) % destinations.len()]
                })
                .collect();
            fixture.schedule(id, &table);
        }
        if way.on_change {
            fixture.change_service(id, |record| {
                record.flags = service::ON_CHANGE | service::PORT;
            });
        }
    }
    fixture
}

/// Slots of a Maglev table.
const MAGLEV_SLOTS: usize = 65_537;
/// Slots where connections are tracked on change.
const ON_CHANGE_SLOTS: usize = director::scheduler::ON_CHANGE_SLOTS;

impl Way {
    fn packet(self, flags: u8) -> Vec<u8> {
        let from = (self.family.client(), CLIENT_PORT);
        let to = (self.family.virtual_address(), self.port);
        let ip = if self.protocol == protocol::TCP {
            Ip::tcp(from, to, flags, &PAYLOAD)
        } else {
            Ip::udp(from, to, &PAYLOAD)
        };
        Frame::new(ROUTER, DIRECTOR, ip).bytes()
    }

    /// The first packet of a connection.
    #[must_use]
    pub fn first(self) -> Vec<u8> {
        self.packet(tcp::SYN)
    }

    /// A later packet of a connection.
    #[must_use]
    pub fn later(self) -> Vec<u8> {
        self.packet(tcp::ACK)
    }

    /// An answer of the real server whose connection it is: the first one of the service.
    #[must_use]
    pub fn reply(self) -> Vec<u8> {
        let nth = ALL.iter().position(|way| *way == self).unwrap_or_default() as u8;
        let number = nth * SERVERS + 1;
        let from = (self.family.server(number), REAL_PORT);
        let to = (self.family.client(), CLIENT_PORT);
        Frame::new(
            server_mac(number),
            DIRECTOR,
            Ip::tcp(from, to, tcp::ACK, &PAYLOAD),
        )
        .bytes()
    }
}

/// A packet that is nobody's here.
#[must_use]
pub fn stranger() -> Vec<u8> {
    let from = (Family::V4.client(), CLIENT_PORT);
    let ip = Ip::tcp(from, (Family::V4.stranger(), 80), tcp::ACK, &PAYLOAD);
    Frame::new(ROUTER, DIRECTOR, ip).bytes()
}
