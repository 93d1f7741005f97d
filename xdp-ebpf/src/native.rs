//! The packet path in ordinary memory: frames, and tables of the standard library.

mod frame;
mod shared;

use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::{BTreeMap, HashMap};

use crate::connection::{Bucket4, Bucket6};
use crate::layout::{
    Counters, Destination, Endpoint, Endpoint4, Endpoint6, Fragment, FragmentKey4, FragmentKey6,
    Load, Locality, LocalityKey, Neighbour4, Neighbour6, NextHop, RANGE_BITS4, RANGE_BITS6,
    REASONS, RangeKey4, RangeKey6, Reason, Route, Scratch, Served, Service, Settings, SharedBy,
    Template, TemplateKey, TokenBucket, Work, limits,
};
use crate::packet::Packet;
use crate::tables::Tables;

pub use frame::{Frame, HEADROOM, LONGEST};
pub use shared::{Cpu, SharedTables};

/// A frame that is waiting for its datagram's first fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Interface it came in by.
    pub ifindex: u32,
    /// When it came.
    pub at_ns: u64,
    /// Its bytes.
    pub frame: Vec<u8>,
}

/// The tables in ordinary memory, each as its map of the same name in [`crate::layout::maps`].
///
/// For one thread: `cpu` says which CPU's tables a packet sees.
pub struct NativeTables {
    /// The CPU that packets arrive on.
    pub cpu: Cell<u32>,
    /// The monotonic clock.
    pub now_ns: Cell<u64>,
    /// `SETTINGS`; `None`: never written.
    pub settings: Option<Settings>,
    /// `SERVICES4`.
    pub services4: HashMap<Endpoint4, Served>,
    /// `SERVICES6`.
    pub services6: HashMap<Endpoint6, Served>,
    /// `RANGES4`: bits of the prefix and key.
    pub ranges4: BTreeMap<(u32, RangeKey4), Served>,
    /// `RANGES6`: bits of the prefix and key.
    pub ranges6: BTreeMap<(u32, RangeKey6), Served>,
    /// `ENDPOINTS`.
    pub endpoints: HashMap<u16, Endpoint>,
    /// `SERVICES`.
    pub services: HashMap<u16, Service>,
    /// `LOADS`.
    pub loads: HashMap<u32, Load>,
    /// State of the random numbers (xorshift64), never 0.
    pub random: Cell<u64>,
    /// The kernel's ticks.
    pub ticks: Cell<u64>,
    /// `LEASE`: the tick after which it has run out; 0 without one.
    pub lease_until: Cell<u64>,
    /// `SLOTS`.
    pub slots: Vec<u32>,
    /// `DESTINATIONS`.
    pub destinations: HashMap<u32, Destination>,
    /// `REAL_SERVERS4`.
    pub real_servers4: HashMap<Endpoint4, SharedBy>,
    /// `REAL_SERVERS6`.
    pub real_servers6: HashMap<Endpoint6, SharedBy>,
    /// `ADDRESSES4`.
    pub addresses4: HashMap<[u8; 4], u32>,
    /// `ADDRESSES6`.
    pub addresses6: HashMap<[u8; 16], u32>,
    /// `ROUTES4`: prefix length and prefix.
    pub routes4: BTreeMap<(u8, [u8; 4]), Route>,
    /// `ROUTES6`: prefix length and prefix.
    pub routes6: BTreeMap<(u8, [u8; 16]), Route>,
    /// `NEXT_HOPS`.
    pub next_hops: HashMap<u32, NextHop>,
    /// `NEIGHBOURS4`.
    pub neighbours4: HashMap<Neighbour4, NextHop>,
    /// `NEIGHBOURS6`.
    pub neighbours6: HashMap<Neighbour6, NextHop>,
    /// `EGRESS`.
    pub egress: HashMap<u32, u32>,
    /// `OWN_MACS`.
    pub own_macs: HashMap<u32, u64>,
    connections4: Vec<Bucket4>,
    connections6: Vec<Bucket6>,
    cursors: Vec<AtomicU64>,
    counters: HashMap<u32, UnsafeCell<Counters>>,
    reasons: Vec<Cell<u64>>,
    templates: RefCell<HashMap<TemplateKey, Template>>,
    localities: RefCell<HashMap<LocalityKey, Box<Locality>>>,
    fragments4: RefCell<HashMap<FragmentKey4, Box<UnsafeCell<Fragment>>>>,
    fragments6: RefCell<HashMap<FragmentKey6, Box<UnsafeCell<Fragment>>>>,
    held: RefCell<Vec<Held>>,
    limiter: UnsafeCell<TokenBucket>,
    scratch: UnsafeCell<Scratch>,
    work: UnsafeCell<Work>,
}

impl NativeTables {
    /// Empty tables of the sizes that the settings state. Destinations with ids below `destinations` are counted.
    #[must_use]
    pub fn new(settings: Settings, destinations: u32) -> Self {
        let buckets = |buckets: u32| settings.cpus as usize * buckets as usize;
        Self {
            cpu: Cell::new(0),
            now_ns: Cell::new(1_000_000_000),
            settings: Some(settings),
            services4: HashMap::new(),
            services6: HashMap::new(),
            ranges4: BTreeMap::new(),
            ranges6: BTreeMap::new(),
            endpoints: HashMap::new(),
            services: HashMap::new(),
            loads: HashMap::new(),
            random: Cell::new(1),
            ticks: Cell::new(1 << 32),
            lease_until: Cell::new(0),
            slots: Vec::new(),
            destinations: HashMap::new(),
            real_servers4: HashMap::new(),
            real_servers6: HashMap::new(),
            addresses4: HashMap::new(),
            addresses6: HashMap::new(),
            routes4: BTreeMap::new(),
            routes6: BTreeMap::new(),
            next_hops: HashMap::new(),
            neighbours4: HashMap::new(),
            neighbours6: HashMap::new(),
            egress: HashMap::new(),
            own_macs: HashMap::new(),
            connections4: (0..buckets(settings.buckets4))
                .map(|_| Bucket4::default())
                .collect(),
            connections6: (0..buckets(settings.buckets6))
                .map(|_| Bucket6::default())
                .collect(),
            cursors: (0..limits::SERVICES).map(|_| AtomicU64::new(0)).collect(),
            counters: (0..destinations)
                .map(|id| (id, UnsafeCell::new(Counters::default())))
                .collect(),
            reasons: (0..REASONS).map(|_| Cell::new(0)).collect(),
            templates: RefCell::default(),
            localities: RefCell::default(),
            fragments4: RefCell::default(),
            fragments6: RefCell::default(),
            held: RefCell::default(),
            limiter: UnsafeCell::default(),
            scratch: UnsafeCell::default(),
            work: UnsafeCell::default(),
        }
    }

    /// Packets counted under a reason.
    #[must_use]
    pub fn reason(&self, reason: Reason) -> u64 {
        self.reasons[reason as usize].get()
    }

    /// Traffic of a destination.
    #[must_use]
    pub fn traffic(&self, destination: u32) -> Counters {
        match self.counters.get(&destination) {
            // SAFETY: one thread, and no packet is being handled.
            Some(counters) => unsafe { *counters.get() },
            None => Counters::default(),
        }
    }

    /// All buckets of IPv4 connections.
    #[must_use]
    pub fn buckets4(&self) -> &[Bucket4] {
        &self.connections4
    }

    /// All buckets of IPv6 connections.
    #[must_use]
    pub fn buckets6(&self) -> &[Bucket6] {
        &self.connections6
    }

    /// Clients that persistence remembers.
    #[must_use]
    pub fn templates(&self) -> HashMap<TemplateKey, Template> {
        self.templates.borrow().clone()
    }

    /// Gives persistence these clients to remember.
    pub fn set_templates(&mut self, templates: impl IntoIterator<Item = (TemplateKey, Template)>) {
        self.templates = RefCell::new(templates.into_iter().collect());
    }

    /// Gives `lblc` and `lblcr` these addresses to remember.
    pub fn set_localities(
        &mut self,
        localities: impl IntoIterator<Item = (LocalityKey, Locality)>,
    ) {
        let boxed = localities.into_iter().map(|(key, it)| (key, Box::new(it)));
        self.localities = RefCell::new(boxed.collect());
    }

    /// Puts `rr` or `wrr` of a service to a place in its table.
    pub fn set_cursor(&mut self, service: u16, position: u64) {
        if let Some(cursor) = self.cursors.get_mut(usize::from(service)) {
            *cursor.get_mut() = position;
        }
    }

    /// Takes the frames that were handed to userspace.
    #[must_use]
    pub fn take_held(&self) -> Vec<Held> {
        self.held.take()
    }
}

/// The route of the longest prefix.
fn longest<const N: usize>(
    routes: &BTreeMap<(u8, [u8; N]), Route>,
    address: [u8; N],
) -> Option<Route> {
    let covers = |length: u8, prefix: &[u8; N]| {
        (0..usize::from(length)).all(|bit| {
            let mask = 0x80 >> (bit % 8);
            prefix[bit / 8] & mask == address[bit / 8] & mask
        })
    };
    routes
        .iter()
        .rev()
        .find(|((length, prefix), _)| covers(*length, prefix))
        .map(|(_, route)| *route)
}

/// Whether a port begins with so many bits of another one.
fn begins(bits: u32, prefix: [u8; 2], port: [u8; 2]) -> bool {
    let differ = u16::from_be_bytes(prefix) ^ u16::from_be_bytes(port);
    u32::from(differ) >> 16_u32.saturating_sub(bits) == 0
}

// SAFETY: the tables are for one thread, and nothing but the packet path touches the cells while a packet is handled;
// what `&self` gives out is not moved by the path, which only replaces fragments after it is done with the old one.
unsafe impl Tables for NativeTables {
    fn cpu(&self) -> u32 {
        self.cpu.get()
    }

    fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    fn ticks(&self) -> u64 {
        self.ticks.get()
    }

    fn lease_until(&self) -> u64 {
        self.lease_until.get()
    }

    fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    fn served4(&self, endpoint: &Endpoint4) -> Option<Served> {
        self.services4.get(endpoint).copied()
    }

    fn served6(&self, endpoint: &Endpoint6) -> Option<Served> {
        self.services6.get(endpoint).copied()
    }

    fn ranged4(&self, key: &RangeKey4) -> Option<Served> {
        let same =
            |range: &RangeKey4| (range.address, range.protocol) == (key.address, key.protocol);
        let mut ranges = self.ranges4.iter().rev();
        ranges
            .find(|((bits, range), _)| {
                same(range) && begins(*bits - RANGE_BITS4, range.port, key.port)
            })
            .map(|(_, served)| *served)
    }

    fn ranged6(&self, key: &RangeKey6) -> Option<Served> {
        let same =
            |range: &RangeKey6| (range.address, range.protocol) == (key.address, key.protocol);
        let mut ranges = self.ranges6.iter().rev();
        ranges
            .find(|((bits, range), _)| {
                same(range) && begins(*bits - RANGE_BITS6, range.port, key.port)
            })
            .map(|(_, served)| *served)
    }

    fn endpoint(&self, id: u16) -> Option<&Endpoint> {
        self.endpoints.get(&id)
    }

    fn service(&self, id: u16) -> Option<&Service> {
        self.services.get(&id)
    }

    fn cursor(&self, service: u16) -> Option<&AtomicU64> {
        self.cursors.get(usize::from(service))
    }

    fn load(&self, destination: u32) -> Option<&Load> {
        self.loads.get(&destination)
    }

    fn template(&self, key: &TemplateKey) -> Option<Template> {
        self.templates.borrow().get(key).copied()
    }

    fn put_template(&self, key: &TemplateKey, template: &Template, only_new: bool) -> bool {
        let mut templates = self.templates.borrow_mut();
        if only_new && templates.contains_key(key) {
            return false;
        }
        templates.insert(*key, *template);
        true
    }

    fn locality(&self, key: &LocalityKey) -> Option<&Locality> {
        let localities = self.localities.borrow();
        let locality = std::ptr::from_ref::<Locality>(localities.get(key)?);
        // SAFETY: boxed, and never taken out again while a packet is handled.
        Some(unsafe { &*locality })
    }

    fn add_locality(&self, key: &LocalityKey) -> bool {
        self.localities.borrow_mut().entry(*key).or_default();
        true
    }

    fn random(&self) -> u32 {
        let mut state = self.random.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.random.set(state);
        (state >> 32) as u32
    }

    fn slot(&self, slot: u32) -> Option<u32> {
        self.slots.get(slot as usize).copied()
    }

    fn destination(&self, id: u32) -> Option<&Destination> {
        self.destinations.get(&id)
    }

    fn counters(&self, destination: u32) -> Option<NonNull<Counters>> {
        NonNull::new(self.counters.get(&destination)?.get())
    }

    fn count(&self, reason: Reason) {
        let counter = &self.reasons[reason as usize];
        counter.set(counter.get() + 1);
    }

    fn real_server4(&self, endpoint: &Endpoint4) -> Option<&SharedBy> {
        self.real_servers4.get(endpoint)
    }

    fn real_server6(&self, endpoint: &Endpoint6) -> Option<&SharedBy> {
        self.real_servers6.get(endpoint)
    }

    fn address4(&self, address: [u8; 4]) -> u32 {
        self.addresses4.get(&address).copied().unwrap_or(0)
    }

    fn address6(&self, address: [u8; 16]) -> u32 {
        self.addresses6.get(&address).copied().unwrap_or(0)
    }

    fn route4(&self, address: [u8; 4]) -> Option<Route> {
        longest(&self.routes4, address)
    }

    fn route6(&self, address: [u8; 16]) -> Option<Route> {
        longest(&self.routes6, address)
    }

    fn next_hop(&self, id: u32) -> Option<&NextHop> {
        self.next_hops.get(&id)
    }

    fn neighbour4(&self, neighbour: &Neighbour4) -> Option<&NextHop> {
        self.neighbours4.get(neighbour)
    }

    fn neighbour6(&self, neighbour: &Neighbour6) -> Option<&NextHop> {
        self.neighbours6.get(neighbour)
    }

    fn egress(&self, ifindex: u32) -> Option<u32> {
        self.egress.get(&ifindex).copied()
    }

    fn own_mac(&self, last_byte: u32) -> u64 {
        let known = self.own_macs.get(&last_byte);
        known.copied().unwrap_or(crate::layout::own_mac::ANY)
    }

    fn bucket4(&self, index: u32) -> Option<&Bucket4> {
        self.connections4.get(index as usize)
    }

    fn bucket6(&self, index: u32) -> Option<&Bucket6> {
        self.connections6.get(index as usize)
    }

    fn fragment4(&self, key: &FragmentKey4) -> Option<NonNull<Fragment>> {
        NonNull::new(self.fragments4.borrow().get(key)?.get())
    }

    fn fragment6(&self, key: &FragmentKey6) -> Option<NonNull<Fragment>> {
        NonNull::new(self.fragments6.borrow().get(key)?.get())
    }

    fn put_fragment4(&self, key: &FragmentKey4, fragment: &Fragment) -> bool {
        self.fragments4
            .borrow_mut()
            .insert(*key, Box::new(UnsafeCell::new(*fragment)));
        true
    }

    fn put_fragment6(&self, key: &FragmentKey6, fragment: &Fragment) -> bool {
        self.fragments6
            .borrow_mut()
            .insert(*key, Box::new(UnsafeCell::new(*fragment)));
        true
    }

    fn remove_fragment4(&self, key: &FragmentKey4) {
        self.fragments4.borrow_mut().remove(key);
    }

    fn remove_fragment6(&self, key: &FragmentKey6) {
        self.fragments6.borrow_mut().remove(key);
    }

    fn hold<P: Packet>(&self, packet: &P, now_ns: u64) -> bool {
        let length = packet.end() - packet.data();
        if length > limits::HELD_FRAME_BYTES {
            return false;
        }
        let mut frame = vec![0; length];
        if !packet.copy_to(&mut frame) {
            return false;
        }
        self.held.borrow_mut().push(Held {
            ifindex: packet.ingress_ifindex(),
            at_ns: now_ns,
            frame,
        });
        true
    }

    fn limiter(&self) -> Option<NonNull<TokenBucket>> {
        NonNull::new(self.limiter.get())
    }

    fn scratch(&self) -> Option<NonNull<Scratch>> {
        NonNull::new(self.scratch.get())
    }

    fn work(&self) -> Option<NonNull<Work>> {
        NonNull::new(self.work.get())
    }
}
