//! A peer that shares connections as a director does, with tables in ordinary memory: what a million of them cost, and how
//! late they are, without anybody who opens them.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use conn_sync::config::{Config, GROUP, PORT, Peers, Protocol};
use conn_sync::directory::{Directory, Endpoint};
use conn_sync::entry::NodeName;
use conn_sync::node::{Node, SomeTemplates, Start, Status, Tables};
use conn_sync::table::View;
use conn_sync::wire::auth::Keyring;
use xdp_ebpf::connection::{Value, key4};
use xdp_ebpf::layout::{self, Learn, Settings, Template, TemplateKey, learn, method};
use xdp_ebpf::native::SharedTables;
use xdp_ebpf::reach::{Narrow, Wide};
use xdp_ebpf::state::State;
use xdp_ebpf::table;

use crate::lab::Namespace;

/// CPUs with a table.
const CPUS: u32 = 2;
/// Seed of the hash.
const SEED: u64 = 0x5eed;
/// The clock when the tables are made. It goes on as a director's does: what is in use is told again.
const BEGAN_S: u32 = 100_000;

/// Tables in ordinary memory, with one endpoint (id 1).
pub struct PeerTables {
    shared: SharedTables,
    settings: Settings,
    began: Instant,
    /// A CPU's table has one writer at a time.
    writer: Mutex<()>,
}

impl PeerTables {
    /// Empty tables for so many connections.
    #[must_use]
    pub fn new(connections: u32) -> Arc<Self> {
        // 24 bytes for each connection, as a director has it.
        let buckets4 = (connections * 24).div_ceil(64 * CPUS).max(64);
        let settings = Settings {
            now_s: BEGAN_S,
            cpus: CPUS,
            buckets4,
            buckets6: 64,
            seed: SEED,
            ..Settings::default()
        };
        Arc::new(Self {
            shared: SharedTables::new(settings, 16),
            settings,
            began: Instant::now(),
            writer: Mutex::new(()),
        })
    }

    /// The clock now, which the tables are set by.
    fn now_s(&self) -> u32 {
        let now_s = BEGAN_S + self.began.elapsed().as_secs() as u32;
        self.shared.set_now_s(now_s);
        now_s
    }

    fn write<T>(&self, work: impl FnOnce() -> T) -> T {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    /// Key of connection `number` of some client.
    #[must_use]
    pub fn key(number: u32) -> u64 {
        // Ports from 1024 on of as many clients as it takes.
        let (client, port) = (
            0x0b00_0000 + number / 60_000,
            1024 + (number % 60_000) as u16,
        );
        key4(client.to_be(), port.to_be(), 1)
    }

    /// Has connections begin, as packets do. How many found room.
    pub fn open(&self, numbers: std::ops::Range<u32>, server: u32) -> usize {
        self.write(|| {
            let value = Value::new(server, self.now_s() as u16, State::Established, 0);
            numbers
                .filter(|number| {
                    let cpu = self.shared.cpu(number % CPUS);
                    table::insert::<Narrow, _>(&cpu, &Self::key(*number), value.0)
                })
                .count()
        })
    }

    /// Whether a connection stands here.
    #[must_use]
    pub fn has(&self, number: u32) -> bool {
        (0..CPUS).any(|cpu| {
            let found = table::find_foreign::<Narrow, _>(
                &self.shared.cpu(cpu),
                &self.settings,
                cpu,
                Self::key(number),
            );
            found.is_some()
        })
    }
}

impl Tables for PeerTables {
    fn view(&self) -> io::Result<View<'_>> {
        Ok(View {
            table4: self.shared.buckets4(),
            table6: self.shared.buckets6(),
            cpus: CPUS,
            buckets4: self.settings.buckets4,
            buckets6: self.settings.buckets6,
            seed: SEED,
            now_s: self.now_s(),
            takes_new: true,
        })
    }

    fn learn(&self, cpu: u32, orders: &mut [Learn]) -> io::Result<()> {
        self.write(|| {
            self.now_s();
            let cpu = self.shared.cpu(cpu);
            for order in orders {
                let outcome = match order.table {
                    learn::NARROW => {
                        table::learn::learn::<Narrow, _>(&cpu, &order.key[0], order.value)
                    }
                    _ => table::learn::learn::<Wide, _>(&cpu, &order.key, order.value),
                };
                order.outcome = outcome as u32;
            }
        });
        Ok(())
    }

    fn some_templates(&self, _after: Option<u32>, _most: usize) -> io::Result<SomeTemplates> {
        Ok((Vec::new(), None))
    }

    fn template(&self, _key: &TemplateKey) -> Option<Template> {
        None
    }

    fn put_template(&self, _key: &TemplateKey, _template: &Template) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A running peer.
pub struct Peer {
    node: Node,
}

impl Peer {
    /// Starts one on an interface of a host. Its only service and real servers are these.
    ///
    /// # Errors
    /// The host has no such interface.
    pub fn start(
        host: &Namespace,
        name: &str,
        interface: &str,
        tables: &Arc<PeerTables>,
        service: (Ipv4Addr, u16),
        servers: &[Ipv4Addr],
    ) -> Result<Self> {
        let in_table = |address: Ipv4Addr| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        };
        let port = service.1.to_be_bytes();
        let endpoint = Endpoint::new(layout::Endpoint {
            address: in_table(service.0),
            port,
            last_port: port,
            service: 1,
            protocol: 6,
            family: 4,
        });
        let destinations = (1..).zip(servers).map(|(id, server)| {
            let record = layout::Destination {
                method: method::NAT,
                port,
                service: 1,
                address: in_table(*server),
                ..layout::Destination::default()
            };
            (id, record)
        });
        let config = Config {
            node: NodeName::new(name)?,
            interface: interface.to_owned(),
            peers: Peers::Group {
                address: IpAddr::from(GROUP),
                ttl: 1,
            },
            protocol: Protocol::Own,
            port: PORT,
            datagram_bytes: conn_sync::config::DATAGRAM_BYTES,
            records_per_second: conn_sync::config::RECORDS_PER_SECOND,
            alone_after: Duration::from_secs(5),
            aside_records: 1000,
            aside_for: Duration::from_secs(60),
        };
        let start = Start {
            config,
            incarnation: 1,
            keyring: Keyring::without_secret(),
            tables: Arc::clone(tables) as Arc<dyn Tables>,
            directory: Directory::new([(1, endpoint)], destinations),
            on_readiness: Box::new(|_| {}),
        };
        // A thread is in the namespace of the one that made it.
        let node = host.run(|| Node::start(start))?;
        let node = node.with_context(|| format!("the peer {name} on {interface}"))?;
        Ok(Self { node })
    }

    /// How it stands.
    ///
    /// # Errors
    /// Its thread has ended.
    pub fn status(&self) -> Result<Status> {
        self.node
            .status()
            .blocking_recv()
            .context("the peer's thread has ended")
    }
}
