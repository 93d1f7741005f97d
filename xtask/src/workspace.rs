//! Where things stand: the workspace, its target directory, what is built where.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The paths that everything here works with, all absolute.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
    target_is_default: bool,
}

impl Workspace {
    /// The workspace that this program was built from; its target directory as cargo would choose it now.
    pub(crate) fn find() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest
            .parent()
            .context("xtask's own directory has no parent directory")?;
        let root = root.canonicalize().with_context(|| {
            format!(
                "the workspace {} that xtask was built in is gone: run `cargo xtask` in the new place",
                root.display()
            )
        })?;
        let default = root.join("target");
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(directory) => std::path::absolute(directory)?,
            None => default.clone(),
        };
        Ok(Self {
            target_is_default: target == default,
            root,
            target,
        })
    }

    /// Where cargo puts userspace.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Where the finished BPF objects stand, for the director to embed and for tests to load.
    pub(crate) fn bpf_objects(&self) -> PathBuf {
        self.target.join("bpf")
    }

    /// A target directory of its own for BPF: another compiler builds there, with other flags.
    pub(crate) fn bpf_build(&self) -> PathBuf {
        self.target.join("bpf-build")
    }

    /// Where set-up installs tools for this workspace alone.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The cargo that runs this program, to build userspace with.
    pub(crate) fn cargo(&self) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(&self.root);
        // Told only where it differs: build scripts run again whenever the variable changes, and a plain
        // `cargo build` finds the default place without it.
        if !self.target_is_default {
            command.env("DIRECTOR_BPF_DIR", self.bpf_objects());
        }
        // Set by the outer `cargo run` for xtask itself; below it they only make things build again.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CARGO_PKG_") {
                command.env_remove(name);
            }
        }
        command
            .env_remove("CARGO_MANIFEST_DIR")
            .env_remove("CARGO_MANIFEST_PATH");
        command
    }
}
