//! Health checks: from the YAML's structs to the model.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::file::{CheckChoice, CheckChoices, CheckFile, Standing, StepFile};
use super::kinds::{CheckWord, HeaderValue};
use super::model::{
    AgentProbe, Check, DnsProbe, DnsRecord, ExchangeProbe, ExternalProbe, HttpProbe, LoginProbe,
    Pattern, Probe, Secret, SipProbe, SmtpProbe, Step, Timing, TlsOptions, TlsProbe, UdpProbe,
};
use crate::config::error::{Mistake, Place};
use crate::config::limits;
use crate::config::resolve::Resolver;
use crate::config::value::{Kind, Located, Optional, ShortOrLong, Value};

/// What a check takes that says nothing itself.
const INTERVAL_MS: u32 = 2000;
const TIMEOUT_MS: u32 = 2000;
const RETRY_DELAY_MS: u32 = 500;
const RISE: u32 = 2;
const FALL: u32 = 3;
const DAYS_LEFT: u32 = 7;
const SMOOTHING_PERCENT: u32 = 50;
/// Name given with `EHLO`.
const HELLO: &str = "director";

/// Keys of where a check is sent, which all types but some have.
const WAY: &[&str] = &["port", "source", "interface", "through"];
const TLS: &[&str] = &["server_name", "verify", "ca"];
const LOGIN: &[&str] = &["user", "password", "password_file", "tls"];
const HTTP: &[&str] = &[
    "method",
    "path",
    "host",
    "headers",
    "status",
    "digest",
    "expect",
    "expect_regex",
];

/// The keys of a type besides the times and those of [`WAY`].
fn keys(kind: CheckWord) -> Vec<&'static str> {
    let groups: &[&[&'static str]] = match kind {
        CheckWord::None | CheckWord::Connect | CheckWord::Ping => &[],
        CheckWord::Http => &[HTTP],
        CheckWord::Https => &[HTTP, TLS],
        CheckWord::Udp => &[&["send", "send_hex", "expect", "expect_regex"]],
        CheckWord::Dns => &[&["name", "record", "answer"]],
        CheckWord::Tls => &[TLS, &["days_left"]],
        CheckWord::Smtp => &[&["hello", "tls"], TLS],
        CheckWord::Ftp | CheckWord::Pop3 | CheckWord::Imap | CheckWord::Nntp | CheckWord::Ldap => {
            &[LOGIN, TLS]
        }
        CheckWord::Mysql | CheckWord::Redis => &[LOGIN, TLS],
        CheckWord::Postgres => &[LOGIN, &["database"], TLS],
        CheckWord::Sip => &[&["uri"]],
        CheckWord::Exchange => &[&["steps", "tls"], TLS],
        CheckWord::External => &[&["command"]],
        CheckWord::Agent => &[&["send", "minimum", "maximum", "smoothing"]],
    };
    let mut keys: Vec<_> = groups.iter().copied().flatten().copied().collect();
    let way: &[&str] = match kind {
        CheckWord::None => &[],
        CheckWord::External => &["port"],
        CheckWord::Ping => &["source", "interface"],
        // The agent is the real server's, not the service's.
        CheckWord::Agent => &["port", "source", "interface"],
        _ => WAY,
    };
    keys.extend(way);
    keys
}

impl Resolver {
    /// The checks of a service or real server. `None` if nothing is said of them.
    pub(in crate::config) fn checks(
        &mut self,
        written: &Optional<CheckChoices>,
    ) -> Option<Arc<[Arc<Check>]>> {
        let written = written.as_ref()?;
        self.mistakes
            .extend(limits::CHECKS_PER_REAL_SERVER.check(written.all().len(), written.place()));
        let checks = written.all().iter().map(|it| self.check(it).map(Arc::new));
        let checks: Vec<Option<Arc<Check>>> = checks.collect();
        self.expect_sense_together(written, &checks);
        Some(checks.into_iter().flatten().collect())
    }

    fn check(&mut self, written: &CheckChoice) -> Option<Check> {
        let nothing = CheckFile::default();
        let (kind, file, place) = match written {
            ShortOrLong::Short(word) => (word.read(&mut self.mistakes), &nothing, word.place),
            ShortOrLong::Long(long) => (
                self.required("type", &long.value.kind, long.place),
                &long.value,
                long.place,
            ),
        };
        let kind = kind?;
        let known = keys(kind);
        for (key, place) in file.particular() {
            if !known.contains(&key) {
                let name = word(kind);
                let expected = if known.is_empty() {
                    format!("no such key: {name} has none but times")
                } else {
                    format!("of {name} only {}, and times", known.join(", "))
                };
                self.mistakes.push(Mistake::new(
                    place,
                    format!("found \"{key}\", which the check {name} does not have"),
                    expected,
                ));
            }
        }
        let through = self.or(&file.through, false);
        let other_ways = [
            ("address", file.address.standing()),
            ("interface", file.interface.standing()),
        ];
        for (key, place) in other_ways {
            if let (true, Some(place)) = (through, place) {
                self.mistakes.push(Mistake::new(
                    place,
                    format!("found \"{key}\" of a check that goes through"),
                    "no such key: it goes to the virtual address, as clients' packets do",
                ));
            }
        }
        let timing = self.timing(file);
        let probe = self.probe(kind, file, place)?;
        self.expect_sense(file, &probe);
        Some(Check {
            probe,
            timing,
            address: self.maybe(&file.address),
            port: self.maybe(&file.port),
            source: self.maybe(&file.source),
            interface: self.maybe(&file.interface),
            through,
        })
    }

    fn timing(&mut self, file: &CheckFile) -> Timing {
        let interval_ms = self.or(&file.interval, INTERVAL_MS);
        Timing {
            interval_ms,
            timeout_ms: self.or(&file.timeout, TIMEOUT_MS),
            rise: self.or(&file.rise, RISE),
            fall: self.or(&file.fall, FALL),
            retry_delay_ms: self.or(&file.retry_delay, RETRY_DELAY_MS.min(interval_ms)),
            down_interval_ms: self.or(&file.down_interval, interval_ms),
            spread_ms: self.or(&file.spread, interval_ms),
        }
    }

    /// What is asked; `None`: nothing, or it could not be read.
    fn probe(&mut self, kind: CheckWord, file: &CheckFile, place: Place) -> Option<Probe> {
        Some(match kind {
            CheckWord::None => return None,
            CheckWord::Connect => Probe::Connect,
            CheckWord::Ping => Probe::Ping,
            CheckWord::Http => Probe::Http(self.http(file, None)),
            CheckWord::Https => {
                let tls = self.tls_options(file);
                Probe::Http(self.http(file, Some(tls)))
            }
            CheckWord::Udp => Probe::Udp(UdpProbe {
                send: self.bytes(&file.send, &file.send_hex).unwrap_or_default(),
                expect: self.pattern(&file.expect, &file.expect_regex),
            }),
            CheckWord::Dns => Probe::Dns(DnsProbe {
                name: self.required("name", &file.name, place)?,
                record: self.or(&file.record, DnsRecord::A),
                answer: self.maybe(&file.answer),
            }),
            CheckWord::Tls => Probe::Tls(TlsProbe {
                tls: self.tls_options(file),
                days_left: self.or(&file.days_left, DAYS_LEFT),
            }),
            CheckWord::Smtp => Probe::Smtp(SmtpProbe {
                tls: self.tls(file),
                hello: self.or(&file.hello, HELLO.to_owned()),
            }),
            CheckWord::Ftp => Probe::Ftp(self.login(file)),
            CheckWord::Pop3 => Probe::Pop3(self.login(file)),
            CheckWord::Imap => Probe::Imap(self.login(file)),
            CheckWord::Nntp => Probe::Nntp(self.login(file)),
            CheckWord::Ldap => Probe::Ldap(self.login(file)),
            CheckWord::Mysql => Probe::Mysql(self.login(file)),
            CheckWord::Postgres => Probe::Postgres(self.login(file)),
            CheckWord::Redis => Probe::Redis(self.login(file)),
            CheckWord::Sip => Probe::Sip(SipProbe {
                uri: self.maybe(&file.uri),
            }),
            CheckWord::Exchange => Probe::Exchange(self.exchange(file, place)?),
            CheckWord::External => Probe::External(self.external(file, place)?),
            CheckWord::Agent => Probe::Agent(AgentProbe {
                send: self.maybe(&file.send),
                minimum_percent: self.or(&file.minimum, 0),
                maximum_percent: self.or(&file.maximum, 100),
                smoothing_percent: self.or(&file.smoothing, SMOOTHING_PERCENT),
            }),
        })
    }

    fn http(&mut self, file: &CheckFile, tls: Option<TlsOptions>) -> HttpProbe {
        let headers = self.headers(&file.headers, Some("the key \"host\" of the check"));
        let status = file.status.as_ref().map(|written| &written.value);
        let status: Option<Vec<_>> = status.map(|ranges| {
            let read = ranges.iter().map(|it| it.read(&mut self.mistakes));
            read.flatten().collect()
        });
        HttpProbe {
            tls,
            method: self.or(&file.method, "GET".to_owned()),
            path: self.or(&file.path, "/".to_owned()),
            host: self.maybe(&file.host),
            headers,
            status: status.unwrap_or_else(|| vec![(200, 299)]),
            body: self.pattern(&file.expect, &file.expect_regex),
            digest: self.maybe(&file.digest),
        }
    }

    /// Headers of an HTTP request. `for_host`: what to use instead of the header `Host`, where that would be sent twice.
    pub(in crate::config) fn headers(
        &mut self,
        written: &Optional<Located<BTreeMap<String, Value<HeaderValue>>>>,
        for_host: Option<&str>,
    ) -> Vec<(String, Secret)> {
        let mut headers = Vec::new();
        for (name, value) in written.as_ref().into_iter().flat_map(|it| &it.value) {
            // RFC 9110 section 5.6.2.
            let is_token = !name.is_empty()
                && name
                    .bytes()
                    .all(|it| it.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&it));
            if !is_token {
                self.mistakes.push(Mistake::new(
                    value.place,
                    format!("found the header \"{name}\""),
                    "a name of letters, digits and \"-\"",
                ));
            }
            // RFC 9112: they say where a request ends, and who is asked.
            let instead = match name.to_ascii_lowercase().as_str() {
                "host" => for_host,
                "content-length" | "transfer-encoding" => {
                    Some("no such header: it follows from what is sent")
                }
                "connection" => Some("no such header: each connection is for one request"),
                _ => None,
            };
            if let Some(instead) = instead {
                self.mistakes.push(Mistake::new(
                    value.place,
                    format!("found the header \"{name}\", which every request has by itself"),
                    instead,
                ));
            }
            if let Some(value) = value.read(&mut self.mistakes) {
                headers.push((name.clone(), Secret(value)));
            }
        }
        headers
    }

    fn tls_options(&mut self, file: &CheckFile) -> TlsOptions {
        TlsOptions {
            server_name: self.maybe(&file.server_name),
            verify: self.or(&file.verify, true),
            ca_file: self.maybe(&file.ca),
        }
    }

    /// TLS where it is asked for.
    fn tls(&mut self, file: &CheckFile) -> Option<TlsOptions> {
        let is_on = self.or(&file.tls, false);
        let options = self.tls_options(file);
        is_on.then_some(options)
    }

    fn login(&mut self, file: &CheckFile) -> LoginProbe {
        self.not_both(
            &file.password,
            &file.password_file,
            "password",
            "password_file",
        );
        LoginProbe {
            tls: self.tls(file),
            user: self.maybe(&file.user),
            password: self.maybe(&file.password).map(Secret),
            password_file: self.maybe(&file.password_file),
            database: self.maybe(&file.database),
        }
    }

    fn exchange(&mut self, file: &CheckFile, place: Place) -> Option<ExchangeProbe> {
        let written = file.steps.as_ref();
        let Some(written) = written.filter(|written| !written.value.is_empty()) else {
            self.mistakes.push(Mistake::new(
                written.map_or(place, |written| written.place),
                "an exchange without steps",
                "the key \"steps\" with a list, like [{send: \"PING\\r\\n\"}, {expect: PONG}]",
            ));
            return None;
        };
        self.mistakes
            .extend(limits::STEPS_PER_CHECK.check(written.value.len(), written.place));
        let mut steps = Vec::with_capacity(written.value.len());
        for step in &written.value {
            steps.extend(self.step(step, written.place));
        }
        Some(ExchangeProbe {
            tls: self.tls(file),
            steps,
        })
    }

    fn step(&mut self, file: &StepFile, place: Place) -> Option<Step> {
        let send = self.bytes(&file.send, &file.send_hex);
        let expect = self.pattern(&file.expect, &file.expect_regex);
        match (send, expect) {
            (Some(bytes), None) => Some(Step::Send(bytes)),
            (None, Some(pattern)) => Some(Step::Expect(pattern)),
            _ => {
                self.mistakes.push(Mistake::new(
                    place,
                    "a step is not one thing",
                    "in each step one of send, send_hex, expect, expect_regex",
                ));
                None
            }
        }
    }

    fn external(&mut self, file: &CheckFile, place: Place) -> Option<ExternalProbe> {
        let written = file.command.as_ref().map(|it| it.value.as_slice());
        let mut words = Vec::new();
        for word in written.unwrap_or_default() {
            words.push(word.read(&mut self.mistakes)?);
        }
        let place = file.command.as_ref().map_or(place, |it| it.place);
        self.mistakes
            .extend(limits::STEPS_PER_CHECK.check(words.len(), place));
        if !words
            .first()
            .is_some_and(|program| program.starts_with('/'))
        {
            self.mistakes.push(Mistake::new(
                place,
                "an external check without the absolute path of a program",
                "the key \"command\" with a list, like [/usr/local/bin/check-it, --fast]",
            ));
            return None;
        }
        let command = words.remove(0).into();
        Some(ExternalProbe {
            command,
            arguments: words,
        })
    }

    fn bytes<T, H>(
        &mut self,
        text: &Optional<Value<T>>,
        hexadecimal: &Optional<Value<H>>,
    ) -> Option<Vec<u8>>
    where
        T: Kind<Parsed = String>,
        H: Kind<Parsed = Vec<u8>>,
    {
        self.not_both(text, hexadecimal, "send", "send_hex");
        match (text.as_ref(), hexadecimal.as_ref()) {
            (Some(text), _) => text.read(&mut self.mistakes).map(String::into_bytes),
            (None, Some(bytes)) => bytes.read(&mut self.mistakes),
            (None, None) => None,
        }
    }

    fn pattern<T, R>(
        &mut self,
        text: &Optional<Value<T>>,
        regex: &Optional<Value<R>>,
    ) -> Option<Pattern>
    where
        T: Kind<Parsed = String>,
        R: Kind<Parsed = String>,
    {
        self.not_both(text, regex, "expect", "expect_regex");
        match (text.as_ref(), regex.as_ref()) {
            (Some(text), _) => text.read(&mut self.mistakes).map(Pattern::Text),
            (None, Some(regex)) => regex.read(&mut self.mistakes).map(Pattern::Regex),
            (None, None) => None,
        }
    }

    fn not_both<A, B>(
        &mut self,
        one: &Optional<Value<A>>,
        other: &Optional<Value<B>>,
        name: &str,
        other_name: &str,
    ) {
        if let (Some(_), Some(other)) = (one.as_ref(), other.as_ref()) {
            self.mistakes.push(Mistake::new(
                other.place,
                format!("found \"{other_name}\" beside \"{name}\""),
                "one of the two",
            ));
        }
    }
}

fn word(kind: CheckWord) -> &'static str {
    use crate::config::kinds::Words;
    CheckWord::WORDS
        .iter()
        .find(|(_, it)| *it == kind)
        .map_or("", |(word, _)| word)
}
