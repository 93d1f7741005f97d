//! Health checks as the rest of the director works with them: every default applied, every value checked.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

/// One check: what is asked, where, and when.
///
/// Two checks that are equal and go to the same backend are one: it is run once, however many services want it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// When, and what follows from the answers.
    pub timing: Timing,
    /// Another address than the real server's.
    pub address: Option<IpAddr>,
    /// Another port than the real server's.
    pub port: Option<u16>,
    /// Local address that the check is sent from.
    pub source: Option<IpAddr>,
    /// Interface that the check is sent from (`SO_BINDTODEVICE`).
    pub interface: Option<String>,
    /// Whether it is sent to the virtual address, as clients' packets are to this real server.
    pub through: bool,
}

/// When a check is run, and how many answers make a verdict. All times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Timing {
    /// From the start of one run to the start of the next, while all is well.
    pub interval_ms: u32,
    /// The longest that one run may take.
    pub timeout_ms: u32,
    /// Successes in a row that make a real server up.
    pub rise: u32,
    /// Failures in a row that make it down.
    pub fall: u32,
    /// From a failure to the next run, while it is up and the failures are not enough to make it down.
    pub retry_delay_ms: u32,
    /// As `interval_ms`, while it is down.
    pub down_interval_ms: u32,
    /// The first run comes after a random part of this.
    pub spread_ms: u32,
}

/// What is asked of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub enum Probe {
    /// A TCP connection is taken.
    Connect,
    /// An ICMP echo request is answered.
    Ping,
    /// HTTP or, with `tls`, HTTPS.
    Http(HttpProbe),
    /// A datagram is answered, or at least not refused.
    Udp(UdpProbe),
    /// A DNS question is answered.
    Dns(DnsProbe),
    /// TLS: the handshake succeeds, and the certificate is good for some days more.
    Tls(TlsProbe),
    /// SMTP: greeting, `EHLO`, `QUIT`.
    Smtp(SmtpProbe),
    /// FTP: greeting, and with a login `USER` and `PASS`.
    Ftp(LoginProbe),
    /// POP3: greeting, and with a login `USER` and `PASS`.
    Pop3(LoginProbe),
    /// IMAP: greeting, and with a login `LOGIN`.
    Imap(LoginProbe),
    /// NNTP: greeting.
    Nntp(LoginProbe),
    /// LDAP: a simple bind, anonymous without a login.
    Ldap(LoginProbe),
    /// MySQL and MariaDB: the server greets, and answers a user without a password, or lets one with a password in.
    Mysql(LoginProbe),
    /// PostgreSQL: the server answers a startup message, if only by asking who it is, or lets a user with a password in.
    Postgres(LoginProbe),
    /// Redis: `PING` is answered with `PONG`; with a password, after `AUTH`.
    Redis(LoginProbe),
    /// SIP: `OPTIONS` over UDP is answered with a final status below 300.
    Sip(SipProbe),
    /// What is sent and what must come back, over TCP or TLS.
    Exchange(ExchangeProbe),
    /// A program says so by its exit status.
    External(ExternalProbe),
    /// The real server reports how loaded it is (HAProxy's agent-check).
    Agent(AgentProbe),
}

/// An HTTP request and the answer that is expected.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct HttpProbe {
    /// HTTPS.
    pub tls: Option<TlsOptions>,
    /// The request's method, like `GET`.
    pub method: String,
    /// Path and query, beginning with `/`.
    pub path: String,
    /// The `Host` header; none: the backend's address.
    pub host: Option<String>,
    /// More headers. Their values may be secrets.
    pub headers: Vec<(String, Secret)>,
    /// Statuses that are a success: first and last of each range.
    pub status: Vec<(u16, u16)>,
    /// What must be found in the body.
    pub body: Option<Pattern>,
    /// What the body's digest must be.
    pub digest: Option<Digest>,
}

impl HttpProbe {
    /// The name or address in its `Host`, without the port and an IPv6 address's brackets: for certificates.
    #[must_use]
    pub fn host_name(&self) -> Option<&str> {
        let host = self.host.as_deref()?;
        let name = match host.rsplit_once(':') {
            Some((name, port))
                if !port.is_empty() && port.bytes().all(|it| it.is_ascii_digit()) =>
            {
                name
            }
            _ => host,
        };
        Some(name.trim_matches(['[', ']']))
    }
}

/// How a backend's certificate is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct TlsOptions {
    /// Name for SNI that the certificate must be for; none: the `Host` of an HTTP check, else the backend's address.
    pub server_name: Option<String>,
    /// Whether the certificate must be good.
    pub verify: bool,
    /// File with the certificate authorities in PEM; none: the system's.
    pub ca_file: Option<PathBuf>,
}

/// What must be found in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// These very bytes, anywhere.
    Text(String),
    /// A regular expression (syntax of the crate `regex`) that matches anywhere; `^` and `$` match at lines. It has been
    /// compiled once.
    Regex(String),
}

/// Digest of a body.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Digest {
    /// SHA-256.
    Sha256([u8; 32]),
    /// MD5, which keepalived's `genhash` prints.
    Md5([u8; 16]),
}

/// A datagram and what is expected.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct UdpProbe {
    /// What is sent.
    pub send: Vec<u8>,
    /// What must come back; none: it is enough that no ICMP error comes before the time is over.
    pub expect: Option<Pattern>,
}

/// A DNS question and the answer that is expected.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct DnsProbe {
    /// The name that is asked for.
    pub name: String,
    /// The record type, like `A`.
    pub record: DnsRecord,
    /// What one of the answers must be, as text; none: any record of the type.
    pub answer: Option<String>,
}

/// Type of a DNS record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DnsRecord {
    /// IPv4 address.
    A,
    /// IPv6 address.
    Aaaa,
    /// Canonical name.
    Cname,
    /// Mail exchange.
    Mx,
    /// Name server.
    Ns,
    /// Pointer.
    Ptr,
    /// Start of authority.
    Soa,
    /// Service.
    Srv,
    /// Text.
    Txt,
}

/// A TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct TlsProbe {
    /// How the certificate is looked at.
    pub tls: TlsOptions,
    /// Days that the certificate must still be valid.
    pub days_left: u32,
}

/// An SMTP dialogue.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct SmtpProbe {
    /// TLS from the first byte on.
    pub tls: Option<TlsOptions>,
    /// Name given with `EHLO`.
    pub hello: String,
}

/// Who logs in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct LoginProbe {
    /// TLS from the first byte on; with MySQL and PostgreSQL as soon as that is agreed.
    pub tls: Option<TlsOptions>,
    /// User; for LDAP a distinguished name.
    pub user: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// Database (PostgreSQL).
    pub database: Option<String>,
}

/// A SIP request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct SipProbe {
    /// The address of record that is asked for, like `sip:ping@example.org`; none: the backend.
    pub uri: Option<String>,
}

/// What is sent and what must come back, in turns.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ExchangeProbe {
    /// TLS from the first byte on.
    pub tls: Option<TlsOptions>,
    /// In this order; at least one.
    pub steps: Vec<Step>,
}

/// A step of an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// These bytes are sent.
    Send(Vec<u8>),
    /// This must be found in what comes after the step before.
    Expect(Pattern),
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ExternalProbe {
    /// Absolute path of the program.
    pub command: PathBuf,
    /// Its arguments, before those that every check gets.
    pub arguments: Vec<String>,
}

/// A question to an agent on the real server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct AgentProbe {
    /// What is sent first.
    pub send: Option<String>,
    /// The least that a reported percentage counts.
    pub minimum_percent: u32,
    /// The most that a reported percentage counts.
    pub maximum_percent: u32,
    /// How much of the way to a new report is gone at once, in percent: 100 follows every report.
    pub smoothing_percent: u32,
}

/// What no listing shows.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl Probe {
    /// How the backend's certificate is looked at; none: no TLS.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsOptions> {
        match self {
            Self::Http(it) => it.tls.as_ref(),
            Self::Tls(it) => Some(&it.tls),
            Self::Smtp(it) => it.tls.as_ref(),
            Self::Ftp(it)
            | Self::Pop3(it)
            | Self::Imap(it)
            | Self::Nntp(it)
            | Self::Ldap(it)
            | Self::Mysql(it)
            | Self::Postgres(it)
            | Self::Redis(it) => it.tls.as_ref(),
            Self::Exchange(it) => it.tls.as_ref(),
            Self::Connect
            | Self::Ping
            | Self::Udp(_)
            | Self::Dns(_)
            | Self::Sip(_)
            | Self::External(_)
            | Self::Agent(_) => None,
        }
    }

    /// The word for it in the YAML.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Ping => "ping",
            Self::Http(HttpProbe { tls: None, .. }) => "http",
            Self::Http(HttpProbe { tls: Some(_), .. }) => "https",
            Self::Udp(_) => "udp",
            Self::Dns(_) => "dns",
            Self::Tls(_) => "tls",
            Self::Smtp(_) => "smtp",
            Self::Ftp(_) => "ftp",
            Self::Pop3(_) => "pop3",
            Self::Imap(_) => "imap",
            Self::Nntp(_) => "nntp",
            Self::Ldap(_) => "ldap",
            Self::Mysql(_) => "mysql",
            Self::Postgres(_) => "postgres",
            Self::Redis(_) => "redis",
            Self::Sip(_) => "sip",
            Self::Exchange(_) => "exchange",
            Self::External(_) => "external",
            Self::Agent(_) => "agent",
        }
    }
}
