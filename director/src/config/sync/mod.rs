//! The section `sync`: with whom this director shares its connections.

mod file;
mod keys;
mod kinds;
mod model;
mod resolve;

pub(super) use file::SyncFile;
pub use keys::{SyncKeyError, load_sync_keys};
pub use model::{KernelSync, KeyFile, Sync, SyncKeys};
