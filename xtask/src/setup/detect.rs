//! Looking at the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::plan::{COMPONENTS, Compiler, Facts, LINKER_VERSION, LLVM_MAJOR, PROGRAMS};
use crate::process::{answer, is_installed};
use crate::workspace::Workspace;

/// A compiler and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    /// `bin/rustc`, `bin/cargo` and `lib` stand in here.
    pub(crate) sysroot: PathBuf,
    compiler: Compiler,
}

/// The tools that the BPF recipe needs, as found.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// The first compiler that can build for the kernel.
    pub(crate) compiler: Option<Toolchain>,
    /// bpf-linker of the right version.
    pub(crate) linker: Option<PathBuf>,
    /// The directory from which bpf-linker loads LLVM.
    pub(crate) llvm: Option<PathBuf>,
}

impl Tools {
    /// Looks for them.
    pub(crate) fn find(workspace: &Workspace) -> Self {
        let rustup = rustup_toolchains();
        let llvm = rustup
            .iter()
            .find(|toolchain| toolchain.compiler.llvm == LLVM_MAJOR)
            .map(|toolchain| toolchain.sysroot.join("lib"));
        Self {
            compiler: rustup
                .into_iter()
                .chain(debian())
                .find(|toolchain| toolchain.compiler.builds_bpf()),
            linker: linker(workspace),
            llvm,
        }
    }
}

/// Everything that [`super::plan`] asks about.
pub(crate) fn facts(workspace: &Workspace) -> Facts {
    Facts {
        root: answer(Command::new("id").arg("-u")).as_deref() == Some("0"),
        apt: is_installed("apt-get"),
        rustup: is_installed("rustup"),
        toolchains: rustup_toolchains()
            .iter()
            .map(|toolchain| toolchain.compiler)
            .collect(),
        debian: debian().map(|toolchain| toolchain.compiler),
        linker: linker(workspace).is_some(),
        programs: PROGRAMS
            .iter()
            .map(|program| program.name)
            .filter(|program| is_installed(program) || is_a_part(program))
            .collect(),
        components: COMPONENTS
            .iter()
            .filter(|component| {
                active_sysroot()
                    .is_none_or(|sysroot| sysroot.join("bin").join(component.1).is_file())
            })
            .map(|component| component.0)
            .collect(),
    }
}

/// Whether a program of this name stands where Debian keeps the parts of servers that nobody calls by name.
fn is_a_part(program: &str) -> bool {
    // PostgreSQL has a directory for each of its versions.
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"));
    ["/usr/lib/dovecot", "/usr/lib/postfix/sbin"]
        .map(PathBuf::from)
        .into_iter()
        .chain(versions)
        .any(|directory| directory.join(program).is_file())
}

fn active_sysroot() -> Option<PathBuf> {
    answer(Command::new("rustc").args(["--print", "sysroot"])).map(PathBuf::from)
}

/// rustup keeps its toolchains side by side: the active one, then its neighbours by name.
fn rustup_toolchains() -> Vec<Toolchain> {
    let Some(active) = active_sysroot() else {
        return Vec::new();
    };
    let mut sysroots = vec![active.clone()];
    if let Some(neighbours) = active
        .parent()
        .filter(|parent| parent.ends_with("toolchains"))
    {
        let mut others: Vec<PathBuf> = std::fs::read_dir(neighbours)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| *path != active)
            .collect();
        others.sort();
        sysroots.append(&mut others);
    }
    sysroots
        .iter()
        .filter(|sysroot| *sysroot != Path::new("/usr"))
        .filter_map(|sysroot| toolchain(sysroot))
        .collect()
}

/// The distribution's compiler: Debian's `rustc-web` stands in `/usr`.
fn debian() -> Option<Toolchain> {
    let usr = Path::new("/usr");
    usr.join("bin/cargo")
        .is_file()
        .then(|| toolchain(usr))
        .flatten()
}

fn toolchain(sysroot: &Path) -> Option<Toolchain> {
    let version = answer(Command::new(sysroot.join("bin/rustc")).arg("-vV"))?;
    Some(Toolchain {
        sysroot: sysroot.to_owned(),
        compiler: Compiler {
            llvm: llvm_major(&version)?,
            has_sources: sysroot
                .join("lib/rustlib/src/rust/library/core/src/lib.rs")
                .is_file(),
        },
    })
}

/// From what `rustc -vV` prints.
fn llvm_major(version: &str) -> Option<u32> {
    let llvm = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    llvm.split('.').next()?.parse().ok()
}

/// The one in the target directory, else one on `PATH`, if its version is right.
fn linker(workspace: &Workspace) -> Option<PathBuf> {
    [
        workspace.tools().join("bin/bpf-linker"),
        PathBuf::from("bpf-linker"),
    ]
    .into_iter()
    .find(|program| {
        answer(Command::new(program).arg("--version"))
            .is_some_and(|version| is_right_linker(&version))
    })
}

fn is_right_linker(version: &str) -> bool {
    version.split_whitespace().nth(1) == Some(LINKER_VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_tools_print() {
        let rustc = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nrelease: 1.95.0\nLLVM version: 22.1.2\n";
        assert_eq!(llvm_major(rustc), Some(22));
        assert_eq!(llvm_major("rustc 1.0"), None);
        assert_eq!(llvm_major("LLVM version: none"), None);
        assert!(is_right_linker("bpf-linker 0.10.3"));
        assert!(!is_right_linker("bpf-linker 0.10.30"));
        assert!(!is_right_linker("bpf-linker 0.13.0"));
        assert!(!is_right_linker(""));
    }
}
