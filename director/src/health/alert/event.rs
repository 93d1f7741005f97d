//! What can be told of a service or a real server.

use std::sync::Arc;
use std::time::Instant;

use crate::config::AlertKind;

/// Something that is well or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Name of the service.
    pub service: Arc<str>,
    /// What of it.
    pub about: About,
}

/// What of a service can be well or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum About {
    /// A real server or fallback server, as it is shown: down or up.
    Server(String),
    /// The fallback servers answer, or need not.
    Fallback,
    /// Too little weight is up, or enough.
    Quorum,
    /// Nobody answers its clients, or somebody does.
    Service,
}

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Well.
    Good,
    /// Not.
    Bad,
    /// Nobody's business for now: an operator took it out, or what it depends on is down.
    Hidden,
    /// It is not in the configuration any more.
    Gone,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Of what.
    pub key: Key,
    /// How it is now.
    pub condition: Condition,
    /// Since when.
    pub since: Instant,
    /// Why, for people: the failing check's own words.
    pub words: String,
}

impl Event {
    /// The kind that targets ask for.
    #[must_use]
    pub fn kind(&self) -> AlertKind {
        match self.key.about {
            About::Server(_) if self.condition == Condition::Bad => AlertKind::Down,
            About::Server(_) => AlertKind::Up,
            About::Fallback => AlertKind::Fallback,
            About::Quorum => AlertKind::Quorum,
            About::Service => AlertKind::Service,
        }
    }

    /// In one word, for people and programs.
    #[must_use]
    pub fn what(&self) -> &'static str {
        match (&self.key.about, self.condition == Condition::Bad) {
            (About::Server(_), true) => "down",
            (About::Server(_), false) => "up",
            (About::Fallback, true) => "on-fallback",
            (About::Fallback, false) => "off-fallback",
            (About::Quorum, true) => "quorum-lost",
            (About::Quorum, false) => "quorum-reached",
            (About::Service, true) => "service-down",
            (About::Service, false) => "service-up",
        }
    }

    /// The real server that it is about.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        match &self.key.about {
            About::Server(server) => Some(server),
            _ => None,
        }
    }
}
