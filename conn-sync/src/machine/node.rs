//! One node: what it sends and what it has of its peers.

use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::aside::Aside;
use super::limits::{BULK_SILENCE, STATUS_APART, STATUS_EVERY};
use super::peers::{Peer, Peers};
use super::refusals::Refusals;
use super::sender::Sender;
use super::stream::Fate;
use super::types::{Action, Class, Config, Found, SessionId, To, Token};
use super::walk::Phase;
use crate::entry::{How, NodeName, Record};
use crate::wire::bulk::{Event, Resume};
use crate::wire::message::{Ask, Heard, HeardUpTo, Message, Status, Update};
use crate::wire::{Header, Keyring, Reject};

/// The machine of one node. `H` names a record in its tables.
#[derive(Clone, Debug)]
pub struct Machine<H> {
    pub(super) config: Config,
    keyring: Keyring,
    pub(super) started: Duration,
    /// The last datagram that was sent.
    sequence: u64,
    status_at: Option<Duration>,
    /// A status is due before its time.
    is_news: bool,
    pub(super) sender: Sender<H>,
    pub(super) peers: Peers,
    next_session: u64,
    pub(super) aside: Aside,
    pub(super) refusals: Refusals,
    /// Updates of peers that have not told yet that they hear this node.
    pub(super) early: u64,
}

impl<H: Copy + Eq + Hash> Machine<H> {
    /// A node that starts now.
    #[must_use]
    pub fn new(config: Config, keyring: Keyring, now: Duration) -> Self {
        Self {
            sender: Sender::new(&config, now),
            aside: Aside::new(config.aside_records, config.aside_for),
            config,
            keyring,
            started: now,
            sequence: 0,
            status_at: None,
            is_news: false,
            peers: Peers::default(),
            next_session: 0,
            refusals: Refusals::default(),
            early: 0,
        }
    }

    /// Takes a datagram. What is refused is counted.
    pub fn on_datagram(&mut self, from: SocketAddr, bytes: &[u8], now: Duration) -> Vec<Action<H>> {
        let mut actions = Vec::new();
        if let Err(reject) = self.receive(from, bytes, now, &mut actions) {
            let warning = self.refusals.note(reject, from, now);
            actions.extend(warning.map(Action::Warn));
        }
        actions
    }

    /// How many records of a class may be handed to [`Self::on_dirty`] now; the others stay dirty in the table.
    pub fn budget(&mut self, class: Class, now: Duration) -> usize {
        self.sender.budget(class, now)
    }

    /// Sends records of a class that have changed.
    pub fn on_dirty(
        &mut self,
        class: Class,
        records: Vec<(H, Record)>,
        now: Duration,
    ) -> Vec<Action<H>> {
        let updates = self.sender.send(class, records, now);
        self.send_updates(updates)
    }

    /// How many records stayed dirty after a walk through the table.
    pub fn set_backlog(&mut self, records: u64) {
        self.sender.backlog = records;
    }

    /// What stands in the table under the handles of a look-up.
    pub fn on_looked_up(
        &mut self,
        token: Token,
        found: Vec<Found<H>>,
        now: Duration,
    ) -> Vec<Action<H>> {
        let heard = self.heard();
        let updates = self.sender.looked_up(token, found, &heard, now);
        let mut actions = self.send_updates(updates);
        actions.extend(self.sender.repair(now));
        actions
    }

    /// Records that could not be applied because their service or server is not known here.
    pub fn on_unknown(
        &mut self,
        from: &NodeName,
        records: impl IntoIterator<Item = Record>,
        now: Duration,
    ) {
        for record in records {
            self.aside.keep(record, from, now);
        }
    }

    /// Services or servers have changed: what was kept aside is tried again.
    pub fn on_directory_changed(&mut self, now: Duration) -> Vec<Action<H>> {
        let mut actions: Vec<Action<H>> = Vec::new();
        for (node, record) in self.aside.take(now) {
            if let Some(Action::Apply {
                from,
                entries,
                templates,
                ..
            }) = actions.last_mut()
                && *from == node
            {
                sort_in(record, entries, templates);
            } else {
                actions.push(apply(node, [record], How::Aside));
            }
        }
        actions
    }

    /// The table has lost what the peers told: it is to be filled anew.
    pub fn resync(&mut self, now: Duration) -> Vec<Action<H>> {
        let mut actions = Vec::new();
        for peer in &mut self.peers.all {
            restart(peer, now, &mut actions);
        }
        actions
    }

    /// What a bulk resync's client has got.
    pub fn on_bulk(&mut self, session: SessionId, event: Event, now: Duration) -> Vec<Action<H>> {
        let mut actions = Vec::new();
        let Some(peer) = self.in_session(session) else {
            return vec![Action::StopBulk { session }];
        };
        peer.bulk.heard(now);
        match event {
            Event::Welcome {
                number,
                cursor,
                about,
            } => {
                if peer.bulk.welcome(number, cursor, about) {
                    // The walk brings all that was in these.
                    peer.stream.skip_to(number);
                }
            }
            Event::Heard(others) => self.on_heard(&others, now),
            Event::Records {
                number,
                cursor,
                records,
            } => {
                // Updates up to this one that are still under way may be older than what the walk read.
                peer.stream.overtake(number, now);
                let records = peer.bulk.records(number, cursor, records);
                let node = peer.node.clone();
                self.apply(&node, records, How::Bulk, now, &mut actions);
            }
            Event::End => {
                peer.bulk.end(now);
                self.is_news = true;
                self.release(now, &mut actions);
            }
        }
        actions
    }

    /// A peer tells what it has from others, and has heard them up to these: that is followed by nothing older of theirs that is
    /// still under way.
    fn on_heard(&mut self, others: &[HeardUpTo], now: Duration) {
        for other in others {
            let mut all = self.peers.all.iter_mut();
            let known = all.find(|it| it.node == other.node && it.incarnation == other.incarnation);
            match known {
                Some(peer) if peer.hears_us => peer.stream.overtake(other.number, now),
                // A bulk resync is to follow that has all this.
                Some(peer) => peer.stream.skip_to(other.number),
                None => {}
            }
        }
    }

    /// A bulk resync's connection failed, broke, or brought nonsense.
    pub fn on_bulk_lost(&mut self, session: SessionId, now: Duration) {
        if let Some(peer) = self.in_session(session) {
            peer.bulk.lost(now);
        }
    }

    /// The last update that was sent: what a bulk resync's server tells.
    #[must_use]
    pub fn stream_number(&self) -> u64 {
        self.sender.number()
    }

    /// How far peers were heard: what is told with what this node has from them.
    #[must_use]
    pub fn heard(&self) -> Vec<HeardUpTo> {
        let peers = self.peers.all.iter();
        let heard = peers.map(|peer| HeardUpTo {
            node: peer.node.clone(),
            incarnation: peer.incarnation,
            number: peer.stream.newest,
        });
        heard.collect()
    }

    /// Whether a node is heard from this address: nobody else gets a bulk resync, or keeps those waiting who should.
    #[must_use]
    pub fn hears(&self, address: IpAddr, now: Duration) -> bool {
        self.peers.hears(address, now)
    }

    /// All of the table was sent to a peer.
    pub fn on_bulk_served(&mut self, node: &NodeName) {
        if let Some(peer) = self.peers.all.iter_mut().find(|peer| peer.node == *node) {
            peer.served += 1;
        }
    }

    /// Does what is due. Gives what is to be done and when to call again, at the latest.
    pub fn tick(&mut self, now: Duration) -> (Vec<Action<H>>, Duration) {
        let mut actions = Vec::new();
        for index in 0..self.peers.all.len() {
            self.peers.all[index].stream.check_told(now);
            self.check_bulk(index, now, &mut actions);
            self.ask(index, now, &mut actions);
        }
        self.aside.expire(now);
        actions.extend(self.sender.repair(now));
        if self.status_due() <= now {
            self.send_status(now, &mut actions);
        }
        (actions, self.deadline(now))
    }

    /// When to call [`Self::tick`], at the latest; other inputs may bring it nearer.
    #[must_use]
    pub fn deadline(&self, now: Duration) -> Duration {
        let peers = self.peers.all.iter();
        let peers = peers.flat_map(|peer| {
            let bulk = match peer.bulk.phase {
                Phase::Due { at } => Some(at).filter(|_| self.may_start(peer, now)),
                Phase::Running { heard_at, .. } => Some(heard_at + BULK_SILENCE),
                Phase::Done => None,
            };
            peer.stream.deadline().into_iter().chain(bulk)
        });
        let others = [
            self.aside.deadline(),
            self.sender.deadline(now),
            self.is_to_be_released().then_some(now),
        ];
        let first = peers.chain(others.into_iter().flatten());
        first.fold(self.status_due(), Duration::min)
    }

    /// For the simulator: something is kept aside under this name.
    #[cfg(test)]
    pub(crate) fn is_aside(&self, name: &crate::entry::RecordName) -> bool {
        self.aside.has(name)
    }

    /// For the simulator: the peers of which this node says that it has all, and their updates up to a number.
    #[cfg(test)]
    pub(crate) fn claims(&self, now: Duration) -> Vec<(NodeName, u64, u64)> {
        let synced = self.peers.all.iter();
        let synced = synced.filter(|peer| peer.is_heard(now) && peer.is_synced());
        let claim = |peer: &Peer| (peer.node.clone(), peer.incarnation, peer.stream.newest);
        synced.map(claim).collect()
    }

    fn status_due(&self) -> Duration {
        let apart = if self.is_news {
            STATUS_APART
        } else {
            STATUS_EVERY
        };
        self.status_at.map_or(Duration::ZERO, |at| at + apart)
    }

    fn receive(
        &mut self,
        from: SocketAddr,
        bytes: &[u8],
        now: Duration,
        actions: &mut Vec<Action<H>>,
    ) -> Result<(), Reject> {
        let address = from.ip().to_canonical();
        if !self.config.listed.is_empty() && !self.config.listed.contains(&address) {
            return Err(Reject::Unlisted);
        }
        let (header, message) = self.keyring.open(bytes)?;
        if header.node == self.config.node {
            let is_own = header.incarnation == self.config.incarnation;
            return Err(if is_own {
                Reject::Own
            } else {
                Reject::SameName
            });
        }
        let found = self.peers.note(&header, from, now)?;
        let session = found.before.and_then(|peer| peer.bulk.session());
        actions.extend(session.map(|session| Action::StopBulk { session }));
        // It is told soon that it is heard.
        self.is_news |= found.is_new;
        match message {
            Message::Update(update) => self.on_update(found.index, update, now, actions),
            Message::Status(status) => self.on_status(found.index, status, now, actions),
            Message::Ask(ask) => {
                let is_own = ask.node == self.config.node;
                if is_own && ask.incarnation == self.config.incarnation {
                    self.sender.ask(&ask.ranges, now);
                    actions.extend(self.sender.repair(now));
                }
            }
        }
        Ok(())
    }

    fn on_update(
        &mut self,
        index: usize,
        update: Update,
        now: Duration,
        actions: &mut Vec<Action<H>>,
    ) {
        let peer = &mut self.peers.all[index];
        if !peer.hears_us {
            // A bulk resync is to follow that has all this.
            peer.stream.skip_to(update.number);
            self.early += 1;
            return;
        }
        if peer.stream.on_update(&update, now) == Fate::Applied {
            let own = update.records.iter().filter(|(_, is_learned)| !is_learned);
            let own = own.map(|(record, _)| record);
            if !peer.bulk.on_live(update.number, own) {
                restart(peer, now, actions);
            }
            let node = peer.node.clone();
            self.on_heard(&update.heard, now);
            let records = self.hold_back(index, update.records, now, actions);
            self.apply(&node, records, How::Live, now, actions);
        }
        self.check_gaps(index, now, actions);
    }

    fn on_status(
        &mut self,
        index: usize,
        status: Status,
        now: Duration,
        actions: &mut Vec<Action<H>>,
    ) {
        let peer = &mut self.peers.all[index];
        let of_us = status.peers.iter().find(|heard| {
            heard.node == self.config.node && heard.incarnation == self.config.incarnation
        });
        peer.of_us = of_us.cloned();
        if !peer.hears_us {
            peer.stream.skip_to(status.sent);
            peer.hears_us = peer.of_us.is_some();
        }
        peer.stream.on_told(status.sent, now);
        peer.status = Some(status);
        self.check_gaps(index, now, actions);
        self.check_bulk(index, now, actions);
    }

    /// Gaps that cannot be filled, or need not be.
    fn check_gaps(&mut self, index: usize, now: Duration, actions: &mut Vec<Action<H>>) {
        let peer = &mut self.peers.all[index];
        if !peer.bulk.needs_gaps() {
            peer.stream.gaps.clear();
            return;
        }
        let oldest = peer.status.as_ref().map_or(0, |status| status.oldest);
        if peer.stream.gaps.is_hopeless(oldest) {
            peer.stream.gaps.clear();
            restart(peer, now, actions);
            self.is_news = true;
        }
    }

    /// A bulk resync from the peer can be begun now. One at a time: what a peer knows of another one's connections may be newer
    /// than what that one's walk has read already, and would be undone by what is on its way.
    fn may_start(&self, peer: &Peer, now: Duration) -> bool {
        peer.hears_us
            && peer.is_heard(now)
            && peer.bulk_address().is_some()
            && !self.peers.is_any_in_session()
    }

    fn check_bulk(&mut self, index: usize, now: Duration, actions: &mut Vec<Action<H>>) {
        // Before the next one begins.
        self.release(now, actions);
        let session = SessionId(self.next_session + 1);
        let may_start = self.may_start(&self.peers.all[index], now);
        let peer = &mut self.peers.all[index];
        match peer.bulk.phase {
            Phase::Running {
                session, heard_at, ..
            } if now >= heard_at + BULK_SILENCE => {
                peer.bulk.lost(now);
                actions.push(Action::StopBulk { session });
            }
            Phase::Due { at } if at <= now && may_start => {
                let Some(address) = peer.bulk_address() else {
                    return;
                };
                let resume = peer.bulk.cursor().map(|cursor| Resume {
                    incarnation: peer.incarnation,
                    cursor,
                });
                peer.bulk.start(session, now);
                actions.push(Action::StartBulk {
                    session,
                    node: peer.node.clone(),
                    incarnation: peer.incarnation,
                    address,
                    resume,
                });
                self.next_session += 1;
            }
            Phase::Due { .. } | Phase::Running { .. } | Phase::Done => {}
        }
    }

    fn ask(&mut self, index: usize, now: Duration, actions: &mut Vec<Action<H>>) {
        self.check_gaps(index, now, actions);
        let peer = &mut self.peers.all[index];
        let Some(ranges) = peer.stream.ask(now) else {
            return;
        };
        let to = To::Peer(peer.address);
        let ask = Ask {
            node: peer.node.clone(),
            incarnation: peer.incarnation,
            ranges,
        };
        let action = self.seal(to, &Message::Ask(ask));
        actions.push(action);
    }

    /// Applies records, those apart that the peer has from another one; unless what is kept aside under their names is newer.
    pub(super) fn apply(
        &mut self,
        from: &NodeName,
        records: Vec<(Record, bool)>,
        how: How,
        now: Duration,
        actions: &mut Vec<Action<H>>,
    ) {
        for (how, second_hand) in [(how, false), (How::SecondHand, true)] {
            let records = records
                .iter()
                .filter(|(_, learned)| *learned == second_hand);
            let mut records: Vec<_> = records.map(|(record, _)| *record).collect();
            if self.aside.len() > 0 {
                records.retain(|record| self.aside.yields(record, how, now));
            }
            if records.is_empty() {
                continue;
            }
            actions.push(apply(from.clone(), records, how));
        }
    }

    fn send_status(&mut self, now: Duration, actions: &mut Vec<Action<H>>) {
        let heard = |peer: &Peer| Heard {
            node: peer.node.clone(),
            incarnation: peer.incarnation,
            applied: peer.stream.applied(),
            missing: u32::try_from(peer.stream.gaps.count()).unwrap_or(u32::MAX),
            is_synced: peer.is_synced(),
        };
        let peers = self.peers.all.iter();
        let status = Status {
            sent: self.sender.number(),
            oldest: self.sender.oldest(),
            backlog: u32::try_from(self.sender.backlog).unwrap_or(u32::MAX),
            bulk_port: self.config.bulk_port,
            wants_bulk: peers.clone().any(|peer| !peer.bulk.is_done()),
            peers: peers.filter(|peer| peer.is_heard(now)).map(heard).collect(),
        };
        self.status_at = Some(now);
        self.is_news = false;
        let action = self.seal(To::Everyone, &Message::Status(status));
        actions.push(action);
    }

    fn send_updates(&mut self, updates: Vec<Update>) -> Vec<Action<H>> {
        let updates = updates.into_iter();
        let sealed = updates.map(|update| self.seal(To::Everyone, &Message::Update(update)));
        sealed.collect()
    }

    fn seal(&mut self, to: To, message: &Message) -> Action<H> {
        self.sequence += 1;
        let header = Header {
            node: self.config.node.clone(),
            incarnation: self.config.incarnation,
            sequence: self.sequence,
        };
        let bytes = self.keyring.seal(&header, message);
        Action::Send { to, bytes }
    }

    fn in_session(&mut self, session: SessionId) -> Option<&mut Peer> {
        let mut peers = self.peers.all.iter_mut();
        peers.find(|peer| peer.bulk.session() == Some(session))
    }
}

/// What is had of the peer is not worth going on with.
fn restart<H>(peer: &mut Peer, now: Duration, actions: &mut Vec<Action<H>>) {
    let session = peer.bulk.session();
    actions.extend(session.map(|session| Action::StopBulk { session }));
    peer.bulk.restart(now);
}

fn apply<H>(from: NodeName, records: impl IntoIterator<Item = Record>, how: How) -> Action<H> {
    let (mut entries, mut templates) = (Vec::new(), Vec::new());
    for record in records {
        sort_in(record, &mut entries, &mut templates);
    }
    Action::Apply {
        from,
        entries,
        templates,
        how,
    }
}

fn sort_in(
    record: Record,
    entries: &mut Vec<crate::entry::Entry>,
    templates: &mut Vec<crate::entry::Template>,
) {
    match record {
        Record::Entry(entry) => entries.push(entry),
        Record::Template(template) => templates.push(template),
    }
}
