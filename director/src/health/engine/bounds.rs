//! What many checks cost a process, and what becomes of them where it has none of that left.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rcgen::generate_simple_self_signed;
use socket2::{Domain, Socket, Type};

use super::*;
use crate::alone::alone;
use crate::config::{self, Check};
use crate::health::through::Way;

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);
/// Checks, each of a real server of its own.
const THOUSAND: usize = 1000;
/// What the thread of checks and the test itself may open besides.
const SLACK: usize = 32;

fn check(text: &str) -> Arc<Check> {
    let text = format!(
        "interfaces: [eth0]\nservices: [{{address: 192.0.2.10, port: 80, check: {text}, real_servers: [10.0.0.1]}}]\n"
    );
    let config =
        config::parse("test.yaml", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    Arc::clone(&config.services[0].real_servers[0].checks[0])
}

/// Takes connections at all addresses of this host and never says a word.
fn silent() -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    socket.bind(&any.into()).unwrap();
    // Nobody accepts them: as many as there are to be wait here.
    socket.listen(4096).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

/// A directory with an authority and a password, which the environment of the test's own process names.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("director-bounds-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let certificate = generate_simple_self_signed(["authority.test".to_owned()]).unwrap();
        fs::write(path.join("ca.pem"), certificate.cert.pem()).unwrap();
        let password = path.join("password");
        fs::write(&password, "secret\n").unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Of a test that panics too.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// What this process has.
#[derive(Clone, Copy, Debug, Default)]
struct Has {
    threads: usize,
    processes: usize,
    descriptors: usize,
}

impl Has {
    fn now() -> Self {
        let entries = |path: &str| fs::read_dir(path).unwrap().count();
        Self {
            threads: entries("/proc/self/task"),
            processes: children(),
            descriptors: entries("/proc/self/fd"),
        }
    }

    fn most(self, other: Self) -> Self {
        Self {
            threads: self.threads.max(other.threads),
            processes: self.processes.max(other.processes),
            descriptors: self.descriptors.max(other.descriptors),
        }
    }
}

/// Processes that this one has started and that have not ended.
fn children() -> usize {
    let own = std::process::id().to_string();
    let is_child = |path: &Path| {
        let Ok(stat) = fs::read_to_string(path.join("stat")) else {
            return false;
        };
        // State and parent follow the name in parentheses.
        let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
        let mut words = after.split(' ');
        words.next().is_some_and(|state| state != "Z") && words.next() == Some(own.as_str())
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter(|entry| is_child(&entry.path())).count()
}

/// A thousand checks of silent backends all run at the same time, in this process: a socket each, and no thread each,
/// whatever files they want. Programs are processes, a bounded number of them.
#[test]
fn a_thousand_checks_cost_a_socket_each() {
    if !alone(
        "health::engine::bounds::a_thousand_checks_cost_a_socket_each",
        &[],
    ) {
        return;
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(8192), hard).unwrap();
    let directory = Directory::new();
    let (_listener, port) = silent();
    let times = "interval: 60s, timeout: 60s, spread: 1ms";
    let programs = limits::PROGRAMS_AT_ONCE;
    // (check, threads, processes and descriptors that it may take at most)
    let cases = [
        (format!("{{type: smtp, {times}}}"), (0, 0, THOUSAND)),
        // One thread reads the file, and perhaps another one while the last one ends.
        (
            format!("{{type: tls, ca: {}, {times}}}", directory.file("ca.pem")),
            (4, 0, THOUSAND),
        ),
        (
            format!(
                "{{type: pop3, user: u, password_file: {}, {times}}}",
                directory.file("password")
            ),
            (4, 0, THOUSAND),
        ),
        // Two pipes, and what tells of its end. One thread starts it, and perhaps another one while the last one ends.
        (
            format!("{{type: external, command: [/bin/sh, -c, exec sleep 1000], {times}}}"),
            (4, programs, 3 * programs),
        ),
    ];
    for (text, (threads, processes, descriptors)) in cases {
        let engine = Engine::start().unwrap();
        // The thread is there when it answers.
        assert_eq!(engine.reporter().report().unwrap().len(), 0);
        let before = Has::now();
        let check = check(&text);
        let subjects = (0..THOUSAND).map(|number| Subject {
            check: Arc::clone(&check),
            server: Ipv4Addr::from(0x7f00_0100 + number as u32).into(),
            port,
            through: None,
        });
        engine.replace(subjects.collect(), Vec::new());
        let deadline = Instant::now() + LONG;
        let mut most = before;
        let is_all = |most: &Has| {
            if processes == 0 {
                most.descriptors >= before.descriptors + THOUSAND
            } else {
                most.processes >= processes
            }
        };
        while !is_all(&most) {
            assert!(
                Instant::now() < deadline,
                "{text}: {most:?}, {before:?} before"
            );
            most = most.most(Has::now());
        }
        for _ in 0..10 {
            most = most.most(Has::now());
        }
        println!("{text}: {most:?}, {before:?} before");
        assert!(most.threads <= before.threads + threads, "{text}");
        assert!(most.processes <= before.processes + processes, "{text}");
        assert!(
            most.descriptors <= before.descriptors + descriptors + SLACK,
            "{text}"
        );
        drop(engine);
    }
}

/// Without descriptors no check says anything of its backend, whatever it wanted one for.
#[test]
fn without_descriptors_nobody_is_down() {
    if !alone(
        "health::engine::bounds::without_descriptors_nobody_is_down",
        &[],
    ) {
        return;
    }
    const FEW: u64 = 256;
    let directory = Directory::new();
    let (ca, password) = (directory.file("ca.pem"), directory.file("password"));
    let (_listener, port) = silent();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, FEW, hard).unwrap();
    let virtual_address = "192.0.2.10".parse().unwrap();
    let through = Some(Way {
        virtual_address,
        method: Method::Dr,
    });
    // (check, its way, descriptors that are left, what its failure names)
    let cases = [
        ("connect".to_owned(), None, 0, "no socket"),
        ("{type: dns, name: a.test}".to_owned(), None, 0, "no socket"),
        (
            format!("{{type: pop3, user: u, password_file: {password}}}"),
            None,
            0,
            "the password file",
        ),
        // One for the connection, none for the file.
        (
            format!("{{type: tls, ca: {ca}}}"),
            None,
            1,
            "certificate authorities of /",
        ),
        (
            "tls".to_owned(),
            None,
            1,
            "certificate authorities of this system",
        ),
        ("connect".to_owned(), through, 0, "no way through"),
        ("connect".to_owned(), through, 1, "no way through"),
        (
            "{type: external, command: [/bin/true]}".to_owned(),
            None,
            0,
            "cannot be started",
        ),
    ];
    let cases = cases.map(|(text, through, left, words)| {
        let subject = Subject {
            check: check(&text),
            server: Ipv4Addr::LOCALHOST.into(),
            port,
            through,
        };
        (text, subject, left, words)
    });
    let mut held = Vec::new();
    for (text, subject, left, words) in cases {
        while let Ok(file) = File::open("/dev/null") {
            held.push(file);
        }
        held.truncate(held.len() - left);
        let mut ways = Ways::default();
        if let Some(way) = subject.through {
            let record = Destination::default();
            ways.destinations
                .insert((subject.server, way.method), record);
        }
        let failure = runtime
            .block_on(run(ways.reach(&subject), subject))
            .unwrap_err();
        assert_eq!(failure.kind, FailureKind::Shortage, "{text}: {failure:?}");
        assert!(failure.words.contains(words), "{text}: {failure:?}");
    }
}
