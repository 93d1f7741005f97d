//! Loading, pinning and adopting the BPF programs and maps. The only module that talks to the kernel's BPF side.
//!
//! ```text
//!  /sys/fs/bpf/director/<instance>/   SERVICES4, …  every map of `layout::maps` but those in tables/
//!                                     tables/LAYOUT what the tables look like; pinned last, so its presence means whole
//!                                     link-<name>   the program attached to that interface
//!                                     tables/       LAYOUT, SETTINGS, CONNECTIONS4, CONNECTIONS6, STAGES
//!                                     next/         their successors, while tables of another size are being made
//! ```
//!
//! All of it outlives the process: a director that was killed goes on forwarding, and the next one adopts what stands
//! there. Only [`Datapath::stop`] takes it away. The directory is locked while a director runs.
//!
//! It decides nothing: what the maps should hold is the business of [`crate::plan`].

mod attach;
mod bpffs;
mod decap;
mod error;
mod found;
mod held;
mod inject;
mod lease;
mod lend;
mod link;
mod load;
mod maps;
mod memory;
mod objects {
    include!(concat!(env!("OUT_DIR"), "/objects.rs"));
}
mod plain;
mod privileges;
mod quiet;
mod read;
mod resize;
mod sys;
mod view;

pub use attach::Attached;
pub use bpffs::DEFAULT_BPFFS;
pub use decap::{Decap, DecapOptions};
pub use error::DatapathError;
pub use held::{Datagram, HeldFragment, Waiting};
pub use lease::{LeaseKeeper, LeaseState};
pub use lend::LentTables;
pub use load::{Datapath, Options, online_cpus, possible_cpus};
pub use maps::Maps;
pub use memory::Mapped;
pub use privileges::check as check_privileges;
pub use resize::{Former, Prepared, Successor};
pub use view::View;
