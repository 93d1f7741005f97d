//! What measurements say: pure rules, from numbers to numbers.
//!
//! The machine is shared and changes its speed. So the floor, a program that does nothing, is measured before and after each
//! contender, and a cost counts only where both floors were near the best: net of them. Ratios are taken within a round, of
//! two costs that both count, and then summed up.

use serde::{Deserialize, Serialize};

/// One contender in one round, in nanoseconds a packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// The floor just before.
    pub before: f64,
    /// The contender.
    pub cost: f64,
    /// The floor just after.
    pub after: f64,
}

/// All contenders once, in the order in which they are numbered (not in which they ran).
pub type Round = Vec<Cell>;

/// The share of all floors, the fastest ones, that is taken for those of an undisturbed machine: the slowest of them is the
/// measure.
const QUIET_SHARE: f64 = 0.2;
/// How much slower than that a floor may be.
const TOLERANCE: f64 = 0.1;

/// What several measurements of the same say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Half of them are below.
    pub median: f64,
    /// A quarter of them is below.
    pub low: f64,
    /// A quarter of them is above.
    pub high: f64,
    /// How many they are.
    pub samples: usize,
}

impl Summary {
    /// Sums up; none of nothing.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            median: quantile(&sorted, 0.5)?,
            low: quantile(&sorted, 0.25)?,
            high: quantile(&sorted, 0.75)?,
            samples: sorted.len(),
        })
    }

    /// What is known exactly.
    #[must_use]
    pub const fn exact(value: f64) -> Self {
        Self {
            median: value,
            low: value,
            high: value,
            samples: 1,
        }
    }

    /// How far the middle half of them lies apart, as a share of the median.
    #[must_use]
    pub fn spread(&self) -> f64 {
        if self.high == self.low {
            0.0
        } else {
            (self.high - self.low) / self.median.abs()
        }
    }

    /// Whether it could be the same as another one: their middle halves touch.
    #[must_use]
    pub fn touches(&self, other: &Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }
}

/// The value below which a share of sorted ones lies; between two of them by their distance.
#[must_use]
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = share.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (at.floor() as usize, at.ceil() as usize);
    let (below, above) = (*sorted.get(below)?, *sorted.get(above)?);
    Some(below + (above - below) * at.fract())
}

/// Rounds, and which floors are those of an undisturbed machine.
#[derive(Clone, Debug)]
pub struct Sifted<'r> {
    rounds: &'r [Round],
    /// The slowest floor that counts.
    limit: f64,
}

impl<'r> Sifted<'r> {
    /// Finds out how fast the undisturbed machine is. (By the fastest fifth: where it is disturbed most of the time, only
    /// little counts, but that does. Not by the very fastest, which may be a mistake of the clock.)
    #[must_use]
    pub fn new(rounds: &'r [Round]) -> Self {
        let mut floors: Vec<f64> = rounds
            .iter()
            .flatten()
            .flat_map(|cell| [cell.before, cell.after])
            .collect();
        floors.sort_by(f64::total_cmp);
        let quiet = quantile(&floors, QUIET_SHARE).unwrap_or(0.0);
        Self {
            rounds,
            limit: quiet * (1.0 + TOLERANCE),
        }
    }

    /// Net cost of a contender in a round; none if the machine was slow then.
    fn net(&self, round: &Round, contender: usize) -> Option<f64> {
        let cell = round.get(contender)?;
        (cell.before <= self.limit && cell.after <= self.limit)
            .then(|| cell.cost - f64::midpoint(cell.before, cell.after))
    }

    /// Net costs of a contender that count.
    #[must_use]
    pub fn costs(&self, contender: usize) -> Vec<f64> {
        let rounds = self.rounds.iter();
        rounds
            .filter_map(|round| self.net(round, contender))
            .collect()
    }

    /// Ratios of two contenders' net costs, of rounds in which both count.
    #[must_use]
    pub fn ratios(&self, contender: usize, yardstick: usize) -> Vec<f64> {
        let rounds = self.rounds.iter();
        rounds
            .filter_map(|round| {
                let by = self.net(round, yardstick)?;
                // A yardstick of nothing measures nothing.
                (by > 0.0).then_some(self.net(round, contender)? / by)
            })
            .collect()
    }

    /// The floors that count.
    #[must_use]
    pub fn floor(&self) -> Option<Summary> {
        let floors: Vec<f64> = self
            .rounds
            .iter()
            .flatten()
            .flat_map(|cell| [cell.before, cell.after])
            .filter(|floor| *floor <= self.limit)
            .collect();
        Summary::of(&floors)
    }

    /// How many rounds there are.
    #[must_use]
    pub fn rounds(&self) -> usize {
        self.rounds.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(before: f64, cost: f64, after: f64) -> Cell {
        Cell {
            before,
            cost,
            after,
        }
    }

    #[test]
    fn quantiles() {
        for (what, sorted, share, expected) in [
            ("of nothing", vec![], 0.5, None),
            ("of one", vec![7.0], 0.25, Some(7.0)),
            ("the middle", vec![1.0, 2.0, 9.0], 0.5, Some(2.0)),
            ("between two", vec![1.0, 2.0], 0.5, Some(1.5)),
            ("a quarter", vec![0.0, 1.0, 2.0, 3.0, 4.0], 0.25, Some(1.0)),
            ("all", vec![1.0, 5.0], 1.0, Some(5.0)),
            ("more than all", vec![1.0, 5.0], 2.0, Some(5.0)),
        ] {
            assert_eq!(quantile(&sorted, share), expected, "{what}");
        }
    }

    #[test]
    fn summaries_do_not_depend_on_the_order() {
        let summary = Summary::of(&[3.0, 1.0, 2.0, 5.0, 4.0]).expect("of five");
        assert_eq!(
            summary,
            Summary {
                median: 3.0,
                low: 2.0,
                high: 4.0,
                samples: 5
            }
        );
        assert!((summary.spread() - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::exact(0.0).spread(), 0.0);
    }

    #[test]
    fn costs_count_where_both_floors_were_fast() {
        // Sentence; rounds of one contender; net costs that count.
        let rows: Vec<(&str, Vec<Cell>, Vec<f64>)> = vec![
            (
                "all fast",
                vec![cell(10.0, 30.0, 10.0), cell(10.0, 32.0, 10.0)],
                vec![20.0, 22.0],
            ),
            (
                "net of the mean of both floors",
                vec![cell(10.0, 30.0, 10.0), cell(10.0, 30.5, 11.0)],
                vec![20.0, 20.0],
            ),
            (
                "slow before, after, altogether",
                vec![
                    cell(10.0, 30.0, 10.0),
                    cell(16.0, 48.0, 10.0),
                    cell(10.0, 48.0, 16.0),
                    cell(16.0, 48.0, 16.0),
                ],
                vec![20.0],
            ),
            (
                "slow all the time: that is its speed",
                vec![cell(16.0, 48.0, 16.0), cell(16.0, 49.0, 16.5)],
                vec![32.0, 32.75],
            ),
        ];
        for (what, cells, expected) in rows {
            let rounds: Vec<Round> = cells.into_iter().map(|cell| vec![cell]).collect();
            let sifted = Sifted::new(&rounds);
            assert_eq!(sifted.costs(0), expected, "{what}");
            assert_eq!(sifted.rounds(), rounds.len(), "{what}");
        }
    }

    #[test]
    fn one_floor_that_is_too_fast_does_not_discard_the_others() {
        let mut rounds: Vec<Round> = vec![vec![cell(10.0, 30.0, 10.0)]; 20];
        rounds.push(vec![cell(1.0, 30.0, 10.0)]);
        assert_eq!(Sifted::new(&rounds).costs(0).len(), 21);
    }

    #[test]
    fn ratios_are_of_one_round() {
        let quiet = |cost| cell(10.0, cost, 10.0);
        let slow = |cost| cell(16.0, cost, 16.0);
        let rounds: Vec<Round> = vec![
            vec![quiet(20.0), quiet(30.0)],
            vec![quiet(22.0), quiet(34.0)],
            vec![slow(32.0), quiet(90.0)],
            vec![quiet(20.0), slow(90.0)],
            // Not dearer than the floor.
            vec![quiet(10.0), quiet(30.0)],
        ];
        let sifted = Sifted::new(&rounds);
        assert_eq!(sifted.ratios(1, 0), vec![2.0, 2.0]);
        assert_eq!(sifted.ratios(0, 0), vec![1.0, 1.0, 1.0]);
        assert_eq!(sifted.ratios(2, 0), Vec::<f64>::new());
        assert_eq!(sifted.floor().map(|floor| floor.high), Some(10.0));
    }

    #[test]
    fn whether_two_could_be_the_same() {
        let of = |low, high| Summary {
            median: f64::midpoint(low, high),
            low,
            high,
            samples: 9,
        };
        for (one, other, expected) in [
            (of(1.0, 2.0), of(2.0, 3.0), true),
            (of(1.0, 2.0), of(2.1, 3.0), false),
            (of(1.0, 4.0), of(2.0, 3.0), true),
        ] {
            assert_eq!(one.touches(&other), expected, "{one:?} {other:?}");
            assert_eq!(other.touches(&one), expected, "{one:?} {other:?}");
        }
    }
}
