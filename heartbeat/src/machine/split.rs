//! Splits: two nodes serve the same group. Told of when they begin, and when they are over.

use std::net::IpAddr;

use super::node::{Machine, tell};
use super::types::{Action, Alert};
use crate::wire::vrrp::Advert;

impl Machine {
    /// A foreign router is primary too and has to yield.
    pub(super) fn foreign_split(
        &mut self,
        index: usize,
        from: IpAddr,
        advert: &Advert,
        actions: &mut Vec<Action>,
    ) {
        let over_at = self.now + advert.interval * 3;
        match &mut self.units[index].foreign_split {
            Some((_, until)) => *until = over_at,
            none => {
                *none = Some((from, over_at));
                self.split_begins(index, &from.to_string(), true, actions);
            }
        }
    }

    pub(super) fn split_begins(
        &self,
        unit: usize,
        other: &str,
        stays: bool,
        actions: &mut Vec<Action>,
    ) {
        let alert = |group| Alert::SplitBrain {
            group,
            other: other.to_owned(),
            stays,
        };
        self.tell_of_each(unit, alert, actions);
    }

    pub(super) fn split_is_over(&self, unit: usize, other: &str, actions: &mut Vec<Action>) {
        let alert = |group| Alert::SplitBrainOver {
            group,
            other: other.to_owned(),
        };
        self.tell_of_each(unit, alert, actions);
    }

    /// The same of each group of a unit.
    fn tell_of_each(
        &self,
        unit: usize,
        alert: impl Fn(String) -> Alert,
        actions: &mut Vec<Action>,
    ) {
        let groups = self.units[unit].groups.iter();
        let names = groups.map(|group| self.config.groups[*group].name.clone());
        tell(names.map(alert).collect(), actions);
    }
}
