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
use tokio::time::{Instant, sleep_until, timeout};

use super::apply::apply;
use super::bulk::{self, Sessions};
use super::readiness::Told;
use super::state::{Shared, State, cpu_time};
use super::turns::{Turn, Turns};
use super::{Lent, Order, Start, Tables};
use crate::directory::Handle;
use crate::link::{Link, Lost};
use crate::machine::{Action, Readiness, To};

/// Datagrams that are taken in before anything else has its turn.
const DATAGRAMS_AT_ONCE: usize = 64;
/// Room for the largest datagram and a byte more, so that one that is too large is seen to be.
const LARGEST: usize = 9216;
/// After a full sync could not be accepted.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(40);
/// How long it may take to send what is told at the end.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(20);
/// How often, and how many times, it is looked whether other tables have taken the place of those that take nothing new.
const EXCHANGE_LOOK: Duration = Duration::from_millis(2);
/// See [`EXCHANGE_LOOK`]: half a second in all.
const EXCHANGE_LOOKS: u32 = 250;

/// The thread, until nobody holds the node any more, or its interface is lost.
pub(super) async fn run(
    start: Start,
    lent: Arc<Lent>,
    link: Link,
    listener: TcpListener,
    orders: mpsc::UnboundedReceiver<Order>,
) -> Option<Lost> {
    let serve = serve(start, lent, link, listener, orders);
    LocalSet::new().run_until(serve).await
}

async fn serve(
    start: Start,
    lent: Arc<Lent>,
    link: Link,
    listener: TcpListener,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> Option<Lost> {
    let Start {
        config,
        incarnation,
        keyring,
        tables: _,
        directory,
        mut on_readiness,
    } = start;
    let state = State::new((config, incarnation), keyring, lent, directory);
    let shared: Shared = Rc::new(RefCell::new(state));
    let mut sessions = Sessions::new();
    let mut told = Told::default();
    let mut turns = Turns::new(Instant::now());
    loop {
        let deadline = {
            let state = shared.borrow();
            state.started + state.machine.deadline(state.now())
        };
        // Before anything that comes from outside, of which there may be more and more.
        if let Some(turn) = turns.due(Instant::now(), deadline) {
            let cost = cpu_time();
            let actions = match turn {
                Turn::Link => match link.lost() {
                    Some(lost) => return Some(lost),
                    None => Vec::new(),
                },
                Turn::Pass => shared.borrow_mut().pass(),
                Turn::Templates => shared.borrow_mut().pass_templates(),
                Turn::Tick => {
                    let mut state = shared.borrow_mut();
                    let now = state.now();
                    state.machine.tick(now).0
                }
            };
            turns.done(turn, Instant::now(), cpu_time().saturating_sub(cost));
            carry_out(&shared, &link, &mut sessions, actions).await;
            tell_readiness(&shared, &mut told, &mut on_readiness);
            continue;
        }
        let actions = tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Pass) => {
                    turns.hurry(Instant::now());
                    Vec::new()
                }
                Some(order) => obey(&shared, order),
                None => {
                    last_words(&shared, &link, &mut sessions).await;
                    return None;
                }
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
        tell_readiness(&shared, &mut told, &mut on_readiness);
    }
}

/// Tells whether this node has what its peers have, where that has changed.
fn tell_readiness(shared: &Shared, told: &mut Told, tell: &mut (dyn FnMut(Readiness) + Send)) {
    let next = {
        let state = shared.borrow();
        let now = state.now();
        told.next(state.machine.readiness(now), now)
    };
    if let Some(is) = next {
        tell(is);
    }
}

/// What has changed since the last pass, before the end. Whoever waits for that end does not wait for peers, nor for a queue
/// that is full.
async fn last_words(shared: &Shared, link: &Link, sessions: &mut Sessions) {
    let mut actions = shared.borrow_mut().pass();
    actions.extend(shared.borrow_mut().pass_templates());
    let said = carry_out(shared, link, sessions, actions);
    // It is the end either way.
    let _ = timeout(LAST_WORDS, said).await;
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
        // A turn of the loop.
        Order::Pass => Vec::new(),
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
