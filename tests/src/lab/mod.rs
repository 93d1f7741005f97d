//! A lab made of network namespaces: client, router, director, real servers.
//!
//! ```no_run
//! # use director_tests::lab::{Host, Lab, LabOptions};
//! let lab = Lab::up(&LabOptions::default())?;
//! let text = lab.host(Host::Client)?.output("ip", &["address"])?;
//! # anyhow::Ok(())
//! ```
//!
//! It is taken down when dropped, and when the program is interrupted; what a killed program left is cleared the
//! next time a lab comes up. Several stand side by side: all names carry the lab's id.

pub(crate) mod command;
mod interrupt;
mod namespace;
mod pass;
pub mod plan;
mod process;
mod state;
mod teardown;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};

pub use self::namespace::Namespace;
pub use self::plan::{Gateway, Host, Topology};
pub use self::process::Process;

/// Id of the lab that people bring up by command, and of a demonstration that stays.
pub const NAMED: &str = "lab";

/// What kind of lab.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// A fixed id; otherwise a fresh one.
    pub id: Option<String>,
    /// How the director is connected.
    pub topology: Topology,
    /// Where the real servers send replies. Can be changed later: [`Lab::set_gateway`].
    pub gateway: Gateway,
    /// Number of real servers, at most [`plan::MAX_SERVERS`].
    pub servers: u8,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            id: None,
            topology: Topology::default(),
            gateway: Gateway::default(),
            servers: 3,
        }
    }
}

/// A standing lab.
#[derive(Debug)]
pub struct Lab {
    id: String,
    hosts: BTreeMap<Host, Namespace>,
    topology: Topology,
    directory: PathBuf,
    /// Taken down when dropped.
    owned: bool,
}

impl Lab {
    /// Brings a lab up.
    ///
    /// # Errors
    /// Not root, a missing command, one that failed, or a lab of this id that stands already. Nothing is left.
    pub fn up(options: &LabOptions) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the lab is made of network namespaces, which need root"
        );
        ensure!(
            (1..=plan::MAX_SERVERS).contains(&options.servers),
            "{} real servers were asked for; a lab has 1 to {}",
            options.servers,
            plan::MAX_SERVERS
        );
        clear_abandoned();

        // Without separators, so that no lab's names begin like another's.
        if let Some(id) = &options.id {
            ensure!(
                !id.is_empty() && id.len() <= 16 && id.chars().all(|c| c.is_ascii_alphanumeric()),
                "a lab's id is 1 to 16 letters and digits, not `{id}`"
            );
        }
        let id = options.id.clone().unwrap_or_else(fresh_id);
        let directory = {
            let _going_on = interrupt::going_on();
            let directory = state::claim(&id)?;
            interrupt::take_down_when_interrupted(&id);
            directory
        };
        // From here on dropping it takes down whatever stands.
        let mut lab = Self {
            id,
            hosts: BTreeMap::new(),
            topology: options.topology,
            directory,
            owned: true,
        };
        let plan = plan::plan(options.topology, options.servers, options.gateway);
        lab.build(&plan)
            .with_context(|| format!("bringing lab {} up", lab.id))?;
        Ok(lab)
    }

    /// Opens a lab that another program brought up and left. It stays when this is dropped.
    ///
    /// # Errors
    /// There is none of this id.
    pub fn open(id: &str) -> Result<Self> {
        let mut hosts = BTreeMap::new();
        for name in teardown::namespaces(id)? {
            let host = name
                .strip_prefix(&namespace_prefix(id))
                .and_then(|host| host.parse().ok());
            if let Some(host) = host {
                hosts.insert(host, Namespace::open(&name)?);
            }
        }
        // What else there is to know of it cannot be told from outside, and nobody asks.
        let topology = if hosts.contains_key(&Host::Backup) {
            Topology::TwoDirectors
        } else {
            Topology::default()
        };
        if hosts.is_empty() {
            bail!("no lab `{id}` is up; bring it up: cargo xtask lab up");
        }
        Ok(Self {
            id: id.to_owned(),
            hosts,
            topology,
            directory: state::directory(id),
            owned: false,
        })
    }

    /// Takes a lab down by its id, whoever brought it up. Whether there was one.
    ///
    /// # Errors
    /// Something of it could not be removed.
    pub fn take_down(id: &str) -> Result<bool> {
        let stood = state::directory(id).is_dir() || !teardown::namespaces(id)?.is_empty();
        teardown::take_down(id)?;
        Ok(stood)
    }

    /// Leaves the lab standing when this program ends.
    ///
    /// # Errors
    /// It could not be written down.
    pub fn keep(mut self) -> Result<()> {
        state::mark_kept(&self.id)?;
        interrupt::forget(&self.id);
        self.owned = false;
        Ok(())
    }

    /// Takes it down now, and says what went wrong; dropping only warns.
    ///
    /// # Errors
    /// Something of it could not be removed.
    pub fn down(mut self) -> Result<()> {
        self.owned = false;
        interrupt::take_down(&self.id)
    }

    /// Its id, part of all names.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How the director is connected.
    #[must_use]
    pub fn topology(&self) -> Topology {
        self.topology
    }

    /// Name for a director's instance in this lab; its pins go with the lab.
    #[must_use]
    pub fn instance_name(&self) -> String {
        instance_name(&self.id, Host::Director)
    }

    /// The same of the director on this host.
    #[must_use]
    pub fn instance_on(&self, host: Host) -> String {
        instance_name(&self.id, host)
    }

    /// A directory for files and logs, gone with the lab.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A host's namespace.
    ///
    /// # Errors
    /// This lab has no such host.
    pub fn host(&self, host: Host) -> Result<&Namespace> {
        self.hosts
            .get(&host)
            .with_context(|| format!("lab {} has no host {host}", self.id))
    }

    /// All hosts and their namespaces.
    pub fn hosts(&self) -> impl Iterator<Item = (Host, &Namespace)> {
        self.hosts
            .iter()
            .map(|(&host, namespace)| (host, namespace))
    }

    /// Numbers of the real servers, from 1.
    pub fn servers(&self) -> impl Iterator<Item = u8> {
        self.hosts.keys().filter_map(|host| match host {
            Host::Server(number) => Some(*number),
            _ => None,
        })
    }

    /// Has the real servers send their replies another way.
    ///
    /// # Errors
    /// A command failed.
    pub fn set_gateway(&self, gateway: Gateway) -> Result<()> {
        for number in self.servers() {
            let mut lines = String::new();
            for route in plan::server_routes(number, self.topology, gateway) {
                let _ = writeln!(lines, "route replace {} {}", route.to, route.via);
            }
            self.host(Host::Server(number))?.ip_batch(&lines)?;
        }
        Ok(())
    }

    fn build(&mut self, plan: &plan::Plan) -> Result<()> {
        for &host in &plan.hosts {
            let namespace = Namespace::create(&format!("{}{host}", namespace_prefix(&self.id)))?;
            namespace.apply(&plan::settings(host))?;
            self.hosts.insert(host, namespace);
        }

        // For each host one run of `ip`, which takes longer to start than to work.
        let mut lines: BTreeMap<Host, String> = BTreeMap::new();
        let mut line = |host: Host, text: String| {
            let _ = writeln!(lines.entry(host).or_default(), "{text}");
        };
        line(
            Host::Switch,
            "link add bridge type bridge stp_state 0 mcast_snooping 0".to_owned(),
        );
        line(Host::Switch, "link set bridge up".to_owned());
        for host in plan.hosts.iter().copied() {
            line(host, "link set lo up".to_owned());
            if plan.virtual_on.contains(&host) {
                for address in plan::VIRTUAL4 {
                    line(host, format!("address add {address}/32 dev lo"));
                }
                for address in plan::VIRTUAL6 {
                    line(host, format!("address add {address}/128 dev lo nodad"));
                }
            }
        }
        for plan::Cable(a, b) in &plan.cables {
            let far = self.host(b.host)?.name();
            let cable = format!(
                "link add {} type veth peer name {} netns {far}",
                a.interface, b.interface
            );
            self.host(a.host)?.ip_batch(&cable)?;
            for end in [a, b] {
                for address in &end.addresses {
                    let no_detection = if address.contains(':') { " nodad" } else { "" };
                    line(
                        end.host,
                        format!("address add {address} dev {}{no_detection}", end.interface),
                    );
                }
                let bridged = if end.host == Host::Switch {
                    " master bridge"
                } else {
                    ""
                };
                line(end.host, format!("link set {}{bridged} up", end.interface));
                // Frames on a virtual cable otherwise carry unfinished checksums, which only the kernel's own
                // stack at the far end would make good.
                self.host(end.host)?
                    .output("ethtool", &["-K", &end.interface, "tx", "off"])?;
            }
        }
        for route in &plan.routes {
            line(route.host, format!("route add {} {}", route.to, route.via));
        }
        for (host, lines) in lines {
            self.host(host)?.ip_batch(&lines)?;
        }

        let mut ends = Vec::new();
        for end in plan.cables.iter().flat_map(|cable| [&cable.0, &cable.1]) {
            if end.receives_from_xdp {
                ends.push((self.host(end.host)?, end.interface.as_str()));
            }
        }
        let _going_on = interrupt::going_on();
        pass::attach(&self.id, ends.into_iter())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = interrupt::take_down(&self.id)
        {
            eprintln!("warning: taking lab {} down: {error:#}", self.id);
        }
    }
}

/// What all namespaces of a lab are called, up to the host's name.
fn namespace_prefix(id: &str) -> String {
    format!("dlab-{id}-")
}

fn instance_name(id: &str, host: Host) -> String {
    match host {
        Host::Backup => format!("lab-{id}-backup"),
        _ => format!("lab-{id}"),
    }
}

fn fresh_id() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{}n{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

fn clear_abandoned() {
    for id in state::abandoned() {
        eprintln!("clearing lab {id}, left behind by a program that is gone");
        if let Err(error) = teardown::take_down(&id) {
            eprintln!("warning: {error:#}");
        }
    }
}
