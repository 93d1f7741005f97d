//! Alerts as they are written in YAML.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::kinds::{AlertFailures, AlertTime, Host, MailAddress, Url};
use super::model::{AlertKind, MailTls};
use super::period::Period;
use crate::config::checks::{AbsolutePath, HeaderValue, Text};
use crate::config::kinds::{Port, ServiceName, Word};
use crate::config::value::{Located, Optional, Value};

/// Somebody who is told when something is down: by mail, a program or a webhook.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Alert", extend("required" = ["name"]))]
pub(in crate::config) struct AlertFile {
    /// Name for operators, in the log.
    pub(super) name: Optional<Value<ServiceName>>,
    /// By mail.
    pub(super) mail: Optional<Located<MailFile>>,
    /// By a program: its absolute path, then its arguments. It gets the alert on its standard input.
    pub(super) program: Optional<Located<Vec<Value<Text>>>>,
    /// By an HTTP POST request with JSON.
    pub(super) webhook: Optional<Located<WebhookFile>>,
    /// What is told: down, up (real servers), fallback, quorum, service; of heartbeat: role, split, node, late, link.
    /// Default: all.
    pub(super) on: Optional<Located<Vec<Value<Word<AlertKind>>>>>,
    /// Periods of the week in the system's time zone, like mon-fri 08:00-18:00. What lasts into one is told then.
    /// Default: always.
    pub(super) periods: Optional<Located<Vec<Value<Period>>>>,
    /// How often a trouble is told again while it lasts, with its unit; 0s: once. Default: 0s.
    pub(super) every: Optional<Value<AlertTime>>,
    /// How long a trouble must last to be told, with its unit. Default: 0s.
    pub(super) after: Optional<Value<AlertTime>>,
    /// How many times in a row its check must have failed before a real server's down is told, with those that took it down.
    /// Where "after" is given too, both are waited for. Default: 1.
    pub(super) after_failures: Optional<Value<AlertFailures>>,
    /// What happens within this time is told together, with its unit. Default: 5s.
    pub(super) group: Optional<Value<AlertTime>>,
}

/// Mail by SMTP.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "AlertMail", extend("required" = ["to", "server"]))]
pub(in crate::config) struct MailFile {
    /// Who gets it.
    pub(super) to: Optional<Located<Vec<Value<MailAddress>>>>,
    /// Who it is from. Default: director@ and the name of this host.
    pub(super) from: Optional<Value<MailAddress>>,
    /// Name or address of the mail server.
    pub(super) server: Optional<Value<Host>>,
    /// Its port. Default: 587 with starttls, 465 with tls, 25 with none.
    pub(super) port: Optional<Value<Port>>,
    /// starttls: nothing is sent without it. tls: from the first byte on. none: in clear, a password too.
    /// Default: starttls.
    pub(super) tls: Optional<Value<Word<MailTls>>>,
    /// File with certificate authorities (PEM), besides the system's.
    pub(super) ca: Optional<Value<AbsolutePath>>,
    /// Who logs in. Default: no login.
    pub(super) user: Optional<Value<Text>>,
    /// The password.
    pub(super) password: Optional<Value<Text>>,
}

/// An HTTP POST request.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "AlertWebhook", extend("required" = ["url"]))]
pub(in crate::config) struct WebhookFile {
    /// Where it goes: http or https.
    pub(super) url: Optional<Value<Url>>,
    /// More headers.
    pub(super) headers: Optional<Located<BTreeMap<String, Value<HeaderValue>>>>,
    /// https: file with certificate authorities (PEM). Default: the system's.
    pub(super) ca: Optional<Value<AbsolutePath>>,
}
