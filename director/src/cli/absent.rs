//! What a configuration names and this machine does not have. It is no mistake: the file may be meant for another machine.

use std::collections::BTreeSet;
use std::path::Path;

use crate::config::{AlertWay, Config, Probe, TlsOptions};
use crate::datapath::Datapath;
use crate::files::open_regular;

/// What is not here, in the words of a sentence each.
pub(super) fn absent(config: &Config) -> BTreeSet<String> {
    let mut absent = BTreeSet::new();
    let mut file = |what: &str, path: &Path| {
        if let Err(error) = open_regular(path) {
            absent.insert(format!("{what} {}: {error}", path.display()));
        }
    };
    for check in checks(config) {
        let (tls, password) = files_of(check);
        if let Some(path) = tls.and_then(|tls| tls.ca_file.as_deref()) {
            file("certificate authorities", path);
        }
        if let Some(path) = password {
            file("password file", path);
        }
        if let Probe::External(external) = check {
            file("program", &external.command);
        }
    }
    for alert in &config.alerts {
        match &alert.way {
            AlertWay::Mail(mail) => {
                if let Some(path) = &mail.ca_file {
                    file("certificate authorities", path);
                }
            }
            AlertWay::Program(program) => file("program", &program.command),
            AlertWay::Webhook(webhook) => {
                if let Some(path) = webhook.tls.as_ref().and_then(|tls| tls.ca_file.as_deref()) {
                    file("certificate authorities", path);
                }
            }
        }
    }
    let interfaces = config.interfaces.iter().map(|it| it.name.as_str());
    let from = config
        .services
        .iter()
        .flat_map(|service| service.all_servers())
        .flat_map(|server| server.checks.iter())
        .filter_map(|check| check.interface.as_deref());
    for name in interfaces.chain(from) {
        if Datapath::ifindex(name).is_err() {
            absent.insert(format!("interface {name}"));
        }
    }
    absent
}

fn checks(config: &Config) -> impl Iterator<Item = &Probe> {
    config
        .services
        .iter()
        .flat_map(|service| service.all_servers())
        .flat_map(|server| server.checks.iter())
        .map(|check| &check.probe)
}

/// How certificates are looked at, and the file with the password.
fn files_of(probe: &Probe) -> (Option<&TlsOptions>, Option<&Path>) {
    let password = match probe {
        Probe::Ftp(it)
        | Probe::Pop3(it)
        | Probe::Imap(it)
        | Probe::Nntp(it)
        | Probe::Ldap(it)
        | Probe::Mysql(it)
        | Probe::Postgres(it)
        | Probe::Redis(it) => it.password_file.as_deref(),
        _ => None,
    };
    (probe.tls(), password)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn what_is_not_here_is_told_once() {
        let text = "
interfaces: [lo, nowhere0]
alerts:
- {name: page, program: [/no/such/page]}
services:
- address: 192.0.2.1
  port: 80
  real_servers: [10.0.0.1, 10.0.0.2]
  check:
  - {type: https, ca: /no/such/ca.pem}
  - {type: imap, user: a, password_file: /no/such/password}
  - {type: external, command: [/bin/sh]}
  - {type: external, command: [/no/such/check]}
";
        let config = config::parse("director.yaml", text).unwrap();
        let found: Vec<String> = absent(&config).into_iter().collect();
        let expected = [
            "certificate authorities /no/such/ca.pem: No such file",
            "interface nowhere0",
            "password file /no/such/password: No such file",
            "program /no/such/check: No such file",
            "program /no/such/page: No such file",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }
}
