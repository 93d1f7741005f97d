//! A reload that changes the section `heartbeat`: the director gives its groups up and starts its heartbeat anew.

use std::fs;
use std::time::Instant;

use anyhow::ensure;
use director_tests::lab::Host;
use director_tests::{PATIENCE, director, wait_until};
use nix::sys::signal::Signal;

use crate::directors::NOTICED;
use crate::pair::{BOTH_CABLES, Pair, QUICK, Runs, other};

/// A group with this address besides, and these keys.
fn group(also: &str, more: &str) -> String {
    format!(
        "groups:
  - name: web
    interface: eth0
    addresses: [192.0.2.10/32, {also}/32]
    priority: {{director: 150, backup: 100}}
{more}"
    )
}

/// Waits until a node has this address, and so serves by a section that has it.
fn wait_address(pair: &Pair, node: Host, address: &str) {
    let waited = wait_until(&format!("{node} has {address}"), PATIENCE, || {
        let addresses = pair.ip(node, &["address"]);
        ensure!(addresses.contains(&format!("{address}/")), "{addresses}");
        Ok(())
    });
    waited.unwrap_or_else(|error| panic!("{error:#}\n{}", pair.logs()));
}

/// Whom it knew to be dead it does not wait for as after a boot: nobody else would serve meanwhile.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn the_only_director_alive_serves_again_soon() {
    let times = "keepalive: 100ms\ndeadtime: 300ms\ninitdead: 2m\n";
    let section = |also| [times, BOTH_CABLES, &group(also, "")].concat();
    let mut pair = Pair::up(Runs::Director, &[&section("192.0.2.30")]);
    let survivor = pair.wait_settled("web");
    pair.end(other(survivor), Signal::SIGKILL);
    let waited = wait_until("it knows that the other one is dead", PATIENCE, || {
        let status = pair.status(survivor)?;
        ensure!(status["nodes"][0]["state"] == "dead", "{status}");
        Ok(())
    });
    waited.unwrap_or_else(|error| panic!("{error:#}\n{}", pair.logs()));
    // The second one is told by the first, which has heard nobody.
    for also in ["192.0.2.31", "192.0.2.32"] {
        let (gap, _) = pair.gap(|pair| {
            pair.setup.section = section(also);
            pair.reload(survivor);
            wait_address(pair, survivor, also);
        });
        println!("reload of the only director: {} ms", gap.as_millis());
        assert!(gap < NOTICED, "{gap:?}");
    }
}

/// The main loop goes on while a program of a group runs, and what is wanted by its end is started.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn no_program_is_waited_for() {
    const PROGRAM: &str =
        "    on_backup: [/bin/sh, -c, 'while [ -e DIRECTORY/hold ]; do sleep 0.05; done']
    timeout: 2m
auto_failback: false
";
    let section = |also| [QUICK, BOTH_CABLES, &group(also, PROGRAM)].concat();
    let mut pair = Pair::up(Runs::Director, &[&section("192.0.2.30")]);
    let primary = pair.wait_settled("web");
    let hold = pair.lab.directory().join("hold");
    fs::write(&hold, "").unwrap();
    // The second one comes while what the first one stopped has not ended.
    for also in ["192.0.2.31", "192.0.2.32"] {
        pair.setup.section = section(also);
        pair.reload(primary);
        pair.wait_role(other(primary), "web", "primary");
        pair.wait_role(primary, "web", "stopped");
        let began = Instant::now();
        let status = director::status_on(&pair.lab, primary).unwrap();
        assert!(began.elapsed() < NOTICED, "{:?}", began.elapsed());
        let groups = status.heartbeat.unwrap().groups;
        assert_eq!(groups[0].role, "stopped");
    }
    fs::remove_file(&hold).unwrap();
    pair.wait_role(primary, "web", "backup");
    let logs = pair.logs();
    assert_eq!(logs.matches("heartbeat started").count(), 3, "{logs}");
    pair.command(primary, &["takeover", "web"]).unwrap();
    wait_address(&pair, primary, "192.0.2.32");
    // It ends, too.
    fs::write(&hold, "").unwrap();
    pair.setup.section = section("192.0.2.33");
    pair.reload(primary);
    pair.wait_role(primary, "web", "stopped");
    pair.signal(primary, Signal::SIGTERM);
    fs::remove_file(&hold).unwrap();
    pair.end(primary, Signal::SIGTERM);
    assert!(!pair.has_address(primary));
}
