//! Upkeep's pass over full connection tables in ordinary memory: how long it takes, beside reading that memory once.

use std::hint::black_box;
use std::time::{Duration, Instant};

use director::config::ConnectionLimits;
use director::upkeep::{Geometry, Upkeep};
use xdp_ebpf::atomic::load;
use xdp_ebpf::connection::{Value, key4, key6};
use xdp_ebpf::layout::Settings;
use xdp_ebpf::native::SharedTables;
use xdp_ebpf::reach::{Narrow, Wide};
use xdp_ebpf::state::State;
use xdp_ebpf::table;

use super::flows::Numbers;

const CPUS: u32 = 2;
/// Of so many destinations and endpoints.
const DESTINATIONS: u32 = 4096;
const ENDPOINTS: u32 = 512;
/// A director does a pass in so many, between which it does what else there is.
const SLICES: usize = 10;
const NOW_S: u32 = 70_000;

/// Full tables, and who looks after them.
pub struct Passes {
    settings: Settings,
    tables: SharedTables,
    upkeep: Upkeep,
}

/// What a pass took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// All of it.
    pub took: Duration,
    /// Its longest slice.
    pub longest_slice: Duration,
    /// Entries that it looked at.
    pub entries: u64,
}

impl Passes {
    /// Tables made for so many connections of both families, as a director makes them, and filled with as many. Of `copies`
    /// of 100 the other CPU has a copy too, in place of a connection.
    #[must_use]
    pub fn new(ipv4: u32, ipv6: u32, copies: u32) -> Self {
        let limits = ConnectionLimits { ipv4, ipv6 };
        let settings = Settings {
            now_s: NOW_S,
            cpus: CPUS,
            buckets4: limits.buckets_per_cpu4(CPUS),
            buckets6: limits.buckets_per_cpu6(CPUS),
            seed: 1,
            ..Settings::default()
        };
        let tables = SharedTables::new(settings, DESTINATIONS);
        let mut numbers = Numbers::new(3);
        fill(&tables, &mut numbers, (ipv4, ipv6), copies);
        let upkeep = Upkeep::new(Geometry {
            cpus: settings.cpus,
            buckets4: settings.buckets4,
            buckets6: settings.buckets6,
            seed: settings.seed,
        });
        Self {
            settings,
            tables,
            upkeep,
        }
    }

    /// A whole pass, in slices.
    ///
    /// # Panics
    /// It forgets a connection, all of which are in use.
    pub fn pass(&mut self) -> Pass {
        let slice = self.upkeep.buckets().div_ceil(SLICES);
        let mut longest_slice = Duration::ZERO;
        let (four, six) = (self.tables.buckets4(), self.tables.buckets6());
        let began = Instant::now();
        loop {
            let slice_began = Instant::now();
            let report = self.upkeep.step(four, six, self.settings.now_s, slice);
            longest_slice = longest_slice.max(slice_began.elapsed());
            if let Some(report) = report {
                let took = began.elapsed();
                assert_eq!(report.expired, 0);
                return Pass {
                    took,
                    longest_slice,
                    entries: report.entries4 + report.entries6,
                };
            }
        }
    }

    /// The least that a walk can take: every word of the same memory, added up.
    #[must_use]
    pub fn plain_sum(&self) -> Duration {
        let began = Instant::now();
        let tables = black_box(&self.tables);
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
        black_box(sum);
        began.elapsed()
    }
}

fn fill(tables: &SharedTables, numbers: &mut Numbers, (ipv4, ipv6): (u32, u32), copies: u32) {
    let cpus = [tables.cpu(0), tables.cpu(1)];
    let mut put = |entries: u32, insert: &dyn Fn(usize, u64, u16, Value)| {
        let mut left = entries;
        while left > 0 {
            let (client, endpoint) = (numbers.next(), 1 + numbers.below(ENDPOINTS - 1) as u16);
            let destination = 1 + numbers.below(DESTINATIONS - 1);
            let seen_s = NOW_S - numbers.below(50);
            let original = Value::new(destination, seen_s as u16, State::Established, 0);
            let cpu = numbers.below(CPUS) as usize;
            insert(cpu, client, endpoint, original);
            left -= 1;
            if numbers.below(100) < copies && left > 0 {
                let copy = Value(original.0 | u64::from(Value::COPY) << 56);
                insert(1 - cpu, client, endpoint, copy);
                left -= 1;
            }
        }
    };
    put(ipv4, &|cpu, client, endpoint, value| {
        let key = key4(client as u32, (client >> 32) as u16, endpoint);
        table::insert::<Narrow, _>(&cpus[cpu], &key, value.0);
    });
    put(ipv6, &|cpu, client, endpoint, value| {
        let words = [1, 2, client as u32, (client >> 32) as u32];
        let key = key6(words, 80, 0, endpoint);
        table::insert::<Wide, _>(&cpus[cpu], &key, value.0);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_looks_at_all_that_stands() {
        for copies in [0, 50] {
            let mut passes = Passes::new(10_000, 2_000, copies);
            for _ in 0..2 {
                let pass = passes.pass();
                assert!(pass.entries > 11_000, "{pass:?}");
                assert!(pass.took >= pass.longest_slice, "{pass:?}");
            }
            assert!(passes.plain_sum() > Duration::ZERO);
        }
    }
}
