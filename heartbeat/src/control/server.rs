//! Answering operators. Not in the node's thread: they may be slow.

use std::fs::Permissions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::within::Within;
use super::{Answer, QUESTION_BYTES, QUESTION_PATIENCE, Question};
use crate::config::Config;
use crate::machine::{Command, Scope};
use crate::node::Node;

/// Pause after nobody could be let in.
const ACCEPT_AGAIN: Duration = Duration::from_millis(10);

/// Why nobody can ask.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another one listens.
    #[error("another heartbeat answers at {} already: stop it, or give this one another --socket", .0.display())]
    Taken(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen for operators at {}: {source}", .socket.display())]
    Listen {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The socket. It is removed with this.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Listens. What a killed run left there is replaced.
    ///
    /// # Errors
    /// Another heartbeat listens there, or the socket cannot be made.
    pub fn listen(path: &Path) -> Result<Self, ServerError> {
        if UnixStream::connect(path).is_ok() {
            return Err(ServerError::Taken(path.to_owned()));
        }
        let make = || {
            match std::fs::symlink_metadata(path) {
                Ok(found) if !found.file_type().is_socket() => {
                    return Err(io::Error::other(
                        "something that is no socket stands there: give another path, or remove it",
                    ));
                }
                Ok(_) => std::fs::remove_file(path)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = make().map_err(|source| ServerError::Listen {
            socket: path.to_owned(),
            source,
        })?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Answers one after the other until the node has ended.
    ///
    /// # Errors
    /// The kernel does not let it wait for them.
    pub fn serve(&self, node: &Node, config: &Config) -> io::Result<()> {
        loop {
            let mut waits = [
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(node.ended(), PollFlags::POLLIN),
            ];
            match poll(&mut waits, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            if waits[1].any() == Some(true) {
                return Ok(());
            }
            // Gone again, or no descriptors: then the next turn tries anew.
            let Ok((stream, _)) = self.listener.accept() else {
                std::thread::sleep(ACCEPT_AGAIN);
                continue;
            };
            if let Err(error) = talk(&stream, node, config) {
                tracing::debug!(%error, "an operator's question was not answered");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Somebody may have done so already.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn talk(stream: &UnixStream, node: &Node, config: &Config) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let mut line = String::new();
    let asks = Within::new(stream, QUESTION_PATIENCE);
    BufReader::new(asks.take(QUESTION_BYTES)).read_line(&mut line)?;
    let answer = match serde_json::from_str(&line) {
        Ok(question) => answer(question, node, config),
        Err(error) => Answer::Error(format!("the question makes no sense: {error}")),
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    Within::new(stream, QUESTION_PATIENCE).write_all(&line)
}

/// Asks a node, or orders something of it. It may take as long as the node's thread.
#[must_use]
pub fn answer(question: Question, node: &Node, config: &Config) -> Answer {
    let (command, group) = match question {
        Question::Status => {
            let snapshot = node.snapshot().map_err(|error| error.to_string());
            let value = snapshot.and_then(|snapshot| {
                serde_json::to_value(snapshot).map_err(|error| error.to_string())
            });
            return value.map_or_else(Answer::Error, Answer::Ok);
        }
        Question::Standby { group } => (Command::Standby, group),
        Question::Takeover { group } => (Command::Takeover, group),
        Question::Ready { group } => (Command::Ready, group),
    };
    let has = |name: &str| config.groups.iter().any(|group| group.name == name);
    let is_member = |name: &str| {
        let mut groups = config.groups.iter();
        groups.any(|group| group.name == name && group.priorities.contains_key(&config.node))
    };
    let scope = match group {
        None => Scope::All,
        Some(name) if command != Command::Ready && !is_member(&name) && has(&name) => {
            return Answer::Error(format!(
                "{} stands not in the priorities of group {name}: it never serves it",
                config.node
            ));
        }
        Some(name) if has(&name) => Scope::Group(name),
        Some(name) => {
            let names: Vec<&str> = config
                .groups
                .iter()
                .map(|group| group.name.as_str())
                .collect();
            let names = names.join(", ");
            return Answer::Error(format!("there is no group {name}; there are {names}"));
        }
    };
    match node.order(command, scope) {
        Ok(delay) => Answer::Ok(delay.into()),
        Err(error) => Answer::Error(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_is_replaced() {
        let path = std::env::temp_dir().join(format!("control-{}", std::process::id()));
        std::fs::write(&path, "somebody's").unwrap();
        let error = Server::listen(&path).unwrap_err().to_string();
        assert!(error.contains("no socket stands there:"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody's");
        std::fs::remove_file(&path).unwrap();
        // What a killed run leaves: the socket of nobody.
        drop(UnixListener::bind(&path).unwrap());
        drop(Server::listen(&path).unwrap());
        assert!(!path.exists());
    }
}
