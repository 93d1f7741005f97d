//! Standings on their way into the tables: which are not there yet, and which could not be written and are tried again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// After how long what could not be written is tried again. What it lacked may be there by then: room, where other services
/// have become smaller, or the kernel's memory.
const PAUSE: Duration = Duration::from_secs(1);

/// Services whose standing is not in the tables yet, by their place in the configuration, and since when that is so.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    waiting: BTreeMap<usize, Instant>,
    refused: BTreeMap<usize, Instant>,
    /// When those are tried again.
    again: Option<Instant>,
}

impl Unwritten {
    /// Whether some are to be written now.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// This service's standing is another one.
    pub(super) fn add(&mut self, place: usize, since: Instant) {
        let since = self.refused.remove(&place).unwrap_or(since);
        self.waiting.entry(place).or_insert(since);
    }

    /// Some that are to be written now, at most so many.
    pub(super) fn take(&mut self, most: usize) -> Vec<(usize, Instant)> {
        std::iter::from_fn(|| self.waiting.pop_first())
            .take(most)
            .collect()
    }

    /// This one could not be written.
    pub(super) fn refuse(&mut self, place: usize, since: Instant, now: Instant) {
        self.refused.insert(place, since);
        self.again.get_or_insert(now + PAUSE);
    }

    /// Tries those again that could not be written, if it is time.
    pub(super) fn try_again(&mut self, now: Instant) {
        if self.again.is_some_and(|again| again <= now) {
            self.again = None;
            for (place, since) in std::mem::take(&mut self.refused) {
                self.waiting.entry(place).or_insert(since);
            }
        }
    }

    /// All of them are in the tables.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_tried_again() {
        let start = Instant::now();
        let at = |passed_ms| start + Duration::from_millis(passed_ms);
        let mut unwritten = Unwritten::default();
        for place in [3, 1, 2, 1] {
            unwritten.add(place, at(place as u64));
        }
        assert_eq!(unwritten.take(2), [(1, at(1)), (2, at(2))]);
        unwritten.refuse(1, at(1), at(10));
        unwritten.refuse(2, at(2), at(500));
        assert_eq!(unwritten.take(9), [(3, at(3))]);
        // (milliseconds, what is tried then)
        let cases: [(u64, &[(usize, Instant)]); 4] = [
            (10, &[]),
            (1009, &[]),
            (1010, &[(1, at(1)), (2, at(2))]),
            (9000, &[]),
        ];
        for (now_ms, expected) in cases {
            unwritten.try_again(at(now_ms));
            assert_eq!(unwritten.is_waiting(), !expected.is_empty(), "{now_ms}");
            assert_eq!(unwritten.take(9), expected, "{now_ms}");
        }
        // One that changes meanwhile does not wait, and is as old as it was.
        unwritten.refuse(5, at(7), at(20_000));
        unwritten.add(5, at(20_100));
        assert_eq!(unwritten.take(9), [(5, at(7))]);
        unwritten.refuse(5, at(7), at(20_200));
        unwritten.clear();
        unwritten.try_again(at(60_000));
        assert!(!unwritten.is_waiting());
    }
}
