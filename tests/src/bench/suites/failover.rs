//! How long a client is without an answer when the director in charge ends.

use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::answers;
use crate::bench::Options;
use crate::bench::machine::{gross, speed};
use crate::bench::report::{Question, Suite};
use crate::bench::rounds::{self, Extent, Turn};
use crate::bench::verdict::Goal;
use crate::pair::{BOTH_CABLES, ONE_GROUP, Pair, QUICK, Runs};

/// How it ends: name, sentence, milliseconds that a client may be without an answer.
const ENDS: [(&str, &str, Signal, f64); 2] = [
    (
        "killed",
        "without an answer after SIGKILL",
        Signal::SIGKILL,
        500.0,
    ),
    (
        "stopped",
        "without an answer after an orderly stop",
        Signal::SIGTERM,
        50.0,
    ),
];

/// Runs it.
///
/// # Errors
/// Only those of the clocks: a director that does not start panics with what it said.
pub fn run(options: &Options) -> Result<Suite> {
    let extent = if options.quick {
        Extent {
            quiet: 1,
            rounds: 1,
            time: Duration::from_secs(1),
        }
    } else {
        Extent {
            quiet: 20,
            rounds: 40,
            time: Duration::from_secs(400),
        }
    };
    let sections = [QUICK, "auto_failback: false\n", BOTH_CABLES, ONE_GROUP];
    let mut pair = Pair::up(Runs::Director, &sections);
    let rounds = rounds::run(ENDS.len(), extent, |turn| match turn {
        Turn::Floor => speed(),
        Turn::Contender(nth) => Ok(pair.gap_when_ended_by(ENDS[nth].2).as_secs_f64() * 1e3),
    })?;
    let questions: Vec<Question> = (0..)
        .zip(ENDS)
        .map(|(contender, (name, what, _, goal))| Question {
            name: name.to_owned(),
            what: what.to_owned(),
            unit: "ms",
            contender,
            goal: Some(Goal::AtMost(goal)),
            ..Question::default()
        })
        .collect();
    Ok(Suite {
        name: "failover".to_owned(),
        rows: answers(&questions, &gross(&rounds)),
        notes: vec![
            "DR; keepalive 100 ms, deadtime 300 ms, two links; a client behind a router, which requests every 4 ms or as soon as a request has failed (40 ms).".to_owned(),
        ],
        ..Suite::default()
    })
}
