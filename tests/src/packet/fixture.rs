//! What the tables hold, once for both machines: services, real servers, routes, next hops.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xdp_ebpf::layout::{
    Destination, Endpoint, Endpoint4, Endpoint6, Neighbour4, Neighbour6, NextHop, RANGE_BITS4,
    RANGE_BITS6, RangeKey4, RangeKey6, Route, Served, Service, Settings, SharedBy, address,
    destination, limits, method, own_mac, scheduler, service, settings,
};
use xdp_ebpf::wire::protocol;

use super::build::Mac;
use super::verify::GUE_PORT;

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

/// An address family, as cases that exist in both iterate over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Both families.
pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    fn pick(self, four: [u8; 4], six: [u16; 8]) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::from(four)),
            Self::V6 => IpAddr::V6(Ipv6Addr::from(six)),
        }
    }

    /// A client behind the router.
    #[must_use]
    pub fn client(self) -> IpAddr {
        self.pick(
            [198, 51, 100, 7],
            [0x2001, 0xdb8, 0xc, 0, 0x1111, 0x2222, 0x3333, 7],
        )
    }

    /// Another client behind the router.
    #[must_use]
    pub fn other_client(self, number: u8) -> IpAddr {
        self.pick(
            [198, 51, 100, number],
            [0x2001, 0xdb8, 0xc, 0, 0, 0, 1, u16::from(number)],
        )
    }

    /// A client on a connected network, whose neighbour entry the director knows.
    #[must_use]
    pub fn neighbour(self) -> IpAddr {
        self.pick([203, 0, 113, 9], [0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 9])
    }

    /// A client to which only the kernel may know a way.
    #[must_use]
    pub fn far_client(self) -> IpAddr {
        self.pick([198, 18, 0, 1], [0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1])
    }

    /// The virtual address of all services.
    #[must_use]
    pub fn virtual_address(self) -> IpAddr {
        self.pick([192, 0, 2, 10], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10])
    }

    /// A real server.
    #[must_use]
    pub fn server(self, number: u8) -> IpAddr {
        self.pick(
            [10, 1, 2, number],
            [0xfd00, 0, 0, 1, 0xabc, 0, 0xffff, u16::from(number)],
        )
    }

    /// The director's own address.
    #[must_use]
    pub fn own(self) -> IpAddr {
        self.pick([10, 1, 2, 254], [0xfd00, 0, 0, 1, 0, 0, 0, 0xfe])
    }

    /// Outer source of tunnels, before the flow's hash comes in.
    #[must_use]
    pub fn outer_source(self) -> IpAddr {
        self.pick([172, 16, 0, 0], [0xfd00, 0, 0, 0xeeee, 0, 0, 0, 0])
    }

    /// An address that has nothing to do with the director.
    #[must_use]
    pub fn stranger(self) -> IpAddr {
        self.pick([192, 0, 2, 200], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x200])
    }

    /// Its number in services.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }

    /// Bytes of its header.
    #[must_use]
    pub const fn header_len(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }
}

/// An address as tables hold it.
#[must_use]
pub fn table_address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
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
                reserved2: [0; 4],
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

    fn exact(&self, family: Family) -> impl Iterator<Item = (&u16, &Endpoint)> {
        self.endpoints.iter().filter(move |(_, endpoint)| {
            endpoint.family == family.number() && endpoint.port == endpoint.last_port
        })
    }

    /// Endpoints of the IPv4 services.
    #[must_use]
    pub fn services4(&self) -> Vec<(Endpoint4, Served)> {
        self.exact(Family::V4)
            .map(|(id, it)| {
                (
                    endpoint4(&it.address, it.port, it.protocol),
                    Served::new(*id, it.service),
                )
            })
            .collect()
    }

    /// Endpoints of the IPv6 services.
    #[must_use]
    pub fn services6(&self) -> Vec<(Endpoint6, Served)> {
        self.exact(Family::V6)
            .map(|(id, it)| {
                (
                    endpoint6(&it.address, it.port, it.protocol),
                    Served::new(*id, it.service),
                )
            })
            .collect()
    }

    /// Every range of ports cut into prefixes: bits of the port, first port of the prefix, endpoint.
    fn ranges(&self, family: Family) -> Vec<(u32, u16, Endpoint, Served)> {
        let mut all = Vec::new();
        for (id, endpoint) in &self.endpoints {
            if endpoint.family != family.number() || endpoint.port == endpoint.last_port {
                continue;
            }
            let mut next = u32::from(u16::from_be_bytes(endpoint.port));
            let last = u32::from(u16::from_be_bytes(endpoint.last_port));
            while next <= last {
                let mut size = 1;
                while next.is_multiple_of(2 * size) && next + 2 * size - 1 <= last {
                    size *= 2;
                }
                let served = Served::new(*id, endpoint.service);
                all.push((16 - size.trailing_zeros(), next as u16, *endpoint, served));
                next += size;
            }
        }
        all
    }

    /// Ranges of ports of the IPv4 services: bits of the prefix and key.
    #[must_use]
    pub fn ranges4(&self) -> Vec<((u32, RangeKey4), Served)> {
        self.ranges(Family::V4)
            .into_iter()
            .map(|(bits, port, endpoint, served)| {
                let [a, b, c, d, ..] = endpoint.address;
                let key = RangeKey4 {
                    address: [a, b, c, d],
                    protocol: endpoint.protocol,
                    zero: 0,
                    port: port.to_be_bytes(),
                };
                ((RANGE_BITS4 + bits, key), served)
            })
            .collect()
    }

    /// Ranges of ports of the IPv6 services: bits of the prefix and key.
    #[must_use]
    pub fn ranges6(&self) -> Vec<((u32, RangeKey6), Served)> {
        self.ranges(Family::V6)
            .into_iter()
            .map(|(bits, port, endpoint, served)| {
                let key = RangeKey6 {
                    address: endpoint.address,
                    protocol: endpoint.protocol,
                    zero: 0,
                    port: port.to_be_bytes(),
                };
                ((RANGE_BITS6 + bits, key), served)
            })
            .collect()
    }

    /// (address, port, protocol, IPv6?) of each NAT real server and the endpoints it answers.
    fn shared(&self) -> BTreeMap<([u8; 16], [u8; 2], u8, bool), SharedBy> {
        let mut all: BTreeMap<_, SharedBy> = BTreeMap::new();
        for destination in self.destinations.values() {
            if destination.method != method::NAT {
                continue;
            }
            let of_service =
                |(_, endpoint): &(&u16, &Endpoint)| endpoint.service == destination.service;
            for (id, endpoint) in self.endpoints.iter().filter(of_service) {
                let is_range = endpoint.port != endpoint.last_port;
                let port = match (destination.port, is_range) {
                    ([0, 0], false) => endpoint.port,
                    (port, _) => port,
                };
                let shared = all
                    .entry((
                        destination.address,
                        port,
                        endpoint.protocol,
                        destination.flags & destination::IPV6 != 0,
                    ))
                    .or_default();
                if !shared.endpoints.contains(id)
                    && let Some(free) = shared.endpoints.iter_mut().find(|it| **it == 0)
                {
                    *free = *id;
                }
            }
        }
        all
    }

    /// NAT real servers.
    #[must_use]
    pub fn real_servers4(&self) -> Vec<(Endpoint4, SharedBy)> {
        self.shared()
            .into_iter()
            .filter(|((_, _, _, is_ipv6), _)| !is_ipv6)
            .map(|((address, port, protocol, _), shared)| {
                (endpoint4(&address, port, protocol), shared)
            })
            .collect()
    }

    /// NAT real servers.
    #[must_use]
    pub fn real_servers6(&self) -> Vec<(Endpoint6, SharedBy)> {
        self.shared()
            .into_iter()
            .filter(|((_, _, _, is_ipv6), _)| *is_ipv6)
            .map(|((address, port, protocol, _), shared)| {
                (endpoint6(&address, port, protocol), shared)
            })
            .collect()
    }

    /// Flags of addresses: tables' form, whether IPv6, flags.
    fn addresses(&self) -> BTreeMap<([u8; 16], bool), u32> {
        let mut all = BTreeMap::new();
        for endpoint in self.endpoints.values() {
            *all.entry((endpoint.address, endpoint.family == 6))
                .or_default() |= address::VIRTUAL;
        }
        for (key, _) in self.shared() {
            *all.entry((key.0, key.3)).or_default() |= address::REAL;
        }
        all
    }

    /// Flags of IPv4 addresses.
    #[must_use]
    pub fn addresses4(&self) -> Vec<([u8; 4], u32)> {
        self.addresses()
            .into_iter()
            .filter(|((_, is_ipv6), _)| !is_ipv6)
            .map(|((address, _), flags)| ([address[0], address[1], address[2], address[3]], flags))
            .collect()
    }

    /// Flags of IPv6 addresses.
    #[must_use]
    pub fn addresses6(&self) -> Vec<([u8; 16], u32)> {
        self.addresses()
            .into_iter()
            .filter(|((_, is_ipv6), _)| *is_ipv6)
            .map(|((address, _), flags)| (address, flags))
            .collect()
    }
}

fn endpoint4(address: &[u8; 16], port: [u8; 2], protocol: u8) -> Endpoint4 {
    Endpoint4 {
        address: [address[0], address[1], address[2], address[3]],
        port,
        protocol,
        zero: 0,
    }
}

fn endpoint6(address: &[u8; 16], port: [u8; 2], protocol: u8) -> Endpoint6 {
    Endpoint6 {
        address: *address,
        port,
        protocol,
        zero: 0,
    }
}

/// Ports of the services of [`site`].
pub mod port {
    /// TCP and UDP, NAT to one real server, port [`REAL`].
    pub const NAT: u16 = 80;
    /// The real server's port.
    pub const REAL: u16 = 8080;
    /// TCP and UDP, DR.
    pub const DR: u16 = 800;
    /// TCP and UDP, IP in IP over IPv4.
    pub const IPIP4: u16 = 810;
    /// TCP and UDP, IP in IP over IPv6.
    pub const IPIP6: u16 = 811;
    /// TCP and UDP, GUE over IPv4.
    pub const GUE4: u16 = 812;
    /// TCP and UDP, GUE over IPv6.
    pub const GUE6: u16 = 813;
    /// TCP and UDP, GRE over IPv4.
    pub const GRE4: u16 = 814;
    /// TCP and UDP, GRE over IPv6.
    pub const GRE6: u16 = 815;
    /// TCP, `rr` over two NAT real servers.
    pub const RR: u16 = 820;
    /// TCP, `wrr`: the first of two real servers twice as often.
    pub const WRR: u16 = 821;
    /// TCP, `mh` over three real servers by address.
    pub const MH: u16 = 822;
    /// TCP, `mh` over three real servers by address and port.
    pub const MH_PORT: u16 = 823;
    /// TCP and UDP, no real server.
    pub const NONE: u16 = 830;
    /// TCP and UDP, NAT, next hop not resolved.
    pub const NAT_UNRESOLVED: u16 = 840;
    /// TCP, DR, next hop not resolved.
    pub const DR_UNRESOLVED: u16 = 841;
    /// TCP, IP in IP over IPv4, next hop not resolved.
    pub const IPIP_UNRESOLVED: u16 = 842;
    /// TCP, NAT by another interface.
    pub const NAT_OTHER: u16 = 850;
    /// TCP, DR by another interface.
    pub const DR_OTHER: u16 = 851;
    /// TCP, IP in IP over IPv4 by another interface.
    pub const IPIP_OTHER: u16 = 852;
    /// TCP, NAT with one tag.
    pub const NAT_TAG: u16 = 860;
    /// TCP, NAT with two tags.
    pub const NAT_TAGS: u16 = 861;
    /// TCP, DR with one tag.
    pub const DR_TAG: u16 = 862;
    /// TCP, DR with two tags.
    pub const DR_TAGS: u16 = 863;
    /// TCP, IP in IP over IPv4 with one tag.
    pub const IPIP_TAG: u16 = 864;
    /// TCP, IP in IP over IPv4 with two tags.
    pub const IPIP_TAGS: u16 = 865;
    /// TCP, NAT, narrow.
    pub const NAT_NARROW: u16 = 870;
    /// TCP, DR, narrow.
    pub const DR_NARROW: u16 = 871;
    /// TCP, IP in IP over IPv4, narrow.
    pub const IPIP_NARROW: u16 = 872;
    /// TCP, GUE over IPv6, narrow.
    pub const GUE6_NARROW: u16 = 873;
    /// TCP, NAT to the same real server and port as [`NAT`].
    pub const SHARED: u16 = 880;
}

/// One of everything: the services of [`port`] in both families.
#[must_use]
pub fn site() -> Fixture {
    use method::{DR, GRE, GUE, IPIP, NAT};
    const RR: u8 = scheduler::CURSOR;
    const TCP: &[u8] = &[protocol::TCP];
    const ALL: &[u8] = &[protocol::TCP, protocol::UDP];
    let mut fixture = Fixture::empty();
    for family in BOTH {
        let narrow = match family {
            Family::V4 => NARROW,
            Family::V6 => NARROW6,
        };
        let near = |number: u8| hop(server_mac(number));
        let other = NextHop {
            ifindex: OTHER,
            egress: OTHER_SLOT,
            ..near(1)
        };
        let tagged = |vlan: [u16; 2]| NextHop { vlan, ..near(1) };
        let narrowed = NextHop {
            mtu: narrow,
            ..near(1)
        };
        let real = |method: u8, number: u8, next_hop: NextHop| Real {
            method,
            address: family.server(number),
            port: port::REAL,
            next_hop,
        };
        let tunnel = |method: u8, outer: Family, next_hop: NextHop| Real {
            method,
            address: outer.server(1),
            port: 0,
            next_hop,
        };
        let (v4, v6) = (Family::V4, Family::V6);
        let three = [
            real(NAT, 1, near(1)),
            real(NAT, 2, near(2)),
            real(NAT, 3, near(3)),
        ];
        let services: Vec<(u16, &[u8], u8, Vec<Real>)> = vec![
            (port::NAT, ALL, RR, vec![real(NAT, 1, near(1))]),
            (port::DR, ALL, RR, vec![real(DR, 1, near(1))]),
            (port::IPIP4, ALL, RR, vec![tunnel(IPIP, v4, near(1))]),
            (port::IPIP6, ALL, RR, vec![tunnel(IPIP, v6, near(1))]),
            (port::GUE4, ALL, RR, vec![tunnel(GUE, v4, near(1))]),
            (port::GUE6, ALL, RR, vec![tunnel(GUE, v6, near(1))]),
            (port::GRE4, ALL, RR, vec![tunnel(GRE, v4, near(1))]),
            (port::GRE6, ALL, RR, vec![tunnel(GRE, v6, near(1))]),
            (port::RR, TCP, RR, three[..2].to_vec()),
            (port::WRR, TCP, RR, three[..2].to_vec()),
            (port::MH, TCP, scheduler::MAGLEV, three.to_vec()),
            (port::MH_PORT, TCP, scheduler::MAGLEV, three.to_vec()),
            (port::NONE, ALL, RR, vec![]),
            (
                port::NAT_UNRESOLVED,
                ALL,
                RR,
                vec![real(NAT, 1, UNRESOLVED)],
            ),
            (port::DR_UNRESOLVED, TCP, RR, vec![real(DR, 1, UNRESOLVED)]),
            (
                port::IPIP_UNRESOLVED,
                TCP,
                RR,
                vec![tunnel(IPIP, v4, UNRESOLVED)],
            ),
            (port::NAT_OTHER, TCP, RR, vec![real(NAT, 1, other)]),
            (port::DR_OTHER, TCP, RR, vec![real(DR, 1, other)]),
            (port::IPIP_OTHER, TCP, RR, vec![tunnel(IPIP, v4, other)]),
            (port::NAT_TAG, TCP, RR, vec![real(NAT, 1, tagged([0, 100]))]),
            (
                port::NAT_TAGS,
                TCP,
                RR,
                vec![real(NAT, 1, tagged([200, 100]))],
            ),
            (port::DR_TAG, TCP, RR, vec![real(DR, 1, tagged([0, 100]))]),
            (
                port::DR_TAGS,
                TCP,
                RR,
                vec![real(DR, 1, tagged([200, 100]))],
            ),
            (
                port::IPIP_TAG,
                TCP,
                RR,
                vec![tunnel(IPIP, v4, tagged([0, 100]))],
            ),
            (
                port::IPIP_TAGS,
                TCP,
                RR,
                vec![tunnel(IPIP, v4, tagged([200, 100]))],
            ),
            (port::NAT_NARROW, TCP, RR, vec![real(NAT, 1, narrowed)]),
            (port::DR_NARROW, TCP, RR, vec![real(DR, 1, narrowed)]),
            (port::IPIP_NARROW, TCP, RR, vec![tunnel(IPIP, v4, narrowed)]),
            (port::GUE6_NARROW, TCP, RR, vec![tunnel(GUE, v6, narrowed)]),
            (port::SHARED, TCP, RR, vec![real(NAT, 1, near(1))]),
        ];
        for (port, protocols, scheduler, reals) in services {
            for protocol in protocols {
                fixture.add(family.virtual_address(), port, *protocol, scheduler, &reals);
            }
        }
        let first = fixture.id(family, port::WRR, protocol::TCP, 0);
        let second = fixture.id(family, port::WRR, protocol::TCP, 1);
        let in_turn = fixture.service(family, port::WRR, protocol::TCP);
        fixture.schedule(in_turn, &[first, second, first]);
        let by_port = fixture.service(family, port::MH_PORT, protocol::TCP);
        fixture.change_service(by_port, |record| record.flags |= service::PORT);
    }
    fixture
}
