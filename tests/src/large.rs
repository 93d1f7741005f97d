//! A large site: 2,000 services with 10 real servers each, as text for a director, and as a network in which all of them
//! answer.

use std::fmt::Write;
use std::net::Ipv4Addr;

use anyhow::Result;

use crate::lab::plan::{VIRTUAL4, server4};
use crate::lab::{Host, Lab};

/// Services.
pub const SERVICES: u16 = 2000;
/// Real servers of each.
pub const REAL_SERVERS: u16 = 10;
/// Port of the first service; each has its own.
pub const FIRST_PORT: u16 = 10_000;
/// Hosts of the lab that have the real servers' addresses.
pub const HOSTS: u8 = 3;
/// The real server whose weight [`services`] is told: its service and its place there.
pub const CHANGING: (u16, u16) = (1000, 3);

/// Address of a real server: any of a prefix is host `number`'s.
fn address(service: u16, nth: u16) -> Ipv4Addr {
    let [high, low] = service.to_be_bytes();
    let number = nth % u16::from(HOSTS) + 1;
    Ipv4Addr::new(10, prefix(number as u8), high << 4 | nth as u8, low)
}

const fn prefix(number: u8) -> u8 {
    100 + number
}

/// The services, as a list in YAML that others may stand before. Each real server is asked for once a minute, to connect.
#[must_use]
pub fn services(weight_of_one: u32) -> String {
    let virtual_address = VIRTUAL4[0];
    let mut text = String::new();
    for service in 0..SERVICES {
        let port = FIRST_PORT + service;
        let _ = write!(
            text,
            "  - name: service-{service}\n    address: {virtual_address}\n    port: {port}\n    scheduler: wlc\n    \
             check: {{type: connect, interval: 60s, spread: 10s}}\n    real_servers:\n"
        );
        for nth in 0..REAL_SERVERS {
            let weight = if (service, nth) == CHANGING {
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
        let changed = |weight| services(weight);
        let (one, other) = (changed(1), changed(7));
        let differing = one.lines().zip(other.lines()).filter(|(a, b)| a != b);
        assert_eq!(differing.count(), 1);
    }
}
