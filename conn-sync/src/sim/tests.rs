//! Thousands of seeds.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::scenario::{self, Faults, Figures};

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn the_rules_hold_whatever_happens() {
    check(
        Faults::Any,
        2_000,
        &[406_489, 2_024_134, 3_009_081, 4_041_747],
    );
}

#[test]
fn the_rules_hold_while_nodes_fill_each_other() {
    check(Faults::Refills, 300, &[896, 3_966, 6_035, 7_366, 33_376]);
}

/// So many seeds, and those that once showed a mistake.
fn check(kind: Faults, seeds: u64, found: &[u64]) {
    if let Some(seed) = number("CONN_SYNC_SEED") {
        match scenario::run(seed, kind, true) {
            Ok(figures) => eprintln!("{figures:?}"),
            Err(verdict) => panic!("seed {seed}: {verdict}"),
        }
        return;
    }
    let first = number("CONN_SYNC_FIRST_SEED").unwrap_or(0);
    let last = first + number("CONN_SYNC_SEEDS").unwrap_or(seeds);
    let seeds: Vec<u64> = (first..last).chain(found.iter().copied()).collect();
    let runs = seeds.len() as u64;
    let next = AtomicUsize::new(0);
    let total = Mutex::new(Figures::default());
    let work = || {
        let mut failures = Vec::new();
        loop {
            let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else {
                return failures;
            };
            match scenario::run(seed, kind, false) {
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
    eprintln!("{runs} seeds: {figures:?}");
    assert!(
        failures.is_empty(),
        "{} of {runs} seeds failed",
        failures.len()
    );
    // Nothing is shown by runs in which nothing happens.
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
