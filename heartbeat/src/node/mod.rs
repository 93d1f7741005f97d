//! A node: the thread that joins links, machine, takeover, fitness and programs.
//!
//! ```text
//!            links, netlink, programs, orders
//!                  │ poll
//!                  ▼
//!  Tick first ─► machine ─► actions ─► links, takeover, programs, observer
//! ```
//!
//! The thread has real-time priority where permitted and waits for nothing but `poll`. After every wait the machine
//! hears the time first: a node that was frozen learns so before it sends or announces anything.

pub mod clock;
pub mod incarnation;
pub mod realtime;
mod report;
mod run;
mod warnings;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

pub use report::{LinkReport, Snapshot, TakeoverReport};

use self::realtime::Lock;
use crate::config::Config;
use crate::machine::{Command, Filled, Note, Scope, Silent};
use crate::takeover::TakeoverError;
use crate::wire::auth::Keyring;

/// How long the thread may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(5);

/// What somebody who lives with the node wants to hear, from the node's thread: so it must not wait for anything.
pub trait Observer: Send {
    /// This node may serve its groups until then, on [`clock::now`]'s clock, whatever else it hears or does not hear.
    fn lease(&mut self, _until: Duration) {}
    /// This node is about to take the addresses of a group.
    fn take(&mut self, _group: usize) {}
    /// This node is about to give the addresses of a group up.
    fn release(&mut self, _group: usize) {}
    /// For alerts. It is in the log already.
    fn note(&mut self, _note: &Note) {}
}

/// Nobody.
impl Observer for () {}

/// What keeps an order that is in force from taking effect at once; none: nothing is known to.
pub type Delay = Option<String>;

/// An order for the node's thread.
enum Order {
    Operator(Command, Scope, Sender<Result<Delay, String>>),
    Unfit(String, Option<String>),
    Fill(Filled),
    Keys(Keyring),
    Ask(Sender<Snapshot>),
    Recall(Sender<Vec<Silent>>),
    Stop,
    StopNow,
}

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Something that it needs from the kernel.
    #[error("cannot {what}: {source}{}", hint(.source))]
    Kernel {
        /// What it wants to do.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// What an earlier run left behind stays.
    #[error(transparent)]
    Leftovers(#[from] TakeoverError),
    /// It does not do what an operator orders, and why.
    #[error("{0}")]
    Refused(String),
    /// The thread has ended or does not answer.
    #[error("the heartbeat's thread does not answer: it has ended, or stands still")]
    Silent,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (heartbeat needs CAP_NET_ADMIN and CAP_NET_RAW)",
        _ => "",
    }
}

/// How a node is started.
pub struct Start<O> {
    /// The configuration.
    pub config: Arc<Config>,
    /// Keys of its heartbeats.
    pub keyring: Keyring,
    /// Greater than at any start before: [`incarnation::next`].
    pub incarnation: u64,
    /// The mark of what it adds to the network: [`crate::takeover::MARK`], unless there are several in a namespace.
    pub mark: u8,
    /// Whose memory is locked.
    pub lock: Lock,
    /// Reasons why it is unfit, by who says so, until [`Node::unfit`] says otherwise.
    pub unfit: Vec<(String, String)>,
    /// Whether it has what it needs to take groups back, until [`Node::fill`] says otherwise.
    pub filled: Filled,
    /// Whom the run before this one, with another configuration, knew to be silent ([`Node::silent`]); nobody after a boot.
    pub silent: Vec<Silent>,
    /// Who wants to hear.
    pub observer: O,
}

/// A node that runs.
#[derive(Debug)]
pub struct Node {
    orders: Sender<Order>,
    wake: Arc<EventFd>,
    ended: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    /// Starts a node in the network namespace of the calling thread. What an earlier run left behind is gone by then.
    ///
    /// # Errors
    /// No permission, or no descriptors.
    pub fn start<O: Observer + 'static>(start: Start<O>) -> Result<Self, NodeError> {
        let failed = |what| move |source| NodeError::Kernel { what, source };
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = || {
            EventFd::from_flags(flags)
                .map(Arc::new)
                .map_err(io::Error::from)
        };
        let wake = event().map_err(failed("make an event"))?;
        let ended = event().map_err(failed("make an event"))?;
        let (orders, heard) = channel();
        let (tells, told) = channel();
        let (woken, ends) = (Arc::clone(&wake), Arc::clone(&ended));
        let thread = std::thread::Builder::new()
            .name("heartbeat".to_owned())
            .spawn(move || {
                // Told also where the thread panics.
                let _ends = Ends(ends);
                // All in the thread: sockets belong to its namespace, and a failed start leaves none.
                match run::Running::new(start, heard, woken) {
                    Ok(running) => {
                        let _ = tells.send(Ok(()));
                        running.run();
                    }
                    Err(error) => {
                        let _ = tells.send(Err(error));
                    }
                }
            })
            .map_err(failed("start the heartbeat's thread"))?;
        told.recv().map_err(|_| NodeError::Silent)??;
        Ok(Self {
            orders,
            wake,
            ended,
            thread: Some(thread),
        })
    }

    /// Gives an operator's order. It is in force when this returns, or refused.
    ///
    /// # Errors
    /// The node is not fit to take over, or the thread has ended, or stands still.
    pub fn order(&self, command: Command, scope: Scope) -> Result<Delay, NodeError> {
        let (tells, told) = channel();
        self.send(Order::Operator(command, scope, tells))?;
        let answer = told.recv_timeout(PATIENCE);
        answer
            .map_err(|_| NodeError::Silent)?
            .map_err(NodeError::Refused)
    }

    /// Says why the node cannot serve, or that it can again as far as `source` is concerned.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn unfit(&self, source: &str, why: Option<String>) -> Result<(), NodeError> {
        self.send(Order::Unfit(source.to_owned(), why))
    }

    /// Says whether this node has what it needs to take groups back from one that serves them well.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn fill(&self, filled: Filled) -> Result<(), NodeError> {
        self.send(Order::Fill(filled))
    }

    /// Signs with other keys from now on, and accepts others: nothing else changes.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn keys(&self, keyring: Keyring) -> Result<(), NodeError> {
        self.send(Order::Keys(keyring))
    }

    /// How the node is.
    ///
    /// # Errors
    /// The thread has ended, or stands still.
    pub fn snapshot(&self) -> Result<Snapshot, NodeError> {
        let (tells, told) = channel();
        self.send(Order::Ask(tells))?;
        told.recv_timeout(PATIENCE).map_err(|_| NodeError::Silent)
    }

    /// Which other nodes it knows to be silent, for [`Start::silent`] of the run after this one.
    ///
    /// # Errors
    /// The thread has ended, or stands still.
    pub fn silent(&self) -> Result<Vec<Silent>, NodeError> {
        let (tells, told) = channel();
        self.send(Order::Recall(tells))?;
        told.recv_timeout(PATIENCE).map_err(|_| NodeError::Silent)
    }

    /// Begins to stop: the groups are released, and the others are told. [`Node::ended`] says when it is done.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn stop(&self) -> Result<(), NodeError> {
        self.send(Order::Stop)
    }

    /// Stops without waiting for anything: the groups are released, the others are told once; programs that run go on by themselves.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn stop_now(&self) -> Result<(), NodeError> {
        self.send(Order::StopNow)
    }

    /// Stops in order, and waits until it has, whoever else holds this and asks it something. What is asked until then is
    /// answered, and refused afterwards.
    pub fn stop_and_wait(&self) {
        // Fails only once the thread has ended.
        let _ = self.stop();
        let mut waits = [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        while poll(&mut waits, PollTimeout::NONE) == Err(Errno::EINTR) {}
    }

    /// Whether the thread has ended, in order or not.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let mut looks = [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        poll(&mut looks, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Readable when the thread has ended, in order or not.
    #[must_use]
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// Waits for the end; whether it was an orderly one.
    pub fn join(mut self) -> bool {
        self.thread
            .take()
            .is_none_or(|thread| thread.join().is_ok())
    }

    fn send(&self, order: Order) -> Result<(), NodeError> {
        self.orders.send(order).map_err(|_| NodeError::Silent)?;
        // A full counter is readable as well.
        let _ = self.wake.write(1);
        Ok(())
    }
}

/// A node that nobody holds any more stops in order.
impl Drop for Node {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = self.stop();
            let _ = thread.join();
        }
    }
}

struct Ends(Arc<EventFd>);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.write(1);
    }
}
