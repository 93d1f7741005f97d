//! What keeps an order of an operator from taking effect at once.

use std::time::Duration;

use super::decide::Other;
use super::node::{Machine, Stage};
use super::types::{Alert, Command, Scope};

impl Machine {
    /// Why an order that is in force by now has no effect yet, and for how long, as far as this node knows; none: nothing is
    /// known to keep it.
    pub(crate) fn delay(&self, command: Command, scope: &Scope) -> Option<String> {
        let delays = (0..self.units.len()).filter_map(|unit| {
            if !self.is_meant(unit, scope) || self.units[unit].base == 0 {
                return None;
            }
            let why = match command {
                Command::Standby => self.delays_standby(unit),
                Command::Takeover => self.delays_takeover(unit),
                Command::Ready => self.delays_failback(unit),
            }?;
            Some(format!("group {}: {why}", self.name_of(unit)))
        });
        let delays: Vec<String> = delays.collect();
        (!delays.is_empty()).then(|| delays.join("; "))
    }

    /// The heir holds back, or there is none.
    fn delays_standby(&self, unit: usize) -> Option<String> {
        if !self.units[unit].is_primary() {
            return None;
        }
        let others = self.others(unit);
        let heirs = others.iter().filter(|other| other.can_serve());
        let heir = heirs.max_by_key(|other| other.turn());
        let Some(heir) = heir else {
            // A foreign router may be there.
            let is_alone = self.routers.is_empty();
            return is_alone.then(|| Alert::NobodyElse(self.name_of(unit)).to_string());
        };
        let peer = &self.peers[heir.peer];
        let groups = self.units[unit].groups.iter();
        let held =
            groups.map(|group| peer.losses[*group].held_until(self.now, &self.config.timing));
        self.held(&peer.name, held.max()?)
    }

    /// It listens, or somebody must be fenced first.
    fn delays_takeover(&self, unit: usize) -> Option<String> {
        if self.units[unit].is_primary() {
            return None;
        }
        if let Stage::Starting(until) | Stage::Listening(until) = self.stage {
            let left = seconds(until.saturating_sub(self.now));
            return Some(format!("this node listens to the others for {left} more"));
        }
        if let Some(why) = self.unfenced(unit) {
            return Some(why);
        }
        // Of two that do not hear each other it waits for the other one.
        let others = self.others(unit);
        let waits = |other: &Other| other.can_serve() && !other.hears_us;
        let is_vacant = !others.iter().any(|other| other.is_primary);
        (is_vacant && others.iter().any(waits)).then(|| self.own_hold(unit))?
    }

    /// It goes before the primary, but holds back.
    fn delays_failback(&self, unit: usize) -> Option<String> {
        let own = self.standing(unit);
        let goes_before = |other: &Other| other.is_primary && own.rank > other.rank.unforced();
        let is_next = !own.is_primary && self.failback_delay().is_some();
        let waits = || self.unfenced(unit).or_else(|| self.own_hold(unit));
        (is_next && self.others(unit).iter().any(goes_before)).then(waits)?
    }

    fn own_hold(&self, unit: usize) -> Option<String> {
        let losses = &self.units[unit].losses;
        self.held(
            "this node",
            losses.held_until(self.now, &self.config.timing),
        )
    }

    fn held(&self, who: &str, until: Duration) -> Option<String> {
        let left = until.checked_sub(self.now).filter(|left| !left.is_zero())?;
        Some(format!(
            "{who} lost it more than once within a minute, and asks for it in {} at the earliest",
            seconds(left)
        ))
    }

    /// All groups of a unit.
    fn name_of(&self, unit: usize) -> String {
        let groups = self.units[unit].groups.iter();
        let names = groups.map(|group| self.config.groups[*group].name.as_str());
        names.collect::<Vec<_>>().join(", ")
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
