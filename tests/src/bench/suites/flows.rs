//! Many flows: what the caches do not hold. Tables are fresh, their flows entered one after the other, or aged: many others
//! have come and gone before.

use std::time::Duration;

use anyhow::{Result, ensure};
use director::config::ConnectionLimits;
use xdp_ebpf::bench::programs;
use xdp_ebpf::state::State;

use super::{measure, named};
use crate::bench::report::{Point, Question, Row, Suite};
use crate::bench::rig::{Contender, Program, Rig, Sources};
use crate::bench::rounds::Extent;
use crate::bench::site::{MH, NAT, ON_CHANGE, TUN, Way};
use crate::bench::verdict::Goal;
use crate::bench::{Options, flows};

/// Generations that come and go before those that are measured.
const GENERATIONS: u8 = 4;
/// Packets of a contender in a round: some ten milliseconds, in which mostly nobody else runs.
const PACKETS: u32 = 30_000;
const FEWEST_PACKETS: u32 = 10_000;
/// Up to so many flows all of them come once before packets count. Of more the caches hold little: then it is [`PACKETS`].
/// (Where they hold a part of one contender's table, it is taken for colder than it would be alone.)
const WARM_FLOWS: u32 = 65_536;
/// Of so many connections one may be lost to full buckets.
const ONE_OF: usize = 1000;

/// What happened to a table before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    Fresh,
    Aged,
}

/// Where flows stand, of a way: a table that they are entered into and taken out of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Table {
    Director(Way),
    Yardstick {
        fill: &'static str,
        empty: &'static str,
    },
}

const LRU16: Table = Table::Yardstick {
    fill: programs::FILL16,
    empty: programs::EMPTY16,
};
const LRU40: Table = Table::Yardstick {
    fill: programs::FILL40,
    empty: programs::EMPTY40,
};

impl Table {
    /// Enters flows.
    fn fill(self, rig: &mut Rig, flows: Vec<u64>) -> Result<()> {
        let count = flows.len() as u32;
        rig.set_flows(flows)?;
        let packets = match self {
            Self::Director(way) => vec![
                Contender::director(way.first()),
                Contender::director(way.later()),
            ],
            Self::Yardstick { fill, .. } => vec![Contender::bench(fill, TUN.later())],
        };
        for packet in packets {
            rig.run(&packet.from(Sources::Flows), count)?;
        }
        Ok(())
    }

    /// Takes a generation's flows out.
    fn empty(self, rig: &mut Rig, generation: u8, flows: Vec<u64>) -> Result<()> {
        match self {
            Self::Director(_) => {
                rig.free(|other| other == generation)?;
            }
            Self::Yardstick { empty, .. } => {
                let count = flows.len() as u32;
                rig.set_flows(flows)?;
                let packet = Contender {
                    program: Program::Bench(empty),
                    ..Contender::director(TUN.later())
                };
                rig.run(&packet.from(Sources::Flows), count)?;
            }
        }
        Ok(())
    }

    /// Puts the first generation's flows in, and before that others in and out.
    pub(super) fn prepare(self, rig: &mut Rig, count: u32, age: Age) -> Result<()> {
        let measured = flows::of_generation(0, count, 1);
        if age == Age::Fresh {
            return self.fill(rig, measured);
        }
        // Half of the room for each: while one generation comes the one before is still there.
        let half = |generation| flows::of_generation(generation, count / 2, 1);
        self.fill(rig, half(1))?;
        for generation in 2..=GENERATIONS {
            self.fill(rig, half(generation))?;
            self.empty(rig, generation - 1, half(generation - 1))?;
        }
        let (first, second) = measured.split_at(measured.len() / 2);
        self.fill(rig, first.to_vec())?;
        self.empty(rig, GENERATIONS, half(GENERATIONS))?;
        self.fill(rig, second.to_vec())
    }
}

/// Prepares the director's table, which has no other connections then, and sees that they stand.
pub(super) fn prepare_director(rig: &mut Rig, way: Way, count: u32, age: Age) -> Result<()> {
    rig.free(|_| true)?;
    if way.on_change {
        return Ok(());
    }
    Table::Director(way).prepare(rig, count, age)?;
    let stand = rig.kernel().count4(State::Established)?;
    ensure!(
        stand + count as usize / ONE_OF >= count as usize,
        "of {count} connections only {stand} stand"
    );
    Ok(())
}

/// Buckets of a director's table for so many connections, all of which come to one CPU.
#[must_use]
pub(super) fn buckets_for(connections: u32) -> u32 {
    let limits = ConnectionLimits {
        ipv4: connections,
        ipv6: connections,
    };
    limits.buckets_per_cpu4(1)
}

/// How many packets of a contender do not count, and then do.
pub(super) fn packets_for(count: u32) -> (u32, u32) {
    let warm_up = if count <= WARM_FLOWS { count } else { PACKETS };
    (warm_up, count.clamp(FEWEST_PACKETS, PACKETS))
}

pub(super) fn extent_for(options: &Options) -> Extent {
    if options.quick {
        Extent {
            quiet: 9,
            rounds: 60,
            time: Duration::from_secs(5),
        }
    } else {
        Extent {
            quiet: 25,
            rounds: 400,
            time: Duration::from_secs(40),
        }
    }
}

/// Yardsticks' numbers among the contenders; the way that is measured comes after them.
const YARDSTICK: usize = 0;
const WAY: usize = 2;
const ONE_FLOW: usize = 3;

/// Runs it.
///
/// # Errors
/// A run fails.
pub fn run(options: &Options) -> Result<Suite> {
    let counts: &[u32] = match (options.quick, options.many) {
        (true, false) => &[1, 16_000],
        (true, true) => &[1, 4_000_000],
        (false, false) => &[1, 16_000, 64_000, 1_000_000],
        (false, true) => &[1, 16_000, 64_000, 1_000_000, 4_000_000],
    };
    let largest = counts.iter().copied().max().unwrap_or(1);
    let mut rig = Rig::new(buckets_for(largest), 1)?;
    let mut rows = Vec::new();
    for &count in counts {
        rig.resize(buckets_for(count), count)?;
        for age in [Age::Fresh, Age::Aged] {
            if age == Age::Aged && (count == 1 || options.quick && !options.many) {
                continue;
            }
            if age == Age::Aged {
                // As new, so that what they hold is the past that is meant.
                rig.resize(buckets_for(count), count)?;
            }
            eprintln!("    {} flows, {age:?}", named(count));
            LRU16.prepare(&mut rig, count, age)?;
            LRU40.prepare(&mut rig, count, age)?;
            for (name, way) in [
                ("tun", TUN),
                ("nat", NAT),
                ("mh", MH),
                ("mh-on-change", ON_CHANGE),
            ] {
                if way.on_change && age == Age::Aged {
                    // There is no table that could have become old.
                    continue;
                }
                prepare_director(&mut rig, way, count, age)?;
                rig.set_flows(flows::of_generation(0, count, 2))?;
                rows.append(&mut measured(&mut rig, options, (name, way), count, age)?);
                if way.on_change {
                    for state in [State::SynReceived, State::Established] {
                        let tracked = rig.kernel().count4(state)?;
                        ensure!(tracked == 0, "{tracked} connections are tracked: {state:?}");
                    }
                }
            }
        }
    }
    Ok(Suite {
        name: "flows".to_owned(),
        rows,
        notes: vec![
            "Net of a program that sends at once. Each packet is another flow's, in an order other than that in which they came.".to_owned(),
            format!("Aged: {GENERATIONS} generations of half as many flows came and went before."),
            "mh: scheduled by the Maglev table, each connection tracked; mh-on-change: by the table alone.".to_owned(),
        ],
        ..Suite::default()
    })
}

/// Measures one way beside the yardsticks, all over the same flows.
fn measured(
    rig: &mut Rig,
    options: &Options,
    (name, way): (&str, Way),
    count: u32,
    age: Age,
) -> Result<Vec<Row>> {
    let mut contenders = vec![
        Contender::bench(programs::LRU16, TUN.later()).from(Sources::Flows),
        Contender::bench(programs::LRU40, TUN.later()).from(Sources::Flows),
        Contender::director(way.later()).from(Sources::Flows),
    ];
    let is_mh = way.scheduler == MH.scheduler && count > 1;
    if is_mh {
        // The one flow is a connection more.
        let one = Contender::director(way.later());
        rig.run(&Contender::director(way.first()), 1)?;
        rig.run(&one, 1)?;
        contenders.push(one);
    }
    let suffix = if age == Age::Aged { "-aged" } else { "" };
    let words = if age == Age::Aged { ", aged" } else { "" };
    let shown = named(count);
    let point = |series: &str| {
        Some(Point {
            series: format!("{series}{words}"),
            flows: count,
        })
    };
    let mut questions = Vec::new();
    if way == TUN {
        for (contender, key) in [(YARDSTICK, 16), (YARDSTICK + 1, 40)] {
            questions.push(Question {
                name: format!("lru{key}-{shown}{suffix}"),
                what: format!("yardstick: LRU hash, {key}-byte key, {shown} flows{words}"),
                contender,
                point: point(&format!("LRU hash, {key}-byte key")),
                ..Question::default()
            });
        }
    }
    questions.push(Question {
        name: format!("{name}-{shown}{suffix}"),
        what: format!("{}, {shown} flows{words}", name.to_uppercase()),
        contender: WAY,
        against: Some((YARDSTICK, "LRU hash, 16-byte key".to_owned())),
        // One flow is the other suite's.
        goal: (way.scheduler != MH.scheduler && count > 1).then_some(Goal::AtMost(1.0)),
        point: point(&name.to_uppercase()),
        ..Question::default()
    });
    if is_mh {
        questions.push(Question {
            name: format!("{name}-{shown}{suffix}-one"),
            what: format!(
                "{}, {shown} flows{words}, beside one flow",
                name.to_uppercase()
            ),
            contender: WAY,
            against: Some((ONE_FLOW, "one flow".to_owned())),
            goal: (way.on_change && count == 1_000_000).then_some(Goal::AtMost(1.4)),
            ..Question::default()
        });
    }
    let floor = Contender::bench(programs::TRIVIAL, TUN.later()).from(Sources::Flows);
    measure(
        rig,
        &floor,
        &contenders,
        packets_for(count),
        extent_for(options),
        &questions,
    )
}
