//! What is done for the kernel's verifier alone. Natively these are the plain thing.
//!
//! The verifier walks every path through a program and gives up after a million instructions. Two things multiply paths:
//! loops, every turn of which it walks anew, and values of which it knows too much, so that it takes two states for
//! different that lead to the same.

/// A loop that the verifier looks through once (`bpf_loop`, Linux 5.17): over a hundred tables of eight places each, an
/// ordinary one is more than it takes.
///
/// Calls `body` with 0, 1, … and `context`, at most `turns` times, until it returns something else than 0.
///
/// `body` is a plain function, not a closure, because that is what the kernel's helper takes.
#[inline(always)]
pub fn repeat<C>(turns: u32, context: &mut C, body: extern "C" fn(u32, *mut C) -> i64) {
    #[cfg(all(feature = "bpf", target_arch = "bpf"))]
    // SAFETY: the body has the form that the helper calls, and the context is what the body takes.
    unsafe {
        aya_ebpf::helpers::generated::bpf_loop(
            turns,
            body as *mut core::ffi::c_void,
            core::ptr::from_mut(context).cast(),
            0,
        );
    }
    #[cfg(not(all(feature = "bpf", target_arch = "bpf")))]
    for turn in 0..turns {
        if body(turn, context) != 0 {
            break;
        }
    }
}

/// The same number, of which neither the compiler nor the verifier knows any more than that it is a `u16`: states that
/// differ in it only are one state from here on. Costs a store and a load of the stack; not for the hot path.
#[inline(always)]
#[must_use]
pub fn forget(number: u16) -> u16 {
    #[cfg(target_arch = "bpf")]
    {
        // The verifier tracks what was stored at the beginning of an 8-byte stack slot, but not inside one.
        #[repr(align(8))]
        struct Slot([u16; 4]);
        let mut slot = Slot([0; 4]);
        let inside = &raw mut slot.0[1];
        // SAFETY: a live local.
        unsafe {
            inside.write_volatile(number);
            inside.read_volatile()
        }
    }
    #[cfg(not(target_arch = "bpf"))]
    number
}

/// The same number, of which the compiler knows nothing, so that it leaves a comparison as it was written and where the
/// verifier can learn from it.
#[inline(always)]
#[must_use]
pub fn opaque(number: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut number = number;
        // SAFETY: a register is copied to itself.
        unsafe {
            core::arch::asm!("{number} = {number}", number = inout(reg) number, options(nomem, nostack));
        }
        number
    }
    #[cfg(not(target_arch = "bpf"))]
    number
}

/// The same number. It is known, and all that reads memory before this has been read, before anything after it is begun: a
/// compiler that brings much forward has too few registers for all of it, and the stack of a few programs is as large as the
/// verifier allows.
#[inline(always)]
#[must_use]
pub fn one_after_the_other(number: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut number = number;
        // SAFETY: a register is copied to itself.
        unsafe {
            core::arch::asm!("{number} = {number}", number = inout(reg) number, options(nostack));
        }
        number
    }
    #[cfg(not(target_arch = "bpf"))]
    number
}
