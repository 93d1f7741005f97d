//! Tables laid out by hand: what a pass keeps, frees and counts.

use std::sync::atomic::Ordering;

use xdp_ebpf::connection::{Bucket, Bucket4, Bucket6, Value, key4, key6};
use xdp_ebpf::layout::limits;
use xdp_ebpf::state::{STATES, State};
use xdp_ebpf::table::candidates;

use super::super::{Counts, Dead, EndpointRule, Geometry, Report, Upkeep};

const NOW_S: u32 = 100_000;
const GEOMETRY: Geometry = Geometry {
    cpus: 2,
    buckets4: 64,
    buckets6: 64,
    seed: 3,
};

struct Tables {
    four: Vec<Bucket4>,
    six: Vec<Bucket6>,
}

impl Tables {
    fn new() -> Self {
        Self {
            four: (0..128).map(|_| Bucket4::default()).collect(),
            six: (0..128).map(|_| Bucket6::default()).collect(),
        }
    }

    fn put(&self, entry: &Entry) {
        self.put_of(entry, 9);
    }

    fn put_of(&self, entry: &Entry, destination: u32) {
        let Entry {
            cpu,
            client,
            second,
            idle_s,
            state,
            flags,
        } = *entry;
        let value = Value::new(destination, (NOW_S - idle_s) as u16, state, flags);
        place(&self.four, cpu, key4(client, 80, 1), second, value);
        place(
            &self.six,
            cpu,
            key6([client, 0, 0, 1], 80, 0, 1),
            second,
            value,
        );
    }

    fn pass(&self, upkeep: &mut Upkeep) -> Report {
        loop {
            if let Some(report) = upkeep.step(&self.four, &self.six, NOW_S, 7) {
                return report;
            }
        }
    }

    /// Values in the IPv4 and the IPv6 tables.
    fn entries(&self) -> (usize, usize) {
        fn used<B: Bucket>(table: &[B]) -> usize {
            let places = table
                .iter()
                .flat_map(|bucket| (0..B::WAYS).map(|way| bucket.value(way)));
            places
                .filter(|value| value.load(Ordering::Relaxed) != 0)
                .count()
        }
        (used(&self.four), used(&self.six))
    }
}

fn place<B: Bucket>(table: &[B], cpu: u32, key: B::Key, second: bool, value: Value) {
    let (first_bucket, second_bucket) = candidates(B::hash(key, GEOMETRY.seed), 64, cpu * 64);
    let bucket = &table[if second { second_bucket } else { first_bucket } as usize];
    let way = (0..B::WAYS).find(|way| bucket.is_free(*way)).unwrap();
    bucket.fill(way, key, value);
}

#[derive(Clone, Copy)]
struct Entry {
    cpu: u32,
    client: u32,
    /// In the second of its two buckets.
    second: bool,
    idle_s: u32,
    state: State,
    flags: u8,
}

const fn entry(cpu: u32, client: u32, idle_s: u32, state: State) -> Entry {
    Entry {
        cpu,
        client,
        second: false,
        idle_s,
        state,
        flags: 0,
    }
}

const fn copy(cpu: u32, client: u32, idle_s: u32, state: State) -> Entry {
    Entry {
        cpu,
        client,
        second: true,
        idle_s,
        state,
        flags: Value::COPY,
    }
}

#[test]
fn what_a_pass_keeps_and_counts() {
    use State::{Close, Established, FinWait, SynReceived, Udp};
    // (entries, kept, active, inactive, what)
    let cases: &[(&[Entry], usize, u64, u64, &str)] = &[
        (&[], 0, 0, 0, "nothing"),
        (&[entry(0, 1, 0, Established)], 1, 1, 0, "a live connection"),
        (
            &[entry(1, 1, 900, Established)],
            1,
            1,
            0,
            "one at its timeout",
        ),
        (
            &[entry(1, 1, 901, Established)],
            0,
            0,
            0,
            "one beyond its timeout",
        ),
        (
            &[entry(0, 1, 60, SynReceived), entry(0, 2, 61, SynReceived)],
            1,
            1,
            0,
            "half-open",
        ),
        (
            &[entry(0, 1, 120, FinWait), entry(0, 2, 121, FinWait)],
            1,
            0,
            1,
            "closing",
        ),
        (
            &[entry(0, 1, 10, Close), entry(0, 2, 11, Close)],
            1,
            0,
            1,
            "reset",
        ),
        (
            &[entry(0, 1, 300, Udp), entry(0, 2, 301, Udp)],
            1,
            0,
            1,
            "UDP",
        ),
        (
            &[entry(0, 1, 0, Established), copy(1, 1, 0, Established)],
            2,
            1,
            0,
            "a copy is not counted",
        ),
        (
            &[entry(1, 1, 0, Established), copy(0, 1, 0, Established)],
            2,
            1,
            0,
            "whichever comes first",
        ),
        (
            &[entry(0, 1, 5, Established), copy(1, 1, 902, Established)],
            2,
            1,
            0,
            "an old copy lives with its original",
        ),
        (
            &[entry(0, 1, 902, Established), copy(1, 1, 5, Established)],
            2,
            1,
            0,
            "an old original lives by its copy",
        ),
        (
            &[entry(0, 1, 902, Established), copy(1, 1, 901, Established)],
            0,
            0,
            0,
            "both too old",
        ),
        (
            &[entry(0, 1, 130, Established), copy(1, 1, 121, FinWait)],
            0,
            0,
            0,
            "the later one knows that it was closed",
        ),
        (
            &[entry(0, 1, 121, Established), copy(1, 1, 121, FinWait)],
            0,
            0,
            0,
            "in the same second too",
        ),
        (
            &[entry(0, 1, 119, Established), copy(1, 1, 121, FinWait)],
            2,
            1,
            0,
            "used after the other side's FIN",
        ),
        (
            &[copy(0, 1, 5, Established), copy(1, 1, 6, Established)],
            2,
            1,
            0,
            "copies that lost their original count once",
        ),
        (
            &[entry(0, 1, 5, Established), entry(1, 1, 901, Established)],
            1,
            1,
            0,
            "an original that another one replaced",
        ),
    ];
    for (entries, kept, active, inactive, what) in cases {
        let tables = Tables::new();
        entries.iter().for_each(|entry| tables.put(entry));
        let mut upkeep = Upkeep::new(GEOMETRY);
        // What a copy says of an original that the walk has passed already is seen in the second pass.
        let freed = tables.pass(&mut upkeep).expired;
        let report = tables.pass(&mut upkeep);
        assert_eq!(tables.entries(), (*kept, *kept), "{what}");
        assert_eq!(freed, 2 * (entries.len() - kept) as u64, "{what}: freed");
        assert_eq!(
            (report.entries4, report.entries6),
            (*kept as u64, *kept as u64),
            "{what}"
        );
        let counts = report.destination(9);
        // The same connections stand in the tables of both families.
        let expected = Counts {
            active: 2 * active,
            inactive: 2 * inactive,
            entries: 2 * *kept as u64,
        };
        assert_eq!(counts, expected, "{what}");
        assert_eq!(
            report.states.iter().sum::<u64>(),
            2 * (active + inactive),
            "{what}: states"
        );
    }
}

#[test]
fn of_two_originals_the_one_used_last_stays() {
    use State::{Close, Established, FinWait};
    // (entries, destination of the second one, kept)
    let cases: &[(&[Entry], u32, usize)] = &[
        (
            &[entry(0, 1, 5, Established), entry(1, 1, 6, Established)],
            9,
            1,
        ),
        (
            &[entry(0, 1, 60, FinWait), entry(1, 1, 6, Established)],
            9,
            1,
        ),
        (
            &[entry(0, 1, 600, Established), entry(1, 1, 6, Close)],
            9,
            1,
        ),
        // Which one cannot be told yet.
        (
            &[entry(0, 1, 5, Established), entry(1, 1, 5, Established)],
            9,
            2,
        ),
        // The older connection's real server may be the one that sends.
        (
            &[entry(0, 1, 5, Established), entry(1, 1, 6, Established)],
            8,
            2,
        ),
        (
            &[entry(0, 1, 60, Established), copy(1, 1, 6, Established)],
            9,
            2,
        ),
        (
            &[copy(0, 1, 60, Established), entry(1, 1, 6, Established)],
            9,
            2,
        ),
    ];
    for (number, (entries, destination, kept)) in cases.iter().enumerate() {
        let tables = Tables::new();
        for (entry, destination) in entries.iter().zip([9, *destination]) {
            tables.put_of(entry, destination);
        }
        let mut upkeep = Upkeep::new(GEOMETRY);
        let passes: Vec<Report> = (0..32).map(|_| tables.pass(&mut upkeep)).collect();
        assert_eq!(tables.entries(), (*kept, *kept), "case {number}");
        let freed: u64 = passes.iter().map(|report| report.expired).sum();
        assert_eq!(freed, 2 * (2 - kept) as u64, "case {number}");
        let latest = entries.iter().map(|entry| entry.idle_s).min();
        let left = tables.four.iter().find_map(|bucket| {
            let values =
                (0..Bucket4::WAYS).map(|way| Value(bucket.value(way).load(Ordering::Relaxed)));
            values
                .filter(|value| value.is_some())
                .map(|value| u32::from(value.idle_s(NOW_S)))
                .min()
        });
        assert!(*kept == 2 || left == latest, "case {number}: {left:?} s");
    }
}

#[test]
fn another_real_servers_entry_keeps_nothing_alive() {
    let tables = Tables::new();
    let value = |destination, idle_s| {
        Value::new(destination, (NOW_S - idle_s) as u16, State::Established, 0)
    };
    place(&tables.four, 0, key4(1, 80, 1), false, value(8, 901));
    place(&tables.four, 1, key4(1, 80, 1), false, value(9, 5));
    let report = tables.pass(&mut Upkeep::new(GEOMETRY));
    assert_eq!((report.expired, tables.entries()), (1, (1, 0)));
    let destinations: Vec<u32> = report.destinations().map(|(id, _)| id).collect();
    assert_eq!(destinations, [9]);
}

#[test]
fn an_unknown_state_is_freed() {
    let tables = Tables::new();
    place(&tables.four, 0, key4(1, 80, 1), false, Value(77 << 48 | 9));
    let report = tables.pass(&mut Upkeep::new(GEOMETRY));
    assert_eq!((report.expired, tables.entries()), (1, (0, 0)));
}

#[test]
fn a_table_shorter_than_said_is_no_disaster() {
    let report = Upkeep::new(GEOMETRY).step(&[], &[], NOW_S, usize::MAX);
    assert_eq!(report, Some(Report::default()));
}

#[test]
fn timeouts_are_the_services() {
    let rule = |timeout_s| EndpointRule {
        timeouts_s: [timeout_s; STATES],
        ..EndpointRule::default()
    };
    // Endpoints 0 to 3; those beyond have the default ones.
    let rules = vec![rule(1), rule(5), EndpointRule::default(), rule(u16::MAX)];
    // (endpoint, state, idle seconds, whether it stays)
    let cases = [
        (1, State::Established, 5, true),
        (1, State::Established, 6, false),
        (1, State::UdpOne, 5, true),
        (1, State::Close, 6, false),
        (2, State::Established, 900, true),
        (2, State::Established, 901, false),
        (4, State::UdpOne, 300, true),
        (4, State::UdpOne, 301, false),
        (u16::MAX, State::Close, 10, true),
        (u16::MAX, State::Close, 11, false),
        // The longest there is.
        (3, State::Established, 43_200, true),
        (3, State::Established, 43_201, false),
        // Used after the clock was read.
        (1, State::Established, -1, true),
        (1, State::Established, -3600, true),
    ];
    for (endpoint, state, idle_s, stays) in cases {
        let tables = Tables::new();
        let seen_s = i64::from(NOW_S) - idle_s;
        let value = Value::new(9, seen_s as u16, state, 0);
        place(&tables.four, 0, key4(1, 80, endpoint), false, value);
        let wide = key6([1, 2, 3, 4], 80, 0, endpoint);
        place(&tables.six, 0, wide, true, value);
        let mut upkeep = Upkeep::new(GEOMETRY);
        upkeep.set_rules(rules.clone());
        let report = tables.pass(&mut upkeep);
        let what = format!("endpoint {endpoint}, {state:?}, idle {idle_s} s");
        let left = u64::from(stays);
        assert_eq!(
            tables.entries(),
            (usize::from(stays), usize::from(stays)),
            "{what}"
        );
        assert_eq!((report.entries4, report.entries6), (left, left), "{what}");
        assert_eq!(report.endpoint(endpoint).entries, 2 * left, "{what}");
        assert_eq!(report.expired, 2 - 2 * left, "{what}");
    }
}

#[test]
fn what_is_gone_is_freed_whatever_its_age() {
    // (endpoint, destination, flags, whether it stays)
    let cases = [
        (1, 9, 0, true),
        (1, 10, 0, false),
        (1, 10, Value::COPY, false),
        (1, 65_535, 0, false),
        (2, 9, 0, false),
        (3, 11, 0, true),
        // Beyond what there can be.
        (1, limits::DESTINATIONS, 0, false),
        (1, u32::MAX, 0, false),
    ];
    for (endpoint, destination, flags, stays) in cases {
        let tables = Tables::new();
        let value = Value::new(destination, NOW_S as u16, State::Established, flags);
        place(&tables.four, 1, key4(1, 80, endpoint), false, value);
        let mut upkeep = Upkeep::new(GEOMETRY);
        upkeep.set_dead(Dead::new([10, 65_535, 1 << 20], [2]));
        let report = tables.pass(&mut upkeep);
        let what = format!("endpoint {endpoint}, destination {destination}");
        assert_eq!(tables.entries().0, usize::from(stays), "{what}");
        assert_eq!(report.removed, u64::from(!stays), "{what}");
        assert_eq!(report.expired, 0, "{what}");
        assert_eq!(report.endpoints().count(), usize::from(stays), "{what}");
        assert_eq!(report.destinations().count(), usize::from(stays), "{what}");
    }
}

#[test]
fn any_number_of_buckets_and_cpus() {
    // (CPUs, buckets of the IPv4 tables, of the IPv6 tables)
    for (cpus, buckets4, buckets6) in [
        (1, 1, 1),
        (1, 2, 3),
        (3, 65, 67),
        (7, 1000, 333),
        (128, 64, 1),
    ] {
        let geometry = Geometry {
            cpus,
            buckets4,
            buckets6,
            seed: 99,
        };
        let four: Vec<Bucket4> = (0..cpus * buckets4).map(|_| Bucket4::default()).collect();
        let six: Vec<Bucket6> = (0..cpus * buckets6).map(|_| Bucket6::default()).collect();
        let value = |flags| Value::new(9, NOW_S as u16, State::Established, flags);
        // An original on the last CPU, copies on all others.
        for cpu in 0..cpus {
            let flags = if cpu + 1 == cpus { 0 } else { Value::COPY };
            let key = key4(7, 80, 1);
            let (first, _) = candidates(Bucket4::hash(key, 99), buckets4, cpu * buckets4);
            four[first as usize].fill(3, key, value(flags));
            let key = key6([7, 8, 9, 10], 80, 0, 1);
            let (_, second) = candidates(Bucket6::hash(key, 99), buckets6, cpu * buckets6);
            // Of one bucket there is no second one.
            let index = second.min(cpu * buckets6 + buckets6 - 1);
            six[index as usize].fill(2, key, value(flags));
        }
        let mut upkeep = Upkeep::new(geometry);
        let report = std::iter::repeat_with(|| upkeep.step(&four, &six, NOW_S, 100))
            .find_map(|report| report)
            .unwrap();
        let what = format!("{cpus} CPUs, {buckets4} and {buckets6} buckets");
        assert_eq!(report.destination(9).active, 2, "{what}");
        assert_eq!(report.destination(9).entries, u64::from(2 * cpus), "{what}");
        assert_eq!(report.copies, u64::from(2 * (cpus - 1)), "{what}");
    }
}
