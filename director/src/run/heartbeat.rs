//! The heartbeat of this node: started with the director, told whether the director is fit, and bound to the lease that
//! fences the packet path.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use heartbeat::config::{Config, load_keys};
use heartbeat::control::{Answer, Question, answer};
use heartbeat::machine::{Filled, Note, Role};
use heartbeat::node::realtime::Lock;
use heartbeat::node::{self, Observer, Start, clock, incarnation};
use heartbeat::takeover;
use heartbeat::wire::auth::Keyring;

use super::node::Node;
use crate::control::GroupStatus;
use crate::datapath::LeaseKeeper;
use crate::health::alert::engine::Teller;
use crate::health::alert::failover::Failover;

/// The main loop turns several times a second. If it has not for so long, this node is not fit: nobody runs its checks, or
/// takes dead real servers out. Long enough for any reload.
const STANDSTILL: Duration = Duration::from_secs(15);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Who says so.
const READINESS: &str = "packet path";
const MAIN_LOOP: &str = "main loop";

/// What the director's main loop has of it.
#[derive(Default)]
pub(super) struct Heartbeat {
    running: Option<Running>,
    /// Why there is none although the configuration has one.
    pub(super) fault: Option<String>,
    gate: Gate,
    /// Who renews the lease: it takes a tenth of a second to come by.
    keeper: Option<Arc<LeaseKeeper>>,
}

struct Running {
    config: Arc<Config>,
    /// As they were in their files.
    keyring: Keyring,
    node: Arc<node::Node>,
    roles: Roles,
    watchdog: Watchdog,
}

impl Running {
    fn differs_in_keys_at_most(&self, wanted: &Config) -> bool {
        let rekeyed = Config {
            keys: wanted.keys.clone(),
            ..(*self.config).clone()
        };
        rekeyed == *wanted
    }

    /// Keys are changed on one node after the other while all serve: no group is given up for that. Files that cannot be
    /// read change nothing.
    fn follow_keys(&mut self, wanted: &Arc<Config>) {
        match load_keys(wanted) {
            Ok(keyring) => {
                if !self.keyring.is_same(&keyring) {
                    tracing::warn!("heartbeat signs or accepts with other keys from now on");
                    // Fails only once the heartbeat has ended.
                    let _ = self.node.keys(keyring.clone());
                    self.keyring = keyring;
                }
                self.config = Arc::clone(wanted);
            }
            Err(error) => {
                tracing::error!("heartbeat goes on with the keys that it has: {error}");
            }
        }
    }
}

/// Role in each group, by its name.
type Roles = Arc<Mutex<BTreeMap<String, Role>>>;

/// What the heartbeat's thread tells the director. It must not wait for anything.
struct Fence {
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

/// Says that this node is not fit while the main loop stands still.
struct Watchdog {
    started: Instant,
    turned_ms: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    fn start(node: &Arc<node::Node>) -> std::io::Result<Self> {
        let started = Instant::now();
        let (turned_ms, ends) = (Arc::default(), Arc::default());
        let (turned, ended) = (Arc::clone(&turned_ms), Arc::clone(&ends));
        let node = Arc::clone(node);
        let watch = move || {
            let mut is_still = false;
            while !AtomicBool::load(&ended, Ordering::Relaxed) {
                std::thread::park_timeout(LOOK);
                let last = Duration::from_millis(AtomicU64::load(&turned, Ordering::Relaxed));
                let stands = started.elapsed().saturating_sub(last) > STANDSTILL;
                if stands != is_still {
                    is_still = stands;
                    let why = stands.then(|| "the director's main loop stands still".to_owned());
                    // Fails only once the heartbeat has ended.
                    let _ = node.unfit(MAIN_LOOP, why);
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(watch)?;
        Ok(Self {
            started,
            turned_ms,
            ends,
            thread: Some(thread),
        })
    }

    fn turn(&self) {
        let now_ms = self.started.elapsed().as_millis();
        // Good for longer than any machine runs.
        self.turned_ms.store(now_ms as u64, Ordering::Relaxed);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It only ever sleeps.
            let _ = thread.join();
        }
    }
}

impl Heartbeat {
    /// The main loop has turned.
    pub(super) fn turn(&self) {
        if let Some(running) = &self.running {
            running.watchdog.turn();
        }
    }

    /// The packet path is ready: this node may serve.
    pub(super) fn is_fit(&self) {
        if let Some(running) = &self.running {
            // Fails only once the heartbeat has ended.
            let _ = running.node.unfit(READINESS, None);
        }
    }

    /// The roles in all groups, in the order of their names.
    pub(super) fn groups(&self) -> Vec<GroupStatus> {
        let Some(running) = &self.running else {
            return Vec::new();
        };
        let roles = running.roles.lock().unwrap_or_else(PoisonError::into_inner);
        let role = |name: &str| roles.get(name).copied().unwrap_or(Role::Listening);
        let mut groups: Vec<GroupStatus> = running
            .config
            .groups
            .iter()
            .map(|group| GroupStatus {
                name: group.name.clone(),
                role: format!("{:?}", role(&group.name)).to_lowercase(),
            })
            .collect();
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        groups
    }

    /// Has a question of an operator answered, on a thread that may wait.
    pub(super) fn answer(&self, question: Question, tell: impl FnOnce(Answer) + Send + 'static) {
        match &self.running {
            Some(running) => {
                let (node, config) = (Arc::clone(&running.node), Arc::clone(&running.config));
                tokio::task::spawn_blocking(move || tell(answer(question, &node, &config)));
            }
            None => tell(Answer::Error(self.fault.clone().unwrap_or_else(|| {
                "the configuration has no section `heartbeat`: this director moves no addresses"
                    .to_owned()
            }))),
        }
    }

    /// Gives everything up in order; the others are told first. Waits until that is done, programs of groups included.
    pub(super) fn stop(&mut self) {
        if let Some(node) = self.release() {
            // Whoever has a question to it meanwhile holds it as well, and is answered or refused.
            node.stop_and_wait();
        }
    }

    /// The same at the director's end, while the runtime goes on. Told to stop `again`, it waits for no program any more.
    pub(super) async fn stop_unless(&mut self, again: impl Future<Output = ()>) {
        let Some(node) = self.release() else { return };
        // Both fail only once the heartbeat has ended.
        let _ = node.stop();
        let ended = Arc::clone(&node);
        let ended = tokio::task::spawn_blocking(move || ended.stop_and_wait());
        tokio::select! {
            // It does not panic: it polls.
            _ = ended => {}
            () = again => {
                tracing::warn!("told to stop a second time: programs that run are not waited for");
                let _ = node.stop_now();
                node.stop_and_wait();
            }
        }
    }

    /// From here on nothing of this director speaks to its node.
    fn release(&mut self) -> Option<Arc<node::Node>> {
        let running = self.running.take()?;
        self.gate.with(|gated| gated.node = None);
        Some(running.node)
    }
}

/// Tells the heartbeat whether this node has all connections of the others: before, it takes no groups back from one that
/// serves them. Goes on over a new start of the heartbeat.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<Mutex<Gated>>);

#[derive(Default)]
struct Gated {
    node: Option<Arc<node::Node>>,
    filled: Filled,
}

impl Gate {
    fn with<T>(&self, work: impl FnOnce(&mut Gated) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set(&self, filled: Filled) {
        self.with(|gated| {
            if let Some(node) = &gated.node {
                // Fails only once the heartbeat has ended.
                let _ = node.fill(filled.clone());
            }
            gated.filled = filled;
        });
    }
}

impl Heartbeat {
    pub(super) fn gate(&self) -> Gate {
        self.gate.clone()
    }
}

impl Node {
    /// Before the packet path of this director is attached: of the addresses that move it hears nothing until this node is
    /// in charge of them. A director before it may have left them behind.
    pub(super) fn fence(&mut self) -> anyhow::Result<()> {
        let keeper = self.lease_keeper()?;
        if self.config.heartbeat.is_some() {
            keeper.renew(Duration::ZERO)
        } else {
            keeper.end()
        }
        .context("cannot set this node's lease")
    }

    /// Number of a start of heartbeat or of sharing connections: greater than at any before.
    pub(super) fn incarnation(&self) -> u64 {
        incarnation::next(&self.config.control_socket.with_extension("incarnation"))
    }

    fn lease_keeper(&mut self) -> anyhow::Result<Arc<LeaseKeeper>> {
        if let Some(keeper) = &self.heartbeat.keeper {
            return Ok(Arc::clone(keeper));
        }
        let keeper = Arc::new(self.datapath.lease_keeper()?);
        self.heartbeat.keeper = Some(Arc::clone(&keeper));
        Ok(keeper)
    }

    /// Starts the heartbeat of the configuration, or another one where it has changed.
    pub(super) fn follow_heartbeat(&mut self) {
        let wanted = self.config.heartbeat.clone();
        match (&mut self.heartbeat.running, &wanted) {
            (None, None) => {
                // Of one that is not wanted any more.
                self.heartbeat.fault = None;
                return;
            }
            (Some(running), Some(wanted)) if running.differs_in_keys_at_most(wanted) => {
                running.follow_keys(wanted);
                return;
            }
            (Some(_), _) => tracing::warn!(
                "the section heartbeat has changed: this node gives its groups up and starts anew"
            ),
            (None, Some(_)) => {}
        }
        self.heartbeat.stop();
        self.heartbeat.fault = None;
        let begun = self.fence().and_then(|()| match wanted {
            Some(config) => self.start_heartbeat(config).map(Some),
            None => Ok(None),
        });
        match begun {
            Ok(running) => self.heartbeat.running = running,
            Err(error) => {
                tracing::error!("this director has no heartbeat: {error:#}");
                self.heartbeat.fault = Some(format!("the heartbeat could not start: {error:#}"));
            }
        }
    }

    fn start_heartbeat(&mut self, config: Arc<Config>) -> anyhow::Result<Running> {
        let roles = Roles::default();
        let fence = Fence {
            keeper: self.lease_keeper()?,
            groups: config.groups.len(),
            is_held: Vec::new(),
            until: Duration::ZERO,
            roles: Arc::clone(&roles),
            is_failing: false,
            alerts: Alerts {
                teller: self.health.teller(),
                failover: Failover::default(),
            },
        };
        let not_ready = (!self.is_ready()).then(|| {
            (
                READINESS.to_owned(),
                "the director is not ready to forward yet".to_owned(),
            )
        });
        let keyring = load_keys(&config)?;
        let node = node::Node::start(Start {
            keyring: keyring.clone(),
            config: Arc::clone(&config),
            incarnation: self.incarnation(),
            mark: takeover::MARK,
            lock: Lock::Touched,
            unfit: not_ready.into_iter().collect(),
            filled: self.heartbeat.gate.with(|gated| gated.filled.clone()),
            observer: fence,
        })?;
        let node = Arc::new(node);
        self.heartbeat
            .gate
            .with(|gated| gated.node = Some(Arc::clone(&node)));
        let watchdog = Watchdog::start(&node).context("cannot start a thread")?;
        tracing::info!(node = config.node, "heartbeat started");
        Ok(Running {
            config,
            keyring,
            node,
            roles,
            watchdog,
        })
    }
}
