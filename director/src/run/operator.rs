//! What operators change at run time.

use std::sync::Arc;
use std::time::Instant;

use super::node::Node;
use super::system;
use crate::control::{Refusal, ServerCommand, ServerSaid};
use crate::overrides::{self, Override, OverrideError};
use crate::words::in_words;

/// Seconds after which a drain is ended that could not be. All tables are planned for it.
const RETRY_S: u64 = 1;

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
        let config = Arc::clone(&self.config);
        if let Err(error) = self.configure(config) {
            self.overrides = before;
            self.put_back();
            return Err(Refusal::Failed(in_words(&error)));
        }
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

    /// Closes the connections of real servers whose drain has ended.
    pub(super) fn end_drains(&mut self) {
        let now_s = system::unix_s();
        if self
            .drain_deadline_s
            .is_none_or(|deadline_s| now_s < deadline_s)
        {
            return;
        }
        let config = Arc::clone(&self.config);
        let Err(error) = self.configure(config) else {
            tracing::info!("the deadline of a drain has passed: its connections are closed");
            return;
        };
        self.drain_deadline_s = Some(now_s + RETRY_S);
        if let Some(untold) = self.troubles.drains.tell(Instant::now()) {
            tracing::error!(
                untold,
                "cannot close the connections of a drained real server; it is tried again: {}",
                in_words(&error)
            );
        }
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
