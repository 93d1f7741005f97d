//! Contenders interleaved: each in every round, a floor between any two, each time in another order.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::statistics::{Cell, Round, Sifted};

/// What is measured next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The program that does nothing.
    Floor,
    /// A contender, by its number.
    Contender(usize),
}

/// How long to go on.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Rounds in which a contender and its floors must count, for each contender.
    pub quiet: usize,
    /// Rounds at most.
    pub rounds: usize,
    /// Time at most: no round begins later, but the first one.
    pub time: Duration,
}

/// Runs rounds until enough of them count, or the extent is used up. `measure` gives nanoseconds a packet.
///
/// # Errors
/// Those of `measure`.
pub fn run(
    contenders: usize,
    extent: Extent,
    mut measure: impl FnMut(Turn) -> Result<f64>,
) -> Result<Vec<Round>> {
    let began = Instant::now();
    let mut rounds: Vec<Round> = Vec::new();
    while extent.goes_on(&rounds, contenders, began) {
        let mut round = vec![None; contenders];
        let mut before = measure(Turn::Floor)?;
        for place in 0..contenders {
            // Another one begins each round: none always comes after the same.
            let contender = (place + rounds.len()) % contenders;
            let cost = measure(Turn::Contender(contender))?;
            let after = measure(Turn::Floor)?;
            round[contender] = Some(Cell {
                before,
                cost,
                after,
            });
            before = after;
        }
        rounds.push(round.into_iter().flatten().collect());
    }
    Ok(rounds)
}

/// Runs rounds in which one thing is done that gives several figures, all between the same two floors; else as [`run`].
///
/// # Errors
/// Those of `floor` and `measure`.
pub fn together<const FIGURES: usize>(
    extent: Extent,
    mut floor: impl FnMut() -> Result<f64>,
    mut measure: impl FnMut() -> Result<[f64; FIGURES]>,
) -> Result<Vec<Round>> {
    let began = Instant::now();
    let mut rounds: Vec<Round> = Vec::new();
    while extent.goes_on(&rounds, FIGURES, began) {
        let before = floor()?;
        let costs = measure()?;
        let after = floor()?;
        let cell = |cost| Cell {
            before,
            cost,
            after,
        };
        rounds.push(costs.map(cell).into());
    }
    Ok(rounds)
}

impl Extent {
    fn goes_on(&self, rounds: &[Round], contenders: usize, began: Instant) -> bool {
        rounds.len() < self.rounds
            && (rounds.is_empty() || began.elapsed() < self.time)
            && !is_enough(rounds, contenders, self.quiet)
    }
}

/// Whether each contender has counted often enough.
fn is_enough(rounds: &[Round], contenders: usize, quiet: usize) -> bool {
    let sifted = Sifted::new(rounds);
    (0..contenders).all(|contender| sifted.costs(contender).len() >= quiet)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// Measures with a machine whose `n`-th floor costs `floor(n)`, and contender `c` `10 * (c + 2)`.
    fn check(
        what: &str,
        extent: Extent,
        floor: impl Fn(usize) -> f64,
        expected_rounds: usize,
    ) -> Vec<Turn> {
        let mut turns = Vec::new();
        let mut floors = 0;
        let rounds = run(3, extent, |turn| {
            turns.push(turn);
            Ok(match turn {
                Turn::Floor => {
                    floors += 1;
                    floor(floors)
                }
                Turn::Contender(contender) => 10.0 * (contender + 2) as f64,
            })
        })
        .expect("nothing fails");
        assert_eq!(rounds.len(), expected_rounds, "{what}");
        for round in &rounds {
            let costs: Vec<f64> = round.iter().map(|cell| cell.cost).collect();
            assert_eq!(costs, [20.0, 30.0, 40.0], "{what}: by number, not by turn");
        }
        turns
    }

    #[test]
    fn it_goes_on_until_enough_counts() {
        let extent = Extent {
            quiet: 5,
            rounds: 100,
            time: LONG,
        };
        check("always quiet", extent, |_| 10.0, 5);
        // Floors 1 to 8, the first two rounds, are slow.
        check(
            "slow in the beginning",
            extent,
            |nth| if nth <= 8 { 20.0 } else { 10.0 },
            7,
        );
        let never = Extent {
            rounds: 12,
            ..extent
        };
        check(
            "every second floor is slow",
            never,
            |nth| [10.0, 20.0][nth % 2],
            12,
        );
        let short = Extent {
            time: Duration::ZERO,
            ..extent
        };
        check("no time", short, |_| 10.0, 1);
    }

    #[test]
    fn figures_of_one_measurement_share_their_floors() {
        let extent = Extent {
            quiet: 3,
            rounds: 100,
            time: LONG,
        };
        // The second round is slow, before and after it.
        let floors = [10.0, 10.0, 20.0, 20.0, 10.0, 10.0, 10.0, 10.0];
        let mut floor = floors.into_iter();
        let mut nth = 0.0;
        let rounds = together(
            extent,
            || Ok(floor.next().expect("no more are asked for")),
            || {
                nth += 1.0;
                Ok([nth, nth * 100.0])
            },
        )
        .expect("nothing fails");
        assert_eq!(rounds.len(), 4, "the slow one does not count");
        let sifted = Sifted::new(&rounds);
        assert_eq!(sifted.costs(1), [90.0, 290.0, 390.0]);
    }

    #[test]
    fn a_floor_stands_between_any_two_and_each_begins_in_turn() {
        use Turn::{Contender, Floor};
        let extent = Extent {
            quiet: 2,
            rounds: 2,
            time: LONG,
        };
        let turns = check("two rounds", extent, |_| 10.0, 2);
        let expected = [
            [
                Floor,
                Contender(0),
                Floor,
                Contender(1),
                Floor,
                Contender(2),
                Floor,
            ],
            [
                Floor,
                Contender(1),
                Floor,
                Contender(2),
                Floor,
                Contender(0),
                Floor,
            ],
        ];
        assert_eq!(turns, expected.concat());
    }
}
