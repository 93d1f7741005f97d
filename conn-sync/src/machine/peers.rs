//! What is known of the other nodes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::limits::{DOUBTED_FOR, FORGOTTEN_AFTER, HEARD_WITHIN, PEERS};
use super::stream::Stream;
use super::walk::Bulk;
use crate::entry::{NodeName, Record};
use crate::wire::auth::Window;
use crate::wire::message::{Heard, Status};
use crate::wire::{Header, Reject};

/// One other node.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) node: NodeName,
    pub(super) incarnation: u64,
    /// Where its datagrams come from.
    pub(super) address: SocketAddr,
    pub(super) heard_at: Duration,
    /// Where it was last heard from, by family: it may be listed under an address of each.
    heard_from: [Option<IpAddr>; 2],
    window: Window,
    /// It told that it hears this start of this node: it is alive now, nobody plays what it said before.
    pub(super) hears_us: bool,
    /// Since when it is heard without having told that, over all of its starts.
    doubted_since: Duration,
    /// What it last told of itself.
    pub(super) status: Option<Status>,
    /// What it last told that it has of us.
    pub(super) of_us: Option<Heard>,
    pub(super) stream: Stream,
    pub(super) bulk: Bulk,
    /// What it told of others' connections while a bulk resync was under way, and when.
    pub(super) second_hand: Vec<(Record, Duration)>,
    /// Whole tables that were sent to it.
    pub(super) served: u64,
}

impl Peer {
    fn new(header: &Header, address: SocketAddr, now: Duration) -> Self {
        Self {
            node: header.node.clone(),
            incarnation: header.incarnation,
            address,
            heard_at: now,
            heard_from: [None; 2],
            window: Window::default(),
            hears_us: false,
            doubted_since: now,
            status: None,
            of_us: None,
            stream: Stream::default(),
            bulk: Bulk::due(now),
            second_hand: Vec::new(),
            served: 0,
        }
    }

    pub(super) fn is_heard(&self, now: Duration) -> bool {
        now < self.heard_at + HEARD_WITHIN
    }

    /// It has had time enough to tell that it hears this node, and has not.
    pub(super) fn is_doubted(&self, now: Duration) -> bool {
        !self.hears_us && now >= self.doubted_since + DOUBTED_FOR
    }

    /// Where it serves bulk resyncs.
    pub(super) fn bulk_address(&self) -> Option<SocketAddr> {
        let port = self.status.as_ref()?.bulk_port;
        (port != 0).then(|| SocketAddr::new(self.address.ip(), port))
    }

    /// This node has all that the peer had when it last told.
    pub(super) fn is_synced(&self) -> bool {
        self.hears_us
            && self.bulk.is_done()
            && self.stream.is_whole()
            && self.second_hand.is_empty()
    }
}

/// All other nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    pub(super) all: Vec<Peer>,
}

/// A datagram's sender was found.
pub(super) struct Found {
    pub(super) index: usize,
    /// It is new, or was started anew.
    pub(super) is_new: bool,
    /// What was known of its start before.
    pub(super) before: Option<Peer>,
}

impl Peers {
    /// The peer that this comes from, if it is news.
    ///
    /// # Errors
    /// Why it is none.
    pub(super) fn note(
        &mut self,
        header: &Header,
        from: SocketAddr,
        now: Duration,
    ) -> Result<Found, Reject> {
        if header.sequence == 0 {
            return Err(Reject::Late);
        }
        let mut before = None;
        let position = self.all.iter().position(|peer| peer.node == header.node);
        let (index, is_new) = match position {
            Some(index) => {
                let known = &mut self.all[index];
                if header.incarnation < known.incarnation {
                    return Err(Reject::Old);
                }
                let is_new = header.incarnation > known.incarnation;
                if is_new {
                    let mut new = Peer::new(header, from, now);
                    new.served = known.served;
                    new.second_hand = std::mem::take(&mut known.second_hand);
                    if !known.hears_us {
                        new.doubted_since = known.doubted_since;
                    }
                    new.bulk.done = known.bulk.done;
                    new.bulk.ended_at = known.bulk.ended_at;
                    before = Some(std::mem::replace(known, new));
                }
                (index, is_new)
            }
            None => {
                before = self.make_room(now)?;
                self.all.push(Peer::new(header, from, now));
                (self.all.len() - 1, true)
            }
        };
        let peer = &mut self.all[index];
        peer.window.note(header.sequence)?;
        peer.address = from;
        peer.heard_at = now;
        let address = from.ip().to_canonical();
        peer.heard_from[usize::from(address.is_ipv6())] = Some(address);
        Ok(Found {
            index,
            is_new,
            before,
        })
    }

    /// Whether a node is heard from this address.
    pub(super) fn hears(&self, address: IpAddr, now: Duration) -> bool {
        let address = Some(address.to_canonical());
        let mut heard = self.all.iter().filter(|peer| peer.is_heard(now));
        heard.any(|peer| peer.heard_from.contains(&address))
    }

    /// A bulk resync is under way.
    pub(super) fn is_any_in_session(&self) -> bool {
        self.all.iter().any(|peer| peer.bulk.session().is_some())
    }

    fn make_room(&mut self, now: Duration) -> Result<Option<Peer>, Reject> {
        if self.all.len() < PEERS {
            return Ok(None);
        }
        // First those of whom nothing is believed yet: made up, or recorded. Whoever lives is back with his next status, which
        // says that he hears this node. Then who has gone.
        let given_up = |peer: &Peer| !peer.hears_us || now >= peer.heard_at + FORGOTTEN_AFTER;
        let all = self.all.iter().enumerate();
        let all = all.filter(|(_, peer)| given_up(peer));
        let least = all.min_by_key(|(_, peer)| (peer.hears_us, peer.heard_at));
        let (index, _) = least.ok_or(Reject::Peers)?;
        Ok(Some(self.all.remove(index)))
    }
}
