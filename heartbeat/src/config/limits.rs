//! The limits of a configuration, in one table.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::wire::message;
use crate::wire::vrrp;

/// Largest configuration file of the program alone, in bytes.
pub const FILE_BYTES: u64 = 1 << 20;
/// Most events of the YAML reader.
pub const YAML_EVENTS: usize = 100_000;
/// How deeply lists and mappings may be nested.
pub const YAML_DEPTH: usize = 16;
/// Longest name of a node or group, in bytes.
pub const NAME_BYTES: usize = 64;
/// Longest name of a network interface, in bytes (`IFNAMSIZ` less the final zero).
pub const INTERFACE_NAME_BYTES: usize = 15;
/// Longest word of a command, in bytes.
pub const WORD_BYTES: usize = 4096;

/// Nodes of all groups together.
pub const NODES: Limit = Limit {
    what: "nodes",
    maximum: message::NODES,
};
/// Groups.
pub const GROUPS: Limit = Limit {
    what: "groups",
    maximum: message::GROUPS,
};
/// Links.
pub const LINKS: Limit = Limit {
    what: "links",
    maximum: 8,
};
/// Addresses of one group.
pub const ADDRESSES: Limit = Limit {
    what: "addresses in one group",
    maximum: vrrp::ADDRESSES,
};
/// Peers of one link.
pub const PEERS: Limit = Limit {
    what: "peers of one link",
    maximum: 8,
};
/// Keys that are accepted besides the active one.
pub const KEYS: Limit = Limit {
    what: "accepted keys",
    maximum: crate::wire::auth::KEYS - 1,
};
/// Interfaces, hosts or programs that the fitness depends on, of each kind.
pub const TRACKED: Limit = Limit {
    what: "entries in one list of the fitness",
    maximum: 16,
};
/// Words of one command.
pub const WORDS: Limit = Limit {
    what: "words in one command",
    maximum: 64,
};

/// How often heartbeats are sent.
pub const KEEPALIVE: Times = Times::between(10, 60_000);
/// When somebody is dead.
pub const DEADTIME: Times = Times::between(30, 600_000);
/// How long the others are waited for at start.
pub const INITDEAD: Times = Times::between(40, 3_600_000);
/// Other times, that are not 0.
pub const TIME: Times = Times::between(10, 3_600_000);
/// Other times, that may be 0.
pub const TIME_OR_NONE: Times = Times::between(0, 3_600_000);
/// Interval of VRRP version 3: 12 bits of hundredths of a second.
pub const ADVERTS_V3: Times = Times::between(10, 40_950);
/// Interval of VRRP version 2: 8 bits of seconds.
pub const ADVERTS_V2: Times = Times::between(1_000, 255_000);
/// Longest interval that is believed of a foreign VRRP router, unless this node's own is longer. RFC 9568 section 6.4.2 has a
/// backup take over any Max Advertise Interval that it hears, up to 40.95 s: nobody signs adverts, and one that is forged would
/// keep all nodes from serving for three times as long.
pub const FOREIGN_INTERVAL: Duration = Duration::from_secs(10);
/// Splits with foreign VRRP routers that are told of in [`SAID_ANEW`]: nobody signs adverts.
pub const FOREIGN_SPLITS: u32 = 5;
/// How soon the same warning is given again while its cause lasts.
pub const SAID_ANEW: Duration = Duration::from_secs(60);

/// A primary must have been heard for this long before its group is taken back, where something is to be there for that: a
/// cable that is in again brings a heartbeat at once, and only then what says that something is missing. Conn-sync tells how
/// it stands every 200 ms.
pub const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// The dead time is at least so many keepalives: one lost heartbeat is no death, and the lease needs the rest.
pub const KEEPALIVES_IN_DEADTIME: u32 = 3;

/// How many times the network is told.
pub const ANNOUNCEMENTS: RangeInclusive<u64> = 1..=60;
/// Bits in a second of a serial line.
pub const BAUD: RangeInclusive<u64> = 1_200..=4_000_000;
/// Successes or failures in a row that count.
pub const IN_A_ROW: RangeInclusive<u64> = 1..=100;

/// Something of which there can be too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is counted, in the plural.
    pub what: &'static str,
    /// How many there can be.
    pub maximum: usize,
}

/// Shortest and longest time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Shortest.
    pub shortest: Duration,
    /// Longest.
    pub longest: Duration,
}

impl Times {
    const fn between(shortest_ms: u64, longest_ms: u64) -> Self {
        Self {
            shortest: Duration::from_millis(shortest_ms),
            longest: Duration::from_millis(longest_ms),
        }
    }
}
