//! Atomic access to shared 8-byte words, stores in program order. Natively the library's; for BPF the compiler has none,
//! although an aligned word is loaded and stored whole there too, and the instruction set (v3) has an atomic addition.
//!
//! BPF (v3) has no fences: the compiler keeps the order of volatile accesses, and CPUs with total store order keep it in
//! memory. On others a reader on another CPU may, once in a while, pair a key with its predecessor's value; that is why
//! every use of a connection's value checks that the destination is one of the connection's service.

use core::sync::atomic::AtomicU64;

#[cfg(not(target_arch = "bpf"))]
mod word {
    use super::AtomicU64;
    use core::sync::atomic::Ordering;

    /// Reads a word.
    #[inline(always)]
    #[must_use]
    pub fn load(word: &AtomicU64) -> u64 {
        word.load(Ordering::Acquire)
    }

    /// Writes a word.
    #[inline(always)]
    pub fn store(word: &AtomicU64, value: u64) {
        word.store(value, Ordering::Release);
    }

    /// Adds and gives back what was there before.
    #[inline(always)]
    pub fn fetch_add(word: &AtomicU64, value: u64) -> u64 {
        word.fetch_add(value, Ordering::Relaxed)
    }
}

#[cfg(target_arch = "bpf")]
mod word {
    use super::AtomicU64;

    /// Reads a word.
    #[inline(always)]
    #[must_use]
    pub fn load(word: &AtomicU64) -> u64 {
        // SAFETY: an aligned word that the reference proves alive; a volatile access is one instruction.
        unsafe { word.as_ptr().read_volatile() }
    }

    /// Writes a word.
    #[inline(always)]
    pub fn store(word: &AtomicU64, value: u64) {
        // SAFETY: as for reading.
        unsafe { word.as_ptr().write_volatile(value) }
    }

    /// Adds and gives back what was there before.
    #[inline(always)]
    pub fn fetch_add(word: &AtomicU64, value: u64) -> u64 {
        let mut result = value;
        // SAFETY: an aligned word that the reference proves alive; the instruction touches nothing else.
        unsafe {
            core::arch::asm!(
                "{value} = atomic_fetch_add((u64 *)({word} + 0), {value})",
                word = in(reg) word.as_ptr(),
                value = inout(reg) result,
                options(nostack),
            );
        }
        result
    }
}

pub use word::{fetch_add, load, store};
