//! The limits of a configuration, in one table, and the check against them.

use std::time::Duration;

use xdp_ebpf::layout::limits as tables;

use super::error::{Mistake, Place};

/// Largest configuration file, in bytes.
pub const FILE_BYTES: u64 = 16 << 20;
/// Most events of the YAML reader (a value, the begin or the end of a list or mapping) for a whole file, and so for what its
/// aliases stand for: a configuration at its limits has 65,535 real servers of five keys each.
pub const YAML_EVENTS: usize = 2_000_000;
/// How deeply lists and mappings may be nested.
pub const YAML_DEPTH: usize = 16;
/// Longest name of an instance (a directory) or of a service, in bytes.
pub const NAME_BYTES: usize = 64;
/// Longest name of a network interface, in bytes (`IFNAMSIZ` less the final zero).
pub const INTERFACE_NAME_BYTES: usize = 15;
/// Longest path of a Unix socket, in bytes (`sun_path` less the final zero).
pub const SOCKET_PATH_BYTES: usize = 107;
/// Largest weight, as in IPVS.
pub const WEIGHT: u64 = i32::MAX as u64;
/// Most connections of one address family: an IPv4 table for them takes 4 GiB.
pub const CONNECTIONS: u64 = 100_000_000;
/// Most ICMP messages in a second from one CPU.
pub const ICMP_PER_SECOND: u64 = 1_000_000;
/// Shortest and longest time that fragments are followed, in milliseconds.
pub const FRAGMENT_TIMEOUT_MS: std::ops::RangeInclusive<u64> = 10..=60_000;
/// Shortest and longest idle time of a connection, in seconds: the tables' clock has 16 bits.
pub const TIMEOUT_S: std::ops::RangeInclusive<u16> = 1..=43_200;

/// Shortest and longest time in a health check, in milliseconds.
pub const CHECK_TIME_MS: std::ops::RangeInclusive<u32> = 10..=3_600_000;
/// Most successes or failures in a row that make a verdict.
pub const CHECK_COUNT: u64 = 100;
/// Longest text in a health check, in bytes.
pub const CHECK_TEXT_BYTES: usize = 4096;
/// Longest slow start, and other times of services, in seconds.
pub const SLOW_START_S: u16 = 3600;

/// Runs of checks at the same time: each holds a socket or two, or a process.
pub const CHECKS_AT_ONCE: usize = 2048;
/// Of these, those whose last run took more than half of its timeout, and those that never ran: many silent real servers must
/// not make the checks of the others late.
pub const SLOW_CHECKS_AT_ONCE: usize = CHECKS_AT_ONCE / 4 * 3;
/// Of these, external checks: processes take much more of the machine than sockets.
pub const PROGRAMS_AT_ONCE: usize = 256;
/// Files of checks that are waited for at the same time, programs that are being started with them, and as many of alerts: each
/// holds a thread.
pub const FILES_AT_ONCE: usize = 256;

/// Checks of one real server.
pub const CHECKS_PER_REAL_SERVER: Limit = Limit {
    what: "checks of one real server",
    maximum: 8,
};
/// Steps of an exchange, and words of a command.
pub const STEPS_PER_CHECK: Limit = Limit {
    what: "steps or words in one check",
    maximum: 64,
};
/// Services that a service depends on.
pub const DEPENDENCIES: Limit = Limit {
    what: "services that a service depends on",
    maximum: 16,
};

/// Longest file with certificate authorities, in bytes: those of a whole distribution take 220 KiB.
pub const AUTHORITIES_BYTES: u64 = 1 << 20;
/// Most memory of a compiled regular expression, in bytes. It is compiled for each run, which takes a few milliseconds at
/// that size, and no other check goes on meanwhile.
pub const REGEX_BYTES: usize = 256 << 10;

/// Longest time of an alert, in milliseconds: a week.
pub const ALERT_TIME_MS: u32 = 7 * 24 * 3_600_000;
/// Most failures of a check that an alert waits for: at one in a second almost three hours.
pub const ALERT_FAILURES: u64 = 10_000;
/// Other nodes that connections are shared with.
pub const SYNC_PEERS: Limit = Limit {
    what: "peers",
    maximum: conn_sync::machine::limits::PEERS,
};
/// Keys that are accepted besides the one in use.
pub const SYNC_KEYS: Limit = Limit {
    what: "accepted keys",
    maximum: 8,
};
/// Connections told in a second, at most.
pub const SYNC_RATE: u64 = 10_000_000;
/// Least and most bytes of a datagram to other nodes.
pub const SYNC_DATAGRAM_BYTES: (u64, u64) = {
    let bytes = conn_sync::machine::limits::DATAGRAM_BYTES;
    (*bytes.start() as u64, *bytes.end() as u64)
};
/// Shortest and longest time of the section.
pub const SYNC_TIME: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);
/// Connections of unknown services that are kept aside, and for how long: configurations reload at different moments.
pub const SYNC_ASIDE: usize = 1 << 17;
/// See [`SYNC_ASIDE`].
pub const SYNC_ASIDE_FOR: Duration = Duration::from_secs(60);
/// Until conn-sync or the heartbeat is started again after it ended by itself or could not start: doubled each time, from the one to the other.
pub const RESTART_AFTER: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(60);
/// Targets of alerts.
pub const ALERTS: Limit = Limit {
    what: "alerts",
    maximum: 16,
};
/// Recipients, words of a program, periods of one alert.
pub const ALERT_WORDS: Limit = Limit {
    what: "entries in one list of an alert",
    maximum: 64,
};
/// Mails on their way by one mail server at the same time: a connection each, of which many servers take only some from one
/// address.
pub const MAILS_AT_ONCE: usize = 4;
/// Messages that wait for one target. Of more the oldest is dropped, and the next one says so.
pub const ALERT_MESSAGES: usize = 64;
/// Lines of one message; the rest is counted.
pub const ALERT_LINES: usize = 500;

/// Largest threshold.
pub const THRESHOLD: u64 = 4_000_000_000;

/// Mistakes that are shown at once; the rest is counted.
pub const MISTAKES_SHOWN: usize = 20;

/// Something of which there can be too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is counted, in the plural.
    pub what: &'static str,
    /// How many there can be.
    pub maximum: usize,
}

/// Network interfaces.
pub const INTERFACES: Limit = Limit {
    what: "interfaces",
    maximum: tables::INTERFACES as usize,
};
/// Virtual services; id 0 means none.
pub const SERVICES: Limit = Limit {
    what: "services",
    maximum: tables::SERVICES as usize - 1,
};
/// Real servers of one service.
pub const REAL_SERVERS_PER_SERVICE: Limit = Limit {
    what: "real servers in one service",
    maximum: 4096,
};
/// Real servers of one service whose scheduler looks at all of them for each new connection.
pub const COUNTED_REAL_SERVERS: Limit = Limit {
    what: "real servers in a service whose scheduler compares connections",
    maximum: tables::COUNTED as usize,
};

/// Addresses and ports of one service.
pub const ENDPOINTS_PER_SERVICE: Limit = Limit {
    what: "endpoints in one service",
    maximum: 64,
};

/// Addresses and ports of all services; id 0 means none.
pub const ENDPOINTS: Limit = Limit {
    what: "endpoints of all services together",
    maximum: tables::ENDPOINTS as usize - 1,
};

/// Real servers, counted once for each service they stand in; id 0 means none, and the last one nobody
/// ([`crate::plan::owners::NOBODY`]).
pub const REAL_SERVERS: Limit = Limit {
    what: "real servers in all services together",
    maximum: tables::DESTINATIONS as usize - 2,
};
/// Endpoints that share a real server under NAT: a reply is searched in each of them.
pub const ENDPOINTS_PER_REAL_SERVER: Limit = Limit {
    what: "services and endpoints with this real server under nat",
    maximum: tables::ENDPOINTS_PER_REAL_SERVER,
};
/// Entries of all scheduling tables: half of what there is, as old and new ones stand side by side during a reload.
pub const SLOTS: Limit = Limit {
    what: "scheduling-table slots of all services together",
    maximum: tables::SLOTS as usize / 2,
};

/// Real servers of a service that tracks on change: its scheduling table has one size, and each should have some slots.
pub const ON_CHANGE_REAL_SERVERS: Limit = Limit {
    what: "real servers in one service that tracks connections on change",
    maximum: 1024,
};

/// All limits on numbers of things, for people.
pub const ALL: [Limit; 15] = [
    ALERTS,
    ALERT_WORDS,
    CHECKS_PER_REAL_SERVER,
    STEPS_PER_CHECK,
    DEPENDENCIES,
    INTERFACES,
    SERVICES,
    ENDPOINTS_PER_SERVICE,
    ENDPOINTS,
    REAL_SERVERS_PER_SERVICE,
    COUNTED_REAL_SERVERS,
    ON_CHANGE_REAL_SERVERS,
    REAL_SERVERS,
    ENDPOINTS_PER_REAL_SERVER,
    SLOTS,
];

impl Limit {
    /// A mistake at `place` if `found` are too many.
    pub(super) fn check(self, found: usize, place: Place) -> Option<Mistake> {
        let Self { what, maximum } = self;
        (found > maximum).then(|| {
            Mistake::new(
                place,
                format!("too many: {found} {what}"),
                format!("at most {maximum}"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_itself_is_allowed() {
        for limit in ALL {
            assert_eq!(
                limit.check(limit.maximum, Place::default()),
                None,
                "{limit:?}"
            );
            let mistake = limit.check(limit.maximum + 1, Place::default()).unwrap();
            assert!(
                mistake.expected.contains(&limit.maximum.to_string()),
                "{mistake:?}"
            );
        }
    }
}
