//! Roles: what the rule says ([`super::decide`]), and all that goes with a new role.

use std::cmp::Reverse;
use std::time::Duration;

use super::decide::{self, Circumstances, Decision, Other, Own, Rank, Why};
use super::node::{HISTORY, Machine, Stage};
use super::routers::OWNER;
use super::types::{Action, Command, Filled, Note, PeerState, Reason, Role, Run, Transition};
use super::unit::Last;
use crate::config::AutoFailback;
use crate::config::limits::SETTLED_AFTER;
use crate::wire::message::GroupState;

impl Machine {
    pub(super) fn decide(&mut self, actions: &mut Vec<Action>) {
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
                    // The primary releases for who asks: who could not take it then must not ask.
                    let asks = asks && (is_vacant || self.is_fenced(unit, actions));
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

    pub(super) fn standing(&self, index: usize) -> Own {
        let unit = &self.units[index];
        Own {
            is_primary: unit.is_primary(),
            is_listening: self.stage != Stage::Running,
            rank: Rank {
                is_forced: unit.is_forced,
                is_not_standby: !self.is_last(index),
                priority: self.priority(index),
                address: self.address(),
                name: Reverse(self.own),
            },
            has_asked: unit.asks,
            is_lacking: self.is_lacking(),
        }
    }

    /// Of a unit's groups all must be served by whoever serves it, and it is served if any of them is.
    pub(super) fn others(&self, unit: usize) -> Vec<Other> {
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
                    is_degraded: any(|state| state.is_degraded),
                    is_starting: any(|state| state.is_starting),
                    sees_foreign: any(|state| state.sees_foreign),
                    hears_us: peer.alive & 1 << self.own != 0,
                    unheard_since: peer.unheard_since,
                })
            })
            .collect()
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
        let ready_since = unit.ready_since;
        let is_heard = !own.is_primary && !own.is_listening && best_primary.is_some();
        unit.primary_since = if is_heard {
            unit.primary_since.or(Some(now))
        } else {
            None
        };
        let primary_since = unit.primary_since;
        let is_filled = !self.is_lacking()
            && (self.filled == Filled::Needless
                || primary_since.is_some_and(|since| now >= since + SETTLED_AFTER));
        let may_fail_back = is_filled
            && self.failback_delay().is_some_and(|delay| {
                delay.is_zero() || ready_since.is_some_and(|since| now >= since + delay)
            });
        let unit = &self.units[index];
        let may_ask = now >= unit.losses.held_until(now, &timing);
        let vacant_since = unit.vacant_since;
        let was_served = unit.last_primary != Last::Nobody;
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
            is_filled,
            was_served,
            may_ask,
            foreign,
            hears_foreign,
            foreign_before: before.map(|foreign| foreign.address).next(),
        }
    }

    /// For how long a group must have been this node's to take back, and its primary heard, before it asks for it; none: never.
    pub(super) fn failback_delay(&self) -> Option<Duration> {
        let delay = match self.config.auto_failback {
            AutoFailback::On => Duration::ZERO,
            AutoFailback::Off => return None,
            AutoFailback::After(delay) => delay,
        };
        Some(match self.filled {
            Filled::Needless => delay,
            // What says that something is missing anew comes a little later than the primary's heartbeat.
            Filled::Waiting(_) | Filled::Done(_) | Filled::GivenUp(_) => delay.max(SETTLED_AFTER),
        })
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
        let foreign = unit.foreign_split.take_if(|split| now >= split.until);
        match (before, split) {
            (None, Some(peer)) => {
                self.split_begins(index, &self.peers[peer].name, true, actions);
            }
            (Some(peer), None) => self.split_is_over(index, &self.peers[peer].name, actions),
            (None, None) | (Some(_), Some(_)) => {}
        }
        if let Some(split) = foreign {
            self.foreign_split_is_over(index, split, actions);
        }
        if foreign.is_some() || (before.is_some() && split.is_none()) {
            let groups = self.units[index].groups.iter();
            actions.extend(groups.map(|group| Action::Announce(*group)));
        }
    }

    fn release(&mut self, index: usize, why: Why, actions: &mut Vec<Action>) {
        let name = |peer: usize| self.peers[peer].name.clone();
        let reason = match why {
            Why::Unfit => Reason::Unfit(self.unfit_for(index).cloned().unwrap_or_default()),
            Why::SplitBrain(peer) => Reason::SplitBrain(name(peer)),
            Why::Unheard(peer) => Reason::Unheard(name(peer)),
            Why::Foreign(address) => Reason::Foreign(address),
            Why::HandedOver(peer) => match self.failing_for(index) {
                Some(why) => Reason::Failing {
                    node: name(peer),
                    why: why.clone(),
                },
                None => Reason::HandedOver(name(peer)),
            },
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
            let unit = &mut self.units[index];
            unit.vacant_since.get_or_insert(self.now);
            // Whoever takes it meanwhile need not give it up to a node that cannot take it yet.
            unit.asks = false;
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
            (Last::Foreign(_), _) if self.units[index].is_forced => {
                Reason::Operator(Command::Takeover)
            }
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

    /// A unit's new role, and all that goes with it, in order: a primary releases before it says so.
    pub(super) fn change(
        &mut self,
        index: usize,
        to: Role,
        reason: Reason,
        actions: &mut Vec<Action>,
    ) {
        let now = self.now;
        let unit = &mut self.units[index];
        let from = unit.role;
        if from == to {
            if to == Role::Unfit {
                // It was for another reason; the history has the transitions.
                unit.reason = reason;
            }
            return;
        }
        let (split, foreign_split) = (unit.split.take(), unit.foreign_split.take());
        let groups = unit.groups.clone();
        if from == Role::Primary {
            unit.losses.note(now);
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
        if let Some(split) = foreign_split {
            self.foreign_split_is_over(index, split, actions);
        }
        let unit = &mut self.units[index];
        unit.role = to;
        unit.since = now;
        unit.reason = reason.clone();
        unit.asks = false;
        unit.vacant_since = None;
        unit.ready_since = None;
        unit.primary_since = None;
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
}
