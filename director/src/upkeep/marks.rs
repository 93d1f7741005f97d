//! How marked slots of services that track connections on change settle again ([`crate::plan::owners`]): what passes over the
//! connection tables find, held against the slots, and how long ago they changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use xdp_ebpf::layout::{service, slot};
use xdp_ebpf::path::schedule::table_based::client_hash;
use xdp_ebpf::walk::Name;

use crate::plan::Tables;
use crate::plan::owners::{self, Findings};

/// The slots of a service.
#[derive(Clone, Debug)]
struct Slots {
    /// Whether the client's port counts (`mh-port`).
    by_port: bool,
    words: Arc<[u32]>,
}

/// Slots of services that track on change, as they were when a pass began: what it holds connections against.
#[derive(Clone, Debug, Default)]
pub struct SlotTables {
    services: BTreeMap<u16, Slots>,
    /// Service ids by endpoint id; 0: of none of these services.
    endpoints: Vec<u16>,
}

/// Slots that have connections elsewhere than at their owners, by service id.
pub type Elsewhere = BTreeMap<u16, BTreeSet<u32>>;

impl SlotTables {
    /// Of the tables as they are. Not of young services, whose slots must stay marked.
    #[must_use]
    pub fn of(tables: &Tables) -> Self {
        const KINDS: u16 = service::ON_CHANGE | service::YOUNG;
        let services: BTreeMap<u16, Slots> = tables
            .services
            .iter()
            .filter(|(_, record)| record.flags & KINDS == service::ON_CHANGE && record.slots > 0)
            .filter_map(|(id, record)| {
                let slots = Slots {
                    by_port: record.flags & service::PORT != 0,
                    words: Arc::clone(tables.slots.get(&record.first_slot)?),
                };
                Some((*id, slots))
            })
            .collect();
        let mut endpoints = Vec::new();
        for (id, record) in &tables.endpoints {
            if services.contains_key(&record.service) {
                endpoints.resize(usize::from(*id) + 1, 0);
                endpoints[usize::from(*id)] = record.service;
            }
        }
        Self {
            services,
            endpoints,
        }
    }

    /// Whether there are none.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Notes a connection that is elsewhere than at the owner of its slot.
    #[inline]
    pub(super) fn hold_against(
        &self,
        endpoint: u16,
        name: impl FnOnce() -> Name,
        destination: u32,
        elsewhere: &mut Elsewhere,
    ) {
        let id = self.endpoints.get(usize::from(endpoint)).copied();
        let Some((id, slots)) = id.and_then(|id| Some((id, self.services.get(&id)?))) else {
            return;
        };
        let name = name();
        let port = if slots.by_port { name.port } else { 0 };
        // An IPv4 address stands in the first word, beside zeroes: folded it is itself, as the packet path has it.
        let folded = name
            .client
            .chunks_exact(4)
            .fold(0, |folded, bytes| folded ^ word(bytes));
        let Some(index) = client_hash(folded, port).checked_rem(slots.words.len() as u32) else {
            return;
        };
        if slots
            .words
            .get(index as usize)
            .map(|word| slot::owner(*word))
            != Some(destination)
        {
            elsewhere.entry(id).or_default().insert(index);
        }
    }
}

/// Four bytes as they stand in memory.
fn word(bytes: &[u8]) -> u32 {
    bytes
        .try_into()
        .map_or(0, |bytes: [u8; 4]| u32::from_ne_bytes(bytes))
}

/// What is known of marked slots between passes.
#[derive(Debug, Default)]
pub struct Marks {
    /// What the pass under way holds connections against.
    begun: SlotTables,
    /// The same of the pass before it, and what that found.
    before: (SlotTables, Elsewhere),
    /// Slots whose unknown connections are somebody else's than their owner's: whose, and since when by the table clock.
    since: BTreeMap<u16, HashMap<u32, (u32, u32)>>,
    /// Slots that were looked through and have no marks.
    quiet: BTreeMap<u16, Arc<[u32]>>,
    /// The service whose turn came last.
    last: u16,
}

impl Marks {
    /// A pass begins.
    pub fn pass_begins(&mut self, tables: &Tables) -> SlotTables {
        self.begun = SlotTables::of(tables);
        self.begun.clone()
    }

    /// The connection tables are other ones: what passes found in those before says nothing of these.
    pub fn begin_anew(&mut self) {
        self.begun = SlotTables::default();
        self.before = <(SlotTables, Elsewhere)>::default();
    }

    /// A pass has ended that began with [`Self::pass_begins`] and found connections `elsewhere`. Gives the services whose
    /// slots get other words now. `hold_s`: a service's hold time.
    pub fn pass_ends(
        &mut self,
        tables: &Tables,
        elsewhere: Elsewhere,
        now_s: u32,
        hold_s: impl Fn(u16) -> u32,
    ) -> BTreeMap<u16, Vec<u32>> {
        let now = SlotTables::of(tables);
        self.since.retain(|id, _| now.services.contains_key(id));
        self.quiet.retain(|id, _| now.services.contains_key(id));
        let mut changes = BTreeMap::new();
        for (id, slots) in &now.services {
            let is_quiet = |words: &Arc<[u32]>| Arc::ptr_eq(words, &slots.words);
            if !elsewhere.contains_key(id) && self.quiet.get(id).is_some_and(is_quiet) {
                continue;
            }
            let words = &slots.words;
            if !words.iter().any(|word| owners::is_marked(*word)) {
                self.quiet.insert(*id, Arc::clone(words));
            }
            let since = self.since.entry(*id).or_default();
            remember(since, words, now_s);
            let hold_s = hold_s(*id);
            let over = since
                .iter()
                .filter(|(_, (_, since_s))| now_s.wrapping_sub(*since_s) >= hold_s)
                .map(|(index, _)| *index)
                .collect();
            // What a pass found counts where the slot is as it was then.
            let (before, elsewhere_before) = &self.before;
            let same = |than: &SlotTables, index: u32| {
                let than = than.services.get(id);
                than.and_then(|it| it.words.get(index as usize)) == words.get(index as usize)
            };
            let is_elsewhere = |found: &Elsewhere, index: u32| {
                found.get(id).is_some_and(|found| found.contains(&index))
            };
            let clear = (0..words.len() as u32)
                .filter(|index| {
                    owners::is_marked(words[*index as usize])
                        && same(&self.begun, *index)
                        && same(before, *index)
                        && !is_elsewhere(&elsewhere, *index)
                        && !is_elsewhere(elsewhere_before, *index)
                })
                .collect();
            let found = elsewhere.get(id).into_iter().flatten().copied();
            let found = found.filter(|index| same(&self.begun, *index)).collect();
            let settled = owners::settle(
                words,
                Findings {
                    elsewhere: &found,
                    clear: &clear,
                    over: &over,
                },
            );
            if *settled != **words {
                changes.insert(*id, settled);
            }
        }
        self.before = (std::mem::take(&mut self.begun), elsewhere);
        changes
    }

    /// Of services whose slots get other words those whose turn it is, `at_once` at the most: the next ones behind those of
    /// the last time, so that none waits for ever for others that change with every pass.
    pub fn in_turn(
        &mut self,
        mut changes: BTreeMap<u16, Vec<u32>>,
        at_once: usize,
    ) -> BTreeMap<u16, Vec<u32>> {
        let behind = changes.range(self.last.saturating_add(1)..);
        let before = changes.range(..=self.last);
        let turn: Vec<u16> = behind
            .chain(before)
            .map(|(id, _)| *id)
            .take(at_once)
            .collect();
        self.last = turn.last().copied().unwrap_or(self.last);
        changes.retain(|id, _| turn.contains(id));
        changes
    }
}

/// Notes since when slots have had the previous owner that they have.
fn remember(since: &mut HashMap<u32, (u32, u32)>, words: &[u32], now_s: u32) {
    for (index, word) in (0..).zip(words) {
        let previous = slot::previous(*word);
        if previous == 0 || previous == slot::owner(*word) {
            since.remove(&index);
        } else if since.get(&index).is_none_or(|known| known.0 != previous) {
            since.insert(index, (previous, now_s));
        }
    }
}

#[cfg(test)]
mod tests {
    use xdp_ebpf::layout::{Endpoint, Service};

    use super::*;

    const A: u32 = 1;
    const B: u32 = 2;

    /// Service 1 with endpoint 7 and these slots.
    fn tables(words: &[u32]) -> Tables {
        let mut tables = Tables::default();
        let record = Service {
            first_slot: 100,
            slots: words.len() as u32,
            flags: service::ON_CHANGE,
            ..Service::default()
        };
        tables.services.insert(1, record);
        let endpoint = Endpoint {
            service: 1,
            ..Endpoint::default()
        };
        tables.endpoints.insert(7, endpoint);
        tables.slots.insert(100, words.into());
        tables
    }

    /// A pass over a table of one slot, in which connections are elsewhere or not. The slot's word then.
    fn pass(marks: &mut Marks, word: u32, elsewhere: bool, now_s: u32) -> u32 {
        let tables = tables(&[word, B]);
        marks.pass_begins(&tables);
        let found = elsewhere.then(|| (1, BTreeSet::from([0])));
        let changes = marks.pass_ends(&tables, found.into_iter().collect(), now_s, |_| 10);
        changes.get(&1).map_or(word, |words| words[0])
    }

    #[test]
    fn a_slot_is_held_and_then_settles() {
        let mut marks = Marks::default();
        let changed = slot::new(B, A);
        // (by the clock, connections elsewhere, the word after the pass)
        let passes = [
            (100, false, changed),
            (109, true, changed),
            (110, true, slot::new(B, B)),
            (111, true, slot::new(B, B)),
            (112, false, slot::new(B, B)),
            // In two passes in a row.
            (113, false, slot::new(B, 0)),
            (114, false, slot::new(B, 0)),
            // A peer's, perhaps.
            (115, true, slot::new(B, B)),
            (116, false, slot::new(B, B)),
            (117, false, slot::new(B, 0)),
            (118, false, slot::new(B, 0)),
        ];
        let mut word = changed;
        for (now_s, elsewhere, expected) in passes {
            word = pass(&mut marks, word, elsewhere, now_s);
            assert_eq!(word, expected, "at {now_s}");
        }
    }

    #[test]
    fn the_hold_time_begins_with_the_previous_owner() {
        let mut marks = Marks::default();
        assert_eq!(
            pass(&mut marks, slot::new(B, A), false, 100),
            slot::new(B, A)
        );
        // A third owner, and the first previous one still.
        assert_eq!(
            pass(&mut marks, slot::new(3, A), false, 109),
            slot::new(3, A)
        );
        assert_eq!(
            pass(&mut marks, slot::new(3, A), false, 110),
            slot::new(3, 3)
        );
        // Another previous owner.
        assert_eq!(
            pass(&mut marks, slot::new(A, 3), false, 119),
            slot::new(A, 3)
        );
        assert_eq!(
            pass(&mut marks, slot::new(A, 3), false, 128),
            slot::new(A, 3)
        );
        assert_eq!(
            pass(&mut marks, slot::new(A, 3), false, 129),
            slot::new(A, A)
        );
    }

    #[test]
    fn a_pass_says_nothing_of_slots_that_changed_meanwhile() {
        let mut marks = Marks::default();
        let word = slot::new(B, B);
        for now_s in [1, 2] {
            marks.pass_begins(&tables(&[slot::new(A, A), B]));
            let changes = marks.pass_ends(&tables(&[word, B]), Elsewhere::new(), now_s, |_| 10);
            assert!(changes.is_empty(), "it began with another one");
        }
        assert_eq!(
            pass(&mut marks, word, false, 3),
            word,
            "the first that counts"
        );
        assert_eq!(pass(&mut marks, word, false, 4), B, "the second");
        marks.begin_anew();
        assert_eq!(pass(&mut marks, word, false, 5), word, "over other tables");
        assert_eq!(pass(&mut marks, word, false, 6), B);
    }

    /// Four services change with every pass, and so does a fifth.
    #[test]
    fn nobody_waits_for_those_who_always_change() {
        let mut marks = Marks::default();
        let changes = || (1..=5).map(|id| (id, vec![A])).collect();
        // (whose turn it is)
        let turns = [
            [1, 2, 3, 4],
            [1, 2, 3, 5],
            [1, 2, 4, 5],
            [1, 3, 4, 5],
            [2, 3, 4, 5],
        ];
        for expected in turns {
            let turn = marks.in_turn(changes(), 4);
            assert!(turn.into_keys().eq(expected), "{expected:?}");
        }
        assert!(marks.in_turn(BTreeMap::new(), 4).is_empty());
        let only = marks.in_turn(BTreeMap::from([(3, vec![B])]), 4);
        assert_eq!(only, BTreeMap::from([(3, vec![B])]));
    }

    /// What is expected of real servers that have not been checked yet stands in slots that nothing takes back meanwhile.
    #[test]
    fn young_services_do_not_settle() {
        let mut tables = tables(&[slot::new(A, B); 2]);
        if let Some(record) = tables.services.get_mut(&1) {
            record.flags |= service::YOUNG;
        }
        let mut marks = Marks::default();
        for now_s in [1, 100, 101, 102] {
            marks.pass_begins(&tables);
            let found = Elsewhere::from([(1, BTreeSet::from([0]))]);
            assert!(marks.pass_ends(&tables, found, now_s, |_| 10).is_empty());
        }
    }

    #[test]
    fn connections_are_held_against_their_slots() {
        let client = std::net::Ipv4Addr::new(198, 51, 100, 7).octets();
        let mut name = Name {
            client: [0; 16],
            port: 40_000_u16.to_be(),
            virtual_port: 0,
        };
        name.client[..4].copy_from_slice(&client);
        let index = client_hash(u32::from_ne_bytes(client), 0) % 4;
        let mut words = [A; 4];
        words[index as usize] = slot::new(B, A);
        let slots = SlotTables::of(&tables(&words));
        for (endpoint, destination, expected) in [(7, B, false), (7, A, true), (8, A, false)] {
            let mut elsewhere = Elsewhere::new();
            slots.hold_against(endpoint, || name, destination, &mut elsewhere);
            let expected = expected.then(|| (1, BTreeSet::from([index])));
            assert_eq!(elsewhere, expected.into_iter().collect());
        }
    }
}
