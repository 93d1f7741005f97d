//! What a director that cannot start says. Each ends with an exit code that is not 0, and names the thing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use aya::maps::{Array, Map, MapData};
use director_tests::director::{self, Service};
use director_tests::lab::{Host, Lab, LabOptions, Topology};
use director_tests::{PATIENCE, paths, wait_until};

use crate::site::{TIMEOUT, virtual_address};

/// Cannot run.
const FAILED: i32 = 1;
/// The configuration is wrong.
const WRONG: i32 = 2;
/// Somebody without rights.
const NOBODY: &str = "65534";
/// An instance beside the one that runs.
const OTHER: &str = "other";

/// A lab without servers' programs: nothing is forwarded here.
struct Bench {
    lab: Lab,
    yaml: String,
}

impl Bench {
    fn up() -> Self {
        let lab = Lab::up(&LabOptions {
            servers: 1,
            ..LabOptions::default()
        })
        .unwrap();
        let service = Service::rr(virtual_address(false), 80);
        let yaml = director::yaml(&lab, Topology::TwoInterfaces, &[service], "");
        Self { lab, yaml }
    }

    /// The configuration of another instance beside the one that runs, on these interfaces.
    fn beside(&self, interfaces: &str) -> String {
        let instance = self.lab.instance_name();
        self.yaml
            .replace(
                &format!("instance: {instance}"),
                &format!("instance: {instance}-{OTHER}"),
            )
            .replace("director.sock", "other.sock")
            .replace("[eth0, eth1]", interfaces)
    }

    fn pins(&self, instance: &str) -> PathBuf {
        Path::new("/sys/fs/bpf/director").join(instance)
    }

    /// Writes a configuration to a file of its own.
    fn file(&self, yaml: &str) -> PathBuf {
        let path = self.lab.directory().join("wrong.yaml");
        fs::write(&path, yaml).unwrap();
        path
    }

    /// Runs a command on the director's host, which ends with this code and says all of this.
    fn check(&self, row: &str, mut command: Command, arguments: &[&str], code: i32, says: &[&str]) {
        command.args(arguments);
        let log = self.lab.directory().join("wrong.log");
        let _ = fs::remove_file(&log);
        let host = self.lab.host(Host::Director).unwrap();
        let mut process = host.spawn(command, log).unwrap();
        let status = process.wait(TIMEOUT * 12).unwrap();
        let said = process.log();
        assert_eq!(status.code(), Some(code), "{row}: {said}");
        for words in says {
            assert!(said.contains(words), "{row}: no {words:?} in: {said}");
        }
    }

    /// `director run` with this file.
    fn check_run(&self, row: &str, file: &Path, code: i32, says: &[&str]) {
        let file = file.to_str().unwrap();
        self.check(row, program(), &["run", "--config", file], code, says);
    }
}

fn program() -> Command {
    Command::new(paths::program("director").unwrap())
}

#[test]
#[ignore = "needs root and network namespaces: cargo xtask test runs it"]
fn what_stands_in_the_way_is_named() {
    let bench = Bench::up();
    let mut running = director::start(&bench.lab, &bench.yaml).unwrap();
    let before = director::status(&bench.lab).unwrap();
    add_interfaces(&bench.lab);
    let instance = bench.lab.instance_name();

    // Configuration, exit code, what is said.
    let rows: [(&str, String, i32, &[&str]); 7] = [
        (
            "the same instance twice",
            bench.yaml.clone(),
            FAILED,
            &["another director already runs as instance", &instance],
        ),
        (
            "another instance on the same interface",
            bench.beside("[eth1]"),
            FAILED,
            &[
                "interface eth1 already has an XDP program (id ",
                "another director instance or another tool",
            ],
        ),
        (
            "an interface that is not there",
            bench.beside("[eth7]"),
            FAILED,
            &["there is no network interface eth7", "`ip link` lists them"],
        ),
        (
            "frames too large for the driver",
            bench.beside("[large0]"),
            FAILED,
            &[
                "interface large0 ",
                "its MTU of 9000",
                "3498 or less",
                "`mode: generic`",
            ],
        ),
        (
            "frames too large at the cable's other end",
            bench.beside("[small0]"),
            FAILED,
            &[
                "interface small0 ",
                "the MTU of its peer (its own is 1500)",
                "3498 or less",
                "`mode: generic`",
            ],
        ),
        (
            "a driver without native XDP",
            bench.beside("[lo]"),
            FAILED,
            &["interface lo ", "`mode: generic`"],
        ),
        (
            "a mistake in the file",
            bench
                .beside("[eth1]")
                .replace("scheduler: rr", "scheduler: fastest"),
            WRONG,
            &[
                "wrong.yaml:8:16",
                "found \"fastest\"",
                "expected one of rr, wrr, lc, wlc",
            ],
        ),
    ];
    for (row, yaml, code, says) in rows {
        bench.check_run(row, &bench.file(&yaml), code, says);
        let left = bench.pins(&format!("{instance}-{OTHER}"));
        assert!(!left.exists(), "{row}: {} stays behind", left.display());
        assert!(!bench.lab.directory().join("other.sock").exists(), "{row}");
    }
    let nowhere = bench.lab.directory().join("nowhere.yaml");
    let words = format!("cannot read the configuration {}", nowhere.display());
    bench.check_run("no file", &nowhere, WRONG, &[&words, "No such file"]);
    check_without_rights(&bench);

    // The one that runs has not noticed.
    running.check_running().unwrap();
    let after = director::status(&bench.lab).unwrap();
    assert_eq!(
        (after.pid, &after.interfaces),
        (before.pid, &before.interfaces)
    );
    assert_eq!(after.config, before.config);

    check_reloads(&bench, running.id());
    check_replaced_heartbeat(&bench);
    let socket = director::control_socket(&bench.lab);
    running.kill().unwrap();
    let arguments = ["status", "--socket", socket.to_str().unwrap()];
    let words = ["no director listens on", socket.to_str().unwrap()];
    bench.check("a status of nobody", program(), &arguments, 3, &words);
    check_foreign_tables(&bench);
}

/// What came of a reload is told by its exit code, also where only the heartbeat cannot start.
fn check_reloads(bench: &Bench, director: u32) {
    let socket = director::control_socket(&bench.lab);
    let arguments = ["reload", "--socket", socket.to_str().unwrap()];
    let heartbeat = "heartbeat:
  node: director
  links:
    - udp: {interface: eth1, peers: [10.0.1.1, 10.0.1.2]}
  groups:
    - {name: web, interface: eth0, addresses: [192.0.2.10/32], priority: {director: 150, backup: 100}}
";
    let with_heartbeat = format!("{}{heartbeat}", bench.yaml);
    let wrong = bench.yaml.replace("scheduler: rr", "scheduler: fastest");
    // File, descriptors that it may open, exit code, what is said.
    let rows: [(&str, Option<usize>, i32, &[&str]); 6] = [
        (&bench.yaml, None, 0, &["1 services in force"]),
        (&wrong, None, WRONG, &["found \"fastest\""]),
        // One for whoever asks, one for the file and, when that is read, for the heartbeat, which wants more.
        (
            &with_heartbeat,
            Some(2),
            FAILED,
            &[
                "1 services in force, but",
                "the heartbeat could not start",
                "Too many open files",
            ],
        ),
        (&bench.yaml, None, 0, &["1 services in force"]),
        (&with_heartbeat, None, 0, &["1 services in force"]),
        (&bench.yaml, None, 0, &["1 services in force"]),
    ];
    for (yaml, descriptors, code, says) in rows {
        director::write_configuration(&bench.lab, yaml).unwrap();
        limit_descriptors(bench, director, descriptors);
        bench.check("reload", program(), &arguments, code, says);
    }
}

/// A heartbeat that takes another one's place begins only once that has ended, programs of groups included. A reload is answered
/// after that, or says that it takes long.
fn check_replaced_heartbeat(bench: &Bench) {
    let socket = director::control_socket(&bench.lab);
    let arguments = ["reload", "--socket", socket.to_str().unwrap()];
    let reload = |yaml: &str, code, says: &[&str]| {
        director::write_configuration(&bench.lab, yaml).unwrap();
        bench.check("reload", program(), &arguments, code, says);
    };
    let with = |address: &str, more: &str| {
        format!(
            "{}heartbeat:
  node: director
  keepalive: 100ms
  deadtime: 300ms
  initdead: 400ms
  links:
    - udp: {{interface: eth1, peers: [10.0.1.1, 10.0.1.2]}}
  groups:
    - name: web
      interface: eth0
      addresses: [{address}/32]
      priority: {{director: 150, backup: 100}}
{more}",
            bench.yaml
        )
    };
    // When its group is given up, its program runs.
    let serves = |on_backup: &str| {
        let more = format!("      on_backup: {on_backup}\n      timeout: 1m\n");
        reload(&with("192.0.2.98", &more), 0, &["1 services in force"]);
        let waited = wait_until("it is primary", PATIENCE, || {
            let groups = director::status(&bench.lab)?.heartbeat;
            let text = format!("{groups:?}");
            anyhow::ensure!(text.contains("primary"), "{text}");
            Ok(())
        });
        waited.unwrap();
    };
    // A file that is there when the configuration is read, and gone when the heartbeat begins.
    let key = bench.lab.directory().join("heartbeat.key");
    let key = key.to_str().unwrap();
    serves(&format!("[/bin/rm, -f, {key}]"));
    fs::write(key, "a secret of sixteen bytes or more\n").unwrap();
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    let keyed = with("192.0.2.99", &format!("  key: {{id: 1, file: {key}}}\n"));
    let says = [
        "1 services in force, but",
        "the heartbeat could not start",
        key,
    ];
    reload(&keyed, FAILED, &says);
    reload(&bench.yaml, 0, &["1 services in force"]);
    serves("[/bin/sleep, '20']");
    let says = ["1 services in force", "has not ended yet"];
    reload(&bench.yaml, 0, &says);
}

/// Lets a process open so many descriptors more, or as many as it likes.
fn limit_descriptors(bench: &Bench, process: u32, more: Option<usize>) {
    let open = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let open: BTreeSet<usize> = open
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    // The lowest number that is free is taken each time.
    let below = |more| (0..).filter(|number| !open.contains(number)).nth(more);
    let process = process.to_string();
    let host = bench.lab.host(Host::Director).unwrap();
    let prlimit = |words: &[&str]| {
        let words = [&["--pid", &process], words].concat();
        host.output("prlimit", &words).unwrap()
    };
    let limit = match more {
        Some(more) => below(more).unwrap().to_string(),
        None => prlimit(&["--nofile", "--noheadings", "--raw", "--output", "HARD"]),
    };
    prlimit(&[&format!("--nofile={}:", limit.trim())]);
}

/// Interfaces like a card with jumbo frames: `large0`, and `small0` whose far end alone has them.
fn add_interfaces(lab: &Lab) {
    let host = lab.host(Host::Director).unwrap();
    for (name, own, peer) in [("large", "9000", "9000"), ("small", "1500", "9000")] {
        let ends = [format!("{name}0"), format!("{name}1")];
        let arguments = [
            "link", "add", &ends[0], "mtu", own, "type", "veth", "peer", "name", &ends[1], "mtu",
            peer,
        ];
        host.output("ip", &arguments).unwrap();
    }
}

fn check_without_rights(bench: &Bench) {
    // A copy, since the workspace may be where only root may look.
    let directory = std::env::temp_dir().join(bench.lab.instance_name());
    fs::create_dir_all(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.join("director");
    fs::copy(paths::program("director").unwrap(), &copy).unwrap();
    let file = directory.join("director.yaml");
    // Rights come before an interface that is not there.
    fs::write(&file, bench.beside("[eth7]")).unwrap();

    // By a command, since a process that has become nobody cannot enter the lab any more.
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
    command.arg(&copy);
    let arguments = ["run", "--config", file.to_str().unwrap()];
    let words = [
        "not allowed",
        "CAP_NET_ADMIN",
        "CAP_BPF",
        "run the director as root",
    ];
    bench.check("nobody", command, &arguments, FAILED, &words);
    fs::remove_dir_all(directory).unwrap();
}

/// Tables that a director does not know stay as they are, and so do the programs that use them.
fn check_foreign_tables(bench: &Bench) {
    let pins = bench.pins(&bench.lab.instance_name());
    let place = pins.to_str().unwrap();
    let remove = format!("`rm -r {place}`");
    let file = director::write_configuration(&bench.lab, &bench.yaml).unwrap();
    let links = || {
        let host = bench.lab.host(Host::Director).unwrap();
        let text = host.output("ip", &["-details", "link", "show"]).unwrap();
        text.matches("prog/xdp id ").count()
    };
    assert_eq!(links(), 2);

    // Exchanged with the tables whose layout it says, it stands where they do.
    let layout_pin = pins.join("tables").join("LAYOUT");
    let layout = MapData::from_pin(&layout_pin).unwrap();
    let mut layout: Array<MapData, u32> = Map::from_map_data(layout).unwrap().try_into().unwrap();
    let known = layout.get(&0, 0).unwrap();
    layout.set(0, 4711, 0).unwrap();
    let words = [
        format!("{place} holds tables of layout version 4711"),
        format!("this director knows version {known}"),
        remove.clone(),
    ];
    bench.check_run(
        "another layout",
        &file,
        FAILED,
        &words.each_ref().map(String::as_str),
    );
    layout.set(0, known, 0).unwrap();

    // Tables that are missing, the one that says the layout last.
    let destinations_pin = pins.join("DESTINATIONS");
    for (missing, pin) in [("DESTINATIONS", destinations_pin), ("LAYOUT", layout_pin)] {
        fs::remove_file(pin).unwrap();
        let words = [place, &format!("{missing} is missing"), &remove];
        bench.check_run("a table less", &file, FAILED, &words);
    }
    assert_eq!(links(), 2);

    // What the message advises helps.
    fs::remove_dir_all(&pins).unwrap();
    let mut next = director::start(&bench.lab, &bench.yaml).unwrap();
    assert!(!director::status(&bench.lab).unwrap().adopted);
    assert!(next.stop().unwrap().success());
}
