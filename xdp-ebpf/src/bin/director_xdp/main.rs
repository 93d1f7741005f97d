//! The director's programs: a thin shell that gives the packet path the real BPF maps.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the macro that makes a function a program adds undocumented public ones"
)]

mod functions;
mod maps;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use xdp_ebpf::family::{V4, V6};
use xdp_ebpf::kernel::Frame;
use xdp_ebpf::layout::{self, Learn, LeaseOrder, Reason, Stage, limits};
use xdp_ebpf::path::{self, Verdict};
use xdp_ebpf::reach::{Exact, Ranged};
use xdp_ebpf::tables::Tables as _;

use maps::Maps;

/// The entry, attached to every interface.
#[xdp]
pub fn director(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::enter(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// IPv6.
#[xdp]
pub fn ipv6(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::ipv6(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// ICMP errors.
#[xdp]
pub fn icmp(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::icmp::stage::<V4, Exact, _, _>(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// ICMPv6 errors.
#[xdp]
pub fn icmp6(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::icmp::stage::<V6, Exact, _, _>(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// First fragments, IPv4.
#[xdp]
pub fn first_fragment(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::fragment::first::<V4, Exact, _, _>(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// First fragments, IPv6.
#[xdp]
pub fn first_fragment6(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::fragment::first::<V6, Exact, _, _>(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// Other fragments, IPv4.
#[xdp]
pub fn later_fragment(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::fragment::later::<V4, _, _>(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// Other fragments, IPv6.
#[xdp]
pub fn later_fragment6(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::fragment::later::<V6, _, _>(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// New connections, IPv4.
#[xdp]
pub fn schedule(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::schedule::stage::<V4, Exact, _, _>(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// New connections, IPv6.
#[xdp]
pub fn schedule6(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::schedule::stage::<V6, Exact, _, _>(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// First packets of new connections, IPv4.
#[xdp]
pub fn deliver(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::deliver::stage::<V4, _, _>(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// First packets of new connections, IPv6.
#[xdp]
pub fn deliver6(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::deliver::stage::<V6, _, _>(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// Services on ranges of ports, IPv4.
#[xdp]
pub fn ranged(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::ranged::<V4, _, _>(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// Services on ranges of ports, IPv6.
#[xdp]
pub fn ranged6(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::ranged::<V6, _, _>(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// ICMP errors about services on ranges of ports.
#[xdp]
pub fn icmp_ranged(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::icmp::stage::<V4, Ranged, _, _>(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// ICMPv6 errors about services on ranges of ports.
#[xdp]
pub fn icmp6_ranged(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::icmp::stage::<V6, Ranged, _, _>(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// New connections to ranges of ports, IPv4.
#[xdp]
pub fn schedule_ranged(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::schedule::stage::<V4, Ranged, _, _>(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// New connections to ranges of ports, IPv6.
#[xdp]
pub fn schedule6_ranged(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::schedule::stage::<V6, Ranged, _, _>(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// First fragments for ranges of ports, IPv4.
#[xdp]
pub fn first_ranged(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::fragment::first::<V4, Ranged, _, _>(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// First fragments for ranges of ports, IPv6.
#[xdp]
pub fn first6_ranged(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::fragment::first::<V6, Ranged, _, _>(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// ICMP messages of the packet path's own.
#[xdp]
pub fn answer(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::answer::stage(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// Everything, while this node's lease has run out.
#[xdp]
pub fn fence(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    let verdict = path::fence::stage(&mut frame, &Maps);
    finish(&frame, verdict)
}

/// An order about the lease; attached nowhere.
#[xdp]
pub fn lease(context: XdpContext) -> u32 {
    let (start, end) = (context.data(), context.data_end());
    if start + size_of::<LeaseOrder>() > end {
        return xdp_action::XDP_ABORTED;
    }
    let order = core::ptr::with_exposed_provenance_mut::<LeaseOrder>(start);
    // SAFETY: so many bytes are there, as just compared, and nobody else has them; packets begin at multiples of 8 bytes
    // (`XDP_PACKET_HEADROOM`), and every value of the bytes is an order.
    maps::lease(unsafe { &mut *order });
    xdp_action::XDP_PASS
}

/// Peers' connections; attached nowhere.
///
/// Run with softirqs off (`bpf_test_run` in `net/bpf/test_run.c`), so no packet of this CPU comes in between: it is the
/// only one who writes the CPU's table, as packets' programs are.
#[xdp]
pub fn learn(context: XdpContext) -> u32 {
    let (start, end) = (context.data(), context.data_end());
    for index in 0..limits::LEARNED_AT_ONCE {
        let at = start + index * size_of::<Learn>();
        if at + size_of::<Learn>() > end {
            break;
        }
        let one = core::ptr::with_exposed_provenance_mut::<Learn>(at);
        // SAFETY: so many bytes are there, as just compared, and nobody else has them; packets begin at multiples of 8 bytes
        // (`XDP_PACKET_HEADROOM`), so do these, and every value of the bytes is one.
        let one = unsafe { &mut *one };
        let [first, second, third] = one.key;
        let outcome = if one.table == layout::learn::NARROW {
            functions::learn4(first, one.value)
        } else if one.table == layout::learn::WIDE {
            functions::learn6(first, second, third, one.value)
        } else {
            layout::learned::NOTHING
        };
        one.outcome = outcome as u32;
    }
    xdp_action::XDP_PASS
}

/// A verdict in the kernel's terms.
#[inline(always)]
fn finish(frame: &Frame, verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Transmit => xdp_action::XDP_TX,
        Verdict::Redirect(slot) => maps::redirect(slot),
        Verdict::Drop(reason) => {
            Maps.count(reason);
            xdp_action::XDP_DROP
        }
        Verdict::Continue(stage) => {
            go_to(frame.context(), stage);
            // Comes back only if the program is not there.
            Maps.count(Reason::StageMissing);
            xdp_action::XDP_DROP
        }
    }
}

/// Goes to a stage, each by a call of its own ([`maps::tail_call`]).
#[inline(always)]
fn go_to(context: &XdpContext, stage: Stage) {
    macro_rules! each {
        ($($name:ident),+) => {
            match stage {
                $(Stage::$name => maps::tail_call::<{ Stage::$name as u32 }>(context),)+
            }
        };
    }
    each!(
        Ipv6,
        Icmp,
        Icmp6,
        First,
        First6,
        Later,
        Later6,
        Answer,
        Schedule,
        Schedule6,
        Deliver,
        Deliver6,
        Ranged,
        Ranged6,
        IcmpRanged,
        Icmp6Ranged,
        ScheduleRanged,
        Schedule6Ranged,
        FirstRanged,
        First6Ranged,
        Fence
    );
}

/// Nothing here panics; the compiler wants to know what would happen.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers are only for programs under a licence compatible with the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
