//! The running data path.

use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use aya::maps::{Array, Map, MapData, ProgramArray};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use xdp_ebpf::connection::{Bucket4, Bucket6};
use xdp_ebpf::layout::{Stage, limits, maps, programs};

use super::attach::{Attached, Links};
use super::bpffs::{PinDirectory, Sizes};
use super::error::DatapathError;
use super::maps::{LeaseWords, Maps, failed, take, take_as};
use super::memory::Mapped;
use super::quiet::Quiet;
use super::{objects, privileges};
use crate::config::Interface;

/// What the data path is made for.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Where the BPF file system is or will be mounted.
    pub bpffs: &'a Path,
    /// Name of this director on its node.
    pub instance: &'a str,
    /// CPUs that get a connection table.
    pub cpus: u32,
    /// Buckets of one CPU's IPv4 table.
    pub buckets4: u32,
    /// Buckets of one CPU's IPv6 table.
    pub buckets6: u32,
}

/// Programs and maps in the kernel.
pub struct Datapath {
    /// The maps.
    pub maps: Maps,
    /// The IPv4 connection tables.
    pub connections4: Arc<Mapped<Bucket4>>,
    /// The IPv6 connection tables.
    pub connections6: Arc<Mapped<Bucket6>>,
    pub(super) object: Ebpf,
    pub(super) links: Links,
    pub(super) directory: PinDirectory,
    pub(super) sizes: Sizes,
    adopted: bool,
}

impl Datapath {
    /// Loads the programs, over the maps that a former director left or over new ones. Nothing is attached yet, so
    /// the maps can be filled first; links that stand go on with the program they have until [`Self::attach`].
    ///
    /// # Errors
    /// [`DatapathError`], each in words for the operator.
    pub fn open(options: Options<'_>) -> Result<Self, DatapathError> {
        let code = objects::DIRECTOR.ok_or(DatapathError::NotBuilt)?;
        privileges::check()?;
        let Options {
            bpffs,
            instance,
            cpus,
            buckets4,
            buckets6,
        } = options;
        let (directory, standing) = PinDirectory::open(bpffs, instance)?;
        let sizes = standing.unwrap_or(Sizes {
            buckets4,
            buckets6,
            cpus,
        });
        match Self::assemble(code, &directory, sizes) {
            Ok((object, maps, connections4, connections6)) => {
                if standing.is_none() {
                    directory.mark(sizes)?;
                }
                Ok(Self {
                    maps,
                    connections4: Arc::new(connections4),
                    connections6: Arc::new(connections6),
                    object,
                    links: Links::default(),
                    directory,
                    sizes,
                    adopted: standing.is_some(),
                })
            }
            Err(error) => {
                // What was begun is of no use to anybody; what stood there before goes on.
                if standing.is_none()
                    && let Err(leftover) = directory.remove()
                {
                    tracing::warn!("{leftover}");
                }
                Err(error)
            }
        }
    }

    fn assemble(
        code: &[u8],
        directory: &PinDirectory,
        sizes: Sizes,
    ) -> Result<(Ebpf, Maps, Mapped<Bucket4>, Mapped<Bucket6>), DatapathError> {
        let mut object = load(code, |name| directory.map(name), sizes)?;

        // The programs name the maps by descriptors that close when a map is taken out: so load all of them first.
        load_programs(&mut object)?;
        let interfaces = MapData::from_pin(directory.map(maps::INTERFACES))
            .map_err(failed("open", maps::INTERFACES))?;
        let mut stages: ProgramArray<MapData> = take_as(&mut object, maps::STAGES)?;
        let (connections4, connections6) = connections(|name| take(&mut object, name), sizes)?;
        let tables = Maps::new(|name| take(&mut object, name), interfaces)?;
        tables.agree()?;
        fill_stages(&mut object, &mut stages)?;
        if !privileges::has_live_frames() {
            tracing::warn!(
                "this kernel is older than Linux 5.18: fragments that overtake their datagram's first one are lost"
            );
        }
        Ok((object, tables, connections4, connections6))
    }

    /// Whether the maps of a former director were found.
    #[must_use]
    pub fn was_adopted(&self) -> bool {
        self.adopted
    }

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

    /// Attaches the program to these interfaces. Where it is attached besides is left as it is.
    ///
    /// # Errors
    /// At the first interface that refuses; those before it stay attached.
    pub fn attach(&mut self, interfaces: &[Interface]) -> Result<(), DatapathError> {
        let program = program(&mut self.object, programs::DIRECTOR)?;
        self.links.set(program, &self.directory, interfaces)
    }

    /// Detaches the program from all other interfaces.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn detach_others(&mut self, interfaces: &[Interface]) -> Result<(), DatapathError> {
        self.links.retain(&self.directory, interfaces)
    }

    /// The interfaces it is attached to.
    pub fn attached(&self) -> impl Iterator<Item = &Attached> {
        self.links.attached()
    }

    /// Index of an interface in this network namespace.
    ///
    /// # Errors
    /// [`DatapathError::NoInterface`].
    pub fn ifindex(name: &str) -> Result<u32, DatapathError> {
        super::link::ifindex(name)
    }

    /// The entry program.
    pub(super) fn entry(&self) -> Option<&Xdp> {
        self.object.program(programs::DIRECTOR)?.try_into().ok()
    }

    /// Detaches everywhere and frees everything.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn stop(mut self) -> Result<(), DatapathError> {
        self.links.release();
        self.directory.remove()
    }
}

/// CPUs that packets may arrive on: one more than the highest number of one that is switched on.
#[must_use]
pub fn online_cpus() -> u32 {
    let online = aya::util::online_cpus().unwrap_or_default();
    let highest = online.into_iter().max().unwrap_or(0);
    (highest + 1).min(limits::CPUS)
}

/// CPUs that the kernel may ever switch on: its per-CPU maps have room for all of them.
#[must_use]
pub fn possible_cpus() -> u32 {
    let possible = aya::util::nr_cpus().ok();
    possible.map_or(1, |cpus| cpus as u32)
}

/// Points the stages to their programs.
pub(super) fn fill_stages(
    object: &mut Ebpf,
    stages: &mut ProgramArray<MapData>,
) -> Result<(), DatapathError> {
    for (stage, name) in Stage::ALL {
        let fd = program(object, name)?
            .fd()
            .map_err(|cause| DatapathError::Program {
                name,
                cause: Box::new(cause),
            })?;
        stages
            .set(stage as u32, fd, 0)
            .map_err(failed("write", maps::STAGES))?;
    }
    Ok(())
}

/// The lease of the data path that stands there; none where none does.
fn standing_lease(pin: &Path) -> LeaseWords {
    let standing = MapData::from_pin(pin)
        .and_then(Map::from_map_data)
        .and_then(Array::<MapData, LeaseWords>::try_from)
        .and_then(|lease| lease.get(&0, 0));
    // Where it cannot be read there is none yet.
    standing.unwrap_or_default()
}

/// Loads the object over the maps that are pinned at `pin`, or makes them there.
pub(super) fn load(
    code: &[u8],
    pin: impl Fn(&str) -> PathBuf,
    sizes: Sizes,
) -> Result<Ebpf, DatapathError> {
    let mut loader = EbpfLoader::new();
    for name in maps::ALL {
        loader.map_pin_path(maps::in_object(name), pin(name));
    }
    // The library writes a section of global variables anew even where it finds the map of one that runs. Zeroes would
    // mean that there is no lease: a node that is fenced would serve, and answer ARP, until the kernel has verified all.
    let lease = standing_lease(&pin(maps::LEASE));
    loader
        .override_global(maps::LEASE, &lease, true)
        .map_max_entries(maps::CONNECTIONS4, sizes.buckets4 * sizes.cpus)
        .map_max_entries(maps::CONNECTIONS6, sizes.buckets6 * sizes.cpus)
        .load(code)
        .map_err(|error| DatapathError::Load(Box::new(error)))
}

/// The connection tables in memory.
pub(super) fn connections(
    mut get: impl FnMut(&'static str) -> Result<Map, DatapathError>,
    sizes: Sizes,
) -> Result<(Mapped<Bucket4>, Mapped<Bucket6>), DatapathError> {
    let four = get(maps::CONNECTIONS4)?;
    let six = get(maps::CONNECTIONS6)?;
    Ok((
        mapped(four, maps::CONNECTIONS4, sizes.buckets4 * sizes.cpus)?,
        mapped(six, maps::CONNECTIONS6, sizes.buckets6 * sizes.cpus)?,
    ))
}

/// An array map in memory.
pub(super) fn mapped<T: super::memory::Shared>(
    map: Map,
    name: &'static str,
    elements: u32,
) -> Result<Mapped<T>, DatapathError> {
    match map {
        Map::Array(map) => Mapped::new(map.fd().as_fd(), elements)
            .map_err(|source| DatapathError::Memory { map: name, source }),
        _ => Err(DatapathError::Object {
            kind: "array map",
            name: name.to_owned(),
        }),
    }
}

pub(super) fn program<'a>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut Xdp, DatapathError> {
    object
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| DatapathError::Object {
            kind: "XDP program",
            name: name.to_owned(),
        })
}

/// Loads all programs, on as many CPUs as there are: the kernel's verifier takes seconds for the largest ones, and that is
/// most of a director's start.
pub(super) fn load_programs(object: &mut Ebpf) -> Result<(), DatapathError> {
    let mut todo = Vec::new();
    for (name, found) in object.programs_mut() {
        let known = Stage::ALL.into_iter().map(|(_, name)| name);
        let name = known
            .chain([programs::DIRECTOR, programs::LEASE, programs::LEARN])
            .find(|known| *known == name);
        if let (Some(name), Ok(found)) = (name, <&mut Xdp>::try_from(found)) {
            todo.push((name, found));
        }
    }
    let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let todo = Mutex::new(todo);
    let next = || todo.lock().ok().and_then(|mut todo| todo.pop());
    let work = || {
        while let Some((name, found)) = next() {
            load_program(found, name)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

pub(super) fn load_program(program: &mut Xdp, name: &'static str) -> Result<(), DatapathError> {
    let _quiet = Quiet::begin();
    program.load().map_err(|cause| DatapathError::Program {
        name,
        cause: Box::new(cause),
    })
}
