//! Tables of results in a row, and properties of any.

use proptest::prelude::*;

use super::*;
use crate::config::AgentProbe;

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

fn machine() -> Machine {
    Machine::new(Places {
        all: 512,
        down: 384,
    })
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

/// One check whose runs take 10 ms, and what it comes to after each result: `+` success, `-` failure, `0` no descriptors left. Gives the states, as
/// `?`, `U`, `D`, and the milliseconds from each run to the next.
fn run(timing: Timing, results: &str) -> (String, Vec<u64>) {
    let start = Instant::now();
    let mut machine = machine();
    machine.replace([subject(Probe::Connect, timing)], start, |_| 0);
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
    let cases: [(&str, &[u64]); 5] = [
        ("+++", &[1000, 1000]),
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

/// Silent backends hold their places until their time is over; those in service do not wait for them.
#[test]
fn who_is_down_leaves_places_for_the_others() {
    let start = Instant::now();
    let mut machine = Machine::new(Places { all: 4, down: 3 });
    let backend = |number: u8| Subject {
        server: [10, 0, 0, number].into(),
        ..subject(Probe::Connect, TIMING)
    };
    // Numbers 1 to 6 are down after the first run, 7 to 9 up.
    machine.replace((1..=9).map(backend), start, |_| 0);
    let is_down = |subject: &Subject| subject.server < IpAddr::from([10, 0, 0, 7]);
    let mut runs = 0;
    while let Some(due) = machine.take_due(start) {
        let result = if is_down(&due.subject) { bad() } else { good() };
        machine.finished(due.id, &result, start, start);
        runs += 1;
    }
    assert_eq!(runs, 9);

    // All are due, those that are down for longer: three of them get places, and one of the others the last.
    let late = at(start, 5000);
    let taken: Vec<Due> = std::iter::from_fn(|| machine.take_due(late)).collect();
    let down: Vec<bool> = taken.iter().map(|due| is_down(&due.subject)).collect();
    assert_eq!(down, [true, true, true, false]);
    let waited: Vec<u128> = taken.iter().map(|due| due.late.as_millis()).collect();
    assert_eq!(waited, [4600, 4600, 4600, 4000]);
    assert_eq!(machine.next_due(), None, "no place is left");

    // Its place is free again, but not for one that is down.
    machine.finished(taken[3].id, &good(), late, late);
    let next = machine.take_due(late).unwrap();
    assert!(!is_down(&next.subject));
    machine.finished(next.id, &good(), late, late);
    // One that is not wanted any more gives its place back all the same.
    machine.replace((7..=9).map(backend), late, |_| 0);
    for due in &taken[..3] {
        assert!(machine.finished(due.id, &bad(), late, late).is_none());
    }
    let taken = std::iter::from_fn(|| machine.take_due(at(start, 9000)));
    assert_eq!(taken.count(), 3);
}
