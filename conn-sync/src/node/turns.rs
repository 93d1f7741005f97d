//! What a node's loop does by itself, and when. It asks before it looks at anything that comes from outside: so datagrams, however
//! many there are, keep none of this waiting for longer than one batch of them takes.

use std::time::Duration;

use tokio::time::Instant;

/// How often the tables are walked, at most.
const PASS_EVERY: Duration = Duration::from_millis(40);
/// A pass waits so many times as long as the one before took: walking takes a tenth of a core at the most.
const PASS_SHARE: u32 = 9;
/// How often it is looked at some templates, at most.
const TEMPLATES_EVERY: Duration = Duration::from_millis(100);
/// As [`PASS_SHARE`].
const TEMPLATES_SHARE: u32 = 19;
/// How often it is looked whether the interface is the same yet.
const LINK_EVERY: Duration = Duration::from_secs(1);
/// Between two ticks: one that is due again at once keeps nobody else waiting.
const TICKS_APART: Duration = Duration::from_millis(1);

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// A pass over the connection tables.
    Pass,
    /// A look at some of the templates.
    Templates,
    /// A look at the interface.
    Link,
    /// What is due by a deadline.
    Tick,
}

/// When each has its turn.
#[derive(Debug)]
pub(super) struct Turns {
    pass_at: Instant,
    templates_at: Instant,
    link_at: Instant,
    /// Not before.
    tick_from: Instant,
}

impl Turns {
    /// All of it now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            pass_at: now,
            templates_at: now,
            link_at: now,
            tick_from: now,
        }
    }

    fn all(&self, deadline: Instant) -> [(Instant, Turn); 4] {
        [
            (self.pass_at, Turn::Pass),
            (self.templates_at, Turn::Templates),
            (self.link_at, Turn::Link),
            (self.tick_from.max(deadline), Turn::Tick),
        ]
    }

    /// What is due, the longest overdue first.
    pub(super) fn due(&self, now: Instant, deadline: Instant) -> Option<Turn> {
        let due = self.all(deadline).into_iter().filter(|(at, _)| *at <= now);
        due.min_by_key(|(at, _)| *at).map(|(_, turn)| turn)
    }

    /// When something is due again.
    pub(super) fn next(&self, deadline: Instant) -> Instant {
        let [first, others @ ..] = self.all(deadline);
        others.iter().fold(first.0, |next, (at, _)| next.min(*at))
    }

    /// All that tells peers something is due now.
    pub(super) fn hurry(&mut self, now: Instant) {
        (self.pass_at, self.templates_at) = (now, now);
    }

    /// It was done, and took so much processor time: who was kept from running has cost nothing, and must not wait for that
    /// besides.
    pub(super) fn done(&mut self, turn: Turn, now: Instant, cost: Duration) {
        match turn {
            Turn::Pass => self.pass_at = now + PASS_EVERY.max(cost * PASS_SHARE),
            Turn::Templates => {
                self.templates_at = now + TEMPLATES_EVERY.max(cost * TEMPLATES_SHARE);
            }
            Turn::Link => self.link_at = now + LINK_EVERY,
            Turn::Tick => self.tick_from = now + TICKS_APART,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten seconds in which there is always another batch of datagrams, and a deadline that is always due.
    #[test]
    fn a_flood_keeps_no_turn_waiting() {
        let us = Duration::from_micros;
        // A look at the interface.
        let link = us(30);
        // Microseconds that a batch of datagrams, a pass, a look at the templates and a tick take.
        for (batch, pass, templates, tick) in [
            (0, 0, 0, 0),
            (200, 500, 50, 5),
            (5_000, 9_000, 100, 5),
            (20_000, 2_000, 30_000, 2_000),
        ] {
            let [batch, pass, templates, tick] = [batch, pass, templates, tick].map(us);
            let start = Instant::now();
            let mut turns = Turns::new(start);
            let mut now = start;
            let (mut last, mut counts) = ([start; 4], [0_u32; 4]);
            let mut batches = 0;
            while now < start + Duration::from_secs(10) {
                // Time passes while nothing costs anything, too.
                now += us(1);
                let Some(turn) = turns.due(now, start) else {
                    batches += 1;
                    now += batch;
                    continue;
                };
                let (cost, apart) = match turn {
                    Turn::Pass => (pass, PASS_EVERY.max(pass * PASS_SHARE)),
                    Turn::Templates => {
                        (templates, TEMPLATES_EVERY.max(templates * TEMPLATES_SHARE))
                    }
                    Turn::Link => (link, LINK_EVERY),
                    Turn::Tick => (tick, TICKS_APART),
                };
                // One batch and each of the others once, at the worst.
                let others = pass + templates + link + tick * 2;
                let since = now - last[turn as usize];
                assert!(
                    since <= apart + batch + others + us(10),
                    "{turn:?} after {since:?}"
                );
                now += cost;
                turns.done(turn, now, cost);
                (last[turn as usize], counts[turn as usize]) = (now, counts[turn as usize] + 1);
            }
            assert!(
                batches > 100 && counts.iter().all(|count| *count >= 10),
                "{batches} {counts:?}"
            );
        }
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let now = Instant::now();
        let mut turns = Turns::new(now);
        let later = now + Duration::from_secs(9);
        for turn in [Turn::Pass, Turn::Templates, Turn::Link] {
            assert_eq!(turns.due(now, later), Some(turn));
            turns.done(turn, now, Duration::ZERO);
        }
        assert_eq!(turns.due(now, later), None);
        assert_eq!(turns.next(later), now + PASS_EVERY);
        let soon = now + Duration::from_millis(5);
        assert_eq!(turns.next(soon), soon);
        assert_eq!(turns.due(soon, soon), Some(Turn::Tick));
        turns.done(Turn::Tick, soon, Duration::ZERO);
        assert_eq!(turns.due(soon, soon), None);
    }
}
