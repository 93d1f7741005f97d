//! The loop: waits for whatever comes next and tells the node.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::node::Node;
use super::reload;
use super::resize;
use super::system::{monotonic_ns, raise_descriptors};
use crate::control::{Control, Question};
use crate::next_hop::{PROBE_TICK, Watch, WatchError};
use crate::runtime;

/// How long the kernel may take to tell what the network is like.
const DUMP_PATIENCE: Duration = Duration::from_secs(10);
/// How often the connection tables are walked on.
const WALK_TICK: Duration = Duration::from_millis(100);
/// How often the clock of the tables is looked at: it has whole seconds, and must not miss one.
const CLOCK_TICK: Duration = Duration::from_millis(250);
/// How often fragments that wait are looked at.
const HELD_TICK: Duration = Duration::from_millis(2);
/// Fragments taken in before the other events get their turn.
const HELD_AT_ONCE: usize = 512;
/// Pause after the network could not be followed.
const WATCH_RETRY: Duration = Duration::from_secs(1);

/// What `director run` is told.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The configuration file.
    pub config: PathBuf,
    /// Where the BPF file system is or will be mounted.
    pub bpffs: PathBuf,
}

/// Runs until SIGTERM or SIGINT, then takes everything down again.
///
/// # Errors
/// When the director cannot start. Once it runs, errors are logged and it goes on.
pub fn run(options: &RunOptions) -> anyhow::Result<()> {
    let runtime = runtime::for_one_thread(runtime::MANY).context("cannot start the runtime")?;
    let outcome = runtime.block_on(run_loop(options));
    // A thread may wait for a file of a network's file system that never answers: it ends with the process.
    runtime.shutdown_background();
    outcome
}

/// The signals that a director knows.
struct Signals {
    hangup: Signal,
    end: End,
}

/// Those that end it.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            end: End {
                terminate: listen(SignalKind::terminate())?,
                interrupt: listen(SignalKind::interrupt())?,
            },
        })
    }
}

impl End {
    /// Waits until the director is told to stop.
    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn run_loop(options: &RunOptions) -> anyhow::Result<()> {
    // Before anything else, so that a signal during the start does not leave half of it behind.
    let mut signals = Signals::new()?;
    raise_descriptors();
    let mut node = Node::open(&options.config, &options.bpffs)?;
    let (mut watch, mut control) = match start(&mut node).await {
        Ok(started) => started,
        Err(error) => {
            // An adopted data path goes on as it is; one of our own would only stand in the way.
            if !node.datapath.was_adopted()
                && let Err(leftover) = node.datapath.stop()
            {
                tracing::warn!("{leftover}");
            }
            return Err(error);
        }
    };
    let held = node
        .datapath
        .held_descriptor()
        .context("cannot wait for early fragments")?;
    // SAFETY: an owned descriptor, which stays what it is until the `AsyncFd` drops it.
    let held = unsafe { AsyncFd::register_with_interest(held, Interest::READABLE) }
        .map_err(|refused| refused.into_parts().1)
        .context("cannot wait for early fragments")?;
    serve(&mut node, &mut watch, &mut control, &mut signals, &held).await;
    drop(held);
    // A program of a group may ask something, and is waited for.
    control.refuse();
    // What is told of a connection only once its packets go to another node comes too late.
    node.sync.tell_now();
    // First, so that another node serves the addresses before this one forgets how.
    node.heartbeat.stop_unless(signals.end.told()).await;
    node.sync.stop();
    tracing::info!("stopping: detaching and removing all tables");
    node.end_resize().await;
    node.datapath.stop()?;
    Ok(())
}

async fn start(node: &mut Node) -> anyhow::Result<(Watch, Control)> {
    let control = Control::start(&node.config.control_socket)?;
    let mut watch = Watch::start()?;
    let first = timeout(DUMP_PATIENCE, watch.next()).await;
    let first = first.context("the kernel does not tell what the network is like")??;
    node.on_network(first);
    node.start()?;
    Ok((watch, control))
}

async fn serve(
    node: &mut Node,
    watch: &mut Watch,
    control: &mut Control,
    signals: &mut Signals,
    held: &AsyncFd<OwnedFd>,
) {
    let ticks = |period| {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let (mut probes, mut walks, mut clock) =
        (ticks(PROBE_TICK), ticks(WALK_TICK), ticks(CLOCK_TICK));
    loop {
        tokio::select! {
            () = signals.end.told() => return,
            _ = signals.hangup.recv() => node.reload(None),
            loaded = reload::next(&mut node.loading) => node.on_loaded(loaded),
            events = watch.next() => follow(node, events).await,
            _ = probes.tick() => probe(node, watch),
            _ = clock.tick() => {
                node.tick();
                node.end_drains();
                node.judge_due();
                node.reload_if_changed();
                node.sample_rates();
                node.watch_heartbeat();
                node.answer_late();
                node.watch_sync();
            }
            step = resize::next(&mut node.resize) => node.on_resize(step),
            silent = node.heartbeat.ended() => node.on_heartbeat_ended(silent),
            change = node.health.next() => node.on_verdict(change),
            () = yield_now(), if node.health.is_behind() => node.write_standings(),
            _ = walks.tick() => {
                node.walk();
                node.look_after_templates();
                node.forget_localities();
            }
            question = control.next() => match question {
                Question::Status(answer) => node.telling.ask(answer),
                Question::Checks(answer) => node.tell_checks(answer),
                Question::Reload(answer) => node.reload(Some(answer)),
                Question::Sync(answer) => node.sync.tell(answer),
                Question::Heartbeat(question, answer) => {
                    node.heartbeat.answer(question, |said| drop(answer.send(said)));
                }
                // Whoever asked may have gone away.
                Question::Command(command, answer) => drop(answer.send(node.command(&command))),
            },
            ready = held.readable() => {
                if let Ok(mut ready) = ready
                    && take_held(node)
                {
                    ready.clear_ready();
                }
            }
            () = sleep(HELD_TICK), if !node.waiting.is_empty() => {}
            // After all others that are ready have had a chance, and the runtime has looked for what is new.
            () = yield_now(), if node.telling.is_under_way() => node.tell_on(),
            () = yield_now(), if node.is_walking() => node.walk_on(),
        }
        release_fragments(node);
        node.heartbeat.turn();
        node.tell_names();
        if node.becomes_ready() {
            node.tell_readiness();
            tracing::info!(
                instance = node.config.instance,
                services = node.config.services.len(),
                adopted = node.datapath.was_adopted(),
                "ready"
            );
        }
    }
}

/// Takes in the fragments that want to wait, and gives up nothing else for it: a flood of them refills the ring as fast
/// as it is emptied. Whether the ring is empty now.
fn take_held(node: &mut Node) -> bool {
    for _ in 0..HELD_AT_ONCE {
        match node.datapath.next_held() {
            Some(fragment) => node.waiting.hold(fragment),
            None => return true,
        }
    }
    false
}

async fn follow(node: &mut Node, events: Result<Vec<crate::next_hop::Event>, WatchError>) {
    match events {
        Ok(events) => {
            node.on_network(events);
            node.follow_network();
        }
        Err(error) => {
            tracing::error!("{error}; trying again");
            sleep(WATCH_RETRY).await;
        }
    }
}

fn probe(node: &mut Node, watch: &Watch) {
    for probe in node.probes() {
        if let Err(error) = watch.probe(probe.ifindex, probe.address) {
            // As many at once as there are neighbours, where the kernel's table is full.
            if let Some(untold) = node.troubles.probes.tell(Instant::now()) {
                tracing::warn!(untold, "{error}");
            }
        }
    }
}

/// Hands the fragments whose turn has come back to the packet path.
fn release_fragments(node: &mut Node) {
    if node.waiting.is_empty() {
        return;
    }
    let timeout_ns = u64::from(node.config.fragment_timeout_ms) * 1_000_000;
    let datapath = &node.datapath;
    let now_ns = monotonic_ns();
    let released = node.waiting.release(now_ns, timeout_ns, |datagram| {
        datapath.knows(datagram, now_ns)
    });
    for fragment in released {
        if let Err(error) = datapath.inject(&fragment)
            && let Some(untold) = node.troubles.fragments.tell(Instant::now())
        {
            tracing::warn!(
                untold,
                "a fragment that had waited for its datagram's first one is lost: {error}"
            );
        }
    }
}
