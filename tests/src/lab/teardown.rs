//! Taking a lab down: its programs, its namespaces, its pins, its files. Works from the id alone, so that it also
//! clears what an earlier, dead program left.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Host, command, namespace_prefix, pass, state};

/// How long the lab's programs may take to end after being asked.
const GRACE: Duration = Duration::from_secs(3);

/// Takes the lab down as far as possible; the first thing that went wrong is the error.
pub(super) fn take_down(id: &str) -> Result<()> {
    let namespaces = namespaces(id)?;
    let mut result = end_programs(&namespaces);
    for name in &namespaces {
        let deleted = command::run_always(&mut command::ip(&["netns", "del", name]), "").map(drop);
        result = result.and(deleted);
    }
    let directors = [Host::Director, Host::Backup].map(|host| director_pins(id, host));
    for pins in [pass::pins(id)].into_iter().chain(directors) {
        if pins.is_dir() {
            let removed = std::fs::remove_dir_all(&pins)
                .with_context(|| format!("removing {}", pins.display()));
            result = result.and(removed);
        }
    }
    result.and(state::remove(id))
}

/// Names of the lab's namespaces that exist.
pub(super) fn namespaces(id: &str) -> Result<Vec<String>> {
    let prefix = namespace_prefix(id);
    let directory = Path::new("/run/netns");
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .with_context(|| format!("listing {}", directory.display()))?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix))
        .collect();
    names.sort();
    Ok(names)
}

/// The director's pins, if it had no time to remove them itself: an instance in the lab is named like the lab.
fn director_pins(id: &str, host: Host) -> PathBuf {
    Path::new("/sys/fs/bpf/director").join(super::instance_name(id, host))
}

fn end_programs(namespaces: &[String]) -> Result<()> {
    let own = Pid::this();
    let programs = |()| -> Result<Vec<Pid>> {
        let mut all = Vec::new();
        for name in namespaces {
            let listed = command::run_always(&mut command::ip(&["netns", "pids", name]), "")?;
            let ids = listed.split_whitespace().filter_map(|id| id.parse().ok());
            all.extend(ids.map(Pid::from_raw).filter(|&id| id != own));
        }
        Ok(all)
    };
    for id in programs(())? {
        // It may have ended by itself meanwhile.
        let _ = kill(id, Signal::SIGTERM);
    }
    let deadline = Instant::now() + GRACE;
    loop {
        let left = programs(())?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            for id in left {
                let _ = kill(id, Signal::SIGKILL);
            }
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
