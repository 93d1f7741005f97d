//! Tables in ordinary memory: what passes find, and where peers' connections go.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use xdp_ebpf::connection::{Value, key4, key6};
use xdp_ebpf::layout::{self, Learn, Settings, learned, method};
use xdp_ebpf::native::SharedTables;
use xdp_ebpf::reach::{Narrow, Wide};
use xdp_ebpf::state::State;
use xdp_ebpf::table as path;
use xdp_ebpf::walk::idle_s;

use super::*;
use crate::directory::{Directory, Endpoint, Handle};
use crate::entry::{How, Record};
use crate::machine::Class;

const CPUS: u32 = 3;
const BUCKETS: u32 = 64;
const NOW_S: u32 = 70_000;

fn tables() -> SharedTables {
    let settings = Settings {
        now_s: NOW_S,
        cpus: CPUS,
        buckets4: BUCKETS,
        buckets6: BUCKETS,
        seed: 5,
        ..Settings::default()
    };
    SharedTables::new(settings, 16)
}

fn view(tables: &SharedTables) -> View<'_> {
    View {
        table4: tables.buckets4(),
        table6: tables.buckets6(),
        cpus: CPUS,
        buckets4: BUCKETS,
        buckets6: BUCKETS,
        seed: 5,
        now_s: tables.now_s(),
        takes_new: true,
    }
}

/// One service with real servers 1 to 8.
fn directory() -> Directory {
    let endpoint = Endpoint::new(layout::Endpoint {
        address: [198, 51, 100, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        port: 80_u16.to_be_bytes(),
        last_port: 80_u16.to_be_bytes(),
        service: 1,
        protocol: 6,
        family: 4,
    });
    let server = |id: u8| layout::Destination {
        method: method::NAT,
        port: 80_u16.to_be_bytes(),
        service: 1,
        address: [10, 0, 0, id, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ..layout::Destination::default()
    };
    Directory::new(
        [(1, endpoint)],
        (1..=8_u8).map(|id| (u32::from(id), server(id))),
    )
}

fn key(client: u8) -> u64 {
    key4(u32::from_ne_bytes([192, 0, 2, client]), 7_u16.to_be(), 1)
}

fn client(client: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, client], 7))
}

fn put(tables: &SharedTables, cpu: u32, client: u8, value: Value) {
    let cpu = tables.cpu(cpu);
    assert!(path::insert::<Narrow, _>(&cpu, &key(client), value.0));
}

fn value(server: u32, idle_s: u32, state: State, flags: u8) -> Value {
    Value::new(server, (NOW_S - idle_s) as u16, state, flags)
}

/// What a pass tells, a second after the one before: client's last byte, state, class.
fn pass(
    scanner: &mut Scanner,
    tables: &SharedTables,
    budget: usize,
) -> (Vec<(u8, State, Class)>, usize) {
    pass_after(scanner, tables, Duration::from_secs(1), budget)
}

fn pass_after(
    scanner: &mut Scanner,
    tables: &SharedTables,
    passed: Duration,
    budget: usize,
) -> (Vec<(u8, State, Class)>, usize) {
    let mut told = Vec::new();
    let left = std::cell::Cell::new(budget);
    let left_for_later = scanner.pass(
        &view(tables),
        &directory(),
        passed,
        |_| left.get(),
        |class, some| {
            left.set(left.get() - some.len());
            for (_, record) in some {
                let Record::Entry(entry) = record else {
                    panic!("there are no templates in these tables");
                };
                let SocketAddr::V4(client) = entry.client else {
                    panic!("clients of this test are IPv4 ones");
                };
                told.push((client.ip().octets()[3], entry.state, class));
            }
        },
    );
    told.sort_by_key(|told| told.0);
    (told, left_for_later)
}

#[test]
fn a_pass_tells_what_changed_and_tells_it_once() {
    use State::{Close, Established, FinWait, SynReceived, TimeWait, Udp, UdpOne};
    let tables = tables();
    let rows = [
        (
            1,
            value(1, 5, Established, 0),
            Some((Established, Class::New)),
        ),
        (2, value(1, 5, Udp, 0), Some((Udp, Class::New))),
        (3, value(1, 5, FinWait, 0), Some((FinWait, Class::Change))),
        (4, value(1, 5, TimeWait, 0), Some((TimeWait, Class::Change))),
        (
            5,
            value(1, 5, Close, Value::COPY),
            Some((Close, Class::Change)),
        ),
        // Half-open ones nobody is told of.
        (6, value(1, 5, SynReceived, 0), None),
        (7, value(1, 5, UdpOne, 0), None),
        // Of these peers know, or know better.
        (8, value(1, 5, Established, Value::SENT), None),
        (
            9,
            value(1, 5, Established, Value::SENT | Value::LEARNED),
            None,
        ),
        // Of a real server that has no name.
        (10, value(9, 5, Established, 0), None),
    ];
    for (client, value, _) in rows {
        put(&tables, u32::from(client) % CPUS, client, value);
    }
    let expected: Vec<_> = rows
        .iter()
        .filter_map(|(client, _, told)| told.map(|(state, class)| (*client, state, class)))
        .collect();
    let mut scanner = Scanner::default();
    assert_eq!(pass(&mut scanner, &tables, 100), (expected, 0));
    assert_eq!(pass(&mut scanner, &tables, 100), (vec![], 0));

    // The packet path moves one on, as it does on a hit.
    let cpu = tables.cpu(1);
    let found = path::find::<Narrow, _>(&cpu, cpu.settings(), 1, key(1));
    let next = Value::new(1, NOW_S as u16, FinWait, found.value.flags()).in_place_of(found.value);
    path::update::<Narrow, _>(&cpu, &found, next);
    assert_eq!(
        pass(&mut scanner, &tables, 100).0,
        [(1, FinWait, Class::Change)]
    );
}

#[test]
fn the_most_valuable_first_and_nothing_is_lost() {
    let tables = tables();
    for number in 1..=30 {
        let state = if number % 3 == 0 {
            State::Established
        } else {
            State::TimeWait
        };
        put(
            &tables,
            u32::from(number) % CPUS,
            number,
            value(1, 0, state, 0),
        );
    }
    let mut scanner = Scanner::default();
    let mut told = Vec::new();
    for (budget, left) in [(0, 30), (4, 26), (10, 16), (16, 0), (5, 0)] {
        let (some, left_for_later) = pass(&mut scanner, &tables, budget);
        assert_eq!(left_for_later, left, "with a budget of {budget}");
        told.extend(some);
    }
    let classes: Vec<Class> = told.iter().map(|told| told.2).collect();
    assert_eq!(classes[..4], [Class::New; 4]);
    assert_eq!(
        classes.iter().filter(|class| **class == Class::New).count(),
        10
    );
    let clients: BTreeMap<u8, usize> = told.iter().fold(BTreeMap::new(), |mut all, told| {
        *all.entry(told.0).or_default() += 1;
        all
    });
    assert!(
        clients.len() == 30 && clients.values().all(|times| *times == 1),
        "{clients:?}"
    );
}

/// More changes all the time than may be told: each has its turn, wherever it stands.
#[test]
fn overload_delays_everybody_alike() {
    const CLIENTS: u8 = 60;
    const AT_ONCE: usize = 5;
    let tables = tables();
    let change = || {
        for number in 1..=CLIENTS {
            let established = value(1, 0, State::Established, 0);
            put(&tables, u32::from(number) % CPUS, number, established);
        }
        let wide = key6([1, 2, 3, 4], 7_u16.to_be(), 0, 2);
        let established = value(9, 0, State::Established, 0);
        assert!(path::insert::<Wide, _>(
            &tables.cpu(0),
            &wide,
            established.0
        ));
    };
    let mut scanner = Scanner::default();
    let mut told = BTreeMap::new();
    for _ in 0..3 * usize::from(CLIENTS) / AT_ONCE {
        change();
        for (client, ..) in pass(&mut scanner, &tables, AT_ONCE).0 {
            *told.entry(client).or_insert(0) += 1;
        }
    }
    // Three are one's share; who stands in a bucket that a pass ended in may be told twice for one of the others.
    let most = told.values().max().copied().unwrap_or(0);
    assert!(told.len() == usize::from(CLIENTS) && most <= 6, "{told:?}");
}

/// Each entry in use once in its period (established: 60 s of 900), also when passes leave seconds out.
#[test]
fn what_is_used_is_refreshed() {
    for step in [1, 3, 7] {
        let tables = tables();
        for number in 1..=40 {
            let flags = if number > 30 {
                Value::SENT | Value::LEARNED
            } else {
                Value::SENT
            };
            put(
                &tables,
                u32::from(number) % CPUS,
                number,
                value(1, 0, State::Established, flags),
            );
        }
        let mut scanner = Scanner::default();
        assert_eq!(pass(&mut scanner, &tables, 100).0, []);
        let mut told: BTreeMap<u8, u32> = BTreeMap::new();
        let mut passed_s = 0;
        while passed_s + step <= 60 {
            passed_s += step;
            tables.set_now_s(NOW_S + passed_s);
            for (client, _, class) in pass(&mut scanner, &tables, 100).0 {
                assert_eq!(class, Class::Refresh);
                *told.entry(client).or_default() += 1;
            }
        }
        let expected = if 60 % step == 0 { 30 } else { 25 };
        assert!(
            told.len() >= expected && told.values().all(|times| *times == 1),
            "{step} s: {told:?}"
        );
        assert!(told.keys().all(|client| *client <= 30), "{told:?}");
        // From then on nobody uses them.
        tables.set_now_s(NOW_S + 62);
        pass(&mut scanner, &tables, 100);
        for passed_s in 63..130 {
            tables.set_now_s(NOW_S + passed_s);
            assert_eq!(pass(&mut scanner, &tables, 100).0, [], "after {passed_s} s");
        }
    }
}

/// However often passes come, each entry in use is told once in its period.
#[test]
fn refreshing_is_spread_over_the_second() {
    const CLIENTS: u8 = 200;
    for every_ms in [40, 100, 250, 1000] {
        let tables = tables();
        for number in 1..=CLIENTS {
            let established = value(1, 0, State::Established, Value::SENT);
            put(&tables, u32::from(number) % CPUS, number, established);
        }
        let mut scanner = Scanner::default();
        let mut told: BTreeMap<u8, u32> = BTreeMap::new();
        // A round without a period's turn, then one period.
        for passed_ms in (0_u32..=61_000).step_by(every_ms) {
            tables.set_now_s(NOW_S + passed_ms / 1000);
            let passed = Duration::from_millis(every_ms as u64);
            let some = pass_after(&mut scanner, &tables, passed, 1000).0;
            for (client, _, class) in some {
                assert_eq!(class, Class::Refresh);
                *told.entry(client).or_default() += 1;
            }
        }
        let once = told.values().filter(|times| **times == 1).count();
        assert!(
            told.len() == usize::from(CLIENTS) && once * 10 >= told.len() * 9,
            "every {every_ms} ms: {told:?}"
        );
    }
}

/// More in use all the time than may be told: each has its turn, wherever it stands, later than it would.
#[test]
fn refreshes_beyond_the_budget_go_on_where_they_stopped() {
    const CLIENTS: u8 = 200;
    // Milliseconds between passes, and how much each may tell: less than the 200 that are due in 60 s, or just as much.
    for (every_ms, budget) in [(1000, 1), (1000, 3), (250, 1), (5000, 4), (7000, 100)] {
        let what = format!("{budget} every {every_ms} ms");
        let tables = tables();
        let mut scanner = Scanner::default();
        let mut told: BTreeMap<u8, u32> = BTreeMap::new();
        let mut waited = 0;
        let rounds = (3 * u32::from(CLIENTS) / budget).max(4 * 60_000 / every_ms);
        for passed_ms in (0..rounds * every_ms).step_by(every_ms as usize) {
            let now_s = NOW_S + passed_ms / 1000;
            tables.set_now_s(now_s);
            for number in 1..=CLIENTS {
                let used = Value::new(1, now_s as u16, State::Established, Value::SENT);
                put(&tables, u32::from(number) % CPUS, number, used);
            }
            let passed = Duration::from_millis(u64::from(every_ms));
            let (some, left) = pass_after(&mut scanner, &tables, passed, budget as usize);
            assert!(some.len() <= budget as usize, "{what}");
            waited += left;
            for (client, _, class) in some {
                assert_eq!(class, Class::Refresh);
                *told.entry(client).or_default() += 1;
            }
        }
        let (least, most) = (told.values().min(), told.values().max());
        assert!(
            told.len() == usize::from(CLIENTS) && least >= Some(&2) && most <= Some(&6),
            "{what}: {} told, {told:?}",
            told.len()
        );
        assert_eq!(waited > 0, budget < 100, "{what}: {waited}");
    }
}

/// What other CPUs know of a connection is told with it.
#[test]
fn the_cpu_that_saw_it_last_is_right() {
    let tables = tables();
    put(&tables, 0, 1, value(1, 9, State::Established, 0));
    put(&tables, 1, 1, value(1, 4, State::FinWait, Value::COPY));
    put(&tables, 2, 1, value(1, 4, State::Established, Value::COPY));
    let told = pass(&mut Scanner::default(), &tables, 100).0;
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|told| told.1 == State::FinWait), "{told:?}");
    let found = look_up(&view(&tables), &directory(), Handle::Narrow(key(1)));
    let (found, is_learned) = found.expect("it stands there");
    assert!(!is_learned);
    assert_eq!(
        (found.client, found.state, found.idle_s),
        (client(1), State::FinWait, 4)
    );
    assert_eq!(
        look_up(&view(&tables), &directory(), Handle::Narrow(key(2))),
        None
    );
}

#[test]
fn a_walk_tells_each_connection_once() {
    let tables = tables();
    for number in 1..=60 {
        let flags = if number % 2 == 0 {
            Value::LEARNED | Value::SENT
        } else {
            Value::SENT
        };
        let cpu = u32::from(number) % CPUS;
        put(&tables, cpu, number, value(1, 9, State::Established, flags));
        if number % 3 == 0 {
            let copy = value(1, 2, State::Established, Value::COPY);
            put(&tables, (cpu + 1) % CPUS, number, copy);
        }
    }
    put(&tables, 0, 99, value(1, 0, State::SynReceived, 0));
    for (wanted, buckets) in [(1, 1), (7, 1000), (1000, 1000), (1000, 13)] {
        let mut found = BTreeMap::new();
        let mut from = 0;
        loop {
            let piece = piece(&view(&tables), &directory(), from, wanted, buckets);
            for (entry, is_learned) in piece.entries {
                assert_eq!(
                    found.insert(entry.client, (entry.idle_s, is_learned)),
                    None,
                    "{entry:?}"
                );
            }
            match piece.next {
                Some(next) => from = next,
                None => break,
            }
        }
        let expected: BTreeMap<_, _> = (1..=60)
            .map(|number| {
                // A copy in use here makes it this node's.
                let idle_s = if number % 3 == 0 { 2 } else { 9 };
                (client(number), (idle_s, number % 2 == 0 && number % 3 != 0))
            })
            .collect();
        assert_eq!(
            found, expected,
            "{wanted} entries and {buckets} buckets at a time"
        );
    }
}

/// Has a CPU learn, as the program does.
fn learn(tables: &SharedTables, cpu: u32, order: &Learn) {
    assert_eq!(order.table, layout::learn::NARROW);
    let outcome = path::learn::learn::<Narrow, _>(&tables.cpu(cpu), &order.key[0], order.value);
    assert_eq!(outcome, learned::TAKEN);
}

/// What stands here by CPU; what is told: its real server and idle time, and how; what stands here then.
#[test]
fn a_peers_connection_goes_where_it_stands_already() {
    const LEARNED: u8 = Value::LEARNED | Value::SENT;
    let own = |server, idle_s| value(server, idle_s, State::Established, Value::SENT);
    let copy = |server, idle_s| value(server, idle_s, State::Established, Value::COPY);
    let peers = |server, idle_s| value(server, idle_s, State::Established, LEARNED);
    type Standing<'a> = &'a [(u32, Value)];
    type Told = (u32, u16, How);
    let rows: [(&str, Standing<'_>, Told, Standing<'_>); 9] = [
        (
            "newer than an own one",
            &[(2, own(1, 9))],
            (2, 3, How::Live),
            &[(2, peers(2, 3))],
        ),
        (
            "older than an own one",
            &[(2, own(1, 3))],
            (2, 9, How::Live),
            &[(2, own(1, 3))],
        ),
        (
            "in the same second as an own one",
            &[(2, own(1, 3))],
            (2, 3, How::Live),
            &[(2, own(1, 3))],
        ),
        (
            "newer than original and copy",
            &[(0, copy(1, 9)), (1, own(1, 8))],
            (2, 3, How::Live),
            &[(1, peers(2, 3))],
        ),
        (
            "between original and copy",
            &[(0, copy(1, 1)), (1, own(1, 8))],
            (2, 3, How::Live),
            &[(0, copy(1, 1)), (1, own(1, 8))],
        ),
        (
            "again",
            &[(1, peers(2, 5))],
            (2, 5, How::Live),
            &[(1, peers(2, 5))],
        ),
        (
            "again, later, of the same real server",
            &[(1, peers(2, 5))],
            (2, 6, How::Bulk),
            &[(1, peers(2, 5))],
        ),
        (
            "of another real server",
            &[(1, peers(1, 5))],
            (2, 5, How::Live),
            &[(1, peers(2, 5))],
        ),
        (
            "from hearsay",
            &[(1, peers(1, 5))],
            (2, 5, How::SecondHand),
            &[(1, peers(1, 5))],
        ),
    ];
    let directory = directory();
    for (what, standing, (server, idle_of_it_s, how), expected) in rows {
        let tables = tables();
        for (cpu, value) in standing {
            put(&tables, *cpu, 1, *value);
        }
        let mut entry = directory
            .entry(Handle::Narrow(key(1)), own(server, 0), NOW_S)
            .expect("it has a name");
        entry.idle_s = idle_of_it_s;
        let wish = Wish {
            numbered: directory.number(&entry).expect("it is known"),
            state: entry.state,
            idle_s: entry.idle_s,
            how,
        };
        if let Placed::On(cpu, order) = place(&view(&tables), &wish) {
            learn(&tables, cpu, &order);
        }
        let found: Vec<(u32, Value)> = super::walk::all(&view(&tables).narrow(), key(1)).collect();
        assert_eq!(found, expected, "{what}");
    }
}

/// Nothing stands here: each goes to one CPU, and they go to all of them.
#[test]
fn peers_connections_are_spread_over_the_cpus() {
    let tables = tables();
    let directory = directory();
    let mut by_cpu = BTreeMap::new();
    for number in 1..=200 {
        let entry = directory
            .entry(
                Handle::Narrow(key(number)),
                value(3, 0, State::Established, 0),
                NOW_S,
            )
            .expect("it has a name");
        let wish = Wish {
            numbered: directory.number(&entry).expect("it is known"),
            state: entry.state,
            idle_s: 7,
            how: How::Bulk,
        };
        let Placed::On(cpu, order) = place(&view(&tables), &wish) else {
            panic!("nobody knows better");
        };
        learn(&tables, cpu, &order);
        *by_cpu.entry(cpu).or_insert(0) += 1;
        // Asked again it goes to the same.
        assert!(matches!(place(&view(&tables), &wish), Placed::On(again, _) if again == cpu));
    }
    assert!(
        by_cpu.len() == CPUS as usize && by_cpu.values().all(|count| *count > 40),
        "{by_cpu:?}"
    );
    let mut scanner = Scanner::default();
    assert_eq!(
        pass(&mut scanner, &tables, 1000).0,
        [],
        "what was learned is not told on"
    );
}

/// The peer's connection has gone on at a real server that nobody here knows.
#[test]
fn what_is_no_longer_right_is_forgotten() {
    let tables = tables();
    put(
        &tables,
        0,
        1,
        value(1, 5, State::Established, Value::LEARNED | Value::SENT),
    );
    put(&tables, 1, 2, value(1, 5, State::Established, 0));
    for number in [1, 2, 3] {
        forget(&view(&tables), Handle::Narrow(key(number)), 5, How::Live);
    }
    let stands = |number| super::walk::all(&view(&tables).narrow(), key(number)).count();
    assert_eq!([1, 2, 3].map(stands), [0, 1, 0]);
    assert_eq!(idle_s(value(1, 5, State::Udp, 0), NOW_S), 5);
}
