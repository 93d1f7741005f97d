//! Weighted Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4): a table that spreads clients by weight, that
//! changes little when a real server comes or goes, and that is the same on every node.
//!
//! Every member has its own permutation of the slots, made from a keyed hash of address and port. Members
//! take turns; whoever has its turn takes the first slot of its permutation that is still free.
//!
//! **Weights.** The `k`-th turn (from 0) of a member of weight `w` comes at time `k / w`, the earlier time first,
//! equal times in the order of the addresses. So turns are proportional to weights at every moment, as with
//! IPVS's `weight / gcd` turns in each round, but without the bursts by which a heavy member there fills the
//! table before others had a turn; and everybody with a weight has at least one slot.
//!
//! **The same everywhere.** The result depends on addresses, ports and weights only: not on the order of the list,
//! on destination ids, on the machine or on a version of the standard library. A change of anything in here
//! moves clients to other servers while nodes of different versions stand side by side: the golden test must not change.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

use super::Member;

/// Sizes of the table: IPVS's primes (`ip_vs_mh.c`) from its default on.
const SIZES: [usize; 5] = [4093, 8191, 16381, 32749, LARGEST_TABLE];

/// Largest of the sizes.
pub(super) const LARGEST_TABLE: usize = 65_521;

/// Slots that a member should have on average: shares are then even to about 1 %.
const SLOTS_PER_MEMBER: usize = 100;

/// Key of the hash that gives the first slot of a permutation.
const OFFSET_KEY: &[u8; 16] = b"director mh home";

/// Key of the hash that gives the step of a permutation.
const SKIP_KEY: &[u8; 16] = b"director mh skip";

/// Size of the table of a service that tracks connections on change, however many members it has: another size moves nearly
/// every client, and only those of a few slots are to be tracked. Even to about 1 % with 160 members.
pub(super) const ON_CHANGE_SIZE: usize = 16_381;

/// Size of the table for so many members. Those without a weight count: quiescing one must not change the size,
/// which would move nearly every client.
pub(super) fn table_size(members: usize) -> usize {
    let wanted = members.saturating_mul(SLOTS_PER_MEMBER);
    SIZES
        .into_iter()
        .find(|size| *size >= wanted)
        .unwrap_or(LARGEST_TABLE)
}

/// The table; empty when no member has a weight.
pub(super) fn table(members: &[Member]) -> Vec<u32> {
    table_of(table_size(members.len()), members)
}

/// The table of this size, one of [`SIZES`].
pub(super) fn table_of(size: usize, members: &[Member]) -> Vec<u32> {
    let mut members: Vec<Member> = members
        .iter()
        .copied()
        .filter(|member| member.weight > 0)
        .collect();
    if members.is_empty() {
        return Vec::new();
    }
    members.sort_by_key(|member| member.identity);
    let mut permutations: Vec<Permutation> = members
        .iter()
        .map(|member| Permutation::new(member.identity, size))
        .collect();
    let mut table: Vec<Option<u32>> = vec![None; size];
    // (time, position in the order of addresses, turns taken before)
    let mut turns: BinaryHeap<Reverse<(u128, usize, u64)>> = (0..members.len())
        .map(|member| Reverse((0, member, 0)))
        .collect();
    let mut free = size;
    while free > 0
        && let Some(Reverse((_, member, taken))) = turns.pop()
    {
        let slot = permutations[member].next_free(&table);
        table[slot] = Some(members[member].destination);
        free -= 1;
        turns.push(Reverse((
            time(taken + 1, members[member].weight),
            member,
            taken + 1,
        )));
    }
    table.into_iter().flatten().collect()
}

/// `turn / weight`, exact enough to keep all different quotients apart: two of them differ by at least
/// `1 / (weight * weight)`, which is at least 2^-64.
fn time(turn: u64, weight: u32) -> u128 {
    (u128::from(turn) << 64) / u128::from(weight)
}

/// A member's order of preference: `offset`, `offset + skip`, `offset + 2 * skip`, ... modulo the (prime) size.
struct Permutation {
    next: usize,
    skip: usize,
    size: usize,
}

impl Permutation {
    fn new((address, port): (IpAddr, u16), size: usize) -> Self {
        let mut bytes = Vec::with_capacity(19);
        match address {
            IpAddr::V4(address) => {
                bytes.push(4);
                bytes.extend(address.octets());
            }
            IpAddr::V6(address) => {
                bytes.push(6);
                bytes.extend(address.octets());
            }
        }
        bytes.extend(port.to_be_bytes());
        let hash = |key| SipHasher24::new_with_key(key).hash(&bytes);
        Self {
            next: (hash(OFFSET_KEY) % size as u64) as usize,
            skip: (hash(SKIP_KEY) % (size as u64 - 1) + 1) as usize,
            size,
        }
    }

    /// The next slot of the permutation that nobody has taken. There must be one, else this does not end.
    fn next_free(&mut self, table: &[Option<u32>]) -> usize {
        loop {
            let slot = self.next;
            self.next = (self.next + self.skip) % self.size;
            if table[slot].is_none() {
                return slot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Members of these weights at 10.0.0.1, 10.0.0.2, ...
    fn members(weights: &[u32]) -> Vec<Member> {
        (1u32..)
            .zip(weights)
            .map(|(id, weight)| Member {
                destination: id,
                weight: *weight,
                identity: (IpAddr::from((0x0a00_0000 + id).to_be_bytes()), 80),
            })
            .collect()
    }

    fn shares(table: &[u32]) -> HashMap<u32, usize> {
        let mut shares = HashMap::new();
        for destination in table {
            *shares.entry(*destination).or_insert(0) += 1;
        }
        shares
    }

    #[test]
    fn sizes() {
        for (members, size) in [
            (0, 4093),
            (1, 4093),
            (40, 4093),
            (41, 8191),
            (82, 16381),
            (327, 32749),
            (328, 65521),
            (100_000, 65521),
        ] {
            assert_eq!(table_size(members), size, "{members} members");
        }
    }

    #[test]
    fn the_same_on_every_node_and_in_every_version() {
        let member = |destination, weight, address: &str, port| {
            let address: IpAddr = address.parse().unwrap();
            Member {
                destination,
                weight,
                identity: (address, port),
            }
        };
        let table = table(&[
            member(1, 1, "192.0.2.1", 80),
            member(2, 2, "192.0.2.2", 80),
            member(3, 3, "192.0.2.2", 8080),
            member(4, 0, "192.0.2.3", 80),
            member(5, 1, "2001:db8::1", 80),
        ]);
        let bytes: Vec<u8> = table
            .iter()
            .flat_map(|destination| destination.to_be_bytes())
            .collect();
        let checksum = SipHasher24::new_with_key(&[0; 16]).hash(&bytes);
        assert_eq!(
            (table.len(), &table[..16], checksum),
            (4093, &GOLDEN_START[..], GOLDEN_CHECKSUM)
        );
    }

    const GOLDEN_START: [u32; 16] = [2, 3, 3, 3, 3, 2, 2, 3, 2, 2, 5, 2, 3, 1, 2, 1];
    const GOLDEN_CHECKSUM: u64 = 10_920_091_077_236_279_432;

    /// Slots that change although their member stayed: 2.0 % in the worst of these sets.
    #[test]
    fn a_removed_member_moves_few_others() {
        let mut worst = 0.0f64;
        for count in [2usize, 3, 5, 10, 30, 100] {
            for removed in 0..count.min(10) {
                let all = members(&vec![1; count]);
                // Quiesced, as the health checks do: the size stays.
                let mut fewer = all.clone();
                fewer[removed].weight = 0;
                let gone = all[removed].destination;
                let (before, after) = (table(&all), table(&fewer));
                let moved = before
                    .iter()
                    .zip(&after)
                    .filter(|(old, new)| **old != gone && old != new)
                    .count();
                worst = worst.max(moved as f64 / before.len() as f64);
            }
        }
        assert!(
            worst < 0.03,
            "{:.1} % of the slots moved without need",
            worst * 100.0
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn shares_follow_the_weights(weights in proptest::collection::vec(0u32..1000, 1..40)) {
            let table = table(&members(&weights));
            let shares = shares(&table);
            let sum: u32 = weights.iter().sum();
            prop_assume!(sum > 0);
            for (id, weight) in (1u32..).zip(&weights) {
                let exact = table.len() as f64 * f64::from(*weight) / f64::from(sum);
                let found = *shares.get(&id).unwrap_or(&0) as f64;
                // One turn each at time 0 lifts the small a little at the cost of the large.
                let bound = 2.0 + exact * weights.len() as f64 / table.len() as f64;
                prop_assert!((found - exact).abs() <= bound, "{id}: {found} slots, exactly {exact}");
            }
        }

        #[test]
        fn the_order_of_the_list_does_not_matter(
            shuffled in proptest::collection::vec(0u32..10, 1..60).prop_map(|weights| members(&weights)).prop_shuffle(),
        ) {
            let mut sorted = shuffled.clone();
            sorted.sort_by_key(|member| member.destination);
            prop_assert_eq!(table(&shuffled), table(&sorted));
        }

        #[test]
        fn neither_common_factors_nor_ids_matter(weights in proptest::collection::vec(0u32..1000, 1..40), factor in 1u32..1_000_000) {
            let plain = members(&weights);
            let multiplied: Vec<Member> = plain
                .iter()
                .map(|member| Member { weight: member.weight * factor, destination: member.destination + 7, ..*member })
                .collect();
            let expected: Vec<u32> = table(&plain).iter().map(|destination| destination + 7).collect();
            prop_assert_eq!(table(&multiplied), expected);
        }
    }
}
