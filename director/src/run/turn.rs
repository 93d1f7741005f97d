//! How much of the connection tables is walked over when: a pass is some turns, one for each tick of the clock, and a turn is
//! slices, between which the loop takes whatever else comes, verdicts above all.

/// Turns of a pass, so that one takes about a second.
const TURNS: usize = 10;
/// Most buckets in a turn: 12 ms if they are full, 25 ms if a third of the entries are copies. Tables of more than ten such
/// turns take longer than a second.
const TURN_BUCKETS: usize = 1 << 18;
/// Most buckets in a slice, an eighth of those times: a verdict on its way to the packet path waits for no more.
const SLICE_BUCKETS: usize = 1 << 15;

/// What is left of a turn, in buckets.
#[derive(Debug, Default)]
pub(super) struct Turn(usize);

impl Turn {
    /// Another one, over tables of so many buckets.
    pub(super) fn begin(&mut self, buckets: usize) {
        self.0 = buckets.div_ceil(TURNS).min(TURN_BUCKETS);
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.0 > 0
    }

    /// The next slice of it.
    pub(super) fn slice(&mut self) -> usize {
        let slice = self.0.min(SLICE_BUCKETS);
        self.0 -= slice;
        slice
    }

    /// The pass has ended: the next one begins with a turn of its own.
    pub(super) fn end(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_and_slices() {
        const MOST: usize = SLICE_BUCKETS;
        // (buckets of the tables, slices of a turn)
        let cases: [(usize, &[usize]); 7] = [
            (0, &[]),
            (1, &[1]),
            (10, &[1]),
            (10 * MOST, &[MOST]),
            (10 * MOST + 1, &[MOST, 1]),
            (25 * MOST, &[MOST, MOST, MOST / 2]),
            (100 * TURN_BUCKETS, &[MOST; TURN_BUCKETS / MOST]),
        ];
        for (buckets, expected) in cases {
            let mut turn = Turn::default();
            turn.begin(buckets);
            let mut slices = Vec::new();
            while turn.is_under_way() {
                slices.push(turn.slice());
            }
            assert_eq!(slices, expected, "{buckets}");
            assert_eq!(turn.slice(), 0);
        }
        let mut turn = Turn::default();
        turn.begin(100 * MOST);
        turn.slice();
        turn.end();
        assert!(!turn.is_under_way());
    }
}
