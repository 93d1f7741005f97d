//! What goes over the links, without I/O: VRRP and own heartbeats.

pub mod auth;
pub mod message;
pub mod vrrp;

pub use auth::Reject;

#[cfg(test)]
mod tests;
