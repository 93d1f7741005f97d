//! What targets are told, by tables of events and times, and that nothing is lost.

use proptest::prelude::*;

use super::*;
use crate::config;
use crate::health::alert::event::About;

const MONDAY_NOON: Local = Local {
    weekday: 0,
    minute: 12 * 60,
};
const MONDAY_NIGHT: Local = Local {
    weekday: 0,
    minute: 2 * 60,
};

fn target(keys: &str) -> Arc<AlertTarget> {
    let text =
        format!("interfaces: [eth0]\nalerts: [{{name: pager, program: [/bin/page], {keys}}}]\n");
    let config =
        config::parse("test.yaml", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    Arc::clone(&config.alerts[0])
}

/// `a-` is the real server a that is down, `a-5` after five failures of its check; `a+` up, `a?` nobody's business, `a!` gone. Capitals: F fallback, Q quorum, S
/// service. `P.` and `B.`: this node is primary, backup.
fn event(word: &str, since: Instant) -> Event {
    let (word, failures) = match word.find(|it: char| it.is_ascii_digit()) {
        Some(place) => (&word[..place], word[place..].parse().unwrap()),
        None => (word, 1),
    };
    let mut letters = word.chars();
    let about = match letters.next().unwrap() {
        'F' => About::Fallback,
        'Q' => About::Quorum,
        'S' => About::Service,
        'P' => About::Role("primary"),
        'B' => About::Role("backup"),
        server => About::Server(server.to_string()),
    };
    let condition = match letters.next().unwrap() {
        '-' => Condition::Bad,
        '+' => Condition::Good,
        '?' => Condition::Hidden,
        '.' => Condition::Once,
        _ => Condition::Gone,
    };
    let is_of_a_check = matches!(about, About::Server(_)) && condition == Condition::Bad;
    Event {
        key: Key {
            name: Arc::from("web"),
            about,
        },
        condition,
        since,
        words: String::new(),
        failures: is_of_a_check.then_some(failures),
    }
}

/// As [`event`] is told it; a `*` behind it: again.
fn shown(entry: &Entry) -> String {
    let about = match &entry.event.key.about {
        About::Server(server) => server.as_str(),
        About::Fallback => "F",
        About::Quorum => "Q",
        About::Service => "S",
        About::Role("primary") => "P",
        About::Role("backup") => "B",
        other => panic!("{other:?}"),
    };
    if entry.event.condition == Condition::Once {
        return format!("{about}.");
    }
    let is_bad = entry.event.condition == Condition::Bad;
    let again = if entry.is_repeat { "*" } else { "" };
    format!("{about}{}{again}", if is_bad { "-" } else { "+" })
}

fn shown_message(message: &Message) -> String {
    let entries: Vec<String> = message.entries.iter().map(shown).collect();
    entries.join(" ")
}

/// Plays events at seconds, a tick each second, all messages delivered at once: what is told and when, as `2: a- b-`.
fn play(
    keys: &str,
    events: &[(u64, &str)],
    until_s: u64,
    local: impl Fn(u64) -> Local,
) -> Vec<String> {
    let start = Instant::now();
    let mut machine = Machine::default();
    machine.replace(&[target(keys)], start);
    let mut told = Vec::new();
    // What is down, and since when.
    let mut down: HashMap<Key, Instant> = HashMap::new();
    for second in 0..=until_s {
        let now = start + Duration::from_secs(second);
        for (at, words) in events {
            if *at == second {
                for word in words.split_whitespace() {
                    let mut event = event(word, now);
                    if event.condition == Condition::Bad {
                        event.since = *down.entry(event.key.clone()).or_insert(now);
                    } else {
                        down.remove(&event.key);
                    }
                    machine.take_in(event, now);
                }
            }
        }
        let due = machine.next_due(now, local(second));
        machine.collect(now, local(second));
        let jobs = machine.take_jobs(now);
        if !jobs.is_empty() {
            assert!(due.is_some_and(|due| due <= now), "woken too late: {due:?}");
        }
        for job in jobs {
            told.push(format!("{second}: {}", shown_message(&job.message)));
            assert_eq!(
                machine.finished(job.id, true, now),
                Some(Outcome::Delivered { tries: 1 })
            );
        }
    }
    told
}

#[test]
fn what_is_told_and_when() {
    type Row = (
        &'static str,
        &'static [(u64, &'static str)],
        &'static [&'static str],
    );
    let cases: &[Row] = &[
        ("group: 0s", &[(1, "a-"), (9, "a+")], &["1: a-", "9: a+"]),
        // Nobody is told of the end of what they never heard of.
        ("group: 0s", &[(1, "a+")], &[]),
        ("group: 0s", &[(1, "a-"), (3, "a-")], &["1: a-"]),
        // Bursts.
        (
            "group: 5s",
            &[(1, "a- b-"), (3, "c-"), (6, "d-"), (8, "e-")],
            &["6: a- b- c- d-", "13: e-"],
        ),
        // Undone before it was told.
        ("group: 5s", &[(1, "a- b-"), (3, "a+")], &["6: b-"]),
        ("group: 5s", &[(1, "a-"), (3, "a+")], &[]),
        (
            "group: 5s",
            &[(1, "a-"), (10, "a+"), (12, "a-"), (30, "a+")],
            &["6: a-", "35: a+"],
        ),
        // Only what lasts.
        (
            "group: 0s, after: 10s",
            &[(1, "a- b-"), (5, "a+"), (20, "b+")],
            &["11: b-", "20: b+"],
        ),
        (
            "group: 0s, after: 10s",
            &[(1, "a-"), (5, "a+"), (6, "a-")],
            &["16: a-"],
        ),
        // Only what has failed so often, whenever the last of these was.
        (
            "group: 0s, after_failures: 3",
            &[(1, "a-1 b-3"), (5, "a-3"), (9, "a+ b+")],
            &["1: b-", "5: a-", "9: a+ b+"],
        ),
        (
            "group: 0s, after_failures: 3",
            &[(1, "a-2"), (5, "a+"), (6, "a-1"), (8, "a-4")],
            &["8: a-"],
        ),
        // Both.
        (
            "group: 0s, after: 10s, after_failures: 3",
            &[(1, "a-1 b-1 c-3"), (4, "a-3"), (5, "c+"), (20, "b-3")],
            &["11: a-", "20: b-"],
        ),
        // A burst is that of the last failures, and a failure more puts nothing off.
        (
            "group: 5s, after_failures: 3",
            &[(1, "a-1 b-1 c-1"), (20, "a-3"), (23, "b-3"), (24, "a-9")],
            &["25: a- b-"],
        ),
        (
            "group: 5s, after_failures: 3",
            &[(1, "a-3"), (4, "a+")],
            &[],
        ),
        (
            "group: 0s, after_failures: 3, every: 10s",
            &[(1, "a-1"), (5, "a-3"), (9, "a-7"), (21, "a+")],
            &["5: a-", "15: a-*", "21: a+"],
        ),
        (
            "group: 0s, after_failures: 3, on: [up]",
            &[(1, "a-3 b-2"), (5, "a+ b+")],
            &["5: a+"],
        ),
        // An operator's meanwhile.
        (
            "group: 0s, after_failures: 3",
            &[(1, "a-1"), (2, "a?"), (3, "a-3"), (4, "a?"), (5, "a-4")],
            &["3: a-"],
        ),
        // Behind these there is no check.
        (
            "group: 0s, after_failures: 3",
            &[(1, "a-1 S- Q- F-"), (2, "P."), (3, "a+ S+")],
            &["1: F- Q- S-", "2: P.", "3: S+"],
        ),
        // Again.
        (
            "group: 0s, every: 10s",
            &[(1, "a-"), (25, "a+")],
            &["1: a-", "11: a-*", "21: a-*", "25: a+"],
        ),
        (
            "group: 0s, every: 10s",
            &[(1, "a-"), (15, "a?"), (35, "a-"), (40, "b-"), (47, "a! b+")],
            &["1: a-", "11: a-*", "40: b-", "45: a-*", "47: b+"],
        ),
        // What happens once is told each time, in order, whatever it undoes, and never again.
        (
            "group: 5s, after: 30s, every: 10s",
            &[(1, "P. B. P."), (3, "B."), (40, "P.")],
            &["6: P. B. P. B.", "45: P."],
        ),
        (
            "group: 0s",
            &[(1, "a- P. b-"), (2, "B. a+")],
            &["1: P. a- b-", "2: B. a+"],
        ),
        (
            "group: 0s, on: [down]",
            &[(1, "a- P."), (2, "B.")],
            &["1: a-"],
        ),
        (
            "group: 0s, on: [role]",
            &[(1, "a- P."), (2, "B.")],
            &["1: P.", "2: B."],
        ),
        // What is asked for.
        (
            "group: 0s, on: [down]",
            &[(1, "a- S-"), (5, "a+"), (9, "a-")],
            &["1: a-", "9: a-"],
        ),
        (
            "group: 0s, on: [up]",
            &[(1, "a- b+"), (5, "a+")],
            &["5: a+"],
        ),
        (
            "group: 0s, on: [service, fallback]",
            &[(1, "a- Q- F-"), (3, "S-"), (9, "a+ F+ S+ Q+")],
            &["1: F-", "3: S-", "9: F+ S+"],
        ),
        (
            "group: 0s, on: [quorum]",
            &[(1, "Q- S-"), (2, "Q+")],
            &["1: Q-", "2: Q+"],
        ),
        // Nobody's business.
        ("group: 5s", &[(1, "a-"), (2, "a?"), (20, "a+")], &[]),
        (
            "group: 5s",
            &[(1, "a-"), (2, "a?"), (20, "a-")],
            &["25: a-"],
        ),
        (
            "group: 0s",
            &[(1, "a-"), (2, "a?"), (20, "a+")],
            &["1: a-", "20: a+"],
        ),
        ("group: 5s", &[(1, "a- b-"), (2, "a!")], &["6: b-"]),
    ];
    for (keys, events, expected) in cases {
        let told = play(keys, events, 60, |_| MONDAY_NOON);
        assert_eq!(told, *expected, "{keys}: {events:?}");
    }
}

#[test]
fn what_lasts_into_a_period_is_told_when_it_begins() {
    let keys = "group: 2s, every: 20s, periods: [mon-fri 08:00-18:00]";
    let open_from_30 = |second| {
        if second < 30 {
            MONDAY_NIGHT
        } else {
            MONDAY_NOON
        }
    };
    let events = [(1, "a- b-"), (5, "b+"), (28, "c-"), (35, "a+")];
    assert_eq!(
        play(keys, &events, 60, open_from_30),
        ["30: a- c-", "37: a+", "52: c-*"]
    );
    // The end of what was told waits too.
    let closed_from_10 = |second| {
        if second < 10 {
            MONDAY_NOON
        } else {
            MONDAY_NIGHT
        }
    };
    assert_eq!(
        play(keys, &[(1, "a-"), (20, "a+")], 60, closed_from_10),
        ["3: a-"]
    );
    let closed_between = |second| match second {
        10..30 => MONDAY_NIGHT,
        _ => MONDAY_NOON,
    };
    assert_eq!(
        play(keys, &[(1, "a-"), (20, "a+")], 60, closed_between),
        ["3: a-", "30: a+"]
    );
}

/// What is not delivered is tried again after growing pauses, and other messages wait for it.
#[test]
fn tries() {
    let start = Instant::now();
    let mut machine = Machine::default();
    machine.replace(&[target("group: 0s")], start);
    machine.take_in(event("a-", start), start);
    machine.collect(start, MONDAY_NOON);
    let mut now = start;
    let mut pauses = Vec::new();
    loop {
        let job = machine.take_jobs(now).pop().expect("it is due");
        assert_eq!(shown_message(&job.message), "a-");
        assert!(machine.take_jobs(now).is_empty(), "it is on its way");
        machine.take_in(event("b-", now), now);
        machine.collect(now, MONDAY_NOON);
        match machine.finished(job.id, false, now) {
            Some(Outcome::Again { pause }) => {
                let before = now + pause - Duration::from_millis(1);
                assert!(machine.take_jobs(before).is_empty(), "too early");
                pauses.push(pause.as_secs());
                now += pause;
                assert_eq!(machine.next_due(now, MONDAY_NOON), Some(now));
            }
            Some(Outcome::GivenUp { tries, events }) => {
                assert_eq!(events, 1);
                assert_eq!(usize::try_from(tries), Ok(pauses.len() + 1));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let (growing, longest) = pauses.split_at(6);
    assert_eq!(growing, [1, 2, 4, 8, 16, 32]);
    assert!(longest.iter().all(|pause| *pause == 60), "{longest:?}");
    let tried = Duration::from_secs(pauses.iter().sum());
    assert!(
        tried <= PATIENCE && tried + LONGEST_PAUSE > PATIENCE,
        "{tried:?}"
    );
    let job = machine.take_jobs(now).pop().expect("the next one's turn");
    assert_eq!(shown_message(&job.message), "b-");
    let late = now + PATIENCE;
    assert!(
        matches!(
            machine.finished(job.id, false, late),
            Some(Outcome::GivenUp { tries: 1, .. })
        ),
        "each try took so long that the patience is over"
    );
}

#[test]
fn of_too_many_messages_the_oldest_is_dropped_and_the_next_says_so() {
    let start = Instant::now();
    let mut machine = Machine::default();
    machine.replace(&[target("group: 0s")], start);
    let mut dropped = 0;
    let mut blocked = None;
    // One is on its way; then so many more than wait.
    let extra = 5;
    for number in 0..1 + limits::ALERT_MESSAGES + extra {
        let word = if number % 2 == 0 { "a-" } else { "a+" };
        machine.take_in(event(word, start), start);
        for (_, events) in machine.collect(start, MONDAY_NOON) {
            dropped += events;
        }
        if let Some(job) = machine.take_jobs(start).pop() {
            assert!(blocked.replace(job).is_none(), "one at a time");
        }
    }
    assert_eq!(dropped, extra);
    let job = blocked.expect("the first is on its way");
    machine.finished(job.id, true, start);
    let next = machine.take_jobs(start).pop().expect("the next is due");
    assert_eq!(next.message.dropped, extra);
    machine.finished(next.id, true, start);
    let next = machine.take_jobs(start).pop().expect("the next is due");
    assert_eq!(next.message.dropped, 0, "it is said once");
}

#[test]
fn other_targets() {
    let start = Instant::now();
    let mut machine = Machine::default();
    machine.take_in(event("a-", start), start);
    machine.take_in(event("b-", start), start);
    machine.take_in(event("b+", start), start);
    machine.replace(&[target("group: 0s")], start);
    let told = |machine: &mut Machine| {
        machine.collect(start, MONDAY_NOON);
        let jobs = machine.take_jobs(start);
        let told: Vec<String> = jobs.iter().map(|job| shown_message(&job.message)).collect();
        for job in jobs {
            machine.finished(job.id, true, start);
        }
        told
    };
    assert_eq!(
        told(&mut machine),
        ["a-"],
        "a new one is told of what is bad"
    );
    machine.replace(&[target("group: 0s, every: 5s")], start);
    assert_eq!(told(&mut machine), [""; 0], "one of the same name goes on");
    machine.take_in(event("a+", start), start);
    assert_eq!(told(&mut machine), ["a+"]);
    machine.replace(&[], start);
    assert_eq!(machine.finished(1, true, start), None);
    assert_eq!(machine.next_due(start, MONDAY_NOON), None);
}

/// A trouble that waits when another configuration comes into force waits for what that one says.
#[test]
fn other_failures_after_a_reload() {
    // (failures waited for, how often it has failed, failures waited for then, how often it has failed then, what is told)
    let cases: [(u32, u32, u32, u32, &[&str]); 6] = [
        (5, 3, 3, 3, &["a-"]),
        (5, 3, 4, 3, &[]),
        (5, 3, 4, 4, &["a-"]),
        (5, 3, 5, 5, &["a-"]),
        // It was about to be told.
        (3, 3, 5, 3, &[]),
        (3, 3, 5, 5, &["a-"]),
    ];
    for (before, failures, then, failures_then, expected) in cases {
        let start = Instant::now();
        let later = start + Duration::from_secs(3);
        let end = start + Duration::from_secs(60);
        let wanted = |failures| [target(&format!("group: 5s, after_failures: {failures}"))];
        let mut machine = Machine::default();
        machine.replace(&wanted(before), start);
        machine.take_in(event(&format!("a-{failures}"), start), start);
        machine.collect(later, MONDAY_NOON);
        machine.replace(&wanted(then), later);
        machine.take_in(event(&format!("a-{failures_then}"), start), later);
        machine.collect(end, MONDAY_NOON);
        let jobs = machine.take_jobs(end);
        let told: Vec<String> = jobs.iter().map(|job| shown_message(&job.message)).collect();
        assert_eq!(
            told, expected,
            "{failures} of {before}, then {failures_then} of {then}"
        );
    }
}

/// However many recipients there are, a mail server gets some mails at once, and each of them has its turn.
#[test]
fn mails_take_turns() {
    let start = Instant::now();
    let mut now = start;
    let mailed = |name: &str, server: &str, port: u16| {
        let mail = format!("{{server: {server}, port: {port}, to: [ops@a.example]}}");
        let text =
            format!("interfaces: [eth0]\nalerts: [{{name: {name}, group: 0s, mail: {mail}}}]\n");
        let config = config::parse("test.yaml", &text);
        Arc::clone(
            &config
                .unwrap_or_else(|error| panic!("{error}\n{text}"))
                .alerts[0],
        )
    };
    let recipients = limits::MAILS_AT_ONCE * 2 + 1;
    let mut targets: Vec<_> = (0..recipients)
        .map(|number| mailed(&format!("ops-{number}"), "mail", 25))
        .collect();
    targets.extend([
        mailed("submitted", "mail", 587),
        mailed("elsewhere", "other", 25),
        target("group: 0s"),
    ]);
    let names =
        |jobs: &[Job]| -> Vec<String> { jobs.iter().map(|job| job.target.name.clone()).collect() };
    let mut machine = Machine::default();
    machine.replace(&targets, start);
    machine.take_in(event("a-", start), start);
    machine.collect(start, MONDAY_NOON);
    let mut under_way = machine.take_jobs(start);
    let expected: Vec<String> = (0..limits::MAILS_AT_ONCE)
        .map(|number| format!("ops-{number}"))
        .chain(["submitted", "elsewhere", "pager"].map(str::to_owned))
        .collect();
    assert_eq!(names(&under_way), expected);
    for other in under_way.split_off(limits::MAILS_AT_ONCE) {
        machine.finished(other.id, true, now);
    }
    // Those that must wait are not why the thread would come again at once.
    assert_eq!(machine.next_due(now, MONDAY_NOON), None);
    // The first ones have more to tell by the time the others have their turn, and one cannot be delivered.
    machine.take_in(event("a+", start), start);
    machine.collect(start, MONDAY_NOON);
    for other in machine.take_jobs(now) {
        assert!(!other.target.name.starts_with("ops"), "{other:?}");
        machine.finished(other.id, true, now);
    }
    let mut told: HashMap<String, Vec<String>> = HashMap::new();
    let mut order = Vec::new();
    while !under_way.is_empty() {
        now += Duration::from_secs(10);
        let job = under_way.remove(0);
        let fails = job.target.name == "ops-0" && !order.contains(&"ops-0".to_owned());
        order.push(job.target.name.clone());
        if !fails {
            let messages = told.entry(job.target.name.clone()).or_default();
            messages.push(shown_message(&job.message));
        }
        machine.finished(job.id, !fails, now);
        under_way.extend(machine.take_jobs(now));
        assert!(under_way.len() <= limits::MAILS_AT_ONCE, "{order:?}");
    }
    let mut first: Vec<String> = order[..recipients].to_vec();
    first.sort();
    first.dedup();
    assert_eq!(
        first.len(),
        recipients,
        "nobody twice before all: {order:?}"
    );
    assert_eq!(told.len(), recipients);
    assert!(
        told.values().all(|messages| messages == &["a-", "a+"]),
        "{told:?}"
    );
}

/// Mails on their way count, though who they are for is not in the configuration any more.
#[test]
fn mails_to_those_who_are_gone_count() {
    let start = Instant::now();
    let mailed = |to: String| {
        let text = format!(
            "interfaces: [eth0]\nalerts: [{{name: mail, group: 0s, mail: {{server: mail, to: [{to}]}}}}]\n"
        );
        let config = config::parse("test.yaml", &text);
        Arc::clone(
            &config
                .unwrap_or_else(|error| panic!("{error}\n{text}"))
                .alerts[0],
        )
    };
    let all = |domain: &str| -> Vec<_> {
        (0..limits::MAILS_AT_ONCE)
            .map(|number| mailed(format!("ops-{number}@{domain}")))
            .collect()
    };
    let mut machine = Machine::default();
    machine.take_in(event("a-", start), start);
    machine.replace(&all("a.example"), start);
    machine.collect(start, MONDAY_NOON);
    let gone = machine.take_jobs(start);
    assert_eq!(gone.len(), limits::MAILS_AT_ONCE);
    machine.replace(&all("b.example"), start);
    machine.collect(start, MONDAY_NOON);
    assert_eq!(machine.take_jobs(start).len(), 0);
    for job in gone {
        assert_eq!(machine.finished(job.id, true, start), None);
        assert_eq!(machine.take_jobs(start).len(), 1);
    }
}

#[test]
fn another_recipient_is_another_target() {
    let start = Instant::now();
    let mailed = |to: &str| {
        let text = format!(
            "interfaces: [eth0]\nalerts: [{{name: mail, group: 0s, mail: {{server: mail, to: [{to}]}}}}]\n"
        );
        let config = config::parse("test.yaml", &text);
        Arc::clone(
            &config
                .unwrap_or_else(|error| panic!("{error}\n{text}"))
                .alerts[0],
        )
    };
    let mut machine = Machine::default();
    machine.take_in(event("a-", start), start);
    // (who there is, who is told)
    let cases: [(&[&str], &[&str]); 4] = [
        (&["ops@a.example"], &["ops@a.example"]),
        (&["ops@a.example", "night@a.example"], &["night@a.example"]),
        (&["night@a.example", "ops@a.example"], &[]),
        (&["new@a.example"], &["new@a.example"]),
    ];
    for (targets, expected) in cases {
        let targets: Vec<_> = targets.iter().copied().map(mailed).collect();
        machine.replace(&targets, start);
        machine.collect(start, MONDAY_NOON);
        let jobs = machine.take_jobs(start);
        let told: Vec<_> = jobs.iter().map(|job| Arc::clone(&job.target)).collect();
        let expected: Vec<_> = expected.iter().copied().map(mailed).collect();
        assert_eq!(told, expected);
        for job in jobs {
            machine.finished(job.id, true, start);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Event(u8, char),
    Pass(u64),
    Tries(bool),
    Period(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let conditions = prop_oneof![4 => Just('-'), 4 => Just('+'), 1 => Just('?'), 1 => Just('!')];
    prop_oneof![
        60 => (0_u8..5, conditions).prop_map(|(server, condition)| Step::Event(server, condition)),
        40 => (0_u64..20).prop_map(Step::Pass),
        20 => any::<bool>().prop_map(Step::Tries),
        10 => any::<bool>().prop_map(Step::Period),
        // Longer than a message is tried.
        1 => Just(Step::Pass(PATIENCE.as_secs() + 100)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, once all is quiet the target has been told how things are, unless the message was given up or
    /// dropped; every event that left is accounted for; and nothing is told twice in a row.
    #[test]
    fn nothing_is_lost(
        steps in proptest::collection::vec(step(), 1..100),
        after in 0..10,
        group in 0..10,
    ) {
        let keys = format!("after: {after}s, group: {group}s, periods: [mon-fri 08:00-18:00]");
        let start = Instant::now();
        let mut machine = Machine::default();
        machine.replace(&[target(&keys)], start);
        let (mut now, mut local, mut succeeds) = (start, MONDAY_NOON, true);
        let mut truth: HashMap<String, char> = HashMap::new();
        // What was told last of each. Not known where a message was given up, or arrived when its subject was gone.
        let mut known: HashMap<String, char> = HashMap::new();
        let mut lost = 0;
        let mut is_lost = std::collections::HashSet::new();
        let mut is_late = std::collections::HashSet::new();
        let end = [Step::Period(true), Step::Tries(true), Step::Pass(100), Step::Pass(100), Step::Pass(100)];
        for step in steps.into_iter().chain(end) {
            let mut passed = 0;
            match step {
                Step::Event(server, condition) => {
                    let name = char::from(b'a' + server).to_string();
                    // As the observer tells: good only of what was bad, gone is well and forgotten.
                    if condition == '!' {
                        // A message about it that is on its way arrives late.
                        let target = &machine.targets[0];
                        if target.sending.is_some() || !target.queue.is_empty() {
                            is_late.insert(name.clone());
                        }
                        truth.remove(&name);
                        known.remove(&name);
                    } else if condition != '+' || truth.contains_key(&name) {
                        truth.insert(name.clone(), condition);
                    }
                    let event = event(&format!("{name}{condition}"), now);
                    machine.take_in(event, now);
                }
                Step::Pass(seconds) => passed = seconds,
                Step::Tries(it) => succeeds = it,
                Step::Period(true) => local = MONDAY_NOON,
                Step::Period(false) => local = MONDAY_NIGHT,
            }
            for _ in 0..=passed {
                lost += machine.collect(now, local).iter().map(|(_, events)| events).sum::<usize>();
                while let Some(job) = machine.take_jobs(now).pop() {
                    match machine.finished(job.id, succeeds, now) {
                        Some(Outcome::Delivered { .. }) => for entry in &job.message.entries {
                            let told = shown(entry);
                            let (name, condition) = told.split_at(1);
                            let condition = condition.chars().next().unwrap();
                            let before = known.insert(name.to_owned(), condition);
                            prop_assert!(
                                before != Some(condition) || is_lost.contains(name) || is_late.contains(name),
                                "{told} a second time"
                            );
                        },
                        Some(Outcome::GivenUp { events, .. }) => {
                            prop_assert_eq!(events, job.message.entries.len());
                            for entry in &job.message.entries {
                                is_lost.insert(shown(entry)[..1].to_owned());
                            }
                        }
                        Some(Outcome::Again { .. }) => break,
                        None => prop_assert!(false, "an unknown target"),
                    }
                }
                now += Duration::from_secs(1);
            }
        }
        prop_assert!(lost == 0, "there are not that many messages");
        for (name, condition) in truth {
            // Nobody's business: what was told before stands.
            if condition != '?' && !is_lost.contains(&name) && !is_late.contains(&name) {
                prop_assert_eq!(known.get(&name).copied().unwrap_or('+'), condition, "{}", name);
            }
        }
    }
}
