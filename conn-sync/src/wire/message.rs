//! Director's own datagrams.
//!
//! ```text
//!  update: if it has records of others: heard: count (1), each name, incarnation (8), number (8); then, as all have:
//!          number (8)  repairs: count (1), each first (8), further (2)  records: count (2), each as in `entry`
//!  status: sent (8)  oldest (8)  backlog (4)  bulk port (2)  flags (1)  peers: count (1), each
//!          name, incarnation (8), applied (8), missing (4), flags (1)
//!  ask:    node name  incarnation (8)  ranges: count (1), each first (8), last (8)
//! ```

use super::auth::Reject;
use super::entry;
use super::header::{self, Header};
use super::reader::{Malformed, Reader, put_node_name};
use crate::entry::{NodeName, Record};
use crate::machine::limits::{PEERS, RANGES_PER_DATAGRAM, RECORDS_PER_DATAGRAM};

/// Numbers from the first to the last one, both included.
pub type Range = (u64, u64);

/// What is in a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Records as they stand now.
    Update(Update),
    /// How the sender stands.
    Status(Status),
    /// Missing updates are asked for.
    Ask(Ask),
}

/// Part of the update stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Its place in the stream, which has no gaps; the first one is 1.
    pub number: u64,
    /// What the sender has from others among the records is as new as this; none: it has none from others.
    pub heard: Vec<HeardUpTo>,
    /// Updates that need not be waited for any more: all that was in them has been sent again, up to and with this one.
    pub repairs: Vec<Range>,
    /// What is told, and whether the sender has it from a peer itself: so it is for repairs of what was its own before.
    pub records: Vec<(Record, bool)>,
}

/// How far a node has heard another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardUpTo {
    /// The other node.
    pub node: NodeName,
    /// Which start of it.
    pub incarnation: u64,
    /// The last update of it that came.
    pub number: u64,
}

/// How a node stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The last update that it sent; 0: none.
    pub sent: u64,
    /// The oldest update that it can still repair; one more than `sent`: none.
    pub oldest: u64,
    /// Records that wait to be sent.
    pub backlog: u32,
    /// Where it serves bulk resyncs; 0: nowhere.
    pub bulk_port: u16,
    /// It is being filled by a bulk resync, or waits for one.
    pub wants_bulk: bool,
    /// The peers it hears.
    pub peers: Vec<Heard>,
}

/// What a node has of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The peer.
    pub node: NodeName,
    /// Which start of it.
    pub incarnation: u64,
    /// The last update before the first missing one.
    pub applied: u64,
    /// How many are missing.
    pub missing: u32,
    /// It has all of that peer's table.
    pub is_synced: bool,
}

/// A question for missing updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Who is asked.
    pub node: NodeName,
    /// Which start of it.
    pub incarnation: u64,
    /// The missing updates.
    pub ranges: Vec<Range>,
}

const UPDATE: u8 = 1;
const STATUS: u8 = 2;
const ASK: u8 = 3;
/// An update with records of others.
const SECOND_HAND: u8 = 4;

const WANTS_BULK: u8 = 1;
const IS_SYNCED: u8 = 1;

/// Bytes of a repaired range.
const REPAIR: usize = 10;
/// Bytes of an update without records and repairs.
const EMPTY_UPDATE: usize = 11;

impl Update {
    /// Bytes for records and repairs in a datagram of this length.
    pub(crate) fn room(datagram_bytes: usize, node: &NodeName) -> usize {
        let taken = Header::length(node) + EMPTY_UPDATE + header::SIGNATURE;
        datagram_bytes.saturating_sub(taken)
    }

    /// Bytes that this many repaired ranges take.
    pub(crate) fn repairs_length(ranges: usize) -> usize {
        ranges * REPAIR
    }

    /// Bytes that it takes to say how far others were heard.
    pub(crate) fn heard_length(heard: &[HeardUpTo]) -> usize {
        let each = heard.iter().map(|it| 1 + it.node.as_str().len() + 16);
        1 + each.sum::<usize>()
    }

    /// Bytes that a record takes.
    pub(crate) fn record_length(record: &Record) -> usize {
        entry::length(record)
    }
}

impl Message {
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Update(update) if !update.heard.is_empty() => SECOND_HAND,
            Self::Update(_) => UPDATE,
            Self::Status(_) => STATUS,
            Self::Ask(_) => ASK,
        }
    }

    /// More than the limits is left out; the machine does not have more.
    pub(super) fn put(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Update(update) => {
                let repairs = &update.repairs[..update.repairs.len().min(RANGES_PER_DATAGRAM)];
                let records = &update.records[..update.records.len().min(RECORDS_PER_DATAGRAM)];
                if !update.heard.is_empty() {
                    put_heard(bytes, &update.heard);
                }
                bytes.extend(update.number.to_be_bytes());
                bytes.push(repairs.len() as u8);
                for (first, last) in repairs {
                    bytes.extend(first.to_be_bytes());
                    let further = u16::try_from(last.saturating_sub(*first));
                    bytes.extend(further.unwrap_or(u16::MAX).to_be_bytes());
                }
                bytes.extend((records.len() as u16).to_be_bytes());
                for (record, is_learned) in records {
                    entry::put(bytes, record, *is_learned);
                }
            }
            Self::Status(status) => {
                let peers = &status.peers[..status.peers.len().min(PEERS)];
                bytes.extend(status.sent.to_be_bytes());
                bytes.extend(status.oldest.to_be_bytes());
                bytes.extend(status.backlog.to_be_bytes());
                bytes.extend(status.bulk_port.to_be_bytes());
                bytes.push(if status.wants_bulk { WANTS_BULK } else { 0 });
                bytes.push(peers.len() as u8);
                for peer in peers {
                    put_node_name(bytes, &peer.node);
                    bytes.extend(peer.incarnation.to_be_bytes());
                    bytes.extend(peer.applied.to_be_bytes());
                    bytes.extend(peer.missing.to_be_bytes());
                    bytes.push(if peer.is_synced { IS_SYNCED } else { 0 });
                }
            }
            Self::Ask(ask) => {
                let ranges = &ask.ranges[..ask.ranges.len().min(RANGES_PER_DATAGRAM)];
                put_node_name(bytes, &ask.node);
                bytes.extend(ask.incarnation.to_be_bytes());
                bytes.push(ranges.len() as u8);
                for (first, last) in ranges {
                    bytes.extend(first.to_be_bytes());
                    bytes.extend(last.to_be_bytes());
                }
            }
        }
    }

    pub(super) fn read(kind: u8, mut reader: Reader<'_>) -> Result<Self, Reject> {
        let message = match kind {
            UPDATE => Self::Update(read_update(&mut reader)?),
            SECOND_HAND => {
                let heard = read_heard(&mut reader)?;
                if heard.is_empty() {
                    return Err(Reject::Malformed);
                }
                Self::Update(Update {
                    heard,
                    ..read_update(&mut reader)?
                })
            }
            STATUS => Self::Status(read_status(&mut reader)?),
            ASK => Self::Ask(read_ask(&mut reader)?),
            _ => return Err(Reject::Malformed),
        };
        reader.end()?;
        Ok(message)
    }
}

/// So many of something, if that is allowed.
fn up_to(count: usize, limit: usize) -> Result<std::ops::Range<usize>, Malformed> {
    if count <= limit {
        Ok(0..count)
    } else {
        Err(Malformed)
    }
}

fn flag(byte: u8, flag: u8) -> Result<bool, Malformed> {
    if byte & !flag == 0 {
        Ok(byte == flag)
    } else {
        Err(Malformed)
    }
}

/// At most [`PEERS`] of them: the machine does not have more.
pub(super) fn put_heard(bytes: &mut Vec<u8>, heard: &[HeardUpTo]) {
    let heard = &heard[..heard.len().min(PEERS)];
    bytes.push(heard.len() as u8);
    for peer in heard {
        put_node_name(bytes, &peer.node);
        bytes.extend(peer.incarnation.to_be_bytes());
        bytes.extend(peer.number.to_be_bytes());
    }
}

pub(super) fn read_heard(reader: &mut Reader<'_>) -> Result<Vec<HeardUpTo>, Malformed> {
    let peers = up_to(reader.u8()?.into(), PEERS)?.map(|_| {
        Ok(HeardUpTo {
            node: reader.node_name()?,
            incarnation: reader.u64()?,
            number: reader.u64()?,
        })
    });
    peers.collect()
}

fn read_update(reader: &mut Reader<'_>) -> Result<Update, Malformed> {
    let number = reader.u64()?;
    let repairs = up_to(reader.u8()?.into(), RANGES_PER_DATAGRAM)?
        .map(|_| {
            let (first, further) = (reader.u64()?, reader.u16()?);
            let last = first.checked_add(further.into()).ok_or(Malformed)?;
            // Only what was sent before can be repaired.
            if first == 0 || last >= number {
                return Err(Malformed);
            }
            Ok((first, last))
        })
        .collect::<Result<_, _>>()?;
    let records = up_to(reader.u16()?.into(), RECORDS_PER_DATAGRAM)?
        .map(|_| entry::read(reader))
        .collect::<Result<_, _>>()?;
    if number == 0 {
        return Err(Malformed);
    }
    Ok(Update {
        number,
        heard: vec![],
        repairs,
        records,
    })
}

fn read_status(reader: &mut Reader<'_>) -> Result<Status, Malformed> {
    let (sent, oldest, backlog) = (reader.u64()?, reader.u64()?, reader.u32()?);
    let bulk_port = reader.u16()?;
    let wants_bulk = flag(reader.u8()?, WANTS_BULK)?;
    let peers = up_to(reader.u8()?.into(), PEERS)?
        .map(|_| {
            Ok(Heard {
                node: reader.node_name()?,
                incarnation: reader.u64()?,
                applied: reader.u64()?,
                missing: reader.u32()?,
                is_synced: flag(reader.u8()?, IS_SYNCED)?,
            })
        })
        .collect::<Result<_, _>>()?;
    if oldest > sent.saturating_add(1) {
        return Err(Malformed);
    }
    Ok(Status {
        sent,
        oldest,
        backlog,
        bulk_port,
        wants_bulk,
        peers,
    })
}

fn read_ask(reader: &mut Reader<'_>) -> Result<Ask, Malformed> {
    let (node, incarnation) = (reader.node_name()?, reader.u64()?);
    let ranges = up_to(reader.u8()?.into(), RANGES_PER_DATAGRAM)?
        .map(|_| {
            let (first, last) = (reader.u64()?, reader.u64()?);
            if first == 0 || first > last {
                return Err(Malformed);
            }
            Ok((first, last))
        })
        .collect::<Result<_, _>>()?;
    Ok(Ask {
        node,
        incarnation,
        ranges,
    })
}
