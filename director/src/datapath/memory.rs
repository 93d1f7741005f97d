//! The connection tables and the destinations' loads, mapped into this process.

use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::libc::c_void;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use xdp_ebpf::connection::{Bucket4, Bucket6};
use xdp_ebpf::layout::Load;
use xdp_ebpf::lines::{ServerLine4, ServerLine6, ServiceLine4, ServiceLine6};

/// An array map as a slice. The kernel writes it at the same time, hence only types made of atomics.
#[derive(Debug)]
pub struct Mapped<T> {
    start: NonNull<c_void>,
    bytes: NonZeroUsize,
    elements: usize,
    element: PhantomData<T>,
}

/// Types that may be looked at while the kernel writes them.
///
/// # Safety
/// Made of atomics only, and any bytes are a value.
pub unsafe trait Shared {}

// SAFETY: arrays of `AtomicU64`.
unsafe impl Shared for Bucket4 {}
// SAFETY: arrays of `AtomicU64`.
unsafe impl Shared for Bucket6 {}

// SAFETY: itself.
unsafe impl Shared for AtomicU64 {}
// SAFETY: made of `AtomicU64`.
unsafe impl Shared for Load {}
// SAFETY: made of `AtomicU64`.
unsafe impl Shared for ServiceLine4 {}
// SAFETY: made of `AtomicU64`.
unsafe impl Shared for ServiceLine6 {}
// SAFETY: made of `AtomicU64`.
unsafe impl Shared for ServerLine4 {}
// SAFETY: made of `AtomicU64`.
unsafe impl Shared for ServerLine6 {}

// SAFETY: memory that stays mapped until the drop, of what any number of writers may touch at once (`Shared`).
unsafe impl<T: Shared> Send for Mapped<T> {}
// SAFETY: as for `Send`.
unsafe impl<T: Shared> Sync for Mapped<T> {}

impl<T: Shared> Mapped<T> {
    /// Maps the first `elements` of a memory-mappable array map.
    ///
    /// # Errors
    /// It is no such map, or has fewer.
    pub fn new(map: BorrowedFd<'_>, elements: u32) -> io::Result<Self> {
        let elements = elements as usize;
        let bytes =
            NonZeroUsize::new(elements * size_of::<T>()).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping somewhere, of a map whose memory stays as long as it is mapped.
        let start = unsafe {
            mmap(
                None,
                bytes,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                map,
                0,
            )
        }?;
        Ok(Self {
            start,
            bytes,
            elements,
            element: PhantomData,
        })
    }

    /// The elements.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: mapped for this many, page-aligned, and `Shared` allows other writers.
        unsafe { std::slice::from_raw_parts(self.start.cast().as_ptr(), self.elements) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and no slice of it outlives this.
        if let Err(error) = unsafe { munmap(self.start, self.bytes.get()) } {
            tracing::warn!(%error, "a table stays mapped");
        }
    }
}
