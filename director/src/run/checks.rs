//! What health checks find, put together for operators beside the loop.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::health::{Health, subjects, word};
use crate::config::Config;
use crate::control::{CheckStatus, RunStatus};
use crate::health::engine::{Report, Reporter};
use crate::health::machine::Subject;

/// All that is needed to tell of them.
pub(super) struct Checks {
    config: Arc<Config>,
    wanted_by: Arc<HashMap<Subject, Vec<usize>>>,
    reporter: Reporter,
}

impl Health {
    /// All health checks of a configuration that is in force.
    pub(super) fn checks(&self, config: &Arc<Config>) -> Checks {
        Checks {
            config: Arc::clone(config),
            wanted_by: Arc::clone(&self.wanted_by),
            reporter: self.engine.reporter(),
        }
    }
}

impl Checks {
    /// All of them, in the order of the configuration. Waits for whoever runs them.
    pub(super) fn status(&self) -> Result<Vec<CheckStatus>, String> {
        let mut checks: Vec<(usize, CheckStatus)> = Vec::new();
        let ports = service_ports(&self.config);
        let reports = self
            .reporter
            .report()
            .map_err(|silent| silent.to_string())?;
        for report in reports {
            if let Some(places) = self.wanted_by.get(&report.subject) {
                let first = places.first().copied().unwrap_or(usize::MAX);
                let ports = ports.get(&report.subject).into_iter().flatten();
                checks.push((first, self.check(places, ports.copied().collect(), report)));
            }
        }
        checks.sort_by(|(place, one), (other, two)| {
            (place, one.server, one.port, &one.check)
                .cmp(&(other, two.server, two.port, &two.check))
        });
        Ok(checks.into_iter().map(|(_, status)| status).collect())
    }

    fn check(&self, places: &[usize], service_ports: Vec<u16>, report: Report) -> CheckStatus {
        let now = Instant::now();
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let services = places
            .iter()
            .filter_map(|place| self.config.services.get(*place));
        let history = report.history.into_iter().map(|run| RunStatus {
            ago_ms: milliseconds(now.saturating_duration_since(run.started)),
            took_ms: milliseconds(run.took),
            good: run.is_good,
            kind: run.kind.map(|kind| kind.name().to_owned()),
            words: run.words,
        });
        let verdict = report.verdict;
        CheckStatus {
            server: report.subject.server,
            port: report.subject.port,
            service_ports,
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
        }
    }
}

/// The ports by which services know the real servers that are checked: a check may ask another one.
fn service_ports(config: &Config) -> HashMap<Subject, BTreeSet<u16>> {
    let mut ports: HashMap<Subject, BTreeSet<u16>> = HashMap::new();
    for service in &config.services {
        for server in service.all_servers() {
            let Some(port) = server.port else { continue };
            for subject in subjects(service, server) {
                ports.entry(subject).or_default().insert(port);
            }
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn ports_by_which_services_know_what_is_checked() {
        let text = "interfaces: [lo]\nservices:\n  - {address: 192.0.2.10, port: 80, check: {type: http, port: 9000}, \
                    real_servers: [10.0.0.1, \"10.0.0.2:8080\"]}\n  - {address: 192.0.2.11, port: 81, check: {type: http, port: \
                    9000}, real_servers: [10.0.0.1]}\n  - {address: 192.0.2.12, port: 1-9, method: dr, check: ping, \
                    real_servers: [10.0.0.1]}\n";
        let mut found: Vec<(String, u16, Vec<u16>)> = service_ports(&parse("test", text).unwrap())
            .into_iter()
            .map(|(subject, ports)| {
                let server = subject.server.to_string();
                (server, subject.port, ports.into_iter().collect())
            })
            .collect();
        found.sort();
        let expected = [
            ("10.0.0.1".to_owned(), 9000, vec![80, 81]),
            ("10.0.0.2".to_owned(), 9000, vec![8080]),
        ];
        assert_eq!(found, expected);
    }
}
