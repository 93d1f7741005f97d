//! What travels: connections and persistence templates by their names. Ids of services and destinations are each node's own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use xdp_ebpf::state::State;
use xdp_ebpf::wire::protocol;

/// Longest name of a node, in bytes.
pub const NODE_NAME_BYTES: usize = 32;

/// A node's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

/// A name that no node can have.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "a node's name has {found} bytes; expected 1 to {NODE_NAME_BYTES}, and no control characters"
)]
pub struct NodeNameError {
    /// So many bytes.
    pub found: usize,
}

impl NodeName {
    /// A node's name.
    ///
    /// # Errors
    /// It is empty or too long, or has what would move an operator's cursor.
    pub fn new(name: &str) -> Result<Self, NodeNameError> {
        if (1..=NODE_NAME_BYTES).contains(&name.len()) && !name.contains(char::is_control) {
            Ok(Self(name.into()))
        } else {
            Err(NodeNameError { found: name.len() })
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for NodeName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl std::fmt::Display for NodeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// IP protocol.
    pub protocol: u8,
    /// The client.
    pub client: SocketAddr,
    /// What the client talks to; of the client's family.
    pub virtual_service: SocketAddr,
    /// The real server, of either family; port 0: the virtual service's port is kept.
    pub server: SocketAddr,
    /// Its state.
    pub state: State,
    /// Seconds since it was last seen: what is left of its time follows from that on every node by its own timeouts.
    pub idle_s: u16,
}

/// A persistence template: where a client was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Template {
    /// IP protocol.
    pub protocol: u8,
    /// The service, by its first endpoint; with `per_port` the endpoint itself.
    pub virtual_service: SocketAddr,
    /// It holds for this endpoint alone, not for all of the service.
    pub per_port: bool,
    /// The client, masked; of the virtual service's family.
    pub client: IpAddr,
    /// The real server, of either family; port 0: the virtual service's port is kept.
    pub server: SocketAddr,
    /// Seconds since it was last used.
    pub idle_s: u32,
}

/// One or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// A connection.
    Entry(Entry),
    /// A persistence template.
    Template(Template),
}

/// What a record is about: two records of one name are news of the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordName {
    /// A connection.
    Entry {
        /// IP protocol.
        protocol: u8,
        /// The client.
        client: SocketAddr,
        /// What it talks to.
        virtual_service: SocketAddr,
    },
    /// A persistence template.
    Template {
        /// IP protocol.
        protocol: u8,
        /// The service or endpoint.
        virtual_service: SocketAddr,
        /// It holds for the endpoint alone.
        per_port: bool,
        /// The client, masked.
        client: IpAddr,
    },
}

impl Record {
    /// What it is about.
    #[must_use]
    pub fn name(&self) -> RecordName {
        match self {
            Self::Entry(entry) => RecordName::Entry {
                protocol: entry.protocol,
                client: entry.client,
                virtual_service: entry.virtual_service,
            },
            Self::Template(template) => RecordName::Template {
                protocol: template.protocol,
                virtual_service: template.virtual_service,
                per_port: template.per_port,
                client: template.client,
            },
        }
    }

    /// Whether there can be such a thing, whoever tells of it: another director with a mistake in it, or nobody's friend.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), Impossible> {
        if !self.is_of_one_family() {
            return Err(Impossible::Families);
        }
        let (Self::Entry(Entry { protocol, .. }) | Self::Template(Template { protocol, .. })) =
            self;
        if ![protocol::TCP, protocol::UDP].contains(protocol) {
            return Err(Impossible::Protocol);
        }
        match self {
            Self::Entry(entry) if !is_told_of(entry.protocol, entry.state) => {
                Err(Impossible::State)
            }
            _ => Ok(()),
        }
    }

    /// Whether client and virtual service are of one family, without which it cannot be written down.
    #[must_use]
    pub fn is_of_one_family(&self) -> bool {
        match self {
            Self::Entry(entry) => entry.client.is_ipv4() == entry.virtual_service.is_ipv4(),
            Self::Template(template) => {
                template.client.is_ipv4() == template.virtual_service.is_ipv4()
            }
        }
    }

    /// Seconds since it was last seen.
    #[must_use]
    pub fn idle_s(&self) -> u32 {
        match self {
            Self::Entry(entry) => entry.idle_s.into(),
            Self::Template(template) => template.idle_s,
        }
    }

    /// The same, idle for this much longer.
    #[must_use]
    pub fn aged(mut self, seconds: u64) -> Self {
        match &mut self {
            Self::Entry(entry) => {
                let seconds = u16::try_from(seconds).unwrap_or(u16::MAX);
                entry.idle_s = entry.idle_s.saturating_add(seconds);
            }
            Self::Template(template) => {
                let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
                template.idle_s = template.idle_s.saturating_add(seconds);
            }
        }
        self
    }

    /// The same, after it has waited here. Rounded up: it is never made younger than it is.
    #[must_use]
    pub fn waited(self, time: Duration) -> Self {
        self.aged(time.as_secs() + u64::from(time.subsec_nanos() > 0))
    }
}

/// Whether connections of this protocol come to this state, and peers are told of them then.
fn is_told_of(protocol: u8, state: State) -> bool {
    match state {
        State::Established | State::FinWait | State::CloseWait | State::TimeWait | State::Close => {
            protocol == protocol::TCP
        }
        State::Udp => protocol == protocol::UDP,
        // Half-open ones no director tells of.
        State::SynReceived | State::UdpOne => false,
    }
}

/// Why there cannot be what a peer told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// Client and virtual service are of different families.
    #[error("a client and a virtual service of different families")]
    Families,
    /// Nothing of this protocol is balanced.
    #[error("a protocol that is not balanced")]
    Protocol,
    /// The protocol has no such state, or peers are not told of it.
    #[error("a state that its protocol does not have, or that is not shared")]
    State,
    /// It has been idle for longer than it lives.
    #[error("idle for longer than it lives here")]
    Idle,
}

/// How records came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// In the update stream of the node that serves them.
    Live,
    /// In a bulk resync from the node that serves them.
    Bulk,
    /// In a bulk resync from a node that learned them itself: only what nobody nearer has told is news.
    SecondHand,
    /// They were kept aside until their service and server are known.
    Aside,
}

/// What a node has already under the name of a record that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// It came from a peer, and no packet of it has passed here since.
    pub is_learned: bool,
    /// Seconds since it was last seen.
    pub idle_s: u32,
}

/// A table's clock ticks in seconds: what was seen 0.2 s ago is idle for 0 or 1. So the idle times of one moment at two nodes
/// differ by one at most, when both saw it.
const OWN_S: u32 = 1;
/// What was learned is off by another one: the delay on the way.
const LEARNED_S: u32 = 2;
/// And by one more if it was learned twice.
const SECOND_HAND_S: u32 = 3;

/// Whether what arrives takes the place of what is held. Whoever saw the connection last knows it best.
///
/// * What is this node's own gives way only to what is certainly newer: a packet passed at the peer after the last one here.
///   A peer that was in charge before, and is late, cannot undo what happened here. (That a node which hands over in order
///   marks what it had as learned, so that news count at once, was tried: the simulator finds late news of whoever was in charge
///   still earlier that then undo it. It would take the number of each term of office in every record.)
/// * What was learned gives way to the node that serves it, which tells its states in their order; unless it is certainly older
///   than what another node told since, which took over.
/// * Second-hand news count only if certainly newer: they may be one's own, come back.
#[must_use]
pub fn supersedes(held: Held, idle_s: u32, how: How) -> bool {
    match (held.is_learned, how) {
        (false, How::Live | How::Bulk | How::Aside) => idle_s.saturating_add(OWN_S) < held.idle_s,
        (true, How::Live | How::Bulk | How::Aside) => {
            idle_s <= held.idle_s.saturating_add(LEARNED_S)
        }
        (_, How::SecondHand) => idle_s.saturating_add(SECOND_HAND_S) < held.idle_s,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be() {
        use Impossible::{Families, Protocol, State as NoState};
        use State::{Close, CloseWait, Established, FinWait, SynReceived, TimeWait, Udp, UdpOne};
        let (v4, v6) = ("192.0.2.1:9", "[2001:db8::1]:9");
        // (protocol, state, client, virtual service, why not)
        let mut cases = vec![
            (6, Established, v6, v6, None),
            (17, Udp, v6, v6, None),
            (6, Established, v4, v6, Some(Families)),
            (17, Udp, v6, v4, Some(Families)),
            (6, UdpOne, v4, v4, Some(NoState)),
            (6, SynReceived, v4, v4, Some(NoState)),
            (17, UdpOne, v4, v4, Some(NoState)),
            (6, Udp, v4, v4, Some(NoState)),
            (0, Established, v4, v4, Some(Protocol)),
            (132, Established, v4, v4, Some(Protocol)),
        ];
        for state in [Established, FinWait, CloseWait, TimeWait, Close] {
            cases.push((6, state, v4, v4, None));
            cases.push((17, state, v4, v4, Some(NoState)));
        }
        for (protocol, state, client, virtual_service, expected) in cases {
            let client: SocketAddr = client.parse().expect("an address");
            let virtual_service = virtual_service.parse().expect("an address");
            // Real servers may be of another family.
            let server = SocketAddr::from(([10, 0, 0, 2], 80));
            let entry = Record::Entry(Entry {
                protocol,
                client,
                virtual_service,
                server,
                state,
                idle_s: 0,
            });
            assert_eq!(entry.check().err(), expected, "{entry:?}");
            let template = Record::Template(Template {
                protocol,
                virtual_service,
                per_port: false,
                client: client.ip(),
                server,
                idle_s: 0,
            });
            // These have no state.
            let expected = expected.filter(|why| *why != NoState);
            assert_eq!(template.check().err(), expected, "{template:?}");
        }
    }

    #[test]
    fn who_saw_it_last_knows_best() {
        let cases = [
            // Learned, idle here; idle of what comes, how; taken.
            (false, 5, 3, How::Live, true),
            (false, 5, 4, How::Live, false),
            (false, 5, 5, How::Live, false),
            (false, 0, 0, How::Bulk, false),
            // Its own news, come back.
            (false, 5, 3, How::SecondHand, false),
            (false, 5, 1, How::SecondHand, true),
            (true, 0, 0, How::Live, true),
            (true, 0, 2, How::Bulk, true),
            (true, 0, 3, How::Live, false),
            (true, 5, 0, How::Live, true),
            (true, 5, 2, How::SecondHand, false),
            (true, 5, 1, How::SecondHand, true),
            (true, u32::MAX, u32::MAX, How::SecondHand, false),
        ];
        for (is_learned, held_s, idle_s, how, expected) in cases {
            let held = Held {
                is_learned,
                idle_s: held_s,
            };
            assert_eq!(
                supersedes(held, idle_s, how),
                expected,
                "{held:?} {idle_s} {how:?}"
            );
        }
    }

    #[test]
    fn names_of_nodes_have_a_length() {
        assert!(NodeName::new("lb1").is_ok());
        assert_eq!(NodeName::new(""), Err(NodeNameError { found: 0 }));
        let long = "x".repeat(NODE_NAME_BYTES + 1);
        assert_eq!(NodeName::new(&long), Err(NodeNameError { found: 33 }));
    }
}
