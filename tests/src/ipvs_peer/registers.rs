//! What a guest is started with, for processors that have more registers than it knows: `registers.c` says why.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::lab::command;

const SOURCE: &str = include_str!("registers.c");

/// Builds the library (for `LD_PRELOAD`) into this directory, with the compiler by which Rust's programs are linked.
pub(super) fn library(directory: &Path) -> Result<PathBuf> {
    let library = directory.join("registers.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-shared", "-fPIC", "-x", "c", "-", "-o"]);
    command::run(compiler.arg(&library), SOURCE)
        .context("building what user-mode-linux needs on processors with AMX")?;
    Ok(library)
}
