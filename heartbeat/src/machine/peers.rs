//! The other nodes: what was heard of them, where and when.

use std::net::IpAddr;
use std::time::Duration;

use super::losses::Losses;
use super::seldom::Seldom;
use super::types::{Alert, LinkId, LinkState, PeerState};
use crate::config::limits::SAID_ANEW;
use crate::config::{Config, Timing};
use crate::wire::message::{GroupState, Message, NameId, NodeState};

/// What is known of another node.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) id: NameId,
    /// Its position in [`Config::nodes`].
    pub(super) index: usize,
    pub(super) state: PeerState,
    /// 0: it was never heard of.
    pub(super) incarnation: u64,
    /// The newest that any message named, believed or not; 0: none.
    pub(super) heard_incarnation: u64,
    /// One of its incarnations was there after this node's start, and so are all that follow.
    pub(super) is_proven: bool,
    /// It is heard, but nothing shows that it was there after this node's start: since when, and when last.
    unproven: Option<(Duration, Duration)>,
    unproven_told: Seldom,
    /// Its keepalive and deadtime, where this node has others.
    pub(super) other_times: Option<(Duration, Duration)>,
    other_times_told: Seldom,
    pub(super) sequence: u64,
    pub(super) address: Option<IpAddr>,
    /// The addresses that its adverts come from.
    pub(super) addresses: Vec<IpAddr>,
    /// By the machine's groups.
    pub(super) groups: Vec<GroupState>,
    /// The nodes that it holds for alive: bits by position in [`Config::nodes`].
    pub(super) alive: u16,
    /// Since when its messages say that it does not hear this node.
    pub(super) unheard_since: Option<Duration>,
    /// When there last was news of it, from itself or through others.
    pub(super) heard_at: Duration,
    /// By link.
    pub(super) links: Vec<Heard>,
    /// When it was seen to lose a group, by the machine's groups: it holds back as this node does.
    pub(super) losses: Vec<Losses>,
    /// Fencing of this node.
    pub(super) fence: Fencing,
    /// Programs that were begun before it was heard again, and run still: how they end says nothing of its next death.
    pub(super) stale_fences: u32,
    /// A run before this one knew it to be silent: it is waited for until then, and no longer.
    pub(super) silent_until: Option<Duration>,
    is_one_way_told: bool,
    unknown_told: u32,
}

/// What was heard on one link.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heard {
    /// None: never.
    pub(super) at: Option<Duration>,
    is_silent: bool,
}

/// How far fencing of a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fencing {
    /// Not asked for.
    Not,
    /// The program runs.
    Running,
    /// It is dead for sure.
    Done,
    /// The program failed.
    Failed(Duration),
}

impl Peer {
    pub(super) fn new(config: &Config, index: usize, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            id: NameId::of(name),
            index,
            state: PeerState::Unknown,
            incarnation: 0,
            heard_incarnation: 0,
            is_proven: false,
            unproven: None,
            unproven_told: Seldom::default(),
            other_times: None,
            other_times_told: Seldom::default(),
            sequence: 0,
            address: None,
            addresses: Vec::new(),
            groups: vec![GroupState::default(); config.groups.len()],
            alive: 0,
            unheard_since: None,
            heard_at: Duration::ZERO,
            links: vec![Heard::default(); config.links.len()],
            losses: vec![Losses::default(); config.groups.len()],
            fence: Fencing::Not,
            stale_fences: 0,
            silent_until: None,
            is_one_way_told: false,
            unknown_told: 0,
        }
    }

    /// Whether it is to be reckoned with.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.state, PeerState::Alive | PeerState::Late)
    }

    /// Whether a node that starts waits for it.
    pub(super) fn is_awaited(&self, now: Duration) -> bool {
        !self.is_alive() && self.silent_until.is_none_or(|until| now < until)
    }

    /// Whether others are told of it: also that it left, for as long as they would hold it for alive.
    pub(super) fn is_news(&self, now: Duration, timing: &Timing) -> bool {
        let has_just_left = self.state == PeerState::Left && now < self.heard_at + timing.deadtime;
        self.is_alive() || has_just_left
    }

    /// Whether it is known only through others.
    pub(super) fn is_relayed(&self, now: Duration, timing: &Timing) -> bool {
        let is_direct = |heard: &Heard| heard.at.is_some_and(|at| now < at + timing.deadtime);
        self.is_alive() && !self.links.iter().any(is_direct)
    }

    /// Whether this message of its was sent after this node's start, and is no recorded one of a node that may be dead.
    ///
    /// Of three signs one is enough. It names this node's incarnation, which nobody knew before. Or its sender was started
    /// later than this node: incarnations are times of day. Or this was shown before: what is older than a proven message
    /// is refused for its sequence, and a later incarnation began later.
    ///
    /// So a node whose messages arrive, though it hears of this node by no way, is believed only if one of them was started
    /// since they last heard each other. Without a key nothing is asked: who can forge messages need record none.
    fn is_fresh(&self, message: &Message, own: (NameId, u64), config: &Config) -> bool {
        let names_us = || {
            let mut others = message.others.iter();
            others.any(|node| (node.node, node.incarnation) == own)
        };
        config.keys.is_none() || self.is_proven || message.sender.incarnation >= own.1 || names_us()
    }

    /// Whether it is heard, but not believed.
    pub(super) fn is_unproven(&self) -> bool {
        self.unproven.is_some()
    }

    fn is_in_doubt(&mut self, now: Duration) {
        let since = self.unproven.map_or(now, |(since, _)| since);
        self.unproven = Some((since, now));
    }

    /// Takes its times, and warns where this node has others.
    fn compare_times(
        &mut self,
        now: Duration,
        message: &Message,
        config: &Config,
        alerts: &mut Vec<Alert>,
    ) {
        let own = (config.timing.keepalive, config.timing.deadtime);
        let theirs = (message.keepalive, message.deadtime);
        self.other_times = (theirs != own).then_some(theirs);
        if theirs != own && self.other_times_told.may(now, 1, SAID_ANEW) {
            alerts.push(Alert::OtherTimes {
                node: self.name.clone(),
                theirs,
                own,
            });
        }
    }

    /// Takes news, if they are news. `alive` is by position in [`Config::nodes`], `own` this node's bit in it.
    fn learn(
        &mut self,
        now: Duration,
        news: &NodeState,
        alive: u16,
        own: u16,
        is_leaving: bool,
        alerts: &mut Vec<Alert>,
    ) -> bool {
        if (news.incarnation, news.sequence) <= (self.incarnation, self.sequence) {
            return false;
        }
        if news.incarnation != self.incarnation && self.is_alive() {
            alerts.push(Alert::NodeRestarted(self.name.clone()));
            self.unheard_since = None;
        }
        if news.incarnation != self.incarnation {
            self.losses.fill(Losses::default());
        }
        self.incarnation = news.incarnation;
        self.sequence = news.sequence;
        self.address = news.address;
        self.alive = alive;
        if alive & own == 0 {
            self.unheard_since.get_or_insert(now);
        } else {
            self.unheard_since = None;
            self.is_one_way_told = false;
        }
        if is_leaving {
            self.heard_at = now;
            if self.state != PeerState::Left {
                alerts.push(Alert::NodeLeft(self.name.clone()));
            }
            self.state = PeerState::Left;
        } else {
            self.is_heard(now, alerts);
        }
        true
    }

    /// There is a sign of life.
    pub(super) fn is_heard(&mut self, now: Duration, alerts: &mut Vec<Alert>) {
        self.heard_at = now;
        if !self.is_alive() {
            alerts.push(Alert::NodeAlive(self.name.clone()));
            self.stale_fences += u32::from(self.fence == Fencing::Running);
            self.fence = Fencing::Not;
            self.unheard_since = self.unheard_since.map(|_| now);
        }
        self.state = PeerState::Alive;
    }

    /// Silence after which it is dead. What comes through others comes with gaps: each of them adds up to a `keepalive`. So
    /// one that is known only through others has twice the time.
    pub(super) fn patience(&self, timing: &Timing) -> Duration {
        let direct = self.links.iter().filter_map(|heard| heard.at).max();
        let is_relayed = direct.is_none_or(|at| at + timing.keepalive * 2 < self.heard_at);
        if is_relayed {
            timing.deadtime * 2
        } else {
            timing.deadtime
        }
    }

    /// It was heard itself.
    pub(super) fn is_heard_on(
        &mut self,
        now: Duration,
        link: LinkId,
        config: &Config,
        alerts: &mut Vec<Alert>,
    ) {
        if let Some(heard) = self.links.get_mut(usize::from(link.0)) {
            heard.at = Some(now);
            if heard.is_silent {
                heard.is_silent = false;
                alerts.push(Alert::LinkBack {
                    node: self.name.clone(),
                    link: config.link_name(link).to_owned(),
                });
            }
        }
    }

    /// What the time alone changes.
    pub(super) fn tick(&mut self, now: Duration, config: &Config, alerts: &mut Vec<Alert>) {
        let timing = &config.timing;
        if self.is_alive() {
            let silence = now.saturating_sub(self.heard_at);
            if silence >= self.patience(timing) {
                self.state = PeerState::Dead;
                self.unheard_since = None;
                self.is_one_way_told = false;
                alerts.push(Alert::NodeDead(self.name.clone()));
            } else if silence >= timing.warntime {
                if self.state == PeerState::Alive {
                    alerts.push(Alert::NodeLate(self.name.clone()));
                }
                self.state = PeerState::Late;
            }
        }
        let is_alive = self.is_alive();
        for (heard, link) in self.links.iter_mut().zip(&config.links) {
            let is_silent = heard.at.is_some_and(|at| now >= at + timing.deadtime);
            if is_silent && !heard.is_silent {
                heard.is_silent = true;
                // When all are silent, the node is dead, which says it all.
                if is_alive {
                    alerts.push(Alert::LinkSilent {
                        node: self.name.clone(),
                        link: link.name.clone(),
                    });
                }
            }
        }
        if let Some((since, last)) = self.unproven {
            if now >= last + timing.deadtime {
                self.unproven = None;
            } else if now >= since + timing.deadtime && self.unproven_told.may(now, 1, SAID_ANEW) {
                alerts.push(Alert::Unproven(self.name.clone()));
            }
        }
        let is_one_way = |since| now >= since + timing.deadtime;
        if self.unheard_since.is_some_and(is_one_way) && !self.is_one_way_told {
            self.is_one_way_told = true;
            alerts.push(Alert::OneWay(self.name.clone()));
        }
    }

    /// How a link stands.
    pub(super) fn link_state(heard_at: Duration, now: Duration, timing: &Timing) -> LinkState {
        match now.saturating_sub(heard_at) {
            silence if silence >= timing.deadtime => LinkState::Silent,
            silence if silence >= timing.warntime => LinkState::Late,
            _ => LinkState::Good,
        }
    }
}

/// This node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    /// Its position in [`Config::nodes`].
    pub(super) index: usize,
    pub(super) incarnation: u64,
}

/// Takes a heartbeat: what it says of its sender and of others.
pub(super) fn hear(
    peers: &mut [Peer],
    now: Duration,
    config: &Config,
    Own {
        index: own,
        incarnation,
    }: Own,
    group_ids: &[NameId],
    (link, message): (LinkId, &Message),
    alerts: &mut Vec<Alert>,
) {
    let own_id = config.nodes.get(own).map(|name| NameId::of(name));
    let mentioned: Vec<&NodeState> = std::iter::once(&message.sender)
        .chain(&message.others)
        .collect();
    for node in &mentioned {
        if let Some(peer) = peers.iter_mut().find(|peer| peer.id == node.node) {
            peer.heard_incarnation = peer.heard_incarnation.max(node.incarnation);
        }
    }
    let sender = peers.iter_mut().find(|peer| peer.id == message.sender.node);
    let Some(sender) = sender else {
        return;
    };
    let own_name = own_id.unwrap_or(NameId(0));
    if !sender.is_fresh(message, (own_name, incarnation), config) {
        sender.is_in_doubt(now);
        return;
    }
    sender.is_proven = true;
    sender.unproven = None;
    sender.compare_times(now, message, config, alerts);
    // Positions in the message to positions in the configuration.
    let positions: Vec<Option<usize>> = mentioned
        .iter()
        .map(|node| match own_id {
            Some(id) if id == node.node => Some(own),
            _ => peers
                .iter()
                .find(|peer| peer.id == node.node)
                .map(|peer| peer.index),
        })
        .collect();
    let alive = |mask: u16| {
        let bits = positions.iter().enumerate();
        bits.filter(|(position, _)| mask & 1 << position != 0)
            .filter_map(|(_, index)| *index)
            .fold(0_u16, |alive, index| alive | 1 << index)
    };
    for (position, node) in mentioned.iter().enumerate() {
        let Some(peer) = peers.iter_mut().find(|peer| peer.id == node.node) else {
            continue;
        };
        // What the sender itself holds for dead is old, however new it is to this node.
        if position > 0 && message.sender.alive & 1 << position == 0 {
            continue;
        }
        if position == 0 {
            peer.is_heard_on(now, link, config, alerts);
        }
        let is_leaving = position == 0 && message.is_leaving;
        if !peer.learn(now, node, alive(node.alive), 1 << own, is_leaving, alerts) {
            continue;
        }
        for (group, id) in group_ids.iter().enumerate() {
            let told = message.groups.iter().position(|told| told == id);
            let told = told.and_then(|position| node.groups.get(position));
            let was_primary = peer.groups[group].is_primary;
            peer.groups[group] = told.copied().unwrap_or_default();
            if was_primary && !peer.groups[group].is_primary {
                peer.losses[group].note(now);
            }
            let is_expected = config.groups[group].priorities.contains_key(&peer.name);
            if told.is_none() && is_expected && peer.unknown_told & 1 << group == 0 {
                peer.unknown_told |= 1 << group;
                alerts.push(Alert::GroupUnknown {
                    group: config.groups[group].name.clone(),
                    node: peer.name.clone(),
                });
            }
        }
        if position == 0 {
            peer.addresses.clone_from(&message.addresses);
        }
    }
}
