//! The tables of `sh` and `dh`: 256 slots that real servers fill in their order.
//!
//! Those out of service stand in them too: where the mapped one is out, the packet path decides (fallback).

use xdp_ebpf::layout::scheduler::HASH_SLOTS;

use super::Member;

/// Number of slots.
pub(super) const SLOTS: usize = HASH_SLOTS as usize;

/// `sh`: each fills as many slots in a row as it has weight, then the next one, over and over (`ip_vs_sh_reassign`). One
/// of weight 0 fills one, as in the kernel.
pub(super) fn by_weight(members: &[Member]) -> Vec<u32> {
    let turns = members.iter().flat_map(|member| {
        let slots = (member.weight.max(1) as usize).min(SLOTS);
        std::iter::repeat_n(member.destination, slots)
    });
    fill(turns.collect())
}

/// `dh`: one slot each, over and over (`ip_vs_dh_reassign`).
pub(super) fn in_turn(members: &[Member]) -> Vec<u32> {
    fill(members.iter().map(|member| member.destination).collect())
}

fn fill(turns: Vec<u32>) -> Vec<u32> {
    if turns.is_empty() {
        return turns;
    }
    turns.into_iter().cycle().take(SLOTS).collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn members(weights: &[u32]) -> Vec<Member> {
        (1..)
            .zip(weights)
            .map(|(destination, weight)| Member {
                destination,
                weight: *weight,
                identity: (IpAddr::from([10, 0, 0, 1]), 80),
            })
            .collect()
    }

    #[test]
    fn slots_are_filled_in_order() {
        let first = |table: Vec<u32>| table[..8].to_vec();
        assert_eq!(
            first(by_weight(&members(&[2, 1, 3]))),
            [1, 1, 2, 3, 3, 3, 1, 1]
        );
        assert_eq!(
            first(by_weight(&members(&[1, 0, 1]))),
            [1, 2, 3, 1, 2, 3, 1, 2]
        );
        assert_eq!(
            first(in_turn(&members(&[5, 1, 9]))),
            [1, 2, 3, 1, 2, 3, 1, 2]
        );
        assert_eq!(by_weight(&members(&[u32::MAX, 1])), [1; SLOTS]);
        assert!(by_weight(&[]).is_empty());
    }
}
