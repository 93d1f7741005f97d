//! The quick form of the benchmark: fails where something has become several times slower, and proves nothing finer. It is
//! `cargo xtask bench` that measures.

use director_tests::bench::report::Row;
use director_tests::bench::{Options, suites};

/// Far beyond what noise does to a ratio of a few rounds, on a machine that does other things as well.
const GENEROUS: f64 = 3.0;

#[test]
#[ignore = "needs root and the BPF objects: cargo xtask test runs it"]
fn no_packet_has_become_several_times_dearer() {
    let options = Options {
        quick: true,
        many: false,
    };
    let suite = suites::packet::run(&options).expect("a quick run");
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
    let bound = |row: &Row| row.goal.expect("has one").bound() * GENEROUS;
    let too_dear: Vec<String> = with_goals()
        .filter_map(|row| Some((row, row.ratio?)))
        .filter(|(row, ratio)| ratio.low > bound(row))
        .map(|(row, ratio)| {
            format!(
                "{}: {:.1} times the yardstick, at most {:.1} expected",
                row.what,
                ratio.median,
                bound(row)
            )
        })
        .collect();
    assert!(too_dear.is_empty(), "{too_dear:#?}");
}
