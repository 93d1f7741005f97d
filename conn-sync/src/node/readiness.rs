//! When whoever runs a node is told that it has all of its peers' connections, or has not.

use std::time::Duration;

use crate::machine::Readiness;

/// An update that was lost is asked for and there again in a few milliseconds. Only what lasts longer is told: on a link that
/// loses something now and then it would be told several times a second, and a failback would be put off each time.
const REPAIRED_WITHIN: Duration = Duration::from_millis(300);

/// What was told, and what is perhaps to be told.
#[derive(Debug, Default)]
pub(super) struct Told {
    last: Option<Readiness>,
    /// It was told that all is there, and since then something is missing.
    missing_since: Option<Duration>,
}

impl Told {
    /// What to tell now, of what is: changes only.
    pub(super) fn next(&mut self, is: Readiness, now: Duration) -> Option<Readiness> {
        if (self.last, is) == (Some(Readiness::Synced), Readiness::Waiting) {
            let since = *self.missing_since.get_or_insert(now);
            if now < since + REPAIRED_WITHIN {
                return None;
            }
        }
        self.missing_since = None;
        (self.last.replace(is) != Some(is)).then_some(is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repaired_at_once_is_not_told() {
        use Readiness::{Alone, Limit, Synced, Waiting};
        // (milliseconds, what is, whether it is told)
        let rows = [
            (0, Waiting, true),
            (1, Waiting, false),
            (2, Synced, true),
            // Lost and repaired, and once more.
            (100, Waiting, false),
            (110, Synced, false),
            (399, Waiting, false),
            (409, Synced, false),
            (410, Synced, false),
            // It lasts.
            (500, Waiting, false),
            (799, Waiting, false),
            (800, Waiting, true),
            (801, Synced, true),
            // What is no gap is told at once.
            (900, Alone, true),
            (901, Waiting, true),
            (902, Synced, true),
            (903, Waiting, false),
            (904, Limit, true),
            (905, Synced, true),
            (1203, Waiting, false),
            (1502, Waiting, false),
            (1503, Waiting, true),
        ];
        let mut told = Told::default();
        for (at, is, expected) in rows {
            let next = told.next(is, Duration::from_millis(at));
            assert_eq!(next, expected.then_some(is), "at {at} ms");
        }
    }
}
