//! Connection tables and loads that several threads share, each thread another CPU: what races are tested on.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::cell::UnsafeCell;

use crate::connection::{Bucket4, Bucket6};
use crate::layout::{
    Counters, Destination, Endpoint, Endpoint4, Endpoint6, Fragment, FragmentKey4, FragmentKey6,
    Load, Locality, LocalityKey, Neighbour4, Neighbour6, NextHop, RangeKey4, RangeKey6, Reason,
    Route, Scratch, Served, Service, Settings, SharedBy, Template, TemplateKey, TokenBucket, Work,
};
use crate::packet::Packet;
use crate::tables::Tables;

/// The memory that all CPUs see: `CONNECTIONS4`, `CONNECTIONS6`, `LOADS`, and the clock of `SETTINGS`.
pub struct SharedTables {
    settings: Settings,
    now_s: AtomicU32,
    connections4: Vec<Bucket4>,
    connections6: Vec<Bucket6>,
    loads: Vec<Load>,
}

impl SharedTables {
    /// Empty tables of the sizes that the settings state, and loads of so many destinations.
    #[must_use]
    pub fn new(settings: Settings, destinations: u32) -> Self {
        let buckets = |buckets: u32| settings.cpus as usize * buckets as usize;
        Self {
            settings,
            now_s: AtomicU32::new(settings.now_s),
            connections4: (0..buckets(settings.buckets4))
                .map(|_| Bucket4::default())
                .collect(),
            connections6: (0..buckets(settings.buckets6))
                .map(|_| Bucket6::default())
                .collect(),
            loads: (0..destinations).map(|_| Load::default()).collect(),
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

    /// Loads, by destination id.
    #[must_use]
    pub fn loads(&self) -> &[Load] {
        &self.loads
    }

    /// The clock of the tables.
    #[must_use]
    pub fn now_s(&self) -> u32 {
        self.now_s.load(Ordering::SeqCst)
    }

    /// Sets the clock. CPUs see it from their next [`Cpu::read_clock`] on.
    pub fn set_now_s(&self, now_s: u32) {
        self.now_s.store(now_s, Ordering::SeqCst);
    }

    /// The tables as one CPU sees them. At most one at a time for each CPU: it alone writes this CPU's keys.
    #[must_use]
    pub fn cpu(&self, cpu: u32) -> Cpu<'_> {
        Cpu {
            shared: self,
            cpu,
            settings: Settings {
                now_s: self.now_s(),
                ..self.settings
            },
            work: UnsafeCell::default(),
        }
    }
}

/// The tables as one CPU sees them, for one thread. There is nothing but the connection tables, the loads and the settings.
pub struct Cpu<'s> {
    shared: &'s SharedTables,
    cpu: u32,
    settings: Settings,
    work: UnsafeCell<Work>,
}

impl Cpu<'_> {
    /// Takes over the tables' clock.
    pub fn read_clock(&mut self) -> u32 {
        self.settings.now_s = self.shared.now_s();
        self.settings.now_s
    }

    /// The settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }
}

// SAFETY: buckets and loads are made of atomics and live as long as what is borrowed here; the working memory is this
// CPU's alone, and a `Cpu`, which is not `Sync`, is one thread's alone.
unsafe impl Tables for Cpu<'_> {
    fn cpu(&self) -> u32 {
        self.cpu
    }

    fn now_ns(&self) -> u64 {
        u64::from(self.settings.now_s) * 1_000_000_000
    }

    fn ticks(&self) -> u64 {
        0
    }

    fn lease_until(&self) -> u64 {
        0
    }

    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn load(&self, destination: u32) -> Option<&Load> {
        self.shared.loads.get(destination as usize)
    }

    fn bucket4(&self, index: u32) -> Option<&Bucket4> {
        self.shared.connections4.get(index as usize)
    }

    fn bucket6(&self, index: u32) -> Option<&Bucket6> {
        self.shared.connections6.get(index as usize)
    }

    fn work(&self) -> Option<NonNull<Work>> {
        NonNull::new(self.work.get())
    }

    fn random(&self) -> u32 {
        0
    }

    fn served4(&self, _: &Endpoint4) -> Option<Served> {
        None
    }

    fn served6(&self, _: &Endpoint6) -> Option<Served> {
        None
    }

    fn ranged4(&self, _: &RangeKey4) -> Option<Served> {
        None
    }

    fn ranged6(&self, _: &RangeKey6) -> Option<Served> {
        None
    }

    fn endpoint(&self, _: u16) -> Option<&Endpoint> {
        None
    }

    fn service(&self, _: u16) -> Option<&Service> {
        None
    }

    fn cursor(&self, _: u16) -> Option<&AtomicU64> {
        None
    }

    fn slot(&self, _: u32) -> Option<u32> {
        None
    }

    fn destination(&self, _: u32) -> Option<&Destination> {
        None
    }

    fn template(&self, _: &TemplateKey) -> Option<Template> {
        None
    }

    fn put_template(&self, _: &TemplateKey, _: &Template, _: bool) -> bool {
        false
    }

    fn locality(&self, _: &LocalityKey) -> Option<&Locality> {
        None
    }

    fn add_locality(&self, _: &LocalityKey) -> bool {
        false
    }

    fn counters(&self, _: u32) -> Option<NonNull<Counters>> {
        None
    }

    fn count(&self, _: Reason) {}

    fn real_server4(&self, _: &Endpoint4) -> Option<&SharedBy> {
        None
    }

    fn real_server6(&self, _: &Endpoint6) -> Option<&SharedBy> {
        None
    }

    fn address4(&self, _: [u8; 4]) -> u32 {
        0
    }

    fn address6(&self, _: [u8; 16]) -> u32 {
        0
    }

    fn route4(&self, _: [u8; 4]) -> Option<Route> {
        None
    }

    fn route6(&self, _: [u8; 16]) -> Option<Route> {
        None
    }

    fn next_hop(&self, _: u32) -> Option<&NextHop> {
        None
    }

    fn neighbour4(&self, _: &Neighbour4) -> Option<&NextHop> {
        None
    }

    fn neighbour6(&self, _: &Neighbour6) -> Option<&NextHop> {
        None
    }

    fn egress(&self, _: u32) -> Option<u32> {
        None
    }

    fn own_mac(&self, _: u32) -> u64 {
        crate::layout::own_mac::ANY
    }

    fn fragment4(&self, _: &FragmentKey4) -> Option<NonNull<Fragment>> {
        None
    }

    fn fragment6(&self, _: &FragmentKey6) -> Option<NonNull<Fragment>> {
        None
    }

    fn put_fragment4(&self, _: &FragmentKey4, _: &Fragment) -> bool {
        false
    }

    fn put_fragment6(&self, _: &FragmentKey6, _: &Fragment) -> bool {
        false
    }

    fn remove_fragment4(&self, _: &FragmentKey4) {}

    fn remove_fragment6(&self, _: &FragmentKey6) {}

    fn hold<P: Packet>(&self, _: &P, _: u64) -> bool {
        false
    }

    fn limiter(&self) -> Option<NonNull<TokenBucket>> {
        None
    }

    fn scratch(&self) -> Option<NonNull<Scratch>> {
        None
    }
}
