//! Talking with a backend: bytes out, lines or any bytes in, never more than [`ANSWER_BYTES`] of them.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::consume_budget;
use tokio::time::timeout;

use super::authorities::OF_CHECKS;
use super::pattern::Wanted;
use super::{ANSWER_BYTES, Failure, FailureKind, Reach, Stream, tls};
use crate::config::TlsOptions;

/// The longest line (RFC 5321 section 4.5.3.1.5 has 512 for replies, others have less).
const LINE_BYTES: usize = 8192;

/// The most lines of a conversation.
const LINES: usize = 1024;

/// How long a backend may take to end a conversation after us. Short: it is part of the check's time.
const FAREWELL: Duration = Duration::from_millis(100);

/// Read at once.
const READ_BYTES: usize = 32 << 10;

/// A conversation under way.
pub(super) struct Dialogue {
    stream: Box<dyn Stream>,
    /// What came and, from `looked` on, was not looked at yet.
    pending: Vec<u8>,
    looked: usize,
    /// How many lines were.
    lines: usize,
    /// How much has come in all.
    heard: usize,
}

impl Dialogue {
    /// Connects, by TLS if there are options for it.
    pub(super) async fn open(reach: &Reach, options: Option<&TlsOptions>) -> Result<Self, Failure> {
        let stream = reach.connect().await?;
        let stream = match options {
            None => stream,
            Some(options) => {
                let name = tls::default_name(reach.address);
                tls::wrap(stream, options, &name, &OF_CHECKS).await?
            }
        };
        Ok(Self {
            stream,
            pending: Vec::new(),
            looked: 0,
            lines: 0,
            heard: 0,
        })
    }

    /// Goes on by TLS, with a backend that has agreed to it.
    pub(super) async fn into_tls(self, options: &TlsOptions, name: &str) -> Result<Self, Failure> {
        // Somebody else could have put it there, to have it taken for something that came by TLS.
        if !self.waiting().is_empty() {
            return Err(Failure::unexpected(
                "nothing before TLS begins",
                self.waiting(),
            ));
        }
        Ok(Self {
            stream: tls::wrap(self.stream, options, name, &OF_CHECKS).await?,
            ..self
        })
    }

    /// Sends bytes.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| Failure::io("sending", &error))
    }

    /// Sends a line.
    pub(super) async fn say(&mut self, line: &str) -> Result<(), Failure> {
        self.send(format!("{line}\r\n").as_bytes()).await
    }

    /// A line, without its end. `waiting_for`: what it should be, for people.
    pub(super) async fn line(&mut self, waiting_for: &str) -> Result<String, Failure> {
        loop {
            let mut lines = self.waiting().split_inclusive(|byte| *byte == b'\n');
            if let Some(line) = lines.next().filter(|line| line.ends_with(b"\n")) {
                let text = String::from_utf8_lossy(line);
                let text = text.trim_end_matches(['\r', '\n']).to_owned();
                self.looked += line.len();
                self.lines += 1;
                if self.lines > LINES {
                    let words = format!("{waiting_for}: more than {LINES} lines came");
                    return Err(Failure::new(FailureKind::Oversized, words));
                }
                // What is here already is looked at without waiting: others get their turn all the same.
                consume_budget().await;
                return Ok(text);
            }
            if self.waiting().len() > LINE_BYTES {
                let words = format!("{waiting_for}: a line of more than {LINE_BYTES} bytes");
                return Err(Failure::new(FailureKind::Oversized, words));
            }
            if !self.more(waiting_for).await? {
                return Err(Failure::new(
                    FailureKind::Closed,
                    format!("{waiting_for}: the connection ended"),
                ));
            }
        }
    }

    /// So many bytes.
    pub(super) async fn exactly(
        &mut self,
        length: usize,
        waiting_for: &str,
    ) -> Result<Vec<u8>, Failure> {
        if length > ANSWER_BYTES {
            return Err(Failure::new(
                FailureKind::Oversized,
                format!("{waiting_for}: it says that it is {length} bytes long"),
            ));
        }
        while self.waiting().len() < length {
            if !self.more(waiting_for).await? {
                return Err(Failure::new(
                    FailureKind::Closed,
                    format!("{waiting_for}: the connection ended"),
                ));
            }
        }
        let bytes = self.waiting().iter().take(length).copied().collect();
        self.looked += length;
        Ok(bytes)
    }

    /// Reads until what has come since the step before has the pattern in it.
    pub(super) async fn expect(&mut self, wanted: &Wanted) -> Result<(), Failure> {
        loop {
            if wanted.is_in(self.waiting()) {
                self.looked = self.pending.len();
                return Ok(());
            }
            if !self
                .more(&format!("waiting for {}", wanted.shown()))
                .await?
            {
                return Err(Failure::unexpected(wanted.shown(), self.waiting()));
            }
        }
    }

    /// All that comes until the backend ends the conversation, or a whole line of it.
    pub(super) async fn first_line_or_all(&mut self, waiting_for: &str) -> Result<String, Failure> {
        while !self.waiting().contains(&b'\n') && self.waiting().len() <= LINE_BYTES {
            if !self.more(waiting_for).await? {
                break;
            }
        }
        let text = String::from_utf8_lossy(self.waiting());
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    /// Ends it as somebody does who has nothing more to say, and waits a moment for the backend to end it too: for servers
    /// that write down every connection that is reset. One that does not end it in time is left as ever.
    pub(super) async fn leave(mut self) {
        let ended = async {
            self.stream.shutdown().await?;
            let mut heard = [0; 1024];
            while self.stream.read(&mut heard).await? > 0 {}
            io::Result::Ok(())
        };
        // The check has its answer, whatever comes of this.
        let _ = timeout(FAREWELL, ended).await;
    }

    fn waiting(&self) -> &[u8] {
        self.pending.get(self.looked..).unwrap_or_default()
    }

    /// Reads what there is. False: the backend has ended the conversation.
    async fn more(&mut self, waiting_for: &str) -> Result<bool, Failure> {
        let mut buffer = vec![0; READ_BYTES];
        let read = self.stream.read(&mut buffer).await;
        let length = read.map_err(|error| Failure::io(waiting_for, &error))?;
        self.heard += length;
        if self.heard > ANSWER_BYTES {
            return Err(Failure::new(
                FailureKind::Oversized,
                format!("{waiting_for}: more than {ANSWER_BYTES} bytes came"),
            ));
        }
        // Once for what was read together, not for each line of it.
        self.pending.drain(..self.looked.min(self.pending.len()));
        self.looked = 0;
        self.pending
            .extend_from_slice(buffer.get(..length).unwrap_or_default());
        Ok(length > 0)
    }
}
