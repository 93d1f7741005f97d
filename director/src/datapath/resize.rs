//! Connection tables of another size in place of those that there are, while packets pass.
//!
//! ```text
//!  successor ──prepare (a thread: seconds of verification)──► prepared: tables of the new size, programs that use them
//!     ▼ the caller copies connections into them                        │
//!  hold (nothing new is entered) ─► the caller copies what changed ─► take_over: links, then pins ─► end_former
//! ```
//!
//! All other maps stay and are shared by the old programs and the new ones. What is exchanged stands in one directory, whose
//! exchange is one step: a director killed at any moment leaves one of the two for the next to adopt, and the other, which
//! it removes once its own programs are in the links' places: those that run may be the ones that use it.

use std::path::PathBuf;
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{Array, MapData, ProgramArray};
use xdp_ebpf::connection::{Bucket4, Bucket6};
use xdp_ebpf::layout::{Settings, maps, programs, settings};

use super::bpffs::{Sizes, next_map_in};
use super::error::DatapathError;
use super::load::{Datapath, connections, fill_stages, load, load_programs, program};
use super::maps::{failed, take, take_as};
use super::memory::Mapped;
use super::objects;
use super::plain::Plain;
use super::sys;

/// Tables of another size that are to be made.
#[derive(Debug)]
pub struct Successor {
    directory: PathBuf,
    sizes: Sizes,
}

/// Tables of another size, and programs that use them. Nothing uses them yet.
pub struct Prepared {
    /// The IPv4 connection tables.
    pub connections4: Arc<Mapped<Bucket4>>,
    /// The IPv6 connection tables.
    pub connections6: Arc<Mapped<Bucket6>>,
    object: Ebpf,
    settings: Array<MapData, Plain<Settings>>,
    sizes: Sizes,
}

impl Successor {
    /// Makes the tables and loads the programs. Takes the kernel seconds: for a thread of its own.
    ///
    /// # Errors
    /// When there is no memory for the tables, most likely.
    pub fn prepare(self) -> Result<Prepared, DatapathError> {
        let code = objects::DIRECTOR.ok_or(DatapathError::NotBuilt)?;
        let pin = |name: &str| next_map_in(&self.directory, name);
        let mut object = load(code, pin, self.sizes)?;
        load_programs(&mut object)?;
        let mut stages: ProgramArray<MapData> = take_as(&mut object, maps::STAGES)?;
        fill_stages(&mut object, &mut stages)?;
        let (connections4, connections6) = connections(|name| take(&mut object, name), self.sizes)?;
        Ok(Prepared {
            connections4: Arc::new(connections4),
            connections6: Arc::new(connections6),
            settings: take_as(&mut object, maps::SETTINGS)?,
            object,
            sizes: self.sizes,
        })
    }
}

impl Prepared {
    /// CPUs that have a connection table.
    #[must_use]
    pub fn cpus(&self) -> u32 {
        self.sizes.cpus
    }

    /// Buckets of one CPU's IPv4 table.
    #[must_use]
    pub fn buckets4(&self) -> u32 {
        self.sizes.buckets4
    }

    /// Buckets of one CPU's IPv6 table.
    #[must_use]
    pub fn buckets6(&self) -> u32 {
        self.sizes.buckets6
    }

    /// The settings of the same director with these tables.
    #[must_use]
    pub fn settings(&self, present: &Settings) -> Settings {
        Settings {
            cpus: self.sizes.cpus,
            buckets4: self.sizes.buckets4,
            buckets6: self.sizes.buckets6,
            flags: present.flags & !settings::MOVING,
            ..*present
        }
    }
}

impl Datapath {
    /// Begins to make tables of another size.
    ///
    /// # Errors
    /// When their directory cannot be made.
    pub fn successor(
        &self,
        cpus: u32,
        buckets4: u32,
        buckets6: u32,
    ) -> Result<Successor, DatapathError> {
        self.directory.make_next()?;
        Ok(Successor {
            directory: self.directory.path().to_owned(),
            sizes: Sizes {
                buckets4,
                buckets6,
                cpus,
            },
        })
    }

    /// Removes what of tables is not used: successors that nobody wants, or what was there before them.
    pub fn forget_successor(&self) {
        if let Err(leftover) = self.directory.remove_next() {
            tracing::warn!("{leftover}");
        }
    }

    /// Waits until no CPU is within a run of a program that began before this call.
    ///
    /// # Errors
    /// Where the kernel refuses what it takes for that.
    pub fn settle() -> Result<(), DatapathError> {
        sys::wait_for_programs().map_err(|source| DatapathError::Settle { source })
    }

    /// Puts the prepared tables and programs in the place of those that there are. Where a link refuses, the programs
    /// before get their places back. Gives those, for [`Self::end_former`].
    ///
    /// # Errors
    /// Then all is as it was.
    pub fn take_over(
        &mut self,
        mut prepared: Prepared,
        settings: &Settings,
    ) -> Result<Former, DatapathError> {
        prepared
            .settings
            .set(0, Plain(*settings), 0)
            .map_err(failed("write", maps::SETTINGS))?;
        self.directory.mark_next(prepared.sizes)?;
        let entry = program(&mut prepared.object, programs::DIRECTOR)?;
        let replaced = self
            .links
            .replace(entry, &self.directory)
            .and_then(|()| self.directory.exchange());
        if let Err(error) = replaced {
            let former = program(&mut self.object, programs::DIRECTOR)?;
            if let Err(worse) = self.links.replace(former, &self.directory) {
                tracing::error!("the programs before cannot be put back everywhere: {worse}");
            }
            return Err(error);
        }
        let former = std::mem::replace(&mut self.object, prepared.object);
        self.maps.settings = prepared.settings;
        self.connections4 = prepared.connections4;
        self.connections6 = prepared.connections6;
        self.sizes = prepared.sizes;
        Ok(Former { _object: former })
    }

    /// Waits for the last packets of programs that were replaced, and removes what only they used.
    pub fn end_former(&self, former: Former) {
        if let Err(error) = Self::settle() {
            tracing::warn!("{error}");
        }
        drop(former);
        self.forget_successor();
    }
}

/// Programs that have been replaced. Their pins stay as long: an array of programs is emptied when nobody in userspace holds
/// it any more (`prog_array_map_clear` in `kernel/bpf/arraymap.c`), and a program on its way would miss its next stage.
pub struct Former {
    _object: Ebpf,
}
