//! What changed for whom, from how a service's real servers take part and what checks find of them. No I/O and no clock.
//!
//! A real server that is down is told of again when its check is known to have failed more often: some wait for that.
//!
//! Not told of: real servers that an operator took out, whatever belongs to a service that is down only because one that it
//! depends on is, and services of which not all real servers have been checked yet.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::event::{About, Condition, Event, Key};
use crate::config::VirtualService;
use crate::health::machine::State;
use crate::health::standing::{Found, ServiceStanding};

/// Real servers whose words are told with a service's.
const REASONS: usize = 3;

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Observer {
    services: HashMap<String, Service>,
}

#[derive(Debug)]
struct Service {
    name: Arc<str>,
    /// By address and port.
    servers: HashMap<(IpAddr, Option<u16>), Seen>,
    fallback: Seen,
    quorum: Seen,
    service: Seen,
}

/// How something was.
#[derive(Clone, Debug)]
struct Seen {
    condition: Condition,
    since: Option<Instant>,
    /// While it is bad, how often its check had failed in a row.
    failures: Option<u32>,
    /// Whether it was told to be bad since it was last told to be good.
    is_told: bool,
}

/// How something is now.
struct Now {
    condition: Condition,
    since: Instant,
    failures: Option<u32>,
}

impl Observer {
    /// What changed in a service. `found` and `is_out` are of its real servers, then of its fallback servers; `is_out`: an
    /// operator took it out of service.
    pub fn observe(
        &mut self,
        service: &VirtualService,
        standing: &ServiceStanding,
        found: &[Found],
        is_out: &[bool],
        now: Instant,
    ) -> Vec<Event> {
        let seen = self
            .services
            .entry(service.name.clone())
            .or_insert_with(|| Service {
                name: service.name.as_str().into(),
                servers: HashMap::new(),
                fallback: Seen::new(),
                quorum: Seen::new(),
                service: Seen::new(),
            });
        let name = Arc::clone(&seen.name);
        let mut events = Vec::new();
        for ((server, found), is_out) in service.all_servers().zip(found).zip(is_out) {
            let condition = match found.state {
                _ if *is_out || standing.is_cut_off => Condition::Hidden,
                State::Unchecked => Condition::Hidden,
                State::Down => Condition::Bad,
                State::Up => Condition::Good,
            };
            let since = found.since.unwrap_or(now);
            let place = (server.address, server.port);
            let seen = seen.servers.entry(place).or_insert_with(Seen::new);
            let about = || About::Server(server.shown());
            let words = || found.words.clone();
            let now = Now {
                condition,
                since,
                failures: (condition == Condition::Bad).then_some(found.failures),
            };
            events.extend(seen.change(&name, now, about, words));
        }
        if seen.servers.len() > found.len() {
            // A real server that was taken out of the configuration.
            let is_there = |place: &(IpAddr, Option<u16>)| {
                let mut servers = service.all_servers();
                servers.any(|server| (server.address, server.port) == *place)
            };
            seen.servers.retain(|place, seen| {
                let stays = is_there(place);
                if !stays && seen.is_told {
                    events.push(gone(&name, About::Server(shown(*place)), now));
                }
                stays
            });
        }
        events.extend(seen.whole(service, standing, found, now));
        events
    }

    /// Forgets services that are not there any more.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        self.services.retain(|name, seen| {
            let stays = is_there(name);
            if !stays {
                let servers = seen.servers.iter();
                let servers = servers
                    .filter(|(_, seen)| seen.is_told)
                    .map(|(place, _)| About::Server(shown(*place)));
                let whole = [About::Fallback, About::Quorum, About::Service];
                let all = servers.chain(whole);
                events.extend(all.map(|about| gone(&seen.name, about, now)));
            }
            stays
        });
        events
    }
}

impl Service {
    /// What changed for the service as a whole.
    fn whole(
        &mut self,
        service: &VirtualService,
        standing: &ServiceStanding,
        found: &[Found],
        now: Instant,
    ) -> Vec<Event> {
        let real = service.real_servers.iter().zip(found);
        let is_known = real
            .clone()
            .all(|(_, found)| found.state != State::Unchecked);
        // Where nobody is meant to answer, nobody who does not is a trouble.
        let is_meant = service.all_servers().any(|server| server.weight > 0);
        let condition = |is_bad: bool| match is_bad {
            _ if standing.is_cut_off => Condition::Hidden,
            true if !is_known || !is_meant => Condition::Hidden,
            true => Condition::Bad,
            false => Condition::Good,
        };
        let reasons = || {
            let down = real
                .clone()
                .filter(|(_, found)| found.state == State::Down)
                .map(|(server, found)| format!("{}: {}", server.shown(), found.words));
            let mut down: Vec<String> = down.collect();
            let more = down.len().saturating_sub(REASONS);
            down.truncate(REASONS);
            if more > 0 {
                down.push(format!("and {more} more"));
            }
            down.join("; ")
        };
        let because = |what: String| {
            let reasons = reasons();
            if reasons.is_empty() {
                what
            } else {
                format!("{what} ({reasons})")
            }
        };
        let (is_on_fallback, has_quorum, is_up) =
            (standing.is_on_fallback, standing.has_quorum, standing.is_up);
        let name = Arc::clone(&self.name);
        let as_now = |is_bad| Now {
            condition: condition(is_bad),
            since: now,
            failures: None,
        };
        let fallback = self.fallback.change(
            &name,
            as_now(is_on_fallback),
            || About::Fallback,
            || match is_on_fallback {
                true => because("its fallback servers answer".to_owned()),
                false => "its real servers answer again".to_owned(),
            },
        );
        let quorum = self.quorum.change(
            &name,
            as_now(!has_quorum),
            || About::Quorum,
            || match has_quorum {
                true => "enough weight is up again".to_owned(),
                false => because(format!(
                    "less weight is up than its quorum of {}",
                    service.health.quorum
                )),
            },
        );
        let service = self.service.change(
            &name,
            as_now(!is_up),
            || About::Service,
            || match is_up {
                true => "its clients are answered again".to_owned(),
                false => because("nobody answers its clients".to_owned()),
            },
        );
        [fallback, quorum, service].into_iter().flatten().collect()
    }
}

impl Seen {
    fn new() -> Self {
        Self {
            condition: Condition::Good,
            since: None,
            failures: None,
            is_told: false,
        }
    }

    /// Takes in how it is now. Gives what is to be told: nothing of what was never bad.
    fn change(
        &mut self,
        service: &Arc<str>,
        now: Now,
        about: impl FnOnce() -> About,
        words: impl FnOnce() -> String,
    ) -> Option<Event> {
        let Now {
            condition,
            since,
            failures,
        } = now;
        let is_same = condition == self.condition;
        if is_same && failures <= self.failures {
            return None;
        }
        self.condition = condition;
        self.failures = failures;
        // Another check may have found it down since: it is down as long as it was.
        let since = self.since.filter(|_| is_same).unwrap_or(since);
        self.since = Some(since);
        let is_told = self.is_told || condition == Condition::Bad;
        self.is_told = is_told && condition != Condition::Good;
        is_told.then(|| Event {
            key: Key {
                name: Arc::clone(service),
                about: about(),
            },
            condition,
            since,
            words: words(),
            failures,
        })
    }
}

fn gone(service: &Arc<str>, about: About, now: Instant) -> Event {
    Event {
        key: Key {
            name: Arc::clone(service),
            about,
        },
        condition: Condition::Gone,
        since: now,
        words: String::new(),
        failures: None,
    }
}

/// As `RealServer::shown`.
fn shown((address, port): (IpAddr, Option<u16>)) -> String {
    match port {
        Some(port) => std::net::SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

#[cfg(test)]
mod tests;
