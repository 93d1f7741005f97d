//! Checks that look at several services at once.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::error::{Mistake, Place};
use super::limits::{self, Limit};
use super::model::{Method, Protocol, VirtualService};
use crate::scheduler;

/// What was seen in the services so far.
#[derive(Default)]
pub(super) struct Across {
    services: HashMap<(Protocol, SocketAddr), Place>,
    names: HashMap<String, Place>,
    virtual_addresses: HashMap<IpAddr, Place>,
    real_servers: HashMap<IpAddr, Place>,
    under_nat: HashMap<(Protocol, SocketAddr), usize>,
    service_count: usize,
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
        let endpoint = service.socket_address();
        if let Some(first) = self.services.insert((service.protocol, endpoint), place) {
            let what = format!(
                "the service {}/{endpoint} stands already in line {}",
                service.protocol, first.line
            );
            mistakes.push(Mistake::new(
                place,
                what,
                "every address, port and protocol once",
            ));
        } else if let Some(first) = self.names.insert(service.name.clone(), place) {
            let what = format!(
                "the name \"{}\" is already that of the service in line {}",
                service.name, first.line
            );
            mistakes.push(Mistake::new(place, what, "a name of its own"));
        }
        self.virtual_addresses
            .entry(service.address)
            .or_insert(place);
        for (real_server, place) in service.real_servers.iter().zip(places) {
            self.real_servers
                .entry(real_server.address)
                .or_insert(*place);
            if real_server.method == Method::Nat {
                let sharing = self
                    .under_nat
                    .entry((service.protocol, real_server.socket_address()))
                    .or_default();
                *sharing += 1;
                mistakes.extend(first_beyond(
                    limits::SERVICES_PER_REAL_SERVER,
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

/// A mistake where a growing number, having grown by `step`, passes the limit: not again at every step beyond.
fn first_beyond(limit: Limit, found: usize, step: usize, place: Place) -> Option<Mistake> {
    limit
        .check(found, place)
        .filter(|_| found - step <= limit.maximum)
}
