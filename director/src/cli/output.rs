//! What commands print.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;

use super::{FAILED, SILENT, WRONG};
use crate::control::ClientError;

/// Prints an answer. Whoever closes the pipe early (`director status | head`) has seen enough: `print!` would panic.
pub(super) fn show(text: &str) -> anyhow::Result<()> {
    show_to(io::stdout().lock(), text)
}

fn show_to(mut out: impl Write, text: &str) -> anyhow::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// Prints an answer as JSON for people and programs.
pub(super) fn show_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    show(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Says what came of an order: the director's words, or as JSON `{"done": …}` or `{"error": …}`.
pub(super) fn show_outcome(
    outcome: Result<String, ClientError>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    match outcome {
        Ok(done) if json => show_json(&serde_json::json!({ "done": done }))?,
        Ok(done) => show(&format!("{done}\n"))?,
        Err(error) => {
            if json {
                show_json(&serde_json::json!({ "error": error.to_string() }))?;
            } else {
                eprintln!("director: {error}");
            }
            return Ok(ExitCode::from(match error {
                ClientError::Refused(_) => WRONG,
                ClientError::Failed(_) => FAILED,
                ClientError::Connect { .. } | ClientError::Answer { .. } => SILENT,
            }));
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails like this, at the first byte.
    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
        assert!(show_to(Failing(io::ErrorKind::BrokenPipe), "text").is_ok());
        assert!(show_to(Failing(io::ErrorKind::StorageFull), "text").is_err());
        let mut text = Vec::new();
        show_to(&mut text, "text").expect("a vector takes everything");
        assert_eq!(text, b"text");
    }
}
