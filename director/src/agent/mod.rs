//! `director agent`: a real server says how loaded it is, in the protocol of HAProxy's agent-check, which directors and
//! HAProxy ask for alike.
//!
//! [`report`] decides what is said; here it is said to everybody who connects, one line each.

pub mod report;

use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use self::report::{Load, Sample, Word};
use crate::files::open_regular;

/// Connections answered at the same time; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// The longest that one of them may take.
const CONNECTION_TIME: Duration = Duration::from_secs(2);
/// From one look at the load to the next.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// The most that is read of a state file.
const STATE_BYTES: u64 = 256;
/// Where the kernel counts what CPUs do.
const STAT: &str = "/proc/stat";

/// What an agent is told.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Over how many samples, one a second, the load is averaged.
    pub samples: usize,
    /// The least that it reports, in percent.
    pub minimum: u32,
    /// A file whose first word says how this server takes part.
    pub state_file: Option<PathBuf>,
}

/// Answers until SIGTERM or SIGINT.
///
/// # Errors
/// It cannot listen there, or there is no `/proc/stat`.
pub fn run(options: &AgentOptions) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let listener = TcpListener::bind(options.listen).await.with_context(|| {
            format!(
                "cannot listen on {}; another place is chosen with --listen ADDRESS:PORT",
                options.listen
            )
        })?;
        let mut load = Load::new(options.samples);
        load.push(sample()?);
        // Whoever asks in the first second waits for it in the kernel's queue.
        sleep(SAMPLE_INTERVAL).await;
        let (sender, receiver) = watch::channel(String::new());
        let mut look = interval(SAMPLE_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut state = State::default();
        let watching = async {
            loop {
                look.tick().await;
                load.push(sample()?);
                let word = options.state_file.as_deref().map(|file| state.read(file));
                let line = report::line(load.busy_percent(), options.minimum, word);
                sender.send_if_modified(|present| {
                    let is_new = *present != line;
                    *present = line;
                    is_new
                });
            }
        };
        tracing::info!(listen = %options.listen, "ready");
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            ended = watching => ended,
            () = serve(listener, receiver) => Ok(()),
        }
    })
}

fn sample() -> Result<Sample> {
    let text = std::fs::read_to_string(STAT).with_context(|| format!("reading {STAT}"))?;
    report::sample(&text).with_context(|| format!("{STAT} has no line of all CPUs"))
}

/// The state file as it was found last, to complain of each trouble once.
#[derive(Debug, Default)]
struct State {
    trouble: Option<String>,
}

impl State {
    /// What it says. One that is not there, cannot be read or says something else takes nothing away from the server.
    fn read(&mut self, file: &Path) -> Word {
        let read = match first_bytes(file) {
            Ok(text) => report::word(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Word::Ready),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(word) => {
                self.trouble = None;
                word
            }
            Err(trouble) => {
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::warn!("{}: {trouble}; taken as ready", file.display());
                    self.trouble = Some(trouble);
                }
                Word::Ready
            }
        }
    }
}

fn first_bytes(file: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    open_regular(file)?
        .take(STATE_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Tells everybody who connects the line as it is.
async fn serve(listener: TcpListener, line: watch::Receiver<String>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut line = line;
    // Until the first one is known nobody is answered. It only fails when the sender is gone, and the process with it.
    let _ = line.wait_for(|line| !line.is_empty()).await;
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let words = line.borrow().clone();
                tokio::spawn(async move {
                    // Who went away has no need of an answer.
                    let _ = timeout(CONNECTION_TIME, answer(stream, &words)).await;
                    drop(place);
                });
            }
            // No descriptor left, or the peer is gone already.
            Err(error) => {
                tracing::warn!("accepting: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One line; then what the peer says is taken and thrown away until it ends too. Closing with something unread would
/// reset the connection, and perhaps the line with it (RFC 1122 section 4.2.2.13).
async fn answer(mut stream: TcpStream, line: &str) -> io::Result<()> {
    stream.write_all(line.as_bytes()).await?;
    stream.shutdown().await?;
    let mut heard = [0; 1024];
    while stream.read(&mut heard).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everybody gets the line of the moment, however many ask and whatever they do meanwhile.
    #[tokio::test]
    async fn lines_are_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = watch::channel("75%\n".to_owned());
        tokio::spawn(serve(listener, receiver));
        let told = async |says: &[u8]| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(says).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        };
        assert_eq!(told(b"").await, "75%\n");
        assert_eq!(told(&[b'x'; 5000]).await, "75%\n");
        sender.send("drain\n".to_owned()).unwrap();
        assert_eq!(told(b"").await, "drain\n");
        // More than are answered at once, all of whom say nothing: the last has its turn when the first are thrown out.
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        assert_eq!(told(b"").await, "drain\n");
    }

    #[test]
    fn state_files() {
        let directory = std::env::temp_dir().join(format!("director-agent-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("state");
        let mut state = State::default();
        assert_eq!(state.read(&file), Word::Ready, "none");
        assert_eq!(state.read(&directory), Word::Ready, "a directory");
        assert!(state.trouble.is_some());
        for (content, expected, is_trouble) in [
            ("drain\n", Word::Drain, false),
            ("nonsense", Word::Ready, true),
            ("maint", Word::Maintenance, false),
        ] {
            std::fs::write(&file, content).unwrap();
            assert_eq!(state.read(&file), expected, "{content}");
            assert_eq!(state.trouble.is_some(), is_trouble, "{content}");
        }
        std::fs::remove_dir_all(directory).unwrap();
    }
}
