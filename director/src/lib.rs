//! The userspace side of Director: reads the YAML, keeps the packet path's tables, talks to operators.
//!
//! ```text
//!  config ──► plan (desired tables, diff) ──► datapath ──► maps ──► packet path
//!             ▲         ▲                        │
//!  scheduler ─┘         │                        ▼
//!                   next_hop ◄── netlink      upkeep (mapped connection table)
//!
//!  run: the loop that joins them · control: what an operator asks and is told · cli: the commands
//!  agent: runs on a real server instead, and says how loaded it is
//! ```
//!
//! It does **not** know how a packet is parsed or rewritten (`xdp-ebpf`), nor who is in charge (`heartbeat`).

pub mod agent;
#[cfg(test)]
mod alone;
pub mod cli;
pub mod config;
pub mod control;
pub mod datapath;
pub mod explain;
pub mod files;
pub mod footprint;
pub mod health;
pub mod next_hop;
pub mod overrides;
pub mod plan;
pub mod run;
mod runtime;
pub mod scheduler;
mod seldom;
mod unfenced;
mod unfilled;
mod ungrouped;
mod unsigned;
pub mod upkeep;
mod words;
