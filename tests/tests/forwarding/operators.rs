//! What operators say at run time, and what they are told.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use aya::maps::MapData;
use director_tests::director::{Service, command};
use director_tests::http::Connection;
use director_tests::lab::{Host, Topology};
use director_tests::{PATIENCE, wait_until};

use crate::site::{NAT_PORT, SERVERS, Site, TIMEOUT, by_name, client, server, virtual_address};

/// The service's port.
const PORT: u16 = 80;
/// The port of a service whose scheduler remembers.
const REMEMBERING_PORT: u16 = 81;
/// The port of a service that takes the place of both.
const OTHER_PORT: u16 = 82;

fn services() -> [Service<'static>; 2] {
    let nat = |port| Service {
        real_port: NAT_PORT,
        ..Service::rr(virtual_address(false), port)
    };
    [
        nat(PORT),
        Service {
            scheduler: "lblc",
            // So heavy that a connection which is not closed yet overloads none: an overloaded one is not kept to.
            real_servers: Some(&[(1, 100), (2, 100), (3, 100)]),
            ..nat(REMEMBERING_PORT)
        },
    ]
}

/// A command that finds the running director, or its tables, by its configuration.
fn director(site: &Site, arguments: &[&str]) -> anyhow::Result<String> {
    let configuration = site.lab.directory().join("director.yaml");
    let mut arguments = arguments.to_vec();
    arguments.extend(["--config", configuration.to_str().unwrap()]);
    command(&site.lab, &arguments)
}

fn say(site: &Site, what: &str, arguments: &[&str]) -> String {
    director(site, arguments).unwrap_or_else(|error| panic!("{what}: {error:#}\n{}", site.log()))
}

#[test]
#[ignore = "needs root, network namespaces and nginx: cargo xtask test runs it"]
fn operators_ask_drain_and_take_back() {
    let mut site = Site::up(Topology::TwoInterfaces);
    let address = SocketAddr::new(virtual_address(false), PORT);
    site.start(&services());
    site.wait_for_answer(address);
    let name = site.status().services[0].name.clone();
    let second = SocketAddr::new(server(2, false), NAT_PORT).to_string();
    let all = by_name(&[(1, 2), (2, 2), (3, 2)]);
    let others = by_name(&[(1, 3), (3, 3)]);
    assert_eq!(site.answered(address, 6), all);

    // One connection to each, which stays.
    let mut open = open_to_each(&site, address);
    assert_the_connections(&site, &second);
    assert_explained(&site, address);
    assert_the_next_ones_are_named(&site, address);
    assert_the_memory_is_as_stated(&site);

    // (what is said, who answers then)
    let changes: [(&[&str], _); 5] = [
        (&["weight", &name, &second, "0"], &others),
        (&["enable", &name, &second], &all),
        (&["disable", &name, &second], &others),
        (&["enable", &name, &second], &all),
        (&["drain", &name, &second], &others),
    ];
    for (change, expected) in changes {
        let what = change.join(" ");
        say(&site, &what, &[&["server"], change].concat());
        assert_eq!(&site.answered(address, 6), expected, "{what}");
        for (who, connection) in &mut open {
            assert_eq!(
                &connection.get("/").unwrap().who(),
                who,
                "{what}: what there is goes on"
            );
        }
    }

    // It outlives a reload.
    site.reload(&services());
    assert_eq!(site.answered(address, 6), others);

    // And its time comes: a reset, which tells the client to connect anew.
    let drain = ["server", "drain", &name, &second, "--within", "1s"];
    say(&site, "drain within", &drain);
    assert_closed(open, "s2");
    say(&site, "enable", &["server", "enable", &name, &second]);
    assert_eq!(site.answered(address, 6), all);
    assert_refused(&site, &name);
    assert_forgotten_with_its_endpoint(&mut site, address);
    site.check_end();
}

/// An interface that has gone is no reason to refuse what operators say of real servers, nor for a drain not to end.
#[test]
#[ignore = "needs root, network namespaces and nginx: cargo xtask test runs it"]
fn operators_have_their_say_while_an_interface_is_gone() {
    let mut site = Site::up(Topology::TwoInterfaces);
    let address = SocketAddr::new(virtual_address(false), PORT);
    let ip = |site: &Site, arguments: &[&str]| {
        let host = site.host(Host::Director);
        host.output("ip", arguments).unwrap();
    };
    let add = [
        "link", "add", "gone0", "type", "veth", "peer", "name", "gone1",
    ];
    ip(&site, &add);
    let text = site
        .yaml(&services())
        .replace("interfaces: [", "interfaces: [gone0, ");
    site.start_text(&text);
    site.wait_for_answer(address);
    let name = site.status().services[0].name.clone();
    let second = SocketAddr::new(server(2, false), NAT_PORT).to_string();
    let open = open_to_each(&site, address);
    ip(&site, &["link", "delete", "gone0"]);

    // (what is said, who answers then)
    let all = by_name(&[(1, 2), (2, 2), (3, 2)]);
    let changes: [(&[&str], _); 3] = [
        (&["disable", &name, &second], by_name(&[(1, 3), (3, 3)])),
        (&["enable", &name, &second], all.clone()),
        (
            &["drain", &name, &second, "--within", "1s"],
            by_name(&[(1, 3), (3, 3)]),
        ),
    ];
    for (change, expected) in changes {
        let what = change.join(" ");
        say(&site, &what, &[&["server"], change].concat());
        assert_eq!(site.answered(address, 6), expected, "{what}");
    }
    assert_closed(open, "s2");

    // It comes back, and is the director's again.
    ip(&site, &add);
    wait_until("the interface is attached to", PATIENCE, || {
        anyhow::ensure!(site.programs().len() == 3, "{:?}", site.programs());
        Ok(())
    })
    .unwrap();
    ip(&site, &["link", "delete", "gone0"]);
    say(&site, "enable", &["server", "enable", &name, &second]);
    assert_eq!(site.answered(address, 6), all);
    site.check_end();
}

/// A connection to each real server, with its name.
fn open_to_each(site: &Site, address: SocketAddr) -> Vec<(String, Connection)> {
    let open = |_| {
        let mut connection = site.client(|| Connection::open(address, TIMEOUT)).unwrap();
        (connection.get("/").unwrap().who(), connection)
    };
    (0..SERVERS).map(open).collect()
}

/// Of these connections, those to one real server are reset, as its drain ends, and the others go on.
fn assert_closed(open: Vec<(String, Connection)>, drained: &str) {
    for (who, mut connection) in open {
        if who == drained {
            wait_until(
                "the drained real server's connection is reset",
                PATIENCE,
                || match connection.get("/") {
                    Ok(_) => anyhow::bail!("it still answers"),
                    Err(_) => Ok(()),
                },
            )
            .unwrap();
        } else {
            assert_eq!(connection.get("/").unwrap().who(), who);
        }
    }
}

/// `conns` and `services` know the connection to that real server.
fn assert_the_connections(site: &Site, second: &str) {
    let from = client(false).to_string();
    let list = say(
        site,
        "conns",
        &["conns", "--state", "established", "--server", second],
    );
    assert!(
        list.lines().any(|line| line.contains("ESTABLISHED")
            && line.contains(&from)
            && line.contains(second)),
        "{list}"
    );
    let none = say(
        site,
        "conns",
        &["conns", "--client", "203.0.113.0/24", "--count"],
    );
    assert_eq!(none.trim(), "0");
    let services = say(site, "services", &["services"]);
    assert!(services.lines().count() >= 2, "{services}");
}

/// The connections of an endpoint that is removed leave the tables, long before they time out.
fn assert_forgotten_with_its_endpoint(site: &mut Site, address: SocketAddr) {
    let mut open = site.client(|| Connection::open(address, TIMEOUT)).unwrap();
    open.get("/").unwrap();
    let count = |site: &Site| say(site, "conns", &["conns", "--count"]).trim().to_owned();
    assert_ne!(count(site), "0");
    site.reload(&[Service {
        real_port: NAT_PORT,
        ..Service::rr(virtual_address(false), OTHER_PORT)
    }]);
    wait_until("its connections are forgotten", PATIENCE, || {
        match count(site).as_str() {
            "0" => Ok(()),
            left => anyhow::bail!("{left} are left"),
        }
    })
    .unwrap();
}

/// `explain` names what would become of a new connection and of no one's packet.
fn assert_explained(site: &Site, address: SocketAddr) {
    let from = SocketAddr::new(client(false), 40_000).to_string();
    let elsewhere = SocketAddr::new(address.ip(), 9).to_string();
    for (to, says) in [(address.to_string(), ":8080"), (elsewhere, "kernel")] {
        let said = say(site, "explain", &["explain", "--from", &from, "--to", &to]);
        assert!(said.contains(says), "no {says:?} in: {said}");
    }
}

/// `explain` names the real server that the next connection gets: of all that take turns, and of those that the scheduler
/// remembers although it would choose another one today.
fn assert_the_next_ones_are_named(site: &Site, address: SocketAddr) {
    for turn in 0..SERVERS {
        assert_named(site, &format!("rr, turn {turn}"), address);
    }
    let remembering = SocketAddr::new(address.ip(), REMEMBERING_PORT);
    let name = site.status().services[1].name.clone();
    let first = SocketAddr::new(server(1, false), NAT_PORT).to_string();
    say(site, "weight", &["server", "weight", &name, &first, "0"]);
    let second = by_name(&[(2, 1)]);
    assert_eq!(site.answered(remembering, 1), second);
    say(site, "enable", &["server", "enable", &name, &first]);
    assert_named(site, "lblc remembers the second", remembering);
    assert_eq!(site.answered(remembering, 1), second);
}

fn assert_named(site: &Site, what: &str, address: SocketAddr) {
    let from = SocketAddr::new(client(false), 40_000).to_string();
    let to = address.to_string();
    let said = say(site, what, &["explain", "--from", &from, "--to", &to]);
    let answered = site.answered(address, 1);
    let who = answered.keys().next().unwrap();
    let number = who.trim_start_matches('s').parse().unwrap();
    let expected = format!("> {}", SocketAddr::new(server(number, false), NAT_PORT));
    let verdict = said.lines().last().unwrap();
    assert!(
        verdict.contains(&expected),
        "{what}: {who} answered, and explain said: {said}"
    );
}

/// What `check` says that the tables take is what the kernel says that they took.
fn assert_the_memory_is_as_stated(site: &Site) {
    let said = say(site, "check", &["check", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let pins = Path::new("/sys/fs/bpf/director").join(site.lab.instance_name());
    let tables = said["memory"]["tables"].as_array().unwrap();
    assert!(tables.len() > 5, "{said}");
    for table in tables {
        let maps = table["maps"].as_array().unwrap().iter();
        let taken: u64 = maps.map(|map| taken(&pins, map.as_str().unwrap())).sum();
        let stated = table["bytes"].as_u64().unwrap();
        // A map's own head, and whole pages.
        let most = stated + stated / 50 + 65_536;
        assert!(taken <= most, "{taken} bytes taken: {table}");
        // Among the others are tries, which take nothing while they are empty.
        if table["table"] != "other tables" {
            assert!(taken + 65_536 >= stated, "{taken} bytes taken: {table}");
        }
    }
}

/// Bytes of a pinned map, as the kernel counts them.
fn taken(pins: &Path, name: &str) -> u64 {
    // Those that a reload may exchange stand in a directory of their own.
    let exchanged = pins.join("tables").join(name);
    let pin = if exchanged.exists() {
        exchanged
    } else {
        pins.join(name)
    };
    let map = MapData::from_pin(pin).unwrap();
    let number = map.fd().as_fd().as_raw_fd();
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    line.unwrap().trim().parse().unwrap()
}

/// What does not exist is refused by name, and changes nothing.
fn assert_refused(site: &Site, name: &str) {
    for (arguments, says) in [
        (["server", "disable", "nothing", "10.9.9.9"], "nothing"),
        (["server", "disable", name, "10.9.9.9"], "10.9.9.9"),
    ] {
        let error = format!("{:#}", director(site, &arguments).unwrap_err());
        assert!(error.contains(says), "no {says:?} in: {error}");
    }
}
