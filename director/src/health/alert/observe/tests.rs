//! What is told of a service, by what is found of its real servers.

use std::time::Duration;

use super::*;
use crate::config;
use crate::health::standing::{Circumstances, Memory, judge};
use crate::overrides::{Override, Overrides};

/// A service of two real servers and a fallback server.
fn service(keys: &str, servers: &str) -> VirtualService {
    let text = format!(
        "interfaces: [eth0]\nservices:\n  - address: 192.0.2.10\n    port: 80\n    name: web\n    check: connect\n    \
         {keys}\n    real_servers: [{servers}]\n"
    );
    let config =
        config::parse("test.yaml", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    config.services.into_iter().next().unwrap()
}

/// One look: `U` up, `D` down, `?` unchecked, of each real server and fallback server; then `x` where what it depends on is
/// down, and `1` where an operator took the first real server out.
fn look(
    observer: &mut Observer,
    memory: &mut Memory,
    service: &VirtualService,
    text: &str,
) -> Vec<String> {
    let now = Instant::now();
    let states = text.chars().filter(|it| "UD?".contains(*it));
    let found: Vec<Found> = states
        .map(|state| Found {
            state: match state {
                'U' => State::Up,
                'D' => State::Down,
                _ => State::Unchecked,
            },
            since: (state != '?').then_some(now),
            words: if state == 'D' { "refused" } else { "" }.to_owned(),
            said: None,
            failures: u32::from(state == 'D'),
        })
        .collect();
    let mut overrides = Overrides::default();
    let is_out = text.contains('1');
    if is_out {
        let mut config = config::parse("test.yaml", "interfaces: [eth0]\n").unwrap();
        config.services.push(service.clone());
        let server = service.real_servers[0].shown();
        let said = Some(Override::Disabled);
        overrides.set(&config, "web", &server, said).unwrap();
    }
    let circumstances = Circumstances {
        overrides: &overrides,
        found: &found,
        stayed: &[],
        are_dependencies_up: !text.contains('x'),
        now_s: 0,
        now,
    };
    let (standing, _) = judge(service, memory, &circumstances);
    let is_out: Vec<bool> = (0..found.len()).map(|place| is_out && place == 0).collect();
    let events = observer.observe(service, &standing, &found, &is_out, now);
    let shown = |event: &Event| {
        let what = match event.condition {
            Condition::Hidden => "hidden",
            Condition::Gone => "gone",
            _ => event.what(),
        };
        let server = event.server().and_then(|server| server.split(':').next());
        match server.and_then(|server| server.rsplit('.').next()) {
            Some(last) => format!("{last} {what}"),
            None => what.to_owned(),
        }
    };
    events.iter().map(shown).collect()
}

#[test]
fn what_changes() {
    type Row = (
        &'static str,
        &'static [(&'static str, &'static [&'static str])],
    );
    let fallback = "fallback_servers: [127.0.0.9]";
    let cases: &[Row] = &[
        (
            "",
            &[
                ("??", &[]),
                ("U?", &[]),
                ("UU", &[]),
                ("DU", &["1 down"]),
                ("DU", &[]),
                ("DD", &["2 down", "quorum-lost", "service-down"]),
                ("UD", &["1 up", "quorum-reached", "service-up"]),
                ("UU", &["2 up"]),
            ],
        ),
        // At the start: nothing of the service before all are known.
        (
            "",
            &[
                ("??", &[]),
                ("D?", &["1 down"]),
                ("DD", &["2 down", "quorum-lost", "service-down"]),
            ],
        ),
        (
            fallback,
            &[
                ("UUU", &[]),
                ("DDU", &["1 down", "2 down", "on-fallback", "quorum-lost"]),
                ("DDD", &["9 down", "off-fallback", "service-down"]),
                ("UDD", &["1 up", "quorum-reached", "service-up"]),
            ],
        ),
        (
            "quorum: 2",
            &[
                ("UU", &[]),
                ("UD", &["2 down", "quorum-lost"]),
                ("UU", &["2 up", "quorum-reached"]),
            ],
        ),
        // Cut off: nothing new, and what was told is nobody's business.
        (
            "",
            &[
                ("DU", &["1 down"]),
                ("DUx", &["1 hidden"]),
                ("DDx", &[]),
                ("UDx", &[]),
                ("UD", &["1 up", "2 down"]),
            ],
        ),
        // An operator's.
        (
            "",
            &[
                ("UU1", &[]),
                ("DU1", &[]),
                ("DD1", &["2 down", "quorum-lost", "service-down"]),
                ("DU1", &["2 up", "quorum-reached", "service-up"]),
                ("DU", &["1 down"]),
                ("DU1", &["1 hidden"]),
                ("UU", &["1 up"]),
            ],
        ),
    ];
    for (keys, looks) in cases {
        let service = service(keys, "10.0.0.1, 10.0.0.2");
        let (mut observer, mut memory) = (Observer::default(), Memory::default());
        for (number, (text, expected)) in looks.iter().enumerate() {
            let told = look(&mut observer, &mut memory, &service, text);
            assert_eq!(told, *expected, "{keys}: {text}, the look {number}");
        }
    }
}

#[test]
fn the_checks_words_are_told() {
    let service = service("", "10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4");
    let now = Instant::now();
    let down = |number: usize| Found {
        state: State::Down,
        since: Some(now),
        words: format!("refused by {number}"),
        said: None,
        failures: 1,
    };
    let found: Vec<Found> = (1..=4).map(down).collect();
    let standing = ServiceStanding::default();
    let events = Observer::default().observe(&service, &standing, &found, &[false; 4], now);
    let of_server = events.iter().find(|it| it.server() == Some("10.0.0.2:80"));
    assert_eq!(of_server.unwrap().words, "refused by 2");
    let of_service = events.iter().find(|it| it.key.about == About::Service);
    assert_eq!(
        of_service.unwrap().words,
        "nobody answers its clients (10.0.0.1:80: refused by 1; 10.0.0.2:80: refused by 2; 10.0.0.3:80: refused by 3; \
         and 1 more)"
    );
}

/// Told of again when its check is known to have failed more often, and down for as long as it was, whichever check says so.
#[test]
fn a_check_that_has_failed_more_often() {
    let service = service("", "10.0.0.1");
    let start = Instant::now();
    let at = |passed_s| start + Duration::from_secs(passed_s);
    let mut observer = Observer::default();
    // (state, since, failures in a row, since when it is told to be what after how many)
    let down = Condition::Bad;
    let cases = [
        (State::Up, 1, 0, None),
        (State::Down, 5, 3, Some((5, down, Some(3)))),
        (State::Down, 5, 3, None),
        (State::Down, 5, 7, Some((5, down, Some(7)))),
        // The other one has recovered, or failed since.
        (State::Down, 9, 4, None),
        (State::Down, 9, 8, Some((5, down, Some(8)))),
        (State::Up, 20, 0, Some((20, Condition::Good, None))),
        (State::Down, 25, 3, Some((25, down, Some(3)))),
    ];
    for (number, (state, since_s, failures, expected)) in cases.into_iter().enumerate() {
        let found = Found {
            state,
            since: Some(at(since_s)),
            failures,
            ..Found::default()
        };
        let standing = ServiceStanding {
            is_up: true,
            has_quorum: true,
            ..ServiceStanding::default()
        };
        let events = observer.observe(&service, &standing, &[found], &[false], at(100));
        let told: Vec<_> = events
            .iter()
            .map(|event| (event.since, event.condition, event.failures))
            .collect();
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(since_s, condition, failures)| (at(since_s), condition, failures))
            .collect();
        assert_eq!(told, expected, "case {number}");
    }
}

#[test]
fn where_nobody_is_meant_to_answer_nothing_is_told() {
    let (mut observer, mut memory) = (Observer::default(), Memory::default());
    let empty = service("", "");
    let told = look(&mut observer, &mut memory, &empty, "");
    assert_eq!(told, [""; 0]);
    let quiet = service("", "{address: 10.0.0.1, weight: 0}");
    let told = look(&mut observer, &mut Memory::default(), &quiet, "U");
    assert_eq!(told, [""; 0]);
}

#[test]
fn what_is_taken_out_of_the_configuration_is_forgotten() {
    let (mut observer, mut memory) = (Observer::default(), Memory::default());
    let both = service("", "10.0.0.1, 10.0.0.2");
    look(&mut observer, &mut memory, &both, "DU");
    let one = service("", "10.0.0.2");
    let told = look(&mut observer, &mut memory, &one, "U");
    assert_eq!(told, ["1 gone"]);
    let now = Instant::now();
    assert!(observer.retain(|name| name == "web", now).is_empty());
    let gone = observer.retain(|_| false, now);
    assert!(
        gone.iter().all(|event| event.condition == Condition::Gone),
        "{gone:?}"
    );
    assert!(observer.retain(|_| false, now).is_empty());
}
