//! The running director: one task that owns everything and takes one event after the other.
//!
//! ```text
//!  network events ─┐
//!  clock ──────────┤
//!  signals ────────┼──► run loop ──► Node: configuration, network, tables ──► writes ──► datapath
//!  questions ──────┤
//!  early fragments ┘
//! ```

mod alerts;
mod event_loop;
mod gone;
mod health;
mod heartbeat;
mod localities;
mod node;
mod operator;
mod rates;
mod reconcile;
mod report;
mod resize;
mod seldom;
mod sync;
mod system;
mod templates;
mod times;
mod watch;

pub use event_loop::{RunOptions, run};
