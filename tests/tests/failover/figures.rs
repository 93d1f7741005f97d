//! How fast connections are shared: bounds with room for a busy machine. `cargo xtask bench sync` measures.

use std::time::Duration;

use director_tests::PATIENCE;
use director_tests::sharing::{bulk, stream};

fn show_stream(standing: u32, each_second: u32, seconds: u32) -> (Duration, f64) {
    let stream = stream(standing, each_second, seconds).unwrap();
    let (worst, share) = (stream.worst(), stream.share);
    println!(
        "{standing} connections stand, {each_second} begin in a second: at the peer after {} ms by the median, {} ms at the \
         most; the sender takes {:.1} % of a core",
        stream.median().as_millis(),
        worst.as_millis(),
        share * 100.0
    );
    (worst, share)
}

fn show_bulk(connections: u32) -> [Duration; 2] {
    let took = bulk(connections).unwrap();
    println!(
        "{connections} connections into a director's empty table: {:.2} s from the start of the peer, {:.2} s from one \
         director's table into another's",
        took.from_peer.as_secs_f64(),
        took.from_director.as_secs_f64()
    );
    [took.from_peer, took.from_director]
}

/// A tenth of what is promised, by programs that are not optimised.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn connections_are_at_the_peer_soon() {
    let (worst, share) = show_stream(10_000, 2_000, 3);
    assert!(worst < Duration::from_secs(3), "{worst:?}");
    assert!(share < 0.9, "{share}");
    let took = show_bulk(100_000);
    assert!(took.iter().all(|took| *took < PATIENCE), "{took:?}");
}

mod slow {
    use super::*;

    #[test]
    #[ignore = "slow: cargo xtask test --all runs it"]
    fn a_million_connections() {
        let (worst, share) = show_stream(100_000, 20_000, 10);
        assert!(worst < Duration::from_millis(750), "{worst:?}");
        assert!(share < 0.45, "{share}");
        let took = show_bulk(1_000_000);
        assert!(
            took.iter().all(|took| *took < Duration::from_secs(9)),
            "{took:?}"
        );
    }
}
