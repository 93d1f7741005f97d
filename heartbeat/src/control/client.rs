//! Asking a heartbeat that runs.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::within::Within;
use super::{ANSWER_BYTES, Answer, PATIENCE, Question};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no heartbeat answers at {}: {source}; does one run there? (heartbeat run)", .socket.display())]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What came is no answer.
    #[error("the answer at {} makes no sense: {source}", .socket.display())]
    Strange {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It says no.
    #[error("{0}")]
    Refused(String),
}

/// Asks, and waits for the answer.
///
/// # Errors
/// Nobody answers, or the answer is no.
pub fn ask(socket: &Path, question: &Question) -> Result<serde_json::Value, ClientError> {
    let line = talk(socket, question).map_err(|source| ClientError::Silent {
        socket: socket.to_owned(),
        source,
    })?;
    let answer = serde_json::from_str(&line).map_err(|source| ClientError::Strange {
        socket: socket.to_owned(),
        source,
    })?;
    match answer {
        Answer::Ok(value) => Ok(value),
        Answer::Error(why) => Err(ClientError::Refused(why)),
    }
}

fn talk(socket: &Path, question: &Question) -> io::Result<String> {
    let stream = UnixStream::connect(socket)?;
    let mut stream = Within::new(&stream, PATIENCE);
    let mut line = serde_json::to_vec(question)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER_BYTES)).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}
