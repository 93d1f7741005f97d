//! An HTTP request over TCP or TLS, and whether the answer is the expected one.

use std::fmt::Write;
use std::pin::pin;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use md5::Md5;
use sha2::{Digest as _, Sha256};

use super::authorities::OF_CHECKS;
use super::frugal::Frugal;
use super::pattern::Wanted;
use super::{ANSWER_BYTES, Failure, FailureKind, Good, Reach, tls};
use crate::config::{Digest, HttpProbe};

pub(super) async fn probe(reach: &Reach, probe: &HttpProbe) -> Result<Good, Failure> {
    let request = request(reach, probe)?;
    let stream = reach.connect().await?;
    let stream = match &probe.tls {
        None => stream,
        Some(options) => {
            // The port is not part of a certificate's name.
            let host = probe.host_name().map(str::to_owned);
            let name = host.unwrap_or_else(|| tls::default_name(reach.address));
            tls::wrap(stream, options, &name, &OF_CHECKS).await?
        }
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(Frugal::new(stream)))
        .await
        .map_err(|error| failure("beginning HTTP", &error))?;
    let mut exchange = pin!(async {
        let sent = sender.send_request(request).await;
        judge(
            probe,
            sent.map_err(|error| failure("sending the request", &error))?,
        )
        .await
    });
    let mut connection = pin!(connection);
    let (mut is_over, mut broken) = (false, None);
    loop {
        tokio::select! {
            // First the connection: where it breaks, the exchange only hears that it is over.
            biased;
            result = &mut connection, if !is_over => {
                is_over = true;
                broken = result.err();
            }
            answer = &mut exchange => return match (answer, broken) {
                (Err(heard), Some(error)) if heard.kind == FailureKind::Closed => {
                    Err(failure("reading the answer", &error))
                }
                (answer, _) => answer,
            },
        }
    }
}

fn request(reach: &Reach, probe: &HttpProbe) -> Result<Request<Empty<Bytes>>, Failure> {
    let host = match &probe.host {
        Some(host) => host.clone(),
        None => reach.socket_address().to_string(),
    };
    let mut request = Request::builder()
        .method(probe.method.as_str())
        .uri(&probe.path)
        .header(HOST, host)
        .header(CONNECTION, HeaderValue::from_static("close"));
    let is_agent = |name: &String| name.eq_ignore_ascii_case(USER_AGENT.as_str());
    if !probe.headers.iter().any(|(name, _)| is_agent(name)) {
        request = request.header(USER_AGENT, concat!("director/", env!("CARGO_PKG_VERSION")));
    }
    for (name, value) in &probe.headers {
        request = request.header(name, &value.0);
    }
    request.body(Empty::new()).map_err(|error| {
        let words = format!("this request cannot be made: {error}");
        Failure::new(FailureKind::Local, words)
    })
}

async fn judge(probe: &HttpProbe, response: Response<Incoming>) -> Result<Good, Failure> {
    let status = response.status();
    let is_expected = |(first, last): &(u16, u16)| (*first..=*last).contains(&status.as_u16());
    if !probe.status.iter().any(is_expected) {
        let words = format!("expected status {}, got {status}", ranges(&probe.status));
        return Err(Failure::new(FailureKind::Unexpected, words));
    }
    if probe.body.is_none() && probe.digest.is_none() {
        return Ok(Good::new(status.to_string()));
    }
    let body = read(response.into_body()).await?;
    if let Some(pattern) = &probe.body {
        let wanted = Wanted::new(pattern)?;
        if !wanted.is_in(&body) {
            return Err(Failure::unexpected(
                &format!("{} in the body", wanted.shown()),
                &body,
            ));
        }
    }
    if let Some(digest) = &probe.digest {
        let (expected, found) = match digest {
            Digest::Sha256(expected) => {
                (hexadecimal(expected), hexadecimal(&Sha256::digest(&body)))
            }
            Digest::Md5(expected) => (hexadecimal(expected), hexadecimal(&Md5::digest(&body))),
        };
        if expected != found {
            let words = format!(
                "expected a body with the digest {expected}, got {found} ({} bytes)",
                body.len()
            );
            return Err(Failure::new(FailureKind::Unexpected, words));
        }
    }
    Ok(Good::new(format!("{status}, {} bytes", body.len())))
}

async fn read(mut body: Incoming) -> Result<Vec<u8>, Failure> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| failure("reading the body", &error))?;
        if let Some(data) = frame.data_ref() {
            if read.len() + data.len() > ANSWER_BYTES {
                let words = format!("the body is longer than {ANSWER_BYTES} bytes");
                return Err(Failure::new(FailureKind::Oversized, words));
            }
            read.extend_from_slice(data);
        }
    }
    Ok(read)
}

fn ranges(status: &[(u16, u16)]) -> String {
    let ranges: Vec<String> = status
        .iter()
        .map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    ranges.join(", ")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What hyper says, by what it was.
fn failure(doing: &str, error: &hyper::Error) -> Failure {
    use std::error::Error;
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return Failure::io(doing, io);
        }
        // Why a request was canceled, if the connection ended by it.
        if let Some(why) = inner.downcast_ref::<hyper::Error>() {
            return failure(doing, why);
        }
        cause = inner.source();
    }
    let kind = match error {
        _ if error.is_parse_too_large() => FailureKind::Oversized,
        _ if error.is_parse() => FailureKind::Unexpected,
        _ if error.is_incomplete_message() || error.is_closed() || error.is_canceled() => {
            FailureKind::Closed
        }
        _ => FailureKind::Unexpected,
    };
    Failure::new(kind, format!("{doing}: {error}"))
}
