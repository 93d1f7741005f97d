//! One flow, all that a packet of a known connection can meet: the best case, in which everything is in the caches.

use std::time::Duration;

use anyhow::Result;
use xdp_ebpf::bench::programs;
use xdp_ebpf::layout::limits;

use super::{answers, interleaved};
use crate::bench::Options;
use crate::bench::report::{Question, Suite};
use crate::bench::rig::{Contender, Rig};
use crate::bench::rounds::Extent;
use crate::bench::site::{self, DR, NAT, TUN, TUN6, UDP, Way};
use crate::bench::verdict::Goal;
use crate::packet::Action;

/// The yardstick's number among the contenders.
const YARDSTICK: usize = 0;
/// And its name.
const YARDSTICK_NAME: &str = "LRU hash, 16-byte key";

/// What is measured besides the yardstick: name, sentence, contender, goal.
fn contenders() -> Vec<(&'static str, &'static str, Contender, Option<f64>)> {
    let bench = |name| Contender::bench(name, TUN.later());
    let hit = |way: Way| Contender::director(way.later());
    vec![
        (
            "lru16",
            "yardstick: parse, look up in an LRU hash, 16-byte key",
            bench(programs::LRU16),
            None,
        ),
        (
            "lru40",
            "yardstick: the same with a 40-byte key",
            bench(programs::LRU40),
            None,
        ),
        (
            "parse",
            "part: parse to the ports",
            bench(programs::PARSE),
            None,
        ),
        (
            "hash8",
            "part: parse, look up in a hash, 8-byte key, as for the service",
            bench(programs::HASH8),
            None,
        ),
        (
            "trie",
            "part: parse, look up in a trie of 2 prefixes, as for a reply's route",
            bench(programs::TRIE),
            None,
        ),
        (
            "move-head",
            "part: bpf_xdp_adjust_head and nothing else",
            bench(programs::MOVE_HEAD),
            None,
        ),
        ("tun", "IPv4 TCP hit, TUN (IPIP)", hit(TUN), Some(2.5)),
        (
            "nat",
            "IPv4 TCP hit, NAT, to the real server",
            hit(NAT),
            Some(2.5),
        ),
        (
            "nat-reply",
            "IPv4 TCP, NAT, reply to the client",
            Contender::director(NAT.reply()),
            Some(2.5),
        ),
        ("udp", "IPv4 UDP hit, TUN (IPIP)", hit(UDP), Some(2.5)),
        ("dr", "IPv4 TCP hit, DR", hit(DR), Some(2.2)),
        (
            "tcp6",
            "IPv6 TCP hit, TUN (IPv6 in IPv6)",
            hit(TUN6),
            Some(3.5),
        ),
        (
            "pass",
            "IPv4 TCP, not for us: to the kernel",
            Contender::director(site::stranger()).expecting(Action::Pass),
            Some(1.0),
        ),
    ]
}

/// Loads the yardsticks anew and makes connections that stand, of the one flow. How dear a lookup is depends on where its
/// table happens to lie, and on the secret of its hash: measured up to a sixth between two loads.
fn prepare(rig: &mut Rig) -> Result<()> {
    rig.resize(limits::MIN_BUCKETS, 1)?;
    for way in [TUN, NAT, DR, UDP, TUN6] {
        rig.run(&Contender::director(way.first()), 1)?;
        rig.run(&Contender::director(way.later()), 1)?;
    }
    for fill in [programs::FILL8, programs::FILL16, programs::FILL40] {
        rig.run(&Contender::bench(fill, TUN.later()), 1)?;
    }
    Ok(())
}

/// Runs it.
///
/// # Errors
/// A run fails.
pub fn run(options: &Options) -> Result<Suite> {
    let (names, contenders): (Vec<_>, Vec<_>) = contenders()
        .into_iter()
        .map(|(name, what, contender, goal)| ((name, what, goal), contender))
        .unzip();
    let questions: Vec<Question> = (0..)
        .zip(&names)
        .map(|(contender, (name, what, goal))| Question {
            name: (*name).to_owned(),
            what: (*what).to_owned(),
            contender,
            against: (contender != YARDSTICK).then(|| (YARDSTICK, YARDSTICK_NAME.to_owned())),
            goal: goal.map(Goal::AtMost),
            ..Question::default()
        })
        .collect();
    let (loads, extent) = if options.quick {
        let extent = Extent {
            quiet: 5,
            rounds: 60,
            time: Duration::from_secs(2),
        };
        (3, extent)
    } else {
        let extent = Extent {
            quiet: 15,
            rounds: 300,
            time: Duration::from_secs(9),
        };
        (10, extent)
    };
    // About a millisecond: mostly nobody else runs in between.
    let packets = 10_000;
    let floor = Contender::bench(programs::TRIVIAL, TUN.later());
    let mut rig = Rig::new(limits::MIN_BUCKETS, 1)?;
    let mut rounds = Vec::new();
    for _ in 0..loads {
        prepare(&mut rig)?;
        rounds.append(&mut interleaved(
            &mut rig,
            &floor,
            &contenders,
            (0, packets),
            extent,
        )?);
    }
    let rows = answers(&questions, &rounds);
    Ok(Suite {
        name: "packet".to_owned(),
        rows,
        notes: vec!["One flow. Net of a program that sends at once; ratios to the same yardstick throughout.".to_owned()],
        ..Suite::default()
    })
}
