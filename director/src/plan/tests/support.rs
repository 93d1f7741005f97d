//! Small configurations and networks, and what must hold after every write.

use std::collections::BTreeMap;
use std::net::IpAddr;

use xdp_ebpf::layout::{NextHop, address, destination, method, service as service_flags, slot};

use super::super::tables::{Lookup, lookups};
use super::*;

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn config(services: Vec<VirtualService>) -> Config {
    Config {
        instance: "main".into(),
        interfaces: vec![Interface {
            name: "eth0".into(),
            mode: XdpMode::Native,
        }],
        services,
        alerts: Vec::new(),
        tunnel: TunnelSettings {
            source_ipv4: "172.16.0.0/16".parse().unwrap(),
            source_ipv6: "100::/64".parse().unwrap(),
        },
        connections: ConnectionLimits {
            ipv4: 1000,
            ipv6: 1000,
        },
        icmp_per_second: 100,
        fragment_timeout_ms: 1000,
        control_socket: "/run/director/main.sock".into(),
        watch: false,
        heartbeat: None,
        sync: None,
    }
}

pub(super) fn service(
    address: &str,
    port: u16,
    scheduler: Scheduler,
    real_servers: Vec<RealServer>,
) -> VirtualService {
    let address = ip(address);
    VirtualService {
        name: format!("tcp/{address}:{port}"),
        endpoints: vec![Endpoint {
            address,
            ports: Ports::one(port),
            protocol: Protocol::Tcp,
        }],
        scheduler,
        one_packet: false,
        track: Track::All,
        sloppy: false,
        timeouts: Timeouts::default(),
        persistence: None,
        no_server: NoServer::default(),
        removed_servers: RemovedServers::default(),
        real_servers,
        fallback_servers: Vec::new(),
        health: crate::config::Health::default(),
    }
}

pub(super) fn server(address: &str, port: u16, weight: u32, method: Method) -> RealServer {
    RealServer {
        address: ip(address),
        port: Some(port),
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
        method,
        checks: [].into(),
    }
}

pub(super) fn hop(ifindex: u32, egress: u16, last: u8) -> NextHop {
    NextHop {
        ifindex,
        destination: [2, 0, 0, 0, 0, last],
        source: [2; 6],
        vlan: [0; 2],
        mtu: 1500,
        egress,
    }
}

pub(super) fn view(resolutions: &[(&str, Resolution)]) -> NetworkView {
    NetworkView {
        resolutions: resolutions
            .iter()
            .map(|(address, resolution)| (ip(address), *resolution))
            .collect(),
        interfaces: BTreeMap::from([(0, 7)]),
        ..NetworkView::default()
    }
}

pub(super) fn inputs<'a>(config: &'a Config, view: &'a NetworkView) -> Inputs<'a> {
    static NONE: Standings = Standings(Vec::new());
    Inputs {
        config,
        standings: &NONE,
        view,
        cpus: 2,
        buckets4: 64,
        buckets6: 128,
        seed: 5,
    }
}

pub(super) fn plan(current: &Tables, config: &Config, view: &NetworkView) -> Tables {
    walk(current, &desired(current, &inputs(config, view)).unwrap())
}

/// Goes from one state to the other write by write, each of which must leave a consistent state.
pub(super) fn walk(from: &Tables, to: &Tables) -> Tables {
    let mut tables = from.clone();
    for write in diff(from, to) {
        if let Write::Slots(first, table) = &write {
            let end = first + table.len() as u32;
            for record in tables.services.values().filter(|record| record.slots > 0) {
                let apart = end <= record.first_slot || record.first_slot + record.slots <= *first;
                assert!(apart, "{write:?} writes into slots that {record:?} uses");
            }
        }
        tables.apply(&write);
        if let Err(what) = consistent(&tables) {
            panic!("after {write:?}: {what}");
        }
        for id in tables.services.keys() {
            let answers = somebody_answers(&tables, *id)
                || !somebody_answers(from, *id)
                || !somebody_answers(to, *id);
            assert!(answers, "after {write:?}: nobody answers for service {id}");
        }
    }
    assert_eq!(&tables, to, "the writes do not lead to the desired state");
    assert_eq!(diff(&tables, to), [], "there is nothing left to do");
    for record in tables.destinations.values() {
        // During the walk it may be: nothing points to it yet.
        assert!(
            tables.services.contains_key(&record.service),
            "{record:?} is of an unused service"
        );
    }
    tables
}

/// Whether somebody in a service's scheduling table may get connections.
fn somebody_answers(tables: &Tables, id: u16) -> bool {
    let Some(record) = tables.services.get(&id).filter(|record| record.slots > 0) else {
        return false;
    };
    let slots = tables.slots.get(&record.first_slot);
    slots
        .into_iter()
        .flat_map(|table| table.iter())
        .any(|word| {
            let id = slot::owner(*word);
            let record = tables.destinations.get(&id);
            record.is_some_and(|it| it.flags & (destination::OUT | destination::RETIRED) == 0)
                && tables.shares.get(&id).is_some_and(|share| share.weight > 0)
        })
}

pub(super) fn consistent(tables: &Tables) -> Result<(), String> {
    let keys4 = tables
        .services4
        .iter()
        .map(|(key, served)| (Lookup::V4(*key), *served));
    let keys6 = tables
        .services6
        .iter()
        .map(|(key, served)| (Lookup::V6(*key), *served));
    let ranges4 = tables
        .ranges4
        .iter()
        .map(|(key, served)| (Lookup::Range4(*key), *served));
    let ranges6 = tables
        .ranges6
        .iter()
        .map(|(key, served)| (Lookup::Range6(*key), *served));
    for (key, served) in keys4.chain(keys6).chain(ranges4).chain(ranges6) {
        let record = tables
            .endpoints
            .get(&served.endpoint())
            .ok_or(format!("{key:?} points to an unused endpoint"))?;
        let Some(service) = tables.services.get(&served.service()) else {
            return Err(format!("{key:?} points to an unused service"));
        };
        if served.tracks_on_change() && service.flags & service_flags::ON_CHANGE == 0 {
            return Err(format!(
                "{key:?} goes by slots of a service that tracks all connections"
            ));
        }
        // While one moves to another service, its key is the last that tells so.
        if !lookups(record).contains(&key) {
            return Err(format!("{key:?} points to {record:?}"));
        }
        let flags = match endpoint_address(record) {
            IpAddr::V4(address) => tables.addresses4.get(&address.octets()),
            IpAddr::V6(address) => tables.addresses6.get(&address.octets()),
        };
        if flags.is_none_or(|flags| flags & address::VIRTUAL == 0) {
            return Err(format!("{key:?} is not among the addresses"));
        }
    }
    for (id, record) in tables
        .services
        .iter()
        .filter(|(_, record)| record.slots > 0)
    {
        let table = tables
            .slots
            .get(&record.first_slot)
            .ok_or(format!("service {id} points to nothing"))?;
        if table.len() != record.slots as usize {
            return Err(format!(
                "service {id} has {} slots of a table of {}",
                record.slots,
                table.len()
            ));
        }
        let tracks_on_change = record.flags & service_flags::ON_CHANGE != 0;
        for word in table.iter() {
            let (destination_id, previous) = (&slot::owner(*word), slot::previous(*word));
            if previous != 0 {
                let had = tables.destinations.get(&previous);
                let is_its =
                    previous == owners::NOBODY || had.is_some_and(|had| had.service == *id);
                if !tracks_on_change || !is_its {
                    return Err(format!("{previous} had a slot of service {id}: {had:?}"));
                }
                if *destination_id == 0 {
                    continue;
                }
            }
            let target = tables
                .destinations
                .get(destination_id)
                .ok_or(format!("{destination_id} is unused"))?;
            if !tables.shares.contains_key(destination_id) {
                return Err(format!("destination {destination_id} has no weight"));
            }
            if target.service != *id || target.flags & destination::RETIRED != 0 {
                return Err(format!("a slot of service {id} holds {target:?}"));
            }
            if target.method != method::NAT {
                continue;
            }
            let server = destination_address(target);
            let served = tables
                .endpoints_of(*id)
                .filter(|(endpoint_id, _)| tables.is_served(*endpoint_id));
            for (endpoint_id, virtual_end) in served {
                let is_range = virtual_end.port != virtual_end.last_port;
                let port = match (target.port, is_range) {
                    ([0, 0], false) => virtual_end.port,
                    (port, _) => port,
                };
                let shared = match endpoint(server, port, virtual_end.protocol) {
                    Key::V4(key) => tables.real_servers4.get(&key),
                    Key::V6(key) => tables.real_servers6.get(&key),
                };
                if shared.is_none_or(|shared| !shared.endpoints.contains(&endpoint_id)) {
                    return Err(format!("replies of {server} would not be recognised"));
                }
            }
        }
    }
    for record in tables.destinations.values() {
        let hop = record.next_hop;
        if hop.ifindex != 0 && tables.interfaces.get(&u32::from(hop.egress)) != Some(&hop.ifindex) {
            return Err(format!("{record:?} leaves by a slot of another interface"));
        }
    }
    let real4 = tables
        .real_servers4
        .keys()
        .map(|key| tables.addresses4.get(&key.address));
    let real6 = tables
        .real_servers6
        .keys()
        .map(|key| tables.addresses6.get(&key.address));
    if real4
        .chain(real6)
        .any(|flags| flags.is_none_or(|flags| flags & address::REAL == 0))
    {
        return Err("a real server is not among the addresses".into());
    }
    let routes = tables.routes4.values().chain(tables.routes6.values());
    for route in routes.filter(|route| route.next_hop != 0) {
        if !tables.next_hops.contains_key(&route.next_hop) {
            return Err(format!("{route:?} has no next hop"));
        }
    }
    Ok(())
}
