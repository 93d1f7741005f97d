//! The packet path over tables in ordinary memory.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use anyhow::{Result, ensure};
use xdp_ebpf::layout::Reason;
use xdp_ebpf::native::{Frame, NativeTables};
use xdp_ebpf::path::{self, Verdict};

use super::fixture::{Fixture, INGRESS};
use super::machine::{Action, Connection, Counts, Machine, Outcome, connections4, connections6};

/// Destination ids below this are counted.
const DESTINATIONS: u32 = 1024;

/// The packet path, run natively.
pub struct Native {
    tables: NativeTables,
    interfaces: Vec<u32>,
}

impl Native {
    /// A director with a fixture's tables.
    #[must_use]
    pub fn new(fixture: &Fixture) -> Self {
        let mut native = Self {
            tables: NativeTables::new(fixture.settings, DESTINATIONS),
            interfaces: Vec::new(),
        };
        native.fill(fixture);
        native
    }

    /// Its tables, for what only native runs can do.
    pub fn tables(&mut self) -> &mut NativeTables {
        &mut self.tables
    }

    fn fill(&mut self, fixture: &Fixture) {
        fn map<K: std::hash::Hash + Eq, V>(pairs: Vec<(K, V)>) -> HashMap<K, V> {
            pairs.into_iter().collect()
        }
        let tables = &mut self.tables;
        tables.settings = Some(fixture.settings);
        tables.services4 = map(fixture.services4());
        tables.services6 = map(fixture.services6());
        tables.ranges4 = fixture.ranges4().into_iter().collect();
        tables.ranges6 = fixture.ranges6().into_iter().collect();
        tables.endpoints = fixture.endpoints.clone().into_iter().collect();
        tables.services = fixture.services.clone().into_iter().collect();
        for id in fixture.destinations.keys() {
            let limits = fixture.weight(*id);
            let load = tables.loads.entry(*id).or_default();
            load.weight = u64::from(limits.weight).into();
            load.upper = u64::from(limits.upper).into();
            load.lower = u64::from(limits.lower).into();
        }
        tables.slots.clone_from(&fixture.slots);
        tables.destinations = fixture.destinations.clone().into_iter().collect();
        tables.real_servers4 = map(fixture.real_servers4());
        tables.real_servers6 = map(fixture.real_servers6());
        tables.addresses4 = map(fixture.addresses4());
        tables.addresses6 = map(fixture.addresses6());
        tables.routes4 = fixture
            .routes4
            .iter()
            .map(|(length, prefix, route)| ((*length, *prefix), *route))
            .collect();
        tables.routes6 = fixture
            .routes6
            .iter()
            .map(|(length, prefix, route)| ((*length, *prefix), *route))
            .collect();
        tables.next_hops = fixture.next_hops.clone().into_iter().collect();
        tables.neighbours4 = map(fixture.neighbours4.clone());
        tables.neighbours6 = map(fixture.neighbours6.clone());
        tables.lease_until.set(fixture.lease_until);
        tables.own_macs = fixture.own_macs.clone().into_iter().collect();
        self.interfaces.clone_from(&fixture.interfaces);
    }
}

impl Machine for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn load(&mut self, fixture: &Fixture) -> Result<()> {
        *self = Self::new(fixture);
        Ok(())
    }

    fn change(&mut self, fixture: &Fixture) -> Result<()> {
        self.fill(fixture);
        Ok(())
    }

    fn cpu(&mut self, cpu: u32) -> Result<()> {
        self.tables.cpu.set(cpu);
        Ok(())
    }

    fn run(&mut self, bytes: &[u8]) -> Result<Outcome> {
        let mut frame = Frame::new(bytes, INGRESS);
        let action = match path::run(&mut frame, &self.tables) {
            Verdict::Pass => Action::Pass,
            Verdict::Drop(_) => Action::Drop,
            Verdict::Transmit => Action::Transmit,
            Verdict::Redirect(slot) => {
                ensure!(
                    self.interfaces.contains(&slot),
                    "redirected to slot {slot}, which has no interface"
                );
                Action::Redirect
            }
            Verdict::Continue(stage) => anyhow::bail!("stopped before stage {stage:?}"),
        };
        Ok(Outcome {
            action,
            frame: frame.bytes(),
        })
    }

    fn counts(&mut self) -> Result<Counts> {
        let mut counts = Counts::default();
        for reason in Reason::ALL {
            counts
                .reasons
                .insert(*reason as u32, self.tables.reason(*reason));
        }
        for id in 0..DESTINATIONS {
            let traffic = self.tables.traffic(id);
            counts.add(id, &traffic);
        }
        Ok(counts)
    }

    fn take_held(&mut self) -> Result<Vec<Vec<u8>>> {
        Ok(self
            .tables
            .take_held()
            .into_iter()
            .map(|held| held.frame)
            .collect())
    }

    fn load_of(&mut self, destination: u32) -> Result<(u64, u64)> {
        let load = self.tables.loads.get(&destination);
        Ok(load.map_or((0, 0), |load| {
            (
                load.active.load(Ordering::Relaxed),
                load.inactive.load(Ordering::Relaxed),
            )
        }))
    }

    fn connections(&mut self) -> Result<Vec<Connection>> {
        let per_cpu = |buckets: usize| {
            let cpus = self
                .tables
                .settings
                .map_or(1, |settings| settings.cpus as usize);
            buckets / cpus
        };
        let four = self.tables.buckets4();
        let six = self.tables.buckets6();
        let mut all = connections4(four, per_cpu(four.len()));
        all.extend(connections6(six, per_cpu(six.len())));
        all.sort();
        Ok(all)
    }
}
