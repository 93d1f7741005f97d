//! Handing over to the `lab` program.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace::Workspace;
use crate::{BuildOptions, bpf, setup, userspace};

/// The program that everything here ends in.
const LAB: &str = "lab";

/// Sets up, builds and becomes `lab demo`.
pub(crate) fn demo(workspace: &Workspace, keep: bool, options: BuildOptions) -> Result<()> {
    prepare(workspace, setup::Purpose::Demo, options)?;
    let mut arguments = vec![OsString::from("demo")];
    if keep {
        arguments.push("--keep".into());
    }
    become_program(workspace, options, LAB, &arguments)
}

/// Becomes `lab ARGUMENTS`. Builds first what a lab is made of; looking at one that stands, and taking it down, must
/// also work while the sources do not compile.
pub(crate) fn run(workspace: &Workspace, arguments: &[OsString]) -> Result<()> {
    let options = BuildOptions::default();
    let makes_a_lab = arguments
        .first()
        .is_some_and(|verb| verb == "up" || verb == "demo");
    if makes_a_lab || !userspace::program(workspace, options, LAB).is_file() {
        prepare(workspace, setup::Purpose::Demo, options)?;
    }
    become_program(workspace, options, LAB, arguments)
}

/// Sets up and builds everything.
pub(crate) fn prepare(
    workspace: &Workspace,
    purpose: setup::Purpose,
    options: BuildOptions,
) -> Result<()> {
    setup::install(workspace, purpose)?;
    bpf::build(workspace)?;
    userspace::build(workspace, options)
}

/// Replaces this process, so that the terminal's interrupt and a supervisor's signal reach the program itself:
/// the lab cleans up then.
pub(crate) fn become_program(
    workspace: &Workspace,
    options: BuildOptions,
    name: &str,
    arguments: &[OsString],
) -> Result<()> {
    let program = userspace::program(workspace, options, name);
    let error = Command::new(&program)
        .args(arguments)
        .env("DIRECTOR_BPF_DIR", workspace.bpf_objects())
        .exec();
    Err(error).with_context(|| format!("could not start {}", program.display()))
}
