//! A program with a process group of its own, so that it can be ended together with its children.

use nix::sys::signal::{Signal, killpg};
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
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
