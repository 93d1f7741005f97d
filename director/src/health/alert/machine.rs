//! What is told to whom, and when. No I/O and no clock: time is handed in, of the day and week too.
//!
//! ```text
//!  event ──► pending ──────────────► message ──► queue ──► on its way ──► delivered
//!             │  `after` has passed,    (64; of more the    │  ▲  │
//!             │  `periods` is open,      oldest is dropped)  └──┘  └► given up
//!             │  `group` is over                            tries
//!             └► cancelled: it was undone before
//! ```
//!
//! For each target it is kept what that was last told to be bad. Only what differs from that is told: so a trouble that was
//! over before anybody heard of it is never heard of, and nobody is told of the end of what they never heard of.
//!
//! What just happened, such as that this node is primary now, is no trouble that could be over: it is told in any case, without
//! `after` and never again.
//!
//! A real server whose check has not failed as often as `after_failures` says has nothing pending yet: it is told of again at
//! each number of failures that somebody waits for. From the one that is enough it is as any other: `after` counts since it fell.
//!
//! A message that has left for the queue is not cancelled. That it could not be delivered is no reason to be silent.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::{Condition, Event, Key};
use super::turns::Turns;
use crate::config::{AlertTarget, AlertWay, limits};

/// How long a message is tried, from the first try on.
pub const PATIENCE: Duration = Duration::from_secs(3600);
/// Pause after the first try. It doubles with each.
pub const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often it is looked whether a period has begun, while something waits for it.
const PERIOD_TICK: Duration = Duration::from_secs(15);

/// Time of the week, in the system's time zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Days from Monday.
    pub weekday: u8,
    /// Minutes from midnight.
    pub minute: u16,
}

/// Number of a target while it is known.
pub type Id = u64;

/// What is told at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What happened, in the order in which it came.
    pub entries: Vec<Entry>,
    /// Events of messages before it that were dropped because too many waited.
    pub dropped: usize,
}

/// One thing that is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What happened.
    pub event: Event,
    /// It was told before, and is still so.
    pub is_repeat: bool,
}

/// A message to deliver.
#[derive(Clone, Debug)]
pub struct Job {
    /// Which target, for [`Machine::finished`].
    pub id: Id,
    /// The target.
    pub target: Arc<AlertTarget>,
    /// What it is told.
    pub message: Arc<Message>,
}

/// What becomes of a message after a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is there.
    Delivered {
        /// Tries that it took.
        tries: u32,
    },
    /// It is tried again.
    Again {
        /// After so long.
        pause: Duration,
    },
    /// It is not.
    GivenUp {
        /// Tries that were made.
        tries: u32,
        /// Events in it.
        events: usize,
    },
}

/// All targets.
#[derive(Debug, Default)]
pub struct Machine {
    targets: Vec<Target>,
    /// Which of them must wait for others.
    turns: Turns,
    /// What is bad now: a new target is told of it.
    bad: HashMap<Key, Event>,
    next_id: Id,
}

#[derive(Debug)]
struct Target {
    id: Id,
    config: Arc<AlertTarget>,
    /// What it was told to be bad, and what it is to be told.
    tracks: HashMap<Key, Track>,
    /// What happened and is to be told, and since when.
    news: VecDeque<(Event, Instant)>,
    queue: VecDeque<Message>,
    sending: Option<Sending>,
    /// When something was last tried to be delivered.
    tried: Option<Instant>,
    /// Events dropped since a message could say so.
    dropped: usize,
}

#[derive(Debug, Default)]
struct Track {
    /// The trouble that it was told of last; none: it takes it to be well.
    told: Option<Event>,
    /// What it is to be told, and from when on.
    pending: Option<(Event, Instant)>,
    /// When it is told again.
    repeat: Option<Instant>,
}

#[derive(Debug)]
struct Sending {
    message: Arc<Message>,
    tries: u32,
    first: Instant,
    /// When it is tried; none while it is.
    next: Option<Instant>,
}

impl Machine {
    /// Makes exactly these the targets. One of the same name, and for the same recipients if it is by mail, goes on as it was.
    pub fn replace(&mut self, wanted: &[Arc<AlertTarget>], now: Instant) {
        let mut known = std::mem::take(&mut self.targets);
        for config in wanted {
            let place = known.iter().position(|it| it.config.is_same(config));
            let target = if let Some(place) = place {
                let mut target = known.swap_remove(place);
                let failures = target.config.after_failures;
                target.config = Arc::clone(config);
                if config.after_failures != failures {
                    for event in self.bad.values() {
                        target.take_in_again(event, now);
                    }
                }
                target
            } else {
                self.next_id += 1;
                let mut target = Target::new(self.next_id, Arc::clone(config));
                for event in self.bad.values() {
                    target.take_in(event, now);
                }
                target
            };
            self.targets.push(target);
        }
    }

    /// Takes in what changed.
    pub fn take_in(&mut self, event: Event, now: Instant) {
        for target in &mut self.targets {
            target.take_in(&event, now);
        }
        if event.condition == Condition::Bad {
            self.bad.insert(event.key.clone(), event);
        } else {
            self.bad.remove(&event.key);
        }
    }

    /// Makes messages of what is due. Gives the targets that had too many, and how many events were dropped.
    pub fn collect(&mut self, now: Instant, local: Local) -> Vec<(Arc<AlertTarget>, usize)> {
        let mut dropped = Vec::new();
        for target in &mut self.targets {
            let events = target.collect(now, local);
            if events > 0 {
                dropped.push((Arc::clone(&target.config), events));
            }
        }
        dropped
    }

    /// What is to be delivered now; [`Self::finished`] is told how it went.
    pub fn take_jobs(&mut self, now: Instant) -> Vec<Job> {
        // Where not all can be on their way, those go first that have waited longest for their turn.
        let mut targets: Vec<&mut Target> = self.targets.iter_mut().collect();
        targets.sort_by_key(|target| target.tried);
        let mut jobs = Vec::new();
        for target in targets {
            if self.turns.must_wait(&target.config) {
                continue;
            }
            if let Some(job) = target.take_job(now) {
                self.turns.begin(job.id, &job.target);
                jobs.push(job);
            }
        }
        jobs
    }

    /// How a try went. `None`: the target is not known any more.
    pub fn finished(&mut self, id: Id, is_delivered: bool, now: Instant) -> Option<Outcome> {
        self.turns.end(id);
        let target = self.targets.iter_mut().find(|target| target.id == id)?;
        target.finished(is_delivered, now)
    }

    /// When to come again if nothing happens.
    #[must_use]
    pub fn next_due(&self, now: Instant, local: Local) -> Option<Instant> {
        let times = self.targets.iter().flat_map(|target| {
            // The end of another one's message is what one waits for that must.
            let sent = target.next_sent(now);
            let sent = sent.filter(|_| !self.turns.must_wait(&target.config));
            [target.next_collected(now, local), sent]
        });
        times.flatten().min()
    }
}

impl Target {
    fn new(id: Id, config: Arc<AlertTarget>) -> Self {
        Self {
            id,
            config,
            tracks: HashMap::new(),
            news: VecDeque::new(),
            queue: VecDeque::new(),
            sending: None,
            tried: None,
            dropped: 0,
        }
    }

    fn take_in(&mut self, event: &Event, now: Instant) {
        if event.condition == Condition::Once {
            self.take_news(event, now);
            return;
        }
        let track = self.tracks.entry(event.key.clone()).or_default();
        match (event.condition, &track.told) {
            (Condition::Bad, None) => {
                let needed = self.config.after_failures;
                let is_enough = event.failures.is_none_or(|failures| failures >= needed);
                let lasted = event.since + milliseconds(self.config.after_ms);
                track.pending = match track.pending.take() {
                    _ if !is_enough => None,
                    // The same trouble, only that its check has failed once more.
                    Some((before, due)) if before.since == event.since => {
                        Some((event.clone(), due))
                    }
                    _ => Some((event.clone(), lasted.max(now))),
                };
            }
            (Condition::Bad, Some(_)) => {
                // Its end, if that was to be told, is undone.
                track.pending = None;
                track.told = Some(event.clone());
                if track.repeat.is_none() {
                    track.repeat = self.config.next_repeat(now);
                }
            }
            (Condition::Good, None) => track.pending = None,
            (Condition::Good, Some(_)) => {
                track.repeat = None;
                track.pending = Some((event.clone(), now));
            }
            (Condition::Hidden, _) => {
                track.repeat = None;
                track.pending = None;
            }
            // What happens once has no track.
            (Condition::Gone | Condition::Once, _) => *track = Track::default(),
        }
        if track.is_idle() {
            self.tracks.remove(&event.key);
        }
    }

    /// Takes in a trouble that there is, unless it was told: it may have to wait for more failures now, or for fewer.
    fn take_in_again(&mut self, event: &Event, now: Instant) {
        let track = self.tracks.get(&event.key);
        if track.is_none_or(|track| track.told.is_none()) {
            self.take_in(event, now);
        }
    }

    fn take_news(&mut self, event: &Event, now: Instant) {
        if !self.config.on.contains(&event.kind()) {
            return;
        }
        if self.news.len() == limits::ALERT_LINES {
            self.news.pop_front();
            self.dropped += 1;
        }
        self.news.push_back((event.clone(), now));
    }

    fn is_open(&self, local: Local) -> bool {
        let mut periods = self.config.periods.iter();
        self.config.periods.is_empty()
            || periods.any(|period| period.contains(local.weekday, local.minute))
    }

    /// When the first of what waits is due.
    fn first_due(&self) -> Option<Instant> {
        let news = self.news.front().map(|(_, due)| *due);
        self.tracks
            .values()
            .filter_map(Track::due)
            .chain(news)
            .min()
    }

    /// Makes a message of what is due, if its time has come. Gives how many events were dropped for it.
    fn collect(&mut self, now: Instant, local: Local) -> usize {
        let group = milliseconds(self.config.group_ms);
        let is_time = self.first_due().is_some_and(|due| due + group <= now);
        if !is_time || !self.is_open(local) {
            return 0;
        }
        let news = self.news.drain(..).map(|(event, due)| {
            let is_repeat = false;
            (due, Entry { event, is_repeat })
        });
        let mut entries: Vec<(Instant, Entry)> = news.collect();
        for track in self.tracks.values_mut() {
            let Some(due) = track.due().filter(|due| *due <= now) else {
                continue;
            };
            let is_repeat = track.pending.is_none();
            let event = match track.pending.take() {
                Some((event, _)) => event,
                // Only what was told is repeated.
                None => match &track.told {
                    Some(event) => event.clone(),
                    None => continue,
                },
            };
            let is_bad = event.condition == Condition::Bad;
            track.told = is_bad.then(|| event.clone());
            track.repeat = self.config.next_repeat(now).filter(|_| is_bad);
            if self.config.on.contains(&event.kind()) {
                entries.push((due, Entry { event, is_repeat }));
            }
        }
        self.tracks.retain(|_, track| !track.is_idle());
        if entries.is_empty() {
            return 0;
        }
        // Stable: news of the same moment stay in the order in which they came.
        let key = |entry: &Entry| match entry.event.condition {
            Condition::Once => None,
            _ => Some(entry.event.key.clone()),
        };
        entries.sort_by(|(due, one), (other, two)| (due, key(one)).cmp(&(other, key(two))));
        self.queue.push_back(Message {
            entries: entries.into_iter().map(|(_, entry)| entry).collect(),
            dropped: 0,
        });
        if self.queue.len() <= limits::ALERT_MESSAGES {
            return 0;
        }
        let dropped = self.queue.pop_front().map_or(0, |it| it.entries.len());
        self.dropped += dropped;
        dropped
    }

    fn take_job(&mut self, now: Instant) -> Option<Job> {
        if self.sending.is_none() {
            let message = self.queue.pop_front()?;
            self.sending = Some(Sending {
                message: Arc::new(Message {
                    dropped: std::mem::take(&mut self.dropped),
                    ..message
                }),
                tries: 0,
                first: now,
                next: Some(now),
            });
        }
        let sending = self.sending.as_mut()?;
        sending.next.take_if(|next| *next <= now)?;
        sending.tries += 1;
        self.tried = Some(now);
        Some(Job {
            id: self.id,
            target: Arc::clone(&self.config),
            message: Arc::clone(&sending.message),
        })
    }

    fn finished(&mut self, is_delivered: bool, now: Instant) -> Option<Outcome> {
        let sending = self.sending.as_mut()?;
        let tries = sending.tries;
        if is_delivered {
            self.sending = None;
            return Some(Outcome::Delivered { tries });
        }
        let pause = pause_after(tries);
        if now + pause > sending.first + PATIENCE {
            let events = sending.message.entries.len();
            self.sending = None;
            return Some(Outcome::GivenUp { tries, events });
        }
        sending.next = Some(now + pause);
        Some(Outcome::Again { pause })
    }

    /// When there is a message to make.
    fn next_collected(&self, now: Instant, local: Local) -> Option<Instant> {
        let group = milliseconds(self.config.group_ms);
        self.first_due().map(|due| match self.is_open(local) {
            true => due + group,
            false => (due + group).max(now + PERIOD_TICK),
        })
    }

    /// When there is one to deliver.
    fn next_sent(&self, now: Instant) -> Option<Instant> {
        match &self.sending {
            Some(sending) => sending.next,
            None => (!self.queue.is_empty()).then_some(now),
        }
    }
}

impl Track {
    /// When there is something to tell of it.
    fn due(&self) -> Option<Instant> {
        let pending = self.pending.as_ref().map(|(_, due)| *due);
        pending.or(self.repeat)
    }

    fn is_idle(&self) -> bool {
        self.told.is_none() && self.pending.is_none()
    }
}

impl AlertTarget {
    /// Whether somebody who was told by this one is told by another one.
    fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.recipients() == other.recipients()
    }

    fn recipients(&self) -> &[String] {
        match &self.way {
            AlertWay::Mail(mail) => &mail.to,
            AlertWay::Program(_) | AlertWay::Webhook(_) => &[],
        }
    }

    /// When a trouble that is told now is told again.
    fn next_repeat(&self, now: Instant) -> Option<Instant> {
        (self.every_ms > 0).then(|| now + milliseconds(self.every_ms))
    }
}

/// The pause after so many tries that failed.
fn pause_after(tries: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(tries.saturating_sub(1));
    FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE)
}

fn milliseconds(time_ms: u32) -> Duration {
    Duration::from_millis(time_ms.into())
}

#[cfg(test)]
mod tests;
