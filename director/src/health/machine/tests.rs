//! Tables of results in a row, and properties of any.

use proptest::prelude::*;

use super::*;
use crate::config::{AgentProbe, ExternalProbe, limits};
use crate::health::probe::Administrative;

const TIMING: Timing = Timing {
    interval_ms: 1000,
    timeout_ms: 800,
    rise: 2,
    fall: 3,
    retry_delay_ms: 100,
    down_interval_ms: 400,
    spread_ms: 1000,
};

fn subject(probe: Probe, timing: Timing) -> Subject {
    Subject {
        check: Arc::new(Check {
            probe,
            timing,
            address: None,
            port: None,
            source: None,
            interface: None,
            through: false,
        }),
        server: "10.0.0.1".parse().unwrap(),
        port: 80,
        through: None,
    }
}

/// As the engine has them.
const PLACES: Places = Places {
    all: limits::CHECKS_AT_ONCE,
    slow: limits::SLOW_CHECKS_AT_ONCE,
    programs: limits::PROGRAMS_AT_ONCE,
};

fn machine() -> Machine {
    Machine::new(PLACES)
}

fn good() -> Result<Good, Failure> {
    Ok(Good::new("fine"))
}

fn bad() -> Result<Good, Failure> {
    Err(Failure::new(FailureKind::Refused, "refused"))
}

fn at(start: Instant, time_ms: u64) -> Instant {
    start + Duration::from_millis(time_ms)
}

/// One check whose runs take 10 ms, and what it comes to after each result: `+` success, `-` failure, `0` no descriptors
/// left. `!` before them: its backend is in service from the beginning. Gives the states, as `?`, `U`, `D`, and the
/// milliseconds from each run to the next.
fn run(timing: Timing, results: &str) -> (String, Vec<u64>) {
    let start = Instant::now();
    let mut machine = machine();
    let checked = subject(Probe::Connect, timing);
    machine.replace([checked.clone()], start, |_| 0);
    let results = match results.strip_prefix('!') {
        Some(rest) => {
            machine.are_in_service(&[checked]);
            rest
        }
        None => results,
    };
    let (mut states, mut pauses) = (String::new(), Vec::new());
    let mut began: Option<Instant> = None;
    for result in results.chars() {
        let due = machine.next_due().unwrap();
        if let Some(began) = began {
            let pause: Duration = due - began;
            pauses.push(pause.as_millis() as u64);
        }
        began = Some(due);
        let id = machine.take_due(due).unwrap().id;
        assert!(machine.take_due(due).is_none(), "it runs once at a time");
        let result = match result {
            '+' => good(),
            '0' => Err(Failure::new(FailureKind::Shortage, "too many open files")),
            _ => bad(),
        };
        let before = machine.entries_after(0).next().unwrap().1.verdict.state;
        let change = machine.finished(id, &result, due, at(due, 10));
        let now = machine.entries_after(0).next().unwrap().1.verdict.clone();
        assert_eq!(
            change.is_some(),
            now.state != before,
            "told when it changes"
        );
        states.push(match now.state {
            State::Unchecked => '?',
            State::Up => 'U',
            State::Down => 'D',
        });
    }
    (states, pauses)
}

#[test]
fn rise_and_fall() {
    // (results, states)
    let cases = [
        ("+", "U"),
        ("-", "D"),
        ("+---", "UUUD"),
        ("+--+--+---", "UUUUUUUUUD"),
        ("-+", "DD"),
        ("-++", "DDU"),
        ("-+-+-++", "DDDDDDU"),
        ("+---++---", "UUUDDUUUD"),
        // What this machine lacks says nothing of the backend, for it or against it.
        ("0+000000", "?UUUUUUU"),
        ("+-0-0-", "UUUUUD"),
        ("0--0+0+", "?DDDDDU"),
        // Who is in service is not taken out by the first failure, nor by those before a success.
        ("!+---", "UUUD"),
        ("!---", "??D"),
        ("!--+---", "??UUUD"),
        ("!-0--+", "???DD"),
        ("!---++", "??DDU"),
    ];
    for (results, expected) in cases {
        assert_eq!(run(TIMING, results).0, expected, "{results}");
    }
    let at_once = Timing {
        rise: 1,
        fall: 1,
        ..TIMING
    };
    assert_eq!(run(at_once, "+-+-").0, "UDUD");
}

#[test]
fn when_the_next_run_is_due() {
    // (results, milliseconds from one start to the next)
    let cases: [(&str, &[u64]); 6] = [
        ("+++", &[1000, 1000]),
        ("!--+", &[110, 110]),
        // The retry delay counts from the failure.
        ("+--+", &[1000, 110, 110]),
        ("+---+", &[1000, 110, 110, 400]),
        ("--", &[400]),
        ("-+++", &[400, 400, 1000]),
    ];
    for (results, expected) in cases {
        assert_eq!(run(TIMING, results).1, expected, "{results}");
    }
    // A run that takes longer than the interval: the next one follows at once.
    let short = Timing {
        interval_ms: 5,
        ..TIMING
    };
    assert_eq!(run(short, "++").1, [10]);
}

#[test]
fn a_refusing_port_is_out_within_an_interval_and_the_fall_count() {
    let start = Instant::now();
    let mut machine = machine();
    machine.replace([subject(Probe::Connect, TIMING)], start, |_| 0);
    let id = machine.take_due(start).unwrap().id;
    machine.finished(id, &good(), start, start);
    // It dies right after a success.
    let mut now = start;
    let bound = start + Duration::from_millis(1000 + 2 * 100);
    loop {
        now = machine.next_due().unwrap().max(now);
        assert!(now <= bound);
        let id = machine.take_due(now).unwrap().id;
        if let Some((_, verdict)) = machine.finished(id, &bad(), now, now) {
            assert_eq!(verdict.state, State::Down);
            return;
        }
    }
}

#[test]
fn a_reload_keeps_what_is_known_and_forgets_the_rest() {
    let start = Instant::now();
    let kept = subject(Probe::Connect, TIMING);
    let other = subject(Probe::Ping, TIMING);
    let mut machine = machine();
    machine.replace([kept.clone(), other.clone(), kept.clone()], start, |_| 0);
    assert_eq!(machine.len(), 2, "the same check is one");
    let mut running = Vec::new();
    while let Some(Due { id, subject, .. }) = machine.take_due(start) {
        running.push((id, subject));
    }
    assert_eq!(running.len(), 2);
    let third = subject(Probe::Connect, Timing { fall: 9, ..TIMING });
    machine.replace([kept.clone(), third], start, |limit| limit / 2);
    assert_eq!(
        machine.next_due(),
        Some(at(start, 500)),
        "a new one is spread"
    );
    for (id, subject) in running {
        // One that nobody wants any more ends without a word.
        let change = machine.finished(id, &good(), start, at(start, 20));
        assert_eq!(change.is_some(), subject == kept);
    }
    machine.replace([kept], start, |_| 0);
    let entry = machine.entries_after(0).next().unwrap().1;
    assert_eq!((entry.verdict.state, entry.runs), (State::Up, 1));
    machine.replace([], start, |_| 0);
    assert!(machine.is_empty());
    assert_eq!(machine.next_due(), None);
}

/// An agent need not repeat what it has said: that holds where a reload has changed how it is asked, not where another one is.
#[test]
fn what_an_agent_said_holds_for_its_next_check() {
    let agent = |minimum_percent| {
        Probe::Agent(AgentProbe {
            send: None,
            minimum_percent,
            maximum_percent: 100,
            smoothing_percent: 100,
        })
    };
    let before = subject(agent(0), TIMING);
    let with = |change: &dyn Fn(&mut Check)| {
        let mut after = before.clone();
        change(Arc::make_mut(&mut after.check));
        after
    };
    let maint = Said {
        percent: Some(50),
        administrative: Some(Administrative::Maintenance),
        operational: Some(Operational::Down),
        ..Said::default()
    };
    let bounded = Said {
        percent: Some(60),
        ..maint
    };
    // (the check that takes its place, what holds after a report of nothing new)
    let nothing = Said::default();
    let cases = [
        (with(&|check| check.timing.interval_ms = 9), maint),
        (with(&|check| check.probe = agent(60)), bounded),
        (
            with(&|check| check.address = Some([10, 0, 0, 7].into())),
            nothing,
        ),
        (
            Subject {
                port: 81,
                ..before.clone()
            },
            nothing,
        ),
        (
            Subject {
                server: [10, 0, 0, 9].into(),
                ..before.clone()
            },
            nothing,
        ),
    ];
    let start = Instant::now();
    let report = |machine: &mut Machine, said| {
        let due = machine.next_due().unwrap();
        let id = machine.take_due(due).unwrap().id;
        let good = Good {
            words: "as it says".to_owned(),
            said: Some(said),
        };
        machine.finished(id, &Ok(good), due, due)
    };
    for (after, expected) in cases {
        // As long as others want it the old one goes on.
        for others in [None, Some(before.clone())] {
            let mut machine = machine();
            machine.replace([before.clone()], start, |_| 0);
            let (_, said) = report(&mut machine, maint).unwrap();
            machine.replace([after.clone()].into_iter().chain(others), start, |_| 0);
            let of = |machine: &Machine| {
                let mut all = machine.entries_after(0);
                let (_, entry) = all.find(|(_, entry)| entry.subject == after).unwrap();
                entry.verdict.clone()
            };
            assert_eq!(of(&machine).state, State::Unchecked, "{after:?}");
            while of(&machine).state == State::Unchecked {
                report(&mut machine, nothing);
            }
            let now = of(&machine);
            assert_eq!(now.said, Some(expected), "{after:?}");
            if expected.operational.is_some() {
                assert_eq!(now.said_words, said.said_words);
                assert_eq!(now.said_since, said.said_since);
            }
        }
    }
    let connect = subject(Probe::Connect, TIMING);
    let mut machine = machine();
    machine.replace([before.clone()], start, |_| 0);
    report(&mut machine, maint);
    machine.replace([connect], start, |_| 0);
    let (_, entry) = machine.entries_after(0).next().unwrap();
    assert_eq!(entry.verdict.said, None);
}

#[test]
fn an_agents_reports_are_smoothed_and_bounded() {
    let agent = |minimum_percent, maximum_percent, smoothing_percent| {
        Probe::Agent(AgentProbe {
            send: None,
            minimum_percent,
            maximum_percent,
            smoothing_percent,
        })
    };
    // (agent, reports, percentages)
    let cases: [(Probe, &[u32], &[u32]); 4] = [
        (agent(0, 100, 100), &[75, 20, 100], &[75, 20, 100]),
        (agent(0, 100, 50), &[100, 0, 0, 0], &[100, 50, 25, 12]),
        (agent(0, 100, 1), &[50, 51, 51, 0], &[50, 51, 51, 50]),
        (agent(10, 80, 100), &[0, 100, 50], &[10, 80, 50]),
    ];
    for (probe, reports, expected) in cases {
        let start = Instant::now();
        let mut machine = machine();
        machine.replace([subject(probe.clone(), TIMING)], start, |_| 0);
        let mut heard = Vec::new();
        for percent in reports {
            let due = machine.next_due().unwrap();
            let id = machine.take_due(due).unwrap().id;
            let said = Said {
                percent: Some(*percent),
                ..Said::default()
            };
            let good = Good {
                words: String::new(),
                said: Some(said),
            };
            machine.finished(id, &Ok(good), due, due);
            let verdict = &machine.entries_after(0).next().unwrap().1.verdict;
            heard.push(verdict.said.unwrap().percent.unwrap());
        }
        assert_eq!(heard, expected, "{probe:?}");
    }
}

proptest! {
    /// Whatever comes: a verdict turns only after enough results in a row that speak against it, and then at once.
    #[test]
    fn verdicts_turn_by_their_counts(
        rise in 1u32..5,
        fall in 1u32..5,
        results in proptest::collection::vec(any::<bool>(), 1..60),
    ) {
        let timing = Timing { rise, fall, ..TIMING };
        let text: String = results.iter().map(|good| if *good { '+' } else { '-' }).collect();
        let (states, _) = run(timing, &text);
        let mut state = results[0];
        let mut against = 0;
        let mut expected = vec![state];
        for good in &results[1..] {
            against = if *good == state { 0 } else { against + 1 };
            if against == if state { fall } else { rise } {
                state = *good;
                against = 0;
            }
            expected.push(state);
        }
        let found: Vec<bool> = states.chars().map(|state| state == 'U').collect();
        prop_assert_eq!(found, expected);
    }
}

/// Silent backends hold their places until their time is over; those that answer, or refuse, do not wait for them.
#[test]
fn the_slow_leave_places_for_the_quick() {
    let start = Instant::now();
    let mut machine = Machine::new(Places {
        all: 4,
        slow: 3,
        programs: 1,
    });
    let backend = |number: u8| Subject {
        server: [10, 0, 0, number].into(),
        ..subject(Probe::Connect, TIMING)
    };
    // Numbers 1 to 6 are silent, 7 to 9 up.
    machine.replace((1..=9).map(backend), start, |_| 0);
    let is_silent = |subject: &Subject| subject.server < IpAddr::from([10, 0, 0, 7]);
    let first: Vec<Due> = std::iter::from_fn(|| machine.take_due(start)).collect();
    assert_eq!(first.len(), 3, "who never ran may be silent");
    let mut runs = 0;
    let mut next = first;
    while let Some(due) = next.pop() {
        let silent = is_silent(&due.subject);
        let (result, ended) = if silent {
            (bad(), at(start, 800))
        } else {
            (good(), start)
        };
        machine.finished(due.id, &result, start, ended);
        next.extend(machine.take_due(start));
        runs += 1;
    }
    assert_eq!(runs, 9);

    // All are due, the silent ones for longer: three of them get places, and one of the others the last.
    let late = at(start, 5000);
    let taken: Vec<Due> = std::iter::from_fn(|| machine.take_due(late)).collect();
    let silent: Vec<bool> = taken.iter().map(|due| is_silent(&due.subject)).collect();
    assert_eq!(silent, [true, true, true, false]);
    let waited: Vec<u128> = taken.iter().map(|due| due.late.as_millis()).collect();
    assert_eq!(waited, [4200, 4200, 4200, 4000]);
    assert_eq!(machine.next_due(), None, "no place is left");

    // Its place is free again, but not for one that is silent.
    machine.finished(taken[3].id, &good(), late, late);
    let next = machine.take_due(late).unwrap();
    assert!(!is_silent(&next.subject));
    machine.finished(next.id, &good(), late, late);
    // One that is not wanted any more gives its place back all the same.
    machine.replace((7..=9).map(backend), late, |_| 0);
    for due in &taken[..3] {
        assert!(machine.finished(due.id, &bad(), late, late).is_none());
    }
    let taken = std::iter::from_fn(|| machine.take_due(at(start, 9000)));
    assert_eq!(taken.count(), 3);
}

/// What the next run of a check is expected to be, by what the last one was.
#[test]
fn classes_follow_the_last_run() {
    let shortage = Err(Failure::new(FailureKind::Shortage, "too many open files"));
    let external = Probe::External(ExternalProbe {
        command: "/bin/true".into(),
        arguments: Vec::new(),
    });
    // (probe, results and how long each run took, class)
    type Runs<'a> = &'a [(Result<Good, Failure>, u64)];
    let cases: [(&Probe, Runs<'_>, Class); 8] = [
        (&Probe::Connect, &[], Class::Slow),
        (&Probe::Connect, &[(good(), 400)], Class::Quick),
        (&Probe::Connect, &[(bad(), 1)], Class::Quick),
        (&Probe::Connect, &[(good(), 401)], Class::Slow),
        (&Probe::Connect, &[(good(), 1), (bad(), 800)], Class::Slow),
        (&Probe::Connect, &[(bad(), 800), (good(), 1)], Class::Quick),
        (&Probe::Connect, &[(bad(), 800), (shortage, 0)], Class::Slow),
        (&external, &[(good(), 1)], Class::Program),
    ];
    for (probe, runs, expected) in cases {
        let start = Instant::now();
        let mut machine = machine();
        machine.replace([subject(probe.clone(), TIMING)], start, |_| 0);
        for (result, took_ms) in runs {
            let due = machine.next_due().unwrap();
            let id = machine.take_due(due).unwrap().id;
            machine.finished(id, result, due, at(due, *took_ms));
        }
        let class = machine.entries_after(0).next().unwrap().1.class;
        assert_eq!(class, expected, "{runs:?}");
    }
}

/// Programs have places of their own, and leave the others theirs.
#[test]
fn programs_are_bounded() {
    let start = Instant::now();
    let mut machine = machine();
    let external = Probe::External(ExternalProbe {
        command: "/bin/true".into(),
        arguments: Vec::new(),
    });
    let backends = (1..=300).map(|port| Subject {
        port,
        ..subject(external.clone(), TIMING)
    });
    let silent = (1..=2000).map(|port| Subject {
        port,
        ..subject(Probe::Connect, TIMING)
    });
    machine.replace(backends.chain(silent), start, |_| 0);
    let taken = std::iter::from_fn(|| machine.take_due(start)).count();
    assert_eq!(machine.running(Class::Program), PLACES.programs);
    assert_eq!(machine.running(Class::Slow), PLACES.slow);
    assert_eq!(taken, PLACES.programs + PLACES.slow);
}

/// 2000 backends that say nothing, and one whose port refuses from a moment on: how long after that it is down, in
/// milliseconds. Time is simulated; `random` decides when each is checked first.
fn until_down_beside_silent_ones(were_up: bool, seed: u64) -> u64 {
    const SILENT_MS: u64 = 2000;
    let silent_timing = Timing {
        interval_ms: 5000,
        timeout_ms: 2000,
        retry_delay_ms: 1000,
        down_interval_ms: 5000,
        spread_ms: 5000,
        ..TIMING
    };
    let refusing = Subject {
        server: "10.0.1.1".parse().unwrap(),
        ..subject(Probe::Connect, TIMING)
    };
    let silent = (1..=2000).map(|port| Subject {
        port,
        ..subject(Probe::Connect, silent_timing)
    });
    let start = Instant::now();
    // Longer than all need for a first run.
    let turn_ms = 30_000 + seed % 5000;
    let turn = at(start, turn_ms);
    let mut machine = machine();
    let mut random = seed;
    machine.replace(silent.chain([refusing.clone()]), start, |limit| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((random >> 33) % u64::from(limit)) as u32
    });
    // (when it ends, its number, when it began, its result)
    let mut running: BTreeMap<(Instant, Id), (Instant, bool)> = BTreeMap::new();
    let mut now = start;
    loop {
        while let Some(due) = machine.take_due(now) {
            let is_silent = due.subject != refusing && (!were_up || now >= turn);
            let is_good = if due.subject == refusing {
                now < turn
            } else {
                !is_silent
            };
            let took_ms = if is_silent { SILENT_MS } else { 1 };
            running.insert((at(now, took_ms), due.id), (now, is_good));
        }
        let ends = running.first_key_value().map(|((ends, _), _)| *ends);
        now = [ends, machine.next_due()]
            .into_iter()
            .flatten()
            .min()
            .unwrap()
            .max(now);
        assert!(now < at(turn, 60_000), "never down");
        while let Some(first) = running.first_entry()
            && first.key().0 <= now
        {
            let ((_, id), (began, is_good)) = first.remove_entry();
            let result = if is_good { good() } else { bad() };
            if let Some((subject, verdict)) = machine.finished(id, &result, began, now)
                && subject == refusing
                && verdict.state == State::Down
            {
                return (now - turn).as_millis() as u64;
            }
        }
    }
}

#[test]
fn silent_backends_do_not_make_others_late() {
    // Its interval, two retries, and a few milliseconds in which answers come.
    let bound_ms = u64::from(TIMING.interval_ms + 2 * TIMING.retry_delay_ms) + 20;
    for seed in 0..20 {
        let took_ms = until_down_beside_silent_ones(false, seed * 977);
        assert!(
            took_ms <= bound_ms,
            "silent before, seed {seed}: {took_ms} ms"
        );
        // Those that fell silent hold places of quick ones for one timeout.
        let took_ms = until_down_beside_silent_ones(true, seed * 977);
        assert!(
            took_ms <= bound_ms + 2000,
            "silent at once, seed {seed}: {took_ms} ms"
        );
    }
}

/// A check that finds the same is told of again at the numbers of failures that somebody waits for, and at no others.
#[test]
fn failures_that_are_awaited() {
    // (numbers, results as of `run`, runs after which it is told and with how many failures)
    type Row = (&'static [u32], &'static str, &'static [(usize, u32)]);
    let cases: [Row; 9] = [
        (&[], "+--------", &[(1, 0), (4, 3)]),
        (&[1, 2, 3], "+--------", &[(1, 0), (4, 3)]),
        (&[5], "+--------", &[(1, 0), (4, 3), (6, 5)]),
        (&[4, 6], "+--------", &[(1, 0), (4, 3), (5, 4), (7, 6)]),
        (&[2, 4], "-----", &[(1, 1), (2, 2), (4, 4)]),
        // What this machine lacks is no failure, and a success that is not yet enough begins no new count.
        (&[5], "+---0-00-", &[(1, 0), (4, 3), (9, 5)]),
        (&[5], "+---+-+-+-", &[(1, 0), (4, 3), (8, 5)]),
        (
            &[5],
            "+---++---++",
            &[(1, 0), (4, 3), (6, 0), (9, 3), (11, 0)],
        ),
        (&[2], "+--+--+", &[(1, 0)]),
    ];
    for (numbers, results, expected) in cases {
        let start = Instant::now();
        let mut machine = machine();
        machine.replace([subject(Probe::Connect, TIMING)], start, |_| 0);
        machine.await_failures(numbers.iter().copied().collect());
        let mut told = Vec::new();
        for (run, result) in results.chars().enumerate() {
            let due = machine.next_due().unwrap();
            let id = machine.take_due(due).unwrap().id;
            let result = match result {
                '+' => good(),
                '0' => Err(Failure::new(FailureKind::Shortage, "too many open files")),
                _ => bad(),
            };
            if let Some((_, verdict)) = machine.finished(id, &result, due, due) {
                told.push((run + 1, verdict.failures));
            }
        }
        assert_eq!(told, expected, "{numbers:?}: {results}");
    }
}

/// When an agent said that its real server is down, and took it back; its other words change nothing of that.
#[test]
fn since_when_an_agent_says_down() {
    let start = Instant::now();
    let probe = Probe::Agent(AgentProbe {
        send: None,
        smoothing_percent: 100,
        minimum_percent: 0,
        maximum_percent: 100,
    });
    let mut machine = machine();
    machine.replace([subject(probe, TIMING)], start, |_| 0);
    // (the agent's words, operational word, runs before this one when it last changed, words of it)
    let cases = [
        ("50%", None, None, ""),
        ("up", Some(Operational::Up), None, "up"),
        (
            "down # disk",
            Some(Operational::Down),
            Some(2),
            "down # disk",
        ),
        ("60%", None, Some(2), "down # disk"),
        ("stopped", Some(Operational::Down), Some(2), "stopped"),
        ("up 60%", Some(Operational::Up), Some(5), "up 60%"),
        ("up 50%", Some(Operational::Up), Some(5), "up 50%"),
    ];
    let mut ended = Vec::new();
    for (words, operational, changed, expected) in cases {
        let due = machine.next_due().unwrap();
        let id = machine.take_due(due).unwrap().id;
        ended.push(at(due, 5));
        let said = Said {
            operational,
            percent: (words.contains('%')).then_some(50),
            ..Said::default()
        };
        let good = Good {
            words: words.to_owned(),
            said: Some(said),
        };
        machine.finished(id, &Ok(good), due, at(due, 5));
        let verdict = &machine.entries_after(0).next().unwrap().1.verdict;
        let since = changed.map(|run: usize| ended[run]);
        assert_eq!(
            (verdict.said_since, verdict.said_words.as_str()),
            (since, expected),
            "{words}"
        );
    }
}
