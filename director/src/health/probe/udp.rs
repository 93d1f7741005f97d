//! A datagram, and what comes back: an answer, an ICMP error, or nothing.

use std::time::Duration;

use super::pattern::Wanted;
use super::{Failure, Good, Reach};
use crate::config::UdpProbe;

/// The longest datagram there is.
const DATAGRAM_BYTES: usize = 65_535;

/// `time`: what the run may take. Where no answer is asked for, silence for nine tenths of it is a success.
pub(super) async fn probe(
    reach: &Reach,
    probe: &UdpProbe,
    time: Duration,
) -> Result<Good, Failure> {
    let socket = reach.datagrams().await?;
    socket
        .send(&probe.send)
        .await
        .map_err(|error| Failure::io("sending", &error))?;
    let mut answer = vec![0; DATAGRAM_BYTES];
    let Some(pattern) = &probe.expect else {
        let heard = tokio::time::timeout(time * 9 / 10, socket.recv(&mut answer)).await;
        return match heard {
            Ok(Ok(length)) => Ok(Good::new(format!("answered with {length} bytes"))),
            Ok(Err(error)) => Err(Failure::io("waiting", &error)),
            Err(_) => Ok(Good::new("not refused")),
        };
    };
    let wanted = Wanted::new(pattern)?;
    let length = socket
        .recv(&mut answer)
        .await
        .map_err(|error| Failure::io("waiting for the answer", &error))?;
    let answer = answer.get(..length).unwrap_or_default();
    if wanted.is_in(answer) {
        Ok(Good::new(format!("answered with {length} bytes")))
    } else {
        Err(Failure::unexpected(wanted.shown(), answer))
    }
}
