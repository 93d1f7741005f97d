//! Alerts: who is told what of real servers and services, and of who is in charge, and when.
//!
//! ```text
//!  standing, verdicts ──► observe: what changed ──► machine: after, periods, repeats, grouping, queues, retries
//!   (main loop)                          ▲            │  ▲                            (a thread of its own: engine)
//!                                                     ▼  └── delivered, or why not
//!                                  message: in words and JSON ──► deliver: mail, program, webhook
//! ```
//!
//! Only `engine` and `deliver` do I/O. The main loop hands over what changed and waits for nothing: a mail server that does not
//! answer makes no check late.

mod deliver;
pub mod engine;
pub mod event;
pub mod failover;
pub mod machine;
mod message;
pub mod observe;
#[cfg(test)]
mod tests;
mod turns;
