//! What the tables take in memory, stated before it is taken.
//!
//! All of them are allocated when the packet path is loaded, but for the tries, which grow to what is stated. What a table
//! holds is counted by the types and limits of [`xdp_ebpf::layout`]; what the kernel adds to each element of a hash map is
//! here.

use serde::Serialize;
use xdp_ebpf::connection::{Bucket4, Bucket6};
use xdp_ebpf::filter;
use xdp_ebpf::layout::{
    Counters, Destination, Endpoint, Endpoint4, Endpoint6, Fragment, FragmentKey4, FragmentKey6,
    Lease, Load, Locality, LocalityKey, Neighbour4, Neighbour6, NextHop, REASONS, RangeKey4,
    RangeKey6, Route, STAGES, Scratch, Served, Service, Settings, SharedBy, Template, TemplateKey,
    TokenBucket, Work, limits, maps, own_mac,
};
use xdp_ebpf::lines::{
    SERVER_LINES, SERVICE_LINES, ServerLine4, ServerLine6, ServiceLine4, ServiceLine6,
};

use crate::config::ConnectionLimits;

/// What the kernel puts in front of an element of a hash map (`struct htab_elem` in `kernel/bpf/hashtab.c`).
const HASH_ELEMENT: u64 = 48;
/// The head of a chain of a hash map, of which there are as many as elements, rounded up to a power of two
/// (`struct bucket`, same file).
const HASH_CHAIN: u64 = 16;
/// What the kernel puts in front of a node of a trie (`struct lpm_trie_node` in `kernel/bpf/lpm_trie.c`).
const TRIE_NODE: u64 = 40;
/// A pointer.
const POINTER: u64 = 8;

/// What a map is, as far as its size depends on it.
#[derive(Clone, Copy)]
enum Kind {
    /// One after the other.
    Array,
    /// As an array, once for each CPU that the kernel may ever switch on.
    PerCpu,
    /// A hash map, whose elements are all allocated at once; least recently used or not.
    Hash,
    /// Longest prefixes: two nodes at most for each entry.
    Trie,
}

/// What a map is made of.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    kind: Kind,
    key: usize,
    value: usize,
    entries: u64,
}

/// The memory of one table, or of several that serve the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableMemory {
    /// What is in it.
    pub table: &'static str,
    /// Names of its maps.
    pub maps: Vec<&'static str>,
    /// How many of them it is made for; none for a mixture.
    pub capacity: Option<u64>,
    /// Connection tables: buckets of each CPU.
    pub buckets_per_cpu: Option<u32>,
    /// Connection tables: CPUs that have one.
    pub cpus: Option<u32>,
    /// Bytes, on all CPUs together.
    pub bytes: u64,
}

/// The memory of all tables.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Footprint {
    /// Table by table; each map stands in one of them.
    pub tables: Vec<TableMemory>,
    /// All of them together.
    pub total_bytes: u64,
}

impl TableMemory {
    /// Bytes for each of what it is made for.
    #[must_use]
    pub fn bytes_each(&self) -> Option<f64> {
        let capacity = self.capacity.filter(|capacity| *capacity != 0)?;
        // Both are far below 2^52.
        Some(self.bytes as f64 / capacity as f64)
    }
}

impl Footprint {
    /// Of connection tables for so many connections on `cpus` CPUs, where the kernel may switch on `possible_cpus`.
    #[must_use]
    pub fn of(connections: &ConnectionLimits, cpus: u32, possible_cpus: u32) -> Self {
        let cpus = cpus.max(1);
        let buckets4 = connections.buckets_per_cpu4(cpus);
        let buckets6 = connections.buckets_per_cpu6(cpus);
        let shapes = shapes(
            u64::from(buckets4) * u64::from(cpus),
            u64::from(buckets6) * u64::from(cpus),
        );
        let bytes = |names: &[&str]| -> u64 {
            let named = shapes.iter().filter(|shape| names.contains(&shape.name));
            named.map(|shape| shape.bytes(possible_cpus)).sum()
        };
        let connection_table = |table, map, capacity, buckets| TableMemory {
            table,
            maps: vec![map],
            capacity: Some(u64::from(capacity)),
            buckets_per_cpu: Some(buckets),
            cpus: Some(cpus),
            bytes: bytes(&[map]),
        };
        let mut tables = vec![
            connection_table(
                "IPv4 connections",
                maps::CONNECTIONS4,
                connections.ipv4,
                buckets4,
            ),
            connection_table(
                "IPv6 connections, ranges of ports",
                maps::CONNECTIONS6,
                connections.ipv6,
                buckets6,
            ),
        ];
        let fixed: [(_, &[&'static str], u32); 6] = [
            (
                "persistence templates",
                &[maps::TEMPLATES],
                limits::TEMPLATES,
            ),
            ("localities", &[maps::LOCALITIES], limits::LOCALITIES),
            (
                "fragments",
                &[maps::FRAGMENTS4, maps::FRAGMENTS6],
                2 * limits::FRAGMENTS,
            ),
            ("loads", &[maps::LOADS], limits::DESTINATIONS),
            ("counters", &[maps::COUNTERS], limits::DESTINATIONS),
            ("scheduling slots", &[maps::SLOTS], limits::SLOTS),
        ];
        tables.extend(
            fixed
                .into_iter()
                .map(|(table, maps, capacity)| TableMemory {
                    table,
                    maps: maps.to_vec(),
                    capacity: Some(u64::from(capacity)),
                    buckets_per_cpu: None,
                    cpus: None,
                    bytes: bytes(maps),
                }),
        );
        let told: Vec<_> = tables.iter().flat_map(|it| it.maps.clone()).collect();
        let others = shapes.iter().map(|shape| shape.name);
        let others: Vec<_> = others.filter(|name| !told.contains(name)).collect();
        tables.push(TableMemory {
            table: "other tables",
            capacity: None,
            buckets_per_cpu: None,
            cpus: None,
            bytes: bytes(&others),
            maps: others,
        });
        let total_bytes = tables.iter().map(|table| table.bytes).sum();
        Self {
            tables,
            total_bytes,
        }
    }
}

impl Shape {
    const fn new<K, V>(name: &'static str, kind: Kind, entries: u64) -> Self {
        Self {
            name,
            kind,
            key: size_of::<K>(),
            value: size_of::<V>(),
            entries,
        }
    }

    /// `map_mem_usage` of the map's kind, but for its head of a few hundred bytes.
    fn bytes(self, possible_cpus: u32) -> u64 {
        let padded = |bytes: usize| bytes.next_multiple_of(8) as u64;
        let (key, value) = (padded(self.key), padded(self.value));
        match self.kind {
            Kind::Array => self.entries * value,
            Kind::PerCpu => self.entries * (POINTER + value * u64::from(possible_cpus)),
            Kind::Hash => {
                let chains = self.entries.next_power_of_two();
                self.entries * (HASH_ELEMENT + key + value) + chains * HASH_CHAIN
            }
            Kind::Trie => {
                let node = TRIE_NODE + (self.key + self.value) as u64;
                2 * self.entries * node
            }
        }
    }
}

/// Every map of the packet path.
fn shapes(buckets4: u64, buckets6: u64) -> [Shape; maps::ALL.len()] {
    use Kind::{Array, Hash, PerCpu, Trie};
    let of = u64::from;
    [
        Shape::new::<u32, Settings>(maps::SETTINGS, Array, 1),
        Shape::new::<Endpoint4, Served>(maps::SERVICES4, Hash, of(limits::ENDPOINTS)),
        Shape::new::<Endpoint6, Served>(maps::SERVICES6, Hash, of(limits::ENDPOINTS)),
        Shape::new::<u32, ServiceLine4>(maps::SERVICE_LINES4, Array, of(SERVICE_LINES)),
        Shape::new::<u32, ServiceLine6>(maps::SERVICE_LINES6, Array, of(SERVICE_LINES)),
        Shape::new::<RangeKey4, Served>(maps::RANGES4, Trie, of(limits::RANGES)),
        Shape::new::<RangeKey6, Served>(maps::RANGES6, Trie, of(limits::RANGES)),
        Shape::new::<u32, Endpoint>(maps::ENDPOINTS, Array, of(limits::ENDPOINTS)),
        Shape::new::<u32, Service>(maps::SERVICES, Array, of(limits::SERVICES)),
        Shape::new::<u32, u64>(maps::CURSORS, Array, of(limits::SERVICES)),
        Shape::new::<u32, u32>(maps::SLOTS, Array, of(limits::SLOTS)),
        Shape::new::<u32, Destination>(maps::DESTINATIONS, Array, of(limits::DESTINATIONS)),
        Shape::new::<u32, Load>(maps::LOADS, Array, of(limits::DESTINATIONS)),
        Shape::new::<TemplateKey, Template>(maps::TEMPLATES, Hash, of(limits::TEMPLATES)),
        Shape::new::<LocalityKey, Locality>(maps::LOCALITIES, Hash, of(limits::LOCALITIES)),
        Shape::new::<u32, Counters>(maps::COUNTERS, PerCpu, of(limits::DESTINATIONS)),
        Shape::new::<u32, u64>(maps::REASONS, PerCpu, of(REASONS)),
        Shape::new::<Endpoint4, SharedBy>(maps::REAL_SERVERS4, Hash, of(limits::DESTINATIONS)),
        Shape::new::<Endpoint6, SharedBy>(maps::REAL_SERVERS6, Hash, of(limits::DESTINATIONS)),
        Shape::new::<u32, ServerLine4>(maps::SERVER_LINES4, Array, of(SERVER_LINES + limits::CPUS)),
        Shape::new::<u32, ServerLine6>(maps::SERVER_LINES6, Array, of(SERVER_LINES + limits::CPUS)),
        Shape::new::<[u8; 4], u32>(maps::ADDRESSES4, Hash, of(limits::ADDRESSES)),
        Shape::new::<[u8; 16], u32>(maps::ADDRESSES6, Hash, of(limits::ADDRESSES)),
        Shape::new::<u32, u64>(maps::ADDRESS_FILTER, Array, of(filter::WORDS)),
        Shape::new::<[u8; 4], Route>(maps::ROUTES4, Trie, of(limits::ROUTES)),
        Shape::new::<[u8; 16], Route>(maps::ROUTES6, Trie, of(limits::ROUTES)),
        Shape::new::<u32, NextHop>(maps::NEXT_HOPS, Array, of(limits::NEXT_HOPS)),
        Shape::new::<Neighbour4, NextHop>(maps::NEIGHBOURS4, Hash, of(limits::NEIGHBOURS)),
        Shape::new::<Neighbour6, NextHop>(maps::NEIGHBOURS6, Hash, of(limits::NEIGHBOURS)),
        // A pointer to the interface.
        Shape::new::<u32, u64>(maps::INTERFACES, Array, of(limits::INTERFACES)),
        Shape::new::<u32, u32>(maps::EGRESS, Hash, of(limits::INTERFACES)),
        Shape::new::<u32, u64>(maps::OWN_MACS, Array, of(own_mac::ENTRIES)),
        Shape::new::<u32, Bucket4>(maps::CONNECTIONS4, Array, buckets4),
        Shape::new::<u32, Bucket6>(maps::CONNECTIONS6, Array, buckets6),
        Shape::new::<FragmentKey4, Fragment>(maps::FRAGMENTS4, Hash, of(limits::FRAGMENTS)),
        Shape::new::<FragmentKey6, Fragment>(maps::FRAGMENTS6, Hash, of(limits::FRAGMENTS)),
        // Bytes in a ring.
        Shape::new::<(), u64>(maps::HELD, Array, of(limits::HELD_BYTES) / 8),
        Shape::new::<u32, TokenBucket>(maps::LIMITER, PerCpu, 1),
        Shape::new::<u32, Lease>(maps::LEASE, Array, 1),
        Shape::new::<u32, Scratch>(maps::SCRATCH, PerCpu, 1),
        Shape::new::<u32, Work>(maps::WORK, PerCpu, 1),
        // A pointer to the program.
        Shape::new::<u32, u64>(maps::STAGES, Array, of(STAGES)),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// (connections of each family, CPUs)
    const SIZES: [(u32, u32); 8] = [
        (1_000_000, 1),
        (1_000_000, 2),
        (1_000_000, 3),
        (1_000_000, 128),
        (100_000_000, 1),
        (100_000_000, 128),
        (1_000_003, 7),
        (65_536, 8),
    ];

    fn footprint(connections: u32, cpus: u32) -> Footprint {
        let connections = ConnectionLimits {
            ipv4: connections,
            ipv6: connections,
        };
        Footprint::of(&connections, cpus, cpus)
    }

    #[test]
    fn a_connection_takes_no_more_than_is_promised() {
        for (connections, cpus) in SIZES {
            let footprint = footprint(connections, cpus);
            for (table, most) in footprint.tables.iter().zip([24, 48]) {
                let what = format!("{connections} on {cpus} CPUs: {table:?}");
                let most = most * u64::from(connections);
                assert!(table.bytes <= most, "{what}");
                // A CPU may lack part of a bucket.
                assert!(table.bytes + 128 * u64::from(cpus) > most, "{what}");
                let buckets =
                    u64::from(table.buckets_per_cpu.unwrap()) * u64::from(table.cpus.unwrap());
                let bucket = table.bytes / buckets;
                assert!([64, 128].contains(&bucket), "{what}");
            }
        }
    }

    #[test]
    fn every_map_is_counted_once() {
        for (connections, cpus) in SIZES {
            let footprint = footprint(connections, cpus);
            let told = footprint.tables.iter().flat_map(|table| &table.maps);
            let told: Vec<_> = told.copied().collect();
            assert_eq!(told.len(), maps::ALL.len(), "{told:?}");
            assert_eq!(
                told.into_iter().collect::<BTreeSet<_>>(),
                BTreeSet::from(maps::ALL)
            );
            let sum: u64 = footprint.tables.iter().map(|table| table.bytes).sum();
            assert_eq!(footprint.total_bytes, sum);
        }
    }

    /// Rows worked out by hand from the kernel's structures.
    #[test]
    fn what_the_kernel_adds() {
        let footprint = footprint(1_000_000, 2);
        let cases = [
            ("IPv4 connections", 24_000_000),
            ("IPv6 connections, ranges of ports", 48_000_000),
            ("persistence templates", 262_144 * (48 + 24 + 8 + 16)),
            ("localities", 16_384 * (48 + 24 + 144 + 16)),
            (
                "fragments",
                16_384 * ((48 + 16 + 40 + 16) + (48 + 40 + 40 + 16)),
            ),
            ("loads", 65_536 * 48),
            ("counters", 65_536 * (8 + 2 * 64)),
            ("scheduling slots", 4_194_304 * 8),
        ];
        for (name, bytes) in cases {
            let table = footprint.tables.iter().find(|table| table.table == name);
            assert_eq!(table.unwrap().bytes, bytes, "{name}");
        }
    }
}
