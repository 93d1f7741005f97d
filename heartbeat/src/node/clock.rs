//! The clock of a node: it goes on while the machine sleeps, and nobody sets it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Time since the machine was switched on (`CLOCK_BOOTTIME`, what `bpf_ktime_get_boot_ns` gives too).
#[must_use]
pub fn now() -> Duration {
    // Fails for clocks that do not exist; this one does since Linux 2.6.39.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Milliseconds since 1970, as far as the machine knows the time of day.
#[must_use]
pub fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // Good for half a thousand million years.
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
