//! Thousands of seeds.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::scenario::{self, Figures};

/// Seeds of a normal run.
const SEEDS: u64 = 2_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn the_rules_hold_whatever_happens() {
    if let Some(seed) = number("CONN_SYNC_SEED") {
        match scenario::run(seed, true) {
            Ok(figures) => eprintln!("{figures:?}"),
            Err(verdict) => panic!("seed {seed}: {verdict}"),
        }
        return;
    }
    let first = number("CONN_SYNC_FIRST_SEED").unwrap_or(0);
    let last = first + number("CONN_SYNC_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(first);
    let total = Mutex::new(Figures::default());
    let work = || {
        let mut failures = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= last {
                return failures;
            }
            match scenario::run(seed, false) {
                Ok(figures) => total.lock().expect("no panic").add(figures),
                Err(verdict) => failures.push((seed, verdict)),
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
        eprintln!("CONN_SYNC_SEED={seed}: {verdict}");
    }
    let figures = total.into_inner().expect("no panic");
    eprintln!("{} seeds: {figures:?}", last - first);
    assert!(
        failures.is_empty(),
        "{} of {} seeds failed",
        failures.len(),
        last - first
    );
    // Nothing is shown by runs in which nothing happens.
    let runs = last - first;
    for happened in [
        figures.applied / 20,
        figures.applied_udp / 2,
        figures.claims / 10,
        figures.converged / 5,
        figures.bulks,
    ] {
        assert!(happened >= runs, "{figures:?}");
    }
    assert!(figures.repairs >= runs / 2, "{figures:?}");
}
