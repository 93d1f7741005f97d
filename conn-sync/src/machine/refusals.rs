//! Datagrams that were refused: how many, why, whose was the last; and what operators are told of it without having asked.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::limits::WARN_EVERY;
use crate::wire::Reject;

/// Of one reason.
#[derive(Clone, Copy, Debug, Default)]
struct Of {
    datagrams: u64,
    last: Option<(SocketAddr, Duration)>,
    warned_at: Option<Duration>,
    /// Those that are no matter any more: that were warned of, or were too few to be.
    settled: u64,
    /// When the first came of those that are not.
    unsettled_since: Option<Duration>,
}

/// All that was refused.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals([Of; Reject::ALL.len()]);

/// What the log should say: that somebody is not understood, who has probably been configured otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Why.
    pub reason: Reject,
    /// Where the last of them came from.
    pub from: SocketAddr,
    /// How many since the last warning of this kind; those left out that were too few to be told of.
    pub datagrams: u64,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            reason,
            from,
            datagrams,
        } = self;
        let messages = if *datagrams == 1 {
            "message"
        } else {
            "messages"
        };
        write!(
            f,
            "refused {datagrams} {messages}, the last from {from}: {reason}"
        )?;
        match advice(*reason) {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

/// What to do about it. `None`: it happens without anybody's fault, and operators are told if they ask.
fn advice(reason: Reject) -> Option<&'static str> {
    Some(match reason {
        Reject::Signature => "expected: the same secret in the key's file of both directors",
        Reject::Key => {
            "expected: a key with the id that the other one signs with, as `key` or in `accept`, or no key at all in both files"
        }
        Reject::Version => "expected: directors of the same version, or an update of this one",
        Reject::SameName => "expected: another `node` in one of the two files",
        Reject::Unlisted => {
            "expected: its address among `peers`, if it is a director of this group"
        }
        Reject::Peers => "expected: fewer directors that share their connections",
        Reject::Old => {
            "expected: each start of a director later than those before it, by its machine's clock. Set that clock right and start the director anew; or somebody plays what was recorded"
        }
        Reject::Short
        | Reject::Long
        | Reject::Foreign
        | Reject::Malformed
        | Reject::Own
        | Reject::Replayed
        | Reject::Late => return None,
    })
}

/// How many within [`WARN_EVERY`] are told of. A few of a start before are still on their way when a director starts anew.
fn worth_telling(reason: Reject) -> u64 {
    match reason {
        Reject::Old => 10,
        _ => 1,
    }
}

/// A reason for refusing datagrams, and how many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Why.
    pub reason: Reject,
    /// The same for people.
    pub words: String,
    /// How many.
    pub datagrams: u64,
    /// Where the last one came from.
    pub last_from: SocketAddr,
    /// How long ago.
    pub last_ms_ago: u64,
}

impl Refusals {
    /// One more. What is to be told, if it is to be: each reason at most once in [`WARN_EVERY`].
    pub(super) fn note(
        &mut self,
        reason: Reject,
        from: SocketAddr,
        now: Duration,
    ) -> Option<Warning> {
        let of = &mut self.0[reason as usize];
        let is_past = of
            .unsettled_since
            .is_none_or(|since| now >= since + WARN_EVERY);
        if is_past && of.datagrams - of.settled < worth_telling(reason) {
            of.settled = of.datagrams;
            of.unsettled_since = Some(now);
        }
        of.datagrams += 1;
        of.last = Some((from, now));
        advice(reason)?;
        let is_soon = of.warned_at.is_some_and(|at| now < at + WARN_EVERY);
        if is_soon || of.datagrams - of.settled < worth_telling(reason) {
            return None;
        }
        of.warned_at = Some(now);
        let before = std::mem::replace(&mut of.settled, of.datagrams);
        Some(Warning {
            reason,
            from,
            datagrams: of.datagrams - before,
        })
    }

    /// For operators; what did not occur is left out.
    pub(super) fn report(&self, now: Duration) -> Vec<Refused> {
        let all = Reject::ALL.into_iter().zip(&self.0);
        let refused = all.filter_map(|(reason, of)| {
            let (last_from, at) = of.last?;
            let ago = now.saturating_sub(at).as_millis();
            Some(Refused {
                reason,
                words: reason.to_string(),
                datagrams: of.datagrams,
                last_from,
                last_ms_ago: u64::try_from(ago).unwrap_or(u64::MAX),
            })
        });
        refused.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_secret_is_told_once_a_minute() {
        let from = |last: u8| SocketAddr::from(([10, 0, 0, last], 8849));
        let mut refusals = Refusals::default();
        let mut told = Vec::new();
        for second in 0..150 {
            let now = Duration::from_secs(second);
            let from = from(2 + (second % 2) as u8);
            told.extend(refusals.note(Reject::Signature, from, now));
            // Nobody's fault.
            assert_eq!(refusals.note(Reject::Replayed, from, now), None);
        }
        let told: Vec<_> = told.iter().map(|it| (it.from, it.datagrams)).collect();
        assert_eq!(told, [(from(2), 1), (from(2), 60), (from(2), 60)]);
        // Another reason is told at once.
        let now = Duration::from_secs(150);
        let other = refusals.note(Reject::Key, from(9), now);
        let shown = other.map(|it| it.to_string()).unwrap_or_default();
        let expected = "refused 1 message, the last from 10.0.0.9:8849: signed with a key that is not known; expected: ";
        assert!(shown.starts_with(expected), "{shown}");
        let report = refusals.report(now);
        let seen: Vec<_> = report
            .iter()
            .map(|it| (it.reason, it.datagrams, it.last_from, it.last_ms_ago))
            .collect();
        let expected = [
            (Reject::Key, 1, from(9), 0),
            (Reject::Signature, 150, from(3), 1000),
            (Reject::Replayed, 150, from(3), 1000),
        ];
        assert_eq!(seen, expected);
    }

    /// A director whose clock was set back is told of; not what was still on its way when it started anew, however often it does,
    /// nor what came too late.
    #[test]
    fn a_few_stragglers_are_nobodys_fault() {
        // (why, how many seconds apart, how many, told of after)
        for (reason, apart_s, datagrams, expected) in [
            (Reject::Old, 0.2, 25, &[10][..]),
            (Reject::Old, 5.0, 25, &[10, 10]),
            (Reject::Old, 6.0, 10, &[10]),
            (Reject::Old, 10.0, 100, &[]),
            (Reject::Late, 0.2, 100, &[]),
        ] {
            let mut refusals = Refusals::default();
            let from = SocketAddr::from(([10, 0, 0, 3], 8849));
            let told = (0..datagrams).filter_map(|nth| {
                let now = Duration::from_secs_f64(apart_s * f64::from(nth));
                refusals.note(reason, from, now)
            });
            let told: Vec<_> = told.map(|it| it.datagrams).collect();
            assert_eq!(told, expected, "{reason:?} every {apart_s} s");
        }
    }
}
