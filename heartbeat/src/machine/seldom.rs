//! What is said only so often, however often there is a cause: others may cause it as often as they like.

use std::time::Duration;

/// Counts how often something was said lately.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seldom {
    since: Option<Duration>,
    count: u32,
}

impl Seldom {
    /// Whether it may be said now, at most so many times in this time. It counts as said then.
    pub(crate) fn may(&mut self, now: Duration, most: u32, within: Duration) -> bool {
        if self.since.is_none_or(|since| now >= since + within) {
            *self = Self {
                since: Some(now),
                count: 0,
            };
        }
        let may = self.count < most;
        self.count += u32::from(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_a_minute() {
        // When, and whether it may: twice in ten seconds.
        let rows = [
            (0, true),
            (0, true),
            (1, false),
            (9, false),
            (10, true),
            (19, true),
            (19, false),
            (100, true),
        ];
        let mut seldom = Seldom::default();
        for (at, expected) in rows {
            let may = seldom.may(Duration::from_secs(at), 2, Duration::from_secs(10));
            assert_eq!(may, expected, "at {at}");
        }
    }
}
