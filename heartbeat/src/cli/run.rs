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

use super::{load, log};
use crate::config;
use crate::control::Server;
use crate::machine::Filled;
use crate::node::realtime::Lock;
use crate::node::{Node, Start, incarnation};

pub(super) fn run(path: &Path, socket: &Path, mark: u8, level: LevelFilter) -> Result<()> {
    let config = Arc::new(load(path)?);
    let keyring = config::load_keys(&config)?;
    // Before there are threads, which inherit it: signals come by the descriptor only.
    let signals = signals().context("preparing for signals")?;
    log::start(level).context("starting the log's thread")?;
    let server = Server::listen(socket)?;
    let node = Node::start(Start {
        filled: Filled::default(),
        config: Arc::clone(&config),
        keyring,
        incarnation: incarnation::next(&socket.with_extension("incarnation")),
        mark,
        lock: Lock::All,
        unfit: Vec::new(),
        observer: (),
    })?;
    tracing::info!(node = config.node, config = %path.display(), "running");
    let mut is_stopping = false;
    loop {
        let mut waits = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(server.fd(), PollFlags::POLLIN),
            PollFd::new(node.ended(), PollFlags::POLLIN),
        ];
        match poll(&mut waits, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for signals and operators"),
        }
        let has_ended = waits[2].any() == Some(true);
        if has_ended {
            break;
        }
        while let Ok(Some(signal)) = signals.read_signal() {
            if signal.ssi_signo == Signal::SIGHUP as u32 {
                tracing::warn!("SIGHUP: the configuration is read at the start only");
            } else if !is_stopping {
                is_stopping = true;
                tracing::info!("stopping");
                node.stop()?;
            }
        }
        server.answer(&node, &config);
    }
    if !node.join() || !is_stopping {
        bail!("the heartbeat's thread has ended by itself; its addresses are released");
    }
    Ok(())
}

fn signals() -> nix::Result<SignalFd> {
    let mut wanted = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        wanted.add(signal);
    }
    wanted.thread_block()?;
    SignalFd::with_flags(&wanted, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}
