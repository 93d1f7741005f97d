//! Set-up, build, demonstration, tests and benchmark: the commands for people.
//!
//! A thin program: it finds and starts tools. What it knows of this project is the names of the packages it
//! builds and of the programs `lab` and `bench` that it hands over to.

mod bench;
mod bpf;
mod lab;
mod process;
mod setup;
mod test;
mod userspace;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Set-up, build, demonstration, tests and benchmark of Director",
    after_help = "\
Examples:
  cargo xtask demo               install what is missing, build, and watch real requests being balanced
  cargo xtask test               everything that must pass: format, lints, unit tests, packets, lab
  cargo xtask setup --dry-run    what would be installed here, and why
  cargo xtask bench --quick      what packets, failovers, loads cost, against the goals
  cargo xtask lab up             a lab of network namespaces to look around in

Exit codes: 0 done, 1 something failed, 2 wrong usage."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find what is missing for building and testing, and install it
    Setup {
        /// Say what would be installed and why, and install nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Build the programs for the kernel, then everything else
    Build(BuildOptions),
    /// Format, lints, unit tests, packets through the kernel, lab: all that must pass
    Test {
        /// Leave nothing out: run the slow tests too, and count it as a failure that tests cannot run here for want of
        /// root (that always so where CI=true)
        #[arg(long)]
        all: bool,
    },
    /// Watch real requests cross the load balancer: NAT, then DR, then TUN
    Demo {
        /// Leave the lab up afterwards and say how to look around
        #[arg(long)]
        keep: bool,
        #[command(flatten)]
        build: BuildOptions,
    },
    /// What packets cost, and all else that takes time, beside others in the same run, against the goals
    #[command(disable_help_flag = true)]
    Bench {
        /// Handed to the benchmark as they are; `cargo xtask bench --help` shows them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// A lab of network namespaces: up, down, status, shell HOST
    #[command(disable_help_flag = true)]
    Lab {
        /// Handed to the lab program as they are; `cargo xtask lab --help` shows them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// How userspace is built; the programs for the kernel are always optimised.
#[derive(Args, Clone, Copy, Debug, Default)]
struct BuildOptions {
    /// Optimise userspace too
    #[arg(long)]
    release: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    match command {
        Command::Setup { dry_run: true } => setup::show(&workspace, setup::Purpose::Test),
        Command::Setup { dry_run: false } => setup::install(&workspace, setup::Purpose::Test),
        Command::Build(options) => {
            bpf::build(&workspace)?;
            userspace::build(&workspace, options)
        }
        Command::Test { all } => test::run_from_command_line(&workspace, all),
        Command::Demo { keep, build } => lab::demo(&workspace, keep, build),
        Command::Bench { arguments } => bench::run(&workspace, &arguments),
        Command::Lab { arguments } => lab::run(&workspace, &arguments),
    }
}
