//! One host: a named network namespace, entered from threads and child processes.
//!
//! Entered by `setns` alone, so that bpffs stays where it is (`ip netns exec` would mount another `/sys` over it).
//! The price: `/sys/class/net` in there still shows the host's interfaces.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};

use super::command;
use super::process::Process;

/// A named network namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    file: Arc<OwnedFd>,
}

impl Namespace {
    /// Makes a new one.
    pub(super) fn create(name: &str) -> Result<Self> {
        command::run(&mut command::ip(&["netns", "add", name]), "")?;
        Self::open(name)
    }

    /// Makes one without a name, which is gone when nobody has it open any more. It is called by the place where this
    /// process has it open: `ip` takes that for a name.
    ///
    /// # Errors
    /// Not root.
    pub fn unnamed() -> Result<Self> {
        let made = std::thread::scope(|scope| {
            let thread = scope.spawn(|| -> Result<File> {
                unshare(CloneFlags::CLONE_NEWNET)
                    .context("a new network namespace (is this root?)")?;
                File::open("/proc/thread-self/ns/net").context("opening a new network namespace")
            });
            match thread.join() {
                Ok(made) => made,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })?;
        let name = format!("/proc/{}/fd/{}", std::process::id(), made.as_raw_fd());
        Ok(Self {
            name,
            file: Arc::new(made.into()),
        })
    }

    /// Opens one that stands already.
    pub(super) fn open(name: &str) -> Result<Self> {
        let path = path(name);
        let file = File::open(&path)
            .with_context(|| format!("opening the network namespace {}", path.display()))?;
        Ok(Self {
            name: name.to_owned(),
            file: Arc::new(file.into()),
        })
    }

    /// Its name, as `ip netns` lists it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` in a thread inside this namespace. Sockets that it opens stay here when it is over.
    ///
    /// # Errors
    /// The namespace cannot be entered (not root).
    ///
    /// # Panics
    /// Where `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("entering the network namespace {}", self.name))?;
                Ok(work())
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Has `command` start inside this namespace.
    pub fn enter<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let file = Arc::clone(&self.file);
        // SAFETY: between fork and exec the closure makes one system call on a descriptor that it keeps open,
        // and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from)
            })
        }
    }

    /// Runs a command in here to its end and gives its standard output.
    ///
    /// # Errors
    /// It could not be started, or failed: with the command and what it wrote to standard error.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command.args(arguments);
        command::run(self.enter(&mut command), "").with_context(|| format!("in {}", self.name))
    }

    /// Starts a program in here that ends when the returned guard is dropped. What it prints goes to `log`.
    ///
    /// # Errors
    /// It could not be started.
    pub fn spawn(&self, mut command: Command, log: PathBuf) -> Result<Process> {
        self.enter(&mut command);
        Process::start(command, log).with_context(|| format!("in {}", self.name))
    }

    /// Like [`Namespace::spawn`], a program that reads what [`Process::feed`] writes.
    ///
    /// # Errors
    /// It could not be started.
    pub fn spawn_fed(&self, mut command: Command, log: PathBuf) -> Result<Process> {
        self.enter(&mut command);
        Process::start_fed(command, log).with_context(|| format!("in {}", self.name))
    }

    /// Runs `ip` in here with one command for each line.
    pub(crate) fn ip_batch(&self, lines: &str) -> Result<()> {
        command::run(&mut command::ip(&["-n", &self.name, "-batch", "-"]), lines).map(drop)
    }

    /// Writes settings under `/proc/sys/net`, which shows those of the namespace that the thread is in.
    ///
    /// # Errors
    /// There is no such setting, or it does not take the value.
    pub fn apply(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (setting, value) in settings {
                let path = format!("/proc/sys/net/{setting}");
                std::fs::write(&path, value)
                    .with_context(|| format!("writing {value} to {path} in {}", self.name))?;
            }
            Ok(())
        })?
    }
}

/// Where `ip netns` keeps the namespace of this name.
pub(super) fn path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}
