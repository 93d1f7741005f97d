//! Whole tables over TCP: the sessions in which this node gives its own, and those in which it is filled.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, spawn_local, yield_now};
use tokio::time::timeout;

use super::state::{Shared, State};
use crate::directory::Handle;
use crate::entry::{NodeName, Record};
use crate::link::Link;
use crate::machine::limits::{BULK_BEGINS, BULK_SILENCE, RECORDS_PER_FRAME};
use crate::machine::{Action, Machine, SessionId};
use crate::table::{Cursor, count, piece};
use crate::wire::bulk::{Accepted, Client, Event, NONCE, Resume, Server};

/// Sessions in which this node gives its table at the same time. Whoever comes beyond tries again.
const SERVED_AT_ONCE: usize = 4;
/// Until whoever connected has said who it is.
const PATIENCE: Duration = Duration::from_secs(3);
/// Buckets looked at before others have their turn: under a millisecond.
const BUCKETS_AT_ONCE: usize = 1 << 14;
/// A bucket adds up to four at once.
const RECORDS_AT_ONCE: usize = RECORDS_PER_FRAME - 3;
/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// Events that wait for the machine: then TCP makes the peer wait.
const EVENTS: usize = 32;
/// Where a cursor has which tables it is of: after an exchange of the tables it means nothing any more.
const GENERATION_SHIFT: u32 = 48;

fn nonce() -> io::Result<[u8; NONCE]> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    Ok(nonce)
}

async fn within<T>(patience: Duration, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(patience, what)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// One session in which this node gives its table. It is over when this is dropped, however it came to that.
struct Serving(Shared);

impl Drop for Serving {
    fn drop(&mut self) {
        // Nobody holds it while he waits, and what ends by a panic holds it no more.
        if let Ok(mut state) = self.0.try_borrow_mut() {
            state.serving -= 1;
        }
    }
}

/// Gives this node's table to whoever connected.
pub(super) fn serve(shared: &Shared, stream: TcpStream, from: SocketAddr) {
    {
        let mut state = shared.borrow_mut();
        let now = state.now();
        if !state.machine.hears(from.ip(), now) {
            let what = format!("a bulk resync to {} is refused", from.ip());
            state.trouble(&what, &"no node is heard from there");
            return;
        }
        if state.serving >= SERVED_AT_ONCE {
            state.trouble("a bulk resync is put off", &"others are under way");
            return;
        }
        state.serving += 1;
    }
    let serving = Serving(Rc::clone(shared));
    spawn_local(async move {
        let served = conversation(&serving.0, stream).await;
        let mut state = serving.0.borrow_mut();
        match served {
            Ok(node) => state.machine.on_bulk_served(&node),
            Err(error) => state.trouble(&format!("a bulk resync to {} failed", from.ip()), &error),
        }
    });
}

pub(super) async fn conversation(shared: &Shared, mut stream: TcpStream) -> io::Result<NodeName> {
    stream.set_nodelay(true)?;
    let (mut server, greeting) = {
        let state = shared.borrow();
        let own = (state.config.node.clone(), state.incarnation);
        Server::new(&state.keyring, own, nonce()?)
    };
    within(PATIENCE, stream.write_all(&greeting)).await?;
    let accepted = within(PATIENCE, hello(&mut stream, &mut server)).await?;
    let (mut from, generation, welcome) = {
        let state = shared.borrow();
        // First, and looked at once more with each piece: other tables may take their place at any moment.
        let generation = state.generation();
        let tables = state.tables();
        let view = tables.view()?;
        let from = state.position(accepted.cursor);
        if from.is_none() {
            server.begin_anew();
        }
        let welcome = server.welcome(state.machine.stream_number(), count(&view) as u64);
        (from.unwrap_or(0), generation, welcome)
    };
    within(BULK_SILENCE, stream.write_all(&welcome)).await?;
    loop {
        let (frame, next) = {
            let state = shared.borrow();
            let (lent, tables) = state.lent.now();
            if generation_of(lent) != generation {
                // The place means nothing in them. Whoever asked asks again, and gets all of them.
                return Err(io::Error::other(
                    "the connection tables got another size meanwhile: it begins anew",
                ));
            }
            let view = tables.view()?;
            let piece = piece(
                &view,
                &state.directory,
                from,
                RECORDS_AT_ONCE,
                BUCKETS_AT_ONCE,
            );
            let records: Vec<(Record, bool)> = piece
                .entries
                .into_iter()
                .map(|(entry, is_learned)| (Record::Entry(entry), is_learned))
                .collect();
            let done = piece.next.unwrap_or(Cursor::MAX >> (64 - GENERATION_SHIFT));
            let cursor = cursor(generation, done);
            let is_empty = records.is_empty();
            let frame = (!is_empty).then(|| part(&state, &mut server, cursor, &records));
            (frame, piece.next)
        };
        if let Some(frame) = frame {
            within(BULK_SILENCE, stream.write_all(&frame)).await?;
        }
        yield_now().await;
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    templates(shared, &mut stream, &mut server).await?;
    within(BULK_SILENCE, stream.write_all(&server.end())).await?;
    within(BULK_SILENCE, stream.shutdown()).await?;
    Ok(accepted.node)
}

async fn hello(stream: &mut TcpStream, server: &mut Server) -> io::Result<Accepted> {
    let mut buffer = [0; 1024];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(accepted) = server.push(&buffer[..length]).map_err(io::Error::other)? {
            return Ok(accepted);
        }
    }
}

/// Their map has no places that a cursor could name: whoever goes on gets all of them.
async fn templates(shared: &Shared, stream: &mut TcpStream, server: &mut Server) -> io::Result<()> {
    let mut after = None;
    loop {
        let (frame, next) = {
            let state = shared.borrow();
            let tables = state.tables();
            let (some, next) = tables.some_templates(after, RECORDS_PER_FRAME)?;
            let now_s = tables.view()?.now_s;
            let records: Vec<(Record, bool)> = some
                .iter()
                .filter_map(|(key, template)| {
                    let named = state.directory.template(key, template, now_s)?;
                    let is_learned = state.templates.is_learned(key, template);
                    Some((Record::Template(named), is_learned))
                })
                .collect();
            let done = Cursor::MAX >> (64 - GENERATION_SHIFT);
            let cursor = cursor(state.generation(), done);
            let frame = (!records.is_empty()).then(|| part(&state, server, cursor, &records));
            (frame, next)
        };
        if let Some(frame) = frame {
            within(BULK_SILENCE, stream.write_all(&frame)).await?;
        }
        yield_now().await;
        match next {
            Some(_) => after = next,
            None => return Ok(()),
        }
    }
}

/// What was read just now, before anything else came; and how far others were heard, if some of it is theirs.
fn part(state: &State, server: &mut Server, cursor: Cursor, records: &[(Record, bool)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if records.iter().any(|(_, is_learned)| *is_learned) {
        bytes = server.heard(&state.machine.heard());
    }
    bytes.extend(server.records(state.machine.stream_number(), cursor, records));
    bytes
}

/// Which tables they are, of those that there were: as many bits of it as a cursor has room for.
fn generation_of(lent: u64) -> u64 {
    lent & (u64::MAX >> GENERATION_SHIFT)
}

/// A place in the tables as it is told to peers.
fn cursor(generation: u64, position: u64) -> Cursor {
    position | generation << GENERATION_SHIFT
}

impl State {
    /// Which tables are lent now.
    fn generation(&self) -> u64 {
        generation_of(self.lent.now().0)
    }

    /// The place that a peer names. `None`: it was in other tables.
    fn position(&self, cursor: Cursor) -> Option<u64> {
        let (generation, position) = (
            cursor >> GENERATION_SHIFT,
            cursor & (Cursor::MAX >> (64 - GENERATION_SHIFT)),
        );
        // The beginning is the same in all of them.
        (cursor == 0 || generation == self.generation()).then_some(position)
    }
}

/// Sessions in which this node is filled.
pub(super) struct Sessions {
    tell: mpsc::Sender<(SessionId, Option<Event>)>,
    told: mpsc::Receiver<(SessionId, Option<Event>)>,
    tasks: HashMap<SessionId, AbortHandle>,
}

impl Sessions {
    pub(super) fn new() -> Self {
        let (tell, told) = mpsc::channel(EVENTS);
        Self {
            tell,
            told,
            tasks: HashMap::new(),
        }
    }

    /// What a session brought; `None`: it is lost.
    pub(super) async fn next(&mut self) -> (SessionId, Option<Event>) {
        match self.told.recv().await {
            Some(told) => told,
            // There is always a sender: this one's own.
            None => std::future::pending().await,
        }
    }

    /// As [`Self::next`], without waiting.
    pub(super) fn try_next(&mut self) -> Option<(SessionId, Option<Event>)> {
        self.told.try_recv().ok()
    }

    pub(super) fn on_event(
        &mut self,
        machine: &mut Machine<Handle>,
        (session, event): (SessionId, Option<Event>),
        now: Duration,
    ) -> Vec<Action<Handle>> {
        if matches!(event, Some(Event::End) | None) {
            self.tasks.remove(&session);
        }
        match event {
            Some(event) => machine.on_bulk(session, event, now),
            None => {
                machine.on_bulk_lost(session, now);
                Vec::new()
            }
        }
    }

    /// Connects to a peer and has it give its table.
    pub(super) fn begin(
        &mut self,
        shared: &Shared,
        session: SessionId,
        node: NodeName,
        incarnation: u64,
        address: SocketAddr,
        resume: Option<Resume>,
    ) {
        let (shared, tell) = (Rc::clone(shared), self.tell.clone());
        let task = spawn_local(async move {
            let name = node.clone();
            let filled = fill(&shared, (node, incarnation), address, resume, |event| {
                let tell = tell.clone();
                async move {
                    // Fails only once the loop has ended, and this with it.
                    let _ = tell.send((session, Some(event))).await;
                }
            });
            if let Err(error) = filled.await {
                let what = format!("the bulk resync from {name} at {address} failed");
                shared.borrow_mut().trouble(&what, &error);
                let _ = tell.send((session, None)).await;
            }
        });
        self.tasks.insert(session, task.abort_handle());
    }

    pub(super) fn stop(&mut self, session: SessionId) {
        if let Some(task) = self.tasks.remove(&session) {
            task.abort();
        }
    }
}

async fn fill<F: Future<Output = ()>>(
    shared: &Shared,
    peer: (NodeName, u64),
    address: SocketAddr,
    resume: Option<Resume>,
    tell: impl Fn(Event) -> F,
) -> io::Result<()> {
    let (client, socket) = {
        let state = shared.borrow();
        let own = (state.config.node.clone(), state.incarnation);
        let client = Client::new(&state.keyring, own, peer, resume, nonce()?);
        (client, Link::stream(&state.config, address)?)
    };
    let connect = async {
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    let patience = Patience {
        begins: BULK_BEGINS,
        goes_on: BULK_SILENCE,
    };
    listen(connect, client, patience, tell).await
}

/// How long a peer is waited for.
pub(super) struct Patience {
    /// Until it has greeted.
    pub(super) begins: Duration,
    /// Each time after that.
    pub(super) goes_on: Duration,
}

/// Has a peer give its table over a connection that is yet to be made.
pub(super) async fn listen<S: AsyncRead + AsyncWrite + Unpin, F: Future<Output = ()>>(
    connect: impl Future<Output = io::Result<S>>,
    mut client: Client,
    patience: Patience,
    tell: impl Fn(Event) -> F,
) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    // Whoever is there greets first, at once. The other peers' tables wait meanwhile.
    let greeted = async {
        let mut stream = connect.await?;
        let length = stream.read(&mut buffer).await?;
        Ok((stream, length))
    };
    let (mut stream, mut length) = within(patience.begins, greeted).await?;
    loop {
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let output = client.push(&buffer[..length]).map_err(io::Error::other)?;
        if !output.send.is_empty() {
            within(patience.goes_on, stream.write_all(&output.send)).await?;
        }
        for event in output.events {
            let is_end = event == Event::End;
            tell(event).await;
            if is_end {
                return Ok(());
            }
        }
        length = within(patience.goes_on, stream.read(&mut buffer)).await?;
    }
}
