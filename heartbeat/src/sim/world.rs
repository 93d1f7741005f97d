//! The world: time, nodes, links. What it does is real: machines, receivers, bytes.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use super::judge::Judge;
use super::random::Random;
use crate::config::{Config, LinkKind};
use crate::machine::{
    Action, Alert, Command, FenceResult, Filled, Input, LinkId, Machine, Note, Reason, Scope,
};
use crate::wire::auth::{Keyring, Receiver};
use crate::wire::vrrp::{Advert, ChecksumRule, Envelope};

/// Microseconds of true time.
pub(super) type Micros = u64;

const VRRP_GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18));
/// Time of day at the beginning, in milliseconds.
const TIME_OF_DAY: u64 = 1_700_000_000_000;
/// Most messages of one node that are recorded.
const RECORDED: usize = 4_096;
/// Packets that wait for a node that stands still: what a socket holds.
const SOCKET: usize = 128;

/// How packets from one node to another on one link fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) is_cut: bool,
    /// In percent.
    pub(super) loss: u64,
    pub(super) twice: u64,
    pub(super) delay: (Micros, Micros),
}

/// One node.
pub(super) struct Node {
    pub(super) config: Arc<Config>,
    pub(super) machine: Option<Machine>,
    receiver: Receiver,
    pub(super) incarnation: u64,
    /// Parts of a million that its clock is fast.
    drift: i64,
    /// By so many milliseconds its time of day is wrong.
    wrong_by: i64,
    /// What it sent, for who means to play it again.
    recorded: Vec<Arc<[u8]>>,
    booted: Micros,
    /// Stands still.
    pub(super) is_frozen: bool,
    pub(super) frozen_at: Micros,
    waiting: Vec<Event>,
    generation: u64,
    pub(super) fitness: (u16, Option<String>),
    /// By group: it cannot serve it, fit or not.
    pub(super) unable: Vec<bool>,
    /// What it lacks, if anything, and since when that is so.
    pub(super) filled: (Filled, Micros),
    /// By group: its addresses are here.
    pub(super) has: Vec<bool>,
    /// In true time: until then what it has is served.
    pub(super) served_until: Micros,
    pub(super) is_stopped: bool,
    /// Splits that it told of and not yet of their end: group, the other one.
    pub(super) splits: BTreeSet<(String, String)>,
}

impl Node {
    pub(super) fn new(config: Config, drift: i64, wrong_by: i64) -> Self {
        let groups = config.groups.len();
        Self {
            receiver: Receiver::new(Keyring::without_secret(), ("", 0), [], 0),
            config: Arc::new(config),
            machine: None,
            incarnation: 0,
            drift,
            wrong_by,
            recorded: Vec::new(),
            booted: 0,
            is_frozen: false,
            frozen_at: 0,
            waiting: Vec::new(),
            generation: 0,
            fitness: (0, None),
            unable: vec![false; groups],
            filled: (Filled::Needless, 0),
            has: vec![false; groups],
            served_until: 0,
            is_stopped: false,
            splits: BTreeSet::new(),
        }
    }

    /// Its clock, which does not begin with zero.
    fn clock(&self, now: Micros) -> Duration {
        let passed = now - self.booted;
        let drift = passed as i64 * self.drift / 1_000_000;
        Duration::from_micros(5_000_000 + passed.saturating_add_signed(drift))
    }

    /// The first true time at which its clock shows this.
    fn true_time(&self, clock: Duration) -> Micros {
        let passed = (clock.as_micros() as u64).saturating_sub(5_000_000);
        self.booted + (passed * 1_000_000).div_ceil((1_000_000 + self.drift) as u64) + 1
    }

    pub(super) fn is_running(&self) -> bool {
        self.machine.is_some() && !self.is_stopped
    }

    /// Whether it can serve a group, and all that move with it.
    pub(super) fn is_able(&self, group: usize) -> bool {
        let mut units = self.config.units.iter();
        let unit = units.find(|unit| unit.contains(&group));
        let is_unable = unit.is_some_and(|unit| unit.iter().any(|group| self.unable[*group]));
        self.fitness.1.is_none() && !is_unable
    }

    pub(super) fn serves(&self, group: usize, now: Micros) -> bool {
        self.has[group] && now <= self.served_until
    }
}

/// Something that is going to happen.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Wake {
        node: usize,
        generation: u64,
    },
    /// Bytes of a heartbeat, and when they were sent.
    Heartbeat {
        from: usize,
        to: usize,
        link: usize,
        bytes: Arc<[u8]>,
        sent: Micros,
    },
    Advert {
        from: usize,
        to: usize,
        link: usize,
        bytes: Arc<[u8]>,
    },
    /// Somebody plays what a node had sent to another one, from this message on.
    Replay {
        from: usize,
        to: usize,
        nth: usize,
        every: Micros,
    },
    Fenced {
        node: usize,
        peer: String,
        result: FenceResult,
    },
    /// A node that was started with this number has all connections of the others.
    Filled {
        node: usize,
        incarnation: u64,
    },
    Fault(Fault),
}

/// Faults, and what operators do.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Crash(usize),
    Start(usize),
    Freeze(usize),
    Thaw(usize),
    Stop(usize),
    Set {
        link: usize,
        from: usize,
        to: usize,
        path: Path,
    },
    Fitness {
        node: usize,
        lowers: u16,
        unfit: bool,
    },
    /// It cannot serve a group, or can again.
    Unable {
        node: usize,
        group: usize,
        is_unable: bool,
    },
    /// It lacks connections of the others.
    Lacks(usize),
    /// If it is primary, it cannot add all addresses of a group.
    Failing {
        node: usize,
        group: usize,
    },
    Order {
        node: usize,
        command: Command,
        scope: Scope,
    },
}

struct Entry(Micros, u64, Event);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// All of it.
pub(super) struct World {
    pub(super) now: Micros,
    pub(super) nodes: Vec<Node>,
    /// By link, from, to.
    pub(super) paths: Vec<Vec<Vec<Path>>>,
    pub(super) random: Random,
    pub(super) tells: bool,
    /// In percent: how often a wake-up is late, by up to so much.
    pub(super) late: (u64, Micros),
    /// Nodes share connections: they lack them when they start.
    pub(super) has_sync: bool,
    /// Fencing, where it is required, takes seconds, and may fail.
    pub(super) is_fencing_hard: bool,
    keyring: Keyring,
    events: BinaryHeap<Reverse<Entry>>,
    order: u64,
}

impl World {
    pub(super) fn new(nodes: Vec<Node>, path: Path, random: Random, late: (u64, Micros)) -> Self {
        let count = nodes.len();
        let links = nodes[0].config.links.len();
        Self {
            now: 1,
            paths: vec![vec![vec![path; count]; count]; links],
            nodes,
            random,
            tells: false,
            late,
            has_sync: false,
            is_fencing_hard: false,
            keyring: Keyring::without_secret(),
            events: BinaryHeap::new(),
            order: 0,
        }
    }

    pub(super) fn at(&mut self, at: Micros, event: Event) {
        self.order += 1;
        self.events.push(Reverse(Entry(at, self.order, event)));
    }

    /// Runs until then.
    pub(super) fn run(&mut self, until: Micros, judge: &mut Judge) {
        while let Some(Reverse(Entry(at, ..))) = self.events.peek() {
            if *at > until {
                break;
            }
            let Some(Reverse(Entry(at, _, event))) = self.events.pop() else {
                break;
            };
            self.now = self.now.max(at);
            self.happen(event, judge);
            judge.watch(self);
        }
        self.now = until;
        judge.watch(self);
    }

    fn happen(&mut self, event: Event, judge: &mut Judge) {
        match &event {
            Event::Wake { node, generation } => {
                let about = &self.nodes[*node];
                if about.is_frozen {
                    return;
                }
                if about.generation == *generation {
                    self.feed(*node, Input::Tick, judge);
                }
            }
            Event::Heartbeat {
                from,
                to,
                link,
                bytes,
                sent,
            } => {
                let node = &mut self.nodes[*to];
                if !node.is_running() {
                    return;
                }
                if node.is_frozen {
                    if node.waiting.len() < SOCKET {
                        node.waiting.push(event);
                    }
                    return;
                }
                let link = LinkId(*link as u8);
                if let Ok(message) = node.receiver.receive(link, bytes) {
                    judge.delivered(*from, *to, self.now, *sent);
                    self.feed(*to, Input::Heartbeat { link, message }, judge);
                }
            }
            Event::Advert {
                from,
                to,
                link,
                bytes,
            } => {
                let node = &mut self.nodes[*to];
                if !node.is_running() {
                    return;
                }
                if node.is_frozen {
                    if node.waiting.len() < SOCKET {
                        node.waiting.push(event);
                    }
                    return;
                }
                let from = address(*link, *from);
                let link = LinkId(*link as u8);
                let advert = Advert::decode(
                    bytes,
                    Envelope {
                        from,
                        to: VRRP_GROUP,
                    },
                )
                .expect("an advert of ours");
                self.feed(*to, Input::Advert { link, from, advert }, judge);
            }
            Event::Replay {
                from,
                to,
                nth,
                every,
            } => {
                let (from, to, nth, every) = (*from, *to, *nth, *every);
                let Some(bytes) = self.nodes[from].recorded.get(nth).cloned() else {
                    return;
                };
                self.at(
                    self.now + every,
                    Event::Replay {
                        from,
                        to,
                        nth: nth + 1,
                        every,
                    },
                );
                let heartbeat = Event::Heartbeat {
                    from,
                    to,
                    link: 0,
                    bytes,
                    // Long ago: nothing that a link between them carried.
                    sent: 0,
                };
                self.happen(heartbeat, judge);
            }
            Event::Fenced { node, peer, result } => {
                let (node, peer, result) = (*node, peer.clone(), *result);
                if self.nodes[node].is_frozen {
                    self.nodes[node].waiting.push(event);
                } else if self.nodes[node].is_running() {
                    self.feed(node, Input::Fenced { node: peer, result }, judge);
                }
            }
            Event::Filled { node, incarnation } => {
                let (node, incarnation) = (*node, *incarnation);
                let about = &mut self.nodes[node];
                if about.is_frozen {
                    about.waiting.push(event);
                } else if about.is_running() && about.incarnation == incarnation {
                    let filled = Filled::Done("the simulator says so".to_owned());
                    self.fill(node, filled, judge);
                }
            }
            Event::Fault(fault) => {
                let fault = fault.clone();
                if !matches!(&fault, Fault::Set { link, from, to, path } if self.paths[*link][*from][*to] == *path)
                {
                    self.tell(|| format!("{fault:?}"));
                }
                self.fault(fault, judge);
            }
        }
    }

    fn fault(&mut self, fault: Fault, judge: &mut Judge) {
        match fault {
            Fault::Crash(node) => {
                // What it has is served until the lease ends: the packet path goes on without the program.
                let node = &mut self.nodes[node];
                node.machine = None;
                node.is_frozen = false;
                node.waiting.clear();
            }
            Fault::Start(index) => {
                if self.nodes[index].is_running() {
                    return;
                }
                let (now, links) = (self.now, self.paths.len());
                let node = &mut self.nodes[index];
                // The start undoes what a killed run left.
                node.has.fill(false);
                let time_of_day = (TIME_OF_DAY + now / 1000).saturating_add_signed(node.wrong_by);
                node.incarnation = time_of_day.max(node.incarnation + 1);
                node.booted = now;
                node.is_frozen = false;
                node.is_stopped = false;
                node.splits.clear();
                let others = node.config.nodes.iter().map(String::as_str);
                let own = (node.config.node.as_str(), node.incarnation);
                node.receiver = Receiver::new(self.keyring.clone(), own, others, links);
                node.machine = Some(Machine::new(
                    Arc::clone(&node.config),
                    node.incarnation,
                    node.clock(now),
                ));
                for link in 0..links {
                    if matches!(self.nodes[index].config.links[link].kind, LinkKind::Vrrp(_)) {
                        let IpAddr::V4(v4) = address(link, index) else {
                            continue;
                        };
                        let input = Input::Addresses {
                            link: LinkId(link as u8),
                            v4: Some(v4),
                            v6: None,
                        };
                        self.feed(index, input, judge);
                    }
                }
                if self.has_sync {
                    self.lack(index, judge);
                }
                for group in 0..self.nodes[index].unable.len() {
                    let is_unable = self.nodes[index].unable[group];
                    self.unable(index, group, is_unable, judge);
                }
                let (lowers, unfit) = self.nodes[index].fitness.clone();
                self.feed(index, Input::Fitness { lowers, unfit }, judge);
            }
            Fault::Freeze(node) => {
                let now = self.now;
                let node = &mut self.nodes[node];
                if node.is_running() && !node.is_frozen {
                    node.is_frozen = true;
                    node.frozen_at = now;
                }
            }
            Fault::Thaw(index) => {
                let node = &mut self.nodes[index];
                if !node.is_frozen {
                    return;
                }
                node.is_frozen = false;
                let waiting = std::mem::take(&mut node.waiting);
                if self.random.percent(50) {
                    self.feed(index, Input::Tick, judge);
                }
                for event in waiting {
                    self.happen(event, judge);
                }
                self.feed(index, Input::Tick, judge);
            }
            Fault::Stop(node) => {
                if self.nodes[node].is_running() && !self.nodes[node].is_frozen {
                    self.feed(node, Input::Stop, judge);
                }
            }
            Fault::Set {
                link,
                from,
                to,
                path,
            } => self.paths[link][from][to] = path,
            Fault::Fitness {
                node,
                lowers,
                unfit,
            } => {
                let unfit = unfit.then(|| "the simulator says so".to_owned());
                self.nodes[node].fitness = (lowers, unfit.clone());
                if self.nodes[node].is_running() && !self.nodes[node].is_frozen {
                    self.feed(node, Input::Fitness { lowers, unfit }, judge);
                }
            }
            Fault::Unable {
                node,
                group,
                is_unable,
            } => {
                self.nodes[node].unable[group] = is_unable;
                if self.nodes[node].is_running() && !self.nodes[node].is_frozen {
                    self.unable(node, group, is_unable, judge);
                }
            }
            Fault::Lacks(node) => {
                if self.nodes[node].is_running() && !self.nodes[node].is_frozen {
                    self.lack(node, judge);
                }
            }
            Fault::Failing { node, group } => {
                if self.nodes[node].is_running() && !self.nodes[node].is_frozen {
                    let why = Some("the simulator says so".to_owned());
                    self.feed(node, Input::Failing { group, why }, judge);
                }
            }
            Fault::Order {
                node,
                command,
                scope,
            } => {
                if self.nodes[node].is_running() && !self.nodes[node].is_frozen {
                    self.feed(node, Input::Operator { command, scope }, judge);
                }
            }
        }
    }

    fn unable(&mut self, node: usize, group: usize, is_unable: bool, judge: &mut Judge) {
        let why = is_unable.then(|| "the simulator says so".to_owned());
        self.feed(node, Input::Unable { group, why }, judge);
    }

    /// It lacks connections, and mostly gets them within some seconds.
    fn lack(&mut self, node: usize, judge: &mut Judge) {
        let filled = Filled::Waiting("the simulator says so".to_owned());
        self.fill(node, filled, judge);
        if self.random.percent(70) {
            let at = self.now + self.random.within(1_000..=3_000_000);
            let incarnation = self.nodes[node].incarnation;
            self.at(at, Event::Filled { node, incarnation });
        }
    }

    fn fill(&mut self, node: usize, filled: Filled, judge: &mut Judge) {
        self.nodes[node].filled = (filled.clone(), self.now);
        self.feed(node, Input::Filled(filled), judge);
    }

    fn feed(&mut self, index: usize, input: Input, judge: &mut Judge) {
        let now = self.now;
        let node = &mut self.nodes[index];
        let clock = node.clock(now);
        let Some(machine) = node.machine.as_mut().filter(|_| !node.is_stopped) else {
            return;
        };
        let mut actions = Vec::new();
        machine.handle(clock, input, &mut actions);
        let wake_at = machine.wake_at();
        for action in actions {
            self.act(index, action, judge);
        }
        judge.told(self, index);
        let late = if self.random.percent(self.late.0) {
            self.random.within(0..=self.late.1)
        } else {
            0
        };
        let node = &mut self.nodes[index];
        node.generation += 1;
        let wake = Event::Wake {
            node: index,
            generation: node.generation,
        };
        let at = node.true_time(wake_at).max(now + 1) + late;
        self.at(at, wake);
    }

    fn act(&mut self, index: usize, action: Action, judge: &mut Judge) {
        match action {
            Action::Heartbeat(message) => {
                let bytes: Arc<[u8]> = self.keyring.seal(&message).into();
                let recorded = &mut self.nodes[index].recorded;
                if recorded.len() < RECORDED {
                    recorded.push(Arc::clone(&bytes));
                }
                for link in 0..self.paths.len() {
                    if matches!(self.nodes[index].config.links[link].kind, LinkKind::Vrrp(_)) {
                        continue;
                    }
                    let sent = self.now;
                    self.send(link, index, |to| {
                        let bytes = Arc::clone(&bytes);
                        Event::Heartbeat {
                            from: index,
                            to,
                            link,
                            bytes,
                            sent,
                        }
                    });
                }
            }
            Action::Advertise { link, advert, .. } => {
                let link = usize::from(link.0);
                let envelope = Envelope {
                    from: address(link, index),
                    to: VRRP_GROUP,
                };
                let bytes: Arc<[u8]> = advert.encode(envelope, ChecksumRule::Packet).into();
                self.send(link, index, |to| {
                    let bytes = Arc::clone(&bytes);
                    Event::Advert {
                        from: index,
                        to,
                        link,
                        bytes,
                    }
                });
            }
            Action::Take(group) => {
                self.nodes[index].has[group] = true;
                judge.took(self, index, group);
            }
            Action::Release(group) => self.nodes[index].has[group] = false,
            Action::Lease(until) => {
                let now = self.now;
                let node = &mut self.nodes[index];
                // Others may have taken over. What is taken anew is not here yet: the lease comes first.
                if node.has.contains(&true) && node.served_until < now {
                    judge.wrong(now, || {
                        format!("node {index} serves again, though its lease had ended")
                    });
                }
                node.served_until = node.true_time(until);
            }
            Action::Fence(peer) => {
                let is_required = self.nodes[index]
                    .config
                    .fence
                    .as_ref()
                    .is_some_and(|fence| fence.required);
                let is_hard = is_required && self.is_fencing_hard;
                let result = match (is_required && !is_hard) || self.random.percent(50) {
                    true => FenceResult::Done,
                    false => FenceResult::Failed,
                };
                let longest = if is_hard { 5_000_000 } else { 50_000 };
                let at = self.now + self.random.within(1_000..=longest);
                self.at(
                    at,
                    Event::Fenced {
                        node: index,
                        peer,
                        result,
                    },
                );
            }
            Action::Note(note) => {
                self.tell(|| match &note {
                    Note::Transition(it) => {
                        format!(
                            "node {index}: {} {:?} -> {:?}: {}",
                            it.group, it.from, it.to, it.reason
                        )
                    }
                    Note::Alert(alert) => format!("node {index}: {alert}"),
                });
                if let Note::Transition(it) = &note
                    && let Reason::HandedOver(to) | Reason::Failing { node: to, .. } = &it.reason
                {
                    judge.handed_over(self, index, to, &it.group);
                }
                self.note_split(index, note, judge);
            }
            Action::Stopped => self.nodes[index].is_stopped = true,
            Action::Announce(_) | Action::Run(_) => {}
        }
    }

    fn note_split(&mut self, index: usize, note: Note, judge: &mut Judge) {
        let splits = &mut self.nodes[index].splits;
        match note {
            Note::Alert(Alert::SplitBrain { group, other, .. }) => {
                splits.insert((group, other));
            }
            Note::Alert(Alert::SplitBrainOver { group, other }) => {
                let key = (group, other);
                if !splits.remove(&key) {
                    judge.wrong(self.now, || {
                        format!("node {index} ends a split that had not begun: {key:?}")
                    });
                }
            }
            Note::Alert(_) | Note::Transition(_) => {}
        }
    }

    fn send(&mut self, link: usize, from: usize, event: impl Fn(usize) -> Event) {
        for to in 0..self.nodes.len() {
            let path = self.paths[link][from][to];
            if to == from || path.is_cut || self.random.percent(path.loss) {
                continue;
            }
            let copies = if self.random.percent(path.twice) {
                2
            } else {
                1
            };
            for _ in 0..copies {
                let at = self.now + self.random.within(path.delay.0..=path.delay.1);
                self.at(at, event(to));
            }
        }
    }

    /// Whether a node believes what another one sends.
    pub(super) fn believes(&self, from: usize, to: usize) -> bool {
        let name = &self.nodes[from].config.node;
        let machine = self.nodes[to].machine.as_ref();
        machine.is_some_and(|machine| machine.believes(name))
    }

    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if self.tells {
            eprintln!("{:>9.3} ms  {}", self.now as f64 / 1000.0, what());
        }
    }
}

/// A node's address on a link.
fn address(link: usize, node: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, link as u8, 1 + node as u8))
}
