//! From a NAT real server to the client: the source becomes the virtual address again.

use super::send::{Direction, account};
use super::translate::{End, New, translate_and_send};
use super::{Ip, Subject, Verdict};
use crate::connection::{State, Value};
use crate::family::Family;
use crate::layout::{NextHop, Reason, Service, Settings, SharedBy, limits, method};
use crate::packet::Packet;
use crate::parse::Transport;
use crate::table::{self, Found};
use crate::tables::Tables;
use crate::verifier::repeat;
use crate::wire::{protocol, tcp};

/// The connection that a packet of a NAT real server belongs to.
pub(super) struct Owner<'t> {
    pub(super) destination: u32,
    pub(super) service: u32,
    pub(super) record: &'t Service,
}

/// A packet from the address and port of a NAT real server.
#[inline(always)]
pub(super) fn reply<F: Ip, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    subject: &Subject<'_, F>,
    transport: Transport,
    shared: &SharedBy,
) -> Verdict {
    let network = &subject.network;
    let flags = (network.protocol == protocol::TCP).then_some(transport.flags);
    let Some(owner) = owner(
        tables,
        subject,
        (network.destination, transport.destination_port),
        (network.source, transport.source_port),
        flags,
        shared,
        true,
    ) else {
        // An answer to a health check, or to a client that reached the real server directly: none of ours.
        return Verdict::Pass;
    };
    if !network.is_consistent(packet, crate::parse::transport_len(network.protocol)) {
        return Verdict::Drop(Reason::Malformed);
    }
    return_to_client(packet, tables, subject, true, &owner)
}

/// A connection looked for in the other CPUs' tables, among the services that a real server stands in.
struct Search<'t, F: Family, T> {
    tables: &'t T,
    settings: &'t Settings,
    shared: &'t SharedBy,
    client: (F::Address, u16),
    real_server: (F::Address, u16),
    own: u32,
    service: u16,
    value: Value,
}

/// Whether a connection's destination is this real server, as this service uses it.
#[inline(always)]
fn is_of<F: Family, T: Tables>(
    tables: &T,
    value: Value,
    service: u16,
    real_server: (F::Address, u16),
) -> bool {
    let Some(destination) = tables.destination(value.destination()) else {
        return false;
    };
    destination.method == method::NAT
        && destination.service == service
        && u16::from_ne_bytes(destination.port) == real_server.1
        && F::is_same(F::from_table(&destination.address), real_server.0)
}

/// Looks for the connection in one CPU's table, under one of the services: every turn another pair.
extern "C" fn search<F: Family, T: Tables>(turn: u32, search: *mut Search<'_, F, T>) -> i64 {
    const SERVICES: u32 = limits::SERVICES_PER_REAL_SERVER as u32;
    // SAFETY: `repeat` hands over what it was given.
    let search = unsafe { &mut *search };
    let cpu = turn / SERVICES;
    let service = search.shared.services[(turn % SERVICES) as usize];
    if service == 0 || cpu == search.own {
        return 0;
    }
    let key = F::key(search.client.0, search.client.1, service);
    let value = table::find::<F, T>(search.tables, search.settings, cpu, key).value;
    if value.is_some() && is_of::<F, T>(search.tables, value, service, search.real_server) {
        search.service = service;
        search.value = value;
        return 1;
    }
    0
}

/// Looks for the connection in the other CPUs' tables. Not inlined: rare, and on a stack frame of its own.
#[inline(never)]
fn search_elsewhere<F: Family, T: Tables>(state: &mut Search<'_, F, T>) {
    let cpus = state.settings.cpus.min(limits::CPUS);
    repeat(
        cpus * limits::SERVICES_PER_REAL_SERVER as u32,
        state,
        search::<F, T>,
    );
}

/// Finds the connection of (client, real server) among the services that the real server stands in.
///
/// `flags` are a reply's TCP flags: SYN-ACK, FIN and RST move the connection on; plain data is acknowledged by the
/// client, whose packets keep it. Nothing acknowledges UDP, so its replies keep the connection too.
/// `remember`: a connection found in another CPU's table is copied into this one's.
#[inline(always)]
pub(super) fn owner<'t, F: Ip, T: Tables>(
    tables: &'t T,
    subject: &Subject<'_, F>,
    client: (F::Address, u16),
    real_server: (F::Address, u16),
    flags: Option<u8>,
    shared: &SharedBy,
    remember: bool,
) -> Option<Owner<'t>> {
    let settings = subject.settings;
    let mut own = Found::NOTHING;
    let mut service = 0;
    let mut index = 0;
    while index < limits::SERVICES_PER_REAL_SERVER {
        let candidate = shared.services[index];
        if candidate == 0 {
            break;
        }
        let key = F::key(client.0, client.1, candidate);
        let found = table::find::<F, T>(tables, settings, tables.cpu(), key);
        if found.is_some() && is_of::<F, T>(tables, found.value, candidate, real_server) {
            own = found;
            service = candidate;
            break;
        }
        index += 1;
    }
    let mut value = own.value;
    if !own.is_some() {
        let mut state = Search::<F, T> {
            tables,
            settings,
            shared,
            client,
            real_server,
            own: tables.cpu(),
            service: 0,
            value: Value::NONE,
        };
        search_elsewhere(&mut state);
        service = state.service;
        value = state.value;
    }
    let state = State::from_u8(value.state())?;
    let record = tables.service(u32::from(service))?;
    let moves = flags.is_some_and(|flags| flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0);
    let state = match flags {
        Some(flags) if moves => state.after_segment(flags, false),
        _ => state,
    };
    let now = settings.now_s as u16;
    if !own.is_some() && remember {
        // The NIC brings replies to another CPU than the client's packets: from now on this one has a copy.
        let key = F::key(client.0, client.1, service);
        let copy = Value::new(value.destination(), now, state, value.flags() | Value::COPY);
        table::insert::<F, T>(tables, &key, copy.0);
    } else if own.is_some() && (moves || remember && flags.is_none()) {
        let new = Value::new(value.destination(), now, state, value.flags());
        if new != value {
            table::update::<F, T>(tables, &own, new);
        }
    }
    Some(Owner {
        destination: value.destination(),
        service: u32::from(service),
        record,
    })
}

/// Makes the virtual address the source, and sends the packet to the client.
#[inline(always)]
pub(super) fn return_to_client<F: Ip, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    subject: &Subject<'_, F>,
    has_ports: bool,
    owner: &Owner<'_>,
) -> Verdict {
    let network = &subject.network;
    let next_hop = next_hop::<F, P, T>(packet, tables, network.source, network.destination);
    let new = New {
        end: End::Source,
        address: F::from_table(&owner.record.address),
        port: u16::from_ne_bytes(owner.record.port),
    };
    let verdict = translate_and_send(packet, tables, subject, new, has_ports, &next_hop);
    account(
        tables,
        owner.destination,
        Direction::Out,
        subject.frame_bytes,
        verdict,
    )
}

/// Where packets for a client go (`ifindex` 0: not known): the director's copy of the kernel's routes and neighbours, and
/// where those do not know, the kernel itself (a client on a connected network whose ARP exchange the director has not
/// heard of yet).
#[inline(always)]
pub(super) fn next_hop<F: Family, P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    source: F::Address,
    client: F::Address,
) -> NextHop {
    if let Some(route) = F::route(tables, client) {
        let known = if route.next_hop != 0 {
            tables.next_hop(route.next_hop)
        } else {
            F::neighbour(tables, client, route.ifindex)
        };
        if let Some(known) = known
            && known.ifindex != 0
        {
            return *known;
        }
    }
    let mut found = F::kernel_next_hop(packet, source, client);
    match tables.egress(found.ifindex) {
        Some(slot) => found.egress = slot as u16,
        None => found.ifindex = 0,
    }
    found
}
