//! What the tables hold, once for both machines: services, real servers, routes, next hops.

mod family;
mod site;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use xdp_ebpf::layout::{
    Destination, Endpoint, Neighbour4, Neighbour6, NextHop, Route, Service, Settings, destination,
    limits, own_mac, settings,
};

use super::build::Mac;
use super::verify::GUE_PORT;

pub use family::{BOTH, Family, table_address};
pub use site::{port, site};

/// The interface that frames come in by. The kernel's test run says 1, the loopback interface of every namespace.
pub const INGRESS: u32 = 1;
/// Another interface, for next hops that are reached by it.
pub const OTHER: u32 = 77;
/// The other interface's slot in the devmap. Slots not listed in [`Fixture::interfaces`] do not exist.
pub const OTHER_SLOT: u16 = 5;
/// MAC address of the director.
pub const DIRECTOR: Mac = [0x02, 0, 0, 0, 0, 0xfe];
/// MAC address of the router towards the clients.
pub const ROUTER: Mac = [0x02, 0, 0, 0, 0, 0xaa];
/// MAC address of a client on a connected network.
pub const NEIGHBOUR: Mac = [0x02, 0, 0, 0, 0, 0xbb];
/// MTU of every way but the narrow ones.
pub const MTU: u16 = 1500;
/// MTU of the narrow ways.
pub const NARROW: u16 = 600;
/// Narrow for IPv6, whose links have at least 1280.
pub const NARROW6: u16 = 1300;
/// Client port of most packets.
pub const CLIENT_PORT: u16 = 40_000;

/// MAC address of a real server.
#[must_use]
pub const fn server_mac(number: u8) -> Mac {
    [0x02, 0, 0, 0, 1, number]
}

/// A next hop by the interface that frames come in by.
#[must_use]
pub const fn hop(mac: Mac) -> NextHop {
    NextHop {
        ifindex: INGRESS,
        destination: mac,
        source: DIRECTOR,
        vlan: [0; 2],
        mtu: MTU,
        egress: 0,
    }
}

/// A next hop that is not resolved.
pub const UNRESOLVED: NextHop = NextHop {
    ifindex: 0,
    destination: [0; 6],
    source: [0; 6],
    vlan: [0; 2],
    mtu: 0,
    egress: 0,
};

/// A real server of a service that is being described.
#[derive(Clone, Copy, Debug)]
pub struct Real {
    /// How packets reach it.
    pub method: u8,
    /// Its address.
    pub address: IpAddr,
    /// Its port under NAT.
    pub port: u16,
    /// Where its packets go.
    pub next_hop: NextHop,
}

/// What a destination may take.
#[derive(Clone, Copy, Debug)]
pub struct Weight {
    /// Share of new connections.
    pub weight: u32,
    /// Upper threshold, 0: none.
    pub upper: u32,
    /// Lower threshold.
    pub lower: u32,
}

/// Everything the tables hold, but connections and counters.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// Settings.
    pub settings: Settings,
    /// Services by id.
    pub services: BTreeMap<u16, Service>,
    /// Endpoints by id. The first one of a service has its id.
    pub endpoints: BTreeMap<u16, Endpoint>,
    /// Weights and thresholds of destinations, by id; 1 and none where it is not here.
    pub weights: BTreeMap<u32, Weight>,
    /// Scheduling tables.
    pub slots: Vec<u32>,
    /// Destinations by id.
    pub destinations: BTreeMap<u32, Destination>,
    /// Routes: prefix length and address.
    pub routes4: Vec<(u8, [u8; 4], Route)>,
    /// Routes: prefix length and address.
    pub routes6: Vec<(u8, [u8; 16], Route)>,
    /// Gateways.
    pub next_hops: BTreeMap<u32, NextHop>,
    /// Hosts on connected networks.
    pub neighbours4: Vec<(Neighbour4, NextHop)>,
    /// Hosts on connected networks.
    pub neighbours6: Vec<(Neighbour6, NextHop)>,
    /// Slots of the devmap that exist.
    pub interfaces: Vec<u32>,
    /// Which MAC addresses are the director's, by their last byte.
    pub own_macs: BTreeMap<u32, u64>,
    /// The tick of the kernel after which this node's lease has run out; 0 without one.
    pub lease_until: u64,
    /// Addresses that move between directors.
    pub leased: BTreeSet<IpAddr>,
}

/// Those of a director with the one MAC address [`DIRECTOR`].
fn own_macs() -> BTreeMap<u32, u64> {
    let only = own_mac::only(DIRECTOR);
    let mut words: BTreeMap<u32, u64> = (0..own_mac::ENTRIES)
        .map(|last_byte| (last_byte, own_mac::NONE))
        .collect();
    words.insert(own_mac::index(only), only);
    words
}

impl Fixture {
    /// A director that is set up, without any service.
    #[must_use]
    pub fn empty() -> Self {
        let bytes4 = |address: IpAddr| -> [u8; 4] {
            let bytes = table_address(address);
            [bytes[0], bytes[1], bytes[2], bytes[3]]
        };
        let gateway = Route {
            next_hop: 1,
            ifindex: 0,
        };
        let connected = Route {
            next_hop: 0,
            ifindex: INGRESS,
        };
        let kernel = Route::default();
        let (v4, v6) = (Family::V4, Family::V6);
        Self {
            settings: Settings {
                now_s: 1000,
                cpus: 2,
                buckets4: limits::MIN_BUCKETS,
                buckets6: limits::MIN_BUCKETS,
                seed: 0x0123_4567_89ab_cdef,
                icmp_per_second: 1000,
                fragment_timeout_ms: 60_000,
                spread4_mask: 0x0000_0fff,
                flags: 0,
                own4: bytes4(v4.own()),
                advanced_at_s: 0,
                own6: table_address(v6.own()),
            },
            services: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            weights: BTreeMap::new(),
            slots: Vec::new(),
            destinations: BTreeMap::new(),
            routes4: vec![
                (0, [0; 4], gateway),
                (24, bytes4(v4.neighbour()), connected),
                (15, bytes4(v4.far_client()), kernel),
            ],
            routes6: vec![
                (0, [0; 16], gateway),
                (48, table_address(v6.neighbour()), connected),
                (48, table_address(v6.far_client()), kernel),
            ],
            next_hops: BTreeMap::from([(1, hop(ROUTER))]),
            neighbours4: vec![(
                Neighbour4 {
                    address: bytes4(v4.neighbour()),
                    ifindex: INGRESS,
                },
                hop(NEIGHBOUR),
            )],
            neighbours6: vec![(
                Neighbour6 {
                    address: table_address(v6.neighbour()),
                    ifindex: INGRESS,
                },
                hop(NEIGHBOUR),
            )],
            interfaces: vec![u32::from(OTHER_SLOT)],
            own_macs: own_macs(),
            lease_until: 0,
            leased: BTreeSet::new(),
        }
    }

    /// Changed by `change`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Adds a service whose scheduling table is its real servers in their order. Its id.
    pub fn add(
        &mut self,
        address: IpAddr,
        port: u16,
        protocol: u8,
        scheduler: u8,
        reals: &[Real],
    ) -> u16 {
        let id = (self.endpoints.len() + 1) as u16;
        self.services.insert(
            id,
            Service {
                scheduler,
                family: if address.is_ipv4() { 4 } else { 6 },
                persistence_mask: [0xff; 16],
                ..Service::default()
            },
        );
        self.add_endpoint(id, address, (port, port), protocol);
        let mut table = Vec::new();
        for real in reals {
            let number = self.destinations.len() as u32 + 1;
            let outer = if real.address.is_ipv6() {
                Family::V6
            } else {
                Family::V4
            };
            self.destinations.insert(
                number,
                Destination {
                    method: real.method,
                    flags: if real.address.is_ipv6() {
                        destination::IPV6
                    } else {
                        0
                    },
                    port: real.port.to_be_bytes(),
                    service: id,
                    tunnel_port: GUE_PORT.to_be_bytes(),
                    address: table_address(real.address),
                    outer_source: table_address(outer.outer_source()),
                    next_hop: real.next_hop,
                },
            );
            table.push(number);
        }
        self.schedule(id, &table);
        id
    }

    /// Gives a service another endpoint: the ports from the first to the last one. Its id.
    pub fn add_endpoint(
        &mut self,
        service: u16,
        address: IpAddr,
        (first, last): (u16, u16),
        protocol: u8,
    ) -> u16 {
        let id = (self.endpoints.len() + 1) as u16;
        let endpoint = Endpoint {
            address: table_address(address),
            port: first.to_be_bytes(),
            last_port: last.to_be_bytes(),
            service,
            protocol,
            family: if address.is_ipv4() { 4 } else { 6 },
        };
        if first != last {
            self.settings.flags |= settings::RANGES;
        }
        self.endpoints.insert(id, endpoint);
        id
    }

    /// Changes a service's record.
    pub fn change_service(&mut self, id: u16, change: impl FnOnce(&mut Service)) {
        change(self.services.entry(id).or_default());
    }

    /// Gives a destination a weight.
    pub fn weigh(&mut self, destination: u32, weight: u32) {
        self.limit(destination, weight, 0, 0);
    }

    /// Gives a destination a weight and thresholds.
    pub fn limit(&mut self, destination: u32, weight: u32, upper: u32, lower: u32) {
        let limits = Weight {
            weight,
            upper,
            lower,
        };
        self.weights.insert(destination, limits);
    }

    /// What a destination may take.
    #[must_use]
    pub fn weight(&self, destination: u32) -> Weight {
        self.weights.get(&destination).copied().unwrap_or(Weight {
            weight: 1,
            upper: 0,
            lower: 0,
        })
    }

    /// Gives a service a new scheduling table of destination ids.
    pub fn schedule(&mut self, service: u16, table: &[u32]) {
        let first = self.slots.len() as u32;
        self.slots.extend(table);
        if let Some(record) = self.services.get_mut(&service) {
            record.first_slot = first;
            record.slots = table.len() as u32;
        }
    }

    /// Id of the service on an exact port.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn service(&self, family: Family, port: u16, protocol: u8) -> u16 {
        let port = port.to_be_bytes();
        self.endpoints
            .values()
            .find(|endpoint| {
                endpoint.family == family.number()
                    && (endpoint.port, endpoint.last_port) == (port, port)
                    && endpoint.protocol == protocol
            })
            .map(|endpoint| endpoint.service)
            .unwrap_or_else(|| panic!("no service {family:?} {port:?} {protocol} in the fixture"))
    }

    /// Ids of a service's destinations.
    #[must_use]
    pub fn destinations_of(&self, service: u16) -> Vec<u32> {
        self.destinations
            .iter()
            .filter(|(_, destination)| destination.service == service)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Id of a service's `index`-th destination.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn id(&self, family: Family, port: u16, protocol: u8, index: usize) -> u32 {
        let service = self.service(family, port, protocol);
        self.destinations_of(service)
            .get(index)
            .copied()
            .unwrap_or_else(|| panic!("service {service} has no destination {index}"))
    }
}
