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
mod health;
mod node;
mod operator;
mod rates;
mod reconcile;
mod report;
mod resize;
mod seldom;
mod system;
mod templates;

pub use event_loop::{RunOptions, run};
