//! Handing over to the benchmark.

use std::ffi::OsString;

use anyhow::Result;

use crate::setup::Purpose;
use crate::workspace::Workspace;
use crate::{BuildOptions, lab, userspace};

/// The program that measures.
const BENCH: &str = "bench";

/// Builds and becomes `bench ARGUMENTS`. Optimised: the programs for the kernel are that anyway, but how long a director
/// takes is measured as well.
pub(crate) fn run(workspace: &Workspace, arguments: &[OsString]) -> Result<()> {
    let options = BuildOptions { release: true };
    let asks_for_help = arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h");
    if !asks_for_help || !userspace::program(workspace, options, BENCH).is_file() {
        lab::prepare(workspace, Purpose::Bench, options)?;
    }
    let mut all = vec![
        OsString::from("--out"),
        workspace.target().join(BENCH).into(),
    ];
    all.extend_from_slice(arguments);
    lab::become_program(workspace, options, BENCH, &all)
}
