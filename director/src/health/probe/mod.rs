//! Asking a backend: one run of one check. Everything here does I/O and decides nothing but whether an answer is good.
//!
//! A probe is handed a [`Reach`] and gives [`Good`] or a [`Failure`] in the words that an operator reads in
//! `director checks` and in an alert. The time it may take is kept by [`run`], for all of them.

mod agent;
pub(in crate::health) mod authorities;
mod connect;
mod dialogue;
mod dns;
mod exchange;
pub(in crate::health) mod external;
pub(super) mod frugal;
mod http;
mod ldap;
mod lines;
mod mysql;
mod pattern;
mod ping;
mod postgres;
mod reach;
mod secret;
mod sip;
#[cfg(test)]
mod tests;
pub(in crate::health) mod tls;
mod udp;

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use nix::errno::Errno;
use tokio::sync::Semaphore;

pub use reach::{Datagrams, Reach, Stream};

use crate::config::{Probe, limits};

/// The most bytes that are read of any answer. One that is longer is a failure of its own kind.
pub const ANSWER_BYTES: usize = 1 << 20;
/// The longest words of a report; the rest is cut off.
pub const WORDS_BYTES: usize = 240;

/// Places of all files and programs that checks wait for.
pub(super) static PLACES: Semaphore = Semaphore::const_new(limits::FILES_AT_ONCE);

/// A backend answered as it should.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Good {
    /// What it said, for people: short, on one line.
    pub words: String,
    /// What an agent reported.
    pub said: Option<Said>,
}

/// What an agent reported of its real server (HAProxy's agent-check, "agent-check" in its configuration manual). What is
/// `None` was not said and stays as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Share of its weight, in percent.
    pub percent: Option<u32>,
    /// Most connections that it wants.
    pub maximum_connections: Option<u32>,
    /// How it takes part.
    pub administrative: Option<Administrative>,
    /// Whether it works.
    pub operational: Option<Operational>,
}

/// How a real server wants to take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Administrative {
    /// As configured.
    Ready,
    /// No new connections but of clients that persistence keeps there.
    Drain,
    /// No new connections at all.
    Maintenance,
}

/// What an agent says of its real server's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operational {
    /// `up`.
    Up,
    /// `down`, `failed` or `stopped`.
    Down,
}

/// Why a run of a check failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind, for counting.
    pub kind: FailureKind,
    /// What happened, for people: short, on one line, with the backend's own words where it said some.
    pub words: String,
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureKind {
    /// Nobody listens.
    Refused,
    /// No way there.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// The backend ended the conversation.
    Closed,
    /// Another answer than expected.
    Unexpected,
    /// An answer longer than [`ANSWER_BYTES`].
    Oversized,
    /// A certificate that is not good.
    Certificate,
    /// Nothing that the backend did: no such address here, no such program.
    Local,
    /// This machine has no descriptors, processes, threads or memory left. Says nothing of the backend, whatever the check.
    Shortage,
}

impl fmt::Display for Said {
    /// In the words of the protocol.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = Vec::new();
        words.extend(self.percent.map(|percent| format!("{percent}%")));
        words.extend(
            self.maximum_connections
                .map(|number| format!("maxconn:{number}")),
        );
        words.extend(self.administrative.map(|word| match word {
            Administrative::Ready => "ready".to_owned(),
            Administrative::Drain => "drain".to_owned(),
            Administrative::Maintenance => "maint".to_owned(),
        }));
        words.extend(self.operational.map(|word| match word {
            Operational::Up => "up".to_owned(),
            Operational::Down => "down".to_owned(),
        }));
        f.write_str(&words.join(" "))
    }
}

impl FailureKind {
    /// Of what could not be begun for this reason, or for what stands behind it.
    #[must_use]
    pub fn of_beginning(error: &io::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(this) = cause {
            let Some(error) = this.downcast_ref::<io::Error>() else {
                cause = this.source();
                continue;
            };
            // EAGAIN: of `fork` and of threads, of which there are as many as there may be.
            if let Some(
                Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS | Errno::EAGAIN,
            ) = error.raw_os_error().map(Errno::from_raw)
            {
                return Self::Shortage;
            }
            cause = error.get_ref().map(|behind| behind as _);
        }
        Self::Local
    }

    /// For people and scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Closed => "closed",
            Self::Unexpected => "unexpected",
            Self::Oversized => "oversized",
            Self::Certificate => "certificate",
            Self::Local => "local",
            Self::Shortage => "shortage",
        }
    }
}

impl Good {
    /// Success, in words.
    #[must_use]
    pub fn new(words: impl Into<String>) -> Self {
        Self {
            words: one_line(&words.into()),
            said: None,
        }
    }
}

impl Failure {
    /// A failure, in words.
    #[must_use]
    pub fn new(kind: FailureKind, words: impl Into<String>) -> Self {
        Self {
            kind,
            words: one_line(&words.into()),
        }
    }

    /// What the answer should have been, and was not. `found` is the backend's own words.
    #[must_use]
    pub fn unexpected(expected: &str, found: &[u8]) -> Self {
        let found = String::from_utf8_lossy(&found[..found.len().min(WORDS_BYTES)]);
        Self::new(
            FailureKind::Unexpected,
            format!("expected {expected}, got \"{}\"", found.trim_end()),
        )
    }

    /// While doing something (like "connecting") a socket failed.
    #[must_use]
    pub fn io(doing: &str, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => FailureKind::Refused,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                FailureKind::Unreachable
            }
            io::ErrorKind::TimedOut => FailureKind::TimedOut,
            // Of `Frugal`.
            io::ErrorKind::FileTooLarge => FailureKind::Oversized,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => FailureKind::Closed,
            _ => FailureKind::of_beginning(error),
        };
        Self::new(kind, format!("{doing}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// One run of a check.
///
/// # Errors
/// [`Failure`]: the backend did not answer as it should within the time.
pub async fn run(probe: &Probe, reach: &Reach, time: Duration) -> Result<Good, Failure> {
    let most = match probe {
        // It keeps the time itself, and must kill what has not ended.
        Probe::External(_) => time + external::ENDING,
        _ => time,
    };
    match tokio::time::timeout(most, ask(probe, reach, time)).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::new(
            FailureKind::TimedOut,
            format!("no answer within {} ms", time.as_millis()),
        )),
    }
}

/// `time`: what the run may take at most, for probes to which silence is an answer or that say more than that it is over.
async fn ask(probe: &Probe, reach: &Reach, time: Duration) -> Result<Good, Failure> {
    match probe {
        Probe::Connect => connect::probe(reach).await,
        Probe::Ping => ping::probe(reach).await,
        Probe::Http(it) => http::probe(reach, it).await,
        Probe::Udp(it) => udp::probe(reach, it, time).await,
        Probe::Dns(it) => dns::probe(reach, it).await,
        Probe::Tls(it) => tls::probe(reach, it).await,
        Probe::Smtp(it) => lines::smtp(reach, it).await,
        Probe::Ftp(it) => lines::ftp(reach, &*secret::read(it).await?).await,
        Probe::Pop3(it) => lines::pop3(reach, &*secret::read(it).await?).await,
        Probe::Imap(it) => lines::imap(reach, &*secret::read(it).await?).await,
        Probe::Nntp(it) => lines::nntp(reach, &*secret::read(it).await?).await,
        Probe::Redis(it) => lines::redis(reach, &*secret::read(it).await?).await,
        Probe::Ldap(it) => ldap::probe(reach, &*secret::read(it).await?).await,
        Probe::Mysql(it) => mysql::probe(reach, &*secret::read(it).await?).await,
        Probe::Postgres(it) => postgres::probe(reach, &*secret::read(it).await?).await,
        Probe::Sip(it) => sip::probe(reach, it).await,
        Probe::Exchange(it) => exchange::probe(reach, it).await,
        Probe::External(it) => external::probe(reach, it, time).await,
        Probe::Agent(it) => agent::probe(reach, it).await,
    }
}

/// Text of outsiders on one line of a log: no control characters, not too long.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars() {
        let character = if character.is_control() {
            ' '
        } else {
            character
        };
        if line.len() + character.len_utf8() > WORDS_BYTES {
            break;
        }
        line.push(character);
    }
    line
}
