//! A frame that faults when it is overrun.

use crate::layout::NextHop;
use crate::packet::Packet;

/// Room in front of a frame, as XDP has it (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: usize = 256;
/// Longest frame.
pub const LONGEST: usize = 4096 - HEADROOM;
/// Size of a page, which is what can be protected.
const PAGE: usize = 4096;

/// A frame that ends where an inaccessible page begins and starts [`HEADROOM`] behind another: a read or write beyond
/// its end is a fault, not a silent mistake.
pub struct Frame {
    map: *mut u8,
    start: usize,
    end: usize,
    lowest: usize,
    ifindex: u32,
    /// What the kernel answers when it is asked for a next hop.
    pub kernel_next_hop: NextHop,
}

impl Frame {
    /// A frame with these bytes that came in by an interface.
    ///
    /// # Panics
    /// If it is longer than [`LONGEST`], or there is no memory.
    #[must_use]
    pub fn new(bytes: &[u8], ifindex: u32) -> Self {
        // SAFETY: a new private mapping; the kernel chooses the address.
        let map = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                3 * PAGE,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert!(map != libc::MAP_FAILED, "no memory for a frame");
        let map = map.cast::<u8>();
        // SAFETY: the middle page of the mapping above.
        let result = unsafe {
            libc::mprotect(
                map.add(PAGE).cast(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
            )
        };
        assert!(result == 0, "a frame's page cannot be made writable");
        let mut frame = Self {
            map,
            start: 0,
            end: 0,
            lowest: 0,
            ifindex,
            kernel_next_hop: NextHop::default(),
        };
        frame.refill(bytes);
        frame
    }

    /// Another packet in the same memory, for who runs millions of them.
    ///
    /// # Panics
    /// If it is longer than [`LONGEST`].
    pub fn refill(&mut self, bytes: &[u8]) {
        assert!(
            bytes.len() <= LONGEST,
            "a frame of {} bytes is too long",
            bytes.len()
        );
        self.end = self.map.expose_provenance() + 2 * PAGE;
        self.start = self.end - bytes.len();
        self.lowest = self.start - HEADROOM;
        // SAFETY: `bytes.len()` bytes before the end of the writable page.
        unsafe {
            core::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                core::ptr::with_exposed_provenance_mut(self.start),
                bytes.len(),
            );
        }
    }

    /// The bytes it has now.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.end - self.start];
        self.copy_to(&mut bytes);
        bytes
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, unmapped once.
        unsafe { libc::munmap(self.map.cast(), 3 * PAGE) };
    }
}

// SAFETY: start and end lie in the writable page, which lives as long as the frame; no reference into it is given out.
unsafe impl Packet for Frame {
    fn data(&self) -> usize {
        self.start
    }

    fn end(&self) -> usize {
        self.end
    }

    fn adjust_head(&mut self, delta: i32) -> bool {
        let Some(start) = self.start.checked_add_signed(delta as isize) else {
            return false;
        };
        // As the kernel: an Ethernet header must be left.
        if start < self.lowest || start + 14 > self.end {
            return false;
        }
        self.start = start;
        true
    }

    fn adjust_tail(&mut self, delta: i32) -> bool {
        let Some(end) = self.end.checked_add_signed(delta as isize) else {
            return false;
        };
        // Growing is never asked for; there is no room behind the frame.
        if delta > 0 || end < self.start + 14 {
            return false;
        }
        self.end = end;
        true
    }

    fn ingress_ifindex(&self) -> u32 {
        self.ifindex
    }

    fn copy_to(&self, into: &mut [u8]) -> bool {
        if into.len() > self.end - self.start {
            return false;
        }
        // SAFETY: that many bytes are the frame's; the slice is somebody else's memory.
        unsafe {
            core::ptr::copy_nonoverlapping(
                core::ptr::with_exposed_provenance(self.start),
                into.as_mut_ptr(),
                into.len(),
            );
        }
        true
    }

    fn kernel_next_hop4(&self, _source: u32, _destination: u32) -> NextHop {
        self.kernel_next_hop
    }

    fn kernel_next_hop6(&self, _source: [u32; 4], _destination: [u32; 4]) -> NextHop {
        self.kernel_next_hop
    }
}
