//! What a configuration names and this machine does not have. It is no mistake: the file may be meant for another machine.

use std::collections::BTreeSet;
use std::iter;
use std::path::Path;

use heartbeat::config::LinkKind;
use nix::unistd::{AccessFlags, access};

use crate::config::{AlertWay, Config, Probe, TlsOptions};
use crate::datapath::Datapath;
use crate::files::open_regular;

const PROGRAM: &str = "program";

/// What is not here, in the words of a sentence each.
pub(super) fn absent(config: &Config) -> BTreeSet<String> {
    let mut absent = BTreeSet::new();
    let mut file = |what: &str, path: &Path| {
        let found = open_regular(path).map(drop);
        let found = match what {
            PROGRAM => found.and_then(|()| Ok(access(path, AccessFlags::X_OK)?)),
            _ => found,
        };
        if let Err(error) = found {
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
            file(PROGRAM, &external.command);
        }
    }
    for alert in &config.alerts {
        match &alert.way {
            AlertWay::Mail(mail) => {
                if let Some(path) = &mail.ca_file {
                    file("certificate authorities", path);
                }
            }
            AlertWay::Program(program) => file(PROGRAM, &program.command),
            AlertWay::Webhook(webhook) => {
                if let Some(path) = webhook.tls.as_ref().and_then(|tls| tls.ca_file.as_deref()) {
                    file("certificate authorities", path);
                }
            }
        }
    }
    if let Some(heartbeat) = &config.heartbeat {
        for path in programs(heartbeat) {
            file(PROGRAM, Path::new(path));
        }
        if let Some(keys) = &heartbeat.keys {
            for key in iter::once(&keys.active).chain(&keys.accept) {
                file("key", &key.file);
            }
        }
    }
    if let Some(keys) = config.sync.as_ref().and_then(|sync| sync.keys.as_ref()) {
        for key in iter::once(&keys.active).chain(&keys.accept) {
            file("key", &key.file);
        }
    }
    let serial = config.heartbeat.iter().flat_map(|it| &it.links);
    for link in serial {
        if let LinkKind::Serial(serial) = &link.kind
            && let Err(error) = serial.device.metadata()
        {
            absent.insert(format!("serial line {}: {error}", serial.device.display()));
        }
    }
    let interfaces = config.interfaces.iter().map(|it| it.name.as_str());
    let nodes = config.heartbeat.iter().flat_map(|it| interfaces_of(it));
    let sync = config.sync.iter().map(|sync| sync.interface.as_str());
    let from = config
        .services
        .iter()
        .flat_map(|service| service.all_servers())
        .flat_map(|server| server.checks.iter())
        .filter_map(|check| check.interface.as_deref());
    for name in interfaces.chain(nodes).chain(sync).chain(from) {
        if Datapath::ifindex(name).is_err() {
            absent.insert(format!("interface {name}"));
        }
    }
    absent
}

/// What the heartbeat runs.
fn programs(heartbeat: &heartbeat::config::Config) -> impl Iterator<Item = &str> {
    let of_groups = heartbeat.groups.iter();
    let of_groups = of_groups.flat_map(|group| group.on_primary.iter().chain(&group.on_backup));
    let fence = heartbeat.fence.iter().map(|fence| &fence.program);
    let tracked = heartbeat.fitness.programs.iter();
    of_groups
        .chain(fence)
        .map(|program| &program.command)
        .chain(tracked.map(|program| &program.command))
        .filter_map(|command| command.first())
        .map(String::as_str)
}

/// What it speaks, serves and looks at.
fn interfaces_of(heartbeat: &heartbeat::config::Config) -> impl Iterator<Item = &str> {
    let links = heartbeat.links.iter().filter_map(|link| match &link.kind {
        LinkKind::Udp(udp) => Some(udp.interface.as_str()),
        LinkKind::Vrrp(vrrp) => Some(vrrp.interface.as_str()),
        LinkKind::Serial(_) => None,
    });
    let groups = heartbeat.groups.iter();
    let tracked = heartbeat.fitness.interfaces.iter();
    links
        .chain(groups.map(|group| group.interface.as_str()))
        .chain(tracked.map(|it| it.name.as_str()))
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
  - {type: external, command: [/etc/passwd]}
sync: {interface: nowhere3}
heartbeat:
  node: a
  links:
  - udp: {interface: nowhere1, peers: [10.9.9.9]}
  - serial: {device: /dev/no-such-line}
  key: {id: 1, file: /no/such/key}
  groups:
  - name: web
    interface: nowhere2
    addresses: [192.0.2.1/32]
    priority: {a: 100, b: 90}
    on_backup: [/no/such/backup]
";
        let config = config::parse("director.yaml", text).unwrap();
        let found: Vec<String> = absent(&config).into_iter().collect();
        let expected = [
            "certificate authorities /no/such/ca.pem: No such file",
            "interface nowhere0",
            "interface nowhere1",
            "interface nowhere2",
            "interface nowhere3",
            "key /no/such/key: No such file",
            "password file /no/such/password: No such file",
            "program /etc/passwd: Permission denied",
            "program /no/such/backup: No such file",
            "program /no/such/check: No such file",
            "program /no/such/page: No such file",
            "serial line /dev/no-such-line: No such file",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }
}
