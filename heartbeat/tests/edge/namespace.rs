//! Network namespaces that last as long as their test, joined by veth pairs.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace without a name: it is gone with the last descriptor.
#[derive(Clone)]
pub(crate) struct Namespace {
    file: Arc<File>,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let file = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace needs root");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let made = Self {
            file: Arc::new(file.join().unwrap()),
        };
        made.ip("link set lo up");
        made
    }

    /// Runs `work` in a thread inside. Sockets that it opens stay inside.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Has `command` start inside.
    pub(crate) fn enter<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let file = Arc::clone(&self.file);
        // SAFETY: between fork and exec the closure makes one system call on a descriptor that it keeps open, and
        // allocates nothing.
        unsafe {
            command.pre_exec(move || {
                setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from)
            })
        }
    }

    fn output(&self, program: &str, arguments: &str) -> Output {
        let mut command = Command::new(program);
        command.args(arguments.split_whitespace());
        self.enter(&mut command).output().unwrap()
    }

    /// Runs `ip` with these words and gives what it prints.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let output = self.output("ip", arguments);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Whether an address answers within some seconds, also if the first question is lost: by refusing a connection.
    pub(crate) fn reaches(&self, address: &str) -> bool {
        let to = SocketAddr::new(address.parse().unwrap(), 9);
        self.run(
            || match TcpStream::connect_timeout(&to, Duration::from_secs(5)) {
                Ok(_) => true,
                Err(error) => error.kind() == ErrorKind::ConnectionRefused,
            },
        )
    }

    /// Writes a setting under `/proc/sys/net`.
    pub(crate) fn set(&self, path: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap());
    }

    /// What a setting under `/proc/sys/net` is.
    pub(crate) fn setting(&self, path: &str) -> String {
        self.run(|| std::fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap())
            .trim()
            .to_owned()
    }

    /// The process or thread whose namespace `ip` is to move an interface to.
    fn holder(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

/// A cable: `eth0` in both, with these addresses, switched on.
pub(crate) fn cable(one: &Namespace, one_has: &[&str], other: &Namespace, other_has: &[&str]) {
    one.ip(&format!(
        "link add eth0 type veth peer name eth0 netns {}",
        other.holder()
    ));
    for (namespace, addresses) in [(one, one_has), (other, other_has)] {
        // Duplicate address detection would take a second.
        namespace.set("ipv6/conf/eth0/accept_dad", "0");
        namespace.set("ipv6/conf/eth0/dad_transmits", "0");
        for address in addresses {
            namespace.ip(&format!("address add {address} dev eth0"));
        }
        namespace.ip("link set eth0 up");
    }
    // The kernel looks at carriers once in a second; before that IPv6 does nothing.
    for namespace in [one, other] {
        eventually("the cable has a carrier", || {
            namespace.ip("-o link show eth0").contains("state UP")
        });
    }
}

/// A segment: `eth0` in each, with these addresses, on one switch, which must be kept as long as it lasts.
pub(crate) fn segment(hosts: &[(&Namespace, &[&str])]) -> Namespace {
    let switch = Namespace::new();
    switch.ip("link add br0 type bridge");
    switch.ip("link set br0 up");
    for (nth, (host, addresses)) in hosts.iter().enumerate() {
        let port = format!("port{nth}");
        host.ip(&format!(
            "link add eth0 type veth peer name {port} netns {}",
            switch.holder()
        ));
        host.set("ipv6/conf/eth0/accept_dad", "0");
        host.set("ipv6/conf/eth0/dad_transmits", "0");
        for address in *addresses {
            host.ip(&format!("address add {address} dev eth0"));
        }
        host.ip("link set eth0 up");
        switch.ip(&format!("link set {port} master br0 up"));
    }
    for (host, _) in hosts {
        eventually("the cable has a carrier", || {
            host.ip("-o link show eth0").contains("state UP")
        });
    }
    switch
}

/// Waits for what the kernel does on its own time.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "not within 60 s: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
