//! Live frames: what arrives, of the director's NAT and of nftables', in the same namespaces.

use std::time::Duration;

use anyhow::Result;

use crate::bench::Options;
use crate::bench::live::{Forwarder, Live};
use crate::bench::report::{Question, Row, Suite};
use crate::bench::rounds::{self, Extent, Turn};
use crate::bench::statistics::{Cell, Round, Sifted};
use crate::bench::verdict::Goal;

const FORWARDERS: [Forwarder; 2] = [Forwarder::Director, Forwarder::Nftables];
/// Some ten milliseconds.
const FRAMES: u32 = 30_000;
/// Work that has nothing to do with frames: how fast the machine is.
const TURNS: u64 = 300_000;

/// Runs it.
///
/// # Errors
/// Frames are lost.
pub fn run(options: &Options) -> Result<Suite> {
    let extent = Extent {
        quiet: if options.quick { 7 } else { 25 },
        rounds: 400,
        time: Duration::from_secs(if options.quick { 5 } else { 60 }),
    };
    let mut live = Live::new()?;
    let rounds = rounds::run(FORWARDERS.len(), extent, |turn| match turn {
        Turn::Floor => speed(),
        Turn::Contender(nth) => live.measure(FORWARDERS[nth], FRAMES),
    })?;
    let rounds = gross(&rounds);
    let sifted = Sifted::new(&rounds);
    let questions = [
        Question {
            name: "director".to_owned(),
            what: "a frame through the director, NAT".to_owned(),
            contender: 0,
            ..Question::default()
        },
        Question {
            name: "nftables".to_owned(),
            what: "the same through nftables' NAT".to_owned(),
            contender: 1,
            against: Some((0, "the director".to_owned())),
            goal: Some(Goal::AtLeast(6.0)),
            point: None,
        },
    ];
    Ok(Suite {
        name: "live".to_owned(),
        rows: questions
            .iter()
            .map(|question| Row::answer(question, &sifted))
            .collect(),
        notes: vec![
            "UDP, 1000 flows, 8 real servers, one CPU; sending and ending the frames is in it, for both.".to_owned(),
        ],
    })
}

/// Floors here say how fast the machine is and nothing else: they are not taken off.
fn gross(rounds: &[Round]) -> Vec<Round> {
    let cell = |cell: &Cell| Cell {
        cost: cell.cost + f64::midpoint(cell.before, cell.after),
        ..*cell
    };
    rounds
        .iter()
        .map(|round| round.iter().map(cell).collect())
        .collect()
}

/// How long a fixed piece of work takes, in nanoseconds a turn.
fn speed() -> Result<f64> {
    use crate::bench::rig::thread_time_ns;
    let before = thread_time_ns()?;
    let mut number = std::hint::black_box(before);
    for _ in 0..TURNS {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
    }
    std::hint::black_box(number);
    Ok((thread_time_ns()? - before) as f64 / TURNS as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_are_not_taken_off() {
        let rounds = vec![vec![Cell {
            before: 1.0,
            cost: 500.0,
            after: 1.0,
        }]];
        assert_eq!(Sifted::new(&gross(&rounds)).costs(0), [500.0]);
    }
}
