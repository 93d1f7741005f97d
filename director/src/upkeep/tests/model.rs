//! One CPU's table against a plain map that knows what was put in: random connections, packets, time, evictions, upkeep.

use std::collections::{BTreeMap, HashMap};

use xdp_ebpf::atomic::load;
use xdp_ebpf::connection::{Bucket, CLOSING, EXPENDABLE, OWN, Value};
use xdp_ebpf::native::{Cpu, SharedTables};
use xdp_ebpf::reach::{Narrow, Wide};
use xdp_ebpf::state::{State, TIMEOUTS_S};
use xdp_ebpf::table::{self, ASKED, FUTILE, ONE_OF, candidates};

use super::super::{Upkeep, loads};
use super::random::Random;
use super::tables::{Numbered, entries, live, packet, pass, settings, upkeep};

const DESTINATIONS: u32 = 5;

struct Case {
    what: &'static str,
    buckets: u32,
    /// Different connections that there may be.
    numbers: u32,
    /// New connections of 100 that stay half-open.
    half_open: u32,
    /// Seconds that pass at a time, at the most.
    pause_s: u32,
    operations: u32,
    /// Whether the filling stays below 60 %, so that nothing live may be lost.
    keeps_all: bool,
}

/// The table, and what should be in it.
struct Model<'t> {
    tables: &'t SharedTables,
    cpu: Cpu<'t>,
    upkeep: Upkeep,
    /// By number.
    known: HashMap<u32, Value>,
    evicted: u64,
    refused: u64,
    expired: u64,
    /// Newcomers in a row for whom nowhere was room to move anybody to.
    futile: u64,
    what: &'static str,
}

/// Who is in a place: number and value.
type Occupant = (u32, Value);

/// The eight places that a connection may take: who is there, and who is in his other bucket.
fn places<S: Numbered>(
    model: &Model<'_>,
    number: u32,
) -> Vec<Option<(Occupant, Vec<Option<Occupant>>)>> {
    let settings = model.cpu.settings();
    let buckets = S::buckets(settings);
    let table = S::table(model.tables);
    let both = |key| candidates(S::Bucket::hash(key, settings.seed), buckets, 0);
    let occupant = |index: u32, way| {
        let bucket = &table[index as usize];
        let value = Value(load(bucket.value(way)));
        let is_free = bucket.is_free(way) || !value.is_some();
        (!is_free).then(|| (S::number(bucket.key(way)), value))
    };
    let (first, second) = both(S::key(number));
    let mut places = Vec::new();
    for index in [first, second] {
        for way in 0..S::Bucket::WAYS {
            places.push(occupant(index, way).map(|known| {
                let (one, two) = both(S::key(known.0));
                let other = if one == index { two } else { one };
                let beyond = (0..S::Bucket::WAYS).map(|way| occupant(other, way));
                (known, beyond.collect())
            }));
        }
    }
    places
}

impl Model<'_> {
    fn finds<S: Numbered>(&self, number: u32) -> Value {
        table::find::<S, _>(&self.cpu, self.cpu.settings(), 0, S::key(number)).value
    }

    fn packet<S: Numbered>(&mut self, number: u32, state: State) {
        let what = self.what;
        let destination = 1 + number % DESTINATIONS;
        let before = places::<S>(self, number);
        let is_new = !self.known.contains_key(&number);
        let new = Value::new(destination, self.cpu.settings().now_s as u16, state, 0);
        let stands = packet::<S>(&self.cpu, number, destination, state);
        if !is_new {
            assert_eq!(stands, Some(new), "{what}: {number} is not known any more");
            self.known.insert(number, new);
            return;
        }
        let occupants = || before.iter().flatten();
        let beyond = || occupants().flat_map(|it| &it.1);
        let is_full = before.iter().all(Option::is_some);
        // All of one endpoint here.
        let now_s = self.cpu.settings().now_s;
        let expendability = |value: Value| value.expendability(now_s, 1);
        let near = occupants()
            .map(|it| expendability(it.0.1))
            .max()
            .unwrap_or(0);
        let far = beyond().flatten().map(|it| expendability(it.1)).max();
        let far = far.unwrap_or(0);
        // Of those that could move only if all here stand, and not for another one that stands.
        let most = if near < EXPENDABLE && far >= EXPENDABLE {
            far
        } else {
            near
        };
        // In a flood few look further than at what they can displace, and those in whose places all stand no further than to
        // the first that they can.
        let is_content = expendability(new) >= EXPENDABLE && (OWN..CLOSING).contains(&near);
        let is_hurried = self.futile >= FUTILE && !self.futile.is_multiple_of(ONE_OF);
        let moves = !is_hurried || !is_content && near >= EXPENDABLE;
        let asked = if is_content && self.futile >= FUTILE {
            ASKED as usize
        } else {
            before.len()
        };
        let is_asked_free = |it: &(_, Vec<Option<_>>)| it.1.iter().any(Option::is_none);
        let is_moved = moves && before[..asked].iter().flatten().any(is_asked_free);
        if is_full {
            self.futile = if is_moved { 0 } else { self.futile + 1 };
        }
        let is_first_of_all = is_hurried && near < EXPENDABLE;
        let may_be_free = is_first_of_all && beyond().any(Option::is_none);
        let must_give_up = is_full && !is_moved;
        if stands.is_none() {
            assert!(
                must_give_up && !may_be_free && state.is_half_open() && most < EXPENDABLE,
                "{what}: {number} got no room"
            );
            self.refused += 1;
        } else {
            assert_eq!(stands, Some(new), "{what}: {number}");
            self.known.insert(number, new);
        }
        let there = occupants()
            .map(|it| it.0)
            .chain(beyond().flatten().copied());
        let lost: BTreeMap<u32, Value> = there.filter(|it| self.finds::<S>(it.0) != it.1).collect();
        let given_up = usize::from(must_give_up && stands.is_some());
        assert!(
            lost.len() == given_up || may_be_free && lost.is_empty(),
            "{what}: {lost:?} given up for {number}"
        );
        for (number, value) in lost {
            let least = if is_first_of_all && most >= OWN {
                OWN
            } else {
                most
            };
            assert!(
                (least..=most).contains(&expendability(value)),
                "{what}: {number} was not the first to be given up"
            );
            self.known.remove(&number);
            self.evicted += 1;
        }
    }

    fn upkeep(&mut self) {
        let now_s = self.cpu.settings().now_s;
        let begun = loads::snapshot(self.tables.loads(), 1..=DESTINATIONS);
        let report = pass(&mut self.upkeep, self.tables);
        loads::correct(self.tables.loads(), &begun, &report);
        let before = self.known.len();
        self.known.retain(|_, value| {
            now_s - u32::from(value.seen_s()) <= u32::from(TIMEOUTS_S[usize::from(value.state())])
        });
        let expired = (before - self.known.len()) as u64;
        assert_eq!(report.expired, expired, "{}", self.what);
        self.expired += expired;
    }

    /// Everything in the table is known, and everything known is in the table, and counted.
    fn compare<S: Numbered>(&self) {
        let what = self.what;
        let mut there = 0;
        for (index, number, value) in entries::<S>(self.tables) {
            assert_eq!(
                self.known.get(&number),
                Some(&value),
                "{what}: {number} in bucket {index}"
            );
            there += 1;
        }
        assert_eq!(there, self.known.len(), "{what}: something is lost");
        for destination in 1..=DESTINATIONS {
            let mut counts = (0, 0);
            let of = |value: &&Value| value.destination() == destination;
            for value in self.known.values().filter(of) {
                match State::from_u8(value.state()) {
                    Some(state) if state.is_active() => counts.0 += 1,
                    _ => counts.1 += 1,
                }
            }
            let load = &self.tables.loads()[destination as usize];
            assert_eq!(live(load), counts, "{what}: destination {destination}");
        }
    }
}

fn check<S: Numbered>(case: &Case, seed: u64) {
    // Far from where the 16-bit clock wraps, so that the model may subtract.
    let mut settings = settings(1, case.buckets);
    settings.now_s = 10_000;
    settings.seed = seed;
    let tables = SharedTables::new(settings, DESTINATIONS + 1);
    let mut model = Model {
        tables: &tables,
        cpu: tables.cpu(0),
        upkeep: upkeep(&settings),
        known: HashMap::new(),
        evicted: 0,
        refused: 0,
        expired: 0,
        futile: 0,
        what: case.what,
    };
    let mut random = Random::new(seed);
    let mut fullest = 0;
    for _ in 0..case.operations {
        let number = random.below(case.numbers);
        match random.below(1000) {
            0 if tables.now_s() < 60_000 => {
                tables.set_now_s(tables.now_s() + random.below(case.pause_s));
                model.cpu.read_clock();
                model.upkeep();
                model.compare::<S>();
            }
            1..100 => {
                let states = [
                    State::FinWait,
                    State::CloseWait,
                    State::TimeWait,
                    State::Close,
                ];
                if model.known.contains_key(&number) {
                    model.packet::<S>(number, states[random.below(4) as usize]);
                }
            }
            _ if random.below(100) < case.half_open => {
                if !model.known.contains_key(&number) {
                    model.packet::<S>(number, State::SynReceived);
                }
            }
            _ => model.packet::<S>(number, State::Established),
        }
        fullest = fullest.max(model.known.len());
    }
    model.compare::<S>();
    let places = case.buckets as usize * S::Bucket::WAYS;
    let filling = fullest as f64 / places as f64;
    let Model {
        evicted,
        refused,
        expired,
        ..
    } = model;
    let what = case.what;
    println!(
        "{what}: filled to {filling:.2}, {evicted} given up, {refused} refused, {expired} expired"
    );
    assert!(expired > 0, "{what}: nothing expired");
    assert_eq!(filling < 0.6, case.keeps_all, "{what}: filled to {filling}");
    assert_eq!((evicted, refused) == (0, 0), case.keeps_all, "{what}");
}

#[test]
fn the_table_is_what_a_map_would_be() {
    let cases = [
        Case {
            what: "a third full",
            buckets: 256,
            numbers: 350,
            half_open: 10,
            pause_s: 300,
            operations: 40_000,
            keeps_all: true,
        },
        Case {
            what: "nearly 60 percent full",
            buckets: 2000,
            numbers: 4700,
            half_open: 20,
            pause_s: 100,
            operations: 60_000,
            keeps_all: true,
        },
        Case {
            what: "more than there is room for",
            buckets: 64,
            numbers: 2000,
            half_open: 30,
            pause_s: 400,
            operations: 40_000,
            keeps_all: false,
        },
        Case {
            what: "a flood of half-open ones",
            buckets: 65,
            numbers: 100_000,
            half_open: 95,
            pause_s: 100,
            operations: 40_000,
            keeps_all: false,
        },
    ];
    for case in &cases {
        for seed in 1..=4 {
            check::<Narrow>(case, seed);
            check::<Wide>(case, seed);
        }
    }
}
