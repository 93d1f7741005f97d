//! Expiry and counts of connections, by walking the tables that the packet path writes.
//!
//! A pass goes over both tables in slices, so that the rest of the director gets its turn. It frees what has been
//! idle longer than its state allows, and at its end tells what each destination has. The rules of who may write
//! what stand at the head of [`xdp_ebpf::connection`]: here only values are touched, only by compare-and-swap, and
//! only to 0.

pub mod list;
pub mod loads;
mod pass;

pub use pass::{Counts, EndpointRule, Geometry, Persistence, Report, Upkeep};

#[cfg(test)]
mod tests;
