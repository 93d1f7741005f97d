//! `cargo xtask test`: everything that must pass, step by step.

mod summary;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::summary::{Counts, listed};
use crate::process::{answer, heading, run, run_reading, shown};
use crate::workspace::Workspace;
use crate::{BuildOptions, bpf, setup, userspace};

/// A finished step, for the table at the end.
struct Finished {
    name: &'static str,
    took: Duration,
    counts: Counts,
}

type Work<'a> = Box<dyn Fn() -> Result<Counts> + 'a>;

/// How much is to run.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// What needs root and cannot run here is a failure, not left out.
    complete: bool,
    /// The slow tests too.
    slow: bool,
}

/// Slow tests stand in a module of this name, and are ignored like those that need root: no run takes them by accident,
/// and this part of their path tells the two kinds apart.
const SLOW: &str = "slow::";

/// Runs all steps, stopping at the first that fails.
fn run_all(workspace: &Workspace, extent: Extent) -> Result<()> {
    let root = answer(Command::new("id").arg("-u")).as_deref() == Some("0");
    if !root && extent.complete {
        bail!(
            "the lab tests need root (network namespaces, BPF), and this run may leave nothing out"
        );
    }
    let mut steps: Vec<(&'static str, Work<'_>)> = vec![
        (
            "set-up",
            Box::new(|| {
                setup::install(workspace, setup::Purpose::Test).map(|()| Counts::default())
            }),
        ),
        (
            "format",
            Box::new(|| {
                run(workspace.cargo().args(["fmt", "--all", "--check"])).map(|()| Counts::default())
            }),
        ),
        (
            "BPF objects",
            Box::new(|| bpf::build(workspace).map(|()| Counts::default())),
        ),
        (
            "lints",
            Box::new(|| {
                run(workspace.cargo().args([
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--",
                    "-D",
                    "warnings",
                ]))
                .map(|()| Counts::default())
            }),
        ),
        (
            "build",
            Box::new(|| {
                userspace::build(workspace, BuildOptions::default()).map(|()| Counts::default())
            }),
        ),
        (
            "unit tests",
            Box::new(|| cargo_test(workspace, &["--workspace"], &[])),
        ),
    ];
    if root {
        // One at a time: they share the machine's two ends of every cable, and its clock.
        steps.push((
            "root tests",
            Box::new(|| {
                cargo_test(
                    workspace,
                    &["--workspace", "--lib", "--bins", "--tests"],
                    &["--ignored", "--test-threads=1", "--skip", SLOW],
                )
            }),
        ));
    }
    if extent.slow {
        // Optimised: half of them ask how fast something is. And one at a time, so that they tell it undisturbed.
        steps.push((
            "slow tests",
            Box::new(|| {
                // Some of them start the programs, which stand beside the tests.
                userspace::build(workspace, BuildOptions { release: true })?;
                cargo_test(
                    workspace,
                    &["--release", "--workspace", "--tests"],
                    &[SLOW, "--ignored", "--test-threads=1", "--nocapture"],
                )
            }),
        ));
    }

    let total = steps.len();
    let mut finished: Vec<Finished> = Vec::new();
    for (nth, (name, work)) in steps.iter().enumerate() {
        heading(&format!("[{}/{total}] {name}", nth + 1));
        let started = Instant::now();
        let outcome = work();
        let took = started.elapsed();
        match outcome {
            Ok(counts) => {
                println!("    {name}: ok, {:.1} s", took.as_secs_f64());
                finished.push(Finished { name, took, counts });
            }
            Err(error) => {
                return Err(error).with_context(|| {
                    format!(
                        "step {} of {total}, {name}, after {:.1} s",
                        nth + 1,
                        took.as_secs_f64()
                    )
                });
            }
        }
    }
    let slow = if extent.slow {
        Vec::new()
    } else {
        slow_tests(workspace)?
    };
    conclude(&finished, root, &slow);
    Ok(())
}

/// Runs everything. In CI nothing that needs root may be left out; the slow tests are asked for.
pub(crate) fn run_from_command_line(workspace: &Workspace, all: bool) -> Result<()> {
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    let extent = Extent {
        complete: all || in_ci,
        slow: all,
    };
    run_all(workspace, extent)
}

/// The names of the slow tests, as the test programs themselves list them.
fn slow_tests(workspace: &Workspace) -> Result<Vec<String>> {
    let mut command = workspace.cargo();
    command.args(["test", "--quiet", "--workspace", "--tests", "--"]);
    command.args([SLOW, "--ignored", "--list"]);
    let Some(list) = answer(&mut command) else {
        bail!(
            "`{}` failed: which slow tests were left out is not known",
            shown(&command)
        );
    };
    Ok(listed(&list))
}

/// Where property tests begin to choose their cases (proptest reads it).
const PROPERTY_SEED: &str = "PROPTEST_RNG_SEED";

fn cargo_test(workspace: &Workspace, what: &[&str], harness: &[&str]) -> Result<Counts> {
    let mut command = workspace.cargo();
    command.arg("test").args(what);
    if !harness.is_empty() {
        command.arg("--").args(harness);
    }
    // For tests that load the objects by themselves.
    command.env("DIRECTOR_BPF_DIR", workspace.bpf_objects());
    // What passed here passes there. Who looks for what no run has met yet gives another seed, or runs `cargo test` alone.
    if std::env::var_os(PROPERTY_SEED).is_none() {
        command.env(PROPERTY_SEED, "1");
    }
    let mut counts = Counts::default();
    run_reading(&mut command, |line| counts.add_line(line)).with_context(|| counts.to_string())?;
    if counts.passed == 0 {
        bail!("no test ran, and there are some: the output's form may have changed");
    }
    Ok(counts)
}

/// The table at the end. `slow`: those that were left out.
fn conclude(finished: &[Finished], root: bool, slow: &[String]) {
    println!();
    println!(
        "{:<12} {:>9} {:>8} {:>8}",
        "step", "seconds", "passed", "failed"
    );
    for step in finished {
        let tests = step.counts.passed + step.counts.failed;
        let (passed, failed) = if tests == 0 {
            (String::from("-"), String::from("-"))
        } else {
            (
                step.counts.really_passed().to_string(),
                step.counts.failed.to_string(),
            )
        };
        println!(
            "{:<12} {:>9.1} {:>8} {:>8}",
            step.name,
            step.took.as_secs_f64(),
            passed,
            failed
        );
    }
    let mut sum = Counts::default();
    for step in finished {
        sum.passed += step.counts.passed;
        sum.failed += step.counts.failed;
        sum.left_out.extend_from_slice(&step.counts.left_out);
    }
    println!();
    sum.ignored = slow.len() as u64;
    if !root {
        // What the root tests would have run is what the unit tests ignored, the slow ones among it.
        let ignored: u64 = finished.iter().map(|step| step.counts.ignored).sum();
        println!(
            "Left out: {} tests that need root (network namespaces, BPF). Run this as root for them.",
            ignored.saturating_sub(sum.ignored)
        );
        sum.ignored = ignored;
    }
    if !slow.is_empty() {
        println!(
            "Left out: {} slow tests, which `cargo xtask test --all` runs: {}",
            slow.len(),
            slow.join(", ")
        );
    }
    for test in &sum.left_out {
        println!("Left out: {test}");
    }
    println!("{sum}");
}
