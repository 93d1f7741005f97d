//! The pass over the connection tables.

use std::collections::HashSet;

use xdp_ebpf::connection::{Bucket4, Bucket6};
use xdp_ebpf::layout::TemplateKey;
use xdp_ebpf::walk::{Named, Walk};

use super::marks::SlotTables;
use super::report::Report;
use super::rules::{Dead, EndpointRule, Rules};
use super::templates;
use super::walk::Keeper;

/// Buckets of each CPU's table that are looked after together: a page of an IPv4 table. Of 128 CPUs they fit the second
/// cache of a CPU; fewer of them take a tenth longer.
const AT_ONCE: usize = 64;

/// In so many passes for each CPU every original is held against the same bucket of the other CPUs' tables once, where a
/// second one of its connection stands nine times of ten. To look into the other bucket too is a cache miss for each
/// table: six milliseconds of a pass of nineteen. What is not found waits for its timeout.
const THOROUGH_PASSES: usize = 16;

/// How the tables are divided among the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// CPUs with a table of their own.
    pub cpus: u32,
    /// Buckets of one CPU's IPv4 table.
    pub buckets4: u32,
    /// Buckets of one CPU's IPv6 table.
    pub buckets6: u32,
    /// Secret of the tables' hash.
    pub seed: u64,
}

/// Walks the tables, pass after pass.
#[derive(Debug)]
pub struct Upkeep {
    geometry: Geometry,
    rules: Rules,
    watched: HashSet<TemplateKey>,
    slots: SlotTables,
    /// How many buckets of all are done.
    position: usize,
    report: Report,
    /// Passes done.
    passes: usize,
    /// Places that are left to the end of the buckets that are looked after together.
    later: Vec<(usize, usize)>,
}

impl Upkeep {
    /// At the beginning of a pass.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            rules: Rules::default(),
            watched: HashSet::new(),
            slots: SlotTables::default(),
            position: 0,
            report: Report::default(),
            passes: 0,
            later: Vec::new(),
        }
    }

    /// Rules of endpoints, by id; one that is not here has the default ones.
    pub fn set_rules(&mut self, rules: Vec<EndpointRule>) {
        self.rules.set_endpoints(rules);
    }

    /// What is gone: its entries are freed wherever the walk comes by from now on.
    pub fn set_dead(&mut self, dead: Dead) {
        self.rules.set_dead(dead);
    }

    /// Has the next whole pass tell which of these templates have connections. Begins it anew.
    pub fn watch(&mut self, templates: HashSet<TemplateKey>) {
        self.watched = templates;
        self.position = 0;
        self.report = Report::default();
    }

    /// Slots that the pass which begins holds connections against.
    pub fn set_slots(&mut self, slots: SlotTables) {
        self.slots = slots;
    }

    /// Whether a pass is at its beginning.
    #[must_use]
    pub fn is_at_start(&self) -> bool {
        self.position == 0
    }

    /// Buckets of all tables.
    #[must_use]
    pub fn buckets(&self) -> usize {
        let Geometry {
            cpus,
            buckets4,
            buckets6,
            ..
        } = self.geometry;
        cpus as usize * (buckets4 as usize + buckets6 as usize)
    }

    /// How many buckets the next [`Self::step`] of at most `limit` walks over.
    #[must_use]
    pub fn next_slice(&self, limit: usize) -> usize {
        limit.min(self.buckets() - self.position)
    }

    /// Walks on over at most `limit` buckets. Gives what the pass found when this ends it; the next call then begins
    /// a new one.
    ///
    /// Slices shorter than the geometry says count as empty beyond their end.
    pub fn step(
        &mut self,
        table4: &[Bucket4],
        table6: &[Bucket6],
        now_s: u32,
        limit: usize,
    ) -> Option<Report> {
        let buckets = self.buckets();
        let end = self.position.saturating_add(limit).min(buckets);
        let walk4 = self.walk(table4, self.geometry.buckets4, now_s);
        let walk6 = self.walk(table6, self.geometry.buckets6, now_s);
        // The same share of every table, so that what the pass finds of a destination is of its middle on average,
        // whatever family and CPU its connections are of: `loads` relies on it.
        let share = |of: u32| {
            let at = |position: usize| position * of as usize / buckets;
            at(self.position)..at(end)
        };
        let (range4, range6) = (share(walk4.buckets), share(walk6.buckets));
        self.report.entries4 += self.visit(&walk4, range4);
        self.report.entries6 += self.visit(&walk6, range6);
        self.position = end;
        if self.position < buckets {
            return None;
        }
        self.position = 0;
        self.passes = self.passes.wrapping_add(1);
        self.watched.clear();
        Some(std::mem::take(&mut self.report))
    }

    fn walk<'a, B>(&self, table: &'a [B], buckets: u32, now_s: u32) -> Keeper<'a, B> {
        Keeper(Walk {
            table,
            cpus: self.geometry.cpus,
            buckets,
            seed: self.geometry.seed,
            now_s,
        })
    }

    /// Looks after some buckets of every CPU's table. Gives the number of places taken in them afterwards.
    fn visit<B: Named>(&mut self, walk: &Keeper<'_, B>, buckets: std::ops::Range<usize>) -> u64 {
        let (rules, watched, slots) = (&self.rules, &self.watched, &self.slots);
        let mut taken = 0;
        let period = THOROUGH_PASSES * walk.cpus as usize;
        for begin in buckets.clone().step_by(AT_ONCE) {
            let some = begin..(begin + AT_ONCE).min(buckets.end);
            let thorough = walk.cpus > 1 && begin / AT_ONCE % period == self.passes % period;
            taken += walk.visit(
                some,
                thorough,
                rules,
                &mut self.report,
                &mut self.later,
                |key, value, report| {
                    if !slots.is_empty() {
                        slots.hold_against(
                            B::endpoint(key),
                            || B::name(key),
                            value.destination(),
                            &mut report.elsewhere,
                        );
                    }
                    if watched.is_empty() {
                        return;
                    }
                    let persistence = rules.persistence(B::endpoint(key));
                    let template =
                        persistence.map(|it| templates::key(it, B::endpoint(key), &B::name(key)));
                    if let Some(template) = template.filter(|it| watched.contains(it)) {
                        report.live_templates.insert(template);
                    }
                },
            );
        }
        taken
    }
}
