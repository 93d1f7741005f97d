//! Those that hash.

use super::{Client, Scheduler, Server, folded};

/// Buckets of `sh` and `dh`.
const BUCKETS: usize = 256;

/// What is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// `sh`: the client's address, and with `sh-port` its port.
    Source {
        /// The port too.
        port: bool,
    },
    /// `dh`: the virtual address.
    Destination,
}

/// `sh` and `dh`.
#[derive(Clone, Copy, Debug)]
pub struct Hashed {
    /// What is hashed.
    pub by: Hash,
    /// Whether another one is taken where the mapped one is out.
    pub fallback: bool,
}

impl Hashed {
    /// Which server each bucket is mapped to (`ip_vs_sh_reassign`, `ip_vs_dh_reassign`).
    fn buckets(self, servers: &[Server]) -> Vec<usize> {
        let (mut server, mut filled) = (0, 0);
        let mut buckets = Vec::new();
        while !servers.is_empty() && buckets.len() < BUCKETS {
            buckets.push(server);
            filled += 1;
            let share = match self.by {
                Hash::Source { .. } => servers[server].weight,
                Hash::Destination => 1,
            };
            if filled >= share {
                server = (server + 1) % servers.len();
                filled = 0;
            }
        }
        buckets
    }
}

impl Scheduler for Hashed {
    fn choose(&mut self, servers: &[Server], client: &Client, _: u32) -> Option<usize> {
        let buckets = self.buckets(servers);
        let number = match self.by {
            Hash::Source { port: false } => folded(client.source),
            Hash::Source { port: true } => {
                folded(client.source).wrapping_add(u32::from(client.port))
            }
            Hash::Destination => folded(client.destination),
        };
        // `hash_32`, to eight bits.
        let hash = (number.wrapping_mul(0x61c8_8647) >> 24) as usize;
        let mapped = *buckets.get(hash)?;
        if servers[mapped].takes() {
            return Some(mapped);
        }
        // `ip_vs_sh_get_fallback`: the offset begins at the hash, and is added to it once more.
        (0..BUCKETS)
            .filter(|_| self.fallback)
            .map(|step| buckets[(hash + (step + hash) % BUCKETS) % BUCKETS])
            .find(|server| servers[*server].takes())
    }
}

/// `mh` over a table that somebody else made.
#[derive(Clone, Debug)]
pub struct Maglev {
    /// Which server each slot is mapped to.
    pub table: Vec<usize>,
    /// Whether the client's port counts too.
    pub port: bool,
    /// Whether another one is taken where the mapped one is out.
    pub fallback: bool,
}

impl Maglev {
    /// The director's hash of a client: addresses and ports as they stand in a packet, read as little-endian numbers. To
    /// be the same in all versions.
    fn hash(&self, client: &Client) -> u32 {
        let address = folded(client.source).swap_bytes();
        let port = if self.port {
            client.port.swap_bytes()
        } else {
            0
        };
        let word = u64::from(address) | u64::from(port) << 32;
        let word = (word ^ 0x6d68_2d64_6972_6563).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((word ^ word >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) as u32
    }
}

impl Scheduler for Maglev {
    fn choose(&mut self, servers: &[Server], client: &Client, _: u32) -> Option<usize> {
        let slots = self.table.len();
        if slots == 0 {
            return None;
        }
        let first = self.hash(client) as usize % slots;
        let steps = if self.fallback { slots } else { 1 };
        (0..steps)
            .map(|step| self.table[(first + step) % slots])
            .find(|server| servers[*server].takes())
    }
}
