//! What runs packets: the same questions to the native path and to the kernel.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use anyhow::Result;
use xdp_ebpf::connection::{Bucket, Bucket4, Bucket6, Value, split_key4, split_key6};
use xdp_ebpf::layout::{Counters, Reason};
use xdp_ebpf::state::State;

use super::fixture::Fixture;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// On to the kernel's network stack.
    Pass,
    /// Gone.
    Drop,
    /// Out by the interface it came in by.
    Transmit,
    /// Out by another interface, whose slot in the devmap exists.
    Redirect,
}

/// What became of a frame, and its bytes then.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What became of it.
    pub action: Action,
    /// Its bytes; of a dropped frame, whatever was left of it.
    pub frame: Vec<u8>,
}

/// Where a frame was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Under a reason.
    Reason(&'static str),
    /// Among a destination's packets from clients.
    In(u32),
    /// Among a destination's packets to clients.
    Out(u32),
}

/// All packet counters. Those that are 0 are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By number of the reason.
    pub reasons: BTreeMap<u32, u64>,
    /// By destination id: connections, packets and bytes in, packets and bytes out.
    pub traffic: BTreeMap<u32, [u64; 5]>,
}

impl Counts {
    /// Adds one CPU's traffic of a destination.
    pub fn add(&mut self, id: u32, counters: &Counters) {
        if *counters == Counters::default() {
            return;
        }
        let sum = self.traffic.entry(id).or_default();
        let more = [
            counters.connections,
            counters.in_packets,
            counters.in_bytes,
            counters.out_packets,
            counters.out_bytes,
        ];
        for (sum, more) in sum.iter_mut().zip(more) {
            *sum += more;
        }
    }

    /// The places in which packets were counted since `before`, as often as they were, in order.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<Place> {
        let mut places = Vec::new();
        for reason in Reason::ALL {
            let of = |counts: &Self| counts.reasons.get(&(*reason as u32)).copied().unwrap_or(0);
            for _ in of(before)..of(self) {
                places.push(Place::Reason(reason.name()));
            }
        }
        for (id, now) in &self.traffic {
            let was = before.traffic.get(id).copied().unwrap_or_default();
            for _ in was[1]..now[1] {
                places.push(Place::In(*id));
            }
            for _ in was[3]..now[3] {
                places.push(Place::Out(*id));
            }
        }
        places
    }

    /// Bytes counted in destinations since `before`.
    #[must_use]
    pub fn bytes_since(&self, before: &Self) -> u64 {
        let sum = |counts: &Self| -> u64 {
            counts
                .traffic
                .values()
                .map(|traffic| traffic[2] + traffic[4])
                .sum()
        };
        sum(self) - sum(before)
    }

    /// Connections scheduled to a destination.
    #[must_use]
    pub fn connections(&self, id: u32) -> u64 {
        self.traffic.get(&id).map_or(0, |traffic| traffic[0])
    }
}

/// An entry of the connection tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// The CPU whose table it stands in.
    pub cpu: u32,
    /// Endpoint id.
    pub endpoint: u16,
    /// The client's port.
    pub client_port: u16,
    /// Destination id.
    pub destination: u32,
    /// State.
    pub state: Option<State>,
    /// Flags.
    pub flags: u8,
}

fn connection(cpu: usize, port: u16, endpoint: u16, value: Value) -> Option<Connection> {
    value.is_some().then(|| Connection {
        cpu: cpu as u32,
        endpoint,
        client_port: u16::from_be(port),
        destination: value.destination(),
        state: State::from_u8(value.state()),
        flags: value.flags(),
    })
}

/// Entries of a table of so many buckets for each CPU; `split` takes a key apart to client port and endpoint.
fn entries<B: Bucket>(
    buckets: &[B],
    per_cpu: usize,
    split: impl Fn(B::Key) -> (u16, u16),
) -> Vec<Connection> {
    let mut all = Vec::new();
    for (index, bucket) in buckets.iter().enumerate() {
        for way in (0..B::WAYS).filter(|way| !bucket.is_free(*way)) {
            let value = Value(bucket.value(way).load(Ordering::Relaxed));
            let (port, endpoint) = split(bucket.key(way));
            all.extend(connection(index / per_cpu, port, endpoint, value));
        }
    }
    all
}

/// Entries of narrow tables of so many buckets for each CPU.
#[must_use]
pub fn connections4(buckets: &[Bucket4], per_cpu: usize) -> Vec<Connection> {
    entries(buckets, per_cpu, |key| {
        let (_, port, endpoint) = split_key4(key);
        (port, endpoint)
    })
}

/// Entries of wide tables of so many buckets for each CPU.
#[must_use]
pub fn connections6(buckets: &[Bucket6], per_cpu: usize) -> Vec<Connection> {
    entries(buckets, per_cpu, |key| {
        let split = split_key6(key);
        (split.port, split.endpoint)
    })
}

/// Something that runs packets through the packet path.
pub trait Machine {
    /// How reports name it.
    fn name(&self) -> &'static str;

    /// Fills the tables anew: no connections, no fragments, nothing held, on CPU 0.
    ///
    /// # Errors
    /// A table cannot be written.
    fn load(&mut self, fixture: &Fixture) -> Result<()>;

    /// Fills the tables anew but leaves connections and fragments.
    ///
    /// # Errors
    /// A table cannot be written.
    fn change(&mut self, fixture: &Fixture) -> Result<()>;

    /// The CPU that frames arrive on from now on.
    ///
    /// # Errors
    /// There is no such CPU.
    fn cpu(&mut self, cpu: u32) -> Result<()>;

    /// Runs a frame.
    ///
    /// # Errors
    /// It was not possible, or the verdict is none of [`Action`].
    fn run(&mut self, frame: &[u8]) -> Result<Outcome>;

    /// All counters.
    ///
    /// # Errors
    /// They cannot be read.
    fn counts(&mut self) -> Result<Counts>;

    /// Takes the frames that wait for their datagram's first fragment.
    ///
    /// # Errors
    /// They cannot be read.
    fn take_held(&mut self) -> Result<Vec<Vec<u8>>>;

    /// Active and inactive connections in a destination's load.
    ///
    /// # Errors
    /// They cannot be read.
    fn load_of(&mut self, destination: u32) -> Result<(u64, u64)>;

    /// All connections, in order.
    ///
    /// # Errors
    /// They cannot be read.
    fn connections(&mut self) -> Result<Vec<Connection>>;
}
