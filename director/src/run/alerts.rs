//! From judgements to alerts: hands over what changed, and waits for nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{AlertTarget, Config};
use crate::health::alert::engine::{Engine, Teller};
use crate::health::alert::observe::Observer;
use crate::health::standing::{Found, Standings};
use crate::overrides::{Override, Overrides};

/// The main loop's side of alerts.
pub(super) struct Alerts {
    engine: Engine,
    observer: Observer,
    /// Who is told now, and the director's name.
    told: (Vec<Arc<AlertTarget>>, String),
}

impl Alerts {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            engine: Engine::start()?,
            observer: Observer::default(),
            told: (Vec::new(), String::new()),
        })
    }

    /// For heartbeat.
    pub(super) fn teller(&self) -> Teller {
        self.engine.teller()
    }

    /// Services were judged: by their place in the configuration, what is found of their real servers.
    pub(super) fn judged(
        &mut self,
        config: &Config,
        overrides: &Overrides,
        standings: &Standings,
        judged: &BTreeMap<usize, Vec<Found>>,
    ) {
        let now = Instant::now();
        let mut events = Vec::new();
        for (place, found) in judged {
            let (Some(service), Some(standing)) =
                (config.services.get(*place), standings.0.get(*place))
            else {
                continue;
            };
            let is_out: Vec<bool> = service
                .all_servers()
                .map(|server| {
                    let said = overrides.of(service, server);
                    matches!(said, Some(Override::Disabled | Override::Draining { .. }))
                })
                .collect();
            events.extend(
                self.observer
                    .observe(service, standing, found, &is_out, now),
            );
        }
        self.engine.take_in(events);
    }

    /// A configuration is in force: who it names is told, and of what is in it.
    pub(super) fn in_force(&mut self, config: &Config) {
        let names: std::collections::HashSet<&str> =
            config.services.iter().map(|it| it.name.as_str()).collect();
        let gone = self
            .observer
            .retain(|name| names.contains(name), Instant::now());
        self.engine.take_in(gone);
        let told = (config.alerts.clone(), config.instance.clone());
        if told != self.told {
            self.engine.replace(told.0.clone(), told.1.clone());
            self.told = told;
        }
    }
}
