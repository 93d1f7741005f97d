//! How fast the machine is: a fixed piece of work, on all CPUs at once, by the clock on the wall. The floor of what is
//! measured by that clock too: who else runs shows in it, not only how fast the processor is.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, anyhow};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::statistics::{Cell, Round};

/// A piece: a millisecond or so.
const TURNS: u64 = 300_000;
/// Pieces of which the median counts: one moment of somebody else's does not make the machine a slow one.
const PIECES: usize = 9;

/// Nanoseconds a turn, on the slowest CPU. Takes some ten milliseconds.
///
/// # Errors
/// A thread cannot be bound to a CPU.
pub fn speed() -> Result<f64> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let times: Vec<Result<f64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = cpus.map(|cpu| scope.spawn(move || speed_of(cpu))).collect();
        let joined = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined
            .map(|time| time.unwrap_or_else(|_| Err(anyhow!("a thread panicked"))))
            .collect()
    });
    times
        .into_iter()
        .try_fold(0.0, |slowest: f64, time| Ok(slowest.max(time?)))
}

fn speed_of(cpu: usize) -> Result<f64> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    // This thread's alone, which ends here.
    sched_setaffinity(Pid::from_raw(0), &only)?;
    let mut times: Vec<f64> = (0..PIECES).map(|_| piece()).collect();
    times.sort_by(f64::total_cmp);
    Ok(times[PIECES / 2])
}

fn piece() -> f64 {
    let began = Instant::now();
    let mut number = black_box(0x9e37_79b9_7f4a_7c15_u64);
    for _ in 0..TURNS {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
    }
    black_box(number);
    began.elapsed().as_nanos() as f64 / TURNS as f64
}

/// Rounds whose floors say how fast the machine was and nothing else: they are not to be taken off.
#[must_use]
pub fn gross(rounds: &[Round]) -> Vec<Round> {
    let cell = |cell: &Cell| Cell {
        cost: cell.cost + f64::midpoint(cell.before, cell.after),
        ..*cell
    };
    rounds
        .iter()
        .map(|round| round.iter().map(cell).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::statistics::Sifted;

    #[test]
    fn floors_are_not_taken_off() {
        let rounds = vec![vec![Cell {
            before: 1.0,
            cost: 500.0,
            after: 1.0,
        }]];
        assert_eq!(Sifted::new(&gross(&rounds)).costs(0), [500.0]);
    }

    #[test]
    fn work_takes_time() {
        let speed = speed().expect("threads can be bound to CPUs");
        assert!(speed > 0.0, "{speed}");
    }
}
