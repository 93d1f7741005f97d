//! The director's view of routes and neighbours follows a real kernel, in network namespaces of the test's own.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use director::next_hop::{Event, ForwardingTables, Network, PROBE_TICK, Prober, Resolution, Watch};
use director_tests::left_out;
use nix::sched::{CloneFlags, setns};
use xdp_ebpf::layout::NextHop;

/// Longest wait for the kernel to do, and us to learn of, anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// Routes added while nobody reads: more than fit into the socket's buffer, and into the packet path's table.
const FLOOD: u32 = 120_000;

/// Devmap slot of `eth0`.
const SLOT: u16 = 3;

/// Two network namespaces, joined by a veth pair: `eth0` here, `eth0` at the peer.
struct Lab {
    node: String,
    peer: String,
}

impl Lab {
    fn new(test: &str) -> Self {
        let name = |role| format!("director-{test}-{}-{role}", std::process::id());
        let lab = Self {
            node: name("node"),
            peer: name("peer"),
        };
        for namespace in [&lab.node, &lab.peer] {
            ip(&format!("netns add {namespace}"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        lab.ip(&format!(
            "link add eth0 type veth peer name eth0 netns {}",
            lab.peer
        ));
        lab.ip("link set eth0 up");
        lab.peer("link set eth0 up");
        for (family, node, peer) in [
            ("-4", "10.77.0.1/24", "10.77.0.2/24"),
            ("-6", "2001:db8:77::1/64", "2001:db8:77::2/64"),
        ] {
            let nodad = if family == "-6" { " nodad" } else { "" };
            lab.ip(&format!("{family} address add {node} dev eth0{nodad}"));
            lab.peer(&format!("{family} address add {peer} dev eth0{nodad}"));
        }
        lab
    }

    fn ip(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.node))
    }

    fn peer(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.peer))
    }

    fn ifindex(&self, name: &str) -> u32 {
        let line = self.ip(&format!("-o link show dev {name}"));
        line.split(':').next().unwrap().parse().unwrap()
    }

    /// The way to the peer.
    fn peer_hop(&self) -> NextHop {
        NextHop {
            ifindex: self.ifindex("eth0"),
            destination: mac_of(&self.peer("-o link show dev eth0")),
            source: mac_of(&self.ip("-o link show dev eth0")),
            vlan: [0, 0],
            mtu: 1500,
            egress: SLOT,
        }
    }

    /// Runs `test` on a thread that has entered the node's namespace.
    fn run(&self, test: impl AsyncFnOnce(&Lab) + Send) {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = File::open(format!("/run/netns/{}", self.node)).unwrap();
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(test(self));
            });
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.node, &self.peer] {
            let status = Command::new("ip")
                .args(["netns", "delete", namespace])
                .stderr(Stdio::null())
                .status();
            if !status.is_ok_and(|status| status.success()) {
                eprintln!("the network namespace {namespace} could not be removed");
            }
        }
    }
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// The part of a director that follows the network.
struct Node {
    watch: Watch,
    network: Network,
    prober: Prober,
    resyncs: u32,
}

impl Node {
    fn start<const N: usize>(lab: &Lab, wanted: [&str; N]) -> Self {
        let mut network = Network::new();
        network.configure(&[(lab.ifindex("eth0"), SLOT)]);
        network.want(wanted.map(|address| address.parse::<IpAddr>().unwrap()));
        Self {
            watch: Watch::start().unwrap(),
            network,
            prober: Prober::default(),
            resyncs: 0,
        }
    }

    /// Follows the network until `reached` says so.
    async fn until(
        &mut self,
        sentence: &str,
        mut reached: impl FnMut(&Network, &ForwardingTables) -> bool,
    ) {
        let deadline = Instant::now() + PATIENCE;
        let mut tick = tokio::time::interval(PROBE_TICK);
        loop {
            let tables = self.network.tables();
            if reached(&self.network, &tables) {
                eprintln!("seen: {sentence}");
                return;
            }
            assert!(Instant::now() < deadline, "never seen: {sentence}");
            tokio::select! {
                events = self.watch.next() => {
                    for event in events.unwrap() {
                        self.resyncs += u32::from(event == Event::Resync);
                        self.network.apply(event);
                    }
                }
                _ = tick.tick() => {
                    for probe in self.prober.due(&mut self.network, Instant::now()) {
                        self.watch.probe(probe.ifindex, probe.address).unwrap();
                    }
                }
            }
        }
    }

    async fn until_resolved(&mut self, address: &str, expected: NextHop) {
        let wanted = address.parse().unwrap();
        let sentence = format!("{address} goes to {expected:?}");
        self.until(&sentence, |network, _| {
            network.resolve(wanted) == Resolution::Ready(expected)
        })
        .await;
    }

    async fn until_no_route(&mut self, address: &str) {
        let wanted = address.parse().unwrap();
        self.until(&format!("no route to {address}"), |network, _| {
            network.resolve(wanted) == Resolution::NoRoute
        })
        .await;
    }
}

async fn follow(lab: &Lab) {
    let mut node = Node::start(lab, ["10.77.0.2", "2001:db8:77::2"]);
    node.until("our own address", |network, _| {
        network.own_address(true) == "10.77.0.1".parse().ok()
    })
    .await;
    let direct = lab.peer_hop();
    // Nothing was ever sent to them: only the probes can have resolved them.
    node.until_resolved("10.77.0.2", direct).await;
    node.until_resolved("2001:db8:77::2", direct).await;

    eprintln!("-- routes");
    for (address, route) in [
        ("192.0.2.1", "192.0.2.0/24 via 10.77.0.2"),
        ("2001:db8:99::1", "2001:db8:99::/48 via 2001:db8:77::2"),
        (
            "198.51.100.1",
            "198.51.100.0/24 via inet6 2001:db8:77::2 dev eth0",
        ),
    ] {
        node.until_no_route(address).await;
        lab.ip(&format!("route add {route}"));
        node.until_resolved(address, direct).await;
        lab.ip(&format!("route del {route}"));
        node.until_no_route(address).await;
    }

    eprintln!("-- routes that go unsaid");
    lab.ip("address add 10.77.0.9/24 dev eth0");
    lab.ip("route add 192.0.2.0/24 via 10.77.0.2 src 10.77.0.9");
    node.until_resolved("192.0.2.1", direct).await;
    lab.ip("address del 10.77.0.9/24 dev eth0");
    node.until_no_route("192.0.2.1").await;
    lab.ip("nexthop add id 7 via 10.77.0.2 dev eth0");
    lab.ip("route add 192.0.2.0/24 nhid 7");
    node.until_resolved("192.0.2.1", direct).await;
    lab.ip("nexthop del id 7");
    node.until_no_route("192.0.2.1").await;

    eprintln!("-- MTU");
    lab.ip("link set eth0 mtu 1400");
    node.until_resolved(
        "10.77.0.2",
        NextHop {
            mtu: 1400,
            ..direct
        },
    )
    .await;
    lab.ip("link set eth0 mtu 1500");
    node.until_resolved("10.77.0.2", direct).await;

    eprintln!("-- neighbours that the kernel forgets, and new hardware");
    lab.ip("neigh flush dev eth0");
    let wanted: IpAddr = "10.77.0.2".parse().unwrap();
    node.until("the kernel was asked again", |network, _| {
        assert_eq!(
            network.resolve(wanted),
            Resolution::Ready(direct),
            "the address is kept meanwhile"
        );
        lab.ip("neigh show 10.77.0.2 dev eth0")
            .contains("REACHABLE")
    })
    .await;
    lab.peer("link set eth0 address 02:00:00:00:77:77");
    lab.ip("neigh flush dev eth0");
    let replaced = NextHop {
        destination: [2, 0, 0, 0, 0x77, 0x77],
        ..direct
    };
    node.until_resolved("10.77.0.2", replaced).await;
    node.until_resolved("2001:db8:77::2", replaced).await;

    eprintln!("-- a link that is switched off");
    lab.ip("route add 192.0.2.0/24 via 10.77.0.2");
    node.until_resolved("192.0.2.1", replaced).await;
    lab.ip("link set eth0 down");
    node.until_no_route("192.0.2.1").await;
    node.until_no_route("10.77.0.2").await;
    lab.ip("link set eth0 up");
    node.until_resolved("10.77.0.2", replaced).await;

    eprintln!("-- more routes than there is room for, and faster than they are read");
    let before = node.resyncs;
    flood(lab, FLOOD);
    let last = flooded(FLOOD - 1);
    node.until("the last route", |network, _| {
        network.resolve(last) == Resolution::Ready(replaced)
    })
    .await;
    node.until("the overflow is told", |_, tables| {
        tables.overflow.routes4 > FLOOD as usize - 20_000
    })
    .await;
    assert!(
        node.resyncs > before,
        "the flood was meant to overrun the socket"
    );

    // Events still come after the overrun.
    lab.ip(&format!("route del {last}/32"));
    node.until_no_route(&last.to_string()).await;

    let refused = node
        .watch
        .probe(u32::MAX >> 1, wanted)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("10.77.0.2"), "{refused}");
}

fn mac_of(line: &str) -> [u8; 6] {
    let text = line
        .split("link/ether ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

fn flooded(number: u32) -> IpAddr {
    std::net::Ipv4Addr::from_bits(0x1400_0000 + number).into()
}

fn flood(lab: &Lab, count: u32) {
    let mut child = Command::new("ip")
        .args(["-n", &lab.node, "-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    for number in 0..count {
        writeln!(input, "route add {}/32 via 10.77.0.2", flooded(number)).unwrap();
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
#[ignore = "needs root and network namespaces: cargo xtask test runs it"]
fn the_view_follows_the_kernel() {
    Lab::new("next-hop").run(follow);
}

/// One tag, and two, over an interface of ours.
async fn tagged(lab: &Lab) {
    let mut node = Node::start(lab, ["10.78.0.2", "10.79.0.2"]);
    let direct = lab.peer_hop();
    let inside = |host: u32| {
        [
            "link add link eth0 name eth0.100 type vlan id 100".to_owned(),
            "link add link eth0 name outer type vlan id 200 protocol 802.1ad".to_owned(),
            "link add link outer name inner type vlan id 300".to_owned(),
            "link set eth0.100 up".to_owned(),
            "link set outer up".to_owned(),
            "link set inner up".to_owned(),
            format!("address add 10.78.0.{host}/24 dev eth0.100"),
            format!("address add 10.79.0.{host}/24 dev inner"),
        ]
    };
    inside(1)
        .iter()
        .for_each(|arguments| drop(lab.ip(arguments)));
    inside(2)
        .iter()
        .for_each(|arguments| drop(lab.peer(arguments)));
    node.until_resolved(
        "10.78.0.2",
        NextHop {
            vlan: [0, 100],
            ..direct
        },
    )
    .await;
    node.until_resolved(
        "10.79.0.2",
        NextHop {
            vlan: [200, 300],
            ..direct
        },
    )
    .await;
}

#[test]
#[ignore = "needs root, network namespaces and VLAN devices: cargo xtask test runs it"]
fn vlan_devices_are_followed() {
    let lab = Lab::new("next-hop-vlan");
    let try_one = format!("-n {} link add link eth0 name try type vlan id 9", lab.node);
    let output = Command::new("ip")
        .args(try_one.split(' '))
        .output()
        .unwrap();
    if String::from_utf8_lossy(&output.stderr).contains("Unknown device type") {
        left_out("this kernel has no VLAN devices (CONFIG_VLAN_8021Q)");
        return;
    }
    lab.run(tagged);
}
