//! The command line.

mod absent;
mod agent;
mod arguments;
mod check;
mod checks;
mod conns;
mod decap;
mod explain;
mod heartbeat;
mod output;
mod server;
mod status;
mod sync;

use std::process::ExitCode;

use ::heartbeat::control::Question;
use ::heartbeat::log;
use clap::Parser;

use self::arguments::{Arguments, Command};
use crate::config::{self, ConfigError};
use crate::run::{RunOptions, run};
use crate::words::in_words;

/// Something failed while running.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
const WRONG: u8 = 2;
/// No director answers.
const SILENT: u8 = 3;

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let log = match log::start(arguments.log_level) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("director: cannot start the thread that writes the log: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let result = match &arguments.command {
        Command::Run { config, bpffs } => run(&RunOptions {
            config: config.path().to_owned(),
            bpffs: bpffs.clone(),
        })
        .map(|()| ExitCode::SUCCESS),
        Command::Check { config, json } => check::check(config.path(), *json),
        Command::Status { socket, json } => status::status(socket, *json),
        Command::Services { socket, json } => server::services(socket, *json),
        Command::Checks {
            socket,
            server,
            history,
            json,
        } => checks::checks(socket, server.as_deref(), *history, *json),
        Command::Reload { socket, json } => checks::reload(socket, *json),
        Command::Heartbeat { socket, json } => heartbeat::tell(socket, *json),
        Command::Sync { socket, json } => sync::tell(socket, *json),
        Command::Standby { group, socket } => {
            let question = |group| Question::Standby { group };
            heartbeat::order(socket, "standby", group.clone(), question)
        }
        Command::Takeover { group, socket } => {
            let question = |group| Question::Takeover { group };
            heartbeat::order(socket, "takeover", group.clone(), question)
        }
        Command::Ready { group, socket } => {
            let question = |group| Question::Ready { group };
            heartbeat::order(socket, "ready", group.clone(), question)
        }
        Command::Server {
            action,
            socket,
            json,
        } => server::server(socket, action, *json),
        Command::Conns(options) => conns::conns(options),
        Command::Explain(options) => explain::explain_packets(options),
        Command::Schema => schema(),
        Command::Agent(options) => agent::agent(options).map(|()| ExitCode::SUCCESS),
        Command::Decap(options) => decap::decap(options).map(|()| ExitCode::SUCCESS),
    };
    // What was said before the error stands before it.
    drop(log);
    result.unwrap_or_else(|error| {
        eprintln!("director: {}", in_words(&error));
        ExitCode::from(if error.is::<ConfigError>() {
            WRONG
        } else {
            FAILED
        })
    })
}

fn schema() -> anyhow::Result<ExitCode> {
    output::show_json(&config::schema())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn which_file_is_meant() {
        let default = "/etc/director/director.yaml";
        let rows: [(&[&str], Option<&str>); 7] = [
            (&["check"], Some(default)),
            (&["check", "a.yaml"], Some("a.yaml")),
            (&["check", "a.yaml", "--json"], Some("a.yaml")),
            (&["check", "-c", "a.yaml"], Some("a.yaml")),
            (&["check", "a.yaml", "-c", "b.yaml"], None),
            (&["check", "a.yaml", "b.yaml"], None),
            (&["run", "a.yaml"], Some("a.yaml")),
        ];
        for (words, expected) in rows {
            let words = ["director"].iter().chain(words);
            let found = Arguments::try_parse_from(words).ok().map(|it| it.command);
            let found = found.as_ref().map(|command| match command {
                Command::Check { config, .. } | Command::Run { config, .. } => config.path(),
                other => panic!("{other:?}"),
            });
            assert_eq!(found, expected.map(Path::new));
        }
    }

    /// Who asks for help sees an example and what the exit codes are.
    #[test]
    fn every_command_has_an_example() {
        fn look(command: &clap::Command, above: &str) {
            let name = format!("{above} {}", command.get_name());
            let help = command.get_after_help();
            let help = help.map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{name}");
            for below in command.get_subcommands() {
                look(below, &name);
            }
        }
        look(&Arguments::command(), "");
    }
}
