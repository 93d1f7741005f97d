//! Checks that look at several services at once.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::error::{Mistake, Place};
use super::limits::{self, Limit};
use super::model::{Method, Ports, Protocol, VirtualService};
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
        for (real_server, place) in service.real_servers.iter().zip(places) {
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
        let weights: Vec<u32> = service
            .real_servers
            .iter()
            .map(|real_server| real_server.weight)
            .collect();
        let slots = scheduler::table_length(&service.scheduler, &weights);
        self.service_count += 1;
        self.endpoint_count += service.endpoints.len();
        if service.scheduler.counts() {
            mistakes.extend(limits::COUNTED_REAL_SERVERS.check(weights.len(), place));
        }
        mistakes.extend(first_beyond(
            limits::ENDPOINTS,
            self.endpoint_count,
            service.endpoints.len(),
            place,
        ));
        self.real_server_count += weights.len();
        self.slot_count += slots;
        mistakes.extend(limits::REAL_SERVERS_PER_SERVICE.check(weights.len(), place));
        mistakes.extend(first_beyond(limits::SERVICES, self.service_count, 1, place));
        mistakes.extend(first_beyond(
            limits::REAL_SERVERS,
            self.real_server_count,
            weights.len(),
            place,
        ));
        mistakes.extend(first_beyond(limits::SLOTS, self.slot_count, slots, place));
    }

    /// Checks that need all services.
    pub(super) fn finish(self, mistakes: &mut Vec<Mistake>) {
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
