//! What operators change at run time.

use std::collections::BTreeSet;
use std::time::Instant;

use super::node::Node;
use super::system;
use crate::control::{Refusal, ServerCommand, ServerSaid};
use crate::overrides::{self, Override, OverrideError};
use crate::words::in_words;

impl Node {
    /// Does what an operator says of a real server. Gives what is in force then, in words.
    pub(super) fn command(&mut self, command: &ServerCommand) -> Result<String, Refusal> {
        let now_s = system::unix_s();
        let said = match command.said {
            ServerSaid::Enable => None,
            ServerSaid::Disable => Some(Override::Disabled),
            ServerSaid::Weight(weight) => Some(Override::Weight(weight)),
            ServerSaid::Drain { within_s } => Some(Override::Draining {
                until_s: within_s.map(|within_s| now_s.saturating_add(within_s)),
            }),
        };
        let before = self.overrides.clone();
        let server = self
            .overrides
            .set(&self.config, &command.service, &command.server, said)
            .map_err(|error| match error {
                OverrideError::Service(_) | OverrideError::Server { .. } => {
                    Refusal::Unknown(error.to_string())
                }
                OverrideError::Ambiguous { .. } | OverrideError::TooMany => {
                    Refusal::Wrong(error.to_string())
                }
            })?;
        if let Err(error) = self.heed(&command.service) {
            self.overrides = before;
            return Err(Refusal::Failed(in_words(&error)));
        }
        // One that ends by now is not passed over.
        let deadlines = [self.drain_deadline_s, self.overrides.next_deadline_s(now_s)];
        self.drain_deadline_s = deadlines.into_iter().flatten().min();
        self.store_overrides();
        let words = said.map_or_else(
            || "as configured".to_owned(),
            |said| said.shown(system::unix_s()),
        );
        tracing::info!(
            service = command.service,
            server,
            "an operator changed a real server: {words}"
        );
        Ok(format!("{} {server}: {words}", command.service))
    }

    /// Puts into force what operators say of a service's real servers. Only it is looked at, and those that depend on it: all
    /// services would hold up the loop. What cannot be written is not in force.
    fn heed(&mut self, service: &str) -> anyhow::Result<()> {
        let place = self
            .config
            .services
            .iter()
            .position(|it| it.name == service);
        let Some(place) = place else { return Ok(()) };
        let (judgement, mut changed) =
            self.health
                .judge_one_beside(&self.config, &self.overrides, place);
        let writes = self.reweighed(&[place], judgement.standings())?;
        if let Err(error) = self.apply(writes) {
            // As far as it came it is written over.
            self.health.are_to_be_written([place]);
            return Err(error);
        }
        changed.remove(&place);
        self.health.holds(judgement, &self.config, &self.overrides);
        self.health.are_to_be_written(changed);
        Ok(())
    }

    /// Closes the connections of real servers whose drain has ended.
    pub(super) fn end_drains(&mut self) {
        let now_s = system::unix_s();
        let Some(deadline_s) = self.drain_deadline_s.filter(|it| *it <= now_s) else {
            return;
        };
        self.drain_deadline_s = self.overrides.next_deadline_s(now_s);
        let ended: BTreeSet<&str> = self.overrides.drained(deadline_s..=now_s).collect();
        let services = self.config.services.iter().enumerate();
        let places: BTreeSet<usize> = services
            .filter(|(_, service)| ended.contains(service.name.as_str()))
            .map(|(place, _)| place)
            .collect();
        for service in ended {
            tracing::info!(
                service,
                "the deadline of a drain has passed: its connections are to be closed"
            );
        }
        self.judge_services(places, Instant::now());
    }

    /// Forgets overrides of what a reload took out of the configuration.
    pub(super) fn forget_overrides(&mut self) {
        let forgotten = self.overrides.forget_unknown(&self.config);
        if forgotten > 0 {
            tracing::info!(
                forgotten,
                "overrides of real servers that are not configured any more are forgotten"
            );
            self.store_overrides();
        }
    }

    fn store_overrides(&self) {
        let path = overrides::path(&self.config.control_socket);
        if let Err(error) = overrides::store(&path, &self.overrides) {
            tracing::error!(
                "overrides cannot be written to {}: {error}; the next director will not know of them",
                path.display()
            );
        }
    }
}
