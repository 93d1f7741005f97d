//! How long a director takes to load, and to load again, the configuration of a large site, and how long verdicts take to the
//! packet path there.

use std::time::Duration;

use ::director::control::fetch_status;
use anyhow::{Result, ensure};

use super::answers;
use crate::bench::Options;
use crate::bench::machine::{gross, speed};
use crate::bench::report::{Question, Suite};
use crate::bench::rounds::{self, Extent};
use crate::bench::statistics::Summary;
use crate::bench::verdict::Goal;
use crate::director::{self, Reload};
use crate::lab::{Lab, LabOptions, Topology};
use crate::large::{self, HOSTS, REAL_SERVERS, SERVICES, changing};
use crate::{nginx, wait_until};

/// Reloads of a director, of which the median counts.
const RELOADS: usize = 5;
/// How often a real server comes and goes, in each of them.
const FLAPS: usize = 20;
/// All real servers are asked for once before that.
const PATIENCE: Duration = Duration::from_secs(180);

/// Runs it.
///
/// # Errors
/// A director does not start, or does not load its file.
pub fn run(options: &Options) -> Result<Suite> {
    let extent = if options.quick {
        Extent {
            quiet: 1,
            rounds: 1,
            time: Duration::from_secs(1),
        }
    } else {
        Extent {
            quiet: 7,
            rounds: 14,
            time: Duration::from_secs(300),
        }
    };
    let lab = Lab::up(&LabOptions {
        topology: Topology::TwoInterfaces,
        servers: HOSTS,
        ..LabOptions::default()
    })?;
    let mut running = Vec::new();
    for number in 1..=HOSTS {
        running.push(nginx::start(&lab, number)?);
    }
    large::lay_out(&lab)?;
    let text = |weight| {
        let head = director::yaml(&lab, Topology::TwoInterfaces, &[], "");
        let flapping = large::flapping();
        format!("{head}{flapping}{}", large::services(SERVICES, weight))
    };
    let texts = [text(1), text(7)];
    let rounds = rounds::together(extent, speed, || once(&lab, &texts))?;
    let site = format!(
        "{SERVICES} services with {} real servers",
        u32::from(SERVICES) * u32::from(REAL_SERVERS)
    );
    let question = |contender, name: &str, what: String, goal: Option<f64>| Question {
        name: name.to_owned(),
        what,
        unit: "ms",
        contender,
        goal: goal.map(Goal::AtMost),
        ..Question::default()
    };
    let questions = [
        question(0, "load", format!("{site}, loaded"), Some(2000.0)),
        question(
            1,
            "reload",
            "the same, reloaded with one change".to_owned(),
            Some(300.0),
        ),
        question(
            2,
            "reload-in-loop",
            "the part of that in which the director does nothing else".to_owned(),
            None,
        ),
        question(
            3,
            "verdict",
            "a verdict on its way to the packet path".to_owned(),
            None,
        ),
        question(
            4,
            "verdict-worst",
            format!("the longest of {} such", 2 * FLAPS),
            Some(10.0),
        ),
    ];
    Ok(Suite {
        name: "config".to_owned(),
        rows: answers(&questions, &gross(&rounds)),
        notes: vec![
            "From the text until the packet path has it, as `director status` says; without the kernel's verification of the programs, which comes before. All real servers are checked and up.".to_owned(),
            format!("Each round is another director, and the median of {RELOADS} of its reloads."),
            "A verdict: while a real server comes and goes, and `director status` is asked for without a pause.".to_owned(),
        ],
        ..Suite::default()
    })
}

/// A director that loads the file, and then loads it again with one change, several times: milliseconds of the load, of the
/// median of the others, and of the part of that in the main loop; then of verdicts, the median and the longest.
fn once(lab: &Lab, texts: &[String; 2]) -> Result<[f64; 5]> {
    let mut process = director::start(lab, &texts[0])?;
    // It answers operators sooner than it has loaded.
    director::wait_ready(lab, &mut process)?;
    let socket = director::control_socket(lab);
    let loaded = fetch_status(&socket)?.config.took_ms as f64;
    wait_until("all real servers are up", PATIENCE, || {
        process.check_running()?;
        let status = fetch_status(&socket)?;
        // Behind the one that comes and goes.
        let services = status.services.iter().skip(1);
        let mut all = services.flat_map(|it| &it.real_servers);
        let are_up = all.all(|it| it.health.state.as_deref() == Some("up") && it.weight > 0);
        ensure!(are_up, "not yet");
        Ok(())
    })?;
    let (mut reloads, mut in_loop) = (Vec::new(), Vec::new());
    let (service, nth) = changing(SERVICES);
    let (service, nth) = (usize::from(service) + 1, usize::from(nth));
    for turn in 0..RELOADS {
        let reloaded = director::reload(lab, &mut process, &texts[(turn + 1) % 2])?;
        ensure!(reloaded == Reload::Done, "refused: {}", process.log());
        let status = fetch_status(&socket)?;
        let weight = status.services[service].real_servers[nth].weight;
        ensure!(weight == [7, 1][turn % 2], "the weight is {weight}");
        reloads.push(status.config.took_ms as f64);
        in_loop.push(status.config.in_loop_ms as f64);
    }
    let verdicts: Vec<f64> = large::verdicts(lab, FLAPS)?
        .iter()
        .map(|took| took.as_secs_f64() * 1000.0)
        .collect();
    let worst = verdicts.iter().copied().fold(0.0, f64::max);
    process.stop()?;
    let median = |times: &[f64]| Summary::of(times).map_or(0.0, |summary| summary.median);
    Ok([
        loaded,
        median(&reloads),
        median(&in_loop),
        median(&verdicts),
        worst,
    ])
}
