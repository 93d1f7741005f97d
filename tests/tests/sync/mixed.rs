//! A director and a kernel's IPVS as each other's backup: one node of a running pair replaced, with the kernel's protocol.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use director_tests::director::{self, Service};
use director_tests::http::{Connection, Transfer};
use director_tests::ipvs_peer::{Guest, Origin, Role, announce};
use director_tests::lab::plan::CLIENT4;
use director_tests::lab::{Host, Lab, Process, Topology};
use director_tests::{PATIENCE, wait_until};

use crate::{CLIENT_PORT, LENGTH, MOVING, SERVICE, SYNC_ID, lab, serve};

/// A kernel that has the same services as the director.
fn guest(lab: &Lab, host: Host, role: Role) -> Guest {
    let mut guest = Guest::start(lab, host).unwrap();
    serve(&mut guest);
    guest.start_daemon(role, "eth1", SYNC_ID).unwrap();
    guest
}

fn start_director(lab: &Lab, host: Host) -> Process {
    let service = Service {
        method: "nat",
        ..Service::rr(SERVICE.ip(), SERVICE.port())
    };
    let extra = format!("sync: {{interface: eth1, protocol: ipvs, syncid: {SYNC_ID}}}\n");
    let yaml = director::yaml_on(lab, host, Topology::TwoDirectors, &[service], &extra);
    let mut process = director::start_on(lab, host, &yaml).unwrap();
    director::wait_ready_on(lab, host, &mut process).unwrap();
    process
}

/// Has a director's host take the moving addresses, as an operator would, or his keepalived.
fn take(lab: &Lab, host: Host) {
    let host = lab.host(host).unwrap();
    for address in MOVING {
        host.output("ip", &["address", "add", address, "dev", "eth0"])
            .unwrap();
    }
    host.output("sh", &["-c", &announce("eth0", &MOVING)])
        .unwrap();
}

fn begin(lab: &Lab) -> Transfer {
    let client = lab.host(Host::Client).unwrap();
    client
        .run(|| {
            let connection = Connection::open_from(CLIENT_PORT, SERVICE, PATIENCE)?;
            let mut transfer = connection.transfer(&format!("/bytes/{LENGTH}"))?;
            transfer.read(LENGTH / 64)?;
            Ok::<_, anyhow::Error>(transfer)
        })
        .unwrap()
        .unwrap()
}

/// The client's connection on a kernel, if it came from its peer.
fn learned(guest: &mut Guest) -> Result<SocketAddr> {
    let client = SocketAddr::from((CLIENT4, CLIENT_PORT));
    let all = guest.synced()?;
    let found = all.iter().find(|it| it.connection.client == client);
    let found = found.with_context(|| format!("it has no such connection, but {all:?}"))?;
    ensure!(
        found.origin == Origin::Sync && found.connection.state == "ESTABLISHED",
        "{found:?}"
    );
    Ok(found.connection.real_server)
}

#[test]
#[ignore = "needs root, network namespaces, BPF and user-mode-linux: cargo xtask test runs it"]
fn a_download_goes_on_from_a_director_to_a_kernel() {
    let (lab, _servers) = lab();
    let mut kernel = guest(&lab, Host::Backup, Role::Backup);
    let mut process = start_director(&lab, Host::Director);
    take(&lab, Host::Director);
    let mut transfer = begin(&lab);
    wait_until("the kernel knows of the connection", PATIENCE, || {
        transfer.read(1000)?;
        learned(&mut kernel).map(drop)
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", process.log()));
    // As by a power cut: a director that is only killed would go on forwarding.
    let switch = lab.host(Host::Switch).unwrap();
    switch
        .output("ip", &["link", "set", "director", "down"])
        .unwrap();
    process.kill().unwrap();
    kernel.take("eth0", &MOVING).unwrap();
    transfer.finish().unwrap();
    kernel.stop().unwrap();
    println!("a download of {LENGTH} bytes went on from a director to a kernel's IPVS, whole");
}

#[test]
#[ignore = "needs root, network namespaces, BPF and user-mode-linux: cargo xtask test runs it"]
fn a_download_goes_on_from_a_kernel_to_a_director() {
    let (lab, _servers) = lab();
    let mut kernel = guest(&lab, Host::Director, Role::Master);
    kernel.take("eth0", &MOVING).unwrap();
    let process = start_director(&lab, Host::Backup);
    let mut transfer = begin(&lab);
    wait_until("the director knows of the connection", PATIENCE, || {
        transfer.read(1000)?;
        let status = director::sync_status_on(&lab, Host::Backup)?;
        ensure!(status["applied"]["taken"].as_u64() > Some(0), "{status}");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", process.log()));
    kernel.kill().unwrap();
    take(&lab, Host::Backup);
    let ended = transfer.finish();
    let status = director::sync_status_on(&lab, Host::Backup).unwrap();
    ended.unwrap_or_else(|error| panic!("{error:#}\n{status}\n{}", process.log()));
    assert_eq!(
        status["kernel"]["refused"],
        serde_json::json!({}),
        "{status}"
    );
    println!("a download of {LENGTH} bytes went on from a kernel's IPVS to a director, whole");
}
