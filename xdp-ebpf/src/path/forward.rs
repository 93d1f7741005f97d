//! From the client to a real server: a packet of a connection that this CPU's table knows.
//!
//! Everything else (new connections, flows that the NIC moved, destinations that are gone) is the business of
//! [`super::schedule`], a stage of its own: this is the hot path.

use super::deliver::deliver;
use super::{Ip, Subject, Verdict, to_schedule, untracked};
use crate::connection::Value;
use crate::family::Family;
use crate::layout::{Destination, Reason, Served, Stage, destination, method};
use crate::packet::Packet;
use crate::parse::{self, Transport};
use crate::reach::{Key, Reach};
use crate::state::{Direction, State};
use crate::table;
use crate::tables::Tables;
use crate::wire::protocol;

/// Where a packet of a service goes.
pub(super) enum Choice<'t> {
    /// To this destination (id and record).
    To(u32, &'t Destination),
    /// Nowhere yet.
    Verdict(Verdict),
}

/// A whole packet for a service.
#[inline(always)]
pub(super) fn forward<F: Ip, R: Reach<F>, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    subject: &Subject<'_, F>,
    transport: Transport,
    served: Served,
) -> Verdict {
    let network = &subject.network;
    if !network.is_consistent(packet, parse::transport_len(network.protocol)) {
        return Verdict::Drop(Reason::Malformed);
    }
    match known::<F, R, T>(tables, subject, transport, served) {
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

/// Key of the connection of a client's packet.
#[inline(always)]
pub(super) fn key_of<F: Ip, R: Reach<F>>(
    client: F::Address,
    transport: Transport,
    served: Served,
) -> Key<R::Shape> {
    R::key(
        client,
        transport.source_port,
        transport.destination_port,
        served.endpoint(),
    )
}

/// How much of a destination's traffic passes here.
#[inline(always)]
pub(super) fn direction_to(destination: &Destination) -> Direction {
    if destination.method == method::NAT {
        Direction::Input
    } else {
        Direction::InputOnly
    }
}

/// The state after a client's packet.
#[inline(always)]
pub(super) fn after_packet(
    state: State,
    is_tcp: bool,
    transport: Transport,
    destination: &Destination,
) -> State {
    if is_tcp {
        state.after_segment(transport.flags, direction_to(destination))
    } else {
        State::Udp
    }
}

/// Whether a connection goes on at its destination: it is the service's, and neither gone nor closed.
#[inline(always)]
pub(super) fn goes_on(destination: &Destination, served: Served) -> bool {
    destination.method != 0
        && destination.service == served.service()
        && destination.flags & (destination::CLOSED | destination::GONE) == 0
}

/// The destination of a connection that this CPU's table knows, or that needs none to be known; of any other packet, the
/// stage that schedules.
#[inline(always)]
pub(super) fn known<'t, F: Ip, R: Reach<F>, T: Tables>(
    tables: &'t T,
    subject: &Subject<'_, F>,
    transport: Transport,
    served: Served,
) -> Choice<'t> {
    let settings = subject.settings;
    let network = &subject.network;
    let is_tcp = network.protocol == protocol::TCP;
    if served.tracks_on_change()
        && let Some((id, destination)) = untracked::settled::<F, T>(
            tables,
            served,
            network.source,
            transport.source_port,
            is_tcp,
        )
    {
        return Choice::To(id, destination);
    }
    let key = key_of::<F, R>(network.source, transport, served);
    let own = table::find::<R::Shape, T>(tables, settings, tables.cpu(), key);
    if let Some(state) = State::from_u8(own.value.state())
        && let Some(destination) = tables.destination(own.value.destination())
        && goes_on(destination, served)
        && !(transport.is_syn() && state.is_reusable(direction_to(destination)))
    {
        let value = Value::new(
            own.value.destination(),
            settings.now_s as u16,
            after_packet(state, is_tcp, transport, destination),
            own.value.flags(),
        );
        if value == own.value {
            return Choice::To(own.value.destination(), destination);
        }
        // Once a second and on a change of state: a hit does not make its cache line dirty, and asks nothing more.
        if !own.value.may_be_left_over(settings.now_s) {
            let value = value.in_place_of(own.value);
            table::update::<R::Shape, T>(tables, &own, value);
            table::recount(tables, own.value, value);
            return Choice::To(own.value.destination(), destination);
        }
    }
    let stage = match (F::IPV6, R::RANGED) {
        (false, false) => Stage::Schedule,
        (true, false) => Stage::Schedule6,
        (false, true) => Stage::ScheduleRanged,
        (true, true) => Stage::Schedule6Ranged,
    };
    Choice::Verdict(to_schedule(tables, stage, served, !own.is_some()))
}
