//! Real threads: two CPUs that handle packets, and upkeep that frees under their hands.
//!
//! What must hold (the head of `xdp_ebpf::connection`): only a table's owner writes its keys; a connection that was used
//! within its timeout is there; no entry ever names another connection's destination; and once all is quiet, one pass
//! makes the live counts exact.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use xdp_ebpf::connection::Value;
use xdp_ebpf::layout::Settings;
use xdp_ebpf::native::SharedTables;
use xdp_ebpf::reach::{Narrow, Wide};
use xdp_ebpf::state::{STATES, State};
use xdp_ebpf::table;

use super::super::{EndpointRule, loads};
use super::random::Random;
use super::tables::{
    Numbered, START_S, counted, entries, foreign_packet, live, packet, pass, settings, upkeep,
};

const CPUS: u32 = 2;
const DESTINATIONS: u32 = 97;
const TIMEOUT_S: u16 = 5;
/// Operations of each CPU in a case: two million of all, at the least.
const OPERATIONS: u32 = 260_000;
/// They go on until each has met so many races: who gets how much of the machine is not for a test to say.
const ENOUGH: u64 = 1000;
/// But no longer than this.
const MOST_OPERATIONS: u32 = 100 * OPERATIONS;
/// So many seconds the tables' clock may run ahead of the time that upkeep goes by, should nobody let it run. An hour is
/// what upkeep allows.
const MOST_AHEAD_S: u32 = 1000;
/// Operations of CPU 0 in a second of the tables' clock.
const OPERATIONS_IN_A_SECOND: u32 = 100;

/// Everybody knows which destination a connection has.
fn destination(number: u32) -> u32 {
    1 + number.wrapping_mul(0x9e37_79b1) % DESTINATIONS
}

struct Case {
    what: &'static str,
    buckets: u32,
    /// Connections of each CPU.
    connections: u32,
    /// Whether there is room for all, copies of the other CPU's too.
    has_room: bool,
}

/// What all threads tell each other besides the tables.
struct Progress {
    /// CPUs that are not done.
    running: AtomicU32,
    /// Threads that have not met enough races.
    unmet: AtomicU32,
    /// The time that upkeep goes by.
    walked_s: AtomicU32,
}

/// One CPU's life. Gives how many of its connections it found freed, and how many of the other one's it copied.
fn live_as(
    tables: &SharedTables,
    own: u32,
    case: &Case,
    progress: &Progress,
    packets: fn(&mut Life<'_>),
) -> (u64, u64) {
    let mut life = Life {
        tables,
        cpu: tables.cpu(own),
        own,
        first: own * case.connections,
        case,
        random: Random::new(u64::from(own) + 1),
        used: HashMap::new(),
        freed: 0,
        copied: 0,
    };
    let mut is_unmet = true;
    for turn in 0..MOST_OPERATIONS {
        if own == 0 && turn % OPERATIONS_IN_A_SECOND == 0 {
            let now_s = tables.now_s();
            if now_s - progress.walked_s.load(Ordering::SeqCst) < MOST_AHEAD_S {
                tables.set_now_s(now_s + 1);
            }
        }
        life.cpu.read_clock();
        packets(&mut life);
        if turn < OPERATIONS {
            continue;
        }
        if is_unmet && life.freed.min(life.copied) > ENOUGH {
            is_unmet = false;
            progress.unmet.fetch_sub(1, Ordering::Relaxed);
        }
        if progress.unmet.load(Ordering::Relaxed) == 0 {
            break;
        }
    }
    (life.freed, life.copied)
}

struct Life<'t> {
    tables: &'t SharedTables,
    cpu: xdp_ebpf::native::Cpu<'t>,
    own: u32,
    /// Number of its first connection.
    first: u32,
    case: &'t Case,
    random: Random,
    /// When its connections were last used.
    used: HashMap<u32, u32>,
    freed: u64,
    copied: u64,
}

impl Life<'_> {
    fn settings(&self) -> Settings {
        *self.cpu.settings()
    }

    /// One packet.
    fn packet<S: Numbered>(&mut self) {
        let Case {
            connections,
            what,
            has_room,
            ..
        } = *self.case;
        let choice = self.random.below(8);
        let client = self.random.below(connections);
        if choice == 0 {
            let others = (CPUS - 1 - self.own) * connections;
            let number = others + client;
            let found = foreign_packet::<S>(&self.cpu, number);
            self.copied += u64::from(found.is_some());
            assert!(
                !found.is_some() || found.destination() == destination(number),
                "{what}: {number} of the other CPU has another's destination"
            );
            return;
        }
        let number = self.first + client;
        let settings = self.settings();
        let found = table::find::<S, _>(&self.cpu, &settings, self.own, S::key(number)).value;
        // Read after the look: upkeep went by this time at the most.
        let now_s = self.tables.now_s();
        if found.is_some() {
            assert_eq!(found.destination(), destination(number), "{what}: {number}");
        } else if let Some(used_s) = self.used.get(&number) {
            let idle_s = now_s - used_s;
            assert!(
                !has_room || idle_s > u32::from(TIMEOUT_S),
                "{what}: {number} is lost after {idle_s} s"
            );
            self.freed += 1;
        }
        let state = match choice {
            1 => State::SynReceived,
            2 => State::FinWait,
            _ => State::Established,
        };
        let stands = packet::<S>(&self.cpu, number, destination(number), state);
        assert!(
            stands.is_some() || !has_room,
            "{what}: no room for {number}"
        );
        if stands.is_none() {
            self.used.remove(&number);
            return;
        }
        self.used.insert(number, settings.now_s);
        let found = table::find::<S, _>(&self.cpu, &settings, self.own, S::key(number)).value;
        let is_fresh = self.tables.now_s() - settings.now_s <= u32::from(TIMEOUT_S);
        assert!(
            found.is_some() || !is_fresh,
            "{what}: {number} is lost as soon as it was used"
        );
    }
}

fn check<S: Numbered>(case: &Case) {
    let what = case.what;
    let settings = settings(CPUS, case.buckets);
    let tables = SharedTables::new(settings, DESTINATIONS + 1);
    let mut upkeep = upkeep(&settings);
    upkeep.set_rules(vec![
        EndpointRule {
            timeouts_s: [TIMEOUT_S; STATES],
            ..EndpointRule::default()
        };
        2
    ]);
    let progress = Progress {
        running: AtomicU32::new(CPUS),
        unmet: AtomicU32::new(CPUS + 1),
        walked_s: AtomicU32::new(START_S),
    };
    let (expired, passes) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CPUS)
            .map(|own| {
                let (tables, progress) = (&tables, &progress);
                scope.spawn(move || {
                    // Also when an assertion fails.
                    let _ends = Ends(&progress.running);
                    live_as(tables, own, case, progress, |life| life.packet::<S>())
                })
            })
            .collect();
        let (mut expired, mut passes) = (0, 0_u64);
        while progress.running.load(Ordering::Relaxed) > 0 {
            let begun = loads::snapshot(tables.loads(), 1..=DESTINATIONS);
            progress.walked_s.store(tables.now_s(), Ordering::SeqCst);
            let report = pass(&mut upkeep, &tables);
            loads::correct(tables.loads(), &begun, &report);
            passes += 1;
            if expired <= ENOUGH && expired + report.expired > ENOUGH {
                progress.unmet.fetch_sub(1, Ordering::Relaxed);
            }
            expired += report.expired;
        }
        for thread in threads {
            let (freed, copied) = thread.join().unwrap();
            assert!(freed > ENOUGH, "{what}: only {freed} were freed in use");
            assert!(copied > ENOUGH, "{what}: only {copied} were copied");
        }
        (expired, passes)
    });
    println!("{what}: {passes} passes freed {expired} entries");
    assert!(expired > ENOUGH, "{what}: only {expired} expired");

    let per_cpu = S::table(&tables).len() / CPUS as usize;
    for (index, number, value) in entries::<S>(&tables) {
        let owner = number / case.connections;
        let is_copy = value.flags() & Value::COPY != 0;
        assert_eq!(
            is_copy,
            (index / per_cpu) as u32 != owner,
            "{what}: {number} in bucket {index}"
        );
        assert_eq!(value.destination(), destination(number), "{what}: {number}");
    }

    let begun = loads::snapshot(tables.loads(), 1..=DESTINATIONS);
    let report = pass(&mut upkeep, &tables);
    loads::correct(tables.loads(), &begun, &report);
    let exact = counted::<S>(&tables);
    for destination in 1..=DESTINATIONS {
        assert_eq!(
            live(&tables.loads()[destination as usize]),
            exact.get(&destination).copied().unwrap_or_default(),
            "{what}: destination {destination}"
        );
    }
}

/// One CPU less is running.
struct Ends<'a>(&'a AtomicU32);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn two_cpus_and_upkeep_at_the_same_time() {
    let cases = [
        Case {
            what: "room for all",
            buckets: 1024,
            connections: 800,
            has_room: true,
        },
        Case {
            what: "crowded",
            buckets: 100,
            connections: 800,
            has_room: false,
        },
    ];
    for case in &cases {
        check::<Narrow>(case);
        check::<Wide>(case);
    }
}
