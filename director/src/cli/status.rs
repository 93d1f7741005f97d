//! `director status`.

use std::process::ExitCode;
use std::time::SystemTime;

use super::SILENT;
use super::arguments::Socket;
use super::output::{show, show_json};
use super::server::ask;
use crate::control::render;

/// Asks the running director and prints its answer.
pub(super) fn status(socket: &Socket, json: bool) -> anyhow::Result<ExitCode> {
    let Some(status) = ask(socket)? else {
        return Ok(ExitCode::from(SILENT));
    };
    if json {
        show_json(&status)?;
    } else {
        show(&render(&status, SystemTime::now()))?;
    }
    Ok(ExitCode::SUCCESS)
}
