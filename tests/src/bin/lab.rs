//! The lab by command: `cargo xtask lab …`, and what `cargo xtask demo` hands over to.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use director_tests::lab::{self, Gateway, Host, Lab, LabOptions, Process, Topology};
use director_tests::{demo, http};

#[derive(Parser)]
#[command(
    name = "cargo xtask lab",
    bin_name = "cargo xtask lab",
    about = "A lab made of network namespaces: client, router, director, real servers",
    after_help = "\
Examples:
  cargo xtask lab up                              three real servers, with HTTP servers running
  cargo xtask lab shell client                    a shell on the client
  cargo xtask lab shell s1 -- ip address          one command on a real server
  cargo xtask lab get http://10.0.0.11:8080/      a request from the client
  cargo xtask lab down

Exit codes: 0 done, 1 something failed, 2 wrong usage; `shell` ends as its command does."
)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Bring the lab up and leave it
    Up {
        /// How the director is connected
        #[arg(long, value_enum, default_value_t = TopologyName::Two)]
        topology: TopologyName,
        /// Where the real servers send replies: `director` for NAT, `router` for DR and TUN
        #[arg(long, value_enum, default_value_t = GatewayName::Director)]
        gateway: GatewayName,
        /// Number of real servers
        #[arg(long, default_value_t = 3)]
        servers: u8,
    },
    /// Take the lab down, and all that runs in it
    Down,
    /// The hosts, their addresses, and what runs on them
    Status,
    /// A shell, or another command, on a host
    Shell {
        /// client, router, director, switch, s1, s2, s3…
        host: Host,
        /// What to run instead of a shell
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Ask from the client and print the answers
    Get {
        /// Like `http://192.0.2.10/` or `http://[2001:db8:f::10]:80/bytes/100`
        url: String,
        /// How many times
        #[arg(long, default_value_t = 1)]
        count: u32,
    },
    /// Watch real requests cross the load balancer: NAT, then DR, then TUN
    Demo {
        /// Leave the lab up afterwards and say how to look around
        #[arg(long)]
        keep: bool,
    },
    /// Bring a fresh lab up and wait to be interrupted: the tests of cleaning up use it
    #[command(hide = true)]
    Hold,
    /// The small HTTP server of the real servers
    #[command(hide = true)]
    HttpServer {
        /// Address and port, may be repeated
        #[arg(long, required = true)]
        listen: Vec<SocketAddr>,
        /// Who it says that it is
        #[arg(long)]
        name: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum TopologyName {
    /// Clients on one interface of the director, real servers on another
    Two,
    /// All on one
    One,
}

#[derive(Clone, Copy, ValueEnum)]
enum GatewayName {
    /// Through the director
    Director,
    /// Straight to the client
    Router,
}

fn main() -> ExitCode {
    match run(Cli::parse().action) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(action: Action) -> Result<()> {
    match action {
        Action::Up {
            topology,
            gateway,
            servers,
        } => up(&LabOptions {
            id: Some(lab::NAMED.to_owned()),
            topology: match topology {
                TopologyName::Two => Topology::TwoInterfaces,
                TopologyName::One => Topology::OneInterface,
            },
            gateway: match gateway {
                GatewayName::Director => Gateway::Director,
                GatewayName::Router => Gateway::Router,
            },
            servers,
        }),
        Action::Down => {
            let stood = Lab::take_down(lab::NAMED)?;
            println!(
                "{}",
                if stood {
                    "The lab is down."
                } else {
                    "No lab was up."
                }
            );
            Ok(())
        }
        Action::Status => status(),
        Action::Shell { host, command } => shell(host, &command),
        Action::Get { url, count } => get(&url, count),
        Action::Demo { keep } => demo::run(keep),
        Action::Hold => {
            let _lab = Lab::up(&LabOptions::default())?;
            loop {
                std::thread::park();
            }
        }
        Action::HttpServer { listen, name } => serve(&listen, &name),
    }
}

fn up(options: &LabOptions) -> Result<()> {
    let started = Instant::now();
    let lab = Lab::up(options)?;
    demo::start_http_servers(&lab)?
        .into_iter()
        .for_each(Process::leave_running);
    lab.keep()?;
    println!(
        "The lab is up ({:.1} s). To look around: cargo xtask lab status",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

fn status() -> Result<()> {
    let lab = Lab::open(lab::NAMED)?;
    for (host, namespace) in lab.hosts() {
        println!("{host}  (network namespace {})", namespace.name());
        let addresses = namespace.output("ip", &["-brief", "address"])?;
        for line in addresses.lines() {
            println!("    {line}");
        }
        for id in namespace
            .output("ip", &["netns", "pids", namespace.name()])?
            .lines()
        {
            // A process may be gone by now.
            if let Ok(words) = std::fs::read(format!("/proc/{id}/cmdline")) {
                let words = String::from_utf8_lossy(&words).replace('\0', " ");
                println!("    process {id}: {}", words.trim_end());
            }
        }
    }
    println!("files and logs: {}", lab.directory().display());
    Ok(())
}

fn shell(host: Host, command: &[String]) -> Result<()> {
    let lab = Lab::open(lab::NAMED)?;
    let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
    let mut process = match command {
        [] => Command::new(&shell),
        [program, arguments @ ..] => {
            let mut process = Command::new(program);
            process.args(arguments);
            process
        }
    };
    if command.is_empty() {
        println!("A shell on {host}; its end brings you back.");
    }
    lab.host(host)?.enter(&mut process);
    process.env("PS1", format!("{host} \\w # "));
    let program = process.get_program().to_string_lossy().into_owned();
    Err(process.exec()).with_context(|| format!("could not start `{program}` on {host}"))
}

fn get(url: &str, count: u32) -> Result<()> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let server = authority
        .parse()
        .or_else(|_| {
            // Without a port. Addresses only: the lab has no name server.
            (authority.trim_matches(['[', ']']), 80)
                .to_socket_addrs()
                .map_err(anyhow::Error::from)
                .and_then(|mut addresses| addresses.next().context("no address"))
        })
        .with_context(|| {
            format!("`{url}` does not begin with an address, like http://192.0.2.10/")
        })?;
    let lab = Lab::open(lab::NAMED)?;
    let client = lab.host(Host::Client)?;
    for _ in 0..count {
        let response = client.run(|| http::get(server, path, Duration::from_secs(5)))??;
        println!("{}", response.text());
    }
    Ok(())
}

fn serve(listen: &[SocketAddr], name: &str) -> Result<()> {
    let mut threads = Vec::new();
    for &address in listen {
        let listener =
            TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
        println!("{name} listens on {address}");
        let name = name.to_owned();
        threads.push(std::thread::spawn(move || http::serve(&listener, &name)));
    }
    for thread in threads {
        // They serve until the process ends.
        let _ = thread.join();
    }
    Ok(())
}
