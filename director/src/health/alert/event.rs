//! What can be told of a service or a real server, of a group of virtual addresses or another node.

use std::sync::Arc;
use std::time::Instant;

use crate::config::AlertKind;

/// Something that is well or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Name of the service, group or node.
    pub name: Arc<str>,
    /// What of it.
    pub about: About,
}

/// What of a service, group or node can be well or not, or happen.
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
    /// This node's role in a group, in one word.
    Role(&'static str),
    /// This node does not serve all of a group.
    Failing,
    /// Two nodes serve a group.
    SplitBrain,
    /// They no longer do.
    SplitBrainOver,
    /// A node is dead or has stopped, or is there.
    Node,
    /// A node was silent for a while.
    Late,
    /// Fencing of a node failed.
    Fencing,
    /// A node is not heard on the link with this name, or is.
    Link(String),
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
    /// Neither: it happened, and has no end that could be told.
    Once,
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
    /// How often in a row the check has failed that found it so; none: no check did.
    pub failures: Option<u32>,
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
            About::Role(_) | About::Failing => AlertKind::Role,
            About::SplitBrain | About::SplitBrainOver => AlertKind::Split,
            About::Node | About::Fencing => AlertKind::Node,
            About::Late => AlertKind::Late,
            About::Link(_) => AlertKind::Link,
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
            (About::Role(role), _) => role,
            (About::Failing, _) => "failing",
            (About::SplitBrain, _) => "split-brain",
            (About::SplitBrainOver, _) => "split-brain-over",
            (About::Node, true) => "node-down",
            (About::Node, false) => "node-up",
            (About::Late, _) => "node-late",
            (About::Fencing, _) => "fencing-failed",
            (About::Link(_), true) => "link-down",
            (About::Link(_), false) => "link-up",
        }
    }

    /// The service that it is about.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        (self.group().is_none() && self.node().is_none()).then_some(&self.key.name)
    }

    /// The real server that it is about.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        match &self.key.about {
            About::Server(server) => Some(server),
            _ => None,
        }
    }

    /// The group of virtual addresses that it is about.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        let is_it = matches!(
            self.key.about,
            About::Role(_) | About::Failing | About::SplitBrain | About::SplitBrainOver
        );
        is_it.then_some(&self.key.name)
    }

    /// The other node that it is about.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        let is_it = matches!(
            self.key.about,
            About::Node | About::Late | About::Fencing | About::Link(_)
        );
        is_it.then_some(&self.key.name)
    }
}
