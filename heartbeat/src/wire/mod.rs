//! What goes over the links, without I/O: VRRP and own heartbeats.

pub mod message;
pub mod vrrp;
