//! Carrying the steps out.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail, ensure};

use super::plan::{LINKER_VERSION, PROGRAMS, Step, Way};
use crate::process::{answer, heading, run};
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
            // A service that is there already is somebody's.
            let services: Vec<&str> = services(packages)
                .filter(|service| !is_known(service))
                .collect();
            run(quietly().args(packages))?;
            leave_off(&services)
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

/// Installs the packages that are its arguments, and starts none of the servers in them: tests start their own, and nobody
/// asked for one on this machine. Debian's packages ask `policy-rc.d` before they start anything (invoke-rc.d(8));
/// one that is there is the administrator's and stays. The trap takes ours away, however this ends.
const QUIETLY: &str = "\
policy=/usr/sbin/policy-rc.d
if [ ! -e \"$policy\" ]; then
  trap 'rm -f \"$policy\"' EXIT INT TERM HUP
  printf '#!/bin/sh\\n# While `cargo xtask setup` installs: nothing is started.\\nexit 101\\n' >\"$policy\"
  chmod 755 \"$policy\"
fi
apt-get install -q --yes --no-install-recommends \"$@\"
";

fn quietly() -> Command {
    let mut command = Command::new("sh");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.args(["-e", "-c", QUIETLY, "apt-get"]);
    command
}

/// The services in these packages.
fn services<'a>(packages: &'a [&str]) -> impl Iterator<Item = &'static str> + use<'a> {
    PROGRAMS
        .iter()
        .filter(|program| packages.contains(&program.package))
        .filter_map(|program| program.service)
}

/// Whether systemd has a service of this name.
fn is_known(service: &str) -> bool {
    answer(Command::new("systemctl").args(["cat", &format!("{service}.service")])).is_some()
}

/// Has the system not start services by itself the next time it comes up. Where systemd does not run, nothing does.
fn leave_off(services: &[&str]) -> Result<()> {
    if !Path::new("/run/systemd/system").is_dir() {
        return Ok(());
    }
    for service in services {
        // Some packages bring the program alone.
        if is_known(service) {
            run(Command::new("systemctl").args(["disable", &format!("{service}.service")]))?;
        }
    }
    Ok(())
}

/// apt-get that asks nothing.
fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}
