//! Services that track connections on change only: what is promised to connections, over random sequences of changes and
//! packets. Configurations go through `plan` into tables, packets through the packet path, its connection tables through
//! upkeep; only the kernel is left out.
//!
//! A connection keeps the real server that it began at, as long as that is not gone, if
//!
//! * its packets come less than a minute apart (a half-open entry's idle time), or
//! * it is idle for however long in a slot that stays as it is, or that changed less than the hold time ago;
//! * and of a UDP flow that has no entry yet, as long as its real server is in service.
//!
//! A TCP connection begins at whom the Maglev table has. In a slot that has not changed nothing is entered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use director::config::{self, Config};
use director::health::standing::{ServiceStanding, Standings};
use director::next_hop::Resolution;
use director::overrides::Effective;
use director::plan::{self, Inputs, NetworkView, Tables, destination_address, owners};
use director::scheduler::{Member, table_on_change};
use director::upkeep::marks::Marks;
use director::upkeep::{Geometry, Report, Upkeep};
use director_tests::packet::build::{self, Ip, tcp};
use director_tests::packet::fixture::{BOTH, DIRECTOR, Family, INGRESS, ROUTER, hop, server_mac};
use proptest::prelude::*;
use xdp_ebpf::connection::{Bucket, Bucket4, Bucket6};
use xdp_ebpf::layout::{Load, destination, slot};
use xdp_ebpf::native::{Frame, NativeTables};
use xdp_ebpf::path::schedule::table_based::client_hash;
use xdp_ebpf::path::{self, Verdict};
use xdp_ebpf::state::TIMEOUTS_S;

/// Real servers that may be configured, by their numbers from 1 on.
const SERVERS: u8 = 5;
const PORT: u16 = 443;
const CPUS: u32 = 2;
const BUCKETS: u32 = 256;
const HOLD_S: u32 = 300;
/// Packets that come closer than this find their half-open entries.
const GAP_S: u32 = TIMEOUTS_S[1] as u32;
/// Destination ids are below this: as many as there are real servers, and some that are being released.
const DESTINATIONS: u32 = 32;

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A client begins a connection, by TCP or UDP.
    Begin { tcp: bool },
    /// A packet of a connection, by this CPU.
    Packet { which: usize, cpu: u32 },
    /// A connection ends.
    End { which: usize },
    /// An operator or a check gives a real server this weight.
    Weight { server: u8, weight: u32 },
    /// A check takes a real server out, with its connections.
    Down { server: u8 },
    /// The file has the real server from now on, or has it no more.
    Configured { server: u8, is: bool },
    /// Time passes; passes over the tables are made. `lively`: connections send meanwhile.
    Time { seconds: u32, lively: bool },
    /// Another director adopts what this one left.
    Restart,
    /// Another node takes over, with nothing but the same configuration.
    Takeover,
}

fn any_event() -> impl Strategy<Value = Event> {
    let server = || 1..=SERVERS;
    prop_oneof![
        8 => prop::bool::weighted(0.7).prop_map(|tcp| Event::Begin { tcp }),
        16 => (any::<usize>(), 0..CPUS).prop_map(|(which, cpu)| Event::Packet { which, cpu }),
        2 => any::<usize>().prop_map(|which| Event::End { which }),
        3 => (server(), 0..3_u32).prop_map(|(server, weight)| Event::Weight { server, weight }),
        1 => server().prop_map(|server| Event::Down { server }),
        3 => (server(), any::<bool>()).prop_map(|(server, is)| Event::Configured { server, is }),
        6 => (1..120_u32, any::<bool>()).prop_map(|(seconds, lively)| Event::Time { seconds, lively }),
        1 => Just(Event::Restart),
        1 => Just(Event::Takeover),
    ]
}

/// A real server as the world has it.
#[derive(Clone, Copy)]
struct Server {
    configured: bool,
    weight: u32,
    gone: bool,
}

/// A connection, and what is promised to it.
#[derive(Clone, Copy, Debug)]
struct Connection {
    tcp: bool,
    client: (IpAddr, u16),
    /// The number of its real server.
    server: u8,
    seen_s: u32,
    /// Its last packet came in a slot that was marked: it has an entry.
    entered: bool,
    /// Since then its slot has changed, for the first time at this moment.
    changed_s: Option<u32>,
}

struct World {
    family: Family,
    servers: BTreeMap<u8, Server>,
    tables: Tables,
    native: NativeTables,
    upkeep: Upkeep,
    marks: Marks,
    /// Retired destinations that the last pass found unused.
    unused: BTreeSet<u32>,
    connections: Vec<Connection>,
    begun: u16,
}

impl World {
    fn new(family: Family) -> Self {
        let all = |number| {
            let server = Server {
                configured: number <= 3,
                weight: 1,
                gone: false,
            };
            (number, server)
        };
        let mut world = Self {
            family,
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
        self.upkeep = Upkeep::new(geometry(settings.seed));
        self.tell();
    }

    fn config(&self) -> Config {
        let servers = self.servers.iter().filter(|(_, it)| it.configured);
        let servers: Vec<String> = servers
            .map(|(number, _)| format!("{:?}", self.family.server(*number).to_string()))
            .collect();
        let text = format!(
            "interfaces: [eth0]\nservices: [{{name: web, address: {:?}, port: {PORT}, protocol: both, scheduler: mh, \
             flags: [mh-port], track: on-change, hold_time: {HOLD_S}s, method: dr, real_servers: [{}]}}]",
            self.family.virtual_address().to_string(),
            servers.join(", "),
        );
        config::parse("director.yaml", &text).expect("a good configuration")
    }

    /// Brings the tables in line with the world.
    fn plan(&mut self) {
        let config = self.config();
        let servers = self.servers.values().filter(|it| it.configured);
        let servers = servers.map(|it| Effective {
            weight: it.weight,
            is_gone: it.gone,
            is_out: it.gone,
            ..Effective::default()
        });
        let standings = Standings(vec![ServiceStanding {
            servers: servers.collect(),
            ..ServiceStanding::default()
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
            if owners::is_marked(self.word(connection.client)) {
                connection.changed_s.get_or_insert(now_s);
            }
        }
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

    /// The slots' owners are just those of the Maglev table of who is in service.
    fn owners_are_the_tables(&self) {
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
    fn entries(&self) -> usize {
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
        server.is_some_and(|it| it.configured && it.weight > 0 && !it.gone)
    }

    /// Whether a connection's next packet must find its real server.
    fn is_promised(&self, connection: &Connection) -> bool {
        let now_s = self.tables.settings.now_s;
        if !self.lives(connection.server) {
            return false;
        }
        let is_known = connection.entered || connection.changed_s.is_some();
        let is_settled = !owners::is_marked(self.word(connection.client))
            && connection.changed_s.is_none()
            && !connection.entered;
        if !connection.tcp && !connection.entered && is_known && !self.serves(connection.server) {
            return false;
        }
        if is_settled || now_s - connection.seen_s < GAP_S {
            return true;
        }
        !connection.entered && connection.changed_s.is_some_and(|at| now_s - at < HOLD_S)
    }

    fn begin(&mut self, tcp: bool) -> Result<(), TestCaseError> {
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
        if expected != 0 && expected == owner {
            prop_assert!(self.serves(owner), "{owner} is out and has a slot");
        }
        let entries = self.entries();
        let server = self.send(tcp, client, tcp::SYN, 0);
        prop_assert_eq!(server, expected, "a new one in {:#x}", word);
        let is_marked = owners::is_marked(word);
        let more = usize::from(is_marked && server != 0);
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
                entered: is_marked,
                changed_s: None,
            });
        }
        Ok(())
    }

    /// A packet of a connection, which must go where it is promised to.
    fn packet(&mut self, which: usize, flags: u8, cpu: u32) -> Result<(), TestCaseError> {
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
        let is_marked = owners::is_marked(word);
        if !is_marked && slot::owner(word) != 0 {
            prop_assert_eq!(
                self.entries(),
                entries,
                "entries by {:?} in {:#x}",
                connection,
                word
            );
        }
        let it = &mut self.connections[which];
        it.server = server;
        it.seen_s = now_s;
        it.entered = is_marked || slot::owner(word) == 0;
        it.changed_s = None;
        Ok(())
    }

    /// A second or more pass, and the tables are looked over.
    fn pass(&mut self, seconds: u32) {
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

    fn time(&mut self, seconds: u32, lively: bool) -> Result<(), TestCaseError> {
        // As many steps as leave no gap that is too long.
        let steps = seconds.div_ceil(GAP_S / 3);
        for step in 0..steps {
            self.pass((seconds + step) / steps);
            if lively {
                for which in 0..self.connections.len() {
                    self.packet(which, tcp::ACK, which as u32 % CPUS)?;
                }
            }
        }
        Ok(())
    }

    fn happens(&mut self, event: Event) -> Result<(), TestCaseError> {
        let of = |which: usize, world: &Self| {
            let many = world.connections.len();
            (many > 0).then(|| which % many)
        };
        match event {
            Event::Begin { tcp } => return self.begin(tcp),
            Event::Packet { which, cpu } => {
                if let Some(which) = of(which, self) {
                    return self.packet(which, tcp::ACK, cpu);
                }
            }
            Event::End { which } => {
                if let Some(which) = of(which, self) {
                    self.packet(which, tcp::FIN | tcp::ACK, 0)?;
                    self.connections.swap_remove(which);
                }
            }
            Event::Time { seconds, lively } => return self.time(seconds, lively),
            Event::Restart => {
                self.marks = Marks::default();
                self.upkeep = Upkeep::new(geometry(self.tables.settings.seed));
            }
            Event::Takeover => {
                self.start();
                // Nobody there knows of any connection: those go on that are where the table has them.
                let all = std::mem::take(&mut self.connections);
                let owned =
                    |it: &Connection| self.number(slot::owner(self.word(it.client))) == it.server;
                let (kept, _): (Vec<_>, Vec<_>) = all.into_iter().partition(owned);
                let now_s = self.tables.settings.now_s;
                self.connections = kept
                    .into_iter()
                    .map(|it| Connection {
                        seen_s: now_s,
                        entered: false,
                        changed_s: None,
                        ..it
                    })
                    .collect();
            }
            Event::Weight { server, weight } => self.change(server, |it| {
                it.weight = weight;
                it.gone = false;
            }),
            Event::Down { server } => {
                // Upkeep takes their entries away.
                self.connections.retain(|it| it.server != server);
                self.change(server, |it| {
                    it.weight = 0;
                    it.gone = true;
                });
            }
            Event::Configured { server, is } => self.change(server, |it| {
                it.configured = is;
                it.gone = false;
                it.weight = it.weight.max(1);
            }),
        }
        Ok(())
    }

    fn change(&mut self, server: u8, change: impl FnOnce(&mut Server)) {
        if let Some(it) = self.servers.get_mut(&server) {
            change(it);
        }
        self.plan();
        self.owners_are_the_tables();
        self.tell();
    }

    /// When nobody sends anything any more, nothing is left.
    fn everything_settles(&mut self) {
        self.connections.clear();
        let longest_s = u32::from(*TIMEOUTS_S.iter().max().expect("there are some"));
        for _ in 0..(HOLD_S + longest_s) / GAP_S + 4 {
            self.pass(GAP_S);
        }
        assert_eq!(self.entries(), 0);
        let words = self.tables.slots.values().flat_map(|words| words.iter());
        assert_eq!(words.filter(|word| owners::is_marked(**word)).count(), 0);
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

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn connections_keep_their_real_servers_through_changes(
        ipv6 in any::<bool>(),
        events in proptest::collection::vec(any_event(), 1..80),
    ) {
        let mut world = World::new(BOTH[usize::from(ipv6)]);
        for event in events {
            world.happens(event)?;
        }
        world.everything_settles();
    }
}

/// Cost follows the change: of many connections only those are entered that the change concerns.
#[test]
fn what_is_tracked_is_what_changed() {
    for family in BOTH {
        let mut world = World::new(family);
        for _ in 0..3 {
            world.pass(1);
        }
        for _ in 0..300 {
            world.begin(true).expect("it begins");
        }
        assert_eq!(world.entries(), 0, "nothing has changed");
        // The fourth of four: a quarter of the slots, and their connections.
        world.change(4, |it| it.configured = true);
        for which in 0..world.connections.len() {
            world
                .packet(which, tcp::ACK, which as u32 % CPUS)
                .expect("it goes on");
        }
        let entries = world.entries();
        assert!(
            (40..=110).contains(&entries),
            "{entries} of 300 are tracked"
        );
        // Their owner is the new one, and they are not there: as long as they go on, they are tracked.
        world.time(HOLD_S * 3, true).expect("they go on");
        assert_eq!(world.entries(), entries);
        world.everything_settles();
    }
}
