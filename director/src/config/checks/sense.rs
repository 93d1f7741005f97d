//! Values of one check, or checks of one real server, that are right by themselves and make no sense together: a check that
//! can never succeed takes everybody out.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use hickory_proto::rr::Name;
use tokio_rustls::rustls::pki_types::ServerName;

use super::file::{CheckChoices, CheckFile, Standing};
use super::model::{Check, DnsProbe, DnsRecord, HttpProbe, Probe};
use crate::config::error::{Mistake, Place};
use crate::config::resolve::Resolver;

impl Resolver {
    /// Notes what makes no sense in a check that was read.
    pub(super) fn expect_sense(&mut self, file: &CheckFile, probe: &Probe) {
        match probe {
            Probe::Http(http) => self.expect_http_sense(file, http),
            Probe::Dns(dns) => self.expect_dns_sense(file, dns),
            Probe::Agent(agent) if agent.minimum_percent > agent.maximum_percent => self.senseless(
                file.minimum.standing(),
                format!(
                    "the minimum {} is above the maximum {}",
                    agent.minimum_percent, agent.maximum_percent
                ),
                "a minimum up to the maximum",
            ),
            _ => {}
        }
        if let Some(name) = probe.tls().and_then(|tls| tls.server_name.as_deref())
            && ServerName::try_from(name).is_err()
        {
            self.senseless(
                file.server_name.standing(),
                format!("\"{name}\" is no name that a certificate can be for"),
                "a host's name, like www.example.org, or an address",
            );
        }
    }

    fn expect_http_sense(&mut self, file: &CheckFile, http: &HttpProbe) {
        // RFC 9110 section 9.3.2: the answer to HEAD has no content.
        if http.method == "HEAD" {
            let body = [
                ("expect", file.expect.standing()),
                ("expect_regex", file.expect_regex.standing()),
                ("digest", file.digest.standing()),
            ];
            for (key, place) in body {
                self.senseless(
                    place,
                    format!("found \"{key}\" beside the method HEAD, whose answers have no body"),
                    "another method, like GET, or a status alone",
                );
            }
        }
        if let (Some(tls), Some(name)) = (&http.tls, http.host_name())
            && tls.server_name.is_none()
            && ServerName::try_from(name).is_err()
        {
            self.senseless(
                file.host.standing(),
                format!("found the host \"{name}\" of an https check, and no certificate can be for that name"),
                "a host's name, like www.example.org, or an address; or beside it the key \"server_name\", which the \
                 certificate is for",
            );
        }
        // RFC 9110 section 7.2: a host and perhaps a port.
        if let Some(host) = &http.host
            && host.contains([' ', '/', '@', '?', '#'])
        {
            self.senseless(
                file.host.standing(),
                format!("found the host \"{host}\""),
                "a name or an address, perhaps with a port, like www.example.org or www.example.org:8080",
            );
        }
    }

    fn expect_dns_sense(&mut self, file: &CheckFile, dns: &DnsProbe) {
        if let Err(error) = Name::from_str(&dns.name) {
            self.senseless(
                file.name.standing(),
                format!("\"{}\" is no name in the DNS: {error}", dns.name),
                "a name like www.example.org, of labels of at most 63 bytes",
            );
        }
        let Some(answer) = &dns.answer else { return };
        let (is_one, kind) = match dns.record {
            DnsRecord::A => (answer.parse::<Ipv4Addr>().is_ok(), "an IPv4 address"),
            DnsRecord::Aaaa => (answer.parse::<Ipv6Addr>().is_ok(), "an IPv6 address"),
            _ => return,
        };
        if !is_one {
            let other = if answer.parse::<IpAddr>().is_ok() {
                ", or another record"
            } else {
                ""
            };
            self.senseless(
                file.answer.standing(),
                format!("\"{answer}\" is nothing that such a record can hold"),
                &format!("{kind}{other}"),
            );
        }
    }

    /// Notes what makes no sense among the checks of one real server. `written` and `read` are the same ones; `None`: the
    /// check `none`, or one that could not be read.
    pub(super) fn expect_sense_together(
        &mut self,
        written: &CheckChoices,
        read: &[Option<Arc<Check>>],
    ) {
        if read.len() < 2 || !self.mistakes.is_empty() {
            // What could not be read is `None` too, and has been told of.
            return;
        }
        if read.iter().any(Option::is_none) {
            self.senseless(
                Some(written.place()),
                "found the check \"none\" beside others".to_owned(),
                "none alone, or checks without it",
            );
        }
        let mut seen = HashSet::new();
        for check in read.iter().flatten() {
            if !seen.insert(check) {
                self.senseless(
                    Some(written.place()),
                    format!("found the same check {} twice", check.probe.name()),
                    "each check once",
                );
            }
        }
    }

    fn senseless(&mut self, place: Option<Place>, found: String, expected: &str) {
        self.mistakes
            .extend(place.map(|place| Mistake::new(place, found, expected)));
    }
}
