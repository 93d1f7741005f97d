//! What the packet path's tables should hold, and how to get there. No I/O.
//!
//! ```text
//!  configuration, next hops, ids in use ──► desired ──► Tables ──┐
//!                                                                ├──► diff ──► writes, in a safe order
//!  what the maps hold (read back, or remembered) ─────► Tables ──┘
//! ```
//!
//! Ids are not remembered anywhere but in the tables: an endpoint's record says its address, ports, protocol and service,
//! a destination's its service, address and port. So the same function serves a first start, a reload, and a director
//! that adopts what a killed one left behind.

mod derived;
mod desired;
mod diff;
mod network;
pub mod owners;
mod ranges;
mod reweigh;
mod slots;
mod tables;

pub use derived::{is_all_leased, release};
pub use desired::{Inputs, PlanError, desired};
pub use diff::diff;
pub use network::{NetworkView, assign_slots, follow, refresh};
pub use reweigh::{Judged, reweigh, rewrite};
pub use tables::{
    Key, Share, Tables, Write, destination_address, endpoint, endpoint_address, ports,
};

#[cfg(test)]
mod tests;
