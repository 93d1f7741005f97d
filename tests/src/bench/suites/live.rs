//! Live frames: what arrives, of the director's NAT and of nftables', in the same namespaces.

use std::time::Duration;

use anyhow::Result;

use super::flows::buckets_for;
use super::{answers, named};
use crate::bench::Options;
use crate::bench::live::{Forwarder, Live};
use crate::bench::machine::gross;
use crate::bench::report::{Point, Question, Row, Suite};
use crate::bench::rounds::{self, Extent, Turn};
use crate::bench::statistics::{Cell, Round, Sifted};
use crate::bench::verdict::Goal;

/// In the order of the contenders.
const FORWARDERS: [Forwarder; 3] = [Forwarder::Nobody, Forwarder::Director, Forwarder::Nftables];
const NOBODY: usize = 0;
const DIRECTOR: usize = 1;
const NFTABLES: usize = 2;
/// Flows for which there is a goal.
const FLOWS_OF_GOAL: u32 = 1000;
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
        time: Duration::from_secs(if options.quick { 5 } else { 40 }),
    };
    let counts: &[u32] = match (options.quick, options.many) {
        (true, false) => &[FLOWS_OF_GOAL],
        (true, true) => &[FLOWS_OF_GOAL, 1_000_000],
        (false, false) => &[1, FLOWS_OF_GOAL, 16_000, 64_000, 1_000_000],
        (false, true) => &[1, FLOWS_OF_GOAL, 16_000, 64_000, 1_000_000, 4_000_000],
    };
    let most = counts.iter().copied().max().unwrap_or(1);
    let mut live = Live::new(most, buckets_for(most))?;
    let mut rows = Vec::new();
    let mut notes = vec![
        "UDP, 8 real servers, one CPU; sending and ending the frames is in it, for both, but not in what is said to be above an empty program: that sends them back.".to_owned(),
        "The kernel's table of connections has as many chains as there are flows.".to_owned(),
    ];
    for &count in counts {
        let contenders = if live.set_flows(count, buckets_for(count))? {
            FORWARDERS.len()
        } else {
            notes.push(format!(
                "No nftables with {} flows: the kernel has no room for so many connections, and this program may not make it.",
                named(count)
            ));
            NFTABLES
        };
        let rounds = rounds::run(contenders, extent, |turn| match turn {
            Turn::Floor => speed(),
            Turn::Contender(nth) => live.measure(FORWARDERS[nth], FRAMES),
        })?;
        let rounds = with_net(&gross(&rounds));
        rows.append(&mut answers(&questions(count, contenders), &rounds));
        rows.extend(undecided(count, contenders));
    }
    Ok(Suite {
        name: "live".to_owned(),
        rows,
        notes,
        ..Suite::default()
    })
}

/// Rounds in which, behind the contenders, stand those behind the first one once more: above the first one.
fn with_net(rounds: &[Round]) -> Vec<Round> {
    let net = |cell: &Cell, empty: &Cell| Cell {
        // The first one's floors too, or it might be of another speed.
        before: cell.before.max(empty.before),
        cost: cell.cost - empty.cost
            + f64::midpoint(cell.before.max(empty.before), cell.after.max(empty.after)),
        after: cell.after.max(empty.after),
    };
    let extended = |round: &Round| {
        let behind = round.iter().skip(NOBODY + 1);
        let nets = behind.map(|cell| net(cell, &round[NOBODY]));
        round.iter().copied().chain(nets).collect()
    };
    rounds.iter().map(extended).collect()
}

/// What is asked of rounds with so many contenders, and their nets behind them.
fn questions(count: u32, contenders: usize) -> Vec<Question> {
    let shown = named(count);
    let of = |contender: usize, name: &str, what: String| Question {
        name: format!("{name}-{shown}"),
        what,
        contender,
        ..Question::default()
    };
    let point = |series: &str| {
        Some(Point {
            series: format!("{series}, live frames"),
            flows: count,
        })
    };
    let net = |contender: usize| contenders + contender - 1;
    let mut all = vec![
        of(
            NOBODY,
            "empty",
            format!("a frame, {shown} flows: an empty program sends it back"),
        ),
        of(
            DIRECTOR,
            "director",
            "the same: through the director, NAT".to_owned(),
        ),
        Question {
            point: point("NAT"),
            ..of(
                net(DIRECTOR),
                "director-net",
                "the same: the director above an empty program".to_owned(),
            )
        },
    ];
    if contenders > NFTABLES {
        all.push(Question {
            against: Some((DIRECTOR, "the director".to_owned())),
            goal: (count == FLOWS_OF_GOAL).then_some(Goal::AtLeast(6.0)),
            ..of(
                NFTABLES,
                "nftables",
                "the same: through nftables' NAT".to_owned(),
            )
        });
        all.push(Question {
            against: Some((net(DIRECTOR), "the director".to_owned())),
            point: point("nftables NAT"),
            ..of(
                net(NFTABLES),
                "nftables-net",
                "the same: nftables above an empty program".to_owned(),
            )
        });
    }
    all
}

/// The goal of those questions that cannot be asked without nftables.
fn undecided(count: u32, contenders: usize) -> Option<Row> {
    let missing = questions(count, FORWARDERS.len()).into_iter();
    let mut missing = missing.filter(|it| contenders <= NFTABLES && it.goal.is_some());
    missing
        .next()
        .map(|question| Row::answer(&question, &Sifted::new(&[])))
}

/// How long a fixed piece of work takes, in nanoseconds a turn: by the time that this thread runs, as frames are measured.
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
    use crate::bench::verdict::Verdict;

    fn cell(floor: f64, cost: f64) -> Cell {
        Cell {
            before: floor,
            cost,
            after: floor,
        }
    }

    #[test]
    fn nets_are_above_the_empty_program_of_the_same_round() {
        let rounds = vec![
            vec![cell(1.0, 100.0), cell(1.0, 250.0), cell(1.0, 1600.0)],
            // While the empty program ran the machine was slow: no net counts, though the others do.
            vec![cell(2.0, 200.0), cell(1.0, 260.0), cell(1.0, 1700.0)],
        ];
        let rounds = with_net(&gross(&rounds));
        let sifted = Sifted::new(&rounds);
        for (contender, expected) in [
            (NOBODY, vec![100.0]),
            (DIRECTOR, vec![250.0, 260.0]),
            (NFTABLES, vec![1600.0, 1700.0]),
            (3, vec![150.0]),
            (4, vec![1500.0]),
        ] {
            assert_eq!(sifted.costs(contender), expected, "{contender}");
        }
        assert_eq!(sifted.ratios(4, 3), [10.0]);
    }

    #[test]
    fn questions_are_of_contenders_that_are_there() {
        for (contenders, expected) in [(3, vec![0, 1, 3, 2, 4]), (2, vec![0, 1, 2])] {
            let questions = questions(FLOWS_OF_GOAL, contenders);
            let asked: Vec<usize> = questions.iter().map(|it| it.contender).collect();
            assert_eq!(asked, expected);
        }
    }

    #[test]
    fn a_goal_beside_nobody_is_undecided() {
        let row = undecided(FLOWS_OF_GOAL, NFTABLES).unwrap();
        assert_eq!(row.name, "nftables-1k");
        assert_eq!(row.verdict, Some(Verdict::Undecided));
        assert_eq!(undecided(FLOWS_OF_GOAL, FORWARDERS.len()), None);
        assert_eq!(undecided(1, NFTABLES), None);
    }
}
