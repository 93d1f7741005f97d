//! Own heartbeats: what a node tells the others, on every link the same.
//!
//! A node tells its own state and what it knows of the others, so that nodes without a link between them learn of each
//! other from those between. What is known of a node is always one of its own messages, named by incarnation and
//! sequence: old news cannot circulate as new, because only the node itself makes the sequence rise. A node names all
//! incarnations that it has heard of, also of those that it does not hold for alive: who finds its own among them knows
//! that the message was sent after its own start.
//!
//! ```text
//!  "DH"  version  key id  flags  addresses  groups  nodes  keepalive (4)  deadtime (4), in microseconds
//!  addresses of the sender: 16 bytes each, IPv4 mapped into IPv6
//!  id of each group: 4 bytes
//!  each node, the sender first: id (4), incarnation (8), sequence (8), address (16), alive (2), each group: flags, priority
//!  HMAC-SHA256 of all that: 32 bytes
//! ```

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::Reject;

/// Most nodes.
pub const NODES: usize = 8;
/// Most groups.
pub const GROUPS: usize = 32;
/// Bytes of the signature.
pub const SIGNATURE: usize = 32;
/// The longest message: it fits one packet on every link.
pub const LONGEST: usize = length(GROUPS, NODES, ADDRESSES);
/// Most addresses of the sender.
pub const ADDRESSES: usize = 8;

const MAGIC: [u8; 2] = *b"DH";
const VERSION: u8 = 2;
const HEADER: usize = 8;
const TIMES: usize = 8;
const PER_NODE: usize = 38;
const PER_ADDRESS: usize = 16;

const LEAVING: u8 = 1;

/// The length of a message with its signature.
#[must_use]
pub const fn length(groups: usize, nodes: usize, addresses: usize) -> usize {
    HEADER
        + TIMES
        + PER_ADDRESS * addresses
        + 4 * groups
        + nodes * (PER_NODE + 2 * groups)
        + SIGNATURE
}

/// Names a node or a group in messages: the first bytes of its name's SHA-256. The configuration refuses names that collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameId(pub u32);

impl NameId {
    /// The id of a name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let digest = Sha256::digest(name.as_bytes());
        Self(u32::from_be_bytes([
            digest[0], digest[1], digest[2], digest[3],
        ]))
    }
}

/// One heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The addresses that the sender advertises VRRP from, so that its adverts are not taken for a foreign router's.
    pub addresses: Vec<IpAddr>,
    /// The sender stops in order; others take over at once.
    pub is_leaving: bool,
    /// How often the sender sends. All nodes should have the same, and they tell when they do not.
    pub keepalive: Duration,
    /// Silence after which it holds another node for dead.
    pub deadtime: Duration,
    /// Groups that all the states below are about, in this order.
    pub groups: Vec<NameId>,
    /// The sender's state.
    pub sender: NodeState,
    /// All others that it knows of. Of those that it does not hold for alive only the incarnation counts.
    pub others: Vec<NodeState>,
}

/// What is known of one node: the state in its newest message that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// Which node.
    pub node: NameId,
    /// Rises with every start of the node.
    pub incarnation: u64,
    /// Rises with every message.
    pub sequence: u64,
    /// Decides where priorities are equal, as in VRRP: the higher one.
    pub address: Option<IpAddr>,
    /// The nodes that it holds for alive: bit 0 the sender of this message, the next ones [`Message::others`].
    pub alive: u16,
    /// For each of [`Message::groups`].
    pub groups: Vec<GroupState>,
}

/// How a node stands to a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// Effective priority; 0: it cannot serve the group now.
    pub priority: u8,
    /// It is primary.
    pub is_primary: bool,
    /// It asks the primary to hand over.
    pub wants: bool,
    /// By an operator's order: goes before priorities.
    pub is_forced: bool,
    /// Primary: it serves the group less well than configured, as its priority is lowered or it could not add all addresses.
    /// Not primary: it lacks connections that others have.
    pub is_degraded: bool,
    /// Serves only if nobody else can: an operator ordered standby, or, of a primary that is degraded too, it could not add all
    /// addresses.
    pub is_standby: bool,
    /// It sees a foreign VRRP router as primary.
    pub sees_foreign: bool,
    /// It may serve the group, as configured.
    pub is_member: bool,
    /// It was started a short time ago and does not claim anything yet.
    pub is_starting: bool,
}

impl GroupState {
    fn flags(self) -> u8 {
        let bits = [
            self.is_primary,
            self.wants,
            self.is_forced,
            self.is_degraded,
            self.is_standby,
            self.sees_foreign,
            self.is_member,
            self.is_starting,
        ];
        bits.iter()
            .rev()
            .fold(0, |flags, bit| flags << 1 | u8::from(*bit))
    }

    fn read(flags: u8, priority: u8) -> Self {
        let bit = |number: u8| flags & 1 << number != 0;
        Self {
            priority,
            is_primary: bit(0),
            wants: bit(1),
            is_forced: bit(2),
            is_degraded: bit(3),
            is_standby: bit(4),
            sees_foreign: bit(5),
            is_member: bit(6),
            is_starting: bit(7),
        }
    }
}

impl Message {
    /// Everything but the signature. More groups or nodes than the limits are left out; the configuration has no more.
    pub(super) fn encode(&self, key_id: u8) -> Vec<u8> {
        let groups = self.groups.len().min(GROUPS);
        let others = self.others.len().min(NODES - 1);
        let addresses = self.addresses.len().min(ADDRESSES);
        let flags = if self.is_leaving { LEAVING } else { 0 };
        let mut bytes = Vec::with_capacity(length(groups, 1 + others, addresses));
        bytes.extend(MAGIC);
        bytes.extend([VERSION, key_id, flags]);
        bytes.extend([addresses as u8, groups as u8, 1 + others as u8]);
        for time in [self.keepalive, self.deadtime] {
            // The configuration has nothing longer than ten minutes.
            let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
            bytes.extend(micros.to_be_bytes());
        }
        for address in &self.addresses[..addresses] {
            bytes.extend(mapped(Some(*address)).octets());
        }
        for group in &self.groups[..groups] {
            bytes.extend(group.0.to_be_bytes());
        }
        for node in std::iter::once(&self.sender).chain(&self.others[..others]) {
            bytes.extend(node.node.0.to_be_bytes());
            bytes.extend(node.incarnation.to_be_bytes());
            bytes.extend(node.sequence.to_be_bytes());
            bytes.extend(mapped(node.address).octets());
            bytes.extend(node.alive.to_be_bytes());
            for position in 0..groups {
                let state = node.groups.get(position).copied().unwrap_or_default();
                bytes.extend([state.flags(), state.priority]);
            }
        }
        bytes
    }

    /// The key's number of a whole message, if it is one in this version at all.
    pub(super) fn key_id(bytes: &[u8]) -> Result<u8, Reject> {
        if bytes.len() > LONGEST {
            return Err(Reject::Long);
        }
        if bytes.len() < length(0, 1, 0) {
            return Err(Reject::Short);
        }
        if bytes[..2] != MAGIC {
            return Err(Reject::Foreign);
        }
        if bytes[2] != VERSION {
            return Err(Reject::Version);
        }
        Ok(bytes[3])
    }

    /// Reads what stands before the signature, which was found to be right.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        let mut reader = Reader(bytes);
        let [_, _, _, _, flags, addresses, groups, nodes] = reader.array::<HEADER>()?;
        let (addresses, groups, nodes) = (
            usize::from(addresses),
            usize::from(groups),
            usize::from(nodes),
        );
        let fits = addresses <= ADDRESSES && groups <= GROUPS && (1..=NODES).contains(&nodes);
        if !fits || flags & !LEAVING != 0 {
            return Err(Reject::Malformed);
        }
        let keepalive = reader.micros()?;
        let deadtime = reader.micros()?;
        let addresses = (0..addresses)
            .map(|_| reader.address()?.ok_or(Reject::Malformed))
            .collect::<Result<_, _>>()?;
        let groups = (0..groups)
            .map(|_| Ok(NameId(reader.u32()?)))
            .collect::<Result<Vec<_>, _>>()?;
        let sender = reader.node(groups.len(), nodes)?;
        let others = (1..nodes)
            .map(|_| reader.node(groups.len(), nodes))
            .collect::<Result<_, _>>()?;
        if !reader.0.is_empty() {
            return Err(Reject::Malformed);
        }
        Ok(Self {
            addresses,
            is_leaving: flags & LEAVING != 0,
            keepalive,
            deadtime,
            groups,
            sender,
            others,
        })
    }
}

/// An address as 16 bytes; zeros stand for none.
fn mapped(address: Option<IpAddr>) -> Ipv6Addr {
    match address {
        None => Ipv6Addr::UNSPECIFIED,
        Some(IpAddr::V4(address)) => address.to_ipv6_mapped(),
        Some(IpAddr::V6(address)) => address,
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Reject> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Reject::Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    fn u32(&mut self) -> Result<u32, Reject> {
        self.array().map(u32::from_be_bytes)
    }

    fn micros(&mut self) -> Result<Duration, Reject> {
        Ok(Duration::from_micros(self.u32()?.into()))
    }

    fn u64(&mut self) -> Result<u64, Reject> {
        self.array().map(u64::from_be_bytes)
    }

    fn address(&mut self) -> Result<Option<IpAddr>, Reject> {
        let address = Ipv6Addr::from(self.array::<16>()?);
        Ok((!address.is_unspecified()).then(|| IpAddr::V6(address).to_canonical()))
    }

    fn node(&mut self, groups: usize, nodes: usize) -> Result<NodeState, Reject> {
        let (node, incarnation, sequence) = (NameId(self.u32()?), self.u64()?, self.u64()?);
        let address = self.address()?;
        let alive = u16::from_be_bytes(self.array()?);
        if u32::from(alive) >> nodes != 0 {
            return Err(Reject::Malformed);
        }
        let groups = (0..groups)
            .map(|_| {
                let [flags, priority] = self.array()?;
                Ok(GroupState::read(flags, priority))
            })
            .collect::<Result<_, _>>()?;
        Ok(NodeState {
            node,
            incarnation,
            sequence,
            address,
            alive,
            groups,
        })
    }
}
