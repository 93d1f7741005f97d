//! Thousands of real connections by each scheduler: who gets how many, against the schedulers' definitions.
//!
//! All of them stay open, so that those that count have something to count. They come from [`CLIENTS`] in turn, one after
//! the other: a connection is counted before the next one's first packet comes, and so the plain schedulers of
//! [`director_tests::reference`] tell every choice, whatever CPU it was made on. What is not exact: [`SLACK`], and the
//! numbers that `twos` draws.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex};

use ::director::config;
use ::director::scheduler::{Member, table};
use director_tests::director::Service;
use director_tests::lab::{Host, Topology};
use director_tests::reference::{
    Client, FailOver, Hash, Hashed, Lblc, Lblcr, LeastConnection, Maglev, NeverQueue, OverFlow,
    RoundRobin, Scheduler, Server, ShortestDelay, Two, WeightedRoundRobin,
};
use director_tests::{PATIENCE, wait_until};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, connect, listen as relisten,
    setsockopt, socket,
};
use nix::sys::time::TimeVal;

use crate::site::{SERVERS, Site, TIMEOUT, growth, server, virtual_address};

/// Connections of each service.
const CONNECTIONS: usize = 2000;
/// How far a real server's share may be from the definition's with a scheduler that counts. The live counts that it goes
/// by are corrected after each pass over the tables; of n connections that begin during a pass, the correction is wrong by
/// half the square root of n in general (`director::upkeep::loads`), until the next one. Four times that, for all of them
/// in one pass.
const SLACK: u64 = 2 * (CONNECTIONS as u64).isqrt();
/// Both ends of those of one service are this program's, and some more.
const OPEN_FILES: u64 = 3 * CONNECTIONS as u64;
/// Addresses that connections come from: the client's network from .128 on.
const CLIENTS: u8 = 120;
/// Port of the first service.
const FIRST_PORT: u16 = 8300;
/// What NAT translates it to. One for each service: a real server cannot tell two connections from one client's port.
const FIRST_REAL_PORT: u16 = 7000;

/// Scheduler, flags, weights of the real servers in their order.
///
/// `lblc`, `lblcr` and `ovf` leave a real server when it has more connections than its weight: theirs are such that all
/// three come to it, and beyond.
type Row = (&'static str, &'static [&'static str], [u32; 3]);
const ROWS: [Row; 14] = [
    ("rr", &[], [1, 7, 3]),
    ("wrr", &[], [5, 2, 1]),
    ("lc", &[], [1, 7, 3]),
    ("wlc", &[], [5, 2, 1]),
    ("sed", &[], [5, 2, 1]),
    ("nq", &[], [50, 2, 1]),
    ("fo", &[], [1, 7, 3]),
    ("ovf", &[], [300, 800, 900]),
    ("lblc", &[], [400, 900, 300]),
    ("lblcr", &[], [400, 900, 300]),
    ("sh", &[], [50, 30, 10]),
    ("dh", &[], [1, 7, 3]),
    ("mh", &["mh-port"], [5, 2, 1]),
    ("twos", &[], [1, 2, 1]),
];

/// The plain one of that name.
fn plain(name: &str, weights: [u32; 3], real_port: u16) -> Box<dyn Scheduler> {
    match name {
        "rr" => Box::new(RoundRobin::default()),
        "wrr" => Box::new(WeightedRoundRobin::default()),
        "lc" => Box::new(LeastConnection { weighted: false }),
        "wlc" => Box::new(LeastConnection { weighted: true }),
        "sed" => Box::new(ShortestDelay),
        "nq" => Box::new(NeverQueue),
        "fo" => Box::new(FailOver),
        "ovf" => Box::new(OverFlow),
        "lblc" => Box::new(Lblc::default()),
        "lblcr" => Box::new(Lblcr::default()),
        "sh" => Box::new(Hashed {
            by: Hash::Source { port: false },
            fallback: false,
        }),
        "dh" => Box::new(Hashed {
            by: Hash::Destination,
            fallback: false,
        }),
        "mh" => {
            let members: Vec<Member> = (1..=SERVERS)
                .zip(weights)
                .map(|(number, weight)| Member {
                    destination: u32::from(number),
                    weight,
                    identity: (server(number, false), real_port),
                })
                .collect();
            let configured = config::Scheduler::Mh {
                port: true,
                fallback: false,
            };
            let slots = table(&configured, &members);
            Box::new(Maglev {
                table: slots.iter().map(|id| *id as usize - 1).collect(),
                port: true,
                fallback: false,
            })
        }
        other => panic!("no plain scheduler {other}"),
    }
}

/// Whether a scheduler goes by live counts.
fn counts(name: &str) -> bool {
    !["rr", "wrr", "fo", "sh", "dh", "mh"].contains(&name)
}

/// How many of these clients' connections a plain scheduler gives to each server, if all of them stay open.
fn shares(scheduler: &mut dyn Scheduler, weights: [u32; 3], clients: &[Client]) -> [u64; 3] {
    let mut servers = weights.map(|weight| Server {
        weight,
        ..Server::default()
    });
    for client in clients {
        let chosen = scheduler.choose(&servers, client, 0).unwrap();
        servers[chosen].active += 1;
    }
    servers.map(|server| server.active)
}

/// What `twos` may give each server, least and most: what a hundred different draws of the plain one gave, and as far
/// again to both sides. (A hundred more would leave the inner range in a few; none comes near the outer one.)
fn shares_by_chance(weights: [u32; 3], clients: &[Client]) -> [(u64, u64); 3] {
    let mut ranges = [(u64::MAX, 0); 3];
    for seed in 1..=100_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u32
        };
        let shares = shares(&mut Two { random }, weights, clients);
        for (range, share) in ranges.iter_mut().zip(shares) {
            *range = (range.0.min(share), range.1.max(share));
        }
    }
    ranges.map(|(least, most)| {
        let width = most - least + 1;
        (least.saturating_sub(width), most + width)
    })
}

/// What real servers have accepted and not closed, by server and service.
type Accepted = Vec<Vec<Arc<Mutex<Vec<TcpStream>>>>>;

/// On every real server a listener for every service.
fn listen(site: &Site) -> Accepted {
    let on = |number: u8, row: usize| {
        let address = SocketAddr::new(server(number, false), FIRST_REAL_PORT + row as u16);
        let listener = TcpListener::bind(address).unwrap();
        // With the usual 128 a busy machine's kernel drops a SYN now and then, and one that comes again may be scheduled
        // again.
        relisten(&listener, Backlog::new(CONNECTIONS as i32).unwrap()).unwrap();
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&accepted);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                keep.lock().unwrap().push(stream);
            }
        });
        accepted
    };
    (1..=SERVERS)
        .map(|number| {
            let listen = || (0..ROWS.len()).map(|row| on(number, row)).collect();
            site.host(Host::Server(number)).run(listen).unwrap()
        })
        .collect()
}

/// Both ends of thousands of connections at once are more files than a program may open unasked.
fn raise_open_files() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if soft < OPEN_FILES {
        setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES.min(hard), hard).unwrap();
    }
}

/// The address of the `number`-th connection's client.
fn client_of(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, 128 + (number % usize::from(CLIENTS)) as u8)
}

/// Opens the `number`-th connection. Called on the client.
fn open(number: usize, service: SocketAddrV4) -> nix::Result<TcpStream> {
    let file = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // The kernel's connect takes no longer than this.
    let timeout = TimeVal::new(TIMEOUT.as_secs().cast_signed(), 0);
    setsockopt(&file, SendTimeout, &timeout)?;
    let from = SocketAddrV4::new(client_of(number), 0);
    bind(file.as_raw_fd(), &SockaddrIn::from(from))?;
    connect(file.as_raw_fd(), &SockaddrIn::from(service))?;
    Ok(TcpStream::from(file))
}

#[test]
#[ignore = "needs root, network namespaces and nginx: cargo xtask test runs it"]
fn thousands_of_connections_are_shared_as_defined() {
    raise_open_files();
    let mut site = Site::up(Topology::TwoInterfaces);
    let weights = ROWS.map(|(.., weights)| [(1, weights[0]), (2, weights[1]), (3, weights[2])]);
    let services: Vec<Service<'_>> = (0..)
        .zip(ROWS.iter().zip(&weights))
        .map(|(row, ((scheduler, flags, _), weights))| Service {
            scheduler,
            flags,
            real_port: FIRST_REAL_PORT + row,
            real_servers: Some(weights),
            ..Service::rr(virtual_address(false), FIRST_PORT + row)
        })
        .collect();
    site.start(&services);
    let accepted = listen(&site);
    // All of them are the client's own.
    let own = ["route", "add", "local", "198.51.100.128/25", "dev", "lo"];
    site.host(Host::Client).output("ip", &own).unwrap();
    let IpAddr::V4(address) = virtual_address(false) else {
        unreachable!("an IPv4 address was asked for");
    };
    for (row, (name, _, weights)) in ROWS.into_iter().enumerate() {
        let service = SocketAddrV4::new(address, FIRST_PORT + row as u16);
        let before = site.status();
        let open: Vec<TcpStream> = site.client(|| {
            (0..CONNECTIONS)
                .map(|number| open(number, service).unwrap())
                .collect()
        });
        let clients: Vec<Client> = open
            .iter()
            .map(|stream| stream.local_addr().unwrap())
            .map(|from| Client {
                source: from.ip(),
                port: from.port(),
                destination: address.into(),
            })
            .collect();
        let said = growth(&before, &site.status(), "tcp", service.into());
        let said = [0, 1, 2].map(|index| said[index].connections);
        println!("{name} {weights:?}: {said:?}");
        let ranges = if name == "twos" {
            shares_by_chance(weights, &clients)
        } else {
            let mut plain = plain(name, weights, FIRST_REAL_PORT + row as u16);
            shares(plain.as_mut(), weights, &clients).map(|share| (share, share))
        };
        let slack = if counts(name) { SLACK } else { 0 };
        let fits = |(share, (least, most)): (u64, (u64, u64))| {
            (least.saturating_sub(slack)..=most + slack).contains(&share)
        };
        assert!(
            said.into_iter().zip(ranges).all(fits),
            "{name} {weights:?}: {said:?}, expected {ranges:?}, give or take {slack}"
        );
        assert_eq!(said.iter().sum::<u64>(), CONNECTIONS as u64, "{name}");
        // And that is where they are.
        wait_until("real servers have accepted them", PATIENCE, || {
            let found = [0, 1, 2].map(|index| accepted[index][row].lock().unwrap().len() as u64);
            anyhow::ensure!(found == said, "{found:?} of {said:?}");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{name} {weights:?}: {error:#}"));
        drop(open);
        for server in &accepted {
            server[row].lock().unwrap().clear();
        }
    }
}
