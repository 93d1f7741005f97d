//! Logs on standard error, written by a thread of their own: a reader that stands still must stop neither the heartbeats nor
//! whatever else says something.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// Lines that wait for being written; what comes when so many do is lost.
const WAITING: usize = 1024;
/// How long the last lines may take at the end of the program.
const LAST_LINES: Duration = Duration::from_secs(1);
/// How often it is looked whether they are written.
const LOOK: Duration = Duration::from_millis(1);

/// Of this program's log.
static COUNTS: Counts = Counts::new();

#[derive(Debug)]
struct Counts {
    /// Lines that are not written yet.
    waiting: AtomicUsize,
    /// Lines that never will be.
    lost: AtomicU64,
}

impl Counts {
    const fn new() -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
        }
    }
}

/// Lines of the log that were lost since the start, as nobody read it fast enough.
#[must_use]
pub fn lost() -> u64 {
    COUNTS.lost.load(Ordering::Relaxed)
}

/// Where lines are put in: it never waits.
#[derive(Clone)]
struct Lines {
    lines: SyncSender<Vec<u8>>,
    counts: &'static Counts,
}

impl Lines {
    /// Lines that a thread writes there.
    fn written_to(
        mut to: impl Write + Send + 'static,
        counts: &'static Counts,
    ) -> io::Result<Self> {
        let (sender, lines) = sync_channel::<Vec<u8>>(WAITING);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                let mut told = 0;
                for line in lines {
                    let lost = counts.lost.load(Ordering::Relaxed);
                    // Nobody reads: nothing to be done, and nobody to be told.
                    if lost > told {
                        let _ = to.write_all(loss(lost - told).as_bytes());
                        told = lost;
                    }
                    let _ = to.write_all(&line);
                    counts.waiting.fetch_sub(1, Ordering::Release);
                }
            })?;
        Ok(Self {
            lines: sender,
            counts,
        })
    }
}

/// A line of the log that says so.
fn loss(lines: u64) -> String {
    let mut time = String::new();
    // Without the time it says what matters, too.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    format!("{time}  WARN the log lost {lines} lines: they were not read as fast as they came\n")
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        let sent = self.lines.try_send(line.to_vec());
        if sent.is_err() {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        match sent {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
            }
            Err(TrySendError::Disconnected(_)) => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        Ok(line.len())
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

/// The log of a program. Whoever holds it to its end gives the last lines a moment.
#[derive(Debug)]
#[must_use = "dropped at once it waits for nothing that is said later"]
pub struct Log {
    counts: &'static Counts,
    /// How long a moment is.
    patience: Duration,
}

impl Drop for Log {
    fn drop(&mut self) {
        let until = Instant::now() + self.patience;
        while self.counts.waiting.load(Ordering::Acquire) > 0 && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
    }
}

/// Begins to log.
///
/// # Errors
/// There can be no thread for it.
pub fn start(level: LevelFilter) -> io::Result<Log> {
    tracing_subscriber::fmt()
        .with_writer(Lines::written_to(io::stderr(), &COUNTS)?)
        .with_ansi(io::stderr().is_terminal())
        .with_max_level(level)
        .with_target(false)
        .init();
    Ok(Log {
        counts: &COUNTS,
        patience: LAST_LINES,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A log to a socket with a reader, of a program that ends with so much patience.
    fn log(patience: Duration) -> (Log, Lines, UnixStream) {
        let (to, from) = UnixStream::pair().unwrap();
        let counts: &'static Counts = Box::leak(Box::new(Counts::new()));
        let lines = Lines::written_to(to, counts).unwrap();
        (Log { counts, patience }, lines, from)
    }

    /// As a log says it: in one piece.
    fn say(lines: &mut Lines, line: &str) {
        assert_eq!(lines.write(line.as_bytes()).unwrap(), line.len());
    }

    /// Whoever speaks does not wait for whoever should read. Of all lines each is written or counted.
    #[test]
    fn a_reader_that_stands_still_stops_nobody() {
        let patience = Duration::from_millis(10);
        let (log, mut lines, from) = log(patience);
        let counts = log.counts;
        // Far more than the socket and those that wait take, so it would hang here.
        let said = 100_000;
        for number in 0..said {
            say(&mut lines, &format!("line {number} of many\n"));
        }
        let lost = counts.lost.load(Ordering::Relaxed);
        assert!(lost > 0);
        let began = Instant::now();
        drop(log);
        assert!(began.elapsed() >= patience, "the last lines had a moment");
        drop(lines);
        let (mut written, mut told) = (0, 0);
        for line in BufReader::new(from).lines().map(Result::unwrap) {
            match line.split_once(" WARN the log lost ") {
                Some((_, rest)) => {
                    let number = rest.split(' ').next().unwrap();
                    told += number.parse::<u64>().unwrap();
                }
                None => written += 1,
            }
        }
        assert_eq!((told, written + told), (lost, said));
        assert_eq!(counts.waiting.load(Ordering::Relaxed), 0);
    }

    /// What was said last is read before the program ends.
    #[test]
    fn the_last_lines_are_written() {
        let (log, mut lines, from) = log(Duration::from_secs(60));
        for number in 0..100 {
            say(&mut lines, &format!("line {number}\n"));
        }
        drop(log);
        from.set_nonblocking(true).unwrap();
        let read = BufReader::new(from).lines().map_while(Result::ok).count();
        assert_eq!(read, 100);
    }
}
