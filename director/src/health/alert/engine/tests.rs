//! From an event to what a target gets, by the thread that does it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
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
