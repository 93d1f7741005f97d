//! A conversation that is over at a certain time, however slowly the other end reads and writes: one that sends a byte a second
//! is never late for the next one, but for the whole.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Reads and writes until then.
pub(super) struct Within<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl<'a> Within<'a> {
    pub(super) fn new(stream: &'a UnixStream, time: Duration) -> Self {
        Self {
            stream,
            until: Instant::now() + time,
        }
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        // No time would be for ever.
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(Some(left))
    }
}

impl Read for Within<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Within<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that is never late for the next byte.
    #[test]
    fn a_slow_other_end_does_not_last() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let begun = Instant::now();
        // One byte is there, however late the thread begins.
        far.write_all(b".").unwrap();
        let slow = std::thread::spawn(move || {
            while far.write_all(b".").is_ok() && begun.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let mut bytes = Vec::new();
        let mut within = Within::new(&near, Duration::from_millis(200));
        let error = within.read_to_end(&mut bytes).unwrap_err();
        let is_late = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock].contains(&error.kind());
        assert!(is_late && !bytes.is_empty(), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10));
        drop(near);
        slow.join().unwrap();

        // And one that does not read.
        let (near, _far) = UnixStream::pair().unwrap();
        let mut within = Within::new(&near, Duration::from_millis(200));
        let error = within.write_all(&vec![0; 16 << 20]).unwrap_err();
        assert!(
            [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock].contains(&error.kind()),
            "{error}"
        );
    }
}
