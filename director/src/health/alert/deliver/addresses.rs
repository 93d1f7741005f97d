//! Where a host is, and how long each of its addresses may take: where the first one swallows connections, the next one is
//! tried.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::lookup_host;

/// Addresses of a host that are tried.
const ADDRESSES: usize = 4;

/// Addresses of a host, and how long a connection to each may take.
pub(super) struct Addresses {
    pub(super) all: Vec<SocketAddr>,
    pub(super) each: Duration,
}

impl Addresses {
    /// Asks for them. `time`: that of the whole delivery.
    pub(super) async fn of(host: &str, port: u16, time: Duration) -> Result<Self, String> {
        let began = Instant::now();
        let found = lookup_host((host, port)).await;
        let found = found.map_err(|error| format!("asking for its addresses: {error}"))?;
        Self::among(found, time.saturating_sub(began.elapsed()))
    }

    /// The first ones of both families, and a part of the time for each: as much is left for what is said then.
    pub(super) fn among(
        found: impl Iterator<Item = SocketAddr>,
        time: Duration,
    ) -> Result<Self, String> {
        let mut all = in_turns(found.collect());
        all.truncate(ADDRESSES);
        if all.is_empty() {
            return Err("it has no address".to_owned());
        }
        let each = time / (all.len() as u32 + 1);
        Ok(Self { all, each })
    }
}

/// Addresses of the family of the first one, in turns with the others (RFC 8305 section 4): however many the one family has,
/// it is not the only one that is tried.
fn in_turns(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_ipv6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<SocketAddr>, Vec<SocketAddr>) = found
        .into_iter()
        .partition(|address| address.is_ipv6() == is_ipv6);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut all = Vec::new();
    loop {
        let next = [one.next(), other.next()];
        if next == [None, None] {
            return all;
        }
        all.extend(next.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_tried_and_for_how_long() {
        // (addresses as they are found, as they are tried, seconds of 30 for each)
        let cases: [(&[&str], &[&str], u64); 6] = [
            (&["10.0.0.1"], &["10.0.0.1"], 15),
            (&["10.0.0.1", "10.0.0.2"], &["10.0.0.1", "10.0.0.2"], 10),
            (&["::1", "::2", "10.0.0.1"], &["::1", "10.0.0.1", "::2"], 7),
            (&["10.0.0.1", "::1"], &["10.0.0.1", "::1"], 10),
            (
                &["::1", "::2", "::3", "::4", "::5", "10.0.0.1", "10.0.0.2"],
                &["::1", "10.0.0.1", "::2", "10.0.0.2"],
                6,
            ),
            (&[], &[], 0),
        ];
        for (found, tried, each_s) in cases {
            let parsed = |texts: &[&str]| -> Vec<SocketAddr> {
                let addresses = texts.iter().map(|text| text.parse().unwrap());
                addresses
                    .map(|it: std::net::IpAddr| SocketAddr::new(it, 443))
                    .collect()
            };
            let addresses = Addresses::among(parsed(found).into_iter(), Duration::from_secs(30));
            match addresses {
                Ok(addresses) => {
                    let found = (addresses.all, addresses.each.as_secs());
                    assert_eq!(found, (parsed(tried), each_s), "{tried:?}");
                }
                Err(words) => assert!(tried.is_empty(), "{words}"),
            }
        }
    }
}
