//! The operator's end of the socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use heartbeat::control::{Answer, Question};
use serde::de::DeserializeOwned;

use super::checks::CheckStatus;
use super::command::ServerCommand;
use super::status::Status;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
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
    /// It does not do what it was told, and says why.
    #[error("{0}")]
    Refused(String),
    /// It could not do it, or not all of it, and says why.
    #[error("{0}")]
    Failed(String),
    /// It does not answer, or not as it should.
    #[error("the director on {} does not answer as it should: {what}", path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What was wrong.
        what: String,
    },
}

/// Has a director do something. What is in force then, in its words.
///
/// # Errors
/// When none answers, it refuses ([`ClientError::Refused`]), or cannot do it ([`ClientError::Failed`]).
pub fn send_command(path: &Path, command: &ServerCommand) -> Result<String, ClientError> {
    let text = serde_json::to_string(command).map_err(|error| ClientError::Answer {
        path: path.to_owned(),
        what: error.to_string(),
    })?;
    post(path, "/v1/server", &text)
}

/// Has a director load its configuration again. What is in force then, in its words.
///
/// # Errors
/// When none answers, the configuration is wrong ([`ClientError::Refused`]), or is in force without its heartbeat
/// ([`ClientError::Failed`]).
pub fn send_reload(path: &Path) -> Result<String, ClientError> {
    post(path, "/v1/reload", "{}")
}

/// Asks a director's heartbeat, or orders something of it.
///
/// # Errors
/// When none answers, or it refuses: [`ClientError::Refused`].
pub fn send_question(path: &Path, question: &Question) -> Result<serde_json::Value, ClientError> {
    let unclear = |error: serde_json::Error| ClientError::Answer {
        path: path.to_owned(),
        what: error.to_string(),
    };
    let text = serde_json::to_string(question).map_err(unclear)?;
    let said = post(path, "/v1/heartbeat", &text)?;
    match serde_json::from_str(&said).map_err(unclear)? {
        Answer::Ok(value) => Ok(value),
        Answer::Error(words) => Err(ClientError::Refused(words)),
    }
}

fn post(path: &Path, what: &str, text: &str) -> Result<String, ClientError> {
    let request = format!(
        "POST {what} HTTP/1.0\r\nHost: director\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
    let answer = exchange(path, &request)?;
    let (status, body) = split(&answer).map_err(|what| ClientError::Answer {
        path: path.to_owned(),
        what,
    })?;
    let words = String::from_utf8_lossy(body).trim().to_owned();
    match status {
        200 => Ok(words),
        500 => Err(ClientError::Failed(words)),
        _ => Err(ClientError::Refused(words)),
    }
}

/// Asks a director how it is.
///
/// # Errors
/// When none answers.
pub fn fetch_status(path: &Path) -> Result<Status, ClientError> {
    get(path, "/v1/status")
}

/// Asks a director for its health checks.
///
/// # Errors
/// When none answers, or it cannot tell: [`ClientError::Refused`].
pub fn fetch_checks(path: &Path) -> Result<Vec<CheckStatus>, ClientError> {
    get(path, "/v1/checks")
}

/// Asks a director how sharing its connections stands.
///
/// # Errors
/// When none answers, or this one shares them with nobody: [`ClientError::Refused`].
pub fn fetch_sync(path: &Path) -> Result<serde_json::Value, ClientError> {
    get(path, "/v1/sync")
}

fn get<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T, ClientError> {
    let unclear = |what: String| ClientError::Answer {
        path: path.to_owned(),
        what,
    };
    let answer = exchange(
        path,
        &format!("GET {what} HTTP/1.0\r\nHost: director\r\n\r\n"),
    )?;
    match split(&answer).map_err(unclear)? {
        (200, body) => serde_json::from_slice(body).map_err(|error| unclear(error.to_string())),
        (404, words) => Err(ClientError::Refused(
            String::from_utf8_lossy(words).into_owned(),
        )),
        (status, _) => Err(unclear(format!("HTTP status {status}"))),
    }
}

/// HTTP/1.0: one question, one answer without chunks, end of connection.
fn exchange(path: &Path, request: &str) -> Result<Vec<u8>, ClientError> {
    let unheard = |source| ClientError::Connect {
        path: path.to_owned(),
        source,
    };
    let mut stream = UnixStream::connect(path).map_err(unheard)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(unheard)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(unheard)?;
    let mut answer = Vec::new();
    stream
        .write_all(request.as_bytes())
        .and_then(|()| stream.take(ANSWER_BYTES).read_to_end(&mut answer))
        .map_err(|error| ClientError::Answer {
            path: path.to_owned(),
            what: error.to_string(),
        })?;
    Ok(answer)
}

/// Status and body of an answer.
fn split(answer: &[u8]) -> Result<(u16, &[u8]), String> {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or("no HTTP header came")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let first = head.lines().next().unwrap_or_default();
    let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
    match status {
        Some(status) => Ok((status, &answer[end + 4..])),
        None => Err(first.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        type Expected = Result<(u16, &'static [u8]), &'static str>;
        let cases: [(&str, Expected); 4] = [
            (
                "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
                Ok((200, b"{}")),
            ),
            ("HTTP/1.0 503 Service Unavailable\r\n\r\n", Ok((503, b""))),
            ("", Err("no HTTP header came")),
            ("nonsense\r\n\r\n", Err("nonsense")),
        ];
        for (answer, expected) in cases {
            let expected = expected.map_err(str::to_owned);
            assert_eq!(split(answer.as_bytes()), expected, "{answer:?}");
        }
    }
}
