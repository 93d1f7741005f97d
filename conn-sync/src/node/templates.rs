//! Which persistence templates peers have yet to be told of.
//!
//! Templates stand in a map of the kernel's that has no room for marks: here is remembered what was told of each, and what
//! peers told.

use std::collections::HashMap;

use xdp_ebpf::layout::{Template as Standing, TemplateKey};

use crate::directory::{Directory, Handle};
use crate::entry::{Held, Record};
use crate::machine::Class;
use crate::refresh::Refresh;

/// A template that peers know.
#[derive(Clone, Copy, Debug)]
struct Known {
    destination: u32,
    seen_s: u32,
    is_learned: bool,
}

/// What peers know of this node's templates.
#[derive(Debug, Default)]
pub(super) struct Templates {
    refresh: Refresh,
    known: HashMap<TemplateKey, Known>,
}

impl Templates {
    /// What is in use is told again by this rule.
    pub(super) fn new(refresh: Refresh) -> Self {
        Self {
            refresh,
            ..Self::default()
        }
    }

    /// Compares with what stands in the map; hands over what peers do not know, as much of each class as `budget` gives.
    /// Gives how many are left for the next time.
    pub(super) fn pass(
        &mut self,
        standing: &[(TemplateKey, Standing)],
        directory: &Directory,
        now_s: u32,
        mut budget: impl FnMut(Class) -> usize,
        mut tell: impl FnMut(Class, Vec<(Handle, Record)>),
    ) -> usize {
        let mut left = 0;
        for class in [Class::New, Class::Change, Class::Refresh] {
            let mut told = Vec::new();
            let mut room = None;
            for (key, template) in standing {
                if self.class(key, template, directory) != Some(class) {
                    continue;
                }
                let room = room.get_or_insert_with(|| budget(class));
                if *room == 0 {
                    left += 1;
                    continue;
                }
                let known = Known {
                    destination: template.destination,
                    seen_s: template.seen_s,
                    is_learned: false,
                };
                self.known.insert(*key, known);
                // What has no name is told to nobody.
                if let Some(named) = directory.template(key, template, now_s) {
                    *room -= 1;
                    told.push((Handle::Template(*key), Record::Template(named)));
                }
            }
            if !told.is_empty() {
                tell(class, told);
            }
        }
        if self.known.len() > standing.len() {
            let stands: std::collections::HashSet<_> = standing.iter().map(|it| it.0).collect();
            self.known.retain(|key, _| stands.contains(key));
        }
        left
    }

    fn class(
        &self,
        key: &TemplateKey,
        template: &Standing,
        directory: &Directory,
    ) -> Option<Class> {
        let Some(known) = self.known.get(key) else {
            return Some(Class::New);
        };
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
        };
        self.known.insert(key, known);
    }
}
