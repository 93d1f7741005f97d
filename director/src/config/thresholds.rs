//! The thresholds of real servers: a pair that may be written in the defaults, in a service and beside a real server.

use super::error::Mistake;
use super::file::Threshold;
use super::resolve::Resolver;
use super::value::{Optional, Value};

/// From how many connections on a real server gets no new ones, and below how many it does again; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Thresholds {
    pub(super) upper: u32,
    pub(super) lower: u32,
}

impl Resolver {
    /// What is not written is as outside. A pair that makes no sense is a mistake where it comes together, and only there:
    /// further inside it is not told once more for every real server that inherits it. `has_upper_inside`: whether somebody
    /// further inside may have the upper threshold to a lower one.
    pub(super) fn thresholds(
        &mut self,
        upper: &Optional<Value<Threshold>>,
        lower: &Optional<Value<Threshold>>,
        outside: Thresholds,
        has_upper_inside: bool,
    ) -> Thresholds {
        let mistakes_before = self.mistakes.len();
        let found = Thresholds {
            upper: self.or(upper, outside.upper),
            lower: self.or(lower, outside.lower),
        };
        let Some(written) = lower.as_ref().or(upper.as_ref()) else {
            return found;
        };
        if self.mistakes.len() > mistakes_before {
            // Of what could not be read nothing more is known.
            return Thresholds { lower: 0, ..found };
        }
        if lower.is_some() && found.lower > 0 && found.upper == 0 && !has_upper_inside {
            let message = format!("the lower threshold {} is of no upper one", found.lower);
            self.mistakes.push(Mistake::new(
                written.place,
                message,
                "the key \"upper_threshold\" too: below the lower one a real server gets new connections again",
            ));
            return Thresholds { lower: 0, ..found };
        }
        if found.upper == 0 || found.lower <= found.upper {
            return found;
        }
        let Thresholds { upper, lower } = found;
        let message = format!("the lower threshold {lower} is above the upper one {upper}");
        self.mistakes.push(Mistake::new(
            written.place,
            message,
            "a lower threshold that is not above the upper one",
        ));
        Thresholds { upper, lower: 0 }
    }
}
