//! `director heartbeat`, `standby`, `takeover` and `ready`.

use std::process::ExitCode;

use heartbeat::control::Question;

use super::arguments::Socket;
use super::server::socket_path;
use super::{SILENT, WRONG};
use crate::control::{ClientError, send_question};

/// Shows how the heartbeat is.
pub(super) fn show(socket: &Socket, json: bool) -> anyhow::Result<ExitCode> {
    match send_question(&socket_path(socket)?, &Question::Status) {
        Ok(status) if json => println!("{}", serde_json::to_string_pretty(&status)?),
        Ok(status) => print!("{}", heartbeat::cli::shown(&status)),
        Err(error) => return Ok(failed(&error)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Gives an order for a group, or for all.
pub(super) fn order(
    socket: &Socket,
    word: &str,
    group: Option<String>,
    question: impl FnOnce(Option<String>) -> Question,
) -> anyhow::Result<ExitCode> {
    let shown = group
        .as_ref()
        .map_or_else(|| "all groups".to_owned(), |group| format!("group {group}"));
    if let Err(error) = send_question(&socket_path(socket)?, &question(group)) {
        return Ok(failed(&error));
    }
    println!("{word} ordered for {shown}; `director heartbeat` shows what comes of it");
    Ok(ExitCode::SUCCESS)
}

fn failed(error: &ClientError) -> ExitCode {
    eprintln!("director: {error}");
    ExitCode::from(match error {
        ClientError::Refused(_) => WRONG,
        _ => SILENT,
    })
}
