//! Live frames through virtual cables: what sends them, what forwards them, where they end.
//!
//! ```text
//!   client c0 ──── d0 [ the director, or nftables and the kernel's stack ] d1 ──── s0 server
//!     `emit`: each frame the next flow's                                           ends here, counted
//! ```
//!
//! Everything runs on one CPU, mostly in the system call that sends: the time of its thread is that of the whole way. Of a
//! program at d0 that sends every frame back at once, it is that of sending and ending alone: the floor.

use std::fs::File;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use aya::maps::{Array, MapData};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::unistd::Pid;
use xdp_ebpf::bench::{FLOWS_PER_PAGE, Order, maps, programs};
use xdp_ebpf::layout::{NextHop, Reason, method, scheduler};
use xdp_ebpf::wire::protocol;

use super::flows;
use super::rig::{WORDS, thread_time_ns, words};
use crate::lab::{Namespace, command};
use crate::packet::Machine as _;
use crate::packet::build::{Frame, Ip};
use crate::packet::fixture::{
    DIRECTOR, Family, Fixture, OTHER_SLOT, ROUTER, Real, hop, server_mac,
};
use crate::packet::kernel::Kernel;
use crate::paths;

/// Virtual port, and that of the real servers.
const PORT: u16 = 53;
const REAL_PORT: u16 = 5353;
/// Real servers.
const SERVERS: u8 = 8;
/// Port of the client in the frame that all others are made of.
const CLIENT_PORT: u16 = 20_000;
/// Frames at once: what a driver's queue is asked for (`NAPI_POLL_WEIGHT`).
const BATCH: u32 = 64;
/// Frames that do not count, before those that do: caches have what they can hold by then.
const WARM_UP: u32 = 3000;
/// Of so many frames one may be lost.
const ONE_OF: u64 = 50;
/// So often frames are sent until no more are lost. Where somebody else has the processor for too long, the cable's queues
/// overflow, and the time says nothing either.
const TRIES: usize = 10;

/// How long the kernel keeps connections of UDP, in seconds: longer than a run, as the director has them stay too.
const UDP_TIMEOUT_S: u32 = 3600;

/// Who forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarder {
    /// A program that sends every frame back where it came from.
    Nobody,
    /// The packet path.
    Director,
    /// nftables' NAT: a map from a random number to a real server for new connections, conntrack for the rest.
    Nftables,
}

/// Programs that are attached for a forwarder.
enum Attached {
    Nobody(XdpLinkId),
    Director { path: XdpLinkId, sink: XdpLinkId },
}

/// The stage.
pub struct Live {
    client: Namespace,
    server: Namespace,
    kernel: Kernel,
    bench: Ebpf,
    order: Array<MapData, [u64; WORDS]>,
    frame: Vec<u8>,
    /// `struct xdp_md` that says by which interface frames came in: by it they go out.
    context: [u8; 24],
    attached: Option<Attached>,
    /// Where frames go on.
    cursor: u64,
    flows: u32,
    conntrack: Conntrack,
}

impl Live {
    /// Sets it up, for no more than so many flows, and so many buckets of the director's table on each CPU. The calling
    /// thread is the director's namespace from now on.
    ///
    /// # Errors
    /// Not root, or something is missing.
    pub fn new(most_flows: u32, buckets: u32) -> Result<Self> {
        let conntrack = Conntrack::new()?;
        let mut kernel = Kernel::with_buckets(&paths::bpf_object("director-xdp.o")?, 2 * buckets)?;
        kernel.cpu(0)?;
        let (client, server) = (Namespace::unnamed()?, Namespace::unnamed()?);
        cable("d0", &client, "c0")?;
        cable("d1", &server, "s0")?;
        run("ip", &["address", "add", "10.1.2.254/24", "dev", "d1"])?;
        run("ip", &["address", "add", "198.51.100.1/24", "dev", "d0"])?;
        for number in 1..=SERVERS {
            let address = Family::V4.server(number).to_string();
            let mac = colons(server_mac(number));
            run(
                "ip",
                &["neigh", "add", &address, "lladdr", &mac, "dev", "d1"],
            )?;
        }
        // Without a program a cable takes such frames only if they may be collected there.
        run("ethtool", &["-K", "d0", "gro", "on"])?;
        set("ipv4/ip_forward", "1")?;
        set("ipv4/conf/all/rp_filter", "0")?;
        set("ipv4/conf/d0/rp_filter", "0")?;
        nft(&rules())?;
        for name in ["udp_timeout", "udp_timeout_stream"] {
            set(
                &format!("netfilter/nf_conntrack_{name}"),
                &UDP_TIMEOUT_S.to_string(),
            )?;
        }

        let file = paths::bpf_object("bench-xdp.o")?;
        let pages = most_flows.div_ceil(FLOWS_PER_PAGE as u32).max(1);
        let mut bench = EbpfLoader::new()
            .map_max_entries(maps::FLOWS, pages)
            .load_file(&file)
            .with_context(|| format!("loading {}", file.display()))?;
        for name in [programs::EMIT, programs::SINK, programs::TRIVIAL] {
            program(&mut bench, name)?
                .load()
                .with_context(|| format!("loading {name}"))?;
        }
        // For good: it sees nothing but what is sent back.
        let sink = program(&mut bench, programs::SINK)?;
        client.run(|| sink.attach("c0", XdpMode::Driver))??;
        let order = Array::try_from(bench.take_map(maps::ORDER).context("the map of orders")?)?;
        let mut context = [0; 24];
        let ingress = client.run(|| if_nametoindex("c0"))??;
        context[12..16].copy_from_slice(&ingress.to_ne_bytes());
        let to = (Family::V4.virtual_address(), PORT);
        let ip = Ip::udp((Family::V4.client(), CLIENT_PORT), to, &[0x5a; 40]).without_checksum();
        let frame = Frame::new(ROUTER, DIRECTOR, ip).bytes();
        // Its end in data: where a frame ends, as the kernel wants to be told.
        context[4..8].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
        Ok(Self {
            client,
            server,
            kernel,
            bench,
            order,
            frame,
            context,
            attached: None,
            cursor: 0,
            flows: 0,
            conntrack,
        })
    }

    /// Goes on with so many flows, whose connections then stand with each forwarder, in so many buckets of the director's
    /// table on each CPU. Whether there is room for them in the kernel's table too: without, nftables cannot be measured.
    ///
    /// # Errors
    /// Frames are lost, or the tables cannot be written.
    pub fn set_flows(&mut self, count: u32, buckets: u32) -> Result<bool> {
        self.kernel.free4(|_| true)?;
        let towards_servers = if_nametoindex("d1")?;
        self.kernel.change(&fixture(buckets, towards_servers))?;
        // After that, which names another one.
        self.kernel
            .connect(u32::from(OTHER_SLOT), towards_servers)?;
        let has_room = self.conntrack.make_room_for(count);
        self.flows = count;
        // In the order in which they came they would stand in some tables.
        for order in [1, 2] {
            self.write_flows(order)?;
            for forwarder in [Forwarder::Director, Forwarder::Nftables] {
                if forwarder == Forwarder::Director || has_room {
                    self.measure_after(0, forwarder, count)?;
                    self.cursor = 0;
                }
            }
        }
        Ok(has_room)
    }

    fn write_flows(&mut self, order: u64) -> Result<()> {
        let std::net::IpAddr::V4(client) = Family::V4.client() else {
            unreachable!("of the family that was asked for");
        };
        let flows = flows::of_one_sum(client.octets(), self.flows, order);
        let map = self
            .bench
            .map_mut(maps::FLOWS)
            .context("the map of flows")?;
        let mut pages = Array::<_, [u64; FLOWS_PER_PAGE]>::try_from(map)?;
        for (index, part) in (0..).zip(flows.chunks(FLOWS_PER_PAGE)) {
            let mut page = [0; FLOWS_PER_PAGE];
            page[..part.len()].copy_from_slice(part);
            pages.set(index, page, 0)?;
        }
        self.cursor = 0;
        Ok(())
    }

    /// Has somebody forward from now on.
    fn have(&mut self, forwarder: Forwarder) -> Result<()> {
        match (forwarder, &self.attached) {
            (Forwarder::Director, Some(Attached::Director { .. }))
            | (Forwarder::Nobody, Some(Attached::Nobody(_)))
            | (Forwarder::Nftables, None) => return Ok(()),
            _ => {}
        }
        match self.attached.take() {
            None => {}
            Some(Attached::Nobody(link)) => {
                program(&mut self.bench, programs::TRIVIAL)?.detach(link)?
            }
            Some(Attached::Director { path, sink }) => {
                self.kernel.detach(path)?;
                // Frames that come as the stack's own end sooner without a program, by a rule.
                let program = program(&mut self.bench, programs::SINK)?;
                self.server.run(|| program.detach(sink))??;
            }
        }
        self.attached = match forwarder {
            Forwarder::Nftables => None,
            Forwarder::Nobody => {
                let trivial = program(&mut self.bench, programs::TRIVIAL)?;
                Some(Attached::Nobody(trivial.attach("d0", XdpMode::Driver)?))
            }
            Forwarder::Director => {
                let sink = program(&mut self.bench, programs::SINK)?;
                let sink = self.server.run(|| sink.attach("s0", XdpMode::Driver))??;
                let path = self.kernel.attach("d0")?;
                Some(Attached::Director { path, sink })
            }
        };
        Ok(())
    }

    /// Sends so many frames through a forwarder: nanoseconds each, from sending to their end.
    ///
    /// # Errors
    /// Frames are lost.
    pub fn measure(&mut self, forwarder: Forwarder, frames: u32) -> Result<f64> {
        self.measure_after(WARM_UP, forwarder, frames)
    }

    fn measure_after(&mut self, warm_up: u32, forwarder: Forwarder, frames: u32) -> Result<f64> {
        self.have(forwarder)?;
        if warm_up > 0 {
            self.send(warm_up)?;
        }
        let sent = u64::from(frames);
        let mut lost = Vec::new();
        for _ in 0..TRIES {
            let before = self.arrived(forwarder)?;
            let took = self.send(frames)?;
            let arrived = self.arrived(forwarder)? - before;
            if arrived + sent / ONE_OF >= sent {
                return Ok(took as f64 / arrived as f64);
            }
            lost.push(sent.saturating_sub(arrived));
        }
        let dropped = self.dropped()?;
        bail!(
            "{forwarder:?}, {} flows: of {sent} frames these were lost, time after time: {lost:?}; the director dropped by now: {dropped}",
            self.flows
        )
    }

    /// What the packet path dropped so far, by reason.
    fn dropped(&mut self) -> Result<String> {
        let counts = self.kernel.counts()?;
        let named = Reason::ALL.iter().filter_map(|reason| {
            let packets = counts.reasons.get(&(*reason as u32)).copied();
            let packets = packets.filter(|packets| *packets > 0)?;
            Some(format!("{packets} {reason:?}"))
        });
        let named: Vec<String> = named.collect();
        Ok(if named.is_empty() {
            "nothing".to_owned()
        } else {
            named.join(", ")
        })
    }

    fn send(&mut self, frames: u32) -> Result<u64> {
        let mut order = Order::new(&self.frame);
        order.flows = u64::from(self.flows);
        order.cursor = self.cursor;
        self.cursor = (self.cursor + u64::from(frames)) % order.flows;
        self.order.set(0, words(&order), 0)?;
        let program: &Xdp = self
            .bench
            .program(programs::EMIT)
            .context("it was loaded")?
            .try_into()?;
        let (frame, context) = (&self.frame, &self.context);
        self.client.run(|| -> Result<u64> {
            let mut cpus = CpuSet::new();
            cpus.set(0)?;
            sched_setaffinity(Pid::from_raw(0), &cpus)?;
            let before = thread_time_ns()?;
            program.test_run(TestRunOptions {
                data_in: Some(frame),
                ctx_in: Some(context),
                repeat: frames,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::new()
            })?;
            Ok(thread_time_ns()? - before)
        })?
    }

    /// Frames that have been seen where a forwarder's frames end.
    fn arrived(&self, forwarder: Forwarder) -> Result<u64> {
        let (host, interface) = match forwarder {
            Forwarder::Nobody => (&self.client, "c0:"),
            Forwarder::Director | Forwarder::Nftables => (&self.server, "s0:"),
        };
        let table = host.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
        let line = table
            .lines()
            .find_map(|line| line.trim().strip_prefix(interface))
            .with_context(|| format!("no {interface} in {table}"))?;
        let packets = line.split_whitespace().nth(1).context("a second number")?;
        Ok(packets.parse()?)
    }
}

/// How many connections the kernel tracks. There is one number for the whole machine, which the namespace that it began with
/// sets, and so it is put back in the end. (Not by who is interrupted: what stays then is a limit that is too high.)
struct Conntrack {
    /// The namespace of whoever began.
    home: File,
    /// What it was before, in the order of [`CONNTRACK`].
    before: [Option<u32>; 2],
}

/// Most connections; chains that they stand in.
const CONNTRACK: [&str; 2] = [
    "/proc/sys/net/netfilter/nf_conntrack_max",
    "/sys/module/nf_conntrack/parameters/hashsize",
];
/// Entries of whoever else uses the machine, and those that were left.
const CONNTRACK_SLACK: u32 = 100_000;

impl Conntrack {
    /// In the namespace of the calling thread.
    fn new() -> Result<Self> {
        let home = File::open("/proc/thread-self/ns/net").context("this thread's namespace")?;
        Ok(Self {
            home,
            before: [None; 2],
        })
    }

    /// Whether there is room for so many connections, by now. (There is not where the machine's own namespace is not this
    /// program's: in a container.)
    fn make_room_for(&mut self, connections: u32) -> bool {
        let wanted = connections + CONNTRACK_SLACK;
        let mut has_room = true;
        for (file, before) in CONNTRACK.into_iter().zip(&mut self.before) {
            let now = at_home(&self.home, || read_number(file)).and_then(|number| number);
            let made = match now {
                Ok(now) if now >= wanted => Ok(()),
                Ok(now) => {
                    before.get_or_insert(now);
                    at_home(&self.home, || write_number(file, wanted)).and_then(|written| written)
                }
                Err(error) => Err(error),
            };
            if let Err(error) = made {
                eprintln!(
                    "    no room for {connections} connections in the kernel's table: {error:#}"
                );
                has_room = false;
            }
        }
        has_room
    }
}

impl Drop for Conntrack {
    fn drop(&mut self) {
        for (file, before) in CONNTRACK.into_iter().zip(self.before) {
            let Some(before) = before else { continue };
            let put_back = at_home(&self.home, || write_number(file, before)).and_then(|it| it);
            if let Err(error) = put_back {
                eprintln!("warning: {file} is not {before} again: {error:#}");
            }
        }
    }
}

fn read_number(file: &str) -> Result<u32> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
    text.trim()
        .parse()
        .with_context(|| format!("{file} says {text}"))
}

fn write_number(file: &str, number: u32) -> Result<()> {
    std::fs::write(file, number.to_string()).with_context(|| format!("writing {number} to {file}"))
}

/// Does something in another network namespace, on a thread that ends with it.
fn at_home<T: Send>(home: &File, work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> Result<T> {
            setns(home, CloneFlags::CLONE_NEWNET).context("the namespace that this began in")?;
            Ok(work())
        });
        thread.join().map_err(|_| anyhow!("a thread panicked"))?
    })
}

fn program<'b>(bench: &'b mut Ebpf, name: &str) -> Result<&'b mut Xdp> {
    Ok(bench
        .program_mut(name)
        .with_context(|| format!("the object has no program {name}"))?
        .try_into()?)
}

/// Lays a cable from here to another namespace.
fn cable(here: &str, there: &Namespace, other: &str) -> Result<()> {
    let mac = colons(DIRECTOR);
    run(
        "ip",
        &[
            "link",
            "add",
            here,
            "type",
            "veth",
            "peer",
            "name",
            other,
            "netns",
            there.name(),
        ],
    )?;
    run("ip", &["link", "set", here, "address", &mac, "up"])?;
    there.output("ip", &["link", "set", other, "up"])?;
    for (namespace, interface) in [(None, here), (Some(there), other)] {
        // Frames with partial checksums are refused further on.
        let arguments = ["-K", interface, "tx", "off"];
        match namespace {
            None => run("ethtool", &arguments)?,
            Some(there) => _ = there.output("ethtool", &arguments)?,
        }
    }
    if other == "s0" {
        there.output("nft", &["add table netdev sink"])?;
        there.output(
            "nft",
            &["add chain netdev sink in { type filter hook ingress device s0 priority 0; policy drop; }"],
        )?;
    }
    Ok(())
}

/// Runs a command in the namespace that this thread is in.
fn run(name: &str, arguments: &[&str]) -> Result<()> {
    command::run(Command::new(name).args(arguments), "").map(drop)
}

fn nft(rules: &str) -> Result<()> {
    run("nft", &[rules])
}

fn set(setting: &str, value: &str) -> Result<()> {
    std::fs::write(format!("/proc/sys/net/{setting}"), value)
        .with_context(|| format!("writing {value} to {setting}"))
}

fn colons(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// As kube-proxy's nftables mode balances: `numgen` into a map of real servers, in a NAT chain.
fn rules() -> String {
    let servers: Vec<String> = (0..SERVERS)
        .map(|index| format!("{index} : {} . {REAL_PORT}", Family::V4.server(index + 1)))
        .collect();
    format!(
        "table ip balance {{\n chain before {{\n type nat hook prerouting priority dstnat; policy accept;\n \
         ip daddr {} udp dport {PORT} dnat to numgen random mod {SERVERS} map {{ {} }}\n }}\n}}\n",
        Family::V4.virtual_address(),
        servers.join(", ")
    )
}

/// The director's tables: the same service and real servers.
fn fixture(buckets: u32, towards_servers: u32) -> Fixture {
    let mut fixture = Fixture::empty();
    fixture.settings.buckets4 = buckets;
    fixture.settings.buckets6 = buckets;
    let reals: Vec<Real> = (1..=SERVERS)
        .map(|number| Real {
            method: method::NAT,
            address: Family::V4.server(number),
            port: REAL_PORT,
            next_hop: NextHop {
                ifindex: towards_servers,
                egress: OTHER_SLOT,
                ..hop(server_mac(number))
            },
        })
        .collect();
    let address = Family::V4.virtual_address();
    fixture.add(address, PORT, protocol::UDP, scheduler::CURSOR, &reals);
    fixture
}
