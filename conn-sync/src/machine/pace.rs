//! A token bucket: how many records may go out.

use std::time::Duration;

/// Fills evenly, holds a quarter of a second's worth.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    per_second: u64,
    /// Records times a billion.
    level: u64,
    at: Duration,
}

const BILLION: u64 = 1_000_000_000;

impl Bucket {
    pub(super) fn new(per_second: u32, now: Duration) -> Self {
        let mut bucket = Self {
            per_second: u64::from(per_second.max(1)),
            level: 0,
            at: now,
        };
        bucket.level = bucket.capacity() * BILLION;
        bucket
    }

    /// The most that it holds, in records; one datagram's worth at least.
    pub(super) fn capacity(&self) -> u64 {
        (self.per_second / 4).max(64)
    }

    /// What is in it now.
    pub(super) fn level(&mut self, now: Duration) -> u64 {
        let passed = now.saturating_sub(self.at).as_nanos();
        let filled = u128::from(self.level) + passed * u128::from(self.per_second);
        let full = self.capacity() * BILLION;
        self.level = u64::try_from(filled).unwrap_or(full).min(full);
        self.at = self.at.max(now);
        self.level / BILLION
    }

    /// Takes out so many, or all.
    pub(super) fn take(&mut self, records: usize) {
        let records = (records as u64).saturating_mul(BILLION);
        self.level = self.level.saturating_sub(records);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_configured() {
        for per_second in [1, 100, 20_000, 4_000_000_000] {
            let mut bucket = Bucket::new(per_second, Duration::ZERO);
            let capacity = bucket.capacity();
            let mut taken = 0;
            for step in 0..1000 {
                let now = Duration::from_millis(step * 10);
                let level = bucket.level(now);
                assert!(level <= capacity);
                bucket.take(level as usize);
                taken += level;
            }
            let allowed = u64::from(per_second) * 9990 / 1000 + capacity;
            assert!(
                (allowed - 1..=allowed).contains(&taken),
                "{taken} of {allowed}"
            );
            assert_eq!(bucket.level(Duration::from_secs(1_000_000_000)), capacity);
            // A clock that stands still or goes back gives nothing.
            bucket.take(usize::MAX);
            assert_eq!(bucket.level(Duration::ZERO), 0);
        }
    }
}
