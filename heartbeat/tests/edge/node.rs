//! Whole nodes, each in a namespace, and a client beside them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use heartbeat::config::{
    self, Announce, AutoFailback, Config, Group, InterfaceTracked, Link, LinkKind, Program, Timing,
    UdpLink, UdpTo,
};
use heartbeat::machine::{Command, Filled, Role, Scope};
use heartbeat::node::realtime::Lock;
use heartbeat::node::{Node, Observer, Snapshot, Start, clock};
use heartbeat::takeover::MARK;
use heartbeat::wire::auth::{Key, Keyring};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::namespace::{Namespace, eventually, segment};

const NAMES: [&str; 2] = ["lb1", "lb2"];
const OWN: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const OWN6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];
pub(crate) const VIRTUAL: &str = "192.0.2.100";

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn unicast(peer: &str) -> LinkKind {
    LinkKind::Udp(UdpLink {
        interface: "eth0".to_owned(),
        port: 694,
        to: UdpTo::Unicast(vec![peer.parse().unwrap()]),
    })
}

/// Two nodes of which the first is preferred.
pub(crate) fn configuration(own: usize, is_virtual_mac: bool) -> Config {
    let program = |role: &str| Program {
        command: vec![
            "/bin/sh".to_owned(),
            "-c".to_owned(),
            format!("echo {role} $HEARTBEAT_NODE $HEARTBEAT_GROUP $HEARTBEAT_ROLE"),
        ],
        timeout: ms(5000),
    };
    Config {
        node: NAMES[own].to_owned(),
        nodes: NAMES.iter().map(|name| (*name).to_owned()).collect(),
        timing: Timing {
            keepalive: ms(100),
            warntime: ms(200),
            deadtime: ms(400),
            initdead: ms(1500),
        },
        failback_limit: Duration::from_secs(60),
        auto_failback: AutoFailback::On,
        keys: None,
        links: vec![Link {
            name: "udp eth0".to_owned(),
            kind: unicast(OWN[1 - own]),
        }],
        groups: vec![Group {
            name: "web".to_owned(),
            interface: "eth0".to_owned(),
            addresses: vec![
                format!("{VIRTUAL}/24").parse().unwrap(),
                "2001:db8::100/64".parse().unwrap(),
            ],
            priorities: BTreeMap::from([("lb1".to_owned(), 150), ("lb2".to_owned(), 100)]),
            vrid: Some(51),
            virtual_mac: is_virtual_mac,
            announce: Announce {
                count: 5,
                interval: ms(200),
                refresh: Duration::ZERO,
            },
            on_primary: Some(program("on_primary")),
            on_backup: Some(program("on_backup")),
        }],
        units: vec![vec![0]],
        fitness: config::Fitness {
            interfaces: vec![InterfaceTracked {
                name: "eth0".to_owned(),
                lowers: None,
            }],
            ..config::Fitness::default()
        },
        fence: None,
    }
}

pub(crate) fn start(namespace: &Namespace, config: Config, unfit: Vec<(String, String)>) -> Node {
    observed(namespace, config, unfit, ())
}

fn observed(
    namespace: &Namespace,
    config: Config,
    unfit: Vec<(String, String)>,
    observer: impl Observer + 'static,
) -> Node {
    let key = Key::new(1, b"a key for tests only").unwrap();
    let start = Start {
        filled: Filled::default(),
        silent: Vec::new(),
        config: Arc::new(config),
        keyring: Keyring::new(key, []).unwrap(),
        incarnation: clock::milliseconds(),
        mark: MARK,
        lock: Lock::Touched,
        unfit,
        observer,
    };
    namespace.run(|| Node::start(start)).unwrap()
}

pub(crate) fn role(node: &Node) -> Role {
    node.snapshot().unwrap().status.groups[0].role
}

pub(crate) fn shown(snapshot: &Snapshot) -> String {
    let history = snapshot.status.history.iter();
    let lines = history.map(|change| {
        format!(
            "{:?}: {:?} to {:?}: {}",
            change.at, change.from, change.to, change.reason
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Until an address answers.
pub(crate) fn answers_again(client: &Namespace, address: &str) -> Duration {
    let begun = Instant::now();
    let to = std::net::SocketAddr::new(address.parse().unwrap(), 9);
    client.run(|| {
        loop {
            match std::net::TcpStream::connect_timeout(&to, ms(10)) {
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => break,
                _ => assert!(begun.elapsed() < ms(20_000), "{address} does not answer"),
            }
        }
    });
    begun.elapsed()
}

/// Two nodes and a client on a switch, whose ports have their numbers.
pub(crate) fn site() -> (Namespace, [Namespace; 2], Namespace) {
    let nodes = [Namespace::new(), Namespace::new()];
    let client = Namespace::new();
    let switch = segment(&[
        (&nodes[0], &["192.0.2.1/24", "2001:db8::1/64"]),
        (&nodes[1], &["192.0.2.2/24", "2001:db8::2/64"]),
        (&client, &["192.0.2.99/24", "2001:db8::99/64"]),
    ]);
    (switch, nodes, client)
}

/// Operators who ask while it stops are answered or refused, and do not put it off.
#[test]
#[ignore = "needs root: network namespaces"]
fn a_node_stops_although_somebody_has_a_question() {
    let (_switch, spaces, _client) = site();
    let mut config = configuration(0, false);
    // It has something to wait for at its end.
    config.groups[0].on_backup = Some(Program {
        command: vec!["/bin/sleep".to_owned(), "1".to_owned()],
        timeout: ms(5000),
    });
    let node = Arc::new(start(&spaces[0], config, Vec::new()));
    eventually("the node serves", || role(&node) == Role::Primary);
    let (tells, told) = channel();
    let asks = {
        let node = Arc::clone(&node);
        std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            loop {
                let asked = Instant::now();
                let answer = node.snapshot();
                longest = longest.max(asked.elapsed());
                let Ok(snapshot) = answer else {
                    return longest;
                };
                tells.send(snapshot.status.groups[0].role).unwrap();
            }
        })
    };
    assert_eq!(told.recv(), Ok(Role::Primary));
    node.stop_and_wait();
    // It is held by whoever asks, and has ended all the same.
    let found = spaces[0].run(|| {
        let output = std::process::Command::new("ip").arg("address").output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    });
    assert!(!found.contains(VIRTUAL), "{found}");
    assert!(node.snapshot().is_err() && node.order(Command::Ready, Scope::All).is_err());
    let longest = asks.join().unwrap();
    assert!(
        longest < ms(4000),
        "{longest:?}: an answer that came too late is none"
    );
    assert_eq!(
        told.iter().last(),
        Some(Role::Stopped),
        "answered while it ended"
    );
}

#[test]
#[ignore = "needs root: network namespaces"]
fn two_nodes_hand_over_in_order() {
    for is_virtual_mac in [false, true] {
        let (_switch, spaces, client) = site();
        let one = start(&spaces[0], configuration(0, is_virtual_mac), Vec::new());
        let other = start(&spaces[1], configuration(1, is_virtual_mac), Vec::new());
        eventually("the preferred node serves", || role(&one) == Role::Primary);
        answers_again(&client, VIRTUAL);
        answers_again(&client, "2001:db8::100");
        let snapshot = one.snapshot().unwrap();
        assert!(snapshot.takeover[0].is_held, "{snapshot:?}");
        assert_eq!(snapshot.links[0].fault, None);
        assert_eq!(
            role(&other),
            Role::Backup,
            "{}",
            shown(&other.snapshot().unwrap())
        );

        // Standby: the other takes it, and gives it back.
        one.order(Command::Standby, Scope::All).unwrap();
        let gap = answers_again(&client, VIRTUAL);
        eventually("the other serves", || role(&other) == Role::Primary);
        println!("virtual MAC {is_virtual_mac}: standby, gap {gap:?}");
        one.order(Command::Ready, Scope::All).unwrap();
        eventually("the preferred node serves again", || {
            role(&one) == Role::Primary
        });
        answers_again(&client, VIRTUAL);

        // Not fit, by somebody's word.
        one.unfit("data path", Some("not loaded".to_owned()))
            .unwrap();
        eventually("the other serves", || role(&other) == Role::Primary);
        let status = one.snapshot().unwrap().status;
        assert_eq!(status.unfit.as_deref(), Some("data path: not loaded"));
        one.unfit("data path", None).unwrap();
        eventually("the preferred node serves again", || {
            role(&one) == Role::Primary
        });

        // Stopped in order.
        eventually("the addresses are here", || {
            one.snapshot().unwrap().takeover[0].is_held
        });
        answers_again(&client, VIRTUAL);
        one.stop().unwrap();
        let gap = answers_again(&client, VIRTUAL);
        println!("virtual MAC {is_virtual_mac}: orderly stop, gap {gap:?}");
        assert!(one.join(), "an orderly end");
        assert_eq!(role(&other), Role::Primary);
        let left = spaces[0].ip("address show");
        assert!(!left.contains(VIRTUAL) && !left.contains("hb4"), "{left}");
        println!("{}", shown(&other.snapshot().unwrap()));
        drop(other);
        let left = spaces[1].ip("address show");
        assert!(!left.contains(VIRTUAL) && !left.contains("hb4"), "{left}");
    }
}

#[test]
#[ignore = "needs root: network namespaces"]
fn carrier_loss_makes_unfit() {
    let (switch, spaces, client) = site();
    let one = start(&spaces[0], configuration(0, false), Vec::new());
    let other = start(&spaces[1], configuration(1, false), Vec::new());
    eventually("the preferred node serves", || role(&one) == Role::Primary);
    answers_again(&client, VIRTUAL);
    switch.ip("link set port0 down");
    let gap = answers_again(&client, VIRTUAL);
    println!("carrier loss, gap {gap:?}");
    eventually("the first is not fit", || role(&one) == Role::Unfit);
    let left = spaces[0].ip("address show");
    assert!(!left.contains(VIRTUAL), "{left}");
    assert_eq!(role(&other), Role::Primary);
    switch.ip("link set port0 up");
    eventually("the preferred node serves again", || {
        role(&one) == Role::Primary
    });
    eventually("the other does not", || role(&other) == Role::Backup);
    answers_again(&client, VIRTUAL);
}

/// Also where the nodes hear each other by the family that the client asks by, and both hold an address of the network between
/// them.
#[test]
#[ignore = "needs root: network namespaces"]
fn a_partition_that_heals() {
    for (peers, asked) in [(OWN, VIRTUAL), (OWN6, "2001:db8::100")] {
        heals(peers, asked);
    }
}

fn heals(peers: [&str; 2], asked: &str) {
    let (switch, spaces, client) = site();
    let linked = |own: usize| {
        let mut config = Config {
            fitness: config::Fitness::default(),
            ..configuration(own, false)
        };
        config.links[0].kind = unicast(peers[1 - own]);
        config
    };
    let one = start(&spaces[0], linked(0), Vec::new());
    let other = start(&spaces[1], linked(1), Vec::new());
    eventually("the preferred node serves", || role(&one) == Role::Primary);
    eventually("the other is backup", || role(&other) == Role::Backup);
    switch.ip("link set port0 down");
    eventually("both serve", || role(&other) == Role::Primary);
    assert_eq!(role(&one), Role::Primary);
    answers_again(&client, asked);
    let shown = spaces[0].ip("-o link show eth0");
    let mac = shown
        .split_whitespace()
        .skip_while(|word| *word != "link/ether")
        .nth(1)
        .unwrap();
    let knows = || {
        client
            .ip(&format!("neighbour show to {asked}"))
            .contains(mac)
    };
    assert!(!knows());
    switch.ip("link set port0 up");
    eventually("the other yields", || role(&other) == Role::Backup);
    assert_eq!(role(&one), Role::Primary);
    // The winner announces again.
    eventually("the client knows", knows);
    answers_again(&client, asked);
}

/// Tells what it is told.
struct Told(Sender<String>);

impl Observer for Told {
    fn lease(&mut self, until: Duration) {
        let left = until.saturating_sub(clock::now());
        assert!(left > Duration::ZERO && left < ms(400), "{left:?}");
        let _ = self.0.send("lease".to_owned());
    }

    fn take(&mut self, group: usize) {
        let _ = self.0.send(format!("take {group}"));
    }

    fn release(&mut self, group: usize) {
        let _ = self.0.send(format!("release {group}"));
    }
}

#[test]
#[ignore = "needs root: network namespaces"]
fn who_observes_hears_of_the_lease_first() {
    let (_switch, spaces, _client) = site();
    let (tells, told) = channel();
    let unfit = vec![("data path".to_owned(), "not loaded yet".to_owned())];
    let one = observed(&spaces[0], configuration(0, false), unfit, Told(tells));
    let other = start(&spaces[1], configuration(1, false), Vec::new());
    // Not before its data path is there.
    eventually("the other serves", || role(&other) == Role::Primary);
    assert_eq!(role(&one), Role::Unfit);
    assert!(told.try_recv().is_err());
    one.unfit("data path", None).unwrap();
    eventually("the preferred node serves", || role(&one) == Role::Primary);
    assert_eq!(told.recv().unwrap(), "lease");
    assert_eq!(told.recv().unwrap(), "take 0");
    for _ in 0..5 {
        assert_eq!(told.recv().unwrap(), "lease");
    }
    one.stop().unwrap();
    assert!(one.join());
    let last = told.iter().last();
    assert_eq!(last.as_deref(), Some("release 0"));
}

#[test]
#[ignore = "needs root: network namespaces"]
fn an_address_that_somebody_removes_is_put_back() {
    let (_switch, spaces, client) = site();
    let one = start(&spaces[0], configuration(0, false), Vec::new());
    eventually("it serves", || role(&one) == Role::Primary);
    for address in ["192.0.2.100/24", "2001:db8::100/64"] {
        answers_again(&client, address.split_once('/').unwrap().0);
        spaces[0].ip(&format!("address delete {address} dev eth0"));
        eventually("it is back", || {
            spaces[0].ip("address show").contains(address)
        });
    }
    // With the interface the kernel removes IPv6 addresses by itself.
    spaces[0].ip("link set eth0 down");
    spaces[0].ip("link set eth0 up");
    eventually("it serves again", || {
        role(&one) == Role::Primary && one.snapshot().unwrap().takeover[0].is_held
    });
    answers_again(&client, "2001:db8::100");
}

/// Breaks when it is told of a lease.
struct Breaks;

impl Observer for Breaks {
    fn lease(&mut self, _until: Duration) {
        panic!("as a test wants it");
    }
}

#[test]
#[ignore = "needs root: network namespaces"]
fn a_thread_that_panics_holds_nothing() {
    /// As before, but only once the addresses are there.
    struct Later(u32);
    impl Observer for Later {
        fn lease(&mut self, _until: Duration) {
            self.0 += 1;
            assert!(self.0 < 10, "as a test wants it");
        }
    }
    let (_switch, spaces, _client) = site();
    let nodes = [
        observed(&spaces[0], configuration(0, true), Vec::new(), Breaks),
        observed(&spaces[1], configuration(1, true), Vec::new(), Later(0)),
    ];
    for (node, space) in nodes.into_iter().zip(&spaces) {
        let mut waits = [PollFd::new(node.ended(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut waits, PollTimeout::from(20_000_u16)), Ok(1));
        assert!(node.snapshot().is_err());
        assert!(!node.join(), "no orderly end");
        let left = space.ip("address show");
        assert!(!left.contains(VIRTUAL) && !left.contains("hb4"), "{left}");
    }
}
