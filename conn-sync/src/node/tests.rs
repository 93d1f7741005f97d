//! A whole node on the loopback interface, with its thread and sockets: what no machine alone shows.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use xdp_ebpf::layout::{self, Settings, method};
use xdp_ebpf::native::SharedTables;
use xdp_ebpf::reach::Narrow;
use xdp_ebpf::state::{State, TIMEOUTS_S};

use super::templates::Templates;
use super::*;
use crate::config::Peers;
use crate::directory::{Endpoint, Persistence};
use crate::entry::{Entry, How, NodeName, Template as Told};

/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Empty tables, of which it can be wanted that whoever looks at them panics.
struct Fragile {
    shared: SharedTables,
    breaks: AtomicBool,
}

impl Fragile {
    fn new() -> Arc<Self> {
        let settings = Settings {
            now_s: 70_000,
            cpus: 1,
            buckets4: 64,
            buckets6: 64,
            seed: 5,
            ..Settings::default()
        };
        Arc::new(Self {
            shared: SharedTables::new(settings, 16),
            breaks: AtomicBool::new(false),
        })
    }
}

impl Tables for Fragile {
    fn view(&self) -> io::Result<View<'_>> {
        assert!(!self.breaks.load(Ordering::Relaxed), "the tables are gone");
        Ok(View {
            table4: self.shared.buckets4(),
            table6: self.shared.buckets6(),
            cpus: 1,
            buckets4: 64,
            buckets6: 64,
            seed: 5,
            now_s: self.shared.now_s(),
            takes_new: true,
        })
    }

    fn learn(&self, cpu: u32, orders: &mut [Learn]) -> io::Result<()> {
        let cpu = self.shared.cpu(cpu);
        for order in orders {
            let taken =
                xdp_ebpf::table::learn::learn::<Narrow, _>(&cpu, &order.key[0], order.value);
            order.outcome = taken as u32;
        }
        Ok(())
    }

    fn templates(&self) -> io::Result<Vec<(TemplateKey, Template)>> {
        Ok(Vec::new())
    }

    fn template(&self, _key: &TemplateKey) -> Option<Template> {
        None
    }

    fn put_template(&self, _key: &TemplateKey, _template: &Template) -> io::Result<()> {
        Ok(())
    }
}

/// A node on any free port.
fn start(tables: &Arc<Fragile>, protocol: Protocol) -> Node {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let config = Config {
        node: NodeName::new("lb1").expect("a name"),
        interface: "lo".to_owned(),
        peers: match protocol {
            Protocol::Own => Peers::Listed(vec![loopback]),
            Protocol::Kernel(_) => Peers::Group {
                address: IpAddr::from(crate::config::GROUP),
                ttl: 1,
            },
        },
        protocol,
        port: 0,
        datagram_bytes: crate::config::DATAGRAM_BYTES,
        records_per_second: 1000,
        alone_after: Duration::from_secs(5),
        aside_records: 10,
        aside_for: Duration::from_secs(60),
    };
    Node::start(Start {
        config,
        incarnation: 1,
        keyring: Keyring::without_secret(),
        tables: Arc::clone(tables) as Arc<dyn Tables>,
        directory: Directory::default(),
        on_readiness: Box::new(|_| {}),
    })
    .expect("the loopback interface is there")
}

fn wait<T>(what: &str, mut until: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = until() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// Whoever runs a node learns that its thread has died, and why; asking it fails and hangs nobody.
#[test]
fn a_thread_that_dies_is_noticed() {
    let kernel = KernelConfig {
        sync_id: 0,
        longest: 1472,
        refresh_s: 60,
        retries: 0,
    };
    for protocol in [Protocol::Own, Protocol::Kernel(kernel)] {
        let tables = Fragile::new();
        let mut node = start(&tables, protocol);
        wait("a pass", || {
            let status = node.status().blocking_recv().ok()?;
            (status.passes > 0).then_some(())
        });
        assert_eq!(node.ended(), None, "{protocol:?}");
        tables.breaks.store(true, Ordering::Relaxed);
        let why = wait("its end", || node.ended());
        let expected = "it panicked: the tables are gone";
        assert_eq!(why.to_string(), expected, "{protocol:?}");
        assert!(node.status().blocking_recv().is_err(), "{protocol:?}");
        assert_eq!(node.ended(), None, "it is told once");
    }
}

/// One service over TCP, with persistence, and one over UDP; both have one real server.
fn directory() -> Directory {
    let address = |bytes: [u8; 4]| {
        let mut all = [0; 16];
        all[..4].copy_from_slice(&bytes);
        all
    };
    let endpoint = |service: u16, protocol: u8| {
        let record = layout::Endpoint {
            address: address([198, 51, 100, 1]),
            port: 80_u16.to_be_bytes(),
            last_port: 80_u16.to_be_bytes(),
            service,
            protocol,
            family: 4,
        };
        let persistence = (protocol == 6).then_some(Persistence {
            mask: [255; 16],
            per_port: false,
            timeout_s: 300,
        });
        let endpoint = Endpoint {
            persistence,
            ..Endpoint::new(record)
        };
        (service, endpoint)
    };
    let server = |id: u16| {
        let record = layout::Destination {
            method: method::NAT,
            port: 80_u16.to_be_bytes(),
            service: id,
            address: address([10, 0, 0, 1]),
            ..layout::Destination::default()
        };
        (u32::from(id), record)
    };
    Directory::new([endpoint(1, 6), endpoint(2, 17)], [server(1), server(2)])
}

/// What there cannot be is counted by its kind and entered nowhere, and takes nothing else with it.
#[test]
fn what_cannot_be_is_not_entered() {
    let tables = Fragile::new();
    let (directory, mut known) = (directory(), Templates::default());
    let mut applied = Applied::default();
    let established_s = TIMEOUTS_S[State::Established as usize];
    let udp_s = TIMEOUTS_S[State::Udp as usize];
    // (protocol, client, state, idle)
    let v4 = "192.0.2.1";
    let rows = [
        (6, v4, State::Established, 0),
        (6, v4, State::Udp, 0),
        (6, v4, State::SynReceived, 0),
        (17, v4, State::FinWait, 0),
        (47, v4, State::Established, 0),
        (6, "2001:db8::1", State::Established, 0),
        (6, v4, State::Established, established_s),
        (6, v4, State::Established, u16::MAX),
        (6, v4, State::Established, established_s - 1),
        (17, v4, State::Udp, udp_s),
        (17, v4, State::Udp, udp_s - 1),
    ];
    let address = |text: &str, port: u16| -> std::net::SocketAddr {
        (text.parse::<IpAddr>().expect("an address"), port).into()
    };
    let entries: Vec<Entry> = (1000..)
        .zip(rows)
        .map(|(port, (protocol, client, state, idle_s))| Entry {
            protocol,
            client: address(client, port),
            virtual_service: address("198.51.100.1", 80),
            server: address("10.0.0.1", 80),
            state,
            idle_s,
        })
        .collect();
    let template = |client: &str, idle_s| Told {
        protocol: 6,
        virtual_service: address("198.51.100.1", 80),
        per_port: false,
        client: client.parse().expect("an address"),
        server: address("10.0.0.1", 80),
        idle_s,
    };
    let templates = [
        template(v4, 299),
        template(v4, 300),
        template(v4, u32::MAX),
        template("2001:db8::1", 0),
    ];
    let told = (&entries[..], &templates[..]);
    let unknown = apply::apply(
        tables.as_ref(),
        &directory,
        &mut known,
        told,
        How::Live,
        &mut applied,
    );
    assert_eq!(unknown.expect("the tables are there"), []);
    let expected = Applied {
        taken: 3 + 1,
        impossible: ImpossibleCounts {
            families: 1 + 1,
            protocol: 1,
            state: 3,
            idle: 3 + 2,
        },
        ..Applied::default()
    };
    assert_eq!(applied, expected);
    let view = tables.view().expect("the tables are there");
    assert_eq!(crate::table::count(&view), 3);
}
