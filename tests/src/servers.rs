//! Daemons as Debian has them, for tests of what health checks find of them.
//!
//! Each stands alone in a network namespace without a name, which goes with the last process in it: nothing else is
//! there to answer, every port is free, and nothing outside can be reached.

use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::{PATIENCE, wait_until};

/// Runs `work` on a thread in a network namespace of its own, where only loopback is, and up. Sockets and programs that
/// it opens and starts are in there too.
///
/// # Errors
/// Not root, or no `ip`.
///
/// # Panics
/// Where `work` does.
pub fn alone<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace needs root")?;
            output(Command::new("ip").args(["link", "set", "lo", "up"]))?;
            Ok(work())
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A directory for a server's configuration and data; gone with this.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Makes one that every user may look into: many servers change theirs.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!(
            "director-checks-{}-{count}-{name}",
            std::process::id()
        ));
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file into it, with its own path in the place of `DIRECTORY`. Gives the file's path.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let content = content.replace("DIRECTORY", &self.0.display().to_string());
        let path = self.0.join(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Makes a directory in it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(path)
    }

    /// Gives it and all in it to a user and that user's group.
    ///
    /// # Errors
    /// No such user.
    pub fn give_to(&self, user: &str) -> Result<()> {
        output(
            Command::new("chown")
                .args(["-R", &format!("{user}:")])
                .arg(&self.0),
        )
        .map(drop)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("warning: removing {}: {error}", self.0.display());
        }
    }
}

/// Runs a command to its end and gives what it printed.
///
/// # Errors
/// It could not be started, or failed; with what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    output_fed(command, Stdio::null())
}

/// The same of a program that reads this.
///
/// # Errors
/// As [`output`].
pub fn output_fed(command: &mut Command, input: impl Into<Stdio>) -> Result<String> {
    let done = command
        .stdin(input)
        .output()
        .with_context(|| format!("could not start {command:?}"))?;
    let text = [done.stdout, done.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    ensure!(done.status.success(), "{command:?} failed: {text}");
    Ok(text)
}

/// A running server with its children; made to end when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
    address: SocketAddr,
}

impl Server {
    /// Starts one that stays in the foreground. It takes TCP connections on `address` when this returns.
    ///
    /// # Errors
    /// It could not be started, or ended, or does not listen; with what it printed.
    pub fn start(mut command: Command, directory: &Directory, address: SocketAddr) -> Result<Self> {
        let log = directory.path().join("output.log");
        let output = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let errors = output.try_clone().context("duplicating a descriptor")?;
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("could not start {command:?}"))?;
        let mut server = Self {
            child,
            log,
            address,
        };
        let mut ended = None;
        wait_until(&format!("{command:?} listens"), PATIENCE, || {
            ended = server.child.try_wait()?;
            // Not worth waiting any longer for.
            if ended.is_some() {
                Ok(())
            } else {
                connects(address)
            }
        })
        .with_context(|| server.log())?;
        if let Some(status) = ended {
            bail!("{command:?} ended ({status}): {}", server.log());
        }
        Ok(server)
    }

    /// Waits until it takes connections on these ports too, of both families: servers open one after the other.
    ///
    /// # Errors
    /// It does not; with what it printed.
    pub fn wait_for_ports(&self, ports: &[u16]) -> Result<()> {
        for port in ports {
            for address in [
                SocketAddr::from((Ipv4Addr::LOCALHOST, *port)),
                SocketAddr::from((Ipv6Addr::LOCALHOST, *port)),
            ] {
                wait_until("the server listens", PATIENCE, || connects(address))
                    .with_context(|| self.log())?;
            }
        }
        Ok(())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// Stops it where it is: the kernel still takes connections for it, which nobody answers.
    ///
    /// # Errors
    /// It is gone.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        // The signal is on its way then; a thread on another CPU may still answer somebody.
        wait_until("it stands still", PATIENCE, || self.stands_still())
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It is gone.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Ends it and its children at once (SIGKILL), as a crash would. Nobody listens any more when this returns.
    ///
    /// # Errors
    /// Somebody still does.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.child.wait().context("waiting for a child process")?;
        let address = self.address;
        wait_until("its port is closed", PATIENCE, || {
            ensure!(
                connects(address).is_err(),
                "{address} still takes connections"
            );
            Ok(())
        })
    }

    /// An error if a thread of its process group has not stopped.
    fn stands_still(&self) -> Result<()> {
        let group = self.child.id().to_string();
        for process in fs::read_dir("/proc").context("listing processes")? {
            let path = process.context("listing processes")?.path();
            // Not all that is there is a process, and those may end meanwhile.
            if state_and_group(&path).is_none_or(|(_, its_group)| its_group != group) {
                continue;
            }
            for thread in fs::read_dir(path.join("task"))
                .into_iter()
                .flatten()
                .flatten()
            {
                let Some((state, _)) = state_and_group(&thread.path()) else {
                    continue;
                };
                ensure!(
                    ["T", "Z", "X"].contains(&state.as_str()),
                    "{} is in state {state}",
                    thread.path().display()
                );
            }
        }
        Ok(())
    }

    /// To its whole process group.
    fn signal(&self, signal: Signal) -> Result<()> {
        // Process ids fit: the kernel's own type is this one.
        let group = Pid::from_raw(self.child.id().cast_signed());
        killpg(group, signal).with_context(|| format!("sending {signal}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        // Frozen ones too.
        if self.signal(Signal::SIGKILL).is_ok() {
            drop(self.child.wait());
        }
    }
}

/// Of a process or thread, from its directory in `/proc` (proc_pid_stat(5)).
fn state_and_group(directory: &Path) -> Option<(String, String)> {
    let stat = fs::read_to_string(directory.join("stat")).ok()?;
    // Its name may have anything in it, but stands in parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut words = rest.split_whitespace();
    let (state, _parent, group) = (words.next()?, words.next()?, words.next()?);
    Some((state.to_owned(), group.to_owned()))
}

fn connects(address: SocketAddr) -> Result<()> {
    TcpStream::connect_timeout(&address, Duration::from_secs(1))
        .map(drop)
        .with_context(|| format!("connecting to {address}"))
}
