//! An HTTP POST request with the alert as JSON. A status from 200 to 299: it is delivered.

use std::future::pending;
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::addresses::Addresses;
use super::{Letter, PLACES};
use crate::config::WebhookWay;
use crate::health::probe::authorities::Authorities;
use crate::health::probe::frugal::Frugal;
use crate::health::probe::{Reach, Stream, tls};

static AUTHORITIES: Authorities = Authorities::new(&PLACES);

pub(super) async fn post(way: &WebhookWay, letter: &Letter, time: Duration) -> Result<(), String> {
    let addresses = Addresses::of(&way.host, way.port, time)
        .await
        .map_err(|error| failed(way, &error))?;
    post_to(&addresses, way, letter).await
}

pub(super) async fn post_to(
    addresses: &Addresses,
    way: &WebhookWay,
    letter: &Letter,
) -> Result<(), String> {
    let request = request(way, letter)?;
    let stream = connect(way, addresses).await?;
    let stream = match &way.tls {
        None => stream,
        Some(options) => tls::wrap(stream, options, &way.host, &AUTHORITIES)
            .await
            .map_err(|failure| failed(way, &failure))?,
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(Frugal::new(stream)))
        .await
        .map_err(|error| failed(way, &error))?;
    // Reads and writes for the exchange. Its own end says nothing that the exchange does not hear of.
    let drive = async {
        drop(connection.await);
        pending::<()>().await
    };
    let response = tokio::select! {
        response = sender.send_request(request) => response.map_err(|error| failed(way, &error))?,
        () = drive => return Err(failed(way, &"the connection ended")),
    };
    let status = response.status();
    if status.is_success() {
        Ok(())
    } else {
        Err(failed(
            way,
            &format!("expected a status from 200 to 299, got {status}"),
        ))
    }
}

fn request(way: &WebhookWay, letter: &Letter) -> Result<Request<Full<Bytes>>, String> {
    let agent = concat!("director/", env!("CARGO_PKG_VERSION"));
    let mut request = Request::post(&way.path.0)
        .header(HOST, &way.authority)
        .header(CONNECTION, HeaderValue::from_static("close"))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header(USER_AGENT, agent);
    // Those of the configuration take the place of these.
    if let Some(headers) = request.headers_mut() {
        for (name, value) in &way.headers {
            let name = name.parse::<hyper::header::HeaderName>();
            let value = HeaderValue::from_str(&value.0);
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(failed(way, &"a header of the configuration cannot be sent"));
            };
            headers.insert(name, value);
        }
    }
    request
        .body(Full::from(letter.json.clone()))
        .map_err(|error| failed(way, &error))
}

/// A connection to the first address that takes one.
async fn connect(way: &WebhookWay, addresses: &Addresses) -> Result<Box<dyn Stream>, String> {
    let mut failures = Vec::new();
    for address in &addresses.all {
        let reach = Reach {
            address: address.ip(),
            port: address.port(),
            source: None,
            interface: None,
            through: None,
        };
        match timeout(addresses.each, reach.connect()).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(failure)) => failures.push(format!("{address}: {failure}")),
            Err(_) => failures.push(format!(
                "{address}: no connection within {} ms",
                addresses.each.as_millis()
            )),
        }
    }
    Err(failed(way, &failures.join("; ")))
}

/// The path may hold a secret and is not shown.
fn failed(way: &WebhookWay, why: &dyn std::fmt::Display) -> String {
    format!("{}: {why}", way.authority)
}
