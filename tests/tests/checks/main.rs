//! Health checks against real servers of their kind, as Debian has them: what answers rightly is good, and what is broken
//! fails as it should, in words that say why.
//!
//! Stand-ins and gaps: PostgreSQL, MariaDB, Redis, OpenLDAP, Postfix, Dovecot, vsftpd, unbound and nginx are themselves.
//! Bytes that drip and answers without end come from nginx; of other kinds only the scripted backends of the probes' own
//! tests do that, as no real server can be configured to. There is no SIP and no NNTP server here.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod agents;
mod certificates;
mod databases;
mod directory;
mod files;
mod mail;
mod names;
mod pings;
mod web;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use director::config::{self, Config, Probe};
use director::health::probe::{Failure, FailureKind, Good, Reach, run};
use director_tests::servers::Server;
use director_tests::{PATIENCE, wait_until};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// For checks that should be answered: enough on a busy machine.
const TIME: Duration = Duration::from_secs(20);
/// For checks that should not be.
const SHORT: Duration = Duration::from_millis(500);

/// What a check should find: words of an answer, or a kind of failure and words of it.
type Expected = Result<&'static str, (FailureKind, &'static str)>;

/// The probe of a configuration that has this check.
fn probe_of(check: &str) -> Probe {
    let text = format!(
        "interfaces: [eth0]\ndefaults:\n  check: {check}\nservices: [{{address: 192.0.2.10, port: 80, real_servers: \
         [10.0.0.1]}}]\n"
    );
    let config: Config =
        config::parse("test.yaml", &text).unwrap_or_else(|error| panic!("{check}: {error}"));
    config.services[0].real_servers[0].checks[0].probe.clone()
}

/// Runs a check once, in the namespace of the calling thread.
fn ask(check: &str, address: SocketAddr, time: Duration) -> Result<Good, Failure> {
    let reach = Reach {
        address: address.ip(),
        port: address.port(),
        source: None,
        interface: None,
        through: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(&probe_of(check), &reach, time))
}

/// A row: what a check of an address finds.
fn check(check: &str, address: SocketAddr, expected: Expected) {
    let time = match expected {
        Err((FailureKind::TimedOut, _)) => SHORT,
        _ => TIME,
    };
    let began = Instant::now();
    let found = ask(check, address, time);
    let what = format!("{check} of {address}");
    match (&found, expected) {
        (Ok(good), Ok(words)) => assert!(good.words.contains(words), "{what}: {good:?}"),
        (Err(failure), Err((kind, words))) => {
            assert_eq!(failure.kind, kind, "{what}: {failure:?}");
            assert!(failure.words.contains(words), "{what}: {failure:?}");
        }
        _ => panic!("{what}: expected {expected:?}, found {found:?}"),
    }
    assert!(
        began.elapsed() < TIME + TIME,
        "{what}: {:?}",
        began.elapsed()
    );
}

/// Waits until a server that listens already answers this check: some take connections while they still start.
fn check_soon(row: &str, address: SocketAddr) {
    wait_until("the check is good", PATIENCE, || {
        ask(row, address, TIME)
            .map(drop)
            .map_err(|failure| anyhow::Error::msg(failure.words))
    })
    .unwrap();
}

/// A server that answers this check is frozen, goes on, and dies.
fn check_broken(row: &str, server: &mut Server) {
    let address = server.address();
    check(row, address, Ok(""));
    server.freeze().unwrap();
    check(
        row,
        address,
        Err((FailureKind::TimedOut, "no answer within 500 ms")),
    );
    server.thaw().unwrap();
    check(row, address, Ok(""));
    server.kill().unwrap();
    check(row, address, Err((FailureKind::Refused, "refused")));
}
