//! A real kernel IPVS in the place of one of the lab's directors: Debian's user-mode-linux, which boots as a process in
//! seconds.
//!
//! ```text
//!            the namespace of Host::Director or Host::Backup
//!           ┌───────────────────────────────────────────────┐
//!  switch ──┼─ eth0 ─ br-eth0 ─ tap-eth0 ─ eth0 ┐           │
//!           │                                  guest        │
//!  cable  ──┼─ eth1 ─ br-eth1 ─ tap-eth1 ─ eth1 ┘           │
//!           └───────────────────────────────────────────────┘
//! ```
//!
//! The namespace gives up its addresses and only carries frames; the guest has the names of its interfaces, its
//! addresses, its routes and its settings. So whoever stands in a place looks the same to all others, and a test chooses
//! for each place:
//!
//! * a guest: [`Guest::start`] on that host;
//! * our own director: [`crate::director::start_on`] on that host. It needs no preparation, the addresses of the
//!   lab are still there.
//!
//! In [`Topology::TwoDirectors`] nobody has the virtual address ([`VIRTUAL4`]) nor the real servers' gateway
//! ([`MOVING_GATEWAY`]) at first. Move them by [`Guest::take`] and [`Guest::give_up`]; for a director that has no
//! heartbeat of its own do the same with `ip address` in its namespace, and tell the neighbours by
//! `busybox arping -U`, as [`announce`] has it. The cable between the two (`eth1`) is for synchronisation.
//!
//! Commands are handed over as files in a directory that both sides see (hostfs), and called by the guest's console.
//! A guest whose program dies sees its console end and halts; of one that misses it (seen once: the kernel learns of it by
//! a signal) the next lab ends what is left, as of any abandoned lab.
//!
//! [`Topology::TwoDirectors`]: crate::lab::Topology::TwoDirectors
//! [`VIRTUAL4`]: crate::lab::plan::VIRTUAL4
//! [`MOVING_GATEWAY`]: crate::lab::plan::MOVING_GATEWAY

mod listing;
mod place;
mod registers;

use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

pub use self::listing::{Connection, Origin, Synced};
use crate::lab::{Host, Lab, Namespace, Process};
use crate::{PATIENCE, wait_until};

/// The kernel as a program.
const KERNEL: &str = "/usr/bin/linux.uml";
/// What the guest has. IPVS sizes its table of connections by it, nothing else here is large.
const MEMORY: &str = "mem=192M";

/// How long it may take to halt before it is made to.
const HALTS: Duration = Duration::from_secs(20);

/// Which half of IPVS's synchronisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends.
    Master,
    /// Receives.
    Backup,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Backup => "backup",
        }
    }
}

/// A running guest; halted when dropped.
#[derive(Debug)]
pub struct Guest {
    host: Host,
    namespace: Namespace,
    interfaces: Vec<String>,
    process: Process,
    /// The guest sees it as `/mnt`.
    directory: PathBuf,
    /// How many commands it was given.
    commands: u32,
}

impl Guest {
    /// Boots a guest in the place of this host of the lab, and waits until it has the host's addresses and IPVS.
    ///
    /// # Errors
    /// A package is missing, or it did not come up: with what its console said.
    pub fn start(lab: &Lab, host: Host) -> Result<Self> {
        let mut guest = Self::boot(lab, host)?;
        guest.wait_ready(lab)?;
        Ok(guest)
    }

    /// Several at once, which takes as long as the slowest.
    ///
    /// # Errors
    /// As [`Guest::start`].
    pub fn start_all<const N: usize>(lab: &Lab, hosts: [Host; N]) -> Result<[Self; N]> {
        let mut guests = Vec::new();
        for host in hosts {
            guests.push(Self::boot(lab, host)?);
        }
        for guest in &mut guests {
            guest.wait_ready(lab)?;
        }
        guests
            .try_into()
            .ok()
            .context("as many guests as there are hosts")
    }

    fn boot(lab: &Lab, host: Host) -> Result<Self> {
        ensure!(
            fs::exists(KERNEL)?,
            "there is no {KERNEL}: install user-mode-linux (cargo xtask setup)"
        );
        let namespace = lab.host(host)?.clone();
        let interfaces = place::interfaces(lab.topology(), host);
        place::make(&namespace, &interfaces).with_context(|| format!("making room on {host}"))?;

        let directory = lab.directory().join(format!("guest-{host}"));
        // One that stood here before may have left its files.
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir_all(&directory)?,
        }
        let shared = directory.to_str().context("a path that is no text")?;
        let init = directory.join("init");
        fs::write(&init, place::init(shared))?;
        make_executable(&init)?;

        let mut command = Command::new(KERNEL);
        command
            // Its memory is a file, which is to be in memory.
            .env("TMPDIR", "/dev/shm")
            .env("LD_PRELOAD", registers::library(&directory)?)
            .arg(format!("umid=guest-{host}"))
            .arg(format!("uml_dir={shared}/"))
            .args([MEMORY, "rootfstype=hostfs", "rootflags=/", "ro", "quiet"])
            .arg(format!("init={}", init.display()))
            .args(["con=null", "con0=fd:0,fd:1", "ssl=null"])
            .args(place::vectors(host, &interfaces));
        let process = namespace.spawn_fed(command, directory.join("console"))?;
        Ok(Self {
            host,
            namespace,
            interfaces,
            process,
            directory,
            commands: 0,
        })
    }

    fn wait_ready(&mut self, lab: &Lab) -> Result<()> {
        // What comes before the kernel has opened its console is never read: the signal for it has passed.
        let ready = self.directory.join("ready");
        let process = &mut self.process;
        let booted = wait_until("the guest has loaded IPVS", PATIENCE, || {
            process.check_running()?;
            ensure!(fs::exists(&ready)?, "it has not");
            Ok(())
        });
        booted.with_context(|| {
            let console = self.process.log();
            format!("a guest on {}; its console said:\n{console}", self.host)
        })?;
        let script = place::addresses(lab.topology(), self.host);
        self.run(&script)
            .map(drop)
            .with_context(|| format!("booting a kernel with IPVS on {}", self.host))
    }

    /// Where it stands.
    #[must_use]
    pub fn host(&self) -> Host {
        self.host
    }

    /// What its console said so far.
    #[must_use]
    pub fn console(&self) -> String {
        self.process.log()
    }

    /// Runs a script of `sh` in the guest, with the programs of this machine, and gives what it printed. It ends at the
    /// first command that fails. Modules (`modprobe -d /tmp ipip`) are user-mode-linux's.
    ///
    /// # Errors
    /// It failed, with all it printed; or is not done in time, or the guest has ended: with what the console said.
    pub fn run(&mut self, script: &str) -> Result<String> {
        self.commands += 1;
        let number = self.commands;
        let file = |kind: &str| self.directory.join(format!("{number}.{kind}"));
        let (status, output) = (file("status"), file("out"));
        fs::write(file("sh"), format!("set -e\n{script}\n"))?;
        self.process.feed(&format!("{number}\n"))?;
        let process = &mut self.process;
        let waited = wait_until("the guest has run a script", PATIENCE, || {
            process.check_running()?;
            ensure!(fs::exists(&status)?, "it has not");
            Ok(())
        });
        let host = self.host;
        waited.with_context(|| {
            let console = self.process.log();
            format!("in the guest on {host}:\n{script}\nits console said:\n{console}")
        })?;
        let printed = String::from_utf8_lossy(&fs::read(output)?).into_owned();
        let status = fs::read_to_string(status)?;
        if status.trim() != "0" {
            bail!(
                "a script failed ({}) in the guest on {host}:\n{script}\nit printed:\n{printed}",
                status.trim()
            );
        }
        Ok(printed)
    }

    /// Sets a setting under `/proc/sys/net`.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn set(&mut self, setting: &str, value: &str) -> Result<()> {
        self.run(&place::setting(setting, value)).map(drop)
    }

    /// Starts half of IPVS's synchronisation. A master sends each connection's every packet from the first on: whoever
    /// wants the kernel's own thresholds sets `ipv4/vs/sync_threshold` afterwards.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn start_daemon(&mut self, role: Role, interface: &str, sync_id: u8) -> Result<()> {
        let every_packet = place::setting("ipv4/vs/sync_threshold", "0 1");
        let word = role.word();
        self.run(&format!(
            "{every_packet}ipvsadm --start-daemon {word} --mcast-interface {interface} --syncid {sync_id}"
        ))
        .map(drop)
    }

    /// Ends it.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn stop_daemon(&mut self, role: Role) -> Result<()> {
        let word = role.word();
        self.run(&format!("ipvsadm --stop-daemon {word}")).map(drop)
    }

    /// Takes addresses (IPv4, with prefix length), and tells the neighbours.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn take(&mut self, interface: &str, addresses: &[&str]) -> Result<()> {
        let mut script = String::new();
        for address in addresses {
            let _ = writeln!(script, "ip address add {address} dev {interface}");
        }
        script.push_str(&announce(interface, addresses));
        self.run(&script).map(drop)
    }

    /// Gives addresses up.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn give_up(&mut self, interface: &str, addresses: &[&str]) -> Result<()> {
        let lines = addresses
            .iter()
            .map(|address| format!("ip address del {address} dev {interface}\n"));
        self.run(&lines.collect::<String>()).map(drop)
    }

    /// Its connections, persistence templates among them: `ipvsadm -Lnc`.
    ///
    /// # Errors
    /// As [`Guest::run`], or a line that is not understood.
    pub fn connections(&mut self) -> Result<Vec<Connection>> {
        listing::connections(&self.run("ipvsadm -Lnc")?)
    }

    /// Its connections, and whether they came by synchronisation: `/proc/net/ip_vs_conn_sync`.
    ///
    /// # Errors
    /// As [`Guest::run`], or a line that is not understood.
    pub fn synced(&mut self) -> Result<Vec<Synced>> {
        listing::synced(&self.run("cat /proc/net/ip_vs_conn_sync")?)
    }

    /// Halts it, and says if it had to be made to; dropping only warns.
    ///
    /// # Errors
    /// It did not end by itself.
    pub fn stop(mut self) -> Result<()> {
        self.halt()
    }

    /// Ends it at once, as a power cut would.
    ///
    /// # Errors
    /// A system call failed.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill_group()
    }

    fn halt(&mut self) -> Result<()> {
        // Unless it has ended already.
        let _ = self.process.feed("halt\n");
        let ended = self.process.wait_all(HALTS);
        // Once.
        let interfaces = std::mem::take(&mut self.interfaces);
        ended.and(place::clear(&self.namespace, &interfaces))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Err(error) = self.halt() {
            eprintln!("warning: ending the guest on {}: {error:#}", self.host);
        }
    }
}

/// The script that tells neighbours of new IPv4 addresses (with prefix length) by gratuitous ARP.
#[must_use]
pub fn announce(interface: &str, addresses: &[&str]) -> String {
    let bare = |address: &str| address.split('/').next().unwrap_or_default().to_owned();
    let mut script = String::new();
    // Each waits a second for answers that nobody gives, and then fails for their want.
    for address in addresses {
        let address = bare(address);
        let _ = writeln!(
            script,
            "busybox arping -q -U -c 2 -w 1 -I {interface} {address} || true &"
        );
    }
    script.push_str("wait\n");
    script
}

fn make_executable(path: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("making {} executable", path.display()))
}
