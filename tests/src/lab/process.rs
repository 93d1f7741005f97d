//! A program running in the lab.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::command::shown;
use super::interrupt;
use crate::Never;

/// How long a program may take to end after being asked, before it is made to.
const GRACE: Duration = Duration::from_secs(30);

/// A running program; ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// What it can be told, if it was started for that.
    input: Option<ChildStdin>,
    words: String,
    log: PathBuf,
    left_running: bool,
}

impl Process {
    pub(super) fn start(command: Command, log: PathBuf) -> Result<Self> {
        Self::start_with(command, Stdio::null(), log)
    }

    /// One that reads what [`Process::feed`] writes.
    pub(super) fn start_fed(command: Command, log: PathBuf) -> Result<Self> {
        Self::start_with(command, Stdio::piped(), log)
    }

    fn start_with(mut command: Command, input: Stdio, log: PathBuf) -> Result<Self> {
        let _going_on = interrupt::going_on();
        let words = shown(&command);
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening the log {}", log.display()))?;
        let errors: File = output
            .try_clone()
            .context("duplicating the log's descriptor")?;
        let mut child = command
            .process_group(0)
            .stdin(input)
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("could not start `{words}`"))?;
        Ok(Self {
            input: child.stdin.take(),
            child,
            words,
            log,
            left_running: false,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        match std::fs::read(&self.log) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("(no log {}: {error})", self.log.display()),
        }
    }

    /// An error with all it printed, if it has ended.
    ///
    /// # Errors
    /// It is not running any more, and [`Never`] will be.
    pub fn check_running(&mut self) -> Result<()> {
        match self
            .child
            .try_wait()
            .context("asking after a child process")?
        {
            None => Ok(()),
            Some(status) => bail!(Never(format!(
                "`{}` ended ({status}); it printed:\n{}",
                self.words,
                self.log()
            ))),
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("sending {signal} to `{}`", self.words))
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It still runs after `patience`; with all it printed.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self
                .child
                .try_wait()
                .context("asking after a child process")?
            {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!(
                    "`{}` still runs after {} s; it printed:\n{}",
                    self.words,
                    patience.as_secs(),
                    self.log()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to end (SIGTERM), and makes it (SIGKILL) after a while.
    ///
    /// # Errors
    /// It had to be made to.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill()?;
        bail!(
            "`{}` did not end within {} s of SIGTERM; it printed:\n{}",
            self.words,
            GRACE.as_secs(),
            self.log()
        )
    }

    /// Writes to its standard input. For one started by [`Namespace::spawn_fed`].
    ///
    /// [`Namespace::spawn_fed`]: super::Namespace::spawn_fed
    ///
    /// # Errors
    /// It was not started to read, or does not any more.
    pub fn feed(&mut self, text: &str) -> Result<()> {
        let words = &self.words;
        let input = self.input.as_mut();
        input
            .with_context(|| format!("`{words}` was not started to be told anything"))?
            .write_all(text.as_bytes())
            .with_context(|| format!("telling `{words}` something"))
    }

    /// Waits until it has ended by itself, then ends (SIGKILL) what is left of it and its children.
    ///
    /// # Errors
    /// It still ran after `patience`, and was made to end.
    pub fn wait_all(&mut self, patience: Duration) -> Result<()> {
        let waited = self.wait(patience);
        // Also what it left behind of its children.
        self.kill_group()?;
        waited.map(drop)
    }

    /// Ends it and its children at once (SIGKILL).
    ///
    /// # Errors
    /// A system call failed.
    pub fn kill_group(&mut self) -> Result<()> {
        match killpg(self.pid(), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("ending all of `{}`", self.words));
            }
        }
        self.child.wait().context("waiting for a child process")?;
        Ok(())
    }

    /// Ends it at once (SIGKILL), as a crash would.
    ///
    /// # Errors
    /// The system call failed.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill().context("ending a child process")?;
        self.child.wait().context("waiting for a child process")
    }

    /// Lets it outlive this program. Taking the lab down ends it all the same.
    pub fn leave_running(mut self) {
        self.left_running = true;
    }

    fn pid(&self) -> Pid {
        // Process ids fit: the kernel's own type is this one.
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.left_running {
            return;
        }
        if let Err(error) = self.stop() {
            eprintln!("warning: {error:#}");
        }
    }
}
