//! What is told again although nothing has changed: the kernel's protocol has no answers, so that nobody knows what was lost
//! on the way (`sync_retries`).

use std::collections::VecDeque;
use std::time::Duration;

use crate::directory::Handle;

/// Connections that wait to be told again, at most: 12 MB. Of more none is, which does no harm but where a message is lost.
const WAITING: usize = 1 << 18;

/// Something that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    due: Duration,
    handle: Handle,
    /// How many times yet.
    times: u8,
}

/// All that waits, in the order in which it is due.
#[derive(Debug, Default)]
pub(super) struct Retries {
    times: u8,
    apart: Duration,
    waiting: VecDeque<Waiting>,
}

impl Retries {
    /// Each is told so many times more (`sync_retries`), an eighth of the time apart after which it is refreshed
    /// (`ip_vs_sync_conn_needed` in `net/netfilter/ipvs/ip_vs_sync.c`).
    pub(super) fn new(times: u8, refresh_s: u16) -> Self {
        Self {
            times,
            apart: Duration::from_secs(refresh_s.max(1).into()) / 8,
            waiting: VecDeque::new(),
        }
    }

    /// These have been told because they changed, or were refreshed.
    pub(super) fn told(&mut self, handles: impl IntoIterator<Item = Handle>, now: Duration) {
        let times = self.times;
        self.keep(handles.into_iter().map(|it| (it, times)), now);
    }

    fn keep(&mut self, handles: impl Iterator<Item = (Handle, u8)>, now: Duration) {
        let due = now + self.apart;
        let handles = handles.filter(|(_, times)| *times > 0);
        let room = WAITING.saturating_sub(self.waiting.len());
        let handles = handles.take(room);
        self.waiting
            .extend(handles.map(|(handle, times)| Waiting { due, handle, times }));
    }

    /// When the next one is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.waiting.front().map(|first| first.due)
    }

    /// At most so many that are due; they are due again later as often as is left.
    pub(super) fn due(&mut self, most: usize, now: Duration) -> Vec<Handle> {
        let count = self.waiting.iter().take(most);
        let count = count.take_while(|it| it.due <= now).count();
        let due: Vec<Waiting> = self.waiting.drain(..count).collect();
        let again = due.iter().map(|it| (it.handle, it.times - 1));
        self.keep(again, now);
        due.into_iter().map(|it| it.handle).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_again_so_many_times() {
        let ms = Duration::from_millis;
        let handles = |count: u64| (0..count).map(Handle::Narrow);
        // (retries, refresh period, when each is told again in ms)
        for (times, refresh_s, expected) in [
            (0, 60, &[][..]),
            (1, 8, &[1000]),
            (3, 8, &[1000, 2000, 3000]),
            (2, 60, &[7500, 15_000]),
        ] {
            let mut retries = Retries::new(times, refresh_s);
            retries.told(handles(3), ms(0));
            let mut told = Vec::new();
            for now in (0..100_000).step_by(100).map(ms) {
                let due = retries.due(10, now);
                assert!(due.is_empty() || due.len() == 3, "{due:?}");
                if !due.is_empty() {
                    told.push(now.as_millis());
                }
            }
            assert_eq!(told, expected, "{times} in {refresh_s} s");
            assert_eq!(retries.deadline(), None);
        }
    }

    #[test]
    fn not_more_at_once_than_may_be_told_and_not_more_in_all_than_there_is_room_for() {
        let mut retries = Retries::new(1, 8);
        retries.told((0..u64::MAX).map(Handle::Narrow), Duration::ZERO);
        assert_eq!(retries.waiting.len(), WAITING);
        assert_eq!(retries.deadline(), Some(Duration::from_secs(1)));
        let now = Duration::from_secs(9);
        assert_eq!(retries.due(0, now), []);
        assert_eq!(retries.due(2, now), [0, 1].map(Handle::Narrow));
        assert_eq!(retries.due(usize::MAX, now).len(), WAITING - 2);
    }
}
