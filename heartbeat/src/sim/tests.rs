//! Thousands of seeds.

use std::sync::atomic::{AtomicU64, Ordering};

use super::scenario;

/// Seeds of a normal run.
const SEEDS: u64 = 2_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn the_rules_hold_whatever_happens() {
    if let Some(seed) = number("HEARTBEAT_SEED") {
        if let Err(verdict) = scenario::run(seed, true) {
            panic!("seed {seed}: {verdict}");
        }
        return;
    }
    let first = number("HEARTBEAT_FIRST_SEED").unwrap_or(0);
    let last = first + number("HEARTBEAT_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(first);
    let work = || {
        let mut failures = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= last {
                return failures;
            }
            if let Err(verdict) = scenario::run(seed, false) {
                failures.push((seed, verdict));
            }
        }
    };
    let mut failures = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        let results = workers
            .into_iter()
            .map(|worker| worker.join().expect("no panic"));
        results.flatten().collect::<Vec<_>>()
    });
    failures.sort();
    for (seed, verdict) in failures.iter().take(20) {
        eprintln!("HEARTBEAT_SEED={seed}: {verdict}");
    }
    assert!(
        failures.is_empty(),
        "{} of {} seeds failed",
        failures.len(),
        last - first
    );
}
