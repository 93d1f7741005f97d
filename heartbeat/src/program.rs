//! Programs: those of groups on becoming primary or backup, the one that fences, those that tell whether this node is fit.
//!
//! * Arguments are those of the configuration, and nothing is made of them by a shell. The environment is `PATH`,
//!   `HEARTBEAT_NODE` (this node), and for a group's program `HEARTBEAT_GROUP` and `HEARTBEAT_ROLE` (`primary` or
//!   `backup`), for the fencing one `HEARTBEAT_PEER`, nothing else. Standard input is empty.
//! * Exit status 0 is success. The first [`OUTPUT_BYTES`] that it prints or complains are kept for the log; the rest is
//!   read and thrown away.
//! * It is the leader of a process group of its own, which is killed when it ends or its time is over, with all its
//!   children that have not left the group. What is to go on is a service, to be started by the system's init.
//! * Programs with the same [`Job::order`] run one after the other, in the order in which they were asked for; of those
//!   that wait, [`WAITING`] at most, the oldest gives way: it was meant for a time that is over. Others run side by
//!   side, [`RUNNING`] at most.
//!
//! Each has a thread of its own while it runs: starting it may take long on a slow disk, and the heartbeats must not.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::Pid;

/// Most programs that run at once.
pub const RUNNING: usize = 64;
/// Most that wait for another of the same order.
pub const WAITING: usize = 4;
/// What is kept of a program's words, in bytes.
pub const OUTPUT_BYTES: usize = 4096;
/// What is shown of a program's first line: it stands in every report of the node until the next one.
const LINE_CHARACTERS: usize = 200;
/// Where programs look for others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A thread that only waits needs little; locked memory is not to be wasted.
const STACK_BYTES: usize = 128 << 10;

/// A program to be run. `T` is for whoever asks: it comes back with the outcome.
#[derive(Clone, Debug)]
pub struct Job<T> {
    /// Those of the same order run one after the other.
    pub order: String,
    /// Path and arguments.
    pub command: Vec<String>,
    /// Environment, besides `PATH`.
    pub environment: Vec<(String, String)>,
    /// It is killed after this time.
    pub timeout: Duration,
    /// What it is for.
    pub tag: T,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With exit status 0.
    Succeeded,
    /// With another one, or by a signal.
    Failed(String),
    /// It was killed when its time was over.
    TimedOut(Duration),
    /// It could not be started.
    NotStarted(String),
    /// It was not run: newer ones of the same order waited too.
    Overtaken,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Succeeded => f.write_str("success"),
            Self::Failed(how) => f.write_str(how),
            Self::TimedOut(after) => {
                write!(f, "killed after {} ms, its timeout", after.as_millis())
            }
            Self::NotStarted(why) => write!(f, "it cannot be started: {why}"),
            Self::Overtaken => f.write_str("not run: too many later ones waited"),
        }
    }
}

/// A program that has ended.
#[derive(Clone, Debug)]
pub struct Ended<T> {
    /// What was asked for.
    pub job: Job<T>,
    /// How it ended.
    pub outcome: Outcome,
    /// What it said.
    pub words: String,
}

impl<T> Ended<T> {
    /// The first line of what it said, as it can be shown on a terminal.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        let mut lines = self.words.lines().map(str::trim);
        let line = lines.find(|line| !line.is_empty())?;
        Some(harmless(line).take(LINE_CHARACTERS).collect())
    }

    /// All that it said, as it can be shown on a terminal: a program's words go to the log, too.
    #[must_use]
    pub fn shown(&self) -> String {
        harmless(self.words.trim()).collect()
    }
}

/// Without what moves a terminal's cursor, clears its screen or sets its title.
fn harmless(text: &str) -> impl Iterator<Item = char> {
    let shown = |it: char| match it {
        '\n' | '\t' => it,
        _ if it.is_control() => char::REPLACEMENT_CHARACTER,
        _ => it,
    };
    text.chars().map(shown)
}

/// What runs and what waits, without processes.
#[derive(Debug)]
struct Orders<T> {
    waiting: BTreeMap<String, VecDeque<Job<T>>>,
    /// Order and purpose of each that runs.
    running: Vec<(String, T)>,
}

impl<T: Clone> Orders<T> {
    /// Adds a job; the one that it overtakes.
    fn add(&mut self, job: Job<T>) -> Option<Job<T>> {
        let queue = self.waiting.entry(job.order.clone()).or_default();
        queue.push_back(job);
        if queue.len() > WAITING {
            queue.pop_front()
        } else {
            None
        }
    }

    /// The next job that may run now.
    fn next(&mut self) -> Option<Job<T>> {
        if self.running.len() >= RUNNING {
            return None;
        }
        let running = &self.running;
        let is_running = |order: &String| running.iter().any(|(running, _)| running == order);
        let (_, queue) = self
            .waiting
            .iter_mut()
            .find(|(order, queue)| !queue.is_empty() && !is_running(order))?;
        let job = queue.pop_front()?;
        self.running.push((job.order.clone(), job.tag.clone()));
        Some(job)
    }

    fn ended(&mut self, order: &str) {
        self.running.retain(|(running, _)| running != order);
        self.waiting.retain(|_, queue| !queue.is_empty());
    }
}

/// Runs programs, and says when they have ended.
#[derive(Debug)]
pub struct Runner<T> {
    orders: Orders<T>,
    ended: Receiver<Ended<T>>,
    sender: Sender<Ended<T>>,
    wake: Arc<EventFd>,
    overtaken: Vec<Ended<T>>,
}

impl<T: Clone + Send + 'static> Runner<T> {
    /// Nothing runs yet.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn new() -> io::Result<Self> {
        let (sender, ended) = channel();
        Ok(Self {
            orders: Orders {
                waiting: BTreeMap::new(),
                running: Vec::new(),
            },
            ended,
            sender,
            wake: Arc::new(EventFd::from_flags(
                EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
            )?),
            overtaken: Vec::new(),
        })
    }

    /// Readable when [`Runner::ended`] has something.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Runs a program as soon as it is its turn.
    pub fn start(&mut self, job: Job<T>) {
        if let Some(job) = self.orders.add(job) {
            self.overtaken.push(Ended {
                job,
                outcome: Outcome::Overtaken,
                words: String::new(),
            });
            // A full counter is readable as well.
            let _ = self.wake.write(1);
        }
        self.go_on();
    }

    /// Programs that have ended since the last call.
    pub fn ended(&mut self) -> Vec<Ended<T>> {
        // Empty: nothing to read.
        let _ = self.wake.read();
        let mut all = std::mem::take(&mut self.overtaken);
        for ended in self.ended.try_iter() {
            self.orders.ended(&ended.job.order);
            all.push(ended);
        }
        self.go_on();
        all
    }

    /// Whether nothing runs and nothing waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.orders.running.is_empty() && self.orders.waiting.values().all(VecDeque::is_empty)
    }

    /// Whether any that runs or waits is for such a purpose.
    pub fn has(&self, is_meant: impl Fn(&T) -> bool) -> bool {
        let waiting = self.orders.waiting.values().flatten().map(|job| &job.tag);
        let running = self.orders.running.iter().map(|(_, tag)| tag);
        waiting.chain(running).any(is_meant)
    }

    fn go_on(&mut self) {
        while let Some(job) = self.orders.next() {
            let (sender, wake) = (self.sender.clone(), Arc::clone(&self.wake));
            let job = Arc::new(std::sync::Mutex::new(Some(job)));
            let given = Arc::clone(&job);
            let take = |job: &std::sync::Mutex<Option<Job<T>>>| {
                job.lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .take()
            };
            let spawned = thread::Builder::new()
                .name("program".to_owned())
                .stack_size(STACK_BYTES)
                .spawn(move || {
                    let Some(job) = take(&given) else { return };
                    let (outcome, words) = run(&job);
                    // Nobody waits for it any more: then nobody needs to know.
                    let _ = sender.send(Ended {
                        job,
                        outcome,
                        words,
                    });
                    let _ = wake.write(1);
                });
            if let Err(error) = spawned
                && let Some(job) = take(&job)
            {
                let _ = self.sender.send(Ended {
                    job,
                    outcome: Outcome::NotStarted(format!("no thread for it: {error}")),
                    words: String::new(),
                });
                let _ = self.wake.write(1);
            }
        }
    }
}

/// The process group of a program, killed when this is dropped.
struct Group {
    child: Child,
}

impl Drop for Group {
    fn drop(&mut self) {
        // Not reaped before: the number is still its own. One that has ended has no group any more.
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Runs a program to its end, or until its time is over.
fn run<T>(job: &Job<T>) -> (Outcome, String) {
    let mut words = Vec::new();
    let outcome = match attempt(job, &mut words) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::NotStarted(error.to_string()),
    };
    (outcome, String::from_utf8_lossy(&words).into_owned())
}

fn attempt<T>(job: &Job<T>, words: &mut Vec<u8>) -> io::Result<Outcome> {
    let Some((program, arguments)) = job.command.split_first() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "no program is named",
        ));
    };
    let deadline = Instant::now() + job.timeout;
    let (mut said, says) = io::pipe()?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(job.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(says.try_clone()?)
        .stderr(says)
        .process_group(0);
    // Heartbeat reads its signals from a descriptor and blocks them, which a program would inherit: what it starts could
    // not be ended by SIGTERM.
    let unblocked = || SigSet::empty().thread_set_mask().map_err(io::Error::from);
    // SAFETY: between fork and exec it makes one system call, of a mask on its own stack, and allocates nothing.
    unsafe { command.pre_exec(unblocked) };
    let child = command.spawn()?;
    let mut group = Group { child };
    let end = pidfd(&group.child)?;
    let flags = OFlag::from_bits_retain(fcntl(&said, FcntlArg::F_GETFL)?);
    fcntl(&said, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let mut is_open = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            drop(group);
            read(&mut said, words);
            return Ok(Outcome::TimedOut(job.timeout));
        }
        let mut waits = vec![PollFd::new(end.as_fd(), PollFlags::POLLIN)];
        if is_open {
            waits.push(PollFd::new(said.as_fd(), PollFlags::POLLIN));
        }
        // One more millisecond: rounded down it would end in a busy loop.
        let wait =
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut waits, wait) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let has_ended = waits[0].any() == Some(true);
        is_open = is_open && read(&mut said, words);
        if has_ended {
            break;
        }
    }
    // It has ended, so this does not wait.
    let status = group.child.wait()?;
    // Children that went on.
    let _ = killpg(Pid::from_raw(group.child.id() as i32), Signal::SIGKILL);
    read(&mut said, words);
    Ok(if status.success() {
        Outcome::Succeeded
    } else {
        Outcome::Failed(status.to_string())
    })
}

/// Reads what is there; whether there may be more later.
fn read(said: &mut impl Read, words: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match said.read(&mut buffer) {
            Ok(0) => return false,
            Ok(length) => {
                let room = OUTPUT_BYTES.saturating_sub(words.len());
                words.extend(buffer.iter().take(length.min(room)));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

/// A descriptor that is readable when the child has ended (`pidfd_open(2)`).
fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: a system call with two numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    let fd = Errno::result(fd)?;
    // SAFETY: the call has just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(order: &str, script: &str, tag: u32) -> Job<u32> {
        Job {
            order: order.to_owned(),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            environment: vec![("HEARTBEAT_NODE".to_owned(), "lb1".to_owned())],
            timeout: Duration::from_secs(30),
            tag,
        }
    }

    /// Waits for so many ends.
    fn wait(runner: &mut Runner<u32>, number: usize) -> Vec<Ended<u32>> {
        let mut all = Vec::new();
        while all.len() < number {
            let mut waits = [PollFd::new(runner.fd(), PollFlags::POLLIN)];
            let woken = poll(&mut waits, PollTimeout::from(30_000_u16)).unwrap();
            assert_eq!(woken, 1, "nothing ended within 30 s");
            all.extend(runner.ended());
        }
        all
    }

    fn one(job: Job<u32>) -> Ended<u32> {
        let mut runner = Runner::new().unwrap();
        runner.start(job);
        wait(&mut runner, 1).remove(0)
    }

    #[test]
    fn ends_of_programs() {
        let failed = |how: &str| Outcome::Failed(how.to_owned());
        let rows = [
            ("exit 0", Outcome::Succeeded, ""),
            ("echo fine; exit 3", failed("exit status: 3"), "fine"),
            (
                "echo >&2; echo bad >&2; exit 1",
                failed("exit status: 1"),
                "bad",
            ),
            ("kill -9 $$", failed("signal: 9 (SIGKILL)"), ""),
            ("echo $HEARTBEAT_NODE $HOME", Outcome::Succeeded, "lb1"),
            ("cat", Outcome::Succeeded, ""),
            // What it says is shown to people, whose terminals it must not command.
            (
                "printf '\\033[2J\\a\\n'",
                Outcome::Succeeded,
                "\u{fffd}[2J\u{fffd}",
            ),
            // Signals that heartbeat blocks end its programs.
            ("kill $$; sleep 30", failed("signal: 15 (SIGTERM)"), ""),
        ];
        for (script, outcome, line) in rows {
            // As in the thread of the program that reads its signals.
            SigSet::from(Signal::SIGTERM).thread_block().unwrap();
            let ended = one(job("a", script, 7));
            assert_eq!(ended.outcome, outcome, "{script}");
            assert_eq!(ended.line().unwrap_or_default(), line, "{script}");
            assert_eq!(ended.job.tag, 7);
        }
        let mut missing = job("a", "", 1);
        missing.command = vec!["/nonexistent/program".to_owned()];
        assert!(matches!(
            one(missing.clone()).outcome,
            Outcome::NotStarted(_)
        ));
        missing.command.clear();
        assert!(matches!(one(missing).outcome, Outcome::NotStarted(_)));
    }

    #[test]
    fn much_output_is_cut_and_hinders_nobody() {
        let ended = one(job(
            "a",
            "head -c 1000000 /dev/zero | tr '\\0' x; echo end",
            1,
        ));
        assert_eq!(ended.outcome, Outcome::Succeeded);
        assert_eq!(ended.words.len(), OUTPUT_BYTES);
    }

    #[test]
    fn killed_with_its_children() {
        let mut slow = job("a", "echo $$; sleep 1000 & sleep 1000", 1);
        slow.timeout = Duration::from_millis(200);
        let ended = one(slow.clone());
        assert_eq!(ended.outcome, Outcome::TimedOut(slow.timeout));
        let group: i32 = ended.line().unwrap().parse().unwrap();
        // A killed child is a zombie of the group until init has reaped it.
        let begun = Instant::now();
        while killpg(Pid::from_raw(group), None).is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{group} lives");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_child_that_goes_on_holds_nobody_up() {
        let ended = one(job("a", "echo $$; sleep 1000 &", 1));
        assert_eq!(ended.outcome, Outcome::Succeeded);
    }

    #[test]
    fn one_after_the_other() {
        let folder = std::env::temp_dir().join(format!("heartbeat-order-{}", std::process::id()));
        let file = folder.display();
        let mut runner = Runner::new().unwrap();
        for nth in 0..4 {
            runner.start(job("a", &format!("sleep 0.05; echo {nth} >> {file}"), nth));
        }
        runner.start(job("b", "exit 0", 9));
        let ended = wait(&mut runner, 5);
        assert_eq!(ended[0].job.tag, 9, "another order does not wait");
        let said = std::fs::read_to_string(&folder).unwrap();
        std::fs::remove_file(&folder).unwrap();
        assert_eq!(said, "0\n1\n2\n3\n");
        assert!(runner.is_idle());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut orders = Orders {
            waiting: BTreeMap::new(),
            running: Vec::new(),
        };
        assert!(orders.add(job("a", "", 0)).is_none());
        assert_eq!(orders.next().unwrap().tag, 0);
        for nth in 1..=WAITING as u32 {
            assert!(orders.add(job("a", "", nth)).is_none());
            assert!(orders.next().is_none(), "one of an order at a time");
        }
        assert_eq!(orders.add(job("a", "", 50)).unwrap().tag, 1, "the oldest");
        orders.ended("a");
        assert_eq!(orders.next().unwrap().tag, 2);
        for nth in 0..RUNNING {
            assert!(orders.add(job(&format!("order {nth}"), "", 0)).is_none());
        }
        let running = std::iter::from_fn(|| orders.next()).count();
        assert_eq!(running, RUNNING - 1);
    }
}
