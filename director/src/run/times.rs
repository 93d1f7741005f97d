//! How long the director takes for what others wait for: loads, and verdicts on their way to the packet path.

use std::collections::VecDeque;
use std::time::Duration;

use crate::control::VerdictsStatus;

/// Verdicts that the median is of.
const KEPT: usize = 64;

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// The configuration in force: from its text until the packet path had it.
    pub(super) loaded: Duration,
    /// The part of that in which the main loop did nothing else.
    pub(super) in_loop: Duration,
    pub(super) verdicts: Verdicts,
}

/// From a verdict until the packet path had what follows from it.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    written: u64,
    /// The newest last.
    last: VecDeque<Duration>,
    worst: Duration,
}

impl Verdicts {
    /// One more reached the packet path.
    pub(super) fn took(&mut self, time: Duration) {
        self.written += 1;
        self.worst = self.worst.max(time);
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(time);
    }

    pub(super) fn status(&self) -> VerdictsStatus {
        let mut sorted: Vec<Duration> = self.last.iter().copied().collect();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        VerdictsStatus {
            written: self.written,
            last_us: microseconds(self.last.back().copied().unwrap_or_default()),
            median_us: microseconds(median),
            worst_us: microseconds(self.worst),
        }
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// In milliseconds, as far as 64 bits go.
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_the_last_and_the_worst_of_all() {
        let mut verdicts = Verdicts::default();
        assert_eq!(verdicts.status(), VerdictsStatus::default());
        // (microseconds, written, last, median, worst)
        let cases = [
            (900, 1, 900, 900, 900),
            (5, 2, 5, 900, 900),
            (7, 3, 7, 7, 900),
        ];
        for (took, written, last_us, median_us, worst_us) in cases {
            verdicts.took(Duration::from_micros(took));
            let expected = VerdictsStatus {
                written,
                last_us,
                median_us,
                worst_us,
            };
            assert_eq!(verdicts.status(), expected);
        }
        for _ in 0..KEPT {
            verdicts.took(Duration::from_micros(3));
        }
        let status = verdicts.status();
        assert_eq!((status.median_us, status.worst_us), (3, 900));
    }
}
