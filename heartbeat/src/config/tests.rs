//! Configurations that are right, and everything that can be wrong with one.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::{Uid, chown, geteuid, mkfifo};

use super::{AutoFailback, Config, ConfigError, LinkKind, UdpTo, load, parse, read_secret};

/// Two nodes, all links, two groups.
const FULL: &str = r#"
node: lb1
keepalive: 100ms
warntime: 200ms
deadtime: 300ms
initdead: 5s
auto_failback: 30s
key: { id: 1, file: /etc/director/heartbeat.key, accept: [{ id: 2, file: /etc/director/next.key }] }
links:
  - udp: { interface: eth0, peers: [192.0.2.2] }
  - udp: { interface: eth1, multicast: 239.255.6.94, port: 695 }
  - udp: { interface: eth2, broadcast: true }
  - serial: { device: /dev/ttyS0, baud: 230400 }
  - vrrp: { interface: eth0, version: 3 }
groups:
  - name: web
    interface: eth0
    addresses: [198.51.100.10/24, "2001:db8::10/64"]
    priority: { lb1: 150, lb2: 100 }
    vrid: 51
    virtual_mac: true
    announce: { count: 3, interval: 100ms, refresh: 1m }
    on_primary: [/etc/director/primary.sh, web]
  - name: mail
    interface: eth0
    addresses: [198.51.100.11/24]
    priority: { lb1: 150, lb2: 100 }
together: [[web, mail]]
fitness:
  interfaces: [eth0, { name: eth1, lowers: 20 }]
  ping: [192.0.2.254, { address: 192.0.2.253, lowers: 60, interval: 500ms }]
  programs: [{ command: [/bin/true], interval: 2s, timeout: 1s, fall: 3 }]
fence: { command: [/sbin/fence, --now], timeout: 10s, required: true }
"#;

/// Two nodes and nothing else.
const SMALL: &str = "
node: lb1
links:
  - udp: { interface: eth0, peers: [192.0.2.2] }
groups:
  - { name: web, interface: eth0, addresses: [198.51.100.10/24], priority: { lb1: 150, lb2: 100 } }
";

fn good(text: &str) -> Config {
    match parse("heartbeat.yaml", text, "host") {
        Ok(config) => config,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn everything_is_read() {
    let config = good(FULL);
    assert_eq!(config.nodes, ["lb1", "lb2"]);
    assert_eq!(
        config.auto_failback,
        AutoFailback::After(Duration::from_secs(30))
    );
    let names: Vec<&str> = config.links.iter().map(|link| link.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "udp eth0",
            "udp eth1",
            "udp eth2",
            "serial /dev/ttyS0",
            "vrrp eth0"
        ]
    );
    assert_eq!(config.units, [[0, 1]]);
    assert_eq!(config.keys.as_ref().map(|keys| keys.accept.len()), Some(1));
    let web = &config.groups[0];
    assert_eq!(
        (web.vrid, web.virtual_mac, web.announce.count),
        (Some(51), true, 3)
    );
    assert_eq!(web.priorities["lb2"], 100);
    assert_eq!(config.fitness.interfaces[1].lowers, Some(20));
    assert_eq!(config.fitness.ping[0].lowers, None);
    assert_eq!(
        config.fitness.ping[1].rhythm.timeout,
        Duration::from_millis(500)
    );
    assert_eq!(config.fitness.programs[0].rhythm.fall, 3);
    assert!(config.fence.is_some_and(|fence| fence.required));
}

#[test]
fn defaults_are_applied() {
    let config = good(SMALL);
    let seconds = Duration::from_secs;
    assert_eq!(config.timing.keepalive, seconds(1));
    assert_eq!(config.timing.deadtime, seconds(10));
    assert_eq!(config.timing.warntime, seconds(5));
    assert_eq!(config.timing.initdead, seconds(20));
    assert_eq!(config.auto_failback, AutoFailback::On);
    assert_eq!(config.units, [[0]]);
    let LinkKind::Udp(udp) = &config.links[0].kind else {
        panic!()
    };
    assert_eq!(
        (udp.port, &udp.to),
        (694, &UdpTo::Unicast(vec![[192, 0, 2, 2].into()]))
    );
    let group = &config.groups[0];
    assert_eq!(
        (group.announce.count, group.announce.interval),
        (5, Duration::from_millis(200))
    );
    // The node's name is the host's.
    assert_eq!(
        good(&SMALL.replace("lb1", "host").replace("node: host", "")).node,
        "host"
    );
}

#[test]
fn vrrp_alone_needs_no_other_nodes() {
    let text = "
node: lb1
links: [{ vrrp: { interface: eth0, version: 2 } }]
groups: [{ name: web, interface: eth0, addresses: [198.51.100.10/24], priority: 255, vrid: 51 }]
";
    let config = good(text);
    assert_eq!(config.nodes, ["lb1"]);
    let LinkKind::Vrrp(vrrp) = &config.links[0].kind else {
        panic!()
    };
    assert_eq!((vrrp.version, vrrp.interval), (2, Duration::from_secs(1)));
}

/// What is changed in a good text, the path of the mistake, and a part of its words.
const BAD: &[(&str, &str, &str, &str)] = &[
    (
        "node: lb1",
        "node: lb3",
        "node",
        "stands in no group's priority",
    ),
    (
        "node: lb1",
        "node: a b",
        "node",
        "a name of at most 64 bytes",
    ),
    (
        "keepalive: 100ms",
        "keepalive: 100",
        "keepalive",
        "a time with its unit from 10ms to 1m",
    ),
    (
        "keepalive: 100ms",
        "keepalive: 1ms",
        "keepalive",
        "found \"1ms\"",
    ),
    (
        "keepalive: 100ms",
        "keepalive:",
        "keepalive",
        "no value stands here",
    ),
    ("keepalive: 100ms", "keepalives: 100ms", "", "keepalives"),
    (
        "warntime: 200ms",
        "lb_algo: rr",
        "",
        "unknown key \"lb_algo\" (lb_algo is keepalived's word, and heartbeat alone",
    ),
    (
        "    vrid: 51",
        "    virtual_router_id: 51",
        "",
        "(virtual_router_id is keepalived's word: here it is `vrid` of a group)",
    ),
    (
        "peers: [192.0.2.2]",
        "peers: 192.0.2.2",
        "",
        "10:36: found \"192.0.2.2\"; expected a list, like [192.0.2.2], or lines that begin with \"- \"",
    ),
    (
        "peers: [192.0.2.2]",
        "peers: { a: 192.0.2.2 }",
        "",
        "expected a list: each entry begins with \"- \"",
    ),
    (
        "deadtime: 300ms",
        "deadtime: 299ms",
        "deadtime",
        "at least 3 keepalives",
    ),
    (
        "warntime: 200ms",
        "warn_time: 200ms",
        "",
        "unknown key \"warn_time\" (did you mean \"warntime\"?); expected one of the keys node, keepalive",
    ),
    (
        "warntime: 200ms",
        "warntime: 300ms",
        "warntime",
        "less than 300ms",
    ),
    (
        "initdead: 5s",
        "initdead: 350ms",
        "initdead",
        "at least 400ms",
    ),
    (
        "auto_failback: 30s",
        "auto_failback: maybe",
        "auto_failback",
        "true, false, or a time",
    ),
    ("id: 1,", "id: 0,", "key.id", "a number from 1 to 255"),
    ("{ id: 2,", "{ id: 1,", "key", "two keys have the id 1"),
    (
        "file: /etc/director/next.key",
        "file: next.key",
        "key.accept[0].file",
        "an absolute path",
    ),
    (
        "interface: eth0, peers",
        "peers",
        "links[0].udp.interface",
        "the key is missing",
    ),
    (
        "- udp: { interface: eth2, broadcast: true }",
        "- udp: { interface: eth0, broadcast: true }",
        "links[2]",
        "udp eth0:694 is a link already, and would hear this one",
    ),
    (
        "- serial: {",
        "- vrrp: { interface: eth0, peers: [192.0.2.2] }\n  - serial: {",
        "links[5]",
        "vrrp eth0 version 3 is a link already, and would hear this one",
    ),
    (
        "[198.51.100.11/24]",
        "[198.51.100.11/24, 198.51.100.11/32]",
        "groups[1].addresses",
        "198.51.100.11 stands here twice",
    ),
    (
        "[198.51.100.11/24]",
        "[192.0.2.2/24]",
        "groups[1].addresses",
        "192.0.2.2 is a node's own: heartbeats of the link udp eth0 go there",
    ),
    (
        "peers: [192.0.2.2]",
        "peers: []",
        "links[0].udp",
        "exactly one of",
    ),
    (
        "peers: [192.0.2.2]",
        "peers: [239.0.0.1]",
        "links[0].udp.peers[0]",
        "the IPv4 or IPv6 address of a host",
    ),
    (
        "multicast: 239.255.6.94",
        "multicast: 192.0.2.1",
        "links[1].udp.multicast",
        "a multicast address",
    ),
    (
        "broadcast: true }",
        "broadcast: true, peers: [192.0.2.2] }",
        "links[2].udp",
        "exactly one of",
    ),
    (
        "port: 695",
        "port: 65536",
        "links[1].udp.port",
        "a number from 1 to 65535",
    ),
    (
        "baud: 230400",
        "baud: 9600",
        "links[3]",
        "baud are too slow",
    ),
    (
        "version: 3",
        "version: 4",
        "links[4].vrrp.version",
        "a number from 2 to 3",
    ),
    (
        "version: 3",
        "interval: 105ms",
        "links[4].vrrp.interval",
        "whole hundredths",
    ),
    (
        "version: 3",
        "interval: 90ms",
        "links[4].vrrp.interval",
        "not less than keepalive",
    ),
    (
        "- serial: {",
        "- udp: { interface: eth5, broadcast: true }\n    serial: {",
        "links[3]",
        "one of the keys udp, serial, vrrp",
    ),
    (
        "interface: eth2, broadcast: true",
        "interface: eth0, peers: [192.0.2.2]",
        "links[2]",
        "stands here twice",
    ),
    (
        "addresses: [198.51.100.11/24]",
        "addresses: [198.51.100.10/24]",
        "groups[1].addresses",
        "another group too",
    ),
    (
        "addresses: [198.51.100.11/24]",
        "addresses: []",
        "groups[1].addresses",
        "at least one address",
    ),
    (
        "addresses: [198.51.100.11/24]",
        "addresses: [198.51.100.11]",
        "groups[1].addresses[0]",
        "with its prefix length",
    ),
    (
        "addresses: [198.51.100.11/24]",
        "addresses: [198.51.100.0/24]",
        "groups[1].addresses[0]",
        "a host's address",
    ),
    (
        "addresses: [198.51.100.11/24]",
        "addresses: [198.51.100.255/24]",
        "groups[1].addresses[0]",
        "a host's address",
    ),
    (
        "addresses: [198.51.100.11/24]",
        "addresses: [198.51.100.11/0]",
        "groups[1].addresses[0]",
        "a host's address",
    ),
    (
        "lb2: 100 }\n    vrid",
        "lb2: 150 }\n    vrid",
        "groups[0].priority.lb2",
        "another priority for each node",
    ),
    (
        "lb2: 100 }\n    vrid",
        "lb2: 0 }\n    vrid",
        "groups[0].priority.lb2",
        "a number from 1 to 255",
    ),
    (
        "lb2: 100 }\n    vrid",
        "lb2: 90 }\n    vrid",
        "together",
        "other priorities",
    ),
    ("vrid: 51\n", "\n", "groups[0].virtual_mac", "a vrid"),
    (
        "vrid: 51",
        "vrid: 256",
        "groups[0].vrid",
        "a number from 1 to 255",
    ),
    (
        "virtual_mac: true",
        "virtual_mac: yes",
        "groups[0].virtual_mac",
        "true or false",
    ),
    (
        "count: 3",
        "count: 0",
        "groups[0].announce.count",
        "a number from 1 to 60",
    ),
    (
        "[/etc/director/primary.sh, web]",
        "[primary.sh]",
        "groups[0].on_primary",
        "absolute path",
    ),
    (
        "[[web, mail]]",
        "[[web, male]]",
        "together[0]",
        "the name of a group",
    ),
    (
        "[[web, mail]]",
        "[[web, mail], [web]]",
        "together",
        "stands here twice",
    ),
    (
        "lowers: 20",
        "lowers: -1",
        "fitness.interfaces[1].lowers",
        "a number from 1 to 255",
    ),
    (
        "timeout: 1s, fall",
        "timeout: 3s, fall",
        "fitness.programs[0].timeout",
        "at most the interval",
    ),
    (
        "command: [/bin/true],",
        "",
        "fitness.programs[0].command",
        "the key is missing",
    ),
    (
        "[/sbin/fence, --now]",
        "[fence]",
        "fence.command",
        "absolute path",
    ),
];

#[test]
fn every_mistake_is_told_with_its_place() {
    for (from, to, path, words) in BAD {
        assert!(FULL.contains(from), "{from}");
        let text = FULL.replacen(from, to, 1);
        let Err(ConfigError::Mistakes(mistakes)) = parse("heartbeat.yaml", &text, "host") else {
            panic!("{to} was taken");
        };
        let is_it = |mistake: &&super::Mistake| {
            (path.is_empty() || mistake.path.starts_with(path))
                && mistake.to_string().contains(words)
        };
        assert!(
            mistakes.list.iter().find(is_it).is_some(),
            "{to}: expected {path}, {words}; found\n{mistakes}"
        );
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_their_order() {
    let text = FULL
        .replace("keepalive: 100ms", "keepalive: x")
        .replace("vrid: 51", "vrid: x");
    let Err(error) = parse("heartbeat.yaml", &text, "host") else {
        panic!()
    };
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("heartbeat.yaml:3:12: keepalive: found \"x\"; expected"),
        "{text}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("heartbeat.yaml:20:11: groups[0].vrid:")),
        "{text}"
    );
}

/// What follows from a mistake is none of its own, and each has a place.
#[test]
fn one_mistake_is_told_once() {
    for (from, to, place) in [
        ("node: lb1", "node: a b", "2:7"),
        ("node: lb1", "node: lb3", "2:7"),
        ("keepalive: 100ms", "keepalive: 100", "3:12"),
        ("[198.51.100.11/24]", "[198.51.100.11]", "26:17"),
        (
            "lb1: 150, lb2: 100 }\n    vrid",
            "lb1: 1500, lb2: 100 }\n    vrid",
            "19:22",
        ),
        ("name: mail", "name: m l", "24:11"),
        ("name: mail", "name: web", "24:5"),
        ("peers: [192.0.2.2]", "peers: [x]", "10:37"),
        ("broadcast: true", "broadcast: maybe", "12:40"),
        ("multicast: 239.255.6.94", "multicast: x", "11:40"),
        (
            "interval: 2s, timeout: 1s",
            "interval: 2, timeout: 2s",
            "32:48",
        ),
        (
            "interval: 2s, timeout: 1s",
            "interval: 2s, timeout: 3s",
            "32:61",
        ),
        ("    vrid: 51", "", "21:18"),
    ] {
        assert!(FULL.contains(from), "{from}");
        let text = FULL.replacen(from, to, 1);
        let text = if *place == *"24:5" {
            text.replace("together: [[web, mail]]", "")
        } else {
            text
        };
        let Err(ConfigError::Mistakes(mistakes)) = parse("heartbeat.yaml", &text, "host") else {
            panic!("{to} was taken");
        };
        let shown = mistakes.to_string();
        assert_eq!(mistakes.list.len(), 1, "{to}: {shown}");
        assert!(
            shown.starts_with(&format!("heartbeat.yaml:{place}: ")),
            "{to}: {shown}"
        );
    }
}

/// A key that cannot be used is told where it is named.
#[test]
fn keys_have_places() {
    let file = std::env::temp_dir().join(format!("heartbeat-keys-{}.yaml", std::process::id()));
    for (line, place) in [
        ("key: { id: 1, file: /nowhere/key }", "2:21: "),
        (
            "key:\n  id: 1 # /nowhere/key\n  file: /nowhere/key",
            "4:9: ",
        ),
        // By an escape: somewhere in the file.
        ("key: { id: 1, file: \"/nowhere\\x2fkey\" }", " "),
    ] {
        std::fs::write(
            &file,
            SMALL.replace("node: lb1", &format!("{line}\nnode: lb1")),
        )
        .unwrap();
        let error = load(&file, "host").unwrap_err().to_string();
        let expected = format!(
            "{}:{place}key: cannot read /nowhere/key: No such file",
            file.display()
        );
        assert!(error.starts_with(&expected), "{line}: {error}");
        assert!(
            error.contains("; expected a file with 16 to 1024 bytes"),
            "{error}"
        );
    }
    std::fs::remove_file(&file).unwrap();
}

/// What is missing in the whole file has no place in it.
#[test]
fn what_is_missing_is_told_all_at_once() {
    let error = parse("heartbeat.yaml", "node: lb1\n", "host")
        .unwrap_err()
        .to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 2, "{error}");
    assert!(
        lines[0].starts_with("heartbeat.yaml: groups: there are none; expected "),
        "{error}"
    );
    assert!(
        lines[1].starts_with("heartbeat.yaml: links: there are none; expected "),
        "{error}"
    );
}

#[test]
fn names_stand_once() {
    let text = FULL
        .replace("name: mail", "name: web")
        .replace("together: [[web, mail]]", "");
    let Err(error) = parse("heartbeat.yaml", &text, "host") else {
        panic!()
    };
    assert!(
        error.to_string().contains("the name web stands here twice"),
        "{error}"
    );
}

#[test]
fn nothing_is_not_a_configuration() {
    for text in [
        "",
        "{}",
        "node: lb1",
        "[]",
        "a: b: c",
        "node: lb1\nnode: lb2",
    ] {
        assert!(parse("heartbeat.yaml", text, "host").is_err(), "{text}");
    }
}

/// What stands where a secret should.
#[test]
fn only_a_file_of_ones_own_is_a_secret() {
    let directory = std::env::temp_dir().join(format!("secret-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("key");
    let refused = |what: &str| {
        let error = read_secret(&path).unwrap_err().to_string();
        assert!(error.contains(what), "{what}: {error}");
        std::fs::remove_file(&path).unwrap();
    };
    let mode = |mode| std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    // Nobody writes to it: it must not be waited for.
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    refused("no regular file");
    std::fs::write(&path, "a secret of sixteen\n").unwrap();
    mode(0o640);
    refused("chmod 600");
    std::fs::write(&path, "a secret of sixteen\n").unwrap();
    mode(0o600);
    assert_eq!(read_secret(&path).unwrap(), b"a secret of sixteen");
    // Another file than was meant: what is said is of keys, not of configurations.
    std::fs::write(&path, [b'x'; 5000]).unwrap();
    refused("the key has 5000 bytes; expected 16 to 1024");
    std::fs::write(&path, "a secret of sixteen\n").unwrap();
    mode(0o600);
    if geteuid().is_root() {
        chown(&path, Some(Uid::from_raw(65534)), None).unwrap();
        refused("belongs to the user with the number 65534");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Two ways over one interface are told apart by what they differ in.
#[test]
fn links_over_one_interface() {
    let text = SMALL.replace(
        "groups:",
        "  - udp: { interface: eth0, broadcast: true, port: 695 }
  - vrrp: { interface: eth1, version: 2 }
  - vrrp: { interface: eth1 }
groups:",
    );
    let text = text.replace("priority:", "vrid: 1, priority:");
    let names: Vec<String> = good(&text)
        .links
        .into_iter()
        .map(|link| link.name)
        .collect();
    assert_eq!(
        names,
        [
            "udp eth0:694",
            "udp eth0:695",
            "vrrp eth1 version 2",
            "vrrp eth1 version 3"
        ]
    );
}
