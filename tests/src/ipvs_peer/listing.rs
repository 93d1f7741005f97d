//! What a kernel says of its IPVS connections, read.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// A connection, or a persistence template (port 0 of the client), as `ipvsadm -Lnc` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// `TCP`, `UDP`, `SCTP`; `IP` for a template of a mark.
    pub protocol: String,
    /// What is left of its life.
    pub expires: Duration,
    /// As the kernel calls it: `ESTABLISHED`.
    pub state: String,
    /// Who asked.
    pub client: SocketAddr,
    /// What it asked.
    pub virtual_address: SocketAddr,
    /// Who answers.
    pub real_server: SocketAddr,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Made by packets.
    Local,
    /// Made by synchronisation.
    Sync,
}

/// A connection as `/proc/net/ip_vs_conn_sync` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// Itself.
    pub connection: Connection,
    /// Where it comes from.
    pub origin: Origin,
}

/// From what `ipvsadm -Lnc` prints.
pub(super) fn connections(text: &str) -> Result<Vec<Connection>> {
    each_line(text, "pro expire", |words| {
        let [protocol, expires, state, client, service, server, ..] = words else {
            bail!("fewer than six words");
        };
        let (minutes, seconds) = expires.split_once(':').context("no MM:SS")?;
        let (minutes, seconds): (u64, u64) = (minutes.parse()?, seconds.parse()?);
        Ok(Connection {
            protocol: (*protocol).to_owned(),
            expires: Duration::from_secs(minutes * 60 + seconds),
            state: (*state).to_owned(),
            client: client.parse()?,
            virtual_address: service.parse()?,
            real_server: server.parse()?,
        })
    })
}

/// From `/proc/net/ip_vs_conn_sync`: addresses and ports in hexadecimal digits.
pub(super) fn synced(text: &str) -> Result<Vec<Synced>> {
    each_line(text, "Pro FromIP", |words| {
        let [
            protocol,
            client,
            client_port,
            service,
            port,
            server,
            server_port,
            state,
            origin,
            expires,
        ] = words
        else {
            bail!("not ten words");
        };
        Ok(Synced {
            connection: Connection {
                protocol: (*protocol).to_owned(),
                expires: Duration::from_secs(expires.parse()?),
                state: (*state).to_owned(),
                client: hexadecimal(client, client_port)?,
                virtual_address: hexadecimal(service, port)?,
                real_server: hexadecimal(server, server_port)?,
            },
            origin: match *origin {
                "LOCAL" => Origin::Local,
                "SYNC" => Origin::Sync,
                other => bail!("the origin `{other}`"),
            },
        })
    })
}

fn hexadecimal(address: &str, port: &str) -> Result<SocketAddr> {
    let address = if address.contains(':') {
        IpAddr::V6(address.parse()?)
    } else {
        IpAddr::V4(Ipv4Addr::from_bits(u32::from_str_radix(address, 16)?))
    };
    Ok(SocketAddr::new(address, u16::from_str_radix(port, 16)?))
}

/// Reads each line after the one that begins with `heading`. A table without that line is no table.
fn each_line<T>(text: &str, heading: &str, read: impl Fn(&[&str]) -> Result<T>) -> Result<Vec<T>> {
    // A kernel without any connection prints the heading of the second listing not at all.
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut lines = text.lines();
    ensure!(
        lines.any(|line| line.starts_with(heading)),
        "no line begins with `{heading}`:\n{text}"
    );
    lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            read(&words).with_context(|| format!("not understood: `{line}`"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(line: [&str; 6], expires: u64) -> Connection {
        let [protocol, state, client, service, server, _] = line;
        Connection {
            protocol: protocol.to_owned(),
            expires: Duration::from_secs(expires),
            state: state.to_owned(),
            client: client.parse().unwrap(),
            virtual_address: service.parse().unwrap(),
            real_server: server.parse().unwrap(),
        }
    }

    // Both as a Linux 6.1 printed them.
    const LISTED: &str = "\
IPVS connection entries
pro expire state       source             virtual            destination
TCP 01:56  TIME_WAIT   10.1.0.10:40002    10.1.0.1:80        10.2.0.11:8080
UDP 03:02  UDP         [fd00:1::10]:52537 [fd00:1::1]:5353   [fd00:2::12]:5353
TCP 03:02  ASSURED     10.1.0.10:0        10.1.0.1:443       10.2.0.12:8080
";
    const SYNCED: &str = "\
Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Origin Expires
TCP 0A01000A 9C42 0A010001 0050 0A02000B 1F90 TIME_WAIT   LOCAL      116
UDP fd00:0001:0000:0000:0000:0000:0000:0010 CD39 fd00:0001:0000:0000:0000:0000:0000:0001 14E9 fd00:0002:0000:0000:0000:0000:0000:0012 14E9 UDP         SYNC       182
TCP 0A01000A 0000 0A010001 01BB 0A02000C 1F90 ASSURED     LOCAL      182
";

    #[test]
    fn both_listings_say_the_same() {
        let expected = [
            (
                [
                    "TCP",
                    "TIME_WAIT",
                    "10.1.0.10:40002",
                    "10.1.0.1:80",
                    "10.2.0.11:8080",
                    "",
                ],
                116,
                Origin::Local,
            ),
            (
                [
                    "UDP",
                    "UDP",
                    "[fd00:1::10]:52537",
                    "[fd00:1::1]:5353",
                    "[fd00:2::12]:5353",
                    "",
                ],
                182,
                Origin::Sync,
            ),
            (
                [
                    "TCP",
                    "ASSURED",
                    "10.1.0.10:0",
                    "10.1.0.1:443",
                    "10.2.0.12:8080",
                    "",
                ],
                182,
                Origin::Local,
            ),
        ]
        .map(|(line, expires, origin)| Synced {
            connection: connection(line, expires),
            origin,
        });
        assert_eq!(synced(SYNCED).unwrap(), expected);
        let alone = expected.map(|synced| synced.connection);
        assert_eq!(connections(LISTED).unwrap(), alone);
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        assert_eq!(synced("").unwrap(), []);
        for text in ["what?", "pro expire\nTCP", "pro expire\nTCP 1 A b c d"] {
            assert!(connections(text).is_err(), "{text}");
        }
        assert!(synced(&SYNCED.replace("LOCAL", "ELSE")).is_err());
    }
}
