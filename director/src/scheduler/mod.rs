//! Scheduling tables. No I/O.
//!
//! The packet path takes the entries of a table in turn (`rr`, `wrr`), or at a hash (`mh`, `sh`, `dh`); for the schedulers
//! that compare connections the table is all real servers in their order. Names and meanings are those of IPVS.

mod hashed;
mod maglev;
mod round_robin;

use std::net::IpAddr;

use crate::config::{RealServer, Scheduler, VirtualService};

/// Largest scheduling table of one service with up to 4096 real servers.
pub const MAX_SLOTS_PER_SERVICE: usize = maglev::LARGEST_TABLE;

/// Slots of a service that tracks connections on change.
pub const ON_CHANGE_SLOTS: usize = maglev::ON_CHANGE_SIZE;

/// A real server as a scheduler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// What is written into the table: the destination's id.
    pub destination: u32,
    /// Share of new connections; 0 takes none.
    pub weight: u32,
    /// Address and port: what `mh` hashes, so that every node makes the same table.
    pub identity: (IpAddr, u16),
}

/// The scheduling table of a service: destination ids in the order of its slots. Empty when no member has a weight.
#[must_use]
pub fn table(scheduler: &Scheduler, members: &[Member]) -> Vec<u32> {
    match scheduler {
        _ if members.iter().all(|member| member.weight == 0) => Vec::new(),
        Scheduler::Rr => round_robin::plain(members),
        Scheduler::Wrr => round_robin::weighted(members),
        Scheduler::Mh { .. } => maglev::table(members),
        Scheduler::Sh { .. } => hashed::by_weight(members),
        Scheduler::Dh { .. } => hashed::in_turn(members),
        _ => members.iter().map(|member| member.destination).collect(),
    }
}

/// The table of a service that tracks connections on change: as [`table`] makes it for `mh`, but always of one size.
#[must_use]
pub fn table_on_change(members: &[Member]) -> Vec<u32> {
    if members.iter().all(|member| member.weight == 0) {
        Vec::new()
    } else {
        maglev::table_of(maglev::ON_CHANGE_SIZE, members)
    }
}

/// Number of slots that a service takes, with these of its servers, as the configuration has them.
#[must_use]
pub fn slots_of(service: &VirtualService, servers: &[RealServer]) -> usize {
    if service.track.is_on_change() {
        // Also when none has a weight: the slots say who had them.
        return maglev::ON_CHANGE_SIZE;
    }
    let weights: Vec<u32> = servers.iter().map(|server| server.weight).collect();
    table_length(&service.scheduler, &weights)
}

/// Number of slots that [`table`] gives for members of these weights, without making it.
fn table_length(scheduler: &Scheduler, weights: &[u32]) -> usize {
    match scheduler {
        _ if weights.iter().all(|weight| *weight == 0) => 0,
        Scheduler::Rr => weights.iter().filter(|weight| **weight > 0).count(),
        Scheduler::Wrr => round_robin::weighted_length(weights),
        Scheduler::Mh { .. } => maglev::table_size(weights.len()),
        Scheduler::Sh { .. } | Scheduler::Dh { .. } => hashed::SLOTS,
        _ => weights.len(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    const ALL: [Scheduler; 7] = [
        Scheduler::Rr,
        Scheduler::Wrr,
        Scheduler::Mh {
            port: false,
            fallback: true,
        },
        Scheduler::Mh {
            port: true,
            fallback: true,
        },
        Scheduler::Sh {
            port: false,
            fallback: true,
        },
        Scheduler::Dh { fallback: true },
        Scheduler::Wlc,
    ];

    #[test]
    fn without_a_weight_there_is_no_slot() {
        for scheduler in ALL {
            for weights in [&[][..], &[0, 0]] {
                assert!(
                    table(&scheduler, &members(weights)).is_empty(),
                    "{scheduler} with weights {weights:?}"
                );
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn length_is_told_in_advance(weights in proptest::collection::vec(prop_oneof![0u32..5, any::<u32>()], 0..50)) {
            for scheduler in ALL {
                let table = table(&scheduler, &members(&weights));
                prop_assert_eq!(table.len(), table_length(&scheduler, &weights));
                prop_assert!(table.len() <= MAX_SLOTS_PER_SERVICE);
            }
        }

        #[test]
        fn whoever_has_a_weight_has_a_slot_and_nobody_else(
            weights in proptest::collection::vec(prop_oneof![0u32..5, any::<u32>()], 0..50),
        ) {
            for scheduler in [ALL[0], ALL[1], ALL[2], ALL[3]] {
                let members = members(&weights);
                let table = table(&scheduler, &members);
                for member in &members {
                    let has_slot = table.contains(&member.destination);
                    prop_assert_eq!(has_slot, member.weight > 0, "{:?} under {}", member, scheduler);
                }
            }
        }
    }
}
