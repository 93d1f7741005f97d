//! Sequences of packets whose harm shows in the connection table, not in a packet. Single packets are the business of
//! the packet cases in the workspace's tests.

use super::{Verdict, run};
use crate::atomic::load;
use crate::connection::{Value, key4};
use crate::layout::{
    Destination, Endpoint, Endpoint4, Load, NextHop, Served, Service, Settings, SharedBy, address,
    method, scheduler,
};
use crate::native::{Frame, NativeTables};
use crate::reach::Narrow;
use crate::state::State;
use crate::table;
use crate::wire::{protocol, tcp};

const VIRTUAL: [u8; 4] = [192, 0, 2, 10];
const CLIENT: [u8; 4] = [198, 51, 100, 10];
const SERVERS: [[u8; 4]; 2] = [[10, 0, 0, 1], [10, 0, 0, 2]];
const NOW_S: u32 = 50_000;

/// One NAT service of a protocol on port 80 with two real servers on port 8080, in turn.
fn tables(protocol: u8) -> NativeTables {
    let settings = Settings {
        now_s: NOW_S,
        cpus: 4,
        buckets4: 64,
        buckets6: 64,
        seed: 5,
        ..Settings::default()
    };
    let mut tables = NativeTables::new(settings, 3);
    let endpoint = |address, port: u16| Endpoint4 {
        address,
        port: port.to_be_bytes(),
        protocol,
        zero: 0,
    };
    let field = |address: [u8; 4]| {
        let mut field = [0; 16];
        field[..4].copy_from_slice(&address);
        field
    };
    tables
        .services4
        .insert(endpoint(VIRTUAL, 80), Served::new(1, 1));
    tables.endpoints.insert(
        1,
        Endpoint {
            address: field(VIRTUAL),
            port: 80_u16.to_be_bytes(),
            last_port: 80_u16.to_be_bytes(),
            service: 1,
            protocol,
            family: 4,
        },
    );
    tables.addresses4.insert(VIRTUAL, address::VIRTUAL);
    tables.services.insert(
        1,
        Service {
            first_slot: 0,
            slots: 2,
            scheduler: scheduler::CURSOR,
            family: 4,
            ..Service::default()
        },
    );
    tables.slots = vec![1, 2];
    for (id, server) in (1..).zip(SERVERS) {
        tables.destinations.insert(
            id,
            Destination {
                method: method::NAT,
                port: 8080_u16.to_be_bytes(),
                service: 1,
                address: field(server),
                next_hop: NextHop {
                    ifindex: 2,
                    mtu: 1500,
                    ..NextHop::default()
                },
                ..Destination::default()
            },
        );
        let load = Load {
            weight: 1.into(),
            ..Load::default()
        };
        tables.loads.insert(id, load);
        let mut shared = SharedBy::default();
        shared.endpoints[0] = 1;
        tables.real_servers4.insert(endpoint(server, 8080), shared);
    }
    tables
}

/// A frame with one segment or datagram.
fn frame(
    protocol: u8,
    (source, source_port): ([u8; 4], u16),
    (destination, destination_port): ([u8; 4], u16),
    flags: u8,
) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    bytes.extend([0x45, 0, 0, 40, 0, 1, 0, 0, 64, protocol, 0, 0]);
    bytes.extend(source);
    bytes.extend(destination);
    bytes.extend(source_port.to_be_bytes());
    bytes.extend(destination_port.to_be_bytes());
    // Elsewhere in TCP's header than in UDP's, whose length this is.
    bytes.extend([0, 20, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    bytes
}

fn send(tables: &NativeTables, cpu: u32, bytes: &[u8]) -> (Verdict, Vec<u8>) {
    tables.cpu.set(cpu);
    let mut frame = Frame::new(bytes, 1);
    let verdict = run(&mut frame, tables);
    (verdict, frame.bytes())
}

/// A packet of the client to the service.
fn ask(tables: &NativeTables, cpu: u32, protocol: u8, flags: u8) -> usize {
    let (verdict, out) = send(
        tables,
        cpu,
        &frame(protocol, (CLIENT, 4000), (VIRTUAL, 80), flags),
    );
    assert!(matches!(verdict, Verdict::Redirect(_)), "{verdict:?}");
    let server = SERVERS.iter().position(|server| out[30..34] == *server);
    server.expect("it went to a real server")
}

/// A reply of a real server.
fn reply(tables: &NativeTables, cpu: u32, protocol: u8, server: usize, flags: u8) {
    let bytes = frame(protocol, (SERVERS[server], 8080), (CLIENT, 4000), flags);
    let (_, out) = send(tables, cpu, &bytes);
    assert_eq!(out[26..30], VIRTUAL, "it came from the virtual address");
}

/// Values in the IPv4 table of a CPU.
fn values(tables: &NativeTables, cpu: usize) -> Vec<Value> {
    let buckets = &tables.buckets4()[cpu * 64..][..64];
    let values = buckets.iter().flat_map(|bucket| &bucket.values);
    values
        .map(|value| Value(load(value)))
        .filter(|value| value.is_some())
        .collect()
}

#[test]
fn a_port_used_again_replaces_the_copy_of_the_connection_before() {
    let tables = tables(protocol::TCP);
    let first = ask(&tables, 0, protocol::TCP, tcp::SYN);
    reply(&tables, 1, protocol::TCP, first, tcp::SYN | tcp::ACK);
    ask(&tables, 0, protocol::TCP, tcp::FIN | tcp::ACK);
    let second = ask(&tables, 0, protocol::TCP, tcp::SYN);
    assert_ne!(first, second, "a closing connection is scheduled anew");
    for _ in 0..20 {
        reply(&tables, 1, protocol::TCP, second, tcp::ACK);
    }
    let copies = values(&tables, 1);
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert_eq!(copies[0].destination(), second as u32 + 1);
}

#[test]
fn a_flow_that_the_nic_moved_has_one_original() {
    let tables = tables(protocol::TCP);
    let server = ask(&tables, 0, protocol::TCP, tcp::SYN);
    for cpu in [1, 2, 3, 1] {
        assert_eq!(ask(&tables, cpu, protocol::TCP, tcp::ACK), server);
    }
    let all: Vec<Value> = (0..4).flat_map(|cpu| values(&tables, cpu)).collect();
    let originals = all.iter().filter(|it| it.flags() & Value::COPY == 0);
    assert_eq!((all.len(), originals.count()), (4, 1), "{all:?}");
}

#[test]
fn replies_keep_a_udp_connection_alive() {
    let mut tables = tables(protocol::UDP);
    let server = ask(&tables, 0, protocol::UDP, 0);
    let later = NOW_S + 200;
    if let Some(settings) = &mut tables.settings {
        settings.now_s = later;
    }
    // On the client's CPU and on another one.
    for cpu in [0, 1] {
        reply(&tables, cpu, protocol::UDP, server, 0);
        let key = key4(u32::from_ne_bytes(CLIENT), 4000_u16.to_be(), 1);
        let settings = tables.settings.unwrap();
        let found = table::find::<Narrow, _>(&tables, &settings, cpu, key);
        assert_eq!(found.value.seen_s(), later as u16, "CPU {cpu}");
        assert_eq!(found.value.state(), State::Udp as u8);
    }
}

#[test]
fn a_source_that_no_client_has_is_left_to_the_kernel() {
    let sources = [
        VIRTUAL,
        [0, 0, 0, 0],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [255; 4],
    ];
    for (protocol, flags) in [(protocol::TCP, tcp::SYN), (protocol::UDP, 0)] {
        for source in sources {
            let tables = tables(protocol);
            let bytes = frame(protocol, (source, 80), (VIRTUAL, 80), flags);
            let (verdict, out) = send(&tables, 0, &bytes);
            assert_eq!((verdict, out), (Verdict::Pass, bytes), "from {source:?}");
            assert_eq!(values(&tables, 0), [], "from {source:?}");
        }
    }
}

#[test]
fn a_frame_for_a_group_of_hosts_is_left_to_the_kernel() {
    let tables = tables(protocol::TCP);
    for group in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
        let mut bytes = frame(protocol::TCP, (CLIENT, 4000), (VIRTUAL, 80), tcp::SYN);
        bytes[..6].copy_from_slice(&group);
        let (verdict, out) = send(&tables, 0, &bytes);
        assert_eq!((verdict, out), (Verdict::Pass, bytes));
    }
}
