//! Real servers that die and recover, and what clients notice of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use director::control::{CheckStatus, ServiceStatus};
use director_tests::director::{Reload, command, control_socket, write_configuration};
use director_tests::http::{Connection, Response};
use director_tests::lab::plan::director_interfaces;
use director_tests::lab::{Gateway, Host, Topology};
use director_tests::{PATIENCE, http, nginx, wait_until};

use crate::site::{Site, TIMEOUT, by_name, server, virtual_address};

/// The classic setup, as the README has it: two web servers, and the director itself while none of them is up.
const CLASSIC: &str = "
  - name: web
    address: VIRTUAL
    port: 80
    scheduler: wlc
    method: nat
    check: {type: http, path: /ping.html, expect: Hello World, interval: 5s, timeout: 3s}
    on_down: quiesce
    fallback_servers: [\"127.0.0.1:80\"]
    real_servers: [\"FIRST:80\", \"SECOND:80\"]
";

/// A file with these services, with the lab's addresses.
pub(crate) fn yaml(site: &Site, services: &str) -> String {
    let address = |address: IpAddr| address.to_string();
    let services = services
        .replace("VIRTUAL", &address(virtual_address(false)))
        .replace("FIRST", &address(server(1, false)))
        .replace("SECOND", &address(server(2, false)))
        .replace("THIRD", &address(server(3, false)));
    format!("{}{services}", site.yaml(&[]))
}

pub(crate) fn web(port: u16) -> SocketAddr {
    SocketAddr::new(virtual_address(false), port)
}

fn service(site: &Site, name: &str) -> ServiceStatus {
    let services = site.status().services;
    services.into_iter().find(|it| it.name == name).unwrap()
}

/// What health checks find of a service's servers: `up`, `down`, `unchecked`.
fn states(site: &Site, name: &str) -> Vec<String> {
    let servers = service(site, name).real_servers;
    servers
        .into_iter()
        .map(|server| server.health.state.unwrap_or_else(|| "-".to_owned()))
        .collect()
}

pub(crate) fn wait_for_states(site: &Site, name: &str, expected: &[&str]) {
    wait_until("health checks find it", PATIENCE, || {
        let found = states(site, name);
        ensure!(found == expected, "{found:?}");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{expected:?}: {error:#}\n{}", site.log()));
}

fn checks(site: &Site) -> Vec<CheckStatus> {
    let socket = control_socket(&site.lab);
    let socket = socket.to_str().unwrap();
    let text = command(&site.lab, &["checks", "--json", "--socket", socket]).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Requests of the client one after the other until `enough` says so. Who answered how many, and how many failed.
fn requests_until(
    site: &Site,
    service: SocketAddr,
    mut enough: impl FnMut() -> Result<()>,
) -> (BTreeMap<String, usize>, usize) {
    let (mut answered, mut failed) = (BTreeMap::new(), 0);
    wait_until("the state that is waited for", PATIENCE, || {
        let response: Result<Response> = site.client(|| http::get(service, "/", TIMEOUT));
        match response {
            Ok(response) => *answered.entry(response.who()).or_default() += 1,
            Err(_) => failed += 1,
        }
        enough()
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", site.log()));
    (answered, failed)
}

/// LOCALNODE: of two nodes that are real servers too, each finds itself among them.
#[test]
#[ignore = "needs root, network namespaces and nginx: cargo xtask test runs it"]
fn a_real_server_that_is_the_director() {
    /// Of nobody but the director, and not always.
    const OWN: &str = "10.0.0.77";
    let mut site = Site::up(Topology::TwoInterfaces);
    site.lab.set_gateway(Gateway::Director).unwrap();
    let _own = nginx::start_on(&site.lab, Host::Director).unwrap();
    let services = |port: u16| {
        format!(
            "  - name: nat\n    address: VIRTUAL\n    port: 80\n    scheduler: rr\n    check: {{type: http, interval: 200ms}}\n    \
             real_servers: [\"FIRST:80\", \"{OWN}:{port}\"]\n  - name: dr\n    address: VIRTUAL\n    port: 8081\n    \
             scheduler: rr\n    method: dr\n    check: {{type: http, interval: 200ms, through: true}}\n    real_servers: \
             [\"{OWN}\"]\n"
        )
    };
    let address = |site: &Site, what: &str| {
        let interface = director_interfaces(Topology::TwoInterfaces)[1];
        let arguments = ["address", what, &format!("{OWN}/32"), "dev", interface];
        site.host(Host::Director).output("ip", &arguments).unwrap();
    };
    let methods = |site: &Site| -> Vec<String> {
        let services = site.status().services.into_iter();
        let servers = services.flat_map(|it| it.real_servers);
        let configured = servers.filter(|it| !it.removed);
        configured.map(|it| it.method).collect()
    };
    let wait_for_methods = |site: &Site, expected: [&str; 3]| {
        wait_until("the tables follow the address", PATIENCE, || {
            let found = methods(site);
            ensure!(found == expected, "{found:?}");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{expected:?}: {error:#}\n{}", site.log()));
    };

    address(&site, "add");
    let text = yaml(&site, &services(80));
    site.start_text(&text);
    wait_for_methods(&site, ["nat", "local", "local"]);
    wait_for_states(&site, "nat", &["up", "up"]);
    let both = BTreeMap::from([("director".to_owned(), 3), ("s1".to_owned(), 3)]);
    assert_eq!(site.answered(web(80), 6), both);
    wait_for_states(&site, "dr", &["up"]);
    let alone = BTreeMap::from([("director".to_owned(), 2)]);
    assert_eq!(site.answered(web(8081), 2), alone);

    // It is somebody else's now, or nobody's: then it is reached, and found to be down, as it is configured.
    address(&site, "delete");
    wait_for_methods(&site, ["nat", "nat", "dr"]);
    wait_for_states(&site, "nat", &["up", "down"]);
    assert_eq!(site.answered(web(80), 4), by_name(&[(1, 4)]));
    address(&site, "add");
    wait_for_methods(&site, ["nat", "local", "local"]);
    wait_for_states(&site, "nat", &["up", "up"]);
    assert_eq!(site.answered(web(80), 6), both);

    // By another port answers would have to be translated back.
    let text = yaml(&site, &services(8080));
    assert_eq!(site.reload_text(&text), Reload::Done);
    assert_eq!(methods(&site), ["nat", "nat", "local"]);
    let found = &service(&site, "nat").real_servers[1];
    let words = format!("{:?}", found.next_hop);
    assert!(words.contains("one of this node's own"), "{words}");
    site.check_end();
}

#[test]
#[ignore = "needs root, network namespaces and nginx: cargo xtask test runs it"]
fn the_classic_setup() {
    let mut site = Site::up(Topology::TwoInterfaces);
    site.lab.set_gateway(Gateway::Director).unwrap();
    // The director's own web server, for when nobody else is there.
    let _sorry = nginx::start_on(&site.lab, Host::Director).unwrap();
    let text = yaml(&site, CLASSIC);
    site.start_text(&text);
    // Nobody gets anything before its first success; both checks are spread over five seconds.
    wait_for_states(&site, "web", &["up", "up", "up"]);
    // By connections, of which those before may not have ended yet.
    let answered = site.answered(web(80), 6);
    assert_eq!(answered.values().sum::<usize>(), 6, "{answered:?}");
    assert!(
        answered.contains_key("s1") && answered.contains_key("s2"),
        "{answered:?}"
    );
    let found = service(&site, "web");
    assert!(found.up && !found.on_fallback, "{found:?}");

    // One dies. Requests fail at most until its checks have failed three times; then nobody notices.
    site.kill_nginx(1);
    let (_, failed) = requests_until(&site, web(80), || {
        let found = states(&site, "web");
        ensure!(found[0] == "down", "{found:?}");
        Ok(())
    });
    println!("{failed} requests failed before it was out");
    assert_eq!(site.answered(web(80), 10), by_name(&[(2, 10)]));
    let quiesced = &service(&site, "web").real_servers[0];
    assert_eq!(quiesced.weight, 0);
    assert!(quiesced.health.words.contains("refused"), "{quiesced:?}");

    // The other says something else than it should: quiesced, so that what it has goes on.
    let mut open = site.client(|| Connection::open(web(80), TIMEOUT)).unwrap();
    assert_eq!(open.get("/").unwrap().who(), "s2");
    nginx::set_ping(&site.lab, Host::Server(2), "Goodbye\n").unwrap();
    wait_for_states(&site, "web", &["down", "down", "up"]);
    let found = service(&site, "web");
    assert!(found.up && found.on_fallback, "{found:?}");
    let words = &found.real_servers[1].health.words;
    assert!(
        words.contains("Hello World") && words.contains("Goodbye"),
        "{words}"
    );
    let answers = site.answered(web(80), 4);
    assert_eq!(answers, BTreeMap::from([("director".to_owned(), 4)]));
    assert_eq!(open.get("/").unwrap().who(), "s2", "its connections go on");

    // Whoever is connected to the director's own server stays there when the others are back.
    let mut sorry = site.client(|| Connection::open(web(80), TIMEOUT)).unwrap();
    assert_eq!(sorry.get("/").unwrap().who(), "director");
    site.start_nginx(1);
    nginx::set_ping(&site.lab, Host::Server(2), "Hello World\n").unwrap();
    let (_, failed) = requests_until(&site, web(80), || {
        let found = states(&site, "web");
        ensure!(found == ["up", "up", "up"], "{found:?}");
        Ok(())
    });
    assert_eq!(failed, 0, "recovering costs nothing");
    let answered = site.answered(web(80), 20);
    assert!(!answered.contains_key("director"), "{answered:?}");
    assert_eq!(sorry.get("/").unwrap().who(), "director");

    // A reload changes nothing of what is known, and every check shows its history.
    let before = checks(&site);
    assert_eq!(site.reload_text(&text), Reload::Done);
    let after = checks(&site);
    assert_eq!((before.len(), after.len()), (3, 3));
    for (before, after) in before.iter().zip(&after) {
        assert!(
            after.runs >= before.runs && after.for_s >= before.for_s,
            "{after:?}"
        );
        assert_eq!(after.check, "http");
        assert_eq!(after.services, ["web"]);
        assert!(!after.history.is_empty(), "{after:?}");
    }
    // With `watch` the file itself is enough.
    let watched = format!("watch: true\n{text}");
    assert_eq!(site.reload_text(&watched), Reload::Done);
    write_configuration(&site.lab, &watched.replace("name: web", "name: net")).unwrap();
    wait_until("the changed file is in force", PATIENCE, || {
        let name = site.status().services[0].name.clone();
        ensure!(name == "net", "{name}");
        Ok(())
    })
    .unwrap();
    assert_eq!(states(&site, "net"), ["up", "up", "up"], "checks go on");
    assert_eq!(site.reload_text(&text), Reload::Done);
    let broken = text.replace("/ping.html", "ping.html");
    assert_eq!(site.reload_text(&broken), Reload::Refused);
    assert_eq!(states(&site, "web"), ["up", "up", "up"]);
    // A check that a reload changes has not run yet: who was in service stays until it has.
    let slower = text.replace("interval: 5s", "interval: 6s, spread: 1h");
    assert_eq!(site.reload_text(&slower), Reload::Done);
    assert_eq!(states(&site, "web"), ["unchecked"; 3]);
    let answered = site.answered(web(80), 20);
    assert!(!answered.contains_key("director"), "{answered:?}");
    assert_eq!(site.reload_text(&text), Reload::Done);
    wait_for_states(&site, "web", &["up", "up", "up"]);

    // Whoever takes over goes on with those that were in service, before it has checked anybody.
    site.kill_nginx(1);
    wait_for_states(&site, "web", &["down", "up", "up"]);
    site.director().kill().unwrap();
    site.start_text(&text.replace("interval: 5s", "interval: 5s, spread: 1h"));
    assert!(site.status().adopted);
    assert_eq!(states(&site, "web"), ["unchecked"; 3]);
    assert_eq!(site.answered(web(80), 6), by_name(&[(2, 6)]));
    site.check_end();
}

/// Services for what else follows from checks. All of them ask quickly.
const OTHERS: &str = "
  - name: removed
    address: VIRTUAL
    port: 8081
    scheduler: rr
    removed_servers: reschedule
    check: {type: connect, port: 8080, interval: 200ms, fall: 2, retry_delay: 50ms}
    real_servers: [\"FIRST:8080\", \"SECOND:8080\", \"THIRD:8080\"]
  - name: shared
    address: VIRTUAL
    port: 8082
    scheduler: rr
    quorum: 2
    check: {type: connect, port: 8080, interval: 200ms, fall: 2, retry_delay: 50ms}
    fallback_servers: [\"THIRD:8080\"]
    real_servers: [\"FIRST:8080\", \"SECOND:8080\"]
  - name: dependent
    address: VIRTUAL
    port: 8083
    scheduler: rr
    no_server: reset
    depends_on: [sole]
    real_servers: [\"SECOND:8080\"]
  - name: sole
    address: VIRTUAL
    port: 8084
    scheduler: rr
    check: {type: exchange, interval: 200ms, fall: 2, retry_delay: 50ms, steps: [{send: \"GET / HTTP/1.0\\r\\n\\r\\n\"}, {expect_regex: \"^HTTP/1.. 200\"}]}
    real_servers: [\"FIRST:8080\"]
  - name: slow
    address: VIRTUAL
    port: 8085
    scheduler: wlc
    slow_start: 1h
    check: [{type: ping, interval: 200ms}, {type: http, interval: 200ms, fall: 1, down_interval: 50ms}]
    real_servers: [\"FIRST:8080\", \"SECOND:8080\"]
";

#[test]
#[ignore = "needs root, network namespaces and nginx: cargo xtask test runs it"]
fn what_else_follows_from_checks() {
    let mut site = Site::up(Topology::TwoInterfaces);
    site.lab.set_gateway(Gateway::Director).unwrap();
    let text = yaml(&site, OTHERS);
    site.start_text(&text);
    wait_for_states(&site, "removed", &["up", "up", "up"]);
    wait_for_states(&site, "slow", &["up", "up"]);
    wait_for_states(&site, "sole", &["up"]);
    // The same check of the same backend is one: three of `connect`, one exchange, two pings, two of http.
    assert_eq!(checks(&site).len(), 8, "{:?}", checks(&site));
    let all = [(1, 2), (2, 2), (3, 2)];
    assert_eq!(site.answered(web(8081), 6), by_name(&all));
    assert_eq!(site.answered(web(8082), 4), by_name(&[(1, 2), (2, 2)]));
    assert_eq!(site.answered(web(8083), 2), by_name(&[(2, 2)]));
    // By connections, of which those before may not have ended yet.
    let answered = site.answered(web(8085), 8);
    assert!(
        answered.contains_key("s1") && answered.contains_key("s2"),
        "{answered:?}"
    );

    site.kill_nginx(1);
    wait_for_states(&site, "removed", &["down", "up", "up"]);
    wait_for_states(&site, "sole", &["down"]);
    wait_for_states(&site, "slow", &["down", "up"]);
    assert_eq!(site.answered(web(8081), 4), by_name(&[(2, 2), (3, 2)]));
    // One of two is less than the quorum.
    assert_eq!(site.answered(web(8082), 2), by_name(&[(3, 2)]));
    let dependent = service(&site, "dependent");
    assert!(dependent.cut_off && !dependent.up, "{dependent:?}");
    site.client(|| http::get(web(8083), "/", TIMEOUT))
        .unwrap_err();
    assert_eq!(site.answered(web(8085), 3), by_name(&[(2, 3)]));

    site.start_nginx(1);
    wait_for_states(&site, "removed", &["up", "up", "up"]);
    wait_for_states(&site, "sole", &["up"]);
    wait_for_states(&site, "slow", &["up", "up"]);
    assert_eq!(site.answered(web(8082), 4), by_name(&[(1, 2), (2, 2)]));
    assert_eq!(site.answered(web(8083), 1), by_name(&[(2, 1)]));
    // A hundredth of the weight: of a few connections none, or the first, if none of those before counts any more.
    let slow = &service(&site, "slow").real_servers[0];
    assert!(
        slow.health.percent.is_some_and(|percent| percent <= 2),
        "{slow:?}"
    );
    let answered = site.answered(web(8085), 4);
    assert!(answered.get("s2") >= Some(&3), "{answered:?}");
    site.check_end();
}

/// Services whose alerts a program writes to a file, beside one that cannot be delivered.
const WATCHED: &str = "
  - name: watched
    address: VIRTUAL
    port: 8081
    check: {type: connect, interval: 200ms, fall: 2, retry_delay: 50ms}
    real_servers: [\"FIRST:8080\", \"SECOND:8080\"]
  - name: dependent
    address: VIRTUAL
    port: 8082
    depends_on: [watched]
    check: {type: connect, interval: 200ms, fall: 2, retry_delay: 50ms}
    real_servers: [\"THIRD:8080\"]
alerts:
  - name: broken
    program: [/bin/false]
    group: 0s
  - name: written
    program: [/bin/sh, -c, \"cat >> TOLD\"]
    group: 0s
  - name: patient
    program: [/bin/sh, -c, \"cat >> TOLD_LATER\"]
    group: 0s
    on: [down]
    after_failures: 6
";

#[test]
#[ignore = "needs root, network namespaces and nginx: cargo xtask test runs it"]
fn alerts_are_told() {
    let mut site = Site::up(Topology::TwoInterfaces);
    site.lab.set_gateway(Gateway::Director).unwrap();
    let file = site.lab.directory().join("told");
    let later = site.lab.directory().join("told-later");
    let text = yaml(&site, WATCHED)
        .replace("TOLD_LATER", later.to_str().unwrap())
        .replace("TOLD", file.to_str().unwrap());
    site.start_text(&text);
    wait_for_states(&site, "watched", &["up", "up"]);
    wait_for_states(&site, "dependent", &["up"]);
    let told = || std::fs::read_to_string(&file).unwrap_or_default();
    let wait_for = |words: &[&str]| {
        wait_until("it is told", PATIENCE, || {
            let told = told();
            let mut lines = told.lines();
            let is_told = lines.any(|line| words.iter().all(|word| line.contains(word)));
            ensure!(is_told, "{told}");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{words:?}: {error:#}"));
    };
    let (first, second) = (server(1, false), server(2, false));
    let first = format!("watched {first}:8080");
    let second = format!("{second}:8080");

    site.kill_nginx(1);
    wait_for(&[&format!("{first} down since "), "refused"]);
    // What an operator took out is not told of; that nobody answers any more is. Of what depends on it nothing is told.
    let operator = |site: &Site, word: &str| {
        let socket = control_socket(&site.lab);
        let socket = socket.to_str().unwrap();
        let words = ["server", word, "watched", &second, "--socket", socket];
        command(&site.lab, &words).unwrap();
    };
    operator(&site, "disable");
    wait_for(&["watched service-down since ", "refused"]);
    site.kill_nginx(2);
    wait_for_states(&site, "watched", &["down", "down"]);
    site.start_nginx(2);
    wait_for_states(&site, "watched", &["down", "up"]);
    operator(&site, "enable");
    wait_for(&["watched service-up since "]);
    // Only now, and nothing else: one that waits for six failures.
    let told_later = || std::fs::read_to_string(&later).unwrap_or_default();
    wait_until("it is told later", PATIENCE, || {
        ensure!(!told_later().is_empty(), "nothing yet");
        Ok(())
    })
    .unwrap();
    let of_first = |it: &CheckStatus| it.server == server(1, false);
    let failures = checks(&site).into_iter().find(of_first).unwrap().failures;
    assert!(failures >= 6, "{failures}");
    let lines = told_later();
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(
        lines.starts_with(&format!("{first} down since ")),
        "{lines}"
    );
    site.start_nginx(1);
    wait_for(&[&format!("{first} up since ")]);
    let told = told();
    assert!(!told.contains(&format!("watched {second}")), "{told}");
    assert!(!told.contains("dependent"), "{told}");
    let log = site.log();
    assert!(
        log.contains("broken") && log.contains("tried again in"),
        "{log}"
    );
    site.check_end();
}
