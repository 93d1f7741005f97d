//! Every probe against backends that answer rightly, and wrongly in all ways. Real servers are asked in the lab.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

use super::*;
use crate::config::{self, Config};

mod logins;

/// The longest that any probe here is given.
const TIME: Duration = Duration::from_millis(500);

/// The check of a configuration that says this of it.
fn probe_of(check: &str) -> Probe {
    let text = format!(
        "interfaces: [eth0]\ndefaults:\n  check: {check}\nservices: [{{address: 192.0.2.10, port: 80, real_servers: \
         [10.0.0.1]}}]\n"
    );
    let config: Config =
        config::parse("test.yaml", &text).unwrap_or_else(|error| panic!("{error}"));
    config.services[0].real_servers[0].checks[0].probe.clone()
}

fn reach(address: SocketAddr) -> Reach {
    Reach {
        address: address.ip(),
        port: address.port(),
        source: None,
        interface: None,
        through: None,
    }
}

/// What a backend does with a connection.
#[derive(Clone, Copy, Debug)]
enum Backend {
    /// Says the first at once, and then the next to each thing that it hears.
    Says(&'static [&'static str]),
    /// The same, a byte at a time.
    Drips(&'static [&'static str]),
    /// Nobody listens.
    Refuses,
    /// Takes connections and says nothing.
    Silent,
    /// Ends the conversation at once.
    Closes,
    /// Never stops talking, in lines.
    Babbles,
    /// Never stops talking, without an end of line.
    Mumbles,
    /// Never stops saying this.
    Repeats(&'static str),
}

async fn talk(mut stream: TcpStream, backend: Backend) -> std::io::Result<()> {
    let (lines, drips) = match backend {
        Backend::Says(lines) => (lines, false),
        Backend::Drips(lines) => (lines, true),
        Backend::Closes => return Ok(()),
        Backend::Silent | Backend::Refuses => {
            let mut heard = [0; 1024];
            while stream.read(&mut heard).await? > 0 {}
            return Ok(());
        }
        Backend::Babbles => loop {
            stream.write_all(&b"nonsense\r\n".repeat(1000)).await?;
        },
        Backend::Repeats(text) => {
            // Who asks first is asked.
            let mut heard = [0; 1024];
            if text.starts_with("HTTP") && stream.read(&mut heard).await? == 0 {
                return Ok(());
            }
            loop {
                stream.write_all(text.repeat(1000).as_bytes()).await?;
            }
        }
        Backend::Mumbles => loop {
            stream.write_all(&[b'n'; 8192]).await?;
        },
    };
    for (turn, line) in lines.iter().enumerate() {
        if turn > 0 {
            let mut heard = [0; 4096];
            if stream.read(&mut heard).await? == 0 {
                return Ok(());
            }
        }
        let bytes: Vec<u8> = line.chars().map(|character| character as u8).collect();
        if drips {
            for byte in bytes {
                stream.write_all(&[byte]).await?;
                tokio::task::yield_now().await;
            }
        } else {
            stream.write_all(&bytes).await?;
        }
    }
    let mut heard = [0; 1024];
    while stream.read(&mut heard).await? > 0 {}
    Ok(())
}

async fn listen(backend: Backend) -> (SocketAddr, Option<JoinHandle<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    if matches!(backend, Backend::Refuses) {
        return (address, None);
    }
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(talk(stream, backend));
        }
    });
    (address, Some(task))
}

/// What a probe should find.
type Expected = Result<&'static str, (FailureKind, &'static str)>;

/// As long as it takes, on whatever machine, where it is not the time that is to run out.
fn time_for(expected: &Expected) -> Duration {
    let runs_out = matches!(expected, Err((FailureKind::TimedOut, _)));
    if runs_out { TIME } else { 40 * TIME }
}

async fn check(check: &str, backend: Backend, expected: Expected) {
    let (address, _task) = listen(backend).await;
    let found = run(&probe_of(check), &reach(address), time_for(&expected)).await;
    compare(&format!("{check} {backend:?}"), found, expected);
}

fn compare(what: &str, found: Result<Good, Failure>, expected: Expected) {
    match (found, expected) {
        (Ok(good), Ok(words)) => assert!(good.words.contains(words), "{what}: {good:?}"),
        (Err(failure), Err((kind, words))) => {
            assert_eq!(failure.kind, kind, "{what}: {failure:?}");
            assert!(failure.words.contains(words), "{what}: {failure:?}");
            assert!(failure.words.len() <= WORDS_BYTES && !failure.words.contains('\n'));
        }
        (found, expected) => panic!("{what}: expected {expected:?}, found {found:?}"),
    }
}

/// Checks that speak after the backend has spoken, each with a right conversation.
const SPOKEN_TO: [(&str, &[&str]); 8] = [
    (
        "smtp",
        &[
            "220-mail\r\n220 ready\r\n",
            "250-mail\r\n250-SIZE\r\n250 HELP\r\n",
        ],
    ),
    ("ftp", &["220 ready\r\n"]),
    (
        "{type: ftp, user: u, password: p}",
        &[
            "220 ready\r\n",
            "331 password\r\n",
            "230-in\r\nfree text\r\n230 in\r\n",
        ],
    ),
    (
        "{type: pop3, user: u, password: p}",
        &["+OK hi\r\n", "+OK\r\n", "+OK\r\n"],
    ),
    (
        "{type: imap, user: u, password: p}",
        &["* OK hi\r\n", "* CAPABILITY\r\nd1 OK in\r\n"],
    ),
    ("nntp", &["201 hi\r\n"]),
    (
        "{type: nntp, user: u, password: p}",
        &["200 hi\r\n", "381 more\r\n", "281 in\r\n"],
    ),
    (
        "{type: exchange, steps: [{expect: hi}, {send: x}, {expect_regex: ^OK}]}",
        &["oh hi\r\n", "OK\r\n"],
    ),
];

/// Checks that speak first.
const SPEAK_FIRST: [(&str, &[&str]); 9] = [
    (
        "http",
        &["", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
    ),
    (
        "{type: http, expect: Hello World}",
        &[
            "",
            "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nHello World!\r\n",
        ],
    ),
    (
        "{type: http, expect_regex: W.rld, status: [404]}",
        &[
            "",
            "HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n6\r\n World\r\n0\r\n\r\n",
        ],
    ),
    (
        // printf abc | sha256sum
        "{type: http, digest: \"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"}",
        &["", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"],
    ),
    (
        "{type: http, digest: \"md5:900150983cd24fb0d6963f7d28e17f72\"}",
        &["", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"],
    ),
    ("redis", &["", "+PONG\r\n"]),
    ("{type: redis, password: p}", &["", "+OK\r\n", "+PONG\r\n"]),
    ("postgres", &["", "R\0\0\0\u{8}\0\0\0\u{3}"]),
    // A bind response: code 0, no matched name, no words.
    (
        "ldap",
        &["", "0\u{c}\u{2}\u{1}\u{1}a\u{7}\n\u{1}\0\u{4}\0\u{4}\0"],
    ),
];

#[tokio::test]
async fn conversations_that_go_well() {
    for (probe, lines) in SPOKEN_TO.into_iter().chain(SPEAK_FIRST) {
        check(probe, Backend::Says(lines), Ok("")).await;
        check(probe, Backend::Drips(lines), Ok("")).await;
    }
    const MYSQL: &[&str] = &[
        "\u{f}\0\0\0\n8.0.1\0abcdefgh",
        "\u{9}\0\0\u{2}\u{ff}\u{15}\u{4}#28000",
    ];
    check("mysql", Backend::Says(MYSQL), Ok("version 8.0.1")).await;
    const POSTGRES: &[&str] = &[
        "",
        "R\0\0\0\u{8}\0\0\0\0S\0\0\0\u{8}a\0b\0K\0\0\0\u{c}12345678Z\0\0\0\u{5}I",
    ];
    check("postgres", Backend::Says(POSTGRES), Ok("lets in")).await;
    check("postgres", Backend::Drips(POSTGRES), Ok("lets in")).await;
    check("connect", Backend::Silent, Ok("connected")).await;
    check("agent", Backend::Says(&["75% up\n"]), Ok("75% up")).await;
    // It may also end the conversation instead of the line.
    check(
        "agent",
        Backend::Closes,
        Err((FailureKind::Unexpected, "report")),
    )
    .await;
}

#[tokio::test]
async fn backends_that_are_broken() {
    let all = SPOKEN_TO
        .into_iter()
        .chain(SPEAK_FIRST)
        .map(|(probe, _)| probe);
    let all: Vec<&str> = all.chain(["mysql", "agent"]).collect();
    for probe in &all {
        check(
            probe,
            Backend::Refuses,
            Err((FailureKind::Refused, "refused")),
        )
        .await;
    }
    // Each of these takes its whole time, so all at once.
    let mut running = tokio::task::JoinSet::new();
    for probe in all.clone() {
        running.spawn(check(
            probe,
            Backend::Silent,
            Err((FailureKind::TimedOut, "500 ms")),
        ));
    }
    running.join_all().await;
    for probe in all {
        let (address, _task) = listen(Backend::Closes).await;
        let failure = run(&probe_of(probe), &reach(address), TIME)
            .await
            .unwrap_err();
        let ended = [FailureKind::Closed, FailureKind::Unexpected].contains(&failure.kind);
        assert!(ended, "{probe}: {failure:?}");
        for backend in [Backend::Babbles, Backend::Mumbles] {
            let (address, _task) = listen(backend).await;
            let began = Instant::now();
            // Those that look for a word may find it in nonsense, and no more than that.
            let found = run(&probe_of(probe), &reach(address), TIME).await;
            assert!(found.is_err() || probe == "agent", "{probe}: {found:?}");
            assert!(began.elapsed() < 40 * TIME, "{probe} {backend:?}");
        }
    }
}

#[tokio::test]
async fn answers_that_are_wrong() {
    use FailureKind::{Oversized, Unexpected};
    let cases: [(&str, &'static [&'static str], Expected); 16] = [
        (
            "http",
            &["", "HTTP/1.1 503 Busy\r\n\r\n"],
            Err((Unexpected, "expected status 200-299, got 503")),
        ),
        ("http", &["", "SSH-2.0-OpenSSH\r\n"], Err((Unexpected, ""))),
        // Spoken before it was asked: the words may be about either, but not that anybody "canceled" it.
        (
            "http",
            &["220 mail ready\r\n"],
            Err((Unexpected, "sending the request: ")),
        ),
        (
            "{type: http, expect: Hello World}",
            &["", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nGoodbye"],
            Err((
                Unexpected,
                "expected \"Hello World\" in the body, got \"Goodbye\"",
            )),
        ),
        (
            "{type: http, expect: x}",
            &["", "HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nshort"],
            Err((FailureKind::TimedOut, "")),
        ),
        (
            "{type: http, digest: \"md5:900150983cd24fb0d6963f7d28e17f72\"}",
            &["", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"],
            Err((Unexpected, "digest 900150983cd24fb0d6963f7d28e17f72")),
        ),
        (
            "smtp",
            &["554 go away\r\n"],
            Err((Unexpected, "554 go away")),
        ),
        (
            "smtp",
            &["220 hi\r\n", "421 busy\r\n"],
            Err((Unexpected, "EHLO to be 250")),
        ),
        (
            "{type: ftp, user: u, password: p}",
            &["220 hi\r\n", "331 word\r\n", "530 wrong\r\n"],
            Err((Unexpected, "530 wrong")),
        ),
        (
            "{type: imap, user: u}",
            &["* OK\r\n", "d1 NO who\r\n"],
            Err((Unexpected, "d1 NO who")),
        ),
        (
            "redis",
            &["", "-LOADING\r\n"],
            Err((Unexpected, "-LOADING")),
        ),
        (
            "ldap",
            &[
                "",
                "0\u{e}\u{2}\u{1}\u{1}a\u{9}\n\u{1}\u{31}\u{4}\0\u{4}\u{2}no",
            ],
            Err((Unexpected, "code 49")),
        ),
        (
            "ldap",
            &["", "0\u{84}\u{7f}\u{ff}\u{ff}\u{ff}"],
            Err((Oversized, "")),
        ),
        (
            "postgres",
            &["", "E\0\0\0\u{d}C57P03\0\0\0"],
            Err((Unexpected, "57P03")),
        ),
        // Let in, and then there is no room.
        (
            "postgres",
            &["", "R\0\0\0\u{8}\0\0\0\0E\0\0\0\u{d}C53300\0\0\0"],
            Err((Unexpected, "53300")),
        ),
        ("agent", &["no idea\n"], Err((Unexpected, "no idea"))),
    ];
    for (probe, lines, expected) in cases {
        check(probe, Backend::Says(lines), expected).await;
    }
    // Nothing of this is an answer, and none of it may keep others from running.
    for (probe, text) in [
        ("http", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("smtp", "220-\n"),
        ("{type: imap, user: u}", "* OK\n"),
    ] {
        let (address, _task) = listen(Backend::Repeats(text)).await;
        let found = run(&probe_of(probe), &reach(address), 40 * TIME).await;
        compare(probe, found, Err((Oversized, "more than")));
    }
    // It looks through all that has come again and again, which on a busy machine takes its time.
    let babbles = "{type: exchange, steps: [{expect: hi}]}";
    let (address, _task) = listen(Backend::Babbles).await;
    let found = run(&probe_of(babbles), &reach(address), 40 * TIME).await;
    compare(babbles, found, Err((Oversized, "")));
}

/// A backend of datagrams that says `answer`, or nothing.
async fn datagrams(answer: Option<&'static [u8]>) -> (SocketAddr, JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut heard = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut heard).await {
            let answer = match answer {
                None => continue,
                // The question back as an answer: with the bit that says so, and code 3 or none.
                Some(b"dns") => {
                    heard[2] |= 0x80;
                    heard[..length].to_vec()
                }
                Some(b"dns3") => {
                    heard[2] |= 0x80;
                    heard[3] |= 3;
                    heard[..length].to_vec()
                }
                Some(other) => other.to_vec(),
            };
            drop(socket.send_to(&answer, from).await);
        }
    });
    (address, task)
}

#[tokio::test]
async fn datagrams_and_their_answers() {
    use FailureKind::{Refused, TimedOut, Unexpected};
    let dns = "{type: dns, name: www.example.org}";
    let cases: [(&str, Option<&'static [u8]>, Expected); 10] = [
        (
            "{type: udp, send: ping, expect: pong}",
            Some(b"a pong"),
            Ok("6 bytes"),
        ),
        (
            "{type: udp, send: ping, expect: pong}",
            Some(b"else"),
            Err((Unexpected, "\"pong\", got \"else\"")),
        ),
        (
            "{type: udp, send: ping, expect: pong}",
            None,
            Err((TimedOut, "")),
        ),
        ("{type: udp, send_hex: 00ff}", None, Ok("not refused")),
        ("udp", Some(b"x"), Ok("answered")),
        (dns, Some(b"dns"), Err((Unexpected, "has no A record"))),
        (dns, Some(b"dns3"), Err((Unexpected, "www.example.org"))),
        (dns, Some(b"junk"), Err((Unexpected, "no DNS message"))),
        (dns, None, Err((TimedOut, ""))),
        (
            "sip",
            Some(b"HTTP/1.1 200 OK\r\n\r\n"),
            Err((Unexpected, "SIP")),
        ),
    ];
    for (probe, answer, expected) in cases {
        let (address, _task) = datagrams(answer).await;
        // Silence takes all of the time, whatever it says.
        let time = answer.map_or(TIME, |_| time_for(&expected));
        let found = run(&probe_of(probe), &reach(address), time).await;
        compare(&format!("{probe} {answer:?}"), found, expected);
    }
    for probe in ["udp", dns, "sip"] {
        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = closed.local_addr().unwrap();
        drop(closed);
        let found = run(&probe_of(probe), &reach(address), 40 * TIME).await;
        compare(probe, found, Err((Refused, "refused")));
    }
}

#[tokio::test]
async fn programs() {
    use FailureKind::{Local, TimedOut, Unexpected};
    let shell = |script: &str| format!("{{type: external, command: [/bin/sh, -c, \"{script}\"]}}");
    let cases: [(String, Expected); 9] = [
        (shell("exit 0"), Ok("exit status 0")),
        // However much it says: nothing that it prints makes it fail.
        (shell("set -e; seq 100000; sleep 0.05; seq 100000"), Ok("1")),
        (shell("echo fine; echo more"), Ok("fine")),
        (shell("echo bad >&2; exit 3"), Err((Unexpected, "3: bad"))),
        // Its arguments follow those of the configuration: the first of them is the script's name.
        (
            shell("echo $0 $1 $DIRECTOR_SERVER $DIRECTOR_PORT"),
            Ok("127.0.0.1 7 127.0.0.1 7"),
        ),
        (shell("kill -9 $$"), Err((Unexpected, "signal"))),
        (
            shell("sleep 100"),
            Err((TimedOut, "did not end within 500 ms")),
        ),
        (
            shell("echo asking the database; sleep 100"),
            Err((TimedOut, "it said: asking the database")),
        ),
        (
            "{type: external, command: [/no/such/program]}".to_owned(),
            Err((Local, "cannot be started")),
        ),
    ];
    let backend = reach("127.0.0.1:7".parse().unwrap());
    for (probe, expected) in cases {
        let found = run(&probe_of(&probe), &backend, time_for(&expected)).await;
        compare(&probe, found, expected);
    }
}

/// What this machine lacks says nothing of a backend, wherever it is noticed.
#[test]
fn what_a_machine_lacks() {
    use FailureKind::{Local, Refused, Shortage};
    use nix::libc;
    let behind = |code| io::Error::other(io::Error::from_raw_os_error(code));
    // (error, its kind where something could not be begun, and on the way)
    let cases = [
        (libc::EMFILE, Shortage, Shortage),
        (libc::ENFILE, Shortage, Shortage),
        (libc::ENOMEM, Shortage, Shortage),
        (libc::ENOBUFS, Shortage, Shortage),
        // Of `fork` and threads.
        (libc::EAGAIN, Shortage, Shortage),
        (libc::ENOENT, Local, Local),
        (libc::EACCES, Local, Local),
        (libc::EADDRNOTAVAIL, Local, Local),
        (libc::ECONNREFUSED, Local, Refused),
    ];
    for (code, beginning, on_the_way) in cases {
        let error = io::Error::from_raw_os_error(code);
        assert_eq!(FailureKind::of_beginning(&error), beginning, "{error}");
        assert_eq!(FailureKind::of_beginning(&behind(code)), beginning);
        assert_eq!(Failure::io("asking", &error).kind, on_the_way, "{error}");
    }
}

/// Whether a process is still there and has not only been left unreaped.
fn is_running(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit_once(')')
            .is_some_and(|(_, rest)| rest.starts_with(" Z"))
    })
}

/// A program that hangs is killed with its children, and one that ends with those that it leaves behind.
#[tokio::test]
async fn programs_leave_nobody_behind() {
    let directory = std::env::temp_dir().join(format!("director-external-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let child = "(sleep 1000 & echo $! > FILE.child; wait)";
    // `timeout` makes a process group of its own.
    let apart = "timeout 1000 /bin/sh -c 'echo $$ > FILE.child; exec sleep 1000'";
    for (name, child, end) in [
        ("hangs", child, "wait"),
        ("ends", child, "exit 0"),
        ("hangs-apart", apart, "wait"),
    ] {
        let file = directory.join(name);
        let script = format!(
            "{child} & echo $$ > FILE.leader; while [ ! -s FILE.child ]; do :; done; {end}"
        );
        let script = script.replace("FILE", &file.display().to_string());
        let probe = format!("{{type: external, command: [/bin/sh, -c, \"{script}\"]}}");
        let found = run(
            &probe_of(&probe),
            &reach("127.0.0.1:7".parse().unwrap()),
            4 * TIME,
        )
        .await;
        assert_eq!(found.is_ok(), name == "ends", "{found:?}");
        for who in ["child", "leader"] {
            let pid = std::fs::read_to_string(file.with_extension(who)).unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            while is_running(pid.trim()) {
                assert!(
                    Instant::now() < deadline,
                    "{who} of the one that {name} still runs"
                );
                tokio::task::yield_now().await;
            }
        }
    }
    std::fs::remove_dir_all(directory).unwrap();
}

/// A thousand runs, some of them at a time: all of them end. What as many at once cost is `engine::bounds`.
#[tokio::test]
async fn a_thousand_runs() {
    let (address, _task) = listen(Backend::Says(&["220 ready\r\n", "250 fine\r\n"])).await;
    let probe = Arc::new(probe_of("smtp"));
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let probe = Arc::clone(&probe);
        running.spawn(async move { run(&probe, &reach(address), 40 * TIME).await });
        // So many connections a listener has waiting.
        if running.len() >= 128 {
            running.join_next().await.unwrap().unwrap().unwrap();
        }
    }
    for found in running.join_all().await {
        found.unwrap();
    }
}
