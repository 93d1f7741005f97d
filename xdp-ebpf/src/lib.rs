#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![cfg_attr(not(any(test, feature = "native")), no_std)]
//! The packet path of Director: what becomes of every packet that reaches a director's network interface.
//!
//! ```text
//!            bytes between two pointers            tables
//!            (packet, wire, parse)                 (layout, tables, connection, table, reach, family)
//!                        └───────────┬──────────────┘
//!                                  path ──► verdict: pass, drop (a reason), transmit, redirect
//!                                    ▲
//!        kernel: src/bin/*, BPF maps ┘└ native: ordinary memory (tests, fuzzers, `director explain`)
//! ```
//!
//! One source runs in both places: it is generic over a [`packet::Packet`] and over [`tables::Tables`]. Everything is
//! `#[inline(always)]` but the searches of the connection table, so that the verifier sees a few plain programs.
//!
//! It does **not** know how the tables are filled, what a YAML file is, whether a real server is healthy, or who is in
//! charge. It never waits, never allocates and never asks userspace anything.

pub mod atomic;
pub mod bench;
pub mod checksum;
pub mod connection;
pub mod decap;
pub mod family;
pub mod filter;
#[cfg(feature = "bpf")]
pub mod kernel;
pub mod layout;
pub mod lines;

#[cfg(feature = "native")]
pub mod native;
pub mod packet;
pub mod parse;
pub mod path;
pub mod reach;
pub mod state;
pub mod table;
pub mod tables;
pub mod verifier;
#[cfg(any(test, feature = "native"))]
pub mod walk;
pub mod wire;
