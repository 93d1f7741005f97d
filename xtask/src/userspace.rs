//! Building what runs in userspace.

use std::path::PathBuf;

use anyhow::Result;

use crate::BuildOptions;
use crate::process::{heading, run};
use crate::workspace::Workspace;

/// Packages whose programs people start.
const PACKAGES: [&str; 3] = ["director", "heartbeat", "director-tests"];

/// Builds the programs of userspace. The BPF objects must stand already: the director carries them inside.
pub(crate) fn build(workspace: &Workspace, options: BuildOptions) -> Result<()> {
    heading("Userspace: director and lab");
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--bins"]);
    for package in PACKAGES {
        cargo.args(["--package", package]);
    }
    if options.release {
        cargo.arg("--release");
    }
    run(&mut cargo)
}

/// Where [`build`] leaves a program.
pub(crate) fn program(workspace: &Workspace, options: BuildOptions, name: &str) -> PathBuf {
    let profile = if options.release { "release" } else { "debug" };
    workspace.target().join(profile).join(name)
}
