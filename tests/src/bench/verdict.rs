//! Goals, and whether a measurement meets them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::statistics::Summary;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

/// What is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is so.
    Met,
    /// It is not so.
    Missed,
    /// The measurements do not say.
    Undecided,
}

/// Measurements that lie further apart than this say nothing.
const WIDEST_SPREAD: f64 = 1.0 / 3.0;
/// Fewer say nothing either.
const FEWEST_SAMPLES: usize = 5;

impl Goal {
    /// The number.
    #[must_use]
    pub const fn bound(self) -> f64 {
        match self {
            Self::AtMost(bound) | Self::AtLeast(bound) => bound,
        }
    }

    /// Whether a value reaches it.
    #[must_use]
    pub fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }

    /// Judges measurements of which no one is like the other: no verdict where they are few, far apart, or where some of
    /// their middle half reach the goal and others do not.
    #[must_use]
    pub fn judge(self, measured: Option<&Summary>) -> Verdict {
        self.judge_within(measured, measured.map_or(0.0, |it| it.median))
    }

    /// Judges measurements that are compared with nothing but the goal itself, as times that somebody waits are: how far they
    /// lie apart is seen beside the goal, where that is more than they are. (5 to 9 ms are well below 50.)
    #[must_use]
    pub fn judge_value(self, measured: Option<&Summary>) -> Verdict {
        let median = measured.map_or(0.0, |it| it.median);
        self.judge_within(measured, median.max(self.bound()))
    }

    /// Judges, where a spread is a share of this much.
    fn judge_within(self, measured: Option<&Summary>, whole: f64) -> Verdict {
        let Some(measured) = measured else {
            return Verdict::Undecided;
        };
        // No share of nothing: then only what does not spread at all passes.
        let is_narrow = measured.high - measured.low <= whole.abs() * WIDEST_SPREAD;
        if measured.samples < FEWEST_SAMPLES || !is_narrow {
            return Verdict::Undecided;
        }
        match (self.is_met_by(measured.low), self.is_met_by(measured.high)) {
            (true, true) => Verdict::Met,
            (false, false) => Verdict::Missed,
            _ => Verdict::Undecided,
        }
    }

    /// Judges what is counted rather than measured.
    #[must_use]
    pub fn judge_exact(self, value: f64) -> Verdict {
        if self.is_met_by(value) {
            Verdict::Met
        } else {
            Verdict::Missed
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(bound) => write!(f, "≤ {bound}"),
            Self::AtLeast(bound) => write!(f, "≥ {bound}"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::Undecided => "undecided",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        use Verdict::{Met, Missed, Undecided};
        let of = |median, low, high, samples| {
            Some(Summary {
                median,
                low,
                high,
                samples,
            })
        };
        let (most, least) = (Goal::AtMost(2.5), Goal::AtLeast(6.0));
        for (what, goal, measured, expected) in [
            ("below", most, of(2.0, 1.9, 2.1, 9), Met),
            ("just there", most, of(2.4, 2.3, 2.5, 9), Met),
            ("above", most, of(3.0, 2.9, 3.1, 9), Missed),
            ("on both sides", most, of(2.5, 2.4, 2.6, 9), Undecided),
            (
                "far apart, though below",
                most,
                of(1.0, 0.8, 1.2, 9),
                Undecided,
            ),
            ("too few", most, of(2.0, 2.0, 2.0, 4), Undecided),
            ("nothing", most, None, Undecided),
            ("enough", least, of(7.0, 6.5, 7.5, 9), Met),
            ("not enough", least, of(5.0, 4.8, 5.2, 9), Missed),
            ("perhaps enough", least, of(6.0, 5.8, 6.2, 9), Undecided),
        ] {
            assert_eq!(goal.judge(measured.as_ref()), expected, "{what}");
        }
        let time = Goal::AtMost(50.0);
        for (what, goal, measured, expected) in [
            (
                "far apart, but not beside 50",
                time,
                of(7.0, 5.0, 9.0, 9),
                Met,
            ),
            ("far apart", time, of(20.0, 10.0, 30.0, 9), Undecided),
            ("above", time, of(70.0, 65.0, 75.0, 9), Missed),
            (
                "above and far apart",
                time,
                of(100.0, 70.0, 130.0, 9),
                Undecided,
            ),
            ("on both sides", time, of(50.0, 48.0, 52.0, 9), Undecided),
            ("too few", time, of(7.0, 7.0, 7.0, 4), Undecided),
            ("nothing", time, None, Undecided),
        ] {
            assert_eq!(goal.judge_value(measured.as_ref()), expected, "{what}");
        }
        assert_eq!(Goal::AtMost(24.0).judge_exact(24.0), Met);
        assert_eq!(Goal::AtMost(24.0).judge_exact(24.1), Missed);
        assert_eq!(Goal::AtLeast(6.0).judge_exact(5.9), Missed);
        assert_eq!(most.to_string(), "≤ 2.5");
    }
}
