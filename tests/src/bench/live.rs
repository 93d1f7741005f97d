//! Live frames through virtual cables: what sends them, what forwards them, where they end.
//!
//! ```text
//!   client c0 ──── d0 [ the director, or nftables and the kernel's stack ] d1 ──── s0 server
//!     `emit`: each frame the next flow's                                           ends here, counted
//! ```
//!
//! Everything runs on one CPU, mostly in the system call that sends: the time of its thread is that of the whole way.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use nix::net::if_::if_nametoindex;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use xdp_ebpf::bench::{FLOWS_PER_PAGE, Order, flow, maps, programs};
use xdp_ebpf::layout::{NextHop, limits, method, scheduler};
use xdp_ebpf::wire::protocol;

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
/// Flows, one a port of the client's: then no checksum of a header has to change with them.
const FLOWS: u16 = 1000;
const FIRST_PORT: u16 = 20_000;
/// Frames at once: what a driver's queue is asked for (`NAPI_POLL_WEIGHT`).
const BATCH: u32 = 64;
/// Frames that do not count: they make connections of all flows, and each flow's second one.
const WARM_UP: u32 = 3000;
/// Of so many frames one may be lost.
const ONE_OF: u64 = 50;

/// Who forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarder {
    /// The packet path.
    Director,
    /// nftables' NAT: a map from a random number to a real server for new connections, conntrack for the rest.
    Nftables,
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
    attached: Option<(XdpLinkId, XdpLinkId)>,
}

impl Live {
    /// Sets it up. The calling thread is the director's namespace from now on.
    ///
    /// # Errors
    /// Not root, or something is missing.
    pub fn new() -> Result<Self> {
        let buckets = 4 * limits::MIN_BUCKETS.max(u32::from(FLOWS));
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
        kernel.change(&fixture(buckets, if_nametoindex("d1")?))?;
        kernel.connect(u32::from(OTHER_SLOT), if_nametoindex("d1")?)?;

        let file = paths::bpf_object("bench-xdp.o")?;
        let mut bench = EbpfLoader::new()
            .load_file(&file)
            .with_context(|| format!("loading {}", file.display()))?;
        for name in [programs::EMIT, programs::SINK] {
            program(&mut bench, name)?
                .load()
                .with_context(|| format!("loading {name}"))?;
        }
        let order = Array::try_from(bench.take_map(maps::ORDER).context("the map of orders")?)?;
        set_flows(&mut bench)?;
        let mut context = [0; 24];
        let ingress = client.run(|| if_nametoindex("c0"))??;
        context[12..16].copy_from_slice(&ingress.to_ne_bytes());
        let to = (Family::V4.virtual_address(), PORT);
        let ip = Ip::udp((Family::V4.client(), FIRST_PORT), to, &[0x5a; 40]).without_checksum();
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
        })
    }

    /// Has somebody forward from now on.
    fn have(&mut self, forwarder: Forwarder) -> Result<()> {
        match (forwarder, self.attached.take()) {
            (Forwarder::Director, None) => {
                let sink = program(&mut self.bench, programs::SINK)?;
                let sink = self.server.run(|| sink.attach("s0", XdpMode::Driver))??;
                self.attached = Some((self.kernel.attach("d0")?, sink));
            }
            (Forwarder::Nftables, Some((director, sink))) => {
                self.kernel.detach(director)?;
                // Frames that come as the stack's own end sooner without a program, by a rule.
                let program = program(&mut self.bench, programs::SINK)?;
                self.server.run(|| program.detach(sink))??;
            }
            (_, attached) => self.attached = attached,
        }
        Ok(())
    }

    /// Sends so many frames through a forwarder: nanoseconds each, from sending to their end.
    ///
    /// # Errors
    /// Frames are lost.
    pub fn measure(&mut self, forwarder: Forwarder, frames: u32) -> Result<f64> {
        self.have(forwarder)?;
        self.send(WARM_UP)?;
        let before = self.arrived()?;
        let took = self.send(frames)?;
        let arrived = self.arrived()? - before;
        let sent = u64::from(frames);
        ensure!(
            arrived + sent / ONE_OF >= sent,
            "{forwarder:?}: of {sent} frames {arrived} arrived"
        );
        Ok(took as f64 / arrived as f64)
    }

    fn send(&mut self, frames: u32) -> Result<u64> {
        let mut order = Order::new(&self.frame);
        order.flows = u64::from(FLOWS);
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

    /// Frames that the server's end has seen.
    fn arrived(&self) -> Result<u64> {
        let table = self
            .server
            .run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
        let line = table
            .lines()
            .find_map(|line| line.trim().strip_prefix("s0:"))
            .with_context(|| format!("no s0 in {table}"))?;
        let packets = line.split_whitespace().nth(1).context("a second number")?;
        Ok(packets.parse()?)
    }
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

fn set_flows(bench: &mut Ebpf) -> Result<()> {
    let std::net::IpAddr::V4(client) = Family::V4.client() else {
        unreachable!("of the family that was asked for");
    };
    let flows: Vec<u64> = (0..FLOWS)
        .map(|nth| flow(client.octets(), FIRST_PORT + nth))
        .collect();
    let map = bench.map_mut(maps::FLOWS).context("the map of flows")?;
    let mut pages = Array::<_, [u64; FLOWS_PER_PAGE]>::try_from(map)?;
    for (index, part) in (0..).zip(flows.chunks(FLOWS_PER_PAGE)) {
        let mut page = [0; FLOWS_PER_PAGE];
        page[..part.len()].copy_from_slice(part);
        pages.set(index, page, 0)?;
    }
    Ok(())
}
