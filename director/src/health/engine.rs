//! Runs the checks: a thread of its own, so that neither a reload nor a walk over the connection tables makes an answer late.
//!
//! One task for each run, and never more than [`limits::CHECKS_AT_ONCE`] of them; no thread for any. What a result means is
//! [`Machine`]'s business.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{Sender as Reply, channel as reply_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use xdp_ebpf::layout::{Destination, destination};

use super::machine::{Class, Due, Entry, Id, Machine, Places, Run, Subject, Verdict};
use super::probe::{self, Failure, FailureKind, Good, Reach};
use super::through::{Carrier, Through};
use crate::config::{Method, limits};
use crate::runtime::for_one_thread;
use crate::seldom::Seldom;

/// Checks that are told of at once: about a millisecond, in which no other check goes on.
const TOLD_AT_ONCE: usize = 512;
/// A check that waited so long for a place is late.
const LATE: Duration = Duration::from_secs(1);
/// Threads that hash for logins, however many checks log in at the same time.
const BESIDE: usize = 16;
/// How long whoever asks waits for them.
const PATIENCE: Duration = Duration::from_secs(3);

/// Real servers, by address and method, as the packet path has them.
pub type Destinations = HashMap<(IpAddr, Method), Destination>;

/// A verdict that is new, or has been found so often that somebody wants to hear of it again.
#[derive(Clone, Debug)]
pub struct Change {
    /// Of which check.
    pub subject: Subject,
    /// What it is now.
    pub verdict: Verdict,
    /// When it was reached.
    pub reached: Instant,
}

/// One check as an operator is told of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// What is checked.
    pub subject: Subject,
    /// What is known.
    pub verdict: Verdict,
    /// Its last results, the newest first.
    pub history: VecDeque<Run>,
    /// When it runs next; none while it runs.
    pub due: Option<Instant>,
    /// Runs so far.
    pub runs: u64,
    /// Failed ones among them.
    pub failures: u64,
}

#[derive(Debug)]
enum Order {
    /// These run, and of them those stayed in service until they have.
    Replace(Vec<Subject>, Vec<Subject>),
    Destinations(Destinations),
    /// Numbers of failures in a row that somebody waits for.
    AwaitFailures(BTreeSet<u32>),
    /// Of some checks with an id above this one.
    Report(Id, Reply<Vec<(Id, Report)>>),
    /// Kill what runs, and end.
    End,
}

/// The main loop's end of the engine. Dropping it ends the engine, and the programs of external checks with it.
#[derive(Debug)]
pub struct Engine {
    orders: UnboundedSender<Order>,
    changes: UnboundedReceiver<Change>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the thread. There are no checks yet.
    ///
    /// # Errors
    /// When the system gives no thread or no event queue.
    pub fn start() -> std::io::Result<Self> {
        let (orders, taken) = unbounded_channel();
        let (told, changes) = unbounded_channel();
        let runtime = for_one_thread(BESIDE)?;
        let thread = thread::Builder::new()
            .name("checks".to_owned())
            .spawn(move || {
                runtime.block_on(work(taken, told));
            })?;
        Ok(Self {
            orders,
            changes,
            thread: Some(thread),
        })
    }

    /// Makes exactly these the checks that run. What was known of one that stays is kept. `in_service`: of real servers that
    /// are in service although it has not run yet.
    pub fn replace(&self, subjects: Vec<Subject>, in_service: Vec<Subject>) {
        // It fails only when the thread has ended, which `next` tells.
        drop(self.orders.send(Order::Replace(subjects, in_service)));
    }

    /// Says where the real servers are to which checks go as clients' packets do.
    pub fn set_destinations(&self, destinations: Destinations) {
        // As above.
        drop(self.orders.send(Order::Destinations(destinations)));
    }

    /// At these numbers of failures in a row a verdict is told again although it says the same.
    pub fn await_failures(&self, numbers: BTreeSet<u32>) {
        // As above.
        drop(self.orders.send(Order::AwaitFailures(numbers)));
    }

    /// The next change. Waits for ever where there is none.
    pub async fn next(&mut self) -> Change {
        match self.changes.recv().await {
            Some(change) => change,
            // The thread ends with this end of the channel only.
            None => std::future::pending().await,
        }
    }

    /// A change that is there already.
    pub fn next_now(&mut self) -> Option<Change> {
        self.changes.try_recv().ok()
    }

    /// Whom another thread can ask for all checks.
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        Reporter {
            orders: self.orders.clone(),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Whoever still holds an end to ask by must not keep it going. An error: it has ended already.
        drop(self.orders.send(Order::End));
        if let Some(thread) = self.thread.take() {
            // It kills the programs that it started. If it panicked, that has been said.
            drop(thread.join());
        }
    }
}

/// The thread that runs the checks does not answer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "the thread that runs the health checks does not answer; if that stays so, restart the director"
)]
pub struct Silent;

/// Asks the engine what it knows.
#[derive(Clone, Debug)]
pub struct Reporter {
    orders: UnboundedSender<Order>,
}

impl Reporter {
    /// All checks. Waits for the engine, which goes on with its checks after every few of them: so each is told as it is at
    /// one moment, and the next one perhaps a little later.
    ///
    /// # Errors
    /// The engine does not answer: its thread is busy with something that it should not do, or has ended.
    pub fn report(&self) -> Result<Vec<Report>, Silent> {
        let mut all = Vec::new();
        let mut last = 0;
        loop {
            let (reply, answer) = reply_channel();
            self.orders
                .send(Order::Report(last, reply))
                .map_err(|_| Silent)?;
            let some = answer.recv_timeout(PATIENCE).map_err(|_| Silent)?;
            let Some((id, _)) = some.last() else {
                return Ok(all);
            };
            last = *id;
            all.extend(some.into_iter().map(|(_, report)| report));
        }
    }
}

async fn work(mut orders: UnboundedReceiver<Order>, told: UnboundedSender<Change>) {
    let mut machine = Machine::new(Places {
        all: limits::CHECKS_AT_ONCE,
        slow: limits::SLOW_CHECKS_AT_ONCE,
        programs: limits::PROGRAMS_AT_ONCE,
    });
    let mut lateness = Seldom::default();
    let mut ways = Ways::default();
    let mut running: JoinSet<Result<Good, Failure>> = JoinSet::new();
    let mut runs: HashMap<tokio::task::Id, (Id, Instant)> = HashMap::new();
    loop {
        while let Some(Due { id, subject, late }) = machine.take_due(Instant::now()) {
            if late > LATE
                && let Some(untold) = lateness.tell(Instant::now())
            {
                tracing::warn!(
                    untold,
                    late_ms = late.as_millis(),
                    "checks run late: {} are wanted; {} run now (at most {}), of them {} that are slow to answer or have never \
                     run (at most {}) and {} programs (at most {}); give those that wait long for an answer a shorter timeout \
                     or a longer interval",
                    machine.len(),
                    running.len() + 1,
                    limits::CHECKS_AT_ONCE,
                    machine.running(Class::Slow),
                    limits::SLOW_CHECKS_AT_ONCE,
                    machine.running(Class::Program),
                    limits::PROGRAMS_AT_ONCE,
                );
            }
            let task = running.spawn(run(ways.reach(&subject), subject)).id();
            runs.insert(task, (id, Instant::now()));
        }
        // Where all places are taken, the end of one run is the beginning of the next.
        let due = machine.next_due();
        tokio::select! {
            order = orders.recv() => match order {
                None | Some(Order::End) => {
                    running.shutdown().await;
                    probe::external::settle().await;
                    return;
                }
                Some(Order::Replace(subjects, in_service)) => {
                    probe::authorities::reloaded();
                    machine.replace(subjects, Instant::now(), random_up_to);
                    machine.are_in_service(&in_service);
                }
                Some(Order::Destinations(destinations)) => ways.destinations = destinations,
                Some(Order::AwaitFailures(numbers)) => machine.await_failures(numbers),
                Some(Order::Report(last, reply)) => {
                    let some = machine.entries_after(last).take(TOLD_AT_ONCE);
                    // Whoever asked may have given up.
                    drop(reply.send(some.map(|(id, entry)| (id, report(entry))).collect()));
                }
            },
            Some(finished) = running.join_next_with_id(), if !running.is_empty() => {
                let (task, result) = match finished {
                    Ok(finished) => finished,
                    // The check must not be due never again without a word.
                    Err(broken) => (broken.id(), Err(Failure::new(
                        FailureKind::Local,
                        format!("the check itself broke, which is a mistake in this program: {broken}"),
                    ))),
                };
                let Some((id, started)) = runs.remove(&task) else { continue };
                let reached = Instant::now();
                if let Some((subject, verdict)) = machine.finished(id, &result, started, reached) {
                    // The main loop may have gone away.
                    drop(told.send(Change { subject, verdict, reached }));
                }
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

/// How backends are reached.
#[derive(Default)]
struct Ways {
    destinations: Destinations,
    /// Once a check wants to go through.
    carrier: Option<Carrier>,
}

impl Ways {
    fn reach(&mut self, subject: &Subject) -> Result<Reach, Failure> {
        let check = &subject.check;
        let mut reach = Reach {
            address: check.address.unwrap_or(subject.server),
            port: subject.port,
            source: check.source,
            interface: check.interface.clone(),
            through: None,
        };
        let Some(way) = subject.through else {
            return Ok(reach);
        };
        reach.address = way.virtual_address;
        if way.method == Method::Local {
            // Clients' packets are the node's own network stack's, and so are the check's.
            return Ok(reach);
        }
        let known = self.destinations.get(&(subject.server, way.method));
        let Some(record) = known.copied() else {
            return Err(Failure::new(
                FailureKind::Unreachable,
                format!("{} is not in the tables yet", subject.server),
            ));
        };
        if record.flags & destination::LOCAL != 0 {
            // By an address of the node's own: the same.
            return Ok(reach);
        }
        let carrier = self.carrier().map_err(|error| {
            Failure::new(
                FailureKind::of_beginning(&error),
                format!("no way through: {error}"),
            )
        })?;
        reach.through = Some(Through {
            carrier,
            destination: record,
            server: subject.server,
        });
        Ok(reach)
    }

    fn carrier(&mut self) -> io::Result<Carrier> {
        if let Some(carrier) = &self.carrier
            && carrier.is_alive()
        {
            return Ok(carrier.clone());
        }
        let carrier = Carrier::start()?;
        self.carrier = Some(carrier.clone());
        Ok(carrier)
    }
}

async fn run(reach: Result<Reach, Failure>, subject: Subject) -> Result<Good, Failure> {
    let check = &subject.check;
    let time = Duration::from_millis(u64::from(check.timing.timeout_ms));
    probe::run(&check.probe, &reach?, time).await
}

/// A number below `limit`; 0 if that is 0.
fn random_up_to(limit: u32) -> u32 {
    // The standard library's hash maps have a secret each: enough to spread checks by.
    let random = RandomState::new().hash_one(limit);
    // Below `limit`, which has 32 bits.
    ((u128::from(random) * u128::from(limit)) >> 64) as u32
}

fn report(entry: &Entry) -> Report {
    Report {
        subject: entry.subject.clone(),
        verdict: entry.verdict.clone(),
        history: entry.history.clone(),
        due: entry.due,
        runs: entry.runs,
        failures: entry.failures,
    }
}

#[cfg(test)]
mod bounds;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;
    use crate::config::{Check, ExternalProbe, Probe, Timing};
    use crate::health::hangs::{Hangs, LONG};
    use crate::health::machine::State;

    fn subject(port: u16) -> Subject {
        Subject {
            check: Arc::new(Check {
                probe: Probe::Connect,
                timing: Timing {
                    interval_ms: 20,
                    timeout_ms: 5000,
                    rise: 2,
                    fall: 2,
                    retry_delay_ms: 10,
                    down_interval_ms: 20,
                    spread_ms: 1,
                },
                address: None,
                port: None,
                source: None,
                interface: None,
                through: false,
            }),
            server: [127, 0, 0, 1].into(),
            port,
            through: None,
        }
    }

    #[tokio::test]
    async fn a_backend_that_goes_and_comes_back() {
        let mut engine = Engine::start().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        engine.replace(vec![subject(port), subject(port)], Vec::new());
        let next = async |engine: &mut Engine| timeout(LONG, engine.next()).await.unwrap();
        let first = next(&mut engine).await;
        assert_eq!(first.verdict.state, State::Up);
        drop(listener);
        let second = next(&mut engine).await;
        assert_eq!(second.verdict.state, State::Down);
        assert!(second.verdict.words.contains("refused"), "{second:?}");
        let _listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        assert_eq!(next(&mut engine).await.verdict.state, State::Up);
        let report = engine.reporter().report().unwrap();
        assert_eq!(report.len(), 1, "the same check is run once");
        assert!(report[0].runs >= 5 && report[0].failures >= 2, "{report:?}");
        engine.replace(Vec::new(), Vec::new());
        assert_eq!(engine.reporter().report().unwrap().len(), 0);
        assert!(engine.next_now().is_none());
    }

    /// Whoever starts a program waits until the kernel has read it: not the thread that runs all other checks.
    #[tokio::test]
    async fn a_program_that_cannot_be_read_holds_up_no_other_check() {
        let hangs = Hangs::new("check", "");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let well = subject(listener.local_addr().unwrap().port());
        let external = |timeout_ms| {
            let mut external = subject(0);
            let check = Arc::make_mut(&mut external.check);
            check.probe = Probe::External(ExternalProbe {
                command: hangs.path.clone(),
                arguments: Vec::new(),
            });
            check.timing.timeout_ms = timeout_ms;
            external
        };
        let (patient, impatient) = (external(3_600_000), external(50));
        let mut engine = Engine::start().unwrap();
        let all = [&well, &patient, &impatient].map(Clone::clone);
        engine.replace(all.to_vec(), Vec::new());
        let reporter = engine.reporter();
        let of = |subject: &Subject| {
            let all = reporter.report().unwrap();
            all.into_iter().find(|it| it.subject == *subject).unwrap()
        };
        let deadline = Instant::now() + LONG;
        while of(&well).runs < 20 || of(&impatient).runs < 12 {
            assert!(Instant::now() < deadline, "checks are held up");
            tokio::task::yield_now().await;
        }
        assert_eq!(of(&well).verdict.state, State::Up);
        assert_eq!(of(&patient).runs, 0);
        let words = of(&impatient).verdict.words;
        assert!(words.contains("could not be started"), "{words}");
        let waiting = fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = waiting.filter_map(|it| fs::read_to_string(it.path().join("comm")).ok());
        assert!(names.filter(|name| name.trim() == "file").count() < 10);

        // Its file system answers again.
        hangs.answer();
        loop {
            let change = timeout(LONG, engine.next()).await.unwrap();
            if change.subject == patient {
                assert_eq!(change.verdict.state, State::Up, "{change:?}");
                break;
            }
        }
    }

    /// A program of a check does not outlive the director.
    #[tokio::test]
    async fn what_it_started_ends_with_it() {
        let file = std::env::temp_dir().join(format!("director-engine-{}.pid", std::process::id()));
        let script = format!(
            "echo $$ > {0}.new; mv {0}.new {0}; sleep 1000",
            file.display()
        );
        let mut external = subject(0);
        let check = Arc::make_mut(&mut external.check);
        check.probe = Probe::External(ExternalProbe {
            command: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script],
        });
        check.timing.timeout_ms = 3_600_000;
        let engine = Engine::start().unwrap();
        engine.replace(vec![external], Vec::new());
        let reporter = engine.reporter();
        let deadline = Instant::now() + LONG;
        let process = loop {
            assert!(Instant::now() < deadline, "the program does not start");
            match std::fs::read_to_string(&file) {
                Ok(process) => break process,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        std::fs::remove_file(&file).unwrap();
        drop(engine);
        assert!(reporter.report().is_err(), "nobody is there any more");
        // Killed by then, if perhaps not yet reaped.
        let stat = format!("/proc/{}/stat", process.trim());
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Instant::now() < deadline, "{process} still runs");
            tokio::task::yield_now().await;
        }
    }
}
