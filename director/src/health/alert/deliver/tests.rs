//! Deliveries to servers and programs that take them, refuse them, or do neither.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, version};

use super::addresses::Addresses;
use super::*;
use crate::alone::alone;
use crate::config;
use crate::health::hangs::{Hangs, LONG};
use crate::health::probe;

const TIME: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(200);

/// How a configuration says that alerts go.
fn way(text: &str) -> AlertWay {
    let text = format!("interfaces: [eth0]\nalerts: [{{name: it, {text}}}]\n");
    let config =
        config::parse("test.yaml", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    config.alerts[0].way.clone()
}

fn letter() -> Letter {
    Letter {
        instance: "edge".to_owned(),
        subject: "director edge: web 10.0.0.1:80 down".to_owned(),
        text: "web 10.0.0.1:80 down since today: refused\n.a line with a dot\n".to_owned(),
        json: "{\"events\":[]}".to_owned(),
        events: 1,
        single: vec![("DIRECTOR_WHAT", "down".to_owned())],
    }
}

/// A directory of its own, removed when it is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("director-alert-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A program of a shell.
    fn program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.file(name);
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o700);
        let mut file = options.open(&path).unwrap();
        file.write_all(format!("#!/bin/sh\n{script}\n").as_bytes())
            .unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A certificate for this host that is its own authority, and who shows it.
fn certificate(directory: &Directory) -> (PathBuf, TlsAcceptor) {
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    let file = directory.file("ca.pem");
    std::fs::write(&file, cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (file, TlsAcceptor::from(Arc::new(config)))
}

trait Both: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Both for T {}

/// What a mail server does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mail {
    Takes,
    /// Without offering STARTTLS.
    Plain,
    RefusesLogin,
    RefusesRecipient,
    /// Once it has the mail.
    NeverLeaves,
    Silent,
}

/// Takes one mail. Gives what it heard, line by line.
async fn mail_server(
    behaviour: Mail,
    acceptor: Option<TlsAcceptor>,
    is_tls_at_once: bool,
) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let mut heard = Vec::new();
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream: Box<dyn Both> = match (&acceptor, is_tls_at_once) {
            (Some(acceptor), true) => match acceptor.accept(stream).await {
                Ok(stream) => Box::new(stream),
                Err(error) => return vec![error.to_string()],
            },
            _ => Box::new(stream),
        };
        if behaviour != Mail::Silent {
            stream.write_all(b"220 mail.test ESMTP\r\n").await.unwrap();
        }
        let mut is_encrypted = is_tls_at_once;
        let mut is_data = false;
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return heard;
            }
            let line = line.trim_end().to_owned();
            heard.push(line.clone());
            let command = line.split(' ').next().unwrap_or("").to_uppercase();
            let answer = match command.as_str() {
                _ if behaviour == Mail::Silent => continue,
                "." if is_data => {
                    is_data = false;
                    "250 taken"
                }
                _ if is_data => continue,
                "EHLO" if is_encrypted || behaviour == Mail::Plain => {
                    "250-mail.test\r\n250 AUTH PLAIN"
                }
                "EHLO" => "250-mail.test\r\n250 STARTTLS",
                "STARTTLS" => {
                    stream.write_all(b"220 go on\r\n").await.unwrap();
                    let acceptor = acceptor.as_ref().unwrap();
                    match acceptor.accept(stream.into_inner()).await {
                        Ok(encrypted) => {
                            let encrypted: Box<dyn Both> = Box::new(encrypted);
                            stream = BufReader::new(encrypted);
                        }
                        Err(error) => {
                            heard.push(error.to_string());
                            return heard;
                        }
                    }
                    is_encrypted = true;
                    continue;
                }
                "AUTH" if behaviour == Mail::RefusesLogin => "535 who are you",
                "AUTH" => "235 welcome",
                "RCPT" if behaviour == Mail::RefusesRecipient => "550 nobody of that name",
                "DATA" => {
                    is_data = true;
                    "354 go on"
                }
                "QUIT" if behaviour == Mail::NeverLeaves => continue,
                "QUIT" => "221 bye",
                _ => "250 fine",
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.write_all(b"\r\n").await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    (port, server)
}

/// Checks that a delivery succeeds, or fails with these words.
fn check(case: &str, result: &Result<(), String>, expected: Result<(), &str>) {
    match (result, expected) {
        (Ok(()), Ok(())) => {}
        (Err(found), Err(words)) => assert!(found.contains(words), "{case}: {found}"),
        _ => panic!("{case}: {result:?}, expected {expected:?}"),
    }
}

#[tokio::test]
async fn mails() {
    let directory = Directory::new("mail");
    let (ca, acceptor) = certificate(&directory);
    let login = "user: director, password: secret";
    let ca = format!("ca: {}", ca.display());
    // AUTH PLAIN: nothing, user, password, with a zero before each.
    const AUTH: &str = "AUTH PLAIN AGRpcmVjdG9yAHNlY3JldA==";
    type Row<'a> = (Mail, String, bool, Result<(), &'a str>, &'a [&'a str]);
    let cases: Vec<Row<'_>> = vec![
        (
            Mail::Plain,
            "tls: none".to_owned(),
            false,
            Ok(()),
            &["DATA"],
        ),
        (
            Mail::Takes,
            format!("tls: starttls, {ca}, {login}"),
            false,
            Ok(()),
            &["STARTTLS", AUTH, "DATA"],
        ),
        (
            Mail::Takes,
            format!("tls: tls, {ca}, {login}"),
            true,
            Ok(()),
            &[AUTH, "DATA"],
        ),
        (
            Mail::Plain,
            format!("tls: none, {login}"),
            false,
            Ok(()),
            &[AUTH],
        ),
        // Never in clear where TLS was asked for.
        (
            Mail::Plain,
            format!("tls: starttls, {ca}, {login}"),
            false,
            Err("STARTTLS"),
            &[],
        ),
        (
            Mail::Takes,
            format!("tls: starttls, {login}"),
            false,
            Err("certificate"),
            &["STARTTLS"],
        ),
        (
            Mail::RefusesLogin,
            format!("tls: tls, {ca}, {login}"),
            true,
            Err("who are you"),
            &[AUTH],
        ),
        (
            Mail::RefusesRecipient,
            "tls: none".to_owned(),
            false,
            Err("nobody of that name"),
            &["RCPT TO:<ops@example.org>"],
        ),
        (
            Mail::NeverLeaves,
            "tls: none".to_owned(),
            false,
            Ok(()),
            &["QUIT"],
        ),
        (Mail::Silent, "tls: none".to_owned(), false, Err(""), &[]),
    ];
    for (behaviour, keys, is_tls_at_once, expected, heard) in cases {
        let case = format!("{behaviour:?}, {keys}");
        let (port, server) = mail_server(behaviour, Some(acceptor.clone()), is_tls_at_once).await;
        let way = way(&format!(
            "mail: {{server: 127.0.0.1, port: {port}, to: [ops@example.org, Night <night@example.org>], \
             from: director@example.org, {keys}}}"
        ));
        let time = if behaviour == Mail::Silent {
            SHORT
        } else {
            TIME
        };
        let result = deliver(&way, &letter(), time).await;
        check(&case, &result, expected);
        let lines = server.await.unwrap();
        for word in heard {
            assert!(
                lines.iter().any(|line| line.starts_with(word)),
                "{case}: no {word} in {lines:#?}"
            );
        }
        let is_secret_heard = lines.iter().any(|line| line.starts_with("AUTH"));
        assert_eq!(is_secret_heard, heard.contains(&AUTH), "{case}: {lines:#?}");
        if expected.is_ok() {
            for line in [
                "MAIL FROM:<director@example.org>",
                "RCPT TO:<ops@example.org>",
                "RCPT TO:<night@example.org>",
                "Subject: director edge: web 10.0.0.1:80 down",
                "web 10.0.0.1:80 down since today: refused",
                "..a line with a dot",
            ] {
                assert!(
                    lines.iter().any(|it| it == line),
                    "{case}: no {line} in {lines:#?}"
                );
            }
        }
    }
    // Nobody listens.
    let way = way("mail: {server: 127.0.0.1, port: 1, to: [a@b.example], tls: none}");
    check(
        "refused",
        &deliver(&way, &letter(), TIME).await,
        Err("refused"),
    );
}

/// Answers one request. Gives what it heard.
async fn web_server(
    answer: Option<&'static str>,
    acceptor: Option<TlsAcceptor>,
) -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream: Box<dyn Both> = match acceptor {
            Some(acceptor) => match acceptor.accept(stream).await {
                Ok(stream) => Box::new(stream),
                Err(error) => return error.to_string(),
            },
            None => Box::new(stream),
        };
        let mut heard = Vec::new();
        let mut part = [0; 4096];
        // Up to the body, which ends with a brace.
        while !heard.ends_with(b"}") {
            match stream.read(&mut part).await {
                Ok(length) if length > 0 => heard.extend_from_slice(&part[..length]),
                _ => break,
            }
        }
        if let Some(answer) = answer {
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.flush().await;
            let _ = stream.shutdown().await;
        } else {
            // Until the other end gives up.
            let _ = stream.read(&mut part).await;
        }
        String::from_utf8_lossy(&heard).into_owned()
    });
    (port, server)
}

#[tokio::test]
async fn webhooks() {
    let directory = Directory::new("webhook");
    let (ca, acceptor) = certificate(&directory);
    let ca = format!("ca: {}", ca.display());
    const OK: &str = "HTTP/1.1 204 No Content\r\n\r\n";
    const NO: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
    const MOVED: &str = "HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n";
    type Row<'a> = (
        &'a str,
        Option<&'static str>,
        bool,
        &'a str,
        Result<(), &'a str>,
    );
    let cases: [Row<'_>; 8] = [
        ("http", Some(OK), false, "", Ok(())),
        ("http", Some(NO), false, "", Err("got 500")),
        ("http", Some(MOVED), false, "", Err("got 302")),
        ("http", Some("nonsense\r\n\r\n"), false, "", Err("HTTP")),
        ("http", Some(""), false, "", Err("127.0.0.1")),
        ("http", None, false, "", Err("not done within")),
        ("https", Some(OK), true, &ca, Ok(())),
        ("https", Some(OK), true, "", Err("certificate")),
    ];
    for (scheme, answer, is_tls, keys, expected) in cases {
        let case = format!("{scheme} {answer:?} {keys}");
        let (port, server) = web_server(answer, is_tls.then(|| acceptor.clone())).await;
        let way = way(&format!(
            "webhook: {{url: \"{scheme}://127.0.0.1:{port}/hooks/director?a=b\", headers: {{X-Secret: abc, User-Agent: me}}, \
             {keys}}}"
        ));
        let time = if answer.is_none() { SHORT } else { TIME };
        check(&case, &deliver(&way, &letter(), time).await, expected);
        let heard = server.await.unwrap().to_lowercase();
        if expected.is_ok() {
            for line in [
                "post /hooks/director?a=b http/1.1\r\n".to_owned(),
                format!("host: 127.0.0.1:{port}\r\n"),
                "content-type: application/json\r\n".to_owned(),
                "x-secret: abc\r\n".to_owned(),
                "user-agent: me\r\n".to_owned(),
                "\r\n\r\n{\"events\":[]}".to_owned(),
            ] {
                assert!(heard.contains(&line), "{case}: no {line} in {heard}");
            }
        }
    }
    let way = way("webhook: {url: \"http://127.0.0.1:1/\"}");
    check(
        "refused",
        &deliver(&way, &letter(), TIME).await,
        Err("refused"),
    );
}

/// Files of checks that hang, as many as there are places for them, keep no webhook from being told.
#[test]
fn what_checks_wait_for_holds_up_no_alert() {
    if !alone(
        "health::alert::deliver::tests::what_checks_wait_for_holds_up_no_alert",
        &[],
    ) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let places = probe::PLACES.available_permits();
        let held = probe::PLACES.acquire_many(u32::try_from(places).unwrap());
        let _held = held.await.unwrap();
        let directory = Directory::new("places");
        let (ca, acceptor) = certificate(&directory);
        let answer = "HTTP/1.1 204 No Content\r\n\r\n";
        let (port, server) = web_server(Some(answer), Some(acceptor)).await;
        let way = way(&format!(
            "webhook: {{url: \"https://127.0.0.1:{port}/\", ca: {}}}",
            ca.display()
        ));
        check("webhook", &deliver(&way, &letter(), TIME).await, Ok(()));
        server.await.unwrap();
    });
}

/// Somebody who swallows connections: its queue of them is full, and stays so while this is held.
fn swallows() -> (SocketAddr, socket2::Socket, std::net::TcpStream) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let first = std::net::TcpStream::connect(address).unwrap();
    (address, socket, first)
}

#[tokio::test]
async fn the_next_address_is_tried() {
    let (swallows, _socket, _first) = swallows();
    let refuses: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let letter = letter();
    for before in [&[swallows][..], &[refuses], &[swallows, refuses]] {
        let with = |port: u16| Addresses {
            all: [before, &[SocketAddr::from(([127, 0, 0, 1], port))]].concat(),
            each: SHORT,
        };
        let (port, server) = web_server(Some("HTTP/1.1 204 No Content\r\n\r\n"), None).await;
        let AlertWay::Webhook(hook) = way("webhook: {url: \"http://chat.example/\"}") else {
            panic!("it is a webhook");
        };
        let posted = webhook::post_to(&with(port), &hook, &letter).await;
        check(&format!("webhook, {before:?}"), &posted, Ok(()));
        server.await.unwrap();

        let (port, server) = mail_server(Mail::Plain, None, false).await;
        let AlertWay::Mail(mail) =
            way("mail: {server: mail.example, tls: none, to: [ops@example.org]}")
        else {
            panic!("it is mail");
        };
        let sent = mail::send_by(&with(port), &mail, &letter).await;
        check(&format!("mail, {before:?}"), &sent, Ok(()));
        server.await.unwrap();

        // Nobody else: each is named.
        let only = Addresses {
            all: before.to_vec(),
            each: SHORT,
        };
        let words = webhook::post_to(&only, &hook, &letter).await.unwrap_err();
        for address in before {
            assert!(words.contains(&address.to_string()), "{words}");
        }
    }
}

/// Whoever starts a program waits until the kernel has read it: not the thread that delivers all alerts.
#[tokio::test]
async fn a_program_that_hangs_holds_up_nobody_else() {
    let hangs = Hangs::new("alert", "cat > /dev/null");
    let program = way(&format!("program: [{}]", hangs.path.display()));
    let (port, server) = web_server(Some("HTTP/1.1 204 No Content\r\n\r\n"), None).await;
    let hook = way(&format!("webhook: {{url: \"http://127.0.0.1:{port}/\"}}"));
    let letter = letter();
    // As often as it is tried it is one thread.
    let (first, second, other) = tokio::join!(
        deliver(&program, &letter, SHORT),
        deliver(&program, &letter, SHORT),
        deliver(&hook, &letter, TIME)
    );
    for result in [first, second] {
        check("hangs", &result, Err("could not be started within 100 ms"));
    }
    check("another one", &other, Ok(()));
    server.await.unwrap();
    hangs.answer();
    check("answers", &deliver(&program, &letter, LONG).await, Ok(()));
}

#[tokio::test]
async fn programs() {
    let directory = Directory::new("program");
    let told = directory.file("told");
    let told_words = told.display();
    let takes = directory.program(
        "takes",
        &format!("{{ echo \"$1 $DIRECTOR_INSTANCE $DIRECTOR_EVENTS $DIRECTOR_WHAT $DIRECTOR_SUBJECT\"; cat; }} > {told_words}"),
    );
    let refuses = directory.program("refuses", "echo >&2 no paper; exit 3");
    let sleeps = directory.program(
        "sleeps",
        &format!("sleep 1000 & echo $! > {told_words}; wait"),
    );
    let deaf = directory.program("deaf", "exec <&-; exit 0");
    let run = async |program: &PathBuf, time: Duration| {
        let way = way(&format!("program: [{}, --now]", program.display()));
        deliver(&way, &letter(), time).await
    };
    check("takes", &run(&takes, TIME).await, Ok(()));
    let found = std::fs::read_to_string(&told).unwrap();
    assert_eq!(
        found,
        "--now edge 1 down director edge: web 10.0.0.1:80 down\nweb 10.0.0.1:80 down since today: refused\n.a line with a dot\n"
    );
    check(
        "refuses",
        &run(&refuses, TIME).await,
        Err("exit status: 3: no paper"),
    );
    check("deaf", &run(&deaf, TIME).await, Ok(()));
    let missing = directory.file("missing");
    check(
        "missing",
        &run(&missing, TIME).await,
        Err("cannot be started"),
    );

    std::fs::remove_file(&told).unwrap();
    check(
        "sleeps",
        &run(&sleeps, Duration::from_secs(2)).await,
        Err("not done within 2000 ms"),
    );
    let child: u32 = std::fs::read_to_string(&told)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    // Its child is killed with it. It ends when the kernel comes to it.
    let began = Instant::now();
    let is_running = || {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    while is_running() {
        assert!(began.elapsed() < TIME, "the child {child} goes on");
        tokio::task::yield_now().await;
    }
}
