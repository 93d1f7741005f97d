//! What follows from verdicts for the services of one configuration: how their real servers take part, and what that was
//! judged by.
//!
//! Another configuration is judged beside the one in force: it may yet be refused, and then nothing of it is left, no lost
//! quorum and no ended slow start.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::health::subjects;
use super::system;
use crate::config::{Config, RealServer, UntilChecked, VirtualService};
use crate::health::machine::{State, Subject, Verdict};
use crate::health::standing::{Circumstances, Found, Memory, ServiceStanding, Standings, judge};
use crate::overrides::Overrides;

/// What checks found.
pub(super) type Verdicts = HashMap<Subject, Verdict>;
/// What was found of the real servers of services, by their place in the configuration, for alerts.
pub(super) type FoundOf = BTreeMap<usize, Vec<Found>>;

/// Services of a service, by their places in the configuration.
type ByPlace = HashMap<usize, Vec<usize>>;

/// How the services of a configuration stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Judged {
    /// By the service's name: a reload may put another one in its place.
    memories: HashMap<String, Memory>,
    /// Services and real servers that were in service when this director took over from one before it, or when another
    /// configuration came into force: those stay until their checks say otherwise.
    stayed: Arc<InService>,
    /// Services that depend on a service, by their places.
    dependents: ByPlace,
    /// Services that a service depends on.
    dependencies: ByPlace,
    /// How the real servers take part.
    standings: Standings,
    /// When services, by their place, must be judged again although nothing happens.
    due: BTreeMap<usize, Instant>,
}

/// What has been judged and is not in force yet: a configuration, or some services of the one that is.
#[derive(Debug)]
pub(super) struct Judgement {
    pub(super) judged: Judged,
    /// For alerts, which are told once it is.
    pub(super) found: FoundOf,
}

impl Judgement {
    /// How the real servers would take part.
    pub(super) fn standings(&self) -> &Standings {
        self.judged.standings()
    }
}

impl Judged {
    /// How the real servers take part.
    pub(super) fn standings(&self) -> &Standings {
        &self.standings
    }

    /// Services that time alone changes, by now.
    pub(super) fn due(&self, now: Instant) -> BTreeSet<usize> {
        let due = self.due.iter().filter(|(_, due)| **due <= now);
        due.map(|(place, _)| *place).collect()
    }

    /// Remembers that a real server was in service.
    pub(super) fn stays(&mut self, service: &VirtualService, server: &RealServer) {
        Arc::make_mut(&mut self.stayed).insert(service, server);
    }

    /// Whether it was.
    pub(super) fn has_stayed(&self, service: &VirtualService, server: &RealServer) -> bool {
        self.stayed.contains(service, server)
    }

    /// Forgets services that a configuration does not have.
    pub(super) fn forget_others(&mut self, config: &Config) {
        let names: HashSet<&str> = config.services.iter().map(|it| it.name.as_str()).collect();
        self.memories
            .retain(|name, _| names.contains(name.as_str()));
    }

    /// Judges all services of a configuration anew, and changes nothing of these. `before`: the configuration that these are
    /// of, where it is another one.
    pub(super) fn beside(
        &self,
        config: &Config,
        before: Option<&Config>,
        overrides: &Overrides,
        verdicts: &Verdicts,
    ) -> Judgement {
        let places: HashMap<&str, usize> = config
            .services
            .iter()
            .enumerate()
            .map(|(place, service)| (service.name.as_str(), place))
            .collect();
        let (mut dependents, mut dependencies) = (ByPlace::new(), ByPlace::new());
        for (place, service) in config.services.iter().enumerate() {
            for name in &service.health.depends_on {
                if let Some(on) = places.get(name.as_str()) {
                    dependents.entry(*on).or_default().push(place);
                    dependencies.entry(place).or_default().push(*on);
                }
            }
        }
        let mut judged = Self {
            memories: self.memories.clone(),
            stayed: match before {
                Some(before) => Arc::new(self.in_service(before)),
                None => Arc::clone(&self.stayed),
            },
            dependents,
            dependencies,
            standings: Standings(vec![ServiceStanding::default(); config.services.len()]),
            due: BTreeMap::new(),
        };
        let all = (0..config.services.len()).collect();
        let (_, found) = judged.judge(config, overrides, verdicts, all);
        Judgement { judged, found }
    }

    /// Judges some services and those that depend on them anew, and changes nothing of these. Gives the places of those whose
    /// standing is another one then.
    pub(super) fn some_beside(
        &self,
        config: &Config,
        overrides: &Overrides,
        verdicts: &Verdicts,
        some: BTreeSet<usize>,
    ) -> (Judgement, BTreeSet<usize>) {
        let mut judged = self.clone();
        let (changed, found) = judged.judge(config, overrides, verdicts, some);
        (Judgement { judged, found }, changed)
    }

    /// Who is in service now, before another configuration is judged. A check that a reload changes, or gives to a real
    /// server that had none, has not run yet: it must not take everybody out until it has.
    fn in_service(&self, config: &Config) -> InService {
        let mut in_service = InService::default();
        for service in &config.services {
            let memory = self.memories.get(&service.name);
            for (place, server) in service.all_servers().enumerate() {
                let is_fallback = place >= service.real_servers.len();
                let is_in = match memory.and_then(|memory| memory.state(server, is_fallback)) {
                    Some(State::Up) => true,
                    Some(State::Down) | None => false,
                    Some(State::Unchecked) => {
                        service.health.until_checked == UntilChecked::In
                            || self.stayed.contains(service, server)
                    }
                };
                if is_in {
                    in_service.insert(service, server);
                }
            }
        }
        in_service
    }

    /// Judges some services, and those that depend on them. Gives the places of those whose standing changed, and what was
    /// found of all that were judged.
    pub(super) fn judge(
        &mut self,
        config: &Config,
        overrides: &Overrides,
        verdicts: &Verdicts,
        mut waiting: BTreeSet<usize>,
    ) -> (BTreeSet<usize>, FoundOf) {
        let (now, now_s) = (Instant::now(), system::unix_s());
        let mut changed = BTreeSet::new();
        // For alerts, which are told of nothing that is only so until others are judged.
        let mut judged = FoundOf::new();
        // Each turn a service is judged, and its dependents again only if it went up or down: there are no circles, so
        // this ends.
        while let Some(place) = waiting.pop_first() {
            let Some(service) = config.services.get(place) else {
                continue;
            };
            let found: Vec<Found> = service
                .all_servers()
                .map(|server| found(verdicts, service, server))
                .collect();
            let stayed: Vec<bool> = service
                .all_servers()
                .map(|server| self.stayed.contains(service, server))
                .collect();
            let is_up = |on: &usize| self.standings.0.get(*on).is_some_and(|it| it.is_up);
            let mut dependencies = self.dependencies.get(&place).into_iter().flatten();
            let are_dependencies_up = dependencies.all(is_up);
            let memory = self.memories.entry(service.name.clone()).or_default();
            let (standing, due) = judge(
                service,
                memory,
                &Circumstances {
                    overrides,
                    found: &found,
                    stayed: &stayed,
                    are_dependencies_up,
                    now_s,
                    now,
                },
            );
            match due {
                Some(due) => self.due.insert(place, due),
                None => self.due.remove(&place),
            };
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
        (changed, judged)
    }
}

/// What is found of a real server.
pub(super) fn found(verdicts: &Verdicts, service: &VirtualService, server: &RealServer) -> Found {
    if server.checks.is_empty() {
        return Found::unmonitored();
    }
    let unknown = Verdict::default();
    let verdicts: Vec<&Verdict> = subjects(service, server)
        .map(|subject| verdicts.get(&subject).unwrap_or(&unknown))
        .collect();
    Found::by_all(verdicts)
}

/// Real servers that are in service, by their service's name.
#[derive(Clone, Debug, Default)]
struct InService(HashMap<String, HashSet<(IpAddr, Option<u16>)>>);

impl InService {
    fn insert(&mut self, service: &VirtualService, server: &RealServer) {
        let identity = (server.address, server.port);
        match self.0.get_mut(&service.name) {
            Some(servers) => drop(servers.insert(identity)),
            None => drop(
                self.0
                    .insert(service.name.clone(), HashSet::from([identity])),
            ),
        }
    }

    fn contains(&self, service: &VirtualService, server: &RealServer) -> bool {
        let servers = self.0.get(&service.name);
        servers.is_some_and(|servers| servers.contains(&(server.address, server.port)))
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::health::probe::{Administrative, Said};

    fn config(keys: &str, real_servers: &str) -> Config {
        config_of("{type: connect}", keys, real_servers)
    }

    fn config_of(check: &str, keys: &str, real_servers: &str) -> Config {
        let text = format!(
            "interfaces: [eth0]\nservices: [{{name: web, address: 192.0.2.1, port: 80, check: {check}, \
             fallback_servers: [{{address: 10.0.0.9, check: none}}], {keys}, real_servers: [{real_servers}]}}]\n"
        );
        parse("test.yaml", &text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// All real servers as they are given, in the order of the configuration.
    fn verdicts(config: &Config, states: &[State]) -> Verdicts {
        let servers = config
            .services
            .iter()
            .flat_map(|service| service.real_servers.iter().map(move |it| (service, it)));
        servers
            .zip(states)
            .flat_map(|((service, server), &state)| {
                let verdict = Verdict {
                    state,
                    since: Some(Instant::now()),
                    ..Verdict::default()
                };
                subjects(service, server).map(move |subject| (subject, verdict.clone()))
            })
            .collect()
    }

    /// A configuration that is refused after it was judged leaves nothing behind: whatever it would have begun or ended.
    #[test]
    fn what_is_judged_beside_leaves_no_trace() {
        use State::{Down, Up};
        const THREE: &str = "10.0.0.1, 10.0.0.2, 10.0.0.3";
        // Keys, what is found one after the other, keys and real servers of the refused file.
        type Row = (
            &'static str,
            &'static [[State; 3]],
            &'static str,
            &'static str,
        );
        let cases: &[Row] = &[
            // Two are enough to keep the quorum, not to reach it again.
            (
                "quorum: 2, hysteresis: 1",
                &[[Up, Up, Down]],
                "quorum: 3",
                THREE,
            ),
            (
                "quorum: 2, hysteresis: 1",
                &[[Up, Up, Down], [Down, Down, Down], [Up, Up, Down]],
                "quorum: 1",
                THREE,
            ),
            (
                "slow_start: 1h",
                &[[Up, Up, Down], [Up, Up, Up]],
                "slow_start: 0s",
                THREE,
            ),
            (
                "slow_start: 1h",
                &[[Up, Up, Down], [Up, Up, Up]],
                "slow_start: 1h",
                "10.0.0.1",
            ),
        ];
        let overrides = Overrides::default();
        for (keys, history, other_keys, other_servers) in cases {
            let case = format!("{keys} {history:?}, then {other_keys} {other_servers}");
            let (present, refused) = (config(keys, THREE), config(other_keys, other_servers));
            let mut judged = Judged::default();
            let mut found = Verdicts::default();
            for states in *history {
                found = verdicts(&present, states);
                judged = judged.beside(&present, None, &overrides, &found).judged;
            }
            // Slow starts are judged by the time too.
            let shown = |judged: &Judged| {
                let standing = &judged.standings.0[0];
                let weights: Vec<bool> = standing.servers.iter().map(|it| it.weight > 0).collect();
                let is_slow = !judged.due.is_empty();
                (
                    weights,
                    standing.is_on_fallback,
                    standing.has_quorum,
                    is_slow,
                )
            };
            let before = shown(&judged);
            let beside = judged.beside(&refused, Some(&present), &overrides, &found);
            assert_ne!(
                shown(&beside.judged),
                before,
                "{case}: it makes a difference"
            );
            assert_eq!(shown(&judged), before, "{case}");
            let again = judged.beside(&present, None, &overrides, &found);
            assert_eq!(shown(&again.judged), before, "{case}: judged again");
        }
    }

    /// What an operator says of a real server of one service makes the same of all services as if all were judged, and changes
    /// nothing until it is in force.
    #[test]
    fn one_service_is_judged_beside_what_is_in_force() {
        use crate::overrides::Override;
        let text = "interfaces: [eth0]\nservices:\n\
                    - {name: web, address: 192.0.2.1, port: 80, check: {type: connect}, quorum: 2, real_servers: [10.0.0.1, 10.0.0.2], \
                    fallback_servers: [{address: 10.0.0.9, check: none}]}\n\
                    - {name: front, address: 192.0.2.2, port: 80, depends_on: [back], real_servers: [10.0.0.3]}\n\
                    - {name: back, address: 192.0.2.3, port: 80, real_servers: [10.0.0.4]}\n\
                    - {name: other, address: 192.0.2.4, port: 80, real_servers: [10.0.0.5]}\n";
        let config = parse("test.yaml", text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let found = verdicts(&config, &[State::Up; 7]);
        let none = Overrides::default();
        let present = Judged::default().beside(&config, None, &none, &found);
        let present = present.judged;
        let ended = Override::Draining { until_s: Some(1) };
        // (service, real server, what is said of it, places of the services that stand otherwise)
        let cases: [(&str, &str, Override, &[usize]); 6] = [
            ("web", "10.0.0.1", Override::Disabled, &[0]),
            ("web", "10.0.0.2", Override::Weight(7), &[0]),
            ("web", "10.0.0.1", ended, &[0]),
            ("front", "10.0.0.3", Override::Disabled, &[1]),
            ("back", "10.0.0.4", Override::Weight(0), &[1, 2]),
            ("other", "10.0.0.5", Override::Weight(1), &[]),
        ];
        for (service, server, said, expected) in cases {
            let case = format!("{service} {server} {said:?}");
            let mut overrides = Overrides::default();
            overrides.set(&config, service, server, Some(said)).unwrap();
            let place = config.services.iter().position(|it| it.name == service);
            let some = BTreeSet::from([place.unwrap()]);
            let before = present.standings().clone();
            let (beside, changed) = present.some_beside(&config, &overrides, &found, some);
            assert_eq!(*present.standings(), before, "{case}");
            let all = present.beside(&config, None, &overrides, &found);
            assert_eq!(beside.standings(), all.standings(), "{case}");
            assert_eq!(changed.into_iter().collect::<Vec<_>>(), expected, "{case}");
        }
    }

    /// A reload that changes how agents and real servers are asked changes nothing of what they were found to be.
    #[test]
    fn a_changed_check_changes_nothing_before_it_has_run() {
        use State::{Down, Up};
        let agent = |interval| format!("{{type: agent, interval: {interval}}}");
        let connect = |interval| format!("{{type: connect, interval: {interval}}}");
        let said = |percent, administrative| Said {
            percent,
            administrative,
            ..Said::default()
        };
        let slow = "slow_start: 1h";
        // (check before and after, keys, what is found one after the other and said by the first one's agent)
        let cases = [
            (
                agent("2s"),
                agent("3s"),
                "quorum: 1",
                vec![[Up, Up]],
                Some(said(Some(40), None)),
            ),
            (
                agent("2s"),
                agent("3s"),
                "quorum: 1",
                vec![[Up, Up]],
                Some(said(Some(0), None)),
            ),
            (
                agent("2s"),
                agent("3s"),
                "quorum: 1",
                vec![[Up, Up]],
                Some(said(None, Some(Administrative::Drain))),
            ),
            (
                agent("2s"),
                agent("3s"),
                "quorum: 1",
                vec![[Up, Up]],
                Some(said(None, Some(Administrative::Maintenance))),
            ),
            (
                connect("2s"),
                connect("3s"),
                slow,
                vec![[Down, Up], [Up, Up]],
                None,
            ),
        ];
        let overrides = Overrides::default();
        for (before, after, keys, history, said) in cases {
            let case = format!("{before}, {keys}, {history:?}, {said:?}");
            const TWO: &str = "{address: 10.0.0.1, weight: 10}, 10.0.0.2";
            let (present, next) = (config_of(&before, keys, TWO), config_of(&after, keys, TWO));
            let mut judged = Judged::default();
            let mut found = Verdicts::default();
            for states in &history {
                found = verdicts(&present, states);
                let service = &present.services[0];
                for subject in subjects(service, &service.real_servers[0]) {
                    found.get_mut(&subject).unwrap().said = said;
                }
                judged = judged.beside(&present, None, &overrides, &found).judged;
            }
            let shown = |judged: &Judged| {
                let servers = &judged.standings.0[0].servers;
                // A slow start of an hour goes on meanwhile, by less than that.
                servers
                    .iter()
                    .map(|it| (it.weight / 10, it.is_out))
                    .collect::<Vec<_>>()
            };
            let expected = shown(&judged);
            // Twice: the second one comes before the check of the first has run.
            judged = judged
                .beside(&next, Some(&present), &overrides, &found)
                .judged;
            assert_eq!(shown(&judged), expected, "{case}");
            judged = judged
                .beside(&present, Some(&next), &overrides, &Verdicts::default())
                .judged;
            assert_eq!(shown(&judged), expected, "{case}: and again");
        }
    }
}
