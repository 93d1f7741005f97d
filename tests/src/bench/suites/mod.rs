//! What is measured.

pub mod connections;
pub mod flows;
pub mod live;
pub mod memory;
pub mod packet;

use anyhow::Result;

use super::report::{Question, Row, Suite};
use super::rig::{Contender, Rig};
use super::rounds::{self, Extent, Turn};
use super::statistics::{Round, Sifted};
use super::{Options, render};

/// A suite's name, what it measures, and how.
pub struct Named {
    /// By which it is asked for.
    pub name: &'static str,
    /// For people.
    pub about: &'static str,
    /// Runs it.
    pub run: fn(&Options) -> Result<Suite>,
}

/// All suites.
pub const ALL: [Named; 5] = [
    Named {
        name: "packet",
        about: "net cost of a packet of a known connection, by method, family and protocol",
        run: packet::run,
    },
    Named {
        name: "flows",
        about: "the same with many connections, fresh and aged tables",
        run: flows::run,
    },
    Named {
        name: "connections",
        about: "a SYN flood, while many connections stand",
        run: connections::run,
    },
    Named {
        name: "live",
        about: "live frames through virtual cables, beside nftables",
        run: live::run,
    },
    Named {
        name: "memory",
        about: "what a configured connection takes",
        run: memory::run,
    },
];

/// Measures contenders in rounds, each with so many packets after so many that do not count, and answers questions about
/// them.
///
/// # Errors
/// A run fails.
fn measure(
    rig: &mut Rig,
    floor: &Contender,
    contenders: &[Contender],
    (warm_up, packets): (u32, u32),
    extent: Extent,
    questions: &[Question],
) -> Result<Vec<Row>> {
    let rounds = interleaved(rig, floor, contenders, (warm_up, packets), extent)?;
    Ok(answers(questions, &rounds))
}

/// Measures contenders in rounds.
fn interleaved(
    rig: &mut Rig,
    floor: &Contender,
    contenders: &[Contender],
    (warm_up, packets): (u32, u32),
    extent: Extent,
) -> Result<Vec<Round>> {
    rounds::run(contenders.len(), extent, |turn| match turn {
        // It touches no table: nothing to warm up but the program.
        Turn::Floor => rig.run(floor, packets.min(FLOOR_PACKETS)),
        Turn::Contender(contender) => {
            let contender = &contenders[contender];
            if warm_up > 0 {
                rig.run(contender, warm_up)?;
            }
            rig.run(contender, packets)
        }
    })
}

/// What rounds answer; told at once.
fn answers(questions: &[Question], rounds: &[Round]) -> Vec<Row> {
    let sifted = Sifted::new(rounds);
    let rows: Vec<Row> = questions
        .iter()
        .map(|question| Row::answer(question, &sifted))
        .collect();
    for row in &rows {
        eprintln!("    {}", render::line(row));
    }
    rows
}

/// Enough for a floor.
const FLOOR_PACKETS: u32 = 10_000;
