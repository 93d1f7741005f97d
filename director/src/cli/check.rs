//! `director check`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::absent::absent;
use super::output::{show, show_json};
use crate::config::{self, Config};
use crate::datapath::{online_cpus, possible_cpus};
use crate::footprint::Footprint;
use crate::scheduler::slots_of;
use crate::unfenced::unfenced;
use crate::ungrouped::ungrouped;

/// Loads a configuration and says what it means.
pub(super) fn check(file: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let config = config::load(file)?;
    let memory = Footprint::of(&config.connections, online_cpus(), possible_cpus());
    if json {
        let config = &config;
        let (absent, warnings) = (absent(config), warnings(config));
        show_json(&Checked {
            config,
            memory,
            absent,
            warnings,
        })?;
    } else {
        let name = file.display();
        show(&format!(
            "{name}: right\n\n{}{}",
            summary(&config),
            table(&memory)
        ))?;
        show(&not_here(&absent(&config)))?;
        show(&warned(&warnings(&config)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What scripts read: the configuration with every default applied, and what its tables take.
#[derive(Serialize)]
struct Checked<'a> {
    #[serde(flatten)]
    config: &'a Config,
    memory: Footprint,
    /// What it names and this machine does not have.
    absent: BTreeSet<String>,
    /// What is right and may not be meant so.
    warnings: Vec<String>,
}

/// What this machine does not have, if that is anything.
fn not_here(absent: &BTreeSet<String>) -> String {
    let mut text = String::new();
    if !absent.is_empty() {
        text.push_str("\nnot on this machine, or not to be read by this user:\n");
    }
    for what in absent {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {what}");
    }
    text
}

/// What is right and may not be meant so.
fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = unfenced(config);
    warnings.extend(ungrouped(config));
    warnings
}

fn warned(warnings: &[String]) -> String {
    let lines = warnings.iter().map(|it| format!("\nwarning: {it}\n"));
    lines.collect()
}

/// The memory of the tables, aligned.
fn table(memory: &Footprint) -> String {
    let mut rows = vec![
        [
            "memory at start",
            "capacity",
            "buckets",
            "MiB",
            "bytes each",
        ]
        .map(String::from),
    ];
    let mebibytes = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    for table in &memory.tables {
        let buckets = table.buckets_per_cpu.zip(table.cpus);
        rows.push([
            table.table.to_owned(),
            table.capacity.map(|it| it.to_string()).unwrap_or_default(),
            buckets
                .map(|(buckets, cpus)| format!("{buckets} x {cpus} CPUs"))
                .unwrap_or_default(),
            mebibytes(table.bytes),
            table
                .bytes_each()
                .map(|it| format!("{it:.1}"))
                .unwrap_or_default(),
        ]);
    }
    let total = mebibytes(memory.total_bytes);
    rows.push(["total", "", "", &total, ""].map(String::from));
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::from("\n");
    for [table, cells @ ..] in &rows {
        let mut line = format!("{table:<0$}", widths[0]);
        for (cell, width) in cells.iter().zip(&widths[1..]) {
            // Writing to a string cannot fail.
            let _ = write!(line, "  {cell:>width$}");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn summary(config: &Config) -> String {
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
        let links: Vec<&str> = heartbeat.links.iter().map(|it| it.name.as_str()).collect();
        let _ = writeln!(
            text,
            "heartbeat         node {} of {}, links {}",
            heartbeat.node,
            heartbeat.nodes.join(", "),
            links.join(", ")
        );
        for group in &heartbeat.groups {
            let addresses: Vec<String> = group.addresses.iter().map(ToString::to_string).collect();
            let _ = writeln!(
                text,
                "  group {}  {} on {}",
                group.name,
                addresses.join(" "),
                group.interface
            );
        }
    }
    if let Some(sync) = &config.sync {
        text.push_str(&sync_summary(sync));
    }
    for service in &config.services {
        let endpoints: Vec<String> = service.endpoints.iter().map(ToString::to_string).collect();
        let _ = writeln!(
            text,
            "\n{}  {}  {}",
            service.name,
            endpoints.join(" "),
            service.scheduler
        );
        let width = service
            .real_servers
            .iter()
            .map(|it| it.shown().len())
            .max()
            .unwrap_or(0);
        for server in &service.real_servers {
            let address = server.shown();
            let _ = writeln!(
                text,
                "  {address:<width$}  weight {:<4}  {}",
                server.weight, server.method
            );
        }
    }
    text
}

/// With whom connections are shared, how, and who is believed.
fn sync_summary(sync: &config::Sync) -> String {
    let config::Sync {
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
    use crate::config::ConnectionLimits;

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

    #[test]
    fn the_table_is_aligned() {
        let connections = ConnectionLimits {
            ipv4: 1_000_000,
            ipv6: 500_000,
        };
        let text = table(&Footprint::of(&connections, 2, 2));
        let expected = "
memory at start                    capacity          buckets    MiB  bytes each
IPv4 connections                    1000000  187500 x 2 CPUs   22.9        24.0
IPv6 connections, ranges of ports    500000   93750 x 2 CPUs   22.9        48.0
";
        assert_eq!(text.get(..expected.len()), Some(expected), "{text}");
        let end = text.lines().last().unwrap();
        assert!(end.starts_with("total  "), "{end}");
    }

    /// What README shows is what it says.
    #[test]
    fn the_table_in_the_readme_is_true() {
        let config = config::parse("director.yaml", "interfaces: [eth0]").unwrap();
        let text = table(&Footprint::of(&config.connections, 2, 2));
        let readme = include_str!("../../../README.md");
        assert!(readme.contains(text.trim()), "README should show:\n{text}");
    }

    /// Scripts that read the configuration find it where it was.
    #[test]
    fn json_has_the_configuration_and_the_memory() {
        let config = config::parse("director.yaml", "interfaces: [eth0]").unwrap();
        let memory = Footprint::of(&config.connections, 4, 4);
        let checked = serde_json::to_value(Checked {
            config: &config,
            memory,
            absent: BTreeSet::new(),
            warnings: Vec::new(),
        });
        let checked = checked.unwrap();
        assert_eq!(checked["interfaces"][0]["name"], "eth0");
        let four = &checked["memory"]["tables"][0];
        assert_eq!(four["capacity"], 1_000_000);
        assert_eq!(four["buckets_per_cpu"], 93_750);
        assert_eq!(four["cpus"], 4);
        assert_eq!(four["bytes"], 24_000_000);
    }
}
