//! Alerts: from the YAML's structs to the model.

use std::collections::HashMap;
use std::sync::Arc;

use super::file::{AlertFile, MailFile, WebhookFile};
use super::kinds::{MailAddress, Url};
use super::model::{AlertKind, AlertTarget, AlertWay, MailTls, MailWay, ProgramWay, WebhookWay};
use crate::config::checks::{Secret, TlsOptions};
use crate::config::error::{Mistake, Place};
use crate::config::kinds::Words;
use crate::config::limits;
use crate::config::resolve::Resolver;
use crate::config::value::{Kind, Located, Optional, Value};

/// How long what happens is collected, where nothing is said: a broken switch takes many real servers, whose checks do not
/// fail in the same moment.
const GROUP_MS: u32 = 5000;

impl Resolver {
    pub(in crate::config) fn alerts(
        &mut self,
        written: &Optional<Located<Vec<Located<AlertFile>>>>,
    ) -> Vec<Arc<AlertTarget>> {
        let Some(written) = written.as_ref() else {
            return Vec::new();
        };
        self.mistakes
            .extend(limits::ALERTS.check(written.value.len(), written.place));
        let mut names = HashMap::new();
        let mut targets = Vec::new();
        for alert in &written.value {
            let Some(target) = self.alert(&alert.value, alert.place) else {
                continue;
            };
            if let Some(first) = names.insert(target.name.clone(), alert.place) {
                let what = format!("the alert {}", target.name);
                self.repeated(alert.place, &what, first, "every name once");
            }
            targets.push(Arc::new(target));
        }
        targets
    }

    fn alert(&mut self, file: &AlertFile, place: Place) -> Option<AlertTarget> {
        let name = self.required("name", &file.name, place);
        let way = self.way(file, place);
        let all = || AlertKind::WORDS.iter().map(|(_, kind)| *kind).collect();
        let mut on: Vec<AlertKind> = self.list(&file.on).unwrap_or_else(all);
        on.sort_unstable();
        on.dedup();
        let periods = self.list(&file.periods).unwrap_or_default();
        let (every_ms, after_ms) = (self.or(&file.every, 0), self.or(&file.after, 0));
        let after_failures = self.or(&file.after_failures, 1);
        let is_of_a_check = |kind: &AlertKind| matches!(kind, AlertKind::Down | AlertKind::Up);
        if let Some(written) = file.after_failures.as_ref()
            && !on.is_empty()
            && !on.iter().any(is_of_a_check)
        {
            self.mistakes.push(Mistake::new(
                written.place,
                "found after_failures, but no check stands behind anything under \"on\"",
                "down or up under \"on\", or no after_failures; how long any trouble must last is said by \"after\"",
            ));
        }
        let group_ms = self.or(&file.group, GROUP_MS);
        Some(AlertTarget {
            name: name?,
            way: way?,
            on,
            periods,
            every_ms,
            after_ms,
            after_failures,
            group_ms,
        })
    }

    /// The values of a list, which must not be empty. `None` if it is not there.
    fn list<K: Kind>(
        &mut self,
        written: &Optional<Located<Vec<Value<K>>>>,
    ) -> Option<Vec<K::Parsed>> {
        let written = written.as_ref()?;
        if written.value.is_empty() {
            let expected = format!("at least one: {}", K::expected());
            self.mistakes
                .push(Mistake::new(written.place, "found an empty list", expected));
        }
        self.mistakes
            .extend(limits::ALERT_WORDS.check(written.value.len(), written.place));
        let values = written.value.iter();
        Some(
            values
                .filter_map(|value| value.read(&mut self.mistakes))
                .collect(),
        )
    }

    fn way(&mut self, file: &AlertFile, place: Place) -> Option<AlertWay> {
        let mail = file.mail.as_ref();
        let mail = mail.map(|mail| self.mail(&mail.value, mail.place));
        let program = file.program.as_ref();
        let program = program.map(|it| self.program(&file.program, it.place));
        let webhook = file.webhook.as_ref();
        let webhook = webhook.map(|it| self.webhook(&it.value, it.place));
        match (mail, program, webhook) {
            (Some(way), None, None) | (None, Some(way), None) | (None, None, Some(way)) => way,
            (None, None, None) => {
                self.mistakes.push(Mistake::new(
                    place,
                    "an alert that goes nowhere",
                    "one of the keys mail, program, webhook",
                ));
                None
            }
            _ => {
                self.mistakes.push(Mistake::new(
                    place,
                    "an alert that goes several ways",
                    "one of the keys mail, program, webhook; for several ways an alert each",
                ));
                None
            }
        }
    }

    fn mail(&mut self, file: &MailFile, place: Place) -> Option<AlertWay> {
        let server = self.required("server", &file.server, place);
        if file.to.is_none() {
            self.mistakes.push(Mistake::new(
                place,
                "the key \"to\" is missing here",
                format!("a list, each {}", MailAddress::expected()),
            ));
        }
        let to = self.list(&file.to);
        let tls = self.or(&file.tls, MailTls::Starttls);
        let default_port = match tls {
            MailTls::Starttls => 587,
            MailTls::Tls => 465,
            MailTls::None => 25,
        };
        let (user, password) = (self.maybe(&file.user), self.maybe(&file.password));
        if file.user.is_some() != file.password.is_some() {
            self.mistakes.push(Mistake::new(
                place,
                "found half a login",
                "both user and password, or none of them",
            ));
        }
        let way = MailWay {
            to: Vec::new(),
            from: self.maybe(&file.from),
            server: String::new(),
            port: self.or(&file.port, default_port),
            tls,
            ca_file: self.maybe(&file.ca),
            login: user.zip(password.map(Secret)),
        };
        Some(AlertWay::Mail(MailWay {
            to: to?,
            server: server?,
            ..way
        }))
    }

    fn program<T: Kind<Parsed = String>>(
        &mut self,
        written: &Optional<Located<Vec<Value<T>>>>,
        place: Place,
    ) -> Option<AlertWay> {
        let mut words = self.list(written)?.into_iter();
        let command = words.next()?;
        if !command.starts_with('/') {
            self.mistakes.push(Mistake::new(
                place,
                format!("found \"{command}\", which is not the absolute path of a program"),
                "a list like [/usr/local/bin/page, --now]",
            ));
            return None;
        }
        Some(AlertWay::Program(ProgramWay {
            command: command.into(),
            arguments: words.collect(),
        }))
    }

    fn webhook(&mut self, file: &WebhookFile, place: Place) -> Option<AlertWay> {
        let url = self.required("url", &file.url, place);
        let headers = self.headers(&file.headers, None);
        let ca_file = self.maybe(&file.ca);
        let Url {
            is_https,
            host,
            port,
            authority,
            path,
        } = url?;
        if let Some(ca) = file.ca.as_ref().filter(|_| !is_https) {
            self.mistakes.push(Mistake::new(
                ca.place,
                "found certificate authorities, but the address is not https",
                "https, or no ca",
            ));
        }
        Some(AlertWay::Webhook(WebhookWay {
            host,
            port,
            authority,
            path: Secret(path),
            tls: is_https.then_some(TlsOptions {
                server_name: None,
                verify: true,
                ca_file,
            }),
            headers,
        }))
    }
}
