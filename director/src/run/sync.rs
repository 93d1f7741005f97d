//! Sharing connections with the other directors: started with the director, told what changes here, and asked whether this
//! one has what the others have.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use conn_sync::directory::{self, Directory};
use conn_sync::machine::Readiness;
use conn_sync::node::{self, Ended, Start};
use conn_sync::wire::Keyring;
use heartbeat::machine::Filled;
use tokio::sync::oneshot;
use xdp_ebpf::layout::{Destination, destination};

use super::node::Node;
use super::restarts::Restarts;
use crate::config::{self, load_sync_keys};
use crate::control::SyncStatus;
use crate::plan::Write;

/// What the director's main loop has of it.
#[derive(Default)]
pub(super) struct Sync {
    running: Option<Running>,
    /// Why there is none although the configuration has one; or why the last one ended, while another one runs.
    fault: Option<String>,
    restarts: Restarts,
}

struct Running {
    config: Arc<config::Sync>,
    /// As they were in their files.
    keyring: Keyring,
    node: node::Node,
}

impl Running {
    /// Whether it runs as this says, the secrets in their files included. Files that cannot be read any more change nothing.
    fn is_as(&self, config: &config::Sync) -> bool {
        if *self.config != *config {
            return false;
        }
        match load_sync_keys(config) {
            Ok(keyring) => self.keyring.is_same(&keyring),
            Err(error) => {
                tracing::error!("conn-sync goes on with the secrets that it has: {error}");
                true
            }
        }
    }
}

impl Sync {
    /// Has somebody told how it stands, or why there is none. Nobody waits for it here.
    pub(super) fn tell(&self, answer: oneshot::Sender<Result<SyncStatus, String>>) {
        let said = match (&self.running, &self.fault) {
            (Some(running), fault) => {
                let status = running.node.status();
                let (restarts, last_end) = (self.restarts.count(), fault.clone());
                tokio::spawn(async move {
                    let told = match status.await {
                        Ok(node) => Ok(SyncStatus {
                            node,
                            restarts,
                            last_end,
                        }),
                        Err(_) => Err("conn-sync has just ended".to_owned()),
                    };
                    // Whoever asked may have gone away.
                    let _ = answer.send(told);
                });
                return;
            }
            (None, Some(fault)) => self.restarts.with_wait(fault, Instant::now()),
            (None, None) => {
                "the configuration has no section `sync`: this director shares its connections with nobody"
                    .to_owned()
            }
        };
        let _ = answer.send(Err(said));
    }

    /// What `director status` warns of: that connections are shared with nobody although they are to be.
    pub(super) fn warning(&self) -> Option<String> {
        let fault = self.fault.as_ref().filter(|_| self.running.is_none())?;
        Some(self.restarts.with_wait(fault, Instant::now()))
    }

    /// Has it tell at once what has changed.
    pub(super) fn tell_now(&self) {
        if let Some(running) = &self.running {
            running.node.tell_now();
        }
    }

    /// Ends it. What peers told stays in the tables.
    pub(super) fn stop(&mut self) {
        self.running = None;
        self.restarts.forget();
    }
}

impl Node {
    /// Before a heartbeat starts: what this node waits for.
    pub(super) fn expect_sync(&self) {
        let waits = self
            .config
            .sync
            .as_ref()
            .is_some_and(|it| it.has_full_sync());
        if waits && self.sync.running.is_none() {
            let fault = self.sync.fault.as_deref();
            let words = fault.unwrap_or(in_words(Readiness::Waiting));
            self.heartbeat.gate().set(Filled::Waiting(words.to_owned()));
        }
    }

    /// Starts sharing as the configuration says, or otherwise where that has changed, and tells the names of what is in
    /// force.
    pub(super) fn follow_sync(&mut self) {
        let wanted = self.config.sync.clone();
        let is_unchanged = match (&self.sync.running, &wanted) {
            (Some(running), Some(wanted)) => running.is_as(wanted),
            (None, None) => true,
            _ => false,
        };
        if is_unchanged {
            // Timeouts may be others.
            self.names_are_told = false;
            self.tell_names();
            return;
        }
        self.sync.stop();
        self.sync.fault = None;
        match wanted {
            Some(config) => self.try_sync(config),
            None => self.heartbeat.gate().set(Filled::Needless),
        }
    }

    /// Notices that conn-sync has ended by itself, and starts it again when its time has come.
    pub(super) fn watch_sync(&mut self) {
        let ended = self.sync.running.as_mut().and_then(|it| {
            let why = it.node.ended()?;
            Some((why, it.config.has_full_sync()))
        });
        if let Some((why, has_full_sync)) = ended {
            self.sync.running = None;
            let wait = self.sync.restarts.failed(Instant::now());
            let fault = format!("conn-sync has ended: {why}");
            tracing::error!(
                "{fault}; connections are shared with nobody until it is started again in {} s. What peers told stays in \
                 the tables.{}",
                wait.as_secs(),
                request(&why)
            );
            let filled = filled_without(has_full_sync, &fault);
            self.heartbeat.gate().set(filled);
            self.sync.fault = Some(fault);
        }
        if self.sync.restarts.is_due(Instant::now())
            && let Some(config) = self.config.sync.clone()
        {
            self.try_sync(config);
        }
    }

    fn try_sync(&mut self, config: Arc<config::Sync>) {
        let has_full_sync = config.has_full_sync();
        match self.start_sync(config) {
            Ok(running) => {
                self.sync.running = Some(running);
                self.sync.restarts.started(Instant::now());
            }
            Err(error) => {
                let wait = self.sync.restarts.failed(Instant::now());
                tracing::error!(
                    "connections are shared with nobody: {error:#}; trying again in {} s",
                    wait.as_secs()
                );
                let fault = format!("conn-sync could not start: {error:#}");
                let filled = filled_without(has_full_sync, &fault);
                self.heartbeat.gate().set(filled);
                self.sync.fault = Some(fault);
            }
        }
    }

    fn start_sync(&mut self, config: Arc<config::Sync>) -> anyhow::Result<Running> {
        let for_node = config.for_node()?;
        let keyring = load_sync_keys(&config)?;
        let (gate, has_full_sync) = (self.heartbeat.gate(), config.has_full_sync());
        let node = node::Node::start(Start {
            incarnation: self.incarnation(),
            keyring: keyring.clone(),
            tables: Arc::new(self.datapath.lend()?),
            directory: self.directory(),
            on_readiness: Box::new(move |readiness| {
                if has_full_sync {
                    tracing::info!("conn-sync: {}", in_words(readiness));
                }
                gate.set(filled(has_full_sync, readiness));
            }),
            config: for_node,
        })
        .with_context(|| {
            format!(
                "cannot talk to the others on {}, port {}",
                config.interface, config.port
            )
        })?;
        tracing::info!(
            node = config.node,
            interface = config.interface,
            "conn-sync started"
        );
        self.names_are_told = true;
        Ok(Running {
            config,
            keyring,
            node,
        })
    }

    /// The tables have been exchanged for others.
    pub(super) fn lend_again(&mut self) {
        let Some(running) = &self.sync.running else {
            return;
        };
        match self.datapath.lend() {
            Ok(tables) => running.node.set_tables(Arc::new(tables)),
            Err(error) => tracing::error!("conn-sync goes on with the tables before: {error}"),
        }
    }

    /// Whether a write is about what entries are called among directors: about services and real servers, not about where
    /// their packets go or whether they are up.
    pub(super) fn is_other_name(&self, write: &Write) -> bool {
        const TOLD: u8 =
            destination::IPV6 | destination::RETIRED | destination::CLOSED | destination::GONE;
        let name = |record: &Destination| {
            let Destination {
                method,
                flags,
                port,
                service,
                address,
                ..
            } = record;
            (*method != 0, flags & TOLD, *port, *service, *address)
        };
        match write {
            Write::Endpoint(..) | Write::Service(_, None) => true,
            Write::Destination(id, record) => {
                let present = self.tables.destinations.get(id);
                present.map(name) != record.as_ref().map(name)
            }
            _ => false,
        }
    }

    /// Tells the names of what is in the tables, where they are others than before.
    pub(super) fn tell_names(&mut self) {
        if self.names_are_told {
            return;
        }
        self.names_are_told = true;
        if let Some(running) = &self.sync.running {
            running.node.set_directory(self.directory());
        }
    }

    fn directory(&self) -> Directory {
        let rules = self.rules(&self.config);
        let endpoints = self.tables.endpoints.iter().map(|(id, record)| {
            let rule = rules.get(usize::from(*id)).copied().unwrap_or_default();
            let endpoint = directory::Endpoint {
                record: *record,
                timeouts_s: rule.timeouts_s,
                persistence: rule.persistence.map(|it| directory::Persistence {
                    mask: it.mask,
                    per_port: it.per_port,
                    timeout_s: it.timeout_s,
                }),
            };
            (*id, endpoint)
        });
        let destinations = &self.tables.destinations;
        Directory::new(
            endpoints,
            destinations.iter().map(|(id, record)| (*id, *record)),
        )
    }
}

/// What is asked of operators when it has ended for no reason of theirs.
fn request(why: &Ended) -> &'static str {
    match why {
        Ended::Interface { .. } => "",
        Ended::Panicked(_) | Ended::WithoutReason => {
            " This should not happen: please report it with the lines before this one"
        }
    }
}

/// What a failback waits for while connections are shared: nothing, where nobody can be asked for all of his. Whom conn-sync
/// does not hear, or who does not hear this node, may serve all the same, and then his connections are not here.
fn filled(has_full_sync: bool, readiness: Readiness) -> Filled {
    let words = in_words(readiness).to_owned();
    match (has_full_sync, readiness) {
        (false, _) => Filled::Needless,
        (true, Readiness::Synced) => Filled::Done(words),
        (true, Readiness::Waiting | Readiness::Alone | Readiness::Limit) => Filled::Waiting(words),
    }
}

/// The same while they are shared with nobody although they are to be: the others' connections are not here, and
/// `failback_limit` says for how long that counts.
fn filled_without(has_full_sync: bool, fault: &str) -> Filled {
    if has_full_sync {
        Filled::Waiting(fault.to_owned())
    } else {
        Filled::Needless
    }
}

/// For the log.
fn in_words(readiness: Readiness) -> &'static str {
    match readiness {
        Readiness::Waiting => "this node does not have all connections of the others yet",
        Readiness::Synced => "this node has all connections of the others",
        Readiness::Alone => "no other node is heard: there are no connections to be had",
        Readiness::Limit => {
            "no node that is heard says that it hears this one, so there are no connections to be had"
        }
    }
}

#[cfg(test)]
mod tests {
    use conn_sync::link::Lost;

    use super::*;

    /// Nobody is asked to report what was done to an interface.
    #[test]
    fn only_ends_without_a_cause_outside_are_to_be_reported() {
        let lost = |lost| Ended::Interface {
            interface: "eth1".to_owned(),
            lost,
        };
        let anew = Lost::MadeAnew { before: 7, now: 9 };
        for (why, words, is_reported) in [
            (lost(Lost::Gone), "interface eth1: it is gone", false),
            (
                lost(anew),
                "interface eth1: it was made anew: its index was 7 and is 9",
                false,
            ),
            (
                Ended::Panicked("no reason".to_owned()),
                "it panicked: no reason",
                true,
            ),
            (Ended::WithoutReason, "it ended without a reason", true),
        ] {
            assert_eq!(why.to_string(), words);
            assert_eq!(request(&why).contains("report"), is_reported, "{why}");
        }
    }

    /// Only having all connections opens anything, or `failback_limit`: neither a fault of conn-sync nor that it hears nobody.
    /// Without a full sync there is nothing to wait for.
    #[test]
    fn what_a_failback_waits_for() {
        let fault = "conn-sync could not start: no such interface";
        let waits = |readiness| Filled::Waiting(in_words(readiness).to_owned());
        let synced = in_words(Readiness::Synced).to_owned();
        for (is, with_full_sync) in [
            (Err(fault), Filled::Waiting(fault.to_owned())),
            (Ok(Readiness::Waiting), waits(Readiness::Waiting)),
            (Ok(Readiness::Synced), Filled::Done(synced)),
            (Ok(Readiness::Alone), waits(Readiness::Alone)),
            (Ok(Readiness::Limit), waits(Readiness::Limit)),
        ] {
            let told = |has_full_sync| match is {
                Ok(readiness) => filled(has_full_sync, readiness),
                Err(fault) => filled_without(has_full_sync, fault),
            };
            assert_eq!(told(true), with_full_sync, "{is:?}");
            assert_eq!(told(false), Filled::Needless, "{is:?}");
        }
    }

    /// While connections are shared with nobody, both commands say why, and when it is tried again.
    #[test]
    fn operators_learn_that_it_has_ended() {
        let mut sync = Sync::default();
        let ask = |sync: &Sync| {
            let (answer, mut asked) = oneshot::channel();
            sync.tell(answer);
            asked.try_recv().unwrap().unwrap_err()
        };
        assert_eq!(sync.warning(), None);
        assert!(ask(&sync).contains("no section `sync`"));
        sync.fault = Some("conn-sync has ended: it panicked: no reason".to_owned());
        sync.restarts.failed(Instant::now());
        sync.restarts.failed(Instant::now());
        for said in [sync.warning().unwrap(), ask(&sync)] {
            // Two seconds, less what has passed.
            let expected = "conn-sync has ended: it panicked: no reason; it is started again in ";
            assert!(said.starts_with(expected), "{said}");
        }
        // Another configuration: it is tried at once, and this one forgotten.
        sync.stop();
        sync.fault = None;
        assert_eq!(sync.warning(), None);
    }
}
