//! The edge against a real kernel: each test makes network namespaces of its own.

#![allow(clippy::unwrap_used, reason = "tests")]

mod cable;
mod failing;
mod fitness;
mod keepalived;
mod link;
mod namespace;
mod node;
mod operators;
mod process;
mod takeover;
