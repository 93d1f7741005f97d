//! What is written down about labs, so that those of dead programs can be found and cleared.
//!
//! `/run/director-lab/ID/` holds a lab's logs and files; `owner` in it says who takes it down.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

const DIRECTORY: &str = "/run/director-lab";
const OWNER: &str = "owner";
const KEPT: &str = "kept";

/// The directory of a lab's logs and files.
pub(super) fn directory(id: &str) -> PathBuf {
    Path::new(DIRECTORY).join(id)
}

/// Writes down a new lab as owned by this program.
///
/// # Errors
/// One of this id stands already.
pub(super) fn claim(id: &str) -> Result<PathBuf> {
    // Made aside and renamed: nobody may see a lab without an owner, which would look abandoned.
    let aside = Path::new(DIRECTORY).join(format!(".{id}.{}", std::process::id()));
    let directory = directory(id);
    fs::create_dir_all(&aside).with_context(|| format!("creating {}", aside.display()))?;
    let claimed =
        write_owner(&aside, &own_identity()?).and_then(|()| match fs::rename(&aside, &directory) {
            Ok(()) => Ok(()),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists
                ) =>
            {
                bail!("a lab `{id}` is up already; take it down first: cargo xtask lab down")
            }
            Err(error) => Err(error).with_context(|| format!("creating {}", directory.display())),
        });
    if claimed.is_err() {
        let _ = fs::remove_dir_all(&aside);
    }
    claimed.map(|()| directory)
}

/// From now on this lab belongs to nobody and stays.
pub(super) fn mark_kept(id: &str) -> Result<()> {
    write_owner(&directory(id), KEPT)
}

/// Forgets a lab and removes its files.
pub(super) fn remove(id: &str) -> Result<()> {
    let directory = directory(id);
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Ids of labs whose program died without taking them down.
pub(super) fn abandoned() -> Vec<String> {
    let entries = fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|id| !id.starts_with('.'))
        .filter(|id| match fs::read_to_string(directory(id).join(OWNER)) {
            Ok(owner) => owner != KEPT && !is_alive(&owner),
            // Gone between listing and reading: its own program took it down.
            Err(_) => false,
        })
        .collect()
}

fn write_owner(directory: &Path, owner: &str) -> Result<()> {
    let path = directory.join(OWNER);
    fs::write(&path, owner).with_context(|| format!("writing {}", path.display()))
}

fn own_identity() -> Result<String> {
    let id = std::process::id();
    let started = start_time(id).context("reading this program's own start time from /proc")?;
    Ok(format!("{id} {started}"))
}

/// Whether the program that wrote this is still there; its start time tells it from a later one with its id.
fn is_alive(owner: &str) -> bool {
    let Some((id, started)) = owner.split_once(' ') else {
        return false;
    };
    id.parse()
        .ok()
        .and_then(start_time)
        .is_some_and(|now| now == started)
}

/// Field 22 of `/proc/PID/stat`, counted after the name in parentheses, which may hold anything.
fn start_time(id: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_are_told_from_the_dead() {
        assert!(is_alive(&own_identity().unwrap()));
        // The same process id, another start: a later program.
        assert!(!is_alive(&format!("{} 1", std::process::id())));
        assert!(!is_alive(""));
        assert!(!is_alive("many words here"));
        // Above the kernel's largest process id.
        assert!(!is_alive("4194305 1"));
    }
}
