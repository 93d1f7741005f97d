//! The program at the far ends of cables.
//!
//! A virtual cable hands over frames that an XDP program sends only if the end they arrive at has a program too
//! (for `XDP_REDIRECT` GRO would do, for `XDP_TX` nothing else does). Its links are pinned, so that they stand as
//! long as the lab and not as long as the program that made it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{Xdp, XdpMode};
use nix::mount::{MsFlags, mount};

use super::namespace::Namespace;
use crate::paths;

const BPFFS: &str = "/sys/fs/bpf";
const OBJECT: &str = "decap-xdp.o";
const PROGRAM: &str = "pass";

/// The directory of a lab's pinned links.
pub(super) fn pins(id: &str) -> PathBuf {
    Path::new(BPFFS).join("director-lab").join(id)
}

/// Attaches the program to all these interfaces.
pub(super) fn attach<'a>(
    id: &str,
    ends: impl Iterator<Item = (&'a Namespace, &'a str)>,
) -> Result<()> {
    ensure_bpffs()?;
    let pins = pins(id);
    fs::create_dir_all(&pins).with_context(|| format!("creating {}", pins.display()))?;

    let object = paths::bpf_object(OBJECT)?;
    let mut loaded =
        Ebpf::load_file(&object).with_context(|| format!("loading {}", object.display()))?;
    let Some(program) = loaded.program_mut(PROGRAM) else {
        bail!("{} has no program `{PROGRAM}`", object.display());
    };
    let program: &mut Xdp = program.try_into()?;
    program
        .load()
        .with_context(|| format!("loading the program `{PROGRAM}` of {}", object.display()))?;

    for (namespace, interface) in ends {
        let place = format!("{interface} in {}", namespace.name());
        let link = namespace
            .run(|| program.attach(interface, XdpMode::Driver))?
            .with_context(|| format!("attaching the program `{PROGRAM}` to {place}"))?;
        let link: FdLink = program.take_link(link)?.try_into()?;
        // No dot: bpffs keeps names with one for itself.
        link.pin(pins.join(format!("{}-{interface}", namespace.name())))
            .with_context(|| format!("pinning the link of {place}"))?;
    }
    Ok(())
}

/// Mounts bpffs where it belongs, if nobody did.
fn ensure_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    let is_mounted = mounts
        .lines()
        .any(|line| line.split(' ').skip(1).take(2).eq([BPFFS, "bpf"]));
    if is_mounted {
        return Ok(());
    }
    mount(
        Some("bpf"),
        BPFFS,
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )
    .with_context(|| format!("mounting bpffs at {BPFFS}"))
}
