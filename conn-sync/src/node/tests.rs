//! A whole node on the loopback interface, with its thread and sockets: what no machine alone shows.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};
use xdp_ebpf::connection::{Value, key4};
use xdp_ebpf::layout::{self, Settings, method};
use xdp_ebpf::native::SharedTables;
use xdp_ebpf::reach::Narrow;
use xdp_ebpf::state::{State, TIMEOUTS_S};

use super::state::{Shared, State as Loop};
use super::templates::Templates;
use super::*;
use crate::config::Peers;
use crate::directory::{Endpoint, Persistence};
use crate::entry::{Entry, How, NodeName, Record, Template as Told};
use crate::machine::limits::{BULK_BEGINS, BULK_SILENCE};
use crate::wire::bulk::{Client, Event, NONCE, Resume, Server};

/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The tables' clock.
const NOW_S: u32 = 70_000;

/// With what the kernel's protocol is spoken.
const KERNEL: KernelConfig = KernelConfig {
    sync_id: 0,
    longest: 1472,
    refresh_s: 60,
    retries: 0,
};

/// Tables of which it can be wanted that whoever looks at them panics, or that others take their place.
struct Fragile {
    shared: SharedTables,
    buckets: u32,
    breaks: AtomicBool,
    looks: AtomicU32,
    exchange: Mutex<Option<Exchange>>,
}

/// After so many looks these are lent instead.
struct Exchange {
    after: u32,
    lent: Weak<Lent>,
    others: Arc<Fragile>,
}

impl Fragile {
    fn new() -> Arc<Self> {
        Self::with(64)
    }

    fn with(buckets: u32) -> Arc<Self> {
        let settings = Settings {
            now_s: NOW_S,
            cpus: 1,
            buckets4: buckets,
            buckets6: buckets,
            seed: 5,
            ..Settings::default()
        };
        Arc::new(Self {
            shared: SharedTables::new(settings, 16),
            buckets,
            breaks: AtomicBool::new(false),
            looks: AtomicU32::new(0),
            exchange: Mutex::new(None),
        })
    }

    /// Connections of these ports that stand, as ones that peers were told of.
    fn stand(&self, ports: std::ops::Range<u16>) {
        self.stand_as(ports, Value::SENT);
    }

    fn stand_as(&self, ports: std::ops::Range<u16>, flags: u8) {
        let client = u32::from_ne_bytes([192, 0, 2, 1]);
        for port in ports {
            let value = Value::new(1, NOW_S as u16, State::Established, flags);
            let key = key4(client, port.to_be(), 1);
            let is_in = xdp_ebpf::table::insert::<Narrow, _>(&self.shared.cpu(0), &key, value.0);
            assert!(is_in, "there is room for {port}");
        }
    }
}

impl Tables for Fragile {
    fn view(&self) -> io::Result<View<'_>> {
        assert!(!self.breaks.load(Ordering::Relaxed), "the tables are gone");
        let looks = self.looks.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(exchange) = &*self.exchange.lock().expect("nobody panics here")
            && exchange.after == looks
            && let Some(lent) = exchange.lent.upgrade()
        {
            lent.set(Arc::clone(&exchange.others) as Arc<dyn Tables>);
        }
        Ok(View {
            table4: self.shared.buckets4(),
            table6: self.shared.buckets6(),
            cpus: 1,
            buckets4: self.buckets,
            buckets6: self.buckets,
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

    fn some_templates(&self, _after: Option<u32>, _most: usize) -> io::Result<SomeTemplates> {
        Ok((Vec::new(), None))
    }

    fn template(&self, _key: &TemplateKey) -> Option<Template> {
        None
    }

    fn put_template(&self, _key: &TemplateKey, _template: &Template) -> io::Result<()> {
        Ok(())
    }
}

/// A node on any free port.
fn config(protocol: Protocol) -> Config {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Config {
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
    }
}

fn start(tables: &Arc<Fragile>, protocol: Protocol) -> Node {
    Node::start(Start {
        config: config(protocol),
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
    for protocol in [Protocol::Own, Protocol::Kernel(KERNEL)] {
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

/// What has begun since the last pass is told at the end.
#[test]
fn an_end_leaves_nothing_untold() {
    for protocol in [Protocol::Own, Protocol::Kernel(KERNEL)] {
        let tables = Fragile::new();
        let node = start(&tables, protocol);
        node.set_directory(directory());
        wait("some passes", || {
            let status = node.status().blocking_recv().ok()?;
            (status.passes > 2).then_some(())
        });
        tables.stand_as(1000..1030, 0);
        drop(node);
        let buckets = tables.shared.buckets4().iter();
        let values = buckets.flat_map(|bucket| &bucket.values);
        let values = values.map(|value| Value(value.load(Ordering::Relaxed)));
        let untold = values.filter(|it| it.is_some() && it.flags() & Value::SENT == 0);
        assert_eq!(untold.count(), 0, "{protocol:?}");
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
    let directory = directory();
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
    // What lived when it was told and was then kept aside too long is nobody's fault.
    for (how, idle) in [(How::Live, 3 + 2), (How::Aside, 0)] {
        let (tables, mut known) = (Fragile::new(), Templates::default());
        let mut applied = Applied::default();
        let told = (&entries[..], &templates[..]);
        let (lent, names) = (tables.as_ref(), &directory);
        let unknown = apply::apply(lent, names, &mut known, told, how, &mut applied);
        assert_eq!(unknown.expect("the tables are there"), []);
        let expected = Applied {
            taken: 3 + 1,
            impossible: ImpossibleCounts {
                families: 1 + 1,
                protocol: 1,
                state: 3,
                idle,
            },
            ..Applied::default()
        };
        assert_eq!(applied, expected, "{how:?}");
        let view = tables.view().expect("the tables are there");
        assert_eq!(crate::table::count(&view), 3, "{how:?}");
    }
}

/// What one conversation of a full sync brought.
#[derive(Debug, Default)]
struct Brought {
    clients: BTreeSet<SocketAddr>,
    /// The place after them.
    cursor: u64,
    is_from_the_beginning: bool,
    /// It came to its end.
    is_whole: bool,
}

/// Has a node's loop give its table.
async fn fetch(shared: &Shared, resume: Option<Resume>) -> Brought {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let (stream, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (mut stream, (accepted, _)) = (stream.expect("it listens"), accepted.expect("it came"));
    let giver = Rc::clone(shared);
    spawn_local(async move {
        // How it ends the other side sees.
        let _ = bulk::conversation(&giver, accepted).await;
    });
    let name = |text| NodeName::new(text).expect("a name");
    let (own, server) = ((name("lb2"), 1), (name("lb1"), 1));
    let keyring = Keyring::without_secret();
    let mut client = Client::new(&keyring, own, server, resume, [7; NONCE]);
    let mut brought = Brought::default();
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer).await.expect("nothing is reset");
        if length == 0 {
            return brought;
        }
        let output = client.push(&buffer[..length]).expect("it is understood");
        let sent = stream.write_all(&output.send).await;
        sent.expect("it is listened to");
        for event in output.events {
            match event {
                Event::Welcome { cursor, .. } => brought.is_from_the_beginning = cursor == 0,
                Event::Records {
                    cursor, records, ..
                } => {
                    brought.cursor = cursor;
                    for (record, _) in records {
                        let Record::Entry(entry) = record else {
                            panic!("there are no templates in these tables");
                        };
                        brought.clients.insert(entry.client);
                    }
                }
                Event::Heard(_) => panic!("nothing in these tables is learned"),
                Event::End => brought.is_whole = true,
            }
        }
    }
}

/// A peer that says nothing keeps the others' tables waiting, so it has less time to begin than to go on.
#[test]
fn who_says_nothing_is_given_up_soon() {
    assert!(BULK_BEGINS < BULK_SILENCE);
    let name = |text| NodeName::new(text).expect("a name");
    let keyring = Keyring::without_secret();
    let (_, greeting) = Server::new(&keyring, (name("lb1"), 1), [7; NONCE]);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().build().expect("a runtime");
    let (soon, never) = (Duration::from_millis(1), Duration::MAX);
    let (half, all) = (&greeting[..greeting.len() / 2], &greeting[..]);
    // Whether the connection stands, what is then said, by which patience it is given up: until it begins, or each time after.
    for (stands, said, begins, goes_on) in [
        (false, &[][..], soon, never),
        (true, &[], soon, never),
        (true, half, never, soon),
        (true, all, never, soon),
    ] {
        let (own, server) = ((name("lb2"), 1), (name("lb1"), 1));
        let client = Client::new(&keyring, own, server, None, [8; NONCE]);
        let (own_end, mut other_end) = tokio::io::duplex(4096);
        let listened = runtime.block_on(async {
            other_end.write_all(said).await.expect("there is room");
            let connect = async {
                if !stands {
                    std::future::pending::<()>().await;
                }
                Ok(own_end)
            };
            let patience = bulk::Patience { begins, goes_on };
            let listened = bulk::listen(connect, client, patience, |event| async move {
                panic!("nothing was told, but {event:?}")
            });
            tokio::time::timeout(PATIENCE, listened).await
        });
        let ended = listened.expect("it is given up");
        let error = ended.expect_err("it comes to nothing");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{stands} {said:?}");
    }
}

/// A full sync is under way when other tables take the place of those that it walks through: it comes to its end only once
/// all that stands has been told.
#[test]
fn a_full_sync_begins_anew_in_other_tables() {
    const PORTS: std::ops::Range<u16> = 1000..3500;
    let all: BTreeSet<SocketAddr> = PORTS
        .map(|port| SocketAddr::from(([192, 0, 2, 1], port)))
        .collect();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().expect("a runtime");
    // Buckets before and after; after which look: the first one counts, then comes one for each piece.
    for (before, after, looks, conversations) in [
        (2048, 8192, 0, 1),
        (2048, 8192, 2, 2),
        (8192, 2048, 2, 2),
        (2048, 2048, 3, 2),
    ] {
        let (tables, others) = (Fragile::with(before), Fragile::with(after));
        tables.stand(PORTS);
        others.stand(PORTS);
        let lent = Arc::new(Lent(Mutex::new((
            0,
            Arc::clone(&tables) as Arc<dyn Tables>,
        ))));
        *tables.exchange.lock().expect("nobody panics here") = Some(Exchange {
            after: looks,
            lent: Arc::downgrade(&lent),
            others,
        });
        let own = (config(Protocol::Own), 1);
        let state = Loop::new(own, Keyring::without_secret(), lent, directory());
        let shared: Shared = Rc::new(RefCell::new(state));
        let fetched = LocalSet::new().block_on(&runtime, async {
            let (mut clients, mut resume) = (BTreeSet::new(), None);
            for conversation in 1..=3 {
                let brought = fetch(&shared, resume).await;
                if brought.is_from_the_beginning {
                    clients.clear();
                }
                clients.extend(brought.clients);
                if brought.is_whole {
                    return (conversation, clients);
                }
                resume = Some(Resume {
                    incarnation: 1,
                    cursor: brought.cursor,
                });
            }
            panic!("it does not come to its end");
        });
        let (count, clients) = fetched;
        assert_eq!(clients.len(), all.len(), "{before} to {after} buckets");
        assert_eq!((count, clients), (conversations, all.clone()));
    }
}
