//! Verdicts into tables: what checks find, judged service by service, and written at once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use xdp_ebpf::layout::{Destination, destination, method};

use super::alerts::Alerts;
use super::node::Node;
use super::system;
use crate::config::{Config, Method, Probe, RealServer, Tunnel, VirtualService};
use crate::control::{CheckStatus, RunStatus, ServerHealth};
use crate::health::alert::engine::Teller;
use crate::health::engine::{Change, Engine};
use crate::health::machine::{State, Subject, Verdict};
use crate::health::standing::{Circumstances, Found, Memory, ServiceStanding, Standings, judge};
use crate::health::through::Way;
use crate::overrides::Overrides;
use crate::plan::{self, Tables, destination_address};

/// Changes of so many services at once are written the long way: that looks at everything, but only once.
const SERVICES_ONE_BY_ONE: usize = 32;

/// What is known of real servers, and what follows from it.
pub(super) struct Health {
    engine: Engine,
    verdicts: HashMap<Subject, Verdict>,
    /// Services, by their place in the configuration, that want a check.
    wanted_by: HashMap<Subject, Vec<usize>>,
    /// By the service's name: a reload may put another one in its place.
    memories: HashMap<String, Memory>,
    /// Real servers to which checks go as clients' packets do.
    through: HashSet<(IpAddr, Method)>,
    /// Services and real servers that were in service when this director took over from one before it.
    adopted: HashSet<(String, String)>,
    /// Services that depend on a service, by their places.
    dependents: HashMap<usize, Vec<usize>>,
    /// How the real servers take part.
    pub(super) standings: Standings,
    /// When something must be judged again although nothing happens.
    due: Option<Instant>,
    /// Who is told of it.
    alerts: Alerts,
}

impl Health {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            engine: Engine::start()?,
            verdicts: HashMap::new(),
            wanted_by: HashMap::new(),
            memories: HashMap::new(),
            through: HashSet::new(),
            adopted: HashSet::new(),
            dependents: HashMap::new(),
            standings: Standings::default(),
            due: None,
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
                    self.adopted.insert((service.name.clone(), server.shown()));
                }
            }
        }
    }

    /// What is found of a real server.
    pub(super) fn found(&self, service: &VirtualService, server: &RealServer) -> Found {
        if server.checks.is_empty() {
            return Found::unmonitored();
        }
        let unknown = Verdict::default();
        let verdicts: Vec<&Verdict> = subjects(service, server)
            .map(|subject| self.verdicts.get(&subject).unwrap_or(&unknown))
            .collect();
        Found::by_all(verdicts)
    }

    /// Judges all services of a configuration anew. Those that others depend on first.
    pub(super) fn judge_all(&mut self, config: &Config, overrides: &Overrides) {
        let places: HashMap<&str, usize> = config
            .services
            .iter()
            .enumerate()
            .map(|(place, service)| (service.name.as_str(), place))
            .collect();
        self.dependents.clear();
        for (place, service) in config.services.iter().enumerate() {
            for name in &service.health.depends_on {
                if let Some(on) = places.get(name.as_str()) {
                    self.dependents.entry(*on).or_default().push(place);
                }
            }
        }
        self.standings.0.clear();
        self.standings
            .0
            .resize(config.services.len(), ServiceStanding::default());
        self.due = None;
        self.judge(config, overrides, (0..config.services.len()).collect());
    }

    /// Judges some services, and those that depend on them. Gives the places of those whose standing changed.
    fn judge(
        &mut self,
        config: &Config,
        overrides: &Overrides,
        mut waiting: BTreeSet<usize>,
    ) -> BTreeSet<usize> {
        let (now, now_s) = (Instant::now(), system::unix_s());
        let mut changed = BTreeSet::new();
        // For alerts, which are told of nothing that is only so until others are judged.
        let mut judged: BTreeMap<usize, Vec<Found>> = BTreeMap::new();
        // Each turn a service is judged, and its dependents again only if it went up or down: there are no circles, so
        // this ends.
        while let Some(place) = waiting.pop_first() {
            let Some(service) = config.services.get(place) else {
                continue;
            };
            let found: Vec<Found> = service
                .all_servers()
                .map(|server| self.found(service, server))
                .collect();
            let adopted: Vec<bool> = service
                .all_servers()
                .map(|server| {
                    !self.adopted.is_empty()
                        && self
                            .adopted
                            .contains(&(service.name.clone(), server.shown()))
                })
                .collect();
            let is_up = |name: &String| {
                let mut services = config.services.iter().zip(&self.standings.0);
                services
                    .find(|(service, _)| service.name == *name)
                    .is_some_and(|(_, standing)| standing.is_up)
            };
            let are_dependencies_up = service.health.depends_on.iter().all(is_up);
            let memory = self.memories.entry(service.name.clone()).or_default();
            let (standing, due) = judge(
                service,
                memory,
                &Circumstances {
                    overrides,
                    found: &found,
                    adopted: &adopted,
                    are_dependencies_up,
                    now_s,
                    now,
                },
            );
            self.due = [self.due, due].into_iter().flatten().min();
            let Some(before) = self.standings.0.get_mut(place) else {
                continue;
            };
            if standing.is_up != before.is_up {
                waiting.extend(self.dependents.get(&place).into_iter().flatten());
            }
            if standing != *before {
                changed.insert(place);
                tell(service, before, &standing);
                *before = standing;
            }
            if !config.alerts.is_empty() {
                judged.insert(place, found);
            }
        }
        self.alerts
            .judged(config, overrides, &self.standings, &judged);
        changed
    }

    /// For alerts of heartbeat.
    pub(super) fn teller(&self) -> Teller {
        self.alerts.teller()
    }

    /// A configuration is in force: its checks run, and no others.
    pub(super) fn in_force(&mut self, config: &Config) {
        self.wanted_by.clear();
        for (place, service) in config.services.iter().enumerate() {
            for server in service.all_servers() {
                for subject in subjects(service, server) {
                    let wanted_by = self.wanted_by.entry(subject).or_default();
                    if wanted_by.last() != Some(&place) {
                        wanted_by.push(place);
                    }
                }
            }
        }
        self.verdicts
            .retain(|subject, _| self.wanted_by.contains_key(subject));
        let names: HashSet<&str> = config.services.iter().map(|it| it.name.as_str()).collect();
        self.memories
            .retain(|name, _| names.contains(name.as_str()));
        self.through = self
            .wanted_by
            .keys()
            .filter_map(|subject| Some((subject.server, subject.through?.method)))
            .collect();
        self.engine
            .replace(self.wanted_by.keys().cloned().collect());
        self.alerts.in_force(config);
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
fn subjects<'a>(
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

/// Says what changed for a service's clients.
fn tell(service: &VirtualService, before: &ServiceStanding, now: &ServiceStanding) {
    let name = &service.name;
    if before.servers.is_empty() {
        // The first judgement says nothing new.
        return;
    }
    match (before.is_on_fallback, now.is_on_fallback) {
        (false, true) => {
            tracing::warn!(
                service = name,
                "its fallback servers answer: too few real servers are up"
            );
        }
        (true, false) => tracing::info!(service = name, "its real servers answer again"),
        _ => {}
    }
    match (before.is_up, now.is_up) {
        (true, false) if now.is_cut_off => {
            tracing::error!(service = name, "down: a service that it depends on is");
        }
        (true, false) => tracing::error!(service = name, "down: nobody answers its clients"),
        (false, true) => tracing::info!(service = name, "up"),
        _ => {}
    }
}

impl Node {
    /// Tells checks that go as clients' packets do how the packet path reaches their real servers now.
    pub(super) fn tell_ways(&self) {
        let through = &self.health.through;
        if through.is_empty() {
            return;
        }
        let ways = self.tables.destinations.values().filter_map(|record| {
            let way = (destination_address(record), method_of(record)?);
            let is_wanted = record.flags & destination::RETIRED == 0 && through.contains(&way);
            // The same real server of another service is reached the same way.
            is_wanted.then_some((way, *record))
        });
        self.health.engine.set_destinations(ways.collect());
    }

    /// Takes in a new verdict, and those that came with it.
    pub(super) fn on_verdict(&mut self, first: Change) {
        // Those that came with it are later.
        let first_reached = first.reached;
        let mut affected = BTreeSet::new();
        let mut next = Some(first);
        while let Some(Change {
            subject, verdict, ..
        }) = next
        {
            let Some(places) = self.health.wanted_by.get(&subject) else {
                next = self.health.engine.next_now();
                continue;
            };
            affected.extend(places);
            let before = self.health.verdicts.get(&subject).map(|it| it.state);
            if before != Some(verdict.state) {
                log(&subject, &verdict);
            }
            self.health.verdicts.insert(subject, verdict);
            next = self.health.engine.next_now();
        }
        if self.judge_services(affected) {
            self.times.verdicts.took(first_reached.elapsed());
        }
    }

    /// What is due by time alone: slow starts.
    pub(super) fn judge_due(&mut self) {
        if self.health.due.is_some_and(|due| due <= Instant::now()) {
            self.health.due = None;
            self.judge_services((0..self.config.services.len()).collect());
        }
    }

    /// Judges services and writes what follows from it. Whether that was anything.
    fn judge_services(&mut self, affected: BTreeSet<usize>) -> bool {
        let changed = self.health.judge(&self.config, &self.overrides, affected);
        if changed.is_empty() {
            return false;
        }
        let written = if changed.len() > SERVICES_ONE_BY_ONE {
            let config = self.config.clone();
            self.configure(config)
        } else {
            changed
                .into_iter()
                .try_for_each(|place| self.reweigh_service(place))
        };
        if let Err(error) = written {
            tracing::error!("cannot write what health checks found: {error:#}");
            return false;
        }
        true
    }

    fn reweigh_service(&mut self, place: usize) -> anyhow::Result<()> {
        let (Some(service), Some(standing)) = (
            self.config.services.get(place),
            self.health.standings.0.get(place),
        ) else {
            return Ok(());
        };
        let Some(id) = self.service_id(service) else {
            return Ok(());
        };
        let writes = plan::reweigh(&self.tables, id, service, standing)?;
        self.apply(writes)
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

    /// All health checks, for operators: in the order of the configuration.
    pub(super) fn checks_status(&self) -> Vec<CheckStatus> {
        let now = Instant::now();
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut checks: Vec<(usize, CheckStatus)> = Vec::new();
        for report in self.health.engine.report() {
            let Some(places) = self.health.wanted_by.get(&report.subject) else {
                continue;
            };
            let services = places
                .iter()
                .filter_map(|place| self.config.services.get(*place));
            let history = report.history.iter().map(|run| RunStatus {
                ago_ms: milliseconds(now.saturating_duration_since(run.started)),
                took_ms: milliseconds(run.took),
                good: run.is_good,
                kind: run.kind.map(|kind| kind.name().to_owned()),
                words: run.words.clone(),
            });
            let verdict = report.verdict;
            let status = CheckStatus {
                server: report.subject.server,
                port: report.subject.port,
                check: report.subject.check.probe.name().to_owned(),
                through: report.subject.through.map(|way| way.virtual_address),
                services: services.map(|service| service.name.clone()).collect(),
                state: word(verdict.state).to_owned(),
                for_s: verdict.since.map(|since| since.elapsed().as_secs()),
                words: verdict.words,
                said: verdict.said.map(|said| said.to_string()),
                runs: report.runs,
                failures: report.failures,
                next_in_ms: report
                    .due
                    .map(|due| milliseconds(due.saturating_duration_since(now))),
                history: history.collect(),
            };
            checks.push((places.first().copied().unwrap_or(usize::MAX), status));
        }
        checks.sort_by(|(place, one), (other, two)| {
            (place, one.server, one.port, &one.check)
                .cmp(&(other, two.server, two.port, &two.check))
        });
        checks.into_iter().map(|(_, status)| status).collect()
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Up => "up",
        State::Down => "down",
        State::Unchecked => "unchecked",
    }
}

fn log(subject: &Subject, verdict: &Verdict) {
    let check = subject.check.probe.name();
    let server = if subject.port == 0 {
        subject.server.to_string()
    } else {
        std::net::SocketAddr::new(subject.server, subject.port).to_string()
    };
    match verdict.state {
        State::Up => tracing::info!(server, check, "up: {}", verdict.words),
        State::Down => tracing::warn!(server, check, "down: {}", verdict.words),
        State::Unchecked => {}
    }
}

/// Whether packets to a real server leave the director, so that its next hop must be known.
pub(super) fn is_remote(server: &RealServer) -> bool {
    server.method != Method::Local
}
