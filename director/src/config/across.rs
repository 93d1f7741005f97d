//! Checks that look at several services at once.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::error::{Mistake, Place};
use super::limits::{self, Limit};
use super::model::{Method, Ports, Protocol, RealServer, VirtualService};
use super::value::nearest;
use crate::scheduler;

/// What was seen in the services so far.
#[derive(Default)]
pub(super) struct Across {
    endpoints: HashMap<(Protocol, IpAddr), Vec<(Ports, Place)>>,
    names: HashMap<String, Place>,
    virtual_addresses: HashMap<IpAddr, Place>,
    real_servers: HashMap<IpAddr, Place>,
    under_nat: HashMap<(Protocol, SocketAddr), usize>,
    service_count: usize,
    endpoint_count: usize,
    real_server_count: usize,
    slot_count: usize,
    dependencies: Vec<Dependencies>,
}

/// What a service depends on.
struct Dependencies {
    name: String,
    on: Vec<String>,
    place: Place,
}

impl Across {
    /// Checks a service against those before it. `places` are those of its real servers.
    pub(super) fn add(
        &mut self,
        service: &VirtualService,
        place: Place,
        places: &[Place],
        mistakes: &mut Vec<Mistake>,
    ) {
        let mut is_told = false;
        for endpoint in &service.endpoints {
            let known = self
                .endpoints
                .entry((endpoint.protocol, endpoint.address))
                .or_default();
            if let Some((_, first)) = known
                .iter()
                .find(|(ports, _)| are_confused(*ports, endpoint.ports))
            {
                let what = format!("{endpoint} is served already by line {}", first.line);
                mistakes.push(Mistake::new(
                    place,
                    what,
                    "every address, port and protocol once; only one port within a range may be another service's",
                ));
                is_told = true;
            }
            known.push((endpoint.ports, place));
            self.virtual_addresses
                .entry(endpoint.address)
                .or_insert(place);
        }
        if let Some(first) = self.names.insert(service.name.clone(), place)
            && !is_told
        {
            let what = format!(
                "the name \"{}\" is already that of the service in line {}",
                service.name, first.line
            );
            mistakes.push(Mistake::new(place, what, "a name of its own"));
        }
        for (real_server, place) in service.all_servers().zip(places) {
            self.real_servers
                .entry(real_server.address)
                .or_insert(*place);
            if real_server.method != Method::Nat {
                continue;
            }
            for endpoint in &service.endpoints {
                let port = real_server.port.or(endpoint.ports.only()).unwrap_or(0);
                let address = SocketAddr::new(real_server.address, port);
                let sharing = self
                    .under_nat
                    .entry((endpoint.protocol, address))
                    .or_default();
                *sharing += 1;
                mistakes.extend(first_beyond(
                    limits::ENDPOINTS_PER_REAL_SERVER,
                    *sharing,
                    1,
                    *place,
                ));
            }
        }
        let slots_for = |servers: &[RealServer]| scheduler::slots_of(service, servers);
        // One of the two stands in the tables.
        let slots = slots_for(&service.real_servers).max(slots_for(&service.fallback_servers));
        let servers = service.all_servers().count();
        self.dependencies.push(Dependencies {
            name: service.name.clone(),
            on: service.health.depends_on.clone(),
            place,
        });
        self.service_count += 1;
        self.endpoint_count += service.endpoints.len();
        if service.scheduler.counts() {
            mistakes.extend(limits::COUNTED_REAL_SERVERS.check(servers, place));
        }
        if service.track.is_on_change() {
            mistakes.extend(limits::ON_CHANGE_REAL_SERVERS.check(servers, place));
        }
        mistakes.extend(first_beyond(
            limits::ENDPOINTS,
            self.endpoint_count,
            service.endpoints.len(),
            place,
        ));
        self.real_server_count += servers;
        self.slot_count += slots;
        mistakes.extend(limits::REAL_SERVERS_PER_SERVICE.check(servers, place));
        mistakes.extend(first_beyond(limits::SERVICES, self.service_count, 1, place));
        mistakes.extend(first_beyond(
            limits::REAL_SERVERS,
            self.real_server_count,
            servers,
            place,
        ));
        mistakes.extend(first_beyond(limits::SLOTS, self.slot_count, slots, place));
    }

    /// Checks that need all services. Not all are there where one could not be read: another may depend on that one.
    pub(super) fn finish(self, are_all_there: bool, mistakes: &mut Vec<Mistake>) {
        if are_all_there {
            unresolved_dependencies(&self.dependencies, &self.names, mistakes);
        }
        for (address, place) in self.real_servers {
            if let Some(service) = self.virtual_addresses.get(&address) {
                let what = format!(
                    "the real server's address {address} is the virtual address of the service in line {}",
                    service.line
                );
                mistakes.push(Mistake::new(place, what, "the real server's own address"));
            }
        }
    }
}

/// Dependencies on services that are not there, and circles.
fn unresolved_dependencies(
    dependencies: &[Dependencies],
    names: &HashMap<String, Place>,
    mistakes: &mut Vec<Mistake>,
) {
    let on: HashMap<&str, &[String]> = dependencies
        .iter()
        .map(|it| (it.name.as_str(), it.on.as_slice()))
        .collect();
    for service in dependencies.iter().filter(|it| !it.on.is_empty()) {
        for name in service.on.iter().filter(|name| !names.contains_key(*name)) {
            let help = nearest(name, names.keys().map(String::as_str));
            mistakes.push(Mistake {
                place: service.place,
                message: format!("it depends on \"{name}\", and there is no such service"),
                expected: "the names of other services".to_owned(),
                help: help.map(|name| format!("did you mean \"{name}\"?")),
            });
        }
        // What it depends on, directly or not: a circle if it is among that itself.
        let mut seen = HashSet::new();
        let mut waiting: Vec<&str> = service.on.iter().map(String::as_str).collect();
        while let Some(name) = waiting.pop() {
            if seen.insert(name) {
                waiting.extend(
                    on.get(name)
                        .into_iter()
                        .flat_map(|it| it.iter().map(String::as_str)),
                );
            }
        }
        if seen.contains(service.name.as_str()) {
            mistakes.push(Mistake::new(
                service.place,
                format!("the service \"{}\" depends on itself", service.name),
                "dependencies that do not go in a circle",
            ));
        }
    }
}

/// Whether a packet could be meant for both: the same ports, or ranges that share some. One port beside a range that has
/// it is not: the one port counts.
fn are_confused(one: Ports, other: Ports) -> bool {
    let overlap = one.first <= other.last && other.first <= one.last;
    overlap && one.only().is_some() == other.only().is_some()
}

/// A mistake where a growing number, having grown by `step`, passes the limit: not again at every step beyond.
fn first_beyond(limit: Limit, found: usize, step: usize, place: Place) -> Option<Mistake> {
    limit
        .check(found, place)
        .filter(|_| found - step <= limit.maximum)
}
