//! Programs for real servers: `decap` takes tunnels off, `pass` does nothing.
#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the macro that makes a function a program adds undocumented public ones"
)]

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::XdpContext;
use xdp_ebpf::decap::{Endpoint, decapsulate};
use xdp_ebpf::family::bytes6;
use xdp_ebpf::kernel::Frame;

/// Addresses at which tunnels end, for each family.
const ADDRESSES: u32 = 256;

/// IPv4 addresses at which tunnels end.
#[map]
static DECAP_ADDRESSES4: HashMap<[u8; 4], u32> = HashMap::with_max_entries(ADDRESSES, 0);
/// IPv6 addresses at which tunnels end.
#[map]
static DECAP_ADDRESSES6: HashMap<[u8; 16], u32> = HashMap::with_max_entries(ADDRESSES, 0);
/// UDP port of GUE (host order).
#[map]
static DECAP_SETTINGS: Array<u32> = Array::with_max_entries(1, 0);

struct Maps;

impl Endpoint for Maps {
    #[inline(always)]
    fn ends_here4(&self, address: u32) -> bool {
        // SAFETY: only its presence counts.
        unsafe { DECAP_ADDRESSES4.get(address.to_ne_bytes()) }.is_some()
    }

    #[inline(always)]
    fn ends_here6(&self, address: [u32; 4]) -> bool {
        // SAFETY: only its presence counts.
        unsafe { DECAP_ADDRESSES6.get(bytes6(address)) }.is_some()
    }

    #[inline(always)]
    fn gue_port(&self) -> u16 {
        DECAP_SETTINGS.get(0).map_or(0, |port| *port as u16)
    }
}

/// Takes tunnels off.
#[xdp]
pub fn decap(context: XdpContext) -> u32 {
    match decapsulate(&mut Frame::new(context), &Maps) {
        Some(_) => xdp_action::XDP_PASS,
        None => xdp_action::XDP_DROP,
    }
}

/// Passes everything: a veth receives redirected frames only if it has some program.
#[xdp]
pub fn pass(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
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
