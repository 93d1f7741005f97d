//! Talking with a backend: bytes out, lines or any bytes in, never more than [`ANSWER_BYTES`] of them.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::pattern::Wanted;
use super::{ANSWER_BYTES, Failure, FailureKind, Reach, Stream, tls};
use crate::config::TlsOptions;

/// The longest line (RFC 5321 section 4.5.3.1.5 has 512 for replies, others have less).
const LINE_BYTES: usize = 8192;

/// How long a backend may take to end a conversation after us. Short: it is part of the check's time.
const FAREWELL: Duration = Duration::from_millis(100);

/// Read at once.
const READ_BYTES: usize = 32 << 10;

/// A conversation under way.
pub(super) struct Dialogue {
    stream: Box<dyn Stream>,
    /// What came and was not looked at yet.
    pending: Vec<u8>,
    /// How much has come in all.
    heard: usize,
}

impl Dialogue {
    /// Connects, by TLS if there are options for it.
    pub(super) async fn open(reach: &Reach, options: Option<&TlsOptions>) -> Result<Self, Failure> {
        let stream = reach.connect().await?;
        let stream = match options {
            None => stream,
            Some(options) => tls::wrap(stream, options, &tls::default_name(reach.address)).await?,
        };
        Ok(Self {
            stream,
            pending: Vec::new(),
            heard: 0,
        })
    }

    /// Goes on by TLS, with a backend that has agreed to it.
    pub(super) async fn into_tls(self, options: &TlsOptions, name: &str) -> Result<Self, Failure> {
        // Somebody else could have put it there, to have it taken for something that came by TLS.
        if !self.pending.is_empty() {
            return Err(Failure::unexpected(
                "nothing before TLS begins",
                &self.pending,
            ));
        }
        Ok(Self {
            stream: tls::wrap(self.stream, options, name).await?,
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
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                let text = String::from_utf8_lossy(&line);
                return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
            }
            if self.pending.len() > LINE_BYTES {
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
        while self.pending.len() < length {
            if !self.more(waiting_for).await? {
                return Err(Failure::new(
                    FailureKind::Closed,
                    format!("{waiting_for}: the connection ended"),
                ));
            }
        }
        Ok(self.pending.drain(..length).collect())
    }

    /// Reads until what has come since the step before has the pattern in it.
    pub(super) async fn expect(&mut self, wanted: &Wanted) -> Result<(), Failure> {
        loop {
            if wanted.is_in(&self.pending) {
                self.pending.clear();
                return Ok(());
            }
            if !self
                .more(&format!("waiting for {}", wanted.shown()))
                .await?
            {
                return Err(Failure::unexpected(wanted.shown(), &self.pending));
            }
        }
    }

    /// All that comes until the backend ends the conversation, or a whole line of it.
    pub(super) async fn first_line_or_all(&mut self, waiting_for: &str) -> Result<String, Failure> {
        while !self.pending.contains(&b'\n') && self.pending.len() <= LINE_BYTES {
            if !self.more(waiting_for).await? {
                break;
            }
        }
        let text = String::from_utf8_lossy(&self.pending);
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
        self.pending
            .extend_from_slice(buffer.get(..length).unwrap_or_default());
        Ok(length > 0)
    }
}
