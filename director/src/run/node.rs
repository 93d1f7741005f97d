//! What the running director knows and does. The event loop says when.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use heartbeat::node::clock;
use xdp_ebpf::layout::{Destination, destination};

use super::gone::gone;
use super::health::Health;
use super::heartbeat::Heartbeat;
use super::localities::Localities;
use super::rates::Rates;
use super::reload::{Held, Loading};
use super::resize::Resize;
use super::sync::Sync;
use super::system;
use super::telling::Telling;
use super::templates::Templates;
use super::times::{Times, milliseconds};
use super::turn::Turn;
use super::watch::{Stamp, Watch};
use crate::config::{Config, Reader};
use crate::datapath::{Datapath, Options, Waiting, check_privileges, online_cpus};
use crate::next_hop::{Event, Link, Network, Probe, Prober, Resolution};
use crate::overrides::{self, Overrides};
use crate::plan::{self, Tables, Write};
use crate::seldom::Seldom;
use crate::upkeep::marks::Marks;
use crate::upkeep::{Geometry, LONGEST_TIMEOUT_S, Report, Upkeep, loads};
use crate::words::in_words;

/// How long the start waits for real servers to be resolved before it says that it is ready all the same.
const READY_PATIENCE: Duration = Duration::from_secs(2);

/// What was removed from the configuration and no connection names.
#[derive(Default)]
struct Unused {
    destinations: BTreeSet<u32>,
    endpoints: BTreeSet<u16>,
}

impl Unused {
    /// Forgets what is in service again: by the next pass it may be removed once more, with connections that this pass, which
    /// had come further by then, did not see.
    fn forget_used(&mut self, tables: &Tables) {
        self.destinations
            .retain(|id| is_retired(tables.destinations.get(id)));
        self.endpoints.retain(|id| !tables.is_served(*id));
    }
}

fn is_retired(record: Option<&Destination>) -> bool {
    record.is_some_and(|record| record.flags & destination::RETIRED != 0)
}

/// Everything.
pub(super) struct Node {
    pub(super) file: PathBuf,
    pub(super) config: Arc<Config>,
    pub(super) loaded_at: SystemTime,
    pub(super) reload_error: Option<String>,
    /// Reads it, unless that is under way.
    pub(super) reader: Reader,
    /// A configuration that is being read.
    pub(super) loading: Option<Loading>,
    /// Who wants to know what came of one that is in force by now.
    pub(super) held: Held,
    /// Answers to `status` under way.
    pub(super) telling: Telling,
    pub(super) watch: Watch,
    pub(super) started: Instant,
    pub(super) datapath: Datapath,
    /// What the maps hold.
    pub(super) tables: Tables,
    pub(super) network: Network,
    /// Real servers in the maps that are this node.
    pub(super) own_real_servers: BTreeSet<IpAddr>,
    /// Links as the kernel tells of them, by index.
    pub(super) links: BTreeMap<u32, Link>,
    prober: Prober,
    pub(super) upkeep: Upkeep,
    /// How far upkeep walks on now.
    turn: Turn,
    pub(super) report: Report,
    /// Slots of services that track on change.
    pub(super) marks: Marks,
    /// What operators said.
    pub(super) overrides: Overrides,
    /// What checks found.
    pub(super) health: Health,
    /// Who is in charge.
    pub(super) heartbeat: Heartbeat,
    /// With whom connections are shared.
    pub(super) sync: Sync,
    /// Whether those have been told the names of what is in the tables.
    pub(super) names_are_told: bool,
    /// When the next drain ends, in seconds since 1970.
    pub(super) drain_deadline_s: Option<u64>,
    /// Traffic and how fast it comes.
    pub(super) rates: Rates,
    /// Live counts of connections when the pass under way began.
    loads_meanwhile: loads::Snapshot,
    /// What was removed and the last pass found unused.
    unused: Unused,
    pub(super) templates: Templates,
    pub(super) localities: Localities,
    /// Whether upkeep has been told what is gone by the tables as they are.
    pub(super) gone_is_told: bool,
    /// Up to when the table clock has been advanced ([`clock::now`]).
    clock_at: Duration,
    /// Whether `config` has been put into force once.
    pub(super) in_force: bool,
    ready: bool,
    /// Fragments that wait for their first one.
    pub(super) waiting: Waiting,
    /// Connection tables of another size under way.
    pub(super) resize: Option<Resize>,
    /// Why the last ones did not come about.
    pub(super) resize_error: Option<String>,
    pub(super) overflow_told: bool,
    pub(super) troubles: Troubles,
    pub(super) times: Times,
}

/// Messages that somebody outside could cause any number of, by their kind.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    pub(super) probes: Seldom,
    pub(super) fragments: Seldom,
    pub(super) network: Seldom,
    pub(super) standings: Seldom,
}

impl Node {
    /// Loads the configuration and the data path. Nothing is attached or changed yet.
    pub(super) fn open(file: &Path, bpffs: &Path) -> anyhow::Result<Self> {
        // For whoever asks later, from another directory.
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let mut watch = Watch::default();
        watch.loaded(Stamp::of(&file));
        let began = Instant::now();
        let mut reader = Reader::default();
        let config = reader.load(&file)?;
        let read_in = began.elapsed();
        // Asked again when it is loaded. Here because whoever may not run it at all has no use for what else is wrong.
        check_privileges()?;
        // Asked again when it is attached to. Here because loading takes the kernel seconds of verification, and
        // somebody who wrote a wrong name should not have to wait for it.
        for interface in &config.interfaces {
            Datapath::ifindex(&interface.name)?;
        }
        let cpus = online_cpus();
        let datapath = Datapath::open(Options {
            bpffs,
            instance: &config.instance,
            cpus,
            buckets4: config.connections.buckets_per_cpu4(cpus),
            buckets6: config.connections.buckets_per_cpu6(cpus),
        })?;
        let tables = if datapath.was_adopted() {
            datapath.maps.read()?
        } else {
            Tables::default()
        };
        if datapath.was_adopted() {
            tracing::info!(
                services = tables.services4.len() + tables.services6.len(),
                destinations = tables.destinations.len(),
                "adopting the data path of a director before this one"
            );
        }
        let now = clock::now();
        let clock_at = match u64::from(tables.settings.advanced_at_s) {
            0 => now,
            advanced_at_s => now.min(Duration::from_secs(advanced_at_s)),
        };
        let upkeep = Upkeep::new(Geometry {
            cpus: datapath.cpus(),
            buckets4: datapath.buckets4(),
            buckets6: datapath.buckets6(),
            seed: tables.settings.seed,
        });
        let overrides = read_overrides(&config);
        let mut health = Health::new().context("cannot start the thread for health checks")?;
        health.adopt(&config, &tables);
        Ok(Self {
            file,
            loaded_at: SystemTime::now(),
            reload_error: None,
            watch,
            started: Instant::now(),
            clock_at,
            config: Arc::new(config),
            reader,
            loading: None,
            held: Held::default(),
            telling: Telling::default(),
            datapath,
            tables,
            network: Network::new(),
            own_real_servers: BTreeSet::new(),
            links: BTreeMap::new(),
            prober: Prober::default(),
            upkeep,
            turn: Turn::default(),
            report: Report::default(),
            marks: Marks::default(),
            overrides,
            health,
            heartbeat: Heartbeat::default(),
            sync: Sync::default(),
            names_are_told: false,
            drain_deadline_s: None,
            rates: Rates::default(),
            loads_meanwhile: loads::Snapshot::default(),
            unused: Unused::default(),
            templates: Templates::new(Instant::now()),
            localities: Localities::new(Instant::now()),
            gone_is_told: false,
            in_force: false,
            ready: false,
            waiting: Waiting::default(),
            resize: None,
            resize_error: None,
            overflow_told: false,
            troubles: Troubles::default(),
            times: Times {
                loaded: read_in,
                ..Times::default()
            },
        })
    }

    /// Fills the maps and attaches the programs. The network must have been told once.
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        // While the lease is yet as the director before this one left it.
        self.tick();
        self.fence()?;
        let config = Arc::clone(&self.config);
        for service in plan::owners::rehashed(&self.tables, &config) {
            tracing::warn!(
                service = service.name,
                "connections that the director before this one tracked on change go to other real servers from now on, which \
                 reset them: the file has another scheduler for this service, or another say about `mh-port`"
            );
        }
        let began = Instant::now();
        self.configure(config)?;
        if let Some(fault) = &self.heartbeat.fault {
            anyhow::bail!("{fault}");
        }
        // The kernel's verification of the programs, which lies between, has nothing to do with the configuration.
        self.times.loaded += began.elapsed();
        tracing::info!(
            services = self.config.services.len(),
            took_ms = milliseconds(self.times.loaded),
            "loaded"
        );
        self.begin_upkeep();
        system::warn(&self.config);
        // Those that a director before this one was making, or had just replaced, when it was killed.
        self.datapath.forget_successor();
        self.resize_if_wanted();
        Ok(())
    }

    /// Has upkeep begin anew, over the tables that there are now.
    pub(super) fn begin_upkeep(&mut self) {
        self.upkeep = Upkeep::new(Geometry {
            cpus: self.datapath.cpus(),
            buckets4: self.datapath.buckets4(),
            buckets6: self.datapath.buckets6(),
            seed: self.tables.settings.seed,
        });
        self.upkeep.set_rules(self.rules(&self.config));
        self.gone_is_told = false;
        self.marks.begin_anew();
        // Nothing is known yet of what these tables have no connections of.
        self.templates.begin_anew();
        self.unused = Unused::default();
    }

    /// Takes in what the kernel tells of the network.
    pub(super) fn on_network(&mut self, events: Vec<Event>) {
        for event in events {
            match &event {
                Event::Resync => self.links.clear(),
                Event::Link(link) => drop(self.links.insert(link.ifindex, link.clone())),
                Event::LinkGone { ifindex } => drop(self.links.remove(ifindex)),
                _ => {}
            }
            self.network.apply(event);
        }
    }

    /// Neighbours to ask for now.
    pub(super) fn probes(&mut self) -> Vec<Probe> {
        self.prober.due(&mut self.network, Instant::now())
    }

    /// Whether the director has just become ready: attached, and all real servers resolved or long enough waited for.
    pub(super) fn becomes_ready(&mut self) -> bool {
        if self.ready {
            return false;
        }
        let unresolved = |address: &IpAddr| {
            matches!(
                self.network.resolve(*address),
                Resolution::Unresolved { .. }
            )
        };
        let waiting = self.real_servers(&self.config).iter().any(unresolved);
        self.ready = !waiting || self.started.elapsed() >= READY_PATIENCE;
        self.ready
    }

    /// Whether it has.
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Advances the clock of the connection tables.
    pub(super) fn tick(&mut self) {
        let (step_s, clock_at) = clock_step(self.clock_at, clock::now(), || self.was_silent());
        if step_s == 0 {
            return;
        }
        self.clock_at = clock_at;
        let settings = xdp_ebpf::layout::Settings {
            // The low 16 bits matter, so nothing happens when this wraps.
            now_s: self.tables.settings.now_s.wrapping_add(step_s),
            // Wraps after 136 years.
            advanced_at_s: clock_at.as_secs() as u32,
            ..self.tables.settings
        };
        let write = Write::Settings(settings);
        match self.datapath.maps.apply(&write) {
            Ok(()) => self.tables.apply(&write),
            Err(error) => {
                tracing::error!("cannot advance the clock of the connection tables: {error}")
            }
        }
    }

    /// Whether this node serves no client now: its lease has run out, and all virtual addresses are under it.
    ///
    /// Then it served none while the clock stood still either, but for the length of the lease: heartbeat, started or thawed,
    /// listens to the others before it has it renewed, and the clock's tick is due at once.
    fn was_silent(&self) -> bool {
        let lease = self.datapath.maps.lease().ok().flatten();
        lease.is_some_and(|lease| lease.has_run_out()) && plan::is_all_leased(&self.tables)
    }

    /// The connection tables are to be walked on over. What is left of the turn before goes first, and at once: a flood of
    /// other events must not keep connections from ending.
    pub(super) fn walk(&mut self) {
        while self.is_walking() {
            self.walk_on();
        }
        self.turn.begin(self.upkeep.buckets());
    }

    /// Whether there is more of this turn.
    pub(super) fn is_walking(&self) -> bool {
        self.turn.is_under_way()
    }

    /// Walks on over a slice of the connection tables.
    pub(super) fn walk_on(&mut self) {
        if !self.gone_is_told {
            self.upkeep.set_dead(gone(&self.tables));
            self.gone_is_told = true;
        }
        let limit = self.turn.slice();
        let loads = self.datapath.maps.loads.as_slice();
        if self.upkeep.is_at_start() {
            let destinations = self.tables.destinations.keys().copied();
            self.loads_meanwhile = loads::snapshot(loads, destinations);
            self.upkeep.set_slots(self.marks.pass_begins(&self.tables));
        }
        let (table4, table6) = (
            self.datapath.connections4.as_slice(),
            self.datapath.connections6.as_slice(),
        );
        let slice = self.upkeep.next_slice(limit);
        self.loads_meanwhile.slice_begins(loads);
        let report = self
            .upkeep
            .step(table4, table6, self.tables.settings.now_s, limit);
        self.loads_meanwhile.slice_ends(loads, slice);
        let Some(report) = report else {
            return;
        };
        self.turn.end();
        loads::correct(loads, &self.loads_meanwhile, &report);
        self.report = report;
        self.templates_after_pass();
        self.settle_slots();
        self.release_unused();
    }

    /// A configuration is in the tables.
    pub(super) fn forget_used(&mut self) {
        self.unused.forget_used(&self.tables);
    }

    /// Forgets what was removed and has had no connections in two passes, and was not in service between.
    fn release_unused(&mut self) {
        // Ids keep their meaning while connections are carried over: what ended in the old tables meanwhile may still stand
        // in the new ones.
        if self.resize.is_some() {
            self.unused = Unused::default();
            return;
        }
        let retired = self
            .tables
            .destinations
            .iter()
            .filter(|(_, record)| is_retired(Some(record)));
        let unused = Unused {
            destinations: retired
                .map(|(id, _)| *id)
                .filter(|id| self.report.destination(*id).entries == 0)
                .collect(),
            endpoints: self
                .tables
                .endpoints
                .keys()
                .copied()
                .filter(|id| !self.tables.is_served(*id) && self.report.endpoint(*id).entries == 0)
                .collect(),
        };
        let both = |one: &BTreeSet<u32>, other: &BTreeSet<u32>| -> BTreeSet<u32> {
            one.intersection(other).copied().collect()
        };
        let destinations = both(&unused.destinations, &self.unused.destinations);
        let endpoints: BTreeSet<u16> = unused
            .endpoints
            .intersection(&self.unused.endpoints)
            .copied()
            .collect();
        self.unused = unused;
        if destinations.is_empty() && endpoints.is_empty() {
            return;
        }
        let desired = plan::release(&self.tables, &destinations, &endpoints);
        if desired == self.tables {
            return;
        }
        tracing::info!(
            real_servers = destinations.len(),
            endpoints = endpoints.len(),
            "what was removed has no connections left and is forgotten"
        );
        if let Err(error) = self.write(&desired) {
            tracing::error!(
                "cannot take removed real servers out of the tables: {}",
                in_words(&error)
            );
        }
    }
}

/// What a director before this one was told. If that cannot be read, it says so and goes on without.
fn read_overrides(config: &Config) -> Overrides {
    let path = overrides::path(&config.control_socket);
    let mut overrides = overrides::load(&path).unwrap_or_else(|error| {
        tracing::error!(
            "overrides cannot be read from {}: {error}; real servers take part as configured",
            path.display()
        );
        Overrides::default()
    });
    overrides.forget_unknown(config);
    overrides
}

/// Most seconds that the table clock advances at once while packets come through.
const CLOCK_STEP_S: u64 = 2;

/// How far to advance the table clock that has been advanced up to `at`, and up to when it then is.
///
/// Packets write the clock's time into their connections' entries, so what passed while it stood still would be taken
/// for idleness of every connection: of a director that was suspended for an hour, none would be left.
///
/// Of a node that was silent meanwhile they were idle, and have gone on elsewhere: taken for just used, what it has of
/// them would count for more than what the node tells that serves them, and clients use their ports again.
fn clock_step(at: Duration, now: Duration, was_silent: impl FnOnce() -> bool) -> (u32, Duration) {
    let behind_s = now.saturating_sub(at).as_secs();
    if behind_s <= CLOCK_STEP_S {
        return (behind_s as u32, at + Duration::from_secs(behind_s));
    }
    if was_silent() {
        // After the longest timeout everything is over; much further, and it would look new again.
        let step_s = behind_s.min(u64::from(LONGEST_TIMEOUT_S));
        return (step_s as u32, now);
    }
    (CLOCK_STEP_S as u32, now)
}

#[cfg(test)]
mod tests {
    use xdp_ebpf::layout::{Endpoint, Endpoint4, Served};

    use super::*;

    /// Whether something is still taken to be unused after a configuration, by what that made of it.
    #[test]
    fn what_is_in_service_again_is_not_unused() {
        for is_back in [false, true] {
            let mut unused = Unused {
                destinations: [5].into(),
                endpoints: [7].into(),
            };
            let mut tables = Tables::default();
            let flags = if is_back { 0 } else { destination::RETIRED };
            let record = Destination {
                flags,
                ..Destination::default()
            };
            tables.destinations.insert(5, record);
            let port = 80_u16.to_be_bytes();
            let endpoint = Endpoint {
                port,
                last_port: port,
                ..Endpoint::default()
            };
            tables.endpoints.insert(7, endpoint);
            if is_back {
                let key = Endpoint4 {
                    port,
                    ..Endpoint4::default()
                };
                tables.services4.insert(key, Served::new(7, 0));
            }
            unused.forget_used(&tables);
            let found = (unused.destinations.len(), unused.endpoints.len());
            let left = usize::from(!is_back);
            assert_eq!(found, (left, left), "back: {is_back}");
        }
    }

    #[test]
    fn the_clock_advances_by_seconds_and_jumps_after_silence_alone() {
        // (milliseconds since it was advanced, whether the node was silent meanwhile, seconds that it advances, milliseconds
        // that are left for the next time)
        let cases = [
            (0, false, 0, 0),
            (999, false, 0, 999),
            (1000, false, 1, 0),
            (1250, true, 1, 250),
            (2999, true, 2, 999),
            (3000, false, 2, 0),
            (3000, true, 3, 0),
            (3_600_000, false, 2, 0),
            (3_600_000, true, 3600, 0),
            (43_200_000, true, 43_200, 0),
            (90_000_000, true, 43_200, 0),
        ];
        let start = Duration::from_secs(7);
        for (passed, was_silent, expected, left) in cases {
            let now = start + Duration::from_millis(passed);
            let (step_s, at) = clock_step(start, now, || was_silent);
            assert_eq!(step_s, expected, "after {passed} ms, silent: {was_silent}");
            assert_eq!(now - at, Duration::from_millis(left), "after {passed} ms");
        }
    }
}
