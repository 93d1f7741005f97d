//! Passes over a director's tables as conn-sync makes them, on another CPU than what is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use conn_sync::directory::{Directory, Endpoint};
use conn_sync::table::{Scanner, View};
use director::datapath::Mapped;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use xdp_ebpf::connection::{Bucket4, Bucket6};

use crate::packet::fixture::Fixture;

/// As conn-sync paces itself (`node/turns.rs` there): so often at most, and a tenth of a core.
pub const EVERY: Duration = Duration::from_millis(40);
const SHARE: u32 = 9;

/// A thread that passes over tables, while it is to.
#[derive(Debug)]
pub struct Beside {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_on: AtomicBool,
    is_over: AtomicBool,
    passes: AtomicU64,
}

impl Beside {
    /// Starts it on this CPU, over the tables of a fixture. It rests at first.
    ///
    /// # Errors
    /// There is no such CPU.
    pub fn start(
        cpu: usize,
        tables: (Mapped<Bucket4>, Mapped<Bucket6>),
        fixture: &Fixture,
    ) -> Result<Self> {
        let endpoints = fixture.endpoints.iter();
        let directory = Directory::new(
            endpoints.map(|(id, record)| (*id, Endpoint::new(*record))),
            fixture.destinations.iter().map(|(id, it)| (*id, *it)),
        );
        let mut only = CpuSet::new();
        only.set(cpu)?;
        let settings = fixture.settings;
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let (went, is_there) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            // Whoever started it hears of it.
            let _ = went.send(sched_setaffinity(Pid::from_raw(0), &only));
            let mut scanner = Scanner::default();
            let began = Instant::now();
            let mut last = began;
            while !for_thread.is_over.load(Ordering::Relaxed) {
                let now = Instant::now();
                if for_thread.is_on.load(Ordering::Relaxed) {
                    let view = View {
                        table4: tables.0.as_slice(),
                        table6: tables.1.as_slice(),
                        cpus: settings.cpus,
                        buckets4: settings.buckets4,
                        buckets6: settings.buckets6,
                        seed: settings.seed,
                        // A second of the tables passes in one of the clock, so that what is in use is looked for, too.
                        now_s: settings.now_s + (now - began).as_secs() as u32,
                        takes_new: true,
                    };
                    let passed = now - std::mem::replace(&mut last, now);
                    scanner.pass(&view, &directory, passed, |_| usize::MAX, |_, _| ());
                    for_thread.passes.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(EVERY.max(now.elapsed() * SHARE));
            }
        });
        let beside = Self {
            shared,
            thread: Some(thread),
        };
        is_there
            .recv()
            .context("the thread has ended")?
            .with_context(|| format!("going to CPU {cpu}"))?;
        Ok(beside)
    }

    /// Has it pass, or rest.
    pub fn set(&self, is_on: bool) {
        self.shared.is_on.store(is_on, Ordering::Relaxed);
    }

    /// Passes so far.
    #[must_use]
    pub fn passes(&self) -> u64 {
        self.shared.passes.load(Ordering::Relaxed)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
