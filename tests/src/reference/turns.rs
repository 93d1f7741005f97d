//! Those that take turns.

use super::{Client, Scheduler, Server};

/// `rr`: the next one after the last.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin {
    last: Option<usize>,
}

impl Scheduler for RoundRobin {
    fn choose(&mut self, servers: &[Server], _: &Client, _: u32) -> Option<usize> {
        let first = self.last.map_or(0, |last| last + 1);
        let found = (0..servers.len())
            .map(|step| (first + step) % servers.len())
            .find(|index| servers[*index].takes());
        self.last = found.or(self.last);
        found
    }
}

/// `wrr`: a current weight sinks from the largest to the smallest; in each pass those of at least that weight have a turn
/// (`ip_vs_wrr_schedule`).
#[derive(Clone, Copy, Debug, Default)]
pub struct WeightedRoundRobin {
    last: Option<usize>,
    current: u32,
}

impl Scheduler for WeightedRoundRobin {
    fn choose(&mut self, servers: &[Server], _: &Client, _: u32) -> Option<usize> {
        let most = servers.iter().map(|server| server.weight).max()?;
        let step = servers
            .iter()
            .map(|server| server.weight)
            .fold(0, greatest_common_divisor);
        if step == 0 || !servers.iter().any(Server::takes) {
            return None;
        }
        loop {
            let next = self.last.map_or(0, |last| last + 1);
            if next >= servers.len() || self.current == 0 {
                self.current = if self.current <= step {
                    most
                } else {
                    self.current - step
                };
                self.last = None;
            }
            let first = self.last.map_or(0, |last| last + 1);
            let found = (first..servers.len())
                .find(|index| servers[*index].weight >= self.current && servers[*index].takes());
            match found {
                Some(index) => {
                    self.last = Some(index);
                    return found;
                }
                // The pass is over.
                None => self.last = Some(servers.len()),
            }
        }
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(scheduler: &mut dyn Scheduler, weights: &[u32], count: usize) -> Vec<usize> {
        let servers: Vec<Server> = weights
            .iter()
            .map(|weight| Server {
                weight: *weight,
                ..Server::default()
            })
            .collect();
        let client = Client {
            source: [198, 51, 100, 1].into(),
            port: 1,
            destination: [192, 0, 2, 1].into(),
        };
        (0..count)
            .filter_map(|_| scheduler.choose(&servers, &client, 0))
            .collect()
    }

    #[test]
    fn by_hand() {
        let (mut rr, mut wrr) = (RoundRobin::default(), WeightedRoundRobin::default());
        assert_eq!(turns(&mut rr, &[1, 0, 5], 5), [0, 2, 0, 2, 0]);
        assert_eq!(turns(&mut rr, &[0, 0], 3), [0; 0]);
        // The example of the kernel's documentation: A A B A B C A A B …
        assert_eq!(
            turns(&mut wrr, &[4, 3, 2], 12),
            [0, 0, 1, 0, 1, 2, 0, 1, 2, 0, 0, 1]
        );
        let mut wrr = WeightedRoundRobin::default();
        assert_eq!(turns(&mut wrr, &[10, 20], 6), [1, 0, 1, 1, 0, 1]);
    }
}
