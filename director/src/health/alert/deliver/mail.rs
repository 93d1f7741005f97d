//! Mail by SMTP (RFC 5321), with TLS and login.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lettre::Message;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;

use tokio::time::timeout;

use super::addresses::Addresses;
use super::{Letter, PLACES};
use crate::config::limits::AUTHORITIES_BYTES;
use crate::config::{MailTls, MailWay};
use crate::files::read_regular;
use crate::health::aside::Aside;

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
        MailTls::Starttls => (None, Some(parameters(way).await?)),
        MailTls::Tls => (Some(parameters(way).await?), None),
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

/// Name of a mail server, and a file with authorities besides the system's.
type Trusted = (String, Option<PathBuf>);

static READING: Aside<Trusted, Result<TlsParameters, String>> = Aside::new(&PLACES);

/// What its certificate is held against. Files that take long, of a network's file system, hold up only who wants them.
async fn parameters(way: &MailWay) -> Result<TlsParameters, String> {
    let key = (way.server.clone(), way.ca_file.clone());
    let read = READING.get(&key, |(server, file)| {
        read_parameters(server, file.as_deref())
    });
    read.await
        .map_err(|error| format!("certificate authorities: {error}"))?
}

fn read_parameters(server: &str, file: Option<&Path>) -> Result<TlsParameters, String> {
    let mut parameters = TlsParameters::builder(server.to_owned());
    if let Some(file) = file {
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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::config::{self, AlertWay};

    fn way(server: &str) -> MailWay {
        let text = format!(
            "interfaces: [eth0]\nalerts: [{{name: it, mail: {{server: {server}, to: [a@b.example], ca: /hangs/ca.pem}}}}]\n"
        );
        let config =
            config::parse("test.yaml", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        match &config.alerts[0].way {
            AlertWay::Mail(mail) => mail.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// Authorities on a file system that hangs hold up the mails that want them, and not the thread that delivers all alerts.
    #[tokio::test]
    async fn a_file_that_hangs_holds_up_nobody_else() {
        let (release, hangs) = channel::<()>();
        let (held_up, other) = (way("hangs.example"), way("other.example"));
        let key = (held_up.server.clone(), held_up.ca_file.clone());
        let mut read = pin!(READING.get(&key, move |_| {
            let _ = hangs.recv();
            Err("read at last".to_owned())
        }));
        // Polled once it is under way.
        assert!(timeout(Duration::ZERO, &mut read).await.is_err());
        let mut mail = pin!(parameters(&held_up));
        assert!(timeout(Duration::ZERO, &mut mail).await.is_err());
        let refused = parameters(&other).await.err().unwrap();
        assert!(refused.contains("No such file"), "{refused}");
        drop(release);
        assert_eq!(mail.await.err().unwrap(), "read at last");
    }
}
