//! What the model's connections are called. A server's address says which connection it belongs to and which of its openings, so
//! that the judge sees what is bound to what.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use xdp_ebpf::state::State;

use crate::entry::{Entry, Record, Template};

/// A place in the tables: a client's port, or a client with a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(pub(super) u16);

/// From this one on they are templates.
pub(super) const TEMPLATES_FROM: u16 = 10_000;
/// Services; each slot belongs to one.
pub(super) const SERVICES: u16 = 4;

/// What a connection is at a time: later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Version {
    /// How often it was opened.
    pub(super) opening: u16,
    /// 1 established, 2 closing, 3 closed. UDP: 0 one datagram, of which peers are not told; 1 more of them.
    pub(super) stage: u8,
}

/// Of what peers are not told.
pub(super) const ONE_DATAGRAM: u8 = 0;

impl Slot {
    pub(super) fn is_template(self) -> bool {
        self.0 >= TEMPLATES_FROM
    }

    pub(super) fn service(self) -> u16 {
        self.0 % SERVICES
    }

    /// The group of virtual addresses that it moves with.
    pub(super) fn group(self) -> usize {
        usize::from(self.0 / SERVICES % 2)
    }

    pub(super) fn is_udp(self) -> bool {
        !self.is_template() && self.0 % 5 == 3
    }

    fn is_ipv6(self) -> bool {
        self.0 % 3 == 2
    }

    fn client(self) -> IpAddr {
        let [high, low] = self.0.to_be_bytes();
        if self.is_ipv6() {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, self.0).into()
        } else {
            Ipv4Addr::new(10, 0, high, low).into()
        }
    }

    fn virtual_service(self) -> SocketAddr {
        let address: IpAddr = if self.is_ipv6() {
            Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1).into()
        } else {
            Ipv4Addr::new(192, 0, 2, 1).into()
        };
        (address, 80 + self.service()).into()
    }

    pub(super) fn record(self, version: Version, idle_s: u32) -> Record {
        let [high, low] = version.opening.to_be_bytes();
        // Families of client and server differ for some.
        let server: IpAddr = if version.opening.is_multiple_of(2) {
            Ipv4Addr::new(10, 1, high, low).into()
        } else {
            Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, version.opening).into()
        };
        let server = (server, self.0).into();
        if self.is_template() {
            return Record::Template(Template {
                protocol: 6,
                virtual_service: self.virtual_service(),
                per_port: self.0.is_multiple_of(2),
                client: self.client(),
                server,
                idle_s,
            });
        }
        Record::Entry(Entry {
            protocol: if self.is_udp() { 17 } else { 6 },
            client: (self.client(), 1024 + self.0).into(),
            virtual_service: self.virtual_service(),
            server,
            state: match (self.is_udp(), version.stage) {
                (true, ONE_DATAGRAM) => State::UdpOne,
                (true, _) => State::Udp,
                (false, 1) => State::Established,
                (false, 2) => State::FinWait,
                (false, _) => State::TimeWait,
            },
            idle_s: u16::try_from(idle_s).unwrap_or(u16::MAX),
        })
    }

    /// What a record is about, and its idle seconds.
    ///
    /// # Errors
    /// It mixes up two connections.
    pub(super) fn of(record: &Record) -> Result<(Self, Version, u32), String> {
        let (server, stage, idle_s) = match record {
            Record::Entry(entry) => {
                let stage = match entry.state {
                    State::UdpOne => ONE_DATAGRAM,
                    State::Established | State::Udp => 1,
                    State::FinWait => 2,
                    _ => 3,
                };
                (entry.server, stage, u32::from(entry.idle_s))
            }
            Record::Template(template) => (template.server, 1, template.idle_s),
        };
        let opening = match server.ip() {
            IpAddr::V4(address) => u16::from_be_bytes([address.octets()[2], address.octets()[3]]),
            IpAddr::V6(address) => address.segments()[7],
        };
        let (slot, version) = (Self(server.port()), Version { opening, stage });
        if slot.record(version, idle_s) == *record {
            Ok((slot, version, idle_s))
        } else {
            Err(format!("a record that mixes up connections: {record:?}"))
        }
    }
}
