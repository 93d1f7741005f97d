//! What can stand on the command line.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use tracing_subscriber::filter::LevelFilter;

use crate::config::XdpMode;
use crate::datapath::DEFAULT_BPFFS;

/// Where the configuration is by convention.
const DEFAULT_CONFIG: &str = "/etc/director/director.yaml";

/// A Layer-4 load balancer for bare-metal Linux: NAT, direct routing and tunnels, in XDP.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "\
Examples:
  director check ./web.yaml              what a file means, and what is wrong with it
  director run --config ./web.yaml       balance until SIGTERM
  director status                        how the running one is
  director reload                        after a change of the file
  director server drain web 10.0.0.1 --within 10m
  director explain --from 198.51.100.7:40000 --to 192.0.2.10:80

Without --config it is /etc/director/director.yaml. `director COMMAND --help` has more examples.
Exit codes: 0 done, 1 it failed, 2 wrong configuration or command line, 3 no director answers.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
    /// How much is logged on standard error: off, error, warn, info, debug or trace.
    #[arg(
        long,
        global = true,
        env = "DIRECTOR_LOG",
        default_value = "info",
        value_name = "LEVEL"
    )]
    pub(super) log_level: LevelFilter,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Balance: attach the packet path to the configured interfaces until SIGTERM.
    #[command(after_help = "\
Examples:
  director run
  director run --config ./web.yaml --log-level debug

Signals:
  SIGHUP           load the configuration again; one that is wrong leaves the present one in force
  SIGTERM, SIGINT  detach, remove all tables, end; every connection is forgotten
  SIGKILL          the packet path goes on as it is; the next `director run` takes it over with all connections

Exit codes: 0 stopped as asked, 1 cannot run, 2 the configuration or the command line is wrong.")]
    Run {
        #[command(flatten)]
        config: Configuration,
        /// Where the BPF file system is; it is mounted there if it is not.
        #[arg(long, default_value = DEFAULT_BPFFS, value_name = "DIRECTORY")]
        bpffs: PathBuf,
    },
    /// Load the configuration, say what it means, touch nothing.
    #[command(after_help = "\
Examples:
  director check ./web.yaml
  director check --config ./web.yaml     the same
  director check --json | jq '.services[].name'

Exit codes: 0 it is right, 2 it is wrong.")]
    Check {
        #[command(flatten)]
        config: Configuration,
        /// Print it with all defaults applied, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ask the running director how it is.
    #[command(after_help = "\
Examples:
  director status
  director status --socket /run/director/main.sock --json

Exit codes: 0 it answers, 2 the configuration is wrong, 3 no director answers.")]
    Status {
        #[command(flatten)]
        socket: Socket,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the services: what they have, and what comes in each second.
    #[command(after_help = "\
Examples:
  director services
  director services --json | jq '.[] | {name, rates: .real_servers[].rates}'

Rates are averages of late, as IPVS makes them: every two seconds a quarter of the way to what was seen.
Exit codes: 0 it answers, 2 the configuration is wrong, 3 no director answers.")]
    Services {
        #[command(flatten)]
        socket: Socket,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the health checks: what each finds, since when, and its last results.
    #[command(after_help = "\
Examples:
  director checks
  director checks --server 10.0.0.1:80 --history
  director checks --json | jq '.[] | select(.state != \"up\")'

Exit codes: 0 it answers, 2 the configuration is wrong, 3 no director answers.")]
    Checks {
        #[command(flatten)]
        socket: Socket,
        /// Only those of this real server: ADDRESS, or ADDRESS:PORT with its port in services or the one that is asked.
        #[arg(long, value_name = "SERVER")]
        server: Option<String>,
        /// Each one's last results too.
        #[arg(long)]
        history: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Have the running director load its configuration again, as SIGHUP does, and say what came of it.
    #[command(after_help = "\
Examples:
  director check && director reload

Exit codes: 0 it is in force, 1 it is, but its heartbeat cannot start, 2 it is wrong and nothing has changed, 3 no director
answers.")]
    Reload {
        #[command(flatten)]
        socket: Socket,
        /// Print JSON: {"done": …} or {"error": …}.
        #[arg(long)]
        json: bool,
    },
    /// Show who is in charge of which virtual addresses, the other nodes, links, fitness, and what happened lately.
    #[command(after_help = "\
Examples:
  director heartbeat
  director heartbeat --json | jq '.history'

Exit codes: 0 it answers, 2 this director has no heartbeat, 3 no director answers.")]
    Heartbeat {
        #[command(flatten)]
        socket: Socket,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show with whom connections are shared: what each other director has of this one's, and this one of theirs.
    #[command(after_help = "\
Examples:
  director sync
  director sync --json | jq '.peers[] | {node, state, lag_records}'

Exit codes: 0 it answers, 2 this director shares its connections with nobody, 3 no director answers.")]
    Sync {
        #[command(flatten)]
        socket: Socket,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give groups of virtual addresses to another director, and serve them again only if nobody else can.
    #[command(after_help = "\
Examples:
  director standby        all groups, before work on this node
  director standby web    one group; groups that move together follow
  director ready          after the work

Exit codes: 0 it is ordered, 2 refused, 3 no director answers.")]
    Standby {
        /// The group; without it, all of them.
        group: Option<String>,
        #[command(flatten)]
        socket: Socket,
    },
    /// Serve groups of virtual addresses, whoever does now. They stay until this node fails or another order comes.
    #[command(after_help = "\
Examples:
  director takeover
  director takeover web

Exit codes: 0 it is ordered, 2 refused, 3 no director answers.")]
    Takeover {
        /// The group; without it, all of them.
        group: Option<String>,
        #[command(flatten)]
        socket: Socket,
    },
    /// Undo `standby` and `takeover`: be a node like the others again.
    #[command(after_help = "\
Examples:
  director ready
  director ready web

Exit codes: 0 it is ordered, 2 refused, 3 no director answers.")]
    Ready {
        /// The group; without it, all of them.
        group: Option<String>,
        #[command(flatten)]
        socket: Socket,
    },
    /// Change a real server at run time, apart from the configuration.
    ///
    /// It holds across reloads and restarts of the director until `enable`, and `director status` shows it.
    #[command(after_help = "\
Examples:
  director server weight web 10.0.0.1 5
  director server drain web 10.0.0.1:8080 --within 10m
  director server disable web 10.0.0.1
  director server enable web 10.0.0.1

Exit codes: 0 done, 1 it could not be done, 2 no such service or server, 3 no director answers.")]
    Server {
        #[command(subcommand)]
        action: ServerAction,
        #[command(flatten)]
        socket: Socket,
        /// Print JSON: {"done": …} or {"error": …}.
        #[arg(long, global = true)]
        json: bool,
    },
    /// List the connections in the tables of the packet path, whether a director runs or not.
    #[command(after_help = "\
Examples:
  director conns --limit 20
  director conns --service web --state established --count
  director conns --client 198.51.100.0/24 --json | jq -r .server | sort | uniq -c

States: SYN_RECV ESTABLISHED FIN_WAIT CLOSE_WAIT TIME_WAIT CLOSE UDP_ONE UDP. With --json each line is an object.
Exit codes: 0 listed, 1 cannot be read, 2 the configuration is wrong.")]
    Conns(ConnsArguments),
    /// Say what the packet path would do with a packet, step by step, without changing anything.
    ///
    /// It runs the very packet path over a copy of the live tables.
    #[command(after_help = "\
Examples:
  director explain --from 198.51.100.7:40000 --to 192.0.2.10:80
  director explain --from '[2001:db8::7]:40000' --to '[2001:db8::10]:53' --udp
  director explain --pcap trouble.pcap --json

Packets of a capture are run one after the other: what one enters, the next one finds.
Exit codes: 0 explained, 1 cannot be explained, 2 the configuration is wrong.")]
    Explain(ExplainArguments),
    /// Print the JSON Schema of the configuration, for editors.
    #[command(after_help = "Example:\n  director schema > director.schema.json")]
    Schema,
    /// On a real server: take tunnels (IPIP, GUE, GRE) off, where the kernel has no modules for them.
    #[command(after_help = "\
Examples:
  director decap --interface eth0
  director decap --interface eth0 --address 10.0.0.11 --gue-port 5555 --mode generic

The virtual addresses must be the real server's own, without answering ARP for them:
  ip address add 192.0.2.10/32 dev lo

It runs until SIGTERM or SIGINT and then detaches.")]
    Decap(DecapArguments),
    /// On a real server: say how loaded it is, to directors (`check: agent`) and to HAProxy (agent-check).
    ///
    /// Each connection gets one line, like "75%": what is left of all CPUs.
    #[command(after_help = "\
Examples:
  director agent
  director agent --listen 10.0.0.11:7777 --average 30s --minimum 10
  director agent --state-file /etc/director/agent

A state file holds one word: drain, maint or down; ready, up, an empty one and none say that all is well. Without
--state-file only the load is spoken of. It runs until SIGTERM or SIGINT.")]
    Agent(AgentArguments),
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

/// Where the running director listens.
#[derive(Debug, Args)]
pub(super) struct Socket {
    /// The configuration that says where its socket is.
    #[arg(long, short, global = true, default_value = DEFAULT_CONFIG, value_name = "FILE", conflicts_with = "socket")]
    pub(super) config: PathBuf,
    /// Its socket.
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
}

/// What to do with a real server.
#[derive(Debug, Subcommand)]
pub(super) enum ServerAction {
    /// Another weight; 0: no new connections but of clients that persistence keeps there.
    #[command(after_help = "\
Examples:
  director server weight web 10.0.0.1 5
  director server weight web 10.0.0.1:8080 0     quiesced; `enable` brings its weight back

Exit codes: 0 done, 1 it could not be done, 2 no such service or server, 3 no director answers.")]
    Weight {
        #[command(flatten)]
        which: Which,
        /// The weight.
        #[arg(value_parser = clap::value_parser!(u32).range(..=i64::from(i32::MAX)))]
        weight: u32,
    },
    /// No new connections at all, and after a time those that there are are closed: TCP is reset at both ends, as far as
    /// their packets pass here, so that clients connect anew at once.
    #[command(after_help = "\
Examples:
  director server drain web 10.0.0.1                    no new connections; the others go on
  director server drain web 10.0.0.1:8080 --within 10m  and in ten minutes those are closed
  director conns --service web --server 10.0.0.1 --count
  director server enable web 10.0.0.1                   undoes it

It holds across reloads and restarts until `enable`.
Exit codes: 0 done, 1 it could not be done, 2 no such service or server, 3 no director answers.")]
    Drain {
        #[command(flatten)]
        which: Which,
        /// After how long, like 90s or 10m. Without it they may go on as long as they like.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        within: Option<Duration>,
    },
    /// No new connections at all; those that there are go on.
    #[command(after_help = "\
Example:
  director server disable web 10.0.0.1

Exit codes: 0 done, 1 it could not be done, 2 no such service or server, 3 no director answers.")]
    Disable {
        #[command(flatten)]
        which: Which,
    },
    /// As configured again.
    #[command(after_help = "\
Example:
  director server enable web 10.0.0.1

Exit codes: 0 done, 1 it could not be done, 2 no such service or server, 3 no director answers.")]
    Enable {
        #[command(flatten)]
        which: Which,
    },
}

/// Which real server.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Name of the service.
    pub(super) service: String,
    /// The real server: ADDRESS, or ADDRESS:PORT where an address has several.
    pub(super) server: String,
}

/// What `conns` is told.
#[derive(Debug, Args)]
pub(super) struct ConnsArguments {
    /// The configuration that says the instance's name and what services are called.
    #[arg(long, short, default_value = DEFAULT_CONFIG, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Name of the instance, if not that of the configuration.
    #[arg(long, value_name = "NAME")]
    pub(super) instance: Option<String>,
    /// Where the BPF file system is.
    #[arg(long, default_value = DEFAULT_BPFFS, value_name = "DIRECTORY")]
    pub(super) bpffs: PathBuf,
    /// Only those of this service.
    #[arg(long, value_name = "NAME")]
    pub(super) service: Option<String>,
    /// Only those of this client or network.
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    pub(super) client: Option<IpNet>,
    /// Only those at this real server: ADDRESS or ADDRESS:PORT.
    #[arg(long, value_name = "SERVER")]
    pub(super) server: Option<String>,
    /// Only those in this state.
    #[arg(long, value_name = "STATE")]
    pub(super) state: Option<String>,
    /// Only so many.
    #[arg(long, value_name = "COUNT")]
    pub(super) limit: Option<usize>,
    /// Only how many there are.
    #[arg(long)]
    pub(super) count: bool,
    /// Print JSON, an object in each line.
    #[arg(long, conflicts_with = "count")]
    pub(super) json: bool,
}

/// A network, or one address.
fn prefix(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address
        .or_else(|_| text.parse::<IpNet>())
        .map_err(|_| "an address or a prefix like 198.51.100.0/24 is expected".to_owned())
}

/// What `explain` is told.
#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    /// The configuration that says the instance's name.
    #[arg(long, short, default_value = DEFAULT_CONFIG, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Name of the instance, if not that of the configuration.
    #[arg(long, value_name = "NAME")]
    pub(super) instance: Option<String>,
    /// Where the BPF file system is.
    #[arg(long, default_value = DEFAULT_BPFFS, value_name = "DIRECTORY")]
    pub(super) bpffs: PathBuf,
    /// Where the packet comes from.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "to")]
    pub(super) from: Option<SocketAddr>,
    /// Where it goes to.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "from")]
    pub(super) to: Option<SocketAddr>,
    /// A datagram, not a TCP segment.
    #[arg(long, conflicts_with = "flag")]
    pub(super) udp: bool,
    /// Which segment of a TCP connection.
    #[arg(long, value_enum, default_value_t = Flag::Syn)]
    pub(super) flag: Flag,
    /// The packets of a capture instead.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to", "udp", "flag"])]
    pub(super) pcap: Option<PathBuf>,
    /// The CPU on which it arrives.
    #[arg(long, default_value_t = 0, value_name = "CPU")]
    pub(super) cpu: u32,
    /// Print JSON, an object for each packet.
    #[arg(long)]
    pub(super) json: bool,
}

/// A segment of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Flag {
    /// The first one.
    Syn,
    /// One in the middle.
    Ack,
    /// The last one of an end.
    Fin,
    /// A reset.
    Rst,
}

/// What `decap` is told.
#[derive(Debug, Args)]
pub(super) struct DecapArguments {
    /// Interface that tunnels arrive by; may be given several times.
    #[arg(long, short, required = true, value_name = "NAME")]
    pub(super) interface: Vec<String>,
    /// Address at which tunnels end; may be given several times. By default the interfaces' own.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) address: Vec<IpAddr>,
    /// UDP port of GUE.
    #[arg(long, default_value_t = 6080, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) gue_port: u16,
    /// How the program is attached.
    #[arg(long, value_enum, default_value_t = Mode::Native)]
    pub(super) mode: Mode,
}

/// What `agent` is told.
#[derive(Debug, Args)]
pub(super) struct AgentArguments {
    /// Where it listens; [::] takes IPv4 too.
    #[arg(long, default_value = "[::]:7777", value_name = "ADDRESS:PORT")]
    pub(super) listen: SocketAddr,
    /// Over how long the load is averaged, 1s to 10m.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = averaging_time)]
    pub(super) average: Duration,
    /// The least that it reports, in percent: 0 would take all new connections away from a server under full load.
    #[arg(long, default_value_t = 1, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(..=100))]
    pub(super) minimum: u32,
    /// A file whose first word says how this server takes part.
    #[arg(long, value_name = "FILE")]
    pub(super) state_file: Option<PathBuf>,
}

/// Whole seconds, 1 to 600.
fn averaging_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (1..=600).contains(&time.as_secs()) && time.subsec_nanos() == 0 {
        Ok(time)
    } else {
        Err("whole seconds from 1s to 10m are expected".to_owned())
    }
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// In the driver.
    Native,
    /// In the kernel's generic receive path: works with every driver, several times slower.
    Generic,
}

impl From<Mode> for XdpMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Native => XdpMode::Native,
            Mode::Generic => XdpMode::Generic,
        }
    }
}
