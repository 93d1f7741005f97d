//! Numbers of updates that are missing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::limits::{
    ASK_AGAIN_AFTER, ASK_AT_MOST_EVERY, ASKS, GAP_RANGES, GAP_UPDATES, RANGES_PER_DATAGRAM,
};
use crate::wire::message::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gap {
    last: u64,
    asks: u32,
    /// When it is asked for next.
    due: Duration,
}

/// What is missing of one peer's update stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Gaps {
    /// By their first number. They do not overlap.
    gaps: BTreeMap<u64, Gap>,
    count: u64,
}

impl Gaps {
    /// These are missing and not known to be yet; to be asked for at `due`.
    pub(super) fn add(&mut self, first: u64, last: u64, due: Duration) {
        if first > last {
            return;
        }
        self.gaps.insert(first, Gap { last, asks: 0, due });
        self.count += last - first + 1;
    }

    /// These are not missing any more. Gives how many were.
    pub(super) fn remove(&mut self, first: u64, last: u64) -> u64 {
        let mut removed = 0;
        // The one gap that may begin before `first`, and all that begin within.
        while let Some((&start, &gap)) = self.gaps.range(..=last).next_back() {
            if gap.last < first {
                break;
            }
            self.gaps.remove(&start);
            if gap.last > last {
                self.gaps.insert(last + 1, gap);
            }
            if start < first {
                let before = Gap {
                    last: first - 1,
                    ..gap
                };
                self.gaps.insert(start, before);
            }
            removed += gap.last.min(last) - start.max(first) + 1;
        }
        self.count -= removed;
        removed
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        let before = self.gaps.range(..=number).next_back();
        before.is_some_and(|(_, gap)| number <= gap.last)
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.gaps.keys().next().copied()
    }

    /// How many updates are missing.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gaps.is_empty()
    }

    /// They cannot be repaired one by one: too many, asked for too often, or older than what the peer remembers.
    pub(super) fn is_hopeless(&self, oldest: u64) -> bool {
        self.gaps.len() > GAP_RANGES
            || self.count > GAP_UPDATES
            || self.first().is_some_and(|first| first < oldest)
            || self.gaps.values().any(|gap| gap.asks > ASKS)
    }

    /// When something is to be asked for next.
    pub(super) fn due(&self) -> Option<Duration> {
        self.gaps.values().map(|gap| gap.due).min()
    }

    /// What is to be asked for now, as much as one question holds; asked for again later.
    pub(super) fn ask(&mut self, now: Duration) -> Vec<Range> {
        let due = self.gaps.iter_mut().filter(|(_, gap)| gap.due <= now);
        due.take(RANGES_PER_DATAGRAM)
            .map(|(&first, gap)| {
                let wait = ASK_AGAIN_AFTER * 2_u32.pow(gap.asks.min(8));
                gap.due = now + wait.min(ASK_AT_MOST_EVERY);
                gap.asks += 1;
                (first, gap.last)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn asked_for_again_ever_more_rarely_and_then_given_up() {
        let mut gaps = Gaps::default();
        gaps.add(5, 9, ms(0));
        assert_eq!(gaps.ask(ms(0)), [(5, 9)]);
        assert_eq!(gaps.ask(ms(49)), []);
        let mut asked = Vec::new();
        while !gaps.is_hopeless(1) {
            let due = gaps.due().unwrap();
            assert_eq!(gaps.ask(due), [(5, 9)]);
            asked.push(due);
        }
        let waits: Vec<_> = asked.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(waits.is_sorted(), "{waits:?}");
        assert_eq!(waits.last(), Some(&ASK_AT_MOST_EVERY));
        assert_eq!(asked.len(), ASKS as usize);
    }

    #[test]
    fn hopeless() {
        let check = |ranges: &[Range], oldest, expected| {
            let mut gaps = Gaps::default();
            for (first, last) in ranges {
                gaps.add(*first, *last, ms(0));
            }
            assert_eq!(gaps.is_hopeless(oldest), expected, "{ranges:?} {oldest}");
        };
        check(&[], 1, false);
        check(&[(3, 3)], 3, false);
        check(&[(3, 3)], 4, true);
        check(&[(1, GAP_UPDATES)], 1, false);
        check(&[(1, GAP_UPDATES + 1)], 1, true);
        let many: Vec<_> = (1..=GAP_RANGES as u64).map(|n| (n * 2, n * 2)).collect();
        check(&many, 1, false);
        check(&[&many[..], &[(1000, 1000)]].concat(), 1, true);
    }

    proptest! {
        #[test]
        fn a_set_of_numbers(
            steps in prop::collection::vec((any::<bool>(), 0_u64..12, 0_u64..8), 1..40)
        ) {
            let (mut gaps, mut model, mut newest) = (Gaps::default(), BTreeSet::new(), 0);
            for (add, start, length) in steps {
                if add {
                    let first = newest + 1 + start;
                    gaps.add(first, first + length, ms(0));
                    model.extend(first..=first + length);
                    newest = first + length;
                } else {
                    let first = newest.saturating_sub(start + length);
                    let before = model.len();
                    let removed = gaps.remove(first, first + length);
                    model.retain(|number| !(first..=first + length).contains(number));
                    prop_assert_eq!(removed, (before - model.len()) as u64);
                }
                prop_assert_eq!(gaps.count(), model.len() as u64);
                prop_assert_eq!(gaps.first(), model.first().copied());
                for number in 0..newest + 2 {
                    prop_assert_eq!(gaps.contains(number), model.contains(&number));
                }
            }
        }
    }
}
