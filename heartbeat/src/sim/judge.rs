//! The judge: knows the truth of all nodes and holds them to the bounds.

use super::world::{Micros, World};
use crate::machine::{Filled, Machine};

/// What went from one node to another.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    last: Micros,
    /// Since then no gap was longer than deadtime.
    good_since: Micros,
}

/// Bounds in true time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) keepalive: Micros,
    pub(super) deadtime: Micros,
    pub(super) two_primaries: Micros,
    pub(super) primary: Micros,
    pub(super) preferred: Micros,
    /// From when a node gives a group up for another one until that takes it.
    pub(super) handed_over: Micros,
}

/// The judge.
pub(super) struct Judge {
    pub(super) bounds: Bounds,
    /// The first thing that was wrong.
    pub(super) verdict: Option<String>,
    /// By from, to.
    traffic: Vec<Vec<Traffic>>,
    /// By group, and pair of nodes: since when both serve it.
    both_since: Vec<Vec<Vec<Option<Micros>>>>,
    /// By group: since when nobody serves it.
    pub(super) none_since: Vec<Option<Micros>>,
    /// By group: since when nobody serves it because it was given up for another node.
    handed_over: Vec<Option<Micros>>,
    /// By group: it was served after the last fault.
    was_served: Vec<bool>,
    /// Nothing more goes wrong from then on.
    pub(super) last_fault: Micros,
    /// By group: when a node took it after the last fault.
    pub(super) taken: Vec<Vec<Micros>>,
    /// Pairs of nodes are judged that know each other by heartbeats.
    pub(super) own_nodes: usize,
}

impl Judge {
    pub(super) fn new(bounds: Bounds, nodes: usize, groups: usize, own_nodes: usize) -> Self {
        Self {
            bounds,
            verdict: None,
            traffic: vec![vec![Traffic::default(); nodes]; nodes],
            both_since: vec![vec![vec![None; nodes]; nodes]; groups],
            none_since: vec![Some(0); groups],
            handed_over: vec![None; groups],
            was_served: vec![false; groups],
            last_fault: Micros::MAX,
            taken: vec![Vec::new(); groups],
            own_nodes,
        }
    }

    pub(super) fn wrong(&mut self, now: Micros, what: impl FnOnce() -> String) {
        if self.verdict.is_none() {
            self.verdict = Some(format!("at {:.3} ms: {}", now as f64 / 1000.0, what()));
        }
    }

    /// A heartbeat was heard.
    pub(super) fn delivered(&mut self, from: usize, to: usize, now: Micros, sent: Micros) {
        // A link that delays for longer does not count as working.
        if now - sent > self.bounds.keepalive {
            return;
        }
        let traffic = &mut self.traffic[from][to];
        if now - traffic.last > self.bounds.deadtime {
            traffic.good_since = now;
        }
        traffic.last = now;
    }

    /// Since when one hears the other without a gap.
    fn good_since(&self, from: usize, to: usize, now: Micros) -> Option<Micros> {
        let traffic = self.traffic[from][to];
        (traffic.last > 0 && now - traffic.last <= self.bounds.deadtime)
            .then_some(traffic.good_since)
    }

    /// Since when a link between two nodes works: in both directions, or in one whose messages are believed.
    fn works_since(&self, world: &World, a: usize, b: usize) -> Option<Micros> {
        let good = |from, to| self.good_since(from, to, world.now);
        let both = good(a, b)
            .zip(good(b, a))
            .map(|(there, back)| there.max(back));
        let ways = [(a, b), (b, a)].into_iter();
        let believed = ways
            .filter(|(from, to)| world.believes(*from, *to))
            .filter_map(|(from, to)| good(from, to));
        believed.chain(both).min()
    }

    /// A node takes a group.
    pub(super) fn took(&mut self, world: &World, node: usize, group: usize) {
        let now = world.now;
        if now > self.last_fault {
            self.taken[group].push(now);
        }
        // A node that stands still has fallen silent before another one takes over, if that one heard it until then.
        for (other, about) in world.nodes.iter().enumerate() {
            if other == node || other >= self.own_nodes || node >= self.own_nodes {
                continue;
            }
            let heard_until_then =
                || self.traffic[other][node].last + self.bounds.keepalive >= about.frozen_at;
            let is_heard = || heard_until_then() && world.believes(other, node);
            if about.is_frozen && about.serves(group, now) && is_heard() {
                self.wrong(now, || {
                    format!("node {node} took group {group}, which node {other}, that stands still, serves")
                });
            }
        }
    }

    /// A node gives a group up for another one. That must be able to take it, and must not lack the connections, but for an
    /// operator's order. As the message that asked for it may be old, only what is so for long counts.
    pub(super) fn handed_over(&mut self, world: &World, from: usize, to: &str, group: &str) {
        let now = world.now;
        if now <= self.last_fault {
            return;
        }
        let groups = &world.nodes[from].config.groups;
        let place = groups.iter().position(|it| it.name == group);
        let heir = world.nodes.iter().find(|node| node.config.node == to);
        let (Some(place), Some(heir)) = (place, heir) else {
            return;
        };
        self.handed_over[place].get_or_insert(now);
        let status = |machine: &Machine| {
            let status = machine.status();
            (status.groups[place].clone(), status.may_fail_back)
        };
        let giver = world.nodes[from].machine.as_ref().map(status);
        let taker = heir.machine.as_ref().map(status);
        let (Some((giver, _)), Some((taker, filled))) = (giver, taker) else {
            return;
        };
        let is_long = |since: Micros| now > since + self.bounds.handed_over * 2;
        let is_lacking =
            matches!(filled, Filled::Waiting(_)) && is_long(heir.filled.1.max(self.last_fault));
        if is_lacking && !taker.is_forced && !giver.is_standby {
            self.wrong(now, || {
                format!("node {from} gave group {place} up for {to}, which lacks connections")
            });
        }
    }

    /// What a node has told by now: only who serves a group is in a split over it.
    pub(super) fn told(&mut self, world: &World, node: usize) {
        let about = &world.nodes[node];
        for (group, other) in &about.splits {
            let place = about.config.groups.iter().position(|it| it.name == *group);
            if !place.is_some_and(|place| about.has[place]) {
                self.wrong(world.now, || {
                    format!("node {node} told of no end of its split with {other} over {group}")
                });
            }
        }
    }

    /// Looks at who serves what.
    pub(super) fn watch(&mut self, world: &World) {
        let now = world.now;
        for group in 0..self.none_since.len() {
            let mut serving = [false; 16];
            for (node, about) in world.nodes.iter().enumerate() {
                serving[node] = about.serves(group, now);
            }
            if serving.contains(&true) {
                self.none_since[group] = None;
                self.handed_over[group] = None;
                self.was_served[group] |= now > self.last_fault;
            } else {
                let since = *self.none_since[group].get_or_insert(now);
                let begin = since.max(self.last_fault);
                // A foreign router may keep the other one from taking it.
                let is_foreign = world.nodes.len() > self.own_nodes;
                if let Some(at) = self.handed_over[group]
                    && now - at > self.bounds.handed_over
                    && !is_foreign
                {
                    self.wrong(now, || {
                        format!("group {group} was given up for another node at {at}, and nobody took it")
                    });
                }
                if self.last_fault < now
                    && now - begin > self.bounds.primary
                    && can_be_served(world, group)
                    && !self.may_be_unserved(world, group)
                {
                    self.wrong(now, || {
                        format!("group {group} has no primary since {since}")
                    });
                }
            }
            for a in 0..self.own_nodes {
                for b in a + 1..self.own_nodes {
                    if !(serving[a] && serving[b]) {
                        self.both_since[group][a][b] = None;
                        continue;
                    }
                    let since = *self.both_since[group][a][b].get_or_insert(now);
                    let Some(good) = self.works_since(world, a, b) else {
                        continue;
                    };
                    if now - since.max(good) > self.bounds.two_primaries {
                        self.wrong(now, || {
                            format!("nodes {a} and {b} are both primary of group {group} since {since}, with a link that works since {good}")
                        });
                    }
                }
            }
        }
    }

    /// Where a fencing failed that is required, nobody may take a group. But who serves it then goes on.
    fn may_be_unserved(&self, world: &World, group: usize) -> bool {
        world.is_fencing_hard && !self.was_served[group]
    }

    /// After all has come to rest.
    pub(super) fn finish(
        &self,
        world: &World,
        priorities: &[Vec<u8>],
        expects_preferred: bool,
        is_connected: bool,
    ) -> Option<String> {
        let now = world.now;
        for group in 0..self.none_since.len() {
            if self.may_be_unserved(world, group) {
                continue;
            }
            if self.none_since[group].is_some() && can_be_served(world, group) {
                return Some(format!("group {group} has no primary at the end"));
            }
            let settled = self.last_fault + self.bounds.preferred;
            let mut late = self.taken[group].iter().filter(|at| **at > settled);
            if let Some(late) = late.next().filter(|_| !world.is_fencing_hard) {
                let late = *late;
                return Some(format!(
                    "group {group} still moved at {late}, the last fault was long before"
                ));
            }
            let most = 2 + 2 * world.nodes.len();
            if self.taken[group].len() > most {
                let count = self.taken[group].len();
                return Some(format!(
                    "group {group} was taken {count} times after the last fault"
                ));
            }
            let serving: Vec<usize> = (0..world.nodes.len())
                .filter(|node| world.nodes[*node].serves(group, now))
                .collect();
            if is_connected && serving.len() > 1 {
                return Some(format!(
                    "group {group} has several primaries at the end: {serving:?}"
                ));
            }
            let of_group = &world.nodes[0].config.groups[group].name;
            let is_split = |node: &usize| {
                let mut splits = world.nodes[*node].splits.iter();
                splits.any(|(split, _)| split == of_group)
            };
            if is_connected && let Some(node) = serving.iter().find(|node| is_split(node)) {
                return Some(format!(
                    "node {node} is alone and has told of no end of its split over group {group}"
                ));
            }
            if is_connected && expects_preferred && !world.is_fencing_hard {
                let effective = |node: usize| {
                    let about = &world.nodes[node];
                    let base = priorities[group][node];
                    let is_able = base > 0 && about.is_running() && about.is_able(group);
                    is_able.then(|| u16::from(base).saturating_sub(about.fitness.0).max(1))
                };
                // Where fitness made priorities equal, the order of names or addresses decides; that is the machines' affair.
                let best = (0..world.nodes.len()).filter_map(effective).max();
                let found = serving.first().and_then(|node| effective(*node));
                if best != found {
                    return Some(format!(
                        "group {group} is served by {serving:?} with priority {found:?}; the best has {best:?}"
                    ));
                }
            }
        }
        None
    }
}

/// Whether any node is able to serve a group.
fn can_be_served(world: &World, group: usize) -> bool {
    world.nodes.iter().any(|node| {
        let is_member = node.config.groups[group]
            .priorities
            .contains_key(&node.config.node);
        is_member && node.is_running() && !node.is_frozen && node.is_able(group)
    })
}
