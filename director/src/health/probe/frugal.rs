//! A stream that ends where a backend says too much, and that lets others have their turn.
//!
//! HTTP needs it: what goes before an answer (`100 Continue`, as often as the backend likes, RFC 9110 section 15.2) is read by
//! the library in one go, for as long as there is more of it. One backend could keep all checks of a director from running.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ANSWER_BYTES, Stream};

/// The most that is read: an answer and its head.
const BYTES: usize = ANSWER_BYTES + (64 << 10);
/// What is read before others have their turn.
const AT_ONCE: usize = 64 << 10;

/// A stream of which only so much is read.
pub(in crate::health) struct Frugal {
    stream: Box<dyn Stream>,
    left: usize,
    at_once: usize,
}

impl Frugal {
    pub(in crate::health) fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            left: BYTES,
            at_once: AT_ONCE,
        }
    }
}

impl AsyncRead for Frugal {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            let words = format!("more than {BYTES} bytes came");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::FileTooLarge, words)));
        }
        if self.at_once == 0 {
            self.at_once = AT_ONCE;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        self.left = self.left.saturating_sub(read);
        self.at_once = self.at_once.saturating_sub(read);
        polled
    }
}

impl AsyncWrite for Frugal {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
