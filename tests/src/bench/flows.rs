//! Flows: who they are, and in which order their packets come.

use xdp_ebpf::bench::flow;

/// A small generator of numbers that look random, the same in every run (splitmix64, Steele and others, 2014).
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// From 0 to `end`, without it.
    pub(super) fn below(&mut self, end: u32) -> u32 {
        (((self.next() >> 32) * u64::from(end)) >> 32) as u32
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
    shuffle(&mut flows, order << 8 | u64::from(generation));
    flows
}

fn shuffle(flows: &mut [u64], order: u64) {
    let mut numbers = Numbers::new(order);
    for left in (1..flows.len()).rev() {
        flows.swap(left, (numbers.next() % (left as u64 + 1)) as usize);
    }
}

/// Ports of a client of [`of_one_sum`].
const PORTS: u32 = 40_000;
const FIRST_PORT: u16 = 20_000;

/// The first so many flows, in some order, of clients whose addresses add up to the same as this one's: a header's checksum
/// is right for all of them, where their packets are made by writing address and port alone.
///
/// # Panics
/// More than 8 million of them.
#[must_use]
pub fn of_one_sum(client: [u8; 4], count: u32, order: u64) -> Vec<u64> {
    assert!(count <= 200 * PORTS, "200 addresses are taken");
    let [high, low] = [[client[0], client[1]], [client[2], client[3]]].map(u16::from_be_bytes);
    // Checksums add without a carry that is lost: modulo 65,535.
    let sum = u32::from(high) + u32::from(low) + 0xffff;
    let mut flows: Vec<u64> = (0..count)
        .map(|nth| {
            let high = u16::from_be_bytes([FIRST, (nth / PORTS) as u8]);
            let low = ((sum - u32::from(high)) % 0xffff) as u16;
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            flow([a, b, c, d], FIRST_PORT + (nth % PORTS) as u16)
        })
        .collect();
    shuffle(&mut flows, order);
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
    fn addresses_of_one_sum_leave_the_checksum_as_it_is() {
        let client = [198, 51, 100, 10];
        let sum = |[a, b, c, d]: [u8; 4]| {
            let words = [[a, b], [c, d]].map(|word| u32::from(u16::from_be_bytes(word)));
            (words[0] + words[1]) % 0xffff
        };
        let flows = of_one_sum(client, 100_000, 1);
        for flow in &flows {
            let [a, b, c, d, ..] = flow.to_ne_bytes();
            assert_eq!(sum([a, b, c, d]), sum(client), "{a}.{b}.{c}.{d}");
        }
        let distinct: BTreeSet<u64> = flows.iter().copied().collect();
        assert_eq!(distinct.len(), flows.len());
        let few: BTreeSet<u64> = of_one_sum(client, 1000, 2).into_iter().collect();
        assert!(few.is_subset(&distinct), "fewer are some of more");
    }

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
