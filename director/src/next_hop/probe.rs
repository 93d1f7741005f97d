//! Which neighbours to ask the kernel to resolve, and when.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::event::NeighbourState;
use super::network::Network;

/// How long to wait for an answer of an unresolved neighbour before it is asked for again.
pub const RETRY: Duration = Duration::from_secs(1);
/// How often a resolved neighbour is used in the kernel's eyes: forwarded packets do not pass there, so it would
/// otherwise grow stale and be removed.
pub const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Most neighbours asked for in a second; those due longest come first.
pub const PROBES_PER_SECOND: u32 = 500;
/// How often [`Prober::due`] is worth calling.
pub const PROBE_TICK: Duration = Duration::from_millis(250);

/// A neighbour to ask the kernel for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Probe {
    /// Interface it is reached by.
    pub ifindex: u32,
    /// Its address.
    pub address: IpAddr,
}

/// The schedule of probes.
#[derive(Clone, Debug, Default)]
pub struct Prober {
    asked: BTreeMap<(u32, IpAddr), Instant>,
    /// When tokens were last added, and how many are left.
    bucket: Option<(Instant, u32)>,
}

impl Prober {
    /// The probes to send now: each neighbour in use at once when it is first seen, every [`RETRY`] while it is not
    /// resolved, every [`KEEP_ALIVE`] when it is. Those on links that are down, and permanent ones, are not asked for.
    pub fn due(&mut self, network: &mut Network, now: Instant) -> Vec<Probe> {
        let targets = network.targets().clone();
        self.asked.retain(|target, _| targets.contains(target));
        let mut due: Vec<_> = targets
            .into_iter()
            .filter(|(ifindex, _)| network.is_up(*ifindex))
            .filter_map(|target| {
                let interval = interval(network, target)?;
                let since = self.asked.get(&target).copied();
                match since {
                    Some(asked) if asked + interval > now => None,
                    // Never asked comes first.
                    Some(asked) => Some((Some(asked + interval), target)),
                    None => Some((None, target)),
                }
            })
            .collect();
        due.sort_unstable();
        due.truncate(self.take_tokens(due.len(), now));
        self.asked
            .extend(due.iter().map(|(_, target)| (*target, now)));
        due.into_iter()
            .map(|(_, (ifindex, address))| Probe { ifindex, address })
            .collect()
    }

    /// Takes up to `wanted` tokens of a bucket that holds one second's worth.
    fn take_tokens(&mut self, wanted: usize, now: Instant) -> usize {
        let (filled, tokens) = self.bucket.unwrap_or((now, PROBES_PER_SECOND));
        let elapsed = now
            .saturating_duration_since(filled)
            .min(Duration::from_secs(1));
        let fresh = elapsed.as_millis() as u32 * PROBES_PER_SECOND / 1000;
        let tokens = tokens.saturating_add(fresh).min(PROBES_PER_SECOND);
        let taken = tokens.min(u32::try_from(wanted).unwrap_or(u32::MAX));
        // A call too soon for a whole token must not lose the time.
        let filled = if fresh == 0 { filled } else { now };
        self.bucket = Some((filled, tokens - taken));
        taken as usize
    }
}

fn interval(network: &Network, target: (u32, IpAddr)) -> Option<Duration> {
    let Some(neighbour) = network.neighbours.get(&target) else {
        return Some(RETRY);
    };
    match neighbour.state {
        _ if neighbour.gone || neighbour.mac.is_none() => Some(RETRY),
        NeighbourState::Incomplete | NeighbourState::Failed => Some(RETRY),
        NeighbourState::Reachable | NeighbourState::Stale => Some(KEEP_ALIVE),
        NeighbourState::Permanent => None,
    }
}
