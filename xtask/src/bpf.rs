//! Building the programs for the kernel.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::process::{heading, run};
use crate::setup::{ADVICE, LLVM_MAJOR, Tools};
use crate::workspace::Workspace;

/// The package, and its programs for the kernel: an object for each. The benchmark's is no part of a director.
const PACKAGE: &str = "xdp-ebpf";
const PROGRAMS: [&str; 3] = ["director-xdp", "decap-xdp", "bench-xdp"];

const TARGET: &str = "bpfel-unknown-none";
const PROFILE: &str = "bpf";

/// Builds the objects and puts them where the director's build and the tests look for them.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    heading("BPF: the programs for the kernel");
    let started = Instant::now();
    run(&mut recipe(workspace)?)?;

    let built = workspace.bpf_build().join(TARGET).join(PROFILE);
    let objects = workspace.bpf_objects();
    fs::create_dir_all(&objects).with_context(|| format!("creating {}", objects.display()))?;
    for program in PROGRAMS {
        let object = objects.join(format!("{program}.o"));
        let changed = copy_if_changed(&built.join(program), &object)?;
        println!(
            "  {} ({})",
            object.display(),
            if changed { "new" } else { "unchanged" }
        );
    }
    println!("  {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// The cargo command, complete.
fn recipe(workspace: &Workspace) -> Result<Command> {
    let tools = Tools::find(workspace);
    let Some(compiler) = tools.compiler else {
        bail!(
            "no Rust compiler here can build `core` for BPF (the sources of `core` are missing); {ADVICE}"
        );
    };
    let Some(linker) = tools.linker else {
        bail!("bpf-linker is missing or of another version; {ADVICE}");
    };
    let Some(llvm) = tools.llvm else {
        bail!(
            "bpf-linker needs LLVM {LLVM_MAJOR} from a rustup toolchain and none here has it; {ADVICE}"
        );
    };

    let mut cargo = workspace.cargo();
    // The outer toolchain's choice must not leak in: this compiler and the sources beside it belong together.
    for variable in [
        "RUSTUP_TOOLCHAIN",
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_BUILD_TARGET",
        "CARGO",
    ] {
        cargo.env_remove(variable);
    }
    let mut command = Command::new(compiler.sysroot.join("bin/cargo"));
    if let Some(directory) = cargo.get_current_dir() {
        command.current_dir(directory);
    }
    for (name, value) in cargo.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        // Without BTF the kernel tells neither line nor type when it refuses a program.
        "-Clink-arg=--btf".to_owned(),
        // Left to itself the linker has LLVM make a call of each move and fill of memory but a plain copy: of a loop over bytes,
        // 4 ns of each hit for its MAC addresses alone.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        format!("-Clinker={}", linker.display()),
        // Fetching atomics need it; kernels have had it since 5.12.
        "-Ctarget-cpu=v3".to_owned(),
    ];
    command
        .args(["build", "--package", PACKAGE, "--features", "bpf"])
        .args(PROGRAMS.iter().flat_map(|program| ["--bin", program]))
        .args(["--target", TARGET, "-Z", "build-std=core"])
        .args(["--profile", PROFILE, "--target-dir"])
        .arg(workspace.bpf_build())
        .env("RUSTC", compiler.sysroot.join("bin/rustc"))
        // `build-std` and the BPF intrinsics are unstable; the compiler's version is checked by set-up.
        .env("RUSTC_BOOTSTRAP", "1")
        // The flags must reach `core` as well, and may hold spaces.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("LD_LIBRARY_PATH", llvm);
    Ok(command)
}

/// Leaves the time of an unchanged object alone, so that nothing that embeds it is built again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<bool> {
    let new = fs::read(from).with_context(|| {
        format!(
            "the build succeeded but left no {}; does the package still have this program?",
            from.display()
        )
    })?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(false);
    }
    fs::write(to, new).with_context(|| format!("writing {}", to.display()))?;
    Ok(true)
}
