//! The heartbeat of this node: started with the director, told whether the director is fit, and bound to the lease that
//! fences the packet path.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use heartbeat::config::{Config, load_keys};
use heartbeat::control::{Answer, Question, answer};
use heartbeat::machine::{Filled, Role, Silent};
use heartbeat::node::realtime::Lock;
use heartbeat::node::{self, Start, incarnation};
use heartbeat::takeover;
use heartbeat::wire::auth::Keyring;
use tokio::task::{JoinHandle, spawn_blocking};

use super::fence::{Fence, Roles};
use super::node::Node;
use super::restarts::Restarts;
use super::watchdog::Watchdog;
use crate::control::GroupStatus;
use crate::datapath::LeaseKeeper;

/// Who says so.
const READINESS: &str = "packet path";

/// What the director's main loop has of it.
#[derive(Default)]
pub(super) struct Heartbeat {
    running: Option<Running>,
    /// Why there is none although the configuration has one.
    pub(super) fault: Option<String>,
    restarts: Restarts,
    /// Why the packet path cannot forward, as was told last; none: it can.
    unready: Option<String>,
    gate: Gate,
    known: Known,
    /// Who renews the lease: it takes a tenth of a second to come by.
    keeper: Option<Arc<LeaseKeeper>>,
}

struct Running {
    config: Arc<Config>,
    /// As they were in their files.
    keyring: Keyring,
    node: Arc<node::Node>,
    roles: Roles,
    state: State,
}

enum State {
    Runs(Watchdog),
    /// It is told to stop. A thread waits for that, and gives whom it knew to be silent.
    Ends(JoinHandle<Vec<Silent>>),
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

impl Heartbeat {
    /// The main loop has turned.
    pub(super) fn turn(&self) {
        if let Some(State::Runs(watchdog)) = self.running.as_ref().map(|it| &it.state) {
            watchdog.turn();
        }
    }

    /// Whether the packet path is ready, or why not: only then this node may serve.
    fn ready(&mut self, unready: Option<String>) {
        if self.unready == unready {
            return;
        }
        if let Some(running) = &self.running {
            // Fails only once the heartbeat has ended.
            let _ = running.node.unfit(READINESS, unready.clone());
        }
        self.unready = unready;
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
            None => tell(Answer::Error(self.warning().unwrap_or_else(|| {
                "the configuration has no section `heartbeat`: this director moves no addresses"
                    .to_owned()
            }))),
        }
    }

    /// Why there is none although the configuration has one, and when it is tried again.
    pub(super) fn warning(&self) -> Option<String> {
        let fault = self.fault.as_ref()?;
        Some(self.restarts.with_wait(fault, Instant::now()))
    }

    /// Begins to give everything up in order. The main loop goes on: what takes long is a program of a group, which may
    /// ask this very director something.
    fn end(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        if let State::Ends(_) = running.state {
            return;
        }
        self.gate.forget();
        let node = Arc::clone(&running.node);
        running.state = State::Ends(spawn_blocking(move || {
            // It fails only where the heartbeat has ended, or stands still: then nothing is known.
            let silent = node.silent().unwrap_or_default();
            // Whoever has a question to it meanwhile is answered or refused.
            node.stop_and_wait();
            silent
        }));
    }

    /// Whether one that was told to stop has not ended yet: what is wanted now has not been tried.
    pub(super) fn is_ending(&self) -> bool {
        let state = self.running.as_ref().map(|running| &running.state);
        matches!(state, Some(State::Ends(_)))
    }

    /// One that was told to stop has ended, programs of groups included: whom it knew to be silent. Never, where none was.
    pub(super) async fn ended(&mut self) -> Vec<Silent> {
        match self.running.as_mut().map(|it| &mut it.state) {
            // It does not panic: it asks and polls.
            Some(State::Ends(thread)) => thread.await.unwrap_or_default(),
            Some(State::Runs(_)) | None => pending().await,
        }
    }

    /// Gives everything up in order; the others are told first. Waits until that is done. Told to stop `again`, it waits for
    /// no program any more.
    pub(super) async fn stop_unless(&mut self, again: impl Future<Output = ()>) {
        self.end();
        let Some(running) = &self.running else {
            return;
        };
        let node = Arc::clone(&running.node);
        // Not when the thread has its turn. It fails only once the heartbeat has ended.
        let _ = node.stop();
        tokio::select! {
            _ = self.ended() => {}
            () = again => {
                tracing::warn!("told to stop a second time: programs that run are not waited for");
                let _ = node.stop_now();
                node.stop_and_wait();
            }
        }
        self.running = None;
    }
}

/// Tells the heartbeat whether this node has all connections of the others: before, it takes no groups back from one that
/// serves them. Goes on over a new start of the heartbeat.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<Mutex<Gated>>);

#[derive(Default)]
struct Gated {
    tell: Option<Tell>,
    filled: Filled,
}

/// Tells a heartbeat that runs.
type Tell = Box<dyn Fn(Filled) + Send>;

impl Gate {
    fn with<T>(&self, work: impl FnOnce(&mut Gated) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set(&self, filled: Filled) {
        self.with(|gated| {
            if let Some(tell) = &gated.tell {
                tell(filled.clone());
            }
            gated.filled = filled;
        });
    }

    fn filled(&self) -> Filled {
        self.with(|gated| gated.filled.clone())
    }

    /// A heartbeat has started, and is told from now on. While it did, what it was started with may have changed.
    fn attach(&self, tell: Tell) {
        self.with(|gated| {
            tell(gated.filled.clone());
            gated.tell = Some(tell);
        });
    }

    /// It has ended, or will.
    fn forget(&self) {
        self.with(|gated| gated.tell = None);
    }
}

/// Whom a heartbeat that has ended knew to be silent, for the one after it, which may not start at the first try.
///
/// It is true for `initdead`: a node that boots meanwhile waits for this one for so long before it serves anything.
#[derive(Default)]
struct Known {
    silent: Vec<Silent>,
    until: Option<Instant>,
}

impl Known {
    fn at(&self, now: Instant) -> Vec<Silent> {
        let is_true = self.until.is_some_and(|until| now < until);
        if is_true {
            self.silent.clone()
        } else {
            Vec::new()
        }
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
            (None, None) if self.heartbeat.fault.is_none() => return,
            // What is wanted by then is started once it has ended.
            (Some(running), _) if matches!(running.state, State::Ends(_)) => return,
            (Some(running), Some(wanted)) if running.differs_in_keys_at_most(wanted) => {
                running.follow_keys(wanted);
                return;
            }
            (Some(_), _) => {
                tracing::warn!(
                    "the section heartbeat has changed: this node gives its groups up and starts anew"
                );
                self.heartbeat.end();
                return;
            }
            (None, _) => {}
        }
        self.heartbeat.restarts.forget();
        self.begin_heartbeat();
    }

    /// The heartbeat that was told to stop has ended, and knew these to be silent: starts the one of the configuration.
    pub(super) fn on_heartbeat_ended(&mut self, silent: Vec<Silent>) {
        let ended = self.heartbeat.running.take();
        let true_for = ended.map(|ended| ended.config.timing.initdead);
        self.heartbeat.known = Known {
            silent,
            until: true_for.map(|time| Instant::now() + time),
        };
        self.begin_heartbeat();
        self.answer_held();
    }

    /// Notices that heartbeat has ended by itself, and starts it again when its time has come.
    pub(super) fn watch_heartbeat(&mut self) {
        let now = Instant::now();
        let is_broken = self.heartbeat.running.as_ref().is_some_and(|running| {
            matches!(running.state, State::Runs(_)) && running.node.has_ended()
        });
        if is_broken {
            self.heartbeat.gate.forget();
            self.heartbeat.running = None;
            let wait = self.heartbeat.restarts.failed(now);
            let fault = "the heartbeat has ended by itself";
            tracing::error!(
                "{fault}: this node serves none of its groups until it is started again in {} s. This should not happen: \
                 please report it with the lines before this one",
                wait.as_secs()
            );
            self.heartbeat.fault = Some(fault.to_owned());
        }
        if self.heartbeat.restarts.is_due(now) {
            self.begin_heartbeat();
        }
    }

    fn begin_heartbeat(&mut self) {
        let wanted = self.config.heartbeat.clone();
        let silent = self.heartbeat.known.at(Instant::now());
        let begun = self.fence().and_then(|()| match wanted {
            Some(config) => self.start_heartbeat(config, silent).map(Some),
            None => Ok(None),
        });
        match begun {
            Ok(running) => {
                if running.is_some() {
                    self.heartbeat.restarts.started(Instant::now());
                }
                self.heartbeat.running = running;
                self.heartbeat.known = Known::default();
                self.heartbeat.fault = None;
            }
            Err(error) => {
                let wait = self.heartbeat.restarts.failed(Instant::now());
                tracing::error!(
                    "this director has no heartbeat: {error:#}; trying again in {} s",
                    wait.as_secs()
                );
                self.heartbeat.fault = Some(format!("the heartbeat could not start: {error:#}"));
            }
        }
    }

    /// Has the heartbeat know whether the packet path can forward.
    pub(super) fn tell_readiness(&mut self) {
        let unready = self.unready();
        self.heartbeat.ready(unready);
    }

    fn unready(&self) -> Option<String> {
        if !self.is_ready() {
            return Some("the director is not ready to forward yet".to_owned());
        }
        let interfaces = self.config.interfaces.iter().map(|it| it.name.as_str());
        let links = self.links.values().map(|it| (it.name.as_str(), it.ifindex));
        let attached = self.datapath.attached();
        let attached = attached.map(|it| (it.name.as_str(), it.ifindex));
        without_program(interfaces, links.collect(), attached.collect())
    }

    fn start_heartbeat(
        &mut self,
        config: Arc<Config>,
        silent: Vec<Silent>,
    ) -> anyhow::Result<Running> {
        let roles = Roles::default();
        let observer = Fence::new(
            self.lease_keeper()?,
            config.groups.len(),
            Arc::clone(&roles),
            self.health.teller(),
        );
        self.heartbeat.unready = self.unready();
        let unready = self.heartbeat.unready.clone();
        let unfit = unready.map(|why| (READINESS.to_owned(), why));
        let keyring = load_keys(&config)?;
        let node = node::Node::start(Start {
            keyring: keyring.clone(),
            config: Arc::clone(&config),
            incarnation: self.incarnation(),
            mark: takeover::MARK,
            lock: Lock::Touched,
            unfit: unfit.into_iter().collect(),
            filled: self.heartbeat.gate.filled(),
            silent,
            observer,
        })?;
        let node = Arc::new(node);
        // Before anybody else holds the node: one that nobody holds any more stops.
        let watchdog = Watchdog::start(&node).context("cannot start a thread")?;
        let told = Arc::clone(&node);
        self.heartbeat.gate.attach(Box::new(move |filled| {
            // Fails only once the heartbeat has ended.
            let _ = told.fill(filled);
        }));
        tracing::info!(node = config.node, "heartbeat started");
        Ok(Running {
            config,
            keyring,
            node,
            roles,
            state: State::Runs(watchdog),
        })
    }
}

/// Which of these interfaces is there, and not among those that the packet path is attached to: it came back, and the program
/// was refused. By name and index.
fn without_program<'a>(
    interfaces: impl Iterator<Item = &'a str>,
    links: BTreeSet<(&str, u32)>,
    attached: BTreeSet<(&str, u32)>,
) -> Option<String> {
    let mut without = interfaces.filter(|name| {
        let mut present = links.iter().filter(|(link, _)| link == name);
        present.any(|link| !attached.contains(link))
    });
    let name = without.next()?;
    Some(format!(
        "the interface {name} has no program that forwards; the log says why"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// While there is none, the status and whoever asks it are told why, and when it is tried again.
    #[test]
    fn operators_learn_that_it_has_ended() {
        let mut heartbeat = Heartbeat::default();
        let ask = |heartbeat: &Heartbeat| {
            let (tells, told) = std::sync::mpsc::channel();
            heartbeat.answer(Question::Status, move |said| tells.send(said).unwrap());
            match told.try_recv().unwrap() {
                Answer::Error(words) => words,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(heartbeat.warning(), None);
        assert!(ask(&heartbeat).contains("no section `heartbeat`"));
        heartbeat.fault = Some("the heartbeat has ended by itself".to_owned());
        heartbeat.restarts.failed(Instant::now());
        heartbeat.restarts.failed(Instant::now());
        for said in [heartbeat.warning().unwrap(), ask(&heartbeat)] {
            // Two seconds, less what has passed.
            let expected = "the heartbeat has ended by itself; it is started again in ";
            assert!(said.starts_with(expected), "{said}");
        }
    }

    /// It is told what changed while it started, and all that changes while it runs.
    #[test]
    fn readiness_is_not_lost_while_a_heartbeat_starts() {
        let waits = |what: &str| Filled::Waiting(what.to_owned());
        let done = Filled::Done("all".to_owned());
        let gate = Gate::default();
        let told = Arc::new(Mutex::new(Vec::new()));
        let attach = || {
            let told = Arc::clone(&told);
            gate.attach(Box::new(move |filled| told.lock().unwrap().push(filled)));
        };
        gate.set(waits("1"));
        // What it is started with.
        assert_eq!(gate.filled(), waits("1"));
        gate.set(done.clone());
        attach();
        gate.set(waits("2"));
        gate.forget();
        gate.set(waits("3"));
        attach();
        let expected = [done, waits("2"), waits("3")];
        assert_eq!(*told.lock().unwrap(), expected);
    }

    /// A start that fails is tried again with what is known, for as long as it is true.
    #[test]
    fn what_is_known_of_the_others_is_known_for_initdead() {
        let now = Instant::now();
        let initdead = Duration::from_secs(5);
        let silent = vec![Silent {
            node: "lb2".to_owned(),
            is_harmless: true,
        }];
        let known = Known {
            silent: silent.clone(),
            until: Some(now + initdead),
        };
        for (after_ms, expected) in [(0, true), (1000, true), (4999, true), (5000, false)] {
            let at = known.at(now + Duration::from_millis(after_ms));
            assert_eq!(at == silent, expected, "after {after_ms} ms");
            assert_eq!(at.is_empty(), !expected, "after {after_ms} ms");
        }
        assert!(Known::default().at(now).is_empty());
    }

    #[test]
    fn an_interface_that_came_back_needs_its_program() {
        type Links = &'static [(&'static str, u32)];
        let both: Links = &[("eth0", 2), ("eth1", 3)];
        // Links that there are, those with the program, and whose is missing.
        let cases: [(Links, Links, Option<&str>); 7] = [
            (both, both, None),
            (
                &[("lo", 1), ("eth0", 2), ("eth1", 3), ("eth7", 9)],
                both,
                None,
            ),
            // Gone: heartbeat knows that by itself.
            (&[("eth1", 3)], both, None),
            (&[], both, None),
            // Back, and not attached to yet, or refused.
            (&[("eth0", 12), ("eth1", 3)], both, Some("eth0")),
            (&[("eth0", 2), ("eth1", 13)], both, Some("eth1")),
            (both, &[("eth0", 2)], Some("eth1")),
        ];
        for (links, attached, expected) in cases {
            let found = without_program(
                ["eth0", "eth1"].into_iter(),
                links.iter().copied().collect(),
                attached.iter().copied().collect(),
            );
            let expected = expected.map(|name| {
                format!("the interface {name} has no program that forwards; the log says why")
            });
            assert_eq!(found, expected, "{links:?} {attached:?}");
        }
    }
}
