//! A large site: 2,000 services with 10 real servers each. How long it takes to load and to reload, and how fast a verdict
//! reaches the packet path there.

use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use director::control::{VerdictsStatus, fetch_status};
use director_tests::director::{Reload, control_socket};
use director_tests::lab::{Gateway, Host, Topology};
use director_tests::large::{self, CHANGING, FIRST_PORT, REAL_SERVERS, SERVICES};
use director_tests::{http, wait_until};

use crate::site::{Site, TIMEOUT, server, virtual_address};

/// Where the real server listens whose checks fail and succeed in turn.
const FLAPPING_PORT: u16 = 9000;
/// How often it goes and comes back.
const FLAPS: usize = 20;
/// Everything here takes longer than elsewhere.
const LONG: Duration = Duration::from_secs(180);

/// What may be taken, on a machine that has something else to do too. What is meant, on one that has not: 2 s, 300 ms and
/// 10 ms.
const LOAD: Duration = Duration::from_secs(4);
const RELOAD: Duration = Duration::from_millis(900);
const VERDICT: Duration = Duration::from_millis(30);
/// So much faster a reload with one change must be than the first load: all else is left alone.
const RELOAD_IN_LOAD: u32 = 3;

/// Bounds for a build with optimisation; one without takes several times as long, and only shows that nothing is out of
/// all proportion.
fn bound(optimised: Duration) -> Duration {
    if cfg!(debug_assertions) {
        optimised * 10
    } else {
        optimised
    }
}

/// The large site's services, and before them one with a single real server that comes and goes.
fn services(weight_of_one: u32) -> String {
    let virtual_address = virtual_address(false);
    format!(
        "  - {{name: flapping, address: {virtual_address}, port: 80, scheduler: rr, check: {{type: connect, port: {FLAPPING_PORT}, \
         interval: 100ms, spread: 1ms, fall: 1, rise: 1}}, real_servers: [\"{}:8080\"]}}\n{}",
        server(1, false),
        large::services(weight_of_one)
    )
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

mod slow {
    use super::*;

    #[test]
    #[ignore = "slow, needs root, network namespaces and nginx: cargo xtask test --all runs it"]
    fn two_thousand_services_with_ten_real_servers_each() {
        let mut site = Site::up(Topology::TwoInterfaces);
        site.lab.set_gateway(Gateway::Director).unwrap();
        large::lay_out(&site.lab).unwrap();
        let text = |weight| format!("{}{}", site.yaml(&[]), services(weight));
        let texts = [text(1), text(7)];
        site.start_text(&texts[0]);
        let socket = control_socket(&site.lab);
        let status = || fetch_status(&socket).unwrap();
        let loaded = Duration::from_millis(status().config.took_ms);
        println!("loaded {SERVICES} services with {REAL_SERVERS} real servers each in {loaded:?}");

        // Checks are real: each connects to its real server. Then each service answers.
        let began = Instant::now();
        wait_until("all real servers are up", LONG, || {
            let status = status();
            let mut all = status.services.iter().skip(1);
            let is_up = |it: &director::control::RealServerStatus| {
                it.health.state.as_deref() == Some("up") && it.weight > 0
            };
            ensure!(
                all.all(|service| service.real_servers.iter().all(is_up)),
                "not yet"
            );
            Ok(())
        })
        .unwrap();
        println!("all of them were found up {:?} later", began.elapsed());
        for service in [0, 999, SERVICES - 1] {
            let service = SocketAddr::new(virtual_address(false), FIRST_PORT + service);
            let response = site.client(|| http::get(service, "/", TIMEOUT)).unwrap();
            assert_eq!(response.status, 200);
        }

        // One change in it.
        let (mut reloads, mut in_loop) = (Vec::new(), Vec::new());
        for turn in 0..5 {
            assert_eq!(site.reload_text(&texts[(turn + 1) % 2]), Reload::Done);
            let status = status();
            // Behind the one that comes and goes.
            let (service, nth) = (usize::from(CHANGING.0) + 1, usize::from(CHANGING.1));
            let weight = status.services[service].real_servers[nth].weight;
            assert_eq!(weight, [7, 1][turn % 2]);
            reloads.push(Duration::from_millis(status.config.took_ms));
            in_loop.push(Duration::from_millis(status.config.in_loop_ms));
        }
        println!(
            "reloaded with one change in {reloads:?}, of which nothing else was done for {in_loop:?}"
        );

        let lags = verdicts(&site, &socket);
        let worst = lags.iter().max().copied().unwrap();
        let lag = median(lags);
        println!(
            "from a verdict to the packet path, under `status` calls: median {lag:?}, worst {worst:?}"
        );
        assert!(loaded < bound(LOAD), "{loaded:?}");
        let reload = median(reloads);
        assert!(reload < bound(RELOAD), "{reload:?}");
        assert!(reload * RELOAD_IN_LOAD < loaded, "{reload:?}");
        assert!(lag < bound(VERDICT), "{lag:?}");
        site.check_end();
    }

    /// Has a real server go and come back while `status` is asked for all the time. How long its verdicts took.
    fn verdicts(site: &Site, socket: &std::path::Path) -> Vec<Duration> {
        let is_over = AtomicBool::new(false);
        let seen = Mutex::new((VerdictsStatus::default(), false));
        let address = SocketAddr::new(server(1, false), FLAPPING_PORT);
        let listen = || {
            let host = site.host(Host::Server(1));
            host.run(|| TcpListener::bind(address)).unwrap().unwrap()
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let Ok(status) = fetch_status(socket) else {
                        continue;
                    };
                    *seen.lock().unwrap() = (status.verdicts, status.services[0].up);
                }
            });
            let wait_for = |wanted: bool, after: u64| {
                let mut found = VerdictsStatus::default();
                let outcome = wait_until("a verdict is in the tables", LONG, || {
                    let (verdicts, is_up) = seen.lock().unwrap().clone();
                    let is_it = verdicts.written > after && is_up == wanted;
                    found = verdicts;
                    ensure!(is_it, "{found:?}, up: {is_up}");
                    Ok(())
                });
                // Lest the thread goes on for ever.
                is_over.fetch_or(outcome.is_err(), Ordering::Relaxed);
                outcome.unwrap();
                found
            };
            let mut written = wait_for(false, 0).written;
            let mut lags = Vec::new();
            for _ in 0..FLAPS {
                let listener = listen();
                let comes = wait_for(true, written);
                drop(listener);
                let goes = wait_for(false, comes.written);
                written = goes.written;
                lags.extend([comes, goes].map(|it| Duration::from_micros(it.last_us)));
            }
            is_over.store(true, Ordering::Relaxed);
            lags
        })
    }
}
