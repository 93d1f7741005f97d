//! Held fragments out of the kernel and back in.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use aya::programs::{ProgramError, TestRun, TestRunAttrs, TestRunOptions};
use xdp_ebpf::layout::limits;

use super::held::{Datagram, HeldFragment};
use super::load::Datapath;

/// Bytes of [`xdp_ebpf::layout::HeldFrame`] before the frame.
const HEADER_BYTES: usize = 16;

impl Datapath {
    /// A descriptor that becomes readable when a fragment wants to wait.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn held_descriptor(&self) -> io::Result<OwnedFd> {
        self.maps.held.as_fd().try_clone_to_owned()
    }

    /// Takes the next fragment out of the ring.
    pub fn next_held(&mut self) -> Option<HeldFragment> {
        loop {
            let item = self.maps.held.next()?;
            if let Some(fragment) = decode(&item) {
                return Some(fragment);
            }
        }
    }

    /// Whether a datagram's first fragment has been seen, and the packet path still follows it now (monotonic clock).
    #[must_use]
    pub fn knows(&self, datagram: &Datagram, now_ns: u64) -> bool {
        match datagram {
            Datagram::V4(key) => self.maps.knows_fragment4(key, now_ns),
            Datagram::V6(key) => self.maps.knows_fragment6(key, now_ns),
        }
    }

    /// Hands a fragment to the packet path as if it had just come in by its interface.
    ///
    /// # Errors
    /// When the kernel refuses; the fragment is lost then.
    pub fn inject(&self, fragment: &HeldFragment) -> Result<(), ProgramError> {
        let program = self.entry().ok_or(ProgramError::NotLoaded)?;
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, fragment.frame.len() as u32, 0, fragment.ifindex, 0, 0];
        let context: Vec<u8> = context
            .iter()
            .flat_map(|field| field.to_ne_bytes())
            .collect();
        program.test_run(TestRunOptions {
            data_in: Some(&fragment.frame),
            ctx_in: Some(&context),
            repeat: 1,
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::new()
        })?;
        Ok(())
    }
}

/// Reads a [`xdp_ebpf::layout::HeldFrame`].
fn decode(item: &[u8]) -> Option<HeldFragment> {
    let (header, frame) = item.split_at_checked(HEADER_BYTES)?;
    let word = |at: usize| Some(u32::from_ne_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let length = usize::try_from(word(4)?)
        .ok()?
        .min(limits::HELD_FRAME_BYTES);
    let at_ns = u64::from_ne_bytes(header.get(8..16)?.try_into().ok()?);
    Some(HeldFragment {
        ifindex: word(0)?,
        at_ns,
        frame: frame.get(..length)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_the_ring() {
        let mut item = Vec::new();
        item.extend(7_u32.to_ne_bytes());
        item.extend(3_u32.to_ne_bytes());
        item.extend(99_u64.to_ne_bytes());
        item.extend([1, 2, 3, 4, 5]);
        let expected = HeldFragment {
            ifindex: 7,
            at_ns: 99,
            frame: vec![1, 2, 3],
        };
        assert_eq!(decode(&item), Some(expected));
        for length in 0..19 {
            assert_eq!(decode(&item[..length]), None, "cut at {length}");
        }
    }
}
