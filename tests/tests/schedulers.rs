//! The packet path's schedulers against the plain ones of [`director_tests::reference`]: random real servers, weights,
//! thresholds and connections, and every single choice compared.
//!
//! On one CPU choices are exact. On several, a counting scheduler sees connections of other CPUs as soon as they are
//! counted, and two that choose at the same moment may choose the same real server: the bound is one connection for
//! each other CPU, see [`several_cpus_differ_by_no_more_than_their_number`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use director::config;
use director::scheduler::{Member, table};
use director_tests::packet::build::{Ip, tcp};
use director_tests::packet::fixture::{
    BOTH, DIRECTOR, Family, Fixture, ROUTER, Real, hop, server_mac,
};
use director_tests::packet::kernel::Kernel;
use director_tests::packet::native::Native;
use director_tests::packet::{Action, Machine, build};
use director_tests::paths;
use director_tests::reference::{
    self, Client, FailOver, Hash, Hashed, Lblc, Lblcr, LeastConnection, Maglev, NeverQueue,
    OverFlow, RoundRobin, Scheduler, Server, ShortestDelay, Two, WeightedRoundRobin,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use xdp_ebpf::layout::{limits, method, scheduler, service};
use xdp_ebpf::wire::protocol;

const PORT: u16 = 80;
/// Room for the connections of a sequence.
const BUCKETS: u32 = 64;

/// All of them, by IPVS's names, with their flags.
const ALL: [&str; 18] = [
    "rr",
    "wrr",
    "lc",
    "wlc",
    "sed",
    "nq",
    "fo",
    "ovf",
    "twos",
    "lblc",
    "lblcr",
    "dh",
    "dh without fallback",
    "sh",
    "sh-port",
    "sh without fallback",
    "mh",
    "mh-port",
];

/// The configuration's name, the number and flags in the service's record.
fn known(name: &str) -> (config::Scheduler, u8, u16) {
    use config::Scheduler as Configured;
    let fallback = !name.ends_with("without fallback");
    let port = name.ends_with("-port");
    let flags = if fallback { service::FALLBACK } else { 0 } | if port { service::PORT } else { 0 };
    match name.split([' ', '-']).next() {
        Some("rr") => (Configured::Rr, scheduler::CURSOR, 0),
        Some("wrr") => (Configured::Wrr, scheduler::CURSOR, 0),
        Some("lc") => (Configured::Lc, scheduler::LC, 0),
        Some("wlc") => (Configured::Wlc, scheduler::WLC, 0),
        Some("sed") => (Configured::Sed, scheduler::SED, 0),
        Some("nq") => (Configured::Nq, scheduler::NQ, 0),
        Some("fo") => (Configured::Fo, scheduler::FO, 0),
        Some("ovf") => (Configured::Ovf, scheduler::OVF, 0),
        Some("twos") => (Configured::Twos, scheduler::TWOS, 0),
        Some("lblc") => (Configured::Lblc, scheduler::LBLC, 0),
        Some("lblcr") => (Configured::Lblcr, scheduler::LBLCR, 0),
        Some("dh") => (Configured::Dh { fallback }, scheduler::DESTINATION, flags),
        Some("sh") => (Configured::Sh { port, fallback }, scheduler::SOURCE, flags),
        _ => (Configured::Mh { port, fallback }, scheduler::MAGLEV, flags),
    }
}

/// The plain one of the same name. `slots`: the table of `mh`, as indexes of servers.
fn plain(name: &str, slots: Vec<usize>) -> Box<dyn Scheduler> {
    match known(name).0 {
        config::Scheduler::Rr => Box::new(RoundRobin::default()),
        config::Scheduler::Wrr => Box::new(WeightedRoundRobin::default()),
        config::Scheduler::Lc => Box::new(LeastConnection { weighted: false }),
        config::Scheduler::Wlc => Box::new(LeastConnection { weighted: true }),
        config::Scheduler::Sed => Box::new(ShortestDelay),
        config::Scheduler::Nq => Box::new(NeverQueue),
        config::Scheduler::Fo => Box::new(FailOver),
        config::Scheduler::Ovf => Box::new(OverFlow),
        config::Scheduler::Lblc => Box::new(Lblc::default()),
        config::Scheduler::Lblcr => Box::new(Lblcr::default()),
        config::Scheduler::Dh { fallback } => Box::new(Hashed {
            by: Hash::Destination,
            fallback,
        }),
        config::Scheduler::Sh { port, fallback } => Box::new(Hashed {
            by: Hash::Source { port },
            fallback,
        }),
        config::Scheduler::Mh { port, fallback } => Box::new(Maglev {
            table: slots,
            port,
            fallback,
        }),
        config::Scheduler::Twos => {
            // The native machine's random numbers.
            let mut state: u64 = 1;
            Box::new(Two {
                random: move || {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    (state >> 32) as u32
                },
            })
        }
    }
}

/// A real server at the start.
#[derive(Clone, Copy, Debug)]
struct Given {
    weight: u32,
    upper: u32,
}

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A new connection: which client, which of the virtual addresses.
    Syn(u16, u8),
    /// A connection stands: the so-manieth of those there are.
    Ack(prop::sample::Index),
    /// A client closes.
    Fin(prop::sample::Index),
    /// A client resets.
    Rst(prop::sample::Index),
}

fn events(count: usize) -> impl Strategy<Value = Vec<Event>> {
    let index = any::<prop::sample::Index>;
    let event = prop_oneof![
        4 => (any::<u16>(), 0_u8..4).prop_map(|(client, address)| Event::Syn(client, address)),
        4 => index().prop_map(Event::Ack),
        1 => index().prop_map(Event::Fin),
        1 => index().prop_map(Event::Rst),
    ];
    prop::collection::vec(event, count)
}

fn servers() -> impl Strategy<Value = Vec<Given>> {
    let weight = prop_oneof![
        1 => Just(0_u32),
        6 => 1_u32..8,
        1 => Just(300),
    ];
    let upper = prop_oneof![4 => Just(0_u32), 1 => 1_u32..12];
    let server = (weight, upper).prop_map(|(weight, upper)| Given { weight, upper });
    prop::collection::vec(server, 0..9)
}

/// The virtual addresses of one service.
fn virtual_address(family: Family, number: u8) -> IpAddr {
    match family.virtual_address() {
        IpAddr::V4(address) => IpAddr::from((u32::from(address) + u32::from(number)).to_be_bytes()),
        IpAddr::V6(address) => {
            IpAddr::from((u128::from(address) + u128::from(number)).to_be_bytes())
        }
    }
}

/// A service by direct routing, so that a frame's destination tells the real server.
fn fixture(name: &str, family: Family, servers: &[Given]) -> Fixture {
    let (configured, number, flags) = known(name);
    let mut fixture = Fixture::empty();
    fixture.settings.buckets4 = BUCKETS;
    fixture.settings.buckets6 = BUCKETS;
    let reals: Vec<Real> = (1..)
        .zip(servers)
        .map(|(server, _)| Real {
            method: method::DR,
            address: family.server(server),
            port: PORT,
            next_hop: hop(server_mac(server)),
        })
        .collect();
    let id = fixture.add(
        virtual_address(family, 0),
        PORT,
        protocol::TCP,
        number,
        &reals,
    );
    for more in 1..4 {
        let address = virtual_address(family, more);
        fixture.add_endpoint(id, address, (PORT, PORT), protocol::TCP);
    }
    fixture.change_service(id, |record| record.flags |= flags);
    let members: Vec<Member> = (1_u32..)
        .zip(servers)
        .map(|(destination, server)| Member {
            destination,
            weight: server.weight,
            identity: (family.server(destination as u8), PORT),
        })
        .collect();
    fixture.slots.clear();
    fixture.schedule(id, &table(&configured, &members));
    for (destination, server) in (1..).zip(servers) {
        fixture.limit(destination, server.weight, server.upper, 0);
    }
    fixture
}

/// Connections as the plain rules see them.
#[derive(Default)]
struct Model {
    servers: Vec<Server>,
    uppers: Vec<u32>,
    connections: BTreeMap<(u16, u8), (usize, reference::tcp::State)>,
}

impl Model {
    fn new(servers: &[Given]) -> Self {
        Self {
            servers: servers
                .iter()
                .map(|given| Server {
                    weight: given.weight,
                    ..Server::default()
                })
                .collect(),
            uppers: servers.iter().map(|given| given.upper).collect(),
            connections: BTreeMap::new(),
        }
    }

    fn is_active(state: reference::tcp::State) -> bool {
        use reference::tcp::State::{Established, SynRecv};
        matches!(state, Established | SynRecv)
    }

    /// A segment of a connection there is, or of a new one at `server`.
    fn segment(&mut self, client: (u16, u8), server: usize, flags: u8) {
        let before = self.connections.get(&client).copied();
        let from = before.map_or(reference::tcp::State::None, |(_, state)| state);
        let to = match reference::tcp::next(from, reference::tcp::Direction::InputOnly, flags) {
            // The decided difference: a reset ends a half-open connection.
            reference::tcp::State::SynRecv if flags & tcp::RST != 0 => reference::tcp::State::Close,
            to => to,
        };
        if before.is_some() {
            *self.count(server, from) -= 1;
        }
        *self.count(server, to) += 1;
        self.connections.insert(client, (server, to));
        let upper = u64::from(self.uppers[server]);
        let it = &mut self.servers[server];
        if before.is_none() && upper != 0 && it.active + it.inactive >= upper {
            it.overloaded = true;
        }
    }

    fn count(&mut self, server: usize, state: reference::tcp::State) -> &mut u64 {
        if Self::is_active(state) {
            &mut self.servers[server].active
        } else {
            &mut self.servers[server].inactive
        }
    }

    fn nth(&self, index: prop::sample::Index) -> Option<((u16, u8), usize)> {
        if self.connections.is_empty() {
            return None;
        }
        let at = index.index(self.connections.len());
        let (client, (server, _)) = self.connections.iter().nth(at)?;
        Some((*client, *server))
    }
}

fn address_of(family: Family, client: u16) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([198, 51, client.to_be_bytes()[0], client.to_be_bytes()[1]]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0xc, 0, client, 0, 5, 1]),
    }
}

/// A port that differs with the client, too.
fn port_of(client: u16) -> u16 {
    1024 + client % 5000
}

fn send(
    machine: &mut dyn Machine,
    family: Family,
    (client, address): (u16, u8),
    flags: u8,
) -> (Action, Option<usize>) {
    let from = (address_of(family, client), port_of(client));
    let to = (virtual_address(family, address), PORT);
    let frame = build::Frame::new(ROUTER, DIRECTOR, Ip::tcp(from, to, flags, b""));
    let outcome = machine.run(&frame.bytes()).expect("a verdict");
    let is_forwarded =
        outcome.action == Action::Transmit && outcome.frame[..5] == server_mac(0)[..5];
    // Real servers are numbered from 1.
    let server = is_forwarded.then(|| usize::from(outcome.frame[5]) - 1);
    (outcome.action, server)
}

/// Runs one sequence and compares every choice, and at its end the live counts.
fn check(
    machine: &mut dyn Machine,
    name: &str,
    family: Family,
    given: &[Given],
    events: &[Event],
) -> Result<(), TestCaseError> {
    let fixture = fixture(name, family, given);
    machine.load(&fixture).expect("the tables take it");
    let record = fixture.services.values().next();
    let slots = record.map_or(0..0, |it| {
        it.first_slot as usize..(it.first_slot + it.slots) as usize
    });
    let slots = fixture.slots[slots].iter().map(|id| *id as usize - 1);
    let mut plain = plain(name, slots.collect());
    let mut model = Model::new(given);
    // A full table is another test's business.
    let room = BUCKETS as usize;
    for (number, event) in events.iter().enumerate() {
        let (client, flags) = match *event {
            Event::Syn(client, address) => {
                let named = (client, address);
                if model.connections.contains_key(&named) || model.connections.len() >= room {
                    continue;
                }
                let whose = Client {
                    source: address_of(family, client),
                    port: port_of(client),
                    destination: virtual_address(family, address),
                };
                let expected = plain.choose(&model.servers, &whose, fixture.settings.now_s);
                let (action, found) = send(machine, family, named, tcp::SYN);
                prop_assert_eq!(
                    found,
                    expected,
                    "{} {:?}: event {}, client {:?}, {:?}; {:?}",
                    name,
                    family,
                    number,
                    whose,
                    action,
                    model.servers
                );
                if let Some(server) = expected {
                    model.segment(named, server, tcp::SYN);
                }
                continue;
            }
            Event::Ack(index) => (model.nth(index), tcp::ACK),
            Event::Fin(index) => (model.nth(index), tcp::FIN | tcp::ACK),
            Event::Rst(index) => (model.nth(index), tcp::RST),
        };
        let Some((named, server)) = client else {
            continue;
        };
        let (_, found) = send(machine, family, named, flags);
        prop_assert_eq!(found, Some(server), "{}: it stays where it is", name);
        model.segment(named, server, flags);
    }
    for (index, server) in model.servers.iter().enumerate() {
        let counted = machine.load_of(index as u32 + 1).expect("counts");
        prop_assert_eq!(
            counted,
            (server.active, server.inactive),
            "{}: live counts of {}",
            name,
            index
        );
    }
    Ok(())
}

#[test]
fn every_choice_is_the_definitions() {
    let machine = std::cell::RefCell::new(Native::new(&Fixture::empty()));
    for name in ALL {
        for family in BOTH {
            let config = Config {
                cases: 60,
                failure_persistence: None,
                ..Config::default()
            };
            proptest!(config, |(given in servers(), events in events(150))| {
                check(&mut *machine.borrow_mut(), name, family, &given, &events)?;
            });
        }
    }
}

#[test]
#[ignore = "needs root and the BPF object: cargo xtask test runs it"]
fn every_choice_is_the_definitions_in_the_kernel_too() {
    let object = paths::bpf_object("director-xdp.o").expect("the object is built");
    let mut kernel = Kernel::load(&object).expect("the kernel takes the object");
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    for name in ALL {
        if name == "twos" {
            // Its random numbers are the kernel's own.
            continue;
        }
        for family in BOTH {
            for _ in 0..4 {
                let (given, events) = (servers(), events(100))
                    .new_tree(&mut runner)
                    .expect("a sequence")
                    .current();
                check(&mut kernel, name, family, &given, &events)
                    .unwrap_or_else(|error| panic!("{error}"));
            }
        }
    }
}

/// As many real servers as a counting scheduler may have, all looked at: the only one with the least is the last.
#[test]
fn all_of_the_most_real_servers_count() {
    const MOST: u32 = limits::COUNTED;
    for number in [scheduler::LC, scheduler::WLC, scheduler::SED, scheduler::NQ] {
        let mut fixture = Fixture::empty();
        let family = Family::V4;
        let real = Real {
            method: method::DR,
            address: family.server(1),
            port: PORT,
            next_hop: hop(server_mac(1)),
        };
        let reals = vec![real; MOST as usize];
        fixture.add(
            virtual_address(family, 0),
            PORT,
            protocol::TCP,
            number,
            &reals,
        );
        let mut machine = Native::new(&fixture);
        for client in 0..128 {
            send(&mut machine, family, (client, 0), tcp::SYN);
        }
        // With equal weights each of the first ones has one by now, in their order.
        for id in 1..=128 {
            assert_eq!(
                machine.load_of(id).expect("counts"),
                (1, 0),
                "{number}: {id}"
            );
        }
        assert_eq!(machine.load_of(129).expect("counts"), (0, 0));
        // All but the last are busy.
        for id in 1..MOST {
            let load = machine.tables().loads.entry(id).or_default();
            load.active = 5.into();
        }
        send(&mut machine, family, (1000, 0), tcp::SYN);
        assert_eq!(machine.load_of(MOST).expect("counts"), (1, 0), "{number}");
    }
}

/// CPUs that take turns see each other's connections at once: what several CPUs choose is what one would have chosen.
/// Only choices at the very same moment can differ, by one connection for each CPU.
#[test]
fn several_cpus_differ_by_no_more_than_their_number() {
    for name in ["lc", "wlc", "sed", "nq", "rr", "wrr"] {
        let given: Vec<Given> = [1, 2, 3].map(|weight| Given { weight, upper: 0 }).to_vec();
        let fixture = fixture(name, Family::V4, &given);
        let mut one = Native::new(&fixture);
        let mut two = Native::new(&fixture);
        for client in 0..60 {
            two.cpu(u32::from(client % 2)).expect("a CPU");
            let alone = send(&mut one, Family::V4, (client, 0), tcp::SYN);
            let shared = send(&mut two, Family::V4, (client, 0), tcp::SYN);
            assert_eq!(alone, shared, "{name}: client {client}");
        }
    }
}

/// Draws are by weight, of two the less loaded one wins, and so loads stay even.
#[test]
#[ignore = "needs root and the BPF object: cargo xtask test runs it"]
fn twos_spreads_by_weight_in_the_kernel() {
    let object = paths::bpf_object("director-xdp.o").expect("the object is built");
    let mut kernel = Kernel::load(&object).expect("the kernel takes the object");
    let given: Vec<Given> = [1, 1, 2].map(|weight| Given { weight, upper: 0 }).to_vec();
    kernel
        .load(&fixture("twos", Family::V4, &given))
        .expect("the tables take it");
    for client in 0..120 {
        send(&mut kernel, Family::V4, (client, 0), tcp::SYN);
    }
    let loads: Vec<u64> = (1..=3)
        .map(|id| kernel.load_of(id).expect("counts").0)
        .collect();
    assert_eq!(loads.iter().sum::<u64>(), 120);
    let (light, heavy) = (loads[0].min(loads[1]), loads[2]);
    assert!(light >= 20 && heavy >= 40, "{loads:?} for weights 1, 1, 2");
}
