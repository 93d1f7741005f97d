//! A program says whether a backend is up, by its exit status: 0 is up.
//!
//! Its arguments are those of the configuration, then the backend's address and port. Its environment is `PATH`,
//! `DIRECTOR_SERVER` and `DIRECTOR_PORT`, nothing else. The first line that it prints, or complains, is shown to operators.
//! It is the leader of a process group of its own, which is killed when it ends, its time is over, or the director stops:
//! with all its children that have not left the group, and those that have while their parents are still there.

use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::{Failure, FailureKind, Good, PLACES, Reach};
use crate::config::ExternalProbe;
use crate::health::group::PATH;
use crate::health::starting::Starting;

/// The most that is read of what it prints.
const OUTPUT_BYTES: u64 = 4096;
/// Most that ending a program whose time is over may take.
pub(super) const ENDING: Duration = Duration::from_secs(1);
/// How long what it printed may take to arrive after its end.
const LAST_WORDS: Duration = Duration::from_millis(100);

static STARTING: Starting = Starting::new(&PLACES);

/// `time`: what the run may take. It is watched here, so that what the program has said until then is not lost.
pub(super) async fn probe(
    reach: &Reach,
    probe: &ExternalProbe,
    time: Duration,
) -> Result<Good, Failure> {
    let mut over = pin!(sleep(time));
    let mut command = Command::new(&probe.command);
    command
        .args(&probe.arguments)
        .arg(reach.address.to_string())
        .arg(reach.port.to_string())
        .env_clear()
        .env("PATH", PATH)
        .env("DIRECTOR_SERVER", reach.address.to_string())
        .env("DIRECTOR_PORT", reach.port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let shown = probe.command.display();
    let started = tokio::select! {
        started = STARTING.start(&probe.command, command) => started,
        () = &mut over => return Err(Failure::new(
            FailureKind::TimedOut,
            format!(
                "{shown} could not be started within {} ms; does its file system answer?",
                time.as_millis()
            ),
        )),
    };
    let mut group = started.map_err(|error| {
        Failure::new(
            FailureKind::of_beginning(&error),
            format!("{shown} cannot be started: {error}"),
        )
    })?;
    let (output, complaint) = (group.child.stdout.take(), group.child.stderr.take());
    let mut words = (Vec::new(), Vec::new());
    let ended = {
        let mut reading = pin!(async {
            tokio::join!(read(output, &mut words.0), read(complaint, &mut words.1));
        });
        let mut is_read = false;
        let ended = loop {
            tokio::select! {
                ended = group.child.wait() => break Some(ended),
                () = &mut reading, if !is_read => is_read = true,
                () = &mut over => break None,
            }
        };
        // Children that hold the pipes open end with it.
        group.kill();
        if !is_read {
            // One that has left the group may hold them for ever.
            let _ = timeout(LAST_WORDS, reading).await;
        }
        ended
    };
    let words = first_line(&words.0).or_else(|| first_line(&words.1));
    let Some(ended) = ended else {
        let said = words.map(|words| format!("; it said: {words}"));
        return Err(Failure::new(
            FailureKind::TimedOut,
            format!(
                "{shown} did not end within {} ms{}",
                time.as_millis(),
                said.unwrap_or_default()
            ),
        ));
    };
    let status = ended.map_err(|error| {
        Failure::new(
            FailureKind::Local,
            format!("{shown} cannot be waited for: {error}"),
        )
    })?;
    if status.success() {
        return Ok(Good::new(
            words.unwrap_or_else(|| "exit status 0".to_owned()),
        ));
    }
    let why = words.map(|words| format!(": {words}")).unwrap_or_default();
    Err(Failure::new(
        FailureKind::Unexpected,
        format!("{shown}: {status}{why}"),
    ))
}

/// Waits for what is being started, so that it does not outlive the director; not for what hangs.
pub(in crate::health) async fn settle() {
    // An error: it hangs.
    drop(timeout(ENDING, STARTING.settle()).await);
}

async fn read(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    if let Some(from) = from {
        // What cannot be read is not shown. What is more than that is thrown away: a program whose pipe is closed would fail.
        let mut first = from.take(OUTPUT_BYTES);
        drop(first.read_to_end(into).await);
        drop(tokio::io::copy(&mut first.into_inner(), &mut tokio::io::sink()).await);
    }
}

fn first_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().find(|line| !line.trim().is_empty())?;
    Some(line.trim().to_owned())
}
