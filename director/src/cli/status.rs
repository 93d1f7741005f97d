//! `director status`.

use std::process::ExitCode;
use std::time::SystemTime;

use super::SILENT;
use super::arguments::Socket;
use super::server::socket_path;
use crate::control::{fetch_status, render};

/// Asks the running director and prints its answer.
pub(super) fn status(socket: &Socket, json: bool) -> anyhow::Result<ExitCode> {
    let status = match fetch_status(&socket_path(socket)?) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("director: {error}");
            return Ok(ExitCode::from(SILENT));
        }
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{}", render(&status, SystemTime::now()));
    }
    Ok(ExitCode::SUCCESS)
}
