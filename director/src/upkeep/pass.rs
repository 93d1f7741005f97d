//! The pass over the connection tables.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use xdp_ebpf::connection::{Bucket, Bucket4, Bucket6, Key6, Value, split_key4, split_key6};
use xdp_ebpf::layout::{TemplateKey, limits};
use xdp_ebpf::state::{STATES, State, TIMEOUTS_S};
use xdp_ebpf::table::candidates;

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
    destinations: Vec<Counts>,
    endpoints: Vec<u32>,
    /// Places taken in the IPv4 tables, copies included.
    pub entries4: u64,
    /// Places taken in the IPv6 tables, copies included.
    pub entries6: u64,
    /// Copies among them.
    pub copies: u64,
    /// Entries freed.
    pub expired: u64,
    /// Connections in each state, by [`State`]'s number.
    pub states: [u64; STATES],
    /// Of the templates that were watched for, those whose client has a connection.
    pub live_templates: HashSet<TemplateKey>,
}

impl Report {
    /// What a destination has.
    #[must_use]
    pub fn destination(&self, id: u32) -> Counts {
        self.destinations
            .get(id as usize)
            .copied()
            .unwrap_or_default()
    }

    /// Entries that name an endpoint, copies among them.
    #[must_use]
    pub fn endpoint(&self, id: u16) -> u32 {
        self.endpoints
            .get(usize::from(id))
            .copied()
            .unwrap_or_default()
    }

    /// Destinations that have entries.
    pub fn destinations(&self) -> impl Iterator<Item = (u32, Counts)> {
        let all = (0_u32..).zip(self.destinations.iter().copied());
        all.filter(|(_, counts)| counts.entries > 0)
    }

    fn count(&mut self, value: Value, endpoint: u16, counts: bool) {
        // Dense, not maps: each place of a million is counted here.
        let id = value.destination() as usize;
        if self.destinations.len() <= id && id < limits::DESTINATIONS as usize {
            self.destinations.resize(id + 1, Counts::default());
        }
        let at = usize::from(endpoint);
        if self.endpoints.len() <= at {
            self.endpoints.resize(at + 1, 0);
        }
        self.endpoints[at] += 1;
        self.copies += u64::from(value.flags() & Value::COPY != 0);
        let Some(destination) = self.destinations.get_mut(id) else {
            return;
        };
        destination.entries += 1;
        if !counts {
            return;
        }
        if let Some(state) = self.states.get_mut(usize::from(value.state())) {
            *state += 1;
        }
        match State::from_u8(value.state()) {
            Some(state) if state.is_active() => destination.active += 1,
            Some(_) | None => destination.inactive += 1,
        }
    }
}

/// What a pass must know of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointRule {
    /// Idle seconds after which its connections are forgotten, by the number of a [`State`].
    pub timeouts_s: [u16; STATES],
    /// How persistence names its clients.
    pub persistence: Option<Persistence>,
}

/// How persistence names a client of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// Service id.
    pub service: u16,
    /// Bits of the client's address that count.
    pub mask: [u8; 16],
    /// Whether endpoint and port are part of the name.
    pub per_port: bool,
    /// Its port, network order; 0 for a range.
    pub port: [u8; 2],
}

impl Default for EndpointRule {
    fn default() -> Self {
        Self {
            timeouts_s: TIMEOUTS_S,
            persistence: None,
        }
    }
}

/// Walks the tables, pass after pass.
#[derive(Debug)]
pub struct Upkeep {
    geometry: Geometry,
    rules: Vec<EndpointRule>,
    watched: HashSet<TemplateKey>,
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
            rules: Vec::new(),
            watched: HashSet::new(),
            position: 0,
            report: Report::default(),
        }
    }

    /// Rules of endpoints, by id; one that is not here has the default ones.
    pub fn set_rules(&mut self, rules: Vec<EndpointRule>) {
        self.rules = rules;
    }

    /// Has the next whole pass tell which of these templates have connections. Begins it anew.
    pub fn watch(&mut self, templates: HashSet<TemplateKey>) {
        self.watched = templates;
        self.position = 0;
        self.report = Report::default();
    }

    /// Whether a pass is at its beginning.
    #[must_use]
    pub fn is_at_start(&self) -> bool {
        self.position == 0
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
            rules: &self.rules,
            watched: &self.watched,
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
            rules: &self.rules,
            watched: &self.watched,
        };
        for index in self.position.max(boundary)..end {
            found4.entries6 += tables6.visit(index - boundary, found4);
        }
        self.position = end;
        if self.position < self.buckets() {
            return None;
        }
        self.position = 0;
        self.watched.clear();
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
    rules: &'a [EndpointRule],
    watched: &'a HashSet<TemplateKey>,
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

impl<B: Named> Walk<'_, B> {
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
                let key = bucket.key(way);
                report.count(value, B::endpoint(key), counts);
                if !self.watched.is_empty() {
                    self.note_client(key, report);
                }
            }
        }
        taken
    }

    fn rule(&self, endpoint: u16) -> EndpointRule {
        self.rules
            .get(usize::from(endpoint))
            .copied()
            .unwrap_or_default()
    }

    /// Whether an entry has been idle longer than its state allows. One of unknown state has.
    fn is_expired(&self, value: Value, endpoint: u16) -> bool {
        match State::from_u8(value.state()) {
            Some(state) => {
                let timeouts_s = match self.rules.get(usize::from(endpoint)) {
                    Some(rule) => &rule.timeouts_s,
                    None => &TIMEOUTS_S,
                };
                value.idle_s(self.now_s) > timeouts_s[state as usize]
            }
            None => true,
        }
    }

    /// Notes that a client that persistence may remember has a connection.
    fn note_client(&self, key: B::Key, report: &mut Report) {
        let (client, virtual_port) = B::client(key);
        let endpoint = B::endpoint(key);
        let Some(persistence) = self.rule(endpoint).persistence else {
            return;
        };
        let port = if virtual_port == 0 {
            persistence.port
        } else {
            virtual_port.to_ne_bytes()
        };
        let masked = u128::from_ne_bytes(client) & u128::from_ne_bytes(persistence.mask);
        let template = TemplateKey {
            client: masked.to_ne_bytes(),
            service: persistence.service,
            endpoint: if persistence.per_port { endpoint } else { 0 },
            port: if persistence.per_port { port } else { [0; 2] },
            zero: 0,
        };
        if self.watched.contains(&template) {
            report.live_templates.insert(template);
        }
    }

    /// Whether an entry stays, and whether it is the one that counts for its connection.
    ///
    /// Original and copies of a connection live and die together, by the one that was used last: a client's packets
    /// write one of them, its server's another. An original in use needs no look at the others; whatever copies it
    /// has are judged at their own places.
    fn judge(&self, index: usize, place: &Place<'_, B>, report: &mut Report) -> (bool, bool) {
        let endpoint = B::endpoint(place.bucket.key(place.way));
        let expired = self.is_expired(place.value, endpoint);
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
        if latest.is_some_and(|latest| !self.is_expired(latest, endpoint)) {
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
            let (first, second) = candidates(hash, self.buckets, cpu * self.buckets);
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

/// Buckets whose keys name a client.
trait Named: Bucket {
    /// The client's address as tables hold it, and the virtual port if the key has it, as in the packet.
    fn client(key: Self::Key) -> ([u8; 16], u16);
}

impl Named for Bucket4 {
    fn client(key: u64) -> ([u8; 16], u16) {
        let mut client = [0; 16];
        client[..4].copy_from_slice(&split_key4(key).0.to_ne_bytes());
        (client, 0)
    }
}

impl Named for Bucket6 {
    fn client(key: Key6) -> ([u8; 16], u16) {
        let split = split_key6(key);
        (xdp_ebpf::family::bytes6(split.client), split.virtual_port)
    }
}
