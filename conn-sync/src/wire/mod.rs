//! What goes over the network, without I/O: Director's own protocol, and the kernel's (`ipvs`).

pub mod auth;
pub mod bulk;
mod entry;
mod header;
pub mod ipvs;
pub mod message;
mod reader;

pub use auth::{Key, KeyError, Keyring, Reject};
pub use entry::LONGEST_RECORD;
pub use header::Header;

#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
#[cfg(test)]
mod tests;
