//! The machine: what happens to a node, in, and what it is to do, out.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::peers::{self, Fencing, Peer};
use super::routers::{self, HIGHEST, OWNER, Router, Standing};
use super::types::{
    Action, Alert, Command, Filled, Input, LinkId, Note, Reason, Role, Scope, Silent, Transition,
};
use super::unit::{Last, Unit};
use crate::config::{AutoFailback, Config};
use crate::wire::message::{GroupState, NameId};
use crate::wire::vrrp::Advert;

/// Transitions that are remembered.
pub const HISTORY: usize = 256;
/// Copies of the message that says that a node leaves.
pub(super) const FAREWELLS: u8 = 3;

/// How far the node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
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
    /// Until then it is waited for. None: nobody else serves what this node would take back, so nothing waits.
    pub(super) fill_until: Option<Duration>,
    pub(super) unfit: Option<String>,
    /// By group: why this node cannot serve it, fit or not.
    pub(super) unable: Vec<Option<String>>,
    /// By group: why this node does not serve all of it.
    pub(super) failing: Vec<Option<String>>,
    pub(super) now: Duration,
    pub(super) lease_until: Duration,
    pub(super) group_ids: Vec<NameId>,
    pub(super) own: usize,
    pub(super) sequence: u64,
    pub(super) stage: Stage,
    /// It has heard the others, or waited for them as long as it has to: who is not heard is silent.
    is_settled: bool,
    pub(super) wake_at: Duration,
    pub(super) next_heartbeat: Duration,
    /// The groups' states in the last heartbeat: what is new is told at once.
    pub(super) told: Vec<GroupState>,
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
            fill_until: None,
            unfit: Some("its fitness is not known yet".to_owned()),
            unable: vec![None; config.groups.len()],
            failing: vec![None; config.groups.len()],
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
            is_settled: false,
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

    /// The same after a run that knew these to be silent. A node that boots waits for them for `initdead`: their networks and
    /// its own take time. One that goes on with another configuration need not, and listens as after standing still.
    #[must_use]
    pub fn knowing(mut self, silent: &[Silent]) -> Self {
        for peer in &mut self.peers {
            let Some(known) = silent.iter().find(|it| it.node == peer.name) else {
                continue;
            };
            peer.silent_until = Some(self.now + self.config.timing.listen());
            if known.is_harmless {
                peer.fence = Fencing::Done;
            }
        }
        self
    }

    /// Who is silent, for the run after this one: nobody of whom this one does not know it yet.
    #[must_use]
    pub fn silent(&self) -> Vec<Silent> {
        let peers = self.peers.iter().enumerate();
        let silent = peers.filter(|(_, peer)| {
            !peer.is_alive() && (self.is_settled || peer.silent_until.is_some())
        });
        let silent = silent.map(|(position, peer)| Silent {
            node: peer.name.clone(),
            is_harmless: peer.fence == Fencing::Done || !self.may_serve_unheard(position),
        });
        silent.collect()
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
        for until in self
            .peers
            .iter_mut()
            .filter_map(|it| it.silent_until.as_mut())
        {
            *until = (*until).max(now + self.config.timing.listen());
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
                let config = Arc::clone(&self.config);
                let own = peers::Own {
                    index: self.own,
                    incarnation: self.incarnation,
                };
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
            Input::Unable { group, why } => {
                if let Some(unable) = self.unable.get_mut(group) {
                    *unable = why;
                }
            }
            Input::Failing { group, why } => self.take_failing(group, why, actions),
            Input::Filled(filled) => self.fill(filled, actions),
            Input::Operator { command, scope } => self.order(command, &scope, actions),
            Input::Fenced { node, result } => self.fenced(node, result, actions),
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
        // A node of ours is judged by its heartbeats. Where these are not signed its advert is a sign of life; where they are it
        // is none, as anybody could have sent it.
        if let Some(peer) = self
            .peers
            .iter_mut()
            .find(|peer| peer.addresses.contains(&from))
        {
            if self.config.keys.is_some() {
                return;
            }
            let mut alerts = Vec::new();
            peer.is_heard_on(self.now, link, &self.config, &mut alerts);
            if advert.priority > 0 && peer.is_alive() {
                peer.is_heard(self.now, &mut alerts);
            }
            tell(alerts, actions);
            return;
        }
        let group = self.routers[position].group;
        let Some(unit) = self.unit_of(group) else {
            return;
        };
        let own = Standing {
            is_primary: self.units[unit].is_primary(),
            priority: self.priority_in_vrrp(unit),
            preempts: self.preempts(unit),
            is_forced: self.units[unit].is_forced && self.unfit_for(unit).is_none(),
        };
        let now = self.now;
        let router = &mut self.routers[position];
        match router.hear(now, from, advert, own) {
            routers::Heard::Nothing | routers::Heard::GoesBefore => {}
            routers::Heard::MustYield => {
                router.assert(now);
                if advert.priority > 0 {
                    let until = now + router.silence(advert.interval);
                    self.foreign_split(unit, from, until, actions);
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

    /// Why an order would not be obeyed; none: it would.
    pub(crate) fn refusal(&self, command: Command, scope: &Scope) -> Option<String> {
        if command != Command::Takeover {
            return None;
        }
        let refused = (0..self.units.len()).filter_map(|unit| {
            let why = self.unfit_for(unit)?;
            let groups = self.units[unit].groups.iter();
            let mut names = groups.map(|group| self.config.groups[*group].name.as_str());
            let is_meant = match scope {
                Scope::All => self.units[unit].base > 0,
                Scope::Group(group) => names.clone().any(|name| name == group),
            };
            let name = names.next().filter(|_| is_meant)?;
            Some(format!(
                "the group {name} is not taken over: this node is not fit: {why}"
            ))
        });
        let refused: Vec<String> = refused.collect();
        (!refused.is_empty()).then(|| refused.join("; "))
    }

    /// The unit that a group belongs to: each is in one.
    pub(super) fn unit_of(&self, group: usize) -> Option<usize> {
        let mut units = self.units.iter();
        units.position(|unit| unit.groups.contains(&group))
    }

    /// Why this node cannot serve a unit; none: it can.
    pub(super) fn unfit_for(&self, unit: usize) -> Option<&String> {
        let mut groups = self.units[unit].groups.iter();
        let unable = || groups.find_map(|group| self.unable[*group].as_ref());
        self.unfit.as_ref().or_else(unable)
    }

    pub(super) fn is_meant(&self, unit: usize, scope: &Scope) -> bool {
        let mut groups = self.units[unit].groups.iter();
        match scope {
            Scope::All => true,
            Scope::Group(name) => groups.any(|group| self.config.groups[*group].name == *name),
        }
    }

    fn order(&mut self, command: Command, scope: &Scope, actions: &mut Vec<Action>) {
        for index in 0..self.units.len() {
            if !self.is_meant(index, scope) || self.units[index].base == 0 {
                continue;
            }
            if let Some(why) = self
                .unfit_for(index)
                .filter(|_| command == Command::Takeover)
            {
                for group in &self.units[index].groups {
                    actions.push(Action::Note(Note::Alert(Alert::TakeoverRefused {
                        group: self.config.groups[*group].name.clone(),
                        why: why.clone(),
                    })));
                }
                continue;
            }
            if command != Command::Standby {
                self.try_anew(index);
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
                let awaited = |peer: &Peer| peer.is_awaited(self.now);
                self.now >= until || !self.peers.iter().any(awaited)
            }
            Stage::Listening(until) => self.now >= until,
            Stage::Running | Stage::Leaving(..) | Stage::Stopped => false,
        };
        if is_over {
            self.stage = Stage::Running;
            self.is_settled = true;
        }
        if matches!(self.stage, Stage::Leaving(..) | Stage::Stopped) {
            return;
        }
        if self.hears_nobody_yet() {
            self.stage = Stage::Listening(self.now + self.config.timing.listen());
        }
        for unit in 0..self.units.len() {
            let role = self.units[unit].role;
            let is_listening = self.stage != Stage::Running;
            let (to, reason) = match self.unfit_for(unit).cloned() {
                // A primary yields by decision.
                Some(_) if role == Role::Primary => continue,
                Some(why) => {
                    // An order does not come into force hours later.
                    self.units[unit].is_forced = false;
                    (Role::Unfit, Reason::Unfit(why))
                }
                None if is_listening && role == Role::Unfit => (Role::Listening, Reason::Fit),
                None if role == Role::Listening && !is_listening => (Role::Backup, Reason::Heard),
                None if role == Role::Unfit => (Role::Backup, Reason::Fit),
                None => continue,
            };
            self.change(unit, to, reason, actions);
            // Nor was a foreign router heard where its cable was out (RFC 9568 section 6.4.1).
            let becomes_fit = role == Role::Unfit && to != Role::Unfit;
            if becomes_fit && self.units[unit].base != OWNER {
                self.wait_for_routers(unit);
            }
        }
    }

    /// It has just become fit and hears none of the others. Perhaps its cable is back, which the kernel tells before their next
    /// heartbeat comes: somebody may serve, and must not be taken for dead.
    fn hears_nobody_yet(&self) -> bool {
        let becomes_fit =
            |unit: usize| self.units[unit].role == Role::Unfit && self.unfit_for(unit).is_none();
        self.stage == Stage::Running
            && !self.peers.is_empty()
            && !self.peers.iter().any(Peer::is_alive)
            && !self.units.iter().any(Unit::is_primary)
            && (0..self.units.len()).any(becomes_fit)
    }

    /// What is needed to take groups back is there, or not: told once each.
    fn fill(&mut self, filled: Filled, actions: &mut Vec<Action>) {
        // It had what it needs, and lacks it anew: then it waits anew, too. One that gave up does not.
        let filled = match (&self.filled, filled) {
            (Filled::Done(_) | Filled::Needless, filled @ Filled::Waiting(_)) => {
                self.fill_until = None;
                filled
            }
            (Filled::GivenUp(_), Filled::Waiting(what)) => Filled::GivenUp(what),
            (_, filled) => filled,
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

    /// It has waited long enough, while another one served. Time in which nobody does counts for nothing: when a cable is in
    /// again after minutes, this node has yet to be told what it lacks.
    fn give_up_waiting(&mut self, actions: &mut Vec<Action>) {
        let Filled::Waiting(what) = &self.filled else {
            return;
        };
        if !self.is_kept_waiting() {
            self.fill_until = None;
            return;
        }
        let limit = self.now + self.config.failback_limit;
        if self.now >= *self.fill_until.get_or_insert(limit) {
            let given_up = Filled::GivenUp(what.clone());
            self.fill(given_up, actions);
        }
    }

    /// Whether it lacks connections that others have.
    pub(super) fn is_lacking(&self) -> bool {
        matches!(self.filled, Filled::Waiting(_))
    }

    /// Whether another one serves what this node would take, if it had what it needs.
    fn is_kept_waiting(&self) -> bool {
        let fails_back = self.config.auto_failback != AutoFailback::Off;
        let is_kept = |unit: usize| {
            let priority = self.priority_in_vrrp(unit);
            let is_behind = |router: &Router| {
                let foreign = router.foreign_now(self.now);
                foreign.is_some_and(|foreign| foreign.priority < priority)
            };
            let Unit {
                ready_since, role, ..
            } = self.units[unit];
            let is_backup = role != Role::Primary;
            // From one that serves it badly it would take it whatever is configured.
            let is_degraded = || {
                let others = self.others(unit);
                others.iter().any(|it| it.is_primary && it.is_degraded)
            };
            ready_since.is_some() && (fails_back || is_degraded())
                || fails_back && is_backup && self.routers_of(unit).any(is_behind)
        };
        (0..self.units.len()).any(is_kept)
    }

    // ---- What follows from the rest ----

    /// Effective priority; 0: it cannot serve now. A starting node tells what it will have.
    pub(super) fn priority(&self, unit: usize) -> u8 {
        let is_unfit = self.unfit_for(unit).is_some();
        let unit = &self.units[unit];
        let is_silent = matches!(
            self.stage,
            Stage::Listening(_) | Stage::Leaving(..) | Stage::Stopped
        );
        if is_unfit || is_silent || unit.base == 0 {
            return 0;
        }
        let lowered = u16::from(unit.base).saturating_sub(self.lowers).max(1);
        u8::try_from(lowered).unwrap_or(unit.base)
    }

    /// Of one that serves only if nobody else can the least, so that any foreign router goes before; by an order to take over the
    /// most, so that none does but the owner of the addresses.
    pub(super) fn priority_in_vrrp(&self, unit: usize) -> u8 {
        match self.priority(unit) {
            0 => 0,
            priority if self.is_last(unit) => priority.min(1),
            priority if self.units[unit].is_forced => priority.max(HIGHEST),
            priority => priority,
        }
    }

    /// Whether a foreign router of less priority keeps this node from becoming primary.
    fn preempts(&self, unit: usize) -> bool {
        let is_due = |delay| self.now >= self.units[unit].since + delay;
        !self.is_lacking() && self.failback_delay().is_some_and(is_due)
    }

    pub(super) fn wait_for_routers(&mut self, unit: usize) {
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
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.routers.iter().find_map(|router| router.address)
    }

    /// Whether messages of this node are believed.
    #[cfg(test)]
    pub(crate) fn believes(&self, node: &str) -> bool {
        let mut peers = self.peers.iter().filter(|peer| peer.name == node);
        self.config.keys.is_none() || peers.any(|peer| peer.is_proven)
    }

    /// Whether a peer hears this node.
    pub(super) fn is_heard_by(&self, peer: &Peer) -> bool {
        peer.is_alive() && peer.alive & 1 << self.own != 0
    }
}

pub(super) fn tell(alerts: Vec<Alert>, actions: &mut Vec<Action>) {
    actions.extend(
        alerts
            .into_iter()
            .map(|alert| Action::Note(Note::Alert(alert))),
    );
}
