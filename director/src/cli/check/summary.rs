//! What a configuration says, for people: the defaults that matter included.

use std::fmt::Write;
use std::time::Duration;

use heartbeat::config::AutoFailback;
use humantime::format_duration;

use crate::config::{
    AlertTarget, AlertWay, Check, Config, MailTls, OnDown, Probe, RealServer, Sync, UntilChecked,
    VirtualService,
};
use crate::scheduler::slots_of;

/// What it says, in a few aligned lines for each part.
pub(super) fn summary(config: &Config) -> String {
    let interfaces: Vec<String> = config
        .interfaces
        .iter()
        .map(|interface| format!("{} ({})", interface.name, interface.mode))
        .collect();
    let real_servers: usize = config
        .services
        .iter()
        .map(|service| service.real_servers.len())
        .sum();
    let slots: usize = config
        .services
        .iter()
        .map(|service| slots_of(service, &service.real_servers))
        .sum();
    let rows = [
        ("instance", config.instance.clone()),
        ("interfaces", interfaces.join(", ")),
        ("services", config.services.len().to_string()),
        ("real servers", real_servers.to_string()),
        ("scheduling slots", slots.to_string()),
        (
            "control socket",
            config.control_socket.display().to_string(),
        ),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<16}  {value}");
    }
    if let Some(heartbeat) = &config.heartbeat {
        text.push_str(&heartbeat_summary(heartbeat));
    }
    if let Some(sync) = &config.sync {
        text.push_str(&sync_summary(sync));
    }
    if !config.alerts.is_empty() {
        let alerts = config.alerts.iter().map(|it| alert_row(it));
        let _ = writeln!(text, "alerts            {}", config.alerts.len());
        text.push_str(&aligned(&alerts.collect::<Vec<_>>()));
    }
    for service in &config.services {
        text.push_str(&service_summary(service));
    }
    text
}

/// Rows below a heading, their cells below each other.
fn aligned<const CELLS: usize>(rows: &[[String; CELLS]]) -> String {
    let mut widths = [0; CELLS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {}", cells.join("  ").trim_end());
    }
    text
}

/// A service with who answers it, and what decides whether somebody does.
fn service_summary(service: &VirtualService) -> String {
    let endpoints: Vec<String> = service.endpoints.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "\n{}  {}  {}\n",
        service.name,
        endpoints.join(" "),
        service.scheduler
    );
    let checks = |server: &RealServer| {
        let checks: Vec<String> = server.checks.iter().map(|it| check_words(it)).collect();
        if checks.is_empty() {
            "none: always up".to_owned()
        } else {
            checks.join("; ")
        }
    };
    let mut known: Vec<String> = service.all_servers().map(checks).collect();
    known.dedup();
    let are_alike = known.len() < 2;
    let row = |server: &RealServer, role: &str| {
        [
            server.shown(),
            format!("weight {}", server.weight),
            server.method.to_string(),
            role.to_owned(),
            if are_alike {
                String::new()
            } else {
                format!("check {}", checks(server))
            },
        ]
    };
    let real_servers = service.real_servers.iter().map(|it| row(it, ""));
    let fallback_servers = service
        .fallback_servers
        .iter()
        .map(|it| row(it, "fallback"));
    text.push_str(&aligned(
        &real_servers.chain(fallback_servers).collect::<Vec<_>>(),
    ));
    let mut facts = Vec::new();
    let mut fact = |key: &str, value: String| facts.push([key.to_owned(), value]);
    if let [one] = known.as_slice() {
        fact("check", one.clone());
    }
    let health = &service.health;
    if service.all_servers().any(|it| !it.checks.is_empty()) {
        let on_down = match health.on_down {
            OnDown::Remove => "remove",
            OnDown::Quiesce => "quiesce",
        };
        let until_checked = match health.until_checked {
            UntilChecked::Out => "out",
            UntilChecked::In => "in",
        };
        fact(
            "on_down",
            format!("{on_down}; until_checked {until_checked}"),
        );
    }
    if !service.fallback_servers.is_empty() || health.quorum > 1 {
        let quorum = format!("{} with hysteresis {}", health.quorum, health.hysteresis);
        fact("quorum", quorum);
    }
    if health.slow_start_s > 0 {
        fact("slow_start", format!("{} s", health.slow_start_s));
    }
    if !health.depends_on.is_empty() {
        fact("depends_on", health.depends_on.join(", "));
    }
    text.push_str(&aligned(&facts));
    text
}

/// What is asked, how often, and what follows.
fn check_words(check: &Check) -> String {
    let Check {
        probe,
        timing,
        address,
        port,
        through,
        ..
    } = check;
    let mut words = probe.name().to_owned();
    match probe {
        Probe::Http(http) => {
            let _ = write!(words, " {}", http.path);
        }
        Probe::External(external) => {
            let _ = write!(words, " {}", external.command.display());
        }
        _ => {}
    }
    if let Some(address) = address {
        let _ = write!(words, " at {address}");
    }
    if let Some(port) = port {
        let _ = write!(words, " port {port}");
    }
    if *through {
        words.push_str(" through the packet path");
    }
    let _ = write!(
        words,
        " every {}, timeout {}, rise {}, fall {}",
        milliseconds(timing.interval_ms),
        milliseconds(timing.timeout_ms),
        timing.rise,
        timing.fall
    );
    words
}

fn milliseconds(time: u32) -> String {
    format_duration(Duration::from_millis(time.into())).to_string()
}

/// Who is told what, and when.
fn alert_row(alert: &AlertTarget) -> [String; 4] {
    let way = match &alert.way {
        AlertWay::Mail(mail) => {
            let tls = match mail.tls {
                MailTls::None => "in clear",
                MailTls::Starttls => "starttls",
                MailTls::Tls => "tls",
            };
            let to = mail.to.join(", ");
            format!("mail to {to} by {}:{} ({tls})", mail.server, mail.port)
        }
        AlertWay::Program(program) => format!("program {}", program.command.display()),
        // Its path may be a secret.
        AlertWay::Webhook(webhook) => format!("webhook at {}", webhook.authority),
    };
    let on: Vec<&str> = alert.on.iter().map(|it| it.word()).collect();
    let mut times = Vec::new();
    for (key, time) in [("after", alert.after_ms), ("every", alert.every_ms)] {
        if time > 0 {
            times.push(format!("{key} {}", milliseconds(time)));
        }
    }
    if alert.after_failures > 1 {
        times.push(format!("after {} failures", alert.after_failures));
    }
    times.extend(alert.periods.iter().map(ToString::to_string));
    [
        alert.name.clone(),
        way,
        format!("on {}", on.join(", ")),
        times.join(", "),
    ]
}

/// Who is in charge of what, and how soon somebody else is.
fn heartbeat_summary(heartbeat: &heartbeat::config::Config) -> String {
    let links: Vec<&str> = heartbeat.links.iter().map(|it| it.name.as_str()).collect();
    let timing = &heartbeat.timing;
    let auto_failback = match heartbeat.auto_failback {
        AutoFailback::On => "true".to_owned(),
        AutoFailback::Off => "false".to_owned(),
        AutoFailback::After(time) => format_duration(time).to_string(),
    };
    let signed = match &heartbeat.keys {
        Some(keys) => format!("signed with key {}", keys.active.id),
        None => "not signed".to_owned(),
    };
    let mut text = format!(
        "heartbeat         node {} of {}, links {}\n  keepalive {}, deadtime {}, initdead {}, auto_failback {auto_failback}, \
         {signed}\n",
        heartbeat.node,
        heartbeat.nodes.join(", "),
        links.join(", "),
        format_duration(timing.keepalive),
        format_duration(timing.deadtime),
        format_duration(timing.initdead),
    );
    let groups = heartbeat.groups.iter().map(|group| {
        let addresses: Vec<String> = group.addresses.iter().map(ToString::to_string).collect();
        let priorities = group.priorities.iter();
        let priorities = priorities.map(|(node, priority)| format!("{node} {priority}"));
        [
            format!("group {}", group.name),
            format!("{} on {}", addresses.join(" "), group.interface),
            format!("priority {}", priorities.collect::<Vec<_>>().join(", ")),
            group
                .vrid
                .map_or_else(String::new, |it| format!("vrid {it}")),
        ]
    });
    text.push_str(&aligned(&groups.collect::<Vec<_>>()));
    text
}

/// With whom connections are shared, how, and who is believed.
fn sync_summary(sync: &Sync) -> String {
    let Sync {
        node,
        interface,
        port,
        group,
        peers,
        ..
    } = sync;
    let (protocol, trust) = match (&sync.kernel, &sync.keys) {
        (Some(kernel), _) => {
            let syncid = match kernel.syncid {
                0 => "syncid 0 (takes all)".to_owned(),
                syncid => format!("syncid {syncid}"),
            };
            let trust =
                "not signed, this protocol never is: whoever sends there can enter connections";
            (
                format!("the kernel's IPVS protocol, {syncid}"),
                trust.to_owned(),
            )
        }
        (None, None) => {
            let trust = if peers.is_empty() {
                "not signed: whoever sends there can enter connections"
            } else {
                "not signed: whoever sends under these addresses can enter connections"
            };
            ("Director's own protocol".to_owned(), trust.to_owned())
        }
        (None, Some(keys)) => {
            let mut trust = format!("signed with key {}", keys.active.id);
            let accepted: Vec<String> = keys.accept.iter().map(|it| it.id.to_string()).collect();
            if !accepted.is_empty() {
                // Writing to a string cannot fail.
                let _ = write!(trust, ", also accepted: {}", accepted.join(", "));
            }
            ("Director's own protocol".to_owned(), trust)
        }
    };
    let with = if peers.is_empty() {
        format!("all of the group {group}")
    } else {
        let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
        peers.join(", ")
    };
    format!(
        "sync              node {node} tells and hears {with} on {interface}, port {port}\n  {protocol}\n  {trust}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn with_whom_connections_are_shared() {
        let rows = [
            (
                "{interface: eth1, node: lb1}",
                "node lb1 tells and hears all of the group 224.0.0.81 on eth1, port 8849",
                "Director's own protocol",
                "not signed: whoever sends there can enter connections",
            ),
            (
                "{interface: eth1, node: lb1, peers: [10.0.0.2, '2001:db8::2'], port: 9000}",
                "node lb1 tells and hears 10.0.0.2, 2001:db8::2 on eth1, port 9000",
                "Director's own protocol",
                "not signed: whoever sends under these addresses can enter connections",
            ),
            (
                "{interface: eth1, node: lb1, key: {id: 2, file: /k2, accept: [{id: 1, file: /k1}, {id: 9, file: /k9}]}}",
                "node lb1 tells and hears all of the group 224.0.0.81 on eth1, port 8849",
                "Director's own protocol",
                "signed with key 2, also accepted: 1, 9",
            ),
            (
                "{interface: eth1, node: lb1, protocol: ipvs, syncid: 7}",
                "node lb1 tells and hears all of the group 224.0.0.81 on eth1, port 8848",
                "the kernel's IPVS protocol, syncid 7",
                "not signed, this protocol never is: whoever sends there can enter connections",
            ),
            (
                "{interface: eth1, node: lb1, protocol: ipvs, group: 'ff02::81'}",
                "node lb1 tells and hears all of the group ff02::81 on eth1, port 8848",
                "the kernel's IPVS protocol, syncid 0 (takes all)",
                "not signed, this protocol never is: whoever sends there can enter connections",
            ),
        ];
        for (section, with, protocol, trust) in rows {
            let text = format!("interfaces: [eth0]\nsync: {section}\n");
            let config = config::parse("director.yaml", &text).unwrap();
            let expected = format!("sync              {with}\n  {protocol}\n  {trust}\n");
            let shown = summary(&config);
            assert!(shown.contains(&expected), "{section}:\n{shown}");
        }
    }

    /// All that decides who answers and who is told stands there.
    #[test]
    fn the_whole_in_a_few_lines() {
        let text = "
interfaces: [eth0, {name: eth1, mode: generic}]
alerts:
- {name: ops, mail: {to: [ops@example.org], server: mail.example.org}, after: 30s, every: 1h, on: [down, up]}
- {name: chat, webhook: {url: 'https://chat.example.org/secret'}, on: [service], periods: [sat,sun]}
heartbeat:
  node: lb1
  keepalive: 100ms
  deadtime: 300ms
  auto_failback: false
  key: {id: 3, file: /k}
  links: [{udp: {interface: eth0, peers: [192.0.2.2]}}, {vrrp: {interface: eth0}}]
  groups:
  - {name: web, interface: eth0, addresses: [192.0.2.100/24], priority: {lb1: 150, lb2: 100}, vrid: 51}
  - {name: inside, interface: eth1, addresses: [10.0.0.254/24], priority: {lb1: 150, lb2: 100}}
services:
- name: web
  address: 192.0.2.100
  port: 80
  check: {type: http, path: /ping.html, interval: 5s, timeout: 3s}
  on_down: quiesce
  fallback_servers: ['127.0.0.1:80']
  real_servers: ['10.0.0.11:80', {address: 10.0.0.12, port: 8080, weight: 20}]
- name: dns
  address: 192.0.2.100
  port: 53
  protocol: udp
  depends_on: [web]
  real_servers: [{address: 10.0.0.5, check: ping}, 10.0.0.6]
- {name: bare, address: 192.0.2.100, port: 81, real_servers: [10.0.0.5]}
";
        let expected = "\
heartbeat         node lb1 of lb1, lb2, links udp eth0, vrrp eth0
  keepalive 100ms, deadtime 300ms, initdead 600ms, auto_failback false, signed with key 3
  group web     192.0.2.100/24 on eth0  priority lb1 150, lb2 100  vrid 51
  group inside  10.0.0.254/24 on eth1   priority lb1 150, lb2 100
alerts            2
  ops   mail to ops@example.org by mail.example.org:587 (starttls)  on down, up  after 30s, every 1h
  chat  webhook at chat.example.org                                 on service   sat 00:00-24:00, sun 00:00-24:00

web  tcp/192.0.2.100:80  wlc
  10.0.0.11:80    weight 1   nat
  10.0.0.12:8080  weight 20  nat
  127.0.0.1:80    weight 1   local  fallback
  check    http /ping.html every 5s, timeout 3s, rise 2, fall 3
  on_down  quiesce; until_checked out
  quorum   1 with hysteresis 0

dns  udp/192.0.2.100:53  wlc
  10.0.0.5:53  weight 1  nat    check ping every 2s, timeout 2s, rise 2, fall 3
  10.0.0.6:53  weight 1  nat    check none: always up
  on_down     remove; until_checked out
  depends_on  web

bare  tcp/192.0.2.100:81  wlc
  10.0.0.5:81  weight 1  nat
  check  none: always up
";
        let config = config::parse("director.yaml", text).unwrap_or_else(|it| panic!("{it}"));
        let shown = summary(&config);
        let at = shown.find("heartbeat ").unwrap();
        assert_eq!(&shown[at..], expected, "{shown}");
    }
}
