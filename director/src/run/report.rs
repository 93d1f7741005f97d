//! The status that an operator is told.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Range;
use std::time::UNIX_EPOCH;

use xdp_ebpf::connection::{Bucket, Bucket4, Bucket6};
use xdp_ebpf::layout::{Counters, Destination, Endpoint as Record, destination, load, method};

use super::node::Node;
use super::system;
use super::times::milliseconds;
use crate::config::{Config, Endpoint, Method, RealServer, VirtualService};
use crate::control::{
    ConfigStatus, ConnectionsStatus, Health, HeartbeatStatus, InterfaceStatus, RealServerStatus,
    ReasonStatus, ServerHealth, ServiceStatus, Status, TableStatus,
};
use crate::datapath::DatapathError;
use crate::health::standing::ServiceStanding;
use crate::next_hop::Resolution;
use crate::plan::{self, destination_address, endpoint_address, ports};

/// What is looked up for some services and their real servers, gathered once: each with a search of its own, thousands of
/// them would hold up the main loop.
struct Seen<'a> {
    /// Ids of the services whose endpoints packets are looked up by.
    services: HashMap<Identity, u16>,
    destinations: HashMap<u16, Vec<(u32, &'a Destination)>>,
    counters: HashMap<u32, Counters>,
}

/// What tells an endpoint: virtual address, first and last port, protocol.
type Identity = (IpAddr, (u16, u16), u8);

fn identity(endpoint: &Endpoint) -> Identity {
    let range = (endpoint.ports.first, endpoint.ports.last);
    (endpoint.address, range, endpoint.protocol.number())
}

/// As the tables have it.
fn recorded(record: &Record) -> Identity {
    (endpoint_address(record), ports(record), record.protocol)
}

impl<'a> Seen<'a> {
    fn of(node: &'a Node, services: &[VirtualService]) -> Self {
        let wanted: HashSet<Identity> = services
            .iter()
            .filter_map(|service| service.endpoints.first())
            .map(identity)
            .collect();
        let ids: HashMap<Identity, u16> = node
            .tables
            .endpoints
            .iter()
            .map(|(id, record)| (recorded(record), (*id, record.service)))
            .filter(|(identity, (id, _))| wanted.contains(identity) && node.tables.is_served(*id))
            .map(|(identity, (_, service))| (identity, service))
            .collect();
        let mut destinations: HashMap<u16, Vec<(u32, &Destination)>> =
            ids.values().map(|service| (*service, Vec::new())).collect();
        for (id, record) in &node.tables.destinations {
            if let Some(of_service) = destinations.get_mut(&record.service) {
                of_service.push((*id, record));
            }
        }
        let all = destinations.values().flatten().map(|(id, _)| *id);
        let counters = all
            .map(|id| Ok((id, node.datapath.maps.counters(id)?)))
            .collect::<Result<_, DatapathError>>();
        Self {
            services: ids,
            counters: counters.unwrap_or_else(|error| {
                tracing::warn!("{error}");
                HashMap::new()
            }),
            destinations,
        }
    }
}

impl Node {
    /// How things are: the services as told, all else as it is now.
    pub(super) fn status(&self, services: Vec<ServiceStatus>) -> Status {
        let datapath = &self.datapath;
        let places = |buckets: u32, ways: usize| {
            u64::from(buckets) * u64::from(datapath.cpus()) * ways as u64
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.config.instance.clone(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            adopted: datapath.was_adopted(),
            config: ConfigStatus {
                file: self.file.display().to_string(),
                loaded_at_s: self
                    .loaded_at
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default()
                    .as_secs(),
                took_ms: milliseconds(self.times.loaded),
                in_loop_ms: milliseconds(self.times.in_loop),
                reload_error: self.reload_error.clone(),
            },
            verdicts: self.times.verdicts.status(),
            interfaces: self
                .config
                .interfaces
                .iter()
                .map(|interface| self.interface_status(&interface.name))
                .collect(),
            connections: ConnectionsStatus {
                ipv4: TableStatus {
                    entries: self.report.entries4,
                    places: places(datapath.buckets4(), Bucket4::WAYS),
                },
                ipv6: TableStatus {
                    entries: self.report.entries6,
                    places: places(datapath.buckets6(), Bucket6::WAYS),
                },
                cpus: datapath.cpus(),
            },
            heartbeat: self.heartbeat_status(),
            services,
            reasons: self.reasons(),
            warnings: system::warnings(&self.config)
                .into_iter()
                .chain(self.resize_status())
                .chain(self.sync.warning())
                .chain(system::log_warning(heartbeat::log::lost()))
                .collect(),
        }
    }

    fn heartbeat_status(&self) -> Option<HeartbeatStatus> {
        let config = self.config.heartbeat.as_ref()?;
        // Not told rather than told wrongly.
        let lease = self.datapath.maps.lease().ok().flatten();
        Some(HeartbeatStatus {
            node: config.node.clone(),
            groups: self.heartbeat.groups(),
            is_fenced: lease.is_some_and(|lease| lease.has_run_out()),
            fault: self.heartbeat.warning(),
        })
    }

    fn interface_status(&self, name: &str) -> InterfaceStatus {
        let attached = self
            .datapath
            .attached()
            .find(|attached| attached.name == name);
        InterfaceStatus {
            name: name.to_owned(),
            mode: attached.map(|attached| attached.mode.to_string()),
            up: self.links.values().any(|link| link.name == name && link.up),
        }
    }

    /// How some of the services are, by their places.
    pub(super) fn services_status(&self, places: Range<usize>) -> Vec<ServiceStatus> {
        let services = self.config.services.get(places.clone()).unwrap_or(&[]);
        let seen = Seen::of(self, services);
        places
            .zip(services)
            .map(|(place, service)| self.service_status(&seen, place, service))
            .collect()
    }

    fn service_status(
        &self,
        seen: &Seen<'_>,
        place: usize,
        service: &VirtualService,
    ) -> ServiceStatus {
        let id = service
            .endpoints
            .first()
            .and_then(|it| seen.services.get(&identity(it)));
        let destinations: &[(u32, &Destination)] = id
            .and_then(|id| seen.destinations.get(id))
            .map_or(&[], Vec::as_slice);
        let as_configured = ServiceStanding::default();
        let standing = self
            .health
            .standings()
            .0
            .get(place)
            .unwrap_or(&as_configured);
        let configured = service.all_servers().enumerate().map(|(place, server)| {
            let same = |record: &Destination| {
                (destination_address(record), u16::from_be_bytes(record.port))
                    == (server.address, server.port.unwrap_or(0))
            };
            let destination = destinations
                .iter()
                .find(|(_, record)| same(record))
                .map(|(id, _)| *id);
            self.server_status(seen, destination, service, server, standing, place)
        });
        let removed = destinations
            .iter()
            .filter(|(_, record)| record.flags & destination::RETIRED != 0)
            .map(|(id, record)| self.removed_status(seen, *id, record));
        let first = service.endpoints.first();
        ServiceStatus {
            name: service.name.clone(),
            address: first.map_or(IpAddr::from([0; 4]), |it| it.address),
            port: first.map_or(0, |it| it.ports.first),
            protocol: first.map(|it| it.protocol.to_string()).unwrap_or_default(),
            endpoints: service.endpoints.iter().map(ToString::to_string).collect(),
            scheduler: service.scheduler.to_string(),
            changing_slots: id
                .filter(|_| service.track.is_on_change())
                .map(|id| plan::owners::marked(&self.tables, *id) as u64),
            up: standing.is_up,
            on_fallback: standing.is_on_fallback,
            cut_off: standing.is_cut_off,
            real_servers: configured.chain(removed).collect(),
        }
    }

    /// Ids of all services of a configuration that are in the tables. One by one each of them takes a search.
    pub(super) fn service_ids<'a>(
        &self,
        config: &'a Config,
    ) -> impl Iterator<Item = (u16, &'a VirtualService)> {
        let served = self.tables.endpoints.iter();
        let served = served.filter(|(id, _)| self.tables.is_served(**id));
        let ids: HashMap<Identity, u16> = served
            .map(|(_, record)| (recorded(record), record.service))
            .collect();
        config.services.iter().filter_map(move |service| {
            Some((*ids.get(&identity(service.endpoints.first()?))?, service))
        })
    }

    /// Id of a configured service: that of its first endpoint.
    pub(super) fn service_id(&self, service: &VirtualService) -> Option<u16> {
        let first = service.endpoints.first()?;
        self.tables
            .endpoints
            .iter()
            .find(|(id, record)| recorded(record) == identity(first) && self.tables.is_served(**id))
            .map(|(_, record)| record.service)
    }

    fn server_status(
        &self,
        seen: &Seen<'_>,
        id: Option<u32>,
        service: &VirtualService,
        server: &RealServer,
        standing: &ServiceStanding,
        place: usize,
    ) -> RealServerStatus {
        let mut status = self.traffic(seen, id, server.address, server.port.unwrap_or(0));
        let is_local = id.is_some_and(|id| self.is_local(id));
        if is_local {
            // The director itself.
            status.next_hop = Health::Ready;
        }
        let now_s = system::unix_s();
        let whole = self.overrides.effective(service, server, now_s).weight;
        let scale = standing.scale.max(1);
        let weight = standing.servers.get(place).map_or(whole, |it| it.weight);
        let full = u64::from(whole) * u64::from(scale);
        let percent = (weight > 0 && u64::from(weight) < full)
            // Below 100.
            .then(|| (u64::from(weight) * 100 / full) as u32);
        RealServerStatus {
            weight: weight.div_ceil(scale),
            fallback: place >= service.real_servers.len(),
            health: self.server_health(service, server, percent),
            said: self
                .overrides
                .of(service, server)
                .map(|said| said.shown(now_s)),
            method: if is_local {
                Method::Local.to_string()
            } else {
                server.method.to_string()
            },
            ..status
        }
    }

    fn removed_status(&self, seen: &Seen<'_>, id: u32, record: &Destination) -> RealServerStatus {
        let method = match record.method {
            method::NAT => "nat",
            method::DR if record.flags & destination::LOCAL != 0 => "local",
            method::DR => "dr",
            method::IPIP => "tun (ipip)",
            method::GUE => "tun (gue)",
            method::GRE => "tun (gre)",
            _ => "-",
        };
        let status = self.traffic(
            seen,
            Some(id),
            destination_address(record),
            u16::from_be_bytes(record.port),
        );
        RealServerStatus {
            method: method.to_owned(),
            removed: true,
            ..status
        }
    }

    fn traffic(
        &self,
        seen: &Seen<'_>,
        id: Option<u32>,
        address: IpAddr,
        port: u16,
    ) -> RealServerStatus {
        let counters = id
            .and_then(|id| seen.counters.get(&id))
            .copied()
            .unwrap_or_default();
        let counts = id.map(|id| self.report.destination(id)).unwrap_or_default();
        RealServerStatus {
            address,
            port,
            weight: 0,
            method: String::new(),
            said: None,
            rates: id.map(|id| self.rates.of(id)).unwrap_or_default(),
            fallback: false,
            health: ServerHealth::default(),
            overloaded: id.is_some_and(|id| self.is_overloaded(id)),
            removed: false,
            next_hop: self.next_hop_health(address),
            active: counts.active,
            inactive: counts.inactive,
            connections: counters.connections,
            in_packets: counters.in_packets,
            in_bytes: counters.in_bytes,
            out_packets: counters.out_packets,
            out_bytes: counters.out_bytes,
        }
    }

    fn is_local(&self, id: u32) -> bool {
        let record = self.tables.destinations.get(&id);
        record.is_some_and(|it| it.flags & destination::LOCAL != 0)
    }

    fn is_overloaded(&self, id: u32) -> bool {
        let loads = self.datapath.maps.loads.as_slice();
        loads.get(id as usize).is_some_and(|load| {
            load.flags.load(std::sync::atomic::Ordering::Relaxed) & load::OVERLOADED != 0
        })
    }

    fn next_hop_health(&self, address: IpAddr) -> Health {
        if address.is_loopback() {
            // The director itself.
            return Health::Ready;
        }
        match self.network.resolve(address) {
            Resolution::Ready(_) => Health::Ready,
            Resolution::Unresolved { .. } => Health::Unresolved,
            Resolution::NoRoute => Health::Kernel("no route".to_owned()),
            Resolution::NotOurs { ifindex } => {
                let name = self
                    .links
                    .get(&ifindex)
                    .map_or_else(|| ifindex.to_string(), |link| link.name.clone());
                Health::Kernel(format!("by {name}, which is not configured"))
            }
            Resolution::Kernel(left) => Health::Kernel(left.reason().to_owned()),
        }
    }

    fn reasons(&self) -> Vec<ReasonStatus> {
        match self.datapath.maps.reasons() {
            Ok(reasons) => reasons
                .into_iter()
                .map(|(reason, packets)| ReasonStatus {
                    name: reason.name().to_owned(),
                    packets,
                })
                .collect(),
            Err(error) => {
                tracing::warn!("{error}");
                Vec::new()
            }
        }
    }
}
