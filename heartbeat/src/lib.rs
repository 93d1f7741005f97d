//! Who is in charge: decides which director serves a group of virtual addresses, and moves them.
//!
//! ```text
//!  links (VRRP, UDP, serial line) ──► wire ──► machine ──► actions ──► takeover (addresses, gratuitous ARP)
//!                                              ▲
//!                                             now
//! ```
//!
//! * `wire`: VRRP version 2 and 3 (RFC 3768, RFC 9568) and Director's own heartbeats as codecs without I/O.
//! * `machine`: the failover rules. They take a message or the time and return what to do.
//! * `config`: nodes, links, groups of virtual addresses.
//! * `link`, `takeover`, `fitness`, `program`: sockets and the serial line, addresses and their announcement, what this
//!   node itself needs, programs.
//! * `node`: the thread that joins them. `control` and `cli`: operators. `log`: what is said, without waiting for who reads.
//!
//! It does **not** know about packets of virtual services, BPF, health checks or the director's
//! configuration file: it must be usable alone.

pub mod cli;
pub mod config;
pub mod control;
pub mod fitness;
pub mod link;
pub mod log;
pub mod machine;
mod netlink;
pub mod node;
pub mod program;
#[cfg(test)]
mod sim;
pub mod takeover;
pub mod wire;
