//! Round robin, plain and weighted: tables that the packet path walks with a cursor.

use super::Member;

/// Slots that a weighted table is scaled down to. Weights of a real configuration reduce to far less; only
/// weights like 1000 and 999 do not.
const SLOTS: u64 = 4096;

/// Every member with a weight once, in the order of the list.
pub(super) fn plain(members: &[Member]) -> Vec<u32> {
    members
        .iter()
        .filter(|member| member.weight > 0)
        .map(|member| member.destination)
        .collect()
}

/// Interleaved, as IPVS (`ip_vs_wrr.c`): with the weights divided by their greatest common divisor, one pass over
/// the list for each weight from the largest down to 1 takes every member of at least that weight.
///
/// Weights that would need more than 4096 slots are scaled down in proportion, but never below one slot: small
/// weights beside huge ones then weigh more than they should, and the table has up to one slot more for each of them.
pub(super) fn weighted(members: &[Member]) -> Vec<u32> {
    let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
    let turns = turns(&weights);
    let most = turns.iter().copied().max().unwrap_or(0);
    let mut table = Vec::with_capacity(length(&turns));
    for pass in (1..=most).rev() {
        let taken = members
            .iter()
            .zip(&turns)
            .filter(|(_, turns)| **turns >= pass);
        table.extend(taken.map(|(member, _)| member.destination));
    }
    table
}

/// Number of slots of [`weighted`].
pub(super) fn weighted_length(weights: &[u32]) -> usize {
    length(&turns(weights))
}

fn length(turns: &[u64]) -> usize {
    turns.iter().sum::<u64>() as usize
}

/// Slots of each member: its weight in the smallest whole numbers, bounded.
fn turns(weights: &[u32]) -> Vec<u64> {
    let reduced = reduce(weights.iter().copied().map(u64::from).collect());
    let sum: u64 = reduced.iter().sum();
    if sum <= SLOTS {
        return reduced;
    }
    reduce(
        reduced
            .into_iter()
            .map(|weight| {
                if weight == 0 {
                    0
                } else {
                    (weight * SLOTS / sum).max(1)
                }
            })
            .collect(),
    )
}

fn reduce(mut weights: Vec<u64>) -> Vec<u64> {
    let divisor = weights.iter().copied().fold(0, greatest_common_divisor);
    if divisor > 1 {
        weights.iter_mut().for_each(|weight| *weight /= divisor);
    }
    weights
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    /// Members named 1, 2, 3... of these weights.
    fn members(weights: &[u32]) -> Vec<Member> {
        let identity = (IpAddr::V4(Ipv4Addr::LOCALHOST), 80);
        (1..)
            .zip(weights)
            .map(|(destination, weight)| Member {
                destination,
                weight: *weight,
                identity,
            })
            .collect()
    }

    #[test]
    fn plain_tables() {
        for (weights, expected) in [
            (&[1, 1, 1][..], &[1, 2, 3][..]),
            (&[7, 0, 2], &[1, 3]),
            (&[0, 0], &[]),
            (&[], &[]),
        ] {
            assert_eq!(plain(&members(weights)), expected, "weights {weights:?}");
        }
    }

    #[test]
    fn weighted_tables() {
        for (weights, expected) in [
            (&[1, 1, 1][..], &[1, 2, 3][..]),
            // The example of IPVS's documentation: A, B, C of weights 4, 3, 2 give AABABCABC.
            (&[4, 3, 2], &[1, 1, 2, 1, 2, 3, 1, 2, 3]),
            (&[40, 30, 20], &[1, 1, 2, 1, 2, 3, 1, 2, 3]),
            (&[100, 100], &[1, 2]),
            (&[1, 3], &[2, 2, 1, 2]),
            (&[2, 0, 1], &[1, 1, 3]),
            (&[0, 5], &[2]),
            (&[u32::MAX, u32::MAX], &[1, 2]),
            (&[0, 0], &[]),
            (&[], &[]),
        ] {
            assert_eq!(weighted(&members(weights)), expected, "weights {weights:?}");
        }
    }

    #[test]
    fn large_weights_are_scaled_down() {
        // (weights, slots of each)
        for (weights, expected) in [
            // 1638, 1638 and 819 of 4096 slots, which reduce.
            (&[3001, 3000, 1500][..], &[2, 2, 1][..]),
            (&[5000, 3001], &[853, 512]),
            (&[u32::MAX, 1], &[4095, 1]),
            (&[u32::MAX, u32::MAX - 1, 0, 1], &[2048, 2047, 0, 1]),
        ] {
            let table = weighted(&members(weights));
            let slots: Vec<usize> = (1..)
                .zip(weights)
                .map(|(id, _)| table.iter().filter(|slot| **slot == id).count())
                .collect();
            assert_eq!(slots, expected, "weights {weights:?}");
        }
    }
}
