//! Where the built programs and objects stand.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// A program of this workspace, beside the one that is running.
///
/// # Errors
/// It has not been built.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("where is the running program?")?;
    let mut directory = own
        .parent()
        .context("the running program has no directory")?;
    // Test programs stand one directory deeper.
    if directory.ends_with("deps") {
        directory = directory
            .parent()
            .context("the running program has no directory")?;
    }
    let program = directory.join(name);
    ensure!(
        program.is_file(),
        "{} is not built; run: cargo xtask build",
        program.display()
    );
    Ok(program)
}

/// A BPF object (`director-xdp.o`, `decap-xdp.o`), from `DIRECTOR_BPF_DIR` or the workspace's `target/bpf`.
///
/// # Errors
/// It has not been built.
pub fn bpf_object(name: &str) -> Result<PathBuf> {
    let directory = match std::env::var_os("DIRECTOR_BPF_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf"),
    };
    let object = directory.join(name);
    ensure!(
        object.is_file(),
        "{} is not built; run: cargo xtask build",
        object.display()
    );
    Ok(object)
}
