//! The schedule of probes, on a clock of its own.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::*;

/// When (in milliseconds) `address` on interface 2 is asked for during ten or so ticks of 250 ms, or every tick
/// listed.
fn asked(
    network: &mut Network,
    prober: &mut Prober,
    start: Instant,
    ticks_ms: &[u64],
    address: &str,
) -> Vec<u64> {
    let probe = Probe {
        ifindex: 2,
        address: ip(address),
    };
    let due = |tick: &u64| {
        prober
            .due(network, start + Duration::from_millis(*tick))
            .contains(&probe)
    };
    ticks_ms.iter().copied().filter(due).collect()
}

#[test]
fn neighbours_are_asked_for_as_their_state_demands() {
    use NeighbourState::{Failed, Incomplete, Permanent, Reachable, Stale};
    let every: Vec<u64> = (0..=260).map(|tick| tick * 250).collect();
    let seconds: Vec<u64> = (0..=65).map(|second| second * 1000).collect();
    let seldom = vec![0, 30_000, 60_000];
    let gone = Event::NeighbourGone {
        ifindex: 2,
        address: ip("10.0.2.50"),
    };
    for (sentence, events, expected) in [
        ("unknown: each second", vec![], seconds.clone()),
        (
            "incomplete",
            vec![neighbour(2, "10.0.2.50", 0, Incomplete)],
            seconds.clone(),
        ),
        (
            "failed, though its address is kept",
            {
                vec![
                    neighbour(2, "10.0.2.50", 5, Reachable),
                    neighbour(2, "10.0.2.50", 0, Failed),
                ]
            },
            seconds.clone(),
        ),
        (
            "forgotten by the kernel",
            vec![neighbour(2, "10.0.2.50", 5, Stale), gone],
            seconds,
        ),
        (
            "reachable",
            vec![neighbour(2, "10.0.2.50", 5, Reachable)],
            seldom.clone(),
        ),
        (
            "stale: kept alive",
            vec![neighbour(2, "10.0.2.50", 5, Stale)],
            seldom,
        ),
        (
            "permanent: never",
            vec![neighbour(2, "10.0.2.50", 5, Permanent)],
            vec![],
        ),
        (
            "not while the link is down",
            vec![link_with(2, false, LinkKind::Plain)],
            vec![],
        ),
        (
            "not when the address is our own",
            vec![own(2, "10.0.2.50/24")],
            vec![],
        ),
    ] {
        let mut network = network(node().into_iter().chain(events));
        network.want([ip("10.0.2.50")]);
        let found = asked(
            &mut network,
            &mut Prober::default(),
            Instant::now(),
            &every,
            "10.0.2.50",
        );
        assert_eq!(found, expected, "{sentence}");
    }
}

#[test]
fn gateways_and_the_neighbours_of_wanted_addresses_are_asked_for() {
    let mut network = network(node());
    network.want(
        [
            "10.20.0.6",
            "10.0.9.77",
            "8.8.8.8",
            "203.0.113.1",
            "10.0.2.77",
        ]
        .map(ip),
    );
    let due: BTreeSet<_> = Prober::default()
        .due(&mut network, Instant::now())
        .into_iter()
        .collect();
    let expected = [
        (2, "10.0.2.77"),
        (2, "10.0.2.253"),
        (2, "fe80::1"),
        (3, "10.0.3.254"),
        (20, "10.20.0.6"),
    ];
    assert_eq!(
        due,
        expected
            .map(|(ifindex, address)| Probe {
                ifindex,
                address: ip(address)
            })
            .into()
    );
}

#[test]
fn a_neighbour_that_fails_is_asked_for_at_once() {
    let mut network = network(node());
    network.want([ip("10.0.2.10")]);
    let (mut prober, start) = (Prober::default(), Instant::now());
    assert_eq!(
        asked(&mut network, &mut prober, start, &[0, 5000], "10.0.2.10"),
        [0]
    );
    network.apply(neighbour(2, "10.0.2.10", 0, NeighbourState::Failed));
    assert_eq!(
        asked(
            &mut network,
            &mut prober,
            start,
            &[5250, 5500, 6250],
            "10.0.2.10"
        ),
        [5250, 6250]
    );
}

#[test]
fn many_are_asked_for_in_turn_and_none_starves() {
    let mut network = network([link(2), route("10.0.0.0/16 dev 2")]);
    network.want((0..4000_u16).map(|host| {
        let [high, low] = host.to_be_bytes();
        IpAddr::from([10, 0, high, low])
    }));
    let (mut prober, start) = (Prober::default(), Instant::now());
    let mut seen = BTreeSet::new();
    for second in 0..8 {
        let mut in_this_second = 0;
        for tick in 0..4 {
            let due = prober.due(
                &mut network,
                start + Duration::from_millis(second * 1000 + tick * 250),
            );
            in_this_second += due.len();
            seen.extend(due);
        }
        // The first second also empties the full bucket.
        let most = PROBES_PER_SECOND as usize * if second == 0 { 2 } else { 1 };
        assert!(
            in_this_second <= most,
            "{in_this_second} in second {second}"
        );
    }
    assert_eq!(seen.len(), 4000);
}
