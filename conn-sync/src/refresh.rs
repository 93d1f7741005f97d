//! When peers are told again of what is in use, so that they do not take it for dead.

/// The longest time between two tellings, by Director's own protocol.
const OWN_S: u32 = 60;
/// It tells so many times within a timeout: one that is lost, or late, does no harm.
const OWN_TIMES: u32 = 4;
/// The kernel's does so many times at least (`ip_vs_sync_conn_needed` in `net/netfilter/ipvs/ip_vs_sync.c`: within
/// `min(sync_refresh_period, max(timeout / 2, 10 s))`; those 10 s are left out here, in which what is shorter would end).
const KERNEL_TIMES: u32 = 2;

/// By which rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refresh {
    /// Director's own.
    #[default]
    Own,
    /// The kernel's, with a `sync_refresh_period` of so many seconds.
    Kernel(u16),
}

impl Refresh {
    /// Seconds between two tellings of what is forgotten after being idle for `timeout_s`: 1 at least.
    #[must_use]
    pub fn period_s(self, timeout_s: u32) -> u32 {
        match self {
            Self::Own => (timeout_s / OWN_TIMES).clamp(1, OWN_S),
            Self::Kernel(period_s) => {
                (timeout_s / KERNEL_TIMES).clamp(1, u32::from(period_s.max(1)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_is_told_within_its_timeout() {
        let cases = [
            // (rule, timeout, period)
            (Refresh::Own, 900, 60),
            (Refresh::Own, 60, 15),
            (Refresh::Own, 1, 1),
            (Refresh::Own, 0, 1),
            (Refresh::Kernel(60), 900, 60),
            (Refresh::Kernel(300), 900, 300),
            (Refresh::Kernel(3600), 900, 450),
            (Refresh::Kernel(60), 30, 15),
            (Refresh::Kernel(60), 1, 1),
            (Refresh::Kernel(0), 900, 1),
        ];
        for (rule, timeout_s, expected_s) in cases {
            assert_eq!(rule.period_s(timeout_s), expected_s, "{rule:?} {timeout_s}");
        }
    }
}
