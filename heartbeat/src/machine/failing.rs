//! A primary that does not serve all of a group: not all addresses could be added, again and again.
//!
//! It is as if an operator had ordered standby: any other node that can serve goes before, once it has the connections of this
//! one or has waited for them for `failback_limit`. Where there is none it goes on,
//! with the addresses that it has, and keeps trying. Nothing tells a backup that adding them would work by now, and trying
//! costs clients a second without an answer: so it stays last until an operator orders `ready` or `takeover`, its interface is
//! made anew, or all addresses could be added after all.

use super::node::{Machine, tell};
use super::types::{Action, Alert};

impl Machine {
    pub(super) fn take_failing(
        &mut self,
        group: usize,
        why: Option<String>,
        actions: &mut Vec<Action>,
    ) {
        let Some(unit) = self.unit_of(group) else {
            return;
        };
        // Somebody else has it by now.
        if why.is_some() && !self.units[unit].is_primary() {
            return;
        }
        let before = std::mem::replace(&mut self.failing[group], why.clone());
        let Some(why) = why.filter(|_| before.is_none()) else {
            return;
        };
        // The order was obeyed, as far as that goes: it keeps nobody else from serving.
        self.units[unit].is_forced = false;
        let group = self.config.groups[group].name.clone();
        tell(vec![Alert::Failing { group, why }], actions);
    }

    /// Why this node does not serve all of a unit; none: nothing is known to be wrong.
    pub(super) fn failing_for(&self, unit: usize) -> Option<&String> {
        let mut groups = self.units[unit].groups.iter();
        groups.find_map(|group| self.failing[*group].as_ref())
    }

    /// What was wrong may have been mended.
    pub(super) fn try_anew(&mut self, unit: usize) {
        for group in &self.units[unit].groups {
            self.failing[*group] = None;
        }
    }

    /// Whether this node, primary of a unit, serves it less well than configured. Not where an operator ordered standby: then
    /// another one takes it for that reason.
    pub(super) fn is_degraded(&self, unit: usize) -> bool {
        let is_lowered = self.priority(unit) < self.units[unit].base;
        !self.units[unit].is_standby && (is_lowered || self.failing_for(unit).is_some())
    }

    /// Whether this node serves a unit only if nobody else can.
    pub(super) fn is_last(&self, unit: usize) -> bool {
        self.units[unit].is_standby || self.failing_for(unit).is_some()
    }
}
