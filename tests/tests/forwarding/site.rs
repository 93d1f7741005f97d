//! A lab with a director and real servers that answer.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ::director::control::{self, RealServerStatus, Status};
use director_tests::director::{self, Reload, Service};
use director_tests::lab::plan::{
    CLIENT4, CLIENT6, VIRTUAL4, VIRTUAL6, director_interfaces, server4, server6,
};
use director_tests::lab::{Gateway, Host, Lab, LabOptions, Namespace, Process, Topology};
use director_tests::{PATIENCE, http, nginx, udp, wait_until};

/// How long an answer may take: far more than any does.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
/// Real servers of every lab here.
pub(crate) const SERVERS: u8 = 3;
/// To which port NAT translates.
pub(crate) const NAT_PORT: u16 = 8080;

/// How packets get to real servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) method: &'static str,
    pub(crate) tunnel: Option<&'static str>,
    /// The service's family.
    pub(crate) ipv6: bool,
    /// The real servers' family.
    pub(crate) real_ipv6: bool,
    /// Its port, which no other way of the table has.
    pub(crate) port: u16,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = |ipv6| if ipv6 { "IPv6" } else { "IPv4" };
        write!(
            f,
            "{} {} for {} to {}",
            self.method,
            self.tunnel.unwrap_or_default(),
            family(self.ipv6),
            family(self.real_ipv6)
        )
    }
}

/// Method, tunnel, whether the real servers are of the other family than the service, port.
type Row = (&'static str, Option<&'static str>, bool, u16);

const NAT: Row = ("nat", None, false, 80);
const DR: Row = ("dr", None, false, 8081);
const TUNNELS: [Row; 6] = [
    ("tun", Some("ipip"), false, 8082),
    ("tun", Some("gue"), false, 8083),
    ("tun", Some("gre"), false, 8084),
    ("tun", Some("ipip"), true, 8085),
    ("tun", Some("gue"), true, 8086),
    ("tun", Some("gre"), true, 8087),
];

/// Each row for IPv4 and for IPv6 services.
fn ways(rows: &[Row]) -> Vec<Way> {
    let both = |&(method, tunnel, mixed, port): &Row| {
        [false, true].map(|ipv6| Way {
            method,
            tunnel,
            ipv6,
            real_ipv6: ipv6 != mixed,
            port,
        })
    };
    rows.iter().flat_map(both).collect()
}

impl Way {
    /// Address and port rewritten.
    pub(crate) fn nat() -> Vec<Self> {
        ways(&[NAT])
    }

    /// All tunnels, in all mixtures of families.
    pub(crate) fn tunnels() -> Vec<Self> {
        ways(&TUNNELS)
    }

    /// Those whose replies go past the director.
    pub(crate) fn past_the_director() -> Vec<Self> {
        ways(&[[DR].as_slice(), &TUNNELS].concat())
    }

    /// One of each method, in both families.
    pub(crate) fn one_of_each() -> Vec<Self> {
        ways(&[NAT, DR, TUNNELS[1]])
    }

    pub(crate) fn is_nat(&self) -> bool {
        self.method == "nat"
    }

    /// Where the real servers must send replies.
    pub(crate) fn gateway(&self) -> Gateway {
        if self.is_nat() {
            Gateway::Director
        } else {
            Gateway::Router
        }
    }

    /// What the client talks to.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(virtual_address(self.ipv6), self.port)
    }

    /// What real server `number` sees itself addressed as.
    pub(crate) fn seen_by(&self, number: u8) -> SocketAddr {
        if self.is_nat() {
            SocketAddr::new(server(number, self.ipv6), NAT_PORT)
        } else {
            self.address()
        }
    }

    /// The service with this way: `rr` over all real servers.
    pub(crate) fn service(&self, protocol: &'static str) -> Service<'static> {
        Service {
            protocol,
            method: self.method,
            tunnel: self.tunnel,
            real_port: if self.is_nat() { NAT_PORT } else { self.port },
            real_ipv6: self.real_ipv6,
            ..Service::rr(virtual_address(self.ipv6), self.port)
        }
    }
}

/// The client's address.
pub(crate) fn client(ipv6: bool) -> IpAddr {
    if ipv6 { CLIENT6.into() } else { CLIENT4.into() }
}

/// Address of real server `number`.
pub(crate) fn server(number: u8, ipv6: bool) -> IpAddr {
    if ipv6 {
        server6(number).into()
    } else {
        server4(number).into()
    }
}

/// The address that services stand on.
pub(crate) fn virtual_address(ipv6: bool) -> IpAddr {
    if ipv6 {
        VIRTUAL6[0].into()
    } else {
        VIRTUAL4[0].into()
    }
}

/// Place of a real server's nginx among what runs: it and a tunnel's end for each.
fn nginx_of(number: u8) -> usize {
    (usize::from(number) - 1) * 2
}

/// A lab, and what runs in it.
pub(crate) struct Site {
    pub(crate) lab: Lab,
    pub(crate) topology: Topology,
    /// Lines at the top of every configuration.
    pub(crate) extra: &'static str,
    /// Behind a lock, so that one can be ended while clients on other threads ask.
    running: Mutex<Vec<Process>>,
    director: Option<Process>,
}

impl Site {
    /// A lab with nginx and a tunnel's end on every real server, without a director.
    pub(crate) fn up(topology: Topology) -> Self {
        let lab = Lab::up(&LabOptions {
            topology,
            servers: SERVERS,
            ..LabOptions::default()
        })
        .unwrap();
        let mut running = Vec::new();
        for number in 1..=SERVERS {
            running.push(nginx::start(&lab, number).unwrap());
            running.push(director::start_decap(&lab, number).unwrap());
        }
        Self {
            lab,
            topology,
            extra: "",
            running: Mutex::new(running),
            director: None,
        }
    }

    /// A director with these services, ready to forward.
    pub(crate) fn start(&mut self, services: &[Service<'_>]) {
        let yaml = self.yaml(services);
        self.start_text(&yaml);
    }

    /// A director with this file, ready to forward.
    pub(crate) fn start_text(&mut self, yaml: &str) {
        // The one before ends first.
        self.director = None;
        self.director = Some(director::start(&self.lab, yaml).unwrap());
        self.wait_ready();
    }

    /// Ends nginx on a real server at once, with all its connections.
    pub(crate) fn kill_nginx(&self, number: u8) {
        self.running.lock().unwrap()[nginx_of(number)]
            .kill()
            .unwrap();
    }

    /// Starts it again.
    pub(crate) fn start_nginx(&self, number: u8) {
        let nginx = nginx::start(&self.lab, number).unwrap();
        self.running.lock().unwrap()[nginx_of(number)] = nginx;
    }

    /// Ends what takes tunnels off on a real server.
    pub(crate) fn kill_decap(&self, number: u8) {
        self.running.lock().unwrap()[nginx_of(number) + 1]
            .kill()
            .unwrap();
    }

    /// Has the director load these services.
    pub(crate) fn reload(&mut self, services: &[Service<'_>]) {
        let yaml = self.yaml(services);
        assert_eq!(self.reload_text(&yaml), Reload::Done, "{}", self.log());
        self.wait_ready();
    }

    fn wait_ready(&mut self) {
        let director = self.director.as_mut().unwrap();
        director::wait_ready(&self.lab, director)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()));
    }

    /// Has the director load this file.
    pub(crate) fn reload_text(&mut self, yaml: &str) -> Reload {
        let director = self.director.as_mut().unwrap();
        director::reload(&self.lab, director, yaml).unwrap()
    }

    /// A configuration of these services.
    pub(crate) fn yaml(&self, services: &[Service<'_>]) -> String {
        director::yaml(&self.lab, self.topology, services, self.extra)
    }

    /// The running director.
    pub(crate) fn director(&mut self) -> &mut Process {
        self.director.as_mut().unwrap()
    }

    /// What the directors of this lab printed.
    pub(crate) fn log(&self) -> String {
        self.director.as_ref().map(Process::log).unwrap_or_default()
    }

    pub(crate) fn status(&self) -> Status {
        director::status(&self.lab).unwrap()
    }

    pub(crate) fn host(&self, host: Host) -> &Namespace {
        self.lab.host(host).unwrap()
    }

    /// Runs something on the client.
    pub(crate) fn client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.host(Host::Client).run(work).unwrap()
    }

    /// An interface of the director, `large0`, whose frames are too large for native XDP.
    pub(crate) fn add_large_interface(&self) {
        let ends = ["large0", "large1"];
        let link = [
            "link", "add", ends[0], "mtu", "9000", "type", "veth", "peer", "name", ends[1], "mtu",
            "9000",
        ];
        self.host(Host::Director).output("ip", &link).unwrap();
    }

    /// Switches the kernel's own forwarding on the director off: what gets through went through the packet path.
    pub(crate) fn without_kernel(&self) {
        self.host(Host::Director)
            .apply(&[("ipv4/ip_forward", "0"), ("ipv6/conf/all/forwarding", "0")])
            .unwrap();
    }

    /// A UDP server that repeats, on every real server.
    pub(crate) fn start_echo(&self, way: &Way) {
        for number in 1..=SERVERS {
            let host = Host::Server(number);
            self.host(host)
                .run(|| udp::echo_in_background(way.seen_by(number), &host.to_string()))
                .unwrap()
                .unwrap();
        }
    }

    /// The built-in HTTP server on every real server: for what nginx is not used for.
    pub(crate) fn start_http(&self, way: &Way) {
        for number in 1..=SERVERS {
            let host = Host::Server(number);
            self.host(host)
                .run(|| http::serve_in_background(way.seen_by(number), &host.to_string()))
                .unwrap()
                .unwrap();
        }
    }

    /// Who answers requests of the client for `/`: how often, by name.
    pub(crate) fn answered(&self, service: SocketAddr, requests: usize) -> BTreeMap<String, usize> {
        let mut answered = BTreeMap::new();
        self.client(|| {
            for _ in 0..requests {
                let response = http::get(service, "/", TIMEOUT).unwrap();
                assert_eq!(response.status, 200, "{}", response.text());
                *answered.entry(response.who()).or_default() += 1;
            }
        });
        answered
    }

    /// Waits until a service answers, so that every next hop on the way is known.
    pub(crate) fn wait_for_answer(&self, service: SocketAddr) {
        wait_until("the service answers", PATIENCE, || {
            self.client(|| http::get(service, "/", TIMEOUT)).map(drop)
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()));
    }
}

/// The end of a director.
impl Site {
    /// Ends the director (SIGTERM) and checks that it leaves nothing.
    pub(crate) fn check_end(&mut self) {
        let pins = Path::new("/sys/fs/bpf/director").join(self.lab.instance_name());
        let programs = self.programs();
        let interfaces = director_interfaces(self.topology).len();
        assert_eq!(programs.len(), interfaces, "one on each interface");
        assert!(pins.is_dir());

        let status = self.director().stop().unwrap();
        assert!(status.success(), "{status}: {}", self.log());
        assert!(!pins.exists());
        assert!(!director::control_socket(&self.lab).exists());
        assert_eq!(self.programs().len(), 0);
        // A link or a table that was left would keep its program. The kernel frees them a moment later.
        wait_until("the programs are gone", PATIENCE, || {
            for program in aya::programs::loaded_programs() {
                let id = program?.id();
                anyhow::ensure!(!programs.contains(&id), "program {id} is still there");
            }
            Ok(())
        })
        .unwrap();
    }

    /// Ids of the XDP programs on the director's interfaces.
    pub(crate) fn programs(&self) -> Vec<u32> {
        let links = self
            .host(Host::Director)
            .output("ip", &["-details", "link", "show"])
            .unwrap();
        links
            .split("prog/xdp id ")
            .skip(1)
            .map(|rest| rest.split_whitespace().next().unwrap().parse().unwrap())
            .collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the director printed:\n{}", self.log());
            if let Ok(status) = director::status(&self.lab) {
                eprintln!("{}", control::render(&status, std::time::SystemTime::now()));
            }
        }
        self.director = None;
        // A panic while it was locked must not leave anything behind.
        self.running
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// The names of real servers with numbers: `[("s1", 2)]` of `[(1, 2)]`.
pub(crate) fn by_name(numbers: &[(u8, usize)]) -> BTreeMap<String, usize> {
    numbers
        .iter()
        .map(|&(number, count)| (Host::Server(number).to_string(), count))
        .collect()
}

/// By how much the counters of a service's real servers grew.
pub(crate) fn growth(
    before: &Status,
    after: &Status,
    protocol: &str,
    service: SocketAddr,
) -> Vec<RealServerStatus> {
    let real_servers = |status: &Status| {
        let found = status.services.iter().find(|it| {
            (it.address, it.port, it.protocol.as_str()) == (service.ip(), service.port(), protocol)
        });
        found.unwrap().real_servers.clone()
    };
    let before = real_servers(before);
    let mut after = real_servers(after);
    for server in &mut after {
        let same = |it: &&RealServerStatus| (it.address, it.port) == (server.address, server.port);
        let Some(old) = before.iter().find(same) else {
            continue;
        };
        server.connections -= old.connections;
        server.in_packets -= old.in_packets;
        server.in_bytes -= old.in_bytes;
        server.out_packets -= old.out_packets;
        server.out_bytes -= old.out_bytes;
    }
    after
}

/// By how much the counts of dropped packets grew, those that did.
pub(crate) fn reasons(before: &Status, after: &Status) -> BTreeMap<String, u64> {
    let mut grown = BTreeMap::new();
    for reason in &after.reasons {
        let old = before.reasons.iter().find(|it| it.name == reason.name);
        let packets = reason.packets - old.map_or(0, |old| old.packets);
        if packets > 0 {
            grown.insert(reason.name.clone(), packets);
        }
    }
    grown
}
