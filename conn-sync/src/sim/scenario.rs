//! A run that follows from its seed.

use std::time::Duration;

use super::random::Random;
use super::world::{Fault, Micros, Path, World};
use crate::entry::NodeName;
use crate::machine::Config;

const MS: Micros = 1000;
const S: Micros = 1_000_000;

/// What goes wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Faults {
    /// Anything.
    Any,
    /// Three nodes or four fill each other again and again, over ways of which some take long: what one knows of another one
    /// arrives before that one's own.
    Refills,
}

/// What a run showed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    pub(super) applied: u64,
    pub(super) applied_udp: u64,
    pub(super) claims: u64,
    pub(super) converged: u64,
    pub(super) bulks: u64,
    pub(super) repairs: u64,
}

/// How soon after the last fault the tables are the same: the longest time until the next attempt at a bulk resync, and the
/// resync, and the repairs.
const CONVERGED_AFTER: Micros = 16 * S;

pub(super) fn run(seed: u64, kind: Faults, tells: bool) -> Result<Figures, String> {
    let mut random = Random::new(seed);
    // Nodes, and the longest time between two packets.
    let (count, traffic_ms) = match kind {
        Faults::Any => (2 + random.below(3), 40),
        Faults::Refills => (3 + random.below(2), 8),
    };
    let gives_up_aside = random.percent(10);
    let configs = (0..count)
        .map(|node| Config {
            node: NodeName::new(&format!("lb{node}")).expect("a name"),
            incarnation: 0,
            datagram_bytes: random.one_of(&[200, 400, 1452]),
            listed: Vec::new(),
            records_per_second: random.one_of(&[100, 400, 20_000]),
            bulk_port: 8849,
            alone_after: Duration::from_secs(5),
            ready_after: None,
            aside_records: if gives_up_aside { 3 } else { 1000 },
            aside_for: Duration::from_secs(60),
        })
        .collect();
    let mut world = World::new(configs, random.clone(), tells);
    world.judge.gives_up_aside = gives_up_aside;
    world.frame = 1 + random.below(16);
    let (connections, templates) = (random.within(4..=60), random.within(0..=8));
    world.make_slots(connections as u16, templates as u16);
    world.traffic = random.within(1..=traffic_ms) * MS;
    for node in &mut world.nodes {
        node.walks_every = random.within(5..=50) * MS;
    }
    for node in 0..count {
        let start = random.within(0..=1500) * MS;
        world.fault_at(start, Fault::Start { node });
    }
    for group in 0..2 {
        let node = Some(random.below(count));
        world.fault_at(1500 * MS, Fault::Serve { group, node });
    }
    let end = faults(&mut world, &mut random, kind, count);
    world.fault_at(end, Fault::Calm);
    for group in 0..2 {
        let node = Some(random.below(count));
        world.fault_at(end, Fault::Serve { group, node: None });
        world.fault_at(end + pause(count), Fault::Serve { group, node });
    }
    world.run_until(end + pause(count) + 2 * S);
    // Everything that is open is seen once where it is now served.
    world.traffic = 0;
    world.touch_all();
    world.run_until(end + pause(count) + 2 * S + CONVERGED_AFTER);
    world.touch_all();
    world.run_until(world.now + S);
    world.check_convergence();
    world.verdict.clone()?;
    Ok(Figures {
        applied: world.judge.applied,
        applied_udp: world.judge.applied_udp,
        claims: world.judge.claims,
        converged: world.judge.converged,
        bulks: world.bulks,
        repairs: world.repairs,
    })
}

/// For how long nobody serves between two nodes. What a node saw after such a time is certainly newer for one that served
/// before; among three, for one that learned from both.
fn pause(count: usize) -> Micros {
    if count == 2 { 3500 * MS } else { 6 * S }
}

/// Faults for a while; gives when they end.
fn faults(world: &mut World, random: &mut Random, kind: Faults, count: usize) -> Micros {
    let mut now = 2 * S;
    let mut moved = [0; 2];
    for _ in 0..random.below(14) {
        now += random.within(1..=2500) * MS;
        let node = random.below(count);
        let fault = random.below(7);
        let fault = match kind {
            Faults::Any => fault,
            // All ways, nodes that die, service that moves, resyncs that break, directories.
            Faults::Refills => [2, 2, 3, 4, 5, 6, 6][fault],
        };
        match fault {
            0 | 1 => {
                let path = bad_path(random, kind);
                let (from, to) = (node, random.below(count));
                let until = now + random.within(50..=5000) * MS;
                for (from, to) in [(from, to), (to, from)] {
                    world.fault_at(now, Fault::Path { from, to, path });
                    let path = Path::GOOD;
                    world.fault_at(until, Fault::Path { from, to, path });
                    if random.percent(30) {
                        break;
                    }
                }
            }
            2 => {
                let path = bad_path(random, kind);
                for from in 0..count {
                    for to in 0..count {
                        world.fault_at(now, Fault::Path { from, to, path });
                    }
                }
            }
            3 => {
                let keeps_table = random.percent(40);
                world.fault_at(now, Fault::Crash { node, keeps_table });
                let back = now + random.within(1..=4000) * MS;
                world.fault_at(back, Fault::Start { node });
                for (group, moved) in moved.iter_mut().enumerate() {
                    // If it served, another one takes over.
                    let at = (now + pause(count)).max(*moved + 1);
                    let node = Some((node + 1) % count);
                    if now > *moved {
                        world.fault_at(now, Fault::Serve { group, node: None });
                        world.fault_at(at, Fault::Serve { group, node });
                        *moved = at;
                    }
                }
            }
            4 => {
                let group = random.below(2);
                if now > moved[group] {
                    let at = now + pause(count);
                    let node = Some(node);
                    world.fault_at(now, Fault::Serve { group, node: None });
                    world.fault_at(at, Fault::Serve { group, node });
                    moved[group] = at;
                }
            }
            5 => world.fault_at(now, Fault::CutStreams),
            _ => {
                let services = random.below(16) as u8;
                let servers = random.below(16) as u8 & random.below(16) as u8;
                let fault = |services, servers| Fault::Directory {
                    node,
                    services,
                    servers,
                };
                world.fault_at(now, fault(services, servers));
                let until = now + random.within(1..=4000) * MS;
                world.fault_at(until, fault(0, 0));
            }
        }
    }
    now.max(moved[0]).max(moved[1]) + random.within(1..=2000) * MS
}

fn bad_path(random: &mut Random, kind: Faults) -> Path {
    let shortest = random.within(50..=2000);
    match kind {
        Faults::Any => Path {
            is_cut: random.percent(30),
            loss: random.one_of(&[0, 1, 5, 20, 50, 90]),
            twice: random.one_of(&[0, 5, 50]),
            delay: (
                shortest,
                shortest + random.one_of(&[0, 1000, 20_000, 300_000]),
            ),
        },
        Faults::Refills => Path {
            loss: random.one_of(&[0, 0, 5, 20]),
            delay: (
                shortest,
                shortest + random.one_of(&[20_000, 300_000, 300_000]),
            ),
            ..Path::GOOD
        },
    }
}

impl Figures {
    pub(super) fn add(&mut self, other: Self) {
        self.applied += other.applied;
        self.applied_udp += other.applied_udp;
        self.claims += other.claims;
        self.converged += other.converged;
        self.bulks += other.bulks;
        self.repairs += other.repairs;
    }
}
