//! Who has a slot of a service that tracks connections on change, and who had it before: what the packet path goes by
//! ([`xdp_ebpf::layout::slot`]) when real servers come or go. No I/O, no clock.
//!
//! ```text
//!   B takes over from A           hold time over              nothing is elsewhere, in two passes
//!   (A, –) ──────► (B, A) ──────────────────────► (B, B) ───────────────────────────────────────► (B, –)
//!                    │ C takes over                                                                  │
//!                    └──► (C, A)                                  connections found elsewhere ◄──────┘
//! ```
//!
//! A slot is written as (owner, previous). While it is settled, (A, –), none of its connections has an entry: an entry
//! is made for each packet of a marked slot only. So until all connections that A had have shown a packet, or were idle for
//! the hold time, a packet without an entry in the middle of a connection is taken for A's.
//!
//! **Changed again within the hold time**, the slot keeps its first previous owner: A's connections are the only ones that may
//! have no entry. Those of B all have one, because they began in a marked slot, and go on by it.
//!
//! **Where nothing is known of what was before** (a service that is new, or that tracked all connections until now), a slot
//! begins as (B, B): entries count, and what has none goes where a table alone would send it.
//!
//! **Where it is known that nobody had it**, because all its real servers were out for longer than the hold time, a slot begins as
//! (B, nobody): whatever goes on has an entry, and what has none goes to whoever has the slot by then. That holds for the
//! hold time as any previous owner does. As (B, B) the first real server that comes back would be taken for who had the slots of
//! all others, and get their new flows of UDP.
//!
//! **Young** is a new service while some of its real servers have not been checked yet. They come up one after the other, and
//! nobody has connections because he was the first. So its slots begin as (owner, expected): who is in service, and who has
//! the slot if all that is unknown turns out to be up, as it most likely was with the director before this one. With each
//! verdict they are made anew, whatever they said: they have been marked from the beginning, so that whatever began here has
//! an entry. Nothing settles until the last verdict is there, with which the service is young no more.

use std::collections::{BTreeMap, BTreeSet};

use xdp_ebpf::layout::{Endpoint, limits, service, slot};

use super::desired::{EndpointIdentity, identity, recorded};
use super::tables::Tables;
use crate::config::{Config, Scheduler, VirtualService};

/// Who had a slot that nobody had. No destination gets this id.
pub const NOBODY: u32 = 0xffff;

const _: () = assert!(NOBODY == limits::DESTINATIONS - 1);

/// The words of a table whose slots have these owners from now on. `standing`: the words until now, of the same length or
/// nothing is known of before. Nobody in `owners`: there is no real server to give anything to.
///
/// Empty: nobody has and had anything.
#[must_use]
pub fn change(standing: Option<&[u32]>, owners: &[u32]) -> Vec<u32> {
    let words: Vec<u32> = match standing {
        Some(standing) if owners.is_empty() => {
            standing.iter().map(|word| changed(*word, 0)).collect()
        }
        Some(standing) if standing.len() == owners.len() => standing
            .iter()
            .zip(owners)
            .map(|(word, owner)| changed(*word, *owner))
            .collect(),
        _ => owners
            .iter()
            .map(|owner| slot::new(*owner, *owner))
            .collect(),
    };
    none_if_nobodys(words)
}

/// A slot that gets an owner.
fn changed(word: u32, owner: u32) -> u32 {
    match (slot::owner(word), slot::previous(word)) {
        (before, _) if before == owner => word,
        (0, 0) => slot::new(owner, NOBODY),
        (before, 0) => slot::new(owner, before),
        (_, first) => slot::new(owner, first),
    }
}

/// What passes over the connection tables say of a table's slots.
#[derive(Clone, Copy, Debug)]
pub struct Findings<'a> {
    /// Slots that have entries of connections elsewhere than at their owners.
    pub elsewhere: &'a BTreeSet<u32>,
    /// Marked slots that had none, in two passes in a row.
    pub clear: &'a BTreeSet<u32>,
    /// Marked slots whose hold time is over.
    pub over: &'a BTreeSet<u32>,
}

/// The words after a pass over the connection tables. Empty: nobody has and had anything.
#[must_use]
pub fn settle(standing: &[u32], findings: Findings<'_>) -> Vec<u32> {
    let words = (0..)
        .zip(standing)
        .map(|(index, word)| {
            let word = *word;
            let owner = slot::owner(word);
            match slot::previous(word) {
                // Came from a peer, or slipped through: entries count again.
                0 if findings.elsewhere.contains(&index) => slot::new(owner, owner),
                0 => word,
                previous if previous == owner => {
                    if findings.clear.contains(&index) {
                        slot::new(owner, 0)
                    } else {
                        word
                    }
                }
                _ if findings.over.contains(&index) => slot::new(owner, owner),
                _ => word,
            }
        })
        .collect();
    none_if_nobodys(words)
}

fn none_if_nobodys(words: Vec<u32>) -> Vec<u32> {
    if words.iter().all(|word| *word == 0) {
        Vec::new()
    } else {
        words
    }
}

/// Whether a slot's connections are tracked because it has changed.
#[must_use]
pub fn is_marked(word: u32) -> bool {
    slot::previous(word) != 0
}

/// Slots of a service whose connections are tracked because they have changed.
#[must_use]
pub fn marked(tables: &Tables, id: u16) -> usize {
    let words = standing(tables, id).unwrap_or(&[]);
    words.iter().filter(|word| is_marked(**word)).count()
}

/// The words of a young service whose slots have these owners, and those if all that is unknown turns out to be up.
fn newborn(owners: &[u32], expected: &[u32]) -> Vec<u32> {
    let slots = owners.len().max(expected.len());
    let at = |owners: &[u32], index: usize| owners.get(index).copied().unwrap_or(0);
    let words = (0..slots).map(|index| {
        let owner = at(owners, index);
        match at(expected, index) {
            0 => slot::new(owner, owner),
            expected => slot::new(owner, expected),
        }
    });
    words.collect()
}

/// The words for a service whose slots are to have these owners, and whether it is young with them. `expected`: the owners if
/// all that is unknown turns out to be up; none where nothing is.
pub(super) fn words(
    current: &Tables,
    id: u16,
    owners: &[u32],
    expected: Option<&[u32]>,
) -> (Vec<u32>, bool) {
    let record = current.services.get(&id);
    let known = record.filter(|record| record.flags & service::YOUNG == 0);
    match known {
        // Nobody answers, and nobody is waited for any more. (One that is remembered only for its connections has none either.)
        Some(record) if record.slots == 0 && is_served(current, id) => {
            (change(Some(&vec![0; owners.len()]), owners), false)
        }
        // Where all connections were tracked until now, it is known who had them.
        Some(record) if record.slots > 0 => (change(standing(current, id), owners), false),
        _ => {
            let words = newborn(owners, expected.unwrap_or(owners));
            (words, expected.is_some())
        }
    }
}

fn is_served(tables: &Tables, id: u16) -> bool {
    let mut endpoints = tables.endpoints_of(id);
    endpoints.any(|(endpoint, _)| tables.is_served(endpoint))
}

/// The words of a service that tracks on change.
fn standing(tables: &Tables, id: u16) -> Option<&[u32]> {
    let record = tables.services.get(&id)?;
    if record.flags & service::ON_CHANGE == 0 || record.slots == 0 {
        return None;
    }
    tables.slots.get(&record.first_slot).map(|words| &**words)
}

fn flags(tables: &Tables, id: u16) -> u16 {
    tables.services.get(&id).map_or(0, |record| record.flags)
}

/// Whether a service has the table of one that tracks on change: it does so, or did until a reload. Another table would send
/// connections without an entry elsewhere.
pub(super) fn has_its_table(tables: &Tables, id: u16, service: &VirtualService) -> bool {
    let is_mh = matches!(service.scheduler, Scheduler::Mh { .. });
    let was = flags(tables, id) & service::WAS_ON_CHANGE != 0 || standing(tables, id).is_some();
    service.track.is_on_change() || is_mh && was
}

/// Services that track on change and whose clients would all fall into other slots under this configuration. Nothing can
/// mark those: any connection that has no entry would be somebody else's.
pub fn rehashed<'c>(tables: &Tables, config: &'c Config) -> Vec<&'c VirtualService> {
    let concerned = |record: &&Endpoint| standing(tables, record.service).is_some();
    let ids: BTreeMap<EndpointIdentity, u16> = tables
        .endpoints
        .values()
        .filter(concerned)
        .map(|record| (recorded(record), record.service))
        .collect();
    let hashes_otherwise = |service: &&VirtualService| {
        let mut known = service.endpoints.iter();
        let id = known.find_map(|endpoint| ids.get(&identity(endpoint)));
        id.is_some_and(|id| {
            let by_port = flags(tables, *id) & service::PORT != 0;
            !matches!(service.scheduler, Scheduler::Mh { port, .. } if port == by_port)
        })
    };
    config.services.iter().filter(hashes_otherwise).collect()
}

/// Destinations that had slots which are marked: their connections may have no entry, and no other real server may get their
/// ids.
pub(super) fn previous_owners(tables: &Tables) -> BTreeSet<u32> {
    tables
        .services
        .keys()
        .filter_map(|id| standing(tables, *id))
        .flatten()
        .map(|word| slot::previous(*word))
        .filter(|id| *id != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u32 = 1;
    const B: u32 = 2;
    const C: u32 = 0xfffe;

    #[test]
    fn a_slot_changes_hands() {
        // (owner and previous before, the new owner, owner and previous after)
        let cases = [
            ((A, 0), A, (A, 0)),
            ((A, 0), B, (B, A)),
            ((A, 0), 0, (0, A)),
            ((B, A), B, (B, A)),
            ((B, A), C, (C, A)),
            ((B, A), A, (A, A)),
            ((B, A), 0, (0, A)),
            ((B, B), C, (C, B)),
            ((A, A), B, (B, A)),
            ((0, A), B, (B, A)),
            ((0, A), A, (A, A)),
            ((0, 0), B, (B, NOBODY)),
            ((B, NOBODY), C, (C, NOBODY)),
            ((B, NOBODY), 0, (0, NOBODY)),
        ];
        for ((owner, previous), new, (owner_after, previous_after)) in cases {
            // Another slot, so that the table is never nobody's.
            let standing = [slot::new(owner, previous), slot::new(C, 0)];
            let expected = vec![slot::new(owner_after, previous_after), slot::new(C, 0)];
            let found = change(Some(&standing), &[new, C]);
            assert_eq!(found, expected, "({owner}, {previous}) to {new}");
        }
    }

    #[test]
    fn whole_tables() {
        let marked = |owner| slot::new(owner, owner);
        // (what stands, owners, words)
        type Case = (Option<&'static [u32]>, &'static [u32], Vec<u32>);
        let cases: [Case; 7] = [
            (None, &[], vec![]),
            (None, &[A, B], vec![marked(A), marked(B)]),
            (Some(&[A]), &[A, B], vec![marked(A), marked(B)]),
            (Some(&[A, B]), &[], vec![slot::new(0, A), slot::new(0, B)]),
            (Some(&[0, 0]), &[], vec![]),
            (
                Some(&[0, 0]),
                &[A, B],
                vec![slot::new(A, NOBODY), slot::new(B, NOBODY)],
            ),
            (Some(&[A, B]), &[B, B], vec![slot::new(B, A), B]),
        ];
        for (standing, owners, words) in cases {
            assert_eq!(
                change(standing, owners),
                words,
                "{standing:?} to {owners:?}"
            );
        }
    }

    #[test]
    fn a_slot_settles() {
        // (owner and previous, entries elsewhere, none in two passes, hold time over, owner and previous after)
        let cases = [
            ((A, 0), false, false, false, (A, 0)),
            ((A, 0), true, false, false, (A, A)),
            ((B, A), false, true, false, (B, A)),
            ((B, A), false, true, true, (B, B)),
            ((B, A), true, false, true, (B, B)),
            ((B, B), true, false, true, (B, B)),
            ((B, B), false, false, true, (B, B)),
            ((B, B), false, true, false, (B, 0)),
            ((0, A), true, false, false, (0, A)),
            ((0, A), true, false, true, (0, 0)),
            ((0, 0), true, false, true, (0, 0)),
            ((B, NOBODY), false, true, false, (B, NOBODY)),
            ((B, NOBODY), false, true, true, (B, B)),
        ];
        for ((owner, previous), elsewhere, clear, over, (owner_after, previous_after)) in cases {
            let set = |is: bool| BTreeSet::from_iter(is.then_some(0));
            let (elsewhere, clear, over) = (set(elsewhere), set(clear), set(over));
            let findings = Findings {
                elsewhere: &elsewhere,
                clear: &clear,
                over: &over,
            };
            let standing = [slot::new(owner, previous), slot::new(C, 0)];
            let expected = vec![slot::new(owner_after, previous_after), slot::new(C, 0)];
            let found = settle(&standing, findings);
            assert_eq!(found, expected, "({owner}, {previous}) {findings:?}");
        }
        let nothing = BTreeSet::new();
        let over = BTreeSet::from([0, 1]);
        let findings = Findings {
            elsewhere: &nothing,
            clear: &nothing,
            over: &over,
        };
        let words = settle(&[slot::new(0, A), slot::new(0, B)], findings);
        assert_eq!(words, [0; 0], "nobody's at last");
    }
}
