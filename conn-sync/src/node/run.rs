//! The loop.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, yield_now};
use tokio::time::{Instant, sleep_until};

use super::apply::{Applied, apply};
use super::bulk::{self, Sessions};
use super::templates::Templates;
use super::turns::{Turn, Turns};
use super::{Lent, Order, Start, Status, Tables};
use crate::config::{Config, Peers};
use crate::directory::{Directory, Gone, Handle};
use crate::entry::Record;
use crate::link::Link;
use crate::machine::{self, Action, Found, Machine, Readiness, To};
use crate::table::{Scanner, look_up};
use crate::wire::auth::Keyring;

/// Datagrams that are taken in before anything else has its turn.
const DATAGRAMS_AT_ONCE: usize = 64;
/// Room for the largest datagram and a byte more, so that one that is too large is seen to be.
const LARGEST: usize = 9216;
/// After a full sync could not be accepted.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(40);
/// How often, and how many times, it is looked whether other tables have taken the place of those that take nothing new.
const EXCHANGE_LOOK: Duration = Duration::from_millis(2);
/// See [`EXCHANGE_LOOK`]: half a second in all.
const EXCHANGE_LOOKS: u32 = 250;
/// How often the same trouble is told.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What the loop and the sessions share. Nobody holds it while he waits.
pub(super) struct State {
    pub(super) machine: Machine<Handle>,
    pub(super) lent: Arc<Lent>,
    pub(super) directory: Arc<Directory>,
    pub(super) templates: Templates,
    gone: Gone,
    pub(super) started: Instant,
    pub(super) keyring: Keyring,
    pub(super) config: Config,
    pub(super) incarnation: u64,
    /// Sessions in which this node gives its table.
    pub(super) serving: usize,
    applied: Applied,
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
    last: Option<String>,
    told_at: Option<Instant>,
}

impl Trouble {
    pub(super) fn tell(&mut self, what: &str, error: &dyn std::fmt::Display) {
        let text = format!("{what}: {error}");
        if self.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            self.told_at = Some(Instant::now());
            tracing::warn!("conn-sync: {text}");
        }
        self.last = Some(text);
    }

    pub(super) fn last(&self) -> Option<String> {
        self.last.clone()
    }
}

pub(super) type Shared = Rc<RefCell<State>>;

impl State {
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
    fn pass(&mut self) -> Vec<Action<Handle>> {
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
            |_, records| actions.extend(machine.borrow_mut().on_dirty(records, now)),
        );
        self.backlog();
        self.passes += 1;
        self.pass_took = began.elapsed();
        actions
    }

    /// A pass over the templates.
    fn pass_templates(&mut self) -> Vec<Action<Handle>> {
        let now = self.now();
        let tables = self.tables();
        let read = tables
            .templates()
            .and_then(|standing| tables.view().map(|view| (standing, view.now_s)));
        let (standing, now_s) = match read {
            Ok(read) => read,
            Err(error) => {
                self.trouble("the persistence templates cannot be read", &error);
                return Vec::new();
            }
        };
        let machine = RefCell::new(&mut self.machine);
        let mut actions = Vec::new();
        self.left.1 = self.templates.pass(
            &standing,
            &self.directory,
            now_s,
            |class| machine.borrow_mut().budget(class, now),
            |_, records| actions.extend(machine.borrow_mut().on_dirty(records, now)),
        );
        self.backlog();
        actions
    }

    fn backlog(&mut self) {
        self.machine.set_backlog((self.left.0 + self.left.1) as u64);
    }

    /// What stands under these handles now.
    fn look_up(&self, handles: Vec<Handle>) -> Vec<Found<Handle>> {
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

    fn status(&self) -> Status {
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

/// The thread, until nobody holds the node any more.
pub(super) async fn run(
    start: Start,
    lent: Arc<Lent>,
    link: Link,
    listener: TcpListener,
    orders: mpsc::UnboundedReceiver<Order>,
) {
    let serve = serve(start, lent, link, listener, orders);
    LocalSet::new().run_until(serve).await;
}

async fn serve(
    start: Start,
    lent: Arc<Lent>,
    link: Link,
    listener: TcpListener,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let Start {
        config,
        incarnation,
        keyring,
        tables: _,
        directory,
        mut on_readiness,
    } = start;
    let machine = Machine::new(
        machine::Config {
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
        },
        keyring.clone(),
        Duration::ZERO,
    );
    let state = State {
        machine,
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
    };
    let shared: Shared = Rc::new(RefCell::new(state));
    let mut sessions = Sessions::new();
    let mut readiness: Option<Readiness> = None;
    let mut turns = Turns::new(Instant::now());
    loop {
        let deadline = {
            let state = shared.borrow();
            state.started + state.machine.deadline(state.now())
        };
        // Before anything that comes from outside, of which there may be more and more.
        if let Some(turn) = turns.due(Instant::now(), deadline) {
            let cost = cpu_time();
            let actions = take_turn(&shared, turn);
            turns.done(turn, Instant::now(), cpu_time().saturating_sub(cost));
            carry_out(&shared, &link, &mut sessions, actions).await;
            tell_readiness(&shared, &mut readiness, &mut on_readiness);
            continue;
        }
        let actions = tokio::select! {
            order = orders.recv() => match order {
                Some(order) => obey(&shared, order),
                None => return,
            },
            heard = readable(link.sockets()) => {
                let actions = joined(heard_on(&shared, heard));
                // Full syncs are tasks of their own: they have their turn after each batch.
                yield_now().await;
                actions
            }
            () = sleep_until(turns.next(deadline)) => continue,
            event = sessions.next() => {
                let mut state = shared.borrow_mut();
                let now = state.now();
                let mut actions = sessions.on_event(&mut state.machine, event, now);
                while let Some(event) = sessions.try_next() {
                    actions.extend(sessions.on_event(&mut state.machine, event, now));
                }
                joined(actions)
            }
            accepted = listener.accept() => {
                match accepted {
                    Ok((stream, from)) => bulk::serve(&shared, stream, from),
                    Err(error) => {
                        shared.borrow_mut().trouble("a bulk resync cannot be accepted", &error);
                        // Out of descriptors, most likely: not at once again.
                        tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                    }
                }
                Vec::new()
            }
        };
        carry_out(&shared, &link, &mut sessions, actions).await;
        tell_readiness(&shared, &mut readiness, &mut on_readiness);
    }
}

/// Does what is due.
fn take_turn(shared: &Shared, turn: Turn) -> Vec<Action<Handle>> {
    let mut state = shared.borrow_mut();
    match turn {
        Turn::Pass => state.pass(),
        Turn::Templates => state.pass_templates(),
        Turn::Tick => {
            let now = state.now();
            state.machine.tick(now).0
        }
    }
}

/// Tells whether this node has what its peers have, where that has changed.
fn tell_readiness(
    shared: &Shared,
    told: &mut Option<Readiness>,
    tell: &mut (dyn FnMut(Readiness) + Send),
) {
    let is = {
        let state = shared.borrow();
        state.machine.readiness(state.now())
    };
    if told.replace(is) != Some(is) {
        tell(is);
    }
}

fn obey(shared: &Shared, order: Order) -> Vec<Action<Handle>> {
    let mut state = shared.borrow_mut();
    match order {
        Order::Directory(directory) => {
            let now = state.now();
            // What was learned of what has gone went with it: peers have it yet.
            let before = Arc::clone(&state.directory);
            let is_back = state.gone.on_change(&before, &directory);
            state.directory = Arc::from(directory);
            let mut actions = state.machine.on_directory_changed(now);
            if is_back {
                actions.extend(state.machine.resync(now));
            }
            actions
        }
        Order::Status(answer) => {
            // Whoever asked may have gone away.
            let _ = answer.send(state.status());
            Vec::new()
        }
    }
}

/// A socket in which something may be.
pub(super) async fn readable(sockets: &[UdpSocket]) -> Option<&UdpSocket> {
    match sockets {
        [one] => one.readable().await.ok().map(|()| one),
        [one, other] => tokio::select! {
            ready = one.readable() => ready.ok().map(|()| one),
            ready = other.readable() => ready.ok().map(|()| other),
        },
        _ => std::future::pending().await,
    }
}

fn heard_on(shared: &Shared, socket: Option<&UdpSocket>) -> Vec<Action<Handle>> {
    let mut state = shared.borrow_mut();
    let now = state.now();
    let mut actions = Vec::new();
    let mut buffer = [0; LARGEST];
    for _ in 0..DATAGRAMS_AT_ONCE {
        match socket.map(|socket| socket.try_recv_from(&mut buffer)) {
            Some(Ok((length, from))) => {
                actions.extend(state.machine.on_datagram(from, &buffer[..length], now));
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
            Some(Err(error)) => {
                // What came of an earlier datagram: nobody listens at a listed peer, most likely.
                if error.kind() != io::ErrorKind::ConnectionRefused {
                    state.trouble("nothing can be received", &error);
                }
                break;
            }
            None => break,
        }
    }
    actions
}

/// The tables that take what is new: in the last moment before others take their place, which is short, those that do.
async fn current(shared: &Shared) -> Arc<dyn Tables> {
    for _ in 0..EXCHANGE_LOOKS {
        let tables = shared.borrow().tables();
        if tables.view().is_ok_and(|view| view.takes_new) {
            return tables;
        }
        tokio::time::sleep(EXCHANGE_LOOK).await;
    }
    shared.borrow().tables()
}

/// The same with what is to be entered from one node in one piece: to have another CPU enter it costs as much for a
/// thousand connections as for one.
fn joined(actions: Vec<Action<Handle>>) -> Vec<Action<Handle>> {
    let mut all: Vec<Action<Handle>> = Vec::with_capacity(actions.len());
    for action in actions {
        match (all.last_mut(), action) {
            (
                Some(Action::Apply {
                    from,
                    entries,
                    templates,
                    how,
                }),
                Action::Apply {
                    from: whom,
                    entries: more,
                    templates: others,
                    how: manner,
                },
            ) if *from == whom && *how == manner => {
                entries.extend(more);
                templates.extend(others);
            }
            (_, action) => all.push(action),
        }
    }
    all
}

/// Does what the machine wants, and what comes of it.
async fn carry_out(
    shared: &Shared,
    link: &Link,
    sessions: &mut Sessions,
    actions: Vec<Action<Handle>>,
) {
    let mut actions = std::collections::VecDeque::from(actions);
    while let Some(action) = actions.pop_front() {
        match action {
            Action::Send { to, bytes } => {
                let sent = match to {
                    To::Everyone => link.send_all(&bytes).await,
                    To::Peer(peer) => link.send(&bytes, peer).await,
                };
                if let Err(error) = sent {
                    // Peers miss it, and ask.
                    shared
                        .borrow_mut()
                        .trouble("a datagram cannot be sent", &error);
                }
            }
            Action::Apply {
                from,
                entries,
                templates,
                how,
            } => {
                let tables = current(shared).await;
                let mut state = shared.borrow_mut();
                let state = &mut *state;
                let told = (&entries[..], &templates[..]);
                let State {
                    directory,
                    templates: known,
                    applied,
                    ..
                } = state;
                match apply(tables.as_ref(), directory, known, told, how, applied) {
                    Ok(unknown) if !unknown.is_empty() => {
                        let now = state.now();
                        state.machine.on_unknown(&from, unknown, now);
                    }
                    Ok(_) => {}
                    Err(error) => state.trouble("what a peer told cannot be entered", &error),
                }
            }
            Action::LookUp { token, handles } => {
                let mut state = shared.borrow_mut();
                let found = state.look_up(handles);
                let now = state.now();
                actions.extend(state.machine.on_looked_up(token, found, now));
            }
            Action::StartBulk {
                session,
                node,
                incarnation,
                address,
                resume,
            } => {
                let address: SocketAddr = address;
                sessions.begin(shared, session, node, incarnation, address, resume);
            }
            Action::StopBulk { session } => sessions.stop(session),
            Action::Warn(warning) => tracing::warn!("conn-sync: {warning}"),
        }
    }
}
