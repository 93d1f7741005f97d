//! How long a pass takes. Only a release build says something, so `cargo xtask test --all` asks for it:
//!
//! ```text
//! cargo test --release -p director upkeep::tests::speed -- --ignored --nocapture
//! ```

use std::hint::black_box;
use std::time::{Duration, Instant};

use xdp_ebpf::atomic::load;
use xdp_ebpf::connection::{Value, key4, key6};
use xdp_ebpf::layout::Settings;
use xdp_ebpf::native::SharedTables;
use xdp_ebpf::reach::{Narrow, Wide};
use xdp_ebpf::state::State;
use xdp_ebpf::table;

use super::super::Upkeep;
use super::random::Random;
use super::tables::{START_S, upkeep};

const CPUS: u32 = 2;
const CONNECTIONS4: u32 = 1_000_000;
const CONNECTIONS6: u32 = 250_000;
/// Of so many destinations and endpoints.
const DESTINATIONS: u32 = 4096;
const ENDPOINTS: u32 = 512;
const SLICES: usize = 10;

/// Tables of 24 bytes for each IPv4 and 48 for each IPv6 connection, filled with these. Of `copies` of 100 the other CPU
/// has a copy too, in place of a connection.
fn filled(copies: u32) -> (Settings, SharedTables) {
    let settings = Settings {
        now_s: START_S,
        cpus: CPUS,
        buckets4: (CONNECTIONS4 * 24).div_ceil(64 * CPUS),
        buckets6: (CONNECTIONS6 * 48).div_ceil(128 * CPUS),
        seed: 1,
        ..Settings::default()
    };
    let tables = SharedTables::new(settings, DESTINATIONS);
    let mut random = Random::new(3);
    let cpus = [tables.cpu(0), tables.cpu(1)];
    let value = |random: &mut Random, flags| {
        let destination = 1 + random.below(DESTINATIONS - 1);
        let seen_s = START_S - random.below(50);
        Value::new(destination, seen_s as u16, State::Established, flags)
    };
    let mut put = |entries: u32, insert: &dyn Fn(usize, u64, u16, Value)| {
        let mut left = entries;
        while left > 0 {
            let (client, endpoint) = (random.next(), 1 + random.below(ENDPOINTS - 1) as u16);
            let original = value(&mut random, 0);
            let cpu = random.below(CPUS) as usize;
            insert(cpu, client, endpoint, original);
            left -= 1;
            if random.below(100) < copies && left > 0 {
                let copy = Value(original.0 | u64::from(Value::COPY) << 56);
                insert(1 - cpu, client, endpoint, copy);
                left -= 1;
            }
        }
    };
    put(CONNECTIONS4, &|cpu, client, endpoint, value| {
        let key = key4(client as u32, (client >> 32) as u16, endpoint);
        table::insert::<Narrow, _>(&cpus[cpu], &key, value.0);
    });
    put(CONNECTIONS6, &|cpu, client, endpoint, value| {
        let words = [1, 2, client as u32, (client >> 32) as u32];
        let key = key6(words, 80, 0, endpoint);
        table::insert::<Wide, _>(&cpus[cpu], &key, value.0);
    });
    (settings, tables)
}

/// The least that a walk can take: every word of the same memory, added up.
fn plain_sum(tables: &SharedTables) -> u64 {
    let four = tables.buckets4().iter();
    let four = four.flat_map(|bucket| bucket.keys.iter().chain(&bucket.values));
    let six = tables.buckets6().iter().flat_map(|bucket| &bucket.lines);
    let six = six.flat_map(|line| line.keys.iter().flatten().chain(&line.values));
    let mut sum = 0_u64;
    for word in four {
        sum = sum.wrapping_add(load(word));
    }
    for word in six {
        sum = sum.wrapping_add(load(word));
    }
    sum
}

/// The least of some runs: others use the machine too.
fn least(mut run: impl FnMut() -> Duration) -> Duration {
    (0..9).map(|_| run()).min().unwrap_or_default()
}

mod slow {
    use super::*;

    #[test]
    #[ignore = "slow, and says something in a release build only: cargo xtask test --all runs it"]
    fn a_pass_takes_little_longer_than_reading_the_memory() {
        // (copies of 100 connections, how often the time of a plain sum)
        for (copies, bound) in [(0, 8.0), (50, 15.0)] {
            let (settings, tables) = filled(copies);
            let mut upkeep = upkeep(&settings);
            let mut slowest_slice = Duration::MAX;
            let mut entries = 0;
            let pass = least(|| {
                let begun = Instant::now();
                let slice = a_pass(&mut upkeep, &tables, &mut entries);
                slowest_slice = slowest_slice.min(slice);
                begun.elapsed()
            });
            let sum = least(|| {
                let begun = Instant::now();
                black_box(plain_sum(black_box(&tables)));
                begun.elapsed()
            });
            let ratio = pass.as_secs_f64() / sum.as_secs_f64();
            println!(
                "{copies} copies of 100: {entries} entries, pass {:.1} ms in {SLICES} slices of {:.1} ms at the most, \
                 memory read in {:.1} ms, {ratio:.1} times",
                pass.as_secs_f64() * 1e3,
                slowest_slice.as_secs_f64() * 1e3,
                sum.as_secs_f64() * 1e3
            );
            assert!(entries > u64::from(CONNECTIONS4 + CONNECTIONS6) * 99 / 100);
            assert!(ratio < bound, "{ratio:.1} times a plain sum");
        }
    }
}

/// A pass in slices. Gives the time of the longest one.
fn a_pass(upkeep: &mut Upkeep, tables: &SharedTables, entries: &mut u64) -> Duration {
    let slice = upkeep.buckets().div_ceil(SLICES);
    let mut longest = Duration::ZERO;
    loop {
        let begun = Instant::now();
        let report = upkeep.step(tables.buckets4(), tables.buckets6(), START_S, slice);
        longest = longest.max(begun.elapsed());
        if let Some(report) = report {
            assert_eq!(report.expired, 0);
            *entries = report.entries4 + report.entries6;
            return longest;
        }
    }
}
