//! Carrying the steps out.

use std::process::Command;

use anyhow::{Result, bail, ensure};

use super::plan::{LINKER_VERSION, Step, Way};
use crate::process::{heading, run};
use crate::workspace::Workspace;

/// Carries every step out by the first of its ways that works. `is_missing` looks again: a command's success alone
/// does not say that what it left behind is usable.
pub(crate) fn carry_out(
    workspace: &Workspace,
    steps: &[Step],
    is_missing: impl Fn(&Step) -> bool,
) -> Result<()> {
    let mut package_lists_are_fresh = false;
    for step in steps {
        heading(&format!("Installing {}", step.what));
        let mut failures = Vec::new();
        let done = step.ways.iter().any(|way| {
            println!("  {way}");
            let outcome =
                carry_out_way(workspace, way, &mut package_lists_are_fresh).and_then(|()| {
                    ensure!(!is_missing(step), "it succeeded, but left nothing usable");
                    Ok(())
                });
            match outcome {
                Ok(()) => true,
                Err(error) => {
                    println!("  did not work: {error:#}");
                    failures.push(format!("  {way}: {error:#}"));
                    false
                }
            }
        });
        if !done {
            bail!(
                "could not install {}:\n{}\n{}",
                step.what,
                failures.join("\n"),
                step.by_hand
            );
        }
    }
    Ok(())
}

fn carry_out_way(
    workspace: &Workspace,
    way: &Way,
    package_lists_are_fresh: &mut bool,
) -> Result<()> {
    match way {
        Way::Component(component) => run(rustup().args(["component", "add", component])),
        Way::Toolchain(version) => run(rustup().args([
            "toolchain",
            "install",
            version,
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ])),
        Way::Apt(packages) => {
            if !*package_lists_are_fresh {
                run(apt().args(["update", "-q"]))?;
                *package_lists_are_fresh = true;
            }
            run(apt()
                .args(["install", "-q", "--yes", "--no-install-recommends"])
                .args(packages))
        }
        Way::Linker => {
            let mut cargo = workspace.cargo();
            cargo
                .args(["install", "--locked", "--root"])
                .arg(workspace.tools())
                .arg(format!("bpf-linker@{LINKER_VERSION}"));
            run(&mut cargo)
        }
    }
}

/// rustup, made to give up soon where its servers cannot be reached.
fn rustup() -> Command {
    let mut command = Command::new("rustup");
    command.env("RUSTUP_MAX_RETRIES", "1");
    command
}

/// apt-get that asks nothing.
fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}
