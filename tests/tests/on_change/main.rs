//! Services that track connections on change only: what is promised to connections, over random sequences of changes and
//! packets. Configurations go through `plan` into tables, packets through the packet path, its connection tables through
//! upkeep; only the kernel is left out.
//!
//! A connection keeps the real server that it began at, as long as that is not gone, if
//!
//! * it is idle for however long in a slot that stays as it is; else for less than the hold time, which is as long as an
//!   established connection has an entry;
//! * of TCP for less than a minute after the first packet that follows a change, until its second one (a half-open entry's
//!   idle time);
//! * of TCP whose client has closed its side for less than two minutes, ten seconds where that was the first packet that
//!   follows a change (idle times of a closing entry);
//! * of UDP that has no entry yet, its real server is in service;
//! * and it is not of those who knew another table: of another director, as long as this one is young.
//!
//! A TCP connection begins at whom the Maglev table has. In a slot that has not changed nothing is entered.

mod world;

use director_tests::packet::build::tcp;
use director_tests::packet::fixture::BOTH;
use proptest::prelude::*;

use world::{CPUS, HOLD_S, SERVERS, World};

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A client begins a connection by this CPU, by TCP or UDP.
    Begin { tcp: bool, cpu: u32 },
    /// A packet of a connection, by this CPU.
    Packet { which: usize, cpu: u32 },
    /// A connection ends.
    End { which: usize },
    /// The client of a connection closes its side, and goes on listening.
    Close { which: usize, cpu: u32 },
    /// An operator gives a real server this weight.
    Weight { server: u8, weight: u32 },
    /// A check takes a real server out, with its connections.
    Down { server: u8 },
    /// A check's first result says whether a real server is up; a later one that it is.
    Verdict { server: u8 },
    /// The file has the real server from now on, or has it no more.
    Configured { server: u8, is: bool },
    /// The file tracks all connections from now on, or those of slots that change.
    Track { all: bool },
    /// Time passes; passes over the tables are made. All connections send whenever so many seconds are over; 0: never.
    Time { seconds: u32, every_s: u32 },
    /// Another director adopts what this one left.
    Restart,
    /// Another node takes over, with nothing but the same configuration.
    Takeover,
}

fn any_event() -> impl Strategy<Value = Event> {
    let server = || 1..=SERVERS;
    let every_s = prop_oneof![Just(0), Just(20), Just(55), Just(200), Just(HOLD_S - 20)];
    prop_oneof![
        8 => (prop::bool::weighted(0.7), 0..CPUS).prop_map(|(tcp, cpu)| Event::Begin { tcp, cpu }),
        16 => (any::<usize>(), 0..CPUS).prop_map(|(which, cpu)| Event::Packet { which, cpu }),
        2 => any::<usize>().prop_map(|which| Event::End { which }),
        2 => (any::<usize>(), 0..CPUS).prop_map(|(which, cpu)| Event::Close { which, cpu }),
        3 => (server(), 0..3_u32).prop_map(|(server, weight)| Event::Weight { server, weight }),
        1 => server().prop_map(|server| Event::Down { server }),
        4 => server().prop_map(|server| Event::Verdict { server }),
        3 => (server(), any::<bool>()).prop_map(|(server, is)| Event::Configured { server, is }),
        1 => any::<bool>().prop_map(|all| Event::Track { all }),
        7 => (1..HOLD_S + 60, every_s).prop_map(|(seconds, every_s)| Event::Time { seconds, every_s }),
        1 => Just(Event::Restart),
        1 => Just(Event::Takeover),
    ]
}

fn happens(world: &mut World, event: Event) -> Result<(), TestCaseError> {
    let of = |which: usize, world: &World| {
        let many = world.connections.len();
        (many > 0).then(|| which % many)
    };
    match event {
        Event::Begin { tcp, cpu } => world.begin(tcp, cpu)?,
        Event::Packet { which, cpu } => {
            if let Some(which) = of(which, world) {
                world.packet(which, tcp::ACK, cpu)?;
            }
        }
        Event::Close { which, cpu } => {
            if let Some(which) = of(which, world) {
                world.packet(which, tcp::FIN | tcp::ACK, cpu)?;
            }
        }
        Event::End { which } => {
            if let Some(which) = of(which, world) {
                world.packet(which, tcp::FIN | tcp::ACK, 0)?;
                world.connections.swap_remove(which);
            }
        }
        Event::Time { seconds, every_s } => {
            // No check takes that long.
            if seconds > 30 {
                world.everybody_is_checked();
            }
            world.time(seconds, every_s)?;
        }
        Event::Restart => world.restart(),
        Event::Takeover => world.takeover(),
        Event::Weight { server, weight } => world.change(server, |it| it.weight = weight),
        Event::Down { server } => world.is_down(server),
        Event::Verdict { server } => world.is_checked(server),
        Event::Configured { server, is } => world.is_configured(server, is),
        Event::Track { all } => world.tracks_all(all),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn connections_keep_their_real_servers_through_changes(
        ipv6 in any::<bool>(),
        checks in any::<bool>(),
        events in proptest::collection::vec(any_event(), 1..80),
    ) {
        let mut world = World::new(BOTH[usize::from(ipv6)], checks);
        for event in events {
            happens(&mut world, event)?;
        }
        world.everything_settles();
    }
}

/// Cost follows the change: of many connections only those are entered that the change concerns.
#[test]
fn what_is_tracked_is_what_changed() {
    for family in BOTH {
        let mut world = World::new(family, false);
        for _ in 0..3 {
            world.pass(1);
        }
        for _ in 0..300 {
            world.begin(true, 0).expect("it begins");
        }
        assert_eq!(world.entries(), 0, "nothing has changed");
        // The fourth of four: a quarter of the slots, and their connections.
        world.is_configured(4, true);
        for which in 0..world.connections.len() {
            world
                .packet(which, tcp::ACK, which as u32 % CPUS)
                .expect("it goes on");
        }
        let entries = world.entries();
        assert!(
            (40..=110).contains(&entries),
            "{entries} of 300 are tracked"
        );
        // Their owner is the new one, and they are not there: as long as they go on, they are tracked.
        world.time(HOLD_S * 3, 20).expect("they go on");
        assert_eq!(world.entries(), entries);
        world.everything_settles();
    }
}

/// A node takes over whose checks have just begun: real servers come up one after the other, and connections of those that are
/// not there yet are not the first one's.
#[test]
fn a_takeover_before_everybody_is_checked() {
    // (in which order the checks' first results come; whether packets come before the first, too)
    for (order, packets_first) in [([1, 2, 3], true), ([3, 1, 2], false)] {
        for family in BOTH {
            let mut world = World::new(family, true);
            world.everybody_is_checked();
            for _ in 0..3 {
                world.pass(1);
            }
            for _ in 0..120 {
                world.begin(true, 0).expect("it begins");
            }
            assert_eq!(world.entries(), 0, "nothing has changed");
            let send = |world: &mut World| {
                for which in 0..world.connections.len() {
                    let sent = world.packet(which, tcp::ACK, which as u32 % CPUS);
                    sent.expect("it goes on");
                }
            };
            world.takeover();
            assert_eq!(world.connections.len(), 120, "all are where they were");
            if packets_first {
                send(&mut world);
            }
            for server in order {
                world.is_checked(server);
                world
                    .begin(false, 0)
                    .expect("a datagram goes to who is there");
                send(&mut world);
                world.pass(1);
            }
            // New flows are not the first one's either.
            let before = world.connections.len();
            for number in 0..150 {
                world.begin(false, number % CPUS).expect("it begins");
            }
            for server in order {
                let flows = world.connections[before..].iter();
                let its = flows.filter(|it| it.server == server).count();
                assert!((25..=80).contains(&its), "{server} has {its} of 150 flows");
            }
            // Nothing is held but for the datagrams of the time when not everybody was there.
            for _ in 0..3 {
                world.pass(1);
            }
            assert!(
                world.marked() <= order.len(),
                "{} are marked",
                world.marked()
            );
            world.everything_settles();
        }
    }
}

/// All real servers are out for longer than slots say who had them, and come back one after the other: nobody has the others'
/// slots because he was the first.
#[test]
fn an_outage_of_everybody() {
    // (seconds between one that comes back and the next)
    for gap_s in [0, 20, HOLD_S / 4] {
        for family in BOTH {
            let mut world = World::new(family, true);
            world.everybody_is_checked();
            for _ in 0..3 {
                world.pass(1);
            }
            for server in [1, 2, 3] {
                world.is_down(server);
            }
            world.time(HOLD_S * 2, 0).expect("nobody sends anything");
            assert_eq!(world.marked(), 0, "it is forgotten who had the slots");
            for server in [3, 1, 2] {
                world.is_checked(server);
                for tcp in [true, false] {
                    world.begin(tcp, 0).expect("it goes to who is there");
                }
                world.time(gap_s, 20).expect("they go on");
            }
            let before = world.connections.len();
            for number in 0..150 {
                world.begin(false, number % CPUS).expect("it begins");
            }
            for server in [1, 2, 3] {
                let flows = world.connections[before..].iter();
                let its = flows.filter(|it| it.server == server).count();
                assert!(
                    (25..=80).contains(&its),
                    "{server} has {its} of 150 flows, {gap_s} s after one another"
                );
            }
            // What is where the table has it needs no marks when the hold time is over.
            world.time(HOLD_S + 60, 20).expect("they go on");
            assert!(world.marked() <= 4, "{} are marked", world.marked());
            world.everything_settles();
        }
    }
}

/// How long a connection whose client has closed its side may be silent, in a slot that has changed.
#[test]
fn a_client_that_has_closed_its_side() {
    // (which packet after the change closes it, seconds for which its entry stands then)
    for (closes, stands_s) in [(1, 10), (2, 120), (3, 120), (4, 120)] {
        for family in BOTH {
            let mut world = World::new(family, false);
            for _ in 0..3 {
                world.pass(1);
            }
            for _ in 0..40 {
                world.begin(true, 0).expect("it begins");
            }
            world.is_configured(4, true);
            let send = |world: &mut World, flags: u8| {
                for which in 0..world.connections.len() {
                    world.packet(which, flags, 0).expect("where it was");
                }
            };
            for _ in 1..closes {
                send(&mut world, tcp::ACK);
            }
            send(&mut world, tcp::FIN | tcp::ACK);
            let entries = world.entries();
            assert!(entries > 0, "some slots have changed");
            world.time(stands_s, 0).expect("nobody sends anything");
            assert_eq!(world.entries(), entries, "packet {closes}: they stand");
            send(&mut world, tcp::ACK);
            world.time(stands_s + 1, 0).expect("nobody sends anything");
            assert_eq!(world.entries(), 0, "packet {closes}: {stands_s} s are over");
        }
    }
}
