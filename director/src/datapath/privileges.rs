//! What the process must be allowed to do, and what kernel it must stand on: asked before anything is touched, so that
//! the answer is a sentence rather than an error number from somewhere inside.

use std::fs;

use aya::util::KernelVersion;

use super::error::DatapathError;

/// Oldest kernel: XDP links, ring buffers, atomics with results and `bpf_ktime_get_coarse_ns` are all there.
pub(super) const MINIMUM_KERNEL: (u8, u8) = (5, 15);
/// From this one on the packet path takes fragments in again that waited for their datagram's first one
/// (`BPF_F_TEST_XDP_LIVE_FRAMES`).
const LIVE_FRAMES: (u8, u8) = (5, 18);

/// Capabilities by their bit (`linux/capability.h`).
const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
const CAP_SYS_ADMIN: u32 = 21;

/// Checks both.
///
/// # Errors
/// [`DatapathError::Kernel`] or [`DatapathError::Privileges`].
pub fn check() -> Result<(), DatapathError> {
    let (major, minor) = MINIMUM_KERNEL;
    if !is_at_least(major, minor) {
        let found = fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_else(|_| "of unknown version".into());
        return Err(DatapathError::Kernel {
            found: found.trim().to_owned(),
        });
    }
    // Where /proc is missing the kernel's own refusals must do.
    let Some(effective) = fs::read_to_string("/proc/self/status")
        .ok()
        .as_deref()
        .and_then(effective)
    else {
        return Ok(());
    };
    match missing(effective) {
        missing if missing.is_empty() => Ok(()),
        missing => Err(DatapathError::Privileges {
            missing: missing.join(", "),
        }),
    }
}

/// Whether held fragments can be handed in again.
pub(super) fn has_live_frames() -> bool {
    is_at_least(LIVE_FRAMES.0, LIVE_FRAMES.1)
}

/// A kernel that does not say its version is given a try.
fn is_at_least(major: u8, minor: u8) -> bool {
    KernelVersion::current().map_or(true, |version| {
        version >= KernelVersion::new(major, minor, 0)
    })
}

/// The effective capabilities in `/proc/self/status`.
fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing(effective: u64) -> Vec<&'static str> {
    let has = |bit: u32| effective >> bit & 1 == 1;
    // CAP_SYS_ADMIN includes the two that were split off it, not the network's.
    NEEDED
        .into_iter()
        .filter(|(bit, _)| !(has(*bit) || *bit >= 38 && has(CAP_SYS_ADMIN)))
        .map(|(_, name)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing() {
        let cases: [(&str, &[&str]); 4] = [
            ("Name:\tdirector\nCapEff:\t000001ffffffffff\n", &[]),
            (
                "CapEff:\t0000000000000000\n",
                &["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"],
            ),
            ("CapEff:\t0000000000201000\n", &[]),
            ("CapEff:\t000000c000000000\n", &["CAP_NET_ADMIN"]),
        ];
        for (status, expected) in cases {
            let effective = effective(status).unwrap();
            assert_eq!(missing(effective), expected, "{status}");
        }
    }
}
