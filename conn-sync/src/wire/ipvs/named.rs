//! Between the kernel's entries and Director's records.
//!
//! The kernel tells an entry's whole timeout and not how long it has been idle: it has just been seen. Where the timeouts
//! differ, an entry lives as long as its sender says: idle for the difference.

use std::net::SocketAddr;

use xdp_ebpf::layout::method;
use xdp_ebpf::state::State;

use super::{KernelEntry, flags, state, to_state};
use crate::directory::Directory;
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
        per_port: persistence.is_some_and(|it| it.per_port),
        client: entry.client.ip(),
        server: entry.server,
        idle_s: persistence.map_or(0, |it| {
            let told_s = entry.timeout_s.filter(|told| *told > 0);
            told_s.map_or(0, |told_s| it.timeout_s.saturating_sub(told_s))
        }),
    }))
}

/// A record as the kernel tells it. `None`: it cannot be written down, having addresses of several families, or is of
/// nothing that is configured.
#[must_use]
pub fn kernel_entry(record: &Record, directory: &Directory) -> Option<KernelEntry> {
    let (entry, is_template) = match record {
        Record::Entry(entry) => (*entry, false),
        // Under its service's port and the kernel's names: as if its client's port were 0.
        Record::Template(template) => {
            let entry = Entry {
                protocol: template.protocol,
                client: SocketAddr::new(template.client, 0),
                virtual_service: template.virtual_service,
                server: template.server,
                state: State::Established,
                idle_s: 0,
            };
            (entry, true)
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
    let port = match entry.server.port() {
        0 => entry.virtual_service.port(),
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
        virtual_service: entry.virtual_service,
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
