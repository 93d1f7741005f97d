//! The lab of network namespaces and the end-to-end suites.
//!
//! ```text
//!  lab ──── namespaces, cables, addresses; up in a second, gone when dropped or interrupted
//!   ├─ http, udp, nginx ─── what real servers run, and the client's side
//!   ├─ director ─────────── `director run` in the director's namespace
//!   ├─ raw ──────────────── packets as they are, and ICMP messages
//!   ├─ servers ──────────── other daemons, each alone: what health checks are tried against
//!   └─ demo ─────────────── what `cargo xtask demo` shows
//! ```
//!
//! Everything here needs root, except what only computes ([`lab::plan`]).

pub mod demo;
pub mod director;
pub mod http;
pub mod lab;
pub mod nginx;
pub mod packet;
pub mod paths;
pub mod raw;
pub mod reference;
pub mod servers;
pub mod udp;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long tests and demonstration wait for something that should take a moment, or for a director to start: seconds of
/// verification, more on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `condition` again and again until it says yes.
///
/// # Errors
/// What `what` names did not come true within `patience`; with the last reason that `condition` gave for its no.
pub fn wait_until(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> Result<()>,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match condition() {
            Ok(()) => return Ok(()),
            Err(reason) if Instant::now() >= deadline => {
                bail!(
                    "{what}: not within {:.0} s: {reason:#}",
                    patience.as_secs_f64()
                )
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
