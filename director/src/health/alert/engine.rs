//! Delivers alerts: a thread of its own, so that no mail server that does not answer makes anything else late.
//!
//! One task for each message on its way, and never more than one for each target.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Instant, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::deliver::{TIMEOUT, deliver};
use super::event::Event;
use super::machine::{Id, Local, Machine, Outcome};
use super::message::{Clock, letter};
use crate::config::{AlertTarget, AlertWay, MailWay};
use crate::runtime;

enum Order {
    Replace {
        targets: Vec<Arc<AlertTarget>>,
        instance: String,
    },
    TakeIn(Vec<Event>),
}

/// The main loop's end of the engine. Dropping it and all its [`Teller`]s ends the engine.
#[derive(Debug)]
pub struct Engine {
    // Without a bound, so that nothing is lost and nobody waits: the other end takes in at once what comes, and keeps one
    // event for each thing that can be told of.
    orders: UnboundedSender<Order>,
}

/// For others who have something to tell.
#[derive(Clone, Debug)]
pub struct Teller(UnboundedSender<Order>);

impl Teller {
    /// Takes in what happened. It waits for nothing.
    pub fn take_in(&self, events: Vec<Event>) {
        if !events.is_empty() {
            // It fails only when the thread has ended, which it does with all ends of the channel only.
            drop(self.0.send(Order::TakeIn(events)));
        }
    }
}

impl Engine {
    /// Starts the thread. There are no targets yet.
    ///
    /// # Errors
    /// When the system gives no thread or no event queue.
    pub fn start() -> std::io::Result<Self> {
        let (orders, taken) = unbounded_channel();
        let runtime = runtime::for_one_thread(runtime::MANY)?;
        thread::Builder::new()
            .name("alerts".to_owned())
            .spawn(move || runtime.block_on(work(taken)))?;
        Ok(Self { orders })
    }

    /// One more end.
    #[must_use]
    pub fn teller(&self) -> Teller {
        Teller(self.orders.clone())
    }

    /// Makes exactly these the targets. `instance`: the director's name, for them.
    pub fn replace(&self, targets: Vec<Arc<AlertTarget>>, instance: String) {
        let targets = targets.iter().flat_map(each_recipient).collect();
        // It fails only when the thread has ended, which it does with this end of the channel only.
        drop(self.orders.send(Order::Replace { targets, instance }));
    }

    /// Takes in what changed.
    pub fn take_in(&self, events: Vec<Event>) {
        self.teller().take_in(events);
    }
}

/// Each recipient of mails as a target of its own, with a queue and tries of its own: one who cannot be reached makes nobody
/// else wait, and nobody gets a mail again because of another one.
fn each_recipient(target: &Arc<AlertTarget>) -> Vec<Arc<AlertTarget>> {
    let AlertWay::Mail(mail) = &target.way else {
        return vec![Arc::clone(target)];
    };
    let to = mail.to.iter();
    let with = |recipient: &String| {
        let way = AlertWay::Mail(MailWay {
            to: vec![recipient.clone()],
            ..mail.clone()
        });
        Arc::new(AlertTarget {
            way,
            ..AlertTarget::clone(target)
        })
    };
    to.map(with).collect()
}

async fn work(mut orders: UnboundedReceiver<Order>) {
    let mut machine = Machine::default();
    let mut instance = String::new();
    let mut running: JoinSet<Result<(), String>> = JoinSet::new();
    let mut jobs: HashMap<tokio::task::Id, (Id, Arc<AlertTarget>)> = HashMap::new();
    loop {
        let now = Instant::now();
        for (target, events) in machine.collect(now, local()) {
            tracing::warn!(
                alert = target.name,
                events,
                "too many messages wait: the oldest is dropped"
            );
        }
        for job in machine.take_jobs(now) {
            let letter = letter(&job.message, &instance, &clock());
            let target = Arc::clone(&job.target);
            let task = running.spawn(async move { deliver(&target.way, &letter, TIMEOUT).await });
            jobs.insert(task.id(), (job.id, job.target));
        }
        let due = machine.next_due(Instant::now(), local());
        tokio::select! {
            order = orders.recv() => match order {
                None => return,
                Some(Order::Replace { targets, instance: name }) => {
                    instance = name;
                    machine.replace(&targets, Instant::now());
                }
                Some(Order::TakeIn(events)) => {
                    let now = Instant::now();
                    events.into_iter().for_each(|event| machine.take_in(event, now));
                }
            },
            Some(finished) = running.join_next_with_id(), if !running.is_empty() => {
                let (task, result) = match finished {
                    Ok(finished) => finished,
                    // The next message must not wait for this one for ever.
                    Err(broken) => (broken.id(), Err(format!(
                        "the delivery itself broke, which is a mistake in this program: {broken}"
                    ))),
                };
                let Some((id, target)) = jobs.remove(&task) else { continue };
                let outcome = machine.finished(id, result.is_ok(), Instant::now());
                log(&target, &result.err().unwrap_or_default(), outcome);
            },
            () = until(due), if due.is_some() => {}
        }
    }
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due {
        sleep_until(due.into()).await;
    }
}

fn log(target: &AlertTarget, why: &str, outcome: Option<Outcome>) {
    let alert = &target.name;
    match outcome {
        Some(Outcome::Delivered { tries }) => tracing::debug!(alert, tries, "delivered"),
        Some(Outcome::Again { pause }) => {
            tracing::warn!(
                alert,
                "not delivered, tried again in {} s: {why}",
                pause.as_secs()
            );
        }
        Some(Outcome::GivenUp { tries, events }) => {
            tracing::error!(alert, tries, events, "not delivered, given up: {why}");
        }
        None => tracing::warn!(alert, "not in the configuration any more: {why}"),
    }
}

/// The time of the week. The zone may change while the director runs.
fn local() -> Local {
    let now = TimeZone::system().to_datetime(Timestamp::now());
    let number = |it: i8| u16::try_from(it).unwrap_or(0);
    Local {
        weekday: u8::try_from(now.weekday().to_monday_zero_offset()).unwrap_or(0),
        minute: number(now.hour()) * 60 + number(now.minute()),
    }
}

fn clock() -> Clock {
    Clock {
        now: Instant::now(),
        wall: SystemTime::now(),
        zone: TimeZone::system(),
    }
}

#[cfg(test)]
mod tests;
