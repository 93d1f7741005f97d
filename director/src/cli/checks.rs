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
                "no health check is sent to {server}; expected: the address of a real server, with or without its port, as in \
                 the list that this command gives without --server, or as `director status` has it"
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

/// Whether a check is of a real server, which an operator names by its address, or that and a port: its own, as in
/// `director status`, or the one that is asked.
fn is_of(check: &CheckStatus, server: &str) -> bool {
    let mut ports = check.service_ports.iter().chain([&check.port]);
    server.parse() == Ok(check.server)
        || ports.any(|port| server.parse() == Ok(SocketAddr::new(check.server, *port)))
}

/// Has the running director load its file again.
pub(super) fn reload(socket: &Socket, json: bool) -> anyhow::Result<ExitCode> {
    show_outcome(send_reload(&socket_path(socket)?), json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_servers_by_their_names() {
        let check = serde_json::json!({
            "server": "10.0.0.1", "port": 9000, "service_ports": [80, 8080], "check": "http", "services": ["web"],
            "state": "up", "for_s": 1, "words": "", "runs": 1, "failures": 0, "next_in_ms": 1, "history": [],
        });
        let check: CheckStatus = serde_json::from_value(check).unwrap();
        let cases = [
            ("10.0.0.1", true),
            ("10.0.0.1:9000", true),
            ("10.0.0.1:80", true),
            ("10.0.0.1:8080", true),
            ("10.0.0.1:81", false),
            ("10.0.0.2", false),
            ("web", false),
        ];
        for (server, expected) in cases {
            assert_eq!(is_of(&check, server), expected, "{server}");
        }
    }
}
