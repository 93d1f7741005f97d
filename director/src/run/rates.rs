//! How fast connections, packets and bytes come: IPVS's estimator.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use xdp_ebpf::layout::Counters;

use super::node::Node;
use crate::control::RateStatus;
use crate::datapath::DatapathError;

/// How often counters are looked at (`net/netfilter/ipvs/ip_vs_est.c`).
const PERIOD: Duration = Duration::from_secs(2);

/// Rates of all destinations.
#[derive(Debug, Default)]
pub(super) struct Rates {
    sampled: Option<Instant>,
    destinations: HashMap<u32, Estimate>,
}

/// What was counted when, and what that means for each second.
#[derive(Clone, Copy, Debug, Default)]
struct Estimate {
    counted: [u64; 5],
    per_second: [f64; 5],
}

impl Estimate {
    fn counts(counters: &Counters) -> [u64; 5] {
        [
            counters.connections,
            counters.in_packets,
            counters.in_bytes,
            counters.out_packets,
            counters.out_bytes,
        ]
    }

    /// Moves a quarter of the way to what was seen since the last look.
    fn update(&mut self, counters: &Counters, elapsed: Duration) {
        let counted = Self::counts(counters);
        for ((rate, now), then) in self.per_second.iter_mut().zip(counted).zip(self.counted) {
            // Counters begin anew when an id means another destination.
            let seen = now.saturating_sub(then) as f64 / elapsed.as_secs_f64();
            *rate += (seen - *rate) / 4.0;
        }
        self.counted = counted;
    }
}

impl Rates {
    /// Whether it is time to look.
    fn is_due(&self, now: Instant) -> bool {
        self.sampled
            .is_none_or(|sampled| now.duration_since(sampled) >= PERIOD)
    }

    /// Takes in what was counted of all destinations.
    fn sample(&mut self, now: Instant, all: impl Iterator<Item = (u32, Counters)>) {
        let elapsed = self.sampled.map(|sampled| now.duration_since(sampled));
        self.sampled = Some(now);
        let mut before = std::mem::take(&mut self.destinations);
        self.destinations = all
            .map(|(id, counters)| {
                let mut estimate = match before.remove(&id) {
                    Some(known) => known,
                    // Nothing is known of the time before the first look.
                    None => Estimate {
                        counted: Estimate::counts(&counters),
                        ..Estimate::default()
                    },
                };
                if let Some(elapsed) = elapsed.filter(|elapsed| !elapsed.is_zero()) {
                    estimate.update(&counters, elapsed);
                }
                (id, estimate)
            })
            .collect();
    }

    /// Of a destination.
    pub(super) fn of(&self, id: u32) -> RateStatus {
        let Some(estimate) = self.destinations.get(&id) else {
            return RateStatus::default();
        };
        // Whole numbers: nobody reads more.
        let [connections, in_packets, in_bytes, out_packets, out_bytes] =
            estimate.per_second.map(|rate| rate.round() as u64);
        RateStatus {
            connections,
            in_packets,
            in_bytes,
            out_packets,
            out_bytes,
        }
    }
}

impl Node {
    /// Looks at the counters, when it is time.
    pub(super) fn sample_rates(&mut self) {
        let now = Instant::now();
        if !self.rates.is_due(now) {
            return;
        }
        let all = match self.all_counters() {
            Ok(all) => all,
            Err(error) => {
                tracing::debug!("{error}");
                return;
            }
        };
        let ids = self.tables.destinations.keys();
        let counted = ids.filter_map(|id| Some((*id, *all.get(*id as usize)?)));
        self.rates.sample(now, counted);
    }

    /// Traffic of all destinations, by their ids.
    pub(super) fn all_counters(&self) -> Result<Vec<Counters>, DatapathError> {
        let last = self.tables.destinations.last_key_value();
        self.datapath
            .maps
            .all_counters(last.map_or(0, |(id, _)| id + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_near_in_a_few_looks_and_fade() {
        let mut rates = Rates::default();
        let start = Instant::now();
        let mut counters = Counters {
            connections: 1_000_000,
            ..Counters::default()
        };
        let at = |look: u32| start + PERIOD * look;
        rates.sample(at(0), [(7, counters)].into_iter());
        assert_eq!(
            rates.of(7),
            RateStatus::default(),
            "what was before counts not"
        );
        for look in 1..=30 {
            counters.connections += 200;
            counters.in_packets += 2000;
            rates.sample(at(look), [(7, counters)].into_iter());
            let expected = if look == 1 {
                25
            } else {
                rates.of(7).connections
            };
            assert_eq!(rates.of(7).connections, expected);
        }
        assert_eq!(
            (rates.of(7).connections, rates.of(7).in_packets),
            (100, 1000)
        );
        for look in 31..=60 {
            rates.sample(at(look), [(7, counters)].into_iter());
        }
        assert_eq!(rates.of(7), RateStatus::default());
        assert_eq!(rates.of(8), RateStatus::default());
        assert!(!rates.is_due(at(60)) && rates.is_due(at(61)));
    }
}
