//! What an operator has changed at run time: weights, real servers taken out of service, drains.
//!
//! Kept apart from the configuration: a reload of the file does not undo it, and `director server enable` does. It
//! outlives the process in a file beside the control socket; a reboot, which empties that directory, ends it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{Config, RealServer, VirtualService};

/// Overrides that are kept; one more is refused.
pub const LIMIT: usize = 65_535;

/// What an operator said of a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Override {
    /// Another weight. 0: no new connections but of clients that persistence keeps there, as IPVS quiesces.
    Weight(u32),
    /// No new connections at all; those that there are go on.
    Disabled,
    /// As disabled, until a time: then its connections are closed.
    Draining {
        /// Seconds since 1970; none: they are never closed.
        until_s: Option<u64>,
    },
}

/// How a real server takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effective {
    /// Share of new connections.
    pub weight: u32,
    /// Gets no new connection, by persistence neither.
    pub is_out: bool,
    /// Its connections are over: both ends are told so.
    pub is_closed: bool,
    /// Its connections do not go on: what becomes of them is the service's `removed_servers`.
    pub is_gone: bool,
    /// Most connections that it wants; 0: as many as the configuration lets it have.
    pub maximum_connections: u32,
}

impl Override {
    /// How a real server takes part at a time.
    #[must_use]
    pub fn effective(self, now_s: u64) -> Effective {
        match self {
            Self::Weight(weight) => Effective {
                weight,
                ..Effective::default()
            },
            Self::Disabled => Effective {
                is_out: true,
                ..Effective::default()
            },
            Self::Draining { until_s } => Effective {
                is_out: true,
                is_closed: until_s.is_some_and(|until_s| now_s >= until_s),
                ..Effective::default()
            },
        }
    }

    /// For operators.
    #[must_use]
    pub fn shown(self, now_s: u64) -> String {
        match self {
            Self::Weight(weight) => format!("weight {weight}"),
            Self::Disabled => "disabled".to_owned(),
            Self::Draining { until_s: None } => "draining".to_owned(),
            Self::Draining {
                until_s: Some(until_s),
            } if until_s > now_s => format!("draining, closed in {} s", until_s - now_s),
            Self::Draining { .. } => "drained, closed".to_owned(),
        }
    }
}

/// All overrides: service name, then real server as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Overrides {
    services: BTreeMap<String, BTreeMap<String, Override>>,
}

/// Why an override is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OverrideError {
    /// No such service.
    #[error("there is no service \"{0}\"; `director services` lists them")]
    Service(String),
    /// No such real server in the service.
    #[error("the service \"{service}\" has no real server {server}; it has {known}")]
    Server {
        /// The service.
        service: String,
        /// What was asked for.
        server: String,
        /// Its real servers.
        known: String,
    },
    /// An address that several have, with different ports.
    #[error(
        "the service \"{service}\" has several real servers {server}: say the port too ({known})"
    )]
    Ambiguous {
        /// The service.
        service: String,
        /// What was asked for.
        server: String,
        /// Those that it could be.
        known: String,
    },
    /// Too many.
    #[error(
        "there are {LIMIT} overrides already: enable some real servers first, or change the file"
    )]
    TooMany,
}

impl Overrides {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            services: BTreeMap::new(),
        }
    }

    /// What an operator said of a real server.
    #[must_use]
    pub fn of(&self, service: &VirtualService, server: &RealServer) -> Option<Override> {
        let servers = self.services.get(&service.name)?;
        servers.get(&server.shown()).copied()
    }

    /// How a real server takes part: as the configuration says, unless there is an override.
    #[must_use]
    pub fn effective(
        &self,
        service: &VirtualService,
        server: &RealServer,
        now_s: u64,
    ) -> Effective {
        let as_configured = Effective {
            weight: server.weight,
            ..Effective::default()
        };
        self.of(service, server)
            .map_or(as_configured, |it| it.effective(now_s))
    }

    /// Sets an override, or with none takes it away. `server`: address, or address and port. Gives the real server as it
    /// is shown.
    ///
    /// # Errors
    /// [`OverrideError`]: the configuration has no such real server.
    pub fn set(
        &mut self,
        config: &Config,
        service: &str,
        server: &str,
        said: Option<Override>,
    ) -> Result<String, OverrideError> {
        let mut services = config.services.iter();
        let found = services
            .find(|it| it.name == service)
            .ok_or_else(|| OverrideError::Service(service.to_owned()))?;
        let names = |servers: &mut dyn Iterator<Item = &RealServer>| -> String {
            let names: Vec<String> = servers.map(RealServer::shown).collect();
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        };
        let is_it = |it: &&RealServer| it.shown() == server || it.address.to_string() == server;
        let matching: Vec<&RealServer> = found.all_servers().filter(is_it).collect();
        let exact = matching.iter().find(|it| it.shown() == server);
        let chosen = match (exact, matching.as_slice()) {
            (Some(exact), _) | (None, [exact]) => exact.shown(),
            (None, []) => {
                return Err(OverrideError::Server {
                    service: service.to_owned(),
                    server: server.to_owned(),
                    known: names(&mut found.all_servers()),
                });
            }
            (None, several) => {
                return Err(OverrideError::Ambiguous {
                    service: service.to_owned(),
                    server: server.to_owned(),
                    known: names(&mut several.iter().copied()),
                });
            }
        };
        let count: usize = self.services.values().map(BTreeMap::len).sum();
        match said {
            Some(_) if count >= LIMIT => return Err(OverrideError::TooMany),
            Some(said) => {
                let servers = self.services.entry(service.to_owned()).or_default();
                servers.insert(chosen.clone(), said);
            }
            None => {
                if let Some(servers) = self.services.get_mut(service) {
                    servers.remove(&chosen);
                }
                self.services.retain(|_, servers| !servers.is_empty());
            }
        }
        Ok(chosen)
    }

    /// Forgets those of real servers that the configuration does not have. How many.
    pub fn forget_unknown(&mut self, config: &Config) -> usize {
        let mut forgotten = 0;
        for (name, servers) in &mut self.services {
            let service = config.services.iter().find(|it| it.name == *name);
            servers.retain(|server, _| {
                let is_known = service
                    .is_some_and(|service| service.all_servers().any(|it| it.shown() == *server));
                forgotten += usize::from(!is_known);
                is_known
            });
        }
        self.services.retain(|_, servers| !servers.is_empty());
        forgotten
    }

    /// Services with a drain that ends within a time, in seconds since 1970.
    pub fn drained(&self, within_s: RangeInclusive<u64>) -> impl Iterator<Item = &str> {
        let is_within = move |it: &Override| match it {
            Override::Draining {
                until_s: Some(until_s),
            } => within_s.contains(until_s),
            _ => false,
        };
        let services = self.services.iter();
        services
            .filter(move |(_, servers)| servers.values().any(&is_within))
            .map(|(service, _)| service.as_str())
    }

    /// When the next drain ends after a time, if one does.
    #[must_use]
    pub fn next_deadline_s(&self, now_s: u64) -> Option<u64> {
        let all = self.services.values().flat_map(BTreeMap::values);
        all.filter_map(|it| match it {
            Override::Draining { until_s } => until_s.filter(|until_s| *until_s > now_s),
            _ => None,
        })
        .min()
    }
}

/// Where the overrides of a director are, by its control socket.
#[must_use]
pub fn path(control_socket: &Path) -> PathBuf {
    control_socket.with_extension("overrides.json")
}

/// Reads what a director before this one was told. A file that is not there means nothing.
///
/// # Errors
/// When it cannot be read, or is not what a director writes.
pub fn load(path: &Path) -> io::Result<Overrides> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Overrides::default()),
        Err(error) => Err(error),
    }
}

/// Writes them down, whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn store(path: &Path, overrides: &Overrides) -> io::Result<()> {
    if *overrides == Overrides::default() {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
    }
    let text = serde_json::to_vec_pretty(overrides).map_err(io::Error::other)?;
    let beside = path.with_extension("new");
    fs::write(&beside, text)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn config(servers: &str) -> Config {
        let text = format!(
            "interfaces: [eth0]\nservices:\n- {{name: web, address: 192.0.2.1, port: 80, real_servers: [{servers}]}}\n"
        );
        parse("test.yaml", &text).unwrap()
    }

    #[test]
    fn real_servers_are_found_by_what_people_type() {
        let config = config("10.0.0.1, '10.0.0.2:81', '10.0.0.2:82'");
        let mut overrides = Overrides::default();
        // (service, server, what comes of it)
        let cases = [
            ("web", "10.0.0.1", Ok("10.0.0.1:80")),
            ("web", "10.0.0.1:80", Ok("10.0.0.1:80")),
            ("web", "10.0.0.2:82", Ok("10.0.0.2:82")),
            (
                "web",
                "10.0.0.2",
                Err("say the port too (10.0.0.2:81, 10.0.0.2:82)"),
            ),
            (
                "web",
                "10.0.0.3",
                Err("it has 10.0.0.1:80, 10.0.0.2:81, 10.0.0.2:82"),
            ),
            ("ftp", "10.0.0.1", Err("no service \"ftp\"")),
        ];
        for (service, server, expected) in cases {
            let found = overrides.set(&config, service, server, Some(Override::Disabled));
            match expected {
                Ok(shown) => assert_eq!(found.as_deref(), Ok(shown)),
                Err(words) => {
                    let error = found.unwrap_err().to_string();
                    assert!(error.contains(words), "{error}");
                }
            }
        }
        let service = &config.services[0];
        let states: Vec<bool> = service
            .real_servers
            .iter()
            .map(|server| overrides.effective(service, server, 0).is_out)
            .collect();
        assert_eq!(states, [true, false, true]);
        overrides.set(&config, "web", "10.0.0.1", None).unwrap();
        assert_eq!(overrides.of(service, &service.real_servers[0]), None);
        assert_eq!(overrides.forget_unknown(&self::config("10.0.0.1")), 1);
        assert_eq!(overrides, Overrides::default());
    }

    #[test]
    fn drains_end() {
        let drain = Override::Draining { until_s: Some(100) };
        for (now_s, is_closed) in [(0, false), (99, false), (100, true), (5000, true)] {
            let effective = drain.effective(now_s);
            assert_eq!((effective.weight, effective.is_out), (0, true));
            assert_eq!(effective.is_closed, is_closed, "at {now_s}");
        }
        let config = config("10.0.0.1, 10.0.0.2");
        let mut overrides = Overrides::default();
        for (server, until_s) in [("10.0.0.1", Some(100)), ("10.0.0.2", None)] {
            let said = Some(Override::Draining { until_s });
            overrides.set(&config, "web", server, said).unwrap();
        }
        assert_eq!(overrides.next_deadline_s(50), Some(100));
        assert_eq!(overrides.next_deadline_s(100), None);
        for (within_s, expected) in [
            (0..=99, 0),
            (0..=100, 1),
            (100..=100, 1),
            (101..=u64::MAX, 0),
        ] {
            let drained: Vec<&str> = overrides.drained(within_s.clone()).collect();
            assert_eq!(drained, ["web"][..expected], "{within_s:?}");
        }
    }

    #[test]
    fn they_outlive_the_process() {
        let directory =
            std::env::temp_dir().join(format!("director-overrides-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = path(&directory.join("main.sock"));
        assert_eq!(file, directory.join("main.overrides.json"));
        assert_eq!(load(&file).unwrap(), Overrides::default());
        let mut overrides = Overrides::default();
        let config = config("10.0.0.1");
        overrides
            .set(&config, "web", "10.0.0.1", Some(Override::Weight(7)))
            .unwrap();
        store(&file, &overrides).unwrap();
        assert_eq!(load(&file).unwrap(), overrides);
        store(&file, &Overrides::default()).unwrap();
        assert!(!file.exists());
        fs::write(&file, "nonsense").unwrap();
        assert!(load(&file).is_err());
        fs::remove_dir_all(&directory).unwrap();
    }
}
