//! What is measured.

pub mod config;
pub mod connections;
pub mod failover;
pub mod flows;
pub mod live;
pub mod memory;
pub mod packet;
pub mod sync;
pub mod upkeep;
pub mod wire;

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

/// All suites, in the order in which they run: what the packet path costs, what goes over the wire, what a director does
/// besides.
pub const ALL: [Named; 10] = [
    Named {
        name: "packet",
        about: "a packet of a known connection, one flow, by method, family and protocol",
        run: packet::run,
    },
    Named {
        name: "flows",
        about: "the same with 16 thousand to a million connections, fresh and aged tables",
        run: flows::run,
    },
    Named {
        name: "live",
        about: "live frames through virtual cables, by number of flows, beside nftables",
        run: live::run,
    },
    Named {
        name: "connections",
        about: "new connections in a second, beside nftables and HAProxy; a SYN flood, while a million stand",
        run: connections::run,
    },
    Named {
        name: "wire",
        about: "iperf3 and wrk through the lab: NAT, DR, TUN, a bare route, nftables, HAProxy",
        run: wire::run,
    },
    Named {
        name: "memory",
        about: "what a configured connection takes",
        run: memory::run,
    },
    Named {
        name: "upkeep",
        about: "a pass over the connection tables",
        run: upkeep::run,
    },
    Named {
        name: "config",
        about: "loading and reloading 2,000 services with 20,000 real servers, and verdicts there",
        run: config::run,
    },
    Named {
        name: "sync",
        about: "how late connections are at another director, and how long a whole table takes",
        run: sync::run,
    },
    Named {
        name: "failover",
        about: "how long a client is without an answer when the director in charge ends",
        run: failover::run,
    },
];

/// Names of numbers of flows and connections.
fn named(count: u32) -> String {
    match count {
        million if million >= 1_000_000 => format!("{}M", million / 1_000_000),
        thousand if thousand >= 1000 => format!("{}k", thousand / 1000),
        few => few.to_string(),
    }
}

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
