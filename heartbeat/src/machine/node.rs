//! The machine: what happens to a node, in, and what it is to do, out.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::decide::{self, Circumstances, Decision, Other, Own, Rank, Why};
use super::peers::{self, Fencing, Peer};
use super::routers::{self, OWNER, Router};
use super::types::{
    Action, Alert, Command, FenceResult, Filled, Input, LinkId, Note, PeerState, Reason, Role, Run,
    Scope, Transition,
};
use super::unit::{Last, Unit};
use crate::config::{AutoFailback, Config};
use crate::wire::message::{GroupState, Message, NameId, NodeState};
use crate::wire::vrrp::Advert;

/// Transitions that are remembered.
pub const HISTORY: usize = 256;
/// How long after a failed fencing that is required it is tried again.
const FENCE_AGAIN: Duration = Duration::from_secs(30);
/// Copies of the message that says that a node leaves.
const FAREWELLS: u8 = 3;

/// How far the node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// After its start: until then, or until all others were heard.
    Starting(Duration),
    /// After it stood still: until then.
    Listening(Duration),
    Running,
    /// It said so many times that it leaves, and will again at this time.
    Leaving(u8, Duration),
    Stopped,
}

/// One node's failover rules.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(super) config: Arc<Config>,
    pub(super) incarnation: u64,
    pub(super) peers: Vec<Peer>,
    pub(super) units: Vec<Unit>,
    pub(super) routers: Vec<Router>,
    pub(super) history: VecDeque<Transition>,
    pub(super) lowers: u16,
    pub(super) filled: Filled,
    /// Until then it is waited for.
    fill_until: Duration,
    pub(super) unfit: Option<String>,
    pub(super) now: Duration,
    pub(super) lease_until: Duration,
    group_ids: Vec<NameId>,
    own: usize,
    sequence: u64,
    stage: Stage,
    wake_at: Duration,
    next_heartbeat: Duration,
    /// The groups' states in the last heartbeat: what is new is told at once.
    told: Vec<GroupState>,
}

impl Machine {
    /// A node that starts now. The incarnation must be greater than at any start before.
    #[must_use]
    pub fn new(config: Arc<Config>, incarnation: u64, now: Duration) -> Self {
        let own = config.nodes.iter().position(|node| *node == config.node);
        let peers = config.nodes.iter().enumerate();
        let peers = peers.filter(|(index, _)| Some(*index) != own);
        let units = config.units.iter().map(|groups| {
            // The configuration has the same priorities for groups that move together.
            let priorities = groups.iter().filter_map(|group| config.groups.get(*group));
            let base = priorities
                .filter_map(|group| group.priorities.get(&config.node))
                .min();
            Unit::new(groups.clone(), base.copied().unwrap_or(0), now)
        });
        let mut machine = Self {
            incarnation,
            peers: peers
                .map(|(index, name)| Peer::new(&config, index, name))
                .collect(),
            units: units.collect(),
            routers: Router::all(&config),
            history: VecDeque::new(),
            lowers: 0,
            filled: Filled::default(),
            fill_until: now + config.failback_limit,
            unfit: Some("its fitness is not known yet".to_owned()),
            now,
            lease_until: now + config.lease(),
            group_ids: config
                .groups
                .iter()
                .map(|group| NameId::of(&group.name))
                .collect(),
            own: own.unwrap_or(config.nodes.len()),
            sequence: 0,
            stage: Stage::Starting(now + config.timing.initdead),
            wake_at: now,
            next_heartbeat: now,
            told: vec![GroupState::default(); config.groups.len()],
            config,
        };
        // Without own heartbeats there is nobody to wait for but foreign routers.
        if !machine.config.has_own_links() {
            machine.peers.clear();
        }
        for index in 0..machine.units.len() {
            // RFC 9568 section 6.4.1: the owner asks nobody.
            if machine.units[index].base != OWNER {
                machine.wait_for_routers(index);
            }
        }
        machine
    }

    /// When the machine is to be given [`Input::Tick`] if nothing else happens before.
    #[must_use]
    pub fn wake_at(&self) -> Duration {
        self.wake_at
    }

    /// Takes an input and gives what is to be done, in this order.
    pub fn handle(&mut self, now: Duration, input: Input, actions: &mut Vec<Action>) {
        if self.stage == Stage::Stopped {
            return;
        }
        let now = now.max(self.now);
        self.stood_still(now, actions);
        self.now = now;
        self.give_up_waiting(actions);
        self.take(input, actions);
        self.watch(actions);
        self.advance(actions);
        self.decide(actions);
        self.send(actions);
        self.plan();
    }

    // ---- What happened ----

    /// A node that did not run does not know what the others did meanwhile. Its lease has ended: others may serve.
    fn stood_still(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let still = now - self.now;
        if now <= self.lease_until {
            // What the others sent meanwhile may still stand in the sockets: that this node is late does not make them so.
            let late = now.saturating_sub(self.wake_at);
            if late > self.config.timing.keepalive / 2 {
                for peer in &mut self.peers {
                    peer.heard_at = (peer.heard_at + late).min(now);
                }
            }
            return;
        }
        actions.push(Action::Note(Note::Alert(Alert::StoodStill(still))));
        self.now = now;
        for peer in self.peers.iter_mut().filter(|peer| peer.is_alive()) {
            peer.heard_at = now;
            peer.unheard_since = None;
        }
        self.stage = match self.stage {
            Stage::Starting(until) => Stage::Starting(until.max(now + self.config.timing.listen())),
            Stage::Listening(_) | Stage::Running => {
                Stage::Listening(now + self.config.timing.listen())
            }
            stage @ (Stage::Leaving(..) | Stage::Stopped) => stage,
        };
        for unit in 0..self.units.len() {
            self.units[unit].is_forced = false;
            if matches!(self.units[unit].role, Role::Primary | Role::Backup) {
                self.change(unit, Role::Listening, Reason::Thawed(still), actions);
                self.units[unit].vacant_since = None;
                self.units[unit].ready_since = None;
                self.wait_for_routers(unit);
            }
        }
    }

    fn take(&mut self, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Tick => {}
            Input::Heartbeat { link, message } => {
                let mut alerts = Vec::new();
                let (config, own) = (Arc::clone(&self.config), self.own);
                let from = (link, &message);
                peers::hear(
                    &mut self.peers,
                    self.now,
                    &config,
                    own,
                    &self.group_ids,
                    from,
                    &mut alerts,
                );
                tell(alerts, actions);
            }
            Input::Advert { link, from, advert } => self.take_advert(link, from, &advert, actions),
            Input::Addresses { link, v4, v6 } => {
                for router in self.routers.iter_mut().filter(|router| router.link == link) {
                    router.address = if router.is_ipv6 {
                        v6.map(IpAddr::V6)
                    } else {
                        v4.map(IpAddr::V4)
                    };
                }
            }
            Input::Fitness { lowers, unfit } => {
                self.lowers = lowers;
                self.unfit = unfit;
            }
            Input::Filled(filled) => self.fill(filled, actions),
            Input::Operator { command, scope } => self.order(command, &scope, actions),
            Input::Fenced { node, result } => {
                if let Some(peer) = self.peers.iter_mut().find(|peer| peer.name == node) {
                    peer.fence = match result {
                        FenceResult::Done => Fencing::Done,
                        FenceResult::Failed => Fencing::Failed(self.now),
                    };
                    if result == FenceResult::Failed {
                        actions.push(Action::Note(Note::Alert(Alert::FenceFailed(node))));
                    }
                }
            }
            Input::Stop => self.stop(actions),
        }
    }

    fn take_advert(
        &mut self,
        link: LinkId,
        from: IpAddr,
        advert: &Advert,
        actions: &mut Vec<Action>,
    ) {
        let is_meant = |router: &Router| {
            router.link == link
                && router.vrid == advert.vrid
                && router.version == advert.version
                && router.is_ipv6 == advert.is_ipv6()
        };
        let Some(position) = self.routers.iter().position(is_meant) else {
            return;
        };
        // A node of ours is judged by its heartbeats; its advert is a sign of life.
        if let Some(peer) = self
            .peers
            .iter_mut()
            .find(|peer| peer.addresses.contains(&from))
        {
            let mut alerts = Vec::new();
            peer.is_heard_on(self.now, link, &self.config, &mut alerts);
            if advert.priority > 0 && peer.is_alive() {
                peer.is_heard(self.now, &mut alerts);
            }
            tell(alerts, actions);
            return;
        }
        let group = self.routers[position].group;
        let Some(unit) = self
            .units
            .iter()
            .position(|unit| unit.groups.contains(&group))
        else {
            return;
        };
        let is_primary = self.units[unit].is_primary();
        let priority = self.priority_in_vrrp(unit);
        let preempts = self.preempts(unit);
        let now = self.now;
        let router = &mut self.routers[position];
        match router.hear(now, from, advert, (is_primary, priority, preempts)) {
            routers::Heard::Nothing | routers::Heard::GoesBefore => {}
            routers::Heard::MustYield => {
                router.next_advert = now;
                if advert.priority > 0 {
                    self.foreign_split(unit, from, advert, actions);
                }
            }
            routers::Heard::Released => {
                if let Last::Foreign(address) = self.units[unit].last_primary
                    && address == from
                {
                    self.units[unit].last_primary = Last::ForeignReleased(from);
                }
            }
        }
    }

    /// A foreign router is primary too and has to yield.
    fn foreign_split(
        &mut self,
        index: usize,
        from: IpAddr,
        advert: &Advert,
        actions: &mut Vec<Action>,
    ) {
        let over_at = self.now + advert.interval * 3;
        match &mut self.units[index].foreign_split {
            Some((_, until)) => *until = over_at,
            none => {
                *none = Some((from, over_at));
                self.split_begins(index, &from.to_string(), true, actions);
            }
        }
    }

    fn split_begins(&self, unit: usize, other: &str, stays: bool, actions: &mut Vec<Action>) {
        let alert = |group| Alert::SplitBrain {
            group,
            other: other.to_owned(),
            stays,
        };
        self.tell_of_each(unit, alert, actions);
    }

    fn split_is_over(&self, unit: usize, other: &str, actions: &mut Vec<Action>) {
        let alert = |group| Alert::SplitBrainOver {
            group,
            other: other.to_owned(),
        };
        self.tell_of_each(unit, alert, actions);
    }

    /// The same of each group of a unit.
    fn tell_of_each(
        &self,
        unit: usize,
        alert: impl Fn(String) -> Alert,
        actions: &mut Vec<Action>,
    ) {
        let groups = self.units[unit].groups.iter();
        let names = groups.map(|group| self.config.groups[*group].name.clone());
        tell(names.map(alert).collect(), actions);
    }

    fn order(&mut self, command: Command, scope: &Scope, actions: &mut Vec<Action>) {
        for index in 0..self.units.len() {
            let names = self.units[index]
                .groups
                .iter()
                .map(|group| &self.config.groups[*group].name);
            let is_meant = match scope {
                Scope::All => true,
                Scope::Group(group) => names.into_iter().any(|name| name == group),
            };
            if !is_meant || self.units[index].base == 0 {
                continue;
            }
            if let Some(why) = self.unfit.as_ref().filter(|_| command == Command::Takeover) {
                for group in &self.units[index].groups {
                    actions.push(Action::Note(Note::Alert(Alert::TakeoverRefused {
                        group: self.config.groups[*group].name.clone(),
                        why: why.clone(),
                    })));
                }
                continue;
            }
            let unit = &mut self.units[index];
            unit.is_standby = command == Command::Standby;
            unit.is_forced = command == Command::Takeover;
            if command == Command::Standby && unit.is_primary() {
                let groups = unit.groups.clone();
                let is_heir = |peer: &Peer| {
                    peer.is_alive() && groups.iter().all(|group| peer.groups[*group].priority > 0)
                };
                if !self.peers.iter().any(is_heir) && self.routers.is_empty() {
                    for group in groups {
                        let group = self.config.groups[group].name.clone();
                        actions.push(Action::Note(Note::Alert(Alert::NobodyElse(group))));
                    }
                }
            }
        }
    }

    fn stop(&mut self, actions: &mut Vec<Action>) {
        if matches!(self.stage, Stage::Leaving(..)) {
            return;
        }
        for unit in 0..self.units.len() {
            self.change(unit, Role::Stopped, Reason::Stopped, actions);
        }
        self.stage = Stage::Leaving(0, self.now);
    }

    // ---- What the time changes ----

    fn watch(&mut self, actions: &mut Vec<Action>) {
        let mut alerts = Vec::new();
        for peer in &mut self.peers {
            peer.tick(self.now, &self.config, &mut alerts);
        }
        tell(alerts, actions);
    }

    fn advance(&mut self, actions: &mut Vec<Action>) {
        let is_over = match self.stage {
            Stage::Starting(until) => {
                self.now >= until || self.peers.iter().all(|peer| peer.is_alive())
            }
            Stage::Listening(until) => self.now >= until,
            Stage::Running | Stage::Leaving(..) | Stage::Stopped => false,
        };
        if is_over {
            self.stage = Stage::Running;
        }
        if matches!(self.stage, Stage::Leaving(..) | Stage::Stopped) {
            return;
        }
        for unit in 0..self.units.len() {
            let role = self.units[unit].role;
            let is_listening = self.stage != Stage::Running;
            let (to, reason) = match &self.unfit {
                // A primary yields by decision.
                Some(_) if role == Role::Primary => continue,
                Some(why) => {
                    // An order does not come into force hours later.
                    self.units[unit].is_forced = false;
                    (Role::Unfit, Reason::Unfit(why.clone()))
                }
                None if is_listening && role == Role::Unfit => (Role::Listening, Reason::Fit),
                None if role == Role::Listening && !is_listening => (Role::Backup, Reason::Heard),
                None if role == Role::Unfit => (Role::Backup, Reason::Fit),
                None => continue,
            };
            self.change(unit, to, reason, actions);
        }
    }

    // ---- What is decided ----

    fn decide(&mut self, actions: &mut Vec<Action>) {
        if matches!(self.stage, Stage::Leaving(..) | Stage::Stopped) {
            return;
        }
        for unit in 0..self.units.len() {
            let own = self.standing(unit);
            let others = self.others(unit);
            let circumstances = self.circumstances(unit, &own, &others);
            self.remember(unit, &others);
            match decide::decide(own, &others, circumstances) {
                Decision::Stay { split } => self.stay(unit, split, actions),
                Decision::Yield(why) => self.release(unit, why, actions),
                Decision::Claim { idle } => self.claim(unit, idle, actions),
                Decision::Wait {
                    asks, is_vacant, ..
                } => {
                    let unit = &mut self.units[unit];
                    unit.asks = asks;
                    if is_vacant {
                        unit.vacant_since.get_or_insert(self.now);
                    } else {
                        unit.vacant_since = None;
                    }
                }
            }
        }
    }

    fn standing(&self, index: usize) -> Own {
        let unit = &self.units[index];
        Own {
            is_primary: unit.is_primary(),
            is_listening: self.stage != Stage::Running,
            rank: Rank {
                is_forced: unit.is_forced,
                is_not_standby: !unit.is_standby,
                priority: self.priority(index),
                address: self.address(),
                name: Reverse(self.own),
            },
            has_asked: unit.asks,
        }
    }

    /// Of a unit's groups all must be served by whoever serves it, and it is served if any of them is.
    fn others(&self, unit: usize) -> Vec<Other> {
        let groups = &self.units[unit].groups;
        let alive = self
            .peers
            .iter()
            .enumerate()
            .filter(|(_, peer)| peer.is_alive());
        alive
            .filter_map(|(position, peer)| {
                let states = || groups.iter().map(|group| peer.groups[*group]);
                let any = |what: fn(&GroupState) -> bool| states().any(|state| what(&state));
                any(|state| state.is_member).then(|| Other {
                    peer: position,
                    rank: Rank {
                        is_forced: any(|state| state.is_forced),
                        is_not_standby: !any(|state| state.is_standby),
                        priority: states().map(|state| state.priority).min().unwrap_or(0),
                        address: peer.address,
                        name: Reverse(peer.index),
                    },
                    is_primary: any(|state| state.is_primary),
                    wants: any(|state| state.wants),
                    is_lowered: any(|state| state.is_lowered),
                    is_starting: any(|state| state.is_starting),
                    sees_foreign: any(|state| state.sees_foreign),
                    hears_us: peer.alive & 1 << self.own != 0,
                    unheard_since: peer.unheard_since,
                })
            })
            .collect()
    }

    /// What is needed to take groups back is there, or not: told once each.
    fn fill(&mut self, filled: Filled, actions: &mut Vec<Action>) {
        let filled = match filled {
            Filled::Waiting(what) if self.now >= self.fill_until => Filled::GivenUp(what),
            filled => filled,
        };
        // What is waited for may change its words.
        let is_told = std::mem::discriminant(&self.filled) == std::mem::discriminant(&filled);
        if !is_told {
            actions.push(Action::Note(Note::Alert(Alert::MayFailBack(
                filled.clone(),
            ))));
        }
        self.filled = filled;
    }

    /// It has waited long enough.
    fn give_up_waiting(&mut self, actions: &mut Vec<Action>) {
        if let Filled::Waiting(what) = &self.filled
            && self.now >= self.fill_until
        {
            let given_up = Filled::GivenUp(what.clone());
            self.fill(given_up, actions);
        }
    }

    fn circumstances(&mut self, index: usize, own: &Own, others: &[Other]) -> Circumstances {
        let now = self.now;
        let timing = self.config.timing;
        let best_primary = others
            .iter()
            .filter(|other| other.is_primary)
            .map(|other| other.rank)
            .max();
        let unit = &mut self.units[index];
        let is_ready = !own.is_primary
            && !own.is_listening
            && best_primary.is_some_and(|rank| own.rank > rank);
        unit.ready_since = if is_ready {
            unit.ready_since.or(Some(now))
        } else {
            None
        };
        let is_filled = !matches!(self.filled, Filled::Waiting(_));
        let may_fail_back = is_filled
            && match self.config.auto_failback {
                AutoFailback::On => true,
                AutoFailback::Off => false,
                AutoFailback::After(delay) => {
                    unit.ready_since.is_some_and(|since| now >= since + delay)
                }
            };
        let may_ask = now >= unit.held_until(now, &timing);
        let vacant_since = unit.vacant_since;
        let routers = self.routers_of(index);
        let foreign = routers.clone().any(|router| now < router.down_at);
        let hears_foreign = routers.clone().any(|router| router.hears_foreign(now));
        let before = routers.filter_map(|router| router.foreign_now(now));
        Circumstances {
            now,
            deadtime: timing.deadtime,
            patience: timing.patience(),
            vacant_since,
            may_fail_back,
            may_ask,
            foreign,
            hears_foreign,
            foreign_before: before.map(|foreign| foreign.address).next(),
        }
    }

    /// Who is primary, for the reasons of later transitions.
    fn remember(&mut self, index: usize, others: &[Other]) {
        if self.units[index].is_primary() {
            return;
        }
        let primary = others
            .iter()
            .filter(|other| other.is_primary)
            .max_by_key(|other| other.rank);
        if let Some(primary) = primary {
            let incarnation = self.peers[primary.peer].incarnation;
            self.units[index].last_primary = Last::Peer(primary.peer, incarnation);
            return;
        }
        let foreign = self
            .routers_of(index)
            .find_map(|router| router.foreign_now(self.now));
        if let Some(foreign) = foreign
            && self.units[index].last_primary != Last::ForeignReleased(foreign.address)
        {
            self.units[index].last_primary = Last::Foreign(foreign.address);
        }
    }

    fn stay(&mut self, index: usize, split: Option<usize>, actions: &mut Vec<Action>) {
        let unit = &mut self.units[index];
        unit.asks = false;
        // Who it began with stands for all who are primary at the same time.
        let before = unit.split;
        unit.split = split.and(before.or(split));
        let now = self.now;
        let foreign = unit.foreign_split.take_if(|(_, until)| now >= *until);
        match (before, split) {
            (None, Some(peer)) => {
                self.split_begins(index, &self.peers[peer].name, true, actions);
            }
            (Some(peer), None) => self.split_is_over(index, &self.peers[peer].name, actions),
            (None, None) | (Some(_), Some(_)) => {}
        }
        if let Some((address, _)) = foreign {
            self.split_is_over(index, &address.to_string(), actions);
        }
        if foreign.is_some() || (before.is_some() && split.is_none()) {
            let groups = self.units[index].groups.iter();
            actions.extend(groups.map(|group| Action::Announce(*group)));
        }
    }

    fn release(&mut self, index: usize, why: Why, actions: &mut Vec<Action>) {
        let name = |peer: usize| self.peers[peer].name.clone();
        let reason = match why {
            Why::Unfit => Reason::Unfit(self.unfit.clone().unwrap_or_default()),
            Why::SplitBrain(peer) => Reason::SplitBrain(name(peer)),
            Why::Unheard(peer) => Reason::Unheard(name(peer)),
            Why::Foreign(address) => Reason::Foreign(address),
            Why::HandedOver(peer) => Reason::HandedOver(name(peer)),
        };
        if let Why::SplitBrain(peer) | Why::Unheard(peer) = why {
            let before = self.units[index].split.replace(peer);
            if let Some(before) = before.filter(|before| *before != peer) {
                self.split_is_over(index, &self.peers[before].name, actions);
            }
            // The change that follows is its end.
            self.split_begins(index, &self.peers[peer].name, false, actions);
        }
        let role = if why == Why::Unfit {
            Role::Unfit
        } else {
            Role::Backup
        };
        self.change(index, role, reason, actions);
        self.units[index].is_forced = false;
        if self.peers.is_empty() {
            self.wait_for_routers(index);
        }
    }

    fn claim(&mut self, index: usize, idle: Option<usize>, actions: &mut Vec<Action>) {
        if !self.is_fenced(index, actions) {
            self.units[index].vacant_since.get_or_insert(self.now);
            return;
        }
        let name = |peer: usize| self.peers[peer].name.clone();
        let reason = match (self.units[index].last_primary, idle) {
            (_, Some(better)) => Reason::BetterIdle(name(better)),
            _ if self.units[index].base == OWNER => Reason::Owner,
            (Last::Nobody, _) => Reason::Best,
            (Last::Peer(peer, _), _) if self.peers[peer].state == PeerState::Dead => {
                Reason::PrimaryDead(name(peer))
            }
            (Last::Peer(peer, incarnation), _) if self.peers[peer].incarnation != incarnation => {
                Reason::PrimaryRestarted(name(peer))
            }
            (Last::Peer(peer, _), _) => Reason::PrimaryReleased(name(peer)),
            (Last::Foreign(address), _) => {
                let mut foreign = self.routers_of(index).filter_map(|router| router.foreign);
                let is_heard = foreign
                    .any(|foreign| self.now < foreign.heard_at + self.config.timing.deadtime);
                if is_heard {
                    Reason::ForeignPreempted(address)
                } else {
                    Reason::ForeignSilent(address)
                }
            }
            (Last::ForeignReleased(address), _) => Reason::ForeignReleased(address),
        };
        self.change(index, Role::Primary, reason, actions);
    }

    /// Whether the primary that died is fenced, if it has to be. Asks for it.
    fn is_fenced(&mut self, index: usize, actions: &mut Vec<Action>) -> bool {
        let Some(fence) = &self.config.fence else {
            return true;
        };
        let Last::Peer(peer, _) = self.units[index].last_primary else {
            return true;
        };
        let peer = &mut self.peers[peer];
        let was_primary = self.units[index]
            .groups
            .iter()
            .any(|group| peer.groups[*group].is_primary);
        if peer.state != PeerState::Dead || !was_primary {
            return true;
        }
        let is_due = match peer.fence {
            Fencing::Done => return true,
            Fencing::Failed(_) if !fence.required => return true,
            Fencing::Failed(at) => self.now >= at + FENCE_AGAIN,
            Fencing::Not => true,
            Fencing::Running => false,
        };
        if is_due {
            peer.fence = Fencing::Running;
            actions.push(Action::Fence(peer.name.clone()));
        }
        false
    }

    /// A unit's new role, and all that goes with it, in order: a primary releases before it says so.
    fn change(&mut self, index: usize, to: Role, reason: Reason, actions: &mut Vec<Action>) {
        let now = self.now;
        let unit = &mut self.units[index];
        let from = unit.role;
        if from == to {
            return;
        }
        let (split, foreign_split) = (unit.split.take(), unit.foreign_split.take());
        let groups = unit.groups.clone();
        if from == Role::Primary {
            unit.lost(now);
            // After standing still it says nothing: the others have decided meanwhile.
            let is_for_nobody = matches!(
                reason,
                Reason::Unfit(_) | Reason::Stopped | Reason::Operator(_)
            );
            actions.extend(groups.iter().map(|group| Action::Release(*group)));
            if is_for_nobody {
                for router in self
                    .routers
                    .iter()
                    .filter(|router| groups.contains(&router.group))
                {
                    actions.push(Action::Advertise {
                        link: router.link,
                        group: router.group,
                        advert: router.advert(0),
                    });
                }
            }
        }
        // Whoever else is primary is no longer so beside this node.
        if let Some(peer) = split {
            self.split_is_over(index, &self.peers[peer].name, actions);
        }
        if let Some((address, _)) = foreign_split {
            self.split_is_over(index, &address.to_string(), actions);
        }
        let unit = &mut self.units[index];
        unit.role = to;
        unit.since = now;
        unit.reason = reason.clone();
        unit.asks = false;
        unit.vacant_since = None;
        unit.ready_since = None;
        let unit_role = if to == Role::Primary {
            Role::Primary
        } else {
            Role::Backup
        };
        // A node that starts has no role until it heard the others.
        let is_known = to != Role::Listening || unit.program.is_some();
        let program = Some(unit_role).filter(|role| is_known && unit.program != Some(*role));
        unit.program = program.or(unit.program);
        if to == Role::Primary {
            // The lease is there before anything is served.
            self.lease_until = now + self.config.lease();
            actions.push(Action::Lease(self.lease_until));
            for router in self
                .routers
                .iter_mut()
                .filter(|router| groups.contains(&router.group))
            {
                router.becomes_primary(now);
            }
            for group in &groups {
                actions.push(Action::Take(*group));
                actions.push(Action::Announce(*group));
            }
        }
        for group in groups {
            let transition = Transition {
                at: now,
                group: self.config.groups[group].name.clone(),
                from,
                to,
                reason: reason.clone(),
            };
            if self.history.len() == HISTORY {
                self.history.pop_front();
            }
            self.history.push_back(transition.clone());
            actions.push(Action::Note(Note::Transition(transition)));
            if program.is_some() {
                actions.push(Action::Run(Run {
                    group,
                    role: unit_role,
                }));
            }
        }
    }

    // ---- What is told ----

    fn send(&mut self, actions: &mut Vec<Action>) {
        if let Stage::Leaving(sent, at) = self.stage {
            if self.now < at {
                return;
            }
            if sent == FAREWELLS {
                self.stage = Stage::Stopped;
                actions.push(Action::Stopped);
                return;
            }
            self.stage = Stage::Leaving(sent + 1, self.now + self.config.timing.keepalive / 5);
            self.heartbeat(actions);
            return;
        }
        let states = self.states();
        if self.now >= self.next_heartbeat || states != self.told {
            self.next_heartbeat = self.now + self.config.timing.keepalive;
            self.told = states;
            self.heartbeat(actions);
        }
        for position in 0..self.routers.len() {
            let group = self.routers[position].group;
            let unit = self
                .units
                .iter()
                .position(|unit| unit.groups.contains(&group));
            let Some(unit) = unit.filter(|unit| self.units[*unit].is_primary()) else {
                continue;
            };
            let priority = self.priority_in_vrrp(unit);
            let router = &mut self.routers[position];
            if let Some(advert) = router.due(self.now, priority) {
                let link = router.link;
                actions.push(Action::Advertise {
                    link,
                    group,
                    advert,
                });
            }
        }
        self.lease_until = self.now + self.config.lease();
        if self.units.iter().any(Unit::is_primary) {
            actions.push(Action::Lease(self.lease_until));
        }
    }

    fn heartbeat(&mut self, actions: &mut Vec<Action>) {
        if !self.config.has_own_links() {
            return;
        }
        self.sequence += 1;
        let news = |peer: &&Peer| peer.is_news(self.now, &self.config.timing);
        let alive: Vec<&Peer> = self.peers.iter().filter(news).collect();
        let position = |index: usize| match index == self.own {
            true => Some(0),
            false => alive
                .iter()
                .position(|peer| peer.index == index)
                .map(|position| position + 1),
        };
        let mask = |alive: u16| {
            let indexes = (0..self.config.nodes.len()).filter(|index| alive & 1 << index != 0);
            indexes
                .filter_map(position)
                .fold(0, |mask, position| mask | 1 << position)
        };
        let others = alive.iter().map(|peer| NodeState {
            node: peer.id,
            incarnation: peer.incarnation,
            sequence: peer.sequence,
            address: peer.address,
            alive: mask(peer.alive),
            groups: peer.groups.clone(),
        });
        let addresses = self.routers.iter().filter_map(|router| router.address);
        let mut addresses: Vec<IpAddr> = addresses.collect();
        addresses.sort_unstable();
        addresses.dedup();
        actions.push(Action::Heartbeat(Message {
            addresses,
            is_leaving: matches!(self.stage, Stage::Leaving(..)),
            groups: self.group_ids.clone(),
            sender: NodeState {
                node: self
                    .config
                    .nodes
                    .get(self.own)
                    .map_or(NameId(0), |name| NameId::of(name)),
                incarnation: self.incarnation,
                sequence: self.sequence,
                address: self.address(),
                alive: (1 << (alive.len() + 1)) - 1,
                groups: self.states(),
            },
            others: others.collect(),
        }));
    }

    /// This node's states of all groups.
    fn states(&self) -> Vec<GroupState> {
        let mut states = vec![GroupState::default(); self.config.groups.len()];
        for (index, unit) in self.units.iter().enumerate() {
            let priority = self.priority(index);
            let state = GroupState {
                priority,
                is_primary: unit.is_primary(),
                wants: unit.asks,
                is_forced: unit.is_forced,
                is_lowered: priority < unit.base,
                is_standby: unit.is_standby,
                sees_foreign: self
                    .routers_of(index)
                    .any(|router| router.foreign_now(self.now).is_some()),
                is_member: unit.base > 0,
                is_starting: matches!(self.stage, Stage::Starting(_)),
            };
            for group in &unit.groups {
                states[*group] = state;
            }
        }
        states
    }

    fn plan(&mut self) {
        if let Stage::Leaving(_, at) = self.stage {
            self.wake_at = at;
            return;
        }
        let timing = self.config.timing;
        // Twice as often as heartbeats, so that the lease has room for a late one.
        let mut next = self.next_heartbeat.min(self.now + timing.keepalive / 2);
        let mut consider = |at: Duration| {
            if at > self.now {
                next = next.min(at);
            }
        };
        for peer in self.peers.iter().filter(|peer| peer.is_alive()) {
            consider(peer.heard_at + timing.warntime);
            consider(peer.heard_at + peer.patience(&timing));
        }
        for router in &self.routers {
            let is_primary = self
                .units
                .iter()
                .any(|unit| unit.is_primary() && unit.groups.contains(&router.group));
            consider(if is_primary {
                router.next_advert
            } else {
                router.down_at
            });
        }
        if let Stage::Starting(until) | Stage::Listening(until) = self.stage {
            consider(until);
        }
        if let Filled::Waiting(_) = self.filled {
            consider(self.fill_until);
        }
        self.wake_at = next;
    }

    // ---- What follows from the rest ----

    /// Effective priority; 0: it cannot serve now. A starting node tells what it will have.
    pub(super) fn priority(&self, unit: usize) -> u8 {
        let unit = &self.units[unit];
        let is_silent = matches!(
            self.stage,
            Stage::Listening(_) | Stage::Leaving(..) | Stage::Stopped
        );
        if self.unfit.is_some() || is_silent || unit.base == 0 {
            return 0;
        }
        let lowered = u16::from(unit.base).saturating_sub(self.lowers).max(1);
        u8::try_from(lowered).unwrap_or(unit.base)
    }

    /// On standby the least, so that any foreign router goes before.
    fn priority_in_vrrp(&self, unit: usize) -> u8 {
        if self.units[unit].is_standby {
            self.priority(unit).min(1)
        } else {
            self.priority(unit)
        }
    }

    /// Whether a foreign router of less priority keeps this node from becoming primary.
    fn preempts(&self, unit: usize) -> bool {
        let is_filled = !matches!(self.filled, Filled::Waiting(_));
        is_filled
            && match self.config.auto_failback {
                AutoFailback::On => true,
                AutoFailback::Off => false,
                AutoFailback::After(delay) => self.now >= self.units[unit].since + delay,
            }
    }

    fn wait_for_routers(&mut self, unit: usize) {
        let (now, priority) = (self.now, self.units[unit].base);
        let groups = &self.units[unit].groups;
        for router in self
            .routers
            .iter_mut()
            .filter(|router| groups.contains(&router.group))
        {
            router.wait(now, priority);
        }
    }

    pub(super) fn routers_of(&self, unit: usize) -> impl Iterator<Item = &Router> + Clone {
        let groups = &self.units[unit].groups;
        self.routers
            .iter()
            .filter(move |router| groups.contains(&router.group))
    }

    /// The address that decides where priorities are equal.
    fn address(&self) -> Option<IpAddr> {
        self.routers.iter().find_map(|router| router.address)
    }

    /// Whether a peer hears this node.
    pub(super) fn is_heard_by(&self, peer: &Peer) -> bool {
        peer.is_alive() && peer.alive & 1 << self.own != 0
    }
}

fn tell(alerts: Vec<Alert>, actions: &mut Vec<Action>) {
    actions.extend(
        alerts
            .into_iter()
            .map(|alert| Action::Note(Note::Alert(alert))),
    );
}
