//! Services that track connections on change only ([`crate::layout::service::ON_CHANGE`]): the slot of the Maglev table that
//! a client falls into says whose packet it is.
//!
//! ```text
//!  slot not marked ──► its owner; no connection is looked up or entered
//!  slot marked     ──► a connection that is known ──► where it is
//!                      begins ─────────────────────► the owner, and entered
//!                      neither ────────────────────► who had the slot before, and entered
//! ```
//!
//! A slot is marked when its owner changes, and stays so until no connection is anywhere else than at the new one. The
//! director does that, see `owners` there. So what begins in a settled slot has no entry, and needs none until its owner
//! changes; then its next packet has none, does not begin a connection, and belongs to who had the slot.

use super::forward::goes_on;
use super::schedule::table_based::{client_hash, port_that_counts};
use super::schedule::{Candidate, slots, takes};
use super::{Ip, Verdict, answer};
use crate::connection::Value;
use crate::layout::{self, Destination, Reason, Served, Service, destination, removed, slot};
use crate::tables::Tables;

/// The slot of a client, by its address and port as in the packet.
#[inline(always)]
fn slot_of<F: Ip, T: Tables>(
    tables: &T,
    served: Served,
    client: F::Address,
    port: u16,
) -> Option<u32> {
    let service = tables.service(served.service())?;
    let (first_slot, slots) = slots(service);
    if slots == 0 {
        return None;
    }
    let hash = client_hash(F::folded(client), port_that_counts(service, port));
    tables.slot(first_slot.wrapping_add(hash % slots))
}

/// Whether a packet may be a client's, as far as it must be asked before it is forwarded by its slot alone. One that may not
/// goes on as with other services, where a connection is refused to it.
///
/// Of a datagram also whether it comes from a virtual address: two real servers that answer whatever they get (UDP echo)
/// would answer each other for ever. Segments of TCP are spared that look (a bit of [`crate::filter`] mostly): an answer to one
/// that is out of place is a reset, and nobody answers that.
#[inline(always)]
fn may_be_a_clients<F: Ip, T: Tables>(tables: &T, client: F::Address, is_tcp: bool) -> bool {
    F::is_unicast(client) && (is_tcp || F::address(tables, client) & layout::address::VIRTUAL == 0)
}

/// The destination of a packet in a slot that is not marked: id and record. `None`: it is as with other services.
#[inline(always)]
pub(super) fn settled<F: Ip, T: Tables>(
    tables: &T,
    served: Served,
    client: F::Address,
    port: u16,
    is_tcp: bool,
) -> Option<(u32, &Destination)> {
    if !may_be_a_clients::<F, T>(tables, client, is_tcp) {
        return None;
    }
    let word = slot_of::<F, T>(tables, served, client, port)?;
    if slot::previous(word) != 0 {
        return None;
    }
    let id = slot::owner(word);
    let destination = tables.destination(id)?;
    goes_on(destination, served).then_some((id, destination))
}

/// To whom a packet of a connection goes that nobody begins, for messages about it: a destination id, 0 if nobody has it.
/// `known`: its entry.
#[inline(always)]
pub(super) fn owner<F: Ip, T: Tables>(
    tables: &T,
    served: Served,
    client: F::Address,
    port: u16,
    known: Value,
) -> u32 {
    let Some(word) = slot_of::<F, T>(tables, served, client, port) else {
        return known.destination();
    };
    let previous = slot::previous(word);
    if previous == 0 {
        slot::owner(word)
    } else if known.is_some() {
        known.destination()
    } else {
        previous
    }
}

/// Who had a packet's slot before. 0: nobody, or the slot is not marked.
#[inline(always)]
fn previous<F: Ip, T: Tables>(tables: &T, served: Served, client: F::Address, port: u16) -> u32 {
    slot_of::<F, T>(tables, served, client, port).map_or(0, slot::previous)
}

/// What becomes of a packet in the middle of a TCP connection that is not known, where it belongs to a destination that is
/// through with its connections. `None`: it goes on.
#[inline(always)]
pub(super) fn ended<F: Ip, T: Tables>(
    tables: &T,
    served: Served,
    service: &Service,
    client: F::Address,
    port: u16,
) -> Option<Verdict> {
    let id = previous::<F, T>(tables, served, client, port);
    let destination = tables.destination(id)?;
    if destination.method == 0 || destination.service != served.service() {
        return None;
    }
    if destination.flags & destination::CLOSED != 0 {
        return Some(answer(tables, layout::answer::RESET_CLOSED, 0, false));
    }
    let is_dropped = destination.flags & destination::GONE != 0 && service.removed == removed::DROP;
    is_dropped.then_some(Verdict::Drop(Reason::DestinationGone))
}

/// Whom a packet goes to that is of no known connection.
pub(super) struct Choice {
    /// Destination id; 0: nobody.
    pub(super) id: u32,
    /// Whether its next packet, without an entry, would go somewhere else.
    pub(super) needs_entry: bool,
}

/// Whom a packet goes to that is of no known connection. `begins`: whether it says that it begins one.
///
/// A datagram never says so. It goes to who had the slot as long as that is in service, because it may be of a flow that is
/// there, and if not it is served there just as well.
#[inline(always)]
pub(super) fn choose<F: Ip, T: Tables>(
    tables: &T,
    candidate: &Candidate<'_, F>,
    is_tcp: bool,
    begins: bool,
) -> Choice {
    let served = candidate.served;
    let previous = previous::<F, T>(tables, served, candidate.source, candidate.source_port);
    let is_there = tables
        .destination(previous)
        .is_some_and(|destination| goes_on(destination, served));
    let may_be_of_it = if is_tcp {
        !begins
    } else {
        tables.load(previous).is_some_and(takes)
    };
    if is_there && may_be_of_it {
        return Choice {
            id: previous,
            needs_entry: false,
        };
    }
    let port = port_that_counts(candidate.service, candidate.source_port);
    let hash = client_hash(F::folded(candidate.source), port);
    let id = tables.choose_by_table(served.service(), hash);
    Choice {
        id,
        needs_entry: id != previous,
    }
}
