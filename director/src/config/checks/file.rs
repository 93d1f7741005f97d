//! A health check as it is written in YAML.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::kinds::{
    AbsolutePath, CheckTime, CheckWord, Count, DigestWord, DnsRecordWord, HeaderValue, Hexadecimal,
    HttpMethod, HttpPath, Percent, RegularExpression, Spread, StatusRange, Text,
};
use crate::config::addresses::Address;
use crate::config::error::Place;
use crate::config::kinds::{InterfaceName, Number, Port, Switch, Word};
use crate::config::value::{Located, OneOrMore, Optional, ShortOrLong, Value};

/// A check: its type, or a mapping where there is more to say.
pub(in crate::config) type CheckChoice = ShortOrLong<Word<CheckWord>, CheckFile>;

/// One check, or a list of them.
pub(in crate::config) type CheckChoices = OneOrMore<Word<CheckWord>, CheckFile>;

/// A check with more than its type. Which of the keys below the times a type has is said with each of them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Check", extend("required" = ["type"]))]
pub(in crate::config) struct CheckFile {
    /// What is asked: connect, http, https, ping, udp, dns, tls, smtp, ftp, pop3, imap, nntp, ldap, mysql, postgres,
    /// redis, sip, exchange, external, agent; none: always up.
    #[serde(rename = "type")]
    pub(super) kind: Optional<Value<Word<CheckWord>>>,
    /// From one run to the next. Default: 2s.
    pub(super) interval: Optional<Value<CheckTime>>,
    /// The longest that a run may take. Default: 2s.
    pub(super) timeout: Optional<Value<CheckTime>>,
    /// Successes in a row that make a real server up again. Default: 2.
    pub(super) rise: Optional<Value<Count>>,
    /// Failures in a row that make it down. Default: 3.
    pub(super) fall: Optional<Value<Count>>,
    /// From a failure to the next run, while they are too few to make it down. Default: 500ms, or the interval.
    pub(super) retry_delay: Optional<Value<CheckTime>>,
    /// From one run to the next while it is down. Default: the interval.
    pub(super) down_interval: Optional<Value<CheckTime>>,
    /// The first run comes after a random part of this. Default: the interval.
    pub(super) spread: Optional<Value<Spread>>,
    /// Another address than the real server's.
    pub(super) address: Optional<Value<Address>>,
    /// Another port than the real server's.
    pub(super) port: Optional<Value<Port>>,
    /// Local address that it is sent from.
    pub(super) source: Optional<Value<Address>>,
    /// Interface that it is sent from.
    pub(super) interface: Optional<Value<InterfaceName>>,
    /// DR, TUN: sent to the virtual address, as clients' packets are to this real server. Default: false.
    pub(super) through: Optional<Value<Switch>>,

    /// http, https: the request's method. Default: GET.
    pub(super) method: Optional<Value<HttpMethod>>,
    /// http, https: path and query. Default: /.
    pub(super) path: Optional<Value<HttpPath>>,
    /// http, https: the header Host. Default: the backend's address.
    pub(super) host: Optional<Value<HeaderValue>>,
    /// http, https: more headers.
    pub(super) headers: Optional<Located<BTreeMap<String, Value<HeaderValue>>>>,
    /// http, https: statuses that are a success, like [200, 300-399]. Default: 200-299.
    pub(super) status: Optional<Located<Vec<Value<StatusRange>>>>,
    /// http, https: digest of the body, like sha256:9f86d0… or md5:098f6b….
    pub(super) digest: Optional<Value<DigestWord>>,
    /// http, https, udp: text that must be in the answer.
    pub(super) expect: Optional<Value<Text>>,
    /// http, https, udp: regular expression that must match in the answer.
    pub(super) expect_regex: Optional<Value<RegularExpression>>,
    /// udp, agent: what is sent.
    pub(super) send: Optional<Value<Text>>,
    /// udp: what is sent, in hexadecimal.
    pub(super) send_hex: Optional<Value<Hexadecimal>>,
    /// exchange: what is sent and expected, in turns.
    pub(super) steps: Optional<Located<Vec<StepFile>>>,

    /// smtp, ftp, pop3, imap, nntp, ldap, redis, exchange: TLS from the first byte on. mysql, postgres: asked for at the
    /// beginning. Default: false.
    pub(super) tls: Optional<Value<Switch>>,
    /// With TLS: the name asked for by SNI, which the certificate must be for. Default: host, or the address.
    pub(super) server_name: Optional<Value<HeaderValue>>,
    /// With TLS: whether the certificate must be good. Default: true.
    pub(super) verify: Optional<Value<Switch>>,
    /// With TLS: file with certificate authorities (PEM). Default: the system's.
    pub(super) ca: Optional<Value<AbsolutePath>>,
    /// tls: days that the certificate must still be valid. Default: 7.
    pub(super) days_left: Optional<Value<Number<0, 10_000>>>,

    /// dns: the name asked for.
    pub(super) name: Optional<Value<Text>>,
    /// dns: type of record: A, AAAA, CNAME, MX, NS, PTR, SOA, SRV, TXT. Default: A.
    pub(super) record: Optional<Value<DnsRecordWord>>,
    /// dns: what one of the answers must be. Default: any record of that type.
    pub(super) answer: Optional<Value<Text>>,

    /// smtp: name given with EHLO. Default: director.
    pub(super) hello: Optional<Value<HeaderValue>>,
    /// ftp, pop3, imap, nntp, ldap, redis, mysql, postgres: who logs in. mysql, postgres: without a password, who only asks
    /// to; default: director.
    pub(super) user: Optional<Value<Text>>,
    /// The same: the password.
    pub(super) password: Optional<Value<Text>>,
    /// The same: file with the password on one line, which not everybody may read.
    pub(super) password_file: Optional<Value<AbsolutePath>>,
    /// postgres: the database. Default: the user.
    pub(super) database: Optional<Value<Text>>,
    /// sip: the address of record asked for. Default: the backend's.
    pub(super) uri: Optional<Value<HeaderValue>>,

    /// external: the program's absolute path, then its arguments.
    pub(super) command: Optional<Located<Vec<Value<Text>>>>,

    /// agent: the least that a reported percentage counts. Default: 0.
    pub(super) minimum: Optional<Value<Percent>>,
    /// agent: the most that it counts. Default: 100.
    pub(super) maximum: Optional<Value<Percent>>,
    /// agent: how much of the way to a new report is gone at once, in percent. Default: 50.
    pub(super) smoothing: Optional<Value<Number<1, 100>>>,
}

/// A step of an exchange: one of its keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "CheckStep")]
pub(in crate::config) struct StepFile {
    /// What is sent.
    pub(super) send: Optional<Value<Text>>,
    /// What is sent, in hexadecimal.
    pub(super) send_hex: Optional<Value<Hexadecimal>>,
    /// Text that must come.
    pub(super) expect: Optional<Value<Text>>,
    /// Regular expression that must match in what comes.
    pub(super) expect_regex: Optional<Value<RegularExpression>>,
}

/// Where a key stands, if it is there.
pub(super) trait Standing {
    fn standing(&self) -> Option<Place>;
}

impl<K> Standing for Optional<Value<K>> {
    fn standing(&self) -> Option<Place> {
        self.as_ref().map(|value| value.place)
    }
}

impl<T> Standing for Optional<Located<T>> {
    fn standing(&self) -> Option<Place> {
        self.as_ref().map(|located| located.place)
    }
}

impl CheckFile {
    /// The keys that only some types have, and where those that are there stand.
    pub(super) fn particular(&self) -> Vec<(&'static str, Place)> {
        macro_rules! standing {
            ($($key:ident),*) => {
                [$((stringify!($key), self.$key.standing())),*]
            };
        }
        let all = standing!(
            method,
            path,
            host,
            headers,
            status,
            digest,
            expect,
            expect_regex,
            send,
            send_hex,
            steps,
            tls,
            server_name,
            verify,
            ca,
            days_left,
            name,
            record,
            answer,
            hello,
            user,
            password,
            password_file,
            database,
            uri,
            command,
            minimum,
            maximum,
            smoothing,
            port,
            source,
            interface,
            through
        );
        all.into_iter()
            .filter_map(|(key, place)| Some((key, place?)))
            .collect()
    }
}
