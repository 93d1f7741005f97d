//! The server's end of the socket.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use super::checks::CheckStatus;
use super::command::{Refusal, ServerCommand};
use super::status::{Status, SyncStatus};
use crate::runtime;

/// Questions that may wait at once; more must wait for their turn.
const QUEUE: usize = 16;

/// Longest command that is read.
const COMMAND_BYTES: usize = 16 << 10;

/// What the run loop is asked.
#[derive(Debug)]
pub enum Question {
    /// How are things?
    Status(oneshot::Sender<Status>),
    /// What do health checks find? Or why that is not known.
    Checks(oneshot::Sender<Result<Vec<CheckStatus>, String>>),
    /// Change something.
    Command(ServerCommand, oneshot::Sender<Result<String, Refusal>>),
    /// Ask the heartbeat, or order something of it.
    Heartbeat(
        heartbeat::control::Question,
        oneshot::Sender<heartbeat::control::Answer>,
    ),
    /// How does sharing connections with other directors stand? Or why there is none.
    Sync(oneshot::Sender<Result<SyncStatus, String>>),
    /// Load the configuration again.
    Reload(oneshot::Sender<Result<String, Refusal>>),
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Somebody listens there already.
    #[error("another director already listens on {}: stop it first, or give this one another `control`", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has the path.
    #[error("{} is there and is not a socket, so it is left alone: remove it, or give this director another `control`", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot {action} the control socket {}: {source}", path.display())]
    Socket {
        /// What was being done.
        action: &'static str,
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// The socket and the thread that serves it: one of its own, because an answer about thousands of real servers has megabytes.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    questions: mpsc::Receiver<Question>,
    /// Dropping it ends the thread.
    _stop: oneshot::Sender<()>,
}

impl Control {
    /// Listens. A socket that a killed director left is replaced.
    ///
    /// # Errors
    /// When somebody listens there already, or the socket cannot be made.
    pub fn start(path: &Path) -> Result<Self, ControlError> {
        let failed = |action| {
            move |source| ControlError::Socket {
                action,
                path: path.to_owned(),
                source,
            }
        };
        if StdUnixStream::connect(path).is_ok() {
            return Err(ControlError::InUse {
                path: path.to_owned(),
            });
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed("make the directory of"))?;
        }
        if let Ok(standing) = fs::symlink_metadata(path)
            && !standing.file_type().is_socket()
        {
            return Err(ControlError::NotASocket {
                path: path.to_owned(),
            });
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("replace")(error));
            }
            Ok(()) | Err(_) => {}
        }
        let listener = StdUnixListener::bind(path).map_err(failed("make"))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed("protect"))?;
        let (sender, questions) = mpsc::channel(QUEUE);
        let router = Router::new()
            .route("/v1/status", get(status))
            .route("/v1/checks", get(checks))
            .route("/v1/server", post(server))
            .route("/v1/reload", post(reload))
            .route("/v1/sync", get(sync))
            .route("/v1/heartbeat", post(heartbeat))
            .layer(DefaultBodyLimit::max(COMMAND_BYTES))
            .with_state(sender);
        let (stop, stopped) = oneshot::channel();
        serve(listener, router, stopped).map_err(failed("serve"))?;
        Ok(Self {
            path: path.to_owned(),
            questions,
            _stop: stop,
        })
    }

    /// Refuses what is asked from now on, and what waits: nobody answers any more.
    pub fn refuse(&mut self) {
        self.questions.close();
        while self.questions.try_recv().is_ok() {}
    }

    /// The next question. Never, once the socket is closed.
    pub async fn next(&mut self) -> Question {
        match self.questions.recv().await {
            Some(question) => question,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "the control socket stays behind");
        }
    }
}

/// Answers in a thread of its own until `stopped`.
fn serve(
    listener: StdUnixListener,
    router: Router,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = runtime::for_one_thread(runtime::MANY)?;
    let listener = {
        let _within = runtime.enter();
        UnixListener::from_std(listener)?
    };
    let serving = async move {
        tokio::select! {
            served = axum::serve(listener, router) => {
                if let Err(error) = served {
                    tracing::error!(%error, "the control socket is closed");
                }
            }
            // An error too means that nobody is there any more to answer.
            _ = stopped => {}
        }
    };
    thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || runtime.block_on(serving))?;
    Ok(())
}

async fn server(
    State(questions): State<mpsc::Sender<Question>>,
    Json(command): Json<ServerCommand>,
) -> (StatusCode, String) {
    done(&questions, |sender| Question::Command(command, sender)).await
}

async fn heartbeat(
    State(questions): State<mpsc::Sender<Question>>,
    Json(question): Json<heartbeat::control::Question>,
) -> Result<Response, StatusCode> {
    json(asked(&questions, |sender| Question::Heartbeat(question, sender)).await?).await
}

async fn sync(State(questions): State<mpsc::Sender<Question>>) -> Result<Response, StatusCode> {
    known(asked(&questions, Question::Sync).await?).await
}

async fn reload(State(questions): State<mpsc::Sender<Question>>) -> (StatusCode, String) {
    done(&questions, Question::Reload).await
}

/// Has something done, and gives what came of it.
async fn done(
    questions: &mpsc::Sender<Question>,
    question: impl FnOnce(oneshot::Sender<Result<String, Refusal>>) -> Question,
) -> (StatusCode, String) {
    let stopping = || {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the director is stopping".to_owned(),
        )
    };
    let (sender, answer) = oneshot::channel();
    if questions.send(question(sender)).await.is_err() {
        return stopping();
    }
    match answer.await {
        Ok(Ok(done)) => (StatusCode::OK, done),
        Ok(Err(Refusal::Unknown(words))) => (StatusCode::NOT_FOUND, words),
        Ok(Err(Refusal::Wrong(words))) => (StatusCode::BAD_REQUEST, words),
        Ok(Err(Refusal::Failed(words))) => (StatusCode::INTERNAL_SERVER_ERROR, words),
        Err(_) => stopping(),
    }
}

async fn status(State(questions): State<mpsc::Sender<Question>>) -> Result<Response, StatusCode> {
    json(asked(&questions, Question::Status).await?).await
}

async fn checks(State(questions): State<mpsc::Sender<Question>>) -> Result<Response, StatusCode> {
    known(asked(&questions, Question::Checks).await?).await
}

/// Asks the run loop for something.
async fn asked<T>(
    questions: &mpsc::Sender<Question>,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Result<T, StatusCode> {
    let (sender, answer) = oneshot::channel();
    // Both fail only while the director stops.
    questions
        .send(question(sender))
        .await
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    answer.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

/// What is known, or in words why nothing is.
async fn known<T: Serialize + Send + 'static>(
    answer: Result<T, String>,
) -> Result<Response, StatusCode> {
    match answer {
        Ok(answer) => json(answer).await,
        Err(words) => Ok((StatusCode::NOT_FOUND, words).into_response()),
    }
}

/// An answer as text, made on another thread: that of thousands of real servers would hold up other answers.
async fn json<T: Serialize + Send + 'static>(answer: T) -> Result<Response, StatusCode> {
    tokio::task::spawn_blocking(move || Json(answer).into_response())
        .await
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_stand_in_the_sockets_place() {
        let directory =
            std::env::temp_dir().join(format!("director-control-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let at = |name: &str| directory.join(name);

        fs::write(at("file"), "precious").unwrap();
        let refused = Control::start(&at("file")).unwrap_err();
        assert!(
            matches!(refused, ControlError::NotASocket { .. }),
            "{refused}"
        );
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "precious");

        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        let refused = Control::start(&at("link")).unwrap_err();
        assert!(
            matches!(refused, ControlError::NotASocket { .. }),
            "{refused}"
        );

        // Left by a director that was killed.
        drop(std::os::unix::net::UnixListener::bind(at("left")).unwrap());
        let control = Control::start(&at("left")).unwrap();
        let second = Control::start(&at("left")).unwrap_err();
        assert!(matches!(second, ControlError::InUse { .. }), "{second}");
        drop(control);
        assert!(!at("left").exists());
        fs::remove_dir_all(directory).unwrap();
    }

    /// While a director stops, whoever asks it something is told so at once, and does not wait for an answer.
    #[test]
    fn a_director_that_stops_refuses_what_it_is_asked() {
        let path = std::env::temp_dir().join(format!("director-stops-{}", std::process::id()));
        let mut control = Control::start(&path).unwrap();
        let ask = |path: &Path| super::super::send_reload(path).unwrap_err().to_string();
        let waits = {
            let path = path.clone();
            thread::spawn(move || ask(&path))
        };
        while control.questions.is_empty() {
            thread::yield_now();
        }
        control.refuse();
        assert_eq!(waits.join().unwrap(), "the director is stopping");
        assert_eq!(ask(&path), "the director is stopping");
    }
}
