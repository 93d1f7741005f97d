//! Small things that the system is asked for.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::IpAddr;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};

use crate::config::{Config, Method, limits};
use crate::unfenced::unfenced;
use crate::ungrouped::ungrouped;

/// A random number for a secret.
pub(super) fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    // 0 means "none yet" in the settings.
    Ok(u64::from_ne_bytes(bytes).max(1))
}

/// The kernel's monotonic clock, the one that `bpf_ktime_get_ns` reads.
pub(super) fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        time.tv_sec().cast_unsigned() * 1_000_000_000 + time.tv_nsec().cast_unsigned()
    })
}

/// Descriptors that the director needs besides those of checks: maps, interfaces, sockets of operators and alerts.
const DESCRIPTORS: u64 = 512;

/// Takes as many file descriptors as the process may have, and says so where they are too few for all checks.
pub(super) fn raise_descriptors() {
    let needed = limits::CHECKS_AT_ONCE as u64 * 2 + DESCRIPTORS;
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        // No more than that: some programs, which inherit it, close every descriptor that there could be.
        let limit = hard.min(needed.next_power_of_two());
        setrlimit(Resource::RLIMIT_NOFILE, limit, hard).map(|()| limit)
    });
    match raised {
        Ok(limit) if limit >= needed => {}
        Ok(limit) => tracing::warn!(
            limit,
            "this process may open few files: with many health checks at once some would wait; expected: {needed} \
             (LimitNOFILE= of its unit, or ulimit -n)"
        ),
        Err(error) => tracing::warn!("cannot raise the limit of open files: {error}"),
    }
}

/// What is wrong with the kernel's forwarding for the services that need it.
fn forwarding_warnings(config: &Config) -> Vec<String> {
    let families = [
        (
            true,
            "net.ipv4.ip_forward",
            "/proc/sys/net/ipv4/ip_forward",
            "IPv4",
        ),
        (
            false,
            "net.ipv6.conf.all.forwarding",
            "/proc/sys/net/ipv6/conf/all/forwarding",
            "IPv6",
        ),
    ];
    let is_nat = |ipv4: bool| {
        let mut servers = config
            .services
            .iter()
            .flat_map(|service| &service.real_servers);
        servers.any(|server| {
            server.method == Method::Nat && matches!(server.address, IpAddr::V4(_)) == ipv4
        })
    };
    families
        .into_iter()
        .filter(|(ipv4, _, file, _)| is_nat(*ipv4) && fs::read_to_string(file).is_ok_and(|value| value.trim() == "0"))
        .map(|(_, name, _, family)| {
            format!(
                "{name} is 0 although there are {family} NAT real servers: packets whose next hop is not resolved yet are \
                 left to the kernel, which drops them; set it with `sysctl -w {name}=1`"
            )
        })
        .collect()
}

/// What is right in the configuration and wrong for this machine.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = forwarding_warnings(config);
    warnings.extend(unfenced(config));
    warnings.extend(ungrouped(config));
    warnings
}

/// Logs that.
pub(super) fn warn(config: &Config) {
    let warnings = warnings(config);
    warnings
        .iter()
        .for_each(|warning| tracing::warn!("{warning}"));
}

/// What `director status` warns of where the log, which should say it, may be what nobody reads.
pub(super) fn log_warning(lost: u64) -> Option<String> {
    (lost > 0).then(|| {
        format!(
            "{lost} lines of the log are lost: they were not read as fast as they came; what reads the director's standard \
             error?"
        )
    })
}

/// Seconds since 1970.
pub(super) fn unix_s() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
