//! What a node's loop and its sessions share: the machine, the tables as they are lent, and passes over them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::apply::Applied;
use super::templates::{LOOKED_AT_ONCE, Templates};
use super::{Lent, Status, Tables};
use crate::config::{Config, Peers};
use crate::directory::{Directory, Gone, Handle};
use crate::entry::Record;
use crate::machine::{self, Action, Found, Machine};
use crate::table::{Scanner, look_up};
use crate::wire::auth::Keyring;

/// How often the same trouble is told.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What the loop and the sessions share. Nobody holds it while he waits.
pub(super) struct State {
    pub(super) machine: Machine<Handle>,
    pub(super) lent: Arc<Lent>,
    pub(super) directory: Arc<Directory>,
    pub(super) templates: Templates,
    pub(super) gone: Gone,
    pub(super) started: Instant,
    pub(super) keyring: Keyring,
    pub(super) config: Config,
    pub(super) incarnation: u64,
    /// Sessions in which this node gives its table.
    pub(super) serving: usize,
    pub(super) applied: Applied,
    scanner: Scanner,
    left: (usize, usize),
    passes: u64,
    passed_at: Instant,
    pass_took: Duration,
    trouble: Trouble,
}

/// What does not work at the edge. It is told at most every few seconds.
#[derive(Default)]
pub(super) struct Trouble {
    last: Option<(String, Instant)>,
    told_at: Option<Instant>,
}

impl Trouble {
    pub(super) fn tell(&mut self, what: &str, error: &dyn std::fmt::Display) {
        let text = format!("{what}: {error}");
        if self.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            self.told_at = Some(Instant::now());
            tracing::warn!("conn-sync: {text}");
        }
        self.last = Some((text, Instant::now()));
    }

    pub(super) fn last(&self) -> Option<super::Trouble> {
        self.last.as_ref().map(|(text, at)| super::Trouble {
            words: text.clone(),
            ms_ago: u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }
}

pub(super) type Shared = Rc<RefCell<State>>;

impl State {
    /// Of a node that starts now.
    pub(super) fn new(
        (config, incarnation): (Config, u64),
        keyring: Keyring,
        lent: Arc<Lent>,
        directory: Directory,
    ) -> Self {
        let machine = machine::Config {
            node: config.node.clone(),
            incarnation,
            datagram_bytes: config.datagram_bytes,
            listed: match &config.peers {
                Peers::Listed(peers) => peers.clone(),
                Peers::Group { .. } => Vec::new(),
            },
            records_per_second: config.records_per_second,
            bulk_port: config.port,
            alone_after: config.alone_after,
            // Whoever gates on it has a limit of his own.
            ready_after: None,
            aside_records: config.aside_records,
            aside_for: config.aside_for,
        };
        Self {
            machine: Machine::new(machine, keyring.clone(), Duration::ZERO),
            lent,
            directory: Arc::new(directory),
            templates: Templates::default(),
            gone: Gone::default(),
            started: Instant::now(),
            keyring,
            config,
            incarnation,
            serving: 0,
            applied: Applied::default(),
            scanner: Scanner::default(),
            left: (0, 0),
            passes: 0,
            passed_at: Instant::now(),
            pass_took: Duration::ZERO,
            trouble: Trouble::default(),
        }
    }

    pub(super) fn tables(&self) -> Arc<dyn Tables> {
        self.lent.now().1
    }

    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Something at the edge does not work.
    pub(super) fn trouble(&mut self, what: &str, error: &dyn std::fmt::Display) {
        self.trouble.tell(what, error);
    }

    /// A pass over the connection tables.
    pub(super) fn pass(&mut self) -> Vec<Action<Handle>> {
        let began = Instant::now();
        let passed = began - std::mem::replace(&mut self.passed_at, began);
        let now = self.now();
        let (tables, directory) = (self.tables(), Arc::clone(&self.directory));
        let view = match tables.view() {
            Ok(view) => view,
            Err(error) => {
                self.trouble("the connection tables cannot be read", &error);
                return Vec::new();
            }
        };
        let machine = RefCell::new(&mut self.machine);
        let mut actions = Vec::new();
        self.left.0 = self.scanner.pass(
            &view,
            &directory,
            passed,
            |class| machine.borrow_mut().budget(class, now),
            |class, records| actions.extend(machine.borrow_mut().on_dirty(class, records, now)),
        );
        self.backlog();
        self.passes += 1;
        self.pass_took = began.elapsed();
        actions
    }

    /// A pass over some of the templates.
    pub(super) fn pass_templates(&mut self) -> Vec<Action<Handle>> {
        let now = self.now();
        let tables = self.tables();
        let read = tables
            .some_templates(self.templates.after(), LOOKED_AT_ONCE)
            .and_then(|some| tables.view().map(|view| (some, view.now_s)));
        let (some, now_s) = match read {
            Ok(read) => read,
            Err(error) => {
                self.trouble("the persistence templates cannot be read", &error);
                return Vec::new();
            }
        };
        let machine = RefCell::new(&mut self.machine);
        let mut actions = Vec::new();
        self.left.1 = self.templates.pass(
            some,
            &self.directory,
            now_s,
            |class| machine.borrow_mut().budget(class, now),
            |class, records| actions.extend(machine.borrow_mut().on_dirty(class, records, now)),
        );
        self.backlog();
        actions
    }

    fn backlog(&mut self) {
        self.machine.set_backlog((self.left.0 + self.left.1) as u64);
    }

    /// What stands under these handles now.
    pub(super) fn look_up(&self, handles: Vec<Handle>) -> Vec<Found<Handle>> {
        let tables = self.tables();
        let Ok(view) = tables.view() else {
            return Vec::new();
        };
        let found = |handle: &Handle| match handle {
            Handle::Template(key) => {
                let standing = tables.template(key)?;
                let named = self.directory.template(key, &standing, view.now_s)?;
                let is_learned = self.templates.is_learned(key, &standing);
                Some((Record::Template(named), is_learned))
            }
            handle => {
                let (entry, is_learned) = look_up(&view, &self.directory, *handle)?;
                Some((Record::Entry(entry), is_learned))
            }
        };
        handles
            .into_iter()
            .filter_map(|handle| {
                let (record, is_learned) = found(&handle)?;
                Some(Found {
                    handle,
                    record,
                    is_learned,
                })
            })
            .collect()
    }

    pub(super) fn status(&self) -> Status {
        Status {
            interface: self.config.interface.clone(),
            machine: Some(self.machine.report(self.now())),
            kernel: None,
            applied: self.applied,
            learned_templates: self.templates.count_learned(),
            passes: self.passes,
            pass_us: self.pass_took.as_micros() as u64,
            cpu_ms: cpu_time().as_millis() as u64,
            trouble: self.trouble.last(),
        }
    }
}

/// Processor time of this thread.
pub(super) fn cpu_time() -> Duration {
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    clock.now().map(Duration::from).unwrap_or_default()
}
