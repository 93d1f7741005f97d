//! A client that keeps requesting, and notes when it was answered: how long was nobody there?

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::http;
use crate::lab::Namespace;
use crate::{PATIENCE, wait_until};

/// How long a request may take: one that nobody takes fails after this, and the next one is made.
const TIMEOUT: Duration = Duration::from_millis(40);
/// Pause between requests, so that a client does not run out of ports in a long test.
const PACE: Duration = Duration::from_millis(4);

/// A client that requests until it is told to stop.
#[derive(Debug)]
pub struct Visitor {
    ends: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Vec<Visit>>>,
}

/// A request that was answered.
#[derive(Clone, Debug)]
pub struct Visit {
    /// When.
    pub at: Instant,
    /// By whom.
    pub who: String,
}

impl Visitor {
    /// Begins to request from a host.
    ///
    /// # Errors
    /// The host is gone.
    pub fn start(from: &Namespace, service: SocketAddr) -> Result<Self> {
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let answered = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&answered);
        // A thread is in the namespace of the one that made it.
        let thread = from.run(|| {
            std::thread::spawn(move || {
                let mut visits = Vec::new();
                while !ended.load(Ordering::Relaxed) {
                    if let Ok(response) = http::get(service, "/", TIMEOUT) {
                        visits.push(Visit {
                            at: Instant::now(),
                            who: response.who(),
                        });
                        counted.store(visits.len(), Ordering::Relaxed);
                    }
                    std::thread::sleep(PACE);
                }
                visits
            })
        })?;
        Ok(Self {
            ends,
            answered,
            thread: Some(thread),
        })
    }

    /// Waits until it has been answered a few times more.
    ///
    /// # Errors
    /// It is not.
    pub fn wait_answered(&self) -> Result<()> {
        let answered = || self.answered.load(Ordering::Relaxed);
        let before = answered();
        wait_until("the client is answered", PATIENCE, || {
            ensure!(answered() >= before + 5, "{} times so far", answered());
            Ok(())
        })
    }

    /// Stops, and says when it was answered.
    ///
    /// # Errors
    /// Its thread panicked.
    pub fn stop(mut self) -> Result<Vec<Visit>> {
        self.ends.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it was stopped before")?;
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("the client's thread panicked"))
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

/// The longest time between two answers that follow each other, if the second came after `since`.
#[must_use]
pub fn longest_gap(visits: &[Visit], since: Instant) -> Duration {
    visits
        .windows(2)
        .filter(|pair| pair[1].at >= since)
        .map(|pair| pair[1].at - pair[0].at)
        .max()
        .unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps() {
        let start = Instant::now();
        let at = |ms: u64| Visit {
            at: start + Duration::from_millis(ms),
            who: String::new(),
        };
        let since = |ms: u64| start + Duration::from_millis(ms);
        let visits = [at(0), at(500), at(510), at(710), at(715)];
        for (from, expected) in [(0, 500), (501, 200), (712, 5)] {
            let gap = longest_gap(&visits, since(from));
            assert_eq!(gap, Duration::from_millis(expected), "{from}");
        }
        assert_eq!(longest_gap(&visits, since(800)), Duration::MAX);
        assert_eq!(longest_gap(&[], since(0)), Duration::MAX);
    }
}
