//! How late connections are at another director, what that takes, how long a whole table takes, and what a packet's way costs
//! more.

use std::time::Duration;

use anyhow::{Result, ensure};
use xdp_ebpf::bench::programs;

use super::flows::{Age, buckets_for, prepare_director};
use super::{answers, named};
use crate::bench::beside::{Beside, EVERY};
use crate::bench::machine::{gross, speed};
use crate::bench::report::{Question, Row, Suite};
use crate::bench::rig::{CPUS, Contender, Rig, Sources};
use crate::bench::rounds::{self, Extent, Turn};
use crate::bench::site::{self, TUN};
use crate::bench::verdict::Goal;
use crate::bench::{Options, flows};
use crate::sharing::{bulk, stream};

/// How much.
struct Size {
    standing: u32,
    each_second: u32,
    seconds: u32,
    bulk: u32,
    flows: u32,
    streams: Extent,
    bulks: Extent,
    hits: Extent,
}

const FULL: Size = Size {
    standing: 100_000,
    each_second: 20_000,
    seconds: 5,
    bulk: 1_000_000,
    flows: 64_000,
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
    hits: Extent {
        quiet: 15,
        rounds: 100,
        time: Duration::from_secs(60),
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
    flows: 16_000,
    streams: ONCE,
    bulks: ONCE,
    hits: Extent {
        quiet: 5,
        rounds: 10,
        time: Duration::from_secs(5),
    },
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
    // The last: the thread is on one CPU, in a namespace of its own, from here on.
    rows.append(&mut hits(&size)?);
    Ok(Suite {
        name: "sync".to_owned(),
        rows,
        notes: vec![
            format!(
                "Each round is {} s of connections that begin, or a table of another pair of directors.",
                size.seconds
            ),
            "A hit: a run takes as long as several passes are apart. With two CPUs that are one core's, whatever runs on one costs the other.".to_owned(),
            "The last one: of all steps of 5 ms the one whose connections were at the peer latest."
                .to_owned(),
        ],
        ..Suite::default()
    })
}

/// Contenders: hits while no pass runs, and while conn-sync's do.
const ALONE: usize = 0;
const SHARED: usize = 1;
/// A run of so many passes.
const PASSES: u32 = 3;
/// A hit takes longer than so many nanoseconds, whatever the machine.
const SHORTEST_HIT_NS: u32 = 20;
/// The CPU that does not measure.
const OTHER_CPU: usize = 1;

/// What a hit costs while conn-sync passes over the same tables, on another CPU.
fn hits(size: &Size) -> Result<Vec<Row>> {
    let count = size.flows;
    let buckets = buckets_for(count);
    let mut rig = Rig::new(buckets, count)?;
    prepare_director(&mut rig, TUN, count, Age::Fresh)?;
    rig.set_flows(flows::of_generation(0, count, 2))?;
    let tables = rig.kernel().mapped()?;
    let beside = Beside::start(OTHER_CPU, tables, &site::fixture(CPUS, buckets))?;
    let floor = Contender::bench(programs::TRIVIAL, TUN.later()).from(Sources::Flows);
    let hit = Contender::director(TUN.later()).from(Sources::Flows);
    let packets = EVERY.as_nanos() as u32 * PASSES / SHORTEST_HIT_NS;
    // The first pass marks all of them, and each packet comes once.
    beside.set(true);
    rig.run(&hit, packets)?;
    let rounds = rounds::run(2, size.hits, |turn| {
        let is_on = turn == Turn::Contender(SHARED);
        beside.set(is_on);
        match turn {
            Turn::Floor => rig.run(&floor, count),
            Turn::Contender(_) => {
                let before = beside.passes();
                let cost = rig.run(&hit, packets)?;
                let passes = beside.passes() - before;
                ensure!(
                    !is_on || passes > 0,
                    "no pass has run beside {packets} packets"
                );
                Ok(cost)
            }
        }
    })?;
    let shown = named(count);
    let question = Question {
        name: "hit".to_owned(),
        what: format!("a hit, TUN, {shown} flows, no pass of conn-sync beside it"),
        contender: ALONE,
        ..Question::default()
    };
    let beside = Question {
        name: "hit-beside".to_owned(),
        what: "the same while conn-sync passes over the tables on another CPU".to_owned(),
        contender: SHARED,
        against: Some((ALONE, "without".to_owned())),
        goal: Some(Goal::AtMost(1.1)),
        ..Question::default()
    };
    Ok(answers(&[question, beside], &rounds))
}
