//! Mail by SMTP (RFC 5321), with TLS and login.

use std::error::Error;
use std::fs;
use std::time::Duration;

use lettre::Message;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;

use tokio::time::timeout;

use super::Letter;
use super::addresses::Addresses;
use crate::config::{MailTls, MailWay, limits::AUTHORITIES_BYTES};
use crate::files::read_regular;

/// How long a server may take to say goodbye, once it has the mail.
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) async fn send(way: &MailWay, letter: &Letter, time: Duration) -> Result<(), String> {
    let addresses = Addresses::of(&way.server, way.port, time)
        .await
        .map_err(|error| failed(way, &error))?;
    send_by(&addresses, way, letter).await
}

pub(super) async fn send_by(
    addresses: &Addresses,
    way: &MailWay,
    letter: &Letter,
) -> Result<(), String> {
    let host = host();
    let message = compose(way, letter, &host)?;
    let hello = ClientId::Domain(host);
    let (at_once, later) = match way.tls {
        MailTls::None => (None, None),
        MailTls::Starttls => (None, Some(parameters(way)?)),
        MailTls::Tls => (Some(parameters(way)?), None),
    };
    let sent = async {
        // The time is for a connection to one address.
        let (all, each) = (&addresses.all[..], Some(addresses.each));
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(all, each, &hello, at_once, None).await?;
        if let Some(later) = later {
            connection.starttls(later, &hello).await?;
        }
        if let Some((user, password)) = &way.login {
            let login = Credentials::new(user.clone(), password.0.clone());
            connection.auth(DEFAULT_MECHANISMS, &login).await?;
        }
        connection
            .send(message.envelope(), &message.formatted())
            .await?;
        // It is delivered, whether the server takes its leave or not.
        drop(timeout(GOODBYE, connection.quit()).await);
        Ok(())
    };
    sent.await
        .map_err(|error: lettre::transport::smtp::Error| failed(way, &in_full(&error)))
}

fn failed(way: &MailWay, why: &str) -> String {
    format!("mail to {} by {}: {why}", way.to.join(", "), way.server)
}

fn compose(way: &MailWay, letter: &Letter, host: &str) -> Result<Message, String> {
    let mailbox = |text: &str| {
        text.parse::<Mailbox>()
            .map_err(|error| format!("{text} is no mail address: {error}"))
    };
    let from = match &way.from {
        Some(from) => mailbox(from)?,
        None => mailbox(&format!("director@{host}"))?,
    };
    let mut message = Message::builder()
        .from(from)
        .subject(letter.subject.as_str())
        .header(ContentType::TEXT_PLAIN);
    for to in &way.to {
        message = message.to(mailbox(to)?);
    }
    message
        // Each should have one (RFC 5322 section 3.6.4), and some servers refuse those without.
        .message_id(None)
        .body(letter.text.clone())
        .map_err(|error| format!("this mail cannot be made: {error}"))
}

fn parameters(way: &MailWay) -> Result<TlsParameters, String> {
    let mut parameters = TlsParameters::builder(way.server.clone());
    if let Some(file) = &way.ca_file {
        let failed =
            |what: String| format!("certificate authorities of {}: {what}", file.display());
        let pem =
            read_regular(file, AUTHORITIES_BYTES).map_err(|error| failed(error.to_string()))?;
        let authority = Certificate::from_pem(&pem).map_err(|error| failed(in_full(&error)))?;
        parameters = parameters.add_root_certificate(authority);
    }
    parameters
        .build_rustls()
        .map_err(|error| format!("TLS: {}", in_full(&error)))
}

/// The name of this host, as far as a mail server takes it.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let fits = !name.is_empty()
        && name
            .bytes()
            .all(|it| it.is_ascii_alphanumeric() || b".-".contains(&it));
    if fits { name } else { "localhost" }.to_owned()
}

/// An error with its causes.
fn in_full(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_words = inner.to_string();
        if !words.contains(&inner_words) {
            words = format!("{words}: {inner_words}");
        }
        cause = inner.source();
    }
    words
}
