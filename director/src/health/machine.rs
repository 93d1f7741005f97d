//! When each check runs next, and what its results make of a backend: rise and fall. No I/O and no clock: time is handed
//! in.
//!
//! ```text
//!                success                  `fall` failures in a row
//!  Unchecked ──────────────► Up ─────────────────────────────────► Down
//!      │ failure                ◄───────────────────────────────── ▲
//!      └───────────────────────── `rise` successes in a row ───────┘
//! ```
//!
//! The first result decides alone: until then nothing is known, and nobody would be helped by waiting for more. Of a real
//! server that is in service already, from before a reload or another director, it takes `fall` failures: one lost packet
//! must not take out who has answered all along.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::probe::{Failure, FailureKind, Good, Operational, Said};
use super::through::Way;
use crate::config::{Check, Probe, Timing};

/// Results of each check that are kept for `director checks`.
pub const HISTORY: usize = 16;

/// What is checked: a check and the backend that it is sent to. Where several services want the same, it is one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The check.
    pub check: Arc<Check>,
    /// Address of the real server.
    pub server: IpAddr,
    /// Port that is asked; 0: the check has none.
    pub port: u16,
    /// The way of clients' packets, if it goes that way.
    pub through: Option<Way>,
}

/// What is known of a backend by one check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// Nothing yet.
    #[default]
    Unchecked,
    /// It answers.
    Up,
    /// It does not.
    Down,
}

/// One run of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// When it began.
    pub started: Instant,
    /// How long it took.
    pub took: Duration,
    /// Whether it succeeded.
    pub is_good: bool,
    /// The kind of failure.
    pub kind: Option<FailureKind>,
    /// In words.
    pub words: String,
}

/// What the results of a check say of its backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Up or down.
    pub state: State,
    /// Since when; none while unchecked.
    pub since: Option<Instant>,
    /// The words of the result that decided it.
    pub words: String,
    /// What an agent reported last, its percentage smoothed and bounded.
    pub said: Option<Said>,
    /// When the agent last began to say that its real server is down, or took that back; none if it never did.
    pub said_since: Option<Instant>,
    /// The agent's words when it last said `up` or `down`.
    pub said_words: String,
    /// Runs in a row that found it down: they failed, or its agent went on saying so. A success that is not yet enough to
    /// bring it up is not counted and does not begin the count anew: who answers now and then is down all the same.
    pub failures: u32,
}

impl Verdict {
    /// Whether its agent says that it is down.
    #[must_use]
    pub fn is_said_down(&self) -> bool {
        self.said.and_then(|said| said.operational) == Some(Operational::Down)
    }

    /// Whether it is down, by the check or by its agent's word.
    fn is_down(&self) -> bool {
        self.state == State::Down || self.is_said_down()
    }
}

/// Number of a check while it is known.
pub type Id = u64;

/// A check that is known.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What is checked.
    pub subject: Subject,
    /// What is known.
    pub verdict: Verdict,
    /// For how long it can be expected to hold a place.
    pub class: Class,
    /// Whether its backend is in service although nothing is known of it yet.
    pub is_in_service: bool,
    /// Results in a row that speak against the verdict.
    pub against: u32,
    /// When it runs next; none while it runs.
    pub due: Option<Instant>,
    /// Its last results, the newest first.
    pub history: VecDeque<Run>,
    /// Runs so far.
    pub runs: u64,
    /// Failed ones among them.
    pub failures: u64,
    /// The failures in a row that its verdict was last told with.
    told_failures: u32,
}

/// How long a check holds its place, by what is known of it. Silence holds one until the time is over, whatever the verdict:
/// a backend may fall silent while it is up, and one that refuses is quick although it is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Its last run ended within half of its timeout, with whatever result.
    Quick,
    /// Its last run took longer, or it never ran.
    Slow,
    /// It runs a program: a process, not only a socket.
    Program,
}

/// How many checks may run at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// All of them.
    pub all: usize,
    /// Those that are [`Class::Slow`]: however many backends are silent, places are left for those that answer.
    pub slow: usize,
    /// Those that are [`Class::Program`].
    pub programs: usize,
}

impl Places {
    fn of(&self, class: Class) -> usize {
        match class {
            Class::Quick => self.all,
            Class::Slow => self.slow,
            Class::Program => self.programs,
        }
    }
}

/// A check that runs now.
#[derive(Clone, Debug)]
pub struct Due {
    /// Its number.
    pub id: Id,
    /// What is checked.
    pub subject: Subject,
    /// For how long it has been due: it waited for a place.
    pub late: Duration,
}

/// All checks.
#[derive(Debug)]
pub struct Machine {
    entries: BTreeMap<Id, Entry>,
    ids: HashMap<Subject, Id>,
    /// Those that wait, by class.
    waiting: [BTreeSet<(Instant, Id)>; 3],
    places: Places,
    /// Those that run, and their class when they began.
    running: HashMap<Id, Class>,
    /// How many of each class run.
    running_of: [usize; 3],
    next_id: Id,
    /// Numbers of failures in a row at which somebody wants to hear of a backend that is down, once more.
    awaited: BTreeSet<u32>,
}

impl Machine {
    /// No checks yet.
    #[must_use]
    pub fn new(places: Places) -> Self {
        Self {
            entries: BTreeMap::new(),
            ids: HashMap::new(),
            waiting: Default::default(),
            places,
            running: HashMap::new(),
            running_of: [0; 3],
            next_id: 0,
            awaited: BTreeSet::new(),
        }
    }

    /// Makes exactly these the checks that run. One that was known goes on as it was; a new one runs first after a part of
    /// its spread that `random` gives, from 0 up to what it is asked for. What an agent has said stays said where its check is
    /// another one.
    pub fn replace(
        &mut self,
        wanted: impl IntoIterator<Item = Subject>,
        now: Instant,
        mut random: impl FnMut(u32) -> u32,
    ) {
        let heard = self.heard();
        let mut kept = HashMap::with_capacity(self.ids.len());
        for subject in wanted {
            if kept.contains_key(&subject) {
                continue;
            }
            if let Some(id) = self.ids.remove(&subject) {
                kept.insert(subject, id);
                continue;
            }
            self.next_id += 1;
            let id = self.next_id;
            let spread_ms = random(subject.check.timing.spread_ms);
            let due = now + Duration::from_millis(u64::from(spread_ms));
            let class = match subject.check.probe {
                Probe::External(_) => Class::Program,
                _ => Class::Slow,
            };
            self.waiting[class as usize].insert((due, id));
            let verdict = agent(&subject).and_then(|agent| heard.get(&agent).cloned());
            self.entries.insert(
                id,
                Entry {
                    subject: subject.clone(),
                    verdict: verdict.unwrap_or_default(),
                    class,
                    is_in_service: false,
                    against: 0,
                    due: Some(due),
                    history: VecDeque::new(),
                    runs: 0,
                    failures: 0,
                    told_failures: 0,
                },
            );
            kept.insert(subject, id);
        }
        for id in self.ids.values() {
            if let Some(entry) = self.entries.remove(id)
                && let Some(due) = entry.due
            {
                self.waiting[entry.class as usize].remove(&(due, *id));
            }
        }
        self.ids = kept;
    }

    /// What agents have said, each as a verdict that says nothing else.
    fn heard(&self) -> HashMap<Agent, Verdict> {
        let heard = self.entries.values().filter_map(|entry| {
            let Verdict {
                said,
                said_since,
                said_words,
                ..
            } = &entry.verdict;
            let verdict = Verdict {
                said: Some((*said)?),
                said_since: *said_since,
                said_words: said_words.clone(),
                ..Verdict::default()
            };
            Some((agent(&entry.subject)?, verdict))
        });
        heard.collect()
    }

    /// Backends of these are in service although the checks have not run yet.
    pub fn are_in_service(&mut self, subjects: &[Subject]) {
        for id in subjects.iter().filter_map(|subject| self.ids.get(subject)) {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.is_in_service = true;
            }
        }
    }

    /// At these numbers of failures in a row a verdict is told again although it says the same, and at no others: each
    /// failure of each backend that is down would be work for whoever is told.
    pub fn await_failures(&mut self, numbers: BTreeSet<u32>) {
        self.awaited = numbers;
    }

    /// When the next check is due that there is a place for.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.first().map(|(due, _)| due)
    }

    /// Takes the check that has been due longest, at most once until it is [`Self::finished`].
    pub fn take_due(&mut self, now: Instant) -> Option<Due> {
        let (due, id) = self.first()?;
        if due > now {
            return None;
        }
        let entry = self.entries.get_mut(&id)?;
        entry.due = None;
        let class = entry.class;
        let subject = entry.subject.clone();
        self.waiting[class as usize].remove(&(due, id));
        self.running.insert(id, class);
        self.running_of[class as usize] += 1;
        Some(Due {
            id,
            subject,
            late: now - due,
        })
    }

    fn first(&self) -> Option<(Instant, Id)> {
        if self.running.len() >= self.places.all {
            return None;
        }
        [Class::Quick, Class::Slow, Class::Program]
            .into_iter()
            .filter(|class| self.running(*class) < self.places.of(*class))
            .filter_map(|class| self.waiting[class as usize].first())
            .min()
            .copied()
    }

    /// How many of a class run now.
    #[must_use]
    pub fn running(&self, class: Class) -> usize {
        self.running_of[class as usize]
    }

    /// Takes in a result. Gives the check's verdict if it has changed, an agent said something new, or it has failed as often
    /// as somebody waits for. A check that is not wanted any more has none.
    pub fn finished(
        &mut self,
        id: Id,
        result: &Result<Good, Failure>,
        started: Instant,
        now: Instant,
    ) -> Option<(Subject, Verdict)> {
        if let Some(class) = self.running.remove(&id) {
            self.running_of[class as usize] -= 1;
        }
        let entry = self.entries.get_mut(&id)?;
        let timing = entry.subject.check.timing;
        let before = entry.verdict.clone();
        entry.take_in(result, started, now);
        let due = next_run(&timing, entry.verdict.state, entry.against, started, now);
        entry.due = Some(due);
        self.waiting[entry.class as usize].insert((due, id));
        let verdict = &entry.verdict;
        // Not only the one that is reached now: other numbers may have been awaited until a moment ago.
        let reached = || self.awaited.range(..=verdict.failures).next_back();
        let is_awaited =
            verdict.is_down() && reached().is_some_and(|number| *number > entry.told_failures);
        if verdict.state == before.state && verdict.said == before.said && !is_awaited {
            return None;
        }
        entry.told_failures = verdict.failures;
        Some((entry.subject.clone(), verdict.clone()))
    }

    /// All that is known of checks with a higher id, in the order of their ids.
    pub fn entries_after(&self, id: Id) -> impl Iterator<Item = (Id, &Entry)> {
        let range = (Bound::Excluded(id), Bound::Unbounded);
        self.entries.range(range).map(|(id, entry)| (*id, entry))
    }

    /// How many checks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Entry {
    fn take_in(&mut self, result: &Result<Good, Failure>, started: Instant, now: Instant) {
        let timing = self.subject.check.timing;
        let is_good = result.is_ok();
        let words = match result {
            Ok(good) => &good.words,
            Err(failure) => &failure.words,
        };
        self.runs += 1;
        self.failures += u64::from(!is_good);
        self.history.truncate(HISTORY - 1);
        self.history.push_front(Run {
            started,
            took: now.saturating_duration_since(started),
            is_good,
            kind: result.as_ref().err().map(|failure| failure.kind),
            words: words.clone(),
        });
        if matches!(result, Err(failure) if failure.kind == FailureKind::Shortage) {
            // It would take everybody out at once. Nor does it say for how long the next run will hold its place.
            return;
        }
        if self.class != Class::Program {
            let half = Duration::from_millis(u64::from(timing.timeout_ms)) / 2;
            self.class = if now.saturating_duration_since(started) <= half {
                Class::Quick
            } else {
                Class::Slow
            };
        }
        let (state, needed) = match (self.verdict.state, is_good) {
            (State::Unchecked, true) => (State::Up, 1),
            (State::Unchecked, false) if self.is_in_service => (State::Down, timing.fall),
            (State::Unchecked, false) => (State::Down, 1),
            (State::Up, false) => (State::Down, timing.fall),
            (State::Down, true) => (State::Up, timing.rise),
            (State::Up, true) | (State::Down, false) => {
                self.against = 0;
                self.verdict.words.clone_from(words);
                (self.verdict.state, 0)
            }
        };
        if state != self.verdict.state {
            self.against += 1;
            if self.against >= needed {
                self.against = 0;
                self.verdict.state = state;
                self.verdict.since = Some(now);
                self.verdict.words.clone_from(words);
            }
        }
        if let (Ok(good), Probe::Agent(agent)) = (result, &self.subject.check.probe)
            && let Some(said) = good.said
        {
            let bounds = (
                agent.minimum_percent,
                agent.maximum_percent.max(agent.minimum_percent),
            );
            let was_said_down = self.verdict.is_said_down();
            let heard = merged(self.verdict.said, said, agent.smoothing_percent, bounds);
            self.verdict.said = Some(heard);
            if self.verdict.is_said_down() != was_said_down {
                self.verdict.said_since = Some(now);
            }
            if said.operational.is_some() {
                self.verdict.said_words.clone_from(words);
            }
        }
        if !is_good || self.verdict.is_said_down() {
            self.verdict.failures = self.verdict.failures.saturating_add(1);
        } else if self.verdict.state == State::Up {
            self.verdict.failures = 0;
        }
    }
}

/// An agent: its real server, the address where it listens if that is another one, and its port.
type Agent = (IpAddr, Option<IpAddr>, u16);

/// The agent that is asked, whenever and however.
fn agent(subject: &Subject) -> Option<Agent> {
    let is_agent = matches!(subject.check.probe, Probe::Agent(_));
    is_agent.then_some((subject.server, subject.check.address, subject.port))
}

/// When a check runs next.
///
/// From one start to the next, so that a slow answer does not make checks rarer; but never before the one under way has
/// ended, and after a failure that is not yet enough only after the retry delay.
fn next_run(
    timing: &Timing,
    state: State,
    against: u32,
    started: Instant,
    now: Instant,
) -> Instant {
    let milliseconds = |time_ms: u32| Duration::from_millis(u64::from(time_ms));
    match state {
        State::Up | State::Unchecked if against > 0 => now + milliseconds(timing.retry_delay_ms),
        State::Up | State::Unchecked => (started + milliseconds(timing.interval_ms)).max(now),
        State::Down => (started + milliseconds(timing.down_interval_ms)).max(now),
    }
}

/// What an agent has said in all: a report says only what it wants to change, and a percentage is followed part of the way.
fn merged(before: Option<Said>, now: Said, smoothing: u32, (low, high): (u32, u32)) -> Said {
    let Some(before) = before else {
        return Said {
            percent: now.percent.map(|percent| percent.clamp(low, high)),
            ..now
        };
    };
    // The bounds may be other ones than when it was said.
    let was = before.percent.map(|percent| percent.clamp(low, high));
    let percent = match (was, now.percent) {
        (was, None) => was,
        (None, Some(new)) => Some(new.clamp(low, high)),
        (Some(was), Some(new)) => {
            let new = new.clamp(low, high);
            let step = (i64::from(new) - i64::from(was)) * i64::from(smoothing);
            // Rounded away from where it was, so that it gets there.
            let step = (step.abs() + 99) / 100 * step.signum();
            // Between two percentages.
            Some((i64::from(was) + step) as u32)
        }
    };
    Said {
        percent,
        maximum_connections: now.maximum_connections.or(before.maximum_connections),
        administrative: now.administrative.or(before.administrative),
        operational: now.operational.or(before.operational),
    }
}

#[cfg(test)]
mod tests;
