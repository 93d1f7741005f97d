//! What a lab looks like, as plain data: hosts, cables, addresses, routes.
//!
//! ```text
//!  two interfaces                                one interface
//!
//!  client ── router ── director                  client ── router
//!              │          │                                  │
//!            ──┴──────────┴──┬────┬────┬──             ──────┴───┬───────┬────┬────┬──
//!                            s1   s2   s3                    director    s1   s2   s3
//!
//!  two directors: as with one interface, and a second director that has a cable of its own to the first
//!
//!  client ── router
//!              │         ┌──── cable ────┐
//!        ──────┴─────────┴─┬───┬────┬────┴──┬──
//!                  director    s1   s2   s3   backup
//! ```
//!
//! The router also stands on the real servers' segment, so that with DR and TUN their replies reach the client
//! without the director. Clients' requests for virtual addresses are routed to the director; where there are two, the
//! virtual addresses are on the segment itself, and the router asks by ARP and neighbour discovery who has them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Most real servers that a lab may have.
pub const MAX_SERVERS: u8 = 16;

/// A host of the lab: a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// Where requests come from.
    Client,
    /// An ordinary Linux router between everything.
    Router,
    /// The load balancer.
    Director,
    /// A second load balancer.
    Backup,
    /// A real server, counted from 1.
    Server(u8),
    /// No host of its own: holds the bridge of the real servers' segment.
    Switch,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.pad("client"),
            Self::Router => f.pad("router"),
            Self::Director => f.pad("director"),
            Self::Backup => f.pad("backup"),
            Self::Switch => f.pad("switch"),
            Self::Server(number) => f.pad(&format!("s{number}")),
        }
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "client" => Ok(Self::Client),
            "router" => Ok(Self::Router),
            "director" => Ok(Self::Director),
            "backup" => Ok(Self::Backup),
            "switch" => Ok(Self::Switch),
            other => other
                .strip_prefix('s')
                .and_then(|number| number.parse().ok())
                .filter(|number| (1..=MAX_SERVERS).contains(number))
                .map(Self::Server)
                .ok_or_else(|| {
                    format!(
                        "there is no host `{other}`: client, router, director, backup, switch, s1, s2, s3…"
                    )
                }),
        }
    }
}

/// How the director is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Topology {
    /// `eth0` towards clients, `eth1` towards real servers.
    #[default]
    TwoInterfaces,
    /// `eth0` for both: packets leave by the interface they came in by.
    OneInterface,
    /// Two directors, `eth0` for clients and real servers, `eth1` for each other. Nobody has the virtual addresses until
    /// one of them takes them.
    TwoDirectors,
}

/// Where the real servers send what is not for their own segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gateway {
    /// Through the director, as NAT needs it.
    #[default]
    Director,
    /// Through the router, straight to the client: DR and TUN.
    Router,
}

/// The client's address.
pub const CLIENT4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// The client's address.
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0x10);
/// The addresses that services may stand on: held by the director and, unseen by ARP, by every real server.
pub const VIRTUAL4: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 10), Ipv4Addr::new(192, 0, 2, 20)];
/// Like [`VIRTUAL4`].
pub const VIRTUAL6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0x10),
    Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0x20),
];

/// Address of real server `number` (from 1) on the servers' segment.
#[must_use]
pub fn server4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 10 + number)
}

/// Address of real server `number` (from 1) on the servers' segment.
#[must_use]
pub fn server6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xe, 0, 0, 0, 0, 0x10 + u16::from(number))
}

/// One end of a cable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Whose interface it is.
    pub host: Host,
    /// Its name there.
    pub interface: String,
    /// Addresses with prefix length.
    pub addresses: Vec<String>,
    /// Whether frames that an XDP program sends arrive here: such an end needs a program of its own, or the
    /// kernel drops them without a word.
    pub receives_from_xdp: bool,
}

/// A virtual cable between two hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cable(pub End, pub End);

/// A route: destination (`default`, or a prefix) and the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Who has it.
    pub host: Host,
    /// Where to.
    pub to: &'static str,
    /// The next hop.
    pub via: Via,
}

/// Where a route goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// To a gateway.
    Gateway(IpAddr),
    /// Out of an interface: all that it goes to is there.
    Interface(&'static str),
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(address) => write!(f, "via {address}"),
            Self::Interface(name) => write!(f, "dev {name}"),
        }
    }
}

/// A whole lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Namespaces to make.
    pub hosts: Vec<Host>,
    /// Cables between them.
    pub cables: Vec<Cable>,
    /// Routes, the real servers' default routes among them.
    pub routes: Vec<Route>,
    /// Who has the virtual addresses on its loopback.
    pub virtual_on: Vec<Host>,
}

const ROUTER_TO_CLIENT: [&str; 2] = ["198.51.100.1/24", "2001:db8:c::1/64"];
const CLIENT: [&str; 2] = ["198.51.100.10/24", "2001:db8:c::10/64"];
const ROUTER_OUTER: [&str; 2] = ["203.0.113.1/24", "2001:db8:d::1/64"];
const DIRECTOR_OUTER: [&str; 2] = ["203.0.113.2/24", "2001:db8:d::2/64"];
const ROUTER_INNER: [&str; 2] = ["10.0.0.254/24", "2001:db8:e::fe/64"];
const DIRECTOR_INNER: [&str; 2] = ["10.0.0.1/24", "2001:db8:e::1/64"];
const BACKUP_INNER: [&str; 2] = ["10.0.0.2/24", "2001:db8:e::2/64"];
/// Of two directors, the real servers' gateway is an address that moves with the virtual ones.
pub const MOVING_GATEWAY: [&str; 2] = ["10.0.0.100/24", "2001:db8:e::100/64"];
const DIRECTOR_CABLE: [&str; 2] = ["10.0.1.1/24", "2001:db8:1e::1/64"];
const BACKUP_CABLE: [&str; 2] = ["10.0.1.2/24", "2001:db8:1e::2/64"];

/// Prefixes of the virtual addresses, which the router sends to the director.
const VIRTUAL_PREFIXES: [&str; 2] = ["192.0.2.0/24", "2001:db8:f::/64"];
/// Everything else, for both families.
const DEFAULT: [&str; 2] = ["default", "default"];

/// The plan of a lab with `servers` real servers.
#[must_use]
pub fn plan(topology: Topology, servers: u8, gateway: Gateway) -> Plan {
    let mut cables = vec![Cable(
        end(Host::Client, "eth0", &CLIENT),
        end(Host::Router, "eth0", &ROUTER_TO_CLIENT),
    )];
    let (router_inner, director_inner) = match topology {
        Topology::TwoInterfaces => {
            cables.push(Cable(
                receives(end(Host::Router, "eth1", &ROUTER_OUTER)),
                end(Host::Director, "eth0", &DIRECTOR_OUTER),
            ));
            ("eth2", "eth1")
        }
        Topology::OneInterface => ("eth1", "eth0"),
        Topology::TwoDirectors => {
            cables.push(Cable(
                end(Host::Backup, "eth0", &BACKUP_INNER),
                receives(port(Host::Backup)),
            ));
            cables.push(Cable(
                end(Host::Director, "eth1", &DIRECTOR_CABLE),
                end(Host::Backup, "eth1", &BACKUP_CABLE),
            ));
            ("eth1", "eth0")
        }
    };
    cables.push(Cable(
        end(Host::Router, router_inner, &ROUTER_INNER),
        port(Host::Router),
    ));
    cables.push(Cable(
        end(Host::Director, director_inner, &DIRECTOR_INNER),
        receives(port(Host::Director)),
    ));
    for number in 1..=servers {
        let host = Host::Server(number);
        let addresses = [
            format!("{}/24", server4(number)),
            format!("{}/64", server6(number)),
        ];
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        // A program on a real server that takes tunnels off may send, too.
        cables.push(Cable(end(host, "eth0", &addresses), receives(port(host))));
    }

    let to_router = match topology {
        Topology::TwoInterfaces => ROUTER_OUTER,
        Topology::OneInterface | Topology::TwoDirectors => ROUTER_INNER,
    };
    let mut routes = Vec::new();
    let mut add = |host, to: [&'static str; 2], via: [&str; 2]| {
        for (to, via) in to.into_iter().zip(via) {
            routes.push(Route {
                host,
                to,
                via: Via::Gateway(without_prefix(via)),
            });
        }
    };
    add(Host::Client, DEFAULT, ROUTER_TO_CLIENT);
    add(Host::Director, DEFAULT, to_router);
    let mut hosts = vec![Host::Switch, Host::Client, Host::Router, Host::Director];
    let mut virtual_on: Vec<Host> = (1..=servers).map(Host::Server).collect();
    match topology {
        Topology::TwoInterfaces => add(Host::Router, VIRTUAL_PREFIXES, DIRECTOR_OUTER),
        Topology::OneInterface => add(Host::Router, VIRTUAL_PREFIXES, DIRECTOR_INNER),
        Topology::TwoDirectors => {
            hosts.push(Host::Backup);
            add(Host::Backup, DEFAULT, to_router);
            routes.extend(VIRTUAL_PREFIXES.map(|to| Route {
                host: Host::Router,
                to,
                via: Via::Interface("eth1"),
            }));
        }
    }
    if topology != Topology::TwoDirectors {
        virtual_on.push(Host::Director);
    }
    routes.extend((1..=servers).flat_map(|number| server_routes(number, topology, gateway)));
    hosts.extend((1..=servers).map(Host::Server));

    Plan {
        hosts,
        cables,
        routes,
        virtual_on,
    }
}

/// The default routes of a real server.
#[must_use]
pub fn server_routes(number: u8, topology: Topology, gateway: Gateway) -> [Route; 2] {
    let via = match (gateway, topology) {
        (Gateway::Director, Topology::TwoDirectors) => MOVING_GATEWAY,
        (Gateway::Director, _) => DIRECTOR_INNER,
        (Gateway::Router, _) => ROUTER_INNER,
    };
    via.map(|via| Route {
        host: Host::Server(number),
        to: "default",
        via: Via::Gateway(without_prefix(via)),
    })
}

/// The director's own address towards clients.
#[must_use]
pub fn director_address(topology: Topology, ipv6: bool) -> IpAddr {
    let addresses = match topology {
        Topology::TwoInterfaces => DIRECTOR_OUTER,
        Topology::OneInterface | Topology::TwoDirectors => DIRECTOR_INNER,
    };
    without_prefix(addresses[usize::from(ipv6)])
}

/// The client's gateway: the router's address towards it.
#[must_use]
pub fn client_gateway(ipv6: bool) -> IpAddr {
    without_prefix(ROUTER_TO_CLIENT[usize::from(ipv6)])
}

/// The director's interfaces, the one towards clients first.
#[must_use]
pub fn director_interfaces(topology: Topology) -> &'static [&'static str] {
    match topology {
        Topology::TwoInterfaces => &["eth0", "eth1"],
        Topology::OneInterface | Topology::TwoDirectors => &["eth0"],
    }
}

/// Settings under `/proc/sys/net` of a host, made before it has interfaces, which inherit them.
#[must_use]
pub fn settings(host: Host) -> Vec<(&'static str, &'static str)> {
    // Duplicate address detection would take a second; redirects would have the hosts find ways around the
    // director; replies of DR take another way back than requests came.
    let mut settings = vec![
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/conf/all/accept_redirects", "0"),
        ("ipv4/conf/default/accept_redirects", "0"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/dad_transmits", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/default/accept_redirects", "0"),
    ];
    match host {
        Host::Router | Host::Director | Host::Backup => settings.extend([
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/default/forwarding", "1"),
        ]),
        // The virtual addresses on real servers are for receiving only: nobody may learn them from here.
        Host::Server(_) => settings.extend([
            ("ipv4/conf/all/arp_ignore", "1"),
            ("ipv4/conf/default/arp_ignore", "1"),
            ("ipv4/conf/all/arp_announce", "2"),
            ("ipv4/conf/default/arp_announce", "2"),
        ]),
        Host::Switch => settings.extend([("ipv6/conf/default/disable_ipv6", "1")]),
        Host::Client => {}
    }
    settings
}

fn end(host: Host, interface: &str, addresses: &[&str]) -> End {
    End {
        host,
        interface: interface.to_owned(),
        addresses: addresses
            .iter()
            .map(|&address| address.to_owned())
            .collect(),
        receives_from_xdp: false,
    }
}

fn receives(mut end: End) -> End {
    end.receives_from_xdp = true;
    end
}

/// The bridge's port for a host.
fn port(host: Host) -> End {
    end(Host::Switch, &host.to_string(), &[])
}

fn without_prefix(address: &str) -> IpAddr {
    let address = address
        .split_once('/')
        .map_or(address, |(address, _)| address);
    match address.parse() {
        Ok(address) => address,
        Err(_) => unreachable!("the constants above are addresses; a test reads them all"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_they_are_written() {
        for host in plan(Topology::TwoDirectors, MAX_SERVERS, Gateway::Director).hosts {
            assert_eq!(host.to_string().parse(), Ok(host));
        }
        for wrong in ["", "s", "s0", "s17", "s256", "server", "Client"] {
            let error = wrong.parse::<Host>().unwrap_err();
            assert!(error.contains("client, router"), "{wrong}: {error}");
        }
    }

    #[test]
    fn every_gateway_is_a_neighbour() {
        for topology in [
            Topology::TwoInterfaces,
            Topology::OneInterface,
            Topology::TwoDirectors,
        ] {
            for gateway in [Gateway::Director, Gateway::Router] {
                let plan = plan(topology, 3, gateway);
                let ends: Vec<&End> = plan
                    .cables
                    .iter()
                    .flat_map(|cable| [&cable.0, &cable.1])
                    .collect();
                for route in &plan.routes {
                    let Via::Gateway(gateway) = route.via else {
                        continue;
                    };
                    let via = format!("{gateway}/");
                    let holder = ends.iter().find(|end| {
                        end.addresses
                            .iter()
                            .any(|address| address.starts_with(&via))
                    });
                    let moves = MOVING_GATEWAY.iter().any(|it| it.starts_with(&via));
                    let holder = holder.map(|end| end.host);
                    assert!(moves || holder.is_some(), "nobody has {via} of {route:?}");
                    assert_ne!(holder, Some(route.host), "{route:?}");
                    // All networks here are /24 and /64: the parts before the host's own must agree.
                    let network = |address: &str| {
                        address
                            .rsplit_once(['.', ':'])
                            .map(|(network, _)| network.to_owned())
                    };
                    let near = ends
                        .iter()
                        .filter(|end| end.host == route.host)
                        .flat_map(|end| &end.addresses);
                    assert!(
                        near.map(|address| network(address.split_once('/').unwrap().0))
                            .any(|own| own == network(&gateway.to_string())),
                        "{route:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn far_ends_of_the_directors_cables_take_frames_from_xdp() {
        for topology in [
            Topology::TwoInterfaces,
            Topology::OneInterface,
            Topology::TwoDirectors,
        ] {
            let plan = plan(topology, 3, Gateway::Director);
            let attached = director_interfaces(topology);
            let mut seen = 0;
            for Cable(a, b) in &plan.cables {
                for (near, far) in [(a, b), (b, a)] {
                    let is_director = matches!(near.host, Host::Director | Host::Backup);
                    if is_director && attached.contains(&near.interface.as_str()) {
                        assert!(far.receives_from_xdp, "{far:?}");
                        seen += 1;
                    }
                }
            }
            let directors = 1 + usize::from(topology == Topology::TwoDirectors);
            assert_eq!(seen, directors * attached.len());
        }
    }
}
