//! What a pass goes by: when connections of an endpoint are over, and what is gone.

use xdp_ebpf::connection::Value;
use xdp_ebpf::layout::limits;
use xdp_ebpf::state::{STATES, State, TIMEOUTS_S};
use xdp_ebpf::walk::idle_s;

/// Longest timeout. The clock of entries has 16 bits and wraps after 18 hours: what has not been used for half a day is
/// found and freed long before it looks new again.
pub const LONGEST_TIMEOUT_S: u16 = 12 * 60 * 60;

/// What a pass must know of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointRule {
    /// Idle seconds after which its connections are forgotten, by the number of a [`State`]; [`LONGEST_TIMEOUT_S`] at
    /// the most.
    pub timeouts_s: [u16; STATES],
    /// How persistence names its clients.
    pub persistence: Option<Persistence>,
}

impl Default for EndpointRule {
    fn default() -> Self {
        Self {
            timeouts_s: TIMEOUTS_S,
            persistence: None,
        }
    }
}

/// How persistence names a client of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// Service id.
    pub service: u16,
    /// Bits of the client's address that count.
    pub mask: [u8; 16],
    /// Whether endpoint and port are part of the name.
    pub per_port: bool,
    /// Its port, network order; of a range connections say it themselves.
    pub port: [u8; 2],
    /// Idle seconds after which a client is forgotten.
    pub timeout_s: u32,
}

/// Destinations and endpoints whose entries are freed at once, whatever their age.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dead {
    destinations: Ids,
    endpoints: Ids,
}

impl Dead {
    /// These.
    #[must_use]
    pub fn new(
        destinations: impl IntoIterator<Item = u32>,
        endpoints: impl IntoIterator<Item = u16>,
    ) -> Self {
        Self {
            destinations: Ids::new(destinations),
            endpoints: Ids::new(endpoints.into_iter().map(u32::from)),
        }
    }
}

/// A set of ids, a bit for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ids(Vec<u64>);

impl Ids {
    /// Ids beyond [`limits::DESTINATIONS`] are none.
    fn new(ids: impl IntoIterator<Item = u32>) -> Self {
        let mut words = Vec::new();
        for id in ids.into_iter().filter(|id| *id < limits::DESTINATIONS) {
            let word = id as usize / 64;
            if words.len() <= word {
                words.resize(word + 1, 0_u64);
            }
            words[word] |= 1 << (id % 64);
        }
        Self(words)
    }

    #[inline]
    fn contains(&self, id: u32) -> bool {
        match self.0.get(id as usize / 64) {
            Some(word) => word >> (id % 64) & 1 != 0,
            None => false,
        }
    }
}

/// All rules.
#[derive(Debug, Default)]
pub(super) struct Rules {
    endpoints: Vec<EndpointRule>,
    dead: Dead,
}

impl Rules {
    /// Rules of endpoints, by id.
    pub(super) fn set_endpoints(&mut self, mut rules: Vec<EndpointRule>) {
        for timeout_s in rules.iter_mut().flat_map(|rule| &mut rule.timeouts_s) {
            *timeout_s = (*timeout_s).min(LONGEST_TIMEOUT_S);
        }
        self.endpoints = rules;
    }

    pub(super) fn set_dead(&mut self, dead: Dead) {
        self.dead = dead;
    }

    /// How persistence names clients of an endpoint.
    pub(super) fn persistence(&self, endpoint: u16) -> Option<&Persistence> {
        self.endpoints
            .get(usize::from(endpoint))
            .and_then(|rule| rule.persistence.as_ref())
    }

    /// Whether an entry is freed whatever its age. One whose destination cannot be is.
    #[inline]
    pub(super) fn is_dead(&self, value: Value, endpoint: u16) -> bool {
        value.destination() >= limits::DESTINATIONS
            || self.dead.destinations.contains(value.destination())
            || self.dead.endpoints.contains(u32::from(endpoint))
    }

    /// Whether an entry has been idle longer than its state allows. One of unknown state has.
    #[inline]
    pub(super) fn is_expired(&self, value: Value, endpoint: u16, now_s: u32) -> bool {
        let Some(state) = State::from_u8(value.state()) else {
            return true;
        };
        let timeouts_s = match self.endpoints.get(usize::from(endpoint)) {
            Some(rule) => &rule.timeouts_s,
            None => &TIMEOUTS_S,
        };
        idle_s(value, now_s) > timeouts_s[state as usize]
    }
}
