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
use crate::upkeep::carry::{Carried, Carrier, Side};

/// CPUs with a table, and buckets of one CPU's IPv4 and IPv6 tables.
type Sizes = (u32, u32, u32);

/// Tables of another size under way.
pub(super) enum Resize {
    /// The kernel verifies the programs that will use them.
    Loading(Sizes, JoinHandle<Result<Prepared, DatapathError>>),
    /// The connections there are by now are copied.
    Copying(Sizes, JoinHandle<(Prepared, Carriers)>),
}

/// What a step has come to.
pub(super) enum Step {
    Loaded(Result<Prepared, DatapathError>),
    Copied(Prepared, Carriers),
    /// The thread broke.
    Broken(String),
}

impl Resize {
    fn sizes(&self) -> Sizes {
        match self {
            Self::Loading(sizes, _) | Self::Copying(sizes, _) => *sizes,
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
        Some(Resize::Copying(_, thread)) => match thread.await {
            Ok((prepared, carriers)) => Step::Copied(prepared, carriers),
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
}

/// What carries from the old tables to the new ones.
#[derive(Default)]
pub(super) struct Carriers {
    four: Carrier,
    six: Carrier,
}

impl Carriers {
    fn carry(&mut self, old: &Tables, new: &Tables, seed: u64, now_s: u32) -> Carried {
        let mut carried = self.four.carry(&old.four(), &new.four(), seed, now_s);
        carried += self.six.carry(&old.six(), &new.six(), seed, now_s);
        carried
    }

    fn carry_states(&self, old: &Tables, new: &Tables, seed: u64) -> u64 {
        self.four.carry_states(&old.four(), &new.four(), seed)
            + self.six.carry_states(&old.six(), &new.six(), seed)
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
                    let mut carriers = Carriers::default();
                    // Twice: the second turn has what came during the first one, and leaves little for the rest.
                    for _ in 0..2 {
                        carriers.carry(&old, &new, seed, now_s);
                    }
                    (prepared, carriers)
                });
                self.resize = Some(Resize::Copying(sizes, thread));
            }
            Step::Copied(prepared, carriers) => {
                if let Err(error) = self.exchange_tables(prepared, carriers) {
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

    /// The last turn of copying and the exchange. The loop stands still for it: tens of milliseconds.
    fn exchange_tables(
        &mut self,
        prepared: Prepared,
        mut carriers: Carriers,
    ) -> Result<(), DatapathError> {
        let old = Tables::of_datapath(&self.datapath);
        let new = Tables::of_prepared(&prepared);
        let Settings { seed, now_s, .. } = self.tables.settings;
        let began = Instant::now();
        self.hold_new_connections(true)?;
        let exchanged = Datapath::settle().and_then(|()| {
            let carried = carriers.carry(&old, &new, seed, now_s);
            let settings = prepared.settings(&self.tables.settings);
            let former = self.datapath.take_over(prepared, &settings)?;
            self.tables.settings = settings;
            Ok((carried, former))
        });
        let held = began.elapsed();
        let (carried, former) = match exchanged {
            Ok(exchanged) => exchanged,
            Err(error) => {
                self.hold_new_connections(false)?;
                return Err(error);
            }
        };
        self.lend_again();
        // The last packets of the old programs: from here on nobody changes the old tables.
        self.datapath.end_former(former);
        let states = carriers.carry_states(&old, &new, seed);
        self.begin_upkeep();
        tracing::info!(
            places = places(present(&self.datapath)),
            connections = carried.entries - carried.lost,
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
