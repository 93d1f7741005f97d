//! What heartbeat notes, as what can be told. No I/O and no clock.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use heartbeat::machine::{Alert, Note, Role, Transition};

use super::event::{About, Condition, Event, Key};

/// What is told of one run of heartbeat.
#[derive(Debug, Default)]
pub struct Failover {
    /// What was told to be bad and not yet to be good.
    bad: HashSet<Key>,
}

impl Failover {
    /// What is to be told of a note, if anything is.
    pub fn event(&mut self, note: &Note, now: Instant) -> Option<Event> {
        let (name, about, condition, words) = match note {
            Note::Transition(change) => {
                let about = About::Role(role(change)?);
                let words = change.reason.to_string();
                (&change.group, about, Condition::Once, words)
            }
            Note::Alert(alert) => {
                let (name, about, condition) = of_alert(alert)?;
                (name, about, condition, alert.to_string())
            }
        };
        let event = Event {
            key: Key {
                name: Arc::from(name.as_str()),
                about,
            },
            condition,
            since: now,
            words,
            failures: None,
        };
        match condition {
            Condition::Bad => {
                self.bad.insert(event.key.clone());
            }
            Condition::Good if !self.bad.remove(&event.key) => return None,
            _ => {}
        }
        Some(event)
    }

    /// Heartbeat has ended, and nobody will hear of the end of what is bad.
    #[must_use]
    pub fn end(self, now: Instant) -> Vec<Event> {
        let keys = self.bad.into_iter();
        keys.map(|key| Event {
            key,
            condition: Condition::Gone,
            since: now,
            words: String::new(),
            failures: None,
        })
        .collect()
    }
}

/// The new role in one word. Who has neither part in a group, before nor after, does nothing that people would have to know:
/// it starts, or is not fit yet.
fn role(change: &Transition) -> Option<&'static str> {
    let takes_part = |role| matches!(role, Role::Primary | Role::Backup);
    if !takes_part(change.from) && !takes_part(change.to) {
        return None;
    }
    Some(match change.to {
        Role::Listening => "listening",
        Role::Backup => "backup",
        Role::Primary => "primary",
        Role::Unfit => "unfit",
        Role::Stopped => "stopped",
    })
}

/// What is to be told of a group whose heartbeat has ended by itself, if anything is: it told nothing of that.
#[must_use]
pub fn broke(group: &str, was: Role, now: Instant) -> Option<Event> {
    matches!(was, Role::Primary | Role::Backup).then(|| Event {
        key: Key {
            name: Arc::from(group),
            about: About::Role("stopped"),
        },
        condition: Condition::Once,
        since: now,
        words: "the heartbeat of this director has ended by itself".to_owned(),
        failures: None,
    })
}

fn of_alert(alert: &Alert) -> Option<(&String, About, Condition)> {
    Some(match alert {
        Alert::NodeDead(node) | Alert::NodeLeft(node) => (node, About::Node, Condition::Bad),
        Alert::NodeAlive(node) => (node, About::Node, Condition::Good),
        Alert::NodeLate(node) => (node, About::Late, Condition::Once),
        Alert::FenceFailed(node) => (node, About::Fencing, Condition::Once),
        Alert::Failing { group, .. } => (group, About::Failing, Condition::Once),
        Alert::LinkSilent { node, link } => (node, About::Link(link.clone()), Condition::Bad),
        Alert::LinkBack { node, link } => (node, About::Link(link.clone()), Condition::Good),
        // Short ones count as well: for both began a time in which their connections went astray.
        Alert::SplitBrain { group, .. } => (group, About::SplitBrain, Condition::Once),
        Alert::SplitBrainOver { group, .. } => (group, About::SplitBrainOver, Condition::Once),
        // In the log, and in what operators are answered.
        Alert::NodeRestarted(_)
        | Alert::OneWay(_)
        | Alert::Unproven(_)
        | Alert::OtherTimes { .. }
        | Alert::GroupUnknown { .. }
        | Alert::MayFailBack(_)
        | Alert::StoodStill(_)
        | Alert::TakeoverRefused { .. }
        | Alert::NobodyElse(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use heartbeat::machine::Reason;

    use super::*;
    use crate::config::AlertKind;

    fn change(from: Role, to: Role) -> Note {
        Note::Transition(Transition {
            at: Duration::ZERO,
            group: "web".to_owned(),
            from,
            to,
            reason: Reason::PrimaryDead("lb1".to_owned()),
        })
    }

    #[test]
    fn a_heartbeat_that_broke_is_told_where_it_had_a_part() {
        for (was, is_told) in [
            (Role::Listening, false),
            (Role::Backup, true),
            (Role::Primary, true),
            (Role::Unfit, false),
            // In order.
            (Role::Stopped, false),
        ] {
            let event = broke("web", was, Instant::now());
            let found = event.as_ref().map(|it| (it.group(), it.what(), it.kind()));
            let expected = is_told.then_some((Some("web"), "stopped", AlertKind::Role));
            assert_eq!(found, expected, "{was:?}");
        }
    }

    #[test]
    fn what_is_told() {
        let node = || "lb2".to_owned();
        let link = || (node(), "udp eth0".to_owned());
        let group = || "web".to_owned();
        // In this order: the note, and what is told of whom.
        let cases = [
            (change(Role::Listening, Role::Unfit), None),
            (change(Role::Unfit, Role::Listening), None),
            (
                change(Role::Listening, Role::Backup),
                Some(("web", "backup")),
            ),
            (
                change(Role::Backup, Role::Primary),
                Some(("web", "primary")),
            ),
            (change(Role::Primary, Role::Unfit), Some(("web", "unfit"))),
            (
                change(Role::Primary, Role::Listening),
                Some(("web", "listening")),
            ),
            (change(Role::Unfit, Role::Stopped), None),
            (
                change(Role::Backup, Role::Stopped),
                Some(("web", "stopped")),
            ),
            // Heard for the first time.
            (Note::Alert(Alert::NodeAlive(node())), None),
            (
                Note::Alert(Alert::NodeLate(node())),
                Some(("lb2", "node-late")),
            ),
            (
                Note::Alert(Alert::NodeDead(node())),
                Some(("lb2", "node-down")),
            ),
            (
                Note::Alert(Alert::NodeAlive(node())),
                Some(("lb2", "node-up")),
            ),
            (
                Note::Alert(Alert::NodeLeft(node())),
                Some(("lb2", "node-down")),
            ),
            (
                Note::Alert(Alert::FenceFailed(node())),
                Some(("lb2", "fencing-failed")),
            ),
            (
                Note::Alert(Alert::LinkSilent {
                    node: link().0,
                    link: link().1,
                }),
                Some(("lb2", "link-down")),
            ),
            (
                Note::Alert(Alert::LinkBack {
                    node: link().0,
                    link: link().1,
                }),
                Some(("lb2", "link-up")),
            ),
            (
                Note::Alert(Alert::LinkBack {
                    node: link().0,
                    link: link().1,
                }),
                None,
            ),
            (
                Note::Alert(Alert::SplitBrain {
                    group: group(),
                    other: node(),
                    stays: true,
                }),
                Some(("web", "split-brain")),
            ),
            (
                Note::Alert(Alert::SplitBrainOver {
                    group: group(),
                    other: node(),
                }),
                Some(("web", "split-brain-over")),
            ),
            (
                Note::Alert(Alert::Failing {
                    group: group(),
                    why: "cannot add 2001:db8::10/64".to_owned(),
                }),
                Some(("web", "failing")),
            ),
            (Note::Alert(Alert::NobodyElse(group())), None),
        ];
        let mut failover = Failover::default();
        let now = Instant::now();
        for (note, expected) in cases {
            let event = failover.event(&note, now);
            let found = event.as_ref().map(|it| (&*it.key.name, it.what()));
            assert_eq!(found, expected, "{note:?}");
            if let (Some(event), Note::Transition(_)) = (event, &note) {
                assert_eq!(event.words, "the primary lb1 is dead: silent on all links");
            }
        }
        // The node that left is still away.
        let gone = failover.end(now);
        assert_eq!(gone.len(), 1);
        assert_eq!(gone[0].key.about, About::Node);
        assert_eq!(gone[0].condition, Condition::Gone);
    }
}
