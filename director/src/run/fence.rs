//! What the heartbeat's thread tells the director: until when it may serve, its roles, and what people are to hear.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use heartbeat::machine::{Note, Role};
use heartbeat::node::{Observer, clock};

use crate::datapath::LeaseKeeper;
use crate::health::alert::engine::Teller;
use crate::health::alert::failover::{self, Failover};

/// Role in each group, by its name.
pub(super) type Roles = Arc<Mutex<BTreeMap<String, Role>>>;

/// What the heartbeat's thread tells the director. It must not wait for anything.
pub(super) struct Fence {
    keeper: Arc<LeaseKeeper>,
    groups: usize,
    is_held: Vec<bool>,
    /// What was last told, for the next group that is taken.
    until: Duration,
    roles: Roles,
    is_failing: bool,
    alerts: Alerts,
}

/// Hands what heartbeat notes to those who tell people.
struct Alerts {
    teller: Teller,
    failover: Failover,
}

impl Drop for Alerts {
    fn drop(&mut self) {
        let ended = std::mem::take(&mut self.failover).end(Instant::now());
        self.teller.take_in(ended);
    }
}

impl Fence {
    /// Of so many groups.
    pub(super) fn new(
        keeper: Arc<LeaseKeeper>,
        groups: usize,
        roles: Roles,
        teller: Teller,
    ) -> Self {
        Self {
            keeper,
            groups,
            is_held: Vec::new(),
            until: Duration::ZERO,
            roles,
            is_failing: false,
            alerts: Alerts {
                teller,
                failover: Failover::default(),
            },
        }
    }

    fn renew(&mut self) {
        let left = self.until.saturating_sub(clock::now());
        if let Err(error) = self.keeper.renew(left) {
            // Each time would be several times a second.
            if !self.is_failing {
                tracing::error!(
                    "the lease of this node cannot be renewed, so it falls silent: {error}"
                );
            }
            self.is_failing = true;
        } else {
            self.is_failing = false;
        }
    }
}

impl Observer for Fence {
    fn lease(&mut self, until: Duration) {
        self.until = until;
        if self.is_held.contains(&true) {
            self.renew();
        }
    }

    fn take(&mut self, group: usize) {
        self.is_held.resize(self.groups, false);
        if let Some(held) = self.is_held.get_mut(group) {
            *held = true;
        }
        self.renew();
    }

    /// The lease is left to run out: what neighbours that have not heard of it still send here goes on meanwhile.
    fn release(&mut self, group: usize) {
        if let Some(held) = self.is_held.get_mut(group) {
            *held = false;
        }
    }

    fn note(&mut self, note: &Note) {
        if let Note::Transition(transition) = note {
            let mut roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
            roles.insert(transition.group.clone(), transition.to);
        }
        let event = self.alerts.failover.event(note, Instant::now());
        self.alerts.teller.take_in(event.into_iter().collect());
    }
}

/// A heartbeat that stops in order says so of every group before. One that breaks says nothing.
impl Drop for Fence {
    fn drop(&mut self) {
        let mut roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let events = roles.iter_mut().filter_map(|(group, role)| {
            let was = std::mem::replace(role, Role::Stopped);
            failover::broke(group, was, now)
        });
        self.alerts.teller.take_in(events.collect());
    }
}
