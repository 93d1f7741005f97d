//! Programs of the benchmark: what runs what is measured, floors and yardsticks. Never attached to an interface, and no part
//! of a director. How they work together: [`xdp_ebpf::bench`].
#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the macro that makes a function a program adds undocumented public ones"
)]

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, ProgramArray};
use aya_ebpf::programs::XdpContext;
use xdp_ebpf::bench::{FLOWS_PER_PAGE, MAX_FLOWS, NOT_CALLED, NOT_RESTORED, Order, RESTORED};
use xdp_ebpf::family::{Family as _, V4};
use xdp_ebpf::kernel::Frame;
use xdp_ebpf::layout::limits;
use xdp_ebpf::packet::Packet as _;
use xdp_ebpf::parse as parser;
use xdp_ebpf::verifier::opaque;
use xdp_ebpf::wire::{ethernet, ipv4};

/// As many as a page has, and no more than there are at all.
const PAGES: u32 = MAX_FLOWS / FLOWS_PER_PAGE as u32;

#[map]
static MEASURED: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
static ORDER: Array<Order> = Array::with_max_entries(1, 0);
/// The loader sets its size, and that of the yardsticks, by how many flows there are.
#[map]
static FLOWS: Array<[u64; FLOWS_PER_PAGE]> = Array::with_max_entries(PAGES, 0);
#[map]
static FLOWS16: LruHashMap<Key16, u64> = LruHashMap::with_max_entries(1024, 0);
#[map]
static FLOWS40: LruHashMap<Key40, u64> = LruHashMap::with_max_entries(1024, 0);
/// As the packet path's services and routes: their sizes, and hardly anything in them.
#[map]
static SERVICES: HashMap<[u32; 2], u32> = HashMap::with_max_entries(limits::ENDPOINTS, 0);
#[map]
static ROUTES: LpmTrie<u32, u64> = LpmTrie::with_max_entries(limits::ROUTES, 0);

/// A flow in 16 bytes.
#[repr(C)]
#[derive(Clone, Copy)]
struct Key16 {
    source: u32,
    destination: u32,
    ports: u32,
    protocol: u32,
}

/// A flow of either family in 40 bytes.
#[repr(C)]
#[derive(Clone, Copy)]
struct Key40 {
    source: [u32; 4],
    destination: [u32; 4],
    ports: u32,
    protocol: u32,
}

/// Runs what is measured. Not inlined, so that its tail call comes back here; and global, so that the verifier takes its
/// result for any number rather than for what is returned where the tail call fails.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn call_measured(context: *mut xdp_md) -> u32 {
    // SAFETY: the array holds XDP programs only, by its first program's type.
    unsafe { MEASURED.tail_call(&XdpContext::new(context), 0) };
    // Opaque, or the compiler would put this number in the place of the call.
    opaque(NOT_CALLED) as u32
}

/// Measures.
#[xdp]
pub fn measure(context: XdpContext) -> u32 {
    let verdict = call_measured(context.ctx);
    let Some(order) = ORDER.get_ptr_mut(0) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: the map's only element; the benchmark runs on one CPU at a time, and looks only between runs.
    let order = unsafe { &mut *order };
    order.verdicts[verdict as usize & 7] += 1;
    if refresh(context, order).is_none() {
        order.verdicts[NOT_RESTORED] += 1;
        return xdp_action::XDP_ABORTED;
    }
    verdict
}

/// Makes the packet what the next turn wants. The head is moved even where it stands already: each turn costs the same.
#[inline(always)]
fn refresh(context: XdpContext, order: &mut Order) -> Option<()> {
    let mut frame = Frame::new(context);
    // Opaque, or the compiler would do this in 32 bits, which the verifier does not allow with pointers.
    let now = opaque(frame.end() - frame.data()) as i32;
    if !frame.adjust_head(now - order.length as i32) {
        return None;
    }
    let pieces = &order.pieces;
    let (mut addresses, mut ports) = (pieces[5], pieces[6]);
    if order.flows != 0 {
        let flow = next_flow(order)?;
        addresses = addresses & !0xffff_ffff | flow & 0xffff_ffff;
        ports = ports & 0xffff_0000 | flow >> 32;
    } else if order.new_sources != 0 {
        order.cursor += 1;
        addresses = addresses & !0xffff_ffff | new_source(order.cursor);
    }
    let header = frame.window::<RESTORED>(frame.data())?;
    let pieces = &order.pieces;
    header.set_raw64::<0>(pieces[0]);
    header.set_raw32::<8>(pieces[1] as u32);
    header.set_raw16::<12>(pieces[2] as u16);
    header.set_raw64::<14>(pieces[3]);
    header.set_raw32::<22>(pieces[4] as u32);
    header.set_raw64::<26>(addresses);
    header.set_raw32::<34>(ports as u32);
    header.set_raw64::<38>(pieces[7]);
    header.set_raw64::<46>(pieces[8]);
    header.set_raw64::<54>(pieces[9]);
    header.set_raw64::<62>(pieces[10]);
    header.set_raw64::<70>(pieces[11]);
    Some(())
}

/// An address of 64.0.0.0 to 95.255.255.255, all of which are hosts', as it stands in a packet: none comes twice before all have come.
#[inline(always)]
const fn new_source(nth: u64) -> u64 {
    // Odd, so the product takes each value of its lower 29 bits once.
    let source = nth.wrapping_mul(0x9e37_79b1);
    64 | source & 31 | (source >> 5 & 0xff_ffff) << 8
}

/// The flow that comes next, in the order in which they stand.
#[inline(always)]
fn next_flow(order: &mut Order) -> Option<u64> {
    let cursor = order.cursor;
    let page = FLOWS.get((cursor / FLOWS_PER_PAGE as u64) as u32)?;
    let next = cursor + 1;
    order.cursor = if next < order.flows { next } else { 0 };
    Some(page[cursor as usize % FLOWS_PER_PAGE])
}

/// Sends frames on their way, for live ones: the next flow's each time.
#[xdp]
pub fn emit(context: XdpContext) -> u32 {
    let Some(order) = ORDER.get_ptr_mut(0) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: as in `measure`.
    let order = unsafe { &mut *order };
    match refresh(context, order) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_ABORTED,
    }
}

/// Where live frames end.
#[xdp]
pub fn sink(_context: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Floor.
#[xdp]
pub fn trivial(_context: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// Floor of what moves the head.
#[xdp]
pub fn move_head(context: XdpContext) -> u32 {
    if Frame::new(context).adjust_head(-(ipv4::LEN as i32)) {
        xdp_action::XDP_TX
    } else {
        xdp_action::XDP_DROP
    }
}

/// Parses as far as the packet path does: addresses, ports, protocol.
#[inline(always)]
fn parsed(context: XdpContext) -> Option<Key16> {
    let frame = Frame::new(context);
    let link = parser::link(&frame)?;
    if link.ether_type != ethernet::IPV4 {
        return None;
    }
    let network = V4::network(&frame, link.l3)?;
    let transport = parser::transport(&frame, network.l4, network.protocol)?;
    Some(Key16 {
        source: network.source,
        destination: network.destination,
        ports: u32::from(transport.source_port) | u32::from(transport.destination_port) << 16,
        protocol: u32::from(network.protocol),
    })
}

#[inline(always)]
fn widened(key: Key16) -> Key40 {
    Key40 {
        source: [key.source, 0, 0, 0],
        destination: [key.destination, 0, 0, 0],
        ports: key.ports,
        protocol: key.protocol,
    }
}

#[inline(always)]
const fn sent_if(yes: bool) -> u32 {
    if yes {
        xdp_action::XDP_TX
    } else {
        xdp_action::XDP_DROP
    }
}

/// Yardstick.
#[xdp]
pub fn lru16(context: XdpContext) -> u32 {
    let Some(key) = parsed(context) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: read at once.
    sent_if(unsafe { FLOWS16.get(key) }.is_some_and(|value| *value != 0))
}

/// Yardstick.
#[xdp]
pub fn lru40(context: XdpContext) -> u32 {
    let Some(key) = parsed(context) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: read at once.
    sent_if(unsafe { FLOWS40.get(widened(key)) }.is_some_and(|value| *value != 0))
}

/// Part of the others.
#[xdp]
pub fn parse(context: XdpContext) -> u32 {
    let Some(key) = parsed(context) else {
        return xdp_action::XDP_ABORTED;
    };
    // All of it is wanted, or the compiler would not read it.
    sent_if(key.source ^ key.destination ^ key.ports ^ key.protocol != 0)
}

/// What the packet path looks services up by.
#[inline(always)]
const fn service(key: Key16) -> [u32; 2] {
    [key.destination, key.ports >> 16 | key.protocol << 16]
}

/// Yardstick.
#[xdp]
pub fn hash8(context: XdpContext) -> u32 {
    let Some(key) = parsed(context) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: read at once.
    sent_if(unsafe { SERVICES.get(service(key)) }.is_some_and(|value| *value != 0))
}

/// Yardstick.
#[xdp]
pub fn trie(context: XdpContext) -> u32 {
    let Some(key) = parsed(context) else {
        return xdp_action::XDP_ABORTED;
    };
    sent_if(
        ROUTES
            .get(Key::new(32, key.source))
            .is_some_and(|value| *value != 0),
    )
}

/// Enters a service, a default route and a narrower one of somebody else.
#[xdp]
pub fn fill8(context: XdpContext) -> u32 {
    let Some(key) = parsed(context) else {
        return xdp_action::XDP_ABORTED;
    };
    sent_if(
        SERVICES.insert(service(key), 1, 0).is_ok()
            && ROUTES.insert(&Key::new(0, 0), &1, 0).is_ok()
            && ROUTES.insert(&Key::new(24, key.destination), &1, 0).is_ok(),
    )
}

/// Enters a flow.
#[xdp]
pub fn fill16(context: XdpContext) -> u32 {
    let Some(key) = parsed(context) else {
        return xdp_action::XDP_ABORTED;
    };
    sent_if(FLOWS16.insert(key, 1, 0).is_ok())
}

/// Enters a flow.
#[xdp]
pub fn fill40(context: XdpContext) -> u32 {
    let Some(key) = parsed(context) else {
        return xdp_action::XDP_ABORTED;
    };
    sent_if(FLOWS40.insert(widened(key), 1, 0).is_ok())
}

/// Forgets a flow.
#[xdp]
pub fn empty16(context: XdpContext) -> u32 {
    let Some(key) = parsed(context) else {
        return xdp_action::XDP_ABORTED;
    };
    sent_if(FLOWS16.remove(key).is_ok())
}

/// Forgets a flow.
#[xdp]
pub fn empty40(context: XdpContext) -> u32 {
    let Some(key) = parsed(context) else {
        return xdp_action::XDP_ABORTED;
    };
    sent_if(FLOWS40.remove(widened(key)).is_ok())
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
