//! A program gets the alert on its standard input and in its environment. Exit status 0: it is delivered.
//!
//! It is the leader of a process group of its own, which is killed when it ends or its time is over.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

use super::{Letter, PLACES};
use crate::config::ProgramWay;
use crate::health::group::PATH;
use crate::health::starting::Starting;

/// The most that is read of its complaints.
const COMPLAINT_BYTES: u64 = 4096;

static STARTING: Starting = Starting::new(&PLACES);

/// `time`: that of the whole delivery. Half of it is left for what the program does.
pub(super) async fn run(way: &ProgramWay, letter: &Letter, time: Duration) -> Result<(), String> {
    let mut command = Command::new(&way.command);
    command
        .args(&way.arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("DIRECTOR_INSTANCE", &letter.instance)
        .env("DIRECTOR_SUBJECT", &letter.subject)
        .env("DIRECTOR_EVENTS", letter.events.to_string())
        .envs(letter.single.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let shown = way.command.display();
    let patience = time / 2;
    let started = timeout(patience, STARTING.start(&way.command, command))
        .await
        .map_err(|_| {
            format!(
                "{shown} could not be started within {} ms; does its file system answer?",
                patience.as_millis()
            )
        })?;
    let mut group = started.map_err(|error| format!("{shown} cannot be started: {error}"))?;
    let (input, complaint) = (group.child.stdin.take(), group.child.stderr.take());
    let mut words = Vec::new();
    let ended = {
        let talk = async {
            let write = async {
                if let Some(mut input) = input {
                    // One that does not want to read it all may say so by closing it.
                    let _ = input.write_all(letter.text.as_bytes()).await;
                }
            };
            let read = async {
                if let Some(complaint) = complaint {
                    let mut complaint = complaint.take(COMPLAINT_BYTES);
                    // What cannot be read is not shown.
                    let _ = complaint.read_to_end(&mut words).await;
                    // A program must not be stopped by words that nobody wants.
                    let _ = tokio::io::copy(complaint.get_mut(), &mut tokio::io::sink()).await;
                }
            };
            tokio::join!(write, read)
        };
        tokio::pin!(talk);
        let mut is_over = false;
        loop {
            tokio::select! {
                // What it said last is read before its end is seen.
                biased;
                _ = &mut talk, if !is_over => is_over = true,
                ended = group.child.wait() => break ended,
            }
        }
    };
    group.kill();
    let status = ended.map_err(|error| format!("{shown} cannot be waited for: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&words);
    let line = words.lines().find(|line| !line.trim().is_empty());
    let why = line.map(|line| format!(": {}", line.trim()));
    Err(format!("{shown}: {status}{}", why.unwrap_or_default()))
}
