//! What a pass found.

use std::collections::HashSet;

use xdp_ebpf::connection::Value;
use xdp_ebpf::layout::{TemplateKey, limits};
use xdp_ebpf::state::{STATES, State};

use super::marks::Elsewhere;

/// What a destination or an endpoint has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that IPVS would call active: half-open and established ones.
    pub active: u64,
    /// The others: closing ones and UDP.
    pub inactive: u64,
    /// Entries of any kind that name it, copies among them. Its id means what it means as long as there are any.
    pub entries: u64,
}

/// What one pass over both tables found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    // Dense, by id, and as long as the highest id found: each place of a million is counted here.
    destinations: Vec<Counts>,
    endpoints: Vec<Counts>,
    /// Places taken in the IPv4 tables, copies included.
    pub entries4: u64,
    /// Places taken in the IPv6 tables, copies included.
    pub entries6: u64,
    /// Copies among them.
    pub copies: u64,
    /// Entries freed because their time had passed, or because another CPU's is the connection now.
    pub expired: u64,
    /// Entries freed because their destination or endpoint is gone: see [`super::Dead`].
    pub removed: u64,
    /// Connections in each state, by [`State`]'s number.
    pub states: [u64; STATES],
    /// Of the templates that were watched for, those whose client has a connection.
    pub live_templates: HashSet<TemplateKey>,
    /// Of services that track on change: slots with connections elsewhere than at their owners.
    pub elsewhere: Elsewhere,
}

impl Report {
    /// What a destination has.
    #[must_use]
    pub fn destination(&self, id: u32) -> Counts {
        let counts = self.destinations.get(id as usize);
        counts.copied().unwrap_or_default()
    }

    /// What an endpoint has.
    #[must_use]
    pub fn endpoint(&self, id: u16) -> Counts {
        let counts = self.endpoints.get(usize::from(id));
        counts.copied().unwrap_or_default()
    }

    /// Destinations that have entries.
    pub fn destinations(&self) -> impl Iterator<Item = (u32, Counts)> {
        let all = (0_u32..).zip(self.destinations.iter().copied());
        all.filter(|(_, counts)| counts.entries > 0)
    }

    /// Endpoints that have entries.
    pub fn endpoints(&self) -> impl Iterator<Item = (u16, Counts)> {
        let all = (0_u16..).zip(self.endpoints.iter().copied());
        all.filter(|(_, counts)| counts.entries > 0)
    }

    /// Counts an entry that stays, and with `counts` the connection that it stands for.
    #[inline]
    pub(super) fn count(&mut self, value: Value, endpoint: u16, counts: bool) {
        let state = State::from_u8(value.state());
        let is_active = state.is_some_and(State::is_active);
        let (active, inactive) = match (counts, is_active) {
            (false, _) => (0, 0),
            (true, true) => (1, 0),
            (true, false) => (0, 1),
        };
        let places = [
            at(&mut self.destinations, value.destination() as usize),
            at(&mut self.endpoints, usize::from(endpoint)),
        ];
        for place in places.into_iter().flatten() {
            place.active += active;
            place.inactive += inactive;
            place.entries += 1;
        }
        self.copies += u64::from(value.flags() & Value::COPY != 0);
        if let (Some(state), true) = (state, counts) {
            self.states[state as usize] += 1;
        }
    }
}

/// The counts of an id, made if need be.
#[inline]
fn at(counts: &mut Vec<Counts>, id: usize) -> Option<&mut Counts> {
    if counts.len() <= id {
        if id >= limits::DESTINATIONS as usize {
            return None;
        }
        counts.resize(id + 1, Counts::default());
    }
    counts.get_mut(id)
}
