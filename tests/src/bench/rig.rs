//! The kernel's side: a director's packet path and the benchmark's own programs, and how long each takes for a packet.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{ProgramFd, TestRun, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use nix::time::{ClockId, clock_gettime};
use xdp_ebpf::bench::{self, FLOWS_PER_PAGE, Order, maps, programs};
use xdp_ebpf::connection::split_key4;

use super::site;
use crate::packet::kernel::Kernel;
use crate::packet::{Action, Machine as _};
use crate::paths;

/// An interface that every namespace has.
const LOOPBACK: &str = "lo";
/// CPUs with a connection table; only the first one has work.
pub(super) const CPUS: u32 = 2;
/// Words of an [`Order`], which is nothing but numbers.
pub(super) const WORDS: usize = size_of::<Order>() / 8;
/// Elements of an LRU hash that are kept free: it gives something up before its last one is taken
/// (`bpf_lru_list_pop_free_to_local` in `kernel/bpf/bpf_lru_list.c` takes 128 at once).
const LRU_SLACK: u32 = 1024;
/// Of so many packets of a run one may have another verdict: an LRU hash is not exact.
const ONE_OF: u64 = 100;

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The packet path.
    Director,
    /// One of [`programs`].
    Bench(&'static str),
}

/// What is measured: a program, and the packets that it is given.
#[derive(Clone, Debug)]
pub struct Contender {
    /// What runs.
    pub program: Program,
    /// A packet.
    pub frame: Vec<u8>,
    /// Whose packets they are.
    pub sources: Sources,
    /// What becomes of them.
    pub expected: Action,
}

/// Whose packets a contender is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    /// The same packet over and over.
    One,
    /// Those of the flows that were set last, in turn.
    Flows,
    /// Each of a source that none had before.
    New,
}

impl Contender {
    /// A director that sends a packet of one flow.
    #[must_use]
    pub fn director(frame: Vec<u8>) -> Self {
        Self {
            program: Program::Director,
            frame,
            sources: Sources::One,
            expected: Action::Transmit,
        }
    }

    /// One of the benchmark's programs, which sends a packet of one flow.
    #[must_use]
    pub fn bench(name: &'static str, frame: Vec<u8>) -> Self {
        Self {
            program: Program::Bench(name),
            ..Self::director(frame)
        }
    }

    /// Of other sources.
    #[must_use]
    pub fn from(self, sources: Sources) -> Self {
        Self { sources, ..self }
    }

    /// With another verdict.
    #[must_use]
    pub fn expecting(self, expected: Action) -> Self {
        Self { expected, ..self }
    }
}

/// The benchmark's own programs.
struct Bench {
    object: Ebpf,
    measured: ProgramArray<MapData>,
    order: Array<MapData, [u64; WORDS]>,
    programs: BTreeMap<&'static str, ProgramFd>,
}

/// The rig.
pub struct Rig {
    kernel: Kernel,
    director: ProgramFd,
    bench: Option<Bench>,
    /// Those that were set last.
    flows: Vec<u64>,
    /// Where they, and new sources, go on.
    cursor: u64,
    new_sources: u64,
}

impl Rig {
    /// Loads everything, for so many connections (of each family) on the one CPU on which it measures. The calling thread is
    /// in a namespace of its own from now on, and on that CPU.
    ///
    /// # Errors
    /// Not root, the objects are not built, or the kernel refuses them.
    pub fn new(buckets: u32, most_flows: u32) -> Result<Self> {
        let mut kernel =
            Kernel::with_buckets(&paths::bpf_object("director-xdp.o")?, CPUS * buckets)?;
        kernel.change(&site::fixture(CPUS, buckets))?;
        kernel.cpu(0)?;
        Ok(Self {
            director: kernel.director()?,
            kernel,
            bench: Some(Bench::load(most_flows)?),
            flows: Vec::new(),
            cursor: 0,
            new_sources: 0,
        })
    }

    /// Goes on with other sizes, no more buckets than before, and without connections.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn resize(&mut self, buckets: u32, most_flows: u32) -> Result<()> {
        self.kernel.free4(|_| true)?;
        self.kernel.change(&site::fixture(CPUS, buckets))?;
        self.kernel.rewind()?;
        // The old one first: only one program can be attached.
        self.bench = None;
        self.bench = Some(Bench::load(most_flows)?);
        self.flows.clear();
        Ok(())
    }

    /// The director's tables.
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// Sets the flows of [`Sources::Flows`].
    ///
    /// # Errors
    /// There are more than the rig was made for.
    pub fn set_flows(&mut self, flows: Vec<u64>) -> Result<()> {
        let bench = self.bench.as_mut().context("it was loaded")?;
        let map = bench.object.map_mut(maps::FLOWS).context("it was loaded")?;
        let mut pages = Array::<_, [u64; FLOWS_PER_PAGE]>::try_from(map)?;
        for (index, part) in (0..).zip(flows.chunks(FLOWS_PER_PAGE)) {
            let mut page = [0; FLOWS_PER_PAGE];
            page[..part.len()].copy_from_slice(part);
            pages
                .set(index, page, 0)
                .with_context(|| format!("flows, page {index}"))?;
        }
        self.flows = flows;
        self.cursor = 0;
        Ok(())
    }

    /// Frees the director's connections of some generations. How many.
    ///
    /// # Errors
    /// The table cannot be written.
    pub fn free(&mut self, generation: impl Fn(u8) -> bool) -> Result<usize> {
        self.kernel.free4(|key| {
            let (client, ..) = split_key4(key);
            generation(super::flows::generation_of(client))
        })
    }

    /// Runs so many packets of a contender: nanoseconds each, all that was done for them included.
    ///
    /// # Errors
    /// The run fails, or packets meet with another verdict than expected.
    pub fn run(&mut self, contender: &Contender, packets: u32) -> Result<f64> {
        let mut frame = contender.frame.clone();
        ensure!(
            frame.len() >= bench::RESTORED,
            "a frame of {} bytes is shorter than what is written anew",
            frame.len()
        );
        let mut order = Order::new(&frame);
        match contender.sources {
            Sources::One => {}
            Sources::Flows => {
                // The first packet is the frame as it is handed over: the flow whose turn it is.
                let flow = self
                    .flows
                    .get(self.cursor as usize)
                    .context("no flows were set")?;
                let bytes = flow.to_le_bytes();
                frame[26..30].copy_from_slice(&bytes[..4]);
                frame[34..36].copy_from_slice(&bytes[4..6]);
                order.flows = self.flows.len() as u64;
                order.cursor = (self.cursor + 1) % order.flows;
            }
            Sources::New => {
                order.new_sources = 1;
                order.cursor = self.new_sources;
            }
        }
        let bench = self.bench.as_mut().context("it was loaded")?;
        let fd = match contender.program {
            Program::Director => &self.director,
            Program::Bench(name) => bench.programs.get(name).context("it was loaded")?,
        };
        bench.measured.set(0, fd, 0)?;
        bench.order.set(0, words(&order), 0)?;

        let program: &Xdp = bench
            .object
            .program(programs::MEASURE)
            .context("it was loaded")?
            .try_into()?;
        let before = thread_time_ns()?;
        program.test_run(TestRunOptions {
            data_in: Some(&frame),
            repeat: packets,
            ..TestRunOptions::new()
        })?;
        let took = thread_time_ns()? - before;

        let after = order_of(bench.order.get(&0, 0)?);
        match contender.sources {
            Sources::One => {}
            // The one after the last packet was written already, and nobody saw it.
            Sources::Flows => {
                self.cursor = (after.cursor + after.flows - 1) % after.flows;
            }
            Sources::New => self.new_sources = after.cursor,
        }
        check(contender, u64::from(packets), &after.verdicts)?;
        Ok(took as f64 / f64::from(packets))
    }
}

/// Whether packets met with what was expected.
fn check(contender: &Contender, packets: u64, verdicts: &[u64; 8]) -> Result<()> {
    // `enum xdp_action` of the kernel.
    let names = [
        "aborted",
        "drop",
        "pass",
        "transmit",
        "redirect",
        "5",
        "not made fresh",
        "not called",
    ];
    let expected = match contender.expected {
        Action::Drop => 1,
        Action::Pass => 2,
        Action::Transmit => 3,
        Action::Redirect => 4,
    };
    if verdicts[expected] + packets / ONE_OF >= packets
        && verdicts[bench::NOT_CALLED] == 0
        && verdicts[bench::NOT_RESTORED] == 0
    {
        return Ok(());
    }
    let met: Vec<String> = names
        .iter()
        .zip(verdicts)
        .filter(|(_, count)| **count != 0)
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    bail!(
        "{:?}: of {packets} packets all should be: {}; they were: {}",
        contender.program,
        names[expected],
        met.join(", ")
    )
}

/// Time that this thread has run, in user and kernel mode. (What a test run reports itself is cut to whole nanoseconds.)
pub(super) fn thread_time_ns() -> Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

impl Bench {
    /// Loads it, its flows and yardsticks for so many.
    fn load(most_flows: u32) -> Result<Self> {
        let file = paths::bpf_object("bench-xdp.o")?;
        let pages = most_flows.div_ceil(FLOWS_PER_PAGE as u32).max(1);
        let mut object = EbpfLoader::new()
            .map_max_entries(maps::FLOWS, pages)
            .map_max_entries(maps::FLOWS16, most_flows + LRU_SLACK)
            .map_max_entries(maps::FLOWS40, most_flows + LRU_SLACK)
            .load_file(&file)
            .with_context(|| format!("loading {}", file.display()))?;
        let mut fds = BTreeMap::new();
        for name in programs::ALL.into_iter().chain([programs::MEASURE]) {
            let program: &mut Xdp = object
                .program_mut(name)
                .with_context(|| format!("the object has no program {name}"))?
                .try_into()?;
            program.load().with_context(|| format!("loading {name}"))?;
            fds.insert(name, program.fd()?.try_clone()?);
        }
        let program: &mut Xdp = object
            .program_mut(programs::MEASURE)
            .context("it was loaded")?
            .try_into()?;
        // So that the kernel keeps its shortcut to it (`bpf_prog_change_xdp`), which each test run would make and take away
        // again: that costs tens of milliseconds. The interface is this namespace's own and down: nobody's packets meet it.
        program
            .attach(LOOPBACK, XdpMode::Skb)
            .context("attaching to the loopback interface of a namespace of its own")?;
        Ok(Self {
            measured: ProgramArray::try_from(take(&mut object, maps::MEASURED)?)?,
            order: Array::try_from(take(&mut object, maps::ORDER)?)?,
            programs: fds,
            object,
        })
    }
}

fn take(object: &mut Ebpf, name: &str) -> Result<aya::maps::Map> {
    object
        .take_map(name)
        .with_context(|| format!("the object has no map {name}"))
}

pub(super) fn words(order: &Order) -> [u64; WORDS] {
    // SAFETY: nothing but 8-byte numbers, as many of them as an order has bytes for.
    unsafe { core::mem::transmute(*order) }
}

fn order_of(words: [u64; WORDS]) -> Order {
    // SAFETY: as in `words`; any numbers are an order.
    unsafe { core::mem::transmute(words) }
}
