//! Together with a real keepalived, which knows only VRRP: it takes over from us, and we from it.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use heartbeat::config;
use heartbeat::machine::{Command as Order, Filled, Role, Scope};
use heartbeat::node::realtime::Lock;
use heartbeat::node::{Node, Start, clock};
use heartbeat::takeover::MARK;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::namespace::{Namespace, eventually};
use crate::node::{answers_again, site};

/// One way to speak VRRP.
#[derive(Clone, Copy, Debug)]
struct Way {
    version: u8,
    addresses: &'static [&'static str],
    is_unicast: bool,
    has_virtual_mac: bool,
}

const V4: &[&str] = &["192.0.2.100/24"];
const V6: &[&str] = &["fe80::100/64", "2001:db8::100/64"];

const PLAIN: Way = Way {
    version: 3,
    addresses: V4,
    is_unicast: false,
    has_virtual_mac: false,
};

/// Not the checksum of version 3 as RFC 9568 has it: keepalived before 2.3 refuses it.
const WAYS: [Way; 5] = [
    PLAIN,
    Way {
        version: 2,
        ..PLAIN
    },
    Way {
        addresses: V6,
        ..PLAIN
    },
    Way {
        is_unicast: true,
        ..PLAIN
    },
    Way {
        has_virtual_mac: true,
        ..PLAIN
    },
];

impl Way {
    /// In milliseconds. Version 2 has whole seconds.
    fn interval(self) -> u32 {
        if self.version == 2 { 1000 } else { 100 }
    }

    /// What the client asks for.
    fn asked(self) -> &'static str {
        let last = self.addresses[self.addresses.len() - 1];
        last.split_once('/').unwrap().0
    }
}

/// A keepalived in a namespace. Killed when dropped.
struct Keepalived {
    namespace: Namespace,
    folder: PathBuf,
    way: Way,
    child: Option<Child>,
}

impl Keepalived {
    fn new(namespace: &Namespace, way: Way, priority: u8, more: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("heartbeat-keepalived-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let unicast = if way.is_unicast {
            "unicast_src_ip 192.0.2.2\n  unicast_peer {\n    192.0.2.1\n  }"
        } else {
            ""
        };
        let vmac = if way.has_virtual_mac {
            // Not with `vmac_xmit_base`: it would listen below a macvlan in private mode, where the kernel keeps
            // adverts from the same MAC to the macvlan.
            "use_vmac"
        } else {
            ""
        };
        let config = format!(
            "\
global_defs {{
  vrrp_version {version}
  vrrp_garp_master_delay 1
}}
vrrp_instance web {{
  state BACKUP
  interface eth0
  virtual_router_id 51
  priority {priority}
  advert_int {interval}
  {unicast}
  {vmac}
  {more}
  virtual_ipaddress {{
    {addresses}
  }}
}}
",
            version = way.version,
            interval = f64::from(way.interval()) / 1000.0,
            addresses = way.addresses.join("\n    "),
        );
        std::fs::write(folder.join("keepalived.conf"), config).unwrap();
        Self {
            namespace: namespace.clone(),
            folder,
            way,
            child: None,
        }
    }

    fn start(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .unwrap();
        let mut command = Command::new("keepalived");
        command
            .args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"])
            .arg(format!(
                "--use-file={}",
                self.folder.join("keepalived.conf").display()
            ))
            .arg(format!("--pid={}", self.folder.join("pid").display()))
            .arg(format!(
                "--vrrp_pid={}",
                self.folder.join("vrrp.pid").display()
            ))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = self.namespace.enter(&mut command).spawn();
        self.child = Some(child.expect("keepalived is not installed? (cargo xtask setup)"));
    }

    /// It says with priority 0 that it goes.
    fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
        child.wait().unwrap();
    }

    /// It says nothing any more, and gives nothing up.
    fn kill(&mut self) {
        let pid = std::fs::read_to_string(self.folder.join("vrrp.pid")).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap());
        // Its parent would start it again, and it would stop in order when its parent dies.
        kill(pid, Signal::SIGSTOP).unwrap();
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        kill(pid, Signal::SIGKILL).unwrap();
        for file in ["pid", "vrrp.pid"] {
            let _ = std::fs::remove_file(self.folder.join(file));
        }
        // As if the machine were dead: nobody has the addresses any more.
        if self.way.has_virtual_mac {
            self.namespace.ip("link delete vrrp.51");
        } else {
            for address in self.way.addresses {
                self.namespace
                    .ip(&format!("address delete {address} dev eth0"));
            }
        }
    }

    fn is_primary(&self) -> bool {
        let held = self.namespace.ip("address show");
        let last = self.log().lines().rev().find_map(|line| {
            let (_, state) = line.split_once("Entering ")?;
            Some(state.to_owned())
        });
        let says = last.is_some_and(|state| state.starts_with("MASTER"));
        says && held.contains(&format!(" {}/", self.way.asked()))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- keepalived\n{}", self.log());
        }
        if self.child.is_some() {
            self.stop();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn start(namespace: &Namespace, way: Way, priority: u8, failback: bool) -> Node {
    let peers = if way.is_unicast { "[192.0.2.2]" } else { "[]" };
    let addresses: Vec<String> = way
        .addresses
        .iter()
        .map(|address| format!("\"{address}\""))
        .collect();
    let text = format!(
        "\
node: lb1
keepalive: 100ms
deadtime: 300ms
initdead: 1s
auto_failback: {failback}
links:
  - vrrp: {{ interface: eth0, version: {}, interval: {}ms, peers: {peers} }}
groups:
  - name: web
    interface: eth0
    addresses: [{}]
    priority: {priority}
    vrid: 51
    virtual_mac: {}
",
        way.version,
        way.interval(),
        addresses.join(", "),
        way.has_virtual_mac,
    );
    let config =
        config::parse("test", &text, "lb1").unwrap_or_else(|error| panic!("{error}\n{text}"));
    let start = Start {
        filled: Filled::default(),
        silent: Vec::new(),
        keyring: config::load_keys(&config).unwrap(),
        config: Arc::new(config),
        incarnation: clock::milliseconds(),
        mark: MARK,
        lock: Lock::Nothing,
        unfit: Vec::new(),
        observer: (),
    };
    namespace.run(|| Node::start(start)).unwrap()
}

fn is_primary(node: &Node) -> bool {
    let snapshot = node.snapshot().unwrap();
    snapshot.status.groups[0].role == Role::Primary && snapshot.takeover[0].is_held
}

fn is_backup(node: &Node) -> bool {
    node.snapshot().unwrap().status.groups[0].role == Role::Backup
}

#[test]
#[ignore = "needs root: network namespaces; and keepalived"]
fn each_takes_over_from_the_other() {
    for way in WAYS {
        println!("{way:?}");
        let (_switch, spaces, client) = site();
        let asked = way.asked();
        // It goes before us.
        let mut other = Keepalived::new(&spaces[1], way, 200, "");
        other.start();
        eventually("keepalived serves alone", || other.is_primary());
        let node = start(&spaces[0], way, 100, true);
        eventually("we hear it", || {
            let status = node.snapshot().unwrap().status;
            status.groups[0].foreign.is_some()
        });
        eventually("we are backup", || is_backup(&node));
        assert!(other.is_primary());
        answers_again(&client, asked);

        // Priority 0.
        other.stop();
        let begun = Instant::now();
        eventually("we serve after its end", || is_primary(&node));
        println!("  from keepalived, stopped: {:?}", begun.elapsed());
        answers_again(&client, asked);

        // Preempted.
        other.start();
        eventually("keepalived serves again", || other.is_primary());
        eventually("we do not", || is_backup(&node));
        answers_again(&client, asked);

        // Silence.
        other.kill();
        let begun = Instant::now();
        eventually("we serve after its death", || is_primary(&node));
        println!("  from keepalived, killed: {:?}", begun.elapsed());
        other.start();
        eventually("keepalived serves again", || other.is_primary());
        eventually("we do not", || is_backup(&node));
        drop(node);

        // We go before it.
        let node = start(&spaces[0], way, 250, true);
        eventually("we preempt it", || is_primary(&node));
        eventually("it yields", || !other.is_primary());
        answers_again(&client, asked);
        node.order(Order::Standby, Scope::All).unwrap();
        eventually("it serves", || other.is_primary());
        eventually("we do not", || is_backup(&node));
        node.order(Order::Ready, Scope::All).unwrap();
        eventually("we preempt it", || is_primary(&node));
        eventually("it yields", || !other.is_primary());
        // Priority 0 from us.
        node.stop().unwrap();
        let begun = Instant::now();
        assert!(node.join());
        eventually("it serves after our end", || other.is_primary());
        println!("  to keepalived, stopped: {:?}", begun.elapsed());
        answers_again(&client, asked);
    }
}

#[test]
#[ignore = "needs root: network namespaces; and keepalived"]
fn neither_preempts_where_it_is_told_not_to() {
    // Each version, and IPv6.
    for way in &WAYS[..3] {
        println!("{way:?}");
        neither_preempts(*way);
    }
}

fn neither_preempts(way: Way) {
    // As many as would have made one that preempts do so many times over.
    let a_lot = if way.version == 2 { 6 } else { 20 };
    let (_switch, spaces, client) = site();
    // Ours does not take it from a lower one that serves.
    let mut other = Keepalived::new(&spaces[1], way, 100, "nopreempt");
    other.start();
    eventually("keepalived serves", || other.is_primary());
    let node = start(&spaces[0], way, 200, false);
    eventually("we are backup", || is_backup(&node));
    let heard = |node: &Node| node.snapshot().unwrap().links[0].counters.heard;
    let before = heard(&node);
    eventually("we have heard a lot", || heard(&node) > before + a_lot);
    assert!(is_backup(&node) && other.is_primary(), "{way:?}");
    other.stop();
    eventually("we serve", || is_primary(&node));
    drop(other);
    // Nor does keepalived with a higher priority from ours.
    let mut other = Keepalived::new(&spaces[1], way, 250, "nopreempt");
    other.start();
    eventually("it is backup", || other.log().contains("Entering BACKUP"));
    let sent = |node: &Node| node.snapshot().unwrap().links[0].counters.sent;
    let before = sent(&node);
    eventually("it has heard a lot", || sent(&node) > before + a_lot);
    assert!(is_primary(&node) && !other.is_primary(), "{way:?}");
    answers_again(&client, way.asked());
}
