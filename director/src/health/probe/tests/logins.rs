//! Logins at databases, as far as no server of the lab has the like: MySQL's caching_sha2_password, and servers that lie.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;
use FailureKind::{Certificate, Unexpected};

/// Of a server that has its users log in by caching_sha2_password, and speaks TLS.
const GREETING: &str = "\u{49}\0\0\0\n8.0.1\0\u{1}\0\0\0abcdefgh\0\u{ff}\u{ff}\u{ff}\u{2}\0\u{ff}\u{df}\u{15}\
                        \0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0caching_sha2_password\0";
const OTHER_METHOD: &str = "\u{2c}\0\0\u{2}\u{fe}mysql_native_password\0ABCDEFGHIJKLMNOPQRST\0";

#[tokio::test]
async fn conversations() {
    const MYSQL: &str = "{type: mysql, user: u, password: p}";
    const POSTGRES: &str = "{type: postgres, user: u, password: p}";
    let cases: [(&str, &'static [&'static str], Expected); 14] = [
        (
            MYSQL,
            &[
                GREETING,
                "\u{2}\0\0\u{2}\u{1}\u{3}\u{7}\0\0\u{3}\0\0\0\u{2}\0\0\0",
            ],
            Ok("version 8.0.1, lets in"),
        ),
        (
            MYSQL,
            &[GREETING, "\u{2}\0\0\u{2}\u{1}\u{4}"],
            Err((Unexpected, "\"tls: true\"")),
        ),
        (
            MYSQL,
            &[GREETING, OTHER_METHOD, "\u{7}\0\0\u{4}\0\0\0\u{2}\0\0\0"],
            Ok("lets in"),
        ),
        // Twice would go on for ever.
        (
            MYSQL,
            &[GREETING, OTHER_METHOD, OTHER_METHOD],
            Err((Unexpected, "an answer to the login")),
        ),
        (
            MYSQL,
            &[
                GREETING,
                "\u{2c}\0\0\u{2}\u{fe}client_ed25519\0ABCDEFGHIJKLMNOPQRSTABCDEFGH",
            ],
            Err((Unexpected, "log in by client_ed25519; this check knows")),
        ),
        (
            MYSQL,
            &[GREETING, "\u{1}\0\0\u{2}\u{fe}"],
            Err((Unexpected, "before 4.1")),
        ),
        // One who asks for the password itself by a name for that is not told either.
        (
            MYSQL,
            &[GREETING, "\u{16}\0\0\u{2}\u{fe}mysql_clear_password\0"],
            Err((Unexpected, "mysql_clear_password")),
        ),
        (
            MYSQL,
            &[GREETING, "\u{9}\0\0\u{2}\u{ff}\u{15}\u{4}#28000"],
            Err((Unexpected, "refuses")),
        ),
        // Too short a challenge.
        (
            MYSQL,
            &["\u{f}\0\0\0\n8.0.1\0abcdefgh"],
            Err((Unexpected, "a challenge of 20 bytes")),
        ),
        (
            "{type: mysql, user: u, password: p, tls: true}",
            &["\u{f}\0\0\0\n8.0.1\0abcdefgh"],
            Err((Unexpected, "does not speak TLS")),
        ),
        (
            POSTGRES,
            &["", "R\0\0\0\u{8}\0\0\0\u{3}"],
            Err((Unexpected, "\"tls: true\"")),
        ),
        (
            POSTGRES,
            &["", "R\0\0\0\u{8}\0\0\0\u{7}"],
            Err((Unexpected, "by method 7")),
        ),
        // That it knows the password too is what a server must show, and not only say.
        (
            POSTGRES,
            &[
                "",
                "R\0\0\0\u{17}\0\0\0\u{a}SCRAM-SHA-256\0\0",
                "R\0\0\0\u{27}\0\0\0\u{b}r=of somebody else,s=c2FsdA==,i=1",
            ],
            Err((Unexpected, "logging in by scram-sha-256")),
        ),
        (
            "{type: postgres, tls: true}",
            &["", "N"],
            Err((Unexpected, "does not speak TLS")),
        ),
    ];
    for (probe, lines, expected) in cases {
        check(probe, Backend::Says(lines), expected).await;
    }
    // What somebody puts between the consent and TLS is not taken for the server's.
    check(
        "{type: postgres, tls: true}",
        Backend::Says(&["", "SR\0\0\0\u{8}\0\0\0\0"]),
        Err((Unexpected, "nothing before TLS begins")),
    )
    .await;
}

/// A certificate for this host that is its own authority, and who shows it.
fn certificate(directory: &Path) -> (PathBuf, TlsAcceptor) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let file = directory.join("ca.pem");
    std::fs::write(&file, cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (file, TlsAcceptor::from(Arc::new(config)))
}

async fn packet(stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let mut body = vec![0; usize::from(head[0])];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// A MySQL server that does not have the password's hash at hand. Gives the password that it was told.
async fn mysql_by_tls(stream: TcpStream, acceptor: TlsAcceptor) -> std::io::Result<Vec<u8>> {
    let mut stream = stream;
    let greeting: Vec<u8> = GREETING.chars().map(|it| it as u8).collect();
    stream.write_all(&greeting).await?;
    let request = packet(&mut stream).await?;
    assert_eq!(request.len(), 32, "a request for TLS");
    let mut stream = acceptor.accept(stream).await?;
    let login = packet(&mut stream).await?;
    assert!(login.ends_with(b"caching_sha2_password\0"), "{login:?}");
    stream.write_all(&[2, 0, 0, 3, 1, 4]).await?;
    let password = packet(&mut stream).await?;
    stream.write_all(&[7, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0]).await?;
    Ok(password)
}

#[tokio::test]
async fn a_password_is_told_by_tls_and_only_to_whom_the_certificate_is_for() {
    let directory = std::env::temp_dir().join(format!("director-logins-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (ca, acceptor) = certificate(&directory);
    let trusting = format!(
        "{{type: mysql, user: u, password: \"tell nobody\", tls: true, ca: {}}}",
        ca.display()
    );
    let cases: [(&str, Expected, Option<&[u8]>); 2] = [
        (&trusting, Ok("lets in"), Some(b"tell nobody\0")),
        (
            "{type: mysql, user: u, password: \"tell nobody\", tls: true}",
            Err((Certificate, "issuer is not known")),
            None,
        ),
    ];
    for (probe, expected, told) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = acceptor.clone();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            mysql_by_tls(stream, acceptor).await
        });
        // Handshakes take their time in a build without optimisation.
        let found = run(&probe_of(probe), &reach(address), 40 * TIME).await;
        compare(probe, found, expected);
        assert_eq!(server.await.unwrap().ok().as_deref(), told, "{probe}");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
