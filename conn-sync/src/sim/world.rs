//! The world: time, nodes, the network, clients.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::judge::Judge;
use super::names::{ONE_DATAGRAM, Slot, TEMPLATES_FROM, Version};
use super::random::Random;
use super::table::{Clock, Outcome, Row, Table};
use crate::entry::{How, NodeName, Record};
use crate::machine::limits::STATUS_EVERY;
use crate::machine::{Action, Class, Config, Machine, PeerState, Readiness, SessionId, To};
use crate::wire::Keyring;
use crate::wire::bulk::{Client, Event as BulkEvent, Server};

/// Microseconds.
pub(super) type Micros = u64;

/// How packets from one node to another fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) is_cut: bool,
    /// In percent.
    pub(super) loss: u64,
    pub(super) twice: u64,
    pub(super) delay: (Micros, Micros),
}

impl Path {
    pub(super) const GOOD: Self = Self {
        is_cut: false,
        loss: 0,
        twice: 0,
        delay: (100, 100),
    };
}

pub(super) struct Node {
    pub(super) machine: Option<Machine<Slot>>,
    pub(super) table: Table,
    incarnation: u64,
    config: Config,
    address: SocketAddr,
    /// Events of earlier starts are none of its own.
    generation: u64,
    wakes_at: Micros,
    /// Microseconds between two walks through its table.
    pub(super) walks_every: Micros,
}

/// Faults, and what operators do.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Crash {
        node: usize,
        keeps_table: bool,
    },
    Start {
        node: usize,
    },
    Serve {
        group: usize,
        node: Option<usize>,
    },
    Path {
        from: usize,
        to: usize,
        path: Path,
    },
    CutStreams,
    Directory {
        node: usize,
        services: u8,
        servers: u8,
    },
    Calm,
}

#[derive(Clone, Debug)]
enum Event {
    Wake {
        node: usize,
        generation: u64,
    },
    Walk {
        node: usize,
        generation: u64,
    },
    Datagram {
        from: usize,
        to: usize,
        bytes: Arc<[u8]>,
    },
    /// Bytes of a bulk resync.
    Bytes {
        stream: usize,
        to_server: bool,
        bytes: Vec<u8>,
    },
    /// Its server reads on.
    Read {
        stream: usize,
    },
    /// It breaks.
    Broken {
        stream: usize,
    },
    Traffic,
    Check,
    Fault(Fault),
}

/// The connection of a bulk resync.
struct Stream {
    session: SessionId,
    client: (usize, u64, Client),
    server: (usize, u64, Server),
    is_open: bool,
    /// What was in the server's table when the walk began; where the walk is.
    had: BTreeMap<Slot, Row>,
    cursor: u64,
    goes_on: bool,
    /// Bytes arrive in their order.
    arrives: [Micros; 2],
}

pub(super) struct World {
    pub(super) now: Micros,
    events: BTreeMap<(Micros, u64), Event>,
    order: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) paths: Vec<Vec<Path>>,
    streams: Vec<Stream>,
    pub(super) judge: Judge,
    pub(super) random: Random,
    /// By group.
    pub(super) serving: [Option<usize>; 2],
    pub(super) slots: Vec<Slot>,
    /// Microseconds between packets, at most; none if 0.
    pub(super) traffic: Micros,
    tells: bool,
    pub(super) verdict: Result<(), String>,
    /// Records in one frame of a bulk resync.
    pub(super) frame: usize,
    pub(super) bulks: u64,
    pub(super) repairs: u64,
}

impl World {
    pub(super) fn new(configs: Vec<Config>, random: Random, tells: bool) -> Self {
        let count = configs.len();
        let mut world = Self {
            now: 0,
            events: BTreeMap::new(),
            order: 0,
            nodes: Vec::new(),
            paths: vec![vec![Path::GOOD; count]; count],
            streams: Vec::new(),
            judge: Judge::new(count),
            random,
            serving: [None; 2],
            slots: Vec::new(),
            traffic: 0,
            tells,
            verdict: Ok(()),
            frame: 4,
            bulks: 0,
            repairs: 0,
        };
        for (index, config) in configs.into_iter().enumerate() {
            let clock = Clock {
                phase: world.random.within(0..=999_999),
                // As far as clocks that are kept right go wrong at the most (`adjtimex`).
                drift_ppm: world.random.within(0..=1000) as i64 - 500,
            };
            let table = Table {
                clock,
                ..Table::default()
            };
            world.nodes.push(Node {
                machine: None,
                table,
                incarnation: 0,
                config,
                address: (Ipv4Addr::new(192, 0, 2, index as u8 + 1), 8848).into(),
                generation: 0,
                wakes_at: Micros::MAX,
                walks_every: 20_000,
            });
        }
        world.at(0, Event::Traffic);
        world.at(0, Event::Check);
        world
    }

    fn at(&mut self, when: Micros, event: Event) {
        self.order += 1;
        self.events.insert((when.max(self.now), self.order), event);
    }

    pub(super) fn fault_at(&mut self, when: Micros, fault: Fault) {
        self.at(when, Event::Fault(fault));
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.tells {
            eprintln!("{:>10.3} ms  {}", self.now as f64 / 1000.0, what());
        }
    }

    fn judged(&mut self, verdict: Result<(), String>) {
        if let Err(verdict) = verdict
            && self.verdict.is_ok()
        {
            self.verdict = Err(format!("at {} us: {verdict}", self.now));
        }
    }

    /// Lets time pass, unless somebody is found guilty.
    pub(super) fn run_until(&mut self, end: Micros) {
        while self.verdict.is_ok()
            && let Some((&(when, order), _)) = self.events.first_key_value()
            && when <= end
        {
            self.now = when;
            if let Some(event) = self.events.remove(&(when, order)) {
                self.happen(event);
            }
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake { node, generation } => {
                if self.is_start(node, generation) && self.nodes[node].wakes_at <= self.now {
                    self.nodes[node].wakes_at = Micros::MAX;
                    self.input(node, |machine, now| machine.tick(now).0);
                }
            }
            Event::Walk { node, generation } => {
                if self.is_start(node, generation) {
                    self.walk(node);
                    let next = self.now + self.nodes[node].walks_every;
                    self.at(next, Event::Walk { node, generation });
                }
            }
            Event::Datagram { from, to, bytes } => {
                if !self.paths[from][to].is_cut {
                    let address = self.nodes[from].address;
                    self.input(to, |machine, now| machine.on_datagram(address, &bytes, now));
                }
            }
            Event::Bytes {
                stream,
                to_server,
                bytes,
            } => self.bytes(stream, to_server, &bytes),
            Event::Read { stream } => self.read(stream),
            Event::Broken { stream } => self.break_stream(stream),
            Event::Traffic => {
                if self.traffic > 0 {
                    let slot = self.random.below(self.slots.len());
                    self.packet(self.slots[slot], true);
                }
                let next = self.now + self.random.within(1..=self.traffic.max(50_000));
                self.at(next, Event::Traffic);
            }
            Event::Check => {
                self.check_claims();
                self.at(self.now + 200_000, Event::Check);
            }
            Event::Fault(fault) => self.fault(fault),
        }
    }

    fn is_start(&self, node: usize, generation: u64) -> bool {
        let node = &self.nodes[node];
        node.machine.is_some() && node.generation == generation
    }

    /// What a node's clock shows.
    fn time(&self, node: usize) -> Duration {
        Duration::from_micros(self.nodes[node].table.clock.shows(self.now))
    }

    fn name(&self, node: usize) -> NodeName {
        self.nodes[node].config.node.clone()
    }

    // Nodes.

    fn input(
        &mut self,
        node: usize,
        give: impl FnOnce(&mut Machine<Slot>, Duration) -> Vec<Action<Slot>>,
    ) {
        let now = self.time(node);
        let Some(machine) = &mut self.nodes[node].machine else {
            return;
        };
        let actions = give(machine, now);
        for action in actions {
            self.act(node, action);
        }
        let Some(machine) = &self.nodes[node].machine else {
            return;
        };
        // A machine that wants to be called at once all the time would never end.
        let deadline = machine.deadline(now).as_micros() as Micros;
        let deadline = self.nodes[node]
            .table
            .clock
            .when(deadline)
            .max(self.now + 1);
        if deadline < self.nodes[node].wakes_at {
            self.nodes[node].wakes_at = deadline;
            let generation = self.nodes[node].generation;
            self.at(deadline, Event::Wake { node, generation });
        }
    }

    fn act(&mut self, node: usize, action: Action<Slot>) {
        match action {
            Action::Send { to, bytes } => self.send(node, to, bytes.into()),
            Action::Apply {
                from,
                entries,
                templates,
                how,
            } => {
                let entries = entries.into_iter().map(Record::Entry);
                let records = entries.chain(templates.into_iter().map(Record::Template));
                for record in records {
                    self.apply(node, &from, record, how);
                }
            }
            Action::LookUp { token, handles } => {
                // Some walks come to nothing.
                if self.random.percent(2) {
                    return;
                }
                self.repairs += 1;
                let table = &self.nodes[node].table;
                let found = handles.into_iter();
                let found = found.filter_map(|slot| table.find(slot, self.now));
                let found = found.collect();
                self.input(node, |machine, now| machine.on_looked_up(token, found, now));
            }
            Action::StartBulk {
                session,
                node: server,
                incarnation,
                address,
                resume,
            } => {
                let nodes = self.nodes.iter();
                let index = nodes
                    .clone()
                    .position(|node| node.address.ip() == address.ip());
                let Some(index) = index else {
                    return self.judged(Err(format!("no node at {address}")));
                };
                self.tell(|| format!("{node} connects to {index}, {resume:?}"));
                let keyring = Keyring::without_secret();
                let own = |node: &Node| (node.config.node.clone(), node.incarnation);
                let nonce = (self.random.next() as u128).to_be_bytes();
                let client = Client::new(
                    &keyring,
                    own(&self.nodes[node]),
                    (server, incarnation),
                    resume,
                    nonce,
                );
                let nonce = (self.random.next() as u128).to_be_bytes();
                let (server, greeting) = Server::new(&keyring, own(&self.nodes[index]), nonce);
                self.streams.push(Stream {
                    session,
                    client: (node, self.nodes[node].generation, client),
                    server: (index, self.nodes[index].generation, server),
                    is_open: true,
                    had: BTreeMap::new(),
                    cursor: 0,
                    goes_on: false,
                    arrives: [0; 2],
                });
                let stream = self.streams.len() - 1;
                if self.nodes[index].machine.is_none() {
                    self.at(self.now + 100_000, Event::Broken { stream });
                } else {
                    self.say(stream, false, greeting);
                }
            }
            Action::Warn(warning) => self.tell(|| format!("{node} warns: {warning}")),
            Action::StopBulk { session } => {
                let streams = self.streams.iter_mut();
                for stream in streams.filter(|stream| stream.client.0 == node) {
                    stream.is_open &= stream.session != session;
                }
            }
        }
    }

    fn send(&mut self, node: usize, to: To, bytes: Arc<[u8]>) {
        for other in 0..self.nodes.len() {
            let is_for = match to {
                To::Everyone => true,
                To::Peer(address) => self.nodes[other].address == address,
            };
            // Multicast comes back to who sent it, sometimes.
            if !is_for || other == node && !self.random.percent(1) {
                continue;
            }
            let path = self.paths[node][other];
            let copies = 1 + u32::from(self.random.percent(path.twice));
            for _ in 0..copies {
                if path.is_cut || self.random.percent(path.loss) {
                    continue;
                }
                let delay = self.random.within(path.delay.0..=path.delay.1);
                let event = Event::Datagram {
                    from: node,
                    to: other,
                    bytes: bytes.clone(),
                };
                self.at(self.now + delay, event);
            }
        }
    }

    fn apply(&mut self, node: usize, from: &NodeName, record: Record, how: How) {
        if let Err(impossible) = record.check() {
            return self.judged(Err(format!("{from} told of {impossible}: {record:?}")));
        }
        let (slot, version, idle_s) = match Slot::of(&record) {
            Ok(record) => record,
            Err(verdict) => return self.judged(Err(verdict)),
        };
        let table = &mut self.nodes[node].table;
        let before = table.rows.get(&slot).copied();
        let outcome = table.apply((slot, version, idle_s), how, self.now);
        self.tell(|| {
            format!("{node} hears from {from}, {how:?}: {slot:?} {version:?} idle {idle_s}; {outcome:?}; had {before:?}")
        });
        match outcome {
            Outcome::Kept => {}
            Outcome::Taken | Outcome::Unknown => {
                let verdict = self.judge.on_applied(slot, version, before);
                self.judged(verdict);
            }
        }
        if outcome == Outcome::Unknown {
            // What stood there gave way, and what is kept aside is told to nobody.
            self.judge.on_untold(node, slot);
            let now = self.time(node);
            if let Some(machine) = &mut self.nodes[node].machine {
                machine.on_unknown(from, [record], now);
            }
        }
    }

    /// The sender's walk through its table.
    fn walk(&mut self, node: usize) {
        self.nodes[node].table.expire(self.now);
        let is_refreshing = (self.now / self.nodes[node].walks_every).is_multiple_of(100);
        for class in [Class::New, Class::Change, Class::Refresh] {
            if class == Class::Refresh && !is_refreshing {
                continue;
            }
            let (now, time) = (self.now, self.time(node));
            let Some(machine) = &mut self.nodes[node].machine else {
                return;
            };
            let budget = machine.budget(class, time);
            let dirty = self.nodes[node].table.take_dirty(class, budget, now);
            if dirty.is_empty() {
                continue;
            }
            self.tell(|| {
                format!(
                    "{node} sends {class:?} {:?}",
                    dirty.iter().map(|(slot, _)| slot.0).collect::<Vec<_>>()
                )
            });
            let slots: Vec<_> = dirty.iter().map(|(slot, _)| *slot).collect();
            self.input(node, |machine, now| machine.on_dirty(class, dirty, now));
            let node_now = &self.nodes[node];
            let number = node_now.machine.as_ref().map_or(0, Machine::stream_number);
            for slot in slots {
                if let Some(row) = node_now.table.rows.get(&slot) {
                    self.judge.on_sent(node, number, slot, row);
                }
            }
        }
        let rows = self.nodes[node].table.rows.values();
        let backlog = rows.filter(|row| !row.is_sent && row.is_told()).count() as u64;
        if let Some(machine) = &mut self.nodes[node].machine {
            machine.set_backlog(backlog);
        }
    }

    // Bulk resyncs.

    fn say(&mut self, stream: usize, to_server: bool, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let (from, to) = self.ends(stream, to_server);
        let (shortest, longest) = self.paths[from][to].delay;
        let delay = self.random.within(shortest..=longest);
        let arrives = &mut self.streams[stream].arrives[usize::from(to_server)];
        *arrives = (*arrives).max(self.now + delay);
        let (when, cut) = (*arrives, self.random.below(bytes.len()));
        let (first, second) = bytes.split_at(cut);
        for bytes in [first.to_vec(), second.to_vec()] {
            let event = Event::Bytes {
                stream,
                to_server,
                bytes,
            };
            self.at(when, event);
        }
    }

    /// From where to where bytes go.
    fn ends(&self, stream: usize, to_server: bool) -> (usize, usize) {
        let Stream { client, server, .. } = &self.streams[stream];
        if to_server {
            (client.0, server.0)
        } else {
            (server.0, client.0)
        }
    }

    fn bytes(&mut self, stream: usize, to_server: bool, bytes: &[u8]) {
        let (from, to) = self.ends(stream, to_server);
        if self.paths[from][to].is_cut || self.paths[to][from].is_cut {
            return self.break_stream(stream);
        }
        let about = &mut self.streams[stream];
        if !about.is_open {
            return;
        }
        let (client, server) = (
            (about.client.0, about.client.1),
            (about.server.0, about.server.1),
        );
        if !self.is_start(client.0, client.1) || !self.is_start(server.0, server.1) {
            return self.break_stream(stream);
        }
        let about = &mut self.streams[stream];
        if to_server {
            match about.server.2.push(bytes) {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let node = &self.nodes[server.0];
                    about.cursor = accepted.cursor;
                    about.goes_on = accepted.cursor != 0;
                    about.had = node.table.rows.clone();
                    about.had.retain(|_, row| row.is_told());
                    let number = node.machine.as_ref().map_or(0, Machine::stream_number);
                    let welcome = about.server.2.welcome(number, about.had.len() as u64);
                    self.say(stream, false, welcome);
                    self.at(self.now + 100, Event::Read { stream });
                }
                Err(error) => self.judged(Err(format!("a client was refused: {error}"))),
            }
            return;
        }
        match about.client.2.push(bytes) {
            Ok(output) => {
                self.say(stream, true, output.send);
                for event in output.events {
                    let session = self.streams[stream].session;
                    let is_end = event == BulkEvent::End;
                    self.input(client.0, |machine, now| {
                        machine.on_bulk(session, event, now)
                    });
                    if is_end && self.streams[stream].is_open {
                        self.bulk_done(stream);
                    }
                }
            }
            // Started anew in between.
            Err(_) => self.break_stream(stream),
        }
    }

    fn read(&mut self, stream: usize) {
        let about = &mut self.streams[stream];
        let (node, generation) = (about.server.0, about.server.1);
        if !about.is_open || !self.is_start(node, generation) {
            return;
        }
        let count = 1 + self.random.below(self.frame);
        let about = &mut self.streams[stream];
        let from = Slot(u16::try_from(about.cursor).unwrap_or(u16::MAX));
        let (table, now) = (&self.nodes[node].table, self.now);
        let rows = table.rows.range(from..).filter(|(_, row)| row.is_told());
        let rows = rows.take(count);
        let records: Vec<_> = rows
            .map(|(slot, row)| {
                let idle_s = table.idle_s(row, now);
                (*slot, (slot.record(row.version, idle_s), row.is_learned))
            })
            .collect();
        let Some((last, _)) = records.last() else {
            let end = about.server.2.end();
            return self.say(stream, false, end);
        };
        about.cursor = u64::from(last.0) + 1;
        let number = self.nodes[node].machine.as_ref();
        let number = number.map_or(0, Machine::stream_number);
        let records: Vec<_> = records.into_iter().map(|(_, record)| record).collect();
        let heard = self.nodes[node].machine.as_ref().map(Machine::heard);
        let mut frames = about.server.2.heard(&heard.unwrap_or_default());
        frames.extend(about.server.2.records(number, about.cursor, &records));
        self.say(stream, false, frames);
        let next = self.now + self.random.within(100..=3_000);
        self.at(next, Event::Read { stream });
    }

    fn break_stream(&mut self, stream: usize) {
        let about = &mut self.streams[stream];
        if !std::mem::replace(&mut about.is_open, false) {
            return;
        }
        let (node, generation, session) = (about.client.0, about.client.1, about.session);
        if self.is_start(node, generation) {
            self.input(node, |machine, now| {
                machine.on_bulk_lost(session, now);
                Vec::new()
            });
        }
    }

    fn bulk_done(&mut self, stream: usize) {
        self.bulks += 1;
        let about = &mut self.streams[stream];
        about.is_open = false;
        let had = std::mem::take(&mut about.had);
        let (client, server) = (about.client.0, about.server.0);
        self.tell(|| format!("{client} is filled by {server}"));
        // What was before a walk that went on was another one's.
        if !self.streams[stream].goes_on {
            let about = &self.nodes[client];
            let verdict = self.judge.check_bulk(about, &had, self.now);
            let verdict =
                verdict.map_err(|verdict| format!("{client} filled by {server}: {verdict}"));
            self.judged(verdict);
        }
        let name = self.name(client);
        if let Some(machine) = &mut self.nodes[server].machine {
            machine.on_bulk_served(&name);
        }
    }

    // Clients.

    /// A packet of a connection. Clients may open, close, and use their port anew.
    fn packet(&mut self, slot: Slot, may_change: bool) {
        let Some(node) = self.serving[slot.group()] else {
            return;
        };
        if self.nodes[node].machine.is_none() {
            return;
        }
        self.nodes[node].table.expire(self.now);
        let table = &self.nodes[node].table;
        let truth = self.judge.newest.get(&slot).copied();
        let row = table.rows.get(&slot);
        let goes_on = row.filter(|row| Some(row.version.opening) == truth.map(|now| now.opening));
        let version = match (goes_on, truth) {
            (Some(row), Some(truth)) if row.version.stage < 3 && truth.stage < 3 => {
                let changes = may_change && self.random.percent(25);
                if changes && slot.is_template() {
                    self.opening(node, slot)
                } else if slot.is_udp() {
                    // It has no end that anybody sees, but that nobody sends any more.
                    Some(Version { stage: 1, ..truth })
                } else {
                    // A state that was lost comes about again: the end that closed repeats it.
                    let stage = truth.stage + u8::from(changes);
                    Some(Version { stage, ..truth })
                }
            }
            _ if may_change => self.opening(node, slot),
            _ => None,
        };
        let Some(version) = version else {
            return;
        };
        if !self.nodes[node].table.knows(slot, version) {
            return;
        }
        self.judge.on_truth(slot, version);
        self.nodes[node].table.pass(slot, version, self.now);
        if version.stage == ONE_DATAGRAM {
            self.judge.on_untold(node, slot);
        }
        self.tell(|| format!("a packet of {slot:?} {version:?} at {node}"));
    }

    /// A new connection, to a server that the node knows.
    fn opening(&self, node: usize, slot: Slot) -> Option<Version> {
        let last = self.judge.newest.get(&slot);
        let next = last.map_or(1, |version| version.opening + 1);
        let stage = if slot.is_udp() { ONE_DATAGRAM } else { 1 };
        let mut versions = (next..next + 4).map(|opening| Version { opening, stage });
        versions.find(|version| self.nodes[node].table.knows(slot, *version))
    }

    /// A packet of every connection.
    pub(super) fn touch_all(&mut self) {
        for slot in self.slots.clone() {
            self.packet(slot, false);
        }
    }

    // Faults.

    fn fault(&mut self, fault: Fault) {
        self.tell(|| format!("{fault:?}"));
        match fault {
            Fault::Crash { node, keeps_table } => {
                self.nodes[node].machine = None;
                if !keeps_table {
                    self.nodes[node].table.rows.clear();
                }
                for serving in &mut self.serving {
                    *serving = serving.filter(|serving| *serving != node);
                }
            }
            Fault::Start { node } => self.start(node),
            Fault::Serve { group, node } => {
                self.serving[group] = node.filter(|node| self.nodes[*node].machine.is_some());
            }
            Fault::Path { from, to, path } => self.paths[from][to] = path,
            Fault::CutStreams => {
                for stream in 0..self.streams.len() {
                    self.break_stream(stream);
                }
            }
            Fault::Directory {
                node,
                services,
                servers,
            } => self.directory(node, services, servers),
            Fault::Calm => {
                for node in 0..self.nodes.len() {
                    if self.nodes[node].machine.is_none() {
                        self.start(node);
                    }
                    self.directory(node, 0, 0);
                    for other in 0..self.nodes.len() {
                        self.paths[node][other] = Path::GOOD;
                    }
                }
            }
        }
    }

    fn start(&mut self, node: usize) {
        if self.nodes[node].machine.is_some() {
            return;
        }
        let (now, time) = (self.now, self.time(node));
        let about = &mut self.nodes[node];
        about.incarnation += 1 + now;
        about.generation += 1;
        about.wakes_at = Micros::MAX;
        about.config.incarnation = about.incarnation;
        let generation = about.generation;
        let machine = Machine::new(about.config.clone(), Keyring::without_secret(), time);
        about.machine = Some(machine);
        self.judge.on_start(node);
        self.at(now, Event::Walk { node, generation });
        self.input(node, |machine, now| machine.tick(now).0);
    }

    /// A configuration is loaded: what it does not know goes, what was kept aside for it comes.
    fn directory(&mut self, node: usize, services: u8, servers: u8) {
        let table = &mut self.nodes[node].table;
        table.unknown_services = services;
        table.unknown_servers = servers;
        let before = table.rows.len();
        let mut rows = std::mem::take(&mut table.rows);
        rows.retain(|slot, row| table.knows(*slot, row.version));
        table.rows = rows;
        let has_lost = table.rows.len() < before;
        self.judge.on_directory(node, table);
        // Nor can a walk that is under way find it any more.
        for stream in self.streams.iter_mut().filter(|it| it.server.0 == node) {
            stream
                .had
                .retain(|slot, row| table.knows(*slot, row.version));
        }
        self.input(node, |machine, now| {
            let mut actions = machine.on_directory_changed(now);
            if has_lost || services == 0 && servers == 0 {
                actions.extend(machine.resync(now));
            }
            actions
        });
    }

    // Claims.

    fn check_claims(&mut self) {
        for node in 0..self.nodes.len() {
            let now = self.time(node);
            let Some(machine) = &self.nodes[node].machine else {
                continue;
            };
            let claims: Vec<_> = machine
                .claims(now)
                .into_iter()
                .filter_map(|(name, incarnation, number)| {
                    let peers = self.nodes.iter();
                    let mut peers = peers.enumerate();
                    let (index, _) = peers.find(|(_, peer)| {
                        peer.config.node == name && peer.incarnation == incarnation
                    })?;
                    Some((index, number))
                })
                .collect();
            for (peer, number) in claims {
                let about = &self.nodes[node];
                let verdict = self.judge.check_claim(about, peer, number, self.now);
                let verdict = verdict
                    .map_err(|verdict| format!("{node} says it has all of {peer}: {verdict}"));
                self.judged(verdict);
            }
        }
    }

    /// Some time after the last fault.
    pub(super) fn check_convergence(&mut self) {
        for node in 0..self.nodes.len() {
            let now = self.time(node);
            let report = self.nodes[node]
                .machine
                .as_ref()
                .map(|machine| machine.report(now));
            let Some(report) = report else {
                return self.judged(Err(format!("{node} does not run")));
            };
            let is_synced = report.readiness == Readiness::Synced
                && report.peers.len() == self.nodes.len() - 1
                && report.backlog == 0
                && report.peers.iter().all(|peer| {
                    peer.state == PeerState::Synced && peer.has_ours && peer.lag_ms <= 300
                })
                && report
                    .peers
                    .iter()
                    .all(|peer| u128::from(peer.heard_ms_ago) <= STATUS_EVERY.as_millis() + 10);
            if !is_synced {
                self.judged(Err(format!("{node} is not synced: {report:#?}")));
            }
        }
        for group in 0..2 {
            let Some(serving) = self.serving[group] else {
                continue;
            };
            for other in 0..self.nodes.len() {
                let (serving, table) = (&self.nodes[serving].table, &self.nodes[other].table);
                let verdict = self.judge.check_same(serving, table, group, self.now);
                self.judged(verdict.map_err(|verdict| format!("{other} differs: {verdict}")));
            }
        }
    }

    /// Slots of a run.
    pub(super) fn make_slots(&mut self, connections: u16, templates: u16) {
        self.slots = (0..connections)
            .chain(TEMPLATES_FROM..TEMPLATES_FROM + templates)
            .map(Slot)
            .collect();
    }
}
