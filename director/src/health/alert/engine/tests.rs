//! From an event to what a target gets, by the thread that does it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::config;
use crate::health::alert::event::{About, Condition, Key};

fn targets(alerts: &str) -> Vec<Arc<AlertTarget>> {
    let text = format!("interfaces: [eth0]\nalerts: {alerts}\n");
    let config =
        config::parse("test.yaml", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    config.alerts
}

fn down(server: &str) -> Event {
    Event {
        key: Key {
            name: Arc::from("web"),
            about: About::Server(server.to_owned()),
        },
        condition: Condition::Bad,
        since: Instant::now(),
        words: "connecting: Connection refused".to_owned(),
        failures: Some(1),
    }
}

/// Takes one request and answers it. Gives its body.
fn answer(mut stream: TcpStream) -> String {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut heard = Vec::new();
    let mut part = [0; 4096];
    while !heard.ends_with(b"}") {
        let length = stream.read(&mut part).unwrap();
        assert!(length > 0, "{}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&part[..length]);
    }
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .unwrap();
    let text = String::from_utf8(heard).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// A server that is not there at first gets what happened meanwhile, and one that never answers holds up no other.
#[test]
fn a_server_that_comes_up_late() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let good = TcpListener::bind("127.0.0.1:0").unwrap();
    // Its port is known to be free, and refused until it listens.
    let late = TcpListener::bind("127.0.0.1:0").unwrap();
    let late_address = late.local_addr().unwrap();
    drop(late);
    let alert = |name: &str, address| {
        format!("{{name: {name}, group: 0s, webhook: {{url: \"http://{address}/\"}}}}")
    };
    let alerts = format!(
        "[{}, {}, {}]",
        alert("silent", silent.local_addr().unwrap()),
        alert("late", late_address),
        alert("good", good.local_addr().unwrap())
    );
    let engine = Engine::start().unwrap();
    engine.replace(targets(&alerts), "edge".to_owned());
    engine.take_in(vec![down("10.0.0.1:80")]);
    let body = answer(good.accept().unwrap().0);
    assert!(body.contains("web 10.0.0.1:80 down since"), "{body}");
    engine.take_in(vec![down("10.0.0.2:80")]);
    let body = answer(good.accept().unwrap().0);
    assert!(body.contains("web 10.0.0.2:80 down since"), "{body}");
    // Until now it was refused.
    let late = TcpListener::bind(late_address).unwrap();
    for server in ["10.0.0.1:80", "10.0.0.2:80"] {
        let body = answer(late.accept().unwrap().0);
        assert!(body.contains(&format!("web {server} down since")), "{body}");
        assert!(body.contains("connecting: Connection refused"), "{body}");
    }
}

/// Takes a mail for everybody but `gone@example.org`. Gives who it is for, and its text; none if it is refused.
fn take_mail(stream: TcpStream) -> Option<(String, Option<String>)> {
    let mut answers = stream.try_clone().ok()?;
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    answers.write_all(b"220 mail.test\r\n").ok()?;
    let mut recipient = String::new();
    loop {
        let line = lines.next()?;
        let answer = match line.split(':').next()? {
            "RCPT TO" => {
                recipient = line.split(['<', '>']).nth(1)?.to_owned();
                if recipient == "gone@example.org" {
                    answers.write_all(b"550 nobody of that name\r\n").ok()?;
                    return Some((recipient, None));
                }
                "250 fine"
            }
            "DATA" => {
                answers.write_all(b"354 go on\r\n").ok()?;
                let text: Vec<String> = lines.by_ref().take_while(|line| line != ".").collect();
                answers.write_all(b"250 taken\r\n").ok()?;
                return Some((recipient, Some(text.join("\n"))));
            }
            _ => "250 fine",
        };
        answers.write_all(format!("{answer}\r\n").as_bytes()).ok()?;
    }
}

/// A recipient that is refused keeps no mail from the others, and they get each of them once.
#[test]
fn one_recipient_is_refused() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let alerts = format!(
        "[{{name: mail, group: 0s, mail: {{server: 127.0.0.1, port: {}, tls: none, to: [gone@example.org, ops@example.org]}}}}]",
        server.local_addr().unwrap().port()
    );
    let (sender, heard) = mpsc::channel();
    thread::spawn(move || {
        // Until the test is over.
        for stream in server.incoming().map_while(Result::ok) {
            if take_mail(stream).is_some_and(|mail| sender.send(mail).is_err()) {
                return;
            }
        }
    });
    let engine = Engine::start().unwrap();
    engine.replace(targets(&alerts), "edge".to_owned());
    for server in ["10.0.0.1:80", "10.0.0.2:80"] {
        engine.take_in(vec![down(server)]);
        let (recipient, mail) = loop {
            let (recipient, mail) = heard.recv_timeout(Duration::from_secs(20)).unwrap();
            if recipient == "ops@example.org" {
                break (recipient, mail);
            }
            assert_eq!(mail, None);
        };
        let text = mail.unwrap_or_else(|| panic!("{recipient} is refused"));
        assert!(text.contains(&format!("web {server} down since")), "{text}");
    }
    // The other one's is tried again meanwhile.
    for _ in 0..2 {
        let next = heard.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(next, ("gone@example.org".to_owned(), None));
    }
}
