//! Health checks that go the way of clients' packets: to the virtual address, at one real server.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::ensure;
use director::control::CheckStatus;
use director_tests::director::{command, control_socket};
use director_tests::lab::{Gateway, Host, Topology};
use director_tests::{PATIENCE, wait_until};

use crate::site::{SERVERS, Site, Way, by_name, server, virtual_address};

/// Who is up by the checks of a service that go through, and by those that do not: by real server.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    through: Vec<String>,
    plain: Vec<String>,
}

fn all(site: &Site) -> Vec<CheckStatus> {
    let socket = control_socket(&site.lab);
    let socket = socket.to_str().unwrap();
    let text = command(&site.lab, &["checks", "--json", "--socket", socket]).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn name(way: &Way, protocol: &str) -> String {
    format!("{protocol}-{}-{}", way.port, u8::from(way.ipv6))
}

fn found(site: &Site, way: &Way, protocol: &str) -> Found {
    let name = name(way, protocol);
    let mut checks = all(site);
    checks.retain(|check| check.services.contains(&name));
    let states = |through: bool| -> Vec<String> {
        (1..=SERVERS)
            .flat_map(|number| {
                let mut of_server = checks.iter().filter(|check| {
                    check.server == server(number, way.real_ipv6)
                        && check.through.is_some() == through
                });
                of_server.next().map(|check| check.state.clone())
            })
            .collect()
    };
    Found {
        through: states(true),
        plain: states(false),
    }
}

/// Waits until the checks of a service that go through find this, while the others find all real servers well.
fn wait_for(site: &Site, way: &Way, protocol: &str, through: [&str; 3]) {
    wait_until("checks find it", PATIENCE, || {
        let found = found(site, way, protocol);
        ensure!(found.through == through, "{found:?}");
        ensure!(found.plain.iter().all(|state| state == "up"), "{found:?}");
        Ok(())
    })
    .unwrap_or_else(|error| {
        panic!(
            "{way}, {protocol}: {through:?}: {error:#}\n{:#?}",
            all(site)
        );
    });
}

/// The director's address on the real servers' network.
fn own(ipv6: bool) -> IpAddr {
    let text = if ipv6 { "2001:db8:e::1" } else { "10.0.0.1" };
    text.parse().unwrap()
}

const TIMES: &str = "interval: 500ms, timeout: 5s, fall: 2, retry_delay: 50ms";

fn service(way: &Way, protocol: &str) -> String {
    let (address, port) = (virtual_address(way.ipv6), way.port);
    // Towards real servers of the other family there is no saying which of the node's addresses they answer.
    let source = if way.ipv6 == way.real_ipv6 {
        String::new()
    } else {
        format!(", source: \"{}\"", own(way.ipv6))
    };
    let mut checks = match protocol {
        "tcp" => format!(
            "{{type: http, path: /ping.html, expect: Hello World, through: true{source}, {TIMES}}}"
        ),
        _ => format!(
            "{{type: udp, send: anybody?, expect: anybody?, through: true{source}, {TIMES}}}"
        ),
    };
    checks += &format!(", {{type: connect, port: 8080, {TIMES}}}");
    let servers: Vec<String> = (1..=SERVERS)
        .map(|number| format!("\"{}\"", server(number, way.real_ipv6)))
        .collect();
    let tunnel = way.tunnel.map(|it| format!(", tunnel: {it}"));
    format!(
        "  - {{name: {}, address: \"{address}\", port: {port}, protocol: {protocol}, scheduler: rr, method: {}{}, \
         check: [{checks}], real_servers: [{}]}}\n",
        name(way, protocol),
        way.method,
        tunnel.unwrap_or_default(),
        servers.join(", "),
    )
}

/// What an operator sees of devices, rules and addresses on the director.
fn seen(site: &Site) -> Vec<String> {
    let director = site.host(Host::Director);
    let commands: [&[&str]; 4] = [
        &["-brief", "link"],
        &["-brief", "address"],
        &["rule"],
        &["-6", "rule"],
    ];
    let run = |arguments: &&[&str]| director.output("ip", arguments).unwrap();
    commands.iter().map(run).collect()
}

/// A service that no production traffic has touched.
fn assert_untouched(site: &Site) {
    for service in site.status().services {
        for server in service.real_servers {
            let counted = (server.connections, server.in_packets, server.out_packets);
            assert_eq!(counted, (0, 0, 0), "{server:?}");
        }
    }
    let name = site.lab.instance_name();
    let count = command(&site.lab, &["conns", "--count", "--instance", &name]).unwrap();
    assert_eq!(count.trim(), "0");
}

fn address_on_lo(site: &Site, number: u8, what: &str, ipv6: bool) {
    let prefix = if ipv6 { 128 } else { 32 };
    let address = format!("{}/{prefix}", virtual_address(ipv6));
    let mut arguments = vec!["address", what, &address, "dev", "lo"];
    if ipv6 && what == "add" {
        arguments.push("nodad");
    }
    site.host(Host::Server(number))
        .output("ip", &arguments)
        .unwrap();
}

#[test]
#[ignore = "needs root, network namespaces and nginx: cargo xtask test runs it"]
fn by_the_way_of_clients() {
    let mut site = Site::up(Topology::TwoInterfaces);
    site.lab.set_gateway(Gateway::Router).unwrap();
    site.without_kernel();
    // DR and each tunnel, in both families and to the other one.
    let mut ways = Way::past_the_director();
    ways.retain(|way| [8081, 8082, 8083, 8085].contains(&way.port) || way.port == 8084 && way.ipv6);
    let mut text = site.yaml(&[]);
    for way in &ways {
        site.start_echo(way);
        text += &(service(way, "tcp") + &service(way, "udp"));
    }
    let before = seen(&site);
    site.start_text(&text);
    for way in &ways {
        for protocol in ["tcp", "udp"] {
            wait_for(&site, way, protocol, ["up"; 3]);
        }
    }
    assert_untouched(&site);
    assert_eq!(seen(&site), before);
    let each: BTreeMap<String, usize> = by_name(&[(1, 2), (2, 2), (3, 2)]);
    for way in &ways {
        assert_eq!(site.answered(way.address(), 6), each, "{way}");
    }

    // A real server without the virtual address, which forwards what it does not hold: the director would get the packets
    // again, and other real servers would answer.
    let first = site.host(Host::Server(1));
    first
        .apply(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])
        .unwrap();
    for ipv6 in [false, true] {
        address_on_lo(&site, 1, "del", ipv6);
    }
    for way in &ways {
        for protocol in ["tcp", "udp"] {
            wait_for(&site, way, protocol, ["down", "up", "up"]);
        }
        let others = by_name(&[(2, 2), (3, 2)]);
        assert_eq!(site.answered(way.address(), 4), others, "{way}");
    }
    // A director that was killed leaves nothing that stands in the next one's way.
    site.director().kill().unwrap();
    site.start_text(&text);
    for ipv6 in [false, true] {
        address_on_lo(&site, 1, "add", ipv6);
    }
    for way in &ways {
        wait_for(&site, way, "tcp", ["up"; 3]);
        assert_eq!(site.answered(way.address(), 6), each, "{way}");
    }
    assert_eq!(seen(&site), before);

    // Nobody takes the tunnels off any more.
    site.kill_decap(1);
    for way in &ways {
        let first = if way.tunnel.is_some() { "down" } else { "up" };
        wait_for(&site, way, "tcp", [first, "up", "up"]);
    }
    site.check_end();
    assert_eq!(seen(&site), before);
}
