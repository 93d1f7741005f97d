//! A simulator: nodes with their machines and clocks that drift, real datagrams and real bulk resyncs, tables that are models;
//! clients that open, close and reuse their ports, over TCP and UDP; a network that loses, delays, repeats, reorders and cuts; nodes that are started anew with or without
//! their tables; service that moves between nodes; directories that differ for a while; and a judge that knows the truth.
//!
//! All of a run follows from its seed and kind. `CONN_SYNC_SEED=17 cargo test -p conn-sync whatever_happens -- --nocapture` runs one
//! and tells what happens in it; `CONN_SYNC_SEEDS=100000` runs more than usual, from `CONN_SYNC_FIRST_SEED` on.

mod judge;
mod names;
mod random;
mod scenario;
mod table;
mod tests;
mod world;
