//! Names and numbers, as a table of both.

use std::net::{IpAddr, SocketAddr};

use xdp_ebpf::connection::{Value, key4, key6};
use xdp_ebpf::layout::{self, TemplateKey, destination, method};
use xdp_ebpf::state::State;

use super::*;

const NOW_S: u32 = 100_000;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address of this test")
}

fn endpoint(service: u16, first: &str, last_port: u16) -> Endpoint {
    let first = address(first);
    Endpoint::new(layout::Endpoint {
        address: to_table(first.ip()),
        port: first.port().to_be_bytes(),
        last_port: last_port.to_be_bytes(),
        service,
        protocol: 6,
        family: if first.is_ipv4() { 4 } else { 6 },
    })
}

fn server(service: u16, at: &str, flags: u8) -> layout::Destination {
    let at = address(at);
    layout::Destination {
        method: method::NAT,
        flags: flags | if at.is_ipv6() { destination::IPV6 } else { 0 },
        port: at.port().to_be_bytes(),
        service,
        address: to_table(at.ip()),
        ..layout::Destination::default()
    }
}

/// A service on a port of each family, one on a range, a persistent one, a real server that came back.
fn directory() -> Directory {
    let persistence = |per_port| {
        let mut mask = [0; 16];
        mask[..3].fill(255);
        Some(Persistence {
            mask,
            per_port,
            timeout_s: 80_000,
        })
    };
    let endpoints = [
        (1, endpoint(1, "198.51.100.1:80", 80)),
        (2, endpoint(1, "[2001:db8::1]:80", 80)),
        (3, endpoint(2, "198.51.100.1:8000", 8099)),
        (
            4,
            Endpoint {
                persistence: persistence(false),
                ..endpoint(3, "198.51.100.3:443", 443)
            },
        ),
        (
            5,
            Endpoint {
                persistence: persistence(false),
                ..endpoint(3, "198.51.100.3:444", 444)
            },
        ),
        (
            6,
            Endpoint {
                persistence: persistence(true),
                ..endpoint(4, "198.51.100.4:21", 21)
            },
        ),
    ];
    let destinations = [
        (11, server(1, "10.0.0.1:8080", 0)),
        (12, server(1, "[2001:db8:1::2]:8080", 0)),
        (13, server(2, "10.0.0.1:0", 0)),
        (14, server(3, "10.0.0.1:0", 0)),
        (15, server(4, "10.0.0.1:21", 0)),
        (20, server(1, "10.0.0.9:80", destination::RETIRED)),
        (21, server(1, "10.0.0.9:80", 0)),
        (22, server(1, "10.0.0.8:80", 0)),
        (23, server(1, "10.0.0.8:80", destination::GONE)),
    ];
    Directory::new(endpoints, destinations)
}

#[test]
fn entries_have_names_and_names_numbers() {
    let four = u32::from_ne_bytes([192, 0, 2, 7]);
    let six: [u8; 16] = "2001:db8::7"
        .parse::<std::net::Ipv6Addr>()
        .expect("an address")
        .octets();
    let port = 40_000_u16.to_be();
    let rows = [
        (
            Handle::Narrow(key4(four, port, 1)),
            11,
            "192.0.2.7:40000",
            "198.51.100.1:80",
            "10.0.0.1:8080",
        ),
        (
            Handle::Narrow(key4(four, port, 1)),
            12,
            "192.0.2.7:40000",
            "198.51.100.1:80",
            "[2001:db8:1::2]:8080",
        ),
        (
            Handle::Wide(key6(words(six), port, 0, 2)),
            11,
            "[2001:db8::7]:40000",
            "[2001:db8::1]:80",
            "10.0.0.1:8080",
        ),
        (
            Handle::Wide(key6([four, 0, 0, 0], port, 8042_u16.to_be(), 3)),
            13,
            "192.0.2.7:40000",
            "198.51.100.1:8042",
            "10.0.0.1:0",
        ),
        (
            Handle::Narrow(key4(four, port, 1)),
            21,
            "192.0.2.7:40000",
            "198.51.100.1:80",
            "10.0.0.9:80",
        ),
        (
            Handle::Narrow(key4(four, port, 1)),
            22,
            "192.0.2.7:40000",
            "198.51.100.1:80",
            "10.0.0.8:80",
        ),
    ];
    let directory = directory();
    for (handle, destination, client, virtual_service, server) in rows {
        let value = Value::new(destination, (NOW_S - 9) as u16, State::FinWait, Value::SENT);
        let entry = Entry {
            protocol: 6,
            client: address(client),
            virtual_service: address(virtual_service),
            server: address(server),
            state: State::FinWait,
            idle_s: 9,
        };
        assert_eq!(directory.entry(handle, value, NOW_S), Some(entry));
        let numbered = Numbered {
            handle,
            destination,
        };
        assert_eq!(directory.number(&entry), Ok(numbered), "{entry:?}");
    }
}

#[test]
fn what_is_not_configured_has_no_name_and_no_number() {
    let directory = directory();
    let value = |id| Value::new(id, 0, State::Established, 0);
    for (endpoint, destination) in [(9, 11), (1, 99), (1, 13)] {
        let handle = Handle::Narrow(key4(1, 2, endpoint));
        assert_eq!(directory.entry(handle, value(destination), NOW_S), None);
    }
    let entry = Entry {
        protocol: 6,
        client: address("192.0.2.7:40000"),
        virtual_service: address("198.51.100.1:80"),
        server: address("10.0.0.1:8080"),
        state: State::Established,
        idle_s: 0,
    };
    let rows = [
        (
            Entry {
                protocol: 17,
                ..entry
            },
            Unknown::Service,
        ),
        (
            Entry {
                virtual_service: address("198.51.100.1:81"),
                ..entry
            },
            Unknown::Service,
        ),
        (
            Entry {
                virtual_service: address("198.51.100.1:8100"),
                ..entry
            },
            Unknown::Service,
        ),
        (
            Entry {
                server: address("10.0.0.1:8081"),
                ..entry
            },
            Unknown::Server,
        ),
        (
            Entry {
                server: address("10.0.0.2:8080"),
                ..entry
            },
            Unknown::Server,
        ),
    ];
    for (entry, unknown) in rows {
        assert_eq!(directory.number(&entry), Err(unknown), "{entry:?}");
    }
}

/// Upkeep comes by once in a while only: what is over stands until then, and nobody is told of it.
#[test]
fn what_is_over_has_no_name() {
    let directory = directory();
    let handle = Handle::Narrow(key4(1, 2, 1));
    for state in [State::Established, State::FinWait, State::Close] {
        let timeout_s = directory.timeouts_s(1)[state as usize];
        for (idle_s, expected) in [(0, true), (timeout_s - 1, true), (timeout_s, false)] {
            let value = Value::new(11, (NOW_S as u16).wrapping_sub(idle_s), state, 0);
            let found = directory.entry(handle, value, NOW_S);
            assert_eq!(found.is_some(), expected, "{state:?} after {idle_s} s");
        }
    }
    let key = TemplateKey {
        client: [0; 16],
        service: 3,
        endpoint: 0,
        port: [0; 2],
        zero: 0,
    };
    for (idle_s, expected) in [(0, true), (79_999, true), (80_000, false)] {
        let standing = layout::Template {
            destination: 14,
            seen_s: NOW_S - idle_s,
        };
        let found = directory.template(&key, &standing, NOW_S);
        assert_eq!(found.is_some(), expected, "a template after {idle_s} s");
    }
}

/// The kernel names the port that packets are sent to where this director says that it is kept.
#[test]
fn a_port_that_is_kept_has_two_names() {
    let entry = |server| Entry {
        protocol: 6,
        client: address("192.0.2.7:40000"),
        virtual_service: address("198.51.100.3:443"),
        server: address(server),
        state: State::Established,
        idle_s: 0,
    };
    let directory = directory();
    for (server, number) in [
        ("10.0.0.1:0", Some(14)),
        ("10.0.0.1:443", Some(14)),
        ("10.0.0.1:80", None),
    ] {
        let found = directory
            .number(&entry(server))
            .ok()
            .map(|it| it.destination);
        assert_eq!(found, number, "{server}");
    }
}

#[test]
fn templates_have_names_and_names_numbers() {
    let client: IpAddr = "192.0.2.0".parse().expect("an address");
    let key = |service, endpoint, port: u16| TemplateKey {
        client: to_table(client),
        service,
        endpoint,
        port: port.to_be_bytes(),
        zero: 0,
    };
    // (key, destination, named by, per port)
    let rows = [
        (key(3, 0, 0), 14, "198.51.100.3:443", "10.0.0.1:0", false),
        (key(4, 6, 21), 15, "198.51.100.4:21", "10.0.0.1:21", true),
    ];
    let directory = directory();
    for (key, destination, virtual_service, server, per_port) in rows {
        let standing = layout::Template {
            destination,
            seen_s: NOW_S - 70_000,
        };
        let template = Template {
            protocol: 6,
            virtual_service: address(virtual_service),
            per_port,
            client,
            server: address(server),
            idle_s: 70_000,
        };
        assert_eq!(directory.template(&key, &standing, NOW_S), Some(template));
        assert_eq!(directory.number_template(&template), Ok((key, destination)));
        // The peer's mask may be finer than this one's.
        let finer = Template {
            client: "192.0.2.99".parse().expect("an address"),
            ..template
        };
        assert_eq!(directory.number_template(&finer), Ok((key, destination)));
        let otherwise = Template {
            per_port: !per_port,
            ..template
        };
        assert_eq!(directory.number_template(&otherwise), Err(Unknown::Service));
    }
    assert_eq!(directory.template_timeout_s(&key(3, 0, 0)), 80_000);
}

#[test]
fn what_comes_back_is_noticed() {
    let all = |servers: &[(u32, &str)]| {
        let servers = servers.iter().map(|(id, at)| (*id, server(1, at, 0)));
        Directory::new([(1, endpoint(1, "198.51.100.1:80", 80))], servers)
    };
    const ONE: (u32, &str) = (1, "10.0.0.1:80");
    const TWO: (u32, &str) = (2, "10.0.0.2:80");
    // What is there from now on, whether something has come back.
    let rows: [(&[(u32, &str)], bool); 6] = [
        (&[ONE], false),
        (&[ONE, TWO], false),
        (&[TWO], false),
        // Under another number.
        (&[TWO, (9, "10.0.0.1:80")], true),
        (&[], false),
        (&[TWO], true),
    ];
    let mut gone = Gone::default();
    let mut present = all(&[]);
    for (number, (servers, is_back)) in rows.into_iter().enumerate() {
        let next = all(servers);
        assert_eq!(gone.on_change(&present, &next), is_back, "change {number}");
        present = next;
    }
}
