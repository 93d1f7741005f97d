//! An alert in words, and as JSON. No I/O and no clock.

use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value as Json, json};

use super::machine::{Entry, Message};
use crate::config::limits;

/// What times are shown by: one moment by both clocks, and the time zone.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    pub(super) now: Instant,
    pub(super) wall: SystemTime,
    pub(super) zone: TimeZone,
}

impl Clock {
    /// A moment as people and programs read it (RFC 3339): of the system's time zone, with the difference to UTC.
    pub(super) fn shown(&self, moment: Instant) -> String {
        let wall = match self.now.checked_duration_since(moment) {
            Some(passed) => self.wall.checked_sub(passed),
            None => self.wall.checked_add(moment.duration_since(self.now)),
        };
        let Some(time) = wall.and_then(|wall| Timestamp::try_from(wall).ok()) else {
            return "an unknown time".to_owned();
        };
        let offset = self.zone.to_offset(time);
        let whole = Timestamp::from_second(time.as_second()).unwrap_or(time);
        whole.display_with_offset(offset).to_string()
    }
}

/// An alert as it is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    /// The director's name.
    pub(super) instance: String,
    /// In one short line.
    pub(super) subject: String,
    /// In full.
    pub(super) text: String,
    /// For programs.
    pub(super) json: String,
    /// Events in it.
    pub(super) events: usize,
    /// Names and values of the one event, where it is one.
    pub(super) single: Vec<(&'static str, String)>,
}

/// An alert for people and programs.
pub(super) fn letter(message: &Message, instance: &str, clock: &Clock) -> Letter {
    let shown = message.entries.iter().take(limits::ALERT_LINES);
    let more = message.entries.len().saturating_sub(limits::ALERT_LINES);
    let subject = format!("director {instance}: {}", headline(message));
    let mut lines: Vec<String> = shown.clone().map(|entry| line(entry, clock)).collect();
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    if message.dropped > 0 {
        lines.push(format!(
            "{} events before these were not told: too many messages waited",
            message.dropped
        ));
    }
    let text = lines.join("\n") + "\n";
    let events: Vec<Json> = shown.map(|entry| event(entry, clock)).collect();
    let json = json!({
        "instance": instance,
        "subject": subject,
        "text": text,
        "events": events,
        "more": more,
        "dropped": message.dropped,
    });
    let single = match message.entries.as_slice() {
        [Entry { event, .. }] => vec![
            ("DIRECTOR_WHAT", event.what().to_owned()),
            ("DIRECTOR_SERVICE", event.service().unwrap_or("").to_owned()),
            ("DIRECTOR_SERVER", event.server().unwrap_or("").to_owned()),
            ("DIRECTOR_GROUP", event.group().unwrap_or("").to_owned()),
            ("DIRECTOR_NODE", event.node().unwrap_or("").to_owned()),
            ("DIRECTOR_SINCE", clock.shown(event.since)),
            ("DIRECTOR_WORDS", event.words.clone()),
        ],
        _ => Vec::new(),
    };
    Letter {
        instance: instance.to_owned(),
        subject,
        text,
        json: json.to_string(),
        events: message.entries.len(),
        single,
    }
}

/// What happened, in few words.
fn headline(message: &Message) -> String {
    if let [entry] = message.entries.as_slice() {
        return short(entry);
    }
    let mut counts: Vec<(String, usize)> = Vec::new();
    for entry in &message.entries {
        let what = what(entry);
        match counts.iter_mut().find(|(known, _)| *known == what) {
            Some((_, count)) => *count += 1,
            None => counts.push((what, 1)),
        }
    }
    let counts: Vec<String> = counts
        .into_iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    counts.join(", ")
}

fn what(entry: &Entry) -> String {
    let still = if entry.is_repeat { "still " } else { "" };
    format!("{still}{}", entry.event.what())
}

fn short(entry: &Entry) -> String {
    let event = &entry.event;
    let group = event.group().map_or("", |_| "group ");
    let server = event.server().map(|server| format!(" {server}"));
    format!(
        "{group}{}{} {}",
        event.key.name,
        server.unwrap_or_default(),
        what(entry)
    )
}

fn line(entry: &Entry, clock: &Clock) -> String {
    let since = clock.shown(entry.event.since);
    format!("{} since {since}: {}", short(entry), entry.event.words)
}

fn event(entry: &Entry, clock: &Clock) -> Json {
    let event = &entry.event;
    let lasted = clock.now.saturating_duration_since(event.since);
    json!({
        "service": event.service(),
        "server": event.server(),
        "group": event.group(),
        "node": event.node(),
        "what": event.what(),
        "since": clock.shown(event.since),
        "for_s": Duration::as_secs(&lasted),
        "repeat": entry.is_repeat,
        "words": event.words,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::health::alert::event::{About, Condition, Event, Key};

    fn entry(server: Option<&str>, condition: Condition, since: Instant) -> Entry {
        let about = server.map_or(About::Service, |it| About::Server(it.to_owned()));
        Entry {
            event: Event {
                key: Key {
                    name: Arc::from("web"),
                    about,
                },
                condition,
                since,
                words: "connecting: Connection refused".to_owned(),
                failures: None,
            },
            is_repeat: false,
        }
    }

    /// 2026-11-26 17:00:00 UTC, in a zone an hour before it.
    fn clock() -> Clock {
        Clock {
            now: Instant::now() + Duration::from_secs(1000),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_712_400),
            zone: TimeZone::fixed(jiff::tz::offset(1)),
        }
    }

    #[test]
    fn one_event() {
        let clock = clock();
        let down = entry(
            Some("10.0.0.1:80"),
            Condition::Bad,
            clock.now - Duration::from_secs(90),
        );
        let message = Message {
            entries: vec![down.clone()],
            dropped: 0,
        };
        let found = letter(&message, "edge", &clock);
        assert_eq!(found.subject, "director edge: web 10.0.0.1:80 down");
        assert_eq!(
            found.text,
            "web 10.0.0.1:80 down since 2026-11-26T17:58:30+01:00: connecting: Connection refused\n"
        );
        let json: Json = serde_json::from_str(&found.json).unwrap();
        assert_eq!(json["events"][0]["what"], "down");
        assert_eq!(json["events"][0]["server"], "10.0.0.1:80");
        assert_eq!(json["events"][0]["for_s"], 90);
        assert_eq!(json["events"][0]["words"], "connecting: Connection refused");
        let what = found
            .single
            .iter()
            .find(|(name, _)| *name == "DIRECTOR_WHAT");
        assert_eq!(what.map(|(_, value)| value.as_str()), Some("down"));

        let again = Entry {
            is_repeat: true,
            ..down
        };
        let message = Message {
            entries: vec![again],
            dropped: 7,
        };
        let found = letter(&message, "edge", &clock);
        assert_eq!(found.subject, "director edge: web 10.0.0.1:80 still down");
        assert!(found.text.contains("7 events before these"), "{found:?}");
    }

    /// Of what, what its first line says, and which of service, group and node are named.
    #[test]
    fn of_heartbeat() {
        let clock = clock();
        let cases = [
            (
                About::Role("primary"),
                "group web primary",
                [false, true, false],
            ),
            (
                About::SplitBrain,
                "group web split-brain",
                [false, true, false],
            ),
            (About::Node, "web node-up", [false, false, true]),
            (About::Late, "web node-late", [false, false, true]),
            (
                About::Link("udp eth0".to_owned()),
                "web link-up",
                [false, false, true],
            ),
            (About::Service, "web service-up", [true, false, false]),
        ];
        for (about, headline, named) in cases {
            let mut entry = entry(None, Condition::Once, clock.now);
            entry.event.key.about = about;
            let message = Message {
                entries: vec![entry],
                dropped: 0,
            };
            let found = letter(&message, "edge", &clock);
            assert_eq!(found.subject, format!("director edge: {headline}"));
            let json: Json = serde_json::from_str(&found.json).unwrap();
            let names = ["service", "group", "node"];
            let found_in_json = names.map(|name| json["events"][0][name] == "web");
            assert_eq!(found_in_json, named, "{headline}");
            let variables = ["DIRECTOR_SERVICE", "DIRECTOR_GROUP", "DIRECTOR_NODE"];
            let is_set = |variable: &str| {
                let mut single = found.single.iter();
                single.any(|(name, value)| *name == variable && value == "web")
            };
            assert_eq!(variables.map(is_set), named, "{headline}");
        }
    }

    #[test]
    fn many_events_are_counted() {
        let clock = clock();
        let count = limits::ALERT_LINES + 3;
        let mut entries: Vec<Entry> = (1..count)
            .map(|n| entry(Some(&format!("10.0.0.{n}")), Condition::Bad, clock.now))
            .collect();
        entries.push(entry(None, Condition::Bad, clock.now));
        let found = letter(
            &Message {
                entries,
                dropped: 0,
            },
            "edge",
            &clock,
        );
        let expected = format!("director edge: {} down, 1 service-down", count - 1);
        assert_eq!(found.subject, expected);
        assert_eq!(found.text.lines().count(), limits::ALERT_LINES + 1);
        assert!(found.text.ends_with("and 3 more\n"), "{}", found.text);
        assert!(found.single.is_empty());
    }
}
