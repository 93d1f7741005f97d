//! Signals wait while the kernel verifies.

use nix::sys::signal::{SigSet, SigmaskHow};

/// As long as it lives, signals for this thread wait; then they come.
///
/// The verifier gives up with `EAGAIN` when it sees one (`bpf_check` and `do_check` in kernel/bpf/verifier.c), and
/// verification takes seconds: a SIGHUP at the wrong moment would end the start.
pub(super) struct Quiet {
    before: Option<SigSet>,
}

impl Quiet {
    pub(super) fn begin() -> Self {
        Self {
            // Refused only for a wrong request, which this is not; loading then can be interrupted, no more.
            before: SigSet::all()
                .thread_swap_mask(SigmaskHow::SIG_BLOCK)
                .inspect_err(|error| tracing::debug!(%error, "signals do not wait"))
                .ok(),
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = self.before
            && let Err(error) = before.thread_set_mask()
        {
            tracing::warn!(%error, "signals go on waiting");
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn signals_wait_as_long_as_it_lives() {
        let waits = || {
            let mask = SigSet::thread_get_mask().unwrap();
            [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGCHLD].map(|signal| mask.contains(signal))
        };
        assert_eq!(waits(), [false; 3]);
        let outer = Quiet::begin();
        assert_eq!(waits(), [true; 3]);
        drop(Quiet::begin());
        assert_eq!(waits(), [true; 3]);
        drop(outer);
        assert_eq!(waits(), [false; 3]);
    }
}
