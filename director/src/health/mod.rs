//! Health: which real servers answer, and what follows from it.
//!
//! ```text
//!  config (checks) ──► engine: a thread of its own ──► probe: asks one backend once
//!                        │  ▲ due, finished                 │ good, or a failure in words
//!                        ▼  └───────────────────────────────┘
//!                      machine: when the next run is due; rise and fall ──► verdicts
//!                                                                             │
//!  run: the main loop ◄── standing: quorum, fallback, slow start, agents ◄────┘ ──► plan (weights) ──► alert
//! ```
//!
//! Only `probe`, `through` and `engine` do I/O. The rest takes inputs and `now` and says what to do. Nothing here knows about maps,
//! ids or packets.

pub mod alert;
mod aside;
pub mod engine;
mod group;
#[cfg(test)]
mod hangs;
pub mod machine;
pub mod probe;
pub mod standing;
mod starting;
pub mod through;
