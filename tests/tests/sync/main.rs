//! Connections that two nodes tell each other of.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod kernel;
mod mixed;
