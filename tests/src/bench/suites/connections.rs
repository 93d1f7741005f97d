//! New connections: real ones through the lab, and a flood of SYNs, each of another source, while a million stand.

use std::time::Duration;

use anyhow::{Result, ensure};
use xdp_ebpf::bench::programs;
use xdp_ebpf::connection::{Bucket as _, Bucket4};
use xdp_ebpf::state::State;

use super::flows::{Age, buckets_for, extent_for, packets_for, prepare_director};
use super::{measure, named, wire};
use crate::bench::report::{Question, Row, Suite};
use crate::bench::rig::{Contender, Rig, Sources};
use crate::bench::rounds::Extent;
use crate::bench::site::TUN;
use crate::bench::verdict::Goal;
use crate::bench::wire::Load;
use crate::bench::{Options, flows};

/// Of so many places of a table one may be free where it is called full.
const ONE_OF: u32 = 100;

/// Runs it.
///
/// # Errors
/// A run fails.
pub fn run(options: &Options) -> Result<Suite> {
    // First: this thread is in a namespace of its own afterwards, and on one CPU.
    let mut rows = wire::through(options, &[Load::Connections])?;
    rows.append(&mut flood(options)?);
    Ok(Suite {
        name: "connections".to_owned(),
        rows,
        notes: [
            "SYN flood: the table is made for as many connections as stand before it, and full of half-open ones when it is \
             measured.",
            "While it fills up: from the first SYN of the flood on, until half again as many came as there were free places.",
        ]
        .map(str::to_owned)
        .into_iter()
        .chain(wire::notes())
        .collect(),
        ..Suite::default()
    })
}

/// A flood of SYNs beside connections that stand.
///
/// # Errors
/// A run fails.
pub fn flood(options: &Options) -> Result<Vec<Row>> {
    let count = if options.quick { 16_000 } else { 1_000_000 };
    let buckets = buckets_for(count);
    let mut rig = Rig::new(buckets, count)?;
    prepare_director(&mut rig, TUN, count, Age::Fresh)?;
    rig.set_flows(flows::of_generation(0, count, 2))?;
    let before = rig.kernel().count4(State::Established)?;
    let hit = Contender::director(TUN.later()).from(Sources::Flows);
    let syn = Contender::director(TUN.first()).from(Sources::New);
    let floor = Contender::bench(programs::TRIVIAL, TUN.later()).from(Sources::Flows);
    let contenders = [hit, syn.clone()];
    let (warm_up, packets) = packets_for(count);
    let shown = named(count);
    let beside = format!("beside {shown} connections that stand");
    let places = buckets * Bucket4::WAYS as u32;
    let free = places.saturating_sub(count);

    // What a SYN costs depends on how full the table is. So it is measured apart while that changes, where it does so slowly
    // enough.
    let rounds = free * 3 / 2 / (warm_up + packets);
    let mut rows = if rounds == 0 {
        Vec::new()
    } else {
        let filling = Question {
            name: format!("syn-{shown}-filling"),
            what: format!("SYN flood, each of a new source, {beside}, while the table fills up"),
            contender: 1,
            against: Some((0, "a hit".to_owned())),
            ..Question::default()
        };
        // As many rounds as that takes, no matter how many of them count.
        let extent = Extent {
            quiet: usize::MAX,
            rounds: rounds as usize,
            time: Duration::from_secs(40),
        };
        let sizes = (warm_up, packets);
        measure(&mut rig, &floor, &contenders, sizes, extent, &[filling])?
    };
    rig.run(&syn, 2 * free)?;
    let taken =
        rig.kernel().count4(State::Established)? + rig.kernel().count4(State::SynReceived)?;
    ensure!(
        taken + (places / ONE_OF) as usize >= places as usize,
        "of {places} places only {taken} are taken after a flood of twice as many as were free"
    );

    let questions = [
        Question {
            name: format!("hit-{shown}"),
            what: format!("a packet of one of {shown} connections, TUN"),
            contender: 0,
            ..Question::default()
        },
        Question {
            name: format!("syn-{shown}"),
            what: format!("SYN flood, each of a new source, {beside}, in a full table"),
            contender: 1,
            against: Some((0, "a hit".to_owned())),
            // Of a million: fewer are in the caches, and a hit costs less.
            goal: (!options.quick).then_some(Goal::AtMost(1.5)),
            ..Question::default()
        },
    ];
    rows.append(&mut measure(
        &mut rig,
        &floor,
        &contenders,
        (warm_up, packets),
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
    Ok(rows)
}
