//! The status of thousands of real servers takes tens of milliseconds to put together. It is done in slices, between which
//! the loop takes whatever else comes, verdicts above all.
//!
//! So one service is told as it is at one moment, and the next one perhaps a little later.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::node::Node;
use crate::config::Config;
use crate::control::{CheckStatus, ServiceStatus, Status};

/// Real servers told in one slice: about a millisecond. A service is not cut in two, however many it has.
const SERVERS_AT_ONCE: usize = 512;

/// Answers under way: those who ask are told one after the other, each how things are after he asked.
#[derive(Default)]
pub(super) struct Telling {
    askers: VecDeque<oneshot::Sender<Status>>,
    /// Of the first of them.
    begun: Option<Begun>,
}

/// What there is of an answer.
struct Begun {
    config: Arc<Config>,
    services: Vec<ServiceStatus>,
}

impl Telling {
    /// One more wants to know.
    pub(super) fn ask(&mut self, asker: oneshot::Sender<Status>) {
        self.askers.push_back(asker);
    }

    pub(super) fn is_under_way(&self) -> bool {
        !self.askers.is_empty()
    }
}

impl Node {
    /// Tells a slice more.
    pub(super) fn tell_on(&mut self) {
        // Whoever asked may have gone away.
        while self.telling.askers.front().is_some_and(|it| it.is_closed()) {
            self.telling.askers.pop_front();
            self.telling.begun = None;
        }
        if !self.telling.is_under_way() {
            return;
        }
        let mut begun = match self.telling.begun.take() {
            Some(begun) if Arc::ptr_eq(&begun.config, &self.config) => begun,
            // Another configuration has come meanwhile: half of each would be nonsense.
            _ => Begun {
                config: Arc::clone(&self.config),
                services: Vec::with_capacity(self.config.services.len()),
            },
        };
        let sizes = self
            .config
            .services
            .iter()
            .map(|it| it.all_servers().count());
        let slice = slice(sizes, begun.services.len());
        let is_last = slice.end == self.config.services.len();
        begun.services.extend(self.services_status(slice));
        if !is_last {
            self.telling.begun = Some(begun);
            return;
        }
        if let Some(asker) = self.telling.askers.pop_front() {
            // Whoever asked may have gone away.
            drop(asker.send(self.status(begun.services)));
        }
    }

    /// Tells of all health checks. The loop only says what is known: it is put together by a thread beside it.
    pub(super) fn tell_checks(&self, asker: oneshot::Sender<Result<Vec<CheckStatus>, String>>) {
        let checks = self.health.checks(&self.config);
        spawn_blocking(move || drop(asker.send(checks.status())));
    }
}

/// The services that are told next, after so many: at least one, if there is one.
fn slice(sizes: impl Iterator<Item = usize>, first: usize) -> Range<usize> {
    let mut end = first;
    let mut servers = 0;
    for size in sizes.skip(first) {
        servers += size;
        if end > first && servers > SERVERS_AT_ONCE {
            break;
        }
        end += 1;
    }
    first..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_of_whole_services_and_leave_none_out() {
        const MOST: usize = SERVERS_AT_ONCE;
        // (real servers of the services, where slices end)
        type Case = (&'static [usize], &'static [usize]);
        let cases: [Case; 6] = [
            (&[], &[]),
            (&[0, 0, 0], &[3]),
            (&[1, 2, 3], &[3]),
            (&[MOST, 1, MOST - 1, 1], &[1, 3, 4]),
            (&[10 * MOST, 0, 1, 10 * MOST], &[1, 3, 4]),
            (&[1, 10 * MOST, 1], &[1, 2, 3]),
        ];
        for (sizes, expected) in cases {
            let mut ends = Vec::new();
            let mut told = 0;
            while told < sizes.len() {
                let next = slice(sizes.iter().copied(), told);
                assert_eq!(next.start, told, "{sizes:?}");
                told = next.end;
                ends.push(told);
            }
            assert_eq!(ends, expected, "{sizes:?}");
            assert_eq!(slice(sizes.iter().copied(), told), told..told, "{sizes:?}");
        }
    }
}
