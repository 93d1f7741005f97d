//! Running the system's commands, with errors that say what they said.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::interrupt;

/// Runs a command to its end and gives its standard output.
///
/// # Errors
/// It could not be started, or failed: with the command and what it wrote to standard error.
pub(crate) fn run(command: &mut Command, input: &str) -> Result<String> {
    // Once an interrupt is being handled nothing new is made.
    let _going_on = interrupt::going_on();
    run_always(command, input)
}

/// Like [`run`], also while cleaning up after an interrupt.
pub(super) fn run_always(command: &mut Command, input: &str) -> Result<String> {
    let words = shown(command);
    let missing = || format!("could not start `{words}`; is it installed? (cargo xtask setup)");
    // In a process group of its own, a Ctrl-C meant for this program does not cut the command short.
    let mut child = command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may end before having read all: then its own message says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("waiting for `{words}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let given = if input.is_empty() {
            String::new()
        } else {
            format!("\nwhat it was given:\n{input}")
        };
        bail!(
            "`{words}` failed ({}): {}{given}",
            output.status,
            said.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `ip` with these arguments.
pub(super) fn ip(arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(arguments);
    command
}

/// A command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
