//! Verdicts into tables: what checks find, judged service by service, and written at once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use xdp_ebpf::layout::{Destination, destination, method};

use super::alerts::Alerts;
use super::judged::{Judged, Judgement, found};
use super::node::Node;
use super::unwritten::Unwritten;
use crate::config::{Config, Method, Probe, RealServer, Tunnel, VirtualService};
use crate::control::ServerHealth;
use crate::health::alert::engine::Teller;
use crate::health::engine::{Change, Engine};
use crate::health::machine::{State, Subject, Verdict};
use crate::health::standing::{Found, Standings};
use crate::health::through::Way;
use crate::overrides::Overrides;
use crate::plan::{self, PlanError, Tables, Write, destination_address};
use crate::words::in_words;

/// Verdicts that are judged at once.
const VERDICTS_AT_ONCE: usize = 512;
/// Services that are written at once: a few milliseconds, in which no other verdict goes on.
const SERVICES_AT_ONCE: usize = 64;

/// What is known of real servers, and what follows from it.
pub(super) struct Health {
    pub(super) engine: Engine,
    verdicts: HashMap<Subject, Verdict>,
    /// Services, by their place in the configuration, that want a check.
    pub(super) wanted_by: Arc<HashMap<Subject, Vec<usize>>>,
    /// Real servers to which checks go as clients' packets do.
    through: HashSet<(IpAddr, Method)>,
    /// What follows from the verdicts for the configuration in force.
    judged: Judged,
    /// Services whose standing is not in the tables yet.
    unwritten: Unwritten,
    /// Who is told of it.
    alerts: Alerts,
}

impl Health {
    /// Whether there are standings that are not in the tables yet.
    pub(super) fn is_behind(&self) -> bool {
        self.unwritten.is_waiting()
    }

    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            engine: Engine::start()?,
            verdicts: HashMap::new(),
            wanted_by: Arc::default(),
            through: HashSet::new(),
            judged: Judged::default(),
            unwritten: Unwritten::default(),
            alerts: Alerts::new()?,
        })
    }

    /// The next verdict that is new.
    pub(super) async fn next(&mut self) -> Change {
        self.engine.next().await
    }

    /// Remembers who was in service in tables that a director before this one left.
    pub(super) fn adopt(&mut self, config: &Config, tables: &Tables) {
        let in_service: HashSet<(IpAddr, u16)> = tables
            .destinations
            .iter()
            .filter(|(id, record)| {
                let out = destination::OUT | destination::RETIRED | destination::GONE;
                record.flags & out == 0
                    && tables.shares.get(id).is_some_and(|share| share.weight > 0)
            })
            .map(|(_, record)| (destination_address(record), u16::from_be_bytes(record.port)))
            .collect();
        for service in &config.services {
            for server in service.all_servers() {
                if in_service.contains(&(server.address, server.port.unwrap_or(0))) {
                    self.judged.stays(service, server);
                }
            }
        }
    }

    /// What is found of a real server.
    pub(super) fn found(&self, service: &VirtualService, server: &RealServer) -> Found {
        found(&self.verdicts, service, server)
    }

    /// How the real servers take part.
    pub(super) fn standings(&self) -> &Standings {
        self.judged.standings()
    }

    /// Judges all services of a configuration, beside what is in force. `before`: the configuration in force, where it is
    /// another one.
    pub(super) fn judge_beside(
        &self,
        config: &Config,
        before: Option<&Config>,
        overrides: &Overrides,
    ) -> Judgement {
        self.judged
            .beside(config, before, overrides, &self.verdicts)
    }

    /// Judges a service and those that depend on it, beside what is in force. Gives the places of those whose standing is
    /// another one then.
    pub(super) fn judge_one_beside(
        &self,
        config: &Config,
        overrides: &Overrides,
        place: usize,
    ) -> (Judgement, BTreeSet<usize>) {
        let one = BTreeSet::from([place]);
        self.judged
            .some_beside(config, overrides, &self.verdicts, one)
    }

    /// That judgement of all services is in the tables.
    pub(super) fn are_written(
        &mut self,
        judgement: Judgement,
        config: &Config,
        overrides: &Overrides,
    ) {
        self.unwritten.clear();
        self.holds(judgement, config, overrides);
    }

    /// That judgement is in force, but for the tables, which follow.
    pub(super) fn holds(&mut self, judgement: Judgement, config: &Config, overrides: &Overrides) {
        let Judgement { judged, found } = judgement;
        self.judged = judged;
        self.alerts
            .judged(config, overrides, self.judged.standings(), &found);
    }

    /// The standing of some services, by their place, is not what the tables have.
    pub(super) fn are_to_be_written(&mut self, places: impl IntoIterator<Item = usize>) {
        let now = Instant::now();
        for place in places {
            self.unwritten.add(place, now);
        }
    }

    /// Judges some services, and those that depend on them. Gives the places of those whose standing changed.
    fn judge(
        &mut self,
        config: &Config,
        overrides: &Overrides,
        affected: BTreeSet<usize>,
    ) -> BTreeSet<usize> {
        let (changed, found) = self
            .judged
            .judge(config, overrides, &self.verdicts, affected);
        self.alerts
            .judged(config, overrides, self.judged.standings(), &found);
        changed
    }

    /// For alerts of heartbeat.
    pub(super) fn teller(&self) -> Teller {
        self.alerts.teller()
    }

    /// A configuration is in force, and in these tables: its checks run, and no others.
    pub(super) fn in_force(&mut self, config: &Config, tables: &Tables) {
        let mut by_subject: HashMap<Subject, Vec<usize>> =
            HashMap::with_capacity(self.wanted_by.len());
        let mut in_service = Vec::new();
        for (place, service) in config.services.iter().enumerate() {
            for server in service.all_servers() {
                let stayed = self.judged.has_stayed(service, server);
                for subject in subjects(service, server) {
                    if stayed && !self.verdicts.contains_key(&subject) {
                        in_service.push(subject.clone());
                    }
                    let wanted_by = by_subject.entry(subject).or_default();
                    if wanted_by.last() != Some(&place) {
                        wanted_by.push(place);
                    }
                }
            }
        }
        self.wanted_by = Arc::new(by_subject);
        self.verdicts
            .retain(|subject, _| self.wanted_by.contains_key(subject));
        self.judged.forget_others(config);
        self.through = self
            .wanted_by
            .keys()
            .filter_map(|subject| Some((subject.server, subject.through?.method)))
            .collect();
        // First: one that goes as clients' packets do may be due at once.
        self.tell_ways(tables);
        let alerts = config.alerts.iter();
        self.engine
            .await_failures(alerts.map(|alert| alert.after_failures).collect());
        self.engine
            .replace(self.wanted_by.keys().cloned().collect(), in_service);
        self.alerts.in_force(config);
    }

    /// Tells checks that go as clients' packets do how the packet path reaches their real servers now.
    pub(super) fn tell_ways(&self, tables: &Tables) {
        let through = &self.through;
        if through.is_empty() {
            return;
        }
        let mut ways = HashMap::new();
        for record in tables.destinations.values() {
            let address = destination_address(record);
            if record.flags & destination::RETIRED != 0 {
                continue;
            }
            if record.flags & destination::LOCAL != 0 {
                // Whatever its method is elsewhere.
                let its = through.iter().filter(|(server, _)| *server == address);
                ways.extend(its.map(|way| (*way, *record)));
                continue;
            }
            let way = method_of(record).map(|method| (address, method));
            if let Some(way) = way.filter(|way| through.contains(way)) {
                // The same real server of another service is reached the same way.
                ways.insert(way, *record);
            }
        }
        self.engine.set_destinations(ways);
    }
}

/// How the packet path reaches a destination, in the configuration's words.
fn method_of(record: &Destination) -> Option<Method> {
    Some(match record.method {
        method::DR => Method::Dr,
        method::IPIP => Method::Tun(Tunnel::Ipip),
        method::GUE => Method::Tun(Tunnel::Gue {
            port: u16::from_be_bytes(record.tunnel_port),
        }),
        method::GRE => Method::Tun(Tunnel::Gre),
        _ => return None,
    })
}

/// What is checked of a real server.
pub(super) fn subjects<'a>(
    service: &'a VirtualService,
    server: &'a RealServer,
) -> impl Iterator<Item = Subject> + 'a {
    server.checks.iter().map(|check| {
        let virtual_port = service.endpoints.first().map_or(0, |it| it.ports.first);
        let port = match check.probe {
            Probe::Ping => 0,
            _ => check.port.or(server.port).unwrap_or(virtual_port),
        };
        let through = service.endpoints.first().filter(|_| check.through);
        Subject {
            check: check.clone(),
            server: server.address,
            port,
            through: through.map(|endpoint| Way {
                virtual_address: endpoint.address,
                method: server.method,
            }),
        }
    })
}

impl Node {
    /// Takes in a new verdict, and those that came with it.
    pub(super) fn on_verdict(&mut self, first: Change) {
        // Those that came with it are later.
        let first_reached = first.reached;
        let mut affected = BTreeSet::new();
        let mut first = Some(first);
        for _ in 0..VERDICTS_AT_ONCE {
            // None is taken that is not looked at.
            let next = first.take().or_else(|| self.health.engine.next_now());
            let Some(Change {
                subject, verdict, ..
            }) = next
            else {
                break;
            };
            if let Some(places) = self.health.wanted_by.get(&subject) {
                affected.extend(places);
                let before = self.health.verdicts.get(&subject);
                if let Some(found) = news(before, &verdict) {
                    log(&subject, &found);
                }
                self.health.verdicts.insert(subject, verdict);
            }
        }
        self.judge_services(affected, first_reached);
    }

    /// What is due by time alone: slow starts, and what could not be written.
    pub(super) fn judge_due(&mut self) {
        let now = Instant::now();
        self.health.unwritten.try_again(now);
        let due = self.health.judged.due(now);
        if !due.is_empty() {
            self.judge_services(due, now);
        }
    }

    /// Judges services and writes what follows from it.
    pub(super) fn judge_services(&mut self, affected: BTreeSet<usize>, since: Instant) {
        let changed = self.health.judge(&self.config, &self.overrides, affected);
        for place in changed {
            self.health.unwritten.add(place, since);
        }
        self.write_standings();
    }

    /// Writes how some services' real servers take part now. Where there are more, the loop comes back for them.
    pub(super) fn write_standings(&mut self) {
        let some = self.health.unwritten.take(SERVICES_AT_ONCE);
        let Some(since) = some.iter().map(|(_, since)| *since).min() else {
            return;
        };
        let places: Vec<usize> = some.iter().map(|(place, _)| *place).collect();
        if self.reweigh_services(&places).is_ok() {
            self.times.verdicts.took(since.elapsed());
            return;
        }
        // One of them cannot be written, for want of room: the others do not suffer for it.
        for (place, since) in some {
            let Err(error) = self.reweigh_services(&[place]) else {
                continue;
            };
            let now = Instant::now();
            self.health.unwritten.refuse(place, since, now);
            if let Some(untold) = self.troubles.standings.tell(now) {
                let service = self.config.services.get(place).map(|it| it.name.as_str());
                tracing::error!(
                    untold,
                    service,
                    "cannot write how the real servers of a service take part now; it is tried again: {}",
                    in_words(&error)
                );
            }
        }
    }

    fn reweigh_services(&mut self, places: &[usize]) -> anyhow::Result<()> {
        let writes = self.reweighed(places, self.health.standings())?;
        self.apply(writes)
    }

    /// What is to be written for some services to stand like that.
    pub(super) fn reweighed(
        &self,
        places: &[usize],
        standings: &Standings,
    ) -> Result<Vec<Write>, PlanError> {
        let services = places.iter().filter_map(|place| {
            let service = self.config.services.get(*place)?;
            let standing = standings.0.get(*place)?;
            Some((self.service_id(service)?, (service, standing)))
        });
        plan::reweigh(&self.tables, &services.collect())
    }
}

impl Node {
    /// What checks find of a real server, for operators.
    pub(super) fn server_health(
        &self,
        service: &VirtualService,
        server: &RealServer,
        percent: Option<u32>,
    ) -> ServerHealth {
        if server.checks.is_empty() {
            return ServerHealth {
                percent,
                ..ServerHealth::default()
            };
        }
        let found = self.health.found(service, server);
        ServerHealth {
            state: Some(word(found.state).to_owned()),
            for_s: found.since.map(|since| since.elapsed().as_secs()),
            words: found.words,
            percent,
        }
    }
}

/// Of a check's state, for operators.
pub(super) fn word(state: State) -> &'static str {
    match state {
        State::Up => "up",
        State::Down => "down",
        State::Unchecked => "unchecked",
    }
}

/// What a verdict says that the one before it did not, its agent's word on health with it; none where neither has changed.
fn news(before: Option<&Verdict>, now: &Verdict) -> Option<Found> {
    let key = |verdict: &Verdict| (verdict.state, verdict.is_said_down());
    (before.map(key) != Some(key(now))).then(|| Found::by_all([now]))
}

fn log(subject: &Subject, found: &Found) {
    let check = subject.check.probe.name();
    let server = if subject.port == 0 {
        subject.server.to_string()
    } else {
        std::net::SocketAddr::new(subject.server, subject.port).to_string()
    };
    match found.state {
        State::Up => tracing::info!(server, check, "up: {}", found.words),
        State::Down => tracing::warn!(server, check, "down: {}", found.words),
        State::Unchecked => {}
    }
}

/// Whether packets to a real server leave the director, so that its next hop must be known.
pub(super) fn is_remote(server: &RealServer) -> bool {
    server.method != Method::Local
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::parse;
    use crate::health::probe::{Operational, Said};

    /// Far longer than anything here takes.
    const LONG: Duration = Duration::from_secs(60);

    /// A check that goes as clients' packets do, and is due at once, knows the way: its first result decides alone.
    #[test]
    fn ways_are_told_before_checks_run() {
        let text = "interfaces: [eth0]\nservices: [{address: 192.0.2.1, port: 80, method: dr, check: {type: connect, through: true, \
                    spread: 10ms, timeout: 10ms}, real_servers: [10.0.0.1]}]\n";
        let config = parse("test.yaml", text).unwrap();
        let mut tables = Tables::default();
        let mut record = Destination {
            method: method::DR,
            // So that it needs no namespace.
            flags: destination::LOCAL,
            ..Destination::default()
        };
        record.address[..4].copy_from_slice(&[10, 0, 0, 1]);
        tables.destinations.insert(1, record);
        let mut health = Health::new().unwrap();
        health.in_force(&config, &tables);
        let reporter = health.engine.reporter();
        let deadline = Instant::now() + LONG;
        let run = loop {
            assert!(Instant::now() < deadline, "it does not run");
            let report = reporter.report().unwrap().pop().unwrap();
            if let Some(first) = report.history.into_iter().next_back() {
                break first;
            }
        };
        assert!(!run.words.contains("not in the tables"), "{run:?}");
    }

    #[test]
    fn what_the_log_tells() {
        let verdict = |state, operational| Verdict {
            state,
            words: "result".to_owned(),
            said: Some(Said {
                operational,
                ..Said::default()
            }),
            said_words: "down # disk".to_owned(),
            ..Verdict::default()
        };
        let (up, down) = (Some(Operational::Up), Some(Operational::Down));
        let by_agent = "its agent says that it is down: down # disk";
        // (verdict before, now, what is told)
        let cases = [
            (None, (State::Up, up), Some((State::Up, "result"))),
            (None, (State::Up, down), Some((State::Down, by_agent))),
            (Some((State::Up, None)), (State::Up, up), None),
            (
                Some((State::Up, up)),
                (State::Up, down),
                Some((State::Down, by_agent)),
            ),
            (Some((State::Up, down)), (State::Up, down), None),
            (
                Some((State::Up, down)),
                (State::Up, up),
                Some((State::Up, "result")),
            ),
            (
                Some((State::Up, down)),
                (State::Down, down),
                Some((State::Down, "result")),
            ),
            (
                Some((State::Down, down)),
                (State::Up, down),
                Some((State::Down, by_agent)),
            ),
        ];
        for (before, (state, operational), expected) in cases {
            let old = before.map(|(state, operational)| verdict(state, operational));
            let found = news(old.as_ref(), &verdict(state, operational));
            let told = found.map(|found| (found.state, found.words));
            let expected = expected.map(|(state, words)| (state, words.to_owned()));
            assert_eq!(told, expected, "{before:?} {state:?} {operational:?}");
        }
    }
}
