//! A director and a kernel's IPVS as each other's backup: one node of a running pair replaced, with the kernel's protocol.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use director_tests::director::{self, Service};
use director_tests::http::{Connection, Transfer};
use director_tests::ipvs_peer::{Guest, Origin, Role, announce};
use director_tests::lab::plan::CLIENT4;
use director_tests::lab::{Host, Lab, Process, Topology};
use director_tests::{PATIENCE, wait_until};

use crate::{CLIENT_PORT, LENGTH, MOVING, SERVICE, SYNC_ID, lab, serve_with};

/// The service, as either of the two is told of it.
#[derive(Clone, Copy)]
enum What {
    /// On its one port.
    Plain,
    /// The same; clients stay with their real servers.
    Persistent,
    /// Clients stay with their real servers whatever the port.
    PersistentOnAllPorts,
}

impl What {
    /// On a kernel.
    fn serve(self, guest: &mut Guest) {
        let (port, options) = match self {
            Self::Plain => (SERVICE.port(), ""),
            Self::Persistent => (SERVICE.port(), "-p 300"),
            Self::PersistentOnAllPorts => (0, "-p 300"),
        };
        serve_with(guest, SocketAddr::new(SERVICE.ip(), port), options);
    }

    /// In a director's file.
    fn yaml(self, lab: &Lab, host: Host) -> String {
        let service = Service {
            method: "nat",
            more: match self {
                Self::Plain => "",
                Self::Persistent | Self::PersistentOnAllPorts => "persistence: 5m",
            },
            ..Service::rr(SERVICE.ip(), SERVICE.port())
        };
        let extra = format!("sync: {{interface: eth1, protocol: ipvs, syncid: {SYNC_ID}}}\n");
        let yaml = director::yaml_on(lab, host, Topology::TwoDirectors, &[service], &extra);
        match self {
            Self::Plain | Self::Persistent => yaml,
            Self::PersistentOnAllPorts => {
                // The real servers' port is then the one that was asked.
                let of_servers = format!(", port: {}", SERVICE.port());
                let of_service = format!(" port: {}\n", SERVICE.port());
                yaml.replace(&of_servers, "")
                    .replace(&of_service, " port: any\n")
            }
        }
    }
}

/// A kernel that has the same service as the director.
fn guest(lab: &Lab, host: Host, role: Role, what: What) -> Guest {
    let mut guest = Guest::start(lab, host).unwrap();
    what.serve(&mut guest);
    guest.start_daemon(role, "eth1", SYNC_ID).unwrap();
    guest
}

fn start_director(lab: &Lab, host: Host, what: What) -> Process {
    let mut process = director::start_on(lab, host, &what.yaml(lab, host)).unwrap();
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

/// Ends the director on the first host as by a power cut: one that is only killed would go on forwarding.
fn cut_off(lab: &Lab, mut process: Process) {
    let switch = lab.host(Host::Switch).unwrap();
    switch
        .output("ip", &["link", "set", "director", "down"])
        .unwrap();
    process.kill().unwrap();
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
    let mut kernel = guest(&lab, Host::Backup, Role::Backup, What::Plain);
    let process = start_director(&lab, Host::Director, What::Plain);
    take(&lab, Host::Director);
    let mut transfer = begin(&lab);
    wait_until("the kernel knows of the connection", PATIENCE, || {
        transfer.read(1000)?;
        learned(&mut kernel).map(drop)
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", process.log()));
    cut_off(&lab, process);
    kernel.take("eth0", &MOVING).unwrap();
    transfer.finish().unwrap();
    kernel.stop().unwrap();
    println!("a download of {LENGTH} bytes went on from a director to a kernel's IPVS, whole");
}

#[test]
#[ignore = "needs root, network namespaces, BPF and user-mode-linux: cargo xtask test runs it"]
fn a_download_goes_on_from_a_kernel_to_a_director() {
    let (lab, _servers) = lab();
    let mut kernel = guest(&lab, Host::Director, Role::Master, What::Plain);
    kernel.take("eth0", &MOVING).unwrap();
    let process = start_director(&lab, Host::Backup, What::Plain);
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

/// Clients with an address each.
const CLIENTS: usize = 8;

fn client(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, 128 + number as u8)
}

fn add_clients(lab: &Lab) {
    let host = lab.host(Host::Client).unwrap();
    for number in 0..CLIENTS {
        let address = format!("{}/24", client(number));
        host.output("ip", &["address", "add", &address, "dev", "eth0"])
            .unwrap();
    }
}

/// Which real server answers each client, asked in this order; each asks from its address, and every time anew.
fn answers(lab: &Lab, order: impl Iterator<Item = usize> + Send) -> Vec<(usize, String)> {
    let asked = lab.host(Host::Client).unwrap().run(|| {
        order
            .map(|number| {
                let from = SocketAddr::from((client(number), 0));
                let connection = Connection::open_at(from, SERVICE, PATIENCE)?;
                Ok((number, connection.get_last("/")?.who()))
            })
            .collect::<Result<Vec<_>>>()
    });
    asked.unwrap().unwrap()
}

/// Whoever takes over sends clients to the servers that they had, though they ask in another order: under `rr` every other
/// one would have another, were they chosen anew.
fn same_servers(lab: &Lab, mut before: Vec<(usize, String)>) {
    assert!(
        before.windows(2).all(|two| two[0].1 != two[1].1),
        "{before:?}"
    );
    let evens_first = (0..CLIENTS).step_by(2).chain((1..CLIENTS).step_by(2));
    let mut after = answers(lab, evens_first);
    after.sort();
    before.sort();
    assert_eq!(after, before);
}

#[test]
#[ignore = "needs root, network namespaces, BPF and user-mode-linux: cargo xtask test runs it"]
fn clients_stay_with_their_servers_from_a_director_to_a_kernel() {
    from_director_to_kernel(What::Persistent);
}

#[test]
#[ignore = "needs root, network namespaces, BPF and user-mode-linux: cargo xtask test runs it"]
fn clients_of_all_ports_stay_with_their_servers_from_a_director_to_a_kernel() {
    from_director_to_kernel(What::PersistentOnAllPorts);
}

fn from_director_to_kernel(what: What) {
    let (lab, _servers) = lab();
    add_clients(&lab);
    let mut kernel = guest(&lab, Host::Backup, Role::Backup, what);
    let process = start_director(&lab, Host::Director, what);
    take(&lab, Host::Director);
    let before = answers(&lab, 0..CLIENTS);
    wait_until("the kernel knows of the clients", PATIENCE, || {
        let all = kernel.synced()?;
        let templates = all.iter().filter(|it| it.connection.client.port() == 0);
        ensure!(templates.count() == CLIENTS, "{all:?}");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", process.log()));
    cut_off(&lab, process);
    kernel.take("eth0", &MOVING).unwrap();
    same_servers(&lab, before);
    kernel.stop().unwrap();
    println!("{CLIENTS} clients stayed with their real servers from a director to a kernel's IPVS");
}

#[test]
#[ignore = "needs root, network namespaces, BPF and user-mode-linux: cargo xtask test runs it"]
fn clients_stay_with_their_servers_from_a_kernel_to_a_director() {
    from_kernel_to_director(What::Persistent);
}

#[test]
#[ignore = "needs root, network namespaces, BPF and user-mode-linux: cargo xtask test runs it"]
fn clients_of_all_ports_stay_with_their_servers_from_a_kernel_to_a_director() {
    from_kernel_to_director(What::PersistentOnAllPorts);
}

fn from_kernel_to_director(what: What) {
    let (lab, _servers) = lab();
    add_clients(&lab);
    let mut kernel = guest(&lab, Host::Director, Role::Master, what);
    kernel.take("eth0", &MOVING).unwrap();
    let process = start_director(&lab, Host::Backup, what);
    let before = answers(&lab, 0..CLIENTS);
    wait_until("the director knows of the clients", PATIENCE, || {
        let status = director::sync_status_on(&lab, Host::Backup)?;
        ensure!(status["learned_templates"] == CLIENTS, "{status}");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", process.log()));
    kernel.kill().unwrap();
    take(&lab, Host::Backup);
    same_servers(&lab, before);
    println!("{CLIENTS} clients stayed with their real servers from a kernel's IPVS to a director");
}
