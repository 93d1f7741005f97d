//! The lab of network namespaces and the end-to-end suites.
//!
//! ```text
//!  lab ──── namespaces, cables, addresses; up in a second, gone when dropped or interrupted
//!   ├─ http, udp, nginx ─── what real servers run, and the client's side
//!   ├─ director ─────────── `director run` in the director's namespace
//!   ├─ ipvs_peer ────────── a real kernel IPVS in the place of a director
//!   ├─ pair ─────────────── two nodes, and what is done to them
//!   ├─ peer, sharing ────── how fast connections are shared
//!   ├─ large ────────────── a site of 20,000 real servers
//!   ├─ visitor ──────────── a client that keeps requesting: how long was nobody there?
//!   ├─ raw ──────────────── packets as they are, and ICMP messages
//!   ├─ servers ──────────── other daemons, each alone: what health checks are tried against
//!   └─ demo ─────────────── what `cargo xtask demo` shows
//!  packet ── packet cases, natively and in the kernel
//!  bench ─── what `cargo xtask bench` measures
//! ```
//!
//! Everything here needs root, except what only computes ([`lab::plan`]).

pub mod bench;
pub mod demo;
pub mod director;
pub mod http;
pub mod ipvs_peer;
pub mod lab;
pub mod large;
pub mod nginx;
pub mod packet;
pub mod pair;
pub mod paths;
pub mod peer;
pub mod raw;
pub mod reference;
pub mod servers;
pub mod sharing;
pub mod udp;
pub mod visitor;

use std::fmt;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Says that this test does not run, and what this machine lacks: `cargo xtask test` lists it at its end, and does not count
/// it among those that passed.
pub fn left_out(why: &str) {
    let test = std::thread::current();
    let words = format!("\nLEFT OUT {}: {why}\n", test.name().unwrap_or("a test"));
    // Not by `println!`: a test's own output is only shown when it fails. Where nobody reads it, nobody is told.
    let _ = io::stdout().write_all(words.as_bytes());
}

/// How long tests and demonstration wait for something that should take a moment, or for a director to start: seconds of
/// verification, more on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A no that waiting does not turn into a yes, for [`wait_until`]: what was waited for has ended, and this is what it
/// said.
#[derive(Debug)]
pub struct Never(pub String);

impl fmt::Display for Never {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Never {}

/// Asks `condition` again and again until it says yes, or [`Never`].
///
/// # Errors
/// What `what` names did not come true within `patience`, or never will; with the last reason that `condition` gave for
/// its no.
pub fn wait_until(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> Result<()>,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match condition() {
            Ok(()) => return Ok(()),
            Err(reason) if reason.is::<Never>() => return Err(reason).context(what.to_owned()),
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

#[cfg(test)]
mod tests {
    use anyhow::{anyhow, ensure};

    use super::*;

    #[test]
    fn waiting_ends_with_a_yes_a_never_or_patience() {
        // How often it is asked until it gives the last answer, and that one.
        let asked = |patience, last: fn() -> Result<()>| {
            let mut times = 0;
            let outcome = wait_until("it is so", patience, || {
                times += 1;
                ensure!(times >= 3, "not yet");
                last()
            });
            (times, outcome.map_err(|error| format!("{error:#}")).err())
        };
        let said = |text: &str| Some(text.to_owned());
        assert_eq!(asked(PATIENCE, || Ok(())), (3, None));
        let never = || Err(Never("it ended".to_owned()).into());
        assert_eq!(asked(PATIENCE, never), (3, said("it is so: it ended")));
        // As one that was told with more words.
        let never = || Err(anyhow!(Never("it ended".to_owned())).context("starting it"));
        let expected = said("it is so: starting it: it ended");
        assert_eq!(asked(PATIENCE, never), (3, expected));
        let expected = said("it is so: not within 0 s: not yet");
        assert_eq!(asked(Duration::ZERO, || Ok(())), (1, expected));
    }
}
