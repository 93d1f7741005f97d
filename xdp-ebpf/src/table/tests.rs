//! The table's rules, natively.

use core::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::connection::{Bucket4, Bucket6, key4, key6};
use crate::native::{NativeTables, SharedTables};
use crate::reach::{Narrow, Wide};

const NOW_S: u32 = 50_000;

fn tables(cpus: u32, buckets: u32) -> NativeTables {
    let settings = Settings {
        now_s: NOW_S,
        cpus,
        buckets4: buckets,
        buckets6: buckets,
        seed: 0x0123_4567_89ab_cdef,
        ..Settings::default()
    };
    NativeTables::new(settings, 0)
}

fn established(destination: u32) -> Value {
    Value::new(destination, NOW_S as u16, State::Established, 0)
}

/// Inserts so many connections and counts those that are not found afterwards.
fn lost<S: Shape>(tables: &NativeTables, count: u32, key: impl Fn(u32) -> Key<S>) -> u32 {
    for number in 0..count {
        assert!(insert::<S, _>(
            tables,
            &key(number),
            established(number + 1).0
        ));
    }
    let settings = tables.settings.as_ref().expect("made with settings");
    let missing = (0..count).filter(|number| {
        let found = find::<S, _>(tables, settings, 0, key(*number));
        assert!(
            !found.is_some() || found.value == established(number + 1),
            "connection {number} has another's value"
        );
        !found.is_some()
    });
    missing.count() as u32
}

/// From the smallest number of buckets that works to the largest that fits, at both ends of the hash.
#[test]
fn candidates_are_two_of_the_cpus_own() {
    const HALVES: [u64; 6] = [0, 1, 0x5555_5555, 0x8000_0000, 0xffff_fffe, 0xffff_ffff];
    for buckets in [2, 3, 63, limits::MIN_BUCKETS, 93_750, 1 << 24, 33_554_431] {
        for cpu in [0, 1, limits::CPUS - 1] {
            let base = cpu * buckets;
            for low in HALVES {
                for high in HALVES {
                    let (first, second) = candidates(high << 32 | low, buckets, base);
                    let own = base..base + buckets;
                    let what = format!("{low:#x}, {high:#x} of {buckets} from {base}");
                    assert!(own.contains(&first) && own.contains(&second), "{what}");
                    assert_ne!(first, second, "{what}");
                }
            }
        }
    }
}

/// A table filled to the capacity that it was made for: 24 bytes for an IPv4 and 48 for an IPv6 connection.
#[test]
fn a_table_filled_to_its_capacity_loses_practically_nothing() {
    for capacity in [20_000, 100_001] {
        let buckets = |bytes: u32, bucket: usize| (capacity * bytes).div_ceil(bucket as u32);
        let (four, six) = (
            buckets(24, size_of::<Bucket4>()),
            buckets(48, size_of::<Bucket6>()),
        );
        let cases = [
            (
                "IPv4, random clients",
                lost::<Narrow>(&tables(1, four), capacity, |number| {
                    key4(number.wrapping_mul(0x9e37_79b1), number as u16, 1)
                }),
            ),
            (
                "IPv4, one network with ports in a row",
                lost::<Narrow>(&tables(1, four), capacity, |number| {
                    let port = (1024 + number % 60_000) as u16;
                    key4(0x0a00_0000 + number / 60_000, port.to_be(), 1)
                }),
            ),
            (
                "IPv6",
                lost::<Wide>(&tables(1, six), capacity, |number| {
                    key6([0x20, 1, 2, number], number as u16, 0, 1)
                }),
            ),
        ];
        for (what, lost) in cases {
            assert!(lost <= capacity / 2000, "{what}: {lost} of {capacity} lost");
        }
    }
}

/// Two buckets only, so that everything competes for the same eight places; entries with these values, by their
/// clients' number, and of endpoint 2 where the flag says so.
fn crowd(values: &[(Value, bool)]) -> NativeTables {
    let tables = tables(1, 2);
    for (number, (value, other)) in values.iter().enumerate() {
        assert!(insert::<Narrow, _>(
            &tables,
            &crowd_key(number, *other),
            value.0
        ));
    }
    tables
}

fn crowd_key(number: usize, other: bool) -> u64 {
    key4(number as u32, 1, if other { 2 } else { 1 })
}

#[test]
fn a_full_table_gives_up_what_is_worth_least() {
    let value = |idle_s: u32, state| Value::new(9, (NOW_S - idle_s) as u16, state, 0);
    let full = [
        (value(1, State::Close), false),
        (value(0, State::TimeWait), true),
        (value(7, State::SynReceived), false),
        (value(0, State::UdpOne), false),
        (value(50, State::SynReceived), true),
        (value(800, State::Established), false),
        (value(700, State::Udp), true),
        (value(1, State::Established), false),
    ];
    let tables = crowd(&full);
    let settings = tables.settings.unwrap();
    let finds = |key| find::<Narrow, _>(&tables, &settings, 0, key).is_some();
    for given_up in 0..full.len() {
        let newcomer = 100 + given_up;
        assert!(insert::<Narrow, _>(
            &tables,
            &crowd_key(newcomer, false),
            established(9).0
        ));
        for (number, (value, other)) in full.iter().enumerate() {
            let stands = finds(crowd_key(number, *other));
            assert_eq!(stands, number > given_up, "{number}: {value:?}");
        }
    }
}

#[test]
fn half_open_connections_displace_no_others() {
    let half_open = Value::new(9, NOW_S as u16, State::SynReceived, 0);
    let tables = crowd(&[(established(9), false); 8]);
    let settings = tables.settings.unwrap();
    for newcomer in 100..1000 {
        let key = crowd_key(newcomer, false);
        assert!(!insert::<Narrow, _>(&tables, &key, half_open.0));
    }
    for number in 0..8 {
        let key = crowd_key(number, false);
        assert!(find::<Narrow, _>(&tables, &settings, 0, key).is_some());
    }
    // With one half-open place, a flood of another endpoint takes that, and of its own ones first.
    let mut values = vec![(established(9), false); 6];
    values.extend([(half_open, false), (half_open, true)]);
    let tables = crowd(&values);
    for newcomer in 100..1000 {
        let key = crowd_key(newcomer, true);
        assert!(insert::<Narrow, _>(&tables, &key, half_open.0));
    }
    for number in 0..7 {
        let key = crowd_key(number, false);
        assert!(
            find::<Narrow, _>(&tables, &settings, 0, key).is_some(),
            "{number}"
        );
    }
}

/// A table two thirds full of standing connections, the rest taken by a flood: clients of another endpoint get in, and
/// stay while the flood goes on, though one in twenty finds both of its buckets full of standing connections.
#[test]
fn a_flood_displaces_itself() {
    const STANDING: u32 = 170;
    let half_open = Value::new(9, NOW_S as u16, State::SynReceived, 0).0;
    let tables = tables(1, 64);
    let settings = tables.settings.unwrap();
    let key = |number: u32, endpoint| key4(number.wrapping_mul(0x9e37_79b1), 1, endpoint);
    let finds = |key| find::<Narrow, _>(&tables, &settings, 0, key).is_some();
    for number in 0..STANDING {
        let key = key(number, 1);
        assert!(insert::<Narrow, _>(&tables, &key, established(9).0));
    }
    let mut flooding = 0..;
    let mut flood = |count| {
        for number in flooding.by_ref().take(count) {
            insert::<Narrow, _>(&tables, &key(number, 2), half_open);
        }
    };
    flood(10_000);
    let (mut refused, mut lost) = (0, 0);
    for number in 0..1000 {
        let key = key(number, 3);
        let is_in = insert::<Narrow, _>(&tables, &key, half_open);
        flood(20);
        refused += u32::from(!is_in);
        lost += u32::from(is_in && !finds(key));
        // It goes away again.
        let found = find::<Narrow, _>(&tables, &settings, 0, key);
        if found.is_some() {
            update::<Narrow, _>(&tables, &found, Value::NONE);
        }
    }
    assert_eq!((refused, lost), (0, 0));
    for number in 0..STANDING {
        assert!(finds(key(number, 1)), "{number}");
    }
}

/// Everybody connects at once, as after an outage: half-open ones only, of one endpoint, as in a flood. There is room, so each
/// gets some; and in a table that was full of a flood before, all but a few.
#[test]
fn a_burst_of_handshakes_is_no_flood() {
    const BURST: u32 = 1300;
    let half_open = Value::new(9, NOW_S as u16, State::SynReceived, 0).0;
    // 2048 places: two thirds of them, as many as tables are made for.
    let tables = tables(1, 512);
    let settings = tables.settings.unwrap();
    let key = |number: u32| key4(number.wrapping_mul(0x9e37_79b1), 1, 2);
    let found = |number| find::<Narrow, _>(&tables, &settings, 0, key(number));
    let burst = |first: u32| {
        let burst = first..first + BURST;
        for number in burst.clone() {
            assert!(insert::<Narrow, _>(&tables, &key(number), half_open));
        }
        burst.filter(|number| !found(*number).is_some()).count()
    };
    assert_eq!(burst(0), 0);
    for number in 0..100_000 {
        assert!(insert::<Narrow, _>(&tables, &key(number), half_open));
    }
    for number in 0..100_000 {
        let found = found(number);
        if found.is_some() {
            update::<Narrow, _>(&tables, &found, Value::NONE);
        }
    }
    let lost = burst(200_000);
    assert!(lost < 30, "{lost}");
}

#[test]
fn loads_follow_what_is_inserted_changed_and_given_up() {
    let mut tables = tables(1, 2);
    for id in 1..=3 {
        tables.loads.insert(id, crate::layout::Load::default());
    }
    let counts = |id: u32| {
        let load_of = &tables.loads[&id];
        (load(&load_of.active), load(&load_of.inactive))
    };
    let value = |id, state, flags| Value::new(id, NOW_S as u16, state, flags).0;
    let put = |number, value| insert::<Narrow, _>(&tables, &crowd_key(number, false), value);
    assert!(put(1, value(1, State::Established, 0)));
    assert!(put(2, value(1, State::Close, 0)));
    assert!(put(3, value(1, State::Established, Value::COPY)));
    assert_eq!(counts(1), (1, 1));
    // Another destination, another kind.
    assert!(put(1, value(2, State::Udp, 0)));
    assert_eq!((counts(1), counts(2)), ((0, 1), (0, 1)));
    for number in 4..9 {
        assert!(put(number, value(3, State::Established, 0)));
    }
    assert_eq!((counts(1), counts(3)), ((0, 1), (5, 0)));
    // Full: the closing one gives way.
    assert!(put(9, value(3, State::Established, 0)));
    assert_eq!((counts(1), counts(2), counts(3)), ((0, 0), (0, 1), (6, 0)));
}

#[test]
fn other_cpus_tables_are_searched_and_only_when_asked() {
    let tables = tables(4, 64);
    let settings = tables.settings.unwrap();
    tables.cpu.set(2);
    assert!(insert::<Narrow, _>(
        &tables,
        &key4(1, 2, 3),
        established(9).0
    ));
    tables.cpu.set(0);
    assert!(!find::<Narrow, _>(&tables, &settings, 0, key4(1, 2, 3)).is_some());
    let elsewhere = find_elsewhere::<Narrow, _>(&tables, &key4(1, 2, 3), 0);
    assert_eq!(Value(elsewhere), established(9));
    assert_eq!(find_elsewhere::<Narrow, _>(&tables, &key4(1, 2, 4), 0), 0);
}

#[test]
fn of_several_entries_elsewhere_the_last_used_counts() {
    let tables = tables(4, 64);
    let key = key4(1, 2, 3);
    // (CPU, idle seconds); destinations are the CPUs.
    for cases in [[(1, 50), (2, 3), (3, 9)], [(1, 2), (2, 3), (3, 9)]] {
        for (cpu, idle_s) in cases {
            tables.cpu.set(cpu);
            let value = Value::new(cpu, (NOW_S - idle_s) as u16, State::Established, 0);
            assert!(insert::<Narrow, _>(&tables, &key, value.0));
        }
        tables.cpu.set(0);
        let latest = cases.into_iter().min_by_key(|(_, idle_s)| *idle_s).unwrap();
        let found = Value(find_elsewhere::<Narrow, _>(&tables, &key, 0));
        assert_eq!(found.destination(), latest.0, "{cases:?}");
    }
}

#[test]
fn a_connection_stands_in_a_table_once() {
    fn places(values: impl Iterator<Item = u64>) -> usize {
        values.filter(|value| *value != 0).count()
    }
    let tables = tables(1, 64);
    for destination in 1..=20 {
        let value = established(destination).0;
        assert!(insert::<Narrow, _>(&tables, &key4(1, 2, 3), value));
        assert!(insert::<Wide, _>(
            &tables,
            &key6([1, 2, 3, 4], 5, 0, 6),
            value
        ));
    }
    let settings = tables.settings.unwrap();
    let found = find::<Narrow, _>(&tables, &settings, 0, key4(1, 2, 3));
    assert_eq!(found.value, established(20));
    let found = find::<Wide, _>(&tables, &settings, 0, key6([1, 2, 3, 4], 5, 0, 6));
    assert_eq!(found.value, established(20));
    let four = tables.buckets4().iter().flat_map(|it| &it.values);
    let six = tables.buckets6().iter().flat_map(|it| &it.lines);
    let six = six.flat_map(|it| &it.values);
    assert_eq!(places(four.map(load)), 1);
    assert_eq!(places(six.map(load)), 1);
}

/// One CPU fills and moves, another one looks: it must never take a connection's key for another one's value.
fn look_from_elsewhere<S: Shape>(turns: u32, key: impl Fn(u32) -> Key<S> + Sync) {
    let settings = Settings {
        now_s: NOW_S,
        cpus: 2,
        buckets4: 64,
        buckets6: 64,
        seed: 3,
        ..Settings::default()
    };
    let tables = SharedTables::new(settings, 0);
    // More than there is room for.
    const KEYS: u32 = 400;
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let owner = tables.cpu(0);
            let mut random = 1_u32;
            for _ in 0..turns {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let number = (random >> 16) % KEYS;
                assert!(insert::<S, _>(
                    &owner,
                    &key(number),
                    established(number + 1).0
                ));
            }
            is_done.store(true, Ordering::Relaxed);
        });
        let reader = tables.cpu(1);
        let (mut found, mut wrong) = (0_u64, 0_u64);
        while !is_done.load(Ordering::Relaxed) {
            for number in 0..KEYS {
                let value = Value(find_elsewhere::<S, _>(&reader, &key(number), 1));
                found += u64::from(value.is_some());
                wrong += u64::from(value.is_some() && value.destination() != number + 1);
            }
        }
        assert_eq!(wrong, 0, "of {found} found");
    });
}

#[test]
fn another_cpu_finds_the_right_value_or_none() {
    look_from_elsewhere::<Narrow>(1_000_000, |number| key4(number, 1, 1));
    look_from_elsewhere::<Wide>(1_000_000, |number| key6([number, 2, 3, 4], 5, 0, 6));
}

/// What stands in this CPU's table, what a peer tells, what comes of it.
#[test]
fn a_peers_connection_takes_the_place_of_what_is_older() {
    use crate::layout::learned::{KNOWN_BETTER, TAKEN};
    const LEARNED: u8 = Value::LEARNED | Value::SENT;
    let seen = |idle: u16| NOW_S as u16 - idle;
    let own = |to, idle, state| Some(Value::new(to, seen(idle), state, 0));
    let peers = |to, idle, state| Value::new(to, seen(idle), state, LEARNED);
    use State::{Established, FinWait, TimeWait};
    let rows = [
        ("nothing stands here", None, peers(7, 3, Established), TAKEN),
        (
            "own, used later",
            own(8, 2, Established),
            peers(7, 3, FinWait),
            KNOWN_BETTER,
        ),
        (
            "own, used in the same second",
            own(8, 3, Established),
            peers(7, 3, FinWait),
            KNOWN_BETTER,
        ),
        (
            "own, used before",
            own(8, 4, TimeWait),
            peers(7, 3, Established),
            TAKEN,
        ),
        (
            "learned before",
            Some(peers(8, 3, TimeWait)),
            peers(7, 3, Established),
            TAKEN,
        ),
        (
            "a copy, used before",
            Some(Value::new(7, seen(9), Established, Value::COPY)),
            peers(7, 3, FinWait),
            TAKEN,
        ),
    ];
    for (what, standing, told, outcome) in rows {
        let mut tables = tables(1, 64);
        for counted in [7, 8] {
            tables.loads.insert(counted, crate::layout::Load::default());
        }
        let key = key4(1, 2, 3);
        if let Some(standing) = standing {
            assert!(insert::<Narrow, _>(&tables, &key, standing.0), "{what}");
        }
        assert_eq!(
            learn::learn::<Narrow, _>(&tables, &key, told.0),
            outcome,
            "{what}"
        );
        let settings = tables.settings.as_ref().expect("made with settings");
        let found = find::<Narrow, _>(&tables, settings, 0, key).value;
        let copy = standing.map_or(0, |it| it.flags() & Value::COPY);
        let expected = if outcome == TAKEN {
            told.with(copy)
        } else {
            standing.unwrap_or(Value::NONE)
        };
        assert_eq!(found, expected, "{what}");
        let count = |it: u32| {
            let one = tables.load(it).expect("just put there");
            load(&one.active).wrapping_add(load(&one.inactive))
        };
        let counted = u64::from(expected.flags() & Value::COPY == 0);
        let other = if expected.destination() == 7 { 8 } else { 7 };
        if standing.is_none_or(|it| it.flags() & Value::COPY == 0) {
            assert_eq!(
                (count(expected.destination()), count(other)),
                (counted, 0),
                "{what}"
            );
        }
    }
}
