//! Those that compare connections.

use super::{Client, Scheduler, Server, candidates, least};

/// `lc` and `wlc`: fewest connections, for its weight or not.
#[derive(Clone, Copy, Debug)]
pub struct LeastConnection {
    /// Whether weights count.
    pub weighted: bool,
}

impl Scheduler for LeastConnection {
    fn choose(&mut self, servers: &[Server], _: &Client, _: u32) -> Option<usize> {
        if self.weighted {
            return least(candidates(servers), Server::overhead);
        }
        candidates(servers)
            .min_by_key(|(_, server)| server.overhead())
            .map(|(index, _)| index)
    }
}

/// `sed`: fewest active ones with the new one, for its weight.
#[derive(Clone, Copy, Debug)]
pub struct ShortestDelay;

impl Scheduler for ShortestDelay {
    fn choose(&mut self, servers: &[Server], _: &Client, _: u32) -> Option<usize> {
        least(candidates(servers), |server| server.active + 1)
    }
}

/// `nq`: the first idle one, else as `sed`.
#[derive(Clone, Copy, Debug)]
pub struct NeverQueue;

impl Scheduler for NeverQueue {
    fn choose(&mut self, servers: &[Server], client: &Client, now_s: u32) -> Option<usize> {
        let idle = candidates(servers).find(|(_, server)| server.active == 0);
        match idle {
            Some((index, _)) => Some(index),
            None => ShortestDelay.choose(servers, client, now_s),
        }
    }
}

/// The first of the heaviest.
fn heaviest<'a>(servers: impl Iterator<Item = (usize, &'a Server)>) -> Option<usize> {
    let mut best: Option<(usize, u32)> = None;
    for (index, server) in servers {
        if best.is_none_or(|(_, weight)| server.weight > weight) {
            best = Some((index, server.weight));
        }
    }
    best.map(|(index, _)| index)
}

/// `fo`: the heaviest.
#[derive(Clone, Copy, Debug)]
pub struct FailOver;

impl Scheduler for FailOver {
    fn choose(&mut self, servers: &[Server], _: &Client, _: u32) -> Option<usize> {
        heaviest(candidates(servers))
    }
}

/// `ovf`: the heaviest that has no more active ones than its weight.
#[derive(Clone, Copy, Debug)]
pub struct OverFlow;

impl Scheduler for OverFlow {
    fn choose(&mut self, servers: &[Server], _: &Client, _: u32) -> Option<usize> {
        heaviest(candidates(servers).filter(|(_, server)| server.active <= server.weight.into()))
    }
}

/// `twos`: the less loaded of two that are drawn by weight.
pub struct Two<R> {
    /// 32 random bits.
    pub random: R,
}

impl<R: FnMut() -> u32> Two<R> {
    /// A number from 0 to `sum` inclusive, of one draw: its share of 2^32 of the range.
    fn below(&mut self, sum: u64) -> u64 {
        ((u128::from((self.random)()) * u128::from(sum + 1)) >> 32) as u64
    }
}

impl<R: FnMut() -> u32> Scheduler for Two<R> {
    fn choose(&mut self, servers: &[Server], _: &Client, _: u32) -> Option<usize> {
        let sum: u64 = candidates(servers)
            .map(|(_, server)| u64::from(server.weight))
            .sum();
        if sum == 0 {
            return None;
        }
        let drawn = |random: u64| -> Option<usize> {
            let mut sum = 0;
            candidates(servers)
                .find(|(_, server)| {
                    sum += u64::from(server.weight);
                    random <= sum
                })
                .map(|(index, _)| index)
        };
        let (one, other) = (drawn(self.below(sum))?, drawn(self.below(sum))?);
        let load = |index: usize| u128::from(servers[index].overhead());
        let weight = |index: usize| u128::from(servers[index].weight);
        let is_more = load(one) * weight(other) > load(other) * weight(one);
        Some(if is_more { other } else { one })
    }
}
