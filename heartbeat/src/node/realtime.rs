//! Real-time priority and locked memory, so that load on the machine does not fake a death.

use std::io;

use nix::errno::Errno;
use nix::libc;

/// Above ordinary work, below what the kernel itself runs at 50.
pub const PRIORITY: u8 = 20;
/// CAP_IPC_LOCK, `linux/capability.h`.
const IPC_LOCK: u32 = 14;

/// How much of the process's memory is to stay in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// All of it, from the start: for a process that only does heartbeats.
    All,
    /// What was touched once: for a process with large tables.
    Touched,
    /// Nothing.
    Nothing,
}

/// Gives the calling thread real-time priority; says what it got. Threads and programs that it starts do not inherit it.
#[must_use]
pub fn schedule() -> String {
    let parameters = libc::sched_param {
        sched_priority: libc::c_int::from(PRIORITY),
    };
    // SAFETY: the parameters live until the call returns; 0 is the calling thread.
    let answer = unsafe {
        libc::sched_setscheduler(
            0,
            libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
            &raw const parameters,
        )
    };
    match Errno::result(answer) {
        Ok(_) => format!("real-time priority {PRIORITY}"),
        Err(error) => format!(
            "no real-time priority ({}): under load this node may seem dead; it needs CAP_SYS_NICE",
            io::Error::from(error)
        ),
    }
}

/// Locks memory; says what it got.
#[must_use]
pub fn lock(what: Lock) -> String {
    let flags = match what {
        Lock::All => libc::MCL_CURRENT | libc::MCL_FUTURE,
        Lock::Touched => libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT,
        Lock::Nothing => return "memory not locked, as asked for".to_owned(),
    };
    // Within a limit (RLIMIT_MEMLOCK) the kernel would refuse memory to the whole process when it is reached.
    if !may_lock() {
        return "memory not locked: under memory pressure this node may seem dead; it needs CAP_IPC_LOCK"
            .to_owned();
    }
    // SAFETY: a system call with one number.
    let answer = unsafe { libc::mlockall(flags) };
    match Errno::result(answer) {
        Ok(_) => "memory locked".to_owned(),
        Err(error) => format!("memory not locked ({})", io::Error::from(error)),
    }
}

fn may_lock() -> bool {
    std::fs::read_to_string("/proc/thread-self/status").is_ok_and(|status| has(&status, IPC_LOCK))
}

/// Whether a capability is among the effective ones of a `/proc/…/status`.
fn has(status: &str, capability: u32) -> bool {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 << capability != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities() {
        let status = |mask: &str| format!("Name:\tx\nCapPrm:\t0\nCapEff:\t{mask}\nCapBnd:\t0\n");
        assert!(has(&status("000001ffffffffff"), IPC_LOCK));
        assert!(has(&status("0000000000004000"), IPC_LOCK));
        assert!(!has(&status("0000000000003fff"), IPC_LOCK));
        assert!(!has("", IPC_LOCK));
    }

    #[test]
    fn a_thread_says_what_it_got() {
        // In a thread of its own: it keeps what it gets.
        let said = std::thread::spawn(|| {
            let said = schedule();
            // SAFETY: a system call with one number.
            let policy = unsafe { libc::sched_getscheduler(0) };
            (
                said,
                policy & !libc::SCHED_RESET_ON_FORK == libc::SCHED_FIFO,
            )
        });
        let (said, is_realtime) = said.join().unwrap();
        assert_eq!(
            said.starts_with("real-time priority"),
            is_realtime,
            "{said}"
        );
    }
}
