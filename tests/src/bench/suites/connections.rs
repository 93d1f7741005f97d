//! New connections: real ones through the lab, and a flood of SYNs, each of another source, while a million stand.

use anyhow::Result;
use xdp_ebpf::bench::programs;
use xdp_ebpf::state::State;

use super::flows::{Age, buckets_for, extent_for, packets_for, prepare_director};
use super::{measure, named, wire};
use crate::bench::report::{Question, Row, Suite};
use crate::bench::rig::{Contender, Rig, Sources};
use crate::bench::site::TUN;
use crate::bench::verdict::Goal;
use crate::bench::wire::Load;
use crate::bench::{Options, flows};

/// Runs it.
///
/// # Errors
/// A run fails.
pub fn run(options: &Options) -> Result<Suite> {
    // First: this thread is in a namespace of its own afterwards, and on one CPU.
    let mut rows = wire::through(options, &[Load::Connections])?;
    let count = if options.quick { 16_000 } else { 1_000_000 };
    let mut rig = Rig::new(buckets_for(count), count)?;
    prepare_director(&mut rig, TUN, count, Age::Fresh)?;
    rig.set_flows(flows::of_generation(0, count, 2))?;
    let before = rig.kernel().count4(State::Established)?;
    let contenders = [
        Contender::director(TUN.later()).from(Sources::Flows),
        Contender::director(TUN.first()).from(Sources::New),
    ];
    let shown = named(count);
    let questions = [
        Question {
            name: format!("hit-{shown}"),
            what: format!("a packet of one of {shown} connections, TUN"),
            contender: 0,
            ..Question::default()
        },
        Question {
            name: format!("syn-{shown}"),
            what: format!("SYN flood, each of a new source, beside {shown} connections that stand"),
            contender: 1,
            against: Some((0, "a hit".to_owned())),
            // Of a million: fewer are in the caches, and a hit costs less.
            goal: (!options.quick).then_some(Goal::AtMost(1.5)),
            ..Question::default()
        },
    ];
    let floor = Contender::bench(programs::TRIVIAL, TUN.later()).from(Sources::Flows);
    rows.append(&mut measure(
        &mut rig,
        &floor,
        &contenders,
        packets_for(count),
        extent_for(options),
        &questions,
    )?);
    let lost = before.saturating_sub(rig.kernel().count4(State::Established)?);
    rows.push(Row::exact(
        "lost",
        "established connections that the flood displaced",
        "",
        lost as f64,
        Some(Goal::AtMost(0.0)),
    ));
    Ok(Suite {
        name: "connections".to_owned(),
        rows,
        notes: [
            "SYN flood: the table is made for as many connections as stand before it.".to_owned(),
        ]
        .into_iter()
        .chain(wire::notes())
        .collect(),
        ..Suite::default()
    })
}
