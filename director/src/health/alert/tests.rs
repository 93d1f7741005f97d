//! From what checks find to what a target is told, over all that decides between them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::event::Condition;
use super::machine::{Local, Machine as Alerts};
use super::observe::Observer;
use crate::config::{self, Config};
use crate::health::machine::{Machine as Checks, Places, Subject, Verdict};
use crate::health::probe::{Failure, FailureKind, Good, Operational, Said};
use crate::health::standing::{Circumstances, Found, Memory, judge};
use crate::overrides::Overrides;

/// Longer than anything between two runs of a check.
const ROUND: Duration = Duration::from_secs(10);

/// One real server, its checks, and who is told of it.
struct Site {
    config: Config,
    checks: Checks,
    verdicts: HashMap<Subject, Verdict>,
    observer: Observer,
    memory: Memory,
    alerts: Alerts,
    now: Instant,
}

fn configuration(checks: &str, after_failures: u32) -> Config {
    let text = format!(
        "interfaces: [eth0]\nservices: [{{name: web, address: 192.0.2.10, port: 80, scheduler: wlc, check: [{checks}], \
         real_servers: [10.0.0.1]}}]\nalerts: [{{name: pager, program: [/bin/page], group: 0s, on: [down, up], \
         after_failures: {after_failures}}}]\n"
    );
    config::parse("test.yaml", &text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

impl Site {
    fn new(config: Config) -> Self {
        let all = 16;
        let places = Places {
            all,
            slow: all,
            programs: all,
        };
        let mut site = Self {
            checks: Checks::new(places),
            verdicts: HashMap::new(),
            observer: Observer::default(),
            memory: Memory::default(),
            alerts: Alerts::default(),
            now: Instant::now(),
            config: config.clone(),
        };
        site.load(config);
        site
    }

    fn subjects(&self) -> Vec<Subject> {
        let checks = self.config.services[0].real_servers[0].checks.iter();
        checks
            .map(|check| Subject {
                check: Arc::clone(check),
                server: "10.0.0.1".parse().unwrap(),
                port: 80,
                through: None,
            })
            .collect()
    }

    /// As the main loop does it.
    fn load(&mut self, config: Config) {
        self.config = config;
        let subjects = self.subjects();
        self.verdicts
            .retain(|subject, _| subjects.contains(subject));
        self.judge();
        let alerts = self.config.alerts.iter();
        self.checks
            .await_failures(alerts.map(|alert| alert.after_failures).collect());
        self.checks.replace(subjects, self.now, |_| 0);
        self.alerts.replace(&self.config.alerts, self.now);
    }

    /// Runs each check once: `+` it succeeds, `-` it fails; of an agent `u` it says up, `d` down, `p` something else.
    fn run(&mut self, results: &str) {
        self.now += ROUND;
        let subjects = self.subjects();
        for _ in &subjects {
            let due = self.checks.take_due(self.now).expect("each is due");
            let place = subjects.iter().position(|it| *it == due.subject);
            let result = result(results.chars().nth(place.unwrap()).unwrap());
            let change = self.checks.finished(due.id, &result, self.now, self.now);
            if let Some((subject, verdict)) = change {
                self.verdicts.insert(subject, verdict);
                self.judge();
            }
        }
    }

    fn judge(&mut self) {
        let unknown = Verdict::default();
        let subjects = self.subjects();
        let verdicts = subjects.iter();
        let found = [Found::by_all(
            verdicts.map(|it| self.verdicts.get(it).unwrap_or(&unknown)),
        )];
        let service = &self.config.services[0];
        let circumstances = Circumstances {
            overrides: &Overrides::default(),
            found: &found,
            stayed: &[],
            are_dependencies_up: true,
            now_s: 0,
            now: self.now,
        };
        let (standing, _) = judge(service, &mut self.memory, &circumstances);
        let events = self
            .observer
            .observe(service, &standing, &found, &[false], self.now);
        for event in events {
            self.alerts.take_in(event, self.now);
        }
    }

    /// What is told now.
    fn told(&mut self) -> Vec<&'static str> {
        self.alerts.collect(self.now, Local::default());
        let mut told = Vec::new();
        while let Some(job) = self.alerts.take_jobs(self.now).pop() {
            for entry in &job.message.entries {
                assert_ne!(entry.event.condition, Condition::Hidden);
                told.push(entry.event.what());
            }
            self.alerts.finished(job.id, true, self.now);
        }
        told
    }
}

fn result(letter: char) -> Result<Good, Failure> {
    let said = |operational, percent| {
        Ok(Good {
            words: "its words".to_owned(),
            said: Some(Said {
                operational,
                percent,
                ..Said::default()
            }),
        })
    };
    match letter {
        '+' => Ok(Good::new("fine")),
        'u' => said(Some(Operational::Up), None),
        'd' => said(Some(Operational::Down), None),
        'p' => said(None, Some(50)),
        _ => Err(Failure::new(FailureKind::Refused, "refused")),
    }
}

/// After how many failures of which check it is told that a real server is down, and that it is up again.
#[test]
fn after_failures() {
    const ONE: &str = "{type: connect}";
    const OTHER: &str = "{type: connect, interval: 3s}";
    const TWO: &str = "{type: connect}, {type: ping}";
    const AGENT: &str = "{type: agent, port: 3333}";
    // Checks; failures that are waited for; rounds, or `=` and another number by a reload, or `~` for another check by one;
    // after which of them what is told.
    type Row = (&'static str, u32, &'static str, &'static [&'static str]);
    let cases: &[Row] = &[
        (ONE, 1, "+ - - - - + +", &["4 down", "7 up"]),
        // Those count that made it fall.
        (ONE, 2, "+ - - - - + +", &["4 down", "7 up"]),
        (ONE, 3, "+ - - - - + +", &["4 down", "7 up"]),
        (ONE, 5, "+ - - - - - - + +", &["6 down", "9 up"]),
        (ONE, 3, "- - - -", &["3 down"]),
        // Those before a success that found it up do not.
        (ONE, 4, "+ - - + - - - - -", &["8 down"]),
        // What is over before is not told, nor its end.
        (ONE, 5, "+ - - - - + + - - - - + +", &[]),
        // A success that does not bring it up neither counts nor begins anew: it is down all the time.
        (ONE, 5, "+ - - - + - + - + +", &["8 down", "10 up"]),
        // Whichever of several checks comes to it first.
        (TWO, 4, "++ -+ -+ -+ -+ -+", &["5 down"]),
        (TWO, 5, "++ -+ -- -- +- +- +-", &["7 down"]),
        (TWO, 5, "++ -+ -+ -+ ++ ++ +- +- +- +- +-", &["11 down"]),
        // What an agent says counts as long as it does not take it back.
        (AGENT, 1, "u d u", &["2 down", "3 up"]),
        (AGENT, 3, "u d d d u", &["4 down", "5 up"]),
        (AGENT, 3, "u d p p p", &["4 down"]),
        (AGENT, 3, "u d d u d d u", &[]),
        (AGENT, 4, "u d - - - -", &["5 down"]),
        // A reload in the middle: with fewer at once, if it is known to have failed so often, or by the next failure.
        (ONE, 5, "+ - - - =3", &["5 down"]),
        (ONE, 20, "+ - - - - - =5 - -", &["8 down"]),
        (ONE, 5, "+ - - - - =7 - - - -", &["9 down"]),
        (ONE, 3, "+ - - - =7 - - - - + +", &["4 down", "11 up"]),
        // Another check knows nothing of what the one before it found.
        (ONE, 5, "+ - - - - ~ - - - - -", &["11 down"]),
        (ONE, 3, "+ - - - ~ - - - - + +", &["4 down", "11 up"]),
    ];
    for (checks, after_failures, steps, expected) in cases {
        let mut site = Site::new(configuration(checks, *after_failures));
        let mut found = Vec::new();
        for (number, step) in steps.split(' ').enumerate() {
            match step.strip_prefix('=') {
                Some(other) => site.load(configuration(checks, other.parse().unwrap())),
                None if step == "~" => site.load(configuration(OTHER, *after_failures)),
                None => site.run(step),
            }
            let told = site.told().into_iter();
            found.extend(told.map(|what| format!("{} {what}", number + 1)));
        }
        assert_eq!(found, *expected, "{after_failures} of {checks}: {steps}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a check finds: who is down is told to be, once, in the moment in which enough runs since the last one that
    /// found it up have failed; and only who was told to be down is told to be up, in the moment in which it is.
    #[test]
    fn who_is_told(
        results in proptest::collection::vec(prop_oneof![3 => Just('-'), 2 => Just('+')], 1..60),
        rise in 1usize..4,
        fall in 1usize..4,
        after_failures in 1usize..8,
    ) {
        let check = format!("{{type: connect, rise: {rise}, fall: {fall}}}");
        let mut site = Site::new(configuration(&check, u32::try_from(after_failures).unwrap()));
        let (mut is_up, mut is_told) = (None, false);
        let (mut failures, mut in_a_row) = (0, 0);
        let mut last = None;
        for result in results {
            in_a_row = if last == Some(result) { in_a_row + 1 } else { 1 };
            last = Some(result);
            let was_up = is_up;
            match result {
                '+' if is_up != Some(false) || in_a_row >= rise => {
                    (is_up, failures) = (Some(true), 0);
                }
                '+' => {}
                _ => {
                    failures += 1;
                    if is_up.is_none() || in_a_row >= fall {
                        is_up = Some(false);
                    }
                }
            }
            let mut expected = Vec::new();
            if is_up == Some(false) && failures >= after_failures && !is_told {
                expected.push("down");
                is_told = true;
            } else if is_up == Some(true) && was_up == Some(false) && is_told {
                expected.push("up");
                is_told = false;
            }
            site.run(&result.to_string());
            prop_assert_eq!(site.told(), expected);
        }
    }
}
