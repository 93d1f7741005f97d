//! Between the kernel's entries and Director's records.
//!
//! The kernel tells an entry's whole timeout and not how long it has been idle: it has just been seen. Where the timeouts
//! differ, an entry lives as long as its sender says: idle for the difference.
//!
//! A template of a service on all ports has no port in the kernel, neither the service's nor the real server's (`vport` and
//! `dport` of `ip_vs_sched_persist` in `net/netfilter/ipvs/ip_vs_core.c`). Services on some of the ports it does not have.

use std::net::SocketAddr;

use xdp_ebpf::layout::method;
use xdp_ebpf::state::State;

use super::{KernelEntry, flags, state, to_state};
use crate::directory::{Directory, Ports};
use crate::entry::{Entry, Record, Template};

/// State of a template that its client has used (`IP_VS_CTPL_S_ASSURED`).
const ASSURED: u16 = 1;

/// What the kernel told, as Director has it. `None`: of a state or a protocol that is not shared here, or of a firewall mark.
#[must_use]
pub fn record(entry: &KernelEntry, directory: &Directory) -> Option<Record> {
    if entry.is_template() {
        return template(entry, directory);
    }
    let state = to_state(entry.protocol, entry.state)?;
    let own_s = directory.timeout_s(entry.protocol, entry.virtual_service, state);
    Some(Record::Entry(Entry {
        protocol: entry.protocol,
        client: entry.client,
        virtual_service: entry.virtual_service,
        server: entry.server,
        state,
        idle_s: own_s.map_or(0, |own_s| {
            let told_s = entry.timeout_s.filter(|told| *told > 0);
            told_s.map_or(0, |told_s| {
                own_s.saturating_sub(told_s.min(u32::from(u16::MAX)) as u16)
            })
        }),
    }))
}

fn template(entry: &KernelEntry, directory: &Directory) -> Option<Record> {
    if entry.protocol == 0 {
        return None;
    }
    let persistence = directory.persistence(entry.protocol, entry.virtual_service);
    Some(Record::Template(Template {
        protocol: entry.protocol,
        virtual_service: entry.virtual_service,
        per_port: is_per_port(entry.protocol, entry.virtual_service, directory),
        client: entry.client.ip(),
        server: entry.server,
        idle_s: persistence.map_or(0, |it| {
            let told_s = entry.timeout_s.filter(|told| *told > 0);
            told_s.map_or(0, |told_s| it.timeout_s.saturating_sub(told_s))
        }),
    }))
}

/// The kernel does not say it; one without a port is of the whole service.
fn is_per_port(protocol: u8, virtual_service: SocketAddr, directory: &Directory) -> bool {
    let persistence = directory.persistence(protocol, virtual_service);
    virtual_service.port() != 0 && persistence.is_some_and(|it| it.per_port)
}

/// A record that was kept aside, as it is by the names of now: of a template's service nothing was known.
#[must_use]
pub fn by_now(record: Record, directory: &Directory) -> Record {
    match record {
        Record::Template(template) => Record::Template(Template {
            per_port: is_per_port(template.protocol, template.virtual_service, directory),
            ..template
        }),
        entry @ Record::Entry(_) => entry,
    }
}

/// A record as the kernel tells it. `None`: it cannot be written down, having addresses of several families or being a template
/// of some ports or of each port by itself where the service has several, or is of nothing that is configured.
#[must_use]
pub fn kernel_entry(record: &Record, directory: &Directory) -> Option<KernelEntry> {
    let (entry, is_template, is_of_all_ports) = match record {
        Record::Entry(entry) => (*entry, false, false),
        // Under its service's port and the kernel's names: as if its client's port were 0.
        Record::Template(template) => {
            let ports = directory.ports(template.protocol, template.virtual_service)?;
            if ports == Ports::Some || ports == Ports::All && template.per_port {
                return None;
            }
            let entry = Entry {
                protocol: template.protocol,
                client: SocketAddr::new(template.client, 0),
                virtual_service: template.virtual_service,
                server: template.server,
                state: State::Established,
                idle_s: 0,
            };
            (entry, true, ports == Ports::All)
        }
    };
    let numbered = directory.number(&entry).ok()?;
    let (how, is_local) = directory.method(numbered.destination)?;
    let forwarding = match how {
        _ if is_local => flags::LOCAL,
        method::NAT => flags::NAT,
        method::DR => flags::DIRECT | flags::NO_OUTPUT,
        _ => flags::TUNNEL | flags::NO_OUTPUT,
    };
    let virtual_port = match entry.virtual_service.port() {
        _ if is_of_all_ports => 0,
        port => port,
    };
    let port = match entry.server.port() {
        _ if is_of_all_ports => 0,
        0 => virtual_port,
        port => port,
    };
    let told = KernelEntry {
        protocol: entry.protocol,
        flags: forwarding
            | if is_template { flags::TEMPLATE } else { 0 }
            | if is_template || !entry.state.is_active() {
                flags::INACTIVE
            } else {
                0
            },
        state: if is_template {
            ASSURED
        } else {
            state(entry.state)
        },
        client: entry.client,
        virtual_service: SocketAddr::new(entry.virtual_service.ip(), virtual_port),
        server: SocketAddr::new(entry.server.ip(), port),
        mark: 0,
        timeout_s: Some(if is_template {
            directory
                .persistence(entry.protocol, entry.virtual_service)?
                .timeout_s
        } else {
            directory
                .timeout_s(entry.protocol, entry.virtual_service, entry.state)?
                .into()
        }),
        sequences: None,
        engine: None,
    };
    told.is_of_one_family().then_some(told)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use xdp_ebpf::layout::{self, TemplateKey};

    use super::*;
    use crate::directory::{Endpoint, Persistence, Unknown};

    const NOW_S: u32 = 100_000;
    const TIMEOUT_S: u32 = 300;

    fn table(address: [u8; 4]) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&address);
        bytes
    }

    fn endpoint(id: u16, ports: (u16, u16), per_port: bool) -> (u16, Endpoint) {
        let record = layout::Endpoint {
            address: table([198, 51, 100, id as u8]),
            port: ports.0.to_be_bytes(),
            last_port: ports.1.to_be_bytes(),
            service: id,
            protocol: 6,
            family: 4,
        };
        let persistence = Some(Persistence {
            mask: [255; 16],
            per_port,
            timeout_s: TIMEOUT_S,
        });
        let endpoint = Endpoint {
            persistence,
            ..Endpoint::new(record)
        };
        (id, endpoint)
    }

    /// Persistent services, each with the real server 10.0.0.(its id): on port 80 with the server's port 8080, on all ports, on
    /// some, and each of these again with a template for each port.
    fn directory() -> Directory {
        let any = (1, u16::MAX);
        let endpoints = [
            endpoint(1, (80, 80), false),
            endpoint(2, any, false),
            endpoint(3, (1, 1023), false),
            endpoint(4, (80, 80), true),
            endpoint(5, any, true),
            endpoint(6, (8000, 8099), true),
        ];
        let destinations = (1..=6_u16).map(|id| {
            let port = if id == 1 { 8080_u16 } else { 0 };
            let record = layout::Destination {
                method: method::NAT,
                port: port.to_be_bytes(),
                service: id,
                address: table([10, 0, 0, id as u8]),
                ..layout::Destination::default()
            };
            (u32::from(id), record)
        });
        Directory::new(endpoints, destinations)
    }

    /// What stands in the map of a service's, for a port by itself or not; what the kernel calls it.
    #[test]
    fn templates_both_ways() {
        let client = IpAddr::from([192, 0, 2, 7]);
        let directory = directory();
        for (service, port, named) in [
            (1, None, Some(("198.51.100.1:80", "10.0.0.1:8080"))),
            (2, None, Some(("198.51.100.2:0", "10.0.0.2:0"))),
            (3, None, None),
            (4, Some(80), Some(("198.51.100.4:80", "10.0.0.4:80"))),
            (5, Some(443), None),
            (6, Some(8042), None),
        ] {
            let key = TemplateKey {
                client: table([192, 0, 2, 7]),
                service,
                endpoint: if port.is_some() { service } else { 0 },
                port: port.unwrap_or(0_u16).to_be_bytes(),
                zero: 0,
            };
            let standing = layout::Template {
                destination: service.into(),
                seen_s: NOW_S,
            };
            let template = directory.template(&key, &standing, NOW_S);
            let template = template.expect("it is configured");
            let told = kernel_entry(&Record::Template(template), &directory);
            let names = told.as_ref().map(|it| (it.virtual_service, it.server));
            let expected = named.map(|(virtual_service, server): (&str, &str)| {
                let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
                (at(virtual_service), at(server))
            });
            assert_eq!(names, expected, "service {service}");
            let Some(told) = told else { continue };
            assert_eq!(told.client, SocketAddr::new(client, 0));
            assert_eq!(told.timeout_s, Some(TIMEOUT_S));
            let Some(Record::Template(heard)) = record(&told, &directory) else {
                panic!("a template comes back as one");
            };
            let number = (key, u32::from(service));
            assert_eq!(directory.number_template(&heard), Ok(number));
            // Heard before its service was configured.
            let Some(kept) = record(&told, &Directory::default()) else {
                panic!("it may become known");
            };
            let Record::Template(known) = by_now(kept, &directory) else {
                panic!("it stays a template");
            };
            assert_eq!(directory.number_template(&known), Ok(number));
        }
    }

    /// Without a port: of the service that has all of them, and is kept as a whole as the kernel does.
    #[test]
    fn a_kernels_templates_without_a_port() {
        let directory = directory();
        for (service, expected) in [
            (1, Err(Unknown::Service)),
            (2, Ok(2)),
            (3, Err(Unknown::Service)),
            (5, Err(Unknown::Service)),
            (9, Err(Unknown::Service)),
        ] {
            let told = KernelEntry {
                protocol: 6,
                flags: flags::TEMPLATE,
                state: ASSURED,
                client: SocketAddr::from(([192, 0, 2, 7], 0)),
                virtual_service: SocketAddr::from(([198, 51, 100, service], 0)),
                server: SocketAddr::from(([10, 0, 0, service], 0)),
                mark: 0,
                timeout_s: Some(200),
                sequences: None,
                engine: None,
            };
            let Some(Record::Template(heard)) = record(&told, &directory) else {
                panic!("it is a template");
            };
            let number = directory.number_template(&heard).map(|it| it.1);
            assert_eq!(number, expected, "service {service}");
            if expected.is_ok() {
                assert_eq!(heard.idle_s, TIMEOUT_S - 200);
            }
        }
    }
}
