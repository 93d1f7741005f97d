//! From a NAT real server to the client: the source becomes the virtual address again.

use core::marker::PhantomData;

use super::send::{self, account};
use super::translate::{End, New, translate_and_send};
use super::{Ip, Subject, Verdict, answer};
use crate::connection::Value;
use crate::family::Family;
use crate::layout::{
    self, Endpoint, NextHop, Reason, Settings, SharedBy, destination, limits, method,
};
use crate::packet::Packet;
use crate::parse::Transport;
use crate::reach::{Reach, Shape};
use crate::state::{Direction, State};
use crate::table::{self, EVERYWHERE, Found};
use crate::tables::Tables;
use crate::verifier::repeat;
use crate::wire::{protocol, tcp};

/// The connection that a packet of a NAT real server belongs to.
pub(super) struct Owner<'t> {
    pub(super) destination: u32,
    pub(super) endpoint_id: u16,
    pub(super) endpoint: &'t Endpoint,
}

impl Owner<'_> {
    /// The port that the client knows, as in the packet; 0: the one that the real server answers from.
    #[inline(always)]
    pub(super) fn virtual_port(&self) -> u16 {
        let (first, last) = (
            u16::from_ne_bytes(self.endpoint.port),
            u16::from_ne_bytes(self.endpoint.last_port),
        );
        if first == last { first } else { 0 }
    }
}

/// A packet from the address and port of a NAT real server.
#[inline(always)]
pub(super) fn reply<F: Ip, R: Reach<F>, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    subject: &Subject<'_, F>,
    transport: Transport,
    shared: &SharedBy,
) -> Verdict {
    let network = &subject.network;
    let flags = (network.protocol == protocol::TCP).then_some(transport.flags);
    let Some(owner) = owner::<F, R, T>(
        tables,
        subject,
        (network.destination, transport.destination_port),
        (network.source, transport.source_port),
        flags,
        shared,
    ) else {
        // An answer to a health check, or to a client that reached the real server directly: none of ours.
        return Verdict::Pass;
    };
    if !network.is_consistent(packet, crate::parse::transport_len(network.protocol)) {
        return Verdict::Drop(Reason::Malformed);
    }
    if flags.is_some()
        && tables
            .destination(owner.destination)
            .is_some_and(|record| record.flags & destination::CLOSED != 0)
    {
        return answer(tables, layout::answer::RESET_CLOSED, 0, true);
    }
    return_to_client(packet, tables, subject, true, &owner)
}

/// A connection looked for in the CPUs' tables, among the endpoints that a real server answers.
struct Search<'t, F: Family, R, T> {
    tables: &'t T,
    settings: &'t Settings,
    shared: &'t SharedBy,
    client: (F::Address, u16),
    real_server: (F::Address, u16),
    /// The CPU whose table is left out, or [`EVERYWHERE`].
    but: u32,
    /// Whether a connection begins that ends all others of the client's port with the real server.
    supersedes: bool,
    endpoint: u16,
    value: Value,
    /// Flags of its entry in this CPU's table, found or to be made.
    flags: u8,
    reach: PhantomData<R>,
}

/// Which of a client's connections to one real server a packet is of: the lowest is. To the real server they are the
/// same one, so it is the last one begun: an older one is closing, or has been idle longer.
#[inline(always)]
fn age(value: Value, now_s: u32) -> u32 {
    let state = State::from_u8(value.state());
    let closing = matches!(
        state,
        Some(State::FinWait | State::CloseWait | State::TimeWait | State::Close)
    );
    let begun_before = state != Some(State::SynReceived);
    u32::from(closing) << 17 | u32::from(value.idle_s(now_s)) << 1 | u32::from(begun_before)
}

/// Whether a connection's destination is this real server, as the endpoint's service uses it.
#[inline(always)]
fn is_of<F: Family, R: Reach<F>, T: Tables>(
    tables: &T,
    value: Value,
    endpoint: u16,
    real_server: (F::Address, u16),
) -> bool {
    let (Some(destination), Some(endpoint)) = (
        tables.destination(value.destination()),
        tables.endpoint(endpoint),
    ) else {
        return false;
    };
    // A range was found by this very port: the key names it.
    let port = match (destination.port, R::RANGED) {
        ([0, 0], true) => real_server.1.to_ne_bytes(),
        ([0, 0], false) => endpoint.port,
        (port, _) => port,
    };
    destination.method == method::NAT
        && destination.service == endpoint.service
        && u16::from_ne_bytes(port) == real_server.1
        && F::is_same(F::from_table(&destination.address), real_server.0)
}

/// Looks for the connection in one CPU's table, under one of the endpoints: every turn another pair.
extern "C" fn search<F: Family, R: Reach<F>, T: Tables>(
    turn: u32,
    search: *mut Search<'_, F, R, T>,
) -> i64 {
    const ENDPOINTS: u32 = limits::ENDPOINTS_PER_REAL_SERVER as u32;
    // SAFETY: `repeat` hands over what it was given.
    let search = unsafe { &mut *search };
    let cpu = turn / ENDPOINTS;
    let endpoint = search.shared.endpoints[(turn % ENDPOINTS) as usize];
    if endpoint == 0 || cpu == search.but {
        return 0;
    }
    let key = R::key(
        search.client.0,
        search.client.1,
        search.real_server.1,
        endpoint,
    );
    let value = table::find_foreign::<R::Shape, T>(search.tables, search.settings, cpu, key);
    let now_s = search.settings.now_s;
    if value.is_some()
        && is_of::<F, R, T>(search.tables, value, endpoint, search.real_server)
        && (!search.value.is_some() || age(value, now_s) < age(search.value, now_s))
    {
        search.endpoint = endpoint;
        search.value = value;
    }
    0
}

/// Forgets the client's connections to the real server by its other endpoints, in this CPU's table.
extern "C" fn supersede<F: Family, R: Reach<F>, T: Tables>(
    turn: u32,
    search: *mut Search<'_, F, R, T>,
) -> i64 {
    // SAFETY: `repeat` hands over what it was given.
    let search = unsafe { &mut *search };
    let endpoint = search.shared.endpoints[turn as usize % limits::ENDPOINTS_PER_REAL_SERVER];
    if endpoint == 0 {
        return 0;
    }
    let key = R::key(
        search.client.0,
        search.client.1,
        search.real_server.1,
        endpoint,
    );
    let tables = search.tables;
    let found = table::find::<R::Shape, T>(tables, search.settings, tables.cpu(), key);
    if !found.is_some() || !is_of::<F, R, T>(tables, found.value, endpoint, search.real_server) {
        return 0;
    }
    if endpoint == search.endpoint {
        search.flags = found.value.flags();
    } else {
        table::update::<R::Shape, T>(tables, &found, Value::NONE);
        table::uncount(tables, found.value);
    }
    0
}

/// The connection of (client, real server), in whichever CPU's table it stands, without a trace: for the rare packets that
/// are only about it.
#[inline(always)]
pub(super) fn owner_anywhere<'t, F: Ip, R: Reach<F>, T: Tables>(
    tables: &'t T,
    settings: &Settings,
    client: (F::Address, u16),
    real_server: (F::Address, u16),
    shared: &SharedBy,
) -> Option<Owner<'t>> {
    let mut state = Search::<F, R, T> {
        tables,
        settings,
        shared,
        client,
        real_server,
        but: EVERYWHERE,
        supersedes: false,
        endpoint: 0,
        value: Value::NONE,
        flags: Value::COPY,
        reach: PhantomData,
    };
    search_all(&mut state);
    if !state.value.is_some() {
        return None;
    }
    Some(Owner {
        destination: state.value.destination(),
        endpoint_id: state.endpoint,
        endpoint: tables.endpoint(state.endpoint)?,
    })
}

/// Looks for the connection in the CPUs' tables. Not inlined: rare, and on a stack frame of its own.
///
/// In all of them when a real server that answers several endpoints has begun a new connection: to it there is but one
/// under the client's address and port, so those by other endpoints are over. Were they not forgotten here, the new one's
/// replies would seem to be of one of them.
#[inline(never)]
fn search_all<F: Family, R: Reach<F>, T: Tables>(state: &mut Search<'_, F, R, T>) {
    const ENDPOINTS: u32 = limits::ENDPOINTS_PER_REAL_SERVER as u32;
    let cpus = state.settings.cpus.min(limits::CPUS);
    repeat(cpus * ENDPOINTS, state, search::<F, R, T>);
    if state.supersedes && state.value.is_some() {
        repeat(ENDPOINTS, state, supersede::<F, R, T>);
    }
}

/// Finds the connection of (client, real server) among the endpoints that the real server answers.
///
/// `flags` are a reply's TCP flags: SYN-ACK, FIN and RST move the connection on; plain data is acknowledged by the
/// client, whose packets keep it. Nothing acknowledges UDP, so its replies keep the connection too.
/// A connection found in another CPU's table is copied into this one's.
#[inline(always)]
pub(super) fn owner<'t, F: Ip, R: Reach<F>, T: Tables>(
    tables: &'t T,
    subject: &Subject<'_, F>,
    client: (F::Address, u16),
    real_server: (F::Address, u16),
    flags: Option<u8>,
    shared: &SharedBy,
) -> Option<Owner<'t>> {
    let settings = subject.settings;
    // A connection begins: whatever this CPU knows may be of one before it.
    let begins = shared.endpoints[1] != 0 && flags.is_some_and(|flags| flags & tcp::SYN != 0);
    let mut own = Found::NOTHING;
    let mut endpoint = 0;
    let mut index = if begins {
        limits::ENDPOINTS_PER_REAL_SERVER
    } else {
        0
    };
    while index < limits::ENDPOINTS_PER_REAL_SERVER {
        let candidate = shared.endpoints[index];
        if candidate == 0 {
            break;
        }
        let key = R::key(client.0, client.1, real_server.1, candidate);
        let found = table::find::<R::Shape, T>(tables, settings, tables.cpu(), key);
        if found.is_some() && is_of::<F, R, T>(tables, found.value, candidate, real_server) {
            own = found;
            endpoint = candidate;
            break;
        }
        index += 1;
    }
    let mut value = own.value;
    let mut copy = Value::COPY;
    if !own.is_some() {
        let mut state = Search::<F, R, T> {
            tables,
            settings,
            shared,
            client,
            real_server,
            but: if begins { EVERYWHERE } else { tables.cpu() },
            supersedes: begins,
            endpoint: 0,
            value: Value::NONE,
            flags: Value::COPY,
            reach: PhantomData,
        };
        search_all(&mut state);
        endpoint = state.endpoint;
        value = state.value;
        copy = state.flags;
    }
    let state = State::from_u8(value.state())?;
    let record = tables.endpoint(endpoint)?;
    let moves = flags.is_some_and(|flags| flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0);
    let state = match flags {
        Some(flags) if moves => state.after_segment(flags, Direction::Output),
        Some(_) => state,
        None => State::Udp,
    };
    let now = settings.now_s as u16;
    if !own.is_some() {
        // The NIC brings replies to another CPU than the client's packets: from now on this one has a copy.
        let key = R::key(client.0, client.1, real_server.1, endpoint);
        let flags = copy & Value::COPY | value.flags() & Value::SENT;
        let copy = Value::new(value.destination(), now, state, flags).in_place_of(value);
        R::Shape::put(tables, key, copy, false);
    } else if moves || flags.is_none() {
        let new = Value::new(value.destination(), now, state, value.flags());
        if new != value {
            let new = new.in_place_of(value);
            table::update::<R::Shape, T>(tables, &own, new);
            table::recount(tables, value, new);
        }
    }
    Some(Owner {
        destination: value.destination(),
        endpoint_id: endpoint,
        endpoint: record,
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
        address: F::from_table(&owner.endpoint.address),
        port: owner.virtual_port(),
    };
    let verdict = translate_and_send(packet, tables, subject, new, has_ports, &next_hop);
    account(
        tables,
        owner.destination,
        send::Direction::Out,
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
