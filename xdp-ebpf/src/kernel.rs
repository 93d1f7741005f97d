//! A packet as the kernel hands it to an XDP program.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_fib_lookup as FibLookup;
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_load_bytes,
};
use aya_ebpf::programs::XdpContext;

use crate::layout::NextHop;
use crate::packet::Packet;

/// `AF_INET`.
const AF_INET: u8 = 2;
/// `AF_INET6` on Linux.
const AF_INET6: u8 = 10;

/// The frame an XDP program was called for.
pub struct Frame {
    context: XdpContext,
}

impl Frame {
    /// The frame of a context.
    #[inline(always)]
    #[must_use]
    pub fn new(context: XdpContext) -> Self {
        Self { context }
    }

    /// The context, for a tail call.
    #[inline(always)]
    #[must_use]
    pub fn context(&self) -> &XdpContext {
        &self.context
    }

    #[inline(always)]
    fn ask(&self, lookup: &mut FibLookup) -> NextHop {
        lookup.ifindex = self.ingress_ifindex();
        // Not 0, or the kernel does not fill in the MTU; small, or it refuses.
        lookup.__bindgen_anon_1.tot_len = 1;
        // SAFETY: the context is this program's, the structure is as long as stated.
        let result = unsafe {
            bpf_fib_lookup(
                self.context.as_ptr(),
                core::ptr::from_mut(lookup),
                size_of::<FibLookup>() as i32,
                0,
            )
        };
        // 0: found, and the neighbour is known (BPF_FIB_LKUP_RET_SUCCESS).
        if result != 0 {
            return NextHop::default();
        }
        NextHop {
            ifindex: lookup.ifindex,
            destination: lookup.dmac,
            source: lookup.smac,
            vlan: [0; 2],
            // SAFETY: on success the kernel wrote the MTU here.
            mtu: unsafe { lookup.__bindgen_anon_1.mtu_result },
            egress: 0,
        }
    }
}

#[inline(always)]
fn empty_lookup(family: u8) -> FibLookup {
    // SAFETY: integers, arrays and unions of them: all zero is a value.
    let mut lookup: FibLookup = unsafe { core::mem::zeroed() };
    lookup.family = family;
    lookup
}

// SAFETY: the kernel guarantees the bytes between data and data_end to the program that was given the context, and the
// verifier checks every access; the context is not shared.
unsafe impl Packet for Frame {
    #[inline(always)]
    fn data(&self) -> usize {
        self.context.data()
    }

    #[inline(always)]
    fn end(&self) -> usize {
        self.context.data_end()
    }

    #[inline(always)]
    fn adjust_head(&mut self, delta: i32) -> bool {
        // SAFETY: the context is this program's.
        unsafe { bpf_xdp_adjust_head(self.context.ctx, delta) == 0 }
    }

    #[inline(always)]
    fn adjust_tail(&mut self, delta: i32) -> bool {
        // SAFETY: the context is this program's.
        unsafe { bpf_xdp_adjust_tail(self.context.ctx, delta) == 0 }
    }

    #[inline(always)]
    fn ingress_ifindex(&self) -> u32 {
        self.context.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn copy_to(&self, into: &mut [u8]) -> bool {
        // SAFETY: the slice is writable for its length.
        unsafe {
            bpf_xdp_load_bytes(
                self.context.ctx,
                0,
                into.as_mut_ptr().cast(),
                into.len() as u32,
            ) == 0
        }
    }

    #[inline(always)]
    fn kernel_next_hop4(&self, source: u32, destination: u32) -> NextHop {
        let mut lookup = empty_lookup(AF_INET);
        lookup.__bindgen_anon_3.ipv4_src = source;
        lookup.__bindgen_anon_4.ipv4_dst = destination;
        self.ask(&mut lookup)
    }

    #[inline(always)]
    fn kernel_next_hop6(&self, source: [u32; 4], destination: [u32; 4]) -> NextHop {
        let mut lookup = empty_lookup(AF_INET6);
        lookup.__bindgen_anon_3.ipv6_src = source;
        lookup.__bindgen_anon_4.ipv6_dst = destination;
        self.ask(&mut lookup)
    }
}
