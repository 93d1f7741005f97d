//! TLS over a connection to a backend, and the check of its certificate alone.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme,
};
use x509_parser::parse_x509_certificate;

use super::authorities::{Authorities, OF_CHECKS};
use super::{Failure, FailureKind, Good, Reach, Stream};
use crate::config::{TlsOptions, TlsProbe};

/// Seconds of a day.
const DAY_S: i64 = 86_400;

/// TLS over a connection. `name`: whom the certificate must be for, unless the options say another; an address is one too.
/// `authorities`: who reads what it is held against.
pub(in crate::health) async fn wrap(
    stream: Box<dyn Stream>,
    options: &TlsOptions,
    name: &str,
    authorities: &'static Authorities,
) -> Result<Box<dyn Stream>, Failure> {
    Ok(Box::new(
        handshake(stream, options, name, authorities).await?,
    ))
}

/// The handshake succeeds, and the certificate is good for some days more.
pub(super) async fn probe(reach: &Reach, probe: &TlsProbe) -> Result<Good, Failure> {
    let stream = reach.connect().await?;
    let stream = handshake(stream, &probe.tls, &reach.address.to_string(), &OF_CHECKS).await?;
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(|chain| chain.first());
    let certificate = certificate.ok_or_else(|| {
        Failure::new(
            FailureKind::Certificate,
            "the backend showed no certificate",
        )
    })?;
    let until_s = not_after_s(certificate)?;
    let now_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    judge(
        until_s,
        i64::try_from(now_s).unwrap_or(i64::MAX),
        probe.days_left,
    )
}

/// Whether a certificate that is valid until a time is good for so many days more.
fn judge(until_s: i64, now_s: i64, days_left: u32) -> Result<Good, Failure> {
    // Whole days in both directions: three days and an hour ago are three days ago.
    let left = (until_s - now_s) / DAY_S;
    if until_s < now_s {
        let words = format!("the certificate expired {} days ago", -left);
        return Err(Failure::new(FailureKind::Certificate, words));
    }
    if left < i64::from(days_left) {
        let words =
            format!("the certificate expires in {left} days, and should be valid for {days_left}");
        return Err(Failure::new(FailureKind::Certificate, words));
    }
    Ok(Good::new(format!(
        "the certificate is valid for {left} days more"
    )))
}

fn not_after_s(certificate: &CertificateDer<'_>) -> Result<i64, Failure> {
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|error| {
        Failure::new(
            FailureKind::Certificate,
            format!("the backend's certificate cannot be read: {error}"),
        )
    })?;
    Ok(parsed.validity().not_after.timestamp())
}

async fn handshake(
    stream: Box<dyn Stream>,
    options: &TlsOptions,
    name: &str,
    authorities: &'static Authorities,
) -> Result<TlsStream<Box<dyn Stream>>, Failure> {
    let name = options.server_name.as_deref().unwrap_or(name).to_owned();
    let server_name = ServerName::try_from(name.clone()).map_err(|_| {
        let words = format!("\"{name}\" is no name that a certificate can be for");
        Failure::new(FailureKind::Local, words)
    })?;
    let connector = TlsConnector::from(Arc::new(client(options, authorities).await?));
    connector
        .connect(server_name, stream)
        .await
        .map_err(|error| failure(&error, &name))
}

/// A failed handshake in words.
fn failure(error: &std::io::Error, name: &str) -> Failure {
    let inner = error.get_ref().and_then(|it| it.downcast_ref::<Error>());
    let why = match inner {
        Some(Error::InvalidCertificate(why)) => why,
        Some(other) => {
            return Failure::new(FailureKind::Unexpected, format!("TLS handshake: {other}"));
        }
        None => return Failure::io("TLS handshake", error),
    };
    let words = match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "the certificate's issuer is not known; name its authority under \"ca\"".to_owned()
        }
        // An authority has this issuer's name and another key: it was made anew, or somebody pretends.
        CertificateError::BadSignature => {
            "the certificate's issuer is known, but its signature is not that of the authority of this name; \
             renew the file under \"ca\" if the authority has a new key"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the certificate is not for {name}")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate is not one for a server (extended key usage)".to_owned()
        }
        CertificateError::Other(why) if is_an_authoritys(why) => {
            "the certificate is an authority's, which no server can show as its own (CA:TRUE); make one of the server's own, \
             or set \"verify: false\""
                .to_owned()
        }
        other => format!("the certificate is not good: {other}"),
    };
    Failure::new(FailureKind::Certificate, words)
}

/// Whether the certificate is refused because it is one of an authority. rustls has no name for it, only its verifier's.
fn is_an_authoritys(why: &OtherError) -> bool {
    format!("{why:?}").contains("CaUsedAsEndEntity")
}

async fn client(
    options: &TlsOptions,
    authorities: &'static Authorities,
) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(ring::default_provider());
    let broken = |error: Error| Failure::new(FailureKind::Local, format!("TLS: {error}"));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(broken)?;
    if !options.verify {
        return Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody { provider }))
            .with_no_client_auth());
    }
    let roots = match &options.ca_file {
        Some(file) => authorities.of_file(file).await?,
        None => authorities.of_system().await?,
    };
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Takes every certificate, for `verify: false`. That the backend has the certificate's key is still checked.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The name that a backend's certificate must be for if nothing else is said: its address.
pub(super) fn default_name(address: IpAddr) -> String {
    address.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_that_are_left() {
        // (seconds that are left, days asked for, whether it is good, words)
        let cases = [
            (10 * DAY_S, 7, true, "for 10 days"),
            (7 * DAY_S, 7, true, "for 7 days"),
            (7 * DAY_S - 1, 7, false, "in 6 days"),
            (1, 0, true, "for 0 days"),
            (-1, 0, false, "expired 0 days ago"),
            (-3 * DAY_S - 1, 0, false, "expired 3 days ago"),
            (-100 * DAY_S, 0, false, "expired 100 days ago"),
        ];
        for (left_s, days_left, expected, words) in cases {
            let found = judge(1_000_000_000 + left_s, 1_000_000_000, days_left);
            assert_eq!(found.is_ok(), expected, "{left_s}: {found:?}");
            let said = found.map_or_else(|failure| failure.words, |good| good.words);
            assert!(said.contains(words), "{left_s}: {said}");
        }
    }
}
