//! Flows: who they are, and in which order their packets come.

use xdp_ebpf::bench::flow;

/// A small generator of numbers that look random, the same in every run (splitmix64, Steele and others, 2014).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }
}

/// First byte of the clients' addresses of the first generation.
const FIRST: u8 = 20;

/// The flows of a generation, each of another client, in an order that has nothing to do with them. `order` is another
/// order of the same flows.
///
/// # Panics
/// More than 2^24 of them.
#[must_use]
pub fn of_generation(generation: u8, count: u32, order: u64) -> Vec<u64> {
    assert!(count <= 1 << 24, "three bytes of the address are left");
    let mut flows: Vec<u64> = (0..count)
        .map(|nth| {
            let [_, a, b, c] = nth.to_be_bytes();
            let port = Numbers(u64::from(nth)).next() as u16;
            flow([FIRST + generation, a, b, c], port.max(1024))
        })
        .collect();
    let mut numbers = Numbers(order << 8 | u64::from(generation));
    for left in (1..flows.len()).rev() {
        flows.swap(left, (numbers.next() % (left as u64 + 1)) as usize);
    }
    flows
}

/// The generation of a flow, by the client's address as it stands in a packet.
#[must_use]
pub fn generation_of(address: u32) -> u8 {
    address.to_ne_bytes()[0].wrapping_sub(FIRST)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn generations_are_disjoint_and_shuffled() {
        let (one, again, other) = (
            of_generation(0, 5000, 1),
            of_generation(0, 5000, 2),
            of_generation(1, 5000, 1),
        );
        let set = |flows: &[u64]| flows.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(set(&one).len(), 5000);
        assert_eq!(set(&one), set(&again), "the same flows");
        assert_ne!(one, again, "in another order");
        assert!(set(&one).is_disjoint(&set(&other)));
        assert!(other.iter().all(|flow| generation_of(*flow as u32) == 1));
        let in_place = of_generation(0, 5000, 1)
            .iter()
            .zip(&again)
            .filter(|(one, other)| one == other)
            .count();
        assert!(in_place < 50, "{in_place} in the same place");
    }
}
