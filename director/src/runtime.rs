//! A runtime for one thread: for what waits. What would hold that up is done by other threads beside it (`spawn_blocking`).

use std::io;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// Threads beside one, where nothing else is asked for.
pub(crate) const MANY: usize = 512;
/// How long a thread beside it stays that has nothing to do. For ever: the system may have none to give later, and where there
/// is none at all, tokio panics in whoever hands over work. As long as one is there, work waits for it.
const KEPT: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A runtime for the thread that blocks on it, with at most so many threads beside it, the first of which is there from the
/// beginning.
///
/// # Errors
/// When the system gives no thread or no event queue.
pub(crate) fn for_one_thread(beside: usize) -> io::Result<Runtime> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(beside)
        .thread_keep_alive(KEPT)
        .build()?;
    // Asked for here, where it is an error and no panic.
    let given = thread::Builder::new().spawn(|| ())?;
    drop(given.join());
    runtime.spawn_blocking(|| ());
    Ok(runtime)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    use super::*;
    use crate::alone::alone;

    /// Bytes that small things need, and far from enough for a thread.
    const LITTLE: u64 = 512 << 10;

    /// Bytes of this process's address space.
    fn size() -> u64 {
        let text = fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmSize:"));
        let kilobytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
        kilobytes.parse::<u64>().unwrap() << 10
    }

    #[test]
    fn work_beside_goes_on_where_the_system_gives_no_threads() {
        if !alone(
            "runtime::tests::work_beside_goes_on_where_the_system_gives_no_threads",
            &[],
        ) {
            return;
        }
        let runtime = for_one_thread(8).unwrap();
        let (_, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
        setrlimit(Resource::RLIMIT_AS, size() + LITTLE, hard).unwrap();
        // Stacks of threads that have ended are used again.
        let mut held = Vec::new();
        while let Ok(thread) = thread::Builder::new().spawn(thread::park) {
            held.push(thread);
        }
        let done = runtime.block_on(async {
            let both = [1, 2].map(|it| tokio::task::spawn_blocking(move || it));
            let mut done = Vec::new();
            for one in both {
                done.push(one.await.unwrap());
            }
            done
        });
        assert_eq!(done, [1, 2]);
        setrlimit(Resource::RLIMIT_AS, hard, hard).unwrap();
        for thread in held {
            thread.thread().unpark();
            thread.join().unwrap();
        }
    }
}
