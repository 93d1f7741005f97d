//! Clients that ask all the time, several at once, while real servers die, recover, are quiesced and replaced by fallback
//! servers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ::director::control::send_reload;
use anyhow::{Result, ensure};
use director_tests::director::{self, Reload};
use director_tests::http::{Connection, Response};
use director_tests::lab::{Gateway, Host, Topology};
use director_tests::{PATIENCE, nginx, wait_until};

use crate::health::{wait_for_states, web, yaml};
use crate::site::Site;

/// Clients at once.
const CLIENTS: usize = 8;
/// How long an answer may take. One that a request was lost over is sent again by TCP after a second.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Services, each with the first port that clients come from. None is used twice: a connection that a dead real server refused
/// stays in the table, and a new one of the same port would be taken for it, where the kernel gives out a port again within
/// moments.
const SITES: [(&str, u16, u16); 2] = [("removed", 8081, 10_000), ("quiesced", 8082, 38_000)];
/// How often a file is refused under requests, and the first port that they come from.
const REFUSALS: usize = 10;
const REFUSED_PORTS: u16 = 1_500;
/// A client's pause between requests: a fast machine would run out of ports.
const PAUSE: Duration = Duration::from_millis(3);
/// Requests of all clients that must have begun after something happened, so that it is seen what becomes of them.
const AFTERWARDS: usize = 400;

/// Within this time a real server whose port refuses is out: an interval, and the retry delay as often as it must fail.
const OUT_WITHIN: Duration = Duration::from_millis(200 + 2 * 50);
/// What a machine takes longer that has all these requests, and others, to do.
const SLACK: Duration = Duration::from_secs(5);

/// Real servers that are removed, or quiesced, when they are down; and one to fall back to.
const SERVICES: &str = "
  - name: removed
    address: VIRTUAL
    port: 8081
    scheduler: rr
    check: {type: http, path: /ping.html, expect: Hello World, interval: 200ms, fall: 2, retry_delay: 50ms}
    fallback_servers: [\"THIRD:8080\"]
    real_servers: [\"FIRST:8080\", \"SECOND:8080\"]
  - name: quiesced
    address: VIRTUAL
    port: 8082
    scheduler: rr
    on_down: quiesce
    check: {type: http, path: /ping.html, expect: Hello World, interval: 200ms, fall: 2, retry_delay: 50ms}
    fallback_servers: [\"THIRD:8080\"]
    real_servers: [\"FIRST:8080\", \"SECOND:8080\"]
";

/// A request, and what came of it.
struct Request {
    began: Instant,
    ended: Instant,
    outcome: Result<Response>,
}

/// What came of the requests of all clients while something happened.
struct Crowd(Vec<Request>);

impl Crowd {
    /// Who answered how many of those that began after a moment.
    fn answered(&self, after: Instant) -> BTreeMap<String, usize> {
        let mut answered = BTreeMap::new();
        let later = self.0.iter().filter(|it| it.began > after);
        for response in later.filter_map(|it| it.outcome.as_ref().ok()) {
            *answered.entry(response.who()).or_default() += 1;
        }
        answered
    }

    fn failed(&self) -> impl Iterator<Item = (&Request, &anyhow::Error)> {
        let all = self.0.iter();
        all.filter_map(|it| Some((it, it.outcome.as_ref().err()?)))
    }

    #[track_caller]
    fn check_none_failed(&self, what: &str, happened: Instant) {
        let failed: Vec<String> = self
            .failed()
            .map(|(request, error)| {
                let relative = |at: Instant| {
                    at.checked_duration_since(happened).map_or_else(
                        || format!("{:?} before", happened - at),
                        |after| format!("{after:?} after"),
                    )
                };
                let (began, ended) = (relative(request.began), relative(request.ended));
                format!("from {began} to {ended} the verdict: {error:#}")
            })
            .collect();
        assert!(
            failed.is_empty(),
            "{what}: {} failed: {failed:#?}",
            failed.len()
        );
        println!("{what}: {} requests, none failed", self.0.len());
    }
}

/// Has all clients ask while `event` happens, and until [`AFTERWARDS`] more requests have begun after it.
fn while_asked<T>(
    site: &Site,
    (service, ports): (SocketAddr, &AtomicU16),
    event: impl FnOnce() -> T,
) -> (Crowd, T) {
    let (is_over, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
    let requests = Mutex::new(Vec::new());
    let wait_for_more = || {
        let wanted = begun.load(Ordering::Relaxed) + AFTERWARDS;
        wait_until("clients ask", PATIENCE, || {
            let begun = begun.load(Ordering::Relaxed);
            ensure!(begun >= wanted, "{begun} of {wanted} requests");
            Ok(())
        })
        .unwrap();
    };
    let ask = || {
        while !is_over.load(Ordering::Relaxed) {
            begun.fetch_add(1, Ordering::Relaxed);
            let began = Instant::now();
            let port = ports.fetch_add(1, Ordering::Relaxed);
            let connection = Connection::open_from(port, service, TIMEOUT);
            let outcome = connection.and_then(|it| it.get_last("/"));
            let ended = Instant::now();
            requests.lock().unwrap().push(Request {
                began,
                ended,
                outcome,
            });
            std::thread::sleep(PAUSE);
        }
    };
    let happened = std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| site.client(ask));
        }
        let happened = catch_unwind(AssertUnwindSafe(|| {
            wait_for_more();
            let happened = event();
            wait_for_more();
            happened
        }));
        // Also after a panic, or the clients would ask for ever.
        is_over.store(true, Ordering::Relaxed);
        happened.unwrap_or_else(|panic| resume_unwind(panic))
    });
    (Crowd(requests.into_inner().unwrap()), happened)
}

/// Waits for what checks find. Whatever begins after the moment that this gives begins after the verdict.
fn found(site: &Site, name: &str, expected: &[&str]) -> Instant {
    wait_for_states(site, name, expected);
    Instant::now()
}

#[test]
#[ignore = "needs root, network namespaces and nginx: cargo xtask test runs it"]
fn what_many_clients_notice() {
    let mut site = Site::up(Topology::TwoInterfaces);
    site.lab.set_gateway(Gateway::Director).unwrap();
    let text = yaml(&site, SERVICES);
    site.start_text(&text);
    let ping = |site: &Site, number: u8, says: &str| {
        nginx::set_ping(&site.lab, Host::Server(number), says).unwrap();
    };
    for (name, port, first_port) in SITES {
        let service = web(port);
        let ports = AtomicU16::new(first_port);
        let who = |crowd: &Crowd, after| {
            let answered = crowd.answered(after);
            answered.into_keys().collect::<Vec<String>>()
        };
        found(&site, name, &["up", "up", "up"]);

        // Nothing happens: what fails below fails because of what happens there.
        let (crowd, _) = while_asked(&site, (service, &ports), Instant::now);
        crowd.check_none_failed(&format!("{name}, nothing happens"), Instant::now());

        // One dies under load. What fails was under way to it then, or was sent to it before it was out.
        let (crowd, (killed, out)) = while_asked(&site, (service, &ports), || {
            let killed = Instant::now();
            site.kill_nginx(1);
            (killed, found(&site, name, &["down", "up", "up"]))
        });
        let failed: Vec<_> = crowd.failed().collect();
        for (request, error) in &failed {
            let (began, ended) = (request.began, request.ended);
            assert!(
                ended >= killed && began <= out,
                "{name}: began {:?} after the verdict: {error:#}",
                began.saturating_duration_since(out)
            );
        }
        println!(
            "{name}, one dies: {} requests, {} failed, all begun before it was out, {:?} after its end",
            crowd.0.len(),
            failed.len(),
            out - killed
        );
        assert!(!failed.is_empty(), "{name}: nobody asked it meanwhile");
        assert!(
            out - killed < OUT_WITHIN + SLACK,
            "{name}: {:?}",
            out - killed
        );
        assert_eq!(who(&crowd, out), ["s2"], "{name}");

        // It recovers.
        let (crowd, back) = while_asked(&site, (service, &ports), || {
            site.start_nginx(1);
            found(&site, name, &["up", "up", "up"])
        });
        crowd.check_none_failed(&format!("{name}, it recovers"), back);
        assert_eq!(who(&crowd, back), ["s1", "s2"], "{name}");

        // It says something else than it should, and answers all the same whoever was sent to it.
        let (crowd, out) = while_asked(&site, (service, &ports), || {
            ping(&site, 1, "Goodbye\n");
            found(&site, name, &["down", "up", "up"])
        });
        crowd.check_none_failed(&format!("{name}, one is taken out"), out);
        assert_eq!(who(&crowd, out), ["s2"], "{name}");

        // So does the other: the fallback server takes over, and gives back.
        let (crowd, out) = while_asked(&site, (service, &ports), || {
            ping(&site, 2, "Goodbye\n");
            found(&site, name, &["down", "down", "up"])
        });
        crowd.check_none_failed(&format!("{name}, fallback"), out);
        assert_eq!(who(&crowd, out), ["s3"], "{name}");
        let (crowd, back) = while_asked(&site, (service, &ports), || {
            ping(&site, 1, "Hello World\n");
            ping(&site, 2, "Hello World\n");
            found(&site, name, &["up", "up", "up"])
        });
        crowd.check_none_failed(&format!("{name}, back from the fallback"), back);
        assert_eq!(who(&crowd, back), ["s1", "s2"], "{name}");
    }

    // A file with other services, which is refused only when the program is to be attached.
    site.add_large_interface();
    let mut refused = text.replace("interfaces: [", "interfaces: [large0, ");
    for (_, port, _) in SITES {
        refused = refused.replace(&format!("port: {port}"), &format!("port: {}", port + 1000));
    }
    let (name, port, _) = SITES[0];
    let ports = AtomicU16::new(REFUSED_PORTS);
    let standing = |site: &Site| {
        let servers = site.status().services.into_iter().map(|service| {
            let servers = service.real_servers.into_iter();
            let servers = servers.map(|it| (it.weight, it.removed, it.health.state));
            (service.name, servers.collect::<Vec<_>>())
        });
        servers.collect::<Vec<_>>()
    };
    let before = standing(&site);
    let (crowd, begun) = while_asked(&site, (web(port), &ports), || {
        let begun = Instant::now();
        for _ in 0..REFUSALS {
            director::write_configuration(&site.lab, &refused).unwrap();
            let outcome = send_reload(&director::control_socket(&site.lab));
            let words = outcome.unwrap_err().to_string();
            assert!(words.contains("large0") && words.contains("MTU"), "{words}");
        }
        begun
    });
    crowd.check_none_failed(&format!("{name}, a file is refused"), begun);
    assert_eq!(standing(&site), before);
    assert_eq!(site.reload_text(&text), Reload::Done, "{}", site.log());
    site.check_end();
}
