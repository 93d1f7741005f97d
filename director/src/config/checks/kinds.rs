//! The kinds of single values in health checks.

use std::path::PathBuf;

use regex::bytes::{Regex, RegexBuilder};
use serde_json::json;

use super::model::{Digest, DnsRecord};
use crate::config::kinds::{Number, Words};
use crate::config::limits;
use crate::config::value::{Kind, Refusal, nearest};

/// The word for a type of check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum CheckWord {
    None,
    Connect,
    Ping,
    Http,
    Https,
    Udp,
    Dns,
    Tls,
    Smtp,
    Ftp,
    Pop3,
    Imap,
    Nntp,
    Ldap,
    Mysql,
    Postgres,
    Redis,
    Sip,
    Exchange,
    External,
    Agent,
}

impl Words for CheckWord {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("none", CheckWord::None),
        ("connect", CheckWord::Connect),
        ("ping", CheckWord::Ping),
        ("http", CheckWord::Http),
        ("https", CheckWord::Https),
        ("udp", CheckWord::Udp),
        ("dns", CheckWord::Dns),
        ("tls", CheckWord::Tls),
        ("smtp", CheckWord::Smtp),
        ("ftp", CheckWord::Ftp),
        ("pop3", CheckWord::Pop3),
        ("imap", CheckWord::Imap),
        ("nntp", CheckWord::Nntp),
        ("ldap", CheckWord::Ldap),
        ("mysql", CheckWord::Mysql),
        ("postgres", CheckWord::Postgres),
        ("redis", CheckWord::Redis),
        ("sip", CheckWord::Sip),
        ("exchange", CheckWord::Exchange),
        ("external", CheckWord::External),
        ("agent", CheckWord::Agent),
    ];
}

/// A time between runs of a check, in milliseconds.
#[derive(Debug)]
pub(in crate::config) struct CheckTime;

impl Kind for CheckTime {
    type Parsed = u32;

    fn expected() -> String {
        "a time with its unit from 10ms to 1h, like 500ms or 5s".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[0-9]" })
    }

    fn parse(text: &str) -> Result<u32, Refusal> {
        milliseconds(text, &limits::CHECK_TIME_MS)
    }
}

/// A time that may be none at all, in milliseconds.
#[derive(Debug)]
pub(in crate::config) struct Spread;

impl Kind for Spread {
    type Parsed = u32;

    fn expected() -> String {
        "a time with its unit from 0s to 1h, like 500ms or 5s".to_owned()
    }

    fn schema() -> serde_json::Value {
        CheckTime::schema()
    }

    fn parse(text: &str) -> Result<u32, Refusal> {
        milliseconds(text, &(0..=*limits::CHECK_TIME_MS.end()))
    }
}

fn milliseconds(text: &str, range: &std::ops::RangeInclusive<u32>) -> Result<u32, Refusal> {
    let time = humantime::parse_duration(text).map_err(|_| Refusal::default())?;
    u32::try_from(time.as_millis())
        .ok()
        .filter(|time| range.contains(time))
        .ok_or_else(Refusal::default)
}

/// How many answers in a row make a verdict.
pub(in crate::config) type Count = Number<1, { limits::CHECK_COUNT }>;
/// Percent of a weight.
pub(in crate::config) type Percent = Number<0, 100>;

/// Any text of a bounded length.
#[derive(Debug)]
pub(in crate::config) struct Text;

impl Kind for Text {
    type Parsed = String;

    fn expected() -> String {
        format!("a text of 1 to {} bytes", limits::CHECK_TEXT_BYTES)
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1, "maxLength": limits::CHECK_TEXT_BYTES })
    }

    fn parse(text: &str) -> Result<String, Refusal> {
        if (1..=limits::CHECK_TEXT_BYTES).contains(&text.len()) {
            Ok(text.to_owned())
        } else {
            Err(Refusal::default())
        }
    }
}

/// What can stand in a line of a protocol's header: it must not begin another line.
#[derive(Debug)]
pub(in crate::config) struct HeaderValue;

impl Kind for HeaderValue {
    type Parsed = String;

    fn expected() -> String {
        format!(
            "1 to {} visible characters on one line",
            limits::CHECK_TEXT_BYTES
        )
    }

    fn schema() -> serde_json::Value {
        Text::schema()
    }

    fn parse(text: &str) -> Result<String, Refusal> {
        let fits = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        Text::parse(text).and_then(|text| fits.then_some(text).ok_or_else(Refusal::default))
    }
}

/// Method of an HTTP request (RFC 9110 section 9.1: a token).
#[derive(Debug)]
pub(in crate::config) struct HttpMethod;

impl Kind for HttpMethod {
    type Parsed = String;

    fn expected() -> String {
        "a method like GET, HEAD or OPTIONS".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[A-Z]+$" })
    }

    fn parse(text: &str) -> Result<String, Refusal> {
        let fits = (1..=32).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_uppercase());
        fits.then(|| text.to_owned()).ok_or_else(Refusal::default)
    }
}

/// Path and query of an HTTP request.
#[derive(Debug)]
pub(in crate::config) struct HttpPath;

impl Kind for HttpPath {
    type Parsed = String;

    fn expected() -> String {
        "a path that begins with \"/\" and has no spaces".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^/[^ ]*$", "maxLength": limits::CHECK_TEXT_BYTES })
    }

    fn parse(text: &str) -> Result<String, Refusal> {
        let fits = text.starts_with('/') && !text.contains([' ', '#']);
        HeaderValue::parse(text).and_then(|text| fits.then_some(text).ok_or_else(Refusal::default))
    }
}

/// An HTTP status, or a range of them.
#[derive(Debug)]
pub(in crate::config) struct StatusRange;

impl Kind for StatusRange {
    type Parsed = (u16, u16);

    fn expected() -> String {
        "a status from 100 to 599, or a range like 200-299".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [Number::<100, 599>::schema(), { "type": "string", "pattern": "^[1-5][0-9]{2}-[1-5][0-9]{2}$" }] })
    }

    fn parse(text: &str) -> Result<(u16, u16), Refusal> {
        // At most 599.
        let status = |text: &str| Number::<100, 599>::parse(text).map(|status| status as u16);
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (status(first.trim())?, status(last.trim())?),
            None => (status(text)?, status(text)?),
        };
        if first > last {
            return Err(Refusal::because("it ends before it begins"));
        }
        Ok((first, last))
    }
}

/// Compiles a regular expression as it is looked for in answers.
///
/// # Errors
/// It is none, or takes more memory than [`limits::REGEX_BYTES`].
pub fn compile(expression: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(expression)
        // Answers are lines, whose ends are two characters in most protocols.
        .multi_line(true)
        .crlf(true)
        .size_limit(limits::REGEX_BYTES)
        .build()
}

/// A regular expression.
#[derive(Debug)]
pub(in crate::config) struct RegularExpression;

impl Kind for RegularExpression {
    type Parsed = String;

    fn expected() -> String {
        "a regular expression, like ^OK [0-9]+".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "format": "regex", "maxLength": limits::CHECK_TEXT_BYTES })
    }

    fn parse(text: &str) -> Result<String, Refusal> {
        let text = Text::parse(text)?;
        match compile(&text) {
            Ok(_) => Ok(text),
            // Of several lines the last one says what is wrong.
            Err(error) => Err(Refusal {
                why: Some("it cannot be compiled"),
                help: error.to_string().lines().last().map(str::to_owned),
            }),
        }
    }
}

/// Bytes in hexadecimal.
#[derive(Debug)]
pub(in crate::config) struct Hexadecimal;

impl Kind for Hexadecimal {
    type Parsed = Vec<u8>;

    fn expected() -> String {
        format!(
            "pairs of hexadecimal digits, at most {} bytes",
            limits::CHECK_TEXT_BYTES
        )
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^([0-9A-Fa-f]{2} ?)+$" })
    }

    fn parse(text: &str) -> Result<Vec<u8>, Refusal> {
        let digits: Vec<u8> = text
            .bytes()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        let byte = |pair: &[u8]| {
            let high = char::from(*pair.first()?).to_digit(16)?;
            let low = char::from(*pair.get(1)?).to_digit(16)?;
            u8::try_from(high * 16 + low).ok()
        };
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
        bytes
            .filter(|bytes| (1..=limits::CHECK_TEXT_BYTES).contains(&bytes.len()))
            .ok_or_else(Refusal::default)
    }
}

/// Digest of a body.
#[derive(Debug)]
pub(in crate::config) struct DigestWord;

impl Kind for DigestWord {
    type Parsed = Digest;

    fn expected() -> String {
        "sha256: and 64 hexadecimal digits, or md5: and 32".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^(sha256:[0-9A-Fa-f]{64}|md5:[0-9A-Fa-f]{32})$" })
    }

    fn parse(text: &str) -> Result<Digest, Refusal> {
        let (kind, digits) = text.split_once(':').ok_or_else(Refusal::default)?;
        let bytes = Hexadecimal::parse(digits)?;
        let length = |_| Refusal::because("it has not as many digits as that digest");
        match kind {
            "sha256" => bytes.try_into().map(Digest::Sha256).map_err(length),
            "md5" => bytes.try_into().map(Digest::Md5).map_err(length),
            _ => Err(Refusal {
                why: None,
                help: nearest(kind, ["sha256", "md5"])
                    .map(|word| format!("did you mean \"{word}\"?")),
            }),
        }
    }
}

/// Type of a DNS record, in capitals or not.
#[derive(Debug)]
pub(in crate::config) struct DnsRecordWord;

impl DnsRecordWord {
    const WORDS: [(&'static str, DnsRecord); 9] = [
        ("A", DnsRecord::A),
        ("AAAA", DnsRecord::Aaaa),
        ("CNAME", DnsRecord::Cname),
        ("MX", DnsRecord::Mx),
        ("NS", DnsRecord::Ns),
        ("PTR", DnsRecord::Ptr),
        ("SOA", DnsRecord::Soa),
        ("SRV", DnsRecord::Srv),
        ("TXT", DnsRecord::Txt),
    ];
}

impl Kind for DnsRecordWord {
    type Parsed = DnsRecord;

    fn expected() -> String {
        let words: Vec<&str> = Self::WORDS.iter().map(|(word, _)| *word).collect();
        format!("one of {}", words.join(", "))
    }

    fn schema() -> serde_json::Value {
        let words: Vec<&str> = Self::WORDS.iter().map(|(word, _)| *word).collect();
        json!({ "type": "string", "enum": words })
    }

    fn parse(text: &str) -> Result<DnsRecord, Refusal> {
        Self::WORDS
            .iter()
            .find(|(word, _)| word.eq_ignore_ascii_case(text))
            .map(|(_, record)| *record)
            .ok_or_else(Refusal::default)
    }
}

/// An absolute path of a file.
#[derive(Debug)]
pub(in crate::config) struct AbsolutePath;

impl Kind for AbsolutePath {
    type Parsed = PathBuf;

    fn expected() -> String {
        "the absolute path of a file".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^/.*[^/]$" })
    }

    fn parse(text: &str) -> Result<PathBuf, Refusal> {
        let fits = text.starts_with('/') && !text.ends_with('/') && !text.contains('\0');
        Text::parse(text).and_then(|text| {
            fits.then(|| PathBuf::from(text))
                .ok_or_else(Refusal::default)
        })
    }
}
