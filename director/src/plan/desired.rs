//! What the tables should hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use xdp_ebpf::layout::{Destination, Service, Settings, destination, limits, method, scheduler};

use super::derived::index;
use super::network::{NetworkView, refresh};
use super::slots::Allocator;
use super::tables::{Key, Tables, destination_address, endpoint, octets, service_address};
use crate::config::{Config, Method, RealServer, Scheduler, Tunnel, VirtualService};
use crate::scheduler::{Member, table};

/// What the desired state is made of, besides the current one.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The network.
    pub view: &'a NetworkView,
    /// CPUs with a connection table.
    pub cpus: u32,
    /// Buckets of one CPU's IPv4 table, a power of two.
    pub buckets4: u32,
    /// Buckets of one CPU's IPv6 table, a power of two.
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
    /// No destination id is left.
    #[error(
        "no room for real server {server} of virtual service {name}: {} fit, counting removed ones whose connections \
         have not ended yet",
        limits::DESTINATIONS - 1
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
        "NAT real server {address} port {port} stands in more than {} virtual services of one protocol",
        limits::SERVICES_PER_REAL_SERVER
    )]
    Shared {
        /// Its address.
        address: IpAddr,
        /// Its port.
        port: u16,
    },
}

/// What tells a service: virtual address, port (network order), protocol.
type ServiceIdentity = (IpAddr, [u8; 2], u8);
/// What tells a destination: service, address, port (network order).
type DestinationIdentity = (u32, IpAddr, [u8; 2]);

/// The tables that the configuration asks for, with the ids, slots and last known next hops of the current ones.
///
/// Removed real servers stay as retired destinations; see [`super::release`] for their end.
///
/// # Errors
/// [`PlanError`]: something does not fit. The current state then stays as it is.
pub fn desired(current: &Tables, inputs: &Inputs<'_>) -> Result<Tables, PlanError> {
    let Inputs {
        config,
        view,
        cpus,
        buckets4,
        buckets6,
        seed,
    } = *inputs;
    let mut builder = Builder::new(current, config);
    builder.tables.settings = Settings {
        now_s: current.settings.now_s,
        cpus,
        buckets4_mask: buckets4.saturating_sub(1),
        buckets6_mask: buckets6.saturating_sub(1),
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
    for service in &config.services {
        builder.add_service(service)?;
    }
    builder.retire();
    let mut tables = builder.tables;
    index(&mut tables)?;
    refresh(&mut tables, view);
    Ok(tables)
}

struct Builder<'a> {
    current: &'a Tables,
    config: &'a Config,
    tables: Tables,
    services: BTreeMap<ServiceIdentity, u32>,
    destinations: BTreeMap<DestinationIdentity, u32>,
    taken_services: BTreeSet<u32>,
    taken_destinations: BTreeSet<u32>,
    allocator: Allocator,
}

impl<'a> Builder<'a> {
    fn new(current: &'a Tables, config: &'a Config) -> Self {
        let services: BTreeMap<_, _> = current
            .services
            .iter()
            .map(|(id, record)| ((service_address(record), record.port, record.protocol), *id))
            .collect();
        let destinations: BTreeMap<_, _> = current
            .destinations
            .iter()
            .map(|(id, record)| {
                (
                    (
                        u32::from(record.service),
                        destination_address(record),
                        record.port,
                    ),
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
            .chain(used_by_destinations)
            .collect();
        let mut allocator = Allocator::new(limits::SLOTS);
        for (first, table) in &current.slots {
            allocator.take(*first, table.len() as u32);
        }
        Self {
            current,
            config,
            tables: Tables::default(),
            services,
            destinations,
            taken_services,
            taken_destinations: current.destinations.keys().copied().collect(),
            allocator,
        }
    }

    fn add_service(&mut self, service: &VirtualService) -> Result<(), PlanError> {
        let identity = (
            service.address,
            service.port.to_be_bytes(),
            service.protocol.number(),
        );
        let known = self.services.get(&identity).copied();
        let id = match known.or_else(|| free_id(&mut self.taken_services, limits::SERVICES)) {
            Some(id) => id,
            None => {
                return Err(PlanError::Services {
                    name: service.name.clone(),
                });
            }
        };
        if self.tables.services.contains_key(&id) {
            // The same service a second time: the configuration refuses that; the first one stands.
            return Ok(());
        }
        self.services.insert(identity, id);
        match endpoint(identity.0, identity.1, identity.2) {
            Key::V4(key) => drop(self.tables.services4.insert(key, id)),
            Key::V6(key) => drop(self.tables.services6.insert(key, id)),
        }
        let mut members = Vec::with_capacity(service.real_servers.len());
        for server in &service.real_servers {
            let destination = self.add_destination(id, service, server)?;
            members.push(Member {
                destination,
                weight: server.weight,
                identity: (server.address, server.port),
            });
        }
        let (first_slot, slots) = self.place(id, service, table(&service.scheduler, &members))?;
        self.tables.services.insert(
            id,
            Service {
                first_slot,
                slots,
                address: octets(service.address),
                port: identity.1,
                protocol: identity.2,
                scheduler: match service.scheduler {
                    Scheduler::Rr | Scheduler::Wrr => scheduler::CURSOR,
                    Scheduler::Mh { port: false } => scheduler::HASH_ADDRESS,
                    Scheduler::Mh { port: true } => scheduler::HASH_ADDRESS_PORT,
                },
                family: if service.address.is_ipv6() { 6 } else { 4 },
                zero: [0; 3],
            },
        );
        Ok(())
    }

    /// First slot and number of slots of a scheduling table: where it stands already, or in free slots.
    fn place(
        &mut self,
        id: u32,
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
        id: u32,
        service: &VirtualService,
        server: &RealServer,
    ) -> Result<u32, PlanError> {
        let identity = (id, server.address, server.port.to_be_bytes());
        let known = self.destinations.get(&identity).copied();
        let destination_id =
            match known.or_else(|| free_id(&mut self.taken_destinations, limits::DESTINATIONS)) {
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
        let (number, tunnel_port) = match server.method {
            Method::Nat => (method::NAT, 0),
            Method::Dr => (method::DR, 0),
            Method::Tun(Tunnel::Ipip) => (method::IPIP, 0),
            Method::Tun(Tunnel::Gue { port }) => (method::GUE, port),
            Method::Tun(Tunnel::Gre) => (method::GRE, 0),
        };
        let outer_source = match (server.method, server.address) {
            (Method::Tun(_), IpAddr::V4(_)) => octets(tunnel.source_ipv4.network().into()),
            (Method::Tun(_), IpAddr::V6(_)) => octets(tunnel.source_ipv6.network().into()),
            (Method::Nat | Method::Dr, _) => [0; 16],
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
                flags: if server.address.is_ipv6() {
                    destination::IPV6
                } else {
                    0
                },
                port: identity.2,
                // Ids are below `limits::SERVICES`, which 16 bits hold.
                service: id as u16,
                tunnel_port: tunnel_port.to_be_bytes(),
                address: octets(server.address),
                outer_source,
                next_hop: next_hop.unwrap_or_default(),
            },
        );
        Ok(destination_id)
    }

    /// Keeps what is not configured any more, but may still be used by connections.
    fn retire(&mut self) {
        for (id, record) in &self.current.destinations {
            if self.tables.destinations.contains_key(id) {
                continue;
            }
            let service = u32::from(record.service);
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
            self.tables.destinations.insert(
                *id,
                Destination {
                    flags: record.flags | destination::RETIRED,
                    ..*record
                },
            );
        }
    }
}

/// The lowest id that is not taken, from 1 on; then it is.
fn free_id(taken: &mut BTreeSet<u32>, limit: u32) -> Option<u32> {
    let mut candidate = 1;
    for id in taken.iter() {
        if *id > candidate {
            break;
        }
        candidate = id + 1;
    }
    (candidate < limit).then(|| {
        taken.insert(candidate);
        candidate
    })
}
