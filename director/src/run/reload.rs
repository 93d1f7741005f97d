//! Another configuration: read by a thread beside the loop, which goes on meanwhile, and put into force by the loop.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout_at;

use super::node::Node;
use super::system;
use super::times::milliseconds;
use super::watch::{Look, Stamp};
use crate::config::{Config, ConfigError, Reader, VirtualService};
use crate::control::Refusal;
use crate::plan;
use crate::words::in_words;

/// How long reading the file may take. That of a configuration at its limits takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long those who asked wait for a heartbeat that is started anew: programs of its groups end first, and one of these may be
/// who asked. Less than clients wait for an answer.
const HEARTBEAT_PATIENCE: Duration = Duration::from_secs(5);

/// Who wants to know what came of a reload.
pub(super) type Asker = oneshot::Sender<Result<String, Refusal>>;

/// Those who wait for what comes of a heartbeat that is started anew, and since when.
#[derive(Default)]
pub(super) struct Held(Vec<(Asker, Instant)>);

impl Held {
    /// Those who have waited for long enough.
    fn late(&mut self, now: Instant) -> Vec<Asker> {
        let is_late = |(_, since): &(Asker, Instant)| now >= *since + HEARTBEAT_PATIENCE;
        let late = self.0.extract_if(.., |held| is_late(held));
        late.map(|(asker, _)| asker).collect()
    }
}

/// What a thread has read, and with what it goes faster the next time.
pub(super) struct Loaded {
    reader: Reader,
    config: Result<Config, String>,
    /// What the file was like before it was read: what is written after that is a change. None: that is not known.
    stamp: Option<Option<Stamp>>,
}

/// A file that is being read.
pub(super) struct Loading {
    began: Instant,
    thread: JoinHandle<(Reader, Result<Config, ConfigError>, Option<Stamp>)>,
    askers: Vec<Asker>,
    /// Those who asked when reading had begun. The file may have changed since, so it is read once more for them.
    again: Option<Vec<Asker>>,
}

/// The configuration that is being read. Never, where none is.
pub(super) async fn next(loading: &mut Option<Loading>) -> Loaded {
    let Some(Loading { thread, began, .. }) = loading else {
        return pending().await;
    };
    let failed = |words: String| Loaded {
        reader: Reader::default(),
        config: Err(words),
        stamp: None,
    };
    match timeout_at((*began + PATIENCE).into(), thread).await {
        Ok(Ok((reader, config, stamp))) => Loaded {
            reader,
            config: config.map_err(|error| in_words(&anyhow::Error::new(error))),
            stamp: Some(stamp),
        },
        Ok(Err(broken)) => failed(format!(
            "reading it broke, which is a mistake in this program: {broken}"
        )),
        // The thread goes on waiting, and is not listened to any more.
        Err(_) => failed(format!(
            "it could not be read within {} s; does its file system answer?",
            PATIENCE.as_secs()
        )),
    }
}

impl Node {
    /// Loads the configuration again. One that does not load, or does not fit, leaves the present one in force.
    pub(super) fn reload(&mut self, asker: Option<Asker>) {
        match &mut self.loading {
            Some(loading) => loading.again.get_or_insert_default().extend(asker),
            None => self.begin_reload(asker.into_iter().collect()),
        }
    }

    fn begin_reload(&mut self, askers: Vec<Asker>) {
        let file = self.file.clone();
        let mut reader = std::mem::take(&mut self.reader);
        self.loading = Some(Loading {
            began: Instant::now(),
            thread: spawn_blocking(move || {
                let stamp = Stamp::of(&file);
                let config = reader.load(&file);
                (reader, config, stamp)
            }),
            askers,
            again: None,
        });
    }

    /// Loads it again if it has changed, where the configuration wants that.
    pub(super) fn reload_if_changed(&mut self) {
        if self.loading.is_some() || !self.config.watch {
            return;
        }
        let Some(stamp) = self.watch.found(&self.file) else {
            return;
        };
        let file = self.file.display();
        match self.watch.look(stamp) {
            Look::Leave => {}
            Look::Missing => tracing::warn!(
                %file,
                "the configuration file is gone; what was loaded stays in force, but the director could not start again"
            ),
            Look::Load => {
                tracing::info!(%file, "the configuration file has changed");
                self.reload(None);
            }
        }
    }

    /// Puts into force what was read, and says what came of it.
    pub(super) fn on_loaded(&mut self, loaded: Loaded) {
        let Some(loading) = self.loading.take() else {
            return;
        };
        let came = Instant::now();
        self.reader = loaded.reader;
        match loaded.stamp {
            Some(stamp) => self.watch.loaded(stamp),
            None => self.watch.gave_up(),
        }
        match loaded.config.and_then(|config| {
            self.put_into_force(config)
                .map_err(|error| in_words(&error))
        }) {
            Ok(()) => {
                self.times.loaded = loading.began.elapsed();
                self.times.in_loop = came.elapsed();
                self.reload_error = None;
                self.loaded_at = SystemTime::now();
                tracing::info!(
                    file = %self.file.display(),
                    services = self.config.services.len(),
                    took_ms = milliseconds(self.times.loaded),
                    in_loop_ms = milliseconds(self.times.in_loop),
                    "reloaded"
                );
            }
            Err(error) => {
                tracing::error!(
                    "reload refused, the configuration before it stays in force: {error}"
                );
                self.reload_error = Some(error);
            }
        }
        if self.reload_error.is_none() && self.heartbeat.is_ending() {
            let now = Instant::now();
            let askers = loading.askers.into_iter();
            self.held.0.extend(askers.map(|asker| (asker, now)));
        } else {
            let came = self.what_came_of_it();
            tell(loading.askers, &came);
        }
        if let Some(askers) = loading.again {
            self.begin_reload(askers);
        }
    }

    /// The heartbeat has been started anew, or could not be.
    pub(super) fn answer_held(&mut self) {
        let held = std::mem::take(&mut self.held.0).into_iter();
        // Another file may have been refused meanwhile: that is not about theirs.
        let came = self.what_is_in_force();
        tell(held.map(|(asker, _)| asker), &came);
    }

    /// Answers those who have waited for long enough for a heartbeat that is started anew.
    pub(super) fn answer_late(&mut self) {
        let late = self.held.late(Instant::now());
        let came = format!(
            "{}\nheartbeat: what was in force before has not ended yet, which programs of groups may keep it from; `director \
             status` tells what comes of the new one",
            self.services_in_force()
        );
        tell(late, &Ok(came));
    }

    fn what_came_of_it(&self) -> Result<String, Refusal> {
        match &self.reload_error {
            Some(error) => Err(Refusal::Wrong(error.clone())),
            None => self.what_is_in_force(),
        }
    }

    fn services_in_force(&self) -> String {
        format!(
            "{}: {} services in force",
            self.file.display(),
            self.config.services.len()
        )
    }

    fn what_is_in_force(&self) -> Result<String, Refusal> {
        let in_force = self.services_in_force();
        match &self.heartbeat.fault {
            None => Ok(format!(
                "{in_force}\nreload: {} ms",
                milliseconds(self.times.loaded)
            )),
            Some(fault) => Err(Refusal::Failed(format!(
                "{in_force}, but this node takes part in no group: {fault}"
            ))),
        }
    }

    fn put_into_force(&mut self, mut config: Config) -> anyhow::Result<()> {
        if config.instance != self.config.instance {
            tracing::warn!(
                instance = self.config.instance,
                "another instance name takes effect after a stop and a start"
            );
            config.instance.clone_from(&self.config.instance);
        }
        if config.control_socket != self.config.control_socket {
            tracing::warn!("another control socket takes effect after a stop and a start");
            config
                .control_socket
                .clone_from(&self.config.control_socket);
        }
        refuse_to_rehash(&plan::owners::rehashed(&self.tables, &config))?;
        self.configure(Arc::new(config))?;
        self.resize_if_wanted();
        self.forget_overrides();
        system::warn(&self.config);
        Ok(())
    }
}

fn tell(askers: impl IntoIterator<Item = Asker>, came: &Result<String, Refusal>) {
    for asker in askers {
        // Whoever asked may have gone away.
        drop(asker.send(came.clone()));
    }
}

/// Refuses what would reset nearly all connections of these services at once.
fn refuse_to_rehash(services: &[&VirtualService]) -> anyhow::Result<()> {
    let Some(first) = services.first() else {
        return Ok(());
    };
    let others = match services.len() - 1 {
        0 => String::new(),
        others => format!(" (and {others} more)"),
    };
    anyhow::bail!(
        "the service \"{}\"{others} tracks connections on change, and with another scheduler, or with `mh-port` where it was \
         not or without it where it was, nearly all its connections, of which no table knows, would go to other real \
         servers and be reset. Load it with `track: all` first and leave the rest as it is; make this change when its \
         `hold_time` is over, as all its connections are known by then",
        first.name
    )
}
