//! Real connections through a lab, by the ways that there are: what iperf3 and wrk get through.
//!
//! Two labs of the same shape, each with one real server, stand side by side: in one the director forwards, in the other
//! the kernel of the director's host does, or nftables, or HAProxy. (A program on an interface has the kernel treat all of its
//! packets otherwise: the others are to have none.)

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::director::{self, Service};
use crate::lab::plan::{VIRTUAL4, server4};
use crate::lab::{Gateway, Host, Lab, LabOptions, Process, Topology};
use crate::{PATIENCE, http, nginx, wait_until};

/// How packets get from the client to the real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Routed by the kernel of the director's host, to the real server's own address: what there is to get.
    Route,
    /// By the director, NAT.
    Nat,
    /// By the director, direct routing.
    Dr,
    /// By the director, IP in IP, which `director decap` takes off.
    Tun,
    /// By nftables' NAT.
    Nftables,
    /// By HAProxy in TCP mode.
    Haproxy,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Route,
        Self::Nat,
        Self::Dr,
        Self::Tun,
        Self::Nftables,
        Self::Haproxy,
    ];

    /// In rows' names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Nat => "nat",
            Self::Dr => "dr",
            Self::Tun => "tun",
            Self::Nftables => "nftables",
            Self::Haproxy => "haproxy",
        }
    }

    /// For people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Route => "a bare route",
            Self::Nat => "the director, NAT",
            Self::Dr => "the director, DR",
            Self::Tun => "the director, TUN (IPIP)",
            Self::Nftables => "nftables' NAT",
            Self::Haproxy => "HAProxy, TCP mode",
        }
    }

    /// Whether the director does it.
    #[must_use]
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::Nat | Self::Dr | Self::Tun)
    }

    /// Where the client asks, for web pages and for a stream. Without translation the real server listens there too.
    fn ports(self) -> (u16, u16) {
        match self {
            Self::Nat | Self::Nftables | Self::Haproxy => (80, 5201),
            Self::Route => (WEB_PORT, STREAM_PORTS[0]),
            Self::Dr => (8081, STREAM_PORTS[1]),
            Self::Tun => (8082, STREAM_PORTS[2]),
        }
    }

    fn address(self) -> IpAddr {
        match self {
            Self::Route => ROUTED.into(),
            _ => VIRTUAL4[0].into(),
        }
    }
}

/// What goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// One connection that carries as much as it can (iperf3): Gbit/s that arrive.
    Stream,
    /// Small requests over connections that stay (wrk): requests in a second.
    Requests,
    /// Small requests, each over a connection of its own (wrk): connections in a second.
    Connections,
}

impl Load {
    /// In rows' names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Requests => "requests",
            Self::Connections => "connections",
        }
    }

    /// For people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Stream => "one TCP stream (iperf3)",
            Self::Requests => "requests over 32 connections (wrk)",
            Self::Connections => "a new connection for each request (wrk)",
        }
    }

    /// Unit of what [`Wire::measure`] gives.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Stream => "Gbit/s",
            Self::Requests | Self::Connections => "/s",
        }
    }
}

/// Where nginx listens for what NAT translates, and for what is routed.
const WEB_PORT: u16 = 8080;
/// Where iperf3 listens: for what is translated or routed, for DR, for TUN.
const STREAM_PORTS: [u16; 3] = [5201, 5202, 5203];
/// An address of the real server to which the way leads through the director's host.
const ROUTED: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// The real server, and the director's host on the outer side.
const SERVER: u8 = 1;
const DIRECTOR_OUTER: &str = "203.0.113.2";
/// Seconds that each measurement lasts.
const SECONDS: &str = "1";

/// The stage.
pub struct Wire {
    // What runs ends before the labs do.
    running: Vec<Process>,
    /// With the director, and without.
    ours: Lab,
    theirs: Lab,
    /// Where the real server of `ours` sends its answers by now.
    gateway: Gateway,
    /// Whether nftables translates in `theirs` by now.
    translates: bool,
}

impl Wire {
    /// Sets it up, and has each way answer once.
    ///
    /// # Errors
    /// Not root, something is not installed, or a way does not answer.
    pub fn new() -> Result<Self> {
        let (ours, theirs) = (lab()?, lab()?);
        let mut running = Vec::new();
        for lab in [&ours, &theirs] {
            running.push(nginx::start(lab, SERVER)?);
            for port in STREAM_PORTS {
                running.push(start_iperf3(lab, port)?);
            }
        }
        running.push(director::start_decap(&ours, SERVER)?);
        running.push(start_director(&ours)?);
        route(&theirs)?;
        running.push(start_haproxy(&theirs)?);
        let mut wire = Self {
            running,
            ours,
            theirs,
            gateway: Gateway::Director,
            translates: false,
        };
        for way in Way::ALL {
            wire.have(way)?;
            let client = wire.lab(way).host(Host::Client)?;
            let address = SocketAddr::new(way.address(), way.ports().0);
            let timeout = Duration::from_secs(1);
            wait_until(&format!("{} answers", way.words()), PATIENCE, || {
                client.run(|| http::get(address, "/", timeout))?.map(drop)
            })?;
        }
        Ok(wire)
    }

    fn lab(&self, way: Way) -> &Lab {
        if way.is_ours() {
            &self.ours
        } else {
            &self.theirs
        }
    }

    /// Has packets go this way from now on.
    fn have(&mut self, way: Way) -> Result<()> {
        if way.is_ours() {
            let gateway = match way {
                Way::Nat => Gateway::Director,
                _ => Gateway::Router,
            };
            if gateway != self.gateway {
                self.ours.set_gateway(gateway)?;
                self.gateway = gateway;
            }
            return Ok(());
        }
        let translates = way == Way::Nftables;
        if translates != self.translates {
            // While there are no rules the kernel keeps no connections either: the others do not pay for it.
            let host = self.theirs.host(Host::Director)?;
            let text = if translates {
                rules()
            } else {
                "delete table ip balance".to_owned()
            };
            host.output("nft", &[&text])?;
            self.translates = translates;
        }
        Ok(())
    }

    /// How much goes through in a second, in the load's unit.
    ///
    /// # Errors
    /// Nothing does, or some of it fails.
    pub fn measure(&mut self, way: Way, load: Load) -> Result<f64> {
        for process in &mut self.running {
            process.check_running()?;
        }
        self.have(way)?;
        let client = self.lab(way).host(Host::Client)?;
        let address = way.address().to_string();
        let (web, stream) = way.ports();
        let measured = match load {
            Load::Stream => {
                let port = stream.to_string();
                let words = ["-c", &address, "-p", &port, "-t", SECONDS, "-J"];
                stream_of(&client.output("iperf3", &words)?)
            }
            Load::Requests | Load::Connections => {
                let url = format!("http://{address}:{web}/");
                let mut words = vec!["-t", "1", "-c", "32", "-d", SECONDS];
                if load == Load::Connections {
                    words.extend(["-H", "Connection: close"]);
                }
                words.push(&url);
                requests_of(&client.output("wrk", &words)?)
            }
        };
        measured.with_context(|| format!("{}, {}", way.words(), load.words()))
    }
}

fn lab() -> Result<Lab> {
    Lab::up(&LabOptions {
        topology: Topology::TwoInterfaces,
        servers: SERVER,
        ..LabOptions::default()
    })
}

/// Gbit/s that arrived, of what iperf3 prints.
fn stream_of(json: &str) -> Result<f64> {
    let report: serde_json::Value = serde_json::from_str(json).context("no JSON of iperf3")?;
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
    let bits = bits.with_context(|| format!("iperf3 does not say what arrived: {json}"))?;
    ensure!(bits > 0.0, "nothing arrived: {json}");
    Ok(bits / 1e9)
}

/// Requests in a second, of what wrk prints.
fn requests_of(text: &str) -> Result<f64> {
    // It says so only where there are any.
    for failure in ["Socket errors", "Non-2xx"] {
        ensure!(!text.contains(failure), "some failed: {text}");
    }
    let rate = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"))
        .with_context(|| format!("wrk does not say how many: {text}"))?;
    let rate: f64 = rate.trim().parse().context("a number of requests")?;
    ensure!(rate > 0.0, "no request was answered: {text}");
    Ok(rate)
}

fn start_iperf3(lab: &Lab, port: u16) -> Result<Process> {
    let mut command = Command::new("iperf3");
    // It says that it listens at once: asking by a connection would be taken for a client.
    command.args(["-s", "--forceflush", "-p", &port.to_string()]);
    let log = lab.directory().join(format!("iperf3-{port}.log"));
    let mut process = lab.host(Host::Server(SERVER))?.spawn(command, log)?;
    wait_until("iperf3 listens", PATIENCE, || {
        process.check_running()?;
        ensure!(process.log().contains("listening"), "{}", process.log());
        Ok(())
    })?;
    Ok(process)
}

/// The director, with a service for each way and load.
fn start_director(lab: &Lab) -> Result<Process> {
    let service = |way: Way, method, tunnel, port, real_port| Service {
        method,
        tunnel,
        real_port,
        ..Service::rr(way.address(), port)
    };
    let services: Vec<Service<'_>> = [
        (Way::Nat, "nat", None),
        (Way::Dr, "dr", None),
        (Way::Tun, "tun", Some("ipip")),
    ]
    .into_iter()
    .flat_map(|(way, method, tunnel)| {
        let (web, stream) = way.ports();
        let real = |port, translated| if way == Way::Nat { translated } else { port };
        [
            service(way, method, tunnel, web, real(web, WEB_PORT)),
            service(way, method, tunnel, stream, real(stream, STREAM_PORTS[0])),
        ]
    })
    .collect();
    let yaml = director::yaml(lab, Topology::TwoInterfaces, &services, "");
    let mut process = director::start(lab, &yaml)?;
    director::wait_ready(lab, &mut process)?;
    Ok(process)
}

/// Leads the way to [`ROUTED`] through the director's host.
fn route(lab: &Lab) -> Result<()> {
    let to = format!("{ROUTED}/32");
    let server = server4(SERVER).to_string();
    for (host, words) in [
        (Host::Server(SERVER), ["address", "add", &to, "dev", "lo"]),
        (Host::Router, ["route", "add", &to, "via", DIRECTOR_OUTER]),
        (Host::Director, ["route", "add", &to, "via", &server]),
    ] {
        lab.host(host)?.output("ip", &words)?;
    }
    Ok(())
}

/// As kube-proxy's nftables mode balances: `numgen` into a map of real servers, in a NAT chain.
fn rules() -> String {
    let (web, stream) = Way::Nftables.ports();
    let virtual_address = VIRTUAL4[0];
    let rule = |port: u16, real_port: u16| {
        format!(
            "  ip daddr {virtual_address} tcp dport {port} dnat to numgen random mod 1 map {{ 0 : {} . {real_port} }}\n",
            server4(SERVER)
        )
    };
    format!(
        "table ip balance {{\n chain before {{\n  type nat hook prerouting priority dstnat; policy accept;\n{}{} }}\n}}\n",
        rule(web, WEB_PORT),
        rule(stream, STREAM_PORTS[0])
    )
}

fn start_haproxy(lab: &Lab) -> Result<Process> {
    let file = lab.directory().join("haproxy.cfg");
    std::fs::write(&file, haproxy())?;
    let mut command = Command::new("haproxy");
    // In the foreground.
    command.arg("-db").arg("-f").arg(&file);
    let log = lab.directory().join("haproxy.log");
    lab.host(Host::Director)?.spawn(command, log)
}

/// HAProxy's file: as it comes, in TCP mode.
fn haproxy() -> String {
    let (web, stream) = Way::Haproxy.ports();
    let (address, server) = (VIRTUAL4[0], server4(SERVER));
    let listen = |name: &str, port: u16, real_port: u16| {
        format!("listen {name}\n  bind {address}:{port}\n  server s1 {server}:{real_port}\n")
    };
    format!(
        "global\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n{}{}",
        listen("web", web, WEB_PORT),
        listen("stream", stream, STREAM_PORTS[0])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints() {
        let good = "Running 1s test @ http://10.0.0.1/\n  1234 requests in 1.00s, 200KB read\nRequests/sec:   1234.50\nTransfer/sec:    1.2MB\n";
        // (what is printed, requests in a second)
        for (text, expected) in [
            (good.to_owned(), Some(1234.5)),
            (good.replace("1234.50", "0.00"), None),
            (
                format!("{good}  Socket errors: connect 0, read 3, write 0, timeout 0\n"),
                None,
            ),
            (format!("{good}  Non-2xx or 3xx responses: 4\n"), None),
            ("unable to connect".to_owned(), None),
        ] {
            assert_eq!(requests_of(&text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn what_iperf3_prints() {
        for (text, expected) in [
            (
                r#"{"end":{"sum_received":{"bits_per_second":2.5e9}}}"#,
                Some(2.5),
            ),
            (r#"{"end":{"sum_received":{"bits_per_second":0}}}"#, None),
            (r#"{"error":"the server is busy"}"#, None),
            ("no JSON", None),
        ] {
            assert_eq!(stream_of(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn no_two_ways_of_a_lab_share_a_port() {
        let ours: Vec<_> = Way::ALL.into_iter().filter(|way| way.is_ours()).collect();
        for way in &ours {
            for other in ours.iter().filter(|other| *other != way) {
                assert_ne!(way.ports().0, other.ports().0, "{way:?} {other:?}");
                assert_ne!(way.ports().1, other.ports().1, "{way:?} {other:?}");
            }
            assert!(*way == Way::Nat || nginx::PORTS.contains(&way.ports().0));
        }
    }
}
