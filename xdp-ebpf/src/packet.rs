//! A packet between two pointers, and windows onto it whose every access is checked.
//!
//! ```text
//!  data ─────────────── at ──────────── at + N ──────── end
//!                        └─ Window<N> ─┘
//! ```
//!
//! [`Packet::window`] compares once; after that an access at an offset known to the compiler needs no further
//! check, because it does not compile outside the window. A window borrows the packet, and everything that moves
//! the packet's pointers borrows it mutably, so no window survives such a move. The kernel's verifier sees the
//! same single comparison.

use core::marker::PhantomData;

use crate::layout::NextHop;

/// A frame, somewhere in memory. In the kernel the driver's buffer, natively a [`crate::native::Frame`].
///
/// # Safety
/// The bytes from `data()` up to, not including, `end()` must be readable and writable for as long as `self` is not
/// borrowed mutably, and no reference to them may exist elsewhere meanwhile.
pub unsafe trait Packet {
    /// Address of the first byte.
    fn data(&self) -> usize;
    /// Address behind the last byte.
    fn end(&self) -> usize;
    /// Moves the beginning: negative makes room in front. False: refused, nothing changed.
    fn adjust_head(&mut self, delta: i32) -> bool;
    /// Moves the end: negative cuts. False: refused, nothing changed.
    fn adjust_tail(&mut self, delta: i32) -> bool;
    /// Index of the interface it came in by.
    fn ingress_ifindex(&self) -> u32;
    /// Copies the first `into.len()` bytes. False: refused.
    fn copy_to(&self, into: &mut [u8]) -> bool;
    /// The kernel's own opinion on the next hop of an IPv4 packet that came in here (addresses as in the packet).
    /// Costs 38 ns and more: only where the director's tables do not know. `egress` is left 0;
    /// `ifindex` is 0 if it does not know.
    fn kernel_next_hop4(&self, source: u32, destination: u32) -> NextHop;
    /// The same for IPv6.
    fn kernel_next_hop6(&self, source: [u32; 4], destination: [u32; 4]) -> NextHop;

    /// `N` bytes from the address `at`, if the packet has them. `at` must not lie before `data()`.
    #[inline(always)]
    fn window<const N: usize>(&self, at: usize) -> Option<Window<'_, N>> {
        if at + N > self.end() {
            return None;
        }
        Some(Window {
            at,
            packet: PhantomData,
        })
    }
}

/// `N` bytes of a packet that are known to be there.
#[derive(Clone, Copy)]
pub struct Window<'p, const N: usize> {
    at: usize,
    packet: PhantomData<&'p ()>,
}

/// Reads a value that may stand at any address.
///
/// # Safety
/// `size_of::<T>()` bytes at `at` must be readable.
#[inline(always)]
unsafe fn load<T: Copy>(at: usize) -> T {
    let pointer = core::ptr::with_exposed_provenance::<T>(at);
    // The BPF back end splits a load of unknown alignment into bytes (measured: an IPv4 hit 11 instead of 4 loads for
    // the addresses alone); every machine whose kernel accepts wide packet loads takes them at any address.
    #[cfg(target_arch = "bpf")]
    // SAFETY: readable by the caller's word; the verifier checks the access.
    unsafe {
        *pointer
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: readable by the caller's word.
    unsafe {
        pointer.read_unaligned()
    }
}

/// Writes a value to any address.
///
/// # Safety
/// `size_of::<T>()` bytes at `at` must be writable.
#[inline(always)]
unsafe fn store<T: Copy>(at: usize, value: T) {
    let pointer = core::ptr::with_exposed_provenance_mut::<T>(at);
    #[cfg(target_arch = "bpf")]
    // SAFETY: writable by the caller's word; the verifier checks the access.
    unsafe {
        *pointer = value;
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: writable by the caller's word.
    unsafe {
        pointer.write_unaligned(value);
    }
}

macro_rules! accessors {
    ($($(#[doc = $doc:literal])+ $get:ident, $set:ident: $type:ty;)+) => {
        $(
            $(#[doc = $doc])+
            #[inline(always)]
            #[must_use]
            pub fn $get<const OFFSET: usize>(self) -> $type {
                const { assert!(OFFSET + size_of::<$type>() <= N) };
                // SAFETY: inside the window by the assertion; a window lies inside its packet and borrows it.
                unsafe { load::<$type>(self.at + OFFSET) }
            }

            /// Writes what the getter of the same width reads.
            #[inline(always)]
            pub fn $set<const OFFSET: usize>(self, value: $type) {
                const { assert!(OFFSET + size_of::<$type>() <= N) };
                // SAFETY: as for reading; nothing holds a reference into a packet.
                unsafe { store::<$type>(self.at + OFFSET, value) }
            }
        )+
    };
}

impl<const N: usize> Window<'_, N> {
    /// Address of its first byte.
    #[inline(always)]
    #[must_use]
    pub fn address(self) -> usize {
        self.at
    }

    accessors! {
        /// A byte.
        u8, set_u8: u8;
        /// Two bytes as they stand in the packet.
        raw16, set_raw16: u16;
        /// Four bytes as they stand in the packet.
        raw32, set_raw32: u32;
        /// Eight bytes as they stand in the packet.
        raw64, set_raw64: u64;
    }

    /// A 16-bit number in network order.
    #[inline(always)]
    #[must_use]
    pub fn be16<const OFFSET: usize>(self) -> u16 {
        u16::from_be(self.raw16::<OFFSET>())
    }

    /// Writes a 16-bit number in network order.
    #[inline(always)]
    pub fn set_be16<const OFFSET: usize>(self, value: u16) {
        self.set_raw16::<OFFSET>(value.to_be());
    }

    /// A 32-bit number in network order.
    #[inline(always)]
    #[must_use]
    pub fn be32<const OFFSET: usize>(self) -> u32 {
        u32::from_be(self.raw32::<OFFSET>())
    }

    /// Writes a 32-bit number in network order.
    #[inline(always)]
    pub fn set_be32<const OFFSET: usize>(self, value: u32) {
        self.set_raw32::<OFFSET>(value.to_be());
    }

    /// An IPv6 address, as it stands in the packet.
    #[inline(always)]
    #[must_use]
    pub fn raw128<const OFFSET: usize>(self) -> [u32; 4] {
        const { assert!(OFFSET + 16 <= N) };
        // SAFETY: inside the window by the assertion; both are 16 bytes of plain data.
        unsafe { core::mem::transmute::<[u64; 2], [u32; 4]>(load(self.at + OFFSET)) }
    }

    /// Writes an IPv6 address.
    #[inline(always)]
    pub fn set_raw128<const OFFSET: usize>(self, value: [u32; 4]) {
        const { assert!(OFFSET + 16 <= N) };
        // SAFETY: inside the window by the assertion; both are 16 bytes of plain data.
        unsafe {
            store::<[u64; 2]>(
                self.at + OFFSET,
                core::mem::transmute::<[u32; 4], [u64; 2]>(value),
            )
        }
    }

    /// Writes both addresses of an Ethernet header at the beginning ([`NextHop::macs`]).
    #[inline(always)]
    pub fn set_macs(self, words: [u32; 3]) {
        const { assert!(size_of::<[u32; 3]>() <= N) };
        // SAFETY: inside the window by the assertion.
        unsafe { store::<[u32; 3]>(self.at, words) }
    }

    /// A MAC address.
    #[inline(always)]
    #[must_use]
    pub fn mac<const OFFSET: usize>(self) -> [u16; 3] {
        const { assert!(OFFSET + 6 <= N) };
        // SAFETY: inside the window by the assertion.
        unsafe { load::<[u16; 3]>(self.at + OFFSET) }
    }

    /// Writes a MAC address.
    #[inline(always)]
    pub fn set_mac<const OFFSET: usize>(self, value: [u16; 3]) {
        const { assert!(OFFSET + 6 <= N) };
        // SAFETY: inside the window by the assertion.
        unsafe { store::<[u16; 3]>(self.at + OFFSET, value) }
    }
}
