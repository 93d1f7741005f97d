//! Connections that two nodes tell each other of.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod kernel;
mod mixed;

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use director_tests::demo;
use director_tests::ipvs_peer::{Guest, is_of_the_processor};
use director_tests::lab::plan::{VIRTUAL4, server4};
use director_tests::lab::{Gateway, Lab, LabOptions, Process, Topology};
use director_tests::left_out;

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

/// Guests that came up. None: on this processor none can run, which is said.
fn came_up<T>(started: Result<T>) -> Option<T> {
    match started {
        Err(error) if is_of_the_processor(&error) => {
            left_out(
                "user-mode-linux cannot run on this processor, which has more registers than it knows",
            );
            None
        }
        started => Some(started.unwrap()),
    }
}

/// The service, on a guest.
fn serve(guest: &mut Guest) {
    serve_with(guest, "");
}

/// The same with more options.
fn serve_with(guest: &mut Guest, options: &str) {
    let mut script = format!("ipvsadm -A -t {SERVICE} -s rr {options}\n");
    for number in [1, 2] {
        script += &format!("ipvsadm -a -t {SERVICE} -r {}:80 -m\n", server4(number));
    }
    guest.run(&script).unwrap();
}
