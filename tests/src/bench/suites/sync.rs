//! How late connections are at another director, what that takes, and how long a whole table takes.

use std::time::Duration;

use anyhow::Result;

use super::{answers, named};
use crate::bench::Options;
use crate::bench::machine::{gross, speed};
use crate::bench::report::{Question, Suite};
use crate::bench::rounds::{self, Extent};
use crate::bench::verdict::Goal;
use crate::sharing::{bulk, stream};

/// How much.
struct Size {
    standing: u32,
    each_second: u32,
    seconds: u32,
    bulk: u32,
    streams: Extent,
    bulks: Extent,
}

const FULL: Size = Size {
    standing: 100_000,
    each_second: 20_000,
    seconds: 5,
    bulk: 1_000_000,
    streams: Extent {
        quiet: 9,
        rounds: 20,
        time: Duration::from_secs(200),
    },
    bulks: Extent {
        quiet: 7,
        rounds: 12,
        time: Duration::from_secs(240),
    },
};

const ONCE: Extent = Extent {
    quiet: 1,
    rounds: 1,
    time: Duration::from_secs(1),
};

const QUICK: Size = Size {
    standing: 20_000,
    each_second: 20_000,
    seconds: 1,
    bulk: 100_000,
    streams: ONCE,
    bulks: ONCE,
};

/// Runs it.
///
/// # Errors
/// Connections do not come.
pub fn run(options: &Options) -> Result<Suite> {
    let size = if options.quick { QUICK } else { FULL };
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let streams = rounds::together(size.streams, speed, || {
        let stream = stream(size.standing, size.each_second, size.seconds)?;
        Ok([
            milliseconds(stream.median()),
            milliseconds(stream.worst()),
            stream.share * 100.0,
        ])
    })?;
    let question = |contender, name: &str, what: String, unit, goal| Question {
        name: name.to_owned(),
        what,
        unit,
        contender,
        goal,
        ..Question::default()
    };
    let most = |goal| Some(Goal::AtMost(goal));
    let which = format!(
        "{} stand, {} begin in a second",
        named(size.standing),
        named(size.each_second)
    );
    let questions = [
        question(
            0,
            "median",
            format!("{which}: at the peer, by the median"),
            "ms",
            None,
        ),
        question(
            1,
            "worst",
            format!("{which}: at the peer, the last one"),
            "ms",
            most(250.0),
        ),
        question(
            2,
            "sender",
            "what the sender takes of a core".to_owned(),
            "%",
            most(15.0),
        ),
    ];
    let mut rows = answers(&questions, &gross(&streams));
    let bulks = rounds::together(size.bulks, speed, || {
        let bulk = bulk(size.bulk)?;
        Ok([
            bulk.from_peer.as_secs_f64(),
            bulk.from_director.as_secs_f64(),
        ])
    })?;
    let all = named(size.bulk);
    let questions = [
        question(
            0,
            "bulk-from-start",
            format!(
                "{all} connections into a director's empty table, from the start of the other one"
            ),
            "s",
            most(3.0),
        ),
        question(
            1,
            "bulk",
            format!("{all} connections from one director's table into another's"),
            "s",
            most(3.0),
        ),
    ];
    rows.append(&mut answers(&questions, &gross(&bulks)));
    Ok(Suite {
        name: "sync".to_owned(),
        rows,
        notes: vec![
            format!(
                "Each round is {} s of connections that begin, or a table of another pair of directors.",
                size.seconds
            ),
            "The last one: of all steps of 5 ms the one whose connections were at the peer latest."
                .to_owned(),
        ],
        ..Suite::default()
    })
}
