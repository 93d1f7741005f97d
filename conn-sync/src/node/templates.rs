//! Which persistence templates peers have yet to be told of.
//!
//! Templates stand in a map of the kernel's that has no room for marks: here is remembered what was told of each, and what
//! peers told.

use std::collections::HashMap;

use xdp_ebpf::layout::{Template as Standing, TemplateKey};

use super::SomeTemplates;
use crate::directory::{Directory, Handle};
use crate::entry::{Held, Record};
use crate::machine::Class;
use crate::refresh::Refresh;

/// How many are looked at in one turn: a millisecond or two, in which nobody else has his. A map that is full to the brim has
/// been looked through after some seconds.
pub(super) const LOOKED_AT_ONCE: usize = 1 << 13;

/// A template that peers know.
#[derive(Clone, Copy, Debug)]
struct Known {
    destination: u32,
    seen_s: u32,
    is_learned: bool,
    /// The last look through the map that found it, or in which it was learned.
    look: u32,
}

/// What peers know of this node's templates.
#[derive(Debug, Default)]
pub(super) struct Templates {
    refresh: Refresh,
    known: HashMap<TemplateKey, Known>,
    /// The look through the map that is under way: its number, how far it is, how many it has found, and how many of them are
    /// left for the next one.
    look: u32,
    after: Option<u32>,
    found: usize,
    left: usize,
    /// How many the look before left.
    left_before: usize,
}

impl Templates {
    /// What is in use is told again by this rule.
    pub(super) fn new(refresh: Refresh) -> Self {
        Self {
            refresh,
            ..Self::default()
        }
    }

    /// After which of the map's templates those come that have their turn.
    pub(super) fn after(&self) -> Option<u32> {
        self.after
    }

    /// Compares these of the map, which have their turn, with what peers know; hands over what they do not know, as much of each
    /// class as `budget` gives. Gives how many are left for the next time.
    pub(super) fn pass(
        &mut self,
        (standing, next): SomeTemplates,
        directory: &Directory,
        now_s: u32,
        mut budget: impl FnMut(Class) -> usize,
        mut tell: impl FnMut(Class, Vec<(Handle, Record)>),
    ) -> usize {
        let classes = [Class::New, Class::Change, Class::Refresh];
        let mut found = classes.map(|_| Vec::new());
        for (key, template) in &standing {
            if let Some(class) = self.class(key, template, directory) {
                found[class as usize].push((key, template));
            }
        }
        for (class, found) in classes.into_iter().zip(found) {
            if found.is_empty() {
                continue;
            }
            let mut told = Vec::new();
            let mut room = budget(class);
            for (key, template) in found {
                if room == 0 {
                    self.left += 1;
                    continue;
                }
                let known = Known {
                    destination: template.destination,
                    seen_s: template.seen_s,
                    is_learned: false,
                    look: self.look,
                };
                self.known.insert(*key, known);
                // What has no name is told to nobody.
                if let Some(named) = directory.template(key, template, now_s) {
                    room -= 1;
                    told.push((Handle::Template(*key), Record::Template(named)));
                }
            }
            if !told.is_empty() {
                tell(class, told);
            }
        }
        self.found += standing.len();
        self.after = next;
        if next.is_none() {
            self.look_ended();
        }
        self.left_before.max(self.left)
    }

    /// All of the map has had its turn.
    fn look_ended(&mut self) {
        if self.known.len() > self.found {
            let look = self.look;
            self.known.retain(|_, known| known.look == look);
        }
        self.look = self.look.wrapping_add(1);
        self.found = 0;
        self.left_before = std::mem::take(&mut self.left);
    }

    fn class(
        &mut self,
        key: &TemplateKey,
        template: &Standing,
        directory: &Directory,
    ) -> Option<Class> {
        let Some(known) = self.known.get_mut(key) else {
            return Some(Class::New);
        };
        known.look = self.look;
        if known.destination != template.destination {
            return Some(Class::Change);
        }
        let used_for_s = template.seen_s.wrapping_sub(known.seen_s);
        let is_due = used_for_s <= u32::MAX / 2
            && used_for_s >= self.refresh.period_s(directory.template_timeout_s(key));
        is_due.then_some(Class::Refresh)
    }

    /// What this node holds under a key, for whoever decides whether a peer's takes its place.
    pub(super) fn held(&self, key: &TemplateKey, standing: &Standing, now_s: u32) -> Held {
        let is_learned = self.known.get(key).is_some_and(|known| {
            known.is_learned
                && known.destination == standing.destination
                && known.seen_s == standing.seen_s
        });
        let idle_s = now_s.wrapping_sub(standing.seen_s);
        Held {
            is_learned,
            idle_s: if idle_s > u32::MAX / 2 { 0 } else { idle_s },
        }
    }

    /// Whether peers told of it and nobody here has used it since.
    pub(super) fn is_learned(&self, key: &TemplateKey, standing: &Standing) -> bool {
        self.held(key, standing, standing.seen_s).is_learned
    }

    /// How many clients of persistence this node knows from peers.
    pub(super) fn count_learned(&self) -> u64 {
        let learned = self.known.values().filter(|known| known.is_learned);
        learned.count() as u64
    }

    /// A peer's has been put into the map.
    pub(super) fn learned(&mut self, key: TemplateKey, standing: &Standing) {
        let known = Known {
            destination: standing.destination,
            seen_s: standing.seen_s,
            is_learned: true,
            look: self.look,
        };
        self.known.insert(key, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{Endpoint, Persistence};
    use std::collections::BTreeSet;
    use xdp_ebpf::layout::{self, method};

    const NOW_S: u32 = 70_000;
    /// Templates that have their turn at once here.
    const SOME: usize = 10;

    /// A persistent service with two real servers.
    fn directory() -> Directory {
        let record = layout::Endpoint {
            address: [198, 51, 100, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            port: 80_u16.to_be_bytes(),
            last_port: 80_u16.to_be_bytes(),
            service: 1,
            protocol: 6,
            family: 4,
        };
        let endpoint = Endpoint {
            persistence: Some(Persistence {
                mask: [255; 16],
                per_port: false,
                timeout_s: 300,
            }),
            ..Endpoint::new(record)
        };
        let server = |id: u8| layout::Destination {
            method: method::NAT,
            port: 80_u16.to_be_bytes(),
            service: 1,
            address: [10, 0, 0, id, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ..layout::Destination::default()
        };
        Directory::new([(1, endpoint)], [(1, server(1)), (2, server(2))])
    }

    fn key(client: u8) -> TemplateKey {
        let mut key = TemplateKey {
            service: 1,
            ..TemplateKey::default()
        };
        key.client[..4].copy_from_slice(&[192, 0, 2, client]);
        key
    }

    /// Looks through the map, some of it at a time: of which clients is told, by class, and how many are left.
    fn look(
        templates: &mut Templates,
        map: &[(TemplateKey, Standing)],
        budget: usize,
    ) -> (Vec<(Class, u8)>, usize) {
        let mut told = Vec::new();
        let room = std::cell::Cell::new(budget);
        loop {
            let from = templates.after().unwrap_or(0) as usize;
            let to = map.len().min(from + SOME);
            let next = (to < map.len()).then_some(to as u32);
            let left = templates.pass(
                (map[from..to].to_vec(), next),
                &directory(),
                NOW_S,
                |_| room.get(),
                |class, some| {
                    room.set(room.get() - some.len());
                    told.extend(some.into_iter().map(|(handle, _)| match handle {
                        Handle::Template(key) => (class, key.client[3]),
                        _ => panic!("there are only templates"),
                    }));
                },
            );
            if next.is_none() {
                return (told, left);
            }
        }
    }

    /// However many turns a look takes: everything is told once, and what has gone is forgotten.
    #[test]
    fn a_map_is_looked_through_some_at_a_time() {
        use Class::{Change, New, Refresh};
        let standing = |destination, idle_s| Standing {
            destination,
            seen_s: NOW_S - idle_s,
        };
        let mut templates = Templates::default();
        let mut map: Vec<_> = (0..35)
            .map(|client| (key(client), standing(1, 100)))
            .collect();
        let all: BTreeSet<u8> = (0..35).collect();
        // What there is room for first.
        let (told, left) = look(&mut templates, &map, 12);
        assert_eq!((told.len(), left), (12, 23));
        let (more, left) = look(&mut templates, &map, 100);
        assert_eq!((more.len(), left), (23, 0));
        let clients = |told: &[(Class, u8)]| -> BTreeSet<u8> {
            assert!(told.iter().all(|(class, _)| *class == New), "{told:?}");
            told.iter().map(|(_, client)| *client).collect()
        };
        assert_eq!(clients(&[told, more].concat()), all);
        assert_eq!(look(&mut templates, &map, 100), (vec![], 0));
        // In the last part, in the first one, and one that a peer told of.
        map[33].1 = standing(2, 0);
        map[1].1 = standing(1, 0);
        map.push((key(50), standing(1, 7)));
        templates.learned(key(50), &map[35].1);
        assert_eq!(
            look(&mut templates, &map, 100),
            (vec![(Refresh, 1), (Change, 33)], 0)
        );
        assert_eq!(templates.count_learned(), 1);
        // Some go: what was told of them is forgotten, and when they are back they are news.
        let back = map.split_off(20);
        assert_eq!(look(&mut templates, &map, 100), (vec![], 0));
        assert_eq!((templates.known.len(), templates.count_learned()), (20, 0));
        map.extend(back);
        assert_eq!(look(&mut templates, &map, 100).0.len(), 16);
    }
}
