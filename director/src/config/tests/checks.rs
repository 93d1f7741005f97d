//! Health checks in the file: what is read, and what is wrong with what.

use super::*;
use crate::config::{Check, Digest, Probe, Step};

/// A service whose only real server has this check.
fn checks(check: &str) -> Vec<Check> {
    let text = format!(
        "interfaces: [eth0]\nservices: [{{address: 192.0.2.10, port: 80, check: {check}, real_servers: [10.0.0.1]}}]\n"
    );
    let config = good(check, &text);
    let checks = config.services[0].real_servers[0].checks.iter();
    checks.map(|check| Check::clone(check)).collect()
}

#[test]
fn times_follow_from_the_interval() {
    // (check, interval, timeout, retry delay, interval while down, spread, rise, fall)
    let cases = [
        ("connect", [2000, 2000, 500, 2000, 2000, 2, 3]),
        (
            "{type: connect, interval: 100ms}",
            [100, 2000, 100, 100, 100, 2, 3],
        ),
        (
            "{type: connect, interval: 10s, timeout: 1s, retry_delay: 2s, down_interval: 3s, spread: 0s, rise: 1, fall: 9}",
            [10_000, 1000, 2000, 3000, 0, 1, 9],
        ),
    ];
    for (text, expected) in cases {
        let timing = checks(text)[0].timing;
        let found = [
            timing.interval_ms,
            timing.timeout_ms,
            timing.retry_delay_ms,
            timing.down_interval_ms,
            timing.spread_ms,
            timing.rise,
            timing.fall,
        ];
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn what_is_asked() {
    assert!(checks("none").is_empty());
    assert_eq!(checks("[connect, ping]").len(), 2);
    let [check] = &checks(
        "{type: https, status: [200, 300-399], digest: \"md5:00112233445566778899aabbccddeeff\"}",
    )[..] else {
        panic!("one check")
    };
    let Probe::Http(http) = &check.probe else {
        panic!("{check:?}")
    };
    assert_eq!(http.status, [(200, 200), (300, 399)]);
    assert!(matches!(http.digest, Some(Digest::Md5([0x00, 0x11, ..]))));
    assert!(http.tls.as_ref().is_some_and(|tls| tls.verify));
    let [check] = &checks("{type: exchange, steps: [{send_hex: \"0d 0A\"}, {expect: hi}]}")[..]
    else {
        panic!("one check")
    };
    let Probe::Exchange(exchange) = &check.probe else {
        panic!("{check:?}")
    };
    assert_eq!(exchange.steps[0], Step::Send(vec![13, 10]));
}

#[test]
fn a_real_servers_own_checks_go_before_the_services_and_theirs_before_the_defaults() {
    let text = "interfaces: [eth0]\ndefaults: {check: ping}\nservices:\n  - {address: 192.0.2.10, port: 80, real_servers: \
                [10.0.0.1]}\n  - {address: 192.0.2.11, port: 80, check: connect, real_servers: [10.0.0.1, {address: \
                10.0.0.2, check: none}, {address: 10.0.0.3, check: http}], fallback_servers: [127.0.0.1]}\n";
    let config = good("checks of all levels", text);
    let names: Vec<Vec<&str>> = config
        .services
        .iter()
        .flat_map(|service| service.all_servers())
        .map(|server| {
            server
                .checks
                .iter()
                .map(|check| check.probe.name())
                .collect()
        })
        .collect();
    let expected: [&[&str]; 5] = [&["ping"], &["connect"], &[], &["http"], &["connect"]];
    assert_eq!(names, expected);
    let local = &config.services[1].fallback_servers[0];
    assert_eq!((local.method, local.port), (Method::Local, Some(80)));
}

#[test]
fn passwords_are_not_shown() {
    let [check] = &checks("{type: imap, user: me, password: tell-nobody}")[..] else {
        panic!("one check")
    };
    let shown = format!("{check:?} {}", serde_json::to_string(check).unwrap());
    assert!(
        shown.contains("me") && !shown.contains("tell-nobody"),
        "{shown}"
    );
    let [check] = &checks("{type: http, headers: {Authorization: Bearer tell-nobody}}")[..] else {
        panic!("one check")
    };
    let shown = format!("{check:?} {}", serde_json::to_string(check).unwrap());
    assert!(
        shown.contains("Authorization") && !shown.contains("tell-nobody"),
        "{shown}"
    );
}

#[test]
fn mistakes() {
    // (check, what is said)
    let cases: [(&str, &[&str]); 30] = [
        (
            "{type: mysql, user: u, password: p, password_file: /p}",
            &[
                "found \"password_file\" beside \"password\"",
                "one of the two",
            ],
        ),
        ("htttp", &["found \"htttp\"", "did you mean \"http\"?"]),
        ("{interval: 5s}", &["the key \"type\" is missing"]),
        (
            "{type: connect, interval: 1ms}",
            &["found \"1ms\"", "from 10ms to 1h"],
        ),
        (
            "{type: connect, interval: 5}",
            &["found \"5\"", "with its unit"],
        ),
        (
            "{type: connect, fall: 0}",
            &["found \"0\"", "from 1 to 100"],
        ),
        (
            "{type: connect, path: /}",
            &[
                "found \"path\", which the check connect does not have",
                "only port",
            ],
        ),
        ("{type: none, port: 80}", &["none has none but times"]),
        ("{type: ping, port: 80}", &["found \"port\""]),
        (
            "{type: http, server_name: a}",
            &["found \"server_name\", which the check http"],
        ),
        (
            "{type: http, path: ping.html}",
            &["found \"ping.html\"", "begins with \"/\""],
        ),
        ("{type: http, method: get}", &["found \"get\"", "GET"]),
        (
            "{type: http, status: [999]}",
            &["found \"999\"", "100 to 599"],
        ),
        (
            "{type: http, status: [300-200]}",
            &["ends before it begins"],
        ),
        (
            "{type: http, headers: {\"a b\": c}}",
            &["found the header \"a b\""],
        ),
        (
            "{type: http, headers: {a: \"b\\nc\"}}",
            &["visible characters on one line"],
        ),
        (
            "{type: http, expect: a, expect_regex: b}",
            &["found \"expect_regex\" beside \"expect\""],
        ),
        (
            "{type: http, expect_regex: \"(\"}",
            &["it cannot be compiled", "unclosed group"],
        ),
        ("{type: http, digest: \"md5:00\"}", &["as many digits"]),
        (
            "{type: exchange, steps: [{send: a, expect: b}]}",
            &["a step is not one thing"],
        ),
        (
            "{type: external, command: [check-it]}",
            &["absolute path of a program"],
        ),
        (
            "{type: https, host: \"www..example.org:8443\"}",
            &[
                "no certificate can be for",
                "\"www..example.org\"",
                "server_name",
            ],
        ),
        (
            "{type: https, host: \":443\", verify: false}",
            &["no certificate can be for"],
        ),
        (
            "{type: http, headers: {Host: www.example.org}}",
            &["found the header \"Host\"", "the key \"host\""],
        ),
        (
            "{type: http, headers: {content-length: 5}}",
            &["found the header \"content-length\"", "no such header"],
        ),
        (
            "{type: http, headers: {Transfer-Encoding: chunked}}",
            &["found the header \"Transfer-Encoding\"", "no such header"],
        ),
        (
            "{type: http, headers: {Connection: keep-alive}}",
            &["found the header \"Connection\"", "one request"],
        ),
        (
            "{type: connect, source: \"2001:db8::9\"}, real_servers: [10.0.0.1]",
            &[
                "found the source 2001:db8::9",
                "10.0.0.1",
                "an IPv4 address of this node",
            ],
        ),
        (
            "{type: connect, source: 10.0.0.9, address: \"2001:db8::1\"}, real_servers: [10.0.0.1]",
            &["found the source 10.0.0.9", "an IPv6 address of this node"],
        ),
        (
            "connect, method: tun, real_servers: [{address: \"2001:db8::1\", check: {type: ping, source: 10.0.0.9}}]",
            &["found the source 10.0.0.9", "an IPv6 address of this node"],
        ),
    ];
    for (check, said) in cases {
        let text = format!(
            "interfaces: [eth0]\nservices: [{{address: 192.0.2.10, port: 80, check: {check}}}]\n"
        );
        let shown = parse("director.yaml", &text).unwrap_err().to_string();
        for words in said {
            assert!(
                shown.contains(words),
                "no \"{words}\" for {check}:\n{shown}"
            );
        }
    }
}

#[test]
fn what_only_looks_like_a_mistake() {
    let cases = [
        // Whose name stands in the certificate is said beside it.
        "check: {type: https, host: \"www..example.org\", server_name: www.example.org}",
        "check: {type: https, host: \"[2001:db8::1]:8443\"}",
        "check: {type: http, host: \"www..example.org\"}",
        "check: {type: connect, source: 10.0.0.9, address: 10.0.0.8}, method: tun, real_servers: [\"2001:db8::1\"]",
        "quorum: 3, hysteresis: 1, real_servers: [10.0.0.1, {address: 10.0.0.2, weight: 3}]",
        // Taken out for a while.
        "quorum: 2, real_servers: [10.0.0.1, {address: 10.0.0.2, weight: 0}]",
        "quorum: 2",
    ];
    for keys in cases {
        let text =
            format!("interfaces: [eth0]\nservices: [{{address: 192.0.2.10, port: 80, {keys}}}]\n");
        good(keys, &text);
    }
}

#[test]
fn mistakes_in_what_follows() {
    // (keys of a service, what is said)
    let cases: [(&str, &[&str]); 12] = [
        (
            "quorum: 3, real_servers: [10.0.0.1, 10.0.0.2]",
            &["found the quorum 3", "together weigh 2", "at most 2"],
        ),
        (
            "quorum: 2, hysteresis: 1, real_servers: [10.0.0.1, 10.0.0.2]",
            &[
                "quorum 2 with the hysteresis 1",
                "together weigh 2",
                "never be reached again",
            ],
        ),
        (
            "hysteresis: 1, real_servers: [10.0.0.1]",
            &["quorum 1 with the hysteresis 1", "together weigh 1"],
        ),
        (
            "depends_on: [nobody]",
            &["depends on \"nobody\"", "no such service"],
        ),
        ("name: web, depends_on: [wep]", &["did you mean \"web\"?"]),
        ("name: web, depends_on: [web]", &["depends on itself"]),
        (
            "scheduler: mh, slow_start: 5s",
            &["found \"slow_start\"", "mh does not give shares by weight"],
        ),
        ("slow_start: 2h", &["found \"2h\"", "from 0s to 1h"]),
        ("on_down: ignore", &["found \"ignore\"", "remove, quiesce"]),
        (
            "fallback_servers: [\"127.0.0.1:8080\"]",
            &[
                "found port 8080 of the director itself",
                "the service's port 80",
            ],
        ),
        (
            "fallback_servers: [\"::1\"]",
            &["IPv6 real server ::1 in an IPv4 service"],
        ),
        (
            "real_servers: [10.0.0.1], fallback_servers: [10.0.0.1]",
            &["the real server 10.0.0.1:80 of this service stands already"],
        ),
    ];
    for (keys, said) in cases {
        let text =
            format!("interfaces: [eth0]\nservices: [{{address: 192.0.2.10, port: 80, {keys}}}]\n");
        let shown = parse("director.yaml", &text).unwrap_err().to_string();
        for words in said {
            assert!(shown.contains(words), "no \"{words}\" for {keys}:\n{shown}");
        }
    }
    let circle = "interfaces: [eth0]\nservices:\n  - {name: a, address: 192.0.2.10, port: 80, depends_on: [b]}\n  - {name: \
                  b, address: 192.0.2.11, port: 80, depends_on: [a]}\n";
    let shown = parse("director.yaml", circle).unwrap_err().to_string();
    assert!(shown.contains("\"a\" depends on itself"), "{shown}");
}

#[test]
fn checks_that_go_through() {
    let dr = "method: dr, real_servers: [10.0.0.1]";
    let rows: [(&str, &str, &[&str]); 10] = [
        ("{type: http, through: true}", dr, &[]),
        (
            "{type: dns, name: a, through: true, source: 10.0.0.9}",
            "method: tun, real_servers: [10.0.0.1]",
            &[],
        ),
        // The director itself has the virtual address.
        (
            "{type: http, through: true}",
            "method: dr, real_servers: [10.0.0.1], fallback_servers: [127.0.0.1]",
            &[],
        ),
        (
            "{type: http, through: true}",
            "real_servers: [10.0.0.1]",
            &["through", "the method here is nat", "dr or tun"],
        ),
        (
            "{type: http, through: true}",
            "method: dr, real_servers: [10.0.0.1, {address: 10.0.0.2, method: nat}]",
            &["10.0.0.2", "the method here is nat"],
        ),
        (
            "{type: http, through: true}",
            "method: tun, real_servers: [\"2001:db8::1\"]",
            &["in an IPv4 service", "\"source\""],
        ),
        (
            "{type: http, through: true, source: 10.0.0.9}",
            "method: tun, real_servers: [\"2001:db8::1\"]",
            &[],
        ),
        (
            "{type: http, through: true, address: 10.0.0.1}",
            dr,
            &["found \"address\" of a check that goes through"],
        ),
        ("{type: ping, through: true}", dr, &["found \"through\""]),
        ("{type: agent, through: true}", dr, &["found \"through\""]),
    ];
    for (check, rest, said) in rows {
        let text = format!(
            "interfaces: [eth0]\nservices: [{{address: 192.0.2.10, port: 80, check: {check}, {rest}}}]\n"
        );
        match parse("director.yaml", &text) {
            Ok(_) => assert!(said.is_empty(), "{check} {rest} is taken"),
            Err(error) => {
                let shown = error.to_string();
                assert!(!said.is_empty(), "{shown}");
                for words in said {
                    assert!(shown.contains(words), "{words:?} in {shown}");
                }
            }
        }
    }
}
