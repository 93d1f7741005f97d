//! Records whose service or server is not known here: kept for a while, since configurations are reloaded at different
//! moments, and tried again when the directory changes.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::entry::{Held, How, NodeName, Record, RecordName, supersedes};

#[derive(Clone, Debug)]
struct Kept {
    record: Record,
    from: NodeName,
    at: Duration,
    order: u64,
}

impl Kept {
    /// As old as it is now.
    fn aged(&self, now: Duration) -> Record {
        self.record.waited(now.saturating_sub(self.at))
    }
}

/// What is kept.
#[derive(Clone, Debug)]
pub(crate) struct Aside {
    limit: usize,
    keep_for: Duration,
    kept: HashMap<RecordName, Kept>,
    /// Names by the order in which they came: the oldest gives way.
    order: BTreeMap<u64, RecordName>,
    next: u64,
    /// Given up: too many, or kept for too long.
    pub(crate) given_up: u64,
}

impl Aside {
    pub(crate) fn new(limit: usize, keep_for: Duration) -> Self {
        Self {
            limit,
            keep_for,
            kept: HashMap::new(),
            order: BTreeMap::new(),
            next: 0,
            given_up: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    #[cfg(test)]
    pub(crate) fn has(&self, name: &RecordName) -> bool {
        self.kept.contains_key(name)
    }

    /// When the oldest is given up.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let (_, name) = self.order.first_key_value()?;
        Some(self.kept.get(name)?.at + self.keep_for)
    }

    /// Whether what arrives is news although its name is kept aside: then what is kept is not true any more. Otherwise what is kept
    /// is newer, and nothing older may stand in the table meanwhile.
    pub(crate) fn yields(&mut self, record: &Record, how: How, now: Duration) -> bool {
        let name = record.name();
        let Some(kept) = self.kept.get(&name) else {
            return true;
        };
        let held = Held {
            is_learned: true,
            idle_s: kept.aged(now).idle_s(),
        };
        let is_news = supersedes(held, record.idle_s(), how);
        if is_news {
            self.forget(&name);
        }
        is_news
    }

    /// Keeps a record, in place of what was kept under its name.
    pub(crate) fn keep(&mut self, record: Record, from: &NodeName, now: Duration) {
        let name = record.name();
        self.forget(&name);
        let kept = Kept {
            record,
            from: from.clone(),
            at: now,
            order: self.next,
        };
        self.order.insert(self.next, name);
        self.kept.insert(name, kept);
        self.next += 1;
        while self.kept.len() > self.limit {
            self.give_up_oldest();
        }
    }

    fn forget(&mut self, name: &RecordName) {
        if let Some(kept) = self.kept.remove(name) {
            self.order.remove(&kept.order);
        }
    }

    pub(crate) fn expire(&mut self, now: Duration) {
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            self.give_up_oldest();
        }
    }

    /// All that is kept, in the order in which it came, as old as it is now; nothing is kept any more.
    pub(crate) fn take(&mut self, now: Duration) -> Vec<(NodeName, Record)> {
        self.expire(now);
        let order = std::mem::take(&mut self.order);
        let mut kept = std::mem::take(&mut self.kept);
        let kept = order.values().filter_map(|name| kept.remove(name));
        kept.map(|kept| {
            let record = kept.aged(now);
            (kept.from, record)
        })
        .collect()
    }

    fn give_up_oldest(&mut self) {
        if let Some((_, name)) = self.order.pop_first() {
            self.kept.remove(&name);
            self.given_up += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use xdp_ebpf::state::State;

    use super::*;
    use crate::entry::Entry;

    fn record(client: u16, idle_s: u16) -> Record {
        Record::Entry(Entry {
            protocol: 6,
            client: SocketAddr::from(([192, 0, 2, 1], client)),
            virtual_service: SocketAddr::from(([192, 0, 2, 2], 80)),
            server: SocketAddr::from(([192, 0, 2, 3], 80)),
            state: State::Established,
            idle_s,
        })
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn bounded_in_number_and_time_and_the_newest_counts() {
        let peer = NodeName::new("lb2").unwrap();
        let mut aside = Aside::new(2, s(60));
        let records = |aside: &mut Aside, now| {
            let taken = aside.take(now).into_iter();
            taken.map(|(_, record)| record).collect::<Vec<_>>()
        };
        aside.keep(record(1, 0), &peer, s(1));
        aside.keep(record(2, 0), &peer, s(2));
        aside.keep(record(1, 5), &peer, s(3));
        assert_eq!(aside.deadline(), Some(s(62)));
        assert_eq!(records(&mut aside, s(4)), [record(2, 2), record(1, 6)]);
        assert_eq!((aside.len(), aside.deadline()), (0, None));
        for client in 1..=3 {
            aside.keep(record(client, 0), &peer, s(10));
        }
        assert_eq!((aside.len(), aside.given_up), (2, 1));
        // Older news, and second-hand ones, do not take its place; newer ones do.
        assert!(!aside.yields(&record(3, 3), How::Live, s(10)));
        assert!(!aside.yields(&record(3, 0), How::SecondHand, s(12)));
        assert_eq!(aside.len(), 2);
        assert!(aside.yields(&record(3, 0), How::Live, s(10)));
        assert!(aside.yields(&record(4, 0), How::Live, s(10)));
        assert_eq!(aside.len(), 1);
        assert_eq!(
            records(&mut aside, Duration::from_millis(10_100)),
            [record(2, 1)]
        );
        aside.keep(record(4, 0), &peer, s(20));
        aside.expire(s(79));
        assert_eq!(aside.len(), 1);
        aside.expire(s(80));
        assert_eq!((aside.len(), aside.given_up), (0, 2));
        let mut none = Aside::new(0, s(60));
        none.keep(record(1, 0), &peer, s(1));
        assert_eq!((none.len(), none.given_up), (0, 1));
    }
}
