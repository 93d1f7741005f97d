//! Own heartbeats over a serial line.
//!
//! The line is slow: at 9600 baud a heartbeat may take longer than the time to the next one. So at most
//! [`WAITING`] wait for their turn, a newer one in place of the oldest, and hardly anything in the kernel's queue,
//! where nothing can be taken back.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use serial2::SerialPort;

use super::Received;
use super::framing::{Decoder, frame};
use crate::config::SerialLink;

/// Most frames that wait. The one that is on its way already is one of them.
const WAITING: usize = 2;
/// Bytes in the kernel's queue from which on it gets no more.
const QUEUED_BYTES: libc::c_int = 64;
/// Start bit, eight of data, stop bit.
const BITS_PER_BYTE: u32 = 10;
/// Shortest wait until the line is looked at again.
const SHORTEST_WAIT: Duration = Duration::from_millis(2);
const READ_BYTES: usize = 4096;

/// Frames that wait for a slow line.
#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Vec<u8>>,
    /// Bytes of the first that are on their way.
    begun: usize,
}

impl Queue {
    /// Adds a frame; whether one that waited was given up for it.
    fn push(&mut self, frame: Vec<u8>) -> bool {
        let is_full = self.frames.len() >= WAITING;
        if is_full {
            // Half a frame is no use to anybody: one that is begun goes on.
            self.frames.remove(usize::from(self.begun > 0));
        }
        self.frames.push_back(frame);
        is_full
    }

    fn next(&self) -> Option<&[u8]> {
        self.frames.front()?.get(self.begun..)
    }

    fn written(&mut self, bytes: usize) {
        self.begun += bytes;
        if self
            .frames
            .front()
            .is_some_and(|frame| frame.len() <= self.begun)
        {
            self.frames.pop_front();
            self.begun = 0;
        }
    }
}

/// An open serial line.
pub(super) struct Serial {
    port: SerialPort,
    baud: u32,
    decoder: Decoder,
    messages: VecDeque<Vec<u8>>,
    queue: Queue,
    /// When to look whether the line takes more.
    retry: Option<Duration>,
}

impl Serial {
    pub(super) fn open(settings: &SerialLink) -> io::Result<Self> {
        let baud = settings.baud;
        // Raw, eight bits, no parity, one stop bit, no flow control: a null-modem cable may have three wires.
        let mut port = SerialPort::open(&settings.device, |mut line: serial2::Settings| {
            line.set_raw();
            line.set_baud_rate(baud)?;
            Ok(line)
        })?;
        port.set_read_timeout(Duration::ZERO)?;
        port.set_write_timeout(Duration::ZERO)?;
        // What stood there before the start is old.
        port.discard_buffers()?;
        Ok(Self {
            port,
            baud,
            decoder: Decoder::default(),
            messages: VecDeque::new(),
            queue: Queue::default(),
            retry: None,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.retry
    }

    pub(super) fn garbage(&self) -> u64 {
        self.decoder.garbage()
    }

    /// Sends a message as soon as the line takes it; whether an older one was given up for it.
    pub(super) fn send(&mut self, message: &[u8], now: Duration) -> io::Result<bool> {
        let is_dropped = self.queue.push(frame(message));
        self.push_on(now)?;
        Ok(is_dropped)
    }

    /// Writes what the line takes.
    pub(super) fn push_on(&mut self, now: Duration) -> io::Result<()> {
        self.retry = None;
        while let Some(bytes) = self.queue.next() {
            let queued = self.queued()?;
            let written = if queued >= QUEUED_BYTES {
                0
            } else {
                match self.port.write(bytes) {
                    Ok(written) => written,
                    Err(error) if is_busy(&error) => 0,
                    Err(error) => return Err(error),
                }
            };
            if written == 0 {
                let bits = u32::try_from(queued).unwrap_or(1).max(1) * BITS_PER_BYTE;
                let wait = Duration::from_secs(1) * bits / self.baud.max(1);
                self.retry = Some(now + wait.max(SHORTEST_WAIT));
                return Ok(());
            }
            self.queue.written(written);
        }
        Ok(())
    }

    /// The next message; none: there is none now.
    pub(super) fn receive(&mut self) -> io::Result<Option<Received>> {
        if self.messages.is_empty() {
            let mut buffer = [0; READ_BYTES];
            match self.port.read(&mut buffer) {
                // Hung up.
                Ok(0) => return Err(io::Error::from_raw_os_error(libc::EIO)),
                Ok(length) => self
                    .messages
                    .extend(self.decoder.feed(buffer.get(..length).unwrap_or_default())),
                Err(error) if is_busy(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.messages.pop_front().map(|bytes| Received {
            from: None,
            to: None,
            bytes,
        }))
    }

    /// Bytes that the kernel has not sent yet.
    fn queued(&self) -> io::Result<libc::c_int> {
        let mut bytes: libc::c_int = 0;
        // SAFETY: TIOCOUTQ writes one int to where it is told, which lives until the call returns.
        let answer = unsafe { libc::ioctl(self.port.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        Errno::result(answer)?;
        Ok(bytes)
    }
}

fn is_busy(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_wait() {
        let mut queue = Queue::default();
        let frames = |queue: &Queue| {
            queue
                .frames
                .iter()
                .map(|frame| frame[0])
                .collect::<Vec<_>>()
        };
        for (frame, expected, is_dropped) in [
            (1, vec![1], false),
            (2, vec![1, 2], false),
            (3, vec![2, 3], true),
        ] {
            assert_eq!(queue.push(vec![frame; 10]), is_dropped);
            assert_eq!(frames(&queue), expected);
        }
        queue.written(4);
        assert_eq!(queue.next().map(<[u8]>::len), Some(6));
        assert!(queue.push(vec![4; 10]));
        assert_eq!(frames(&queue), [2, 4], "one that is begun goes on");
        queue.written(6);
        assert_eq!(frames(&queue), [4]);
        queue.written(10);
        assert_eq!(queue.next(), None);
    }
}
