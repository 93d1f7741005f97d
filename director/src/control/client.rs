//! The operator's end of the socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::status::Status;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer that is read.
const ANSWER_BYTES: u64 = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no director listens on {}: {source}; is it running, and is this its socket?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It does not answer, or not as it should.
    #[error("the director on {} does not answer as it should: {what}", path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What was wrong.
        what: String,
    },
}

/// Asks a director how it is.
///
/// # Errors
/// When none answers.
pub fn fetch_status(path: &Path) -> Result<Status, ClientError> {
    let unheard = |source| ClientError::Connect {
        path: path.to_owned(),
        source,
    };
    let unclear = |what: String| ClientError::Answer {
        path: path.to_owned(),
        what,
    };
    let mut stream = UnixStream::connect(path).map_err(unheard)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(unheard)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(unheard)?;
    let mut answer = Vec::new();
    // HTTP/1.0: one question, one answer without chunks, end of connection.
    stream
        .write_all(b"GET /v1/status HTTP/1.0\r\nHost: director\r\n\r\n")
        .and_then(|()| stream.take(ANSWER_BYTES).read_to_end(&mut answer))
        .map_err(|error| unclear(error.to_string()))?;
    let body = body(&answer).map_err(unclear)?;
    serde_json::from_slice(body).map_err(|error| unclear(error.to_string()))
}

/// The body of an answer whose status is 200.
fn body(answer: &[u8]) -> Result<&[u8], String> {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or("no HTTP header came")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let first = head.lines().next().unwrap_or_default();
    match first.split(' ').nth(1) {
        Some("200") => Ok(&answer[end + 4..]),
        _ => Err(first.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let cases: [(&str, Result<&str, &str>); 4] = [
            ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}", Ok("{}")),
            (
                "HTTP/1.0 503 Service Unavailable\r\n\r\n",
                Err("HTTP/1.0 503 Service Unavailable"),
            ),
            ("", Err("no HTTP header came")),
            ("nonsense\r\n\r\n", Err("nonsense")),
        ];
        for (answer, expected) in cases {
            let expected = expected.map(str::as_bytes).map_err(str::to_owned);
            assert_eq!(body(answer.as_bytes()), expected, "{answer:?}");
        }
    }
}
