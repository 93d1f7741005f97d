//! The `director` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    director::cli::main()
}
