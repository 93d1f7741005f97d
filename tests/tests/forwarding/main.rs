//! The director in the lab: real sockets, nginx, namespaces. What a client sees, and what the director says of it.
//!
//! Where it matters that the packet path forwards and not the kernel, the kernel's forwarding is switched off
//! ([`site::Site::without_kernel`]) and the director's counters must have grown by what was sent.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod crowd;
mod errors;
mod fragments;
mod health;
mod icmp;
mod life;
mod many;
mod methods;
mod on_change;
mod operators;
mod others;
mod persistent;
mod scale;
mod schedulers;
mod site;
mod through;
