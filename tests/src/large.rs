//! A large site: 2,000 services with 10 real servers each, or fewer such, as text for a director, and as a network in which
//! all of them answer. Before them another one can stand whose only real server comes and goes: how long its verdicts take to
//! the packet path.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use director::control::{VerdictsStatus, fetch_status};

use crate::director::control_socket;
use crate::lab::plan::{VIRTUAL4, server4};
use crate::lab::{Host, Lab};
use crate::wait_until;

/// Services.
pub const SERVICES: u16 = 2000;
/// Real servers of each.
pub const REAL_SERVERS: u16 = 10;
/// Port of the first service; each has its own.
pub const FIRST_PORT: u16 = 10_000;
/// Hosts of the lab that have the real servers' addresses.
pub const HOSTS: u8 = 3;
/// Port on which the real server of [`flapping`] is looked for.
const FLAPPING_PORT: u16 = 9000;
/// How long a verdict may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// The real server, of so many services, whose weight [`services`] is told: its service and its place there.
#[must_use]
pub const fn changing(services: u16) -> (u16, u16) {
    (services / 2, 3)
}

/// Address of a real server: any of a prefix is host `number`'s.
#[must_use]
pub fn address(service: u16, nth: u16) -> Ipv4Addr {
    let [high, low] = service.to_be_bytes();
    let number = nth % u16::from(HOSTS) + 1;
    Ipv4Addr::new(10, prefix(number as u8), high << 4 | nth as u8, low)
}

const fn prefix(number: u8) -> u8 {
    100 + number
}

/// So many of the services, as a list in YAML that others may stand before. Each real server is asked for once a minute, to
/// connect.
#[must_use]
pub fn services(number: u16, weight_of_one: u32) -> String {
    let virtual_address = VIRTUAL4[0];
    let mut text = String::new();
    for service in 0..number {
        let port = FIRST_PORT + service;
        let _ = write!(
            text,
            "  - name: service-{service}\n    address: {virtual_address}\n    port: {port}\n    scheduler: wlc\n    \
             check: {{type: connect, interval: 60s, spread: 10s}}\n    real_servers:\n"
        );
        for nth in 0..REAL_SERVERS {
            let weight = if (service, nth) == changing(number) {
                weight_of_one
            } else {
                1
            };
            let address = address(service, nth);
            let _ = writeln!(
                text,
                "      - {{address: {address}, port: 8080, weight: {weight}}}"
            );
        }
    }
    text
}

/// Makes all these addresses hosts' of a lab with [`HOSTS`] real servers, without one of them being on an interface.
///
/// # Errors
/// A command failed.
pub fn lay_out(lab: &Lab) -> Result<()> {
    for number in 1..=HOSTS {
        let prefix = format!("10.{}.0.0/16", prefix(number));
        let local = ["route", "add", "local", &prefix, "dev", "lo"];
        lab.host(Host::Server(number))?.output("ip", &local)?;
        let by = server4(number).to_string();
        let route = ["route", "add", &prefix, "via", &by];
        lab.host(Host::Director)?.output("ip", &route)?;
    }
    Ok(())
}

/// The service that may stand before them: its only real server is looked for all the time, and each answer decides.
#[must_use]
pub fn flapping() -> String {
    format!(
        "  - {{name: flapping, address: {}, port: 80, scheduler: rr, check: {{type: connect, port: {FLAPPING_PORT}, interval: 100ms, \
         spread: 1ms, fall: 1, rise: 1}}, real_servers: [\"{}:8080\"]}}\n",
        VIRTUAL4[0],
        server4(1)
    )
}

/// Has the real server of [`flapping`], the first service of the director, come and go so often, while `status` is asked for
/// all the time. How long each of its verdicts took to the packet path.
///
/// # Errors
/// A verdict does not come.
pub fn verdicts(lab: &Lab, times: usize) -> Result<Vec<Duration>> {
    let socket = control_socket(lab);
    let host = lab.host(Host::Server(1))?;
    let address = SocketAddr::new(server4(1).into(), FLAPPING_PORT);
    let is_over = AtomicBool::new(false);
    let seen = Mutex::new((VerdictsStatus::default(), false));
    let wait_for = |wanted: bool, after: u64| {
        let mut found = VerdictsStatus::default();
        wait_until("a verdict is in the tables", PATIENCE, || {
            let (verdicts, is_up) = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
            found = verdicts;
            let is_it = found.written > after && is_up == wanted;
            ensure!(is_it, "{found:?}, up: {is_up}");
            Ok(())
        })?;
        anyhow::Ok(found)
    };
    let come_and_go = || {
        let mut written = wait_for(false, 0)?.written;
        let mut took = Vec::new();
        for _ in 0..times {
            let listener = host.run(|| TcpListener::bind(address))??;
            let comes = wait_for(true, written)?;
            drop(listener);
            let goes = wait_for(false, comes.written)?;
            written = goes.written;
            took.extend([comes, goes].map(|it| Duration::from_micros(it.last_us)));
        }
        anyhow::Ok(took)
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // Others are told of it: they wait in vain.
                let Ok(status) = fetch_status(&socket) else {
                    continue;
                };
                let is_up = status.services.first().is_some_and(|it| it.up);
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = (status.verdicts, is_up);
            }
        });
        let took = come_and_go();
        // Lest the thread goes on for ever.
        is_over.store(true, Ordering::Relaxed);
        took
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_real_server_has_an_address_of_its_host() {
        let mut seen = BTreeSet::new();
        for service in 0..SERVICES {
            for nth in 0..REAL_SERVERS {
                let address = address(service, nth);
                assert!(seen.insert(address), "{address} twice");
                let number = address.octets()[1] - 100;
                assert!((1..=HOSTS).contains(&number), "{address}");
            }
        }
        for number in [SERVICES, SERVICES / 10] {
            let (one, other) = (services(number, 1), services(number, 7));
            let differing = one.lines().zip(other.lines()).filter(|(a, b)| a != b);
            assert_eq!(differing.count(), 1);
        }
    }
}
