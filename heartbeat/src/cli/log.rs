//! Logs on standard error, written by a thread of their own: a reader that stands still must not stop the heartbeats.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait for being written; what comes when so many do is lost.
const WAITING: usize = 1024;

#[derive(Clone)]
struct Lines(SyncSender<Vec<u8>>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.0.try_send(line.to_vec()) {
            Ok(()) | Err(TrySendError::Full(_)) => Ok(line.len()),
            Err(TrySendError::Disconnected(_)) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Begins to log. Give the last lines a moment with [`finish`].
pub(super) fn start(level: LevelFilter) -> io::Result<()> {
    let (sender, lines) = sync_channel::<Vec<u8>>(WAITING);
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || {
            for line in lines {
                // Nobody reads: nothing to be done, and nobody to be told.
                let _ = io::stderr().write_all(&line);
            }
        })?;
    tracing_subscriber::fmt()
        .with_writer(Lines(sender))
        .with_ansi(io::stderr().is_terminal())
        .with_max_level(level)
        .with_target(false)
        .init();
    Ok(())
}
