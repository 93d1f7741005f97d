//! Two nodes, a client that keeps requesting through a router with a real ARP cache, and what can go wrong with one of them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod alone;
mod arranged;
#[path = "../../../heartbeat/tests/edge/cable.rs"]
mod cable;
mod directors;
mod figures;
mod load;
mod on_change;
mod reloads;
mod sharing;
mod sync;
mod troubles;

use director_tests::pair;
