//! From the client to a real server: find the connection, or schedule it.

use core::sync::atomic::AtomicU64;

use super::deliver::deliver;
use super::{Ip, Subject, Verdict, answer};
use crate::atomic::{fetch_add, load};
use crate::connection::{State, Value};
use crate::family::Family;
use crate::layout::{self, Destination, Reason, Service, scheduler};
use crate::packet::Packet;
use crate::parse::{self, Transport};
use crate::table::{self, Key};
use crate::tables::Tables;
use crate::wire::protocol;

/// Where a packet of a service goes.
pub(super) enum Choice<'t> {
    /// To this destination (id and record).
    To(u32, &'t Destination),
    /// Nowhere.
    Verdict(Verdict),
}

/// A whole packet, or a first fragment's ports, for a service.
#[inline(always)]
pub(super) fn forward<F: Ip, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    subject: &Subject<'_, F>,
    transport: Transport,
    service: u32,
) -> Verdict {
    let network = &subject.network;
    if !network.is_consistent(packet, parse::transport_len(network.protocol)) {
        return Verdict::Drop(Reason::Malformed);
    }
    match choose(tables, subject, transport, service) {
        Choice::Verdict(verdict) => verdict,
        Choice::To(id, destination) => {
            let flow = flow_hash::<F>(network.source, transport);
            deliver(packet, tables, subject, true, id, destination, flow)
        }
    }
}

/// A hash of the flow for a tunnel's outer header: receivers spread by it, nothing is looked up by it.
#[inline(always)]
pub(super) fn flow_hash<F: Family>(client: F::Address, transport: Transport) -> u32 {
    let ports = u32::from(transport.source_port) << 16 | u32::from(transport.destination_port);
    // The upper half of the product: each of its bits depends on all of the ports'. (A client's ports in a row differ in
    // the upper bits of the word, which the lower half of a product never brings down.)
    let word = u64::from(F::folded(client) ^ ports).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (word >> 32) as u32
}

/// The destination of a connection, found or scheduled.
#[inline(always)]
pub(super) fn choose<'t, F: Ip, T: Tables>(
    tables: &'t T,
    subject: &Subject<'_, F>,
    transport: Transport,
    service: u32,
) -> Choice<'t> {
    let settings = subject.settings;
    let network = &subject.network;
    let is_tcp = network.protocol == protocol::TCP;
    let key = F::key(network.source, transport.source_port, service as u16);
    let now = settings.now_s as u16;

    let own = table::find::<F, T>(tables, settings, tables.cpu(), key);
    let known = if own.is_some() {
        own.value
    } else if is_tcp && transport.is_syn() {
        // A SYN of a flow that the NIC moved is scheduled anew rather than searched for: a flood of SYNs would search
        // every CPU's table.
        Value::NONE
    } else {
        Value(table::find_elsewhere::<F, T>(tables, &key))
    };
    if let Some(state) = State::from_u8(known.state())
        // A SYN on a closing connection is a new one under the same addresses (IPVS: conn_reuse_mode 1).
        && !(transport.is_syn() && matches!(state, State::Close | State::FinWait))
        && let Some(destination) = tables.destination(known.destination())
        && destination.method != 0
        && u32::from(destination.service) == service
    {
        let state = if is_tcp {
            state.after_segment(transport.flags, true)
        } else {
            state
        };
        let value = Value::new(known.destination(), now, state, known.flags());
        if !own.is_some() {
            // The original stays where it was: upkeep counts a connection once.
            let copy = Value::new(known.destination(), now, state, known.flags() | Value::COPY);
            remember::<F, T>(tables, &key, copy);
        } else if value != known {
            // Once a second and on a change of state: a hit does not make its cache line dirty.
            table::update::<F, T>(tables, &own, value);
        }
        return Choice::To(known.destination(), destination);
    }

    // New, or its real server is gone.
    let Some(record) = tables.service(service) else {
        return Choice::Verdict(Verdict::Pass);
    };
    let state = match (is_tcp, transport.is_syn()) {
        (false, _) => State::Udp,
        (true, true) => State::SynReceived,
        // In the middle of a connection nobody here knows. Schedulers that hash find the same real server again, on
        // every node; with the others the kernel answers with a reset, as it does behind IPVS.
        (true, false) if record.scheduler == scheduler::CURSOR => {
            return Choice::Verdict(Verdict::Pass);
        }
        (true, false) => State::Established.after_segment(transport.flags, true),
    };
    // A source that no client can have: the kernel, which drops it as a martian, is told. Without this two real servers
    // could be made to answer each other for ever (RFC 1812 section 5.3.7; UDP echo under the virtual address).
    if !F::is_unicast(network.source)
        || F::address(tables, network.source) & layout::address::VIRTUAL != 0
    {
        return Choice::Verdict(Verdict::Pass);
    }
    let Some((id, destination)) = schedule::<F, T>(
        tables,
        record,
        service,
        network.source,
        transport.source_port,
    ) else {
        return Choice::Verdict(answer(tables, layout::answer::PORT_UNREACHABLE, 0, false));
    };
    let value = Value::new(id, now, state, 0);
    if own.is_some() {
        table::update::<F, T>(tables, &own, value);
    } else {
        remember::<F, T>(tables, &key, value);
    }
    if let Some(counters) = tables.counters(id) {
        // SAFETY: this CPU's own memory (contract of `Tables`).
        unsafe { (*counters.as_ptr()).connections += 1 };
    }
    Choice::To(id, destination)
}

/// Enters a connection. A full table gives its least valuable entry up; without a table the packet is still forwarded.
#[inline(always)]
fn remember<F: Ip, T: Tables>(tables: &T, key: &Key<F>, value: Value) {
    table::insert::<F, T>(tables, key, value.0);
}

/// Chooses a destination for a new connection. `None`: there is none.
#[inline(always)]
fn schedule<'t, F: Family, T: Tables>(
    tables: &'t T,
    service: &Service,
    id: u32,
    client: F::Address,
    port: u16,
) -> Option<(u32, &'t Destination)> {
    let (first_slot, slots) = slots(service);
    if slots == 0 {
        return None;
    }
    let position = match service.scheduler {
        scheduler::CURSOR => fetch_add(tables.cursor(id)?, 1) as u32,
        scheduler::HASH_ADDRESS => client_hash::<F>(client, 0),
        _ => client_hash::<F>(client, port),
    };
    let destination = tables.slot(first_slot + position % slots)?;
    let record = tables.destination(destination)?;
    (record.method != 0).then_some((destination, record))
}

/// First slot and number of slots, read as the one word they are written as.
#[inline(always)]
fn slots(service: &Service) -> (u32, u32) {
    let word = core::ptr::from_ref(service).cast::<AtomicU64>();
    // SAFETY: `Service` is 8-aligned and begins with the two words; in shared memory they are written as one.
    let word = unsafe { load(&*word) }.to_le();
    (word as u32, (word >> 32) as u32)
}

/// Hash of a client for `mh`: the same on every node, so without the table's secret.
#[inline(always)]
fn client_hash<F: Family>(client: F::Address, port: u16) -> u32 {
    // Read as little-endian, so that nodes of either byte order agree.
    let word = u64::from(F::folded(client).to_le()) | u64::from(port.to_le()) << 32;
    let word = (word ^ 0x6d68_2d64_6972_6563).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((word ^ word >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) as u32
}
