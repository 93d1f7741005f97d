//! A packet of a service that belongs to no connection of this CPU's table: whose connection is it, or where does a new
//! one go?
//!
//! ```text
//!  in another CPU's table? ──► a copy here ──────────────┐
//!  may a connection begin with it? ──no──► pass, drop    ├──► Stage::Deliver
//!  persistence ──► scheduler ──► entry, load, counters ──┘
//!          └─ nobody available ──► ICMP, reset, silence
//! ```
//!
//! A stage of its own, and so is what follows ([`super::deliver::stage`]): schedulers are many, and neither their
//! instructions nor their stack should weigh on a hit.

pub mod counting;
pub mod locality;
mod persistence;
pub mod table_based;

use super::forward::{after_packet, direction_to, goes_on, key_of};
use super::{Ip, Subject, Verdict, answer, fragment, of_service, to_deliver, untracked};
use crate::atomic::{load, store};
use crate::connection::Value;
use crate::layout::{
    self, Destination, Load, Reason, Served, Service, Stage, destination, no_server, removed,
    scheduler, service,
};
use crate::packet::Packet;
use crate::parse::{Part, Transport};
use crate::reach::{Key, Reach, Shape};
use crate::state::State;
use crate::table::{self, Found};
use crate::tables::Tables;
use crate::wire::{protocol, tcp};

/// Who wants to be scheduled.
pub(crate) struct Candidate<'t, F: Ip> {
    pub(crate) service: &'t Service,
    pub(crate) served: Served,
    pub(crate) source: F::Address,
    /// As in the packet.
    pub(crate) source_port: u16,
    /// The virtual address.
    pub(crate) destination: F::Address,
    /// As in the packet.
    pub(crate) destination_port: u16,
    pub(crate) now_s: u32,
    /// Whether a connection begins; else nothing is to be remembered of it.
    pub(crate) begins: bool,
}

/// [`Stage::Schedule`] and [`Stage::Schedule6`].
#[inline(always)]
pub fn stage<F: Ip, R: Reach<F>, P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let Some((subject, transport, note)) = of_service::<F, P, T>(packet, tables) else {
        return Verdict::Pass;
    };
    let (served, is_new) = (Served(note.served), note.is_new != 0);
    match find_or_begin::<F, R, T>(tables, &subject, transport, served, is_new) {
        // And so are the datagram's other fragments.
        Verdict::Pass if subject.network.part == Part::First => {
            fragment::pass_all(tables, &subject)
        }
        verdict => verdict,
    }
}

#[inline(always)]
fn find_or_begin<F: Ip, R: Reach<F>, T: Tables>(
    tables: &T,
    subject: &Subject<'_, F>,
    transport: Transport,
    served: Served,
    is_new: bool,
) -> Verdict {
    let network = &subject.network;
    let key = key_of::<F, R>(network.source, transport, served);
    let is_tcp = network.protocol == protocol::TCP;
    let now = subject.settings.now_s as u16;
    let Some(service) = tables.service(served.service()) else {
        return Verdict::Pass;
    };

    // Known after all: here, with something that keeps it from going on, or on another CPU.
    let own = if is_new {
        Found::NOTHING
    } else {
        table::find::<R::Shape, T>(tables, subject.settings, tables.cpu(), key)
    };
    let (mut known, mut is_own) = (own.value, own.is_some());
    // A SYN of a flow that the NIC moved is scheduled anew rather than searched for: a flood of SYNs would search every CPU's
    // table.
    let begins = transport.is_syn() || service.flags & service::ONE_PACKET != 0 && !is_tcp;
    if !begins && (!is_own || own.value.may_be_left_over(subject.settings.now_s)) {
        let elsewhere = R::Shape::find_elsewhere(tables, key, tables.cpu());
        if !is_own || own.value.is_left_over_by(elsewhere, subject.settings.now_s) {
            (known, is_own) = (elsewhere, false);
        }
    }
    if let Some(state) = State::from_u8(known.state())
        && let Some(destination) = tables.destination(known.destination())
        && destination.method != 0
        && destination.service == served.service()
        && !(transport.is_syn() && state.is_reusable(direction_to(destination)))
    {
        if goes_on(destination, served) {
            let state = after_packet(state, is_tcp, transport, destination);
            // The original stays where it was: upkeep counts a connection once.
            let flags = known.flags() | if is_own { 0 } else { Value::COPY };
            let copy = Value::new(known.destination(), now, state, flags).in_place_of(known);
            R::Shape::put(tables, key, copy, is_new);
            return to(tables, known.destination(), served, F::IPV6);
        }
        if destination.flags & destination::CLOSED != 0 && is_tcp && !transport.is_syn() {
            if is_own {
                let closed = Value::new(known.destination(), now, State::Close, known.flags())
                    .in_place_of(known);
                table::update::<R::Shape, T>(tables, &own, closed);
                table::recount(tables, known, closed);
            }
            return answer(tables, layout::answer::RESET_CLOSED, 0, false);
        }
        if destination.flags & destination::GONE != 0 && service.removed == removed::DROP {
            return Verdict::Drop(Reason::DestinationGone);
        }
    } else if served.tracks_on_change()
        && is_tcp
        && !transport.is_syn()
        && let Some(verdict) = untracked::ended::<F, T>(
            tables,
            served,
            service,
            network.source,
            transport.source_port,
        )
    {
        return verdict;
    }
    begin::<F, R, T>(tables, subject, transport, served, service, key, is_new)
}

/// To the stage that delivers.
#[inline(always)]
fn to<T: Tables>(tables: &T, destination: u32, served: Served, ipv6: bool) -> Verdict {
    let stage = if ipv6 {
        Stage::Deliver6
    } else {
        Stage::Deliver
    };
    to_deliver(tables, stage, served, destination)
}

/// A new connection, if there may be one.
#[inline(always)]
fn begin<F: Ip, R: Reach<F>, T: Tables>(
    tables: &T,
    subject: &Subject<'_, F>,
    transport: Transport,
    served: Served,
    service: &Service,
    key: Key<R::Shape>,
    is_new: bool,
) -> Verdict {
    let network = &subject.network;
    let is_tcp = network.protocol == protocol::TCP;
    let state = if is_tcp {
        if !transport.is_syn() && !may_go_on_in_the_middle(service, transport) {
            // The kernel answers with a reset, as it does behind IPVS.
            return Verdict::Pass;
        }
        State::first(transport.flags)
    } else {
        State::UdpOne
    };
    // A source that no client can have: the kernel, which drops it as a martian, is told. Without this two real servers
    // could be made to answer each other for ever (RFC 1812 section 5.3.7; UDP echo under the virtual address).
    if !F::is_unicast(network.source)
        || F::address(tables, network.source) & layout::address::VIRTUAL != 0
    {
        return Verdict::Pass;
    }
    // A reset that goes on nevertheless is of a scheduler that hashes: whoever still has the connection is told.
    let begins = !is_tcp || transport.flags & tcp::RST == 0;
    let candidate = Candidate::<F> {
        service,
        served,
        source: network.source,
        source_port: transport.source_port,
        destination: network.destination,
        destination_port: transport.destination_port,
        now_s: subject.settings.now_s,
        begins,
    };
    // Whoever hashes finds the same real server again without an entry, unless the slot is changing hands.
    let mut needs_entry = !is_hashing(service);
    let id = if served.tracks_on_change() {
        let choice = untracked::choose(tables, &candidate, is_tcp, transport.is_syn());
        needs_entry = choice.needs_entry;
        choice.id
    } else if service.flags & service::PERSISTENT == 0 {
        choose(tables, &candidate)
    } else {
        persistence::choose(tables, &candidate)
    };
    if available(tables, id, served.service()).is_none() {
        return if begins {
            nobody(tables, service, is_tcp)
        } else {
            Verdict::Pass
        };
    }
    if !begins {
        return to(tables, id, served, F::IPV6);
    }
    if service.flags & service::ONE_PACKET == 0 || is_tcp {
        let value = Value::new(id, subject.settings.now_s as u16, state, 0);
        // Nor does it take the place of one before it under the same addresses, which may have been carried over already.
        let is_moving = subject.settings.flags & layout::settings::MOVING != 0;
        if (is_moving || !R::Shape::put(tables, key, value, is_new)) && needs_entry {
            return Verdict::Drop(if is_moving {
                Reason::Moving
            } else {
                Reason::TableFull
            });
        }
        overload(tables, id);
    }
    if let Some(counters) = tables.counters(id) {
        // SAFETY: this CPU's own memory (contract of `Tables`).
        unsafe { (*counters.as_ptr()).connections += 1 };
    }
    to(tables, id, served, F::IPV6)
}

/// Whether the scheduler finds the same destination again for the same client.
#[inline(always)]
fn is_hashing(service: &Service) -> bool {
    matches!(
        service.scheduler,
        scheduler::MAGLEV | scheduler::SOURCE | scheduler::DESTINATION
    )
}

/// In the middle of a connection nobody here knows. Schedulers that hash find the same real server again, on every node;
/// with the others only `sloppy` lets it begin (IPVS: `sloppy_tcp`).
///
/// Never with a reset (`tcp_conn_schedule` of the kernel, which leaves it to the host's stack). Under a hash it goes to the
/// real server all the same, without an entry: a connection that this node has forgotten, or another node had, is then
/// closed at that end too.
#[inline(always)]
fn may_go_on_in_the_middle(service: &Service, transport: Transport) -> bool {
    is_hashing(service) || service.flags & service::SLOPPY != 0 && transport.flags & tcp::RST == 0
}

/// The scheduler's choice: a destination id, 0 if there is none.
#[inline(always)]
fn choose<F: Ip, T: Tables>(tables: &T, candidate: &Candidate<'_, F>) -> u32 {
    let service = candidate.served.service();
    match candidate.service.scheduler {
        kind if kind < scheduler::FIRST_COUNTING => {
            tables.choose_by_table(service, table_based::hash(candidate))
        }
        kind if kind < scheduler::LBLC => tables.choose_by_count(service),
        _ => {
            let address = words(F::to_table(candidate.destination));
            tables.choose_by_locality(service, address, candidate.now_s)
        }
    }
}

/// Sixteen bytes as two numbers, as they stand in memory.
#[inline(always)]
fn words(bytes: [u8; 16]) -> [u64; 2] {
    // SAFETY: both are 16 bytes of plain data.
    unsafe { core::mem::transmute(bytes) }
}

/// A destination that exists and is the service's.
#[inline(always)]
fn available<T: Tables>(tables: &T, id: u32, service: u16) -> Option<&Destination> {
    let record = tables.destination(id)?;
    (id != 0 && record.method != 0 && record.service == service).then_some(record)
}

/// Whether a destination may get a new connection: it has a weight and is not overloaded.
#[inline(always)]
pub(super) fn takes(destination: &Load) -> bool {
    load(&destination.weight) != 0 && load(&destination.flags) & layout::load::OVERLOADED == 0
}

/// Marks a destination that has reached its upper threshold (`ip_vs_bind_dest`).
#[inline(always)]
fn overload<T: Tables>(tables: &T, id: u32) {
    let Some(destination) = tables.load(id) else {
        return;
    };
    let upper = load(&destination.upper);
    if upper == 0 {
        return;
    }
    let connections = load(&destination.active).wrapping_add(load(&destination.inactive));
    // Below 0 for a moment: not many.
    if (connections as i64) >= upper as i64 {
        store(&destination.flags, layout::load::OVERLOADED);
    }
}

/// No destination is available.
#[inline(always)]
fn nobody<T: Tables>(tables: &T, service: &Service, is_tcp: bool) -> Verdict {
    match service.no_server {
        no_server::SILENT => Verdict::Drop(Reason::NoRealServer),
        no_server::RESET if is_tcp => answer(tables, layout::answer::RESET_NO_SERVER, 0, false),
        _ => answer(tables, layout::answer::PORT_UNREACHABLE, 0, false),
    }
}

/// First slot and number of slots, read as the one word they are written as.
#[inline(always)]
pub(crate) fn slots(service: &Service) -> (u32, u32) {
    let word = core::ptr::from_ref(service).cast::<core::sync::atomic::AtomicU64>();
    // SAFETY: `Service` is 8-aligned and begins with the two words; in shared memory they are written as one.
    let word = unsafe { load(&*word) }.to_le();
    (word as u32, (word >> 32) as u32)
}
