//! Live counts under traffic that begins, changes, ends and expires while passes run.

use xdp_ebpf::native::SharedTables;
use xdp_ebpf::reach::{Narrow, Wide};
use xdp_ebpf::state::{STATES, State};

use super::super::{EndpointRule, loads};
use super::random::Random;
use super::tables::{Numbered, counted, foreign_packet, live, packet, pass, settings, upkeep};

const CPUS: u32 = 2;
const DESTINATIONS: u32 = 8;
const SECONDS: u32 = 30;
const SLICES: usize = 10;

/// How much happens.
struct Traffic {
    what: &'static str,
    /// Numbers of clients for each CPU.
    clients: u32,
    /// Packets in a second.
    packets: u32,
    buckets: u32,
}

fn check<S: Numbered>(traffic: &Traffic) {
    let Traffic {
        what,
        clients,
        packets,
        buckets,
    } = *traffic;
    let settings = settings(CPUS, buckets);
    let tables = SharedTables::new(settings, DESTINATIONS + 1);
    let mut upkeep = upkeep(&settings);
    upkeep.set_rules(vec![
        EndpointRule {
            timeouts_s: [3; STATES],
            ..EndpointRule::default()
        };
        2
    ]);
    let mut random = Random::new(7);
    let mut cpus: Vec<_> = (0..CPUS).map(|cpu| tables.cpu(cpu)).collect();
    let slice = upkeep.buckets().div_ceil(SLICES);
    let mut worst = 0.0_f64;
    for second in 0..SECONDS {
        let mut meanwhile = loads::snapshot(tables.loads(), 1..=DESTINATIONS);
        // Connections of each destination that began, changed their kind, or ended by a packet.
        let mut changes = [0_u64; DESTINATIONS as usize + 1];
        let mut report = None;
        for _ in 0..SLICES {
            for _ in 0..packets / SLICES as u32 {
                let cpu = random.below(CPUS);
                let client = random.below(clients);
                let number = cpu * clients + client;
                let destination = 1 + number % DESTINATIONS;
                match random.below(10) {
                    0..5 => {
                        let state = match random.below(4) {
                            0 => State::SynReceived,
                            1 => State::FinWait,
                            _ => State::Established,
                        };
                        packet::<S>(&cpus[cpu as usize], number, destination, state);
                        changes[destination as usize] += 1;
                    }
                    // The NIC brings it to the other one.
                    5 => {
                        let other = (cpu + 1) % CPUS;
                        foreign_packet::<S>(&cpus[other as usize], number);
                    }
                    // Nothing: most of the clients fall idle at some time.
                    _ => {}
                }
            }
            let buckets = upkeep.next_slice(slice);
            meanwhile.slice_begins(tables.loads());
            report = upkeep.step(tables.buckets4(), tables.buckets6(), tables.now_s(), slice);
            meanwhile.slice_ends(tables.loads(), buckets);
        }
        let report = report.expect("ten slices are a pass");
        loads::correct(tables.loads(), &meanwhile, &report);
        let exact = counted::<S>(&tables);
        for destination in 1..=DESTINATIONS {
            let exact = exact.get(&destination).copied().unwrap_or_default();
            let live = live(&tables.loads()[destination as usize]);
            let wrong = live.0.abs_diff(exact.0) + live.1.abs_diff(exact.1);
            let changes = changes[destination as usize];
            assert!(
                wrong <= changes,
                "{what}, second {second}: {wrong} wrong after {changes} changes"
            );
            if changes > 100 {
                worst = worst.max(wrong as f64 / changes as f64);
            }
        }
        tables.set_now_s(tables.now_s() + 1);
        for cpu in &mut cpus {
            cpu.read_clock();
        }
    }
    // Half of the changes is what a pass can be wrong about at the very worst; in the order of hashes it is much less.
    assert!(
        worst < 0.25,
        "{what}: up to {worst:.3} of the changes wrong"
    );
    println!("{what}: up to {worst:.3} of the changes of a pass were wrong after it");

    // At rest one pass makes them exact, of what it leaves.
    let begun = loads::snapshot(tables.loads(), 1..=DESTINATIONS);
    let report = pass(&mut upkeep, &tables);
    loads::correct(tables.loads(), &begun, &report);
    let exact = counted::<S>(&tables);
    for destination in 1..=DESTINATIONS {
        let (active, inactive) = exact.get(&destination).copied().unwrap_or_default();
        assert_eq!(
            live(&tables.loads()[destination as usize]),
            (active, inactive),
            "{what}, destination {destination}"
        );
        let found = report.destination(destination);
        assert_eq!(
            (found.active.cast_signed(), found.inactive.cast_signed()),
            (active, inactive),
            "{what}, destination {destination}: the report"
        );
    }
}

#[test]
fn live_counts_stay_near_and_come_to_be_exact() {
    let cases = [
        Traffic {
            what: "room for all",
            clients: 20_000,
            packets: 20_000,
            buckets: 16_384,
        },
        Traffic {
            what: "few clients that come again",
            clients: 500,
            packets: 20_000,
            buckets: 1000,
        },
        Traffic {
            what: "tables too small, so that much is given up",
            clients: 20_000,
            packets: 20_000,
            buckets: 1500,
        },
    ];
    for traffic in &cases {
        check::<Narrow>(traffic);
        check::<Wide>(traffic);
    }
}

#[test]
fn what_is_wrong_is_corrected_by_one_pass() {
    let settings = settings(1, 64);
    let tables = SharedTables::new(settings, 3);
    let cpu = tables.cpu(0);
    for number in 0..20 {
        packet::<Narrow>(&cpu, number, 1, State::Established);
    }
    // (added to active, added to inactive)
    for (active, inactive) in [(5_i64, -3_i64), (-1, 1), (-1000, 1_000_000), (0, 0)] {
        let load = &tables.loads()[1];
        xdp_ebpf::atomic::fetch_add(&load.active, active.cast_unsigned());
        xdp_ebpf::atomic::fetch_add(&load.inactive, inactive.cast_unsigned());
        let mut upkeep = upkeep(&settings);
        let begun = loads::snapshot(tables.loads(), [1, 2, 77].into_iter());
        let report = pass(&mut upkeep, &tables);
        loads::correct(tables.loads(), &begun, &report);
        assert_eq!(live(load), (20, 0), "{active} and {inactive} too many");
    }
}

/// All of them begin in one moment of a pass, and are not taken for an error whichever that is.
#[test]
fn a_burst_is_not_taken_for_an_error() {
    const BURST: u32 = 2000;
    // Four standard deviations of a sum of so many that are right or wrong by chance.
    let bound = 2 * u64::from(BURST).isqrt();
    for before_slice in 0..SLICES {
        let settings = settings(1, 1000);
        let tables = SharedTables::new(settings, 2);
        let mut upkeep = upkeep(&settings);
        let cpu = tables.cpu(0);
        let slice = upkeep.buckets().div_ceil(SLICES);
        let mut meanwhile = loads::snapshot(tables.loads(), 1..2);
        let mut report = None;
        for number in 0..SLICES {
            if number == before_slice {
                for client in 0..BURST {
                    packet::<Narrow>(&cpu, client, 1, State::Established);
                }
            }
            let buckets = upkeep.next_slice(slice);
            meanwhile.slice_begins(tables.loads());
            report = upkeep.step(tables.buckets4(), tables.buckets6(), tables.now_s(), slice);
            meanwhile.slice_ends(tables.loads(), buckets);
        }
        loads::correct(tables.loads(), &meanwhile, &report.expect("a pass"));
        let (active, _) = live(&tables.loads()[1]);
        let wrong = active.abs_diff(i64::from(BURST));
        assert!(wrong <= bound, "before slice {before_slice}: {active}");
    }
}
