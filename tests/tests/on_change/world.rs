//! The director and the packet path in memory, real servers, connections, and what is promised to these.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use director::config::{self, Config};
use director::health::standing::{ServiceStanding, Standings};
use director::next_hop::Resolution;
use director::overrides::Effective;
use director::plan::{self, Inputs, NetworkView, Tables, destination_address, owners};
use director::scheduler::{Member, table_on_change};
use director::upkeep::marks::Marks;
use director::upkeep::{EndpointRule, Geometry, Report, Upkeep};
use director_tests::packet::build::{self, Ip, tcp};
use director_tests::packet::fixture::{DIRECTOR, Family, INGRESS, ROUTER, hop, server_mac};
use proptest::prelude::*;
use xdp_ebpf::connection::{Bucket, Bucket4, Bucket6};
use xdp_ebpf::layout::{Load, destination, service, slot};
use xdp_ebpf::native::{Frame, NativeTables};
use xdp_ebpf::path::schedule::table_based::client_hash;
use xdp_ebpf::path::{self, Verdict};
use xdp_ebpf::state::{State, TIMEOUTS_S};

/// Real servers that may be configured, by their numbers from 1 on.
pub(crate) const SERVERS: u8 = 5;
const PORT: u16 = 443;
pub(crate) const CPUS: u32 = 2;
const BUCKETS: u32 = 256;
/// The hold time, and how long established connections have entries; those of UDP have them as long.
pub(crate) const HOLD_S: u32 = 300;
/// Packets that come closer than this find their half-open entries.
const GAP_S: u32 = TIMEOUTS_S[State::SynReceived as usize] as u32;
/// Destination ids are below this: as many as there are real servers, and some that are being released.
const DESTINATIONS: u32 = 32;

/// A real server as the world has it.
#[derive(Clone, Copy)]
pub(crate) struct Server {
    configured: bool,
    pub(crate) weight: u32,
    /// It is down, and its connections with it.
    gone: bool,
    /// Nothing is known of it yet, and until then it is out.
    unchecked: bool,
}

/// A connection, and what is promised to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) tcp: bool,
    client: (IpAddr, u16),
    /// The number of its real server.
    pub(crate) server: u8,
    seen_s: u32,
    /// Packets since it has an entry, as those of marked slots have; 0: it has none that counts.
    entered: u32,
    /// No entry of it stands longer without a packet, since its client has closed its side.
    closing_s: u32,
    /// Without one: since its last packet its slot has changed, for the first time at this moment.
    changed_s: Option<u32>,
}

impl Connection {
    /// How long its entry stands without a packet.
    fn idle_s(&self) -> u32 {
        let by_state = match (self.tcp, self.entered) {
            (true, ..=1) => GAP_S,
            _ => HOLD_S,
        };
        by_state.min(self.closing_s)
    }

    /// A packet of it came where connections are tracked or not, and found its entry or did not.
    fn comes(&mut self, is_tracked: bool, found_entry: bool, flags: u8) {
        self.entered = match (is_tracked, found_entry) {
            (true, true) => self.entered + 1,
            (true, false) => 1,
            (false, _) => 0,
        };
        if self.tcp && is_tracked && flags & tcp::FIN != 0 {
            let state = match self.entered {
                // As if the other end had closed before: it is not known that this is an established one.
                1 => State::Close,
                2 => State::TimeWait,
                _ => State::FinWait,
            };
            // That entry may be there still after the slot has settled and changed again.
            self.closing_s = self.closing_s.min(TIMEOUTS_S[state as usize].into());
        }
    }
}

pub(crate) struct World {
    family: Family,
    /// Whether real servers are under checks.
    checks: bool,
    /// Whether all connections are tracked.
    all: bool,
    servers: BTreeMap<u8, Server>,
    tables: Tables,
    native: NativeTables,
    upkeep: Upkeep,
    marks: Marks,
    /// Retired destinations that the last pass found unused.
    unused: BTreeSet<u32>,
    pub(crate) connections: Vec<Connection>,
    begun: u16,
}

impl World {
    pub(crate) fn new(family: Family, checks: bool) -> Self {
        let all = |number| {
            let server = Server {
                configured: number <= 3,
                weight: 1,
                gone: false,
                unchecked: checks,
            };
            (number, server)
        };
        let mut world = Self {
            family,
            checks,
            all: false,
            servers: (1..=SERVERS).map(all).collect(),
            tables: Tables::default(),
            native: NativeTables::new(xdp_ebpf::layout::Settings::default(), 0),
            upkeep: Upkeep::new(geometry(0)),
            marks: Marks::default(),
            unused: BTreeSet::new(),
            connections: Vec::new(),
            begun: 0,
        };
        world.start();
        world
    }

    /// A director that knows nothing.
    fn start(&mut self) {
        let now_s = self.tables.settings.now_s;
        self.tables = Tables::default();
        self.tables.settings.now_s = now_s;
        self.marks = Marks::default();
        self.unused.clear();
        self.plan();
        let settings = self.tables.settings;
        self.native = NativeTables::new(settings, DESTINATIONS);
        self.begin_upkeep(settings.seed);
        self.tell();
    }

    fn begin_upkeep(&mut self, seed: u64) {
        self.upkeep = Upkeep::new(geometry(seed));
        let mut rule = EndpointRule::default();
        rule.timeouts_s[State::Established as usize] = HOLD_S as u16;
        self.upkeep.set_rules(vec![rule; 4]);
    }

    fn config(&self) -> Config {
        let servers = self.servers.iter().filter(|(_, it)| it.configured);
        let servers: Vec<String> = servers
            .map(|(number, _)| format!("{:?}", self.family.server(*number).to_string()))
            .collect();
        let track = if self.all {
            "all".to_owned()
        } else {
            format!("on-change, hold_time: {HOLD_S}s")
        };
        let text = format!(
            "interfaces: [eth0]\nservices: [{{name: web, address: {:?}, port: {PORT}, protocol: both, scheduler: mh, \
             flags: [mh-port], track: {track}, timeouts: {{established: {HOLD_S}s}}, method: dr, real_servers: [{}]}}]",
            self.family.virtual_address().to_string(),
            servers.join(", "),
        );
        config::parse("director.yaml", &text).expect("a good configuration")
    }

    /// Brings the tables in line with the world.
    fn plan(&mut self) {
        let config = self.config();
        let servers: Vec<Server> = self.servers.values().copied().collect();
        let standing = |are_up: bool| {
            let servers = servers.iter().filter(|it| it.configured);
            let servers = servers.map(|it| Effective {
                weight: match (it.unchecked, it.gone) {
                    (true, _) if !are_up => 0,
                    (false, true) => 0,
                    _ => it.weight,
                },
                is_gone: it.gone && !it.unchecked,
                is_out: it.gone || it.unchecked,
                ..Effective::default()
            });
            ServiceStanding {
                servers: servers.collect(),
                ..ServiceStanding::default()
            }
        };
        let is_unknown = servers.iter().any(|it| it.configured && it.unchecked);
        let standings = Standings(vec![ServiceStanding {
            expected: is_unknown.then(|| Box::new(standing(true))),
            ..standing(false)
        }]);
        let resolutions = (1..=SERVERS).map(|number| {
            let address = self.family.server(number);
            (address, Resolution::Ready(hop(server_mac(number))))
        });
        let view = NetworkView {
            resolutions: resolutions.collect(),
            interfaces: BTreeMap::from([(0, INGRESS)]),
            ..NetworkView::default()
        };
        let inputs = Inputs {
            config: &config,
            standings: &standings,
            view: &view,
            cpus: CPUS,
            buckets4: BUCKETS,
            buckets6: BUCKETS,
            seed: 0x1234_5678_9abc_def0,
        };
        let desired = plan::desired(&self.tables, &inputs).expect("there is room");
        self.apply(plan::diff(&self.tables, &desired));
    }

    fn apply(&mut self, writes: Vec<plan::Write>) {
        for write in writes {
            self.tables.apply(&write);
        }
    }

    /// Tells the packet path, and connections whose slots have changed.
    fn tell(&mut self) {
        let (tables, native) = (&self.tables, &mut self.native);
        native.settings = Some(tables.settings);
        native.services4 = tables.services4.clone().into_iter().collect();
        native.services6 = tables.services6.clone().into_iter().collect();
        native.endpoints = tables.endpoints.clone().into_iter().collect();
        native.services = tables.services.clone().into_iter().collect();
        native.destinations = tables.destinations.clone().into_iter().collect();
        native.addresses4 = tables.addresses4.clone().into_iter().collect();
        native.addresses6 = tables.addresses6.clone().into_iter().collect();
        for (id, share) in &tables.shares {
            let load = native.loads.entry(*id).or_insert_with(Load::default);
            load.weight = u64::from(share.weight).into();
        }
        for (first, words) in &tables.slots {
            let (first, end) = (*first as usize, *first as usize + words.len());
            if native.slots.len() < end {
                native.slots.resize(end, 0);
            }
            native.slots[first..end].copy_from_slice(words);
        }
        let now_s = self.tables.settings.now_s;
        let mut connections = std::mem::take(&mut self.connections);
        for connection in &mut connections {
            let word = self.word(connection.client);
            if owners::is_marked(word) {
                connection.changed_s.get_or_insert(now_s);
            } else if !self.all && self.number(slot::owner(word)) == connection.server {
                // Settled: it needs none.
                connection.entered = 0;
                connection.changed_s = None;
            }
        }
        self.connections = connections;
    }

    /// Whether not everybody was checked since the service is there.
    fn is_young(&self) -> bool {
        let mut services = self.tables.services.values();
        services.any(|record| record.flags & service::YOUNG != 0)
    }

    /// Forgets connections without entries that the table alone has elsewhere by now: of another director's, or of one that
    /// tracked on change until now.
    fn forget_others(&mut self) {
        let mut connections = std::mem::take(&mut self.connections);
        connections.retain(|it| {
            let word = self.word(it.client);
            let whose = match slot::previous(word) {
                0 => slot::owner(word),
                previous => previous,
            };
            it.entered > 0 || self.number(whose) == it.server
        });
        self.connections = connections;
    }

    /// The word of a client's slot.
    fn word(&self, client: (IpAddr, u16)) -> u32 {
        let words = |bytes: &[u8]| -> u32 {
            let words = bytes.chunks(4);
            words.fold(0, |folded, it| {
                folded ^ u32::from_ne_bytes(it.try_into().expect("four"))
            })
        };
        let folded = match client.0 {
            IpAddr::V4(address) => words(&address.octets()),
            IpAddr::V6(address) => words(&address.octets()),
        };
        let record = self
            .tables
            .services
            .values()
            .find(|record| record.slots > 0);
        let Some(record) = record else {
            return 0;
        };
        let slots = &self.tables.slots[&record.first_slot];
        slots[client_hash(folded, client.1.to_be()) as usize % slots.len()]
    }

    /// The number of the real server that an id is of; 0: of none.
    fn number(&self, id: u32) -> u8 {
        let record = self.tables.destinations.get(&id);
        record.map_or(0, |record| {
            let address = destination_address(record);
            let is_it = |number: &u8| self.family.server(*number) == address;
            (1..=SERVERS).find(is_it).unwrap_or(0)
        })
    }

    /// Whether the service has a table of those that track on change. Else it has any service's: of another size, and with
    /// those that are out, whose clients the packet path sends on to others.
    fn has_its_table(&self) -> bool {
        const KINDS: u16 = service::ON_CHANGE | service::WAS_ON_CHANGE;
        let mut services = self.tables.services.values();
        services.any(|record| record.flags & KINDS != 0)
    }

    /// The slots' owners are just those of the Maglev table of who is in service.
    fn owners_are_the_tables(&self) {
        if !self.has_its_table() {
            return;
        }
        let in_service = self.tables.destinations.iter().filter(|(id, record)| {
            record.flags & destination::RETIRED == 0 && self.serves(self.number(**id))
        });
        let members: Vec<Member> = in_service
            .map(|(id, record)| Member {
                destination: *id,
                weight: self.servers[&self.number(*id)].weight,
                identity: (destination_address(record), PORT),
            })
            .collect();
        let words = self
            .tables
            .slots
            .values()
            .next()
            .map_or(&[][..], |words| words);
        let owners = words.iter().map(|word| slot::owner(*word));
        if members.is_empty() {
            assert!(owners.into_iter().all(|owner| owner == 0));
        } else {
            assert!(owners.eq(table_on_change(&members)));
        }
    }

    /// Sends a packet. The number of the real server that it went to; 0: to none.
    fn send(&self, tcp: bool, client: (IpAddr, u16), flags: u8, cpu: u32) -> u8 {
        let to = (self.family.virtual_address(), PORT);
        let ip = if tcp {
            Ip::tcp(client, to, flags, b"")
        } else {
            Ip::udp(client, to, b"?")
        };
        let bytes = build::Frame::new(ROUTER, DIRECTOR, ip).bytes();
        let traffic = |id: u32| self.native.traffic(id).in_packets;
        let before: Vec<u64> = (0..DESTINATIONS).map(traffic).collect();
        self.native.cpu.set(cpu);
        let verdict = path::run(&mut Frame::new(&bytes, INGRESS), &self.native);
        let went = (0..DESTINATIONS).find(|id| traffic(*id) != before[*id as usize]);
        assert_eq!(
            went.is_some_and(|id| self.number(id) != 0),
            // Else the client is told that there is nobody.
            verdict == Verdict::Transmit && went.is_some(),
        );
        went.map_or(0, |id| self.number(id))
    }

    /// Entries in all tables.
    pub(crate) fn entries(&self) -> usize {
        fn count<B: Bucket>(buckets: &[B]) -> usize {
            let ways = buckets
                .iter()
                .flat_map(|bucket| (0..B::WAYS).map(move |way| (bucket, way)));
            ways.filter(|(bucket, way)| {
                let value = bucket
                    .value(*way)
                    .load(std::sync::atomic::Ordering::Relaxed);
                !bucket.is_free(*way) && value != 0
            })
            .count()
        }
        count::<Bucket4>(self.native.buckets4()) + count::<Bucket6>(self.native.buckets6())
    }

    /// Whether a real server keeps its connections.
    fn lives(&self, number: u8) -> bool {
        self.servers.get(&number).is_some_and(|it| !it.gone)
    }

    fn serves(&self, number: u8) -> bool {
        let server = self.servers.get(&number);
        server.is_some_and(|it| it.configured && it.weight > 0 && !it.gone && !it.unchecked)
    }

    /// Whether a connection's next packet must find its real server.
    fn is_promised(&self, connection: &Connection) -> bool {
        let now_s = self.tables.settings.now_s;
        if !self.lives(connection.server) {
            return false;
        }
        if connection.entered > 0 {
            return now_s - connection.seen_s < connection.idle_s();
        }
        let Some(changed_s) = connection.changed_s else {
            return true;
        };
        if !connection.tcp && !self.serves(connection.server) {
            return false;
        }
        now_s - changed_s < HOLD_S
    }

    pub(crate) fn begin(&mut self, tcp: bool, cpu: u32) -> Result<(), TestCaseError> {
        self.begun += 1;
        let client = (
            self.family.other_client((self.begun % 200) as u8 + 1),
            1024 + self.begun,
        );
        let word = self.word(client);
        let (owner, previous) = (
            self.number(slot::owner(word)),
            self.number(slot::previous(word)),
        );
        let expected = if !tcp && self.serves(previous) {
            previous
        } else {
            owner
        };
        let goes_on = !self.has_its_table() && !self.serves(owner);
        if expected != 0 && expected == owner && !goes_on {
            prop_assert!(self.serves(owner), "{owner} is out and has a slot");
        }
        let entries = self.entries();
        let server = self.send(tcp, client, tcp::SYN, cpu);
        if goes_on {
            let nobody_serves = !(1..=SERVERS).any(|number| self.serves(number));
            prop_assert!(
                self.serves(server) || server == 0 && nobody_serves,
                "a new one goes to {server} in {word:#x}"
            );
        } else {
            prop_assert_eq!(server, expected, "a new one in {:#x}", word);
        }
        let is_tracked = self.all || owners::is_marked(word);
        let more = usize::from(is_tracked && server != 0);
        prop_assert_eq!(
            self.entries(),
            entries + more,
            "entries by a new one in {:#x}",
            word
        );
        if server != 0 {
            self.connections.push(Connection {
                tcp,
                client,
                server,
                seen_s: self.tables.settings.now_s,
                entered: u32::from(is_tracked),
                closing_s: HOLD_S,
                changed_s: None,
            });
        }
        Ok(())
    }

    /// A packet of a connection, which must go where it is promised to.
    pub(crate) fn packet(
        &mut self,
        which: usize,
        flags: u8,
        cpu: u32,
    ) -> Result<(), TestCaseError> {
        let connection = self.connections[which];
        let word = self.word(connection.client);
        let promised = self.is_promised(&connection);
        let entries = self.entries();
        let server = self.send(connection.tcp, connection.client, flags, cpu);
        let now_s = self.tables.settings.now_s;
        if promised {
            prop_assert_eq!(
                server,
                connection.server,
                "{:?} in {:#x} at {}",
                connection,
                word,
                now_s
            );
        }
        let is_tracked = self.all || owners::is_marked(word) || slot::owner(word) == 0;
        if !is_tracked {
            prop_assert_eq!(
                self.entries(),
                entries,
                "entries by {:?} in {:#x}",
                connection,
                word
            );
        }
        let it = &mut self.connections[which];
        let found_entry = it.entered > 0 && now_s - it.seen_s <= it.idle_s();
        it.comes(is_tracked, found_entry, flags);
        it.server = server;
        it.seen_s = now_s;
        it.changed_s = None;
        Ok(())
    }

    /// A second or more pass, and the tables are looked over.
    pub(crate) fn pass(&mut self, seconds: u32) {
        let slots = self.marks.pass_begins(&self.tables);
        self.upkeep.set_slots(slots);
        self.tables.settings.now_s += seconds;
        let now_s = self.tables.settings.now_s;
        let buckets = self.upkeep.buckets();
        let mut report: Report = self
            .upkeep
            .step(
                self.native.buckets4(),
                self.native.buckets6(),
                now_s,
                buckets,
            )
            .expect("a whole pass");
        let elsewhere = std::mem::take(&mut report.elsewhere);
        let changes = self
            .marks
            .pass_ends(&self.tables, elsewhere, now_s, |_| HOLD_S);
        let words = changes.into_iter().map(|(id, words)| (id, ("web", words)));
        let writes = plan::rewrite(&self.tables, words.collect()).expect("there is room");
        self.apply(writes);
        let retired = self.tables.destinations.iter();
        let retired = retired.filter(|(_, record)| record.flags & destination::RETIRED != 0);
        let unused: BTreeSet<u32> = retired
            .map(|(id, _)| *id)
            .filter(|id| report.destination(*id).entries == 0)
            .collect();
        let twice = unused.intersection(&self.unused).copied().collect();
        let released = plan::release(&self.tables, &twice, &BTreeSet::new());
        self.unused = unused;
        self.apply(plan::diff(&self.tables, &released));
        self.tell();
    }

    /// Time passes. All connections send whenever so many seconds are over; 0: never.
    pub(crate) fn time(&mut self, seconds: u32, every_s: u32) -> Result<(), TestCaseError> {
        // Fewer passes than one a second find the same.
        let most_s = if every_s == 0 {
            GAP_S
        } else {
            (every_s / 2).clamp(20, 40)
        };
        let steps = seconds.div_ceil(most_s);
        let mut silent_s = 0;
        for step in 0..steps {
            let step_s = (seconds + step) / steps;
            self.pass(step_s);
            silent_s += step_s;
            if every_s > 0 && silent_s + most_s > every_s {
                silent_s = 0;
                for which in 0..self.connections.len() {
                    self.packet(which, tcp::ACK, which as u32 % CPUS)?;
                }
            }
        }
        Ok(())
    }

    /// Another director adopts what this one left: it knows who was in service, and nothing else of real servers.
    pub(crate) fn restart(&mut self) {
        self.marks = Marks::default();
        self.begin_upkeep(self.tables.settings.seed);
        if self.checks {
            let gone = self.servers.values_mut().filter(|it| it.gone);
            gone.for_each(|it| it.unchecked = true);
            self.follow();
        }
    }

    /// Another node takes over, with nothing but the file as it was.
    pub(crate) fn takeover(&mut self) {
        self.all = false;
        for server in self.servers.values_mut() {
            server.unchecked = self.checks;
        }
        self.start();
        // Nobody there knows of any connection: those go on that are where the table has them.
        let now_s = self.tables.settings.now_s;
        for it in &mut self.connections {
            *it = Connection {
                seen_s: now_s,
                entered: 0,
                changed_s: Some(now_s),
                ..*it
            };
        }
        self.forget_others();
    }

    /// A check's first result says whether a real server is up; a later one that it is.
    pub(crate) fn is_checked(&mut self, server: u8) {
        self.change(server, |it| {
            it.gone &= it.unchecked;
            it.unchecked = false;
        });
    }

    pub(crate) fn everybody_is_checked(&mut self) {
        for server in 1..=SERVERS {
            if self.servers[&server].unchecked {
                self.is_checked(server);
            }
        }
    }

    /// A check finds it down. Upkeep takes its connections' entries away.
    pub(crate) fn is_down(&mut self, server: u8) {
        self.connections.retain(|it| it.server != server);
        self.change(server, |it| {
            it.gone = true;
            it.unchecked = false;
        });
    }

    /// The file has a real server from now on, or has it no more.
    pub(crate) fn is_configured(&mut self, server: u8, is: bool) {
        let checks = self.checks;
        self.change(server, |it| {
            it.unchecked = checks && (it.unchecked || is && !it.configured);
            it.configured = is;
            it.gone = false;
            it.weight = it.weight.max(1);
        });
    }

    /// The file tracks all connections from now on, or those of slots that change.
    pub(crate) fn tracks_all(&mut self, all: bool) {
        self.all = all;
        self.follow();
        self.forget_others();
    }

    pub(crate) fn change(&mut self, server: u8, change: impl FnOnce(&mut Server)) {
        if let Some(it) = self.servers.get_mut(&server) {
            change(it);
        }
        self.follow();
    }

    /// Brings the tables in line with the world, and tells everybody.
    fn follow(&mut self) {
        let was_young = self.is_young();
        self.plan();
        self.owners_are_the_tables();
        self.tell();
        if was_young || self.all {
            self.forget_others();
        }
    }

    /// Slots that are marked.
    pub(crate) fn marked(&self) -> usize {
        let words = self.tables.slots.values().flat_map(|words| words.iter());
        words.filter(|word| owners::is_marked(**word)).count()
    }

    /// When nobody sends anything any more, nothing is left.
    pub(crate) fn everything_settles(&mut self) {
        self.connections.clear();
        self.tracks_all(false);
        self.everybody_is_checked();
        let longest_s = u32::from(*TIMEOUTS_S.iter().max().expect("there are some"));
        for _ in 0..(HOLD_S + longest_s) / GAP_S + 4 {
            self.pass(GAP_S);
        }
        assert_eq!((self.entries(), self.marked()), (0, 0));
    }
}

fn geometry(seed: u64) -> Geometry {
    Geometry {
        cpus: CPUS,
        buckets4: BUCKETS,
        buckets6: BUCKETS,
        seed,
    }
}
