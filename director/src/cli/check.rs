//! `director check`.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::config::{self, Config};
use crate::datapath::online_cpus;
use crate::scheduler::table_length;

/// Loads a configuration and says what it means.
pub(super) fn check(file: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let config = config::load(file)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&config)?);
    } else {
        print!(
            "{}: right\n\n{}",
            file.display(),
            summary(&config, online_cpus())
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(config: &Config, cpus: u32) -> String {
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
        .map(|service| {
            let weights: Vec<u32> = service
                .real_servers
                .iter()
                .map(|server| server.weight)
                .collect();
            table_length(&service.scheduler, &weights)
        })
        .sum();
    let memory = config.connections.memory_bytes(cpus);
    let rows = [
        ("instance", config.instance.clone()),
        ("interfaces", interfaces.join(", ")),
        ("services", config.services.len().to_string()),
        ("real servers", real_servers.to_string()),
        ("scheduling slots", slots.to_string()),
        (
            "connections",
            format!(
                "{} IPv4, {} IPv6",
                config.connections.ipv4, config.connections.ipv6
            ),
        ),
        (
            "their memory",
            format!(
                "{:.1} MiB on {cpus} CPUs",
                memory as f64 / f64::from(1 << 20)
            ),
        ),
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
