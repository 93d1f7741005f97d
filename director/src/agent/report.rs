//! What an agent says: from what CPUs did, and what the operator wrote. Nothing here reads or sends.

use std::collections::VecDeque;

/// What all CPUs did since the system came up, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    busy: u64,
    all: u64,
}

/// What the operator wants of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// `ready` or `up`: it takes part as far as its load lets it.
    Ready,
    /// `drain`: no new connections but of clients that persistence keeps here.
    Drain,
    /// `maint`: no new connections at all.
    Maintenance,
    /// `down`: it does not work.
    Down,
}

/// The sum over all CPUs in `/proc/stat` (proc_stat(5)): user, nice, system, idle, iowait, irq, softirq, steal. Guests'
/// time, which follows, is part of the first two. Waiting for a disk keeps no CPU busy; time that the hypervisor took is
/// gone, so it counts as busy.
#[must_use]
pub fn sample(stat: &str) -> Option<Sample> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut ticks = [0_u64; 8];
    let mut words = line.split_whitespace();
    for (number, tick) in ticks.iter_mut().enumerate() {
        match words.next() {
            Some(word) => *tick = word.parse().ok()?,
            // Kernels before 2.6.11 have fewer than all, but these four.
            None if number >= 4 => break,
            None => return None,
        }
    }
    let all: u64 = ticks.iter().fold(0, |sum, tick| sum.wrapping_add(*tick));
    let busy = all.wrapping_sub(ticks[3]).wrapping_sub(ticks[4]);
    Some(Sample { busy, all })
}

/// The last samples.
#[derive(Debug)]
pub struct Load {
    samples: VecDeque<Sample>,
    most: usize,
}

impl Load {
    /// Over so many intervals between samples, at least one.
    #[must_use]
    pub fn new(intervals: usize) -> Self {
        Self {
            samples: VecDeque::new(),
            most: intervals.max(1) + 1,
        }
    }

    /// One more; the oldest goes if there are too many.
    pub fn push(&mut self, sample: Sample) {
        if self.samples.len() == self.most {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// How busy all CPUs were between the first and the last sample, rounded to percent. Nothing is known where no time
    /// has passed, or the counts went backwards (iowait may: proc_stat(5)).
    #[must_use]
    pub fn busy_percent(&self) -> Option<u32> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let all = last.all.checked_sub(first.all).filter(|all| *all > 0)?;
        let busy = last.busy.saturating_sub(first.busy).min(all);
        u32::try_from((u128::from(busy) * 100 + u128::from(all / 2)) / u128::from(all)).ok()
    }
}

/// The first word of a state file; what follows it is the operator's own note. An empty one says nothing, as none.
///
/// # Errors
/// Another word than these, in words.
pub fn word(text: &str) -> Result<Word, String> {
    match text.split_whitespace().next() {
        None | Some("ready" | "up") => Ok(Word::Ready),
        Some("drain") => Ok(Word::Drain),
        Some("maint") => Ok(Word::Maintenance),
        Some("down") => Ok(Word::Down),
        Some(other) => {
            let other: String = other.escape_default().take(40).collect();
            Err(format!(
                "\"{other}\" is none of ready, up, drain, maint and down"
            ))
        }
    }
}

/// The line that is told. `word`: what the state file says, if there is to be one; only then the operational and
/// administrative state are spoken of, as otherwise they are for others to set. An unknown load says nothing of the weight.
#[must_use]
pub fn line(busy_percent: Option<u32>, minimum: u32, word: Option<Word>) -> String {
    let idle = busy_percent.map(|busy| 100_u32.saturating_sub(busy).max(minimum));
    let mut words: Vec<String> = Vec::new();
    match word {
        None => {}
        Some(Word::Ready) => words.push("ready up".to_owned()),
        Some(Word::Drain) => words.push("drain up".to_owned()),
        Some(Word::Maintenance) => words.push("maint".to_owned()),
        Some(Word::Down) => words.push("down".to_owned()),
    }
    words.extend(idle.map(|idle| format!("{idle}%")));
    if words.is_empty() {
        // A report must say something: it works.
        words.push("up".to_owned());
    }
    format!("{}\n", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ticks(busy: u64, all: u64) -> Sample {
        Sample { busy, all }
    }

    #[test]
    fn samples() {
        let cases = [
            (
                "cpu  10 20 30 400 500 6 7 8 9 10\ncpu0 1 1 1 1\nintr 5\n",
                Some(ticks(81, 981)),
            ),
            ("cpu  1 2 3 4\n", Some(ticks(6, 10))),
            ("intr 1\ncpu 1 2 3 4\n", Some(ticks(6, 10))),
            ("cpu0 1 2 3 4\n", None),
            ("cpu  1 2 3\n", None),
            ("cpu  1 2 x 4\n", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(sample(text), expected, "{text:?}");
        }
    }

    #[test]
    fn loads() {
        // (intervals, samples, how busy)
        let cases: [(usize, &[Sample], Option<u32>); 9] = [
            (10, &[], None),
            (10, &[ticks(5, 10)], None),
            (10, &[ticks(5, 10), ticks(5, 110)], Some(0)),
            (10, &[ticks(5, 10), ticks(105, 110)], Some(100)),
            (10, &[ticks(0, 0), ticks(1, 200)], Some(1)),
            (
                2,
                &[ticks(0, 0), ticks(100, 100), ticks(100, 200)],
                Some(50),
            ),
            // The first one is forgotten.
            (1, &[ticks(0, 0), ticks(100, 100), ticks(100, 200)], Some(0)),
            (10, &[ticks(5, 10), ticks(5, 10)], None),
            (10, &[ticks(50, 100), ticks(40, 110)], Some(0)),
        ];
        for (intervals, samples, expected) in cases {
            let mut load = Load::new(intervals);
            samples.iter().for_each(|sample| load.push(*sample));
            assert_eq!(load.busy_percent(), expected, "{samples:?}");
        }
    }

    #[test]
    fn words_of_the_operator() {
        let cases = [
            ("", Some(Word::Ready)),
            ("\n", Some(Word::Ready)),
            ("ready\n", Some(Word::Ready)),
            ("up", Some(Word::Ready)),
            ("drain new disks, back at ten\n", Some(Word::Drain)),
            ("  maint", Some(Word::Maintenance)),
            ("down\r\n", Some(Word::Down)),
            ("Drain", None),
            ("\u{1b}[2J", None),
        ];
        for (text, expected) in cases {
            let found = word(text);
            assert_eq!(found.clone().ok(), expected, "{text:?}");
            assert!(
                found.is_ok_and(|_| true) || word(text).is_err_and(|it| !it.contains('\u{1b}'))
            );
        }
    }

    #[test]
    fn lines() {
        let cases = [
            (Some(25), 1, None, "75%\n"),
            (Some(100), 1, None, "1%\n"),
            (Some(100), 0, None, "0%\n"),
            (Some(95), 20, None, "20%\n"),
            (None, 1, None, "up\n"),
            (Some(25), 1, Some(Word::Ready), "ready up 75%\n"),
            (Some(25), 1, Some(Word::Drain), "drain up 75%\n"),
            (Some(25), 1, Some(Word::Maintenance), "maint 75%\n"),
            (Some(25), 1, Some(Word::Down), "down 75%\n"),
            (None, 1, Some(Word::Down), "down\n"),
        ];
        for (busy, minimum, word, expected) in cases {
            assert_eq!(line(busy, minimum, word), expected);
        }
    }
}
