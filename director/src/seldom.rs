//! Messages that somebody outside could cause any number of.

use std::time::{Duration, Instant};

/// Time between two messages of one kind.
const PAUSE: Duration = Duration::from_secs(10);

/// Which of many messages of one kind are told.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    told_at: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// Whether to tell now; and if so, how many were not told since the last one.
    pub(crate) fn tell(&mut self, now: Instant) -> Option<u64> {
        if self.told_at.is_some_and(|told_at| now < told_at + PAUSE) {
            self.untold += 1;
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_ten_seconds_is_told() {
        // (milliseconds, told and how many were not)
        let cases = [
            (0, Some(0)),
            (1, None),
            (9_999, None),
            (10_000, Some(2)),
            (10_001, None),
            (60_000, Some(1)),
            (120_000, Some(0)),
        ];
        let (start, mut seldom) = (Instant::now(), Seldom::default());
        for (at, expected) in cases {
            let now = start + Duration::from_millis(at);
            assert_eq!(seldom.tell(now), expected, "at {at} ms");
        }
    }
}
