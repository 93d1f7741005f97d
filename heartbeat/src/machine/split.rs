//! Splits: two nodes serve the same group. Told of when they begin, and when they are over.

use std::net::IpAddr;
use std::time::Duration;

use super::node::{Machine, tell};
use super::types::{Action, Alert};
use super::unit::ForeignSplit;
use crate::config::limits::{FOREIGN_SPLITS, SAID_ANEW};

impl Machine {
    /// A foreign router is primary too and has to yield. It is so until then, if nothing more is heard.
    pub(super) fn foreign_split(
        &mut self,
        index: usize,
        from: IpAddr,
        until: Duration,
        actions: &mut Vec<Action>,
    ) {
        let unit = &mut self.units[index];
        if let Some(split) = &mut unit.foreign_split {
            split.until = until;
            return;
        }
        // Anybody can have any number of them begin.
        let is_told = unit.foreign_splits.may(self.now, FOREIGN_SPLITS, SAID_ANEW);
        unit.foreign_split = Some(ForeignSplit {
            address: from,
            until,
            is_told,
        });
        if is_told {
            self.split_begins(index, &from.to_string(), true, actions);
        }
    }

    pub(super) fn foreign_split_is_over(
        &self,
        unit: usize,
        split: ForeignSplit,
        actions: &mut Vec<Action>,
    ) {
        if split.is_told {
            self.split_is_over(unit, &split.address.to_string(), actions);
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
