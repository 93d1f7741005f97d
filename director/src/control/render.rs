//! A status as tables for people.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::checks::CheckStatus;
use super::status::{
    Health, HeartbeatStatus, RateStatus, RealServerStatus, ServiceStatus, Status, TableStatus,
};

/// Lays a status out for a terminal.
#[must_use]
pub fn render(status: &Status, now: SystemTime) -> String {
    let mut text = String::new();
    let now_s = now
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs();
    let loaded = span(now_s.saturating_sub(status.config.loaded_at_s));
    let adopted = if status.adopted {
        ", took over a running data path"
    } else {
        ""
    };
    line(
        &mut text,
        format_args!(
            "director {}, instance {}, process {}, up {}{adopted}",
            status.version,
            status.instance,
            status.pid,
            span(status.uptime_s)
        ),
    );
    line(
        &mut text,
        format_args!(
            "configuration {}, loaded {loaded} ago in {} ms",
            status.config.file, status.config.took_ms
        ),
    );
    if status.verdicts.written > 0 {
        let milliseconds = |time_us: u64| time_us as f64 / 1000.0;
        line(
            &mut text,
            format_args!(
                "verdicts of health checks written {} times, after {:.1} ms by the median, {:.1} ms at most",
                status.verdicts.written,
                milliseconds(status.verdicts.median_us),
                milliseconds(status.verdicts.worst_us)
            ),
        );
    }
    if let Some(error) = &status.config.reload_error {
        line(
            &mut text,
            format_args!(
                "\nThe last reload was refused, the configuration before it is in force:\n{error}"
            ),
        );
    }
    for warning in &status.warnings {
        line(&mut text, format_args!("warning: {warning}"));
    }

    if let Some(heartbeat) = &status.heartbeat {
        line(&mut text, format_args!("{}", in_charge(heartbeat)));
    }

    let mut interfaces = Table::new(&["interface", "XDP", "link"], &[]);
    for interface in &status.interfaces {
        let link = if interface.up { "up" } else { "down" };
        interfaces.row([
            interface.name.clone(),
            interface.mode.clone().unwrap_or("-".into()),
            link.into(),
        ]);
    }
    let _ = write!(text, "\n{interfaces}");

    let mut tables = Table::new(&["connections", "entries", "places", "full"], &[1, 2, 3]);
    for (name, table) in [
        ("IPv4", &status.connections.ipv4),
        ("IPv6", &status.connections.ipv6),
    ] {
        tables.row([
            name.into(),
            table.entries.to_string(),
            table.places.to_string(),
            percent(table),
        ]);
    }
    let _ = write!(text, "\n{tables}");

    for service in &status.services {
        line(
            &mut text,
            format_args!(
                "\n{}  {}  {}{}{}",
                service.name,
                service.endpoints.join(" "),
                service.scheduler,
                tracking(service),
                state(service),
            ),
        );
        let header = [
            "  real server",
            "method",
            "weight",
            "next hop",
            "active",
            "inactive",
            "connections",
            "in packets",
            "in bytes",
            "out packets",
            "out bytes",
            "health",
        ];
        let mut servers = Table::new(&header, &[2, 4, 5, 6, 7, 8, 9, 10]);
        for server in &service.real_servers {
            servers.row(real_server(server));
        }
        if service.real_servers.is_empty() {
            line(&mut text, format_args!("  no real servers"));
        } else {
            let _ = write!(text, "{servers}");
        }
    }

    let mut reasons = Table::new(&["not forwarded, because", "packets"], &[1]);
    let counted: Vec<_> = status
        .reasons
        .iter()
        .filter(|reason| reason.packets > 0)
        .collect();
    counted
        .iter()
        .for_each(|reason| reasons.row([reason.name.clone(), reason.packets.to_string()]));
    if !counted.is_empty() {
        let _ = write!(text, "\n{reasons}");
    }
    text
}

/// What is tracked where not all connections are.
fn tracking(service: &ServiceStatus) -> String {
    match service.changing_slots {
        None => String::new(),
        Some(0) => "  tracks on change, nothing changes".to_owned(),
        Some(slots) => format!("  tracks on change, in {slots} slots"),
    }
}

/// Services in a line each: what they have and what comes in each second.
#[must_use]
pub fn render_services(status: &Status) -> String {
    let header = [
        "service",
        "scheduler",
        "servers",
        "active",
        "inactive",
        "conns/s",
        "in pkts/s",
        "in bytes/s",
        "out pkts/s",
        "out bytes/s",
        "connections",
        "endpoints",
    ];
    let mut table = Table::new(&header, &[2, 3, 4, 5, 6, 7, 8, 9, 10]);
    for service in &status.services {
        let servers = &service.real_servers;
        let mut rates = RateStatus::default();
        servers.iter().for_each(|server| rates += server.rates);
        let sum = |of: fn(&RealServerStatus) -> u64| servers.iter().map(of).sum::<u64>();
        let taking = servers.iter().filter(|it| it.weight > 0 && !it.overloaded);
        table.row([
            service.name.clone(),
            service.scheduler.clone(),
            format!(
                "{}/{}",
                taking.count(),
                servers.iter().filter(|it| !it.removed).count()
            ),
            sum(|it| it.active).to_string(),
            sum(|it| it.inactive).to_string(),
            rates.connections.to_string(),
            rates.in_packets.to_string(),
            rates.in_bytes.to_string(),
            rates.out_packets.to_string(),
            rates.out_bytes.to_string(),
            sum(|it| it.connections).to_string(),
            service.endpoints.join(" "),
        ]);
    }
    table.to_string()
}

/// What an operator must know of a service first.
fn state(service: &ServiceStatus) -> &'static str {
    match (service.up, service.on_fallback, service.cut_off) {
        (_, _, true) => "  DOWN: a service that it depends on is",
        (false, ..) => "  DOWN: nobody answers",
        (true, true, _) => "  ON FALLBACK",
        (true, false, _) => "",
    }
}

fn health(server: &RealServerStatus) -> String {
    let health = &server.health;
    let Some(state) = &health.state else {
        return "-".to_owned();
    };
    let since = health.for_s.map(|for_s| format!(" for {}", span(for_s)));
    let why = match state.as_str() {
        "down" if !health.words.is_empty() => format!(": {}", health.words),
        _ => String::new(),
    };
    format!("{state}{}{why}", since.unwrap_or_default())
}

/// Health checks in a line each.
#[must_use]
pub fn render_checks(checks: &[CheckStatus], history: bool) -> String {
    let header = [
        "real server",
        "check",
        "state",
        "for",
        "took",
        "runs",
        "failed",
        "next in",
        "services",
        "last result",
    ];
    let mut table = Table::new(&header, &[3, 4, 5, 6, 7]);
    for check in checks {
        let server = if check.port == 0 {
            check.server.to_string()
        } else {
            SocketAddr::new(check.server, check.port).to_string()
        };
        let last = check.history.first();
        let milliseconds = |time: u64| format!("{time} ms");
        table.row([
            server,
            match check.through {
                Some(address) => format!("{} through {address}", check.check),
                None => check.check.clone(),
            },
            check.state.clone(),
            check.for_s.map_or_else(|| "-".to_owned(), span),
            last.map_or_else(|| "-".to_owned(), |run| milliseconds(run.took_ms)),
            check.runs.to_string(),
            check.failures.to_string(),
            check
                .next_in_ms
                .map_or_else(|| "running".to_owned(), milliseconds),
            check.services.join(" "),
            last.map_or_else(String::new, |run| run.words.clone()),
        ]);
        if history {
            for run in &check.history {
                let result = if run.good { "good" } else { "failed" };
                table.row([
                    String::new(),
                    String::new(),
                    result.to_owned(),
                    format!("{} ago", span(run.ago_ms / 1000)),
                    milliseconds(run.took_ms),
                    String::new(),
                    String::new(),
                    String::new(),
                    String::new(),
                    run.words.clone(),
                ]);
            }
        }
    }
    table.to_string()
}

fn real_server(server: &RealServerStatus) -> [String; 12] {
    let next_hop = match &server.next_hop {
        Health::Ready => "ready".to_owned(),
        Health::Unresolved => "unresolved".to_owned(),
        Health::Kernel(why) => why.clone(),
    };
    [
        format!("  {}", SocketAddr::new(server.address, server.port)),
        server.method.clone(),
        match (&server.said, server.removed) {
            (_, true) => "removed".to_owned(),
            (Some(said), false) => format!("{} ({said})", server.weight),
            (None, false) if server.overloaded => format!("{} (overloaded)", server.weight),
            (None, false) => match (server.health.percent, server.fallback) {
                (Some(percent), _) => format!("{} ({percent} %)", server.weight),
                (None, true) => format!("{} (fallback)", server.weight),
                (None, false) => server.weight.to_string(),
            },
        },
        next_hop,
        server.active.to_string(),
        server.inactive.to_string(),
        server.connections.to_string(),
        server.in_packets.to_string(),
        server.in_bytes.to_string(),
        server.out_packets.to_string(),
        server.out_bytes.to_string(),
        health(server),
    ]
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{arguments}");
}

/// Who is in charge, in a line.
fn in_charge(heartbeat: &HeartbeatStatus) -> String {
    if let Some(fault) = &heartbeat.fault {
        return format!("warning: {fault}");
    }
    let roles: Vec<String> = heartbeat
        .groups
        .iter()
        .map(|group| format!("{} of {}", group.role, group.name))
        .collect();
    let silent = if heartbeat.is_fenced {
        "; silent for its groups' addresses"
    } else {
        ""
    };
    format!(
        "heartbeat {}: {}{silent} (director heartbeat tells more)",
        heartbeat.node,
        roles.join(", ")
    )
}

fn percent(table: &TableStatus) -> String {
    if table.places == 0 {
        return "-".to_owned();
    }
    format!(
        "{:.1} %",
        table.entries as f64 * 100.0 / table.places as f64
    )
}

/// Seconds as the two largest units.
fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Rows of cells, aligned.
struct Table {
    rows: Vec<Vec<String>>,
    /// Columns of numbers.
    right: Vec<usize>,
}

impl Table {
    fn new(header: &[&str], right: &[usize]) -> Self {
        Self {
            rows: vec![header.iter().map(|cell| (*cell).to_owned()).collect()],
            right: right.to_vec(),
        }
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
            })
            .map(Option::unwrap_or_default)
            .collect();
        for row in &self.rows {
            let mut text = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                if self.right.contains(&column) {
                    let _ = write!(text, "{gap}{cell:>width$}");
                } else {
                    let _ = write!(text, "{gap}{cell:<width$}");
                }
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{
        ConfigStatus, ConnectionsStatus, GroupStatus, InterfaceStatus, ReasonStatus, ServerHealth,
        VerdictsStatus,
    };

    #[test]
    fn a_status_for_people() {
        let server = |address: &str, removed: bool| RealServerStatus {
            address: address.parse().unwrap(),
            port: 8080,
            weight: u32::from(!removed),
            method: "nat".into(),
            said: None,
            rates: RateStatus {
                connections: 5,
                in_packets: 50,
                ..RateStatus::default()
            },
            overloaded: false,
            fallback: false,
            health: if removed {
                ServerHealth::default()
            } else {
                ServerHealth {
                    state: Some("down".into()),
                    for_s: Some(75),
                    words: "connecting: refused".into(),
                    percent: None,
                }
            },
            removed,
            next_hop: if removed {
                Health::Unresolved
            } else {
                Health::Ready
            },
            active: 3,
            inactive: 14,
            connections: 100,
            in_packets: 1000,
            in_bytes: 64_000,
            out_packets: 900,
            out_bytes: 1_000_000,
        };
        let status = Status {
            version: "0.1.0".into(),
            instance: "main".into(),
            pid: 7,
            uptime_s: 3700,
            adopted: true,
            config: ConfigStatus {
                file: "/etc/director/director.yaml".into(),
                loaded_at_s: 1000,
                took_ms: 214,
                in_loop_ms: 30,
                reload_error: None,
            },
            verdicts: VerdictsStatus {
                written: 3,
                last_us: 400,
                median_us: 350,
                worst_us: 2345,
            },
            interfaces: vec![InterfaceStatus {
                name: "eth0".into(),
                mode: Some("native".into()),
                up: true,
            }],
            heartbeat: Some(HeartbeatStatus {
                node: "lb1".into(),
                groups: ["mail", "web"]
                    .map(|name| GroupStatus {
                        name: name.into(),
                        role: "backup".into(),
                    })
                    .into(),
                is_fenced: true,
                fault: None,
            }),
            connections: ConnectionsStatus {
                ipv4: TableStatus {
                    entries: 17,
                    places: 1000,
                },
                ipv6: TableStatus::default(),
                cpus: 2,
            },
            services: vec![ServiceStatus {
                name: "web".into(),
                address: "2001:db8::1".parse().unwrap(),
                port: 80,
                protocol: "tcp".into(),
                endpoints: vec!["tcp/[2001:db8::1]:80".into()],
                scheduler: "wrr".into(),
                changing_slots: None,
                up: true,
                on_fallback: true,
                cut_off: false,
                real_servers: vec![server("10.0.0.1", false), server("10.0.0.200", true)],
            }],
            reasons: vec![
                ReasonStatus {
                    name: "malformed".into(),
                    packets: 0,
                },
                ReasonStatus {
                    name: "no_real_server".into(),
                    packets: 5,
                },
            ],
            warnings: vec![],
        };
        let expected = "\
director 0.1.0, instance main, process 7, up 1 h 1 min, took over a running data path
configuration /etc/director/director.yaml, loaded 1 min 1 s ago in 214 ms
verdicts of health checks written 3 times, after 0.3 ms by the median, 2.3 ms at most
heartbeat lb1: backup of mail, backup of web; silent for its groups' addresses (director heartbeat tells more)

interface  XDP     link
eth0       native  up

connections  entries  places   full
IPv4              17    1000  1.7 %
IPv6               0       0      -

web  tcp/[2001:db8::1]:80  wrr  ON FALLBACK
  real server      method   weight  next hop    active  inactive  connections  in packets  in bytes  out packets  out bytes  health
  10.0.0.1:8080    nat           1  ready            3        14          100        1000     64000          900    1000000  down for 1 min 15 s: connecting: refused
  10.0.0.200:8080  nat     removed  unresolved       3        14          100        1000     64000          900    1000000  -

not forwarded, because  packets
no_real_server                5
";
        let now = UNIX_EPOCH + Duration::from_secs(1061);
        assert_eq!(render(&status, now), expected);

        let mut changed = status.clone();
        changed.services[0].real_servers[0].said = Some("draining".to_owned());
        changed.services[0].real_servers[0].weight = 0;
        assert!(render(&changed, now).contains("0 (draining)"));
        for (slots, shown) in [
            (0, "nothing changes  ON FALLBACK"),
            (7, "in 7 slots  ON FALLBACK"),
        ] {
            changed.services[0].changing_slots = Some(slots);
            let shown = format!("wrr  tracks on change, {shown}");
            assert!(render(&changed, now).contains(&shown), "{shown}");
        }
        let services = render_services(&status);
        let mut lines = services.lines();
        assert!(
            lines
                .next()
                .unwrap()
                .starts_with("service  scheduler  servers")
        );
        let cells: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
        let expected = [
            "web",
            "wrr",
            "1/1",
            "6",
            "28",
            "10",
            "100",
            "0",
            "0",
            "0",
            "200",
            "tcp/[2001:db8::1]:80",
        ];
        assert_eq!(cells, expected);
    }
}
