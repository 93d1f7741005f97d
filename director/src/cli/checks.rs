//! `director checks` and `director reload`.

use std::process::ExitCode;

use super::arguments::Socket;
use super::server::socket_path;
use super::{SILENT, WRONG};
use crate::control::{ClientError, fetch_checks, render_checks, send_reload};

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
        println!("{}", serde_json::to_string_pretty(&checks)?);
    } else if checks.is_empty() {
        println!("no health checks");
    } else {
        print!("{}", render_checks(&checks, history));
    }
    Ok(ExitCode::SUCCESS)
}

/// Has the running director load its file again.
pub(super) fn reload(socket: &Socket) -> anyhow::Result<ExitCode> {
    match send_reload(&socket_path(socket)?) {
        Ok(done) => {
            println!("{done}");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("director: {error}");
            Ok(ExitCode::from(match error {
                ClientError::Refused(_) => WRONG,
                _ => SILENT,
            }))
        }
    }
}
