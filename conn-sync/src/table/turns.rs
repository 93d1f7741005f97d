//! When what is in use has its turn to be looked for, so that peers are told of it again.
//!
//! That takes several times as long for an entry as to see that it has its mark: so the tables are looked through in slices,
//! one after the other, all of them within a second. Where more is in use than may be told, the slice whose turn it is keeps
//! it, and the next pass goes on where this one stopped. Then everybody's turn comes later, and nobody's never.

use std::time::Duration;

use super::At;

/// Parts of the tables.
pub(super) const SLICES: usize = 32;
/// All of them have their turn within this time.
const ROUND: Duration = Duration::from_secs(1);
/// See [`ROUND`].
const EACH: Duration = Duration::from_nanos(ROUND.as_nanos() as u64 / SLICES as u64);

/// All turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Up to when, by the tables' clock, each slice was looked through.
    looked_s: [Option<u32>; SLICES],
    /// The slice whose turn is next, or goes on.
    next: usize,
    /// Time since the slice before had its turn, as far as it has not been used up.
    saved: Duration,
    /// Where the slice whose turn it is was left.
    left: Option<Left>,
    /// Of all tables.
    buckets: usize,
}

#[derive(Clone, Copy, Debug)]
struct Left {
    at: At,
    until_s: u32,
}

/// One slice's turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// Which slice.
    pub(super) slice: usize,
    /// What stands before this place has been told.
    pub(super) from: At,
    /// What had its turn up to this second of the tables' clock is told.
    pub(super) until_s: u32,
    /// And not what had it before so many seconds earlier; 0: nothing had.
    pub(super) elapsed_s: u32,
}

impl Turns {
    /// A pass over so many buckets begins, so long after the one before.
    pub(super) fn begin(&mut self, passed: Duration, buckets: usize) {
        self.saved = (self.saved + passed).min(ROUND);
        if let Some(left) = &mut self.left
            && self.buckets != buckets
        {
            // Tables of another size: what was before that place stands anywhere.
            left.at = At::default();
        }
        self.buckets = buckets;
    }

    /// Whose turn it is. `None`: nobody's any more, in this pass.
    pub(super) fn due(&self, now_s: u32) -> Option<Turn> {
        if self.saved < EACH {
            return None;
        }
        let (from, until_s) = self
            .left
            .map_or((At::default(), now_s), |left| (left.at, left.until_s));
        let before_s = self.looked_s[self.next];
        Some(Turn {
            slice: self.next,
            from,
            until_s,
            elapsed_s: before_s.map_or(0, |before_s| until_s.wrapping_sub(before_s)),
        })
    }

    /// All that was due in it is told.
    pub(super) fn done(&mut self, turn: Turn) {
        self.saved = self.saved.saturating_sub(EACH);
        self.looked_s[turn.slice] = Some(turn.until_s);
        self.next = (turn.slice + 1) % SLICES;
        self.left = None;
    }

    /// What stands at this place could not be told, nor what follows.
    pub(super) fn stopped(&mut self, turn: Turn, at: At) {
        self.left = Some(Left {
            at,
            until_s: turn.until_s,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pass has its share of looking for what is in use, and each slice its turn once a second: no pass does much more
    /// than another because the clock's next second has begun.
    #[test]
    fn looking_for_what_is_in_use_is_spread_over_the_second() {
        // (milliseconds between passes, slices that have their turn in one of them at the most)
        for (every_ms, most) in [
            (1, 1),
            (40, 2),
            (77, 3),
            (250, 8),
            (999, 32),
            (1000, 32),
            (5000, 32),
        ] {
            let mut turns = Turns::default();
            let mut looked_s = [0_u64; SLICES];
            let mut now_ms = 0;
            while now_ms < 100_000 {
                now_ms += every_ms;
                turns.begin(Duration::from_millis(every_ms), 384);
                let mut count = 0;
                while let Some(turn) = turns.due((now_ms / 1000) as u32) {
                    count += 1;
                    looked_s[turn.slice] += u64::from(turn.elapsed_s);
                    turns.done(turn);
                }
                assert!(count <= most, "{count} at once, every {every_ms} ms");
            }
            // No second is left out, none is looked at twice: but for the first and the last round.
            let all_s = now_ms / 1000;
            let least_s = all_s - 2 * (1 + every_ms / 1000);
            assert!(
                looked_s.iter().all(|sum| (least_s..=all_s).contains(sum)),
                "every {every_ms} ms: {looked_s:?} of {all_s} s"
            );
        }
    }

    /// It is neither given to the next one nor begun anew, however long it takes; then the seconds that passed are looked at.
    #[test]
    fn who_was_left_in_the_middle_keeps_his_turn() {
        let second = Duration::from_secs(1);
        let mut turns = Turns::default();
        for now_s in [100, 101] {
            turns.begin(second, 384);
            while let Some(turn) = turns.due(now_s) {
                turns.done(turn);
            }
        }
        let seen = |turns: &Turns, now_s| {
            let turn = turns.due(now_s).expect("a second has passed");
            (turn.slice, turn.from, turn.until_s, turn.elapsed_s)
        };
        turns.begin(second, 384);
        assert_eq!(seen(&turns, 102), (0, (0, 0), 102, 1));
        for (now_s, at) in [(102, (3, 1)), (103, (3, 2)), (110, (9, 0))] {
            turns.begin(second, 384);
            let turn = turns.due(now_s).expect("a second has passed");
            turns.stopped(turn, at);
            assert_eq!(seen(&turns, now_s + 1), (0, at, 102, 1));
        }
        // Tables of another size.
        turns.begin(second, 96);
        assert_eq!(seen(&turns, 111), (0, (0, 0), 102, 1));
        let turn = turns.due(111).expect("it is its turn");
        turns.done(turn);
        assert_eq!(seen(&turns, 111), (1, (0, 0), 111, 10));
    }
}
