//! What the rules promise, as functions of the configuration. The simulator holds the machine to these.

use std::time::Duration;

use crate::config::{Config, LinkKind, Timing};

/// How long a heartbeat may be under way on a link that counts as working, as a share of `keepalive`: all of it.
const DELAY: u32 = 1;

impl Timing {
    /// For how long a node may serve after it last showed that it runs.
    ///
    /// Its last heartbeat is at most `keepalive` older than that, and nobody takes over before `deadtime` after it: so a
    /// node that stands still has fallen silent before another one serves. A quarter of `keepalive` is left for clocks
    /// that differ.
    #[must_use]
    pub fn lease(&self) -> Duration {
        let before = self.keepalive + self.keepalive / 4;
        self.deadtime.saturating_sub(before)
    }

    /// How long a node listens after it stood still: what the others do now is heard by then, and who is not, is dead.
    #[must_use]
    pub fn listen(&self) -> Duration {
        self.deadtime + self.keepalive
    }

    /// How long a node waits for a better one that takes nothing, before it does.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.deadtime + self.keepalive
    }

    /// Longest time between the loss of groups by a node and its taking them back from another one, however often it lost
    /// them before.
    #[must_use]
    pub fn longest_hold(&self) -> Duration {
        (self.deadtime * 8).min(self.deadtime.max(Duration::from_secs(60)))
    }
}

impl Config {
    /// For how long a node may serve after it last showed that it runs: also before a VRRP router would take over, which
    /// it does after three intervals.
    #[must_use]
    pub fn lease(&self) -> Duration {
        let intervals = self.links.iter().filter_map(|link| match &link.kind {
            LinkKind::Vrrp(vrrp) => Some(vrrp.interval * 2),
            LinkKind::Udp(_) | LinkKind::Serial(_) => None,
        });
        intervals.fold(self.timing.lease(), Duration::min)
    }

    /// How long a node is at most held for alive after its last message: by its neighbours for `deadtime`, and by each
    /// further node along a chain of links for twice as long again at worst, when messages get lost just before.
    #[must_use]
    pub fn detection(&self) -> Duration {
        let hops = u32::try_from(self.nodes.len().max(2) * 2 - 3).unwrap_or(u32::MAX);
        let Timing {
            keepalive,
            deadtime,
            ..
        } = self.timing;
        (deadtime + keepalive * (1 + DELAY)) * hops
    }

    /// How long two nodes are primary of one group at most, while a link between them works: no heartbeat is more than
    /// `deadtime` after the one before it, in at least one direction.
    ///
    /// Where it works in both directions, the next message that arrives ends it; where messages are signed and one of them has
    /// just started, the one after that, which shows that it is no recorded one. Where only one hears the other, and may
    /// believe it, it waits for `deadtime` to be sure that it is not heard.
    #[must_use]
    pub fn two_primaries(&self) -> Duration {
        let Timing {
            keepalive,
            deadtime,
            ..
        } = self.timing;
        let proof = match self.keys {
            Some(_) => keepalive * (1 + DELAY),
            None => Duration::ZERO,
        };
        deadtime * 2 + keepalive * (2 + DELAY) + proof
    }

    /// How soon after the last fault a group has a primary, if any node is fit for it.
    ///
    /// The death of a primary is noticed, a node that just started or stood still waits, a better node that takes nothing
    /// is waited for, the longer the oftener that was in vain, a primary along the chain that does not hear the others yields. VRRP groups wait for foreign routers besides.
    #[must_use]
    pub fn primary_after_faults(&self) -> Duration {
        let timing = self.timing;
        let waits =
            timing.initdead.max(timing.listen()) + timing.patience() * 2 + timing.longest_hold();
        self.detection() + waits + self.two_primaries() + self.foreign_silence()
    }

    /// How soon after the last fault the preferred node is primary again with `auto_failback: true`, as long as it is fit.
    #[must_use]
    pub fn preferred_after_faults(&self) -> Duration {
        let timing = self.timing;
        let handed_over = timing.keepalive * (2 + 2 * DELAY) + timing.deadtime;
        self.primary_after_faults() + handed_over
    }

    /// The longest time for which a foreign VRRP router is waited for: three of its intervals and the skew.
    fn foreign_silence(&self) -> Duration {
        let intervals = self.links.iter().filter_map(|link| match &link.kind {
            LinkKind::Vrrp(vrrp) => Some(vrrp.interval * 4),
            LinkKind::Udp(_) | LinkKind::Serial(_) => None,
        });
        intervals.max().unwrap_or_default()
    }
}
