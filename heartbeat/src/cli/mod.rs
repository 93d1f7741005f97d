//! The commands.

mod arguments;
mod run;
mod status;

pub use self::status::shown;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use self::arguments::{Arguments, Command, Order};
use crate::config::{self, Config, ConfigError};
use crate::control::{ClientError, Question, ask};
use crate::wire::auth::Keyring;

/// Something failed while running.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
const WRONG: u8 = 2;
/// No heartbeat answers.
const SILENT: u8 = 3;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Run {
            config,
            socket,
            mark,
        } => run::run(config.path(), &socket.socket, mark, arguments.log_level),
        Command::Check { config, json } => check(config.path(), json),
        Command::Status { socket, json } => status::status(&socket.socket, json),
        Command::Standby { order } => give(order, "standby", |group| Question::Standby { group }),
        Command::Takeover { order } => {
            give(order, "takeover", |group| Question::Takeover { group })
        }
        Command::Ready { order } => give(order, "ready", |group| Question::Ready { group }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("heartbeat: {error:#}");
            ExitCode::from(code(&error))
        }
    }
}

fn code(error: &anyhow::Error) -> u8 {
    if error.is::<ConfigError>() {
        return WRONG;
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Silent { .. } | ClientError::Strange { .. }) => SILENT,
        Some(ClientError::Refused(_)) | None => FAILED,
    }
}

/// Loads the configuration of the node that this machine is.
fn load(path: &Path) -> anyhow::Result<(Config, Keyring)> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Ok(config::load(path, host.trim())?)
}

fn check(path: &Path, json: bool) -> anyhow::Result<()> {
    let (config, _) = load(path)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&config)?);
        return Ok(());
    }
    let names: Vec<&str> = config
        .groups
        .iter()
        .map(|group| group.name.as_str())
        .collect();
    println!("{}: right", path.display());
    println!("  node   {} of {}", config.node, config.nodes.join(", "));
    let links: Vec<&str> = config.links.iter().map(|link| link.name.as_str()).collect();
    println!("  links  {}", links.join(", "));
    println!("  groups {}", names.join(", "));
    if let Some(warning) = config::unsigned(&config) {
        println!("\nwarning: {warning}");
    }
    Ok(())
}

fn give(
    order: Order,
    word: &str,
    question: impl FnOnce(Option<String>) -> Question,
) -> anyhow::Result<()> {
    let shown = order
        .group
        .as_ref()
        .map_or_else(|| "all groups".to_owned(), |group| format!("group {group}"));
    let answer = ask(&order.socket.socket, &question(order.group))?;
    println!(
        "{word} ordered for {shown}; `heartbeat status` shows what comes of it{}",
        delayed(&answer)
    );
    Ok(())
}

/// What is to be said besides of an order that was answered so.
#[must_use]
pub fn delayed(answer: &serde_json::Value) -> String {
    let delay = answer.as_str();
    delay.map_or_else(String::new, |why| format!("\nnot at once: {why}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn which_file_is_checked() {
        let rows: [(&[&str], Option<&str>); 5] = [
            (&[], Some("/etc/director/heartbeat.yaml")),
            (&["a.yaml"], Some("a.yaml")),
            (&["--config", "a.yaml"], Some("a.yaml")),
            (&["a.yaml", "--config", "b.yaml"], None),
            (&["a.yaml", "b.yaml"], None),
        ];
        for (words, expected) in rows {
            let words = ["heartbeat", "check"].iter().chain(words);
            let found = Arguments::try_parse_from(words).ok().map(|it| it.command);
            let found = found.as_ref().map(|command| match command {
                Command::Check { config, .. } => config.path(),
                other => panic!("{other:?}"),
            });
            assert_eq!(found, expected.map(Path::new));
        }
    }
}
