//! The pass over the connection tables.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use xdp_ebpf::connection::{Bucket, Bucket4, Bucket6, State, Value};
use xdp_ebpf::table::candidates;

/// How the tables are divided among the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// CPUs with a table of their own.
    pub cpus: u32,
    /// Buckets of one CPU's IPv4 table, a power of two.
    pub buckets4: u32,
    /// Buckets of one CPU's IPv6 table, a power of two.
    pub buckets6: u32,
    /// Secret of the tables' hash.
    pub seed: u64,
}

/// What a destination has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that IPVS would call active: half-open and established ones.
    pub active: u64,
    /// The others: closing ones and UDP.
    pub inactive: u64,
    /// Entries of any kind that name it, copies among them. Its id means this destination as long as there are any.
    pub entries: u64,
}

/// What one pass over both tables found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What each destination has; one without any entry is not here.
    pub destinations: BTreeMap<u32, Counts>,
    /// Places taken in the IPv4 tables, copies included.
    pub entries4: u64,
    /// Places taken in the IPv6 tables, copies included.
    pub entries6: u64,
    /// Copies among them.
    pub copies: u64,
    /// Entries freed.
    pub expired: u64,
    /// Connections in each state, by [`State`]'s number.
    pub states: [u64; 6],
}

/// Walks the tables, pass after pass.
#[derive(Debug)]
pub struct Upkeep {
    geometry: Geometry,
    /// The next bucket: those of the IPv4 tables first, then those of the IPv6 tables.
    position: usize,
    report: Report,
}

impl Upkeep {
    /// At the beginning of a pass.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            position: 0,
            report: Report::default(),
        }
    }

    /// Buckets of all tables.
    #[must_use]
    pub fn buckets(&self) -> usize {
        self.buckets4() + self.buckets6()
    }

    fn buckets4(&self) -> usize {
        self.geometry.cpus as usize * self.geometry.buckets4 as usize
    }

    fn buckets6(&self) -> usize {
        self.geometry.cpus as usize * self.geometry.buckets6 as usize
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
        let Geometry {
            cpus,
            buckets4,
            buckets6,
            seed,
        } = self.geometry;
        let end = self.position.saturating_add(limit).min(self.buckets());
        let boundary = self.buckets4();
        let found4 = &mut self.report;
        let tables4 = Walk {
            table: table4,
            cpus,
            buckets: buckets4,
            seed,
            now_s,
        };
        for index in self.position..end.min(boundary) {
            found4.entries4 += tables4.visit(index, found4);
        }
        let tables6 = Walk {
            table: table6,
            cpus,
            buckets: buckets6,
            seed,
            now_s,
        };
        for index in self.position.max(boundary)..end {
            found4.entries6 += tables6.visit(index - boundary, found4);
        }
        self.position = end;
        if self.position < self.buckets() {
            return None;
        }
        self.position = 0;
        Some(std::mem::take(&mut self.report))
    }
}

/// The tables of one family.
struct Walk<'a, B> {
    table: &'a [B],
    cpus: u32,
    buckets: u32,
    seed: u64,
    now_s: u32,
}

/// A place of a connection and what was read there.
struct Place<'a, B> {
    index: usize,
    bucket: &'a B,
    way: usize,
    value: Value,
}

impl<B: Bucket> Place<'_, B> {
    /// Frees the place, unless the packet path has used it meanwhile.
    fn free(&self) -> bool {
        let place = self.bucket.value(self.way);
        place
            .compare_exchange(self.value.0, 0, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    fn is_copy(&self) -> bool {
        self.value.flags() & Value::COPY != 0
    }
}

impl<B: Bucket> Walk<'_, B> {
    /// Looks after one bucket. Gives the number of places taken in it afterwards.
    fn visit(&self, index: usize, report: &mut Report) -> u64 {
        let Some(bucket) = self.table.get(index) else {
            return 0;
        };
        let mut taken = 0;
        for way in 0..B::WAYS {
            let value = Value(bucket.value(way).load(Ordering::Relaxed));
            if bucket.is_free(way) || !value.is_some() {
                continue;
            }
            let place = Place {
                index,
                bucket,
                way,
                value,
            };
            let (kept, counts) = self.judge(index, &place, report);
            if kept {
                taken += 1;
                count(report, value, counts);
            }
        }
        taken
    }

    /// Whether an entry stays, and whether it is the one that counts for its connection.
    ///
    /// Original and copies of a connection live and die together, by the one that was used last: a client's packets
    /// write one of them, its server's another. An original in use needs no look at the others; whatever copies it
    /// has are judged at their own places.
    fn judge(&self, index: usize, place: &Place<'_, B>, report: &mut Report) -> (bool, bool) {
        let expired = place.value.is_expired(self.now_s);
        if !expired && !place.is_copy() {
            return (true, true);
        }
        let others = self.others(index, place);
        // A port used again after the NIC had moved its flow: the original on the other CPU is the connection now.
        let superseded = |other: &Place<'_, B>| {
            !other.is_copy() && other.value.idle_s(self.now_s) < place.value.idle_s(self.now_s)
        };
        if expired && !place.is_copy() && others.iter().any(superseded) {
            let freed = place.free();
            report.expired += u64::from(freed);
            return (!freed, !freed);
        }
        let latest = others
            .iter()
            .map(|other| other.value)
            .chain([place.value])
            // Of two used in the same second the one further on is right about the state.
            .min_by_key(|value| (value.idle_s(self.now_s), u8::MAX - value.state()));
        if latest.is_some_and(|latest| !latest.is_expired(self.now_s)) {
            // The first of several copies counts in the place of an original that is lost.
            let first_copy = others
                .iter()
                .all(|other| other.is_copy() && other.index > index);
            return (true, !place.is_copy() || first_copy);
        }
        let mut kept = false;
        for dead in others.iter().chain([place]) {
            let freed = dead.free();
            report.expired += u64::from(freed);
            // Used this very moment: it stays, and the others with it are made anew when they are needed.
            kept |= !freed && std::ptr::eq(dead, place);
        }
        (kept, kept && !place.is_copy())
    }

    /// The entries of the same connection in the other CPUs' tables. One that names another real server is of another
    /// connection, before or after this one.
    fn others(&self, index: usize, place: &Place<'_, B>) -> Vec<Place<'_, B>> {
        let key = place.bucket.key(place.way);
        let own = index / self.buckets as usize;
        let hash = B::hash(key, self.seed);
        let mut others = Vec::new();
        for cpu in (0..self.cpus).filter(|cpu| *cpu as usize != own) {
            let (first, second) = candidates(hash, self.buckets - 1, cpu * self.buckets);
            for candidate in [first, second] {
                let index = candidate as usize;
                let Some(bucket) = self.table.get(index) else {
                    continue;
                };
                for way in (0..B::WAYS).filter(|way| bucket.holds(*way, key)) {
                    let value = Value(bucket.value(way).load(Ordering::Relaxed));
                    if value.is_some() && value.destination() == place.value.destination() {
                        others.push(Place {
                            index,
                            bucket,
                            way,
                            value,
                        });
                    }
                }
            }
        }
        others
    }
}

fn count(report: &mut Report, value: Value, counts: bool) {
    let destination = report.destinations.entry(value.destination()).or_default();
    destination.entries += 1;
    report.copies += u64::from(value.flags() & Value::COPY != 0);
    if !counts {
        return;
    }
    if let Some(state) = report.states.get_mut(usize::from(value.state())) {
        *state += 1;
    }
    match State::from_u8(value.state()) {
        Some(state) if state.is_active() => destination.active += 1,
        Some(_) | None => destination.inactive += 1,
    }
}
