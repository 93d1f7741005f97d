//! `director` in the lab.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use director::control::{Health, Status};
use nix::sys::signal::Signal;

use crate::lab::plan::{director_interfaces, server4, server6};
use crate::lab::{Host, Lab, Process, Topology};
use crate::{PATIENCE, paths, wait_until};

/// A service for [`yaml`]: all real servers of the lab behind one address.
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    /// Virtual address.
    pub address: IpAddr,
    /// Virtual port.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: &'a str,
    /// `rr`, `wrr`, `mh`.
    pub scheduler: &'a str,
    /// Flags of the scheduler.
    pub flags: &'a [&'a str],
    /// The method as the configuration writes it: `nat`, `dr`, `tun`.
    pub method: &'a str,
    /// Encapsulation of the method `tun`: `ipip`, `gue`, `gre`.
    pub tunnel: Option<&'a str>,
    /// The real servers' port.
    pub real_port: u16,
    /// Reach the real servers by their IPv6 addresses.
    pub real_ipv6: bool,
    /// The real servers' numbers, each with its weight; none: all of the lab, with no weight of their own.
    pub real_servers: Option<&'a [(u8, u32)]>,
    /// More keys of the service, one a line.
    pub more: &'a str,
}

impl Service<'_> {
    /// A TCP service with NAT, `rr` and all real servers at the service's port.
    #[must_use]
    pub const fn rr(address: IpAddr, port: u16) -> Self {
        Self {
            address,
            port,
            protocol: "tcp",
            scheduler: "rr",
            flags: &[],
            method: "nat",
            tunnel: None,
            real_port: port,
            real_ipv6: address.is_ipv6(),
            real_servers: None,
            more: "",
        }
    }
}

/// The configuration file of a director in this lab. `extra`: lines for the top level, each with its line end.
#[must_use]
pub fn yaml(lab: &Lab, topology: Topology, services: &[Service<'_>], extra: &str) -> String {
    yaml_on(lab, Host::Director, topology, services, extra)
}

/// The same of the director on this host.
#[must_use]
pub fn yaml_on(
    lab: &Lab,
    host: Host,
    topology: Topology,
    services: &[Service<'_>],
    extra: &str,
) -> String {
    let servers: Vec<u8> = lab.servers().collect();
    render(
        &lab.instance_on(host),
        &control_socket_on(lab, host),
        topology,
        &servers,
        services,
        extra,
    )
}

fn render(
    instance: &str,
    control: &Path,
    topology: Topology,
    servers: &[u8],
    services: &[Service<'_>],
    extra: &str,
) -> String {
    let mut lines = vec![
        format!("instance: {instance}"),
        format!("interfaces: [{}]", director_interfaces(topology).join(", ")),
        format!("control: {}", control.display()),
    ];
    lines.extend(extra.lines().map(str::to_owned));
    lines.push("services:".to_owned());
    for service in services {
        lines.push(format!("  - address: {}", service.address));
        lines.push(format!("    port: {}", service.port));
        lines.push(format!("    protocol: {}", service.protocol));
        lines.push(format!("    scheduler: {}", service.scheduler));
        if !service.flags.is_empty() {
            lines.push(format!("    flags: [{}]", service.flags.join(", ")));
        }
        lines.push(format!("    method: {}", service.method));
        if let Some(tunnel) = service.tunnel {
            lines.push(format!("    tunnel: {tunnel}"));
        }
        lines.extend(service.more.lines().map(|line| format!("    {line}")));
        let all: Vec<(u8, Option<u32>)> = match service.real_servers {
            None => servers.iter().map(|&number| (number, None)).collect(),
            Some(some) => some
                .iter()
                .map(|&(number, weight)| (number, Some(weight)))
                .collect(),
        };
        if all.is_empty() {
            lines.push("    real_servers: []".to_owned());
            continue;
        }
        lines.push("    real_servers:".to_owned());
        for (number, weight) in all {
            let address: IpAddr = if service.real_ipv6 {
                server6(number).into()
            } else {
                server4(number).into()
            };
            let port = service.real_port;
            let weight = weight.map_or_else(String::new, |weight| format!(", weight: {weight}"));
            lines.push(format!(
                "      - {{address: \"{address}\", port: {port}{weight}}}"
            ));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Where a director of this lab listens to operators.
#[must_use]
pub fn control_socket(lab: &Lab) -> PathBuf {
    control_socket_on(lab, Host::Director)
}

/// The same of the director on this host.
#[must_use]
pub fn control_socket_on(lab: &Lab, host: Host) -> PathBuf {
    lab.directory().join(format!("{host}.sock"))
}

/// Writes the configuration file; where it stands.
///
/// # Errors
/// It cannot be written.
pub fn write_configuration(lab: &Lab, yaml: &str) -> Result<PathBuf> {
    write_configuration_on(lab, Host::Director, yaml)
}

fn write_configuration_on(lab: &Lab, host: Host, yaml: &str) -> Result<PathBuf> {
    let path = lab.directory().join(format!("{host}.yaml"));
    fs::write(&path, yaml).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// Starts `director run` with this configuration. It answers operators when this returns; ends when the guard is
/// dropped.
///
/// # Errors
/// It is not built, or ended; with what it said.
pub fn start(lab: &Lab, yaml: &str) -> Result<Process> {
    start_on(lab, Host::Director, yaml)
}

/// The same on this host.
///
/// # Errors
/// As [`start`].
pub fn start_on(lab: &Lab, host: Host, yaml: &str) -> Result<Process> {
    let configuration = write_configuration_on(lab, host, yaml)?;
    // Left by one that was killed, it would look like the new one's.
    let socket = control_socket_on(lab, host);
    if socket.exists() {
        fs::remove_file(&socket).with_context(|| format!("removing {}", socket.display()))?;
    }
    let mut command = Command::new(paths::program("director")?);
    command.arg("run").arg("--config").arg(configuration);
    let log = lab.directory().join(format!("{host}.log"));
    let mut director = lab.host(host)?.spawn(command, log)?;
    wait_until("the director answers operators", PATIENCE, || {
        director.check_running()?;
        std::os::unix::net::UnixStream::connect(&socket)
            .map(drop)
            .with_context(|| format!("connecting to {}", socket.display()))
    })
    .with_context(|| format!("the director printed:\n{}", director.log()))?;
    Ok(director)
}

/// What became of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The new configuration is in force.
    Done,
    /// The one before it still is.
    Refused,
}

/// Writes another configuration and has the director load it (SIGHUP). It has when this returns.
///
/// # Errors
/// It is gone, or does nothing.
pub fn reload(lab: &Lab, director: &mut Process, yaml: &str) -> Result<Reload> {
    reload_on(lab, Host::Director, director, yaml)
}

/// The same of the director on this host.
///
/// # Errors
/// As [`reload`].
pub fn reload_on(lab: &Lab, host: Host, director: &mut Process, yaml: &str) -> Result<Reload> {
    let outcomes =
        |log: &str| [" reloaded ", " reload refused"].map(|outcome| log.matches(outcome).count());
    let before = outcomes(&director.log());
    write_configuration_on(lab, host, yaml)?;
    director.signal(Signal::SIGHUP)?;
    let mut outcome = Reload::Done;
    wait_until("the director has loaded its file again", PATIENCE, || {
        director.check_running()?;
        let after = outcomes(&director.log());
        ensure!(after != before, "it says nothing of it");
        if after[1] != before[1] {
            outcome = Reload::Refused;
        }
        Ok(())
    })?;
    Ok(outcome)
}

/// What `director status --json` prints.
///
/// # Errors
/// No director answers.
pub fn status(lab: &Lab) -> Result<Status> {
    status_on(lab, Host::Director)
}

/// The same of the director on this host.
///
/// # Errors
/// No director answers.
pub fn status_on(lab: &Lab, host: Host) -> Result<Status> {
    let socket = control_socket_on(lab, host);
    let socket = socket.to_str().context("the socket's path is no text")?;
    let text = command_on(lab, host, &["status", "--json", "--socket", socket])?;
    serde_json::from_str(&text).with_context(|| format!("this is no status: {text}"))
}

/// Waits until packets for every real server can leave by the packet path.
///
/// # Errors
/// Some still cannot; an interface has no native program; or the director has ended.
pub fn wait_ready(lab: &Lab, director: &mut Process) -> Result<()> {
    wait_ready_on(lab, Host::Director, director)
}

/// The same of the director on this host.
///
/// # Errors
/// As [`wait_ready`].
pub fn wait_ready_on(lab: &Lab, host: Host, director: &mut Process) -> Result<()> {
    wait_until("all next hops are known", PATIENCE, || {
        director.check_running()?;
        let status = status_on(lab, host)?;
        for interface in &status.interfaces {
            ensure!(interface.mode.as_deref() == Some("native"), "{interface:?}");
        }
        for server in status.services.iter().flat_map(|it| &it.real_servers) {
            ensure!(server.next_hop == Health::Ready, "{server:?}");
        }
        Ok(())
    })
}

/// What a director says of sharing its connections.
///
/// # Errors
/// It does not answer, or shares them with nobody.
pub fn sync_status_on(lab: &Lab, host: Host) -> Result<serde_json::Value> {
    let socket = control_socket_on(lab, host);
    let socket = socket.to_str().context("no text")?;
    let text = command_on(lab, host, &["sync", "--json", "--socket", socket])?;
    serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
}

/// Waits until a director's peer has all that the director has by now, and the director all of its peer's.
///
/// # Errors
/// That does not come about.
pub fn wait_shared(lab: &Lab, host: Host) -> Result<()> {
    // What has changed so far is found by a pass that begins after this.
    let mut found_by = None;
    wait_until("the directors have the same connections", PATIENCE, || {
        let status = sync_status_on(lab, host)?;
        let passes = status["passes"].as_u64().context("no passes")?;
        let passed = passes >= *found_by.get_or_insert(passes + 2);
        let peer = &status["peers"][0];
        let is_shared = passed
            && status["backlog"] == 0
            && peer["state"] == "synced"
            && peer["has_ours"] == true
            && peer["lag_records"] == 0;
        ensure!(is_shared, "{status}");
        Ok(())
    })
}

/// Runs another command of the director in its namespace, and gives what it printed.
///
/// # Errors
/// It is not built or failed; with what it said.
pub fn command(lab: &Lab, arguments: &[&str]) -> Result<String> {
    command_on(lab, Host::Director, arguments)
}

/// The same on this host.
///
/// # Errors
/// It is not built or failed; with what it said.
pub fn command_on(lab: &Lab, host: Host, arguments: &[&str]) -> Result<String> {
    let program = paths::program("director")?;
    let program = program.to_str().context("the director's path is no text")?;
    lab.host(host)?.output(program, arguments)
}

/// Starts the program that takes tunnels off on real server `number`. It is attached when this returns, and ends when the guard is dropped.
///
/// # Errors
/// It is not built or cannot be started.
pub fn start_decap(lab: &Lab, number: u8) -> Result<Process> {
    let host = Host::Server(number);
    let mut command = Command::new(paths::program("director")?);
    command.args(["decap", "--interface", "eth0"]);
    let log = lab.directory().join(format!("decap-{host}.log"));
    let mut decap = lab.host(host)?.spawn(command, log)?;
    wait_until("the tunnels' end is attached", PATIENCE, || {
        decap.check_running()?;
        ensure!(decap.log().contains(" ready "), "{}", decap.log());
        Ok(())
    })?;
    Ok(decap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::plan::{VIRTUAL4, VIRTUAL6};

    #[test]
    fn the_director_reads_what_is_written_here() {
        let plain = Service {
            real_port: 8080,
            ..Service::rr(VIRTUAL4[0].into(), 80)
        };
        let services = [
            plain,
            Service {
                protocol: "udp",
                scheduler: "mh",
                flags: &["mh-port"],
                ..plain
            },
            Service {
                address: VIRTUAL6[0].into(),
                method: "tun",
                tunnel: Some("gue"),
                real_port: 80,
                real_ipv6: true,
                ..plain
            },
            Service {
                address: VIRTUAL4[1].into(),
                method: "dr",
                real_port: 80,
                real_servers: Some(&[(1, 3), (2, 0), (7, 1)]),
                ..plain
            },
        ];
        for (topology, interfaces) in [(Topology::TwoInterfaces, 2), (Topology::OneInterface, 1)] {
            let yaml = render(
                "lab-123n0",
                Path::new("/run/lab/director.sock"),
                topology,
                &[1, 2, 3],
                &services,
                "icmp_per_second: 5\n",
            );
            let config = director::config::parse("lab.yaml", &yaml)
                .unwrap_or_else(|e| panic!("{e}\n{yaml}"));
            assert_eq!(config.instance, "lab-123n0");
            assert_eq!(config.interfaces.len(), interfaces);
            assert_eq!(config.icmp_per_second, 5);
            assert_eq!(config.services.len(), services.len());
            assert!(
                config
                    .services
                    .iter()
                    .all(|service| service.real_servers.len() == 3)
            );
        }
    }
}
