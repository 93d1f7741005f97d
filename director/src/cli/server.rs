//! `director server` and `director services`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::SILENT;
use super::arguments::{ServerAction, Socket};
use super::output::{show, show_json, show_outcome};
use crate::config;
use crate::control::{
    ServerCommand, ServerSaid, Status, fetch_status, render_services, send_command,
};

/// Has the running director change a real server.
pub(super) fn server(
    socket: &Socket,
    action: &ServerAction,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let (which, said) = match action {
        ServerAction::Weight { which, weight } => (which, ServerSaid::Weight(*weight)),
        ServerAction::Drain { which, within } => {
            let within_s = within.map(|within| within.as_secs());
            (which, ServerSaid::Drain { within_s })
        }
        ServerAction::Disable { which } => (which, ServerSaid::Disable),
        ServerAction::Enable { which } => (which, ServerSaid::Enable),
    };
    let command = ServerCommand {
        service: which.service.clone(),
        server: which.server.clone(),
        said,
    };
    show_outcome(send_command(&socket_path(socket)?, &command), json)
}

/// The running director's status. `None`: none answers, which has been said.
pub(super) fn ask(socket: &Socket) -> anyhow::Result<Option<Status>> {
    Ok(fetch_status(&socket_path(socket)?)
        .inspect_err(|error| eprintln!("director: {error}"))
        .ok())
}

/// Lists services.
pub(super) fn services(socket: &Socket, json: bool) -> anyhow::Result<ExitCode> {
    let Some(status) = ask(socket)? else {
        return Ok(ExitCode::from(SILENT));
    };
    if json {
        show_json(&status.services)?;
    } else {
        show(&render_services(&status))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the running director listens.
pub(super) fn socket_path(socket: &Socket) -> anyhow::Result<PathBuf> {
    match &socket.socket {
        Some(socket) => Ok(socket.clone()),
        None => of_config(&socket.config),
    }
}

/// A file that somebody is half through editing does not keep an operator from the director that runs.
fn of_config(file: &Path) -> anyhow::Result<PathBuf> {
    match config::load(file) {
        Ok(config) => Ok(config.control_socket),
        Err(error) => {
            let socket = fs::read_to_string(file)
                .ok()
                .and_then(|text| config::guess_control_socket(&text));
            let Some(socket) = socket else {
                eprintln!(
                    "director: the socket's place is in the configuration; or say --socket PATH"
                );
                return Err(error.into());
            };
            eprintln!(
                "director: {error}\n\ndirector: asking on {} all the same; --socket PATH says another",
                socket.display()
            );
            Ok(socket)
        }
    }
}
