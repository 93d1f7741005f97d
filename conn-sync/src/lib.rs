//! Connection-table updates from a director to its backups, so that established connections survive a failover.
//!
//! ```text
//!  connection table ──table::scan──► machine ──► wire ──UDP──► wire ──► machine ──table::place──► the backup's table
//!  (mapped memory)                      └──────── bulk resync over TCP ────────┘
//! ```
//!
//! * `entry`: what travels, and what takes the place of what.
//! * `directory`: what entries of the tables are called on the wire, and the other way round.
//! * `wire`: Director's own messages as codecs without I/O.
//! * `machine`: what is sent next, what is missing, when a node is synced. No I/O: inputs and the time in, actions out.
//! * `table`: passes over the tables that find what changed; where a peer's connection is put.
//! * `refresh`: when what is in use is told again.
//! * `link`, `node`: sockets, and the thread that joins all of it. `config`: what it is told.
//!
//! It sends *state, not events*: a burst can delay an update but cannot lose one. It does **not** know
//! who is in charge, how packets are forwarded or what a file of configuration looks like.

pub mod config;
pub mod directory;
pub mod entry;
pub mod link;
pub mod machine;
pub mod node;
pub mod refresh;
pub mod table;
pub mod wire;

#[cfg(test)]
mod sim;
