//! What destinations have to do: correcting the packet path's live counts, and their thresholds.
//!
//! The packet path raises and lowers a count when a connection begins, changes its kind or gives way. It does not see
//! connections expire, and two CPUs with entries of the same connection can disagree. A pass over the tables counts
//! exactly, but takes a while, during which the live counts go on. So a count is read when the pass begins (S) and when it
//! ends (V); what the pass found (E) is of somewhere in between, on average of the middle, since entries stand in the
//! table in the order of their hash. E - (S + V) / 2 is added: at rest that makes the count exact; under load what is
//! wrong stays below the connections that began or ended during one pass, and is corrected by the next.

use std::sync::atomic::Ordering;

use xdp_ebpf::layout::{Load, load};

use super::pass::Report;

/// Live counts at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot(Vec<(u32, Live)>);

/// Live counts of a destination; below 0 for moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Live {
    active: i64,
    inactive: i64,
}

impl Live {
    fn of(load: &Load) -> Self {
        Self {
            active: load.active.load(Ordering::Relaxed).cast_signed(),
            inactive: load.inactive.load(Ordering::Relaxed).cast_signed(),
        }
    }
}

/// Reads the counts of these destinations.
pub fn snapshot(loads: &[Load], destinations: impl Iterator<Item = u32>) -> Snapshot {
    let known = destinations.filter_map(|id| Some((id, Live::of(loads.get(id as usize)?))));
    Snapshot(known.collect())
}

/// Corrects the counts of the destinations of a snapshot, taken when the pass of the report began.
pub fn correct(loads: &[Load], begun: &Snapshot, report: &Report) {
    for (id, then) in &begun.0 {
        let Some(load) = loads.get(*id as usize) else {
            continue;
        };
        let now = Live::of(load);
        let found = report.destination(*id);
        let missing = |found: u64, then: i64, now: i64| (2 * found.cast_signed() - then - now) / 2;
        let active = missing(found.active, then.active, now.active);
        let inactive = missing(found.inactive, then.inactive, now.inactive);
        for (count, missing) in [(&load.active, active), (&load.inactive, inactive)] {
            if missing != 0 {
                count.fetch_add(missing.cast_unsigned(), Ordering::Relaxed);
            }
        }
        check_thresholds(load);
    }
}

/// Marks a destination that reached its upper threshold and clears the mark below the lower one, which is three quarters
/// of the upper one if none was given (`ip_vs_bind_dest` and `ip_vs_unbind_dest` in `net/netfilter/ipvs/ip_vs_conn.c`).
fn check_thresholds(load: &Load) {
    let live = Live::of(load);
    let connections = live.active.max(0).cast_unsigned() + live.inactive.max(0).cast_unsigned();
    let upper = load.upper.load(Ordering::Relaxed);
    let lower = load.lower.load(Ordering::Relaxed);
    let is_overloaded = load.flags.load(Ordering::Relaxed) & load::OVERLOADED != 0;
    let has_room = match (upper, lower) {
        (0, _) => true,
        (upper, 0) => connections * 4 < upper * 3,
        (_, lower) => connections < lower,
    };
    if is_overloaded && has_room {
        load.flags.store(0, Ordering::Relaxed);
    } else if !is_overloaded && upper != 0 && connections >= upper {
        load.flags.store(load::OVERLOADED, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(active: i64, inactive: i64) -> Load {
        Load {
            active: active.cast_unsigned().into(),
            inactive: inactive.cast_unsigned().into(),
            ..Load::default()
        }
    }

    #[test]
    fn at_rest_counts_become_what_was_found() {
        for (active, inactive) in [(0, 0), (7, 3), (-2, 900), (i64::from(u32::MAX), -1)] {
            let loads = [Load::default(), load(active, inactive)];
            let begun = snapshot(&loads, [1].into_iter());
            correct(&loads, &begun, &Report::default());
            assert_eq!(Live::of(&loads[1]), Live::default(), "{active} {inactive}");
        }
    }

    #[test]
    fn what_begins_during_a_pass_is_not_taken_for_an_error() {
        let loads = [load(100, 0)];
        let begun = snapshot(&loads, [0].into_iter());
        // Fifty begin; the pass, which found nothing at all, sees half of them on average.
        loads[0].active.fetch_add(50, Ordering::Relaxed);
        correct(&loads, &begun, &Report::default());
        assert_eq!(Live::of(&loads[0]).active, 150 - 125);
    }

    #[test]
    fn thresholds_have_two_ends() {
        // (upper, lower, connections, overloaded before, overloaded after)
        let cases = [
            (0, 0, 1_000_000, true, false),
            (10, 0, 9, false, false),
            (10, 0, 10, false, true),
            (10, 0, 8, true, true),
            (10, 0, 7, true, false),
            (10, 3, 7, true, true),
            (10, 3, 3, true, true),
            (10, 3, 2, true, false),
            (10, 3, 11, true, true),
        ];
        for (upper, lower, connections, before, after) in cases {
            let load = load(connections / 2, connections - connections / 2);
            load.upper.store(upper, Ordering::Relaxed);
            load.lower.store(lower, Ordering::Relaxed);
            load.flags
                .store(if before { load::OVERLOADED } else { 0 }, Ordering::Relaxed);
            check_thresholds(&load);
            let flags = load.flags.load(Ordering::Relaxed);
            assert_eq!(
                flags & load::OVERLOADED != 0,
                after,
                "{connections} of {lower} to {upper}"
            );
        }
    }
}
