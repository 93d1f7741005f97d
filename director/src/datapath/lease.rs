//! The lease that fences this node: renewed while heartbeat proves that it may serve, and run out by itself.
//!
//! The packet path compares it with the kernel's ticks (`jiffies`), which cost it nothing and which only a BPF program can
//! read. So renewing is running the program [`programs::LEASE`]: one system call, from whatever thread heartbeat has.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use aya::programs::Xdp;
use xdp_ebpf::layout::{LeaseOrder, lease_order, limits, maps, programs};

use super::error::DatapathError;
use super::load::Datapath;
use super::maps::{Maps, failed};
use super::sys;

/// The clock of the lease must have been watched for so long before its rate is known: 10 ticks of the slowest.
const WATCHED: Duration = Duration::from_millis(100);
/// Ticks in a second that kernels are built for (`kernel/Kconfig.hz`).
const RATES: [u64; 4] = [100, 250, 300, 1000];
const NS_PER_S: u128 = 1_000_000_000;

/// Renews the lease. May be used from another thread than the rest of the data path, and goes on over resizes.
#[derive(Debug)]
pub struct LeaseKeeper {
    program: OwnedFd,
    ticks_per_s: u64,
}

/// The kernel's two clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clocks {
    ticks: u64,
    ns: u64,
}

/// A lease as somebody else sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseState {
    /// How long ago it was renewed.
    pub renewed_ago: Duration,
    /// How long it was renewed for.
    pub length: Duration,
}

impl LeaseState {
    /// Whether it has run out: this node is fenced.
    #[must_use]
    pub fn has_run_out(&self) -> bool {
        self.renewed_ago > self.length
    }
}

impl Datapath {
    /// Who renews the lease. Takes a tenth of a second, until the clock's rate is known.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn lease_keeper(&self) -> Result<LeaseKeeper, DatapathError> {
        let program = self.object.program(programs::LEASE);
        let program: &Xdp =
            program
                .and_then(|it| it.try_into().ok())
                .ok_or_else(|| DatapathError::Object {
                    kind: "program",
                    name: programs::LEASE.to_owned(),
                })?;
        let fd = program.fd().map_err(|cause| DatapathError::Program {
            name: programs::LEASE,
            cause: Box::new(cause),
        })?;
        let program = fd.as_fd().try_clone_to_owned().map_err(refused)?;
        let ask = || run(&program, LeaseOrder::default()).map_err(refused);
        let first = ask()?;
        std::thread::sleep(WATCHED);
        let ticks_per_s = rate(first, ask()?);
        Ok(LeaseKeeper {
            program,
            ticks_per_s,
        })
    }
}

fn refused(source: io::Error) -> DatapathError {
    DatapathError::Lease {
        action: "run the BPF program",
        source,
    }
}

fn run(program: &OwnedFd, order: LeaseOrder) -> io::Result<Clocks> {
    let mut words = [
        order.order,
        order.ticks,
        order.length_ns,
        order.now_ticks,
        order.now_ns,
    ];
    sys::run_program(program.as_fd(), &mut words)?;
    let [.., ticks, ns] = words;
    Ok(Clocks { ticks, ns })
}

impl LeaseKeeper {
    /// This node may serve for `length` from now. It is never longer, but for [`limits::LEASE`], and at most one tick of
    /// the kernel shorter.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn renew(&self, length: Duration) -> io::Result<()> {
        let length = length.min(limits::LEASE);
        let order = LeaseOrder {
            order: lease_order::RENEW,
            ticks: ticks(length, self.ticks_per_s),
            // Not longer than the limit.
            length_ns: length.as_nanos() as u64,
            ..LeaseOrder::default()
        };
        run(&self.program, order).map(|_| ())
    }

    /// There is no lease any more: nothing is fenced, because this node has nothing that it could serve wrongly.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn end(&self) -> io::Result<()> {
        let order = LeaseOrder {
            order: lease_order::END,
            ..LeaseOrder::default()
        };
        run(&self.program, order).map(|_| ())
    }
}

/// Ticks in a second: what a kernel can be built for, if it is close to one of those.
fn rate(first: Clocks, now: Clocks) -> u64 {
    let ns = u128::from(now.ns.saturating_sub(first.ns)).max(1);
    let ticks = u128::from(now.ticks.wrapping_sub(first.ticks));
    // Fewer than 2^64, or the clocks ran for no time.
    let measured = (ticks * NS_PER_S / ns).min(u128::from(u64::MAX)) as u64;
    let is_close = |rate: &u64| measured.abs_diff(*rate) <= rate / 8;
    // The slower one of two that are close: a lease is rather too short than too long.
    RATES.into_iter().find(is_close).unwrap_or(measured)
}

/// Whole ticks in a time.
fn ticks(length: Duration, ticks_per_s: u64) -> u64 {
    // Lengths have a limit far below what could overflow.
    (length.as_nanos() * u128::from(ticks_per_s) / NS_PER_S) as u64
}

impl Maps {
    /// The lease, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn lease(&self) -> Result<Option<LeaseState>, DatapathError> {
        let [until, renewed_ns, length_ns] =
            self.lease.get(&0, 0).map_err(failed("read", maps::LEASE))?;
        let now =
            nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_err(|error| {
                DatapathError::Lease {
                    action: "read the clock",
                    source: error.into(),
                }
            })?;
        let renewed = Duration::from_nanos(renewed_ns);
        Ok((until != 0).then(|| LeaseState {
            renewed_ago: Duration::from(now).saturating_sub(renewed),
            length: Duration::from_nanos(length_ns),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_kernels() {
        let first = Clocks { ticks: 7, ns: 1000 };
        // (ticks, milliseconds, ticks in a second)
        for (ticks, ms, expected) in [
            (10, 100, 100),
            (11, 100, 100),
            (25, 100, 250),
            (24, 100, 250),
            (26, 101, 250),
            (30, 100, 300),
            (100, 100, 1000),
            (101, 100, 1000),
            (997, 1000, 1000),
            // None of them: what was measured.
            (128, 1000, 128),
            (0, 0, 0),
        ] {
            let now = Clocks {
                ticks: first.ticks + ticks,
                ns: first.ns + ms * 1_000_000,
            };
            assert_eq!(rate(first, now), expected, "{ticks} in {ms} ms");
        }
    }

    #[test]
    fn a_lease_is_never_longer_than_asked() {
        for (ms, rate, expected) in [
            (250, 250, 62),
            (250, 1000, 250),
            (9, 100, 0),
            (255, 100, 25),
        ] {
            assert_eq!(ticks(Duration::from_millis(ms), rate), expected, "{ms} ms");
        }
    }

    #[test]
    fn a_lease_runs_out() {
        let state = |ago_ms, length_ms| LeaseState {
            renewed_ago: Duration::from_millis(ago_ms),
            length: Duration::from_millis(length_ms),
        };
        assert!(!state(250, 250).has_run_out());
        assert!(state(251, 250).has_run_out());
    }
}
