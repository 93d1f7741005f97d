//! Two directors in other arrangements: the preferred one takes its group back, each serves half and stands by for the other,
//! the MAC address moves too, nothing but a serial line lies between them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use director::control::CheckStatus;
use director_tests::lab::Host;
use director_tests::lab::plan::VIRTUAL4;
use director_tests::{PATIENCE, wait_until};
use nix::sys::signal::Signal;

use crate::cable::Cable;
use crate::directors::{NOTICED, after, mac_of};
use crate::pair::{BOTH_CABLES, NODES, ONE_GROUP, Pair, QUICK, Runs, SERVICE, Setup, other};
use crate::sync::{begin_at, finish};

/// A group of its own on each of the two addresses, each preferred by another node.
pub(crate) const TWO_GROUPS: &str = "\
groups:
  - {name: web, interface: eth0, addresses: [192.0.2.10/32], priority: {director: 150, backup: 100}}
  - {name: mail, interface: eth0, addresses: [192.0.2.20/32], priority: {director: 100, backup: 150}}
";
/// The service of the second group.
const MAIL: SocketAddr = SocketAddr::new(IpAddr::V4(VIRTUAL4[1]), 80);
/// RFC 9568 section 7.3, for the number 51.
const VIRTUAL_MAC: &str = "00:00:5e:00:01:33";

/// The MAC address that the router sends to this address by, without asking anew.
fn known(pair: &Pair, address: &str) -> String {
    let neighbours = pair.ip(Host::Router, &["neigh", "show", address]);
    after(&neighbours, "lladdr")
}

/// The preferred node is primary, and the other one knows.
fn wait_preferred(pair: &mut Pair) {
    pair.wait_role(Host::Director, "web", "primary");
    pair.wait_role(Host::Backup, "web", "backup");
}

/// Ends the preferred director, and starts it again: what a client notices of both. `is_right` looks at the router after each.
fn there_and_back(
    pair: &mut Pair,
    what: &str,
    signal: Signal,
    is_right: impl Fn(&Pair, Host) -> bool,
) {
    wait_preferred(pair);
    let (there, _) = pair.gap(|pair| {
        pair.end(Host::Director, signal);
        pair.wait_role(Host::Backup, "web", "primary");
    });
    assert!(is_right(pair, Host::Backup), "{what}, {signal}");
    let (back, _) = pair.gap(|pair| {
        pair.start(Host::Director);
        wait_preferred(pair);
    });
    assert!(is_right(pair, Host::Director), "{what}, {signal}");
    assert!(!pair.has_address(Host::Backup), "{what}, {signal}");
    let (there, back) = (there.as_millis(), back.as_millis());
    println!("{what}, {signal}: {there} ms, and {back} ms when it takes the group back");
    let most = NOTICED.as_millis();
    assert!(
        there < most && back < most,
        "{what}, {signal}: {there} {back}"
    );
}

#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn the_preferred_director_takes_its_group_back() {
    let sections = [QUICK, "auto_failback: true\n", BOTH_CABLES, ONE_GROUP];
    let mut pair = Pair::up(Runs::Director, &sections);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        // The router's cache is right because it was told, not because it asked.
        there_and_back(&mut pair, "failback", signal, |pair, node| {
            known(pair, "192.0.2.10") == mac_of(pair, node)
        });
    }
}

#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn the_mac_address_moves_too() {
    let links = BOTH_CABLES.to_owned() + "  - vrrp: {interface: eth0}\n";
    let group = ONE_GROUP.to_owned() + "    vrid: 51\n    virtual_mac: true\n";
    let mut pair = Pair::up(Runs::Director, &[QUICK, &links, &group]);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        // Whoever serves, nothing changes for the router.
        there_and_back(&mut pair, "virtual MAC", signal, |pair, _| {
            known(pair, "192.0.2.10") == VIRTUAL_MAC
        });
    }
}

#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn nothing_but_a_serial_line_lies_between_them() {
    let cable = Cable::new();
    let mut pair = Pair::up_as(Setup {
        // Each has its own end.
        own: Some([0, 1].map(|end: usize| {
            format!(
                "links: [{{serial: {{device: {}}}}}]\n",
                cable.devices[end].display()
            )
        })),
        ..Setup::new(Runs::Director, &[QUICK, ONE_GROUP])
    });
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        there_and_back(&mut pair, "serial line", signal, |pair, node| {
            known(pair, "192.0.2.10") == mac_of(pair, node)
        });
    }
}

/// One dies: the other one serves both groups, and its own without a break; the one that comes back has its own again. Each
/// tells the other of its connections, so that those of both groups go there and back.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn two_directors_back_each_other_up() {
    let mut pair = Pair::up_as(Setup {
        also: Some(MAIL),
        more: "sync: {interface: eth1}\n".to_owned(),
        ..Setup::new(Runs::Director, &[QUICK, BOTH_CABLES, TWO_GROUPS])
    });
    let own = [(Host::Director, "web"), (Host::Backup, "mail")];
    let wait_own = |pair: &mut Pair| {
        for (node, group) in own {
            pair.wait_role(node, group, "primary");
            pair.wait_role(other(node), group, "backup");
        }
    };
    let wait_shared = |pair: &mut Pair| {
        for node in NODES {
            pair.wait_shared(node);
        }
    };
    let addresses = [SERVICE, MAIL].map(|service| service.ip().to_string());
    let knows = |pair: &Pair, nodes: [Host; 2]| {
        for (address, node) in addresses.iter().zip(nodes) {
            assert_eq!(known(pair, address), mac_of(pair, node), "{address}");
        }
    };
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        for (node, group) in own {
            wait_own(&mut pair);
            wait_shared(&mut pair);
            let transfers = [SERVICE, MAIL].map(|service| begin_at(&pair, service, 5));
            wait_shared(&mut pair);
            let there = pair.gaps(&[SERVICE, MAIL], |pair| {
                pair.end(node, signal);
                pair.wait_role(other(node), group, "primary");
            });
            knows(&pair, [other(node); 2]);
            let back = pair.gaps(&[SERVICE, MAIL], |pair| {
                pair.start(node);
                wait_own(pair);
            });
            knows(&pair, NODES);
            println!(
                "mutual, {node} {signal}: web and mail {there:?}, {back:?} when it comes back"
            );
            for (transfers, name) in transfers.into_iter().zip(["web", "mail"]) {
                finish(&pair, transfers, &format!("{name} over {node}'s {signal}"));
            }
            let all = there.iter().chain(&back);
            assert!(
                all.into_iter().all(|gap| *gap < NOTICED),
                "{there:?} {back:?}"
            );
        }
    }
}

/// Real servers answer for the virtual address themselves: a check that came from it they would answer to themselves, and the
/// director that takes the address over would find all of them down.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn checks_come_from_a_directors_own_address() {
    // In the network of the real servers and of the directors, as an address beside theirs and as one with the same prefix.
    for length in [64, 128] {
        let group = format!(
            "\
groups:
  - name: web
    interface: eth0
    addresses: [\"{INSIDE}/{length}\"]
    priority: {{director: 150, backup: 100}}
"
        );
        let sections = [QUICK, "auto_failback: false\n", BOTH_CABLES, &group];
        let mut pair = Pair::up_as(Setup {
            service: SocketAddr::new(IpAddr::V6(INSIDE), 80),
            service_more: "check: {type: http, interval: 100ms, timeout: 10s}\n".to_owned(),
            ..Setup::new(Runs::Director, &sections)
        });
        for number in pair.lab.servers() {
            let held = format!("{INSIDE}/128");
            pair.ip(
                Host::Server(number),
                &["address", "add", &held, "dev", "lo"],
            );
        }
        let primary = pair.wait_settled("web");
        wait_checked(&pair, primary);
        let service = [pair.setup.service];
        let gaps = pair.gaps(&service, |pair| {
            pair.end(primary, Signal::SIGTERM);
            pair.wait_role(other(primary), "web", "primary");
            wait_checked(pair, other(primary));
        });
        println!("/{length}: {} ms", gaps[0].as_millis());
        assert!(gaps[0] < NOTICED, "{gaps:?}");
    }
}

/// A virtual address in the network of the real servers.
const INSIDE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xe, 0, 0, 0, 0, 0x50);

/// Waits until a node's checks have run a few times more: all of these runs were good.
fn wait_checked(pair: &Pair, node: Host) {
    const MORE: u64 = 5;
    let runs = |pair: &Pair| -> Result<Vec<(u64, u64)>> {
        let text = pair.command(node, &["checks", "--json"])?;
        let checks: Vec<CheckStatus> = serde_json::from_str(&text)?;
        ensure!(checks.len() == pair.lab.servers().count(), "{text}");
        Ok(checks.iter().map(|it| (it.runs, it.failures)).collect())
    };
    let before = runs(pair).unwrap();
    let waited = wait_until("the checks have run a few times", PATIENCE, || {
        for ((runs, failures), (runs_before, failures_before)) in runs(pair)?.iter().zip(&before) {
            ensure!(failures == failures_before, "a check has failed");
            ensure!(*runs >= runs_before + MORE, "{runs} runs");
        }
        Ok(())
    });
    waited.unwrap_or_else(|error| {
        let checks = pair.command(node, &["checks"]).unwrap_or_default();
        panic!("{error:#}\n{checks}\n{}", pair.logs())
    });
}
