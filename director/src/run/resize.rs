//! Connection tables of the size that the configuration says: made, filled and exchanged while packets pass.
//!
//! ```text
//!  reload, adoption ──► Loading ──► Copying ──► the exchange, a moment ──► tables of the new size
//!                       threads beside the loop   nothing new is entered
//! ```

use std::future::pending;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::{JoinHandle, spawn_blocking};
use xdp_ebpf::connection::{Bucket, Bucket4, Bucket6};
use xdp_ebpf::layout::{Settings, settings};

use super::node::Node;
use crate::config::Config;
use crate::datapath::{Datapath, DatapathError, Mapped, Prepared, online_cpus};
use crate::plan::Write;
use crate::upkeep::carry::{Carried, Side, Which, carry, carry_states};
use crate::upkeep::{Geometry, Upkeep};

/// CPUs with a table, and buckets of one CPU's IPv4 and IPv6 tables.
type Sizes = (u32, u32, u32);

/// Tables of another size under way.
pub(super) enum Resize {
    /// The kernel verifies the programs that will use them.
    Loading(Sizes, JoinHandle<Result<Prepared, DatapathError>>),
    /// The connections there are by now are copied. With what the table clock said before.
    Copying(Sizes, u32, JoinHandle<(Prepared, Carried)>),
}

/// What a step has come to.
pub(super) enum Step {
    Loaded(Result<Prepared, DatapathError>),
    Copied(Prepared, Carried, u32),
    /// The thread broke.
    Broken(String),
}

impl Resize {
    fn sizes(&self) -> Sizes {
        match self {
            Self::Loading(sizes, _) | Self::Copying(sizes, ..) => *sizes,
        }
    }
}

/// The end of the step under way. Never, where nothing is.
pub(super) async fn next(resize: &mut Option<Resize>) -> Step {
    match resize {
        None => pending().await,
        Some(Resize::Loading(_, thread)) => match thread.await {
            Ok(result) => Step::Loaded(result),
            Err(broken) => Step::Broken(broken.to_string()),
        },
        Some(Resize::Copying(_, then_s, thread)) => match thread.await {
            Ok((prepared, carried)) => Step::Copied(prepared, carried, *then_s),
            Err(broken) => Step::Broken(broken.to_string()),
        },
    }
}

/// The old tables or the new ones.
struct Tables {
    four: Arc<Mapped<Bucket4>>,
    six: Arc<Mapped<Bucket6>>,
    sizes: Sizes,
}

impl Tables {
    fn four(&self) -> Side<'_, Bucket4> {
        Side {
            table: self.four.as_slice(),
            cpus: self.sizes.0,
            buckets: self.sizes.1,
        }
    }

    fn six(&self) -> Side<'_, Bucket6> {
        Side {
            table: self.six.as_slice(),
            cpus: self.sizes.0,
            buckets: self.sizes.2,
        }
    }

    fn of_prepared(prepared: &Prepared) -> Self {
        Self {
            four: Arc::clone(&prepared.connections4),
            six: Arc::clone(&prepared.connections6),
            sizes: (prepared.cpus(), prepared.buckets4(), prepared.buckets6()),
        }
    }

    fn of_datapath(datapath: &Datapath) -> Self {
        Self {
            four: Arc::clone(&datapath.connections4),
            six: Arc::clone(&datapath.connections6),
            sizes: present(datapath),
        }
    }

    fn carry_into(&self, new: &Self, seed: u64, which: Which) -> Carried {
        let mut carried = carry(&self.four(), &new.four(), seed, which);
        carried += carry(&self.six(), &new.six(), seed, which);
        carried
    }

    fn carry_states_into(&self, new: &Self, seed: u64, which: Which) -> u64 {
        carry_states(&self.four(), &new.four(), seed, which)
            + carry_states(&self.six(), &new.six(), seed, which)
    }
}

fn present(datapath: &Datapath) -> Sizes {
    (datapath.cpus(), datapath.buckets4(), datapath.buckets6())
}

fn wanted(config: &Config) -> Sizes {
    let cpus = online_cpus();
    (
        cpus,
        config.connections.buckets_per_cpu4(cpus),
        config.connections.buckets_per_cpu6(cpus),
    )
}

/// Places of tables of a size, for people.
fn places((cpus, buckets4, buckets6): Sizes) -> String {
    let all = |buckets: u32, ways: usize| u64::from(buckets) * u64::from(cpus) * ways as u64;
    format!(
        "{} IPv4 and {} IPv6 places on {cpus} CPUs",
        all(buckets4, Bucket4::WAYS),
        all(buckets6, Bucket6::WAYS)
    )
}

impl Node {
    /// Sees to it that the tables get the size that the configuration says. One change after the other: what is wanted when
    /// the one under way has ended comes next.
    pub(super) fn resize_if_wanted(&mut self) {
        let wanted = wanted(&self.config);
        if self.resize.is_some() || wanted == present(&self.datapath) {
            return;
        }
        let (cpus, buckets4, buckets6) = wanted;
        match self.datapath.successor(cpus, buckets4, buckets6) {
            Ok(successor) => {
                tracing::info!(
                    from = places(present(&self.datapath)),
                    to = places(wanted),
                    "the connection tables get another size: the kernel verifies the programs for them, which takes seconds"
                );
                self.resize_error = None;
                let thread = spawn_blocking(move || successor.prepare());
                self.resize = Some(Resize::Loading(wanted, thread));
            }
            Err(error) => self.resize_failed(&error.to_string()),
        }
    }

    /// What an operator should know of it.
    pub(super) fn resize_status(&self) -> Option<String> {
        match (&self.resize, &self.resize_error) {
            (Some(resize), _) => Some(format!(
                "the connection tables are being exchanged for ones with {}",
                places(resize.sizes())
            )),
            (None, Some(error)) => Some(format!(
                "the connection tables keep their size, {}: {error}",
                places(present(&self.datapath))
            )),
            (None, None) => None,
        }
    }

    /// Goes on after a step.
    pub(super) fn on_resize(&mut self, step: Step) {
        let Some(resize) = self.resize.take() else {
            return;
        };
        let sizes = resize.sizes();
        if sizes != wanted(&self.config) {
            tracing::info!("the connection tables under way are not wanted any more");
            drop(step);
            self.datapath.forget_successor();
            self.resize_if_wanted();
            return;
        }
        match step {
            Step::Broken(error) => self.resize_failed(&error),
            Step::Loaded(Err(error)) => self.resize_failed(&error.to_string()),
            Step::Loaded(Ok(prepared)) => {
                let old = Tables::of_datapath(&self.datapath);
                let new = Tables::of_prepared(&prepared);
                let Settings { seed, now_s, .. } = self.tables.settings;
                let thread = spawn_blocking(move || {
                    let carried = old.carry_into(&new, seed, Which::All);
                    (prepared, carried)
                });
                self.resize = Some(Resize::Copying(sizes, now_s, thread));
            }
            Step::Copied(prepared, carried, then_s) => {
                if let Err(error) = self.exchange_tables(prepared, carried, then_s) {
                    self.resize_failed(&error.to_string());
                }
            }
        }
    }

    fn resize_failed(&mut self, error: &str) {
        self.datapath.forget_successor();
        tracing::error!("the connection tables keep their size: {error}");
        self.resize_error = Some(error.to_owned());
    }

    /// The last turns of copying and the exchange. The loop stands still for it: tens of milliseconds.
    fn exchange_tables(
        &mut self,
        prepared: Prepared,
        mut carried: Carried,
        then_s: u32,
    ) -> Result<(), DatapathError> {
        let old = Tables::of_datapath(&self.datapath);
        let new = Tables::of_prepared(&prepared);
        let Settings { seed, now_s, .. } = self.tables.settings;
        // What came while the first turn was under way; then there is little left for the turn that packets wait for.
        carried.lost += old
            .carry_into(&new, seed, Which::Since { then_s, now_s })
            .lost;
        let since = Which::Since {
            then_s: now_s,
            now_s,
        };
        let began = Instant::now();
        self.hold_new_connections(true)?;
        let exchanged = Datapath::settle().and_then(|()| {
            carried.lost += old.carry_into(&new, seed, since).lost;
            let settings = prepared.settings(&self.tables.settings);
            self.datapath.take_over(prepared, &settings)?;
            self.tables.settings = settings;
            Ok(())
        });
        let held = began.elapsed();
        if let Err(error) = exchanged {
            self.hold_new_connections(false)?;
            return Err(error);
        }
        let Settings {
            cpus,
            buckets4,
            buckets6,
            ..
        } = self.tables.settings;
        self.upkeep = Upkeep::new(Geometry {
            cpus,
            buckets4,
            buckets6,
            seed,
        });
        self.upkeep.set_rules(self.rules(&self.config));
        // The last packets of the old programs: from here on nobody changes the old tables.
        Datapath::settle()?;
        let states = old.carry_states_into(&new, seed, since);
        tracing::info!(
            places = places(present(&self.datapath)),
            connections = carried.carried,
            without_room = carried.lost,
            states,
            held_ms = held.as_millis(),
            "the connection tables have another size; for the moment of the exchange nothing new was entered"
        );
        Ok(())
    }

    /// Has the packet path enter nothing new for a while, or again.
    fn hold_new_connections(&mut self, hold: bool) -> Result<(), DatapathError> {
        let flags = self.tables.settings.flags;
        let write = Write::Settings(Settings {
            flags: if hold {
                flags | settings::MOVING
            } else {
                flags & !settings::MOVING
            },
            ..self.tables.settings
        });
        self.datapath.maps.apply(&write)?;
        self.tables.apply(&write);
        Ok(())
    }

    /// Waits for the threads under way, before everything is taken down.
    pub(super) async fn end_resize(&mut self) {
        if self.resize.is_some() {
            drop(next(&mut self.resize).await);
            self.resize = None;
        }
    }
}
