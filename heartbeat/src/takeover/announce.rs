//! When announcements are repeated.

use std::time::Duration;

/// How often a group's addresses are announced. Frames get lost, and a switch that is busy learning forgets what it
/// was told a moment ago: once is not enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// How many times after taking over.
    pub count: u32,
    /// Time between these.
    pub interval: Duration,
    /// Afterwards once in this time, for caches that were wrong after a split brain; zero: no more.
    pub refresh: Duration,
}

impl Default for Announce {
    /// Five times, 200 ms apart, as heartbeat's IPaddr2 did.
    fn default() -> Self {
        Self {
            count: 5,
            interval: Duration::from_millis(200),
            refresh: Duration::ZERO,
        }
    }
}

/// The announcements of one group.
#[derive(Clone, Debug)]
pub struct Schedule {
    plan: Announce,
    /// Of the first ones, how many are to come.
    left: u32,
    next: Option<Duration>,
}

impl Schedule {
    /// Nothing is due until [`Schedule::begin`].
    #[must_use]
    pub fn new(plan: Announce) -> Self {
        Self {
            plan,
            left: 0,
            next: None,
        }
    }

    /// Begins, or begins anew: the first one is due at once.
    pub fn begin(&mut self, now: Duration) {
        self.left = self.plan.count;
        self.next = if self.left > 0 {
            Some(now)
        } else {
            self.later(now)
        };
    }

    /// No more.
    pub fn end(&mut self) {
        self.left = 0;
        self.next = None;
    }

    /// When to ask [`Schedule::due`] again.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.next
    }

    /// Whether to announce now. After a pause that swallowed several there is one, not all of them at once.
    pub fn due(&mut self, now: Duration) -> bool {
        if self.next.is_none_or(|next| next > now) {
            return false;
        }
        self.left = self.left.saturating_sub(1);
        self.next = if self.left > 0 {
            Some(now + self.plan.interval)
        } else {
            self.later(now)
        };
        true
    }

    fn later(&self, now: Duration) -> Option<Duration> {
        (!self.plan.refresh.is_zero()).then(|| now + self.plan.refresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// When announcements go out, if asked at every one of `ticks`, having begun at the first.
    fn check(count: u32, interval: u64, refresh: u64, ticks: &[u64], expected: &[u64]) {
        let mut schedule = Schedule::new(Announce {
            count,
            interval: ms(interval),
            refresh: ms(refresh),
        });
        schedule.begin(ms(ticks[0]));
        let due: Vec<u64> = ticks
            .iter()
            .copied()
            .filter(|tick| schedule.due(ms(*tick)))
            .collect();
        assert_eq!(due, expected, "{count} {interval} {refresh}");
    }

    #[test]
    fn repeated_then_refreshed() {
        let ticks: Vec<u64> = (1000..3000).step_by(10).collect();
        check(5, 200, 0, &ticks, &[1000, 1200, 1400, 1600, 1800]);
        check(2, 100, 500, &ticks, &[1000, 1100, 1600, 2100, 2600]);
        check(1, 200, 0, &ticks, &[1000]);
        check(0, 200, 0, &ticks, &[]);
        check(0, 200, 700, &ticks, &[1700, 2400]);
        // Late, and after a pause: one, and from there on as planned.
        check(3, 100, 0, &[0, 50, 130, 200, 240], &[0, 130, 240]);
        check(
            4,
            100,
            0,
            &[0, 1000, 1010, 1100, 1200, 1300],
            &[0, 1000, 1100, 1200],
        );
    }

    #[test]
    fn ended_and_begun_anew() {
        let mut schedule = Schedule::new(Announce::default());
        assert_eq!(schedule.deadline(), None);
        assert!(!schedule.due(ms(0)));
        schedule.begin(ms(0));
        assert!(schedule.due(ms(0)));
        assert_eq!(schedule.deadline(), Some(ms(200)));
        schedule.begin(ms(50));
        assert_eq!(schedule.deadline(), Some(ms(50)));
        schedule.end();
        assert!(!schedule.due(ms(1000)));
        assert_eq!(schedule.deadline(), None);
    }
}
