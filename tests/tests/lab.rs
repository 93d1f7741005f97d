//! The lab itself, without a director: every host reaches what it should, and nothing is left behind.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use director_tests::lab::plan::{CLIENT4, CLIENT6, VIRTUAL4, VIRTUAL6, server4, server6};
use director_tests::lab::{Gateway, Host, Lab, LabOptions, Topology};
use director_tests::{PATIENCE, http, nginx, udp, wait_until};

const TIMEOUT: Duration = Duration::from_secs(5);

fn lab(topology: Topology, gateway: Gateway) -> Lab {
    Lab::up(&LabOptions {
        topology,
        gateway,
        ..LabOptions::default()
    })
    .unwrap()
}

/// Names of this lab's namespaces that exist.
fn namespaces(id: &str) -> Vec<String> {
    let output = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| name.starts_with(&format!("dlab-{id}-")))
        .map(str::to_owned)
        .collect()
}

/// The client reaches every real server over TCP and UDP, in both families, whichever way replies take.
fn check_reachable(topology: Topology, gateway: Gateway) {
    let lab = lab(topology, gateway);
    let client = lab.host(Host::Client).unwrap();
    for number in lab.servers() {
        let host = Host::Server(number);
        for address in [IpAddr::from(server4(number)), server6(number).into()] {
            let server = SocketAddr::new(address, 8080);
            lab.host(host)
                .unwrap()
                .run(|| {
                    http::serve_in_background(server, &host.to_string())?;
                    udp::echo_in_background(server, &host.to_string())
                })
                .unwrap()
                .unwrap();
            let seen = if address.is_ipv4() {
                CLIENT4.into()
            } else {
                IpAddr::from(CLIENT6)
            };
            client
                .run(|| {
                    let response = http::get(server, "/", TIMEOUT).unwrap();
                    let said = format!("{host} answered {server} for {}", SocketAddr::new(seen, 0));
                    assert!(
                        response.text().starts_with(said.trim_end_matches('0')),
                        "{}",
                        response.text()
                    );
                    let body = http::get(server, "/bytes/1000000", TIMEOUT).unwrap().body;
                    assert_eq!(body.len(), 1_000_000);
                    let answer = udp::ask(server, b"hello", TIMEOUT).unwrap();
                    assert_eq!(answer, format!("{host} hello").as_bytes());
                })
                .unwrap();
        }
    }
    lab.down().unwrap();
}

#[test]
#[ignore = "needs root and network namespaces: cargo xtask test runs it"]
fn servers_are_reached_through_two_interfaces_and_the_director() {
    check_reachable(Topology::TwoInterfaces, Gateway::Director);
}

#[test]
#[ignore = "needs root and network namespaces: cargo xtask test runs it"]
fn servers_are_reached_through_two_interfaces_and_the_router() {
    check_reachable(Topology::TwoInterfaces, Gateway::Router);
}

#[test]
#[ignore = "needs root and network namespaces: cargo xtask test runs it"]
fn servers_are_reached_through_one_interface_and_the_director() {
    check_reachable(Topology::OneInterface, Gateway::Director);
}

#[test]
#[ignore = "needs root and network namespaces: cargo xtask test runs it"]
fn servers_are_reached_through_one_interface_and_the_router() {
    check_reachable(Topology::OneInterface, Gateway::Router);
}

#[test]
#[ignore = "needs root and network namespaces: cargo xtask test runs it"]
fn the_gateway_can_be_changed_while_the_lab_is_up() {
    let lab = lab(Topology::TwoInterfaces, Gateway::Director);
    let server = lab.host(Host::Server(1)).unwrap();
    let check = |expected4: &str, expected6: &str| {
        for (client, expected) in [
            (IpAddr::from(CLIENT4), expected4),
            (CLIENT6.into(), expected6),
        ] {
            let route = server
                .output("ip", &["route", "get", &client.to_string()])
                .unwrap();
            assert!(route.contains(&format!("via {expected} ")), "{route}");
        }
    };
    check("10.0.0.1", "2001:db8:e::1");
    lab.set_gateway(Gateway::Router).unwrap();
    check("10.0.0.254", "2001:db8:e::fe");
    lab.set_gateway(Gateway::Director).unwrap();
    check("10.0.0.1", "2001:db8:e::1");
}

/// Requests for a virtual address go to the director and nowhere else, though real servers hold it too.
#[test]
#[ignore = "needs root and network namespaces: cargo xtask test runs it"]
fn virtual_addresses_are_the_directors() {
    for topology in [Topology::TwoInterfaces, Topology::OneInterface] {
        let lab = lab(topology, Gateway::Router);
        let client = lab.host(Host::Client).unwrap();
        for address in [IpAddr::from(VIRTUAL4[0]), VIRTUAL6[1].into()] {
            let service = SocketAddr::new(address, 80);
            for (host, name) in [(Host::Director, "director"), (Host::Server(1), "s1")] {
                let namespace = lab.host(host).unwrap();
                namespace
                    .run(|| http::serve_in_background(service, name))
                    .unwrap()
                    .unwrap();
            }
            let who = client
                .run(|| http::get(service, "/", TIMEOUT))
                .unwrap()
                .unwrap()
                .who();
            assert_eq!(who, "director", "{topology:?} {address}");
        }
    }
}

#[test]
#[ignore = "needs root, network namespaces and nginx: cargo xtask test runs it"]
fn nginx_serves_a_whole_file() {
    let lab = lab(Topology::TwoInterfaces, Gateway::Director);
    let mut server = nginx::start(&lab, 2).unwrap();
    let client = lab.host(Host::Client).unwrap();
    for address in [IpAddr::from(server4(2)), server6(2).into()] {
        for port in nginx::PORTS {
            let server = SocketAddr::new(address, port);
            let (line, file) = client
                .run(|| {
                    (
                        http::get(server, "/", TIMEOUT),
                        http::get(server, "/transfer", TIMEOUT),
                    )
                })
                .unwrap();
            let line = line.unwrap().text();
            assert!(
                line.starts_with("s2 answered ") && line.contains(" for "),
                "{line}"
            );
            let file = file.unwrap().body;
            assert_eq!(file.len(), nginx::TRANSFER_BYTES);
            assert!(
                file.iter()
                    .enumerate()
                    .all(|(at, &byte)| byte == http::pattern(at))
            );
        }
    }
    assert!(server.stop().unwrap().success());
}

#[test]
#[ignore = "needs root and network namespaces: cargo xtask test runs it"]
fn labs_stand_side_by_side_and_leave_nothing() {
    let first = lab(Topology::TwoInterfaces, Gateway::Director);
    let second = lab(Topology::OneInterface, Gateway::Router);
    let ids = [first.id().to_owned(), second.id().to_owned()];
    assert_ne!(ids[0], ids[1]);
    // client, router, director, switch, three real servers
    assert_eq!(ids.each_ref().map(|id| namespaces(id).len()), [7, 7]);
    let directory = first.directory().to_owned();
    assert!(directory.is_dir());

    let mut command = Command::new("sleep");
    command.arg("600");
    let sleeper = second
        .host(Host::Client)
        .unwrap()
        .spawn(command, second.directory().join("sleep.log"))
        .unwrap();
    let sleeper_id = sleeper.id();
    sleeper.leave_running();

    drop(first);
    assert_eq!(ids.each_ref().map(|id| namespaces(id).len()), [0, 7]);
    assert!(!directory.exists());
    second.down().unwrap();
    assert_eq!(ids.each_ref().map(|id| namespaces(id).len()), [0, 0]);
    for id in &ids {
        assert!(
            !std::path::Path::new("/sys/fs/bpf/director-lab")
                .join(id)
                .exists()
        );
    }
    // Ended with its lab; the entry stays until this process, its parent, has asked.
    let state = std::fs::read_to_string(format!("/proc/{sleeper_id}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
}

/// Starts `lab demo`-like work in a process of its own, ends it in the middle, and looks at what is left.
fn check_ended(signal: &str, cleans_up_itself: bool) {
    let lab = env!("CARGO_BIN_EXE_lab");
    let mut child = Command::new(lab)
        .arg("hold")
        .stdin(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let prefix = format!("{}n", child.id());
    let of_child = || {
        let output = Command::new("ip").args(["netns", "list"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .filter(|line| line.starts_with(&format!("dlab-{prefix}")))
            .count()
    };
    wait_until("the lab comes up", PATIENCE, || {
        anyhow::ensure!(of_child() == 7, "{} namespaces", of_child());
        Ok(())
    })
    .unwrap();
    let status = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
    assert!(!child.wait().unwrap().success());
    assert_eq!(of_child(), if cleans_up_itself { 0 } else { 7 }, "{signal}");
    if !cleans_up_itself {
        // The next lab that comes up clears it.
        drop(self::lab(Topology::OneInterface, Gateway::Director));
        assert_eq!(of_child(), 0, "{signal}");
    }
}

#[test]
#[ignore = "needs root and network namespaces: cargo xtask test runs it"]
fn an_interrupted_or_killed_program_leaves_no_lab() {
    check_ended("-INT", true);
    check_ended("-TERM", true);
    check_ended("-KILL", false);
}
