//! The clock of a node: it goes on while the machine sleeps, and nobody sets it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Time since the machine was switched on (`CLOCK_BOOTTIME`, what `bpf_ktime_get_boot_ns` gives too).
#[must_use]
pub fn now() -> Duration {
    // Fails for clocks that do not exist; this one does since Linux 2.6.39.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Number of a start: greater than that of any start before, if the machine's time of day is not set back.
#[must_use]
pub fn incarnation() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let milliseconds = since.unwrap_or_default().as_millis();
    // Good for half a thousand million years.
    u64::try_from(milliseconds).unwrap_or(u64::MAX).max(1)
}
