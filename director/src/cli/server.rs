//! `director server` and `director services`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::SILENT;
use super::arguments::{ServerAction, Socket};
use super::output::{show, show_json, show_outcome};
use crate::config::{self, ConfigError};
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
    show_outcome(send_command(&sure_socket_path(socket)?, &command), json)
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

/// Where the running director listens that is asked something. A file that somebody is half through editing does not keep an
/// operator from it: what it most probably names is taken, and told.
pub(super) fn socket_path(socket: &Socket) -> anyhow::Result<PathBuf> {
    match &socket.socket {
        Some(socket) => Ok(socket.clone()),
        None => Ok(of_config(&socket.config).or_else(|error| guess(&socket.config, error))?),
    }
}

/// Where the running director listens that is to change something: none is guessed, since another one would change.
pub(super) fn sure_socket_path(socket: &Socket) -> anyhow::Result<PathBuf> {
    match &socket.socket {
        Some(socket) => Ok(socket.clone()),
        None => Ok(of_config(&socket.config).inspect_err(|_| {
            eprintln!(
                "director: nothing is changed, since only a configuration without mistakes says which director is meant; or \
                 say --socket PATH"
            );
        })?),
    }
}

fn of_config(file: &Path) -> Result<PathBuf, ConfigError> {
    config::load_of_running(file).map(|config| config.control_socket)
}

fn guess(file: &Path, error: ConfigError) -> Result<PathBuf, ConfigError> {
    let socket = config::read_regular_text(file)
        .ok()
        .and_then(|text| config::guess_control_socket(&text));
    let Some(socket) = socket else {
        eprintln!("director: the socket's place is in the configuration; or say --socket PATH");
        return Err(error);
    };
    eprintln!(
        "director: {error}\n\ndirector: asking on {} all the same; --socket PATH says another",
        socket.display()
    );
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn which_director_is_meant() {
        let directory = std::env::temp_dir().join(format!("director-which-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (file, pipe) = (directory.join("file"), directory.join("pipe"));
        // Nobody writes to it: whoever waits for that hangs.
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let good = "interfaces: [lo]\ninstance: blue\n";
        let unreadable_key = "interfaces: [lo]\ninstance: blue\nsync: {interface: lo, key: {id: 1, file: /nowhere}}\n";
        let (blue, other) = (Some("/run/director/blue.sock"), Some("/other"));
        // (file, text, --socket, where it asks, where it changes something)
        let cases = [
            (&file, good, None, blue, blue),
            (&file, unreadable_key, None, blue, blue),
            (&file, "instance: blue\nnonsense: [\n", None, blue, None),
            (&file, "interfaces: [lo]\nnonsense: 1\n", None, None, None),
            (&file, "nonsense: [\n", other, other, other),
            (&pipe, "", None, None, None),
            (&pipe, "", other, other, other),
            (&directory, "", None, None, None),
        ];
        for (path, text, socket, asks, changes) in cases {
            fs::write(&file, text).unwrap();
            let socket = Socket {
                config: path.clone(),
                socket: socket.map(PathBuf::from),
            };
            let found = [socket_path(&socket), sure_socket_path(&socket)];
            let found = found.map(Result::ok);
            assert_eq!(
                found,
                [asks, changes].map(|it| it.map(PathBuf::from)),
                "{text}"
            );
        }
        fs::remove_dir_all(&directory).unwrap();
    }
}
