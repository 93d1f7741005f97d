//! Whether the main loop turns: asked by a thread of its own, and told to the heartbeat.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use heartbeat::node;

/// The main loop turns several times a second. If it has not for so long, this node is not fit: nobody runs its checks, or
/// takes dead real servers out. Long enough for any reload.
const STANDSTILL: Duration = Duration::from_secs(15);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Who says so.
const MAIN_LOOP: &str = "main loop";

/// Says that this node is not fit while the main loop stands still.
pub(super) struct Watchdog {
    started: Instant,
    turned_ms: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    pub(super) fn start(node: &Arc<node::Node>) -> std::io::Result<Self> {
        let started = Instant::now();
        let (turned_ms, ends) = (Arc::default(), Arc::default());
        let (turned, ended) = (Arc::clone(&turned_ms), Arc::clone(&ends));
        let node = Arc::clone(node);
        let watch = move || {
            let mut is_still = false;
            while !AtomicBool::load(&ended, Ordering::Relaxed) {
                std::thread::park_timeout(LOOK);
                let last = Duration::from_millis(AtomicU64::load(&turned, Ordering::Relaxed));
                let stands = started.elapsed().saturating_sub(last) > STANDSTILL;
                if stands != is_still {
                    is_still = stands;
                    let why = stands.then(|| "the director's main loop stands still".to_owned());
                    // Fails only once the heartbeat has ended.
                    let _ = node.unfit(MAIN_LOOP, why);
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(watch)?;
        Ok(Self {
            started,
            turned_ms,
            ends,
            thread: Some(thread),
        })
    }

    pub(super) fn turn(&self) {
        let now_ms = self.started.elapsed().as_millis();
        // Good for longer than any machine runs.
        self.turned_ms.store(now_ms as u64, Ordering::Relaxed);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It only ever sleeps.
            let _ = thread.join();
        }
    }
}
