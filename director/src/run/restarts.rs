//! When a part of the director that has ended by itself, or could not start, is started again.

use std::time::{Duration, Instant};

use crate::config::limits::RESTART_AFTER;

/// Twice as late after each failure, within [`RESTART_AFTER`]. What ran for as long as the longest wait has not failed.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    /// In a row.
    failures: u32,
    /// Since when it runs.
    running_since: Option<Instant>,
    due: Option<Instant>,
    /// How often it was started again.
    count: u64,
}

impl Restarts {
    /// It runs.
    pub(super) fn started(&mut self, now: Instant) {
        self.count += u64::from(self.due.is_some());
        self.due = None;
        self.running_since = Some(now);
    }

    /// It has ended, or could not start. Gives how long until it is to be started again.
    pub(super) fn failed(&mut self, now: Instant) -> Duration {
        let (first, longest) = (*RESTART_AFTER.start(), *RESTART_AFTER.end());
        let since = self.running_since.take();
        if since.is_some_and(|since| now.saturating_duration_since(since) >= longest) {
            self.failures = 0;
        }
        // Far more doublings than there are between the two.
        let wait = first.saturating_mul(1 << self.failures.min(16));
        let wait = wait.min(longest);
        self.failures = self.failures.saturating_add(1);
        self.due = Some(now + wait);
        wait
    }

    /// It is wanted otherwise, or not at all: what was is forgotten, but not how often it happened.
    pub(super) fn forget(&mut self) {
        *self = Self {
            count: self.count,
            ..Self::default()
        };
    }

    /// Whether to start it now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| now >= due)
    }

    /// How long until it is started again, if it is to be.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        Some(self.due?.saturating_duration_since(now))
    }

    /// Why there is none, and when it is tried again.
    pub(super) fn with_wait(&self, fault: &str, now: Instant) -> String {
        let wait = self.wait(now);
        let again = wait.map_or_else(String::new, |wait| {
            format!("; it is started again in {} s", wait.as_secs())
        });
        format!("{fault}{again}")
    }

    /// How often it was started again.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_in_a_row_is_waited_for_twice_as_long() {
        let start = Instant::now();
        let mut restarts = Restarts::default();
        assert!(!restarts.is_due(start) && restarts.wait(start).is_none());
        restarts.started(start);
        assert_eq!(restarts.count(), 0);
        let mut now = start;
        // (seconds that it ran; `None`: it could not start), seconds until the next start.
        let cases = [
            (Some(0), 1),
            (Some(0), 2),
            (Some(59), 4),
            (None, 8),
            (None, 16),
            (None, 32),
            (None, 60),
            (Some(1), 60),
            (Some(60), 1),
            (None, 2),
            (Some(100_000), 1),
        ];
        for (ran_s, expected_s) in cases {
            if let Some(ran_s) = ran_s {
                restarts.started(now);
                assert!(!restarts.is_due(now + Duration::from_secs(1_000_000)));
                now += Duration::from_secs(ran_s);
            }
            let wait = restarts.failed(now);
            assert_eq!(wait, Duration::from_secs(expected_s), "after {ran_s:?} s");
            assert_eq!(restarts.wait(now), Some(wait));
            assert!(!restarts.is_due(now) && restarts.is_due(now + wait));
            now += wait;
        }
        // All starts but the first, which followed upon no failure.
        assert_eq!(restarts.count(), 5);
        restarts.forget();
        assert!(!restarts.is_due(now + Duration::from_secs(100)));
        assert_eq!(restarts.failed(now), Duration::from_secs(1));
        assert_eq!(restarts.count(), 5);
    }
}
