//! The Internet checksum (RFC 1071), updated rather than recomputed (RFC 1624, equation 3: HC' = ~(~HC + ~m + m')).
//!
//! Sums here are 32- or 64-bit accumulators of 16-bit words *as they stand in memory*: the sum is independent of byte
//! order (RFC 1071 section 2 (B)), so no word is ever swapped.

/// A change to be applied to checksums: the sum of what went out, complemented, and of what came in.
#[derive(Clone, Copy, Default)]
pub struct Delta(u64);

impl Delta {
    /// Nothing changed yet.
    pub const NONE: Self = Self(0);

    /// A 16-bit word was replaced.
    #[inline(always)]
    #[must_use]
    pub fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + u64::from(!old) + u64::from(new))
    }

    /// A 32-bit word was replaced.
    #[inline(always)]
    #[must_use]
    pub fn long(self, old: u32, new: u32) -> Self {
        Self(self.0 + u64::from(!old) + u64::from(new))
    }

    /// An IPv6 address was replaced.
    #[inline(always)]
    #[must_use]
    pub fn address6(self, old: [u32; 4], new: [u32; 4]) -> Self {
        self.long(old[0], new[0])
            .long(old[1], new[1])
            .long(old[2], new[2])
            .long(old[3], new[3])
    }

    /// Both changes.
    #[inline(always)]
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum after the change.
    #[inline(always)]
    #[must_use]
    pub fn apply(self, checksum: u16) -> u16 {
        !fold(self.0 + u64::from(!checksum))
    }

    /// A UDP checksum after the change: 0 means "none" and stays (RFC 768); a result of 0 is sent as 0xffff.
    #[inline(always)]
    #[must_use]
    pub fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        match self.apply(checksum) {
            0 => 0xffff,
            other => other,
        }
    }
}

/// Folds a sum to 16 bits, end-around carry.
#[inline(always)]
#[must_use]
pub fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum of a whole sum.
#[inline(always)]
#[must_use]
pub fn finish(sum: u64) -> u16 {
    !fold(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 written out: the oracle.
    fn full(words: &[u16]) -> u16 {
        let mut sum = words.iter().map(|word| u32::from(*word)).sum::<u32>();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn an_update_equals_a_recomputation() {
        // (words before, words after): equal lengths, every word may differ.
        let cases: &[(&[u16], &[u16])] = &[
            (&[0x4500, 0x0054, 0xc0a8], &[0x4500, 0x0054, 0x0a00]),
            (&[0xffff, 0xffff], &[0x0000, 0x0001]),
            (&[0x0001, 0x0000], &[0xffff, 0xffff]),
            (&[0x1234, 0xabcd, 0x0001], &[0x1234, 0xabcd, 0x0001]),
        ];
        for (before, after) in cases {
            let mut delta = Delta::NONE;
            for (old, new) in before.iter().zip(*after) {
                delta = delta.word(*old, *new);
            }
            let updated = delta.apply(full(before));
            // 0x0000 and 0xffff are both zero in one's complement (RFC 1624 section 3).
            let expected = full(after);
            assert!(
                updated == expected || (updated ^ expected) == 0xffff && updated & expected == 0,
                "{before:04x?} -> {after:04x?}: {updated:04x} instead of {expected:04x}"
            );
        }
    }

    #[test]
    fn a_udp_checksum_of_zero_stays_zero_and_none_becomes_zero() {
        assert_eq!(Delta::NONE.long(1, 2).apply_udp(0), 0);
        for old in 0..=u16::MAX {
            let changed = Delta::NONE.word(0x1111, 0x2222).apply_udp(old);
            assert_eq!(old == 0, changed == 0, "checksum {old:04x}");
        }
    }
}
