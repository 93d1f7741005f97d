//! What peers tell of each other's connections while a bulk resync is under way: it waits.
//!
//! A record does not say whose it is. It may be news of the very node whose walk is under way, and newer than what that walk has
//! read already and is still to come, which would undo it. Neither of the two can be left out: the walk's may be the newer one.

use std::hash::Hash;
use std::time::Duration;

use super::limits::SECOND_HAND;
use super::node::Machine;
use super::types::Action;
use crate::entry::{How, Record};

impl<H: Copy + Eq + Hash> Machine<H> {
    /// Keeps second-hand records of a live update back while a bulk resync is under way; gives the others.
    pub(super) fn hold_back(
        &mut self,
        index: usize,
        records: Vec<(Record, bool)>,
        now: Duration,
        actions: &mut Vec<Action<H>>,
    ) -> Vec<(Record, bool)> {
        if !self.peers.is_any_in_session() {
            return records;
        }
        let (second_hand, own): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|(_, is_learned)| *is_learned);
        let second_hand = second_hand.into_iter().map(|(record, _)| (record, now));
        self.peers.all[index].second_hand.extend(second_hand);
        let waiting = self.peers.all.iter().map(|peer| peer.second_hand.len());
        if waiting.sum::<usize>() > SECOND_HAND {
            self.pause(now, actions);
        }
        own
    }

    /// The walk that is under way goes on later from where it is: what it reads then is newer than what waits.
    fn pause(&mut self, now: Duration, actions: &mut Vec<Action<H>>) {
        for peer in &mut self.peers.all {
            if let Some(session) = peer.bulk.session() {
                actions.push(Action::StopBulk { session });
                peer.bulk.lost(now);
            }
        }
        self.release(now, actions);
    }

    /// Something waits, and needs not any more.
    pub(super) fn is_to_be_released(&self) -> bool {
        let mut all = self.peers.all.iter();
        all.any(|peer| !peer.second_hand.is_empty()) && !self.peers.is_any_in_session()
    }

    /// Applies what waits, as old as it is by now, unless a bulk resync is under way.
    pub(super) fn release(&mut self, now: Duration, actions: &mut Vec<Action<H>>) {
        if !self.is_to_be_released() {
            return;
        }
        for index in 0..self.peers.all.len() {
            let peer = &mut self.peers.all[index];
            let node = peer.node.clone();
            let waiting = std::mem::take(&mut peer.second_hand).into_iter();
            let records = waiting.map(|(record, at)| (record.waited(now.saturating_sub(at)), true));
            self.apply(&node, records.collect(), How::SecondHand, now, actions);
        }
    }
}
