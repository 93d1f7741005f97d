//! The kinds of single values in alerts.

use std::net::IpAddr;

use hyper::Uri;
use lettre::message::Mailbox;
use serde_json::json;

use super::model::{AlertKind, MailTls};
use crate::config::checks::Text;
use crate::config::kinds::{Number, Words};
use crate::config::limits;
use crate::config::value::{Kind, Refusal};

impl Words for AlertKind {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("down", AlertKind::Down),
        ("up", AlertKind::Up),
        ("fallback", AlertKind::Fallback),
        ("quorum", AlertKind::Quorum),
        ("service", AlertKind::Service),
        ("role", AlertKind::Role),
        ("split", AlertKind::Split),
        ("node", AlertKind::Node),
        ("late", AlertKind::Late),
        ("link", AlertKind::Link),
    ];
}

impl AlertKind {
    /// The word for it in the YAML.
    #[must_use]
    pub fn word(self) -> &'static str {
        let mut words = Self::WORDS.iter();
        words
            .find(|(_, kind)| *kind == self)
            .map_or("", |(word, _)| word)
    }
}

impl Words for MailTls {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("starttls", MailTls::Starttls),
        ("tls", MailTls::Tls),
        ("none", MailTls::None),
    ];
}

/// Failures of a check that an alert waits for.
pub(in crate::config) type AlertFailures = Number<1, { limits::ALERT_FAILURES }>;

/// A time of an alert, in milliseconds.
#[derive(Debug)]
pub(in crate::config) struct AlertTime;

impl Kind for AlertTime {
    type Parsed = u32;

    fn expected() -> String {
        "a time with its unit from 0s to 7d, like 30s or 1h".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[0-9]" })
    }

    fn parse(text: &str) -> Result<u32, Refusal> {
        let time = humantime::parse_duration(text).map_err(|_| Refusal::default())?;
        u32::try_from(time.as_millis())
            .ok()
            .filter(|time| *time <= limits::ALERT_TIME_MS)
            .ok_or_else(Refusal::default)
    }
}

/// A mail address, with or without a name (RFC 5322 section 3.4: mailbox).
#[derive(Debug)]
pub(in crate::config) struct MailAddress;

impl Kind for MailAddress {
    type Parsed = String;

    fn expected() -> String {
        "a mail address, like ops@example.org or Operators <ops@example.org>".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "@", "maxLength": limits::CHECK_TEXT_BYTES })
    }

    fn parse(text: &str) -> Result<String, Refusal> {
        let text = Text::parse(text)?;
        let fits = text.parse::<Mailbox>().is_ok() && !text.contains(char::is_control);
        fits.then_some(text).ok_or_else(Refusal::default)
    }
}

/// Name or address of a host.
#[derive(Debug)]
pub(in crate::config) struct Host;

impl Kind for Host {
    type Parsed = String;

    fn expected() -> String {
        "the name or address of a host, like mail.example.org".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1, "maxLength": 253 })
    }

    fn parse(text: &str) -> Result<String, Refusal> {
        let is_name = (1..=253).contains(&text.len())
            && text
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || b".-_".contains(&it));
        let fits = is_name || text.parse::<IpAddr>().is_ok();
        fits.then(|| text.to_owned()).ok_or_else(Refusal::default)
    }
}

/// Where a webhook goes.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::config) struct Url {
    pub(super) is_https: bool,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) authority: String,
    pub(super) path: String,
}

impl Kind for Url {
    type Parsed = Self;

    fn expected() -> String {
        "an address like https://chat.example.org/hooks/director".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "format": "uri", "pattern": "^https?://" })
    }

    fn parse(text: &str) -> Result<Self, Refusal> {
        let uri: Uri = Text::parse(text)?.parse().map_err(|_| Refusal::default())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(Refusal::default());
        };
        let is_https = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(Refusal::because("it is neither http nor https")),
        };
        if authority.as_str().contains('@') {
            return Err(Refusal {
                why: Some("it has a user in it"),
                help: Some("say it under \"headers\", as Authorization".to_owned()),
            });
        }
        let host = authority.host().trim_matches(['[', ']']);
        Ok(Self {
            is_https,
            host: Host::parse(host)?,
            port: authority
                .port_u16()
                .unwrap_or(if is_https { 443 } else { 80 }),
            authority: authority.to_string(),
            path: uri
                .path_and_query()
                .map_or_else(|| "/".to_owned(), ToString::to_string),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_webhooks() {
        let cases = [
            (
                "https://chat.example.org/hooks/1?a=b",
                Some((true, "chat.example.org", 443, "/hooks/1?a=b")),
            ),
            ("http://chat", Some((false, "chat", 80, "/"))),
            ("http://[::1]:8080/x", Some((false, "::1", 8080, "/x"))),
            ("http://10.0.0.1:9/", Some((false, "10.0.0.1", 9, "/"))),
            ("ftp://chat/", None),
            ("chat.example.org/hooks", None),
            ("https://user:secret@chat/", None),
            ("https:///hooks", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let found = Url::parse(text).ok();
            let found = found
                .as_ref()
                .map(|url| (url.is_https, url.host.as_str(), url.port, url.path.as_str()));
            assert_eq!(found, expected, "{text}");
        }
    }
}
