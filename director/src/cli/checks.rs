//! `director checks` and `director reload`.

use std::net::SocketAddr;
use std::process::ExitCode;

use super::SILENT;
use super::arguments::Socket;
use super::output::{show, show_json, show_outcome};
use super::server::socket_path;
use crate::control::{CheckStatus, fetch_checks, render_checks, send_reload};

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
        checks.retain(|check| is_of(check, server));
        if checks.is_empty() {
            anyhow::bail!(
                "no health check is sent to {server}; expected: the address of a real server, with or without the port that \
                 is asked, as in the list that this command gives without --server"
            );
        }
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

/// Whether a check is of a real server, which an operator names by its address, or that and its port.
fn is_of(check: &CheckStatus, server: &str) -> bool {
    server.parse() == Ok(check.server)
        || server.parse() == Ok(SocketAddr::new(check.server, check.port))
}

/// Has the running director load its file again.
pub(super) fn reload(socket: &Socket, json: bool) -> anyhow::Result<ExitCode> {
    show_outcome(send_reload(&socket_path(socket)?), json)
}
