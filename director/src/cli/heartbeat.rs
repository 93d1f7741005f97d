//! `director heartbeat`, `standby`, `takeover` and `ready`.

use std::process::ExitCode;

use heartbeat::control::Question;

use super::arguments::Socket;
use super::output::{show, show_json, show_outcome};
use super::server::{socket_path, sure_socket_path};
use crate::control::send_question;

/// Shows how the heartbeat is.
pub(super) fn tell(socket: &Socket, json: bool) -> anyhow::Result<ExitCode> {
    match send_question(&socket_path(socket)?, &Question::Status) {
        Ok(status) if json => show_json(&status)?,
        Ok(status) => show(&heartbeat::cli::shown(&status))?,
        Err(error) => return show_outcome(Err(error), json),
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
    let done = format!("{word} ordered for {shown}; `director heartbeat` shows what comes of it");
    let said = send_question(&sure_socket_path(socket)?, &question(group));
    show_outcome(
        said.map(|answer| done + &heartbeat::cli::delayed(&answer)),
        false,
    )
}
