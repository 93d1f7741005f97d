//! What the tables should hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use xdp_ebpf::layout::{
    Destination, Endpoint, Served, Service, Settings, destination, limits, method, no_server,
    removed, scheduler, service as service_flags, settings,
};

use super::derived::index;
use super::network::{NetworkView, refresh};
use super::owners;
use super::slots::Allocator;
use super::tables::{
    Lookup, Share, Tables, destination_address, endpoint_address, lookups, octets, ports,
};
use crate::config::{
    self, Config, Method, NoServer, RealServer, RemovedServers, Scheduler, Tunnel, VirtualService,
};
use crate::health::standing::{ServiceStanding, Standings};
use crate::overrides::Effective;
use crate::scheduler::{Member, table, table_on_change};

/// What the desired state is made of, besides the current one.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// How the real servers take part: what operators said and checks found. A service that is not in there is as
    /// configured.
    pub standings: &'a Standings,
    /// The network.
    pub view: &'a NetworkView,
    /// CPUs with a connection table.
    pub cpus: u32,
    /// Buckets of one CPU's IPv4 table.
    pub buckets4: u32,
    /// Buckets of one CPU's IPv6 table.
    pub buckets6: u32,
    /// Secret of the connection tables' hash; used only where the current state has none.
    pub seed: u64,
}

/// Why there is no desired state. The configuration's own limits refuse nearly all of this before.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// No service id is left.
    #[error(
        "no room for virtual service {name}: {} fit, counting removed ones whose connections have not ended yet",
        limits::SERVICES - 1
    )]
    Services {
        /// The service.
        name: String,
    },
    /// No endpoint id is left.
    #[error(
        "no room for an endpoint of virtual service {name}: {} fit, counting removed ones whose connections have not \
         ended yet",
        limits::ENDPOINTS - 1
    )]
    Endpoints {
        /// The service.
        name: String,
    },
    /// No destination id is left.
    #[error(
        "no room for real server {server} of virtual service {name}: {} fit, counting removed ones whose connections \
         have not ended yet",
        owners::NOBODY - 1
    )]
    Destinations {
        /// The service.
        name: String,
        /// The real server's address.
        server: IpAddr,
    },
    /// No range of slots is large enough.
    #[error(
        "no room for the scheduling table of virtual service {name} ({slots} slots): all old and new tables together \
         take {} slots; change fewer services at once, or use fewer `mh` services",
        limits::SLOTS
    )]
    Slots {
        /// The service.
        name: String,
        /// Slots of its table.
        slots: usize,
    },
    /// One NAT real server stands in too many services.
    #[error(
        "NAT real server {address} port {port} answers more than {} virtual addresses and ports of one protocol",
        limits::ENDPOINTS_PER_REAL_SERVER
    )]
    Shared {
        /// Its address.
        address: IpAddr,
        /// Its port.
        port: u16,
    },
}

/// What tells an endpoint: virtual address, first and last port, protocol. A service is told by its endpoints.
pub(super) type EndpointIdentity = (IpAddr, (u16, u16), u8);
/// What tells a destination: service, address, port (network order).
type DestinationIdentity = (u16, IpAddr, [u8; 2]);

/// The tables that the configuration asks for, with the ids, slots and last known next hops of the current ones.
///
/// Removed real servers stay as retired destinations; see [`super::release`] for their end.
///
/// # Errors
/// [`PlanError`]: something does not fit. The current state then stays as it is.
pub fn desired(current: &Tables, inputs: &Inputs<'_>) -> Result<Tables, PlanError> {
    let Inputs {
        config,
        standings,
        view,
        cpus,
        buckets4,
        buckets6,
        seed,
    } = *inputs;
    let mut builder = Builder::new(current, config, view);
    builder.tables.settings = Settings {
        now_s: current.settings.now_s,
        advanced_at_s: current.settings.advanced_at_s,
        cpus,
        buckets4,
        buckets6,
        seed: if current.settings.seed == 0 {
            seed
        } else {
            current.settings.seed
        },
        icmp_per_second: config.icmp_per_second,
        fragment_timeout_ms: config.fragment_timeout_ms,
        spread4_mask: config.tunnel.source_ipv4.hostmask().to_bits(),
        ..Settings::default()
    };
    let as_configured = ServiceStanding::default();
    for (place, service) in config.services.iter().enumerate() {
        builder.add_service(service, standings.0.get(place).unwrap_or(&as_configured))?;
    }
    builder.retire();
    let mut tables = builder.tables;
    if !tables.ranges4.is_empty() || !tables.ranges6.is_empty() {
        tables.settings.flags |= settings::RANGES;
    }
    index(&mut tables, config.leased())?;
    refresh(&mut tables, view);
    Ok(tables)
}

struct Builder<'a> {
    current: &'a Tables,
    config: &'a Config,
    view: &'a NetworkView,
    tables: Tables,
    endpoints: BTreeMap<EndpointIdentity, u16>,
    destinations: BTreeMap<DestinationIdentity, u32>,
    taken_services: Ids,
    taken_endpoints: Ids,
    taken_destinations: Ids,
    allocator: Allocator,
    /// Services, and whether the connections of their removed real servers go on.
    keeps: BTreeMap<u16, bool>,
}

impl<'a> Builder<'a> {
    fn new(current: &'a Tables, config: &'a Config, view: &'a NetworkView) -> Self {
        let endpoints: BTreeMap<_, _> = current
            .endpoints
            .iter()
            .map(|(id, record)| (recorded(record), *id))
            .collect();
        let destinations: BTreeMap<_, _> = current
            .destinations
            .iter()
            .map(|(id, record)| {
                (
                    (record.service, destination_address(record), record.port),
                    *id,
                )
            })
            .collect();
        let used_by_destinations = current
            .destinations
            .values()
            .map(|record| u32::from(record.service));
        let taken_services = current
            .services
            .keys()
            .copied()
            .map(u32::from)
            .chain(used_by_destinations)
            .collect();
        let mut allocator = Allocator::new(limits::SLOTS);
        for (first, table) in &current.slots {
            allocator.take(*first, table.len() as u32);
        }
        Self {
            current,
            config,
            view,
            tables: Tables::default(),
            endpoints,
            destinations,
            taken_services: Ids::new(taken_services, limits::SERVICES),
            taken_endpoints: Ids::new(
                current.endpoints.keys().copied().map(u32::from).collect(),
                limits::ENDPOINTS,
            ),
            taken_destinations: Ids::new(
                current.destinations.keys().copied().collect(),
                owners::NOBODY,
            ),
            allocator,
            keeps: BTreeMap::new(),
        }
    }

    /// Id of a service: that of the first of its endpoints that is known and whose service is not another one's by now.
    fn service_id(&mut self, service: &VirtualService) -> Result<u16, PlanError> {
        let known = service.endpoints.iter().find_map(|it| {
            let id = self.endpoints.get(&identity(it))?;
            let service = self.current.endpoints.get(id)?.service;
            (!self.tables.services.contains_key(&service)).then_some(service)
        });
        known
            .or_else(|| {
                // Below `limits::SERVICES`, which 16 bits hold.
                self.taken_services.free().map(|id| id as u16)
            })
            .ok_or_else(|| PlanError::Services {
                name: service.name.clone(),
            })
    }

    fn add_service(
        &mut self,
        service: &VirtualService,
        standing: &ServiceStanding,
    ) -> Result<(), PlanError> {
        let id = self.service_id(service)?;
        let keeps = service.removed_servers == RemovedServers::Keep;
        self.keeps.insert(id, keeps);
        for endpoint in &service.endpoints {
            self.add_endpoint(id, service, endpoint)?;
        }
        let mut destinations = Vec::with_capacity(service.real_servers.len());
        for (place, server) in service.all_servers().enumerate() {
            let effective = effective(service, standing, place, server);
            destinations.push(self.add_destination(id, service, server, effective)?);
        }
        let (table, own_flags) = slots(self.current, id, service, standing, &destinations);
        let (first_slot, slots) = self.place(id, service, table)?;
        let record = record(service);
        let record = Service {
            first_slot,
            slots,
            flags: record.flags | own_flags,
            ..record
        };
        self.tables.services.insert(id, record);
        Ok(())
    }

    fn add_endpoint(
        &mut self,
        service_id: u16,
        service: &VirtualService,
        written: &config::Endpoint,
    ) -> Result<(), PlanError> {
        let known = self.endpoints.get(&identity(written)).copied();
        let id = known.or_else(|| {
            // Below `limits::ENDPOINTS`, which 16 bits hold.
            self.taken_endpoints.free().map(|id| id as u16)
        });
        let Some(id) = id else {
            return Err(PlanError::Endpoints {
                name: service.name.clone(),
            });
        };
        if self.tables.endpoints.contains_key(&id) {
            // The same endpoint a second time: the configuration refuses that; the first one stands.
            return Ok(());
        }
        self.endpoints.insert(identity(written), id);
        let record = Endpoint {
            address: octets(written.address),
            port: written.ports.first.to_be_bytes(),
            last_port: written.ports.last.to_be_bytes(),
            service: service_id,
            protocol: written.protocol.number(),
            family: if written.address.is_ipv6() { 6 } else { 4 },
        };
        let served = served(id, service_id, service.track.is_on_change());
        for key in lookups(&record) {
            match key {
                Lookup::V4(key) => drop(self.tables.services4.insert(key, served)),
                Lookup::V6(key) => drop(self.tables.services6.insert(key, served)),
                Lookup::Range4(key) => drop(self.tables.ranges4.insert(key, served)),
                Lookup::Range6(key) => drop(self.tables.ranges6.insert(key, served)),
            }
        }
        self.tables.endpoints.insert(id, record);
        Ok(())
    }

    /// First slot and number of slots of a scheduling table: where it stands already, or in free slots.
    fn place(
        &mut self,
        id: u16,
        service: &VirtualService,
        table: Vec<u32>,
    ) -> Result<(u32, u32), PlanError> {
        if table.is_empty() {
            return Ok((0, 0));
        }
        if let Some(record) = self
            .current
            .services
            .get(&id)
            .filter(|record| record.slots > 0)
            && let Some(standing) = self
                .current
                .slots
                .get(&record.first_slot)
                .filter(|slots| ***slots == *table)
        {
            self.tables
                .slots
                .insert(record.first_slot, Arc::clone(standing));
            return Ok((record.first_slot, record.slots));
        }
        let no_room = || PlanError::Slots {
            name: service.name.clone(),
            slots: table.len(),
        };
        let slots = u32::try_from(table.len()).map_err(|_| no_room())?;
        let first = self.allocator.find(slots).ok_or_else(no_room)?;
        self.tables.slots.insert(first, table.into());
        Ok((first, slots))
    }

    fn add_destination(
        &mut self,
        id: u16,
        service: &VirtualService,
        server: &RealServer,
        effective: Effective,
    ) -> Result<u32, PlanError> {
        let identity = (id, server.address, server.port.unwrap_or(0).to_be_bytes());
        let known = self.destinations.get(&identity).copied();
        let destination_id = match known.or_else(|| self.taken_destinations.free()) {
            Some(id) => id,
            None => {
                return Err(PlanError::Destinations {
                    name: service.name.clone(),
                    server: server.address,
                });
            }
        };
        self.destinations.insert(identity, destination_id);
        let tunnel = &self.config.tunnel;
        let method = self.method(service, server);
        let (number, tunnel_port) = match method {
            Method::Nat => (method::NAT, 0),
            // Nobody resolves where a local one is: what has no next hop and is local goes to the kernel.
            Method::Dr | Method::Local => (method::DR, 0),
            Method::Tun(Tunnel::Ipip) => (method::IPIP, 0),
            Method::Tun(Tunnel::Gue { port }) => (method::GUE, port),
            Method::Tun(Tunnel::Gre) => (method::GRE, 0),
        };
        let outer_source = match (method, server.address) {
            (Method::Tun(_), IpAddr::V4(_)) => octets(tunnel.source_ipv4.network().into()),
            (Method::Tun(_), IpAddr::V6(_)) => octets(tunnel.source_ipv6.network().into()),
            (Method::Nat | Method::Dr | Method::Local, _) => [0; 16],
        };
        let next_hop = self
            .current
            .destinations
            .get(&destination_id)
            .map(|record| record.next_hop);
        self.tables.destinations.insert(
            destination_id,
            Destination {
                method: number,
                flags: flags(server, effective) | local(method),
                port: identity.2,
                service: id,
                tunnel_port: tunnel_port.to_be_bytes(),
                address: octets(server.address),
                outer_source,
                next_hop: next_hop.unwrap_or_default(),
            },
        );
        self.tables
            .shares
            .insert(destination_id, share(service, server, effective));
        Ok(destination_id)
    }

    /// How packets reach a real server. One that is this node gets them as they are, whatever the method is elsewhere
    /// (IPVS calls that LOCALNODE), unless its port is another one: nobody would translate its answers back.
    fn method(&self, service: &VirtualService, server: &RealServer) -> Method {
        let keeps_port = |port| {
            let mut endpoints = service.endpoints.iter();
            endpoints.all(|it| it.ports.only() == Some(port))
        };
        if self.view.is_own(server.address) && server.port.is_none_or(keeps_port) {
            Method::Local
        } else {
            server.method
        }
    }

    /// Whether the connections of a service's removed real servers go on.
    fn goes_on(&self, service: u16) -> bool {
        self.keeps.get(&service).copied().unwrap_or(true)
    }

    /// Keeps what is not configured any more, but may still be used by connections.
    fn retire(&mut self) {
        for (id, record) in &self.current.destinations {
            if self.tables.destinations.contains_key(id) {
                continue;
            }
            let service = record.service;
            if !self.tables.services.contains_key(&service) {
                // Without its service's record a destination is of no use, and nothing can be said about its id.
                let Some(known) = self.current.services.get(&service) else {
                    continue;
                };
                self.tables.services.insert(
                    service,
                    Service {
                        first_slot: 0,
                        slots: 0,
                        ..*known
                    },
                );
            }
            let gone = if self.goes_on(service) {
                0
            } else {
                destination::GONE
            };
            self.tables.destinations.insert(
                *id,
                Destination {
                    flags: record.flags & !(destination::GONE | destination::OUT)
                        | destination::RETIRED
                        | gone,
                    ..*record
                },
            );
            self.tables.shares.insert(*id, Share::default());
        }
        // The same goes for endpoints, whose ids are part of their connections' names.
        for (id, record) in &self.current.endpoints {
            if self.tables.services.contains_key(&record.service) {
                self.tables.endpoints.entry(*id).or_insert(*record);
            }
        }
    }
}

/// How a real server takes part: `place` is its place among all servers of the service.
pub(super) fn effective(
    service: &VirtualService,
    standing: &ServiceStanding,
    place: usize,
    server: &RealServer,
) -> Effective {
    let as_configured = Effective {
        weight: if place < service.real_servers.len() {
            server.weight
        } else {
            0
        },
        ..Effective::default()
    };
    standing
        .servers
        .get(place)
        .copied()
        .unwrap_or(as_configured)
}

/// Flags of a real server's destination, but for whether it is local: that is a matter of the network too.
pub(super) fn flags(server: &RealServer, effective: Effective) -> u8 {
    [
        (destination::IPV6, server.address.is_ipv6()),
        (destination::OUT, effective.is_out),
        (destination::CLOSED, effective.is_closed),
        (destination::GONE, effective.is_gone),
    ]
    .into_iter()
    .filter(|(_, is_set)| *is_set)
    .fold(0, |flags, (flag, _)| flags | flag)
}

fn local(method: Method) -> u8 {
    if method == Method::Local {
        destination::LOCAL
    } else {
        0
    }
}

/// What a real server may take of new connections. Its agent may ask for fewer than the configuration allows, not for more.
pub(super) fn share(service: &VirtualService, server: &RealServer, effective: Effective) -> Share {
    if service.track.is_on_change() {
        // Nobody counts its connections: what an agent says of them cannot be kept to.
        return Share {
            weight: effective.weight,
            ..Share::default()
        };
    }
    let upper = match (server.upper_threshold, effective.maximum_connections) {
        (upper, 0) => upper,
        (0, most) => most,
        (upper, most) => upper.min(most),
    };
    let is_sensible = upper == 0 || server.lower_threshold <= upper;
    Share {
        weight: effective.weight,
        upper,
        // Above the upper one it would let in what that one keeps out.
        lower: if is_sensible {
            server.lower_threshold
        } else {
            0
        },
    }
}

/// What a service's slots are to say, and flags of its record that the director has for itself.
/// `destinations`: ids of all its servers.
pub(super) fn slots(
    current: &Tables,
    id: u16,
    service: &VirtualService,
    standing: &ServiceStanding,
    destinations: &[u32],
) -> (Vec<u32>, u16) {
    let as_on_change = owners::has_its_table(current, id, service);
    let table = |standing: &ServiceStanding| {
        scheduling_table(service, standing, destinations, as_on_change)
    };
    if !service.track.is_on_change() {
        let was_on_change = if as_on_change {
            service_flags::WAS_ON_CHANGE
        } else {
            0
        };
        return (table(standing), was_on_change);
    }
    let expected = standing.expected.as_deref().map(table);
    let (words, is_young) = owners::words(current, id, &table(standing), expected.as_deref());
    let young = if is_young { service_flags::YOUNG } else { 0 };
    (words, young)
}

/// The scheduling table of a service: of its real servers, or while they are too few of its fallback servers.
/// `destinations`: ids of all its servers. `as_on_change`: the table is one of a service that tracks on change.
fn scheduling_table(
    service: &VirtualService,
    standing: &ServiceStanding,
    destinations: &[u32],
    as_on_change: bool,
) -> Vec<u32> {
    let mut members = Vec::with_capacity(destinations.len());
    let mut is_anybody_there = false;
    for (place, (server, destination)) in service.all_servers().zip(destinations).enumerate() {
        if (place >= service.real_servers.len()) != standing.is_on_fallback {
            continue;
        }
        let effective = effective(service, standing, place, server);
        is_anybody_there |= effective.weight > 0;
        members.push(Member {
            destination: *destination,
            weight: in_table(service, server, effective, as_on_change),
            identity: (server.address, server.port.unwrap_or(0)),
        });
    }
    if is_anybody_there && as_on_change {
        table_on_change(&members)
    } else if is_anybody_there {
        table(&service.scheduler, &members)
    } else {
        // Nobody needs to look for what is not there.
        Vec::new()
    }
}

/// The weight of a real server in the scheduling table. A scheduler that hashes looks at who is in service when a
/// client comes: the table keeps one that an operator took out, so that the others' clients stay where they are. Not where
/// connections are tracked on change: there nobody looks, the table alone says who is in service. Nor where they were until
/// a reload, but for a service that is not to fall back any more.
fn in_table(
    service: &VirtualService,
    server: &RealServer,
    effective: Effective,
    as_on_change: bool,
) -> u32 {
    let keeps = match service.scheduler {
        Scheduler::Mh { fallback, .. } => !(as_on_change && fallback),
        Scheduler::Sh { .. } | Scheduler::Dh { .. } => true,
        _ => false,
    };
    if keeps && effective.weight == 0 {
        server.weight
    } else {
        effective.weight
    }
}

/// What keys of an endpoint say.
fn served(endpoint: u16, service: u16, tracks_on_change: bool) -> Served {
    let served = Served::new(endpoint, service);
    if tracks_on_change {
        served.tracking_on_change()
    } else {
        served
    }
}

pub(super) fn identity(endpoint: &config::Endpoint) -> EndpointIdentity {
    (
        endpoint.address,
        (endpoint.ports.first, endpoint.ports.last),
        endpoint.protocol.number(),
    )
}

/// The same of one in the tables.
pub(super) fn recorded(record: &Endpoint) -> EndpointIdentity {
    (endpoint_address(record), ports(record), record.protocol)
}

/// A service's record, but for its slots.
fn record(service: &VirtualService) -> Service {
    let (scheduler, mut flags) = scheduler_of(service.scheduler);
    let mut set = |flag: u16, is_set: bool| flags |= if is_set { flag } else { 0 };
    set(service_flags::ONE_PACKET, service.one_packet);
    set(service_flags::SLOPPY, service.sloppy);
    set(service_flags::ON_CHANGE, service.track.is_on_change());
    if let Some(persistence) = service.persistence {
        set(service_flags::PERSISTENT, true);
        set(
            service_flags::PERSISTENT_PER_PORT,
            !persistence.across_ports,
        );
        set(
            service_flags::EXPIRE_QUIESCENT,
            persistence.expire_quiescent,
        );
    }
    Service {
        scheduler,
        family: if service.is_ipv6() { 6 } else { 4 },
        no_server: match service.no_server {
            NoServer::Icmp => no_server::ICMP,
            NoServer::Reset => no_server::RESET,
            NoServer::Silent => no_server::SILENT,
        },
        removed: match service.removed_servers {
            RemovedServers::Keep | RemovedServers::Reschedule => removed::RESCHEDULE,
            RemovedServers::Drop => removed::DROP,
        },
        flags,
        persistence_mask: mask(service.persistence.map_or(128, |it| it.prefix)),
        ..Service::default()
    }
}

/// The first bits of an address.
fn mask(prefix: u8) -> [u8; 16] {
    let bits = u128::MAX
        .checked_shl(128 - u32::from(prefix.min(128)))
        .unwrap_or(0);
    bits.to_be_bytes()
}

/// Number and flags of a scheduler in a service's record.
fn scheduler_of(scheduler: Scheduler) -> (u8, u16) {
    let flags = |port: bool, fallback: bool| {
        let port = if port { service_flags::PORT } else { 0 };
        let fallback = if fallback { service_flags::FALLBACK } else { 0 };
        port | fallback
    };
    match scheduler {
        Scheduler::Rr | Scheduler::Wrr => (scheduler::CURSOR, 0),
        Scheduler::Mh { port, fallback } => (scheduler::MAGLEV, flags(port, fallback)),
        Scheduler::Sh { port, fallback } => (scheduler::SOURCE, flags(port, fallback)),
        Scheduler::Dh { fallback } => (scheduler::DESTINATION, flags(false, fallback)),
        Scheduler::Lc => (scheduler::LC, 0),
        Scheduler::Wlc => (scheduler::WLC, 0),
        Scheduler::Sed => (scheduler::SED, 0),
        Scheduler::Nq => (scheduler::NQ, 0),
        Scheduler::Fo => (scheduler::FO, 0),
        Scheduler::Ovf => (scheduler::OVF, 0),
        Scheduler::Twos => (scheduler::TWOS, 0),
        Scheduler::Lblc => (scheduler::LBLC, 0),
        Scheduler::Lblcr => (scheduler::LBLCR, 0),
    }
}

/// Ids in use, and the lowest that is not.
struct Ids {
    taken: BTreeSet<u32>,
    /// All below this one are taken: nothing is given back while a state is built, so the search goes on where the last one
    /// ended. (Each from the start took seconds with 20,000 real servers.)
    next: u32,
    limit: u32,
}

impl Ids {
    fn new(taken: BTreeSet<u32>, limit: u32) -> Self {
        Self {
            taken,
            next: 1,
            limit,
        }
    }

    /// The lowest id that is not taken, from 1 on; then it is.
    fn free(&mut self) -> Option<u32> {
        while self.taken.contains(&self.next) {
            self.next += 1;
        }
        (self.next < self.limit).then(|| {
            self.taken.insert(self.next);
            self.next
        })
    }
}
