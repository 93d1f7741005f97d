//! The loop of the node's thread.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;

use super::realtime;
use super::report::{LinkReport, Snapshot, TakeoverReport};
use super::warnings::Warnings;
use super::{NodeError, Observer, Order, Start, clock};
use crate::config::{Config, LinkKind};
use crate::fitness::{Fitness, Verdict};
use crate::link::{Event, Link, Received};
use crate::machine::{
    Action, Alert, FenceResult, Filled, Input, LinkId, Machine, Note, Role, Run, Transition,
};
use crate::netlink::{Change, LinkState, Watch};
use crate::program::{Ended, Job, Outcome, Runner};
use crate::takeover::{self, Kernel, Movable, Takeover, TakeoverError};
use crate::wire::auth::{self, Keyring};
use crate::wire::vrrp::{Advert, ChecksumRule, Envelope, VrrpError};

/// Longest wait, whatever is due: an error in the reckoning of deadlines does not stop the node.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Shortest one while nothing can be read: such an error does not take a processor away, either.
const SHORTEST_WAIT: Duration = Duration::from_micros(50);
/// Pause after a link had more than is read in one go.
const FLOOD_PAUSE: Duration = Duration::from_millis(1);
/// How long programs are waited for at the end beyond their own timeouts.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// How long the addresses of a group cannot all be added before another node is to take it: tried a second time, at the least.
const FAILS_AFTER: Duration = Duration::from_millis(takeover::RETRY.as_millis() as u64 / 2);

/// What a program was run for.
#[derive(Clone, Debug)]
enum Purpose {
    Role(Run),
    Fence(String),
    Fitness(usize),
}

/// Addresses that adverts are sent from.
type Sources = (Option<Ipv4Addr>, Option<Ipv6Addr>);

/// A running node.
pub(super) struct Running<O: Observer> {
    config: Arc<Config>,
    keyring: Keyring,
    machine: Machine,
    receiver: auth::Receiver,
    warnings: Warnings,
    /// Adverts that were not believed, by link and reason.
    wrong_adverts: Vec<BTreeMap<String, u64>>,
    links: Vec<Link>,
    /// What the machine was told of each link's addresses.
    sources: Vec<Sources>,
    takeover: Takeover<Kernel>,
    takeover_faults: Vec<Option<String>>,
    /// Since when the addresses of a group could not all be added.
    failing_since: Vec<Option<Duration>>,
    /// What came of adding them, by group, for the machine.
    came_of_adding: Vec<(usize, Option<String>)>,
    fitness: Fitness,
    /// What others than this node's own checks say against it.
    unfit: BTreeMap<String, String>,
    /// As it is at the start.
    filled: Filled,
    told_verdict: Option<Verdict>,
    /// Groups whose interface is not there.
    lacking: Vec<bool>,
    watch: Watch,
    interfaces: BTreeMap<u32, LinkState>,
    runner: Runner<Purpose>,
    orders: Receiver<Order>,
    wake: Arc<EventFd>,
    realtime: Vec<String>,
    observer: O,
    /// A link had more than is read in one go.
    is_flooded: bool,
    is_stopped: bool,
    /// Programs are not waited for.
    is_hurried: bool,
}

impl<O: Observer> Running<O> {
    pub(super) fn new(
        start: Start<O>,
        orders: Receiver<Order>,
        wake: Arc<EventFd>,
    ) -> Result<Self, NodeError> {
        let failed = |what| move |source| NodeError::Kernel { what, source };
        let config = start.config;
        let kernel = Kernel::open(start.mark).map_err(failed("open sockets for addresses"))?;
        let mut takeover = Takeover::new(kernel, movables(&config));
        for left in takeover.clean()? {
            tracing::warn!("removed what an earlier run left behind: {left}");
        }
        let watch = Watch::start().map_err(failed("follow the network's interfaces"))?;
        let runner = Runner::new().map_err(failed("prepare for programs"))?;
        let virtual_ones: Vec<IpAddr> = config
            .groups
            .iter()
            .flat_map(|group| &group.addresses)
            .map(ipnet::IpNet::addr)
            .collect();
        let links: Vec<Link> = config
            .links
            .iter()
            .map(|link| Link::new(link.clone(), virtual_ones.clone()))
            .collect();
        let realtime = vec![realtime::lock(start.lock), realtime::schedule()];
        for said in &realtime {
            tracing::info!("{said}");
        }
        let others = config.nodes.iter().map(String::as_str);
        let own = (config.node.as_str(), start.incarnation);
        let now = clock::now();
        Ok(Self {
            receiver: auth::Receiver::new(start.keyring.clone(), own, others, links.len()),
            warnings: Warnings::default(),
            keyring: start.keyring,
            machine: Machine::new(Arc::clone(&config), start.incarnation, now)
                .knowing(&start.silent),
            wrong_adverts: vec![BTreeMap::new(); links.len()],
            sources: vec![(None, None); links.len()],
            links,
            takeover,
            takeover_faults: vec![None; config.groups.len()],
            failing_since: vec![None; config.groups.len()],
            came_of_adding: Vec::new(),
            fitness: Fitness::new(&config.fitness),
            unfit: start.unfit.into_iter().collect(),
            filled: start.filled,
            told_verdict: None,
            lacking: vec![false; config.groups.len()],
            watch,
            interfaces: BTreeMap::new(),
            runner,
            orders,
            wake,
            realtime,
            observer: start.observer,
            is_flooded: false,
            is_stopped: false,
            is_hurried: false,
            config,
        })
    }

    pub(super) fn run(mut self) {
        // What it waits for, carriers and links are known before the machine decides anything.
        let filled = std::mem::take(&mut self.filled);
        self.input(Input::Filled(filled));
        self.network(clock::now());
        self.step_links(clock::now());
        self.check();
        while !self.is_stopped {
            self.wait();
            // First of all: after a freeze it says that this node no longer serves.
            self.input(Input::Tick);
            self.network(clock::now());
            self.hear();
            self.orders();
            self.programs();
            self.step_links(clock::now());
            self.check();
            let now = clock::now();
            for outcome in self.takeover.step(now) {
                self.came_of_it(outcome);
            }
            for (group, why) in std::mem::take(&mut self.came_of_adding) {
                self.input(Input::Failing { group, why });
            }
        }
        self.end();
    }

    fn wait(&mut self) {
        if std::mem::take(&mut self.is_flooded) {
            // Anybody can send anything. With real-time priority, reading it all would keep everybody else from working.
            std::thread::sleep(FLOOD_PAUSE);
        }
        let deadlines = [
            Some(self.machine.wake_at()),
            self.takeover.deadline(),
            self.fitness.deadline(),
        ];
        let deadlines = deadlines
            .into_iter()
            .chain(self.links.iter().map(Link::deadline));
        let next = deadlines.flatten().min();
        let left = next.map_or(LONGEST_WAIT, |next| next.saturating_sub(clock::now()));
        let left = if self.watch.is_stale() {
            Duration::ZERO
        } else {
            left.clamp(SHORTEST_WAIT, LONGEST_WAIT)
        };
        let fixed = [self.wake.as_fd(), self.watch.fd(), self.runner.fd()];
        let fds = fixed.into_iter().chain(self.fitness.fds());
        let fds = fds.chain(self.links.iter().flat_map(Link::fds));
        let mut waits: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // Interrupted: one more turn does no harm.
        let _ = ppoll(&mut waits, Some(TimeSpec::from(left)), None);
    }

    /// Has the machine take an input, and does what it says.
    fn input(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.machine.handle(clock::now(), input, &mut actions);
        let mut taken = Vec::new();
        for action in actions {
            self.act(action, &mut taken);
        }
    }

    /// `taken`: groups that have been taken, and so announced, for the same input.
    fn act(&mut self, action: Action, taken: &mut Vec<usize>) {
        let now = clock::now();
        match action {
            Action::Heartbeat(message) => {
                let bytes = self.keyring.seal(&message);
                for number in 0..self.links.len() {
                    let event = self.links[number].send(&bytes, now);
                    self.tell_link(number, event);
                }
            }
            Action::Advertise {
                link,
                group,
                advert,
            } => self.advertise(link, group, &advert, now),
            Action::Take(group) => {
                self.observer.take(group);
                let outcome = self.takeover.take(group, now);
                self.note_fault(group, outcome);
                taken.push(group);
            }
            Action::Release(group) => {
                self.observer.release(group);
                let outcome = self.takeover.release(group, now);
                self.note_fault(group, outcome);
            }
            Action::Announce(group) => {
                if !taken.contains(&group) {
                    self.takeover.announce(group, now);
                }
            }
            Action::Run(run) => self.run_program(run),
            Action::Fence(node) => self.fence(node),
            Action::Lease(until) => self.observer.lease(until),
            Action::Note(note) => {
                log(&note);
                self.observer.note(&note);
            }
            Action::Stopped => self.is_stopped = true,
        }
    }

    fn advertise(&mut self, link: LinkId, group: usize, advert: &Advert, now: Duration) {
        let number = usize::from(link.0);
        let (Some(about), Some(group)) =
            (self.config.links.get(number), self.config.groups.get(group))
        else {
            return;
        };
        let LinkKind::Vrrp(settings) = &about.kind else {
            return;
        };
        let rule = if settings.pseudo_header {
            ChecksumRule::PseudoHeader
        } else {
            ChecksumRule::Packet
        };
        let is_ipv6 = advert.is_ipv6();
        let mac = group
            .virtual_mac
            .then(|| takeover::virtual_mac(advert.vrid, is_ipv6));
        for envelope in self.links[number].envelopes(is_ipv6) {
            let bytes = advert.encode(envelope, rule);
            let event = self.links[number].advertise(envelope, mac, &bytes, now);
            self.tell_link(number, event);
        }
    }

    fn run_program(&mut self, run: Run) {
        let Some(group) = self.config.groups.get(run.group) else {
            return;
        };
        let (program, role) = match run.role {
            Role::Primary => (&group.on_primary, "primary"),
            _ => (&group.on_backup, "backup"),
        };
        let Some(program) = program else {
            return;
        };
        let environment = [
            ("HEARTBEAT_NODE", self.config.node.as_str()),
            ("HEARTBEAT_GROUP", group.name.as_str()),
            ("HEARTBEAT_ROLE", role),
        ];
        self.runner.start(Job {
            order: format!("group {}", group.name),
            command: program.command.clone(),
            environment: owned(&environment),
            timeout: program.timeout,
            tag: Purpose::Role(run),
        });
    }

    fn fence(&mut self, node: String) {
        let Some(fence) = &self.config.fence else {
            return;
        };
        tracing::warn!(node, "fencing a node that is silent");
        let mut command = fence.program.command.clone();
        command.push(node.clone());
        let environment = [
            ("HEARTBEAT_NODE", self.config.node.as_str()),
            ("HEARTBEAT_PEER", node.as_str()),
        ];
        self.runner.start(Job {
            order: format!("fence {node}"),
            command,
            environment: owned(&environment),
            timeout: fence.program.timeout,
            tag: Purpose::Fence(node),
        });
    }

    /// What the kernel says of interfaces and addresses.
    fn network(&mut self, now: Duration) {
        let changes = match self.watch.read() {
            Ok(changes) if changes.is_empty() => return,
            Ok(changes) => changes,
            Err(error) => {
                tracing::warn!(%error, "cannot read what the kernel says of interfaces");
                return;
            }
        };
        // Once for each interface, however much happened there: who adds a thousand addresses must not keep this
        // thread busy a thousand times.
        let mut touched = BTreeSet::new();
        for change in &changes {
            match change {
                Change::All(all) => {
                    let known = std::mem::take(&mut self.interfaces);
                    for link in all {
                        let was_up = known.get(&link.index).is_some_and(|known| known.is_up);
                        touched.insert(link.index);
                        self.interface(link.clone(), was_up, now);
                    }
                }
                Change::Link(link) => {
                    let known = self.interfaces.get(&link.index);
                    let was_up = known.is_some_and(|known| known.is_up);
                    touched.insert(link.index);
                    self.interface(link.clone(), was_up, now);
                }
                Change::LinkGone { index } => {
                    self.interfaces.remove(index);
                }
                Change::AddressGone { index, address } => {
                    touched.insert(*index);
                    self.takeover.address_gone(*index, *address, now);
                }
                Change::AddressNew { index } => {
                    touched.insert(*index);
                }
            }
        }
        let names = touched
            .iter()
            .filter_map(|index| self.interfaces.get(index));
        for interface in names {
            for link in &mut self.links {
                link.interface_changed(&interface.name, interface.index, now);
            }
        }
        self.fitness.network(&changes);
    }

    fn interface(&mut self, link: LinkState, was_up: bool, now: Duration) {
        if link.is_up && !was_up {
            self.takeover.interface_up(&link.name, now);
        }
        self.interfaces.insert(link.index, link);
    }

    fn hear(&mut self) {
        for number in 0..self.links.len() {
            let (heard, event) = self.links[number].receive(clock::now());
            self.tell_link(number, event);
            self.is_flooded |= self.links[number].has_more();
            // Links are numbered by a byte.
            let link = LinkId(number as u8);
            for received in heard {
                self.take(link, &received);
            }
        }
    }

    fn take(&mut self, link: LinkId, received: &Received) {
        let (Some(from), Some(to)) = (received.from, received.to) else {
            match self.receiver.receive(link, &received.bytes) {
                Ok(message) => self.input(Input::Heartbeat { link, message }),
                Err(reject) => self.refused(link, reject, &received.bytes),
            }
            return;
        };
        match Advert::decode(&received.bytes, Envelope { from, to }) {
            Ok(advert) => self.input(Input::Advert { link, from, advert }),
            Err(error) => {
                let wrong = &mut self.wrong_adverts[usize::from(link.0)];
                *wrong.entry(kind(&error).to_owned()).or_default() += 1;
            }
        }
    }

    fn refused(&mut self, link: LinkId, reject: auth::Reject, bytes: &[u8]) {
        let claimed = auth::Receiver::claimed(bytes);
        let (now, config) = (clock::now(), &self.config);
        if let Some(said) = self.warnings.refused(now, config, link, reject, claimed) {
            tracing::warn!("{said}");
        }
    }

    fn orders(&mut self) {
        let _ = self.wake.read();
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Operator(command, scope, answer) => {
                    let refusal = self.machine.refusal(command, &scope);
                    let asked = scope.clone();
                    self.input(Input::Operator { command, scope });
                    let delay = self.machine.delay(command, &asked);
                    // Who asked may have gone.
                    let _ = answer.send(refusal.map_or(Ok(delay), Err));
                }
                Order::Unfit(source, Some(why)) => {
                    self.unfit.insert(source, why);
                }
                Order::Unfit(source, None) => {
                    self.unfit.remove(&source);
                }
                Order::Fill(filled) => self.input(Input::Filled(filled)),
                Order::Keys(keyring) => {
                    self.receiver.follow(keyring.clone());
                    self.keyring = keyring;
                }
                Order::Ask(answer) => {
                    // Who asked may have gone.
                    let _ = answer.send(self.snapshot());
                }
                Order::Recall(answer) => {
                    let _ = answer.send(self.machine.silent());
                }
                Order::Stop => self.input(Input::Stop),
                Order::StopNow => {
                    // Where it is stopping already, this changes nothing.
                    self.input(Input::Stop);
                    self.is_stopped = true;
                    self.is_hurried = true;
                }
            }
        }
    }

    fn programs(&mut self) {
        for ended in self.runner.ended() {
            match ended.job.tag.clone() {
                Purpose::Fitness(nth) => {
                    self.fitness.ended(nth, &ended);
                }
                Purpose::Role(run) => {
                    let name = self.config.groups.get(run.group).map(|group| &group.name);
                    let what = format!("program of group {}", name.map_or("", String::as_str));
                    tell_program(&what, &ended);
                }
                Purpose::Fence(node) => {
                    tell_program(&format!("fencing of {node}"), &ended);
                    let result = match ended.outcome {
                        Outcome::Succeeded => FenceResult::Done,
                        _ => FenceResult::Failed,
                    };
                    self.input(Input::Fenced { node, result });
                }
            }
        }
    }

    fn step_links(&mut self, now: Duration) {
        for number in 0..self.links.len() {
            let event = self.links[number].step(now);
            self.tell_link(number, event);
            let sources = self.links[number].sources();
            if sources != self.sources[number] {
                self.sources[number] = sources;
                let (v4, v6) = sources;
                let link = LinkId(number as u8);
                self.input(Input::Addresses { link, v4, v6 });
            }
        }
    }

    /// Asks what fitness hangs on, and tells the machine what comes of it.
    fn check(&mut self) {
        for group in 0..self.config.groups.len() {
            let about = &self.config.groups[group];
            let mut interfaces = self.interfaces.values();
            let is_lacking = !interfaces.any(|it| it.name == about.interface);
            if is_lacking != self.lacking[group] {
                self.lacking[group] = is_lacking;
                let why = is_lacking.then(|| format!("there is no interface {}", about.interface));
                self.input(Input::Unable { group, why });
                if !is_lacking {
                    // What another one of this name did not take, this one may.
                    self.came_of_adding.push((group, None));
                }
            }
        }
        let runner = &mut self.runner;
        let node = &self.config.node;
        self.fitness.step(clock::now(), |nth, job| {
            runner.start(Job {
                order: job.order,
                command: job.command,
                environment: owned(&[("HEARTBEAT_NODE", node)]),
                timeout: job.timeout,
                tag: Purpose::Fitness(nth),
            });
        });
        let mut verdict = self.fitness.verdict();
        let others = self
            .unfit
            .iter()
            .map(|(source, why)| format!("{source}: {why}"));
        let reasons: Vec<String> = others.chain(verdict.unfit.take()).collect();
        verdict.unfit = (!reasons.is_empty()).then(|| reasons.join("; "));
        if self.told_verdict.as_ref() != Some(&verdict) {
            self.told_verdict = Some(verdict.clone());
            let Verdict { lowers, unfit } = verdict;
            tracing::info!(lowers, unfit = unfit.as_deref(), "fitness of this node");
            self.input(Input::Fitness { lowers, unfit });
        }
    }

    fn came_of_it(&mut self, outcome: takeover::Outcome) {
        match outcome {
            takeover::Outcome::Taken { group } | takeover::Outcome::Released { group } => {
                self.note_fault(group, Ok(()));
            }
            takeover::Outcome::Failed { group, error } => self.note_fault(group, Err(error)),
        }
    }

    /// Notes what keeps a group's addresses from being all here, for the machine.
    fn note_adding(&mut self, group: usize, outcome: &Result<(), TakeoverError>) {
        let Some(since) = self.failing_since.get_mut(group) else {
            return;
        };
        if !self.takeover.is_wanted(group) {
            *since = None;
            return;
        }
        match outcome {
            Ok(()) => {
                *since = None;
                self.came_of_adding.push((group, None));
            }
            // Then this node is not fit for the group.
            Err(TakeoverError::NoInterface { .. }) => {}
            Err(error) => {
                let now = clock::now();
                if now >= *since.get_or_insert(now) + FAILS_AFTER {
                    self.came_of_adding.push((group, Some(error.to_string())));
                }
            }
        }
    }

    /// Logs what is wrong with a group's addresses once, not at every try.
    fn note_fault(&mut self, group: usize, outcome: Result<(), TakeoverError>) {
        self.note_adding(group, &outcome);
        let Some(known) = self.takeover_faults.get_mut(group) else {
            return;
        };
        let fault = outcome.err().map(|error| error.to_string());
        if *known != fault {
            match &fault {
                Some(fault) => tracing::error!("{fault}"),
                None => tracing::info!(
                    group = self.config.groups[group].name,
                    "its addresses are as they should be"
                ),
            }
            *known = fault;
        }
    }

    fn tell_link(&self, number: usize, event: Option<Event>) {
        let link = self.config.link_name(LinkId(number as u8));
        match event {
            None => {}
            Some(Event::Works) => tracing::info!(link, "the link works"),
            Some(Event::Broken(why)) => tracing::error!(link, "the link does not work: {why}"),
        }
    }

    fn snapshot(&self) -> Snapshot {
        let links = self.links.iter().enumerate().map(|(number, link)| {
            let refused = self.receiver.refused(LinkId(number as u8)).into_iter();
            let refused = refused.map(|(reject, count)| (reject.to_string(), count));
            LinkReport {
                link: self.config.link_name(LinkId(number as u8)).to_owned(),
                fault: link.fault().map(str::to_owned),
                counters: link.counters(),
                not_believed: refused.chain(self.wrong_adverts[number].clone()).collect(),
            }
        });
        let groups = self.config.groups.iter().enumerate();
        let takeover = groups.map(|(group, about)| TakeoverReport {
            group: about.name.clone(),
            is_held: self.takeover.is_held(group),
            fault: self.takeover_faults[group].clone(),
        });
        Snapshot {
            status: self.machine.status(),
            warnings: self.warnings.recent(clock::now()),
            links: links.collect(),
            fitness: self.fitness.checks().to_vec(),
            takeover: takeover.collect(),
            announcements_unsent: self.takeover.unsent(),
            realtime: self.realtime.clone(),
        }
    }

    /// The others know that this node has stopped. What is left: macvlans, and programs that run.
    fn end(&mut self) {
        let mut now = clock::now();
        for outcome in self.takeover.finish(now) {
            self.came_of_it(outcome);
        }
        let timeouts = self.config.groups.iter().flat_map(|group| {
            let programs = [&group.on_primary, &group.on_backup].into_iter().flatten();
            programs.map(|program| program.timeout)
        });
        let until = now + timeouts.max().unwrap_or_default() * 2 + LAST_WAIT;
        while !self.has_ended() && !self.is_hurried && now < until {
            let fds = [self.runner.fd(), self.wake.as_fd()];
            let mut waits = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            let _ = ppoll(&mut waits, Some(TimeSpec::from(until - now)), None);
            // Operators who ask how it is are not kept waiting.
            self.orders();
            for ended in self.runner.ended() {
                if let Purpose::Role(_) = ended.job.tag {
                    tell_program("program at the end", &ended);
                }
            }
            now = clock::now();
        }
    }

    fn has_ended(&self) -> bool {
        !self
            .runner
            .has(|purpose| matches!(purpose, Purpose::Role(_)))
    }
}

/// However the thread ends, it holds nothing afterwards: nobody would say that this node serves.
impl<O: Observer> Drop for Running<O> {
    fn drop(&mut self) {
        for group in 0..self.config.groups.len() {
            if self.takeover.is_wanted(group) {
                self.observer.release(group);
            }
        }
        for outcome in self.takeover.finish(clock::now()) {
            self.came_of_it(outcome);
        }
    }
}

fn movables(config: &Config) -> impl Iterator<Item = Movable> {
    config.groups.iter().map(|group| Movable {
        name: group.name.clone(),
        interface: group.interface.clone(),
        addresses: group.addresses.clone(),
        virtual_mac: group.vrid.filter(|_| group.virtual_mac),
        announce: takeover::Announce {
            count: u32::from(group.announce.count),
            interval: group.announce.interval,
            refresh: group.announce.refresh,
        },
    })
}

/// What is wrong with adverts, without numbers: there are only so many kinds.
fn kind(error: &VrrpError) -> &'static str {
    match error {
        VrrpError::Short { .. } => "VRRP: cut short",
        VrrpError::Long(_) => "VRRP: too long",
        VrrpError::Version(_) => "VRRP: another version",
        VrrpError::Type(_) => "VRRP: another type",
        VrrpError::VersionOverIpv6 => "VRRP: version 2 over IPv6",
        VrrpError::Checksum => "VRRP: wrong checksum",
        VrrpError::VirtualRouter => "VRRP: virtual router 0",
        VrrpError::Authentication(_) => "VRRP: unknown authentication",
        VrrpError::Addresses(_) => "VRRP: wrong number of addresses",
        VrrpError::Interval => "VRRP: interval of 0",
        VrrpError::Family => "VRRP: addresses of another family",
    }
}

fn owned(environment: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = environment.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn tell_program<T>(what: &str, ended: &Ended<T>) {
    let (outcome, said) = (&ended.outcome, ended.shown());
    let program = ended.job.command.join(" ");
    if ended.outcome == Outcome::Succeeded {
        tracing::info!(program, said, "{what}: {outcome}");
    } else {
        tracing::error!(program, said, "{what}: {outcome}");
    }
}

/// Whether the node served the group, or stood by for it, before or after.
fn takes_part(change: &Transition) -> bool {
    let is_part = |role| matches!(role, Role::Primary | Role::Backup);
    is_part(change.from) || is_part(change.to)
}

fn log(note: &Note) {
    match note {
        // Who starts is not fit at first, and has had no part in the group yet.
        Note::Transition(transition) if !takes_part(transition) => tracing::info!(
            group = transition.group,
            from = ?transition.from,
            to = ?transition.to,
            "{}",
            transition.reason
        ),
        Note::Transition(transition) => tracing::warn!(
            group = transition.group,
            from = ?transition.from,
            to = ?transition.to,
            "{}",
            transition.reason
        ),
        Note::Alert(alert @ (Alert::NodeAlive(_) | Alert::LinkBack { .. })) => {
            tracing::info!("{alert}");
        }
        Note::Alert(alert) => tracing::warn!("{alert}"),
    }
}
