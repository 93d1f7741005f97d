//! The command: whole processes that are killed, frozen, stopped and asked.

use std::fs::{File, Permissions};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cable::Cable;
use crate::namespace::{Namespace, eventually};
use crate::node::{answers_again, site};

const VIRTUAL: &str = "192.0.2.100";

/// A node: its process, and where its files are. Killed when dropped.
pub(crate) struct Process {
    namespace: Namespace,
    pub(crate) folder: PathBuf,
    pub(crate) child: Child,
}

impl Process {
    /// Starts node `lb1` or `lb2` with a configuration for 100 ms heartbeats and 300 ms deadtime.
    pub(crate) fn start(namespace: &Namespace, own: usize, failback: &str) -> Self {
        let link = format!("udp: {{ interface: eth0, peers: [192.0.2.{}] }}", 3 - own);
        Self::with(namespace, own, failback, &link, "")
    }

    /// The same with another link, and with something more about the group.
    pub(crate) fn with(
        namespace: &Namespace,
        own: usize,
        failback: &str,
        link: &str,
        more: &str,
    ) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("heartbeat-{}-{number}-lb{own}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let key = folder.join("key");
        std::fs::write(&key, "a key for tests only\n").unwrap();
        std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        let config = format!(
            "\
node: lb{own}
keepalive: 100ms
deadtime: 300ms
initdead: 1s
auto_failback: {failback}
key: {{ id: 1, file: {key} }}
links:
  - {link}
groups:
  - name: web
    interface: eth0
    addresses: [{VIRTUAL}/24, \"2001:db8::100/64\"]
    priority: {{ lb1: 150, lb2: 100 }}
{more}    on_primary: [/bin/sh, -c, 'echo $HEARTBEAT_GROUP $HEARTBEAT_ROLE >> {folder}/roles']
    on_backup: [/bin/sh, -c, 'echo $HEARTBEAT_GROUP $HEARTBEAT_ROLE >> {folder}/roles']
fitness:
  interfaces: [eth0]
",
            key = key.display(),
            folder = folder.display(),
        );
        std::fs::write(folder.join("config.yaml"), config).unwrap();
        let child = Self::run(namespace, &folder);
        let process = Self {
            namespace: namespace.clone(),
            folder,
            child,
        };
        eventually("it answers", || {
            process.command(&["status"]).status.success()
        });
        process
    }

    fn run(namespace: &Namespace, folder: &Path) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"))
            .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_heartbeat"));
        command
            .args(["run", "--config"])
            .arg(folder.join("config.yaml"))
            .arg("--socket")
            .arg(folder.join("socket"))
            .stdin(Stdio::null())
            .stderr(log);
        namespace.enter(&mut command).spawn().unwrap()
    }

    pub(crate) fn again(&mut self) {
        self.child = Self::run(&self.namespace, &self.folder);
        eventually("it answers", || self.command(&["status"]).status.success());
    }

    pub(crate) fn command(&self, words: &[&str]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heartbeat"));
        command
            .args(words)
            .arg("--socket")
            .arg(self.folder.join("socket"));
        command.output().unwrap()
    }

    fn order(&self, words: &[&str]) {
        let output = self.command(words);
        assert!(output.status.success(), "{output:?}");
    }

    pub(crate) fn shown(&self) -> String {
        String::from_utf8(self.command(&["status"]).stdout).unwrap()
    }

    pub(crate) fn is_primary(&self) -> bool {
        self.shown().contains("web              primary")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    pub(crate) fn killed(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().unwrap();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- {}\n{}", self.folder.display(), self.log());
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The longest time without an answer from the virtual address while `work` is done, and until it answers again.
fn gap_while(client: &Namespace, work: impl FnOnce()) -> Duration {
    let to = std::net::SocketAddr::new(VIRTUAL.parse().unwrap(), 9);
    let is_over = AtomicBool::new(false);
    answers_again(client, VIRTUAL);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            client.run(|| {
                let (mut longest, mut answered) = (Duration::ZERO, Instant::now());
                loop {
                    let outcome = TcpStream::connect_timeout(&to, Duration::from_millis(10));
                    let refused =
                        |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
                    if outcome.is_err_and(refused) {
                        longest = longest.max(answered.elapsed());
                        answered = Instant::now();
                        if is_over.load(Ordering::Relaxed) {
                            return longest;
                        }
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    assert!(
                        answered.elapsed() < Duration::from_secs(20),
                        "no answer for 20 s"
                    );
                }
            })
        });
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        is_over.store(true, Ordering::Relaxed);
        worked.unwrap();
        asking.join().unwrap()
    })
}

fn median(mut gaps: Vec<Duration>) -> Duration {
    gaps.sort_unstable();
    gaps[gaps.len() / 2]
}

#[test]
#[ignore = "needs root: network namespaces"]
fn a_machine_that_dies() {
    dies("", "", 20);
    // Adverts of VRRP too, which come from the virtual MAC.
    let vrrp = "\n  - vrrp: { interface: eth0 }";
    dies(vrrp, "    vrid: 51\n    virtual_mac: true\n", 5);
}

fn dies(links: &str, more: &str, rounds: usize) {
    let (switch, spaces, client) = site();
    let link = |peer| format!("udp: {{ interface: eth0, peers: [192.0.2.{peer}] }}{links}");
    let mut one = Process::with(&spaces[0], 1, "true", &link(2), more);
    let other = Process::with(&spaces[1], 2, "true", &link(1), more);
    let mut gaps = Vec::new();
    for _ in 0..rounds {
        eventually("the preferred node serves", || one.is_primary());
        gaps.push(gap_while(&client, || {
            // And then its network, since its kernel alone would go on to answer. Not before: it would see its carrier
            // go, and release in order what this test is to find left behind.
            one.killed();
            switch.ip("link set port0 down");
            eventually("the other serves", || other.is_primary());
        }));
        switch.ip("link set port0 up");
        one.again();
    }
    println!(
        "gaps after death: {gaps:?}, median {:?}",
        median(gaps.clone())
    );
    // A generous bound: other work on this machine may hold anybody up.
    assert!(median(gaps) < Duration::from_secs(2));
    let log = one.log();
    assert!(
        log.contains("removed what an earlier run left behind: 192.0.2.100/24 on "),
        "{log}"
    );
}

#[test]
#[ignore = "needs root: network namespaces"]
fn killed_while_its_kernel_goes_on() {
    let (_switch, spaces, client) = site();
    let mut one = Process::start(&spaces[0], 1, "true");
    let other = Process::start(&spaces[1], 2, "true");
    eventually("the preferred node serves", || one.is_primary());
    one.killed();
    eventually("the other serves", || other.is_primary());
    // The client has learnt it by gratuitous ARP and neighbour advertisements.
    let shown = spaces[1].ip("-o link show eth0");
    let mac = shown
        .split_whitespace()
        .skip_while(|word| *word != "link/ether")
        .nth(1)
        .unwrap();
    answers_again(&client, VIRTUAL);
    eventually("the client knows", || {
        client
            .ip(&format!("neighbour show to {VIRTUAL}"))
            .contains(mac)
    });
    one.again();
    let held = spaces[0].ip("address show dev eth0");
    assert!(one.is_primary() || !held.contains(VIRTUAL), "{held}");
    eventually("the preferred node serves again", || one.is_primary());
    eventually("the other does not", || !other.is_primary());
}

#[test]
#[ignore = "needs root: network namespaces"]
fn frozen_and_thawed() {
    let (_switch, spaces, client) = site();
    let one = Process::start(&spaces[0], 1, "false");
    let other = Process::start(&spaces[1], 2, "false");
    eventually("the preferred node serves", || one.is_primary());
    one.signal(Signal::SIGSTOP);
    eventually("the other serves", || other.is_primary());
    one.signal(Signal::SIGCONT);
    eventually("the thawed one does not", || {
        one.shown().contains("web              backup")
    });
    assert!(other.is_primary());
    let shown = one.shown();
    assert!(shown.contains("stood still"), "{shown}");
    let held = spaces[0].ip("address show dev eth0");
    assert!(!held.contains(VIRTUAL), "{held}");
    answers_again(&client, VIRTUAL);
}

#[test]
#[ignore = "needs root: network namespaces"]
fn stopped_in_order_and_ordered_about() {
    let (_switch, spaces, client) = site();
    let mut one = Process::start(&spaces[0], 1, "false");
    let mut other = Process::start(&spaces[1], 2, "false");
    let mut gaps = Vec::new();
    for _ in 0..20 {
        one.order(&["takeover"]);
        eventually("the first serves", || one.is_primary());
        eventually("the other does not", || !other.is_primary());
        gaps.push(gap_while(&client, || {
            one.signal(Signal::SIGTERM);
            let status = one.child.wait().unwrap();
            assert!(status.success(), "{status}");
        }));
        assert!(other.is_primary(), "{}", other.shown());
        assert!(!one.folder.join("socket").exists());
        one.again();
    }
    println!(
        "gaps of orderly stops: {gaps:?}, median {:?}",
        median(gaps.clone())
    );
    assert!(median(gaps) < Duration::from_secs(1));
    let shown = other.shown();
    println!("{shown}");
    for words in [
        "node lb2, fit",
        "lb1              alive",
        "udp eth0: good",
        "carrier of eth0",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }

    // Orders, and what they are not given for.
    one.order(&["takeover", "web"]);
    eventually("the first serves", || one.is_primary());
    one.order(&["standby"]);
    eventually("the other serves", || other.is_primary());
    let refused = one.command(&["takeover", "mail"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        said.contains("there is no group mail; there are web"),
        "{said}"
    );
    let json = one.command(&["status", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["groups"][0]["is_standby"], true, "{json}");
    assert_eq!(json["takeover"][0]["is_held"], false, "{json}");

    // Alone at last.
    other.signal(Signal::SIGINT);
    assert!(other.child.wait().unwrap().success());
    eventually("the first serves, as nobody else does", || one.is_primary());
    assert_eq!(other.command(&["status"]).status.code(), Some(3));
    // A second one at the same socket is refused.
    let second = Process::run(&spaces[0], &one.folder)
        .wait_with_output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(
        one.log().contains("another heartbeat answers"),
        "{}",
        one.log()
    );
    let roles = std::fs::read_to_string(one.folder.join("roles")).unwrap();
    assert!(roles.contains("web primary\nweb backup\n"), "{roles}");
}

#[test]
#[ignore = "needs root: network namespaces"]
fn a_serial_line_only() {
    let (_switch, spaces, client) = site();
    let cable = Cable::new();
    let link = |end: usize| format!("serial: {{ device: {} }}", cable.devices[end].display());
    let mut one = Process::with(&spaces[0], 1, "true", &link(0), "");
    let other = Process::with(&spaces[1], 2, "true", &link(1), "");
    eventually("the preferred node serves", || one.is_primary());
    eventually("they hear each other", || {
        other.shown().contains("lb1              alive")
    });
    assert!(!other.is_primary());
    one.killed();
    eventually("the other serves", || other.is_primary());
    one.again();
    eventually("the preferred node serves again", || one.is_primary());
    eventually("the other does not", || !other.is_primary());
    answers_again(&client, VIRTUAL);
}

/// In order, as many changes of role as a node remembers.
fn changes(process: &Process) -> usize {
    let json = process.command(&["status", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    json["history"].as_array().unwrap().len()
}

#[test]
#[ignore = "needs root: network namespaces"]
fn load_fakes_no_death() {
    let (_switch, spaces, _client) = site();
    let one = Process::start(&spaces[0], 1, "true");
    let other = Process::start(&spaces[1], 2, "true");
    eventually("the preferred node serves", || one.is_primary());
    eventually("the other is backup", || {
        other.shown().contains("web              backup")
    });
    let before = (changes(&one), changes(&other));
    let is_over = AtomicBool::new(false);
    let heard = || {
        let json = other.command(&["status", "--json"]).stdout;
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        json["links"][0]["heard"].as_u64().unwrap()
    };
    let begun = heard();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().unwrap().get() * 4 {
            scope.spawn(|| {
                let mut number = 1_u64;
                while !is_over.load(Ordering::Relaxed) {
                    number = std::hint::black_box(number.wrapping_mul(3));
                }
            });
        }
        // Ended whatever happens: a failure must not leave the threads running.
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("50 heartbeats were heard", || heard() > begun + 50);
        }));
        is_over.store(true, Ordering::Relaxed);
        waited.unwrap();
    });
    assert!(one.is_primary());
    assert_eq!(
        (changes(&one), changes(&other)),
        before,
        "{}",
        other.shown()
    );
}
