//! `director conns`.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use anyhow::Context;
use xdp_ebpf::layout::Endpoint;

use super::arguments::ConnsArguments;
use crate::config::{self, Config};
use crate::datapath::View;
use crate::plan::{Tables, destination_address, endpoint_address, ports};
use crate::upkeep::list::{Connection, connections};

/// Prints the connections in the tables, whoever keeps them.
pub(super) fn conns(options: &ConnsArguments) -> anyhow::Result<ExitCode> {
    let config = config::load_of_running(&options.config);
    let instance = match (&options.instance, &config) {
        (Some(instance), _) => instance.clone(),
        (None, Ok(config)) => config.instance.clone(),
        (None, Err(_)) => {
            eprintln!(
                "director: the instance's name is in the configuration; or say --instance NAME"
            );
            return Err(config
                .err()
                .map_or_else(|| anyhow::anyhow!("no configuration"), Into::into));
        }
    };
    let view = View::open(&options.bpffs, &instance)?;
    let tables = view.maps.read()?;
    let names = Names::new(&tables, config.as_ref().ok());
    let is_ipv4 = |id: u16| tables.endpoints.get(&id).is_some_and(|it| it.family == 4);
    let found = connections(
        view.connections4.as_slice(),
        view.connections6.as_slice(),
        &tables.settings,
        is_ipv4,
    )
    .map(|connection| names.line(&connection))
    .filter(|line| line.is_wanted(options));
    let result = if options.count {
        writeln!(io::stdout(), "{}", found.count())
    } else {
        print(found, options)
    };
    match result {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result.context("cannot write to standard output")?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(lines: impl Iterator<Item = Line>, options: &ConnsArguments) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    if !options.json {
        writeln!(
            out,
            "{:<5} {:<11} {:>6}  {:<28} {:<28} {:<28} service",
            "proto", "state", "idle", "client", "virtual", "real server"
        )?;
    }
    let limit = options.limit.unwrap_or(usize::MAX);
    for line in lines.take(limit) {
        if options.json {
            serde_json::to_writer(&mut out, &line)?;
            writeln!(out)?;
        } else {
            writeln!(
                out,
                "{:<5} {:<11} {:>5}s  {:<28} {:<28} {:<28} {}",
                line.protocol,
                line.state,
                line.idle_s,
                line.client.to_string(),
                line.virtual_end.to_string(),
                line.server,
                line.service
            )?;
        }
    }
    out.flush()
}

/// A connection as an operator reads it. Field names are an interface: they may be added to, not changed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
struct Line {
    protocol: &'static str,
    state: &'static str,
    idle_s: u16,
    client: SocketAddr,
    #[serde(rename = "virtual")]
    virtual_end: SocketAddr,
    server: String,
    service: String,
    cpu: u32,
}

impl Line {
    fn is_wanted(&self, options: &ConnsArguments) -> bool {
        let service = options
            .service
            .as_ref()
            .is_none_or(|wanted| *wanted == self.service);
        let client = options
            .client
            .is_none_or(|wanted| wanted.contains(&self.client.ip()));
        let server = options.server.as_ref().is_none_or(|wanted| {
            self.server == *wanted
                || self
                    .server
                    .parse::<SocketAddr>()
                    .is_ok_and(|it| it.ip().to_string() == *wanted)
        });
        let state = options
            .state
            .as_ref()
            .is_none_or(|wanted| wanted.eq_ignore_ascii_case(self.state));
        service && client && server && state
    }
}

/// What ids mean.
struct Names<'a> {
    endpoints: BTreeMap<u16, (&'a Endpoint, String)>,
    servers: BTreeMap<u32, (IpAddr, u16)>,
}

impl<'a> Names<'a> {
    fn new(tables: &'a Tables, config: Option<&Config>) -> Self {
        let endpoints = tables.endpoints.iter().map(|(id, record)| {
            let (first, last) = ports(record);
            let is_it = |it: &config::Endpoint| {
                (
                    it.address,
                    it.ports.first,
                    it.ports.last,
                    it.protocol.number(),
                ) == (endpoint_address(record), first, last, record.protocol)
            };
            let named = config.and_then(|config| {
                let mut services = config.services.iter();
                services.find(|service| service.endpoints.iter().any(is_it))
            });
            let name = named.map_or_else(
                || format!("#{}", record.service),
                |service| service.name.clone(),
            );
            (*id, (record, name))
        });
        let servers = tables.destinations.iter().map(|(id, record)| {
            let port = u16::from_be_bytes(record.port);
            (*id, (destination_address(record), port))
        });
        Self {
            endpoints: endpoints.collect(),
            servers: servers.collect(),
        }
    }

    fn line(&self, connection: &Connection) -> Line {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let (protocol, virtual_end, service) = match self.endpoints.get(&connection.endpoint) {
            Some((record, name)) => {
                let port = connection.virtual_port.unwrap_or(ports(record).0);
                let protocol = if record.protocol == 17 { "udp" } else { "tcp" };
                let end = SocketAddr::new(endpoint_address(record), port);
                (protocol, end, name.clone())
            }
            None => ("?", unknown, "?".to_owned()),
        };
        let server = match self.servers.get(&connection.destination) {
            Some((address, 0)) => SocketAddr::new(*address, virtual_end.port()).to_string(),
            Some((address, port)) => SocketAddr::new(*address, *port).to_string(),
            None => "?".to_owned(),
        };
        Line {
            protocol,
            state: connection.state.name(),
            idle_s: connection.idle_s,
            client: SocketAddr::new(connection.client, connection.client_port),
            virtual_end,
            server,
            service,
            cpu: connection.cpu,
        }
    }
}
