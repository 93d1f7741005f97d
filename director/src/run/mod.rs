//! The running director: one task that owns everything and takes one event after the other.
//!
//! ```text
//!  network events ─┐
//!  clock ──────────┤
//!  signals ────────┼──► run loop ──► Node: configuration, network, tables ──► writes ──► datapath
//!  questions ──────┤
//!  early fragments ┘
//! ```
//!
//! What takes long is not done by it at once: a file is read by a thread beside it (`reload`), the status is put together
//! in slices (`telling`), connection tables are walked in slices (`upkeep`, `turn`), and checks and alerts have threads of
//! their own.

mod alerts;
mod checks;
mod event_loop;
mod fence;
mod gone;
mod health;
mod heartbeat;
mod judged;
mod localities;
mod marks;
mod node;
mod operator;
mod rates;
mod reconcile;
mod reload;
mod report;
mod resize;
mod restarts;
mod sync;
mod system;
mod telling;
mod templates;
mod times;
mod turn;
mod unwritten;
mod watch;
mod watchdog;

pub use event_loop::{RunOptions, run};
