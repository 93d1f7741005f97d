//! Looking at a data path from another process: whoever runs it, and whether anybody does.

use std::path::Path;

use aya::maps::MapData;
use xdp_ebpf::connection::{Bucket4, Bucket6};
use xdp_ebpf::layout::maps;

use super::bpffs::{Sizes, directory, map_in, read_layout};
use super::error::DatapathError;
use super::load::connections;
use super::maps::{Maps, failed, open};
use super::memory::Mapped;
use super::privileges;

/// The pinned tables of an instance. It writes nothing.
pub struct View {
    /// The maps.
    pub maps: Maps,
    /// The IPv4 connection tables.
    pub connections4: Mapped<Bucket4>,
    /// The IPv6 connection tables, and those of ranges of ports.
    pub connections6: Mapped<Bucket6>,
}

impl View {
    /// Opens what stands there.
    ///
    /// # Errors
    /// [`DatapathError::NotStanding`] if nothing does; no privileges; another version's tables.
    pub fn open(bpffs: &Path, instance: &str) -> Result<Self, DatapathError> {
        privileges::check()?;
        let path = directory(bpffs, instance);
        if !path.is_dir() {
            return Err(DatapathError::NotStanding {
                path,
                instance: instance.to_owned(),
            });
        }
        let mut sizes = read_layout(&path)?;
        loop {
            let view = Self::open_tables(&path, sizes);
            // They may have been exchanged for others meanwhile; from one exchange to the next it takes seconds.
            let now = read_layout(&path)?;
            if now == sizes {
                return view;
            }
            sizes = now;
        }
    }

    fn open_tables(path: &Path, sizes: Sizes) -> Result<Self, DatapathError> {
        let interfaces = MapData::from_pin(map_in(path, maps::INTERFACES))
            .map_err(failed("open", maps::INTERFACES))?;
        let get = |name: &'static str| open(&map_in(path, name), name);
        let (connections4, connections6) = connections(get, sizes)?;
        Ok(Self {
            maps: Maps::new(get, interfaces)?,
            connections4,
            connections6,
        })
    }
}
