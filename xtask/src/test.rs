//! `cargo xtask test`: everything that must pass, step by step.

mod summary;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::summary::Counts;
use crate::process::{answer, heading, run, run_reading};
use crate::workspace::Workspace;
use crate::{BuildOptions, bpf, setup, userspace};

/// A finished step, for the table at the end.
struct Finished {
    name: &'static str,
    took: Duration,
    counts: Counts,
}

type Work<'a> = Box<dyn Fn() -> Result<Counts> + 'a>;

/// Runs all steps, stopping at the first that fails. `all`: what cannot run here is a failure.
pub(crate) fn run_all(workspace: &Workspace, all: bool) -> Result<()> {
    let root = answer(Command::new("id").arg("-u")).as_deref() == Some("0");
    if !root && all {
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
                    &["--ignored", "--test-threads=1"],
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
    conclude(&finished, root);
    Ok(())
}

/// Runs everything; in CI nothing may be left out.
pub(crate) fn run_from_command_line(workspace: &Workspace, all: bool) -> Result<()> {
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    run_all(workspace, all || in_ci)
}

fn cargo_test(workspace: &Workspace, what: &[&str], harness: &[&str]) -> Result<Counts> {
    let mut command = workspace.cargo();
    command.arg("test").args(what);
    if !harness.is_empty() {
        command.arg("--").args(harness);
    }
    // For tests that load the objects by themselves.
    command.env("DIRECTOR_BPF_DIR", workspace.bpf_objects());
    let mut counts = Counts::default();
    run_reading(&mut command, |line| counts.add_line(line)).with_context(|| counts.to_string())?;
    if counts.passed == 0 {
        bail!("no test ran, and there are some: the output's form may have changed");
    }
    Ok(counts)
}

fn conclude(finished: &[Finished], root: bool) {
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
                step.counts.passed.to_string(),
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
    }
    println!();
    if !root {
        // What the last step would have run is what the one before it ignored.
        sum.ignored = finished.iter().map(|step| step.counts.ignored).sum();
        println!(
            "Left out: {} tests that need root (network namespaces, BPF). Run this as root for them.",
            sum.ignored
        );
    }
    println!("{sum}");
}
