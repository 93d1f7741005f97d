//! Fragments: the first of a datagram decides, because it has the ports; the others follow it.
//!
//! A fragment that comes before the first cannot be decided. It is copied to userspace, which hands it in again once
//! the first has been seen, or gives it up after [`crate::layout::Settings::fragment_timeout_ms`].
//!
//! What the first decided is forgotten as soon as all bytes of the datagram have been seen, and at the latest after
//! that same time, so that another datagram under the same identification never follows it to the wrong server.

use core::sync::atomic::AtomicU64;

use super::deliver::deliver;
use super::forward::{Choice, flow_hash, known};
use super::reply::{Owner, owner, return_to_client};
use super::{Ip, Subject, Verdict, may_be_ranged, subject};
use crate::atomic::{fetch_add, load, store};
use crate::layout::{Fragment, Reason, Stage, address};
use crate::packet::Packet;
use crate::parse::{self, Part};
use crate::reach::Reach;
use crate::tables::Tables;
use crate::wire::protocol;

/// What the rules are given, if the fragment's addresses are of any interest. `None`: it is nobody's.
#[inline(always)]
fn fragment<'t, F: Ip, P: Packet, T: Tables>(packet: &P, tables: &'t T) -> Option<Subject<'t, F>> {
    let link = parse::link(packet)?;
    let network = F::network(packet, link.l3)?;
    let to_service = F::address(tables, network.destination) & address::VIRTUAL != 0;
    let from_real_server = F::address(tables, network.source) & address::REAL != 0;
    if !to_service && !from_real_server {
        return None;
    }
    subject(packet, tables, link, network)
}

/// [`crate::layout::Stage::First`] and [`crate::layout::Stage::First6`]: decides as for a whole packet, writes that down,
/// and goes the way of the others.
#[inline(always)]
pub fn first<F: Ip, R: Reach<F>, P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let Some(subject) = fragment::<F, P, T>(packet, tables) else {
        return Verdict::Pass;
    };
    let subject = &subject;
    let network = &subject.network;
    let Some(transport) = parse::transport(packet, network.l4, network.protocol) else {
        return pass_all(tables, subject);
    };
    if !network.is_consistent(packet, parse::transport_len(network.protocol)) {
        return Verdict::Drop(Reason::Malformed);
    }
    if let Some(served) = R::served(
        tables,
        network.destination,
        transport.destination_port,
        network.protocol,
    ) {
        // Of a connection that is not known, the stages that schedule and deliver come back to `decide`.
        let id = match known::<F, R, T>(tables, subject, transport, served) {
            Choice::To(id, _) => id,
            Choice::Verdict(verdict) => return verdict,
        };
        let flow = flow_hash::<F>(network.source, transport);
        return decide(tables, subject, id, served.endpoint(), flow, false);
    }
    let Some(shared) = R::real_server(
        tables,
        network.source,
        transport.source_port,
        network.protocol,
    ) else {
        return match (may_be_ranged::<F, R, T>(tables), F::IPV6) {
            (false, _) => pass_all(tables, subject),
            (true, false) => Verdict::Continue(Stage::FirstRanged),
            (true, true) => Verdict::Continue(Stage::First6Ranged),
        };
    };
    let flags = (network.protocol == protocol::TCP).then_some(transport.flags);
    match owner::<F, R, T>(
        tables,
        subject,
        (network.destination, transport.destination_port),
        (network.source, transport.source_port),
        flags,
        shared,
    ) {
        Some(owner) => decide(
            tables,
            subject,
            owner.destination,
            owner.endpoint_id,
            0,
            true,
        ),
        None => pass_all(tables, subject),
    }
}

/// None of ours, and so are the datagram's other fragments: destination 0.
#[inline(always)]
pub(super) fn pass_all<F: Ip, T: Tables>(tables: &T, subject: &Subject<'_, F>) -> Verdict {
    decide(tables, subject, 0, 0, 0, false)
}

/// Writes down what the first fragment decided.
#[inline(always)]
pub(super) fn decide<F: Ip, T: Tables>(
    tables: &T,
    subject: &Subject<'_, F>,
    destination: u32,
    endpoint: u16,
    flow: u32,
    reply: bool,
) -> Verdict {
    let network = &subject.network;
    let fragment = Fragment {
        expires_ns: tables.now_ns() + u64::from(subject.settings.fragment_timeout_ms) * 1_000_000,
        destination,
        flow,
        endpoint,
        reply: u8::from(reply),
        zero: [0; 5],
        seen_bytes: 0,
        total_bytes: 0,
    };
    if !F::put_fragment(tables, &F::fragment_key(network), &fragment) {
        return Verdict::Drop(Reason::FragmentLost);
    }
    Verdict::Continue(if F::IPV6 { Stage::Later6 } else { Stage::Later })
}

/// [`crate::layout::Stage::Later`] and [`crate::layout::Stage::Later6`]: follows what the first fragment decided. That one
/// comes here too, and differs only in having ports.
#[inline(always)]
pub fn later<F: Ip, P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let Some(subject) = fragment::<F, P, T>(packet, tables) else {
        return Verdict::Pass;
    };
    let subject = &subject;
    let network = &subject.network;
    if !network.is_consistent(packet, 0) {
        return Verdict::Drop(Reason::Malformed);
    }
    let is_first = network.part == Part::First;
    let key = F::fragment_key(network);
    let now_ns = tables.now_ns();
    let known = F::fragment(tables, &key).and_then(|known| {
        let known = known.as_ptr();
        // SAFETY: valid for as long as the packet is being handled; the fields read here do not change, and the two
        // that do are only touched atomically (contract of `Tables`).
        let fragment = unsafe {
            Fragment {
                expires_ns: (*known).expires_ns,
                destination: (*known).destination,
                flow: (*known).flow,
                endpoint: (*known).endpoint,
                reply: (*known).reply,
                ..Fragment::default()
            }
        };
        if now_ns >= fragment.expires_ns {
            return None;
        }
        let bytes = u64::from(network.length.wrapping_sub(network.unfragmentable));
        // SAFETY: aligned fields of a live value, written by every CPU through atomics only.
        let (seen, total) = unsafe {
            (
                AtomicU64::from_ptr(&raw mut (*known).seen_bytes),
                AtomicU64::from_ptr(&raw mut (*known).total_bytes),
            )
        };
        let seen_bytes = fetch_add(seen, bytes).wrapping_add(bytes);
        if !network.more {
            store(total, u64::from(network.offset) + bytes);
        }
        let total_bytes = load(total);
        let complete = total_bytes != 0 && seen_bytes >= total_bytes;
        Some((fragment, complete))
    });
    let Some((known, complete)) = known else {
        return if !is_first && tables.hold(packet, now_ns) {
            Verdict::Drop(Reason::FragmentHeld)
        } else {
            Verdict::Drop(Reason::FragmentLost)
        };
    };
    if complete {
        F::remove_fragment(tables, &key);
    }
    if known.destination == 0 {
        return Verdict::Pass;
    }
    if known.reply != 0 {
        let Some(endpoint) = tables.endpoint(known.endpoint) else {
            return Verdict::Drop(Reason::DestinationGone);
        };
        let owner = Owner {
            destination: known.destination,
            endpoint_id: known.endpoint,
            endpoint,
        };
        return return_to_client(packet, tables, subject, is_first, &owner);
    }
    let Some(destination) = tables.destination(known.destination) else {
        return Verdict::Drop(Reason::DestinationGone);
    };
    let service = tables
        .endpoint(known.endpoint)
        .map_or(0, |endpoint| endpoint.service);
    if destination.method == 0 || destination.service != service {
        return Verdict::Drop(Reason::DestinationGone);
    }
    deliver(
        packet,
        tables,
        subject,
        is_first,
        known.destination,
        destination,
        known.flow,
    )
}
