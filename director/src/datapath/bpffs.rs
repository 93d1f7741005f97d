//! The directory of pins: what is there, whose it is, and that nobody else uses it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::unistd::geteuid;
use xdp_ebpf::layout::{LAYOUT_VERSION, maps};

use super::error::DatapathError;
use super::sys;

/// Where the BPF file system is by convention.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf";
/// A map of our own: version, buckets of an IPv4 table, buckets of an IPv6 table, CPUs.
const LAYOUT: &str = "LAYOUT";
/// Directory of what is exchanged as one when the connection tables get another size, and of its successor while that is
/// being made.
const TABLES: &str = "tables";
const NEXT: &str = "next";
/// The maps in there. `SETTINGS` says how large the tables are, and programs reach their other stages by `STAGES`.
const EXCHANGED: [&str; 4] = [
    maps::SETTINGS,
    maps::CONNECTIONS4,
    maps::CONNECTIONS6,
    maps::STAGES,
];
/// What pins of links begin with.
const LINK_PREFIX: &str = "link-";

/// Sizes of the connection tables that stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) buckets4: u32,
    pub(super) buckets6: u32,
    pub(super) cpus: u32,
}

/// Directory of an instance's pins.
pub(super) fn directory(bpffs: &Path, instance: &str) -> PathBuf {
    bpffs.join("director").join(instance)
}

/// Path of a map's pin in a directory of an instance.
pub(super) fn map_in(directory: &Path, name: &str) -> PathBuf {
    if EXCHANGED.contains(&name) {
        directory.join(TABLES).join(name)
    } else {
        directory.join(name)
    }
}

/// Where the successors of the tables of an instance are pinned while they are being made.
pub(super) fn next_map_in(directory: &Path, name: &str) -> PathBuf {
    if EXCHANGED.contains(&name) {
        directory.join(NEXT).join(name)
    } else {
        directory.join(name)
    }
}

/// The directory of one instance, locked.
#[derive(Debug)]
pub(super) struct PinDirectory {
    path: PathBuf,
    /// Held, never read: the kernel lets go of it when the process ends, however it ends.
    _lock: Flock<File>,
}

impl PinDirectory {
    /// Makes or opens the directory. Gives the sizes of the tables in it, if there are any to adopt.
    pub(super) fn open(
        bpffs: &Path,
        instance: &str,
    ) -> Result<(Self, Option<Sizes>), DatapathError> {
        ensure_mounted(bpffs)?;
        let path = directory(bpffs, instance);
        let failed = |action| {
            let path = path.clone();
            move |source| DatapathError::Pin {
                action,
                path,
                source,
            }
        };
        for directory in [bpffs.join("director"), path.clone(), path.join(TABLES)] {
            make_private(&directory).map_err(|source| DatapathError::Pin {
                action: "make directory",
                path: directory,
                source,
            })?;
        }
        let opened = File::open(&path).map_err(failed("open"))?;
        let lock =
            Flock::lock(opened, FlockArg::LockExclusiveNonblock).map_err(
                |(_, errno)| match errno {
                    Errno::EWOULDBLOCK => DatapathError::Locked {
                        instance: instance.to_owned(),
                        path: path.clone(),
                    },
                    errno => failed("lock")(errno.into()),
                },
            )?;
        let directory = Self { path, _lock: lock };
        let sizes = directory.adoptable()?;
        Ok((directory, sizes))
    }

    /// Path of a map's pin.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        map_in(&self.path, name)
    }

    /// The directory itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes room for the successors of the tables.
    pub(super) fn make_next(&self) -> Result<(), DatapathError> {
        self.remove_next()?;
        let path = self.path.join(NEXT);
        make_private(&path).map_err(|source| DatapathError::Pin {
            action: "make directory",
            path,
            source,
        })
    }

    /// Exchanges the tables and their successors in one step: whoever adopts them finds the one or the other, whole. The
    /// successors must be marked.
    pub(super) fn exchange(&self) -> Result<(), DatapathError> {
        let (tables, next) = (self.path.join(TABLES), self.path.join(NEXT));
        // In `fs/libfs.c` since Linux 5.16 (`simple_rename_exchange`).
        renameat2(
            AT_FDCWD,
            &next,
            AT_FDCWD,
            &tables,
            RenameFlags::RENAME_EXCHANGE,
        )
        .map_err(|errno| DatapathError::Pin {
            action: "exchange",
            path: tables,
            source: errno.into(),
        })
    }

    /// Removes the successors of the tables, or what they have taken the place of, if there is any.
    pub(super) fn remove_next(&self) -> Result<(), DatapathError> {
        self.remove_tables(NEXT)
    }

    fn remove_tables(&self, name: &str) -> Result<(), DatapathError> {
        let path = self.path.join(name);
        if !path.exists() {
            return Ok(());
        }
        for entry in removal_order(self.entries_of(&path)?) {
            self.unpin(&path.join(entry))?;
        }
        fs::remove_dir(&path).map_err(|source| DatapathError::Pin {
            action: "remove",
            path,
            source,
        })
    }

    /// Path of the pin of an interface's link.
    pub(super) fn link(&self, interface: &str) -> PathBuf {
        self.path.join(format!("{LINK_PREFIX}{interface}"))
    }

    /// Names of the interfaces that have a pinned link.
    pub(super) fn links(&self) -> Result<Vec<String>, DatapathError> {
        let names = self.entries()?.into_iter();
        let mut links: Vec<String> = names
            .filter_map(|name| Some(name.strip_prefix(LINK_PREFIX)?.to_owned()))
            .collect();
        links.sort_unstable();
        Ok(links)
    }

    /// Says that the tables are whole, and what they are like. From now on they can be adopted.
    pub(super) fn mark(&self, sizes: Sizes) -> Result<(), DatapathError> {
        self.mark_in(TABLES, sizes)
    }

    /// Says so of the successors.
    pub(super) fn mark_next(&self, sizes: Sizes) -> Result<(), DatapathError> {
        self.mark_in(NEXT, sizes)
    }

    fn mark_in(&self, directory: &str, sizes: Sizes) -> Result<(), DatapathError> {
        let path = self.path.join(directory).join(LAYOUT);
        let failed = |source| DatapathError::Map {
            action: "make",
            map: LAYOUT,
            source: Box::new(source),
        };
        let mut layout = Array::<MapData, u32>::create(4, 0).map_err(failed)?;
        let Sizes {
            buckets4,
            buckets6,
            cpus,
        } = sizes;
        for (index, value) in (0..).zip([LAYOUT_VERSION, buckets4, buckets6, cpus]) {
            layout.set(index, value, 0).map_err(failed)?;
        }
        layout.pin(&path).map_err(|error| DatapathError::Pin {
            action: "pin",
            path,
            source: io::Error::other(error),
        })
    }

    /// Removes everything: programs are detached and tables freed.
    pub(super) fn remove(self) -> Result<(), DatapathError> {
        // Links first, or for a moment there would be programs without their tail calls.
        for interface in self.links()? {
            self.detach(&interface)?;
        }
        self.remove_maps()?;
        fs::remove_dir(&self.path).map_err(|source| DatapathError::Pin {
            action: "remove",
            path: self.path.clone(),
            source,
        })?;
        // Other instances may stand beside this one.
        if let Some(parent) = self.path.parent() {
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }

    /// Detaches an interface's program and removes the link's pin.
    pub(super) fn detach(&self, interface: &str) -> Result<(), DatapathError> {
        let path = self.link(interface);
        // Refused only for a link whose interface is gone; what is left then ends with the pin.
        if let Err(error) = sys::detach(&path) {
            tracing::debug!(interface, %error, "a link cannot be detached");
        }
        self.unpin(&path)
    }

    /// Removes a pin. One that is not there is no error.
    fn unpin(&self, path: &Path) -> Result<(), DatapathError> {
        match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(DatapathError::Pin {
                action: "remove",
                path: path.to_owned(),
                source,
            }),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn remove_maps(&self) -> Result<(), DatapathError> {
        // The mark first: a director killed half way must not leave what looks whole and is not.
        self.remove_next()?;
        self.remove_tables(TABLES)?;
        self.entries()?
            .iter()
            .try_for_each(|name| self.unpin(&self.path.join(name)))
    }

    fn entries(&self) -> Result<Vec<String>, DatapathError> {
        self.entries_of(&self.path)
    }

    fn entries_of(&self, path: &Path) -> Result<Vec<String>, DatapathError> {
        let failed = |source| DatapathError::Pin {
            action: "read",
            path: path.to_owned(),
            source,
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            names.push(
                entry
                    .map_err(failed)?
                    .file_name()
                    .to_string_lossy()
                    .into_owned(),
            );
        }
        Ok(names)
    }

    fn adoptable(&self) -> Result<Option<Sizes>, DatapathError> {
        let has = |name: &str| self.map(name).exists();
        if !self.path.join(TABLES).join(LAYOUT).exists() {
            if self.links()?.is_empty() {
                // A director ended before it had everything in place. Nothing uses this.
                self.remove_maps()?;
                let tables = self.path.join(TABLES);
                make_private(&tables).map_err(|source| DatapathError::Pin {
                    action: "make directory",
                    path: tables,
                    source,
                })?;
                return Ok(None);
            }
            return Err(DatapathError::Incomplete {
                path: self.path.clone(),
                missing: LAYOUT.to_owned(),
            });
        }
        let sizes = read_layout(&self.path)?;
        if let Some(missing) = maps::ALL.into_iter().find(|name| !has(name)) {
            return Err(DatapathError::Incomplete {
                path: self.path.clone(),
                missing: missing.to_owned(),
            });
        }
        Ok(Some(sizes))
    }
}

/// Reads what tables in a directory are like. They must be of this version.
pub(super) fn read_layout(path: &Path) -> Result<Sizes, DatapathError> {
    let failed = |source| DatapathError::Map {
        action: "read",
        map: LAYOUT,
        source: Box::new(source),
    };
    let layout = MapData::from_pin(path.join(TABLES).join(LAYOUT)).map_err(failed)?;
    let layout: Array<MapData, u32> = Map::from_map_data(layout)
        .and_then(Array::try_from)
        .map_err(failed)?;
    let version = layout.get(&0, 0).map_err(failed)?;
    if version != LAYOUT_VERSION {
        return Err(DatapathError::Layout {
            path: path.to_owned(),
            found: version,
            expected: LAYOUT_VERSION,
        });
    }
    let get = |index| layout.get(&index, 0).map_err(failed);
    Ok(Sizes {
        buckets4: get(1)?,
        buckets6: get(2)?,
        cpus: get(3)?,
    })
}

/// The mark first: what a director leaves that is killed half way must not look whole.
fn removal_order(mut names: Vec<String>) -> Vec<String> {
    names.sort_by_key(|name| name != LAYOUT);
    names
}

/// Makes a directory that nobody else can enter. The BPF file system is mostly mounted for everybody to write to
/// (mode 1777): whoever may open the directory may hold its lock, and whoever owns it may swap what is in it.
fn make_private(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let standing = fs::symlink_metadata(path)?;
    if !standing.is_dir() {
        return Err(io::Error::other("something else has this name"));
    }
    if standing.uid() != geteuid().as_raw() {
        return Err(io::Error::other(format!(
            "it stands there already and belongs to another user ({}): remove it",
            standing.uid()
        )));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// Mounts the BPF file system if nobody has. Not every distribution does.
fn ensure_mounted(path: &Path) -> Result<(), DatapathError> {
    let is_bpffs =
        |path: &Path| statfs(path).is_ok_and(|facts| facts.filesystem_type() == BPF_FS_MAGIC);
    if is_bpffs(path) {
        return Ok(());
    }
    let mounted = mount(
        Some("bpf"),
        path,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("mode=0700"),
    );
    match mounted {
        Ok(()) => {
            tracing::info!(path = %path.display(), "mounted the BPF file system, which was not there");
            Ok(())
        }
        Err(errno) => Err(DatapathError::Mount {
            path: path.to_owned(),
            source: errno.into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_directories_are_taken() {
        let base = std::env::temp_dir().join(format!("director-pins-{}", std::process::id()));
        make_private(&base).unwrap();
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&base), 0o700, "a new one");
        fs::set_permissions(&base, fs::Permissions::from_mode(0o755)).unwrap();
        make_private(&base).unwrap();
        assert_eq!(mode(&base), 0o700, "one that stands");
        fs::write(base.join("file"), "").unwrap();
        std::os::unix::fs::symlink(&base, base.join("link")).unwrap();
        for other in ["file", "link"] {
            let refused = make_private(&base.join(other)).unwrap_err();
            assert_eq!(
                refused.to_string(),
                "something else has this name",
                "{other}"
            );
        }
        if geteuid().is_root() {
            std::os::unix::fs::chown(&base, Some(12345), None).unwrap();
            let refused = make_private(&base).unwrap_err();
            assert!(refused.to_string().contains("12345"), "{refused}");
        }
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn the_mark_goes_first() {
        // (what is there, in what order it goes)
        let cases: [(&[&str], &[&str]); 4] = [
            (&[], &[]),
            (&["A", "B"], &["A", "B"]),
            (&["A", "LAYOUT", "B"], &["LAYOUT", "A", "B"]),
            (&["LAYOUT", "A"], &["LAYOUT", "A"]),
        ];
        for (names, expected) in cases {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(removal_order(names), expected);
        }
    }
}
