//! The machine's status, for operators.

use super::node::Machine;
use super::peers::Peer;
use super::types::{ForeignStatus, GroupStatus, LinkId, LinkStatus, PeerStatus, Status};

impl Machine {
    /// All that operators can ask for, as of the last input.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            node: self.config.node.clone(),
            incarnation: self.incarnation,
            unfit: self.unfit.clone(),
            may_fail_back: self.filled.clone(),
            lowered_by: self.lowers,
            lease: self.lease_until.saturating_sub(self.now),
            nodes: self
                .peers
                .iter()
                .map(|peer| self.peer_status(peer))
                .collect(),
            groups: self.group_statuses(),
            history: self.history.iter().cloned().collect(),
            now: self.now,
        }
    }

    fn peer_status(&self, peer: &Peer) -> PeerStatus {
        let timing = &self.config.timing;
        let links = peer.links.iter().zip(&self.config.links);
        let links = links.filter_map(|(heard, link)| {
            let at = heard.at?;
            Some(LinkStatus {
                link: link.name.clone(),
                state: Peer::link_state(at, self.now, timing),
                last_heard: self.now.saturating_sub(at),
            })
        });
        PeerStatus {
            node: peer.name.clone(),
            state: peer.state,
            incarnation: (peer.incarnation > 0).then_some(peer.incarnation),
            hears_us: self.is_heard_by(peer),
            is_relayed: peer.is_relayed(self.now, timing),
            is_unproven: peer.is_unproven(),
            other_times_ms: peer.other_times.map(|(keepalive, deadtime)| {
                [keepalive, deadtime]
                    .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
            }),
            links: links.collect(),
        }
    }

    fn group_statuses(&self) -> Vec<GroupStatus> {
        let groups = self.config.groups.iter().enumerate();
        let groups = groups.filter_map(|(group, about)| {
            let index = self.unit_of(group)?;
            let unit = &self.units[index];
            let is_other = |peer: &&Peer| peer.is_alive() && peer.groups[group].is_primary;
            let primary = if unit.is_primary() {
                Some(self.config.node.clone())
            } else {
                self.peers
                    .iter()
                    .find(is_other)
                    .map(|peer| peer.name.clone())
            };
            let foreign = self.routers_of(index).find_map(|router| {
                let foreign = router.foreign_now(self.now)?;
                Some(ForeignStatus {
                    address: foreign.address,
                    priority: foreign.priority,
                    link: self.config.link_name(LinkId(router.link.0)).to_owned(),
                    last_heard: self.now.saturating_sub(foreign.heard_at),
                })
            });
            Some(GroupStatus {
                group: about.name.clone(),
                role: unit.role,
                reason: unit.reason.clone(),
                since: self.now.saturating_sub(unit.since),
                priority: unit.base,
                effective_priority: self.priority(index),
                is_standby: unit.is_standby,
                is_forced: unit.is_forced,
                failing: self.failing_for(index).cloned(),
                primary,
                foreign,
            })
        });
        groups.collect()
    }
}
