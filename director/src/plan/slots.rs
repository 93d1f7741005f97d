//! Room for scheduling tables.

use std::collections::BTreeMap;

/// First fit over the slots that nothing stands in. Tables of the current state stay taken while the new ones are
/// placed: a packet may still be reading them.
#[derive(Debug, Default)]
pub(super) struct Allocator {
    /// First slot → number of slots.
    taken: BTreeMap<u32, u32>,
    slots: u32,
}

impl Allocator {
    pub(super) fn new(slots: u32) -> Self {
        Self {
            taken: BTreeMap::new(),
            slots,
        }
    }

    /// Marks a range as taken.
    pub(super) fn take(&mut self, first: u32, length: u32) {
        if length > 0 {
            let known = self.taken.entry(first).or_default();
            *known = length.max(*known);
        }
    }

    /// The first slot of a free range, which is then taken.
    pub(super) fn find(&mut self, length: u32) -> Option<u32> {
        let mut free_from = 0;
        for (first, taken) in &self.taken {
            if first.saturating_sub(free_from) >= length {
                break;
            }
            free_from = free_from.max(first.saturating_add(*taken));
        }
        if free_from.checked_add(length)? > self.slots {
            return None;
        }
        self.take(free_from, length);
        Some(free_from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_gap_that_is_large_enough() {
        // (taken ranges, length, first slot)
        type Case = (&'static [(u32, u32)], u32, Option<u32>);
        let cases: [Case; 8] = [
            (&[], 10, Some(0)),
            (&[], 100, Some(0)),
            (&[], 101, None),
            (&[(0, 10)], 90, Some(10)),
            (&[(0, 10)], 91, None),
            (&[(0, 10), (15, 10)], 5, Some(10)),
            (&[(0, 10), (15, 10)], 6, Some(25)),
            (&[(5, 95)], 6, None),
        ];
        for (taken, length, expected) in cases {
            let mut allocator = Allocator::new(100);
            taken
                .iter()
                .for_each(|(first, length)| allocator.take(*first, *length));
            assert_eq!(
                allocator.find(length),
                expected,
                "{length} slots beside {taken:?}"
            );
        }
    }

    #[test]
    fn what_was_given_out_is_taken() {
        let mut allocator = Allocator::new(100);
        assert_eq!(allocator.find(40), Some(0));
        assert_eq!(allocator.find(40), Some(40));
        assert_eq!(allocator.find(40), None);
        assert_eq!(allocator.find(20), Some(80));
    }
}
