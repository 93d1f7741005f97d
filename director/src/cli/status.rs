//! `director status`.

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use super::SILENT;
use crate::config;
use crate::control::{fetch_status, render};

/// Asks the running director and prints its answer.
pub(super) fn status(config: &Path, socket: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    let socket =
        match socket {
            Some(socket) => socket.to_owned(),
            None => config::load(config)
                .inspect_err(|_| {
                    eprintln!(
                        "director: the socket's place is in the configuration; or say --socket PATH"
                    )
                })?
                .control_socket,
        };
    let status = match fetch_status(&socket) {
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
