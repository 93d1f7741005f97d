//! How real servers take part, given what operators said and checks found: fallback, quorum, slow start, agents,
//! dependencies. No I/O and no clock.
//!
//! ```text
//!  configured weight ─► operator's override ─► verdict (up, down, unchecked) ─► agent ─► slow start ─► weight in the tables
//!                                                        │
//!                          quorum of a service's weight ◄┘─► real servers or fallback servers
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::machine::{State, Verdict};
use super::probe::{Administrative, Said};
use crate::config::{
    Config, Health, OnDown, Probe, RealServer, RemovedServers, UntilChecked, VirtualService, limits,
};
use crate::overrides::{Effective, Overrides};

/// Weights of services whose real servers can have a part of theirs are this much larger, so that there is a part of 1.
const SCALE: u32 = 100;
/// How often a slow start gives more.
const SLOW_START_STEP: Duration = Duration::from_secs(1);

/// What is known of a real server by all its checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Up or down; without checks it is up.
    pub state: State,
    /// Since when.
    pub since: Option<Instant>,
    /// Whether it was down before.
    pub words: String,
    /// What its agent said.
    pub said: Option<Said>,
    /// While it is down, the most failures in a row of a check that finds it so, as far as they are told.
    pub failures: u32,
}

impl Found {
    /// Of a real server without checks.
    #[must_use]
    pub fn unmonitored() -> Self {
        Self {
            state: State::Up,
            ..Self::default()
        }
    }

    /// By all its checks: down if one says so, else unchecked if one does, else up.
    #[must_use]
    pub fn by_all<'a>(verdicts: impl IntoIterator<Item = &'a Verdict>) -> Self {
        let rank = |state: State| match state {
            State::Down => 2,
            State::Unchecked => 1,
            State::Up => 0,
        };
        let mut found: Option<Self> = None;
        let mut said = None;
        let mut failures = 0;
        for verdict in verdicts {
            said = said.or(verdict.said);
            let (state, since, words) = by_agents_word(verdict);
            if state == State::Down {
                failures = failures.max(verdict.failures);
            }
            let is_worse = found.as_ref().is_none_or(|found| {
                let (old, new) = (rank(found.state), rank(state));
                // Of several that say the same, the one that said it last: it decided.
                new > old || new == old && since > found.since
            });
            if is_worse {
                found = Some(Self {
                    state,
                    since,
                    words,
                    said: None,
                    failures: 0,
                });
            }
        }
        Self {
            said,
            failures,
            ..found.unwrap_or_else(Self::unmonitored)
        }
    }
}

/// What one check says, with its agent's word on health: that counts only where the check itself finds it up.
fn by_agents_word(verdict: &Verdict) -> (State, Option<Instant>, String) {
    match verdict.state {
        State::Up if verdict.is_said_down() => {
            let words = format!("its agent says that it is down: {}", verdict.said_words);
            (State::Down, verdict.said_since.or(verdict.since), words)
        }
        // Up since both say so.
        State::Up => {
            let since = verdict.since.max(verdict.said_since);
            (State::Up, since, verdict.words.clone())
        }
        state => (state, verdict.since, verdict.words.clone()),
    }
}

/// How the real servers of one service take part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceStanding {
    /// The real servers, then the fallback servers, in the order of the configuration.
    pub servers: Vec<Effective>,
    /// Whether the fallback servers answer.
    pub is_on_fallback: bool,
    /// Whether a service that it depends on is down.
    pub is_cut_off: bool,
    /// Whether enough weight is up.
    pub has_quorum: bool,
    /// Whether anybody answers.
    pub is_up: bool,
    /// By how much weights are larger than configured ones, so that there are parts of 1.
    pub scale: u32,
    /// Of a service that tracks on change, how they take part if all that has not been checked yet is up, and all that the
    /// service depends on: the best guess at where connections are that began before. None: nothing is unknown.
    pub expected: Option<Box<ServiceStanding>>,
}

/// How all real servers take part: one entry for each service of the configuration, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standings(pub Vec<ServiceStanding>);

/// What a service remembers from one judgement to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Whether the quorum was reached; none before the first judgement.
    has_quorum: Option<bool>,
    servers: BTreeMap<Member, Remembered>,
}

/// A real server of a service, wherever it stands in the list: a reload may put others before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Member {
    address: IpAddr,
    port: Option<u16>,
    is_fallback: bool,
}

/// What is remembered of a real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Remembered {
    /// What was found of it the last time.
    state: State,
    /// Whether it was down and has not been in service since.
    is_to_recover: bool,
    /// When it came up again, while its slow start is under way.
    started: Option<Instant>,
    /// What its agent said: it holds until another one, of a check that a reload has changed, has been asked.
    said: Option<Said>,
}

impl Member {
    const fn of(server: &RealServer, is_fallback: bool) -> Self {
        Self {
            address: server.address,
            port: server.port,
            is_fallback,
        }
    }
}

impl Memory {
    /// What was found of a real server the last time.
    #[must_use]
    pub fn state(&self, server: &RealServer, is_fallback: bool) -> Option<State> {
        let remembered = self.servers.get(&Member::of(server, is_fallback));
        remembered.map(|it| it.state)
    }
}

/// What a judgement looks at, besides the service.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// What operators said.
    pub overrides: &'a Overrides,
    /// What was found of its real servers, then of its fallback servers.
    pub found: &'a [Found],
    /// Which of them were in service when this director took over from one before it, or before the present configuration;
    /// empty: none.
    pub stayed: &'a [bool],
    /// Whether all services that it depends on are up.
    pub are_dependencies_up: bool,
    /// Seconds since 1970, for drains.
    pub now_s: u64,
    /// Now.
    pub now: Instant,
}

/// How a service's real servers take part, and when that must be looked at again if nothing happens.
pub fn judge(
    service: &VirtualService,
    memory: &mut Memory,
    circumstances: &Circumstances<'_>,
) -> (ServiceStanding, Option<Instant>) {
    let health = &service.health;
    let scale = scale(service);
    let mut next = None;
    let mut servers = Vec::with_capacity(circumstances.found.len());
    let mut weight_up = 0_u64;
    let unknown = Found::default();
    // Those that are in the list no more are forgotten.
    let before = std::mem::take(&mut memory.servers);
    for (place, server) in service.all_servers().enumerate() {
        let found = circumstances.found.get(place).unwrap_or(&unknown);
        let said = circumstances
            .overrides
            .effective(service, server, circumstances.now_s);
        let is_up = is_up(
            health,
            found,
            circumstances.stayed.get(place) == Some(&true),
        );
        let is_real = place < service.real_servers.len();
        let member = Member::of(server, !is_real);
        let remembered = before.get(&member).copied().unwrap_or_default();
        let started = slow_start(remembered, is_up, found, health, circumstances.now);
        let heard = found.said.or(remembered.said.filter(|_| has_agent(server)));
        let now = Remembered {
            state: found.state,
            is_to_recover: !is_up && (found.state == State::Down || remembered.is_to_recover),
            started,
            said: heard,
        };
        memory.servers.insert(member, now);
        let mut effective = by_agent(said, heard);
        if is_up {
            let percent = heard.and_then(|said| said.percent);
            // One whose agent wants no clients is not who answers them.
            let is_idle = percent == Some(0);
            if is_real && !is_idle {
                weight_up += u64::from(effective.weight);
            }
            let percent =
                by_slow_start(started, health, circumstances.now).min(percent.unwrap_or(100));
            if started.is_some() {
                next = Some(circumstances.now + SLOW_START_STEP);
            }
            effective.weight = part(effective.weight, percent, scale);
        } else {
            effective = when_down(effective, service, found);
        }
        servers.push(effective);
    }
    let has_quorum = quorum(health, memory.has_quorum, weight_up);
    memory.has_quorum = Some(has_quorum);
    let (real, fallback) = servers.split_at_mut(service.real_servers.len());
    let is_on_fallback = !has_quorum && fallback.iter().any(|it| it.weight > 0);
    let idle = if is_on_fallback { real } else { fallback };
    for effective in idle {
        // Persistence must not bring new clients there either. What connections there are go on.
        effective.weight = 0;
        effective.is_out = true;
    }
    let is_cut_off = !circumstances.are_dependencies_up;
    if is_cut_off {
        for effective in &mut servers {
            effective.weight = 0;
            effective.is_out = true;
        }
    }
    let is_up = servers.iter().any(|it| it.weight > 0);
    let standing = ServiceStanding {
        servers,
        is_on_fallback,
        is_cut_off,
        has_quorum,
        is_up,
        scale,
        expected: expected(service, memory, circumstances),
    };
    (standing, next)
}

/// How they take part if all that is unknown turns out to be up.
fn expected(
    service: &VirtualService,
    memory: &Memory,
    circumstances: &Circumstances<'_>,
) -> Option<Box<ServiceStanding>> {
    if !service.track.is_on_change() {
        return None;
    }
    let mut is_known = circumstances.are_dependencies_up;
    let found: Vec<Found> = circumstances
        .found
        .iter()
        .map(|found| match found.state {
            State::Unchecked => {
                is_known = false;
                Found {
                    state: State::Up,
                    ..found.clone()
                }
            }
            _ => found.clone(),
        })
        .collect();
    // What is judged here leaves nothing unknown, so this goes no deeper.
    (!is_known).then(|| {
        let circumstances = Circumstances {
            found: &found,
            are_dependencies_up: true,
            ..*circumstances
        };
        Box::new(judge(service, &mut memory.clone(), &circumstances).0)
    })
}

/// The standings where nothing is known but what operators said: real servers without checks are up.
#[must_use]
pub fn unchecked(config: &Config, overrides: &Overrides, now_s: u64) -> Standings {
    let now = Instant::now();
    let of_service = |service: &VirtualService| {
        let found: Vec<Found> = service
            .all_servers()
            .map(|server| {
                if server.checks.is_empty() {
                    Found::unmonitored()
                } else {
                    Found::default()
                }
            })
            .collect();
        let circumstances = Circumstances {
            overrides,
            found: &found,
            stayed: &[],
            are_dependencies_up: true,
            now_s,
            now,
        };
        judge(service, &mut Memory::default(), &circumstances).0
    };
    Standings(config.services.iter().map(of_service).collect())
}

fn is_up(health: &Health, found: &Found, was_in_service: bool) -> bool {
    match found.state {
        State::Up => true,
        State::Down => false,
        State::Unchecked => was_in_service || health.until_checked == UntilChecked::In,
    }
}

/// Whether enough weight is up (keepalived.conf(5), `quorum` and `hysteresis`): gained at quorum + hysteresis, lost below
/// quorum - hysteresis.
fn quorum(health: &Health, before: Option<bool>, weight: u64) -> bool {
    let (quorum, hysteresis) = (u64::from(health.quorum), u64::from(health.hysteresis));
    match before {
        Some(true) => weight >= quorum.saturating_sub(hysteresis).max(quorum.min(1)),
        Some(false) => weight >= quorum + hysteresis,
        None => weight >= quorum,
    }
}

/// When a real server's slow start began, if it is under way: it was down, and then came up. A check that a reload has
/// changed, and that has not run yet, neither begins nor ends one.
fn slow_start(
    before: Remembered,
    is_up: bool,
    found: &Found,
    health: &Health,
    now: Instant,
) -> Option<Instant> {
    if !is_up {
        return None;
    }
    let started = if before.is_to_recover {
        Some(found.since.unwrap_or(now))
    } else {
        before.started
    };
    let time = Duration::from_secs(health.slow_start_s.into());
    started.filter(|started| now.saturating_duration_since(*started) < time)
}

/// Percent of its weight that a real server gets.
fn by_slow_start(started: Option<Instant>, health: &Health, now: Instant) -> u32 {
    let Some(started) = started else {
        return 100;
    };
    let total_ms = u128::from(health.slow_start_s.max(1)) * 1000;
    let passed_ms = now.saturating_duration_since(started).as_millis();
    // At most 100.
    (1 + passed_ms.min(total_ms) * 99 / total_ms) as u32
}

fn by_agent(effective: Effective, said: Option<Said>) -> Effective {
    let effective = Effective {
        // 0 means none in HAProxy too (`maxconn` of a server in its configuration manual).
        maximum_connections: said
            .and_then(|said| said.maximum_connections)
            .unwrap_or_default(),
        ..effective
    };
    match said.and_then(|said| said.administrative) {
        None | Some(Administrative::Ready) => effective,
        Some(Administrative::Drain) => Effective {
            weight: 0,
            ..effective
        },
        Some(Administrative::Maintenance) => Effective {
            weight: 0,
            is_out: true,
            ..effective
        },
    }
}

/// A real server that is not up.
fn when_down(effective: Effective, service: &VirtualService, found: &Found) -> Effective {
    let removes = service.health.on_down == OnDown::Remove;
    // One that nobody has looked at yet may have connections, of a director before this one: they go on.
    let ends =
        removes && found.state == State::Down && service.removed_servers != RemovedServers::Keep;
    Effective {
        weight: 0,
        is_out: effective.is_out || removes || found.state == State::Unchecked,
        is_gone: ends,
        ..effective
    }
}

fn has_agent(server: &RealServer) -> bool {
    let mut checks = server.checks.iter();
    checks.any(|check| matches!(check.probe, Probe::Agent(_)))
}

/// By how much a service's weights are larger in the tables.
fn scale(service: &VirtualService) -> u32 {
    let has_parts = service.health.slow_start_s > 0 || service.all_servers().any(has_agent);
    if has_parts && service.scheduler.follows_weights() {
        SCALE
    } else {
        1
    }
}

/// A part of a weight: not nothing, unless all of it or the part is nothing.
fn part(weight: u32, percent: u32, scale: u32) -> u32 {
    if weight == 0 || percent == 0 {
        return 0;
    }
    let part = u64::from(weight) * u64::from(scale) * u64::from(percent) / 100;
    u32::try_from(part.clamp(1, limits::WEIGHT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
