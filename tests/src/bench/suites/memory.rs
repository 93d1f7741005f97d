//! What a configured connection takes, as the kernel accounts for the table.

use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context, Result, bail};
use aya::EbpfLoader;
use aya::maps::Map;
use director::config::ConnectionLimits;
use xdp_ebpf::layout::{limits, maps};

use crate::bench::Options;
use crate::bench::report::{Row, Suite};
use crate::bench::verdict::Goal;
use crate::paths;

/// How many are configured.
const CONNECTIONS: u32 = 1_000_000;

/// Runs it.
///
/// # Errors
/// The kernel refuses a table.
pub fn run(_options: &Options) -> Result<Suite> {
    let wanted = ConnectionLimits {
        ipv4: CONNECTIONS,
        ipv6: CONNECTIONS,
    };
    let mut rows = Vec::new();
    for (name, what, map, buckets, goal) in [
        (
            "ipv4",
            "a configured IPv4 connection",
            maps::CONNECTIONS4,
            wanted.buckets_per_cpu4(1),
            24.0,
        ),
        (
            "ipv6",
            "a configured IPv6 connection",
            maps::CONNECTIONS6,
            wanted.buckets_per_cpu6(1),
            48.0,
        ),
    ] {
        // What the kernel adds to any table, a header and the rest of a page, is nobody's connection.
        let added = memory_of(map, limits::MIN_BUCKETS)?;
        let places = f64::from(buckets - limits::MIN_BUCKETS) / f64::from(buckets);
        let each = (memory_of(map, buckets)? - added) as f64 / (f64::from(CONNECTIONS) * places);
        let each = (each * 100.0).round() / 100.0;
        rows.push(Row::exact(
            name,
            what,
            "bytes",
            each,
            Some(Goal::AtMost(goal)),
        ));
    }
    Ok(Suite {
        name: "memory".to_owned(),
        rows,
        notes: vec![
            "Of connection tables for a million, as the kernel accounts for them (memlock)."
                .to_owned(),
        ],
        ..Suite::default()
    })
}

/// Bytes that a table of so many buckets takes. Only the tables are made, no program is loaded.
fn memory_of(name: &str, buckets: u32) -> Result<u64> {
    let object = EbpfLoader::new()
        .map_max_entries(name, buckets)
        .load_file(paths::bpf_object("director-xdp.o")?)?;
    let Some(Map::Array(table)) = object.map(name) else {
        bail!("the object has no array {name}");
    };
    let fd = table.fd().as_fd().as_raw_fd();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
    info.lines()
        .find_map(|line| line.strip_prefix("memlock:"))
        .with_context(|| format!("the kernel does not say what {name} takes: {info}"))?
        .trim()
        .parse()
        .context("a number of bytes")
}
