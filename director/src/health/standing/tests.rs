//! Tables of what is found of real servers, and what follows.

use proptest::prelude::*;

use super::*;
use crate::config;
use crate::health::probe::Operational;
use crate::overrides::Override;

/// A service of two real servers and a fallback server, with more keys.
fn service(keys: &str) -> VirtualService {
    let text = format!(
        "interfaces: [eth0]\nservices:\n  - address: 192.0.2.10\n    port: 80\n    name: web\n    check: connect\n    \
         {keys}\n    real_servers: [{{address: 10.0.0.1, weight: 2}}, 10.0.0.2]\n    fallback_servers: [127.0.0.1]\n"
    );
    let config =
        config::parse("test.yaml", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    config.services.into_iter().next().unwrap()
}

fn found(state: State, since: Instant) -> Found {
    Found {
        state,
        since: Some(since),
        ..Found::default()
    }
}

/// `U` up, `D` down, `?` unchecked, `~` unchecked and in service before, for each of the three.
fn states(text: &str, since: Instant) -> Vec<Found> {
    text.chars()
        .map(|state| match state {
            'U' => found(State::Up, since),
            'D' => found(State::Down, since),
            _ => Found::default(),
        })
        .collect()
}

struct Judge {
    service: VirtualService,
    memory: Memory,
    overrides: Overrides,
    start: Instant,
}

impl Judge {
    fn new(keys: &str) -> Self {
        Self {
            service: service(keys),
            memory: Memory::default(),
            overrides: Overrides::default(),
            start: Instant::now(),
        }
    }

    fn circumstances<'a>(&'a self, found: &'a [Found], passed_s: u64) -> Circumstances<'a> {
        Circumstances {
            overrides: &self.overrides,
            found,
            stayed: &[],
            are_dependencies_up: true,
            now_s: 0,
            now: self.start + Duration::from_secs(passed_s),
        }
    }

    fn found(&mut self, found: &[Found], passed_s: u64) -> (ServiceStanding, Option<Instant>) {
        self.found_of(found, &[], passed_s)
    }

    /// `stayed`: who was in service before a reload that changed the checks.
    fn found_of(
        &mut self,
        found: &[Found],
        stayed: &[bool],
        passed_s: u64,
    ) -> (ServiceStanding, Option<Instant>) {
        let mut memory = std::mem::take(&mut self.memory);
        let circumstances = Circumstances {
            stayed,
            ..self.circumstances(found, passed_s)
        };
        let judged = judge(&self.service, &mut memory, &circumstances);
        self.memory = memory;
        judged
    }

    /// Weights of the three, and whether each is out, as `w` or `w!`; then `*` where the fallback servers answer.
    fn shown(&mut self, text: &str, passed_s: u64) -> String {
        let since = self.start + Duration::from_secs(passed_s);
        let found = states(text, since);
        let stayed: Vec<bool> = text.chars().map(|state| state == '~').collect();
        let (standing, _) = self.found_of(&found, &stayed, passed_s);
        show(&standing)
    }
}

fn show(standing: &ServiceStanding) -> String {
    let servers: Vec<String> = standing
        .servers
        .iter()
        .map(|it| {
            let out = if it.is_out { "!" } else { "" };
            let gone = if it.is_gone { "x" } else { "" };
            format!("{}{out}{gone}", it.weight)
        })
        .collect();
    let fallback = if standing.is_on_fallback { " *" } else { "" };
    format!("{}{fallback}", servers.join(" "))
}

#[test]
fn what_becomes_of_real_servers() {
    // (keys, what is found, how they take part: weight, ! for out, x for gone, * for on fallback)
    let cases = [
        ("", "UUU", "2 1 0!"),
        ("", "UDU", "2 0! 0!"),
        ("", "DDU", "0! 0! 1 *"),
        ("", "DDD", "0! 0! 0!"),
        // Nobody gets anything before the first success, or everybody.
        ("", "???", "0! 0! 0!"),
        ("", "?U?", "0! 1 0!"),
        ("until_checked: in", "??U", "2 1 0!"),
        // Weight 0, so that persistence keeps its clients.
        ("on_down: quiesce", "UDU", "2 0 0!"),
        ("on_down: quiesce", "U?U", "2 0! 0!"),
        // Connections of one that is down, as those of a removed one.
        ("removed_servers: reschedule", "UDU", "2 0!x 0!"),
        ("removed_servers: drop", "UDU", "2 0!x 0!"),
        ("removed_servers: drop", "U?U", "2 0! 0!"),
        (
            "removed_servers: drop\n    on_down: quiesce",
            "UDU",
            "2 0 0!",
        ),
        // Two thirds of the weight must be up.
        ("quorum: 2", "UDU", "2 0! 0!"),
        ("quorum: 2", "DUU", "0! 0! 1 *"),
        // Without a fallback server that is up, what there is goes on.
        ("quorum: 2", "DUD", "0! 1 0!"),
        ("quorum: 0", "DDU", "0! 0! 0!"),
    ];
    for (keys, found, expected) in cases {
        assert_eq!(Judge::new(keys).shown(found, 0), expected, "{keys} {found}");
    }
}

/// What is guessed of those that are not checked yet, where connections may have no entry.
#[test]
fn who_is_expected() {
    const ON_CHANGE: &str = "method: dr\n    scheduler: mh\n    track: on-change";
    // (keys, what is found, whether dependencies are up, how they are expected to take part)
    let cases = [
        (ON_CHANGE, "???", true, Some("2 1 0!")),
        (ON_CHANGE, "U?U", true, Some("2 1 0!")),
        (ON_CHANGE, "D?U", true, Some("0! 1 0!")),
        (ON_CHANGE, "DD?", true, Some("0! 0! 1 *")),
        (ON_CHANGE, "UUD", true, None),
        (ON_CHANGE, "UDU", false, Some("2 0! 0!")),
        (ON_CHANGE, "?DU", false, Some("2 0! 0!")),
        ("", "???", true, None),
    ];
    for (keys, text, are_dependencies_up, expected) in cases {
        let judge = Judge::new(keys);
        let found = states(text, judge.start);
        let circumstances = Circumstances {
            are_dependencies_up,
            ..judge.circumstances(&found, 0)
        };
        let (standing, _) = super::judge(&judge.service, &mut Memory::default(), &circumstances);
        let shown = standing.expected.as_deref().map(show);
        assert_eq!(shown.as_deref(), expected, "{keys} {text}");
    }
}

#[test]
fn the_quorum_has_hysteresis() {
    // (keys, what is found in turn, whether the fallback servers answer then)
    let cases: [(&str, &[&str], &[bool]); 3] = [
        ("quorum: 2", &["UUU", "DUU", "UDU"], &[false, true, false]),
        // Lost below 1, gained at 3.
        (
            "quorum: 2\n    hysteresis: 1",
            &["UUU", "DUU", "DDU", "UDU", "UUU"],
            &[false, false, true, true, false],
        ),
        // Whatever the hysteresis, with nobody up it is lost.
        (
            "quorum: 1\n    hysteresis: 2",
            &["UUU", "DDU"],
            &[false, true],
        ),
    ];
    for (keys, turns, expected) in cases {
        let mut judge = Judge::new(keys);
        let found: Vec<bool> = turns
            .iter()
            .map(|turn| judge.shown(turn, 0).ends_with('*'))
            .collect();
        assert_eq!(found, expected, "{keys}");
    }
}

#[test]
fn a_recovered_server_starts_slowly() {
    let mut judge = Judge::new("slow_start: 100s");
    // (what is found, seconds since, weights). Weights are a hundred times as large.
    let up_again = 20;
    let cases = [
        ("UUU", 0, "200 100 0!"),
        ("DUU", 10, "0! 100 0!"),
        ("UUU", up_again, "2 100 0!"),
    ];
    for (found, passed_s, expected) in cases {
        assert_eq!(judge.shown(found, passed_s), expected, "{passed_s}");
    }
    let since = judge.start + Duration::from_secs(up_again);
    let found = states("UUU", since);
    // (seconds since it is up, its weight, whether there is more to come)
    let steps = [
        (1, 2, true),
        (25, 50, true),
        (50, 100, true),
        (99, 198, true),
        (100, 200, false),
        (1000, 200, false),
    ];
    for (passed_s, weight, goes_on) in steps {
        let (standing, next) = judge.found(&found, up_again + passed_s);
        assert_eq!(standing.servers[0].weight, weight, "{passed_s}");
        assert_eq!(next.is_some(), goes_on, "{passed_s}");
    }
    // One that is new is not one that recovered.
    let mut new = Judge::new("slow_start: 100s");
    assert_eq!(new.shown("?UU", 0), "0! 100 0!");
    assert_eq!(new.shown("UUU", 1), "200 100 0!");
}

/// Where a reload changes a check, nothing is known until that has run: what was known before goes on.
#[test]
fn a_changed_check_neither_begins_nor_ends_a_slow_start() {
    const SLOW: &str = "slow_start: 100s";
    const IN: &str = "slow_start: 100s\n    until_checked: in";
    // Keys, and what is found, seconds, weights, one after the other.
    type Row = (&'static str, &'static [(&'static str, u64, &'static str)]);
    let cases: &[Row] = &[
        // Under way.
        (
            SLOW,
            &[
                ("DUU", 0, "0! 100 0!"),
                ("UUU", 10, "2 100 0!"),
                ("~UU", 60, "100 100 0!"),
                ("UUU", 61, "102 100 0!"),
                ("UUU", 110, "200 100 0!"),
            ],
        ),
        // It ends while nothing is known.
        (
            SLOW,
            &[
                ("DUU", 0, "0! 100 0!"),
                ("UUU", 10, "2 100 0!"),
                ("~UU", 110, "200 100 0!"),
                ("UUU", 111, "200 100 0!"),
            ],
        ),
        // Yet to come.
        (
            SLOW,
            &[
                ("DUU", 0, "0! 100 0!"),
                ("?UU", 10, "0! 100 0!"),
                ("?UU", 11, "0! 100 0!"),
                ("UUU", 20, "2 100 0!"),
                ("UUU", 70, "100 100 0!"),
            ],
        ),
        // It is in service again before it is checked.
        (
            IN,
            &[
                ("DUU", 0, "0! 100 0!"),
                ("?UU", 10, "2 100 0!"),
                ("UUU", 60, "100 100 0!"),
            ],
        ),
        // It was up.
        (
            SLOW,
            &[
                ("UUU", 0, "200 100 0!"),
                ("~UU", 10, "200 100 0!"),
                ("UUU", 20, "200 100 0!"),
            ],
        ),
        (
            SLOW,
            &[
                ("UUU", 0, "200 100 0!"),
                ("~UU", 10, "200 100 0!"),
                ("DUU", 20, "0! 100 0!"),
                ("UUU", 30, "2 100 0!"),
            ],
        ),
    ];
    for (keys, turns) in cases {
        let mut judge = Judge::new(keys);
        for (found, passed_s, expected) in *turns {
            assert_eq!(
                judge.shown(found, *passed_s),
                *expected,
                "{turns:?} {passed_s}"
            );
        }
    }
}

/// What an agent said holds until its check, which a reload has changed, has run.
#[test]
fn an_agents_word_outlives_a_change_of_its_check() {
    let said = |percent, administrative| Said {
        percent,
        administrative,
        maximum_connections: Some(30),
        ..Said::default()
    };
    const AGENT: &str = "agent";
    // (check, what the agent of the first has said, weights until it is asked again)
    let cases = [
        (AGENT, said(None, None), "200 100 0!"),
        (AGENT, said(Some(50), None), "100 100 0!"),
        (AGENT, said(Some(0), None), "0 100 0!"),
        (AGENT, said(None, Some(Administrative::Drain)), "0 100 0!"),
        (
            AGENT,
            said(None, Some(Administrative::Maintenance)),
            "0! 100 0!",
        ),
        // It has none any more.
        (
            "connect",
            said(None, Some(Administrative::Maintenance)),
            "2 1 0!",
        ),
    ];
    for (check, said, expected) in cases {
        let with = |check: &str| {
            let text = format!(
                "interfaces: [eth0]\nservices: [{{address: 192.0.2.10, port: 80, check: {check}, real_servers: [{{address: \
                 10.0.0.1, weight: 2}}, 10.0.0.2], fallback_servers: [127.0.0.1]}}]\n"
            );
            config::parse("test.yaml", &text)
                .unwrap()
                .services
                .remove(0)
        };
        let mut judge = Judge::new("");
        judge.service = with(AGENT);
        let mut found = states("UUU", judge.start);
        found[0].said = Some(said);
        judge.found(&found, 0);
        judge.service = with(check);
        // Judged more than once.
        for _ in 0..3 {
            assert_eq!(judge.shown("~UU", 1), expected, "{check} {said:?}");
        }
        if check == AGENT {
            let found = states("~UU", judge.start);
            let (standing, _) = judge.found_of(&found, &[true], 1);
            assert_eq!(standing.servers[0].maximum_connections, 30, "{said:?}");
            // What it says then is what counts.
            let mut found = states("UUU", judge.start);
            found[0].said = Some(Said::default());
            assert_eq!(show(&judge.found(&found, 2).0), "200 100 0!");
        }
    }
}

/// What is remembered is of a real server, not of its place: a reload may put others there.
#[test]
fn a_slow_start_goes_with_its_server() {
    let with = |real_servers: &str, fallback_servers: &str| {
        let text = format!(
            "interfaces: [eth0]\nservices: [{{address: 192.0.2.10, port: 80, check: connect, slow_start: 100s, \
             real_servers: [{real_servers}], fallback_servers: [{fallback_servers}]}}]\n"
        );
        let config =
            config::parse("test.yaml", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        config.services.into_iter().next().unwrap()
    };
    let (a, b, x) = ("10.0.0.1", "10.0.0.2", "10.0.0.9");
    let local = "127.0.0.1";
    // (lists before and after a reload, what is found at 0 s and at 10 s before it, and at 60 s after it, weights then; 50
    // is that of one that began at 10 s)
    type Lists = (String, &'static str);
    let cases: [(Lists, [&str; 2], Lists, &str, &str); 6] = [
        // The one that recovered is gone, and the other has its place.
        (
            (format!("{a}, {b}"), local),
            ["DUU", "UUU"],
            (b.to_owned(), local),
            "UU",
            "100 0!",
        ),
        // Another one stands before it.
        (
            (format!("{a}, {b}"), local),
            ["DUU", "UUU"],
            (format!("{x}, {a}, {b}"), local),
            "UUUU",
            "100 50 100 0!",
        ),
        // It was down, and recovers behind another one.
        (
            (format!("{a}, {b}"), local),
            ["UUU", "DUU"],
            (format!("{b}, {a}"), local),
            "UUU",
            "100 1 0!",
        ),
        // The same address with another port is another one.
        (
            (format!("{a}, {b}"), local),
            ["DUU", "UUU"],
            (format!("\"{a}:8080\", {b}"), local),
            "UUU",
            "100 100 0!",
        ),
        // As a fallback server it is another one.
        (
            (format!("{a}, {b}"), local),
            ["DUU", "UUU"],
            (b.to_owned(), a),
            "DU",
            "0! 100 *",
        ),
        // Nothing has changed.
        (
            (format!("{a}, {b}"), local),
            ["DUU", "UUU"],
            (format!("{a}, {b}"), local),
            "UUU",
            "50 100 0!",
        ),
    ];
    for (before, found, after, then, expected) in cases {
        let mut judge = Judge::new("");
        judge.service = with(&before.0, before.1);
        for (passed_s, found) in [0, 10].into_iter().zip(found) {
            judge.shown(found, passed_s);
        }
        judge.service = with(&after.0, after.1);
        assert_eq!(judge.shown(then, 60), expected, "{before:?} {after:?}");
    }
}

#[test]
fn agents_and_operators_have_their_say() {
    let said = |percent, administrative| Said {
        percent,
        administrative,
        ..Said::default()
    };
    // (what the agent of the first says, weights)
    let cases = [
        (said(None, None), "200 100 0!"),
        (said(Some(50), None), "100 100 0!"),
        (said(Some(0), None), "0 100 0!"),
        (said(Some(1), Some(Administrative::Ready)), "2 100 0!"),
        (said(Some(90), Some(Administrative::Drain)), "0 100 0!"),
        (said(None, Some(Administrative::Maintenance)), "0! 100 0!"),
    ];
    for (said, expected) in cases {
        let mut judge = Judge::new("slow_start: 0s");
        let text = "interfaces: [eth0]\nservices:\n  - address: 192.0.2.10\n    port: 80\n    check: agent\n    \
                    real_servers: [{address: 10.0.0.1, weight: 2}, 10.0.0.2]\n    fallback_servers: [127.0.0.1]\n";
        judge.service = config::parse("test.yaml", text).unwrap().services.remove(0);
        let mut found = states("UUU", judge.start);
        found[0].said = Some(said);
        assert_eq!(show(&judge.found(&found, 0).0), expected, "{said:?}");
    }
    // (what it says of the most connections, what is in force)
    for (said, expected) in [(None, 0), (Some(0), 0), (Some(30), 30)] {
        let mut judge = Judge::new("");
        for state in ["UUU", "DUU"] {
            let mut found = states(state, judge.start);
            found[0].said = Some(Said {
                maximum_connections: said,
                ..Said::default()
            });
            let standing = judge.found(&found, 0).0;
            let most = [0, 1].map(|place| standing.servers[place].maximum_connections);
            assert_eq!(most, [expected, 0], "{said:?}, {state}");
        }
    }
    // What an operator says goes before everything.
    let cases = [
        (Override::Weight(7), "UUU", "7 1 0!"),
        (Override::Weight(7), "DUU", "0! 1 0!"),
        (Override::Disabled, "UUU", "0! 1 0!"),
    ];
    for (said, found, expected) in cases {
        let mut judge = Judge::new("");
        let config = config_of(&judge.service);
        judge
            .overrides
            .set(&config, "web", "10.0.0.1", Some(said))
            .unwrap();
        assert_eq!(judge.shown(found, 0), expected, "{said:?}");
    }
}

fn config_of(service: &VirtualService) -> Config {
    let mut config = config::parse("test.yaml", "interfaces: [eth0]\n").unwrap();
    config.services.push(service.clone());
    config
}

#[test]
fn without_what_it_depends_on_a_service_is_down() {
    let mut judge = Judge::new("");
    let found = states("UUU", judge.start);
    let circumstances = Circumstances {
        overrides: &judge.overrides,
        found: &found,
        stayed: &[],
        are_dependencies_up: false,
        now_s: 0,
        now: judge.start,
    };
    let (standing, _) = super::judge(&judge.service, &mut judge.memory, &circumstances);
    assert_eq!(show(&standing), "0! 0! 0!");
    assert!(standing.is_cut_off && !standing.is_up);
}

#[test]
fn who_was_in_service_before_stays_until_it_is_checked() {
    let judge_ = |stayed: &[bool], text: &str| {
        let mut judge = Judge::new("");
        let found = states(text, judge.start);
        let circumstances = Circumstances {
            overrides: &judge.overrides,
            found: &found,
            stayed,
            are_dependencies_up: true,
            now_s: 0,
            now: judge.start,
        };
        show(&super::judge(&judge.service, &mut judge.memory, &circumstances).0)
    };
    assert_eq!(judge_(&[true, false, false], "???"), "2 0! 0!");
    assert_eq!(judge_(&[true, true, false], "?D?"), "2 0! 0!");
}

#[test]
fn several_checks_are_one_finding() {
    let start = Instant::now();
    let verdict = |state, passed_s, words: &str, failures| Verdict {
        state,
        since: Some(start + Duration::from_secs(passed_s)),
        words: words.to_owned(),
        failures,
        ..Verdict::default()
    };
    let (up, down, new) = (
        // It has failed, and not often enough.
        verdict(State::Up, 1, "fine", 7),
        verdict(State::Down, 5, "refused", 4),
        Verdict::default(),
    );
    let later = verdict(State::Down, 9, "silent", 3);
    // (verdicts, what is found, in whose words, failures of the one that has most)
    let cases: [(&[&Verdict], State, &str, u32); 6] = [
        (&[], State::Up, "", 0),
        (&[&up], State::Up, "fine", 0),
        (&[&up, &new], State::Unchecked, "", 0),
        (&[&new, &down, &up], State::Down, "refused", 4),
        (&[&down, &later], State::Down, "silent", 4),
        (&[&later, &down], State::Down, "silent", 4),
    ];
    for (verdicts, state, words, failures) in cases {
        let found = Found::by_all(verdicts.iter().copied());
        assert_eq!(
            (found.state, found.words.as_str(), found.failures),
            (state, words, failures)
        );
    }
}

/// An agent's word decides where its check is up, from the moment that it was said; not where the check fails.
#[test]
fn an_agents_word_counts_since_it_was_said() {
    let start = Instant::now();
    let at = |passed_s| start + Duration::from_secs(passed_s);
    // (check, since, agent's word, since, found, since, words)
    let (up, down) = (Some(Operational::Up), Some(Operational::Down));
    let by_agent = "its agent says that it is down: down # disk";
    let cases = [
        (State::Up, 1, None, None, State::Up, 1, "50%"),
        (State::Up, 1, down, Some(7), State::Down, 7, by_agent),
        (State::Up, 1, up, Some(9), State::Up, 9, "50%"),
        (State::Up, 9, up, Some(7), State::Up, 9, "50%"),
        (State::Down, 9, down, Some(7), State::Down, 9, "50%"),
    ];
    for (state, since_s, operational, said_s, expected, expected_s, words) in cases {
        let verdict = Verdict {
            state,
            since: Some(at(since_s)),
            words: "50%".to_owned(),
            said: Some(Said {
                operational,
                ..Said::default()
            }),
            said_since: said_s.map(at),
            said_words: "down # disk".to_owned(),
            failures: 0,
        };
        let found = Found::by_all([&verdict]);
        assert_eq!(
            (found.state, found.since, found.words.as_str()),
            (expected, Some(at(expected_s)), words),
            "{verdict:?}"
        );
    }
}

proptest! {
    /// Whatever is found in whatever order: nobody who is down gets anything, real servers and fallback servers never
    /// share, and if anybody who may answer is up, somebody does.
    #[test]
    fn somebody_answers_if_anybody_can(
        turns in proptest::collection::vec("[UD?]{3}", 1..12),
        quorum in 0u32..5,
        hysteresis in 0u32..3,
        slow_start_s in 0u16..3,
        quiesces in any::<bool>(),
    ) {
        let on_down = if quiesces { "quiesce" } else { "remove" };
        let mut judge = Judge::new(&format!("on_down: {on_down}"));
        // Those too that no configuration may have: operators change weights.
        judge.service.health.quorum = quorum;
        judge.service.health.hysteresis = hysteresis;
        judge.service.health.slow_start_s = slow_start_s;
        for (turn, passed_s) in turns.into_iter().zip(0..) {
            let found = states(&turn, judge.start + Duration::from_secs(passed_s));
            let (standing, _) = judge.found(&found, passed_s);
            for (effective, state) in standing.servers.iter().zip(turn.chars()) {
                prop_assert!(effective.weight == 0 || state == 'U', "{turn}: {standing:?}");
            }
            let weights: Vec<bool> = standing.servers.iter().map(|it| it.weight > 0).collect();
            let (real, fallback) = (weights[0] || weights[1], weights[2]);
            prop_assert!(!(real && fallback), "{turn}: {standing:?}");
            let is_real_up = turn[..2].contains('U');
            let is_fallback_up = turn.ends_with('U');
            if is_real_up {
                prop_assert!(standing.is_up, "{turn}: {standing:?}");
            }
            if !is_real_up && is_fallback_up && quorum > 0 {
                prop_assert!(standing.is_on_fallback, "{turn}: {standing:?}");
            }
        }
    }
}

proptest! {
    /// Whatever is found whenever: who comes up after being down gets a part of its weight that only grows, is never nothing
    /// and is all of it when the slow start is over; who was not down before gets all at once. While one is under way, and
    /// only then, it is looked at again. A check that is changed, and so not known to be either, makes no difference to that.
    #[test]
    fn a_slow_start_only_grows_and_ends(
        turns in proptest::collection::vec(("[UD?]{2}", 0u64..30), 1..20),
        slow_start_s in 0u16..40,
    ) {
        /// What is known of one.
        #[derive(Clone, Copy, Default)]
        struct Known {
            state: char,
            since_s: u64,
            is_in: bool,
            was_down: bool,
            slow_since_s: Option<u64>,
            weight: u32,
        }
        let mut judge = Judge::new("slow_start: 1s");
        judge.service.health.slow_start_s = slow_start_s;
        let all = [2 * scale(&judge.service), scale(&judge.service)];
        let mut known = [Known::default(); 2];
        let mut now_s = 0;
        for (turn, passed_s) in turns {
            now_s += passed_s;
            for (known, state) in known.iter_mut().zip(turn.chars()) {
                if known.state != state {
                    (known.state, known.since_s) = (state, now_s);
                }
                // A reload keeps who is in service until the changed check has run.
                known.is_in = state == 'U' || state == '?' && known.is_in;
                if !known.is_in {
                    known.was_down |= state == 'D';
                    (known.slow_since_s, known.weight) = (None, 0);
                } else if std::mem::take(&mut known.was_down) {
                    known.slow_since_s = Some(now_s);
                }
            }
            let at = |passed_s| judge.start + Duration::from_secs(passed_s);
            let found: Vec<Found> = known
                .iter()
                .flat_map(|it| states(&it.state.to_string(), at(it.since_s)))
                .chain([found(State::Down, judge.start)])
                .collect();
            let stayed = known.map(|it| it.is_in);
            let (standing, next) = judge.found_of(&found, &stayed, now_s);
            let mut is_under_way = false;
            for (place, known) in known.iter_mut().enumerate() {
                let (weight, last) = (standing.servers[place].weight, known.weight);
                let is_slow = |since_s| now_s - since_s < u64::from(slow_start_s);
                if !known.is_in {
                    prop_assert_eq!(weight, 0, "{} {}: {:?}", turn, now_s, standing);
                } else if known.slow_since_s.is_some_and(is_slow) {
                    is_under_way = true;
                    prop_assert!((1..=all[place]).contains(&weight), "{turn} {now_s}: {standing:?}");
                    prop_assert!(weight >= last, "{turn} {now_s}: {last} before, {standing:?}");
                } else {
                    prop_assert_eq!(weight, all[place], "{} {}: {:?}", turn, now_s, standing);
                }
                known.weight = weight;
            }
            prop_assert_eq!(next.is_some(), is_under_way, "{} {}", turn, now_s);
        }
    }
}

#[test]
fn schedulers_that_cannot_share_in_part_do_not() {
    for (scheduler, scaled) in [("wlc", true), ("wrr", true), ("mh", false), ("ovf", false)] {
        let text = format!(
            "interfaces: [eth0]\ndefaults: {{slow_start: 10s}}\nservices: [{{address: 192.0.2.10, port: 80, scheduler: \
             {scheduler}, real_servers: [10.0.0.1]}}]\n"
        );
        let service = config::parse("test.yaml", &text)
            .unwrap()
            .services
            .remove(0);
        assert_eq!(super::scale(&service) > 1, scaled, "{scheduler}");
        assert_eq!(service.scheduler.follows_weights(), scaled);
    }
}
