//! The limits of the protocol and its times, in one table.

use std::time::Duration;

/// Peers that are told apart. One that has not told yet that it hears this node gives way to a new one, or one that was silent
/// for [`FORGOTTEN_AFTER`].
pub const PEERS: usize = 16;
/// Bytes of the longest and the shortest "longest datagram" that can be configured: headers of IPv4 and UDP leave 1472 of an Ethernet
/// frame, those of IPv6 1452.
pub const DATAGRAM_BYTES: std::ops::RangeInclusive<usize> = 1280..=8972;
/// Records in one datagram.
pub const RECORDS_PER_DATAGRAM: usize = 512;
/// Ranges of missing numbers in one question, and ranges named as repaired in one update.
pub const RANGES_PER_DATAGRAM: usize = 32;
/// One of so many records is for what is in use and told again, whatever else there is to be told. Without that peers would take
/// connections for dead while more and more others begin and end.
pub const ONE_REFRESH_OF: u32 = 8;
/// Sent updates whose handles are kept for repairs.
pub const HISTORY: usize = 8192;
/// Ranges of missing updates of one peer; more are not repaired one by one: a bulk resync follows.
pub const GAP_RANGES: usize = 64;
/// Missing updates of one peer; more are not repaired one by one.
pub const GAP_UPDATES: u64 = 4096;
/// How often a missing update is asked for before a bulk resync follows.
pub const ASKS: u32 = 10;
/// Repairs for which the table is being looked up at a time.
pub const LOOKUPS: usize = 16;
/// Handles of one look-up: a few datagrams' worth.
pub const HANDLES_PER_LOOKUP: usize = 1024;
/// Missing updates that one look-up repairs.
pub const UPDATES_PER_LOOKUP: usize = 1024;
/// Names that live updates may bring while a bulk resync is under way; past that it begins anew.
pub const LIVE_NAMES: usize = 1 << 18;
/// Second-hand records that wait until no bulk resync is under way; past that the one that is pauses for them.
pub const SECOND_HAND: usize = 1 << 16;
/// Bytes of the longest frame of a bulk resync, without its length.
pub const FRAME_BYTES: usize = 64 << 10;
/// Records in one frame of a bulk resync: they fit, whatever their families.
pub const RECORDS_PER_FRAME: usize = 1024;

/// How often a node tells how it stands.
pub const STATUS_EVERY: Duration = Duration::from_millis(200);
/// A new peer is told at once, but no more often than this.
pub const STATUS_APART: Duration = Duration::from_millis(20);
/// Until the first question for a missing update: several come together.
pub const ASK_AFTER: Duration = Duration::from_millis(5);
/// Between the first and the second question for the same update; doubled each time, up to [`ASK_AT_MOST_EVERY`].
pub const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// The longest time between two questions for the same update.
pub const ASK_AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// Between two questions to the same peer.
pub const ASKS_APART: Duration = Duration::from_millis(10);
/// An update that a peer says it sent and that is not here after this time is missing.
pub const TOLD_FOR: Duration = Duration::from_millis(50);
/// An update that was repaired is not repaired again within this time: several peers may have asked.
pub const REPAIRS_APART: Duration = Duration::from_millis(30);
/// A look-up that is not answered in this time is given up.
pub const LOOKUP_FOR: Duration = Duration::from_secs(1);
/// A peer that was not heard for this long does not count for being synced.
pub const HEARD_WITHIN: Duration = Duration::from_secs(3);
/// A peer that was silent for this long gives way to a new one.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// A peer that has been heard for this long and has not told that it hears this start of this node is not waited for: what it
/// says may have been recorded.
pub const DOUBTED_FOR: Duration = Duration::from_secs(10);
/// Between two warnings that datagrams are refused, for the same reason.
pub const WARN_EVERY: Duration = Duration::from_secs(60);
/// Between the loss of a bulk resync's connection and the next one; doubled each time, up to [`BULK_AT_MOST_EVERY`].
pub const BULK_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// The longest time between two attempts at a bulk resync.
pub const BULK_AT_MOST_EVERY: Duration = Duration::from_secs(10);
/// Until the connection of a bulk resync stands and the peer has greeted: over a slow way too, and with a packet of it lost.
pub const BULK_BEGINS: Duration = Duration::from_secs(2);
/// A bulk resync in which nothing arrives for this long is given up.
pub const BULK_SILENCE: Duration = Duration::from_secs(10);
