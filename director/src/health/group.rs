//! A program with a process group of its own, so that it can be ended together with its children: those of the group, and
//! those that made a group of their own, as `timeout` does, as long as whoever started them is still there.

use std::fs;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::Child;

/// Where the programs of a program are looked for.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program and its children: all are killed when this is dropped.
pub(super) struct Group {
    pub(super) child: Child,
    leader: Option<Pid>,
}

impl Group {
    /// Of a program that was started with `process_group(0)` and `kill_on_drop`.
    pub(super) fn of(child: Child) -> Self {
        let leader = child.id().and_then(|id| i32::try_from(id).ok());
        Self {
            child,
            leader: leader.map(Pid::from_raw),
        }
    }

    pub(super) fn kill(&self) {
        // Its number cannot be another group's by now: while any process is in the group it stays taken, and if none is,
        // nobody is hit but a group made in this very moment, which would need the kernel to have gone through all numbers.
        // The leader itself is reaped by tokio (`kill_on_drop`).
        if let Some(leader) = self.leader {
            // Looked for first: without their parents nobody could tell whose they were.
            let descendants = descendants(leader);
            let _ = killpg(leader, Signal::SIGKILL);
            for process in descendants {
                // Seen a moment ago: its number is not another one's yet.
                let _ = kill(process, Signal::SIGKILL);
            }
        }
    }
}

/// Most processes of one program that are looked for.
const DESCENDANTS: usize = 1024;

/// Children of a process, and theirs (`/proc/PID/task/PID/children`, see proc(5)). None where the kernel does not tell.
fn descendants(process: Pid) -> Vec<Pid> {
    let mut found = Vec::new();
    let mut parents = vec![process];
    while let Some(parent) = parents.pop() {
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let children = children.unwrap_or_default();
        for child in children.split_whitespace().filter_map(|it| it.parse().ok()) {
            if found.len() == DESCENDANTS {
                return found;
            }
            found.push(Pid::from_raw(child));
            parents.push(Pid::from_raw(child));
        }
    }
    found
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
