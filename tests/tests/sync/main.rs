//! Connections that two nodes tell each other of.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod kernel;
mod mixed;

use std::net::{IpAddr, SocketAddr};

use director_tests::demo;
use director_tests::ipvs_peer::Guest;
use director_tests::lab::plan::{VIRTUAL4, server4};
use director_tests::lab::{Gateway, Lab, LabOptions, Process, Topology};

/// Where clients ask.
const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(VIRTUAL4[0]), 80);
/// Which go to whoever is in charge: to the virtual address clients send, to the other one real servers.
const MOVING: [&str; 2] = ["192.0.2.10/32", "10.0.0.100/24"];
/// The id that both nodes have.
const SYNC_ID: u8 = 7;
/// The port that the client of these tests asks from.
const CLIENT_PORT: u16 = 40_000;
/// Bytes of a download: far more than the client's kernel takes without anybody reading.
const LENGTH: usize = 64_000_000;

/// A lab with room for two nodes, and NAT real servers that answer by way of the moving gateway.
fn lab() -> (Lab, Vec<Process>) {
    let lab = Lab::up(&LabOptions {
        topology: Topology::TwoDirectors,
        gateway: Gateway::Director,
        servers: 2,
        ..LabOptions::default()
    })
    .unwrap();
    let servers = demo::start_http_servers(&lab).unwrap();
    (lab, servers)
}

/// The service, on a guest.
fn serve(guest: &mut Guest) {
    serve_with(guest, SERVICE, "");
}

/// The same at this port with more options. Port 0: at all of them, and each goes to the real servers' of that number.
fn serve_with(guest: &mut Guest, service: SocketAddr, options: &str) {
    let mut script = format!("ipvsadm -A -t {service} -s rr {options}\n");
    for number in [1, 2] {
        let server = SocketAddr::from((server4(number), service.port()));
        script += &format!("ipvsadm -a -t {service} -r {server} -m\n");
    }
    guest.run(&script).unwrap();
}
