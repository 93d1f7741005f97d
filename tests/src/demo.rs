//! `cargo xtask demo`: real requests through the load balancer, for NAT, then DR, then TUN; then two directors, of which
//! one dies.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::director::{self, Service};
use crate::http::{self, Response};
use crate::lab::plan::{CLIENT4, VIRTUAL4};
use crate::lab::{Gateway, Host, Lab, LabOptions, NAMED, Process, Topology};
use crate::visitor::{Visitor, longest_gap};
use crate::{PATIENCE, paths, wait_until};

const REQUESTS: usize = 12;
const PORT: u16 = 80;
/// NAT translates to another port, so that it shows.
const NAT_PORT: u16 = 8080;
const TIMEOUT: Duration = Duration::from_secs(5);

/// One part of the demonstration.
struct Act {
    method: &'static str,
    title: &'static str,
    gateway: Gateway,
    real_port: u16,
    /// A program on the real servers takes the tunnel off.
    decapsulate: bool,
}

const ACTS: [Act; 3] = [
    Act {
        method: "nat",
        title: "NAT: address and port rewritten; replies come back through the director",
        gateway: Gateway::Director,
        real_port: NAT_PORT,
        decapsulate: false,
    },
    Act {
        method: "dr",
        title: "DR: only the MAC address rewritten; replies go straight to the client",
        gateway: Gateway::Router,
        real_port: PORT,
        decapsulate: false,
    },
    Act {
        method: "tun",
        title: "TUN: encapsulated, unwrapped by XDP on the real server; replies go straight to the client",
        gateway: Gateway::Router,
        real_port: PORT,
        decapsulate: true,
    },
];

/// Runs the demonstration; with `keep` the lab stays up afterwards.
///
/// # Errors
/// Something could not be started, a request was not answered, or not every real server answered.
pub fn run(keep: bool) -> Result<()> {
    let started = Instant::now();
    if keep && Lab::take_down(NAMED)? {
        println!("(the lab that was up has been taken down)");
    }
    heading("Lab: client ─ router ─ director ─ s1 s2 s3, each a network namespace");
    let lab = Lab::up(&LabOptions {
        id: keep.then(|| NAMED.to_owned()),
        ..LabOptions::default()
    })?;
    let mut running = start_http_servers(&lab)?;
    println!("up in {:.1} s", started.elapsed().as_secs_f64());

    let mut last = None;
    for act in &ACTS {
        // The one before must be gone: its program is attached to the same interfaces.
        if let Some(mut director) = last.take() {
            stop(&mut director)?;
        }
        last = Some(perform(&lab, act, &mut running)?);
    }

    println!();
    failover()?;
    println!();
    heading(&format!(
        "All {} requests were answered, by all real servers, with all methods, and a director may die ({:.1} s)",
        ACTS.len() * REQUESTS,
        started.elapsed().as_secs_f64()
    ));
    if keep {
        running.extend(last);
        running.into_iter().for_each(Process::leave_running);
        how_to_look_around(&lab);
        return lab.keep();
    }
    if let Some(mut director) = last {
        stop(&mut director)?;
    }
    drop(running);
    lab.down()
}

/// Starts the built-in HTTP server on every real server of the lab.
///
/// # Errors
/// One could not be started or does not answer.
pub fn start_http_servers(lab: &Lab) -> Result<Vec<Process>> {
    let program = paths::program("lab")?;
    let mut servers = Vec::new();
    for number in lab.servers() {
        let host = Host::Server(number);
        let mut command = Command::new(&program);
        command
            .arg("http-server")
            .args(["--name", &host.to_string()]);
        for port in [PORT, NAT_PORT] {
            command.arg("--listen").arg(format!("[::]:{port}"));
        }
        let log = lab.directory().join(format!("http-{host}.log"));
        let namespace = lab.host(host)?;
        let mut server = namespace.spawn(command, log)?;
        wait_until("the HTTP server answers", PATIENCE, || {
            server.check_running()?;
            let address = SocketAddr::from(([127, 0, 0, 1], NAT_PORT));
            namespace
                .run(|| http::get(address, "/", TIMEOUT))?
                .map(drop)
        })
        .with_context(|| format!("on {host}"))?;
        servers.push(server);
    }
    Ok(servers)
}

fn perform(lab: &Lab, act: &Act, running: &mut Vec<Process>) -> Result<Process> {
    println!();
    heading(act.title);
    lab.set_gateway(act.gateway)?;
    if act.decapsulate {
        for number in lab.servers() {
            running.push(director::start_decap(lab, number)?);
        }
    }
    let service = Service {
        method: act.method,
        tunnel: act.decapsulate.then_some("ipip"),
        real_port: act.real_port,
        ..Service::rr(VIRTUAL4[0].into(), PORT)
    };
    let yaml = director::yaml(lab, Topology::TwoInterfaces, &[service], "");
    println!(
        "director run --config {}",
        lab.directory().join("director.yaml").display()
    );
    for line in yaml.lines() {
        println!("    {line}");
    }
    let director = director::start(lab, &yaml)?;
    show(lab, act, &director, running).with_context(|| {
        let logs: String = running.iter().map(Process::log).collect();
        format!("the director printed:\n{}{logs}", director.log())
    })?;
    Ok(director)
}

/// Sends the requests and shows who answered.
fn show(lab: &Lab, act: &Act, director: &Process, running: &mut [Process]) -> Result<()> {
    let client = lab.host(Host::Client)?;
    let service = SocketAddr::from((VIRTUAL4[0], PORT));
    let ask = || client.run(|| http::get(service, "/", TIMEOUT))?;
    // Next hops may still be being asked for.
    wait_until("the service answers", PATIENCE, || ask().map(drop))?;
    for process in running {
        process.check_running()?;
    }

    println!(
        "{REQUESTS} requests from client {CLIENT4} to http://{service}/ (director is process {})",
        director.id()
    );
    let mut answered: BTreeMap<String, Vec<Response>> = BTreeMap::new();
    for nth in 1..=REQUESTS {
        let response = ask().with_context(|| format!("request {nth} of {REQUESTS}"))?;
        ensure!(
            response.status == 200,
            "request {nth} got status {}",
            response.status
        );
        answered.entry(response.who()).or_default().push(response);
    }
    println!("    {:<12} {:>8}   last answer", "real server", "answered");
    for (name, responses) in &answered {
        let last = responses.last().map(Response::text).unwrap_or_default();
        println!("    {name:<12} {:>8}   {last}", responses.len());
    }
    let servers = lab.servers().count();
    ensure!(
        answered.len() == servers,
        "{} of {servers} real servers answered with method {}",
        answered.len(),
        act.method
    );
    Ok(())
}

/// Bytes of the download that goes on over the death of a director.
const DOWNLOAD: usize = 64 << 20;

/// The last act: two directors, of which one is killed in the middle of a download, while a client keeps requesting.
fn failover() -> Result<()> {
    heading(
        "Failover: client ─ router ─ two directors; the one in charge is killed in the middle of a download",
    );
    let lab = Lab::up(&LabOptions {
        topology: Topology::TwoDirectors,
        gateway: Gateway::Router,
        ..LabOptions::default()
    })?;
    let _servers = start_http_servers(&lab)?;
    let service = Service {
        method: "dr",
        ..Service::rr(VIRTUAL4[0].into(), PORT)
    };
    let mut directors = Vec::new();
    for host in [Host::Director, Host::Backup] {
        let sections = format!("{HEARTBEAT}  node: {host}\n{SYNC}");
        let yaml = director::yaml_on(&lab, host, Topology::TwoDirectors, &[service], &sections);
        if host == Host::Director {
            let shown = HEARTBEAT.lines().chain(SYNC.lines());
            shown.for_each(|line| println!("    {line}"));
        }
        directors.push(director::start_on(&lab, host, &yaml)?);
    }
    let wait_role = |host: Host, role: &str| {
        wait_until(&format!("{host} is {role}"), PATIENCE, || {
            let status = director::status_on(&lab, host)?;
            let heartbeat = status.heartbeat.context("it has no heartbeat")?;
            ensure!(
                heartbeat.groups.iter().all(|group| group.role == role),
                "{heartbeat:?}"
            );
            Ok(())
        })
    };
    wait_role(Host::Director, "primary")?;
    wait_role(Host::Backup, "backup")?;
    let address = SocketAddr::from((VIRTUAL4[0], PORT));
    let client = lab.host(Host::Client)?;
    let mut download = client.run(|| {
        let connection = http::Connection::open(address, PATIENCE)?;
        let mut download = connection.transfer(&format!("/bytes/{DOWNLOAD}"))?;
        download.read(DOWNLOAD / 4)?;
        Ok::<_, anyhow::Error>(download)
    })??;
    println!("a download of {} MB is under way", DOWNLOAD >> 20);
    director::wait_shared(&lab, Host::Director)?;
    let visitor = Visitor::start(client, address)?;
    visitor.wait_answered()?;
    let killed = Instant::now();
    println!("kill -9 {}   # the director in charge", directors[0].id());
    directors[0].kill()?;
    wait_role(Host::Backup, "primary")?;
    visitor.wait_answered()?;
    let visits = visitor.stop()?;
    println!(
        "{} requests were answered; the longest time without an answer was {} ms",
        visits.len(),
        longest_gap(&visits, killed).as_millis()
    );
    client.run(|| download.read(DOWNLOAD / 4).and_then(|()| download.finish()))??;
    println!(
        "the download that began at the director that is dead went on at the other one: {DOWNLOAD} bytes, each the right one"
    );
    stop(&mut directors[1])?;
    drop(directors);
    lab.down()
}

/// The section of both directors, but for the node's name.
const HEARTBEAT: &str = "\
heartbeat:
  keepalive: 100ms
  deadtime: 300ms
  initdead: 2s
  links:
    - udp: {interface: eth0, peers: [10.0.0.1, 10.0.0.2]}
    - udp: {interface: eth1, peers: [10.0.1.1, 10.0.1.2]}
  groups:
    - {name: web, interface: eth0, addresses: [192.0.2.10/32], priority: {director: 150, backup: 100}}
";

/// And this: the other one knows the connections.
const SYNC: &str = "\
sync: {interface: eth1}
";

fn stop(director: &mut Process) -> Result<()> {
    let status = director.stop()?;
    ensure!(
        status.success(),
        "the director did not end well ({status}); it printed:\n{}",
        director.log()
    );
    Ok(())
}

fn how_to_look_around(lab: &Lab) {
    let configuration = lab.directory().join("director.yaml");
    let address = VIRTUAL4[0];
    println!(
        "
The lab is still up. To look around:
    cargo xtask lab status                  the hosts and what runs on them
    cargo xtask lab get http://{address}/      a request from the client
    cargo xtask lab shell client            a shell there; then for example: curl http://{address}/
    cargo xtask lab shell director          a shell there; then for example:
        {director} status --config {configuration}
        less {log}
    cargo xtask lab down                    take it down",
        director = paths::program("director")
            .map_or_else(|_| "director".into(), |path| path.display().to_string()),
        configuration = configuration.display(),
        log = lab.directory().join("director.log").display(),
    );
}

fn heading(text: &str) {
    if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        println!("\x1b[1m==> {text}\x1b[0m");
    } else {
        println!("==> {text}");
    }
}
