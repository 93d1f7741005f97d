//! The `heartbeat` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    heartbeat::cli::main()
}
