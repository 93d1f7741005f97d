//! What goes wrong around a director without harm to it: nobody reads its log, or an interface that came back takes no program.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use director_tests::lab::Host;
use director_tests::{PATIENCE, paths, wait_until};
use nix::libc::O_NONBLOCK;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::directors::NOTICED;
use crate::pair::{BOTH_CABLES, ONE_GROUP, Pair, QUICK, Runs, other};

/// A pipe with both ends in this program: it can be written to, and is never read.
fn unread_pipe(path: &Path) -> File {
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(O_NONBLOCK);
    options.open(path).unwrap()
}

/// Until there is no room for another byte.
fn fill(mut pipe: &File) {
    for size in [4096, 1] {
        let bytes = vec![b'.'; size];
        loop {
            match pipe.write(&bytes) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Who takes over says so in its log, in the thread that sends heartbeats and renews the lease.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn a_log_that_nobody_reads_holds_nothing_up() {
    let sections = [QUICK, "auto_failback: false\n", BOTH_CABLES, ONE_GROUP];
    let mut pair = Pair::up(Runs::Director, &sections);
    let primary = pair.wait_settled("web");
    let heir = other(primary);
    pair.end(heir, Signal::SIGTERM);
    let directory = pair.lab.directory().to_owned();
    let errors = directory.join("unread");
    let pipe = unread_pipe(&errors);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec \"$0\" run --config \"$1\" 2> \"$2\""]);
    command.arg(paths::program("director").unwrap());
    command
        .arg(directory.join(format!("{heir}.yaml")))
        .arg(&errors);
    let log = directory.join("unread.log");
    let host = pair.lab.host(heir).unwrap();
    let mut director = host.spawn(command, log).unwrap();
    pair.wait_role(heir, "web", "backup");
    fill(&pipe);
    let (gap, _) = pair.gap(|pair| {
        pair.end(primary, Signal::SIGKILL);
        pair.wait_role(heir, "web", "primary");
    });
    println!("nobody reads the log: {} ms", gap.as_millis());
    assert!(gap < NOTICED, "{gap:?}");
    // Nor does it keep it from ending.
    director.signal(Signal::SIGTERM).unwrap();
    director.wait(PATIENCE).unwrap();
    assert!(!pair.has_address(heir));
}

/// It was made anew, and its program is refused: this node would serve with no packet path, and nothing would fence it.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn an_interface_without_its_program_serves_nothing() {
    let sections = [QUICK, BOTH_CABLES, ONE_GROUP];
    let mut pair = Pair::up(Runs::Director, &sections);
    pair.wait_role(Host::Director, "web", "primary");
    pair.wait_role(Host::Backup, "web", "backup");
    pair.ip(Host::Director, &["link", "delete", "eth0"]);
    pair.wait_role(Host::Backup, "web", "primary");

    let switch = pair.lab.host(Host::Switch).unwrap().name().to_owned();
    let port = Host::Director.to_string();
    let words =
        format!("link add eth0 mtu 9000 type veth peer name {port} mtu 9000 netns {switch}");
    let run = |pair: &Pair, host: Host, words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        pair.ip(host, &words);
    };
    run(&pair, Host::Director, &words);
    run(
        &pair,
        Host::Switch,
        &format!("link set {port} master bridge up"),
    );
    run(&pair, Host::Director, "address add 10.0.0.1/24 dev eth0");
    run(&pair, Host::Director, "link set eth0 up");
    let waited = wait_until("it is not fit", PATIENCE, || {
        let status = pair.status(Host::Director)?;
        let unfit = status["unfit"].as_str().context("it is fit")?;
        ensure!(unfit.contains("eth0 has no program"), "{unfit}");
        Ok(())
    });
    waited.unwrap_or_else(|error| panic!("{error:#}\n{}", pair.logs()));
    pair.wait_role(Host::Director, "web", "unfit");
    pair.wait_role(Host::Backup, "web", "primary");

    // What was wrong with it is put right. It is the preferred one.
    run(&pair, Host::Switch, &format!("link set {port} mtu 1500"));
    run(&pair, Host::Director, "link set eth0 mtu 1500");
    pair.wait_role(Host::Director, "web", "primary");
    pair.wait_role(Host::Backup, "web", "backup");
}
