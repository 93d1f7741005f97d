//! Which addresses are surely nobody's: before the kernel's hash maps of addresses stands an array of bits, one of which each
//! address that is there has set.
//!
//! ```text
//!  address ──hash──► bit clear ──► nobody's
//!                    bit set   ──► the hash map knows
//! ```
//!
//! The source of each new connection is looked for among the virtual addresses, and hardly ever is one. That look in the hash
//! map cost a SYN of a flood 31 ns of some 290: so much it took less without any (`cargo xtask bench connections`).
//!
//! Only the director writes. A bit is set before its address is entered; it stays when that is removed, as others may share
//! it, until a director starts anew: that costs a lookup.

use core::sync::atomic::AtomicU64;

use crate::atomic::load;
#[cfg(any(test, feature = "native"))]
use crate::atomic::store;

/// Words of the array, which both families share: 16,384 bits, of which a thousand addresses set one in seventeen.
pub const WORDS: u32 = 1 << 8;
const BITS_LOG2: u32 = WORDS.trailing_zeros() + 6;

/// Odd, its bits as good as random: 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where an address has its bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The word.
    pub word: u32,
    /// The bit in it.
    pub bit: u64,
}

impl Place {
    #[inline(always)]
    const fn of(hash: u64) -> Self {
        let number = hash >> (64 - BITS_LOG2);
        Self {
            word: (number >> 6) as u32,
            bit: 1 << (number & 63),
        }
    }

    /// Of an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn of4(address: [u8; 4]) -> Self {
        Self::of((u32::from_ne_bytes(address) as u64).wrapping_mul(GOLDEN))
    }

    /// Of an IPv6 address.
    #[inline(always)]
    #[must_use]
    pub const fn of6(address: [u8; 16]) -> Self {
        // SAFETY: both are 16 bytes of plain data.
        let [high, low]: [u64; 2] = unsafe { core::mem::transmute(address) };
        // Hosts of one prefix differ in the lower half.
        Self::of((high.wrapping_mul(GOLDEN) ^ low).wrapping_mul(GOLDEN))
    }

    /// Whether an address with this place may be there. `word`: the array's.
    #[inline(always)]
    #[must_use]
    pub fn may_be_in(self, word: &AtomicU64) -> bool {
        load(word) & self.bit != 0
    }

    /// Says that it may. Only for the one who writes.
    #[cfg(any(test, feature = "native"))]
    pub fn enter(self, words: &[AtomicU64]) {
        if let Some(word) = words.get(self.word as usize) {
            store(word, load(word) | self.bit);
        }
    }
}

/// The words in which these addresses are, and no others.
#[cfg(any(test, feature = "native"))]
pub fn words_of(places: impl IntoIterator<Item = Place>) -> [u64; WORDS as usize] {
    let mut words = [0; WORDS as usize];
    for place in places {
        if let Some(word) = words.get_mut(place.word as usize) {
            *word |= place.bit;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(four: u32, six: u32) -> [u64; WORDS as usize] {
        let four = (0..four).map(|number| Place::of4((0xc000_0200 + number).to_be_bytes()));
        let six = (0..six).map(|number| Place::of6(address6(number)));
        words_of(four.chain(six))
    }

    fn address6(number: u32) -> [u8; 16] {
        (0x2001_0db8_0000_0000_0000_0000_0000_0000 + u128::from(number)).to_be_bytes()
    }

    /// Neighbouring addresses, as virtual ones mostly are, share few bits.
    #[test]
    fn bits_are_as_many_as_by_chance() {
        for (four, six) in [(1, 0), (0, 1), (16, 16), (1000, 0), (0, 1000), (2000, 2000)] {
            let bits: u32 = filled(four, six).iter().map(|word| word.count_ones()).sum();
            let (number, all) = (f64::from(four + six), f64::from(WORDS * 64));
            let by_chance = all * (1.0 - (1.0 - 1.0 / all).powf(number));
            let bits = f64::from(bits);
            assert!(
                bits <= number && bits > 0.9 * by_chance,
                "{four} {six}: {bits}"
            );
        }
    }

    #[test]
    fn what_was_entered_may_be_there_and_few_others() {
        let words = filled(0, 0).map(AtomicU64::new);
        let entered = |number: u32| Place::of4(number.wrapping_mul(0x0101_0193).to_be_bytes());
        for number in 0..200 {
            entered(number).enter(&words);
        }
        let may = |number| {
            let place = entered(number);
            place.may_be_in(&words[place.word as usize])
        };
        assert!((0..200).all(may));
        // By chance 1.2 of 100.
        let others = (1000..11_000).filter(|number| may(*number)).count();
        assert!(others < 250, "{others}");
    }
}
