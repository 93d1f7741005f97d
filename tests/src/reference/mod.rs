//! The schedulers of IPVS once more, plainly: what the packet path's choices are held against.
//!
//! ```text
//!   servers (weight, active, inactive, overloaded) ─┐
//!   client ─────────────────────────────────────────┴─► Scheduler::choose ──► which one
//! ```
//!
//! Each is written from its definition (`net/netfilter/ipvs/ip_vs_*.c`, Linux 6.18) and knows nothing of the packet
//! path's tables, cursors or loops. Decided differences to the kernel: servers stand in their configured order (the kernel
//! puts a new one at the head of its list); `dh` can fall back, as `sh` does; `mh` has the director's own table and hash.

mod counting;
mod hashing;
mod locality;
pub mod tcp;
mod turns;

use std::net::IpAddr;

pub use counting::{FailOver, LeastConnection, NeverQueue, OverFlow, ShortestDelay, Two};
pub use hashing::{Hash, Hashed, Maglev};
pub use locality::{Lblc, Lblcr};
pub use turns::{RoundRobin, WeightedRoundRobin};

/// A real server as a scheduler sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Share of new connections; 0: none.
    pub weight: u32,
    /// Active connections.
    pub active: u64,
    /// Inactive ones.
    pub inactive: u64,
    /// Its upper threshold was reached.
    pub overloaded: bool,
}

impl Server {
    /// Whether it may get a new connection.
    #[must_use]
    pub fn takes(&self) -> bool {
        self.weight > 0 && !self.overloaded
    }

    /// `ip_vs_dest_conn_overhead`.
    #[must_use]
    pub fn overhead(&self) -> u64 {
        self.active * 256 + self.inactive
    }
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub source: IpAddr,
    /// Its port.
    pub port: u16,
    /// The virtual address.
    pub destination: IpAddr,
}

/// Chooses among servers.
pub trait Scheduler {
    /// Which one gets the client's new connection, if any.
    fn choose(&mut self, servers: &[Server], client: &Client, now_s: u32) -> Option<usize>;
}

/// An address in 32 bits, as a number: IPv6's four words under exclusive or (`ip_vs_sh_hashkey` and others).
#[must_use]
pub fn folded(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            [96, 64, 32, 0]
                .into_iter()
                .fold(0, |word, shift| word ^ (bits >> shift) as u32)
        }
    }
}

/// The servers that may get a connection, with their places.
fn candidates(servers: &[Server]) -> impl Iterator<Item = (usize, &Server)> {
    servers
        .iter()
        .enumerate()
        .filter(|(_, server)| server.takes())
}

/// The first of the least, by a ratio: cost for its weight.
fn least<'a>(
    servers: impl Iterator<Item = (usize, &'a Server)>,
    cost: impl Fn(&Server) -> u64,
) -> Option<usize> {
    let mut best: Option<(usize, u128, u128)> = None;
    for (index, server) in servers {
        let (cost, weight) = (u128::from(cost(server)), u128::from(server.weight));
        let is_less = best.is_none_or(|(_, least, its)| cost * its < least * weight);
        if is_less {
            best = Some((index, cost, weight));
        }
    }
    best.map(|(index, ..)| index)
}
