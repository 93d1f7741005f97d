//! The kernel's IPVS alone, on one node and on both: what ours is to do in the place of either, and that the lab is fit
//! to show it.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use director_tests::ipvs_peer::{Guest, Origin, Role};
use director_tests::lab::plan::{CLIENT4, server4};
use director_tests::lab::{Host, Lab, LabOptions};
use director_tests::{PATIENCE, http, wait_until};

use crate::{CLIENT_PORT, LENGTH, MOVING, SERVICE, SYNC_ID, lab, serve};

/// Group and port of the kernel's synchronisation (`IP_VS_SYNC_GROUP`, `IP_VS_SYNC_PORT` of `ip_vs.h`).
const SYNC_GROUP: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 0, 81), 8848);
/// The nodes' address on the cable between them, in the second one's place.
const BACKUP_ON_CABLE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);

fn connect(lab: &Lab) -> http::Connection {
    let client = lab.host(Host::Client).unwrap();
    client
        .run(|| http::Connection::open_from(CLIENT_PORT, SERVICE, PATIENCE))
        .unwrap()
        .unwrap()
}

/// Which real server a node has for the client's connection, and where from; what it has else if none.
fn bound(guest: &mut Guest) -> Result<(SocketAddr, Origin)> {
    let all = guest.synced()?;
    let client = SocketAddr::from((CLIENT4, CLIENT_PORT));
    let found = all.iter().find(|it| it.connection.client == client);
    let found = found.with_context(|| format!("it has no such connection, but {all:?}"))?;
    ensure!(
        found.connection.state == "ESTABLISHED",
        "not established: {found:?}"
    );
    Ok((found.connection.real_server, found.origin))
}

#[test]
#[ignore = "needs root, network namespaces and user-mode-linux: cargo xtask test runs it"]
fn a_kernel_in_the_place_of_a_director_forwards_and_tells() {
    let (lab, _servers) = lab();
    let mut guest = Guest::start(&lab, Host::Director).unwrap();
    serve(&mut guest);
    guest.take("eth0", &MOVING).unwrap();
    // In the place of the other node stands whoever listens: its namespace has its addresses.
    let listener = lab
        .host(Host::Backup)
        .unwrap()
        .run(listen)
        .unwrap()
        .unwrap();
    guest.start_daemon(Role::Master, "eth1", SYNC_ID).unwrap();

    let transfer = connect(&lab).transfer("/bytes/1000").unwrap();
    transfer.finish().unwrap();
    let all = guest.connections().unwrap();
    let client = SocketAddr::from((CLIENT4, CLIENT_PORT));
    let found = all.iter().find(|it| it.client == client).unwrap();
    assert_eq!(found.virtual_address, SERVICE);
    assert!(
        [1, 2]
            .map(|number| SocketAddr::from((server4(number), 80)))
            .contains(&found.real_server),
        "{found:?}"
    );

    let message = receive(&listener).unwrap();
    println!("the kernel's first message: {message:02x?}");
    // Version 1: a zero, the id, the length, connections, version 1, two zeros; then the first of them.
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    assert_eq!(message[..4], [0, SYNC_ID, length[0], length[1]]);
    assert_eq!(message[5..8], [1, 0, 0]);
    assert!(message[4] >= 1 && message.len() >= 44);
    // IPv4, TCP; its ports: of the client and of the service.
    assert_eq!(message[8..10], [0, 6]);
    assert_eq!(message[18..20], CLIENT_PORT.to_be_bytes());
    assert_eq!(message[20..22], SERVICE.port().to_be_bytes());
    assert_eq!(message[32..36], CLIENT4.octets());
    guest.stop().unwrap();
}

/// A socket that gets what a kernel master says on the cable.
fn listen() -> Result<UdpSocket> {
    let (group, port) = SYNC_GROUP;
    let socket = UdpSocket::bind((group, port))?;
    socket.join_multicast_v4(&group, &BACKUP_ON_CABLE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn receive(socket: &UdpSocket) -> Result<Vec<u8>> {
    let mut buffer = vec![0; 65_536];
    let length = socket.recv(&mut buffer).context("no message came")?;
    buffer.truncate(length);
    Ok(buffer)
}

#[test]
#[ignore = "needs root, network namespaces and user-mode-linux: cargo xtask test runs it"]
fn a_download_goes_on_from_one_kernel_to_the_other() {
    let (lab, _servers) = lab();
    let hosts = [Host::Director, Host::Backup];
    let [mut master, mut backup] = Guest::start_all(&lab, hosts).unwrap();
    for guest in [&mut master, &mut backup] {
        serve(guest);
    }
    backup.start_daemon(Role::Backup, "eth1", SYNC_ID).unwrap();
    master.start_daemon(Role::Master, "eth1", SYNC_ID).unwrap();
    master.take("eth0", &MOVING).unwrap();

    let mut transfer = connect(&lab).transfer(&format!("/bytes/{LENGTH}")).unwrap();
    transfer.read(LENGTH / 64).unwrap();
    let (server, origin) = bound(&mut master).unwrap();
    assert_eq!(origin, Origin::Local);
    wait_until("the backup knows of the connection", PATIENCE, || {
        // What flows meanwhile are packets that the master tells of.
        transfer.read(1000)?;
        ensure!(bound(&mut backup)? == (server, Origin::Sync), "otherwise");
        Ok(())
    })
    .unwrap();

    // The master is gone as by a power cut, and the backup has its addresses.
    master.kill().unwrap();
    backup.take("eth0", &MOVING).unwrap();
    transfer.finish().unwrap();
    let packets = backup.run("ipvsadm -Ln --stats --exact").unwrap();
    println!("after it, on the backup:\n{packets}");
    let moved: u64 = packets
        .lines()
        .filter(|line| line.contains(&server.to_string()))
        .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
        .sum();
    // The rest: what the client's kernel holds for it already, tens of megabytes where memory is plenty, came before.
    assert!(
        moved > LENGTH as u64 / 16,
        "the rest did not come by way of the backup:\n{packets}"
    );
    backup.stop().unwrap();
}

#[test]
#[ignore = "needs root, network namespaces and user-mode-linux: cargo xtask test runs it"]
fn what_goes_wrong_in_a_guest_is_said() {
    let lab = Lab::up(&LabOptions {
        servers: 1,
        ..LabOptions::default()
    })
    .unwrap();
    let mut guest = Guest::start(&lab, Host::Director).unwrap();
    let error = guest.run("echo before\nipvsadm --no-such-option\necho after");
    let error = format!("{:#}", error.unwrap_err());
    assert!(
        error.contains("before") && error.contains("no-such-option"),
        "{error}"
    );
    assert!(!error.contains("\nafter"), "{error}");
    // It still does as it is told.
    assert_eq!(guest.run("echo here").unwrap(), "here\n");
    guest.stop().unwrap();

    // What is said of one that cannot go on: here it ends itself.
    let mut guest = Guest::start(&lab, Host::Director).unwrap();
    let error = format!("{:#}", guest.run("kill -9 1; busybox halt -f").unwrap_err());
    assert!(error.contains("its console said"), "{error}");
    let namespace = lab.host(Host::Director).unwrap();
    drop(guest);
    wait_until("nothing of it is left", PATIENCE, || {
        let left = director_tests::servers::output(std::process::Command::new("ip").args([
            "netns",
            "pids",
            namespace.name(),
        ]))?;
        ensure!(left.trim().is_empty(), "processes {left}");
        Ok(())
    })
    .unwrap();
}
