//! Expiry and counts of connections, by walking the tables that the packet path writes.
//!
//! ```text
//!   connection tables ──► walk ──► pass ──► report ──► loads: live counts and thresholds corrected
//!   rules (timeouts, who is gone) ───┘         ├─────► templates: which still have connections
//!                                              └─────► marks: which slots that changed have settled
//!   connection tables ──► list: one line for each connection
//! ```
//!
//! A pass goes over both tables in slices, so that the rest of the director gets its turn. It frees what has been
//! idle longer than its state allows, and at its end tells what each destination has. The rules of who may write
//! what stand at the head of [`xdp_ebpf::connection`]: here only values are touched, only by compare-and-swap, and
//! only to 0. [`carry`], which fills tables that nobody uses yet, has rules of its own.

pub mod carry;
pub mod list;
pub mod loads;
pub mod marks;
mod pass;
mod report;
mod rules;
pub mod templates;
mod walk;

pub use pass::{Geometry, Upkeep};
pub use report::{Counts, Report};
pub use rules::{Dead, EndpointRule, LONGEST_TIMEOUT_S, Persistence};

#[cfg(test)]
mod tests;
