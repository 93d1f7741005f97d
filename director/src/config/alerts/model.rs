//! Alerts as the rest of the director works with them: every default applied, every value checked.

use std::path::PathBuf;

use serde::Serialize;

use super::period::Period;
use crate::config::checks::{Secret, TlsOptions};

/// Somebody who is told, how, of what, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AlertTarget {
    /// Name for operators.
    pub name: String,
    /// How alerts get there.
    pub way: AlertWay,
    /// What is told.
    pub on: Vec<AlertKind>,
    /// When something is told; what happens at other times waits. Empty: always.
    pub periods: Vec<Period>,
    /// While a trouble lasts it is told again so often; 0: once.
    pub every_ms: u32,
    /// A trouble is told only when it has lasted so long.
    pub after_ms: u32,
    /// That a real server is down is told only when its check has failed so many times in a row.
    pub after_failures: u32,
    /// What happens within this time is told together.
    pub group_ms: u32,
}

/// Kinds of what is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertKind {
    /// A real server is down.
    Down,
    /// A real server is up again.
    Up,
    /// The fallback servers answer, and no longer do.
    Fallback,
    /// Too little weight is up, and enough again.
    Quorum,
    /// A service is down, and up again.
    Service,
    /// This node's role in a group of virtual addresses changed.
    Role,
    /// Two nodes serve the same group, and no longer do.
    Split,
    /// Another node is dead or has stopped, and is there again; or fencing it failed.
    Node,
    /// Another node was silent for `warntime`.
    Late,
    /// Another node is not heard on a link any more but on others, and is heard there again.
    Link,
}

/// How alerts get somewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertWay {
    /// By mail.
    Mail(MailWay),
    /// A program is run.
    Program(ProgramWay),
    /// An HTTP request.
    Webhook(WebhookWay),
}

/// Mail by SMTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MailWay {
    /// Who gets it.
    pub to: Vec<String>,
    /// Who it is from; none: director@ and the name of this host.
    pub from: Option<String>,
    /// Name or address of the mail server.
    pub server: String,
    /// Its port.
    pub port: u16,
    /// Whether the way there is encrypted.
    pub tls: MailTls,
    /// File with the certificate authorities in PEM, besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Who logs in, and the password.
    pub login: Option<(String, Secret)>,
}

/// Encryption of mail on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// None.
    None,
    /// From `STARTTLS` on, without which nothing is sent.
    Starttls,
    /// From the first byte on.
    Tls,
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramWay {
    /// Its absolute path.
    pub command: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// An HTTP POST request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WebhookWay {
    /// Name or address of the host; IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The `Host` header.
    pub authority: String,
    /// Path and query. It may hold a secret, too.
    pub path: Secret,
    /// HTTPS.
    pub tls: Option<TlsOptions>,
    /// More headers. Their values may be secrets.
    pub headers: Vec<(String, Secret)>,
}
