//! Two nodes of a lab, and what is done to them: for the tests of failover, and for the benchmark.
//!
//! What fails panics with all that both nodes printed, as a test does.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a panic is how a test fails, and a suite of the benchmark too"
)]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::director::{self, Reload, Service};
use crate::lab::plan::VIRTUAL4;
use crate::lab::{Gateway, Host, Lab, LabOptions, Process, Topology};
use crate::visitor::{Visit, Visitor, longest_gap};
use crate::{PATIENCE, demo, paths, wait_until};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

/// The nodes; both have these names too.
pub const NODES: [Host; 2] = [Host::Director, Host::Backup];
/// Where clients ask.
pub const SERVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(VIRTUAL4[0]), 80);

/// What a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// `heartbeat run`: its own HTTP server is what stands on the virtual address.
    Heartbeat,
    /// `director run`, DR: requests go on to real servers, which answer clients themselves.
    Director,
    /// `director run`, NAT: real servers answer by way of the moving gateway.
    Nat,
    /// `director run`, tunnels to real servers that take them off and answer clients themselves.
    Tunnel,
}

/// The heartbeat section of a node, but for the links and groups. Both nodes have the same.
pub const QUICK: &str = "\
keepalive: 100ms
deadtime: 300ms
initdead: 1s
";

/// Links over both cables.
pub const BOTH_CABLES: &str = "\
links:
  - udp: {interface: eth0, peers: [10.0.0.1, 10.0.0.2]}
  - udp: {interface: eth1, peers: [10.0.1.1, 10.0.1.2]}
";

/// One group, preferred on the first node.
pub const ONE_GROUP: &str = "\
groups:
  - name: web
    interface: eth0
    addresses: [192.0.2.10/32]
    priority: {director: 150, backup: 100}
";

/// One group, of both families.
pub const BOTH_FAMILIES: &str = "\
groups:
  - name: web
    interface: eth0
    addresses: [192.0.2.10/32, 2001:db8:f::10/128]
    priority: {director: 150, backup: 100}
";

/// What both nodes are.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What they run.
    pub runs: Runs,
    /// The section of both nodes.
    pub section: String,
    /// More sections of the directors.
    pub more: String,
    /// Where clients ask.
    pub service: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The scheduler of the directors' service.
    pub scheduler: &'static str,
    /// More keys of the directors' service.
    pub service_more: String,
    /// A second service of the directors, on another virtual address.
    pub also: Option<SocketAddr>,
    /// More keys of the section of each node, in the order of [`NODES`].
    pub own: Option<[String; 2]>,
}

impl Setup {
    /// Nodes with this section.
    pub fn new(runs: Runs, section: &[&str]) -> Self {
        Self {
            runs,
            section: section.concat(),
            more: String::new(),
            service: SERVICE,
            protocol: "tcp",
            scheduler: "rr",
            service_more: String::new(),
            also: None,
            own: None,
        }
    }
}

/// A lab with two nodes.
pub struct Pair {
    /// The lab.
    pub lab: Lab,
    /// What its nodes are.
    pub setup: Setup,
    nodes: [Option<Process>; 2],
    _servers: Vec<Process>,
}

impl Pair {
    /// A lab, what is needed to be asked for, and both nodes.
    pub fn up(runs: Runs, section: &[&str]) -> Self {
        Self::up_as(Setup::new(runs, section))
    }

    /// The same, of directors with more sections. `DIRECTORY` in any of them is the lab's directory.
    pub fn up_with(runs: Runs, section: &[&str], more: &str) -> Self {
        Self::up_as(Setup {
            more: more.to_owned(),
            ..Setup::new(runs, section)
        })
    }

    /// The same, of nodes that are all of this.
    pub fn up_as(setup: Setup) -> Self {
        let runs = setup.runs;
        let lab = Lab::up(&LabOptions {
            topology: Topology::TwoDirectors,
            gateway: match runs {
                Runs::Nat => Gateway::Director,
                Runs::Director | Runs::Tunnel | Runs::Heartbeat => Gateway::Router,
            },
            servers: 2,
            ..LabOptions::default()
        })
        .unwrap();
        let servers = match runs {
            Runs::Director | Runs::Nat | Runs::Tunnel => demo::start_http_servers(&lab).unwrap(),
            Runs::Heartbeat => NODES.map(|node| serve_on(&lab, node)).into(),
        };
        let mut servers = servers;
        if runs == Runs::Tunnel {
            servers.extend(
                lab.servers()
                    .map(|it| director::start_decap(&lab, it).unwrap()),
            );
        }
        let mut pair = Self {
            lab,
            setup,
            nodes: [None, None],
            _servers: servers,
        };
        for node in NODES {
            pair.start(node);
        }
        pair
    }

    /// Starts a node.
    pub fn start(&mut self, node: Host) {
        let process = match self.setup.runs {
            Runs::Director | Runs::Nat | Runs::Tunnel => self.start_director(node),
            Runs::Heartbeat => self.start_heartbeat(node),
        };
        self.nodes[place(node)] = Some(process.unwrap_or_else(|error| panic!("{node}: {error:#}")));
    }

    /// A director's file.
    fn yaml(&self, node: Host) -> String {
        let Setup {
            runs,
            section,
            more,
            service,
            protocol,
            scheduler,
            service_more,
            also,
            own,
        } = &self.setup;
        let own = own.as_ref().map_or("", |own| &own[place(node)]);
        let section: String = format!("node: {node}\n{section}{own}")
            .lines()
            .map(|line| format!("  {line}\n"))
            .collect();
        let service = Service {
            method: match runs {
                Runs::Nat => "nat",
                Runs::Tunnel => "tun",
                Runs::Director | Runs::Heartbeat => "dr",
            },
            protocol,
            scheduler,
            more: service_more,
            ..Service::rr(service.ip(), service.port())
        };
        let also = also.map(|also| Service {
            address: also.ip(),
            port: also.port(),
            ..service
        });
        let services: Vec<Service<'_>> = std::iter::once(service).chain(also).collect();
        let extra = format!(
            "heartbeat:
{section}{more}"
        );
        let extra = extra.replace("DIRECTORY", &self.lab.directory().display().to_string());
        director::yaml_on(&self.lab, node, Topology::TwoDirectors, &services, &extra)
    }

    fn start_director(&self, node: Host) -> Result<Process> {
        let yaml = self.yaml(node);
        let mut process = director::start_on(&self.lab, node, &yaml)?;
        director::wait_ready_on(&self.lab, node, &mut process)?;
        Ok(process)
    }

    /// Has a director take its file again, of the setup as it is by now.
    pub fn reload(&mut self, node: Host) {
        let yaml = self.yaml(node);
        let process = self.nodes[place(node)].as_mut().unwrap();
        let reloaded = director::reload_on(&self.lab, node, process, &yaml).unwrap();
        assert_eq!(reloaded, Reload::Done, "{}", self.logs());
    }

    fn start_heartbeat(&self, node: Host) -> Result<Process> {
        let config = self.lab.directory().join(format!("{node}.yaml"));
        fs::write(&config, format!("node: {node}\n{}", self.setup.section))?;
        let mut command = Command::new(paths::program("heartbeat")?);
        command.arg("run").arg("--config").arg(config);
        command.arg("--socket").arg(self.socket(node));
        let log = self.lab.directory().join(format!("{node}.log"));
        let mut process = self.lab.host(node)?.spawn(command, log)?;
        wait_until("heartbeat answers operators", PATIENCE, || {
            process.check_running()?;
            self.status(node).map(drop)
        })?;
        Ok(process)
    }

    fn socket(&self, node: Host) -> std::path::PathBuf {
        director::control_socket_on(&self.lab, node)
    }

    /// Has a command of the node's program print something.
    pub fn command(&self, node: Host, words: &[&str]) -> Result<String> {
        let (program, own) = match self.setup.runs {
            Runs::Director | Runs::Nat | Runs::Tunnel => ("director", "heartbeat"),
            Runs::Heartbeat => ("heartbeat", "status"),
        };
        let program = paths::program(program)?;
        let program = program.to_str().context("no text")?;
        let socket = self.socket(node);
        let socket = socket.to_str().context("no text")?;
        let mut arguments: Vec<&str> = words
            .iter()
            .map(|&word| if word == "status" { own } else { word })
            .collect();
        arguments.extend(["--socket", socket]);
        self.lab.host(node)?.output(program, &arguments)
    }

    /// What a node's heartbeat says.
    pub fn status(&self, node: Host) -> Result<Value> {
        let text = self.command(node, &["status", "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
    }

    /// A secret's file; its path.
    pub fn secret(&self, name: &str) -> String {
        let path = self.lab.directory().join(name);
        fs::write(&path, format!("a secret of the lab, {name}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Waits until a node's peer has all that the node has, and the node all of its peer's.
    pub fn wait_shared(&mut self, node: Host) {
        let waited = director::wait_shared(&self.lab, node);
        waited.unwrap_or_else(|error| panic!("{error:#}\n{}", self.logs()));
    }

    /// Waits until a node has this role in a group.
    pub fn wait_role(&mut self, node: Host, group: &str, role: &str) {
        let waited = wait_until(&format!("{node} is {role} of {group}"), PATIENCE, || {
            let status = self.status(node)?;
            let groups = status["groups"].as_array().context("no groups")?;
            let found = groups.iter().find(|it| it["group"] == group);
            let found = found.context("no such group")?;
            ensure!(found["role"] == role, "{found}");
            Ok(())
        });
        waited.unwrap_or_else(|error| panic!("{error:#}\n{}", self.logs()));
    }

    /// Waits until one of the nodes serves a group and the other is its backup; which one serves.
    pub fn wait_settled(&mut self, group: &str) -> Host {
        let mut primary = None;
        let waited = wait_until("one is primary, the other backup", PATIENCE, || {
            let mut roles = Vec::new();
            for node in NODES {
                let status = self.status(node)?;
                let groups = status["groups"].as_array().context("no groups")?;
                let found = groups.iter().find(|it| it["group"] == group);
                roles.push(found.context("no such group")?["role"].clone());
            }
            primary = match (roles[0].as_str(), roles[1].as_str()) {
                (Some("primary"), Some("backup")) => Some(NODES[0]),
                (Some("backup"), Some("primary")) => Some(NODES[1]),
                _ => anyhow::bail!("{roles:?}"),
            };
            Ok(())
        });
        waited.unwrap_or_else(|error| panic!("{error:#}\n{}", self.logs()));
        primary.unwrap()
    }

    /// What both nodes printed.
    pub fn logs(&self) -> String {
        let logs = NODES.iter().zip(&self.nodes).map(|(node, process)| {
            let log = process.as_ref().map(Process::log).unwrap_or_default();
            format!("{node} printed:\n{log}\n")
        });
        logs.collect()
    }

    /// What there is to see of connections that do not go on: sockets and neighbours of every host, what the directors
    /// know and count, and what both nodes printed.
    pub fn scene(&self) -> String {
        let mut scene = String::new();
        let servers = self.lab.servers().map(Host::Server);
        for host in [Host::Client, Host::Router]
            .into_iter()
            .chain(servers)
            .chain(NODES)
        {
            for (program, arguments) in [("ss", &["-tnoi"][..]), ("ip", &["neighbour"])] {
                let output = self.lab.host(host).unwrap().output(program, arguments);
                let output = output.unwrap_or_else(|error| format!("{error:#}"));
                scene += &format!("{host}, {program} {}:\n{output}\n", arguments.join(" "));
            }
        }
        for node in NODES {
            let socket = self.socket(node).display().to_string();
            let instance = self.lab.instance_on(node);
            // Connections stand in the tables, whether their director lives or not.
            for arguments in [
                ["status", "--socket", &socket],
                ["heartbeat", "--socket", &socket],
                ["sync", "--socket", &socket],
                ["conns", "--instance", &instance],
            ] {
                let output = director::command_on(&self.lab, node, &arguments);
                let output = output.unwrap_or_else(|error| format!("{error:#}"));
                scene += &format!("{node}, director {}:\n{output}\n", arguments[0]);
            }
        }
        scene + &self.logs()
    }

    /// Sends a signal to a node's program.
    pub fn signal(&self, node: Host, signal: Signal) {
        let process = self.nodes[place(node)].as_ref().unwrap();
        process.signal(signal).unwrap();
    }

    /// Ends a node's program, and waits until it has.
    pub fn end(&mut self, node: Host, signal: Signal) {
        let mut process = self.nodes[place(node)].take().unwrap();
        process.signal(signal).unwrap();
        process.wait(PATIENCE).unwrap();
    }

    /// Waits until the lab's file of this name has a line with all of these words.
    pub fn wait_line(&self, file: &str, words: &[&str]) {
        let file = self.lab.directory().join(file);
        let waited = wait_until(
            &format!("{words:?} in {}", file.display()),
            PATIENCE,
            || {
                let text = fs::read_to_string(&file).unwrap_or_default();
                let mut lines = text.lines();
                let is_there = lines.any(|line| words.iter().all(|word| line.contains(word)));
                ensure!(is_there, "{text}");
                Ok(())
            },
        );
        waited.unwrap_or_else(|error| panic!("{error:#}\n{}", self.logs()));
    }

    /// Runs `ip` on a host.
    pub fn ip(&self, host: Host, words: &[&str]) -> String {
        let host = self.lab.host(host).unwrap();
        host.output("ip", words).unwrap()
    }

    /// Whether a node has the virtual address.
    pub fn has_address(&self, node: Host) -> bool {
        self.ip(node, &["address"]).contains("192.0.2.10/")
    }

    /// Does something to the pair while a client keeps requesting, until it has been answered again for a while: how long
    /// it was not, and all of its visits.
    pub fn gap(&mut self, fault: impl FnOnce(&mut Self)) -> (Duration, Vec<Visit>) {
        let (since, mut visits) = self.visits(&[SERVICE], fault);
        let visits = visits.remove(0);
        (longest_gap(&visits, since), visits)
    }

    /// The same of clients of several services: how long each was without an answer.
    pub fn gaps(
        &mut self,
        services: &[SocketAddr],
        fault: impl FnOnce(&mut Self),
    ) -> Vec<Duration> {
        let (since, visits) = self.visits(services, fault);
        let gaps = visits.iter().map(|visits| longest_gap(visits, since));
        gaps.collect()
    }

    fn visits(
        &mut self,
        services: &[SocketAddr],
        fault: impl FnOnce(&mut Self),
    ) -> (Instant, Vec<Vec<Visit>>) {
        let client = self.lab.host(Host::Client).unwrap();
        let visitors = services
            .iter()
            .map(|service| Visitor::start(client, *service));
        let visitors: Vec<Visitor> = visitors.map(Result::unwrap).collect();
        let all_answered = || visitors.iter().try_for_each(Visitor::wait_answered);
        all_answered().unwrap();
        let since = Instant::now();
        fault(self);
        // Whatever there is of a gap is over when nothing changes any more and requests are answered.
        all_answered().unwrap();
        let visits = visitors.into_iter().map(|visitor| visitor.stop().unwrap());
        (since, visits.collect())
    }

    /// Ends the node in charge of the group `web` by this signal, waits until the other one serves, and starts it again:
    /// how long a client was without an answer. (For what does not fail back by itself.)
    pub fn gap_when_ended_by(&mut self, signal: Signal) -> Duration {
        let primary = self.wait_settled("web");
        let (gap, _) = self.gap(|pair| {
            pair.end(primary, signal);
            pair.wait_role(other(primary), "web", "primary");
        });
        self.start(primary);
        gap
    }

    /// Waits until requests are answered.
    pub fn wait_answered(&self) {
        let client = self.lab.host(Host::Client).unwrap();
        let waited = wait_until("the service answers", PATIENCE, || {
            for _ in 0..20 {
                let timeout = Duration::from_millis(200);
                client
                    .run(|| crate::http::get(SERVICE, "/", timeout))?
                    .map(drop)?;
            }
            Ok(())
        });
        waited.unwrap_or_else(|error| panic!("{error:#}\n{}", self.logs()));
    }
}

fn place(node: Host) -> usize {
    usize::from(node == Host::Backup)
}

/// The other node.
pub fn other(node: Host) -> Host {
    NODES[1 - place(node)]
}

/// The built-in HTTP server on a node itself.
fn serve_on(lab: &Lab, node: Host) -> Process {
    let mut command = Command::new(paths::program("lab").unwrap());
    command.args([
        "http-server",
        "--name",
        &node.to_string(),
        "--listen",
        "[::]:80",
    ]);
    let log = lab.directory().join(format!("http-{node}.log"));
    lab.host(node).unwrap().spawn(command, log).unwrap()
}
