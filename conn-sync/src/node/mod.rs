//! A node among its peers: the thread that joins the machine, the tables and the sockets.
//!
//! ```text
//!            ┌── passes over the tables ──► machine ──► datagrams
//!  tables ◄──┤   what peers told       ◄──         ◄── datagrams
//!            └── whole tables, a piece at a time ◄──► bulk resyncs (TCP)
//! ```
//!
//! It decides nothing: the machine does. Nobody waits for it: whoever runs it tells it what changes, and asks how it stands.

mod apply;
mod bulk;
mod kernel;
mod kernel_report;
mod readiness;
mod retries;
mod run;
mod state;
mod templates;
mod turns;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use xdp_ebpf::layout::{Learn, Template, TemplateKey};

pub use apply::{Applied, ImpossibleCounts};
pub use kernel_report::KernelReport;

use crate::config::{Config, KernelConfig, Protocol};
use crate::directory::Directory;
use crate::link::{Link, Lost};
use crate::machine;
use crate::table::View;
use crate::wire::auth::Keyring;

/// Some persistence templates, and what the next ones come after.
pub type SomeTemplates = (Vec<(TemplateKey, Template)>, Option<u32>);

/// What a node is lent: the tables of a director.
pub trait Tables: Send + Sync + 'static {
    /// The connection tables now.
    ///
    /// # Errors
    /// Their settings cannot be read.
    fn view(&self) -> io::Result<View<'_>>;

    /// Has a CPU learn peers' connections; each order says what became of it.
    ///
    /// # Errors
    /// The program cannot be run.
    fn learn(&self, cpu: u32, orders: &mut [Learn]) -> io::Result<()>;

    /// Some persistence templates, at most so many: those after `after`, which is what the call before gave; `None`: the first.
    /// Gives `None` with the last ones. What stands meanwhile is read, and read once.
    ///
    /// # Errors
    /// The map cannot be read.
    fn some_templates(&self, after: Option<u32>, most: usize) -> io::Result<SomeTemplates>;

    /// What persistence remembers of a client.
    fn template(&self, key: &TemplateKey) -> Option<Template>;

    /// Has it remember this.
    ///
    /// # Errors
    /// The map refuses.
    fn put_template(&self, key: &TemplateKey, template: &Template) -> io::Result<()>;
}

/// With what a node begins.
pub struct Start {
    /// Who it is and whom it talks to.
    pub config: Config,
    /// Higher with every start.
    pub incarnation: u64,
    /// What datagrams are signed with.
    pub keyring: Keyring,
    /// The tables.
    pub tables: Arc<dyn Tables>,
    /// Their names.
    pub directory: Directory,
    /// Told whenever it changes whether this node has what its peers have. Must not wait.
    pub on_readiness: Box<dyn FnMut(machine::Readiness) + Send>,
}

/// How a node stands.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Status {
    /// Its interface.
    pub interface: String,
    /// What the machine says of itself and each peer; none of a node that speaks the kernel's protocol.
    #[serde(flatten)]
    pub machine: Option<machine::Report>,
    /// Of a node that speaks the kernel's protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelReport>,
    /// What became of what peers told.
    pub applied: Applied,
    /// Clients of persistence that stand in the tables because peers told of them.
    pub learned_templates: u64,
    /// Passes over the connection tables.
    pub passes: u64,
    /// The last one took so long, in microseconds.
    pub pass_us: u64,
    /// Processor time that its thread has taken so far, in milliseconds.
    pub cpu_ms: u64,
    /// What last went wrong at the edge, if anything did.
    pub trouble: Option<Trouble>,
}

/// Something that went wrong at the edge.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Trouble {
    /// What, for people.
    pub words: String,
    /// How long ago.
    pub ms_ago: u64,
}

/// What is told to the thread.
enum Order {
    Directory(Box<Directory>),
    Status(oneshot::Sender<Status>),
    /// To tell at once what has changed.
    Pass,
}

/// The tables that are lent now, and how many there were before them.
struct Lent(Mutex<(u64, Arc<dyn Tables>)>);

impl Lent {
    fn now(&self) -> (u64, Arc<dyn Tables>) {
        let lent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (lent.0, Arc::clone(&lent.1))
    }

    fn set(&self, tables: Arc<dyn Tables>) {
        let mut lent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *lent = (lent.0 + 1, tables);
    }
}

/// What a node speaks, with what it needs for that.
enum Spoken {
    /// Director's own protocol: full syncs are asked for here.
    Own(TcpListener),
    /// The kernel's.
    Kernel(KernelConfig),
}

/// Why a node's thread has ended by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// Its sockets are bound to an interface that is no more. It can be started again.
    #[error("interface {interface}: {lost}")]
    Interface {
        /// Its name.
        interface: String,
        /// What became of it.
        lost: Lost,
    },
    /// It panicked, and said this.
    #[error("it panicked: {0}")]
    Panicked(String),
    /// It does not say: there should be no such end.
    #[error("it ended without a reason")]
    WithoutReason,
}

/// A running node. It ends when this is dropped; what has changed by then is told yet.
pub struct Node {
    orders: Option<mpsc::UnboundedSender<Order>>,
    lent: Arc<Lent>,
    interface: String,
    thread: Option<JoinHandle<Option<Lost>>>,
}

impl Node {
    /// Opens the sockets and starts the thread.
    ///
    /// # Errors
    /// There is no such interface, the port is taken, or a thread cannot be made.
    pub fn start(start: Start) -> io::Result<Self> {
        let (orders, ordered) = mpsc::unbounded_channel();
        let lent = Arc::new(Lent(Mutex::new((0, Arc::clone(&start.tables)))));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let thread = std::thread::Builder::new().name("conn-sync".to_owned());
        // Sockets are made within the runtime that waits for them.
        let context = runtime.enter();
        let opened = Link::open(&start.config).and_then(|link| {
            let spoken = match start.config.protocol {
                Protocol::Own => Spoken::Own(link.listener(&start.config)?),
                Protocol::Kernel(kernel) => Spoken::Kernel(kernel),
            };
            Ok((link, spoken))
        });
        drop(context);
        let (link, spoken) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // Whoever asks may be a runtime's own, which must not wait for the end of another.
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let for_thread = Arc::clone(&lent);
        let interface = start.config.interface.clone();
        let thread = thread.spawn(move || match spoken {
            Spoken::Own(listener) => {
                runtime.block_on(run::run(start, for_thread, link, listener, ordered))
            }
            Spoken::Kernel(kernel) => {
                runtime.block_on(kernel::run(start, kernel, for_thread, link, ordered))
            }
        })?;
        Ok(Self {
            orders: Some(orders),
            lent,
            interface,
            thread: Some(thread),
        })
    }

    /// The director has other tables now.
    pub fn set_tables(&self, tables: Arc<dyn Tables>) {
        self.lent.set(tables);
    }

    /// The tables have other names now.
    pub fn set_directory(&self, directory: Directory) {
        self.order(Order::Directory(Box::new(directory)));
    }

    /// Peers are told at once of what has changed: packets of it may come to them from now on.
    pub fn tell_now(&self) {
        self.order(Order::Pass);
    }

    /// How it stands. The answer fails if the thread has ended.
    #[must_use]
    pub fn status(&self) -> oneshot::Receiver<Status> {
        let (answer, asked) = oneshot::channel();
        self.order(Order::Status(answer));
        asked
    }

    /// Why its thread has ended by itself, once it has. Told once; nothing is shared from then on.
    pub fn ended(&mut self) -> Option<Ended> {
        let thread = self.thread.take_if(|thread| thread.is_finished())?;
        Some(match thread.join() {
            Ok(Some(lost)) => Ended::Interface {
                interface: self.interface.clone(),
                lost,
            },
            Ok(None) => Ended::WithoutReason,
            Err(panic) => Ended::Panicked(words_of(panic.as_ref()).to_owned()),
        })
    }

    /// Fails only once the thread has ended, which is known otherwise: [`Self::ended`].
    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }
}

/// What a panic said.
fn words_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it did not say why")
}

impl Drop for Node {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // It ends at once: nothing in it waits for long.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
