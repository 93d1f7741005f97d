//! Whether this node is fit to serve: carriers of interfaces, hosts that must answer, programs that must succeed.
//!
//! `rule.rs` says what results mean; here is who asks. Each check lowers the node's priority by what is configured, or
//! makes it unfit. Carriers are told by the kernel when they change.

mod ping;
mod rule;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::time::Duration;

pub use rule::{Check, Verdict, verdict};

use self::ping::Ping;
use crate::config;
use crate::netlink::{Change, LinkState};
use crate::program::{Ended, Job, Outcome};

/// A program that tells whether this node is fit.
struct Tracked {
    settings: config::ProgramTracked,
    is_running: bool,
    next: Duration,
}

/// All that this node's fitness hangs on.
pub struct Fitness {
    /// Interfaces first, then hosts, then programs.
    checks: Vec<Check>,
    interfaces: Vec<String>,
    pings: Vec<Ping>,
    programs: Vec<Tracked>,
    links: BTreeMap<u32, LinkState>,
}

impl Fitness {
    /// Nothing was looked at yet.
    #[must_use]
    pub fn new(settings: &config::Fitness) -> Self {
        let interfaces = settings.interfaces.iter().map(|interface| {
            Check::at_once(format!("carrier of {}", interface.name), interface.lowers)
        });
        let pings = settings.ping.iter().map(|ping| {
            Check::repeated(format!("ping {}", ping.address), ping.lowers, ping.rhythm)
        });
        let programs = settings.programs.iter().map(|program| {
            Check::repeated(program.command.join(" "), program.lowers, program.rhythm)
        });
        Self {
            checks: interfaces.chain(pings).chain(programs).collect(),
            interfaces: settings
                .interfaces
                .iter()
                .map(|interface| interface.name.clone())
                .collect(),
            pings: settings
                .ping
                .iter()
                .enumerate()
                .map(|(nth, ping)| Ping::new(ping.clone(), nth))
                .collect(),
            programs: settings
                .programs
                .iter()
                .map(|program| Tracked {
                    settings: program.clone(),
                    is_running: false,
                    next: Duration::ZERO,
                })
                .collect(),
            links: BTreeMap::new(),
        }
    }

    /// All checks with their results.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// What they say together.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        verdict(&self.checks)
    }

    /// What to wait for being readable.
    #[must_use]
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.pings.iter().filter_map(Ping::fd).collect()
    }

    /// When [`Fitness::step`] is to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let pings = self.pings.iter().map(Ping::deadline);
        let programs = self.programs.iter().filter(|program| !program.is_running);
        pings.chain(programs.map(|program| program.next)).min()
    }

    /// Asks whom it is time to ask, and takes in what they answer. Programs to be run are handed to `start` with the
    /// number that [`Fitness::ended`] wants back. Whether the state of any check has changed.
    pub fn step(&mut self, now: Duration, mut start: impl FnMut(usize, Job<()>)) -> bool {
        let mut has_changed = false;
        let first = self.interfaces.len();
        for (nth, ping) in self.pings.iter_mut().enumerate() {
            for result in [ping.receive(), ping.step(now)].into_iter().flatten() {
                has_changed |= self.checks[first + nth].take(result);
            }
        }
        for (nth, program) in self.programs.iter_mut().enumerate() {
            if program.is_running || program.next > now {
                continue;
            }
            program.is_running = true;
            program.next = now + program.settings.rhythm.interval;
            let job = Job {
                order: format!("fitness {nth}"),
                command: program.settings.command.clone(),
                environment: Vec::new(),
                timeout: program.settings.rhythm.timeout,
                tag: (),
            };
            start(nth, job);
        }
        has_changed
    }

    /// A program has ended; whether the state of its check has changed.
    pub fn ended<T>(&mut self, nth: usize, ended: &Ended<T>) -> bool {
        let Some(program) = self.programs.get_mut(nth) else {
            return false;
        };
        program.is_running = false;
        let result = match &ended.outcome {
            Outcome::Succeeded => Ok(()),
            failed => Err(match ended.line() {
                Some(line) => format!("{failed}: {line}"),
                None => failed.to_string(),
            }),
        };
        let check = self.interfaces.len() + self.pings.len() + nth;
        self.checks[check].take(result)
    }

    /// Something happened to the network; whether the state of any check has changed.
    pub(crate) fn network(&mut self, changes: &[Change]) -> bool {
        for change in changes {
            match change {
                Change::All(links) => {
                    self.links = links
                        .iter()
                        .map(|link| (link.index, link.clone()))
                        .collect();
                }
                Change::Link(link) => {
                    self.links.insert(link.index, link.clone());
                }
                Change::LinkGone { index } => {
                    self.links.remove(index);
                }
                Change::AddressGone { .. } | Change::AddressNew { .. } => {}
            }
        }
        let mut has_changed = false;
        for (name, check) in self.interfaces.iter().zip(&mut self.checks) {
            let link = self.links.values().find(|link| link.name == *name);
            has_changed |= check.take(match link {
                None => Err("there is no such interface".to_owned()),
                Some(link) if link.is_up => Ok(()),
                Some(_) => Err("it is down".to_owned()),
            });
        }
        has_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{InterfaceTracked, ProgramTracked, Rhythm};

    fn link(index: u32, name: &str, is_up: bool) -> LinkState {
        LinkState {
            index,
            name: name.to_owned(),
            is_up,
        }
    }

    #[test]
    fn carriers() {
        let tracked = |name: &str, lowers| InterfaceTracked {
            name: name.to_owned(),
            lowers,
        };
        let mut fitness = Fitness::new(&config::Fitness {
            interfaces: vec![tracked("eth0", None), tracked("eth1", Some(60))],
            ..config::Fitness::default()
        });
        let unfit = |fitness: &Fitness| fitness.verdict().unfit.unwrap_or_default();
        assert_eq!(unfit(&fitness), "carrier of eth0: not looked at yet");
        // (change, lowered by, unfit because)
        let rows = [
            (
                Change::All(vec![link(2, "eth0", true), link(3, "eth1", true)]),
                0,
                "",
            ),
            (Change::Link(link(3, "eth1", false)), 60, ""),
            (Change::Link(link(4, "eth2", false)), 60, ""),
            (
                Change::Link(link(2, "eth0", false)),
                60,
                "carrier of eth0: it is down",
            ),
            (Change::Link(link(2, "eth0", true)), 60, ""),
            (
                Change::LinkGone { index: 2 },
                60,
                "carrier of eth0: there is no such interface",
            ),
            (Change::Link(link(9, "eth0", true)), 60, ""),
            (
                Change::All(vec![link(9, "eth0", true), link(3, "eth1", true)]),
                0,
                "",
            ),
            (
                Change::All(Vec::new()),
                60,
                "carrier of eth0: there is no such interface",
            ),
        ];
        for (change, lowers, why) in rows {
            fitness.network(std::slice::from_ref(&change));
            assert_eq!(fitness.verdict().lowers, lowers, "{change:?}");
            assert_eq!(unfit(&fitness), why, "{change:?}");
        }
    }

    #[test]
    fn programs_in_their_rhythm() {
        let ms = Duration::from_millis;
        let rhythm = Rhythm {
            interval: ms(1000),
            timeout: ms(500),
            fall: 2,
            rise: 1,
        };
        let mut fitness = Fitness::new(&config::Fitness {
            programs: vec![ProgramTracked {
                command: vec!["/bin/check".to_owned(), "it".to_owned()],
                rhythm,
                lowers: None,
            }],
            ..config::Fitness::default()
        });
        let mut started = Vec::new();
        let step = |fitness: &mut Fitness, now, started: &mut Vec<Job<()>>| {
            fitness.step(ms(now), |nth, job| {
                assert_eq!(nth, 0);
                started.push(job);
            })
        };
        let end = |fitness: &mut Fitness, job: &Job<()>, outcome| {
            fitness.ended(
                0,
                &Ended {
                    job: job.clone(),
                    outcome,
                    words: "the disk is full".to_owned(),
                },
            )
        };
        step(&mut fitness, 0, &mut started);
        assert_eq!(started.len(), 1);
        assert_eq!(started[0].timeout, ms(500));
        // Not twice at a time, however long it takes.
        step(&mut fitness, 2500, &mut started);
        assert_eq!((started.len(), fitness.deadline()), (1, None));
        assert!(end(&mut fitness, &started[0], Outcome::Succeeded));
        assert_eq!(fitness.verdict(), Verdict::default());
        step(&mut fitness, 2500, &mut started);
        assert_eq!(started.len(), 2);
        assert!(!end(&mut fitness, &started[1], Outcome::TimedOut(ms(500))));
        assert_eq!(fitness.deadline(), Some(ms(3500)));
        step(&mut fitness, 3499, &mut started);
        assert_eq!(started.len(), 2);
        step(&mut fitness, 3500, &mut started);
        assert!(end(
            &mut fitness,
            &started[2],
            Outcome::Failed("exit status: 1".to_owned())
        ));
        assert_eq!(
            fitness.verdict().unfit.as_deref(),
            Some("/bin/check it: exit status: 1: the disk is full")
        );
    }
}
