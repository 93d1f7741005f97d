//! The loop of a node that speaks the kernel's IPVS protocol: what changed is told, what is told is entered. The protocol knows
//! no peers, no questions and no full sync.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::apply::{Applied, apply};
use super::kernel_report::{KernelReport, word};
use super::retries::Retries;
use super::run::{LAST_WORDS, readable};
use super::state::{Trouble, cpu_time};
use super::templates::{LOOKED_AT_ONCE, Templates};
use super::turns::{Turn, Turns};
use super::{Lent, Order, Start, Status, Tables};
use crate::config::KernelConfig;
use crate::directory::{Directory, Handle};
use crate::entry::{Entry, How, NodeName, Record};
use crate::link::{Link, Lost};
use crate::machine::aside::Aside;
use crate::machine::limits::ONE_REFRESH_OF;
use crate::machine::{Class, Readiness};
use crate::refresh::Refresh;
use crate::table::{Scanner, look_up};
use crate::wire::ipvs::{Encoder, Refusal, by_now, decode, flags, kernel_entry, record};

/// Messages that are taken in before anything else has its turn.
const MESSAGES_AT_ONCE: usize = 64;
/// Room for the largest message (its length has 16 bits), whatever this node's own `sync_maxlen`: a kernel cuts off what is
/// longer than its own and loses it, which helps nobody.
const LARGEST: usize = 65_536;
/// A time at which nothing is due.
const LATER: Duration = Duration::from_secs(3600);
/// Senders that are told apart.
const SENDERS: usize = 16;

/// What the loop knows.
struct State {
    kernel: KernelConfig,
    interface: String,
    lent: Arc<Lent>,
    directory: Directory,
    templates: Templates,
    scanner: Scanner,
    retries: Retries,
    encoder: Encoder,
    aside: Aside,
    /// Whose records stand aside: the protocol has no names.
    nobody: NodeName,
    records_per_second: u32,
    /// How many records may be told now, and when that was reckoned.
    tokens: f64,
    reckoned: Instant,
    started: Instant,
    report: KernelReport,
    left: (usize, usize),
    applied: Applied,
    passes: u64,
    passed_at: Instant,
    pass_took: Duration,
    trouble: Trouble,
}

impl State {
    fn tables(&self) -> Arc<dyn Tables> {
        self.lent.now().1
    }

    /// How many records may be told now: a tenth of a second's are saved up.
    fn budget(&mut self) -> usize {
        let rate = f64::from(self.records_per_second);
        let now = Instant::now();
        let earned = (now - self.reckoned).as_secs_f64() * rate;
        self.reckoned = now;
        self.tokens = (self.tokens + earned).min((rate / 10.0).max(1.0));
        self.tokens as usize
    }

    /// Packs what a pass found; gives the messages.
    fn pack(&mut self, records: Vec<(Handle, Record)>) -> Vec<Vec<u8>> {
        self.tokens -= records.len() as f64;
        let mut messages = Vec::new();
        for (_, record) in records {
            match kernel_entry(&record, &self.directory) {
                Some(entry) => {
                    self.report.records += 1;
                    messages.extend(self.encoder.push(&entry));
                }
                None => self.report.unsendable += 1,
            }
        }
        messages.extend(self.encoder.finish());
        self.report.messages += messages.len() as u64;
        messages
    }

    /// Packs what has changed or is refreshed.
    fn pack_news(&mut self, records: Vec<(Handle, Record)>) -> Vec<Vec<u8>> {
        let handles = records.iter().map(|(handle, _)| *handle);
        self.retries.told(handles, self.started.elapsed());
        self.pack(records)
    }

    fn pass(&mut self) -> Vec<Vec<u8>> {
        let began = Instant::now();
        let passed = began - std::mem::replace(&mut self.passed_at, began);
        let tables = self.tables();
        let view = match tables.view() {
            Ok(view) => view,
            Err(error) => {
                self.trouble
                    .tell("the connection tables cannot be read", &error);
                return Vec::new();
            }
        };
        let room = Cell::new(self.budget());
        let share = room.get() / ONE_REFRESH_OF as usize;
        let mut found = Vec::new();
        self.left.0 = self.scanner.pass(
            &view,
            &self.directory,
            passed,
            |class| match class {
                Class::New | Class::Change => room.get().saturating_sub(share),
                Class::Refresh => room.get(),
            },
            |_, records| {
                room.set(room.get() - records.len());
                found.extend(records);
            },
        );
        let messages = self.pack_news(found);
        self.passes += 1;
        self.pass_took = began.elapsed();
        messages
    }

    fn pass_templates(&mut self) -> Vec<Vec<u8>> {
        let tables = self.tables();
        let read = tables
            .some_templates(self.templates.after(), LOOKED_AT_ONCE)
            .and_then(|some| tables.view().map(|view| (some, view.now_s)));
        let (some, now_s) = match read {
            Ok(read) => read,
            Err(error) => {
                self.trouble
                    .tell("the persistence templates cannot be read", &error);
                return Vec::new();
            }
        };
        let room = Cell::new(self.budget());
        let mut found = Vec::new();
        self.left.1 = self.templates.pass(
            some,
            &self.directory,
            now_s,
            |_: Class| room.get(),
            |_, records| {
                room.set(room.get() - records.len());
                found.extend(records);
            },
        );
        self.pack_news(found)
    }

    /// Tells again what was told some time ago, as it is by now: where it is this node's yet.
    fn retry(&mut self) -> Vec<Vec<u8>> {
        let tables = self.tables();
        let Ok(view) = tables.view() else {
            // A pass says so.
            return Vec::new();
        };
        let room = self.budget();
        let due = self.retries.due(room, self.started.elapsed());
        let found = due.into_iter().filter_map(|handle| {
            let (record, is_learned) = match handle {
                Handle::Template(key) => {
                    let standing = tables.template(&key)?;
                    let named = self.directory.template(&key, &standing, view.now_s)?;
                    let is_learned = self.templates.is_learned(&key, &standing);
                    (Record::Template(named), is_learned)
                }
                handle => {
                    let (entry, is_learned) = look_up(&view, &self.directory, handle)?;
                    (Record::Entry(entry), is_learned)
                }
            };
            (!is_learned).then_some((handle, record))
        });
        let found = found.collect();
        self.pack(found)
    }

    fn hear(&mut self, from: IpAddr, message: &[u8]) {
        let outcome = decode(message, self.kernel.sync_id);
        self.report.heard += 1;
        if self.report.senders.len() < SENDERS || self.report.senders.contains_key(&from) {
            *self.report.senders.entry(from).or_default() += 1;
        }
        for refusal in outcome.refusals {
            *self.report.refused.entry(word(refusal)).or_default() += 1;
        }
        let mut records = Vec::new();
        for entry in &outcome.entries {
            self.report.heard_records += 1;
            if entry.engine.is_some() {
                // None is known here (specification, section 4: an unknown engine costs its entry).
                *self
                    .report
                    .refused
                    .entry(word(Refusal::Engine))
                    .or_default() += 1;
                continue;
            }
            match record(entry, &self.directory) {
                Some(Record::Entry(told)) if self.is_late(&told, entry.flags) => {
                    self.applied.known_better += 1;
                }
                Some(record) => records.push(record),
                None => self.report.passed_over += 1,
            }
        }
        self.apply(records, How::Live);
    }

    /// What ends does not take the place of what has begun under the same addresses at another real server
    /// (`ip_vs_proc_conn`: "late message of a replaced connection").
    fn is_late(&self, told: &Entry, entry_flags: u32) -> bool {
        if entry_flags & flags::INACTIVE == 0 {
            return false;
        }
        let tables = self.tables();
        let (Ok(view), Ok(numbered)) = (tables.view(), self.directory.number(told)) else {
            return false;
        };
        look_up(&view, &self.directory, numbered.handle).is_some_and(|(standing, _)| {
            self.directory
                .number(&standing)
                .is_ok_and(|it| it.destination != numbered.destination)
        })
    }

    fn apply(&mut self, records: Vec<Record>, how: How) {
        let tables = self.tables();
        let now = self.started.elapsed();
        let (mut entries, mut templates) = (Vec::new(), Vec::new());
        for record in records {
            if !self.aside.yields(&record, how, now) {
                self.applied.known_better += 1;
                continue;
            }
            match record {
                Record::Entry(entry) => entries.push(entry),
                Record::Template(template) => templates.push(template),
            }
        }
        let told = (&entries[..], &templates[..]);
        let (directory, known) = (&self.directory, &mut self.templates);
        match apply(
            tables.as_ref(),
            directory,
            known,
            told,
            how,
            &mut self.applied,
        ) {
            Ok(unknown) => {
                for record in unknown {
                    self.aside.keep(record, &self.nobody, now);
                }
            }
            Err(error) => self
                .trouble
                .tell("what a peer told cannot be entered", &error),
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Directory(directory) => {
                self.directory = *directory;
                let now = self.started.elapsed();
                let kept = self.aside.take(now);
                let by_now = |(_, record)| by_now(record, &self.directory);
                let known = kept.into_iter().map(by_now).collect();
                self.apply(known, How::Aside);
            }
            Order::Status(answer) => {
                let report = KernelReport {
                    backlog: (self.left.0 + self.left.1) as u64,
                    aside: self.aside.len() as u64,
                    ..self.report.clone()
                };
                let status = Status {
                    interface: self.interface.clone(),
                    machine: None,
                    kernel: Some(report),
                    applied: self.applied,
                    learned_templates: self.templates.count_learned(),
                    passes: self.passes,
                    pass_us: self.pass_took.as_micros() as u64,
                    cpu_ms: cpu_time().as_millis() as u64,
                    trouble: self.trouble.last(),
                };
                // Whoever asked may have gone away.
                let _ = answer.send(status);
            }
            // A turn of the loop.
            Order::Pass => {}
        }
    }
}

async fn send(state: &mut State, link: &Link, messages: Vec<Vec<u8>>) {
    for message in messages {
        if let Err(error) = link.send_all(&message).await {
            state.trouble.tell("a message cannot be sent", &error);
        }
    }
}

/// The thread, until nobody holds the node any more, or its interface is lost.
pub(super) async fn run(
    start: Start,
    kernel: KernelConfig,
    lent: Arc<Lent>,
    link: Link,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> Option<Lost> {
    let Start {
        config,
        directory,
        mut on_readiness,
        ..
    } = start;
    let now = Instant::now();
    let refresh = Refresh::Kernel(kernel.refresh_s);
    let mut state = State {
        kernel,
        interface: config.interface,
        lent,
        directory,
        templates: Templates::new(refresh),
        scanner: Scanner::new(refresh),
        retries: Retries::new(kernel.retries, kernel.refresh_s),
        encoder: Encoder::new(kernel.sync_id, kernel.longest),
        aside: Aside::new(config.aside_records, config.aside_for),
        nobody: config.node,
        records_per_second: config.records_per_second,
        tokens: 0.0,
        reckoned: now,
        started: now,
        report: KernelReport::default(),
        left: (0, 0),
        applied: Applied::default(),
        passes: 0,
        passed_at: now,
        pass_took: Duration::ZERO,
        trouble: Trouble::default(),
    };
    // There is nothing to wait for: nobody can be asked for what he has.
    on_readiness(Readiness::Alone);
    let mut turns = Turns::new(now);
    let mut buffer = vec![0; LARGEST];
    loop {
        let retry_at = state.retries.deadline().map(|at| state.started + at);
        let deadline = retry_at.unwrap_or_else(|| Instant::now() + LATER);
        // Before anything that comes from outside, of which there may be more and more.
        if let Some(turn) = turns.due(Instant::now(), deadline) {
            let cost = cpu_time();
            let messages = match turn {
                Turn::Pass => state.pass(),
                Turn::Templates => {
                    let messages = state.pass_templates();
                    state.aside.expire(state.started.elapsed());
                    messages
                }
                Turn::Link => match link.lost() {
                    Some(lost) => return Some(lost),
                    None => Vec::new(),
                },
                Turn::Tick => state.retry(),
            };
            turns.done(turn, Instant::now(), cpu_time().saturating_sub(cost));
            send(&mut state, &link, messages).await;
            continue;
        }
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Pass) => turns.hurry(Instant::now()),
                Some(order) => state.obey(order),
                None => {
                    let mut messages = state.pass();
                    messages.extend(state.pass_templates());
                    // It is the end either way.
                    let _ = timeout(LAST_WORDS, send(&mut state, &link, messages)).await;
                    return None;
                }
            },
            socket = readable(link.sockets()) => {
                for _ in 0..MESSAGES_AT_ONCE {
                    let Some(socket) = socket else { break };
                    match socket.try_recv_from(&mut buffer) {
                        Ok((length, from)) => state.hear(from.ip(), &buffer[..length]),
                        Err(error) => {
                            if error.kind() != io::ErrorKind::WouldBlock {
                                state.trouble.tell("nothing can be received", &error);
                            }
                            break;
                        }
                    }
                }
            }
            () = sleep_until(turns.next(deadline)) => {}
        }
    }
}
