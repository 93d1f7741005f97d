//! The rules: what becomes of a packet.
//!
//! ```text
//!  enter ──► whose is it? ──► forward ──► known ──────────► deliver (NAT, DR, TUN) ──► send
//!              │   │   │                    └─ schedule ──────┘ (stages of their own: new connections)
//!              │   │   └────► reply ────► translate back ───────────────────────────► send
//!              │   └─ fragment, icmp: stages of their own (rare)
//!              └─ nobody's: pass
//!  answer: an ICMP message back to the sender (a stage)
//!  fence: this node's lease has run out (a stage, before all others)
//! ```
//!
//! A stage is a program of its own in the kernel, reached by a tail call, with its own stack and its own verification;
//! natively [`run`] goes through them in a loop.

pub mod answer;
pub mod deliver;
pub mod fence;
mod forward;
pub mod fragment;
pub mod icmp;
mod reply;
mod reset;
pub mod schedule;
mod send;
mod translate;
mod tunnel;
mod untracked;

use crate::family::{Family, V4, V6};
use crate::layout::{self, Reason, Scratch, Served, Settings, Stage, own_mac};
use crate::packet::Packet;
use crate::parse::{self, Link, Network, Part, Transport};
use crate::reach::{Exact, Ranged, Reach};
use crate::tables::Tables;
use crate::wire::ethernet;

use translate::Translate;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On to the kernel's network stack.
    Pass,
    /// Dropped; the shell counts the reason.
    Drop(Reason),
    /// Sent out by the interface it came in by.
    Transmit,
    /// Sent out by another interface: its slot in the devmap.
    Redirect(u32),
    /// Another stage decides.
    Continue(Stage),
}

/// A family that the whole path works for.
pub trait Ip: Family + Translate {}
impl Ip for V4 {}
impl Ip for V6 {}

/// A packet's links and headers and the node's settings: what every rule is given.
pub(crate) struct Subject<'t, F: Family> {
    pub(crate) settings: &'t Settings,
    pub(crate) link: Link,
    pub(crate) network: Network<F>,
    /// Bytes of the frame as received.
    pub(crate) frame_bytes: u64,
}

impl<'t, F: Family> Subject<'t, F> {
    #[inline(always)]
    fn new<P: Packet>(packet: &P, settings: &'t Settings, link: Link, network: Network<F>) -> Self {
        Self {
            settings,
            link,
            network,
            frame_bytes: (packet.end() - packet.data()) as u64,
        }
    }
}

/// The entry: what the program attached to an interface runs.
#[inline(always)]
pub fn enter<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    if fence::is_due(tables) {
        return Verdict::Continue(Stage::Fence);
    }
    unfenced(packet, tables)
}

/// The entry of a node that may serve.
#[inline(always)]
fn unfenced<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let Some(link) = parse::link(packet) else {
        return Verdict::Pass;
    };
    match link.ether_type {
        ethernet::IPV4 => ip::<V4, P, T>(packet, tables, link),
        ethernet::IPV6 => Verdict::Continue(Stage::Ipv6),
        _ => Verdict::Pass,
    }
}

/// [`Stage::Ipv6`].
#[inline(always)]
pub fn ipv6<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    match parse::link(packet) {
        Some(link) => ip::<V6, P, T>(packet, tables, link),
        None => Verdict::Pass,
    }
}

#[inline(always)]
fn ip<F: Ip, P: Packet, T: Tables>(packet: &mut P, tables: &T, link: Link) -> Verdict
where
    Exact: Reach<F>,
{
    let Some(network) = F::network(packet, link.l3) else {
        return Verdict::Pass;
    };
    match (network.part, F::IPV6) {
        (Part::Whole, _) => {}
        (Part::First, false) => return Verdict::Continue(Stage::First),
        (Part::First, true) => return Verdict::Continue(Stage::First6),
        (Part::Later, false) => return Verdict::Continue(Stage::Later),
        (Part::Later, true) => return Verdict::Continue(Stage::Later6),
    }
    let Some(transport) = parse::transport(packet, network.l4, network.protocol) else {
        if parse::is_icmp_error(packet, &network) {
            return Verdict::Continue(if F::IPV6 { Stage::Icmp6 } else { Stage::Icmp });
        }
        return Verdict::Pass;
    };
    by_ports::<F, Exact, P, T>(packet, tables, link, network, transport)
}

/// A whole packet: whose is it, by its addresses and ports?
#[inline(always)]
fn by_ports<F: Ip, R: Reach<F>, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    link: Link,
    network: Network<F>,
    transport: Transport,
) -> Verdict {
    let (address, port) = (network.destination, transport.destination_port);
    if let Some(served) = R::served(tables, address, port, network.protocol) {
        let Some(subject) = subject(packet, tables, link, network) else {
            return Verdict::Pass;
        };
        return forward::forward::<F, R, P, T>(packet, tables, &subject, transport, served);
    }
    let (address, port) = (network.source, transport.source_port);
    if let Some(shared) = R::real_server(tables, address, port, network.protocol) {
        let Some(subject) = subject(packet, tables, link, network) else {
            return Verdict::Pass;
        };
        return reply::reply::<F, R, P, T>(packet, tables, &subject, transport, shared);
    }
    match (may_be_ranged::<F, R, T>(tables), F::IPV6) {
        (false, _) => Verdict::Pass,
        (true, false) => Verdict::Continue(Stage::Ranged),
        (true, true) => Verdict::Continue(Stage::Ranged6),
    }
}

/// [`Stage::Ranged`] and [`Stage::Ranged6`]: what is nobody's by its exact ports.
#[inline(always)]
pub fn ranged<F: Ip, P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict
where
    Ranged: Reach<F>,
{
    let Some(link) = parse::link(packet) else {
        return Verdict::Pass;
    };
    let Some(network) = F::network(packet, link.l3) else {
        return Verdict::Pass;
    };
    if network.part != Part::Whole {
        return Verdict::Pass;
    }
    match parse::transport(packet, network.l4, network.protocol) {
        Some(transport) => by_ports::<F, Ranged, P, T>(packet, tables, link, network, transport),
        None => Verdict::Pass,
    }
}

/// Whether what is nobody's by its exact ports is to be looked up once more, among the services on ranges of ports.
#[inline(always)]
fn may_be_ranged<F: Ip, R: Reach<F>, T: Tables>(tables: &T) -> bool {
    let ranges = |settings: &Settings| settings.flags & layout::settings::RANGES != 0;
    !R::RANGED && tables.settings().is_some_and(ranges)
}

/// Puts together what the rules are given. `None`: this CPU has no tables, nothing is configured, or the frame is for
/// another host.
#[inline(always)]
fn subject<'t, F: Family, P: Packet, T: Tables>(
    packet: &P,
    tables: &'t T,
    link: Link,
    network: Network<F>,
) -> Option<Subject<'t, F>> {
    let settings = tables.settings()?;
    if tables.cpu() >= settings.cpus || !is_for_us(packet, tables) {
        return None;
    }
    Some(Subject::new(packet, settings, link, network))
}

/// Whether a frame is addressed to this node. A program sees whatever the card lets in, also what a switch that has
/// forgotten a port floods to all of them; the kernel drops that (`PACKET_OTHERHOST`), and here it must at least not be
/// forwarded once more: under DR such a frame is what another director, or this one, has just sent to a real server,
/// and would go round and round.
#[inline(always)]
fn is_for_us<P: Packet, T: Tables>(packet: &P, tables: &T) -> bool {
    let Some(header) = packet.window::<{ ethernet::LEN }>(packet.data()) else {
        return false;
    };
    let mac = u64::from_le(header.raw64::<{ ethernet::DESTINATION }>()) & own_mac::MASK;
    let own = tables.own_mac(own_mac::index(mac));
    own == mac || own == own_mac::ANY
}

/// For the stages that new connections go through: the packet once more, and the note that came with it. Whether it is for
/// this node the stage before has asked. `None`: not what that one saw.
#[inline(always)]
fn of_service<'t, F: Ip, P: Packet, T: Tables>(
    packet: &P,
    tables: &'t T,
) -> Option<(Subject<'t, F>, Transport, Scratch)> {
    let link = parse::link(packet)?;
    let network = F::network(packet, link.l3)?;
    if network.part == Part::Later {
        return None;
    }
    let transport = parse::transport(packet, network.l4, network.protocol)?;
    let subject = Subject::new(packet, tables.settings()?, link, network);
    let scratch = tables.scratch()?;
    // SAFETY: this CPU's own memory (contract of `Tables`).
    let note = unsafe { scratch.read() };
    Some((subject, transport, note))
}

/// Leaves a note for another stage and goes there.
#[inline(always)]
fn note<T: Tables>(tables: &T, stage: Stage, note: Scratch) -> Verdict {
    let Some(scratch) = tables.scratch() else {
        return Verdict::Drop(Reason::StageMissing);
    };
    // SAFETY: this CPU's own memory, nobody else's until this packet is done (contract of `Tables`).
    unsafe { scratch.write(note) };
    Verdict::Continue(stage)
}

/// Leaves a note for [`Stage::Answer`] and goes there.
#[inline(always)]
fn answer<T: Tables>(tables: &T, what: u32, mtu: u32, from_real_server: bool) -> Verdict {
    let scratch = Scratch {
        answer: what,
        mtu,
        from_real_server: u32::from(from_real_server),
        ..Scratch::default()
    };
    note(tables, Stage::Answer, scratch)
}

/// Leaves a note on whose packet it is, and goes to the stage that schedules. `is_new`: this CPU's table does not know its
/// connection.
#[inline(always)]
fn to_schedule<T: Tables>(tables: &T, stage: Stage, served: Served, is_new: bool) -> Verdict {
    let scratch = Scratch {
        served: served.0,
        is_new: u32::from(is_new),
        ..Scratch::default()
    };
    note(tables, stage, scratch)
}

/// Leaves a note on whose packet it is and for which destination, and goes to the stage that delivers.
#[inline(always)]
fn to_deliver<T: Tables>(tables: &T, stage: Stage, served: Served, destination: u32) -> Verdict {
    let scratch = Scratch {
        served: served.0,
        destination,
        ..Scratch::default()
    };
    note(tables, stage, scratch)
}

/// All stages, as the kernel's tail calls run them: for native runs.
pub fn run<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let mut verdict = enter(packet, tables);
    while let Verdict::Continue(stage) = verdict {
        verdict = match stage {
            Stage::Ipv6 => ipv6(packet, tables),
            Stage::Icmp => icmp::stage::<V4, Exact, P, T>(packet, tables),
            Stage::Icmp6 => icmp::stage::<V6, Exact, P, T>(packet, tables),
            Stage::First => fragment::first::<V4, Exact, P, T>(packet, tables),
            Stage::First6 => fragment::first::<V6, Exact, P, T>(packet, tables),
            Stage::Later => fragment::later::<V4, P, T>(packet, tables),
            Stage::Later6 => fragment::later::<V6, P, T>(packet, tables),
            Stage::Answer => answer::stage(packet, tables),
            Stage::Schedule => schedule::stage::<V4, Exact, P, T>(packet, tables),
            Stage::Schedule6 => schedule::stage::<V6, Exact, P, T>(packet, tables),
            Stage::Deliver => deliver::stage::<V4, P, T>(packet, tables),
            Stage::Deliver6 => deliver::stage::<V6, P, T>(packet, tables),
            Stage::Ranged => ranged::<V4, P, T>(packet, tables),
            Stage::Ranged6 => ranged::<V6, P, T>(packet, tables),
            Stage::IcmpRanged => icmp::stage::<V4, Ranged, P, T>(packet, tables),
            Stage::Icmp6Ranged => icmp::stage::<V6, Ranged, P, T>(packet, tables),
            Stage::ScheduleRanged => schedule::stage::<V4, Ranged, P, T>(packet, tables),
            Stage::Schedule6Ranged => schedule::stage::<V6, Ranged, P, T>(packet, tables),
            Stage::FirstRanged => fragment::first::<V4, Ranged, P, T>(packet, tables),
            Stage::First6Ranged => fragment::first::<V6, Ranged, P, T>(packet, tables),
            Stage::Fence => fence::stage(packet, tables),
        };
    }
    if let Verdict::Drop(reason) = verdict {
        tables.count(reason);
    }
    verdict
}

#[cfg(all(test, feature = "native"))]
mod tests;
