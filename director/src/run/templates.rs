//! Timeouts of services, and the end of what persistence remembers.
//!
//! A template goes when its time has passed and its client has no connection left (the kernel's rule: a template does not
//! expire while it controls connections, `ip_vs_conn_expire`). Time is looked at first, in the map; for those whose time
//! has passed the next pass over the connection tables looks for connections.
//!
//! ```text
//!  Resting ─► Looking: some of the map each turn ─► Found ─► Watched by a whole pass ─► Ending: some each turn ─► Resting
//! ```
//!
//! A full map has 262,144 of them. All at once would take half a second, in which verdicts wait.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use xdp_ebpf::layout::{Template, TemplateKey};

use super::node::Node;
use crate::config::{Config, VirtualService};
use crate::upkeep::{EndpointRule, Persistence, templates};

/// How often templates are looked through, at the most.
const PERIOD: Duration = Duration::from_secs(5);
/// Templates that are looked at in one turn: about a millisecond.
const LOOKED_AT_ONCE: usize = 4096;
/// Those that are taken away, or used again, in one turn: two calls of the kernel each, so these are about two milliseconds.
const ENDED_AT_ONCE: usize = 1024;
/// Those that one pass over the connection tables looks for. Where there are more, others follow.
const WATCHED_AT_ONCE: usize = 1 << 16;

/// A template as it was found.
type Found = (TemplateKey, Template);

/// Where the look through all templates is. No I/O: what it wants looked at or ended is [`Work`].
#[derive(Debug)]
pub(super) struct Templates {
    /// Of persistent services, by id.
    timeouts_s: HashMap<u16, u32>,
    /// What the look goes on after; none: at the beginning.
    after: Option<u32>,
    /// When the next look begins.
    due: Instant,
    stage: Stage,
}

#[derive(Debug, Default)]
enum Stage {
    /// Until it is time.
    #[default]
    Resting,
    /// The map is looked through; these are found so far.
    Looking(Idle),
    /// They wait for the pass under way to end.
    Found(Idle),
    /// A pass looks for their connections.
    Watched(Vec<Found>),
    /// They go, or are used again: those that have connections.
    Ending(Vec<Found>, HashSet<TemplateKey>),
}

/// Templates whose time has passed.
#[derive(Debug, Default)]
struct Idle {
    found: Vec<Found>,
    keys: HashSet<TemplateKey>,
}

/// What is to be done in one turn.
#[derive(Debug)]
enum Work {
    Nothing,
    /// To look at some templates after this.
    Look(Option<u32>),
    /// To take these away, unless they were used meanwhile; of those with `true` the client has a connection.
    End(Vec<(Found, bool)>),
}

impl Templates {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            timeouts_s: HashMap::new(),
            after: None,
            due: now,
            stage: Stage::Resting,
        }
    }

    /// Persistence timeouts in force, by the services' ids.
    pub(super) fn set_timeouts(&mut self, timeouts_s: HashMap<u16, u32>) {
        self.timeouts_s = timeouts_s;
    }

    /// Forgets what was found: the passes that are to come know nothing of it.
    pub(super) fn begin_anew(&mut self) {
        self.after = None;
        self.stage = Stage::Resting;
    }

    /// What to do in this turn.
    fn next(&mut self, now: Instant) -> Work {
        match &mut self.stage {
            Stage::Resting => {
                if self.after.is_none() {
                    if now < self.due || self.timeouts_s.is_empty() {
                        return Work::Nothing;
                    }
                    self.due = now + PERIOD;
                }
                self.stage = Stage::Looking(Idle::default());
                Work::Look(self.after)
            }
            Stage::Looking(_) => Work::Look(self.after),
            Stage::Found(_) | Stage::Watched(_) => Work::Nothing,
            Stage::Ending(left, live) => {
                let rest = left.len().saturating_sub(ENDED_AT_ONCE);
                let some = left.split_off(rest).into_iter();
                let some = some.map(|found| (found, live.contains(&found.0))).collect();
                if rest == 0 {
                    self.stage = Stage::Resting;
                }
                Work::End(some)
            }
        }
    }

    /// What was looked at, and what the look goes on after; `None`: it was the end of the map.
    fn looked(&mut self, some: Vec<Found>, next: Option<u32>, now_s: u32) {
        let Stage::Looking(idle) = &mut self.stage else {
            return;
        };
        for (key, template) in some {
            // Of a service that is not persistent any more: at once.
            let timeout_s = self.timeouts_s.get(&key.service).copied().unwrap_or(0);
            if templates::is_idle(&template, now_s, timeout_s) {
                idle.found.push((key, template));
                idle.keys.insert(key);
            }
        }
        self.after = next;
        if next.is_some() && idle.found.len() + LOOKED_AT_ONCE <= WATCHED_AT_ONCE {
            return;
        }
        let idle = std::mem::take(idle);
        self.stage = if idle.found.is_empty() {
            Stage::Resting
        } else {
            Stage::Found(idle)
        };
    }

    /// A pass has ended, which found connections of these. Gives what the next one is to look for.
    fn pass_ended(&mut self, live: HashSet<TemplateKey>) -> Option<HashSet<TemplateKey>> {
        let (stage, watched) = match std::mem::take(&mut self.stage) {
            Stage::Found(idle) => (Stage::Watched(idle.found), Some(idle.keys)),
            Stage::Watched(found) => (Stage::Ending(found, live), None),
            other => (other, None),
        };
        self.stage = stage;
        watched
    }
}

impl Node {
    /// What upkeep must know of the endpoints of a configuration that is in force.
    pub(super) fn rules(&self, config: &Config) -> Vec<EndpointRule> {
        let by_id: HashMap<u16, &VirtualService> = self.service_ids(config).collect();
        let mut rules = Vec::new();
        for (id, endpoint) in &self.tables.endpoints {
            let Some(service) = by_id.get(&endpoint.service) else {
                continue;
            };
            let Some(record) = self.tables.services.get(&endpoint.service) else {
                continue;
            };
            let at = usize::from(*id);
            if rules.len() <= at {
                rules.resize(at + 1, EndpointRule::default());
            }
            rules[at] = EndpointRule {
                timeouts_s: service.timeouts.by_state(),
                persistence: service.persistence.map(|persistence| Persistence {
                    service: endpoint.service,
                    mask: record.persistence_mask,
                    per_port: !persistence.across_ports,
                    port: endpoint.port,
                    timeout_s: persistence.timeout_s,
                }),
            };
        }
        rules
    }

    /// Persistence timeouts of a configuration that is in force, by the services' ids.
    pub(super) fn persistence_timeouts(&self, config: &Config) -> HashMap<u16, u32> {
        self.service_ids(config)
            .filter_map(|(id, service)| Some((id, service.persistence?.timeout_s)))
            .collect()
    }

    /// After a pass over the connection tables.
    pub(super) fn templates_after_pass(&mut self) {
        let live = std::mem::take(&mut self.report.live_templates);
        if let Some(watched) = self.templates.pass_ended(live) {
            self.upkeep.watch(watched);
        }
    }

    /// Looks at some templates, or ends some.
    pub(super) fn look_after_templates(&mut self) {
        let maps = &mut self.datapath.maps;
        let now_s = self.tables.settings.now_s;
        match self.templates.next(Instant::now()) {
            Work::Nothing => {}
            Work::Look(after) => match maps.some_templates(after, LOOKED_AT_ONCE) {
                Ok((some, next)) => self.templates.looked(some, next, now_s),
                Err(error) => {
                    tracing::warn!("{error}");
                    self.templates.begin_anew();
                }
            },
            Work::End(some) => {
                for ((key, template), is_live) in some {
                    if maps.template(&key) != Some(template) {
                        // Used meanwhile, or given up.
                        continue;
                    }
                    let used = is_live.then_some(Template {
                        seen_s: now_s,
                        ..template
                    });
                    if let Err(error) = maps.put_template(key, used) {
                        tracing::warn!("{error}");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u32 = 10_000;

    /// The map, the passes and the turns of the loop. What is asked of one turn must not grow with the map.
    struct Simulated {
        templates: Templates,
        map: Vec<Found>,
        turns: usize,
    }

    impl Simulated {
        fn new(map: impl IntoIterator<Item = Found>) -> Self {
            let mut templates = Templates::new(Instant::now());
            // Service 1 is persistent for 100 seconds, service 2 not any more.
            templates.set_timeouts(HashMap::from([(1, 100)]));
            Self {
                templates,
                map: map.into_iter().collect(),
                turns: 0,
            }
        }

        /// One turn of the loop. Gives what it ended.
        fn turn(&mut self) -> Vec<(Found, bool)> {
            self.turns += 1;
            match self.templates.next(self.templates.due) {
                Work::Nothing => Vec::new(),
                Work::Look(after) => {
                    let from = after.unwrap_or(0) as usize;
                    let to = self.map.len().min(from + LOOKED_AT_ONCE);
                    let next = (to < self.map.len()).then_some(to as u32);
                    let some = self.map[from..to].to_vec();
                    self.templates.looked(some, next, NOW_S);
                    Vec::new()
                }
                Work::End(some) => {
                    assert!(some.len() <= ENDED_AT_ONCE, "{} in one turn", some.len());
                    some
                }
            }
        }

        /// One look through the map, with a pass every ten turns that finds connections of these. Gives what was ended.
        fn look_through(
            &mut self,
            has_connections: impl Fn(&TemplateKey) -> bool,
        ) -> Vec<(Found, bool)> {
            let (mut ended, mut watched) = (Vec::new(), HashSet::new());
            let enough = self.turns + 10_000;
            loop {
                assert!(self.turns < enough, "it does not come to an end");
                ended.extend(self.turn());
                if self.turns.is_multiple_of(10) {
                    let live: HashSet<TemplateKey> =
                        watched.drain().filter(&has_connections).collect();
                    watched = self.templates.pass_ended(live).unwrap_or_default();
                    assert!(watched.len() <= WATCHED_AT_ONCE, "{}", watched.len());
                }
                if matches!(self.templates.stage, Stage::Resting) && self.templates.after.is_none()
                {
                    return ended;
                }
            }
        }
    }

    fn found(client: u32, service: u16, idle_s: u32) -> Found {
        let mut key = TemplateKey {
            service,
            ..TemplateKey::default()
        };
        key.client[..4].copy_from_slice(&client.to_be_bytes());
        let template = Template {
            destination: 7,
            seen_s: NOW_S - idle_s,
        };
        (key, template)
    }

    #[test]
    fn who_goes_and_who_is_used_again() {
        // (client, service, idle seconds, has a connection, whether it is ended, whether it is used again)
        let cases = [
            (1, 1, 0, false, None),
            (2, 1, 100, false, None),
            (3, 1, 101, false, Some(false)),
            (4, 1, 101, true, Some(true)),
            (5, 1, 5000, false, Some(false)),
            (6, 2, 0, false, None),
            (7, 2, 1, false, Some(false)),
            (8, 2, 1, true, Some(true)),
        ];
        let all = cases.map(|(client, service, idle_s, _, _)| found(client, service, idle_s));
        let mut simulated = Simulated::new(all);
        let live: HashSet<TemplateKey> = cases
            .iter()
            .zip(all)
            .filter(|(case, _)| case.3)
            .map(|(_, (key, _))| key)
            .collect();
        let ended: HashMap<TemplateKey, bool> = simulated
            .look_through(|key| live.contains(key))
            .into_iter()
            .map(|((key, _), is_live)| (key, is_live))
            .collect();
        for ((client, .., expected), (key, _)) in cases.into_iter().zip(all) {
            assert_eq!(ended.get(&key).copied(), expected, "client {client}");
        }
    }

    /// However many there are: each turn is bounded, all come up, and each once.
    #[test]
    fn a_full_map_comes_in_slices() {
        const MANY: u32 = 262_144;
        // (one in so many is in use, turns that it may take)
        for (in_use, turns) in [(1, 100), (4, 500), (MANY, 700)] {
            let is_idle = |client: u32| !client.is_multiple_of(in_use);
            let all = (0..MANY).map(|client| {
                let idle_s = if is_idle(client) { 101 } else { 0 };
                found(client, 1, idle_s)
            });
            let mut simulated = Simulated::new(all);
            let ended = simulated.look_through(|_| false);
            let keys: HashSet<TemplateKey> = ended.iter().map(|((key, _), _)| *key).collect();
            assert_eq!(keys.len(), ended.len(), "each once");
            let idle = (0..MANY).filter(|client| is_idle(*client)).count();
            assert_eq!(ended.len(), idle);
            assert!(simulated.turns <= turns, "{} turns", simulated.turns);
        }
    }

    /// Nothing is looked at without a persistent service, nor before it is time.
    #[test]
    fn it_rests_between_two_looks() {
        let start = Instant::now();
        let mut templates = Templates::new(start);
        assert!(matches!(templates.next(start), Work::Nothing));
        templates.set_timeouts(HashMap::from([(1, 100)]));
        assert!(matches!(templates.next(start), Work::Look(None)));
        templates.looked(Vec::new(), None, NOW_S);
        // (time since, whether it looks)
        for (passed, expected) in [(PERIOD / 2, false), (PERIOD, true)] {
            let work = templates.next(start + passed);
            assert_eq!(matches!(work, Work::Look(None)), expected, "{passed:?}");
        }
        // What was found means nothing after other tables have taken the place of these.
        templates.looked(vec![found(1, 1, 101)], None, NOW_S);
        templates.begin_anew();
        assert_eq!(templates.pass_ended(HashSet::new()), None);
    }
}
