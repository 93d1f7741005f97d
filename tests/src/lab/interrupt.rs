//! Cleaning up when this program is interrupted or told to end.
//!
//! Labs that stand are listed here. On SIGINT, SIGTERM or SIGHUP a thread waits for the step in progress, lets no
//! other begin, takes every listed lab down and ends the process as the signal would have.

use std::sync::{Mutex, Once, PoisonError, RwLock, RwLockReadGuard};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::teardown;

/// Read while a step that makes something is under way; written for good once an interrupt is being handled.
static GOING_ON: RwLock<()> = RwLock::new(());

/// Labs to take down, by id. Also held while one is being taken down, so that it happens once.
static STANDING: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// To be held for the length of a step that makes something. Never returns once an interrupt is being handled.
pub(super) fn going_on() -> RwLockReadGuard<'static, ()> {
    GOING_ON.read().unwrap_or_else(PoisonError::into_inner)
}

/// From now on an interrupt takes this lab down.
pub(super) fn take_down_when_interrupted(id: &str) {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| match Signals::new([SIGINT, SIGTERM, SIGHUP]) {
        Ok(signals) => {
            std::thread::spawn(move || watch(signals));
        }
        Err(error) => eprintln!("warning: an interrupt will leave the lab behind: {error}"),
    });
    standing().push(id.to_owned());
}

/// From now on an interrupt leaves this lab alone.
pub(super) fn forget(id: &str) {
    standing().retain(|other| other != id);
}

/// Takes a lab down, unless an interrupt already did.
pub(super) fn take_down(id: &str) -> anyhow::Result<()> {
    let mut standing = standing();
    let Some(position) = standing.iter().position(|other| other == id) else {
        return Ok(());
    };
    standing.remove(position);
    teardown::take_down(id)
}

fn standing() -> std::sync::MutexGuard<'static, Vec<String>> {
    STANDING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(mut signals: Signals) {
    for signal in signals.forever() {
        let _nothing_more = GOING_ON.write().unwrap_or_else(PoisonError::into_inner);
        let mut standing = standing();
        for id in standing.drain(..) {
            eprintln!("interrupted: taking lab {id} down");
            if let Err(error) = teardown::take_down(&id) {
                eprintln!("warning: {error:#}");
            }
        }
        if signal_hook::low_level::emulate_default_handler(signal).is_err() {
            std::process::exit(1);
        }
    }
}
