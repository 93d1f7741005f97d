//! Who is fenced before this node takes a group.
//!
//! A node that died as primary of the group is. Where fencing is required, so is one that may serve the group and was never
//! heard since this node's start: it may be primary and hang, or live beyond a link that is out, and what an earlier run of
//! this node knew of it is forgotten. That is what Pacemaker does by default (`startup-fencing`). One whose messages come and are
//! not believed was not heard either: they may be recorded ones, and if not, it does not reckon with this node and may serve. One
//! that was heard and then died as a backup is not fenced: it takes nothing without having fenced the primary.
//!
//! All this comes before a node takes what nobody serves, and before it asks for what another one serves, who would give it up
//! at once.

use std::time::Duration;

use super::node::{Machine, tell};
use super::peers::{Fencing, Peer};
use super::types::{Action, Alert, FenceResult, PeerState};
use super::unit::Last;

/// How long after a failed fencing that is required it is tried again.
const FENCE_AGAIN: Duration = Duration::from_secs(30);

impl Machine {
    /// Whether all are fenced who have to be before this node takes a unit. Asks for it.
    pub(super) fn is_fenced(&mut self, index: usize, actions: &mut Vec<Action>) -> bool {
        let Some(fence) = &self.config.fence else {
            return true;
        };
        let is_required = fence.required;
        let mut are_all = true;
        for position in 0..self.peers.len() {
            if !self.is_to_be_fenced(index, position, is_required) {
                continue;
            }
            let peer = &mut self.peers[position];
            let is_due = match peer.fence {
                Fencing::Done => continue,
                Fencing::Failed(_) if !is_required => continue,
                Fencing::Failed(at) => self.now >= at + FENCE_AGAIN,
                Fencing::Not => true,
                Fencing::Running => false,
            };
            if is_due {
                peer.fence = Fencing::Running;
                actions.push(Action::Fence(peer.name.clone()));
            }
            are_all = false;
        }
        are_all
    }

    fn is_to_be_fenced(&self, index: usize, position: usize, is_required: bool) -> bool {
        let (unit, peer) = (&self.units[index], &self.peers[position]);
        let mut groups = unit.groups.iter();
        match peer.state {
            PeerState::Dead => {
                let was_last =
                    matches!(unit.last_primary, Last::Peer(primary, _) if primary == position);
                was_last && groups.any(|group| peer.groups[*group].is_primary)
            }
            PeerState::Unknown => {
                let may_serve = |group: &usize| {
                    let priorities = &self.config.groups[*group].priorities;
                    priorities.contains_key(&peer.name)
                };
                is_required && groups.any(may_serve)
            }
            PeerState::Alive | PeerState::Late | PeerState::Left => false,
        }
    }

    /// Whether a peer that is not heard may be primary of anything, for all that this node knows.
    pub(super) fn may_serve_unheard(&self, position: usize) -> bool {
        (0..self.units.len()).any(|unit| self.is_to_be_fenced(unit, position, true))
    }

    /// A fencing program has ended.
    pub(super) fn fenced(&mut self, node: String, result: FenceResult, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.name == node) else {
            return;
        };
        // Who was heard meanwhile is fenced anew when he dies. They end in the order in which they were begun.
        if peer.stale_fences > 0 {
            peer.stale_fences -= 1;
        } else if peer.fence == Fencing::Running {
            peer.fence = match result {
                FenceResult::Done => Fencing::Done,
                FenceResult::Failed => Fencing::Failed(self.now),
            };
        }
        if result == FenceResult::Failed {
            tell(vec![Alert::FenceFailed(node)], actions);
        }
    }

    /// What a unit waits for because of fencing, in words; none: nothing.
    pub(super) fn unfenced(&self, index: usize) -> Option<String> {
        let is_required = self.config.fence.as_ref()?.required;
        let words = |(position, peer): (usize, &Peer)| {
            if !self.is_to_be_fenced(index, position, is_required) {
                return None;
            }
            match peer.fence {
                Fencing::Running => Some(format!("fencing of {} is under way", peer.name)),
                Fencing::Failed(at) if is_required => Some(format!(
                    "fencing of {} failed, without which nothing is taken over, and is tried again in {} s",
                    peer.name,
                    (at + FENCE_AGAIN).saturating_sub(self.now).as_secs()
                )),
                Fencing::Failed(_) | Fencing::Done | Fencing::Not => None,
            }
        };
        self.peers.iter().enumerate().find_map(words)
    }
}
