//! The connection tables as conn-sync reads them and has them written.
//!
//! ```text
//!   tables ──► scan: what changed, most valuable first ──► sender       walk: everything, a piece at a time ──► bulk resync
//!   tables ◄── (a program on the CPU that owns the table) ◄── place: into which, and what is in its way ◄── receiver
//! ```
//!
//! The memory is lent by whoever drives this; who may write what stands at the head of [`xdp_ebpf::connection`].

mod place;
mod scan;
mod turns;
mod walk;

use xdp_ebpf::connection::{Bucket4, Bucket6};
use xdp_ebpf::walk::Walk;

pub use place::{Placed, Wish, forget, place};
pub use scan::Scanner;
pub use walk::{Cursor, Piece, count, look_up, piece};

/// A place: its bucket, those of the wide tables after those of the narrow ones, and which of the bucket's.
type At = (u32, u8);

/// The tables of a director at one moment.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The narrow tables, CPU after CPU.
    pub table4: &'a [Bucket4],
    /// The wide tables, CPU after CPU.
    pub table6: &'a [Bucket6],
    /// CPUs that have one.
    pub cpus: u32,
    /// Buckets of one CPU's narrow table.
    pub buckets4: u32,
    /// Buckets of one CPU's wide table.
    pub buckets6: u32,
    /// Secret of the tables' hash.
    pub seed: u64,
    /// The tables' clock.
    pub now_s: u32,
    /// Whether anything new is entered: not in the last moment before other tables take their place.
    pub takes_new: bool,
}

impl<'a> View<'a> {
    fn narrow(&self) -> Walk<'a, Bucket4> {
        Walk {
            table: self.table4,
            cpus: self.cpus,
            buckets: self.buckets4,
            seed: self.seed,
            now_s: self.now_s,
        }
    }

    fn wide(&self) -> Walk<'a, Bucket6> {
        Walk {
            table: self.table6,
            cpus: self.cpus,
            buckets: self.buckets6,
            seed: self.seed,
            now_s: self.now_s,
        }
    }
}

#[cfg(test)]
mod tests;
