//! `director checks` and `director reload`.

use std::process::ExitCode;

use super::SILENT;
use super::arguments::Socket;
use super::output::{show, show_json, show_outcome};
use super::server::socket_path;
use crate::control::{fetch_checks, render_checks, send_reload};

/// Lists health checks.
pub(super) fn checks(
    socket: &Socket,
    server: Option<&str>,
    history: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mut checks = match fetch_checks(&socket_path(socket)?) {
        Ok(checks) => checks,
        Err(error) => {
            eprintln!("director: {error}");
            return Ok(ExitCode::from(SILENT));
        }
    };
    if let Some(server) = server {
        checks.retain(|check| {
            check.server.to_string() == server
                || std::net::SocketAddr::new(check.server, check.port).to_string() == server
        });
    }
    if json {
        show_json(&checks)?;
    } else if checks.is_empty() {
        show("no health checks\n")?;
    } else {
        show(&render_checks(&checks, history))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Has the running director load its file again.
pub(super) fn reload(socket: &Socket, json: bool) -> anyhow::Result<ExitCode> {
    show_outcome(send_reload(&socket_path(socket)?), json)
}
