//! One run: a configuration and faults that follow from the seed, then rest.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::judge::{Bounds, Judge};
use super::random::Random;
use super::world::{Event, Fault, Micros, Node, Path, World};
use crate::config::limits::SETTLED_AFTER;
use crate::config::{
    Announce, AutoFailback, Config, Fence, Fitness, Group, KeyFile, KeyFiles, Link, LinkKind,
    Program, SerialLink, Timing, VrrpLink,
};
use crate::machine::{Command, Scope};

const MILLISECOND: Micros = 1_000;

/// What varies between runs, besides the faults.
#[derive(Clone, Debug)]
struct Setting {
    own_nodes: usize,
    /// A VRRP router that is not a node of ours.
    has_foreign: bool,
    own_links: usize,
    /// Heartbeats are signed.
    has_key: bool,
    /// Somebody has recorded what a node sent, which he plays to another one that starts when the first is dead.
    is_replayed: bool,
    has_vrrp: bool,
    groups: usize,
    together: bool,
    timing: Timing,
    auto_failback: AutoFailback,
    fence: Option<bool>,
    /// Fencing, where it is required, takes seconds, and may fail.
    is_fencing_hard: bool,
    /// Nodes share connections, and wait for so long for those of the others.
    failback_limit: Option<Duration>,
    /// By group, by node; 0: may not serve it.
    priorities: Vec<Vec<u8>>,
}

impl Setting {
    fn random(random: &mut Random) -> Self {
        let own_nodes = random.one_of(&[2, 2, 2, 3, 3, 4, 5]);
        let has_vrrp = random.percent(25);
        let has_foreign = has_vrrp && random.percent(40);
        let own_links = random.one_of(&[1, 1, 2]);
        let has_key = random.percent(50);
        let is_replayed = has_key && random.percent(40);
        let groups = random.one_of(&[1, 1, 2, 3]);
        let keepalive = random.one_of(&[50, 100, 200]);
        let deadtime = keepalive * random.within(3..=6);
        let milliseconds = Duration::from_millis;
        let timing = Timing {
            keepalive: milliseconds(keepalive),
            warntime: milliseconds(deadtime / 2),
            deadtime: milliseconds(deadtime),
            initdead: milliseconds(deadtime * random.within(2..=5)),
        };
        let auto_failback = match random.below(4) {
            0 => AutoFailback::Off,
            1 => AutoFailback::After(milliseconds(random.within(100..=2000))),
            _ => AutoFailback::On,
        };
        let together = groups > 1 && random.percent(40);
        let nodes = own_nodes + usize::from(has_foreign);
        let mut priorities = Vec::new();
        for group in 0..groups {
            if group > 0 && together {
                priorities.push(priorities[0]);
                continue;
            }
            let mut of_group = [0; 8];
            for (node, priority) in of_group.iter_mut().enumerate().take(nodes) {
                // Who stands in no group is no node of the others.
                let is_member = group == 0 || node < 2 || node >= own_nodes || random.percent(70);
                // All different.
                *priority = if is_member {
                    (random.within(1..=24) * 10) as u8 + node as u8
                } else {
                    0
                };
            }
            priorities.push(of_group);
        }
        let fence = random.percent(20).then(|| random.percent(50));
        let limit = milliseconds(random.one_of(&[0, 500, 2000]));
        Self {
            own_nodes,
            has_foreign,
            own_links,
            has_key,
            is_replayed,
            has_vrrp,
            groups,
            together,
            timing,
            auto_failback,
            fence,
            is_fencing_hard: fence == Some(true) && random.percent(60),
            failback_limit: random.percent(50).then_some(limit),
            priorities: priorities
                .iter()
                .map(|of_group| of_group[..nodes].to_vec())
                .collect(),
        }
    }

    fn nodes(&self) -> usize {
        self.own_nodes + usize::from(self.has_foreign)
    }

    fn config(&self, node: usize) -> Config {
        let is_foreign = node >= self.own_nodes;
        let name = |node: usize| format!("n{node}");
        let serial = SerialLink {
            device: PathBuf::from("/dev/ttyS0"),
            baud: 115_200,
        };
        let vrrp = VrrpLink {
            interface: "eth0".to_owned(),
            version: 3,
            interval: self.timing.keepalive,
            peers: Vec::new(),
            pseudo_header: false,
        };
        let mut links = vec![LinkKind::Serial(serial); self.own_links];
        links.extend(self.has_vrrp.then_some(LinkKind::Vrrp(vrrp.clone())));
        if is_foreign {
            // The same numbers of links, but it hears VRRP only.
            links.fill(LinkKind::Vrrp(VrrpLink {
                peers: Vec::new(),
                ..vrrp
            }));
        }
        let links = links.into_iter().enumerate();
        let links = links.map(|(number, kind)| Link {
            name: format!("link {number}"),
            kind,
        });
        let groups = (0..self.groups).map(|group| {
            let members = if is_foreign {
                node..node + 1
            } else {
                0..self.own_nodes
            };
            let priorities: BTreeMap<String, u8> = members
                .filter(|node| self.priorities[group][*node] > 0)
                .map(|node| (name(node), self.priorities[group][node]))
                .collect();
            Group {
                name: format!("g{group}"),
                interface: "eth0".to_owned(),
                addresses: vec!["192.0.2.10/24".parse().unwrap()],
                priorities,
                vrid: self.has_vrrp.then_some(group as u8 + 1),
                virtual_mac: false,
                announce: Announce {
                    count: 1,
                    interval: Duration::ZERO,
                    refresh: Duration::ZERO,
                },
                on_primary: None,
                on_backup: None,
            }
        });
        let groups: Vec<Group> = groups.collect();
        let mut nodes: Vec<String> = groups
            .iter()
            .flat_map(|group| group.priorities.keys().cloned())
            .collect();
        nodes.push(name(node));
        nodes.sort();
        nodes.dedup();
        Config {
            node: name(node),
            nodes,
            timing: self.timing,
            auto_failback: self.auto_failback,
            failback_limit: self.failback_limit.unwrap_or(Duration::from_secs(60)),
            keys: (self.has_key && !is_foreign).then(|| KeyFiles {
                active: KeyFile {
                    id: 1,
                    file: PathBuf::from("/etc/director/heartbeat.key"),
                },
                accept: Vec::new(),
            }),
            links: links.collect(),
            units: if self.together {
                vec![(0..self.groups).collect()]
            } else {
                (0..self.groups).map(|group| vec![group]).collect()
            },
            groups,
            fitness: Fitness::default(),
            fence: self.fence.filter(|_| !is_foreign).map(|required| Fence {
                program: Program {
                    command: vec!["/bin/true".to_owned()],
                    timeout: Duration::from_secs(1),
                },
                required,
            }),
        }
    }
}

/// Runs a seed.
pub(super) fn run(seed: u64, tells: bool) -> Result<(), String> {
    let mut random = Random::new(seed);
    let setting = Setting::random(&mut random);
    let keepalive = setting.timing.keepalive.as_micros() as Micros;
    let deadtime = setting.timing.deadtime.as_micros() as Micros;
    let good = Path {
        is_cut: false,
        loss: 0,
        twice: random.one_of(&[0, 0, 10]),
        delay: random.one_of(&[(10, 200), (100, 2_000), (500, keepalive / 2)]),
    };
    let nodes = (0..setting.nodes()).map(|node| {
        let drift = random.within(0..=10_000) as i64 - 5_000;
        // A node whose clock is fast may be recorded, and believed by one that starts soon after.
        let wrong_by = if setting.is_replayed {
            0
        } else {
            random.within(0..=4_000) as i64 - 2_000
        };
        Node::new(setting.config(node), drift, wrong_by)
    });
    let nodes: Vec<Node> = nodes.collect();
    let longest = nodes[0].config.clone();
    let late = random.one_of(&[(0, 0), (20, keepalive / 10), (2, keepalive / 3)]);
    // Clocks differ by half a percent, wake-ups are late.
    let slack = |bound: Duration| bound.as_micros() as Micros * 102 / 100 + keepalive;
    let nodes_count = setting.nodes() as u32;
    let lacks = setting.failback_limit.map(|limit| limit + SETTLED_AFTER);
    let bounds = Bounds {
        keepalive,
        deadtime,
        two_primaries: slack(longest.two_primaries()),
        primary: slack(longest.primary_after_faults()),
        preferred: slack(longest.preferred_after_faults())
            + match setting.auto_failback {
                AutoFailback::After(delay) => delay.as_micros() as Micros,
                AutoFailback::On | AutoFailback::Off => 0,
            }
            + lacks.map_or(0, slack),
        // The release goes along a chain of nodes at worst.
        handed_over: slack(setting.timing.deadtime + setting.timing.keepalive * 2 * nodes_count),
    };
    let mut judge = Judge::new(bounds, setting.nodes(), setting.groups, setting.own_nodes);
    let mut world = World::new(nodes, good, random.clone(), late);
    world.tells = tells;
    world.has_sync = setting.failback_limit.is_some();
    world.is_fencing_hard = setting.is_fencing_hard;
    world.tell(|| format!("{setting:?}"));

    for node in 0..setting.nodes() {
        let at = if random.percent(70) {
            1 + random.within(0..=50) * MILLISECOND
        } else {
            random.within(1..=950) * MILLISECOND
        };
        world.at(at, Event::Fault(Fault::Start(node)));
    }
    let begin = 1_000 * MILLISECOND;
    let end = begin + random.within(1..=4) * deadtime * 4;
    let faults = random.within(0..=8);
    for _ in 0..faults {
        let at = random.within(begin..=end);
        add(&mut world, &mut random, &setting, good, at, end);
    }
    let rest = heal(&mut world, &mut random, &setting, good, end);
    judge.last_fault = end + deadtime + 1;
    let fails_back = setting.auto_failback != AutoFailback::Off && !rest.orders_stand;
    let finish = |judge: &Judge, world: &World| {
        judge.finish(world, &setting.priorities, fails_back, rest.is_connected)
    };
    // Most runs are over long before the bounds. One of five waits for what may come later.
    let initdead = setting.timing.initdead.as_micros() as Micros;
    world.run(judge.last_fault + initdead + 10 * deadtime, &mut judge);
    if seed.is_multiple_of(5) || finish(&judge, &world).is_some() {
        let settled = judge.last_fault + bounds.preferred.max(bounds.primary);
        world.run(settled + 20 * keepalive, &mut judge);
    }
    judge
        .verdict
        .clone()
        .or_else(|| finish(&judge, &world))
        .map_or(Ok(()), Err)
}

/// Adds a fault, and where it has one its end.
fn add(
    world: &mut World,
    random: &mut Random,
    setting: &Setting,
    good: Path,
    at: Micros,
    end: Micros,
) {
    let node = random.below(setting.nodes());
    let deadtime = setting.timing.deadtime.as_micros() as Micros;
    let length = random.one_of(&[
        deadtime / 3,
        deadtime * 2 / 3,
        deadtime,
        deadtime * 2,
        deadtime * 6,
    ]);
    let until = (at + random.within(length / 2..=length)).min(end);
    let mut fault = |at, fault| world.at(at, Event::Fault(fault));
    match random.below(13) {
        0 | 1 => {
            fault(at, Fault::Crash(node));
            let again = if random.percent(30) {
                at + random.within(1..=deadtime / 2)
            } else {
                until
            };
            fault(again.min(end), Fault::Start(node));
        }
        2 | 3 => {
            fault(at, Fault::Freeze(node));
            fault(until, Fault::Thaw(node));
        }
        4 => {
            fault(at, Fault::Stop(node));
            fault(until, Fault::Start(node));
        }
        5 => {
            let lowers = random.one_of(&[0, 5, 50, 300]);
            for round in 0..random.within(1..=4) {
                let (lowers, unfit) = if round % 2 == 0 {
                    (lowers, random.percent(40))
                } else {
                    (0, false)
                };
                fault(
                    (at + round * deadtime / 2).min(end),
                    Fault::Fitness {
                        node,
                        lowers,
                        unfit,
                    },
                );
            }
        }
        6 => {
            let command = random.one_of(&[
                Command::Standby,
                Command::Takeover,
                Command::Takeover,
                Command::Ready,
            ]);
            let scope = if random.percent(50) {
                Scope::All
            } else {
                Scope::Group("g0".to_owned())
            };
            fault(
                at,
                Fault::Order {
                    node,
                    command,
                    scope,
                },
            );
        }
        7 => {
            let group = random.below(setting.groups);
            fault(at, Fault::Failing { node, group });
        }
        8 => {
            let group = random.below(setting.groups);
            for (at, is_unable) in [(at, true), (until, false)] {
                fault(
                    at,
                    Fault::Unable {
                        node,
                        group,
                        is_unable,
                    },
                );
            }
        }
        9 if setting.failback_limit.is_some() => fault(at, Fault::Lacks(node)),
        _ => {
            // Of one link or all, one node from all others or two from each other, in one direction or both.
            let other = random.below(setting.nodes());
            let (one_link, one_pair, one_way) =
                (random.percent(40), random.percent(50), random.percent(30));
            let which = random.below(world.paths.len());
            let path = match random.below(4) {
                0 => Path {
                    loss: random.within(10..=90),
                    ..good
                },
                1 => Path {
                    delay: (0, random.within(1..=4) * deadtime / 2),
                    ..good
                },
                _ => Path {
                    is_cut: true,
                    ..good
                },
            };
            for link in 0..world.paths.len() {
                if one_link && link != which {
                    continue;
                }
                for peer in 0..setting.nodes() {
                    if peer == node || (one_pair && peer != other) {
                        continue;
                    }
                    let ways = [(node, peer), (peer, node)];
                    for (from, to) in ways.into_iter().take(if one_way { 1 } else { 2 }) {
                        world.at(
                            at,
                            Event::Fault(Fault::Set {
                                link,
                                from,
                                to,
                                path,
                            }),
                        );
                        world.at(
                            until,
                            Event::Fault(Fault::Set {
                                link,
                                from,
                                to,
                                path: good,
                            }),
                        );
                    }
                }
            }
        }
    }
}

/// What is left when all faults are over.
struct Rest {
    /// Everybody that runs hears everybody, through others at worst.
    is_connected: bool,
    /// Orders of operators may stand.
    orders_stand: bool,
}

/// Ends all faults; some nodes may stay out, unfit, or without a link between them.
fn heal(
    world: &mut World,
    random: &mut Random,
    setting: &Setting,
    good: Path,
    end: Micros,
) -> Rest {
    let nodes = setting.nodes();
    let mut cut = vec![vec![false; nodes]; nodes];
    // With a foreign router that both hear, two nodes of which only one hears the other have no order: n0 goes before
    // the router, the router before n2, and n2 before n0, which it cannot hear.
    if random.percent(30) && !setting.has_foreign {
        for _ in 0..random.within(1..=nodes as u64) {
            let (a, b) = (
                random.below(setting.own_nodes),
                random.below(setting.own_nodes),
            );
            cut[a][b] = true;
            cut[b][a] |= random.percent(60);
        }
    }
    for link in 0..world.paths.len() {
        for from in 0..nodes {
            for to in 0..nodes {
                let path = Path {
                    is_cut: cut[from][to],
                    ..good
                };
                world.at(
                    end,
                    Event::Fault(Fault::Set {
                        link,
                        from,
                        to,
                        path,
                    }),
                );
            }
        }
    }
    let mut runs = vec![true; nodes];
    let dead = setting.is_replayed.then(|| random.below(setting.own_nodes));
    if let Some(from) = dead {
        let to = (from + 1) % setting.own_nodes;
        world.at(end, Event::Fault(Fault::Crash(to)));
        // As slowly as it may be, so that it lasts.
        let every = setting.timing.deadtime.as_micros() as Micros * 9 / 10;
        world.at(
            end + 1,
            Event::Replay {
                from,
                to,
                nth: 0,
                every,
            },
        );
    }
    for node in 0..nodes {
        world.at(end, Event::Fault(Fault::Thaw(node)));
        let (lowers, unfit) = if random.percent(15) {
            (random.one_of(&[0, 7, 60]), random.percent(40))
        } else {
            (0, false)
        };
        world.at(
            end,
            Event::Fault(Fault::Fitness {
                node,
                lowers,
                unfit,
            }),
        );
        for group in 0..setting.groups {
            let is_unable = random.percent(4);
            world.at(
                end,
                Event::Fault(Fault::Unable {
                    node,
                    group,
                    is_unable,
                }),
            );
        }
        if random.percent(15) || dead == Some(node) {
            runs[node] = false;
            let last = if dead == Some(node) || random.percent(50) {
                Fault::Crash(node)
            } else {
                Fault::Stop(node)
            };
            world.at(end, Event::Fault(last));
        } else {
            world.at(end, Event::Fault(Fault::Start(node)));
            // One that was just stopping.
            world.at(
                end + setting.timing.deadtime.as_micros() as Micros,
                Event::Fault(Fault::Start(node)),
            );
        }
    }
    let orders_stand = random.percent(40);
    if !orders_stand {
        for node in 0..nodes {
            let (command, scope) = (Command::Ready, Scope::All);
            world.at(
                end,
                Event::Fault(Fault::Order {
                    node,
                    command,
                    scope,
                }),
            );
        }
    }
    let reaches = |from: usize, to: usize| {
        let mut seen = vec![false; nodes];
        let mut next = vec![from];
        while let Some(node) = next.pop() {
            for other in 0..setting.own_nodes {
                if !seen[other] && runs[other] && !cut[node][other] && node != other {
                    seen[other] = true;
                    next.push(other);
                }
            }
        }
        seen[to]
    };
    let own = (0..setting.own_nodes).filter(|node| runs[*node]);
    let own: Vec<usize> = own.collect();
    let is_connected = own
        .iter()
        .all(|a| own.iter().all(|b| a == b || reaches(*a, *b)));
    // A foreign router is no node that passes on what it hears.
    let is_vrrp_whole = !setting.has_foreign || cut.iter().flatten().all(|cut| !cut);
    Rest {
        is_connected: is_connected && is_vrrp_whole,
        orders_stand,
    }
}
