//! Programs of checks and alerts on their way to be started.
//!
//! Whoever starts a program waits until the kernel has read it, which may be for ever where its file system is a network's: so
//! each is started by a thread aside, one of a program after the other.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::process::Command;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::aside::Aside;
use super::group::Group;

/// Programs that are being started.
pub(super) struct Starting(Aside<PathBuf, ()>);

/// One of them.
struct Start {
    /// Until it is started.
    command: Option<Command>,
    started: Option<io::Result<Group>>,
}

impl Starting {
    /// None is. Each program takes one of these places.
    pub(super) const fn new(places: &'static Semaphore) -> Self {
        Self(Aside::new(places))
    }

    /// Starts a program, when nobody else is starting it. What is started after this was given up is killed.
    ///
    /// # Errors
    /// It cannot be started, the system gives no thread for that, or all places are taken.
    pub(super) async fn start(
        &'static self,
        program: &Path,
        command: Command,
    ) -> io::Result<Group> {
        let program = program.to_owned();
        let this = Arc::new(Mutex::new(Start {
            command: Some(command),
            started: None,
        }));
        loop {
            let (runtime, that) = (Handle::current(), Arc::clone(&this));
            let work = move |_: &PathBuf| {
                let _within = runtime.enter();
                let mut that = lock(&that);
                if let Some(mut command) = that.command.take() {
                    that.started = Some(command.spawn().map(Group::of));
                }
            };
            self.0.get(&program, work).await?;
            // None: that was somebody else's.
            if let Some(started) = lock(&this).started.take() {
                return started;
            }
        }
    }

    /// Waits for those that are being started now.
    pub(super) async fn settle(&self) {
        self.0.settle().await;
    }
}

fn lock(start: &Mutex<Start>) -> MutexGuard<'_, Start> {
    // Nothing is left half done by whoever panics.
    start.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use tokio::time::timeout;

    use super::*;
    use crate::alone::alone;
    use crate::config::limits::FILES_AT_ONCE;
    use crate::health::hangs::{Hangs, LONG};

    static PLACES: Semaphore = Semaphore::const_new(FILES_AT_ONCE);
    static STARTING: Starting = Starting::new(&PLACES);

    /// Children of this process that are not dead.
    fn children() -> Vec<String> {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let lists = tasks.filter_map(|it| fs::read_to_string(it.path().join("children")).ok());
        let all: Vec<String> = lists
            .flat_map(|list| {
                let each = list.split_whitespace().map(str::to_owned);
                each.collect::<Vec<_>>()
            })
            .collect();
        let is_alive = |child: &String| {
            let stat = fs::read_to_string(format!("/proc/{child}/stat"));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        all.into_iter().filter(is_alive).collect()
    }

    /// A program that nobody waits for any more by the time that it can be started does not run on.
    #[test]
    fn what_is_given_up_is_killed() {
        if !alone("health::starting::tests::what_is_given_up_is_killed", &[]) {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let hangs = Hangs::new("given-up", "exec sleep 1000");
            let program = hangs.path.clone();
            let command = || {
                let mut command = Command::new(&program);
                command.process_group(0).kill_on_drop(true);
                command
            };
            for _ in 0..3 {
                let start = STARTING.start(&program, command());
                assert!(timeout(Duration::from_millis(20), start).await.is_err());
            }
            hangs.answer();
            STARTING.settle().await;
            let deadline = Instant::now() + LONG;
            while !children().is_empty() {
                assert!(Instant::now() < deadline, "{:?} run on", children());
                tokio::task::yield_now().await;
            }
            // One that is wanted does.
            let group = STARTING.start(&program, command()).await.unwrap();
            assert_eq!(children().len(), 1);
            drop(group);
        });
    }
}
