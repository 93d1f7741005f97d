//! A simulator: nodes with their machines and real messages, links that lose, delay, repeat, reorder and cut, nodes that crash,
//! stand still and have clocks of their own, and a judge that knows the truth.
//!
//! All of a run follows from its seed. `HEARTBEAT_SEED=17 cargo test -p heartbeat sim -- --nocapture` runs one and tells what
//! happens in it; `HEARTBEAT_SEEDS=100000` runs more than usual, from `HEARTBEAT_FIRST_SEED` on.

#![allow(
    clippy::needless_range_loop,
    reason = "nodes, links and groups are numbers that several tables are about"
)]

mod judge;
mod random;
mod scenario;
mod tests;
mod world;
