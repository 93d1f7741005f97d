//! The quick form of the benchmark: fails where something has become several times slower, and proves nothing finer. It is
//! `cargo xtask bench` that measures.

use std::time::Duration;

use director_tests::bench::passes::Passes;
use director_tests::bench::report::{Row, Suite};
use director_tests::bench::{Options, suites};

const QUICK: Options = Options {
    quick: true,
    many: false,
};

/// Far beyond what noise does to a ratio of a few rounds, on a machine that does other things as well.
const GENEROUS: f64 = 3.0;

#[test]
#[ignore = "needs root and the BPF objects: cargo xtask test runs it"]
fn no_packet_has_become_several_times_dearer() {
    let suite = suites::packet::run(&QUICK).expect("a quick run");
    let with_goals = || suite.rows.iter().filter(|row| row.goal.is_some());
    let measured = with_goals().filter(|row| row.ratio.is_some()).count();
    assert_eq!(
        with_goals().count(),
        7,
        "rows with goals: one for each kind of packet"
    );
    assert!(
        measured >= 4,
        "only {measured} rows were measured: the machine was never quiet for a millisecond"
    );
    let bounds: Vec<(&Row, f64)> = with_goals()
        .filter_map(|row| Some((row, row.goal?.bound() * GENEROUS)))
        .collect();
    none_is_beyond(&bounds);
}

/// None of these rows is so many times dearer than what it is compared with, in three quarters of its rounds.
fn none_is_beyond(bounds: &[(&Row, f64)]) {
    let too_dear: Vec<String> = bounds
        .iter()
        .filter_map(|(row, bound)| Some((row, bound, row.ratio?)))
        .filter(|(_, bound, ratio)| ratio.low > **bound)
        .map(|(row, bound, ratio)| {
            format!(
                "{}: {:.1} times {}, at most {bound:.1} expected",
                row.what,
                ratio.median,
                row.against.as_deref().unwrap_or("nothing"),
            )
        })
        .collect();
    assert!(too_dear.is_empty(), "{too_dear:#?}");
}

fn row<'s>(rows: &'s [Row], name: &str) -> &'s Row {
    let row = rows.iter().find(|row| row.name == name);
    row.unwrap_or_else(|| panic!("no row {name}: {rows:?}"))
}

#[test]
#[ignore = "needs root and the BPF objects: cargo xtask test runs it"]
fn many_flows_are_not_several_times_dearer_than_bare_lookups() {
    let suite = suites::flows::run(&QUICK).expect("a quick run");
    // (row, how often what it is compared with: bare lookups of the same flows; one flow where nothing is tracked)
    let bounds = [
        ("tun-16k", 6.0),
        ("nat-16k", 6.0),
        ("mh-16k", 6.0),
        ("mh-on-change-16k-one", GENEROUS),
    ];
    let bounds = bounds.map(|(name, bound)| (row(&suite.rows, name), bound));
    let measured = bounds.iter().filter(|(row, _)| row.ratio.is_some()).count();
    assert!(
        measured >= 2,
        "only {measured} rows were measured: the machine was never quiet for a millisecond"
    );
    none_is_beyond(&bounds);
}

#[test]
#[ignore = "needs root and the BPF objects: cargo xtask test runs it"]
fn a_syn_of_a_flood_is_not_many_times_dearer_than_a_packet_of_a_connection() {
    let rows = suites::connections::flood(&QUICK).expect("a quick run");
    let syn = row(&rows, "syn-16k");
    assert!(
        syn.ratio.is_some(),
        "the machine was never quiet for a millisecond"
    );
    // Some three times; of a million connections, which are not in the caches, it would be less.
    none_is_beyond(&[(syn, 10.0)]);
    let lost = row(&rows, "lost").value.map(|value| value.median);
    assert_eq!(lost, Some(0.0), "established connections were displaced");
}

/// The median of a row; none if the machine was never quiet while it was measured.
fn measured(suite: &Suite, name: &str) -> Option<f64> {
    Some(row(&suite.rows, name).value.as_ref()?.median)
}

/// A way by which nothing goes, or some of it fails, is an error of the suite itself.
#[test]
#[ignore = "needs root, network namespaces, nginx, iperf3, wrk and HAProxy: cargo xtask test runs it"]
fn all_ways_carry_real_connections_and_the_directors_not_several_times_less() {
    let suite = suites::wire::run(&QUICK).expect("a quick run");
    for load in ["stream", "requests"] {
        let by = |way: &str| measured(&suite, &format!("{load}-{way}"));
        for way in ["nat", "dr", "tun"] {
            let (Some(ours), Some(route)) = (by(way), by("route")) else {
                continue;
            };
            assert!(
                ours * 2.0 * GENEROUS > route,
                "{load}, {way}: {ours}, by a bare route {route}"
            );
        }
    }
}

#[test]
#[ignore = "needs root, network namespaces, nftables and BPF: cargo xtask test runs it"]
fn live_frames_go_through_the_director_sooner_than_through_nftables() {
    let suite = suites::live::run(&QUICK).expect("a quick run");
    let names = ["director-1k", "nftables-1k"];
    let [Some(ours), Some(nftables)] = names.map(|name| measured(&suite, name)) else {
        panic!("the machine was never quiet for a tenth of a second");
    };
    // Some five times; not without optimisation either, as all of it is the kernel's.
    assert!(nftables > 1.5 * ours, "{ours} ns, nftables {nftables} ns");
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
            let mut passes = Passes::new(1_000_000, 250_000, copies);
            let (mut slice, mut entries) = (Duration::MAX, 0);
            let pass = least(|| {
                let pass = passes.pass();
                slice = slice.min(pass.longest_slice);
                entries = pass.entries;
                pass.took
            });
            let sum = least(|| passes.plain_sum());
            let ratio = pass.as_secs_f64() / sum.as_secs_f64();
            println!(
                "{copies} copies of 100: {entries} entries, pass {pass:?} in slices of {slice:?} at the most, memory read \
                 in {sum:?}, {ratio:.1} times"
            );
            assert!(entries > 1_237_000, "{entries}");
            assert!(ratio < bound, "{ratio:.1} times a plain sum");
        }
    }
}
