//! `director check`.

mod summary;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use self::summary::summary;
use super::absent::absent;
use super::output::{show, show_json};
use crate::config::{self, Config};
use crate::datapath::{online_cpus, possible_cpus};
use crate::footprint::Footprint;
use crate::unfenced::unfenced;
use crate::unfilled::unfilled;
use crate::ungrouped::ungrouped;
use crate::unsigned::unsigned;

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
    // Decided by whoever wrote the file, and said to him: nothing that log and status should go on about.
    warnings.extend(unsigned(config));
    warnings.extend(unfilled(config));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConnectionLimits;

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
