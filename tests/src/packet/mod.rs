//! Packet cases: a sentence, tables, packets, and what must become of them.
//!
//! ```text
//!  build ── packets as descriptions ─┐
//!  fixture ── tables ────────────────┤
//!                                    ├─► Case ──► check ──► Machine: native, or the object in the kernel
//!  verify ── checksums, by etherparse ┘
//! ```
//!
//! Every case runs on both machines with the same expectations.

pub mod build;
pub mod case;
pub mod fixture;
pub mod kernel;
pub mod machine;
pub mod native;
pub mod samples;
pub mod verify;

pub use case::{Case, Step, check, check_all};
pub use machine::{Action, Connection, Counts, Machine, Outcome, Place};
