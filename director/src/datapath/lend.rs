//! The tables as they are lent to conn-sync: read by whoever walks them, and written by a program on the CPU that owns
//! them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::{Array, HashMap, MapData, MapError};
use aya::programs::Xdp;
use conn_sync::node::{SomeTemplates, Tables};
use conn_sync::table::View;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use xdp_ebpf::connection::{Bucket4, Bucket6};
use xdp_ebpf::layout::{Learn, Settings, Template, TemplateKey, limits, maps, programs, settings};

use super::bpffs::map_in;
use super::error::DatapathError;
use super::load::Datapath;
use super::maps::{failed, open};
use super::memory::Mapped;
use super::plain::Plain;
use super::read::batch;
use super::sys;

/// The tables of a running data path, for another thread. After an exchange of the tables they are the ones before.
pub struct LentTables {
    connections4: Arc<Mapped<Bucket4>>,
    connections6: Arc<Mapped<Bucket6>>,
    settings: Array<MapData, Plain<Settings>>,
    templates: Mutex<HashMap<MapData, Plain<TemplateKey>, Plain<Template>>>,
    program: OwnedFd,
}

impl Datapath {
    /// Lends the tables that there are now.
    ///
    /// # Errors
    /// When a map or the program cannot be opened once more.
    pub fn lend(&self) -> Result<LentTables, DatapathError> {
        let name = programs::LEARN;
        let program: &Xdp = self
            .object
            .program(name)
            .and_then(|it| it.try_into().ok())
            .ok_or_else(|| DatapathError::Object {
                kind: "program",
                name: name.to_owned(),
            })?;
        let program = program.fd().map_err(|cause| DatapathError::Program {
            name,
            cause: Box::new(cause),
        })?;
        let program = program
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| failed("use", name)(MapError::IoError(source)))?;
        let path = self.directory.path();
        let settings = open(&map_in(path, maps::SETTINGS), maps::SETTINGS)?;
        let templates = open(&map_in(path, maps::TEMPLATES), maps::TEMPLATES)?;
        Ok(LentTables {
            connections4: Arc::clone(&self.connections4),
            connections6: Arc::clone(&self.connections6),
            settings: settings.try_into().map_err(failed("use", maps::SETTINGS))?,
            templates: Mutex::new(
                templates
                    .try_into()
                    .map_err(failed("use", maps::TEMPLATES))?,
            ),
            program,
        })
    }
}

impl LentTables {
    fn settings(&self) -> io::Result<Settings> {
        let settings = self.settings.get(&0, 0).map_err(io::Error::other)?;
        Ok(settings.0)
    }
}

impl LentTables {
    fn run(&self, orders: &mut [Learn]) -> io::Result<()> {
        for some in orders.chunks_mut(limits::LEARNED_AT_ONCE) {
            let words = some.len() * (size_of::<Learn>() / size_of::<u64>());
            // SAFETY: `repr(C)`, as aligned and as large as so many words (40 bytes, asserted beside the type), without
            // padding; any bytes are an order.
            let words =
                unsafe { std::slice::from_raw_parts_mut(some.as_mut_ptr().cast::<u64>(), words) };
            sys::run_program(self.program.as_fd(), words)?;
        }
        Ok(())
    }
}

impl Tables for LentTables {
    fn view(&self) -> io::Result<View<'_>> {
        let settings = self.settings()?;
        Ok(View {
            table4: self.connections4.as_slice(),
            table6: self.connections6.as_slice(),
            cpus: settings.cpus,
            buckets4: settings.buckets4,
            buckets6: settings.buckets6,
            seed: settings.seed,
            now_s: settings.now_s,
            takes_new: settings.flags & settings::MOVING == 0,
        })
    }

    fn learn(&self, cpu: u32, orders: &mut [Learn]) -> io::Result<()> {
        let before = sched_getaffinity(Pid::from_raw(0))?;
        // Where this thread may not run on that CPU the connections come into another one's table, where packets find them
        // too.
        let _ = only(cpu).and_then(|only| sched_setaffinity(Pid::from_raw(0), &only));
        let done = self.run(orders);
        let _ = sched_setaffinity(Pid::from_raw(0), &before);
        done
    }

    fn some_templates(&self, after: Option<u32>, most: usize) -> io::Result<SomeTemplates> {
        let templates = self
            .templates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (some, next) =
            batch(&templates, maps::TEMPLATES, after, most).map_err(io::Error::other)?;
        let some = some.map(|(key, template)| (key.0, template.0));
        Ok((some.collect(), next))
    }

    fn template(&self, key: &TemplateKey) -> Option<Template> {
        let templates = self
            .templates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        templates.get(&Plain(*key), 0).ok().map(|it| it.0)
    }

    fn put_template(&self, key: &TemplateKey, template: &Template) -> io::Result<()> {
        let mut templates = self
            .templates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        templates
            .insert(Plain(*key), Plain(*template), 0)
            .map_err(io::Error::other)
    }
}

/// One CPU: a program writes the table of the CPU that it runs on.
fn only(cpu: u32) -> nix::Result<CpuSet> {
    let mut only = CpuSet::new();
    only.set(cpu as usize)?;
    Ok(only)
}
