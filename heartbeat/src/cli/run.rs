//! `heartbeat run`.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tracing_subscriber::filter::LevelFilter;

use super::load;
use crate::control::Server;
use crate::log;
use crate::machine::Filled;
use crate::node::realtime::Lock;
use crate::node::{Node, Start, incarnation};

pub(super) fn run(path: &Path, socket: &Path, mark: u8, level: LevelFilter) -> Result<()> {
    let (config, keyring) = load(path)?;
    let config = Arc::new(config);
    // Before there are threads, which inherit it: signals come by the descriptor only.
    let signals = signals().context("preparing for signals")?;
    let _log = log::start(level).context("starting the log's thread")?;
    let server = Server::listen(socket)?;
    let node = Node::start(Start {
        filled: Filled::default(),
        silent: Vec::new(),
        config: Arc::clone(&config),
        keyring,
        incarnation: incarnation::next(&socket.with_extension("incarnation")),
        mark,
        lock: Lock::All,
        unfit: Vec::new(),
        observer: (),
    })?;
    tracing::info!(node = config.node, config = %path.display(), "running");
    // Operators have a thread of their own: a slow one keeps no signal waiting.
    let is_stopping = std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("operators".to_owned())
            .spawn_scoped(scope, || {
                if let Err(error) = server.serve(&node, &config) {
                    tracing::error!(%error, "operators are not answered any more");
                }
            })
            .context("starting the thread that answers operators")?;
        follow_signals(&signals, &node)
    })?;
    if !node.join() || !is_stopping {
        bail!("the heartbeat's thread has ended by itself; its addresses are released");
    }
    Ok(())
}

/// Until the node has ended; whether it was told to.
fn follow_signals(signals: &SignalFd, node: &Node) -> Result<bool> {
    let mut is_stopping = false;
    loop {
        let mut waits = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(node.ended(), PollFlags::POLLIN),
        ];
        match poll(&mut waits, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                // Who answers operators ends with the node.
                let _ = node.stop_now();
                return Err(error).context("waiting for signals");
            }
        }
        if waits[1].any() == Some(true) {
            return Ok(is_stopping);
        }
        while let Ok(Some(signal)) = signals.read_signal() {
            // Both fail only once the node has ended.
            if signal.ssi_signo == Signal::SIGHUP as u32 {
                tracing::warn!("SIGHUP: the configuration is read at the start only");
            } else if is_stopping {
                tracing::warn!("told to stop a second time: programs that run are not waited for");
                let _ = node.stop_now();
            } else {
                is_stopping = true;
                tracing::info!("stopping");
                let _ = node.stop();
            }
        }
    }
}

fn signals() -> nix::Result<SignalFd> {
    let mut wanted = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        wanted.add(signal);
    }
    wanted.thread_block()?;
    SignalFd::with_flags(&wanted, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}
