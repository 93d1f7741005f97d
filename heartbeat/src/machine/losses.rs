//! Losses of a group lately: who loses it again and again does not ask for it each time.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::Timing;

/// They are remembered for so long.
const MEMORY: Duration = Duration::from_secs(60);
/// So many are remembered.
const MOST: usize = 8;

/// When a node was primary of a group and no longer was.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses(VecDeque<Duration>);

impl Losses {
    pub(super) fn note(&mut self, now: Duration) {
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }

    /// Until when it does not ask for the group: each loss within a minute doubles the time, so that a node whose
    /// fitness changes all the time does not move the group each time.
    pub(super) fn held_until(&self, now: Duration, timing: &Timing) -> Duration {
        let recent = self.0.iter().filter(|at| now < **at + MEMORY);
        let count = u32::try_from(recent.count()).unwrap_or(u32::MAX);
        let Some(last) = self.0.back().filter(|_| count > 1) else {
            return Duration::ZERO;
        };
        let factor = 1_u32.checked_shl(count - 1).unwrap_or(u32::MAX);
        *last
            + timing
                .deadtime
                .saturating_mul(factor)
                .min(timing.longest_hold())
    }
}
