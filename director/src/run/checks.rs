//! What health checks find, put together for operators beside the loop.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::health::{Health, word};
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
        let reports = self
            .reporter
            .report()
            .map_err(|silent| silent.to_string())?;
        for report in reports {
            if let Some(places) = self.wanted_by.get(&report.subject) {
                let first = places.first().copied().unwrap_or(usize::MAX);
                checks.push((first, self.check(places, report)));
            }
        }
        checks.sort_by(|(place, one), (other, two)| {
            (place, one.server, one.port, &one.check)
                .cmp(&(other, two.server, two.port, &two.check))
        });
        Ok(checks.into_iter().map(|(_, status)| status).collect())
    }

    fn check(&self, places: &[usize], report: Report) -> CheckStatus {
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
