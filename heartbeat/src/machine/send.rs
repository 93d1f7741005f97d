//! What a node tells the others, and when it is to be woken for that.

use std::net::IpAddr;
use std::time::Duration;

use super::node::{FAREWELLS, Machine, Stage};
use super::peers::Peer;
use super::types::{Action, Filled};
use super::unit::Unit;
use crate::config::limits::SETTLED_AFTER;
use crate::wire::message::{GroupState, Message, NameId, NodeState};

impl Machine {
    pub(super) fn send(&mut self, actions: &mut Vec<Action>) {
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
            let Some(unit) = self
                .unit_of(group)
                .filter(|unit| self.units[*unit].is_primary())
            else {
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
        // Of the others only that they were heard, so that they know that this message was sent after their start.
        let heard = self
            .peers
            .iter()
            .filter(|peer| !news(peer) && peer.heard_incarnation > 0);
        let heard = heard.map(|peer| NodeState {
            node: peer.id,
            incarnation: peer.heard_incarnation,
            sequence: 0,
            address: None,
            alive: 0,
            groups: vec![GroupState::default(); self.config.groups.len()],
        });
        let addresses = self.routers.iter().filter_map(|router| router.address);
        let mut addresses: Vec<IpAddr> = addresses.collect();
        addresses.sort_unstable();
        addresses.dedup();
        actions.push(Action::Heartbeat(Message {
            addresses,
            is_leaving: matches!(self.stage, Stage::Leaving(..)),
            keepalive: self.config.timing.keepalive,
            deadtime: self.config.timing.deadtime,
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
            others: others.chain(heard).collect(),
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
                is_degraded: match unit.is_primary() {
                    true => self.is_degraded(index),
                    false => self.is_lacking(),
                },
                is_standby: self.is_last(index),
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

    pub(super) fn plan(&mut self) {
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
            let silent = self.peers.iter().filter_map(|peer| peer.silent_until);
            silent.for_each(&mut consider);
        }
        if let (Filled::Waiting(_), Some(until)) = (&self.filled, self.fill_until) {
            consider(until);
        }
        if let Some(delay) = self.failback_delay() {
            let ready = self.units.iter().filter_map(|unit| unit.ready_since);
            ready.for_each(|since| consider(since + delay));
        }
        if self.filled != Filled::Needless {
            let heard = self.units.iter().filter_map(|unit| unit.primary_since);
            heard.for_each(|since| consider(since + SETTLED_AFTER));
        }
        self.wake_at = next;
    }
}
