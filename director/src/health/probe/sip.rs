//! SIP: `OPTIONS` over UDP (RFC 3261 section 11), answered with a final status below 300.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;

use super::{Failure, FailureKind, Good, Reach};
use crate::config::SipProbe;

/// The longest datagram there is.
const DATAGRAM_BYTES: usize = 65_535;

pub(super) async fn probe(reach: &Reach, probe: &SipProbe) -> Result<Good, Failure> {
    let socket = reach.datagrams().await?;
    let local = socket
        .local_addr()
        .map_err(|error| Failure::io("asking", &error))?;
    let call = RandomState::new().hash_one(local);
    let request = request(probe.uri.as_deref(), reach.socket_address(), local, call);
    socket
        .send(request.as_bytes())
        .await
        .map_err(|error| Failure::io("asking", &error))?;
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let length = socket
            .recv(&mut buffer)
            .await
            .map_err(|error| Failure::io("waiting for the answer", &error))?;
        let answer = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        match judge(&answer, call) {
            Heard::Final(result) => return result,
            Heard::Other => {}
        }
    }
}

fn request(uri: Option<&str>, backend: SocketAddr, local: SocketAddr, call: u64) -> String {
    let uri = uri.map_or_else(|| format!("sip:{backend}"), str::to_owned);
    // RFC 3261 section 8.1.1: what a request must have. The branch begins with the magic cookie of section 8.1.1.7.
    format!(
        "OPTIONS {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{call:x}\r\nMax-Forwards: 70\r\n\
         To: <{uri}>\r\nFrom: <sip:director@{local}>;tag={call:x}\r\nCall-ID: {call:x}@director\r\nCSeq: 1 OPTIONS\r\n\
         Contact: <sip:director@{local}>\r\nAccept: application/sdp\r\nContent-Length: 0\r\n\r\n"
    )
}

enum Heard {
    Final(Result<Good, Failure>),
    /// Of another call, or provisional (1xx).
    Other,
}

fn judge(answer: &str, call: u64) -> Heard {
    let first = answer.lines().next().unwrap_or_default();
    let status: Option<u16> = first
        .strip_prefix("SIP/2.0 ")
        .and_then(|rest| rest.split(' ').next()?.parse().ok());
    let Some(status) = status else {
        let words = Failure::unexpected("a SIP answer", first.as_bytes());
        return Heard::Final(Err(words));
    };
    let expected = format!("{call:x}@director");
    let is_ours = answer.lines().any(|line| {
        let (name, value) = line.split_once(':').unwrap_or_default();
        // `i` is its short form (section 7.3.3).
        (name.trim().eq_ignore_ascii_case("Call-ID") || name.trim().eq_ignore_ascii_case("i"))
            && value.trim() == expected
    });
    match status {
        _ if !is_ours => Heard::Other,
        100..200 => Heard::Other,
        200..300 => Heard::Final(Ok(Good::new(first))),
        _ => Heard::Final(Err(Failure::new(
            FailureKind::Unexpected,
            format!("expected a status below 300, got \"{first}\""),
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let ours = "Call-ID: ff@director\r\n";
        // (answer, whether it is final, whether it is good)
        let cases = [
            (format!("SIP/2.0 200 OK\r\n{ours}\r\n"), true, true),
            (
                "SIP/2.0 200 OK\r\ni: ff@director\r\n\r\n".to_owned(),
                true,
                true,
            ),
            (format!("SIP/2.0 100 Trying\r\n{ours}\r\n"), false, false),
            (
                "SIP/2.0 200 OK\r\nCall-ID: fe@director\r\n\r\n".to_owned(),
                false,
                false,
            ),
            (format!("SIP/2.0 404 Not Found\r\n{ours}\r\n"), true, false),
            ("HTTP/1.1 200 OK\r\n\r\n".to_owned(), true, false),
            (String::new(), true, false),
        ];
        for (answer, is_final, is_good) in cases {
            match judge(&answer, 0xff) {
                Heard::Final(result) => assert_eq!((true, result.is_ok()), (is_final, is_good)),
                Heard::Other => assert!(!is_final, "{answer}"),
            }
        }
    }
}
