//! What can stand on the command line.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::filter::LevelFilter;

/// Where the configuration is by convention.
const DEFAULT_CONFIG: &str = "/etc/director/heartbeat.yaml";
/// Where the operator's socket is by convention.
const DEFAULT_SOCKET: &str = "/run/heartbeat.sock";

/// Failover of virtual addresses between two or more nodes, without a load balancer. (The director has it inside.)
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "\
Examples:
  heartbeat check ./two-nodes.yaml       before anything else
  heartbeat run --config ./two-nodes.yaml
  heartbeat status                       who serves what, and why
  heartbeat standby; heartbeat ready     before and after work on this node

`heartbeat COMMAND --help` has more examples.
Exit codes: 0 done, 1 failed or refused, 2 wrong file or command line, 3 no heartbeat answers.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
    /// How much is logged on standard error: off, error, warn, info, debug or trace.
    #[arg(
        long,
        global = true,
        env = "HEARTBEAT_LOG",
        default_value = "info",
        value_name = "LEVEL"
    )]
    pub(super) log_level: LevelFilter,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Be a node: send and hear heartbeats, take addresses over, give them up.
    #[command(after_help = "\
Examples:
  heartbeat run
  heartbeat run --config ./two-nodes.yaml --log-level debug

Needs CAP_NET_ADMIN and CAP_NET_RAW; better with CAP_SYS_NICE and CAP_IPC_LOCK, so that load on
this machine does not fake its death.

Signals:
  SIGTERM, SIGINT  release all groups, tell the other nodes, end
  SIGHUP           nothing: the configuration is read at the start only

Exit codes: 0 stopped as asked, 1 cannot run, 2 the configuration or the command line is wrong.")]
    Run {
        #[command(flatten)]
        config: Configuration,
        #[command(flatten)]
        socket: Socket,
        /// What tells its addresses from everybody else's (`proto` in `ip address`); several heartbeats in one network
        /// namespace need different ones.
        #[arg(long, default_value_t = crate::takeover::MARK, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(4..))]
        mark: u8,
    },
    /// Say whether the configuration is right.
    #[command(after_help = "\
Examples:
  heartbeat check ./two-nodes.yaml
  heartbeat check --json | jq '.groups[].name'

Exit codes: 0 it is right, 2 it is wrong.")]
    Check {
        #[command(flatten)]
        config: Configuration,
        /// Print it with all defaults applied, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show roles, other nodes, links, fitness and what happened lately.
    #[command(after_help = "\
Examples:
  heartbeat status
  heartbeat status --json | jq '.groups[] | {group, role, reason}'

Exit codes: 0 it answers, 3 no heartbeat answers.")]
    Status {
        #[command(flatten)]
        socket: Socket,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give groups to another node, and serve them again only if nobody else can.
    #[command(after_help = "\
Examples:
  heartbeat standby          all groups, before work on this node
  heartbeat standby web      one group; groups that move together follow
  heartbeat ready            after the work

Exit codes: 0 it is ordered, 1 refused, 3 no heartbeat answers.")]
    Standby {
        #[command(flatten)]
        order: Order,
    },
    /// Serve groups, whoever does now. They stay until this node fails or another order comes.
    #[command(after_help = "\
Examples:
  heartbeat takeover
  heartbeat takeover web

Exit codes: 0 it is ordered, 1 refused, 3 no heartbeat answers.")]
    Takeover {
        #[command(flatten)]
        order: Order,
    },
    /// Undo `standby` and `takeover`: be a node like the others again.
    #[command(after_help = "\
Examples:
  heartbeat ready
  heartbeat ready web

Exit codes: 0 it is ordered, 1 refused, 3 no heartbeat answers.")]
    Ready {
        #[command(flatten)]
        order: Order,
    },
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub(super) struct Configuration {
    /// The configuration, as after --config.
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The configuration.
    #[arg(long, short, default_value = DEFAULT_CONFIG, value_name = "FILE")]
    config: PathBuf,
}

impl Configuration {
    /// Where it is, by whichever of the two.
    pub(super) fn path(&self) -> &Path {
        self.file.as_deref().unwrap_or(&self.config)
    }
}

/// Where the operator's socket is.
#[derive(Debug, Args)]
pub(super) struct Socket {
    /// The operator's socket.
    #[arg(long, env = "HEARTBEAT_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub(super) socket: PathBuf,
}

/// An order.
#[derive(Debug, Args)]
pub(super) struct Order {
    /// The group; without it, all of them.
    pub(super) group: Option<String>,
    #[command(flatten)]
    pub(super) socket: Socket,
}
