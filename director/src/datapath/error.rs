//! What can go wrong between the director and the kernel, told to people.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use aya::maps::MapError;
use aya::programs::ProgramError;
use nix::libc;

use super::privileges::MINIMUM_KERNEL;
use crate::config::XdpMode;

/// Largest MTU that a driver which keeps a frame in one page takes together with a native program (veth, for one).
const ONE_PAGE_MTU: u32 = 3498;

/// Why the data path cannot be started, changed or read.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The programs are not part of this binary.
    #[error(
        "this director was built without BPF programs: run `cargo xtask build`, which builds both the programs and a \
         director that holds them"
    )]
    NotBuilt,
    /// The process may not do it.
    #[error(
        "not allowed: {missing} missing; run the director as root or give it these capabilities"
    )]
    Privileges {
        /// The capabilities it lacks.
        missing: String,
    },
    /// The kernel is too old.
    #[error(
        "this kernel is Linux {found}; the director needs {}.{} or later",
        MINIMUM_KERNEL.0,
        MINIMUM_KERNEL.1
    )]
    Kernel {
        /// Its version.
        found: String,
    },
    /// No BPF file system.
    #[error("{} is not a BPF file system and one cannot be mounted there: {source}; try `mount -t bpf bpf {}`",
        path.display(), path.display())]
    Mount {
        /// Where it should be.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A pin or the directory of pins.
    #[error("cannot {action} {}: {source}", path.display())]
    Pin {
        /// What was being done.
        action: &'static str,
        /// With which path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another director runs under this name.
    #[error(
        "another director already runs as instance {instance:?} (it holds {}): stop it first, or give this one another \
         `instance` and other interfaces",
        path.display()
    )]
    Locked {
        /// The instance.
        instance: String,
        /// The directory that is locked.
        path: PathBuf,
    },
    /// Tables of another version.
    #[error(
        "{} holds tables of layout version {found}, this director knows version {expected}: start the version that \
         made them and stop it with SIGTERM, or remove the directory (`rm -r {}`), which ends their forwarding and \
         every connection",
        path.display(), path.display()
    )]
    Layout {
        /// The directory of pins.
        path: PathBuf,
        /// Their version.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// Not everything is there.
    #[error(
        "{} holds attached programs but not all of their tables ({missing} is missing): they cannot be adopted; remove \
         the directory (`rm -r {}`), which ends their forwarding, and start again",
        path.display(), path.display()
    )]
    Incomplete {
        /// The directory of pins.
        path: PathBuf,
        /// A table that is not there.
        missing: String,
    },
    /// The objects in this binary are not what this director was written for.
    #[error(
        "the BPF object holds no {kind} named {name}: the object and the director are of different versions; run `cargo xtask build`"
    )]
    Object {
        /// "map" or "program".
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The object was refused.
    #[error("cannot load the BPF object: {}{}", chain(.0), load_hint(.0))]
    Load(#[source] Box<aya::EbpfError>),
    /// A program was refused.
    #[error("the kernel refuses program {name}: {}", program_refused(.cause))]
    Program {
        /// Its name.
        name: &'static str,
        /// The kernel's answer, with the verifier's log.
        cause: Box<ProgramError>,
    },
    /// A map does not take or give what it should.
    #[error("cannot {action} BPF map {map}: {}", chain(.source))]
    Map {
        /// What was being done.
        action: &'static str,
        /// Its name.
        map: &'static str,
        /// The kernel's answer.
        source: Box<MapError>,
    },
    /// There is nothing to look at.
    #[error("no data path of an instance named {instance} stands at {}: is this its name, and has a director run?", path.display())]
    NotStanding {
        /// Where it should be.
        path: PathBuf,
        /// The instance.
        instance: String,
    },
    /// It cannot be told when the programs before have ended their last run.
    #[error("cannot wait for packets that are under way: {source}")]
    Settle {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The lease that fences this node cannot be used.
    #[error("cannot {action} for this node's lease: {source}")]
    Lease {
        /// What was being done.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The connection table cannot be seen from here.
    #[error("cannot map BPF map {map} into memory: {source}")]
    Memory {
        /// Its name.
        map: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No such interface.
    #[error("there is no network interface {name} in this network namespace; `ip link` lists them")]
    NoInterface {
        /// Its name.
        name: String,
    },
    /// The interface has a program already.
    #[error(
        "interface {name} already has an XDP program (id {program}): another director instance or another tool \
         attached it; `bpftool prog show id {program}` tells which, `ip link set {name} xdp off` removes one that is \
         not held by a link"
    )]
    Busy {
        /// The interface.
        name: String,
        /// Id of the program that is there.
        program: u32,
    },
    /// The frames are too large for a native program.
    #[error(
        "interface {name} does not take a native XDP program with {}: set it and its peer's to {ONE_PAGE_MTU} or \
         less, or say `mode: generic`",
        too_large(*.mtu)
    )]
    Mtu {
        /// The interface.
        name: String,
        /// Its MTU, in bytes.
        mtu: u32,
    },
    /// The driver has no native XDP.
    #[error(
        "the driver of interface {name} does not take a native XDP program ({source}): say `mode: generic` for this \
         interface, which works with every driver but is several times slower"
    )]
    NoNative {
        /// The interface.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Anything else about attaching.
    #[error("cannot attach the program to interface {name} in {mode} mode: {}", chain(&**.source))]
    Attach {
        /// The interface.
        name: String,
        /// How.
        mode: XdpMode,
        /// The kernel's answer.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The kernel does not say what an interface is like.
    #[error("cannot ask the kernel about interface {name}: {source}")]
    Query {
        /// The interface.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl DatapathError {
    /// The right error for a refused attachment.
    pub(super) fn attach(
        name: &str,
        mode: XdpMode,
        mtu: u32,
        program: Option<u32>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        let code = os_error(&source);
        let name = name.to_owned();
        match (code, program, mode) {
            (Some(libc::EBUSY | libc::EEXIST), Some(program), _) => Self::Busy { name, program },
            (Some(libc::ERANGE), _, XdpMode::Native) => Self::Mtu { name, mtu },
            (Some(libc::EINVAL | libc::EOPNOTSUPP), _, XdpMode::Native) if mtu > ONE_PAGE_MTU => {
                Self::Mtu { name, mtu }
            }
            (Some(code @ (libc::EOPNOTSUPP | libc::EINVAL)), _, XdpMode::Native) => {
                Self::NoNative {
                    name,
                    source: io::Error::from_raw_os_error(code),
                }
            }
            (Some(libc::ENODEV), ..) => Self::NoInterface { name },
            _ => Self::Attach {
                name,
                mode,
                source: Box::new(source),
            },
        }
    }
}

/// Whose MTU is too large. A virtual cable minds that of its far end (drivers/net/veth.c, `veth_xdp_set`), which may be
/// in another network namespace, out of sight.
fn too_large(mtu: u32) -> String {
    if mtu > ONE_PAGE_MTU {
        format!("its MTU of {mtu}")
    } else {
        format!("the MTU of its peer (its own is {mtu})")
    }
}

/// An error and what caused it, in one line.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors repeat their cause.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// The system's error number behind an error.
pub(super) fn os_error(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            return Some(code);
        }
        cause = error.source();
    }
    None
}

fn load_hint(error: &aya::EbpfError) -> &'static str {
    match os_error(error) {
        Some(libc::EPERM | libc::EACCES) => " (the director needs root)",
        Some(libc::ENOMEM) => " (not enough memory: lower `connections` in the configuration)",
        Some(libc::E2BIG) => {
            " (too large for this kernel: lower `connections` in the configuration)"
        }
        _ => "",
    }
}

/// The verifier's log is long; what it objects to stands in its last lines.
fn program_refused(error: &ProgramError) -> String {
    const LINES: usize = 12;
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return chain(error);
    };
    let log = verifier_log.to_string();
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = lines[lines.len().saturating_sub(LINES)..].join("\n  ");
    format!("{io_error}; the verifier's last lines:\n  {tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_words() {
        use XdpMode::{Generic, Native};
        // (error number, mode, MTU, program already there, part of the message)
        let cases = [
            (
                libc::EBUSY,
                Native,
                1500,
                Some(42),
                "already has an XDP program (id 42)",
            ),
            (
                libc::EEXIST,
                Generic,
                1500,
                Some(42),
                "already has an XDP program (id 42)",
            ),
            (libc::EOPNOTSUPP, Native, 1500, None, "say `mode: generic`"),
            (libc::ERANGE, Native, 9000, None, "MTU of 9000"),
            (libc::EINVAL, Native, 9000, None, "MTU of 9000"),
            (
                libc::ERANGE,
                Native,
                1500,
                None,
                "the MTU of its peer (its own is 1500)",
            ),
            (
                libc::ENODEV,
                Native,
                1500,
                None,
                "no network interface eth9",
            ),
            (libc::EPERM, Native, 1500, None, "in native mode: "),
            (libc::EOPNOTSUPP, Generic, 1500, None, "in generic mode: "),
        ];
        for (code, mode, mtu, program, expected) in cases {
            let error = DatapathError::attach(
                "eth9",
                mode,
                mtu,
                program,
                io::Error::from_raw_os_error(code),
            );
            assert!(error.to_string().contains(expected), "{code}: {error}");
        }
    }
}
