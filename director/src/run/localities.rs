//! The end of what `lblc` and `lblcr` remember of addresses.
//!
//! IPVS forgets an address after a day without a connection, and looks for such ones every half hour
//! (`ip_vs_lblc_full_check` in `ip_vs_lblc.c`). Its other rule, that of more than 16,384 addresses those go that were not
//! used for six minutes, has nothing to do here: the map holds no more, and gives up the longest unused for a new one.

use std::time::{Duration, Instant};

use xdp_ebpf::layout::{LocalityKey, scheduler};

use super::node::Node;
use crate::plan::Tables;
use crate::upkeep::templates;

/// How often addresses are looked through.
const PERIOD: Duration = Duration::from_secs(60);
/// Addresses looked at in one turn: those that go are a call of the kernel each, so these are about a millisecond.
const AT_ONCE: usize = 1024;

/// Where the look through all addresses is, and when the next one begins.
#[derive(Debug)]
pub(super) struct Localities {
    /// What it goes on after; none: it has not begun.
    after: Option<u32>,
    due: Instant,
}

impl Localities {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            after: None,
            due: now + PERIOD,
        }
    }
}

/// Whether nobody asks for an address any more: its service has another table, another scheduler, or is gone.
fn is_orphan(tables: &Tables, key: &LocalityKey) -> bool {
    tables.services.get(&key.service).is_none_or(|service| {
        service.first_slot != key.first_slot
            || !matches!(service.scheduler, scheduler::LBLC | scheduler::LBLCR)
    })
}

impl Node {
    /// Takes some of the addresses away that nobody has used for a day, or nobody asks for. One that is used in this moment
    /// is decided anew by the next connection.
    pub(super) fn forget_localities(&mut self) {
        let begun = Instant::now();
        if self.localities.after.is_none() {
            if begun < self.localities.due {
                return;
            }
            self.localities.due = begun + PERIOD;
        }
        let maps = &mut self.datapath.maps;
        let some = match maps.some_localities(self.localities.after.take(), AT_ONCE) {
            Ok((some, next)) => {
                self.localities.after = next;
                some
            }
            Err(error) => return tracing::warn!("{error}"),
        };
        let now_s = self.tables.settings.now_s;
        for (key, seen_s) in some {
            if (is_orphan(&self.tables, &key) || templates::is_locality_idle(seen_s, now_s))
                && let Err(error) = maps.remove_locality(key)
            {
                tracing::warn!("{error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use xdp_ebpf::layout::Service;

    use super::*;

    #[test]
    fn what_nobody_asks_for() {
        let mut tables = Tables::default();
        for (id, scheduler) in [
            (1, scheduler::LBLC),
            (2, scheduler::LBLCR),
            (3, scheduler::WLC),
        ] {
            let service = Service {
                scheduler,
                first_slot: 100 * u32::from(id),
                ..Service::default()
            };
            tables.services.insert(id, service);
        }
        // (service, first slot of its table, whether nobody asks for it)
        let cases = [
            (1, 100, false),
            (2, 200, false),
            (1, 200, true),
            (2, 0, true),
            (3, 300, true),
            (4, 100, true),
        ];
        for (service, first_slot, expected) in cases {
            let key = LocalityKey {
                service,
                first_slot,
                ..LocalityKey::default()
            };
            assert_eq!(is_orphan(&tables, &key), expected, "{service} {first_slot}");
        }
    }
}
